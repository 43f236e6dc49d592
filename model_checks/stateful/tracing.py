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
from impl.catalog.commands import decode_command
from impl.catalog.snapshot import state_digest as digest_of
from impl.catalog.store import Store
from impl.raft.configuration import COMMAND
from impl.raft.messages import Entry
from impl.raft.ready import Event
from impl.raft.settings import Settings
from impl.runtime.virtual_disk import VirtualDisk

DIRECTORY = "traces"


def command(text: str) -> bytes:
    """The payload that sets key `text`."""
    return msgspec.msgpack.encode(["kv-set", text, b"", 0])


def state_digest(content: Sequence[Entry]) -> str:
    """What a trace says of the state machine that was fed `content`: by the product's own state machine."""
    store = Store(lambda key: None)
    for entry in content:
        if entry.kind == COMMAND:
            store.apply(decode_command(entry.payload), entry.index)
    return digest_of(store)


class Traces:
    """One file for each incarnation of each server, kept in memory until `write_to`."""

    def __init__(self, voters: Sequence[str], settings: Settings, now: Callable[[], int]) -> None:
        """`now`: what the clock shows, of which all servers read."""
        self._voters = voters
        self._settings = settings
        self._disk = VirtualDisk()
        self._now = now
        self._tracers: dict[str, Tracer] = {}

    def started(self, name: str, incarnation: int, state: list[Any]) -> None:
        """A server begins an incarnation."""
        tracer = Tracer(self._disk, self._now, DIRECTORY, name, incarnation)
        settings = self._settings
        tracer.header(
            "world",
            self._voters,
            state,
            election_ns=settings.election_ns,
            lease_ns=settings.lease_ns,
            pre_vote=settings.pre_vote,
        )
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
