"""Answers in the shape that Consul's users parse: Go's JSON, Consul's headers, spelled as Go sends them.

Source: Consul, "HTTP API structure", "Consistency modes", "Formatted JSON output".
"""

from __future__ import annotations

from typing import Any

import msgspec

from impl.agent.api import AgentError, Consistency, ReadReply
from impl.catalog.store import KvEntry
from impl.http.request import HttpError, Send

Header = tuple[bytes, bytes]

_JSON = (b"Content-Type", b"application/json")
_TEXT = (b"Content-Type", b"text/plain; charset=utf-8")
_encoder = msgspec.json.Encoder()
_EFFECTIVE = {
    Consistency.DEFAULT: (b"X-Consul-Effective-Consistency", b"leader"),
    Consistency.CONSISTENT: (b"X-Consul-Effective-Consistency", b"consistent"),
    Consistency.STALE: (b"X-Consul-Effective-Consistency", b"stale"),
}
_TRUE, _FALSE = (b"X-Consul-Knownleader", b"true"), (b"X-Consul-Knownleader", b"false")


class KvRow(msgspec.Struct, frozen=True):
    """A key as `/v1/kv` and transactions show it: fields in Go's order, the value in base64, null if it is empty."""

    LockIndex: int
    Key: str
    Flags: int
    Value: bytes | None
    CreateIndex: int
    ModifyIndex: int


class HeldKvRow(msgspec.Struct, frozen=True):
    """A key whose lock is held, and by whom."""

    LockIndex: int
    Key: str
    Flags: int
    Value: bytes | None
    Session: str
    CreateIndex: int
    ModifyIndex: int


def kv_row(entry: KvEntry) -> KvRow | HeldKvRow:
    """The entry as JSON shows it."""
    if entry.session:
        shown = (entry.lock_index, entry.key, entry.flags, entry.value or None, entry.session)
        return HeldKvRow(*shown, entry.create_index, entry.modify_index)
    return KvRow(entry.lock_index, entry.key, entry.flags, entry.value or None, entry.create_index, entry.modify_index)


class Response(msgspec.Struct, frozen=True):
    """Status, headers (without Content-Length) and body."""

    status: int
    headers: tuple[Header, ...] = ()
    body: bytes = b""

    async def send(self, send: Send) -> None:
        """Hand it to the ASGI server."""
        length = (b"Content-Length", b"%d" % len(self.body))
        await send({"type": "http.response.start", "status": self.status, "headers": (*self.headers, length)})
        await send({"type": "http.response.body", "body": self.body})


def json_response(document: Any, pretty: bool, headers: tuple[Header, ...] = ()) -> Response:
    """200 with a JSON body as Go writes it: `<`, `>` and `&` escaped; `pretty` indents by four and ends the line."""
    body = _encoder.encode(document)
    for plain, escaped in ((b"<", b"\\u003c"), (b">", b"\\u003e"), (b"&", b"\\u0026")):
        if plain in body:
            body = body.replace(plain, escaped)
    if pretty:
        body = msgspec.json.format(body, indent=4) + b"\n"
    return Response(200, (_JSON, *headers), body)


def text_response(status: int, text: str, headers: tuple[Header, ...] = ()) -> Response:
    """A plain text body: errors, and the index page."""
    return Response(status, (_TEXT, *headers), text.encode())


def error_response(error: HttpError | AgentError) -> Response:
    """A request that was refused, or that failed."""
    if isinstance(error, HttpError):
        return text_response(error.status, error.text, error.headers)
    return text_response(500, str(error))


def read_headers(index: int, reply: ReadReply, consistency: Consistency) -> tuple[Header, ...]:
    """The headers of every answer to a query."""
    return (
        (b"X-Consul-Index", b"%d" % index),
        _TRUE if reply.known_leader else _FALSE,
        (b"X-Consul-Lastcontact", b"%d" % reply.last_contact_ms),
        _EFFECTIVE[consistency],
    )
