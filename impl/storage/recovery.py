"""Opening a log: from the segments on the disk to what they mean.

It must not guess: a segment that must be complete (every one but the last) and is not, a gap, a segment of another
node or another format, or records that do not continue each other are refused with an error that names the place. The
first segments may be gone, if everything in them is forgotten: the first one that is there says in its header and in
the records that it carries what the log was when it began.

It does not change the disk; `DurableLog.open` cuts a torn tail and syncs what was read.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from impl.runtime.interfaces import Disk
from impl.storage.errors import CorruptLog, ForeignDirectory
from impl.storage.files import read_file
from impl.storage.log_state import LogState
from impl.storage.records import Cut, Entry, Genesis, Record, Recovered, SnapshotMarker
from impl.storage.scan import Scan, scan_segment
from impl.storage.segment import HEADER_BYTES, SegmentHeader, decode_header, decode_records

SUFFIX = ".log"
UNFINISHED = ".new"
"""Ending of a segment that is being made. A crash leaves it behind; it holds nothing."""


def segment_name(sequence: int) -> str:
    """File name of a segment; names sort as their numbers do."""
    return f"{sequence:010d}{SUFFIX}"


@dataclass(frozen=True, slots=True)
class Tail:
    """Where the log goes on."""

    sequence: int
    """0: there is no segment yet."""
    end: int
    garbage_end: int
    crc: int
    size: int


@dataclass(slots=True)
class _Fold:
    """The meaning of the records read so far."""

    state: LogState = field(default_factory=LogState)
    before: int = 0
    """Entries up to here are not in `entries`: forgotten, or in segments that are gone."""
    entries: list[Entry] = field(default_factory=list)
    records: int = 0
    highest: int = 0
    """Of the indexes of the entries in the segment read last, overwritten ones too."""

    def add(self, segment: str, header: SegmentHeader, scan: Scan, first: bool) -> None:
        """Take the records of a segment in order. Raises CorruptLog if one does not continue the log."""
        if len(scan.records) < header.carried:
            raise CorruptLog(segment, scan.end, len(scan.records) + 1, "it lacks records that were there when it began")
        self.highest = 0
        for number, raw in enumerate(scan.records, 1):
            try:
                records = decode_records(raw)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise CorruptLog(segment, raw.offset, number, f"its content cannot be read: {error}") from error
            for record in records:
                if number > header.carried:
                    cause = self._take(record, raw.variant)
                    self.records += 1
                else:
                    cause = self._adopt(record) if first else self._compare(record)
                if cause:
                    raise CorruptLog(segment, raw.offset, number, cause)

    def begin(self, header: SegmentHeader) -> None:
        """The first segment that is there begins with this."""
        self.state.hard_state, self.state.last_index = header.hard_state, header.last_index
        self.before = header.last_index

    def _adopt(self, record: Record) -> str:
        match record:
            case Genesis():
                self.state.genesis = record
            case SnapshotMarker():
                self.state.snapshot = record
            case _:
                return "it carries a record that none does"
        return ""

    def _compare(self, record: Record) -> str:
        return "" if record in (self.state.genesis, self.state.snapshot) else "it repeats what was not in force"

    def _take(self, record: Record, variant: int) -> str:
        cause = self.state.take(record, replaces=bool(variant))
        if cause:
            return cause
        match record:
            case Entry(index):
                self.highest = max(self.highest, index)
                if index <= self.before:
                    self.before = index - 1
                del self.entries[index - 1 - self.before :]
                self.entries.append(record)
            case SnapshotMarker(index, _, base):
                if variant:
                    self.before = index
                    self.entries.clear()
                elif base > self.before:
                    del self.entries[: base - self.before]
                    self.before = base
            case _:
                pass
        return ""


@dataclass(frozen=True, slots=True)
class Found:
    """The log as appending goes on."""

    state: LogState
    segments: tuple[tuple[int, int], ...]
    """(sequence, highest index of an entry in it) of each segment, in order."""
    tail: Tail


def recover(disk: Disk, directory: str, node_id: str) -> tuple[Recovered, Found]:
    """Read every segment of `directory`. Raises CorruptLog, UnsupportedFormat or ForeignDirectory."""
    names = [name for name in disk.names(directory) if name.endswith(SUFFIX)]
    fold, cut, segments = _Fold(), None, list[tuple[int, int]]()
    tail = Tail(0, 0, 0, 0, 0)
    first = _sequence_of(names[0]) if names else 1
    for sequence, name in enumerate(names, first):
        if name != segment_name(sequence):
            raise CorruptLog(segment_name(sequence), 0, 0, f"the segment is missing, but {name} is there")
        content = read_file(disk, f"{directory}/{name}")
        header, header_crc = decode_header(name, content)
        _check_owner(directory, name, header, sequence, node_id)
        if sequence == first:
            fold.begin(header)
        else:
            _check_continuation(name, header, tail, fold.state)
        if len(content) != header.size:
            raise CorruptLog(name, len(content), 0, f"the file has {len(content)} of its {header.size} bytes")
        scan = scan_segment(name, content, header_crc)
        if scan.torn is not None:
            cut = Cut(name, scan.end, scan.garbage_end - scan.end, scan.torn)
            if sequence < first + len(names) - 1:
                raise CorruptLog(name, scan.end, len(scan.records) + 1, f"{scan.torn}, in a segment that was complete")
        fold.add(name, header, scan, sequence == first)
        segments.append((sequence, fold.highest))
        tail = Tail(sequence, scan.end, scan.garbage_end, scan.crc, header.size)
    _check_nothing_is_missing(first, fold)
    state = fold.state
    recovered = Recovered(
        state.genesis, state.hard_state, tuple(fold.entries), cut, fold.records, len(names), state.snapshot
    )
    return recovered, Found(state, tuple(segments), tail)


def _sequence_of(name: str) -> int:
    digits = name.removesuffix(SUFFIX)
    if not digits.isdigit() or segment_name(int(digits)) != name:
        raise CorruptLog(name, 0, 0, "that is no name of a segment: remove what does not belong here")
    return int(digits)


def _check_nothing_is_missing(first: int, fold: _Fold) -> None:
    """Segments are removed only when a snapshot stands for everything in them."""
    missing = first > 1 and fold.state.snapshot is None
    if missing or fold.before > fold.state.base:
        raise CorruptLog(
            segment_name(first - 1),
            0,
            0,
            f"the segment is missing: entries {fold.state.base + 1} to {fold.before} were in it or before it",
        )


def _check_owner(directory: str, name: str, header: SegmentHeader, sequence: int, node_id: str) -> None:
    """The segment is ours, and the one that its name says."""
    if header.node_id != node_id:
        raise ForeignDirectory(directory, f"node {header.node_id}", f"node {node_id}")
    if header.sequence != sequence:
        raise CorruptLog(name, 0, 0, f"it calls itself segment {header.sequence}")


def _check_continuation(name: str, header: SegmentHeader, tail: Tail, state: LogState) -> None:
    """The header continues the segments before it."""
    if (header.previous_end, header.previous_crc) != (tail.end, tail.crc):
        cause = f"its records end at byte {tail.end}, but {name} was begun when they ended at {header.previous_end}"
        raise CorruptLog(segment_name(tail.sequence), tail.end, 0, cause)
    if (header.last_index, header.hard_state) != (state.last_index, state.hard_state):
        raise CorruptLog(name, HEADER_BYTES, 0, "its header does not agree with the segments before it")
