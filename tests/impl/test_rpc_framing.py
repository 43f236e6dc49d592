"""Frames: the same wherever TCP cut the stream; what is not a frame is named and never delivered."""

from __future__ import annotations

from itertools import pairwise
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from impl.rpc import framing
from impl.rpc.framing import (
    HEADER_BYTES,
    CorruptFrame,
    FrameError,
    FrameKind,
    FrameReader,
    OversizedFrame,
    checksum,
    encode_frame,
)

LIMIT = 4096
FRAMES = st.lists(st.tuples(st.sampled_from(FrameKind), st.binary(max_size=300)), max_size=8)


def read(chunks: list[bytes]) -> tuple[list[tuple[FrameKind, bytes]], str | None]:
    """The frames that come out, and the cause if reading ended badly."""
    reader, frames = FrameReader(LIMIT), []
    try:
        for chunk in chunks:
            for kind, payload, crc in reader.feed(chunk):
                assert crc == checksum(kind, payload)
                frames.append((kind, payload))
    except FrameError as error:
        return frames, error.cause
    return frames, None


def stream_of(frames: list[tuple[FrameKind, bytes]]) -> bytes:
    return b"".join(encode_frame(kind, payload) for kind, payload in frames)


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    borders = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in pairwise(borders) if end > start]


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(FRAMES, st.lists(st.integers(0, 5000), max_size=12))
def test_frames_come_out_as_they_went_in_wherever_the_stream_was_cut(
    frames: list[tuple[FrameKind, bytes]], places: list[int]
) -> None:
    assert read(cut(stream_of(frames), places)) == (frames, None)


def test_a_stream_cut_at_every_byte_or_at_any_one_byte_reads_the_same() -> None:
    frames = [(FrameKind.RAFT, b"one"), (FrameKind.PING, b""), (FrameKind.RESPONSE, bytes(700)), (FrameKind.RAFT, b"z")]
    stream = stream_of(frames)
    assert read([stream[i : i + 1] for i in range(len(stream))]) == (frames, None)
    for place in range(len(stream) + 1):
        assert read([stream[:place], stream[place:]]) == (frames, None)


@settings(max_examples=500, deadline=None, derandomize=True, database=None)
@given(FRAMES, st.integers(0, 5000), st.integers(1, 255), st.lists(st.integers(0, 5000), max_size=4))
def test_a_changed_byte_never_changes_a_frame_that_is_delivered(
    frames: list[tuple[FrameKind, bytes]], place: int, mask: int, places: list[int]
) -> None:
    stream = bytearray(stream_of(frames))
    if stream:
        stream[place % len(stream)] ^= mask
    delivered, _ = read(cut(bytes(stream), places))
    assert delivered == frames[: len(delivered)]
    assert len(delivered) < len(frames) or not frames


def wrong_frames_delivered() -> int:
    """Frames delivered that were never sent, over every single flipped bit of a payload."""
    frame, wrong = encode_frame(FrameKind.RAFT, bytes(range(40))), 0
    for bit in range(8 * HEADER_BYTES, 8 * len(frame)):
        stream = bytearray(frame)
        stream[bit // 8] ^= 1 << bit % 8
        wrong += delivers(bytes(stream))
    return wrong


def delivers(stream: bytes) -> bool:
    try:
        return bool(list(FrameReader(LIMIT).feed(stream)))
    except FrameError:
        return False


def test_a_checksum_that_does_not_cover_the_payload_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wrong_frames_delivered() == 0
    sent = checksum(FrameKind.RAFT, bytes(range(40)))
    monkeypatch.setattr(framing, "frame_crc", lambda kind, payload: sent)
    assert wrong_frames_delivered() == 8 * 40


def test_an_oversized_frame_is_refused_from_its_header_alone() -> None:
    header = encode_frame(FrameKind.RAFT, bytes(LIMIT + 1))[:HEADER_BYTES]
    with pytest.raises(OversizedFrame, match="4097 bytes, at most 4096"):
        list(FrameReader(LIMIT).feed(header))
    assert read([stream_of([(FrameKind.RAFT, bytes(LIMIT))])])[1] is None


def test_good_frames_before_a_bad_one_are_delivered() -> None:
    stream = stream_of([(FrameKind.RAFT, b"good")]) + b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert read([stream]) == ([(FrameKind.RAFT, b"good")], "oversized")


def test_an_unknown_kind_is_corrupt() -> None:
    payload = b"x"
    frame = len(payload).to_bytes(4, "big") + crc32(payload, crc32(b"\x63")).to_bytes(4, "big") + b"\x63" + payload
    with pytest.raises(CorruptFrame, match="kind 99"):
        list(FrameReader(LIMIT).feed(frame))


def test_the_checksum_covers_the_kind() -> None:
    assert len({checksum(kind, b"same") for kind in FrameKind}) == len(FrameKind)
