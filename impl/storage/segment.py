"""The format of a segment of the log: one header block, then records, then zeros up to the preallocated size.

    header block (512 bytes): magic | format u32 | length of the body u32 | crc u32 | msgpack SegmentHeader | zeros
    record: crc u32 | previous u32 | length u32 | unsynced u32 | index u64 | term u64 | kind u8 | variant u8 | 6 zeros |
            payload | zeros to 8

All integers are little-endian. `crc` is the CRC-32 of everything after it, padding included. `previous` is the `crc`
of the predecessor (of the header block, for the first record): records form a chain, so one that was moved, doubled
or left over from an older write does not fit. It is stored and not only mixed in, so that a record can be recognised
as intact when its predecessor is damaged. `unsynced` is the number of bytes between the end of what was known to be
durable when the record was written and its own start: an intact record testifies that everything before
`offset - unsynced` had reached the disk. `variant` is the kind of an entry (impl/raft/messages.py), and of a snapshot
marker, whether it replaces the log. A *run* is a record of many: commands of one term that follow each other, `index`
is that of the first; the payload is their payloads, as a msgpack array. Nearly everything is written in runs, since a
record for each entry costs every server more than to apply it.

A segment begins with the records that it *carries*: the genesis and the newest snapshot marker, repeated, so that the
segments before it can be removed once their entries are forgotten.

The first 20 bytes of the header block, and what its CRC covers, stay the same in every format version.

This module must not do I/O. Source: etcd `wal` (chained CRC, preallocated segments); `unsynced` is ours.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Sequence
from typing import Annotated, Final, assert_never, cast
from zlib import crc32

import msgspec

from impl.storage.errors import CorruptLog, UnsupportedFormat
from impl.storage.records import Entry, Genesis, HardState, Record, SnapshotMarker

FORMAT = 3
MAGIC = b"COMITIA\n"
HEADER_BYTES = 512
SEGMENT_BYTES = 8 * 1024 * 1024
"""Preallocated size of a segment: to allocate one takes some 30 ms (`spare`). One that must hold a larger write is as
large as needed."""
MAX_PAYLOAD_BYTES = 64 * 1024 * 1024
"""No record is longer: a length beyond it is damage."""
RUN_BYTES_MAX = 1024 * 1024
"""Commands of more bytes have records of their own."""

_PREFIX = struct.Struct("<8sIII")
_RECORD = struct.Struct("<IIIIQQBB6x")
_AFTER_CRC = struct.Struct("<IIIQQBB6x")
_CRC = struct.Struct("<I")
RECORD_HEADER_BYTES = _RECORD.size
ALIGNMENT = 8

ENTRY, HARD_STATE, GENESIS, SNAPSHOT_MARKER, RUN = 1, 2, 3, 4, 5
_KINDS = frozenset((ENTRY, HARD_STATE, GENESIS, SNAPSHOT_MARKER, RUN))
_PADDING = tuple(bytes(n) for n in range(ALIGNMENT))

record_crc: Final = crc32
"""Checksum of a record: of everything after the `crc` field, hence of the predecessor's checksum too."""


class SegmentHeader(msgspec.Struct, frozen=True, array_like=True):
    """What a segment says before its first record."""

    sequence: int
    """Number of the segment, from 1."""
    node_id: str
    size: int
    """Preallocated length of the file: a shorter file was truncated."""
    previous_end: int
    """Where the records of the previous segment end: its durable high-water mark. 0 in the first segment."""
    previous_crc: int
    """CRC of the last record of the previous segment (of its header if it holds none). 0 in the first segment."""
    last_index: int
    """Index of the last entry of the log when the segment began."""
    hard_state: HardState
    """In force when the segment began."""
    carried: int
    """How many of its first records only repeat what was in force when it began."""


_decode_header_body = msgspec.msgpack.Decoder(SegmentHeader).decode
_decode_voted_for = msgspec.msgpack.Decoder(str | None).decode
_decode_genesis = msgspec.msgpack.Decoder(Genesis).decode
_decode_marker = msgspec.msgpack.Decoder(SnapshotMarker).decode
_decode_run = msgspec.msgpack.Decoder(Annotated[list[bytes], msgspec.Meta(min_length=1)]).decode


def encode_header(header: SegmentHeader) -> tuple[bytes, int]:
    """The header block and its CRC."""
    body = msgspec.msgpack.encode(header)
    room = HEADER_BYTES - _PREFIX.size
    if len(body) > room:
        raise ValueError(f"a segment header of {len(body)} bytes: node names may have at most 255 bytes")
    padded = body + bytes(room - len(body))
    crc = crc32(padded, crc32(_PREFIX.pack(MAGIC, FORMAT, len(body), 0)))
    return _PREFIX.pack(MAGIC, FORMAT, len(body), crc) + padded, crc


