"""Opening a log: from the segments on the disk to what they mean.

It must not guess: a segment that must be complete (every one but the last) and is not, a gap, a segment of another
node or another format, or records that do not continue each other are refused with an error that names the place.

It does not change the disk; `DurableLog.open` cuts a torn tail and syncs what was read.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from impl.runtime.interfaces import Disk
from impl.storage.errors import CorruptLog, ForeignDirectory
from impl.storage.records import NO_HARD_STATE, Cut, Entry, Genesis, HardState, Recovered
from impl.storage.scan import Scan, scan_segment
from impl.storage.segment import HEADER_BYTES, SegmentHeader, decode_header, decode_record

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

    genesis: Genesis | None = None
    hard_state: HardState = NO_HARD_STATE
    entries: list[Entry] = field(default_factory=list)
    records: int = 0

    def add(self, segment: str, scan: Scan) -> None:
        """Take the records of a segment in order. Raises CorruptLog if one does not continue the log."""
        for number, raw in enumerate(scan.records, 1):
            try:
                record = decode_record(raw)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise CorruptLog(segment, raw.offset, number, f"its content cannot be read: {error}") from error
            cause = self._take(record)
            if cause:
                raise CorruptLog(segment, raw.offset, number, cause)
        self.records += len(scan.records)

    def _take(self, record: Genesis | HardState | Entry) -> str:
        match record:
            case Genesis():
                if self.genesis is not None:
                    return "a second genesis"
                self.genesis = record
            case HardState():
                if record.term < self.hard_state.term:
                    return f"the term goes back from {self.hard_state.term} to {record.term}"
                self.hard_state = record
            case Entry(index):
                if not 1 <= index <= len(self.entries) + 1:
                    return f"entry {index} follows entry {len(self.entries)}"
                del self.entries[index - 1 :]
                self.entries.append(record)
        return ""


def recover(disk: Disk, directory: str, node_id: str) -> tuple[Recovered, Tail]:
    """Read every segment of `directory`. Raises CorruptLog, UnsupportedFormat or ForeignDirectory."""
    names = [name for name in disk.names(directory) if name.endswith(SUFFIX)]
    fold, cut = _Fold(), None
    tail = Tail(0, 0, 0, 0, 0)
    for sequence, name in enumerate(names, 1):
        if name != segment_name(sequence):
            raise CorruptLog(segment_name(sequence), 0, 0, f"the segment is missing, but {name} is there")
        content = _read(disk, f"{directory}/{name}")
        header, header_crc = decode_header(name, content)
        _check_header(directory, name, header, sequence, node_id, tail, fold)
        if len(content) != header.size:
            raise CorruptLog(name, len(content), 0, f"the file has {len(content)} of its {header.size} bytes")
        scan = scan_segment(name, content, header_crc)
        if scan.torn is not None:
            cut = Cut(name, scan.end, scan.garbage_end - scan.end, scan.torn)
            if sequence < len(names):
                raise CorruptLog(name, scan.end, len(scan.records) + 1, f"{scan.torn}, in a segment that was complete")
        fold.add(name, scan)
        tail = Tail(sequence, scan.end, scan.garbage_end, scan.crc, header.size)
    recovered = Recovered(
        fold.genesis, fold.hard_state, tuple(fold.entries), cut, records=fold.records, segments=len(names)
    )
    return recovered, tail


def _read(disk: Disk, path: str) -> bytes:
    file = disk.open(path)
    try:
        return file.read(0, file.size())
    finally:
        file.close()


def _check_header(
    directory: str, name: str, header: SegmentHeader, sequence: int, node_id: str, tail: Tail, fold: _Fold
) -> None:
    """The header continues the previous segment, and it is ours."""
    if header.node_id != node_id:
        raise ForeignDirectory(directory, f"node {header.node_id}", f"node {node_id}")
    if header.sequence != sequence:
        raise CorruptLog(name, 0, 0, f"it calls itself segment {header.sequence}")
    if sequence > 1 and (header.previous_end, header.previous_crc) != (tail.end, tail.crc):
        previous = segment_name(sequence - 1)
        cause = f"its records end at byte {tail.end}, but {name} was begun when they ended at {header.previous_end}"
        raise CorruptLog(previous, tail.end, 0, cause)
    if sequence > 1 and (header.last_index, header.hard_state) != (len(fold.entries), fold.hard_state):
        raise CorruptLog(name, HEADER_BYTES, 0, "its header does not agree with the segments before it")
