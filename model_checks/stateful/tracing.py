"""The runs of a world as traces, written by the product's own tracer: evidence for `model_checks/conformance`.

So the judge of real processes can be tried on crashes that lose writes, which no SIGKILL can make. Payloads become
commands of the key-value store (ARCHITECTURE.md, section 7), since that judge also replays the catalog.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from impl.agent.tracer import Tracer
from impl.raft.ready import Event
from impl.runtime.interfaces import Timer
from impl.runtime.virtual_disk import VirtualDisk

DIRECTORY = "traces"


def command(text: str) -> bytes:
    """The payload that sets key `text`."""
    return msgspec.msgpack.encode(["kv-set", text, b"", 0])


class _Steps:
    """A clock that counts how often it was asked. Implements `Clock`; nothing here waits."""

    def __init__(self) -> None:
        self._now = 0

    def monotonic_ns(self) -> int:
        self._now += 1
        return self._now

    def wall_ns(self) -> int:
        return self.monotonic_ns()

    def call_later(self, delay_ns: int, callback: Callable[[], None]) -> Timer:
        raise NotImplementedError("a tracer waits for nothing")

    def call_soon(self, callback: Callable[[], None]) -> Timer:
        raise NotImplementedError("a tracer waits for nothing")

    async def sleep(self, delay_ns: int) -> None:
        raise NotImplementedError("a tracer waits for nothing")


class Traces:
    """One file for each incarnation of each server, kept in memory until `write_to`."""

    def __init__(self, voters: Sequence[str]) -> None:
        self._voters = voters
        self._disk = VirtualDisk()
        self._clock = _Steps()
        self._tracers: dict[str, Tracer] = {}

    def started(self, name: str, incarnation: int, state: list[Any]) -> None:
        """A server begins an incarnation."""
        tracer = Tracer(self._disk, self._clock, DIRECTORY, name, incarnation)
        tracer.header("world", self._voters, state)
        self._tracers[name] = tracer

    def happened(self, name: str, events: Sequence[Event], frames: Sequence[int]) -> None:
        """A core's events, and the checksums of the messages that they send."""
        self._tracers[name].events(events, frames)
        self._tracers[name].flush()

    def write_to(self, directory: Path) -> None:
        """Write the files for real."""
        directory.mkdir(parents=True, exist_ok=True)
        for name in self._disk.names(DIRECTORY):
            (directory / name).write_bytes(self._disk.content(f"{DIRECTORY}/{name}"))
