"""The listener on the server port: peers' Raft messages and agents' calls, on separate connections of one port.

Whoever sends what makes no sense loses that connection: it is counted, reported once per cause and peer, and the
server goes on. A connection that sends nothing, not even pings, is closed too.

It must not know what messages and methods mean: `Service` does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from impl.rpc.calls import OVERHEAD_BYTES, Outcome, Response, decode_request, encode
from impl.rpc.channel import BadFrame, Channel
from impl.rpc.framing import FrameKind
from impl.rpc.handshake import Hello, Purpose, Refusal, check, decode_hello
from impl.rpc.handshake import encode as encode_handshake
from impl.rpc.timings import Timings
from impl.runtime.interfaces import NANOSECONDS, Address, Listener, Receiver, Runtime, Timer

SWEEP_NS = NANOSECONDS // 4
"""Pause between two looks for silent connections."""
REPORTED_MAX = 1_000
"""Causes and peers remembered as reported; beyond it, nothing more is reported."""
_ENDINGS = frozenset(("lost", "closed", "replaced"))
"""Causes that are no fault of the peer."""


class Service(Protocol):
    """What a server does with what arrives. Called on the loop; must not block."""

    def raft_connected(self, sender: Hello) -> None:
        """A peer opened its Raft link to us."""

    def raft_message(self, sender: Hello, payload: bytes, crc: int) -> None:
        """A message; `crc` is its frame's checksum. Raising msgspec.MsgspecError closes the connection."""

    def raft_lost(self, sender: Hello, reason: str) -> None:
        """The newest Raft link of this peer closed."""

    def call(self, sender: Hello, method: str, body: bytes, reply: Reply) -> None:
        """A call; `reply` may be used now or later, once. Raising msgspec.MsgspecError closes the connection."""


class Counters(msgspec.Struct):
    """What the listener has seen since it started."""

    connections: int = 0
    """Open now."""
    accepted: int = 0
    frames_in: int = 0
    """On connections that have ended; open ones are added by `RpcServer.counters`."""
    calls: int = 0
    refused: dict[str, int] = msgspec.field(default_factory=dict)
    """Connections ended for a fault of the peer, by cause."""


class Reply:
    """The way back for the answer to one call."""

    def __init__(self, channel: Channel, id: int, body_bytes_max: int) -> None:
        self._channel = channel
        self._id = id
        self._body_bytes_max = body_bytes_max
        self._answered = False

    def ok(self, body: bytes) -> None:
        """The result. Lost if the caller has hung up."""
        if len(body) > self._body_bytes_max:
            # The call was served; only its answer cannot be carried.
            self.error(
                f"the answer has {len(body)} bytes, more than {self._body_bytes_max}: ask for less", definite=False
            )
            return
        self._send(Outcome.OK, body)

    def error(self, text: str, definite: bool) -> None:
        """It failed. `definite`: it had no effect and never will."""
        self._send(Outcome.FAILED if definite else Outcome.UNKNOWN, text.encode()[: self._body_bytes_max])

    def _send(self, outcome: Outcome, body: bytes) -> None:
        if self._answered:
            raise AssertionError(f"call {self._id} was answered twice")
        self._answered = True
        self._channel.send(FrameKind.RESPONSE, encode(Response(self._id, outcome, body)))


