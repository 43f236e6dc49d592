"""Connections of a load generator: prebuilt requests out, the least parsing in, so that the generator is not what is
measured.

`HttpLoad` speaks HTTP/1.1, one request at a time. `GrpcLoad` speaks just enough HTTP/2 to call a unary gRPC method
with several requests outstanding (RFC 9113; header blocks are constant, literal, never indexed), since etcd's JSON
gateway would handicap etcd. An answer counts as good only if it has a message: a gRPC error has none.
"""

from __future__ import annotations

import asyncio
import itertools
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import cast

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
OK, WRITTEN = b"HTTP/1.1 200 ", b"\r\ncontent-length: 4\r\n\r\ntrue"
"""How the answer to a put begins and ends."""
HEAD = struct.Struct(">BHBBI")
"""Of a frame: its length, in two parts, type, flags and stream."""
END_STREAM, ACK, END_HEADERS = 1, 1, 4
WINDOW_BYTES = (1 << 31) - 1 - 65_535


class Tally:
    """What all connections of a generator have done since `since_ns`, and when to stop."""

    def __init__(self, since_ns: int, until_ns: int) -> None:
        self.since_ns = since_ns
        self.until_ns = until_ns
        self.latencies_us: list[int] = []
        self.errors = 0
        self.last_error = ""

    def answered(self, sent_ns: int, error: str = "") -> bool:
        """Count an answer; whether to go on."""
        now_ns = time.monotonic_ns()
        if error:
            self.errors += 1
            self.last_error = error
        elif sent_ns >= self.since_ns and now_ns <= self.until_ns:
            self.latencies_us.append((now_ns - sent_ns) // 1000)
        return now_ns < self.until_ns


class Load(asyncio.Protocol, ABC):
    """One connection under load; `finished` is done when it has stopped."""

    def __init__(self, requests: Sequence[bytes], first: int, tally: Tally) -> None:
        self.tally = tally
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.requests = itertools.cycle([*requests[first:], *requests[:first]])
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.begin()

    @abstractmethod
    def begin(self) -> None:
        """Send the first requests."""

    def finish(self) -> None:
        """No more requests."""
        if not self.finished.done():
            self.finished.set_result(None)
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.finished.done():
            self.tally.errors += 1
            self.tally.last_error = f"connection lost: {exc}"
            self.finished.set_result(None)


class HttpLoad(Load):
    """One request at a time. Answers must carry a content-length."""

    def begin(self) -> None:
        self.sent_ns = time.monotonic_ns()
        self.transport.write(next(self.requests))

    def data_received(self, data: bytes) -> None:
        if data.startswith(OK) and data.endswith(WRITTEN) and not self.buffer:
            self.on_answer("")
            return
        buffer = self.buffer = self.buffer + data if self.buffer else data
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = buffer[:end].lower()
        place = head.find(b"content-length:")
        length = int(head[place + 15 :].split(b"\r\n", 1)[0]) if place >= 0 else 0
        if len(buffer) < end + 4 + length:
            return
        self.buffer = b""
        good = buffer.startswith(OK) and buffer[end + 4 :] != b"false"
        self.on_answer("" if good else buffer[:200].decode(errors="replace"))

    def on_answer(self, error: str) -> None:
        """The answer is complete."""
        if self.tally.answered(self.sent_ns, error):
            self.begin()
        else:
            self.finish()


def http_request(method: str, path: str, body: bytes = b"") -> bytes:
    """The bytes of a request."""
    return f"{method} {path} HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """An HTTP/2 frame."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def literal(name: str, value: str) -> bytes:
    """A header field that is not to be indexed (RFC 7541, section 6.2.2); both texts shorter than 127 bytes."""
    return b"\x00" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()


def grpc_headers(path: str) -> bytes:
    """The header block of a unary call."""
    fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "bench"}
    fields |= {"content-type": "application/grpc", "te": "trailers"}
    return b"".join(literal(name, value) for name, value in fields.items())


def grpc_message(*fields: tuple[int, bytes]) -> bytes:
    """A gRPC message: a protobuf of byte fields, behind its prefix."""
    body = b"".join(bytes((number << 3 | 2,)) + varint(len(value)) + value for number, value in fields)
    return b"\x00" + len(body).to_bytes(4, "big") + body


def varint(number: int) -> bytes:
    """Protobuf's variable-length integer."""
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*parts, number))


class GrpcLoad(Load):
    """`depth` calls outstanding on one connection. Requests are messages; `headers` is the block of the method."""

    def __init__(self, requests: Sequence[bytes], first: int, tally: Tally, headers: bytes, depth: int) -> None:
        super().__init__(requests, first, tally)
        self.headers = headers
        self.depth = depth
        self.stream = -1
        self.sent_ns: dict[int, int] = {}
        self.with_message: set[int] = set()

    def begin(self) -> None:
        settings = (4).to_bytes(2, "big") + WINDOW_BYTES.to_bytes(4, "big")  # SETTINGS_INITIAL_WINDOW_SIZE
        hello = PREFACE + frame(SETTINGS, 0, 0, settings)
        self.transport.write(hello + frame(WINDOW_UPDATE, 0, 0, WINDOW_BYTES.to_bytes(4, "big")))
        self.transport.write(b"".join(self.call() for _ in range(self.depth)))

    def call(self) -> bytes:
        """The frames of the next call."""
        self.stream += 2
        self.sent_ns[self.stream] = time.monotonic_ns()
        headers = frame(HEADERS, END_HEADERS, self.stream, self.headers)
        return headers + frame(DATA, END_STREAM, self.stream, next(self.requests))

    def data_received(self, data: bytes) -> None:
        buffer = self.buffer + data
        place = 0
        out: list[bytes] = []
        while len(buffer) - place >= HEAD.size:
            high, low, kind, flags, stream = HEAD.unpack_from(buffer, place)
            end = place + HEAD.size + (high << 16 | low)
            if len(buffer) < end:
                break
            self.on_frame(kind, flags, stream, buffer[place + HEAD.size : end], out)
            place = end
        self.buffer = buffer[place:]
        if out:
            self.transport.write(b"".join(out))
        if not self.sent_ns:
            self.finish()

    def on_frame(self, kind: int, flags: int, stream: int, payload: bytes, out: list[bytes]) -> None:
        """Take one frame; what is to be sent goes to `out`."""
        if kind == DATA and len(payload) >= 5:
            self.with_message.add(stream)
        elif kind == SETTINGS and not flags & ACK:
            out.append(frame(SETTINGS, ACK, 0, b""))
        elif kind == PING and not flags & ACK:
            out.append(frame(PING, ACK, 0, payload))
        elif kind == GOAWAY:
            self.tally.last_error = f"GOAWAY {payload[8:].decode(errors='replace')}"
        if (kind in (DATA, HEADERS) and flags & END_STREAM) or kind == RST_STREAM:
            sent_ns = self.sent_ns.pop(stream)
            error = "" if stream in self.with_message and kind != RST_STREAM else "an answer without a message"
            self.with_message.discard(stream)
            if self.tally.answered(sent_ns, error):
                out.append(self.call())
