"""Frames on a TCP connection: length u32 | CRC-32 u32 | kind u8 | payload; big-endian; `length` counts the payload.

The CRC covers the kind and the payload. It protects against what TCP's 16-bit checksum lets through, makes a misread
length visible at once, and is what traces record of a message at both ends (ARCHITECTURE.md section 5, `frame`).

It must not know what payloads mean.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from zlib import crc32

_HEADER = struct.Struct(">IIB")
HEADER_BYTES = _HEADER.size


class FrameKind(IntEnum):
    """What a frame is for."""

    HELLO = 1
    """Handshake, first frame in each direction."""
    REFUSAL = 2
    """Instead of the answering HELLO: why; the connection is closed."""
    PING = 3
    PONG = 4
    RAFT = 5
    """One Raft message."""
    REQUEST = 6
    RESPONSE = 7


_KINDS = {kind.value: kind for kind in FrameKind}
_SEEDS = {kind: crc32(bytes((kind,))) for kind in FrameKind}


class FrameError(Exception):
    """What arrived is not a frame. The connection cannot be used any more: nobody knows where the next frame
    begins."""

    cause = "malformed"


class OversizedFrame(FrameError):
    """The announced length exceeds the limit."""

    cause = "oversized"


class CorruptFrame(FrameError):
    """The checksum does not match, or the kind is unknown."""

    cause = "corrupt"


def checksum(kind: FrameKind, payload: bytes) -> int:
    """The CRC that a frame of this kind and payload carries."""
    return crc32(payload, _SEEDS[kind])


def encode_frame(kind: FrameKind, payload: bytes) -> bytes:
    """The bytes of a frame."""
    return _HEADER.pack(len(payload), crc32(payload, _SEEDS[kind]), kind) + payload


class FrameReader:
    """Cuts a stream of bytes into frames; wherever TCP cut it, the frames are the same."""

    def __init__(self, frame_bytes_max: int) -> None:
        self.frame_bytes_max = frame_bytes_max
        """Payloads longer than this are refused before they are read."""
        self._rest = bytearray()
        """The beginning of a frame that is not complete."""
        self._needed = HEADER_BYTES
        """Length that `_rest` must have before it is worth looking at."""

    def feed(self, data: bytes) -> Iterator[tuple[FrameKind, bytes, int]]:
        """The frames (kind, payload, CRC) that `data` completes.

        Raises OversizedFrame or CorruptFrame after the good frames before the bad one; then the reader is useless. An
        iteration that is given up makes it useless too.
        """
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return
            data = bytes(self._rest)
            self._rest.clear()
        offset, length = 0, len(data)
        unpack, limit = _HEADER.unpack_from, self.frame_bytes_max
        while length - offset >= HEADER_BYTES:
            size, crc, number = unpack(data, offset)
            if size > limit:
                raise OversizedFrame(f"a frame of {size} bytes, at most {limit} are taken")
            start = offset + HEADER_BYTES
            if length - start < size:
                self._needed = HEADER_BYTES + size
                self._rest += memoryview(data)[offset:]
                return
            kind = _KINDS.get(number)
            payload = data[start : start + size]
            if kind is None or frame_crc(kind, payload) != crc:
                raise CorruptFrame(f"a frame of kind {number} and {size} bytes whose checksum or kind is wrong")
            yield kind, payload, crc
            offset = start + size
        self._needed = HEADER_BYTES
        if offset < length:
            self._rest += memoryview(data)[offset:]


def frame_crc(kind: FrameKind, payload: bytes) -> int:
    """The CRC that the reader expects; the writer's `checksum`, computed again."""
    return crc32(payload, _SEEDS[kind])
