"""What a core is given at its start: timing, limits, what its disk held, randomness.

Times are ticks, unless a name says otherwise; the driver calls `Core.tick` every 10 ms. Source of the defaults:
ARCHITECTURE.md, section 8.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from impl.raft.messages import Entry
from impl.raft.ready import SnapshotMarker


class Random(Protocol):
    """The part of `random.Random` that the core uses. Handed in, so that a run can be repeated from its seed."""

    def randrange(self, start: int, stop: int, /) -> int:
        """A number of [start, stop)."""
        ...


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Identity, timing and limits of one core. Every queue of the core is bounded by one of the limits."""

    name: str
    """This server's id: its node name."""
    storage_id: str = ""
    """Of its data directory. A configuration that names the server with another one means the server that it replaces,
    whose votes it does not remember: it is no voter by that one. "": the name is enough.
    """
    noop: bytes = b"\x91\xa4noop"
    """Payload of the entry that a new leader appends (Ongaro 2014, section 6.4): the msgpack array ["noop"]."""
    tick_ms: int = 10
    """Length of a tick."""
    heartbeat_ticks: int = 5
    election_ticks_min: int = 30
    election_ticks_max: int = 60
    """An election timeout is drawn from [min, max] each time the timer is reset (Ongaro 2014, section 3.4)."""
    leader_lost_ticks_max: int = 10
    """Followers that know that their leader's process has ended campaign by turns, of two fifths of this each: of three
    servers both that are left within this.
    """
    pre_vote: bool = True
    """Whether nobody campaigns before a quorum said that it would vote so (Ongaro 2014, section 9.6)."""
    lease_ms: int = 250
    """How long after a round began its leader may answer reads by it; 0: no leases (section 6.4.1)."""
    clock_drift: float = 0.05
    """No clock runs faster than 1 + this, or slower than its inverse, against real time."""
    snapshot_trailing: int = 10240
    """Entries that are kept before a snapshot, for followers that lag a little."""
    append_entries_max: int = 512
    append_bytes_max: int = 1 << 20
    """Payload of one AppendEntriesRequest; an entry larger than this travels alone."""
    inflight_messages_max: int = 128
    inflight_bytes_max: int = 8 << 20
    """Entries sent to one peer and not yet acknowledged."""
    apply_entries_max: int = 4096
    """Entries handed out by one `Ready`."""
    uncommitted_entries_max: int = 1 << 16
    uncommitted_bytes_max: int = 64 << 20
    """Beyond these a leader refuses proposals (`Overloaded`)."""
    reads_max: int = 1 << 16
    """Reads waiting for confirmation; beyond it a leader refuses more (`Overloaded`)."""

    def __post_init__(self) -> None:
        if not 0 < self.heartbeat_ticks < self.election_ticks_min <= self.election_ticks_max:
            raise ValueError(
                f"a heartbeat every {self.heartbeat_ticks} ticks does not fit election timeouts of "
                f"{self.election_ticks_min} to {self.election_ticks_max}: use 0 < heartbeat < min <= max"
            )
        shortest_ms = self.election_ticks_min * self.tick_ms
        if self.lease_ms * (1 + self.clock_drift) ** 2 >= shortest_ms:
            raise ValueError(
                f"a lease of {self.lease_ms} ms could outlast the shortest election timeout of {shortest_ms} ms if "
                f"clocks drift by {self.clock_drift:.0%}: use lease * (1 + drift)^2 < election timeout"
            )

    @property
    def election_ns(self) -> int:
        """Whoever heard from a leader less than this ago neither votes nor campaigns, by its own clock."""
        return self.election_ticks_min * self.tick_ms * 1_000_000

    @property
    def lease_ns(self) -> int:
        """The lease; -1: none."""
        return self.lease_ms * 1_000_000 if self.lease_ms else -1


class Restored(msgspec.Struct, frozen=True):
    """What the disk held when the process started: the state of Ongaro 2014, figure 3.1, "persistent state"."""

    term: int = 0
    voted_for: str | None = None
    entries: tuple[Entry, ...] = ()
    """The log after the snapshot's base, or from index 1 on, without gaps."""
    snapshot: SnapshotMarker | None = None
    """The newest marker. The driver has restored the state machine from its file already."""
