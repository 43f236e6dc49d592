"""A follower misses so much that the leader's log no longer holds what it needs: it must be sent a snapshot.

The follower is cut off or killed, and comes back when the leader's log begins behind what the follower had (with the
small thresholds of `runner` that takes a second or two), or after LAG_MAX_S.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping
from typing import Protocol

import msgspec

from jepsen_like.generator.values import Draws, Invocation
from jepsen_like.nemesis import partition
from jepsen_like.nemesis.book import Fault, FaultBook
from jepsen_like.nemesis.partition import shuffled
from jepsen_like.nemesis.worker import NemesisWorker

WAYS = ("cut", "kill")
LAG_MAX_S = 10.0
POLL_S = 0.1


class Extent(msgspec.Struct, frozen=True):
    """From where to where a server's log reaches: entries up to `base` are gone, `last` is the newest."""

    base: int
    last: int


class Measured(Protocol):
    """Says how far the logs of the running servers reach, by name."""

    async def __call__(self) -> Mapping[str, Extent]: ...


def pick_way(draws: Draws) -> tuple[str, Draws]:
    """Cut off or killed."""
    return draws.among(WAYS, (1, 1))


def victim_of(
    servers: Collection[str], leader: str | None, down: Collection[str], away: Collection[str], draws: Draws
) -> str | None:
    """A running follower without which the others that run are still a quorum of the voters."""
    voters = [name for name in servers if name not in away]
    running = [name for name in voters if name not in down]
    if leader is None or len(running) - 1 <= len(voters) // 2:
        return None
    order, _ = shuffled([name for name in running if name != leader], draws)
    return next(iter(order), None)


class SnapshotWorker(NemesisWorker):
    """`fall-behind` and `return`."""

    def __init__(self, package: str, book: FaultBook, extents: Measured) -> None:
        super().__init__(package, book)
        self._extents = extents
        self._victim = ""
        self._had = 0
        """The newest index of the victim when it was hit."""

    async def do(self, invocation: Invocation) -> Fault:
        if invocation.f == "return":
            await self._until_behind()
            self._victim = ""
            healed = await self.book.heal(self.package)
            started = await self.book.restart(self.package)
            return started if started.nodes else healed
        assert invocation.f == "fall-behind"
        book = self.book
        leader = await book.leader()
        victim = victim_of(book.cluster.servers, leader, book.down, book.away, Draws(invocation.note))
        extents = await self._extents()
        if victim is None or victim not in extents:
            return book.note(self.package, invocation.value, (), "no follower can be spared", leader, (0, 0))
        self._victim, self._had = victim, extents[victim].last
        if invocation.value == "kill":
            return await book.kill(self.package, (victim,), leader)
        others = [name for name in (*book.cluster.servers, *book.cluster.clients) if name != victim]
        links = partition.between([victim], others)
        return await book.cut(self.package, links, (victim,), f"{victim} until it lacks what the others forgot", leader)

    async def _until_behind(self) -> None:
        end = time.monotonic() + LAG_MAX_S
        while self._victim and time.monotonic() < end:
            extents = await self._extents()
            others = [extent.base for name, extent in extents.items() if name != self._victim]
            if len([base for base in others if base > self._had]) > len(self.book.cluster.servers) // 2:
                return
            await asyncio.sleep(POLL_S)
