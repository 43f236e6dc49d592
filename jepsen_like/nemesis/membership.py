"""Servers are removed and demoted while everything else goes on; later they are added and promoted again.

Never asked for: a change after which the voters that are known to run would be no quorum, or fewer than three voters
would be left. What a cut has done the cluster must judge itself: it refuses, with the reason, or does it.

The own-term rule (Ongaro 2014, section 4.1 as corrected in 2015; hashicorp and etcd have it) matters to a leader that
has just been elected, so one plan hands the leadership over and at once asks the new leader for a change.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Collection

from jepsen_like.generator.values import Draws, Invocation
from jepsen_like.nemesis.book import Fault, FaultBook
from jepsen_like.nemesis.operator_api import Configuration, Operator
from jepsen_like.nemesis.partition import shuffled
from jepsen_like.nemesis.worker import NemesisWorker

PLANS = ("remove", "remove leader", "demote", "demote leader", "two at once", "fresh leader")
"""two at once: two changes are asked for side by side. fresh leader: the leadership is handed over, and the new leader
asked for a removal from before it leads."""
WEIGHTS = (4, 3, 2, 1, 2, 4)
VOTERS_MIN = 3
RESTORE_S, RESTORE_AT_LAST_S = 4.0, 25.0
"""How long it is tried to bring all back: during the run, when other faults may forbid it, and after everything else
was mended."""
LATE_MS, SLOW_MS = 120.0, 40.0
ASK_EVERY_S, ASK_TIMES = 0.006, 30
"""A fresh leader is asked for the removal so often, whether or not it leads yet."""
RETRY_S = 0.05
EVERYTHING = "everything"
"""Value of the restore that ends a run."""


def pick_plan(draws: Draws) -> tuple[str, Draws]:
    """A plan, by weight."""
    return draws.among(PLANS, WEIGHTS)


def keeps_quorum(voters: Collection[str], leaving: Collection[str], down: Collection[str]) -> bool:
    """Whether the voters that are left are enough, and those of them that run are a quorum."""
    left = set(voters) - set(leaving)
    return len(left) >= VOTERS_MIN and len(left - set(down)) > len(left) // 2


def targets(
    plan: str, configuration: Configuration, leader: str | None, down: Collection[str], draws: Draws
) -> tuple[str, ...]:
    """Whom `plan` takes away: voters, as many as may go; empty if none may."""
    order, _ = shuffled(configuration.voters, draws)
    if plan == "fresh leader":
        order = [node for node in order if node != leader]
    elif plan.endswith(" leader"):
        order = [leader] if leader in order else []
    chosen: list[str] = []
    for node in order:
        wanted = 2 if plan == "two at once" else 1
        if len(chosen) < wanted and keeps_quorum(configuration.voters, [*chosen, node], down):
            chosen.append(node)
    return tuple(chosen)


class MembershipWorker(NemesisWorker):
    """`change` and `restore`."""

    def __init__(self, package: str, book: FaultBook, operator: Operator) -> None:
        super().__init__(package, book)
        self._operator = operator

    async def do(self, invocation: Invocation) -> Fault:
        if invocation.f == "restore":
            patience_s = RESTORE_AT_LAST_S if invocation.value == EVERYTHING else RESTORE_S
            return await self._restore(patience_s)
        assert invocation.f == "change"
        draws = Draws(invocation.note)
        found = await self._look()
        if found is None:
            return self.book.note(self.package, "remove", (), "nobody answered", None, (0, 0))
        via, configuration = found
        leader = next((member.node for member in configuration.servers if member.leader), None)
        chosen = targets(invocation.value, configuration, leader, self.book.down, draws)
        return await self._take(invocation.value, chosen, via, leader)

    async def _look(self) -> tuple[str, Configuration] | None:
        """The leader, or whoever answers, and the configuration it knows; the book learns who is away."""
        leader = await self.book.leader()
        servers = self.book.cluster.servers
        for via in ([leader] if leader is not None else []) + [each for each in servers if each not in self.book.down]:
            configuration = await self._operator.configuration(via)
            if configuration is not None and configuration.servers:
                self.book.away = tuple(sorted(set(servers) - set(configuration.voters)))
                return via, configuration
        return None

    async def _take(self, plan: str, chosen: tuple[str, ...], via: str, leader: str | None) -> Fault:
        """Carry out the plan; the last of its steps. `chosen` may be empty: then nothing is done."""
        f = "demote" if plan.startswith("demote") else "remove"
        if not chosen:
            return self.book.note(self.package, f, (), plan, leader, (0, 0))
        if plan == "fresh leader":
            heir = next((node for node in self._heirs(chosen, leader)), None)
            return await self._take_from_fresh_leader(chosen[0], via, leader, heir)
        act = self._operator.demote if f == "demote" else self._operator.remove
        steps = [self._change(f, node, leader, act(via, node)) for node in chosen]
        return (await asyncio.gather(*steps))[-1]

    def _heirs(self, chosen: tuple[str, ...], leader: str | None) -> list[str]:
        apart = {*chosen, leader, *self.book.down, *self.book.away}
        return [node for node in self.book.cluster.servers if node not in apart]

    async def _change(self, f: str, node: str, leader: str | None, asked: Awaitable[str]) -> Fault:
        """One change: recorded as done if the answer says so, or if the configuration shows it although no answer
        came.
        """

        async def made() -> str:
            problem = await asked
            if problem.startswith("no answer"):
                found = await self._look()
                problem = problem if found is None or node in found[1].voters else ""
            if not problem:
                self.book.away = tuple(sorted({*self.book.away, node}))
            return problem

        words = f"{node} (the leader)" if node == leader else node
        return await self.book.ask(self.package, f, (node,), words, leader, made())

    async def _take_from_fresh_leader(self, node: str, via: str, leader: str | None, heir: str | None) -> Fault:
        """Hand over to `heir`, and ask it from before it leads for the removal of `node`, of which one can be granted.

        The others hear the old leader late, so they lack what `heir` has, and `heir` slowly: it has answers from a
        quorum, which refuse its first entry, for a while before it can have committed anything.
        """
        if heir is None or leader is None:
            return self.book.note(self.package, "remove", (), "nobody can take over", leader, (0, 0))

        async def ask(pause_s: float) -> str:
            await asyncio.sleep(pause_s)
            return await self._operator.remove(heir, node)

        async def insistent() -> str:
            servers = self.book.cluster.servers
            late = [(leader, other) for other in servers if other not in (leader, heir)]
            slow = [(heir, other) for other in servers if other != heir]
            async with self.book.slowed(late, LATE_MS), self.book.slowed(slow, SLOW_MS):
                await asyncio.sleep(LATE_MS / 1000)
                handing_over = asyncio.ensure_future(self._operator.transfer(via, heir))
                said = await asyncio.gather(*(ask((number + 1) * ASK_EVERY_S) for number in range(ASK_TIMES)))
                problem = await handing_over
            unknown = next((answer for answer in said if answer.startswith("no answer")), "")
            return "" if "" in said else unknown or problem or said[-1]

        return await self._change("remove", node, heir, insistent())

    async def _restore(self, patience_s: float) -> Fault:
        """Add and promote until every server votes, or `patience_s` is over."""
        back: list[str] = []

        async def mend() -> str:
            end = time.monotonic() + patience_s
            problem = "nobody answered"
            while True:
                found = await self._look()
                if found is not None:
                    if not self.book.away:
                        return ""
                    problem = await self._bring_back(*found, back)
                if time.monotonic() > end:
                    return problem or f"no voters yet: {', '.join(self.book.away)}"
                await asyncio.sleep(RETRY_S)

        start_ns = time.monotonic_ns()
        error = await mend()
        nodes = tuple(dict.fromkeys(back))
        interval = start_ns, time.monotonic_ns()
        return self.book.note(self.package, "restore", nodes, ", ".join(nodes), None, interval, error)

    async def _bring_back(self, via: str, configuration: Configuration, back: list[str]) -> str:
        """One step for each server that is away and runs; the last problem."""
        problem = ""
        for node in self.book.away:
            if node in self.book.down or node not in self._operator.known:
                continue
            member = configuration.member(node)
            said = await (self._operator.add if member is None else self._operator.promote)(via, node)
            if not said:
                back.append(node)
            problem = f"{node}: {said}" if said else problem
        return problem
