"""What the durable log holds: records, in the order in which they were issued, and what recovery reports of them.

Terms and votes are records of the same log as entries (ARCHITECTURE.md section 3, "One log on disk"), so that what
survives a crash is a prefix of what was written: one of the *points* of the spec. Truncation is not a record: an
entry whose index is not beyond the last one replaces everything from its index on (raft.tla
HandleAppendEntriesRequest, conflict). A snapshot marker says that the state machine up to some index is in a file of
its own, which was durable before, and that the entries up to a base are forgotten; if the log does not hold the
snapshot's last entry, the marker replaces all of it (Ongaro 2014, figure 5.3, steps 6 and 7).

This module must not do I/O: it says what the records are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from impl.raft.messages import Entry
from impl.raft.ready import HardState, SnapshotMarker


class Voter(msgspec.Struct, frozen=True, array_like=True, order=True):
    """A member of the first configuration."""

    name: str
    node_id: str
    storage_id: str = ""
    """Of its data directory; "" in a genesis that was made without one: then any will do."""


class Genesis(msgspec.Struct, frozen=True, array_like=True):
    """Index 0, the base of the log: the cluster's identity and its first configuration. At most one in a log."""

    cluster_id: str
    voters: tuple[Voter, ...]
    """Sorted by name."""


Record: TypeAlias = HardState | Entry | Genesis | SnapshotMarker
"""What `DurableLog.append` takes."""

NO_HARD_STATE = HardState(0, None)
"""In force before the first HardState record: term 0, no vote."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A torn tail that recovery removed: the end of the last write before a crash, which was never known to be
    durable."""

    segment: str
    offset: int
    """Where the intact records end, in bytes from the start of the segment."""
    bytes: int
    """Length of what was removed."""
    reason: str
    """Why the first removed record was not believed."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a log held when it was opened."""

    genesis: Genesis | None
    hard_state: HardState
    entries: tuple[Entry, ...]
    """Indexes base + 1, base + 2, ... without gaps, after truncations."""
    cut: Cut | None
    """Report it; nothing that was acknowledged is in it unless the disk itself broke its word."""
    records: int
    """How many records were read."""
    segments: int
    snapshot: SnapshotMarker | None = None
    """The newest; its base is the log's. None: no entry was ever forgotten."""
    by_hand: bool = False
    """An outage recovery has just replaced the log: what it holds need never have been committed."""


__all__ = ["NO_HARD_STATE", "Cut", "Entry", "Genesis", "HardState", "Record", "Recovered", "SnapshotMarker", "Voter"]
