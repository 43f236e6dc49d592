"""DNS on the wire: one port, UDP and TCP, for one agent. Source: RFC 1035, section 4.2; RFC 7766.

A question whose answer is a defect of this program is a SERVFAIL and is reported: strangers must not end an agent.
What waits is bounded: beyond that a datagram is dropped, as a full socket buffer would drop it, and a connection's next
question waits for its last. It must not look into messages: `responder` does.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EADDRINUSE

import dns.rcode

from impl.dns.responder import Responder, refusal
from impl.runtime.interfaces import Address, Connection, Datagrams, Listener, Runtime

WAITING_MAX = 1024
"""Questions that came by UDP and wait for their answers."""
CONNECTIONS_MAX = 256
QUESTION_BYTES_MAX = 4096
FREE_PORT_ATTEMPTS = 8
"""A port that is free for TCP may be taken for UDP."""


class DnsServer:
    """The DNS interface of one agent. Made by `listen`."""

    def __init__(self, runtime: Runtime, responder: Responder, unexpected: Callable[[Exception], None]) -> None:
        """Not for callers: use `listen`."""
        self._runtime = runtime
        self._responder = responder
        self._unexpected = unexpected
        self._waiting = 0
        self.dropped = 0
        """Datagrams for which there was no room."""
        self._datagrams: Datagrams | None = None
        self._listener: Listener | None = None
        self.connections: set[_Stream] = set()

    @classmethod
    async def listen(
        cls, runtime: Runtime, address: Address, responder: Responder, unexpected: Callable[[Exception], None]
    ) -> DnsServer:
        """Listen on both protocols; port 0 takes one that is free for both. OSError: the address is not available.

        `unexpected` hears of errors that nobody expected.
        """
        server = cls(runtime, responder, unexpected)
        attempts = 1 if address[1] else FREE_PORT_ATTEMPTS
        while True:
            server._listener = await runtime.network.listen(address, lambda: _Stream(server))
            try:
                server._datagrams = await runtime.network.listen_datagrams(server.address, server._received)
                return server
            except OSError as error:
                server._listener.close()
                attempts -= 1
                if error.errno != EADDRINUSE or not attempts:
                    raise

    @property
    def address(self) -> Address:
        """Where it listens."""
        assert self._listener is not None, "made by listen"
        return self._listener.address

    def close(self) -> None:
        """Answer no more."""
        if self._datagrams is not None:
            self._datagrams.close()
        if self._listener is not None:
            self._listener.close()
        for connection in list(self.connections):
            connection.abort()

    def _received(self, wire: bytes, sender: Address) -> None:
        if self._waiting >= WAITING_MAX:
            self.dropped += 1
            return
        self._waiting += 1
        self._runtime.tasks.spawn(self._answer_datagram(wire, sender), "dns")

    async def _answer_datagram(self, wire: bytes, sender: Address) -> None:
        try:
            answer = await self._respond(wire, datagram=True)
        finally:
            self._waiting -= 1
        if answer is not None and self._datagrams is not None:
            self._datagrams.send(answer, sender)

    def spawn_answer(self, stream: _Stream, wire: bytes) -> None:
        """Answer a question that came on a connection."""
        self._runtime.tasks.spawn(self._answer_stream(stream, wire), "dns")

    async def _answer_stream(self, stream: _Stream, wire: bytes) -> None:
        stream.answered(await self._respond(wire, datagram=False))

    async def _respond(self, wire: bytes, *, datagram: bool) -> bytes | None:
        try:
            return await self._responder.respond(wire, datagram=datagram)
        except Exception as error:
            self._unexpected(error)
            return refusal(wire, dns.rcode.SERVFAIL)


class _Stream:
    """One TCP connection: questions behind their lengths, answered one after the other."""

    def __init__(self, server: DnsServer) -> None:
        self._server = server
        self._connection: Connection | None = None
        self._buffer = b""
        self._busy = False

    def connection_made(self, connection: Connection) -> None:
        self._connection = connection
        self._server.connections.add(self)
        if len(self._server.connections) > CONNECTIONS_MAX:
            connection.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._next()

    def connection_lost(self, error: Exception | None) -> None:
        self._connection = None
        self._server.connections.discard(self)

    def abort(self) -> None:
        if self._connection is not None:
            self._connection.abort()

    def answered(self, answer: bytes | None) -> None:
        self._busy = False
        if self._connection is None:
            return
        if answer is None:
            self._connection.close()
            return
        self._connection.write(len(answer).to_bytes(2) + answer)
        self._next()

    def _next(self) -> None:
        if self._busy or len(self._buffer) < 2:
            return
        length = int.from_bytes(self._buffer[:2])
        if length > QUESTION_BYTES_MAX or len(self._buffer) > 2 * QUESTION_BYTES_MAX:
            self.abort()
        elif len(self._buffer) >= 2 + length:
            wire, self._buffer = self._buffer[2 : 2 + length], self._buffer[2 + length :]
            self._busy = True
            self._server.spawn_answer(self, wire)
