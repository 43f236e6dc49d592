"""How many HTTP connections one client address may have: who has too many is told so, and costs nothing more.

Source: Consul, "Agent configuration", `limits.http_max_conns_per_client`; the answer is that of its library
go-connlimit. It is written without reading a request, and the connection is closed. Several clients behind one address
(a proxy, NAT) count as one.
"""

from __future__ import annotations

import asyncio
from typing import ClassVar, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_TEXT: Final = b"Your IP is issuing too many concurrent connections, please rate limit your calls\n"
TOO_MANY: Final = (
    b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
    % (len(_TEXT), _TEXT)
)
"""The whole answer."""


class Connections:
    """The open connections of a server, by client address."""

    def __init__(self, most_per_client: int = 0) -> None:
        """0 or negative: no limit."""
        self.most_per_client = most_per_client
        """May change at any time; connections that are open stay."""
        self._open: dict[str, int] = {}

    def admit(self, host: str) -> bool:
        """Count one more connection of the address; False, and not counted, if it has as many as it may."""
        count = self._open.get(host, 0)
        if 0 < self.most_per_client <= count:
            return False
        self._open[host] = count + 1
        return True

    def release(self, host: str) -> None:
        """One that was admitted is closed."""
        left = self._open[host] - 1
        if left:
            self._open[host] = left
        else:
            del self._open[host]


class CountedProtocol(HttpToolsProtocol):
    """uvicorn's protocol for one connection, which is refused if its client has too many. Made by `protocol_for`."""

    counted: ClassVar[Connections]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """uvicorn never hears of a connection that is refused, and nobody of what its client sends."""
        transport = cast(asyncio.Transport, transport)  # uvloop's do not inherit from it
        peer = transport.get_extra_info("peername")
        host = str(peer[0]) if peer else ""  # "": it is gone already
        if not self.counted.admit(host):
            transport.set_protocol(asyncio.Protocol())
            transport.write(TOO_MANY)
            transport.close()
            return
        self._host = host
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport calls it once, however the connection ended."""
        self.counted.release(self._host)
        super().connection_lost(exc)
