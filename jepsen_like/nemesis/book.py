"""What is broken right now, and the executed schedule of faults: one record a step, with the interval in which it
took hold.

The schedule is what makes a run explainable: a target drawn from a seed is not one until the leader of that moment is
known. Whoever broke something mends it: the book remembers to which package each cut link and each missing process
belongs, so that one package's mending leaves another's fault in force.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Protocol

import msgspec

from jepsen_like.net.rules import LinkRule

Link = tuple[str, str]
"""From, to: one direction."""

BREAKS = frozenset({"cut", "kill", "pause", "remove", "demote", "transfer", "roll"})
"""Steps that take something away from the cluster; all others mend, or tell of an attempt that came to nothing."""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One executed step. Before `start_ns` it was in force nowhere, after `end_ns` everywhere (CLOCK_MONOTONIC)."""

    package: str
    f: str
    """What was done: cut, heal; kill, restart; pause, resume; remove, demote, restore; transfer; roll."""
    nodes: tuple[str, ...]
    """The nodes at which it aimed; empty if it came to nothing."""
    what: str
    """For people."""
    leader: str | None
    """Who led when the target was chosen, as far as anybody said."""
    start_ns: int
    end_ns: int
    cut: tuple[Link, ...]
    """All links cut after this step; `paused`, `dead` and `away` likewise."""
    paused: tuple[str, ...]
    dead: tuple[str, ...]
    away: tuple[str, ...] = ()
    """Servers that are no voters: removed, or demoted."""
    error: str = ""

    @property
    def breaks(self) -> bool:
        """Whether this step broke something, rather than mended it or came to nothing."""
        return self.f in BREAKS and bool(self.nodes)

    @property
    def hit_leader(self) -> bool:
        """Whether it broke the leader of the moment. A transfer does not: it asks the leader to go."""
        return self.breaks and self.f != "transfer" and self.leader in self.nodes


class Breakable(Protocol):
    """The part of a cluster that a nemesis needs (jepsen_like.cluster.api.Cluster)."""

    servers: tuple[str, ...]
    clients: tuple[str, ...]

    async def cut_links(self, links: Iterable[Link]) -> tuple[int, int]: ...

    async def heal_links(self, links: Iterable[Link]) -> tuple[int, int]: ...

    async def shape_links(self, links: Iterable[Link], rule: LinkRule) -> tuple[int, int]: ...

    async def kill(self, node: str) -> tuple[int, int]: ...

    async def pause(self, node: str) -> tuple[int, int]: ...

    async def resume(self, node: str) -> tuple[int, int]: ...

    async def restart(self, node: str) -> tuple[int, int]: ...

    async def leader(self, timeout_s: float = 0.5) -> str | None: ...


