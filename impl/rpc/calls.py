"""The payloads of calls: a request with an id, and the response with the same id.

Ids grow within a connection, so that a request is served at most once and an answer is taken at most once: a
repeated id is a defect of the other side, and never a retry (whoever retries makes a new call).
"""

from __future__ import annotations

from enum import IntEnum

import msgspec


class Outcome(IntEnum):
    """How a call ended at the side that served it."""

    OK = 0
    FAILED = 1
    """It had no effect and never will."""
    UNKNOWN = 2
    """It may have had its effect, or may yet have it."""


class Request(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A call."""

    id: int
    """Greater than that of every earlier request of the connection."""
    method: str
    body: bytes


class Response(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Its answer: the result, or the error's text in UTF-8."""

    id: int
    outcome: Outcome
    body: bytes


encode = msgspec.msgpack.Encoder().encode
decode_request = msgspec.msgpack.Decoder(Request).decode
decode_response = msgspec.msgpack.Decoder(Response).decode

OVERHEAD_BYTES = 64
"""More than a request or response adds to its method and body."""