def decode_header(segment: str, data: bytes) -> tuple[SegmentHeader, int]:
    """The header and its CRC; `segment` names the file in errors. Raises CorruptLog or UnsupportedFormat."""
    if len(data) < HEADER_BYTES:
        raise CorruptLog(segment, 0, 0, f"the file has {len(data)} bytes, less than a segment's header")
    magic, version, length, crc = _PREFIX.unpack_from(data)
    if magic != MAGIC:
        raise CorruptLog(segment, 0, 0, "it does not begin like a segment of a log")
    if crc32(data[_PREFIX.size : HEADER_BYTES], crc32(_PREFIX.pack(magic, version, length, 0))) != crc:
        raise CorruptLog(segment, 0, 0, "the header's checksum does not match")
    if version != FORMAT:
        raise UnsupportedFormat(segment, version, FORMAT)
    try:
        return _decode_header_body(data[_PREFIX.size : _PREFIX.size + length]), crc
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptLog(segment, 0, 0, f"the header cannot be read: {error}") from error


def encode_records(
    records: Sequence[Record], crc: int, unsynced: int, replacing: Collection[int] = (), run: int = 0
) -> tuple[bytes, int]:
    """The bytes of `records` and the CRC of the last one.

    `crc` is that of the predecessor; `unsynced` the bytes of the log written since the last sync; `replacing` the
    positions of the snapshot markers that replace the log; `run` how many records at the beginning are commands of one
    term that follow each other.
    """
    parts: list[bytes] = []
    for kind, variant, index, term, payload in _contents(records, replacing, run):
        length = len(payload)
        if length > MAX_PAYLOAD_BYTES:
            raise ValueError(f"a record of {length} bytes: at most {MAX_PAYLOAD_BYTES}")
        head = _AFTER_CRC.pack(crc, length, unsynced, index, term, kind, variant)
        content = head + payload + _PADDING[-length % ALIGNMENT]
        crc = record_crc(content)
        parts += (_CRC.pack(crc), content)
        unsynced += 4 + len(content)
    return b"".join(parts), crc


_Content = tuple[int, int, int, int, bytes]
"""Kind, variant, index, term and payload of a record."""


def _contents(records: Sequence[Record], replacing: Collection[int], run: int) -> Iterator[_Content]:
    first = 0
    if run > 1:
        commands = cast(Sequence[Entry], records[:run])
        payloads = [command.payload for command in commands]
        if sum(map(len, payloads)) <= RUN_BYTES_MAX:
            first = run
            yield RUN, 0, commands[0].index, commands[0].term, msgspec.msgpack.encode(payloads)
    for position in range(first, len(records)):
        yield _content(records[position], position in replacing)


def _content(record: Record, replaces: bool) -> _Content:
    match record:
        case Entry(index, term, payload, variant):
            return ENTRY, variant, index, term, payload
        case HardState(term, voted_for):
            return HARD_STATE, 0, 0, term, msgspec.msgpack.encode(voted_for)
        case Genesis():
            return GENESIS, 0, 0, 0, msgspec.msgpack.encode(record)
        case SnapshotMarker(index, term):
            return SNAPSHOT_MARKER, int(replaces), index, term, msgspec.msgpack.encode(record)
        case _:
            assert_never(record)


class RawRecord(msgspec.Struct, frozen=True, gc=False):
    """A record whose checksum is right. Whether it continues the log is not known yet."""

    offset: int
    end: int
    crc: int
    previous: int
    unsynced: int
    index: int
    term: int
    kind: int
    variant: int
    payload: bytes


def read_record(data: memoryview, offset: int) -> RawRecord | str:
    """The record at `offset`, or why there is none."""
    if offset + RECORD_HEADER_BYTES > len(data):
        return "the segment ends within a record's header"
    crc, previous, length, unsynced, index, term, kind, variant = _RECORD.unpack_from(data, offset)
    if kind not in _KINDS or length > MAX_PAYLOAD_BYTES:
        return "there is no record header"
    start = offset + RECORD_HEADER_BYTES
    end = start + length + (-length % ALIGNMENT)
    if end > len(data):
        return f"the record's length of {length} bytes exceeds the segment"
    if record_crc(data[offset + 4 : end]) != crc:
        return "the record's checksum does not match"
    payload = bytes(data[start : start + length])
    return RawRecord(offset, end, crc, previous, unsynced, index, term, kind, variant, payload)


def extent(data: memoryview, offset: int) -> int:
    """Where the damaged record at `offset` would end if its length can be believed; else the end of its header."""
    end = offset + RECORD_HEADER_BYTES
    if end > len(data):
        return len(data)
    length: int = _RECORD.unpack_from(data, offset)[2]
    return end + length if end + length <= len(data) else end


def decode_records(raw: RawRecord) -> Sequence[Record]:
    """The records that a raw one holds.

    Raises MsgspecError or UnicodeDecodeError if the payload is not what the kind says.
    """
    if raw.kind == RUN:
        return [Entry(index, raw.term, payload) for index, payload in enumerate(_decode_run(raw.payload), raw.index)]
    if raw.kind == ENTRY:
        return [Entry(raw.index, raw.term, raw.payload, raw.variant)]
    if raw.kind == HARD_STATE:
        return [HardState(raw.term, _decode_voted_for(raw.payload))]
    if raw.kind == SNAPSHOT_MARKER:
        return [_decode_marker(raw.payload)]
    return [_decode_genesis(raw.payload)]