class FaultBook:
    """Breaks and mends, one step at a time, and writes down what was done. Steps that make no sense do nothing.

    `dead` and `paused` name the package that did it.
    """

    def __init__(self, cluster: Breakable, record: Callable[[Fault], None], failures: type[Exception]) -> None:
        self.cluster = cluster
        self._record = record
        self._failures = failures
        self._cut: dict[str, frozenset[Link]] = {}
        self.paused: dict[str, str] = {}
        self.dead: dict[str, str] = {}
        self.away: tuple[str, ...] = ()
        """Servers that are no voters, as far as is known."""
        self._one_at_a_time = asyncio.Lock()

    @property
    def down(self) -> frozenset[str]:
        """Agents that cannot answer: dead or paused."""
        return frozenset(self.dead) | frozenset(self.paused)

    @property
    def cut_now(self) -> frozenset[Link]:
        """All links that are cut."""
        return frozenset().union(*self._cut.values())

    async def leader(self) -> str | None:
        """Who leads, if anybody says so soon."""
        return await self.cluster.leader(0.3)

    async def cut(
        self, package: str, links: Iterable[Link], nodes: tuple[str, ...], what: str, leader: str | None
    ) -> Fault:
        """Cut directed links."""
        async with self._one_at_a_time:
            chosen = tuple(sorted(set(links)))
            interval = await self.cluster.cut_links(chosen)
            self._cut[package] = self._cut.get(package, frozenset()) | frozenset(chosen)
            return self.note(package, "cut", nodes, what, leader, interval)

    async def heal(self, package: str) -> Fault:
        """The links that `package` cut are clear again, except those that another package cut as well."""
        async with self._one_at_a_time:
            mine = self._cut.pop(package, frozenset())
            interval = await self.cluster.heal_links(tuple(sorted(mine - self.cut_now)))
            return self.note(package, "heal", (), "its links" if mine else "", None, interval)

    @contextlib.asynccontextmanager
    async def slowed(self, links: Iterable[Link], delay_ms: float) -> AsyncIterator[None]:
        """Packets of these links take longer for a while; nothing is lost, so the schedule does not mention it. Links
        that are cut stay so.
        """
        chosen = frozenset(links)
        async with self._one_at_a_time:
            await self.cluster.shape_links(tuple(sorted(chosen - self.cut_now)), LinkRule(delay_ms=delay_ms))
        try:
            yield
        finally:
            async with self._one_at_a_time:
                await self.cluster.heal_links(tuple(sorted(chosen - self.cut_now)))

    async def kill(self, package: str, nodes: tuple[str, ...], leader: str | None) -> Fault:
        """kill -9 all of `nodes` that are alive."""
        return await self._processes(package, "kill", nodes, leader, lambda node: node not in self.dead)

    async def restart(self, package: str) -> Fault:
        """Start those that `package` killed."""
        return await self._processes(
            package, "restart", tuple(sorted(self.dead)), None, lambda node: self.dead.get(node) == package
        )

    async def pause(self, package: str, nodes: tuple[str, ...], leader: str | None) -> Fault:
        """SIGSTOP all of `nodes` that run."""
        return await self._processes(package, "pause", nodes, leader, lambda node: node not in self.down)

    async def resume(self, package: str) -> Fault:
        """SIGCONT those that `package` paused."""
        return await self._processes(
            package, "resume", tuple(sorted(self.paused)), None, lambda node: self.paused.get(node) == package
        )

    async def roll(self, package: str, node: str, leader: str | None) -> Fault:
        """Stop the agent of `node` gracefully and start it again; one that had to be killed is started all the same."""
        fault = await self._processes(package, "roll", (node,), leader, lambda node: node not in self.down)
        if fault.error:
            self.dead[node] = package
            await self.restart(package)
        return fault

    async def mend_everything(self) -> None:
        """Undo whatever any package did to links and processes."""
        for package in sorted(self._cut):
            await self.heal(package)
        for package in sorted(set(self.paused.values())):
            await self.resume(package)
        for package in sorted(set(self.dead.values())):
            await self.restart(package)

    async def ask(
        self, package: str, f: str, nodes: tuple[str, ...], what: str, leader: str | None, act: Awaitable[str]
    ) -> Fault:
        """Await a request to the cluster, which yields "", or why it came to nothing: then no node was hit."""
        start_ns = time.monotonic_ns()
        error = await act
        interval = start_ns, time.monotonic_ns()
        return self.note(package, f, () if error else nodes, what, leader, interval, error)

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
                    intervals.append(await self._act(package, f, node))
                    done.append(node)
                except self._failures as failure:
                    error = f"{node}: {failure}"
            start_ns = min((start for start, _ in intervals), default=0)
            end_ns = max((end for _, end in intervals), default=0)
            return self.note(package, f, tuple(done), ", ".join(done), leader, (start_ns, end_ns), error)

    async def _act(self, package: str, f: str, node: str) -> tuple[int, int]:
        match f:
            case "kill":
                interval = await self.cluster.kill(node)
                self.dead[node] = package
                self.paused.pop(node, None)
            case "restart" | "roll":
                interval = await self.cluster.restart(node)
                self.dead.pop(node, None)
            case "pause":
                interval = await self.cluster.pause(node)
                self.paused[node] = package
            case "resume":
                interval = await self.cluster.resume(node)
                self.paused.pop(node, None)
            case _:
                raise AssertionError(f)
        return interval

    def note(
        self,
        package: str,
        f: str,
        nodes: tuple[str, ...],
        what: str,
        leader: str | None,
        interval: tuple[int, int],
        error: str = "",
    ) -> Fault:
        """A step and what is broken after it; recorded unless it did nothing at all."""
        fault = Fault(
            package=package,
            f=f,
            nodes=nodes,
            what=what,
            leader=leader,
            start_ns=interval[0],
            end_ns=interval[1],
            cut=tuple(sorted(self.cut_now)),
            paused=tuple(sorted(self.paused)),
            dead=tuple(sorted(self.dead)),
            away=self.away,
            error=error,
        )
        if nodes or error or (f == "heal" and what):
            self._record(fault)
        return fault
