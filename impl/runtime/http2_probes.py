"""Health checks' questions over HTTP/2: a PING, and gRPC's health protocol. HTTP/2 itself is h2's.

gRPC's part is one call with one message each way over h2, and not grpcio: its threads, its hooks into fork and its
20 MB would be in every agent that has such a check, and a peer could make it hold 4 MB. The tests ask real grpcio
servers. Nothing imports this module before the first such check runs.

What a peer may send is bounded (`ANSWER_BYTES_MAX`); the time is the caller's to bound. It must not judge answers.
Source: RFC 9113, section 6.7; "gRPC over HTTP2"; "GRPC Health Checking Protocol".
"""

from __future__ import annotations

from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from typing import Final
from urllib.parse import unquote

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    PingAckReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import H2Error

from impl.runtime.interfaces import Endpoint, ProbeFailed

ANSWER_BYTES_MAX: Final = 262_144
"""A health answer takes some hundred bytes."""
READ_BYTES: Final = 65_536
FRAME_HEADER_BYTES: Final = 9
SETTINGS: Final = b"\4"
"""Kind of the frame with which each side begins."""
PING: Final = b"comitia?"
METHOD: Final = "/grpc.health.v1.Health/Check"
STATUSES: Final = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
"""Of a HealthCheckResponse, by their numbers."""
CODES: Final = (
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
)
"""gRPC's status codes, by their numbers, as Go's client writes them."""


class _Connection:
    """The client's end of an HTTP/2 connection."""

    def __init__(self, reader: StreamReader, writer: StreamWriter) -> None:
        self.http2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self._reader = reader
        self._writer = writer
        self.http2.initiate_connection()

    async def events(self) -> AsyncIterator[Event]:
        """Send what is to be sent, and what the peer says to it. Raises ProbeFailed and OSError."""
        received, begin = 0, b""
        while True:
            # Never more than what arrived, which is bounded, can make us say.
            self._writer.write(self.http2.data_to_send())
            data = await self._reader.read(READ_BYTES)
            received += len(data)
            if not data:
                raise ProbeFailed("the connection was closed before the answer")
            if received > ANSWER_BYTES_MAX:
                raise ProbeFailed(f"more than {ANSWER_BYTES_MAX} bytes came instead of an answer")
            if len(begin) < FRAME_HEADER_BYTES:
                # h2 would wait for the end of the frame that, say, "HTTP/1.1" is the length of.
                begin += data[: FRAME_HEADER_BYTES - len(begin)]
                if begin[3:4] not in (b"", SETTINGS):
                    raise ProbeFailed(f"this is not HTTP/2: it begins with {begin!r}")
            try:
                events = self.http2.receive_data(data)
            except (H2Error, UnicodeDecodeError) as error:
                raise ProbeFailed(f"this is not HTTP/2: {error}") from error
            for event in events:
                if isinstance(event, ConnectionTerminated):
                    raise ProbeFailed(f"the connection was ended with {_named(event.error_code)}")
                yield event


async def ping(reader: StreamReader, writer: StreamWriter) -> None:
    """Return when a PING was answered. Raises ProbeFailed and OSError."""
    connection = _Connection(reader, writer)
    connection.http2.ping(PING)
    async for event in connection.events():
        if isinstance(event, PingAckReceived) and event.ping_data == PING:
            return


async def grpc_health(reader: StreamReader, writer: StreamWriter, endpoint: Endpoint, service: str) -> str:
    """The status of a service, or with "" of the server. Raises ProbeFailed and OSError."""
    connection = _Connection(reader, writer)
    stream = connection.http2.get_next_available_stream_id()
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    headers = [
        (":method", "POST"),
        (":scheme", "http" if endpoint.tls is None else "https"),
        (":path", METHOD),
        (":authority", f"{host}:{endpoint.port}"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "Consul Health Check"),
    ]
    connection.http2.send_headers(stream, headers)
    connection.http2.send_data(stream, framed(request(service)), end_stream=True)
    said: dict[str, str] = {}
    body = b""
    async for event in connection.events():
        match event:
            case ResponseReceived(headers=given) | TrailersReceived(headers=given):
                said.update((str(name), str(value)) for name, value in given)
            case DataReceived(data=data):
                body += data
            case StreamReset(error_code=code):
                raise ProbeFailed(f"the call was ended with {_named(code)}")
            case StreamEnded():
                return _status(said, body)
    raise AssertionError("events go on until one of them ends this")


def _named(code: ErrorCodes | int | None) -> str:
    return code.name if isinstance(code, ErrorCodes) else str(code)


def _status(said: dict[str, str], body: bytes) -> str:
    if said.get(":status") != "200":
        raise ProbeFailed(f"this is not gRPC: HTTP status {said.get(':status')}")
    code = said.get("grpc-status", "")
    if code != "0":
        name = CODES[int(code)] if code.isascii() and code.isdigit() and int(code[:3]) < len(CODES) else repr(code)
        raise ProbeFailed(f"rpc error: code = {name} desc = {unquote(said.get('grpc-message', ''))}")
    if len(body) < 5 or body[0] != 0 or int.from_bytes(body[1:5], "big") != len(body) - 5:
        raise ProbeFailed(f"{len(body)} bytes came that are not one gRPC message")
    number = response_status(body[5:])
    return STATUSES[number] if number < len(STATUSES) else str(number)


# --- messages: HealthCheckRequest {string service = 1}, HealthCheckResponse {ServingStatus status = 1} ----------------


def framed(message: bytes) -> bytes:
    """A message as gRPC sends it: not compressed, its length, itself."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def request(service: str) -> bytes:
    """A HealthCheckRequest. A field that is empty is left out."""
    name = service.encode()
    return b"\x0a" + _varint(len(name)) + name if name else b""


def response_status(message: bytes) -> int:
    """The status of a HealthCheckResponse; fields that it does not have yet are passed over. Raises ProbeFailed."""
    status, at = 0, 0
    while at < len(message):
        key, at = _read_varint(message, at)
        match key & 7:
            case 0:
                value, at = _read_varint(message, at)
                status = value if key >> 3 == 1 else status
            case 1:
                at += 8
            case 2:
                length, at = _read_varint(message, at)
                at += length
            case 5:
                at += 4
            case kind:
                raise ProbeFailed(f"the answer has a field of the unknown kind {kind}")
    if at > len(message):
        raise ProbeFailed("the answer breaks off within a field")
    return status


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    """A number and where it ends."""
    value = 0
    for position, byte in enumerate(message[at : at + 10]):
        value |= (byte & 0x7F) << 7 * position
        if byte < 0x80:
            return value, at + position + 1
    raise ProbeFailed("the answer breaks off within a number")
