"""Answers in the shape that Consul's users parse: Go's JSON, Consul's headers, spelled as Go sends them.

Source: Consul, "HTTP API structure", "Consistency modes", "Formatted JSON output".
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import msgspec

from impl.agent.requests.api import AgentError, ArchiveStream, Consistency, ReadReply
from impl.catalog.store import KvEntry
from impl.http.request import HttpError, Send

Header = tuple[bytes, bytes]


class AsWritten(bytes):
    """The name of a header that reaches the client as it is written here: uvicorn sends `name.lower()`, and the scripts
    of Consul's users look for `X-Consul-Index`."""

    def lower(self) -> AsWritten:
        """Itself."""
        return self


_JSON = (b"Content-Type", b"application/json")
_TEXT = (b"Content-Type", b"text/plain; charset=utf-8")
_encoder = msgspec.json.Encoder()
_EFFECTIVE = {
    Consistency.DEFAULT: (AsWritten(b"X-Consul-Effective-Consistency"), b"leader"),
    Consistency.CONSISTENT: (AsWritten(b"X-Consul-Effective-Consistency"), b"consistent"),
    Consistency.STALE: (AsWritten(b"X-Consul-Effective-Consistency"), b"stale"),
}
_INDEX, _LAST_CONTACT = AsWritten(b"X-Consul-Index"), AsWritten(b"X-Consul-Lastcontact")
_POLICY = (AsWritten(b"X-Consul-Default-Acl-Policy"), b"allow")
"""Of every answer, since there are no ACLs yet."""
_BACKEND = (AsWritten(b"X-Consul-Query-Backend"), b"blocking-query")
_TRUE, _FALSE = (AsWritten(b"X-Consul-Knownleader"), b"true"), (AsWritten(b"X-Consul-Knownleader"), b"false")


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

    def all_headers(self) -> tuple[Header, ...]:
        """Those of every answer, too."""
        return (*self.headers, _POLICY, (b"Content-Length", b"%d" % len(self.body)))

    async def send(self, send: Send) -> None:
        """Hand it to the ASGI server."""
        await send({"type": "http.response.start", "status": self.status, "headers": self.all_headers()})
        await send({"type": "http.response.body", "body": self.body})


class Streamed(Response, frozen=True, kw_only=True):
    """A body that comes in pieces: `body` is the first. What breaks off ends the connection, so that its client sees
    that something is missing."""

    rest: ArchiveStream

    async def send(self, send: Send) -> None:
        """Hand it to the ASGI server, as fast as its client reads."""
        try:
            await send({"type": "http.response.start", "status": self.status, "headers": (*self.headers, _POLICY)})
            piece = self.body
            while piece:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                piece = await self.rest.read()
            await send({"type": "http.response.body", "body": b""})
        except AgentError:
            return
        finally:
            self.rest.close()


@dataclass(frozen=True, slots=True)
class Stream:
    """A text that goes on: each part is sent when there is one."""

    parts: AsyncGenerator[bytes, None]
    """Closed when the answer ends, however it ends."""

    async def send(self, send: Send) -> None:
        """Hand it to the ASGI server, part by part; a client that reads slowly holds up the parts."""
        await send({"type": "http.response.start", "status": 200, "headers": (_TEXT, _POLICY)})
        async with aclosing(self.parts) as parts:
            async for part in parts:
                await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


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


def defect_response(error: Exception) -> Response:
    """An error that nobody expected: the caller logs it."""
    return text_response(500, f"internal error: {error!r}")


def read_headers(index: int, reply: ReadReply, consistency: Consistency) -> tuple[Header, ...]:
    """The headers of every answer to a query."""
    return answer_headers(index, reply.known_leader, reply.last_contact_ms, consistency)


def answer_headers(
    index: int, known_leader: bool, last_contact_ms: int, consistency: Consistency
) -> tuple[Header, ...]:
    """The headers of whatever was answered from the state."""
    return (
        (_INDEX, b"%d" % index),
        _TRUE if known_leader else _FALSE,
        (_LAST_CONTACT, b"%d" % last_contact_ms),
        _EFFECTIVE[consistency],
        _BACKEND,
    )
