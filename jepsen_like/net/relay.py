"""Publishes ports of namespaces on the host's loopback: for people and their tools, over no link that the switch
could cut.

Runs as a child of the supervisor and dies with it. The listening sockets were made in the host's namespace before the
supervisor left it; a socket keeps the namespace it was born in. Outgoing sockets are made in the agent's namespace:
this process has one thread, so it simply moves there first.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import struct
from typing import cast

import msgspec
import uvloop

from jepsen_like.net import namespaces

CONNECT_TIMEOUT_S = 5.0
EARLY_BYTES_MAX = 1 << 18
"""What an accepted connection may send before the agent's side is connected; then it has to wait."""


class Publication(msgspec.Struct, frozen=True):
    """Connections accepted on `listener` are continued to `address`, port `port`, in the namespace `net`."""

    listener: int
    net: int
    address: str
    port: int


class End(asyncio.Protocol):
    """One side of a relayed connection: what it receives goes to the other side, as fast as that takes it."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: End | None = None
        self._early = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's do not inherit from it

    def join(self, other: End) -> None:
        """Pass on what arrived before the other side was there, and from now on everything."""
        self.other, other.other = other, self
        if self._early and other.transport is not None:
            other.transport.write(bytes(self._early))
        if len(self._early) > EARLY_BYTES_MAX and self.transport is not None:
            self.transport.resume_reading()
        self._early.clear()

    def data_received(self, data: bytes) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)
        else:
            self._early += data
            if len(self._early) > EARLY_BYTES_MAX and self.transport is not None:
                self.transport.pause_reading()

    def eof_received(self) -> bool:
        if self.other is not None and self.other.transport is not None and self.other.transport.can_write_eof():
            self.other.transport.write_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()


class Front(End):
    """The accepted side: dials the agent; a refused connection is passed on by resetting this one."""

    def __init__(self, publication: Publication) -> None:
        super().__init__()
        self._publication = publication
        self._dialling: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._dialling = asyncio.get_running_loop().create_task(self._dial())

    async def _dial(self) -> None:
        namespaces.enter(self._publication.net, namespaces.CLONE_NEWNET)
        outgoing = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        outgoing.setblocking(False)
        outgoing.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await loop.sock_connect(outgoing, (self._publication.address, self._publication.port))
                _, back = await loop.create_connection(End, sock=outgoing)
        except (OSError, TimeoutError):
            outgoing.close()
            self._reset()
            return
        if self.transport is None:
            assert back.transport is not None
            back.transport.close()
            return
        self.join(back)

    def _reset(self) -> None:
        """Close with a reset instead of an end of file: a refusal must not look like a polite goodbye."""
        if self.transport is not None:
            accepted = self.transport.get_extra_info("socket")
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()


async def _serve(publications: tuple[Publication, ...]) -> None:
    loop = asyncio.get_running_loop()
    servers = [
        await loop.create_server(functools.partial(Front, each), sock=socket.socket(fileno=each.listener))
        for each in publications
    ]
    await asyncio.gather(*(server.serve_forever() for server in servers))


def run(publications: tuple[Publication, ...]) -> None:
    """Relay until killed."""
    uvloop.run(_serve(publications))
