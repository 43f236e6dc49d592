"""What this server's disk holds, as far as the core knows: the spec's `durable` point, and the writes issued after it.

Memory runs ahead of the disk; every change of memory that must survive a restart is a record here. What leaves the
server is guarded by `knows_term`, `knows_vote` and `durable_up_to`, the rules 1 to 4 of ARCHITECTURE.md, section 3.
"""

from __future__ import annotations

from collections import deque

from impl.raft.messages import Entry
from impl.raft.ready import HardState, Record, SnapshotMarker, Write


class _Issued:
    """A write on its way: the point that the disk holds once it is done."""

    __slots__ = ("last_index", "marker", "newest", "number", "term", "tick", "voted_for")

    def __init__(self, number: int, disk: Disk, tick: int) -> None:
        self.number = number
        self.term = disk.term
        self.voted_for = disk.voted_for
        self.last_index = disk.last_index
        """Of the log at that point, the length of the prefix that equals the log in memory."""
        self.newest = disk.newest
        self.marker = disk.marker
        self.tick = tick
        """When it was issued."""


class Disk:
    """Memory's term, vote, length of log and snapshot; the same for the durable point; the records between."""

    __slots__ = (
        "_in_flight",
        "_last_number",
        "_pending",
        "durable_index",
        "durable_marker",
        "durable_newest",
        "durable_term",
        "durable_voted_for",
        "last_index",
        "marker",
        "newest",
        "term",
        "voted_for",
    )

    def __init__(
        self,
        term: int,
        voted_for: str | None,
        last_index: int,
        last_term: int = 0,
        marker: SnapshotMarker | None = None,
    ) -> None:
        self.term = self.durable_term = term
        self.voted_for = self.durable_voted_for = voted_for
        self.last_index = self.durable_index = last_index
        """durable_index: the disk holds entries 1..durable_index of the log in memory, or a snapshot in the place of
        the first of them. What it holds beyond was cut since.
        """
        self.newest = self.durable_newest = (last_term, last_index)
        """(term, index) of the last entry: how up-to-date the log is."""
        self.marker = self.durable_marker = marker
        """Of the newest snapshot."""
        self._pending: list[Record] = []
        self._in_flight: deque[_Issued] = deque()
        self._last_number = 0

    @property
    def snapshot(self) -> int:
        """Index of the newest snapshot, in memory; 0: there is none."""
        return self.marker.index if self.marker is not None else 0

    def knows_term(self, term: int) -> bool:
        """Rule 1: a message of `term` may leave."""
        return self.durable_term == term

    def knows_vote(self, term: int, candidate: str) -> bool:
        """Rule 2: a vote for `candidate` in `term` may be granted, requested or counted for oneself."""
        return self.durable_term == term and self.durable_voted_for == candidate

    def knows_everything(self) -> bool:
        """Whether memory is on disk, all of it."""
        return not self._pending and not self._in_flight

    def durable_up_to(self, index: int) -> int:
        """Rules 3 and 4: of the entries 1..index, how many may be acknowledged, counted for oneself, applied."""
        return min(index, self.durable_index)

    def under_way_since(self) -> int | None:
        """The tick at which the oldest write under way was issued."""
        return self._in_flight[0].tick if self._in_flight else None

    def record_hard_state(self, term: int, voted_for: str | None) -> None:
        """Memory's term and vote changed."""
        self.term, self.voted_for = term, voted_for
        self._pending.append(HardState(term, voted_for))

    def record_cut(self, last_index: int, last_term: int) -> None:
        """Memory's log was cut: no write on its way makes anything beyond `last_index` durable that memory still has.

        The cut itself needs no record: the entry that caused it follows, and implies it.
        """
        self.last_index = last_index
        self.newest = (last_term, last_index)
        self.durable_index = min(self.durable_index, last_index)
        for write in self._in_flight:
            write.last_index = min(write.last_index, last_index)

    def record_entries(self, entries: list[Entry]) -> None:
        """Memory's log grew by `entries`."""
        self._pending.extend(entries)
        self.last_index = entries[-1].index
        self.newest = (entries[-1].term, self.last_index)

    def record_marker(self, marker: SnapshotMarker) -> None:
        """There is a newer snapshot, or more of the log was forgotten."""
        self.marker = marker
        self._pending.append(marker)

    def record_replacement(self, marker: SnapshotMarker, equal_up_to: int) -> None:
        """Memory's log is nothing but a snapshot now; what the disk holds equals it up to `equal_up_to` only."""
        self.record_cut(equal_up_to, 0)
        self.last_index = marker.index
        self.newest = (marker.term, marker.index)
        self.record_marker(marker)

    def has_pending(self) -> bool:
        """Whether memory has changed since the last `issue`."""
        return bool(self._pending)

    def issue(self, tick: int = 0) -> Write:
        """All records since the last call, as one write; `tick`: now."""
        self._last_number += 1
        records, self._pending = self._pending, []
        self._in_flight.append(_Issued(self._last_number, self, tick))
        return Write(self._last_number, records)

    def confirm(self, number: int) -> None:
        """The disk holds every write up to `number`, which must be on its way."""
        if not self._in_flight or not self._in_flight[0].number <= number <= self._last_number:
            raise ValueError(f"write {number} is not on its way: it was never issued, or was confirmed before")
        while self._in_flight and self._in_flight[0].number <= number:
            write = self._in_flight.popleft()
            self.durable_term, self.durable_voted_for = write.term, write.voted_for
            self.durable_index = write.last_index
            self.durable_newest = write.newest
            self.durable_marker = write.marker
