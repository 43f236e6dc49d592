"""What is broken right now, and the executed schedule of faults: one record a step, with the interval in which it
took hold.

The schedule is what makes a run explainable: a target drawn from a seed is not one until the leader of that moment is
known.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec

Link = tuple[str, str]
"""From, to: one direction."""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One executed step. Before `start_ns` it was in force nowhere, after `end_ns` everywhere (CLOCK_MONOTONIC)."""

    package: str
    f: str
    """What was done: cut, heal, kill, restart, pause, resume."""
    nodes: tuple[str, ...]
    """The nodes at which it aimed."""
    what: str
    """For people."""
    leader: str | None
    """Who led when the target was chosen, as far as anybody said."""
    start_ns: int
    end_ns: int
    cut: tuple[Link, ...]
    """All links cut after this step; `paused` and `dead` likewise."""
    paused: tuple[str, ...]
    dead: tuple[str, ...]
    error: str = ""

    @property
    def breaks(self) -> bool:
        """Whether this step broke something, rather than mended it or came to nothing."""
        return self.f in ("cut", "kill", "pause") and bool(self.nodes)

    @property
    def hit_leader(self) -> bool:
        """Whether it broke the leader of the moment."""
        return self.breaks and self.leader in self.nodes


class Breakable(Protocol):
    """The part of a cluster that a nemesis needs (jepsen_like.cluster.api.Cluster)."""

    servers: tuple[str, ...]
    clients: tuple[str, ...]

    async def cut_links(self, links: Iterable[Link]) -> tuple[int, int]: ...

    async def heal(self) -> tuple[int, int]: ...

    async def kill(self, node: str) -> tuple[int, int]: ...

    async def pause(self, node: str) -> tuple[int, int]: ...

    async def resume(self, node: str) -> tuple[int, int]: ...

    async def restart(self, node: str) -> tuple[int, int]: ...

    async def leader(self, timeout_s: float = 0.5) -> str | None: ...


class FaultBook:
    """Breaks and mends, one step at a time, and writes down what was done. Steps that make no sense do nothing."""

    def __init__(self, cluster: Breakable, record: Callable[[Fault], None], failures: type[Exception]) -> None:
        self.cluster = cluster
        self._record = record
        self._failures = failures
        self._cut: set[Link] = set()
        self.paused: set[str] = set()
        self.dead: set[str] = set()
        self._one_at_a_time = asyncio.Lock()

    async def leader(self) -> str | None:
        """Who leads, if anybody says so soon."""
        return await self.cluster.leader(0.3)

    async def cut(
        self, package: str, links: Iterable[Link], nodes: tuple[str, ...], what: str, leader: str | None
    ) -> Fault:
        """Cut directed links."""
        async with self._one_at_a_time:
            chosen = tuple(sorted(set(links)))
            start_ns, end_ns = await self.cluster.cut_links(chosen)
            self._cut |= set(chosen)
            return self._note(package, "cut", nodes, what, leader, start_ns, end_ns)

    async def heal(self, package: str) -> Fault:
        """All links are clear again."""
        async with self._one_at_a_time:
            start_ns, end_ns = await self.cluster.heal()
            self._cut.clear()
            return self._note(package, "heal", (), "all links", None, start_ns, end_ns)

    async def kill(self, package: str, nodes: tuple[str, ...], leader: str | None) -> Fault:
        """kill -9 all of `nodes` that are alive."""
        return await self._processes(package, "kill", nodes, leader, lambda node: node not in self.dead)

    async def restart(self, package: str) -> Fault:
        """Start all that are dead."""
        return await self._processes(package, "restart", tuple(sorted(self.dead)), None, lambda node: node in self.dead)

    async def pause(self, package: str, nodes: tuple[str, ...], leader: str | None) -> Fault:
        """SIGSTOP all of `nodes` that run."""

        def runs(node: str) -> bool:
            return node not in self.dead and node not in self.paused

        return await self._processes(package, "pause", nodes, leader, runs)

    async def resume(self, package: str) -> Fault:
        """SIGCONT all that are paused."""
        return await self._processes(
            package, "resume", tuple(sorted(self.paused)), None, lambda node: node in self.paused
        )

    async def _processes(
        self, package: str, f: str, nodes: tuple[str, ...], leader: str | None, sensible: Callable[[str], bool]
    ) -> Fault:
        async with self._one_at_a_time:
            done: list[str] = []
            intervals: list[tuple[int, int]] = []
            error = ""
            for node in nodes:
                if not sensible(node):
                    continue
                try:
                    intervals.append(await self._act(f, node))
                    done.append(node)
                except self._failures as failure:
                    error = f"{node}: {failure}"
            start_ns = min((start for start, _ in intervals), default=0)
            end_ns = max((end for _, end in intervals), default=0)
            return self._note(package, f, tuple(done), ", ".join(done), leader, start_ns, end_ns, error)

    async def _act(self, f: str, node: str) -> tuple[int, int]:
        match f:
            case "kill":
                interval = await self.cluster.kill(node)
                self.dead.add(node)
                self.paused.discard(node)
            case "restart":
                interval = await self.cluster.restart(node)
                self.dead.discard(node)
            case "pause":
                interval = await self.cluster.pause(node)
                self.paused.add(node)
            case "resume":
                interval = await self.cluster.resume(node)
                self.paused.discard(node)
            case _:
                raise AssertionError(f)
        return interval

    def _note(
        self,
        package: str,
        f: str,
        nodes: tuple[str, ...],
        what: str,
        leader: str | None,
        start_ns: int,
        end_ns: int,
        error: str = "",
    ) -> Fault:
        fault = Fault(
            package=package,
            f=f,
            nodes=nodes,
            what=what,
            leader=leader,
            start_ns=start_ns,
            end_ns=end_ns,
            cut=tuple(sorted(self._cut)),
            paused=tuple(sorted(self.paused)),
            dead=tuple(sorted(self.dead)),
            error=error,
        )
        if nodes or f == "heal" or error:
            self._record(fault)
        return fault