class RpcServer:
    """A listening server port. Made by `listen`."""

    def __init__(
        self,
        runtime: Runtime,
        hello: Callable[[], Hello],
        service: Service,
        timings: Timings,
        report: Callable[[str], None],
        admit: Callable[[Hello], Refusal | None],
    ) -> None:
        """Not for callers: use `listen`."""
        self.service = service
        self.admit = admit
        self.timings = timings
        self.hello = hello
        self._runtime = runtime
        self._report = report
        self._reported: set[tuple[str, str]] = set()
        self._counters = Counters()
        self._open: dict[_Accepted, None] = {}
        self._newest: dict[str, _Accepted] = {}
        """The newest Raft link of each peer, by name."""
        self._listener: Listener | None = None
        self._sweeper: Timer | None = None

    @classmethod
    async def listen(
        cls,
        runtime: Runtime,
        address: Address,
        hello: Callable[[], Hello],
        service: Service,
        timings: Timings | None = None,
        report: Callable[[str], None] = lambda text: None,
        admit: Callable[[Hello], Refusal | None] = lambda hello: None,
    ) -> RpcServer:
        """Listen. `hello` is asked at each handshake; `report` hears of refused connections, once per cause and peer;
        `admit` is asked of whoever introduces itself, beyond the handshake's own rules.

        Raises OSError when the address is in use or not of this machine.
        """
        server = cls(runtime, hello, service, timings or Timings(), report, admit)
        server._listener = await runtime.network.listen(address, server._accept)
        server._sweeper = runtime.clock.call_later(SWEEP_NS, server._sweep)
        return server

    @property
    def address(self) -> Address:
        """Where it listens, with the real port."""
        assert self._listener is not None
        return self._listener.address

    @property
    def counters(self) -> Counters:
        """What it has seen so far."""
        frames = self._counters.frames_in + sum(accepted.channel.frames_in for accepted in self._open)
        return msgspec.structs.replace(
            self._counters, connections=len(self._open), frames_in=frames, refused=dict(self._counters.refused)
        )

    def close(self) -> None:
        """Stop listening and close every connection."""
        if self._listener is not None:
            self._listener.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        for accepted in list(self._open):
            accepted.channel.close("closed", "the server is shutting down")

    def _accept(self) -> Receiver:
        accepted = _Accepted(self)
        accepted.channel = Channel(self.timings, accepted)
        return accepted.channel

    def opened(self, accepted: _Accepted) -> None:
        """A connection came in."""
        self._open[accepted] = None
        self._counters.accepted += 1
        if len(self._open) > self.timings.connections_max:
            accepted.channel.abort("too many", f"more than {self.timings.connections_max} connections")

    def introduced(self, accepted: _Accepted, sender: Hello) -> None:
        """The handshake is done. A new Raft link of a peer replaces its old one, which may be half open."""
        if sender.purpose is Purpose.RAFT:
            old = self._newest.get(sender.node_name)
            self._newest[sender.node_name] = accepted
            if old is not None:
                old.channel.abort("replaced", f"{sender.node_name} dialled again")
            self.service.raft_connected(sender)

    def called(self) -> None:
        """A call came in."""
        self._counters.calls += 1

    def closed(self, accepted: _Accepted, cause: str, text: str) -> None:
        """A connection ended."""
        self._open.pop(accepted, None)
        self._counters.frames_in += accepted.channel.frames_in
        sender = accepted.sender
        if cause not in _ENDINGS:
            self._counters.refused[cause] = self._counters.refused.get(cause, 0) + 1
            who = sender.node_name if sender is not None else accepted.remote[0]
            self._report_once(cause, who, text)
        if sender is not None and self._newest.get(sender.node_name) is accepted:
            del self._newest[sender.node_name]
            self.service.raft_lost(sender, text)

    def _report_once(self, cause: str, who: str, text: str) -> None:
        if (cause, who) not in self._reported and len(self._reported) < REPORTED_MAX:
            self._reported.add((cause, who))
            self._report(f"closed a connection from {who}: {text}")

    def _sweep(self) -> None:
        """Close who said nothing: no Hello in time, or no frame for long.

        Silence is counted in sweeps, not in time: this process may have been paused itself.
        """
        for accepted in list(self._open):
            accepted.silent_sweeps = 0 if accepted.channel.heard else accepted.silent_sweeps + 1
            accepted.channel.heard = False
            accepted.sweeps += 1
            if accepted.sender is None and accepted.sweeps * SWEEP_NS > self.timings.handshake_ns:
                accepted.channel.abort("silent", "no handshake in time")
            elif accepted.silent_sweeps * SWEEP_NS > self.timings.idle_ns:
                accepted.channel.abort("lost", "no ping in time: the peer is gone")
        self._sweeper = self._runtime.clock.call_later(SWEEP_NS, self._sweep)


class _Accepted:
    """One accepted connection."""

    channel: Channel

    def __init__(self, server: RpcServer) -> None:
        self._server = server
        self._last_id = 0
        self._body_bytes_max = server.timings.frame_bytes_max - OVERHEAD_BYTES
        self.sender: Hello | None = None
        """Who it is; None before the handshake."""
        self.remote: Address = ("", 0)
        self.sweeps = 0
        """Looks since it was accepted; `silent_sweeps`: since anything came."""
        self.silent_sweeps = 0

    def opened(self) -> None:
        self.remote = self.channel.remote
        self._server.opened(self)

    def frame(self, kind: FrameKind, payload: bytes, crc: int) -> None:
        sender = self.sender
        if sender is None:
            self._shake(kind, payload)
        elif kind is FrameKind.RAFT and sender.purpose is Purpose.RAFT:
            self._server.service.raft_message(sender, payload, crc)
        elif kind is FrameKind.REQUEST and sender.purpose is Purpose.RPC:
            self._request(sender, payload)
        elif kind is FrameKind.PING:
            self.channel.send(FrameKind.PONG, b"")
        else:
            raise BadFrame(f"{kind.name} on a connection for {sender.purpose}")

    def closed(self, cause: str, text: str) -> None:
        self._server.closed(self, cause, text)

    def _shake(self, kind: FrameKind, payload: bytes) -> None:
        if kind is not FrameKind.HELLO:
            raise BadFrame(f"{kind.name} before the handshake")
        mine, theirs = self._server.hello(), decode_hello(payload)
        refusal = theirs if isinstance(theirs, Refusal) else check(mine, theirs, theirs.purpose)
        if isinstance(theirs, Hello) and refusal is None:
            refusal = self._server.admit(theirs)
        if refusal is not None:
            self.channel.send(FrameKind.REFUSAL, encode_handshake(refusal))
            self.channel.close(refusal.cause, refusal.text)
        elif isinstance(theirs, Hello):
            self.sender = theirs
            answer = msgspec.structs.replace(mine, purpose=theirs.purpose)
            self.channel.send(FrameKind.HELLO, encode_handshake(answer))
            self._server.introduced(self, theirs)

    def _request(self, sender: Hello, payload: bytes) -> None:
        """Serve a call. Ids only grow: whatever is repeated is refused, not served again."""
        request = decode_request(payload)
        if request.id <= self._last_id:
            raise BadFrame(f"request {request.id} follows request {self._last_id}")
        self._last_id = request.id
        self._server.called()
        reply = Reply(self.channel, request.id, self._body_bytes_max)
        self._server.service.call(sender, request.method, request.body, reply)
