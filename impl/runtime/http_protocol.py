"""uvicorn's HTTP/1.1 protocol with a short cut: a plain request is handed over as one call, and answered by one.

A thin subclass of uvicorn's `HttpToolsProtocol`, as `http_connections` counts it: parsing, pipelining, keep-alive, back
pressure and shutdown are uvicorn's. ASGI costs a task, a scope, and an event for each part of a request and of its
answer, and the parser a call for each header; that is more CPU than the rest of a write. *Plain* is what a short cut
cannot get wrong, and one regular expression says it: GET and PUT of a key, HTTP/1.1, kept alive, headers that change
nothing about how a request is read, a body that is announced and small, and nothing else of this connection under way
or behind it. Everything else, and what the short cut does not want, goes to the parser and through ASGI, and the bytes
of an answer do not tell by which way it came (tests/impl/test_http_protocol.py compares them).
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, Final

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from impl.runtime.http_connections import Connections, CountedProtocol
from impl.runtime.interfaces import Direct

_HARMLESS: Final = (
    rb"(?:(?i:host|user-agent|accept|accept-encoding|content-type|x-(?!consul-(?:namespace|partition):)[a-z-]+): [ -~]*"
    rb"|(?i:connection: keep-alive))\r\n"
)
"""A header line that does not say where the request ends, what follows it, or that somebody waits for an answer before
it does. Others may be harmless, too."""
_PLAIN_HEAD: Final = re.compile(
    rb"(GET|PUT) (/v1/kv/[!\"$->@-~]*)(?:\?([!\"$-~]*))? HTTP/1\.1\r\n"
    rb"(?:%b)*(?:(?i:content-length): (0|[1-9][0-9]{0,8})\r\n(?:%b)*)?\r\n" % (_HARMLESS, _HARMLESS)
)
"""The head of a plain request: method, path, query, length of the body."""
_END, _END_AND_CLOSE = b"\r\n", b"connection: close\r\n\r\n"


class _DirectCycle:
    """What uvicorn asks of the request that is under way (its `RequestResponseCycle`), for a plain one."""

    __slots__ = ("_protocol", "disconnected", "keep_alive", "response_complete")

    def __init__(self, protocol: DirectProtocol) -> None:
        self._protocol = protocol
        self.disconnected = False
        self.keep_alive = True
        """uvicorn's shutdown clears it."""
        self.response_complete = False

    @property
    def message_event(self) -> _DirectCycle:
        """uvicorn wakes the application that waits for the rest of a request; here nobody does."""
        return self

    def set(self) -> None:
        """As `asyncio.Event.set`."""

    def respond(self, status: int, lines: bytes, body: bytes) -> bool:
        """As `Respond`."""
        if self.response_complete:
            return False
        self.response_complete = True
        protocol = self._protocol
        if self.disconnected:
            return True
        end = _END if self.keep_alive else _END_AND_CLOSE
        protocol.transport.write(b"".join((STATUS_LINE[status], protocol.default_lines(), lines, end, body)))
        if self.keep_alive and not protocol.pipeline:
            protocol.rest()
            return True
        if not self.keep_alive:
            protocol.transport.close()
        protocol.on_response_complete()
        return True


class DirectProtocol(CountedProtocol):
    """One connection. `protocol_for` makes the class that knows whom to offer plain requests."""

    direct: ClassVar[Direct]
    cycle: Any
    """The request under way, or the last one: uvicorn's, or a `_DirectCycle`."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._is_between = True
        """Whether the parser is not within a request."""
        self._begun = b""
        """A plain request, as far as it has arrived."""
        self._used = 0.0
        """When something last arrived, or was answered in the short way; by the loop's clock."""
        self._default_headers: list[tuple[bytes, bytes]] = []
        self._default_lines = b""

    def default_lines(self) -> bytes:
        """uvicorn's own headers (the date), which it replaces by a new list once a second."""
        headers = self.server_state.default_headers
        if headers is not self._default_headers:
            self._default_headers = headers
            self._default_lines = b"".join(b"%s: %s\r\n" % (name.lower(), value) for name, value in headers)
        return self._default_lines

    def rest(self) -> None:
        """An answer is out and nothing follows. uvicorn sets a timer for each such rest (1.8 us with its end); here one
        timer goes on through all of them, and looks how long ago the connection was used.
        """
        self.server_state.total_requests += 1
        self._used = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._look_after(self.timeout_keep_alive)

    def _look_after(self, delay: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(delay, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection if nobody has used it for long."""
        self.timeout_keep_alive_task = None
        if self._begun or (self.cycle is not None and not self.cycle.response_complete):
            return  # in use: the answer sets a timer
        left = self._used + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._look_after(left)
        else:
            super().timeout_keep_alive_handler()

    def data_received(self, data: bytes) -> None:
        """As uvicorn's, but for what is plain, and that the timer goes on."""
        self._used = self.loop.time()
        if self._begun:
            data, self._begun = self._begun + data, b""
        if self._is_between and self._took(data):
            return
        timer, self.timeout_keep_alive_task = self.timeout_keep_alive_task, None
        super().data_received(data)
        if self.timeout_keep_alive_task is None and not self.transport.is_closing():
            self.timeout_keep_alive_task = timer
        elif timer is not None:
            timer.cancel()

    def on_message_begin(self) -> None:
        """The parser has seen the first byte of a request."""
        self._is_between = False
        super().on_message_begin()

    def on_message_complete(self) -> None:
        """The parser has seen the last byte of a request."""
        self._is_between = self.parser.should_keep_alive() and not self.parser.should_upgrade()
        super().on_message_complete()

    def _took(self, data: bytes) -> bool:
        """Take a plain request, or the first part of one; False: it is for the parser."""
        cycle = self.cycle
        if self.flow.write_paused or (cycle is not None and not cycle.response_complete):
            return False
        head = _PLAIN_HEAD.match(data)
        if head is None:
            return False
        method, path, query, length = head.groups()
        announced = int(length) if length else 0
        if announced > (min(self.direct.body_bytes_max, HIGH_WATER_LIMIT) if method == b"PUT" else 0):
            return False
        body = data[head.end() :]
        if len(body) != announced:
            if len(body) < announced:
                self._begun = data
                return True
            return False
        begun = self.cycle = _DirectCycle(self)
        if self.direct.answer(method, path, query or b"", body, begun.respond):
            return True
        self.cycle = None
        return False


def protocol_for(connections: Connections, whom: Direct | None) -> type[CountedProtocol]:
    """The class to give to uvicorn as `Config(http=...)`: with the short cut if there is somebody to take it."""
    if whom is None:
        return type("Counted", (CountedProtocol,), {"counted": connections})
    return type("Direct", (DirectProtocol,), {"counted": connections, "direct": whom})
