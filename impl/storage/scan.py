"""Reading one segment: the records that continue each other, and the judgement of what stands after the last of them.

Four things can follow the last good record:

*nothing*: zeros up to the preallocated size.

*a torn tail*: the last write before a crash, of which the disk kept only some parts. It is cut and reported. Two
shapes are believed: (1) no intact record follows the damage; (2) intact records follow, none of them testifies
(`unsynced`) that the damaged one had reached the disk, and the damage is what an unwritten sector leaves: zeros,
since segments are preallocated with zeros and a cut tail is overwritten with zeros. Disks keep the sectors of an
unsynced write in any order, so the second shape is what a power loss in the middle of a group commit looks like, and
to refuse it would lose a healthy server.

*corruption*: any other damage that an intact record follows. The log was not a prefix of what was written; refuse.

*The residue.* Damage to the very last record, the loss of whole sectors of the last write, and the loss of
everything from some point of the last segment to its end look torn although the records may have been acknowledged:
nothing on this disk tells the difference. It is bounded by the last segment: of the earlier ones, the next header
holds the end and the CRC, which is the durable high-water mark. (A last segment that was deleted as a whole is
beyond what the log can see.)

This module must not do I/O. Source: Alagappan et al. 2018, "Protocol-Aware Recovery" (telling crash from corruption).
"""

from __future__ import annotations

from dataclasses import dataclass

from impl.storage.errors import CorruptLog
from impl.storage.segment import ALIGNMENT, HEADER_BYTES, RawRecord, extent, read_record

SECTOR_BYTES = 512
"""The smallest unit that a disk writes as a whole."""


@dataclass(frozen=True, slots=True)
class Scan:
    """A segment as it was read."""

    records: tuple[RawRecord, ...]
    end: int
    """Where the good records end."""
    crc: int
    """Of the last good record, or of the header."""
    garbage_end: int
    """End of the last byte that is not zero; equals `end` if nothing follows the good records."""
    torn: str | None
    """Why what follows is taken for a torn tail; None if nothing follows."""


def scan_segment(segment: str, content: bytes, header_crc: int) -> Scan:
    """Read the records of a segment. Raises CorruptLog when the damage cannot be a torn tail."""
    data = memoryview(content)
    records: list[RawRecord] = []
    offset, crc = HEADER_BYTES, header_crc
    while True:
        found = read_record(data, offset)
        if not isinstance(found, RawRecord):
            reason = found
            break
        if not continues(found, crc):
            raise CorruptLog(segment, offset, len(records) + 1, "an intact record does not continue its predecessor")
        records.append(found)
        offset, crc = found.end, found.crc
    garbage_end = len(content.rstrip(b"\0"))
    if garbage_end <= offset:
        return Scan(tuple(records), offset, crc, offset, None)
    judge_tail(segment, data, offset, garbage_end, len(records) + 1, reason)
    return Scan(tuple(records), offset, crc, garbage_end, reason)


def continues(record: RawRecord, crc: int) -> bool:
    """Whether the record was written after the one with this CRC, and nothing in between."""
    return record.previous == crc


def judge_tail(segment: str, data: memoryview, offset: int, garbage_end: int, record: int, reason: str) -> None:
    """Return if the damage at `offset` may be a torn tail; raise CorruptLog if it cannot."""
    first: RawRecord | None = None
    position = offset + ALIGNMENT
    while position < garbage_end:
        found = read_record(data, position)
        if not isinstance(found, RawRecord):
            position += ALIGNMENT
            continue
        first = first or found
        if offset < found.offset - found.unsynced:
            cause = f"{reason}, yet it had reached the disk before the intact record at byte {found.offset} was written"
            raise CorruptLog(segment, offset, record, cause)
        position = found.end
    if first is not None and not _unwritten_sector(data, offset, min(first.offset, extent(data, offset))):
        raise CorruptLog(segment, offset, record, f"{reason}, and an intact record follows at byte {first.offset}")


def _unwritten_sector(data: memoryview, start: int, end: int) -> bool:
    """Whether a sector that overlaps [start, end) is zero from `start` on: it may never have been written."""
    sector = start - start % SECTOR_BYTES
    while sector < end:
        if not any(data[max(start, sector) : sector + SECTOR_BYTES]):
            return True
        sector += SECTOR_BYTES
    return False
