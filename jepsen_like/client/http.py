"""HTTP/1.1 over a socket that somebody else made: one request at a time, kept alive, parsed by httptools.

The socket may live in another network namespace. What went wrong is named by cause, and each cause says whether the
request may have reached the server, since that decides between fail and info.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import cast

import httptools
import msgspec

CONNECT_TIMEOUT_S = 0.5

Dial = Callable[[], Awaitable[socket.socket]]
"""Makes a connected socket; raises OSError or TimeoutError."""


class RequestFailed(Exception):
    """No answer. `sent`: whether any byte may have reached the server."""

    def __init__(self, cause: str, *, sent: bool) -> None:
        super().__init__(cause)
        self.sent = sent


class Response(msgspec.Struct, frozen=True):
    """A whole answer; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class _Wire(asyncio.Protocol):
    """One connection. `answer` is the future of the request that is under way."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.answer: asyncio.Future[Response] | None = None
        self.open = False
        self._reset()

    def _reset(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self.open = True

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"not HTTP: {error}")
            if self.transport is not None:
                self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        self._fail(f"connection lost: {exc}" if exc else "connection closed before the answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        response = Response(self._parser.get_status_code(), self._headers, b"".join(self._body))
        if not self._parser.should_keep_alive():
            self.open = False
        self._reset()
        if self.answer is not None and not self.answer.done():
            self.answer.set_result(response)

    def _fail(self, cause: str) -> None:
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(RequestFailed(cause, sent=True))


class HttpConnection:
    """Requests to one server; connects when needed, and again after anything went wrong. One request at a time."""

    def __init__(self, dial: Dial, host: str) -> None:
        self._dial = dial
        self._host = host
        self._wire: _Wire | None = None

    async def request(self, method: str, target: str, body: bytes = b"", timeout_s: float = 2.0) -> Response:
        """Send and wait for the whole answer. Raises RequestFailed; never retries."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        wire = await self._connected(timeout_s)
        assert wire.transport is not None
        wire.answer = loop.create_future()
        head = f"{method} {target} HTTP/1.1\r\nHost: {self._host}\r\nContent-Length: {len(body)}\r\n\r\n"
        wire.transport.write(head.encode() + body)
        try:
            async with asyncio.timeout_at(deadline):
                response = await wire.answer
        except TimeoutError:
            self.close()
            raise RequestFailed(f"no answer within {timeout_s:g} s", sent=True) from None
        except BaseException:
            self.close()
            raise
        if not wire.open:
            self.close()
        return response

    async def _connected(self, timeout_s: float) -> _Wire:
        if self._wire is not None and self._wire.open:
            return self._wire
        self.close()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(min(timeout_s, CONNECT_TIMEOUT_S)):
                connected = await self._dial()
                _, wire = await loop.create_connection(_Wire, sock=connected)
        except TimeoutError:
            raise RequestFailed("no connection in time", sent=False) from None
        except OSError as error:
            raise RequestFailed(f"no connection: {error.strerror or error}", sent=False) from error
        self._wire = wire
        return wire

    def close(self) -> None:
        """Drop the connection at once; whatever was under way has no answer."""
        if self._wire is not None and self._wire.transport is not None:
            self._wire.transport.abort()
        self._wire = None
