"""Servers are stopped gracefully and started again, one after the other, as at an upgrade.

Each waits for its predecessor: until it follows a leader again and has applied as much as that leader had when it came
back, or for READY_S.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from jepsen_like.generator.values import Draws, Invocation
from jepsen_like.nemesis.book import Fault, FaultBook
from jepsen_like.nemesis.partition import shuffled
from jepsen_like.nemesis.worker import NemesisWorker

READY_S = 4.0
POLL_S = 0.1


class Ready(Protocol):
    """Whether a server serves again: it knows a leader, and has applied what was committed."""

    async def __call__(self, node: str) -> bool: ...


def pick_nothing(draws: Draws) -> tuple[None, Draws]:
    """The worker knows whose turn it is."""
    return None, draws


class RollingWorker(NemesisWorker):
    """`roll`: one server an invocation; every round has a fresh order."""

    def __init__(self, package: str, book: FaultBook, ready: Ready) -> None:
        super().__init__(package, book)
        self._ready = ready
        self._waiting: list[str] = []

    async def do(self, invocation: Invocation) -> Fault:
        assert invocation.f == "roll"
        if not self._waiting:
            self._waiting, _ = shuffled(self.book.cluster.servers, Draws(invocation.note))
        turn = next((node for node in self._waiting if node not in self.book.down), self._waiting[0])
        leader = await self.book.leader()
        fault = await self.book.roll(self.package, turn, leader)
        if fault.nodes:
            self._waiting.remove(turn)
            await self._until_ready(turn)
        return fault

    async def _until_ready(self, node: str) -> None:
        end = time.monotonic() + READY_S
        while time.monotonic() < end and not await self._ready(node):
            await asyncio.sleep(POLL_S)
