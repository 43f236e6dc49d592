"""What a log is after its records so far, in a few values, and which record may come next.

Both ends use it: appending refuses what does not continue the log, recovery refuses a log whose records do not continue
each other. This module must not do I/O.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import assert_never

from impl.raft.configuration import COMMAND
from impl.storage.records import NO_HARD_STATE, Entry, Genesis, HardState, Record, SnapshotMarker


class LogState:
    """Genesis, hard state, snapshot, base and last index; the term of each entry beyond the base."""

    __slots__ = ("_firsts", "_terms", "genesis", "hard_state", "last_index", "snapshot")

    def __init__(self) -> None:
        self.genesis: Genesis | None = None
        self.hard_state: HardState = NO_HARD_STATE
        self.snapshot: SnapshotMarker | None = None
        self.last_index = 0
        self._firsts: list[int] = []
        """First index of each run of entries of one term, ascending; `_terms` are their terms."""
        self._terms: list[int] = []

    @property
    def base(self) -> int:
        """Entries up to here are forgotten."""
        return self.snapshot.base if self.snapshot is not None else 0

    def copy(self) -> LogState:
        """Another one that can go its own way."""
        other = LogState()
        other.genesis, other.hard_state, other.snapshot = self.genesis, self.hard_state, self.snapshot
        other.last_index = self.last_index
        other._firsts, other._terms = self._firsts.copy(), self._terms.copy()
        return other

    def holds(self, index: int, term: int) -> bool:
        """Whether the log has an entry of `term` at `index`, at or above its base."""
        if self.snapshot is not None and index == self.snapshot.base:
            return term == self.snapshot.base_term
        if not self.base < index <= self.last_index:
            return False
        run = bisect_right(self._firsts, index) - 1
        return run >= 0 and self._terms[run] == term

    def take_run(self, records: Sequence[Record]) -> int:
        """Go on by the first records as far as they are commands of the newest term that follow each other; returns how
        many.

        The same as `take` for each of them, and twice as fast: nearly every append is such a run.
        """
        taken, last, term = 0, self.last_index, self._terms[-1] if self._terms else -1
        for record in records:
            if type(record) is not Entry or record.index != last + 1 or record.term != term or record.kind != COMMAND:
                break
            taken, last = taken + 1, last + 1
        self.last_index = last
        return taken

    def take(self, record: Record, replaces: bool = False) -> str:
        """Go on by one record; returns why it cannot be the next one, or "".

        `replaces`: of a snapshot marker, whether the log does not hold the snapshot's last entry.
        """
        match record:
            case Entry(index, term):
                if not self.base < index <= self.last_index + 1:
                    return f"entry {index} cannot follow entry {self.last_index}" + self._after_base(index)
                self._append(index, term)
            case HardState(term):
                if term < self.hard_state.term:
                    return f"term {term} cannot follow term {self.hard_state.term}"
                self.hard_state = record
            case Genesis():
                if self.genesis is not None:
                    return "the log has a genesis already"
                self.genesis = record
            case SnapshotMarker():
                return self._take_marker(record, replaces)
            case _:
                assert_never(record)
        return ""

    def _after_base(self, index: int) -> str:
        return f": everything up to {self.base} is forgotten" if 1 <= index <= self.base else ""

    def _append(self, index: int, term: int) -> None:
        if index <= self.last_index:
            self._cut(index - 1)
        if not self._terms or self._terms[-1] != term:
            self._firsts.append(index)
            self._terms.append(term)
        self.last_index = index

    def _cut(self, last: int) -> None:
        while self._firsts and self._firsts[-1] > last:
            self._firsts.pop()
            self._terms.pop()
        self.last_index = last

    def _take_marker(self, marker: SnapshotMarker, replaces: bool) -> str:
        old = self.snapshot
        if not marker.base <= marker.index:
            return f"base {marker.base} of the snapshot up to {marker.index} is beyond it"
        if old is not None and (marker.index < old.index or marker.base < old.base):
            return f"snapshot {marker.index} with base {marker.base} cannot follow {old.index} with {old.base}"
        if replaces:
            if marker.base != marker.index:
                return f"a snapshot up to {marker.index} that replaces the log has base {marker.base}"
            self._cut(0)
            self.last_index = marker.index
        elif marker.index > self.last_index:
            return f"snapshot {marker.index} cannot follow entry {self.last_index}"
        self.snapshot = marker
        forgotten = max(bisect_right(self._firsts, marker.base + 1) - 1, 0)
        del self._firsts[:forgotten], self._terms[:forgotten]
        return ""
