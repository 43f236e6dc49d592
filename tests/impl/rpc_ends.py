"""Ends of connections on real loopback sockets, for tests: servers, links, and ends that do only what they are told."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest

from impl.rpc.framing import FrameKind, FrameReader, encode_frame
from impl.rpc.handshake import PROTOCOL, AgentRole, Hello, Purpose
from impl.rpc.handshake import encode as encode_handshake
from impl.rpc.peer_link import PeerLink
from impl.rpc.server import Reply, RpcServer
from impl.rpc.timings import Timings
from impl.runtime.interfaces import MILLISECONDS, NANOSECONDS, Address, Connection, Runtime
from impl.runtime.real import run

LOOPBACK = ("127.0.0.1", 0)
QUICK = Timings(
    ping_ns=10 * MILLISECONDS,
    link_unanswered_ns=50 * MILLISECONDS,
    call_unanswered_ns=80 * MILLISECONDS,
    frame_bytes_max=65_536,
    buffer_bytes_max=1 << 20,
)
CALM = Timings(frame_bytes_max=65_536)


def in_the_real_world(test: Callable[[Runtime], Coroutine[Any, Any, object]]) -> None:
    """Run an async test on the real runtime; whatever goes wrong in a callback or task fails it too."""

    async def main(runtime: Runtime) -> int:
        await test(runtime)
        return 0

    assert run(main) == 0


async def until(runtime: Runtime, condition: Callable[[], object], seconds: float = 10) -> None:
    """Wait for a condition; TimeoutError when it does not come true."""
    deadline = runtime.clock.monotonic_ns() + int(seconds * NANOSECONDS)
    while not condition():
        if runtime.clock.monotonic_ns() > deadline:
            raise TimeoutError
        await runtime.clock.sleep(MILLISECONDS)


def hello(name: str, **changes: object) -> Callable[[], Hello]:
    greeting = Hello(PROTOCOL, "c1", f"id-{name}", name, "dc1", 1, AgentRole.SERVER, Purpose.RPC)
    return lambda: msgspec.structs.replace(greeting, **changes)


class Server:
    """A service that remembers what it was told."""

    def __init__(self) -> None:
        self.up: list[str] = []
        self.down: list[str] = []
        self.messages: list[tuple[str, bytes, int]] = []
        self.calls: list[tuple[str, bytes]] = []
        self.replies: list[Reply] = []
        self.reports: list[str] = []

    async def listen(self, runtime: Runtime, address: Address = LOOPBACK, timings: Timings = CALM) -> RpcServer:
        return await RpcServer.listen(runtime, address, hello("b"), self, timings, self.reports.append)

    def raft_connected(self, sender: Hello) -> None:
        self.up.append(sender.node_name)

    def raft_message(self, sender: Hello, payload: bytes, crc: int) -> None:
        self.messages.append((sender.node_name, payload, crc))

    def raft_lost(self, sender: Hello, reason: str) -> None:
        self.down.append(sender.node_name)

    def call(self, sender: Hello, method: str, body: bytes, reply: Reply) -> None:
        self.calls.append((method, body))
        match method:
            case "echo":
                reply.ok(body)
            case "refuse":
                reply.error("No cluster leader", definite=True)
            case "muddle":
                reply.error("leadership lost while committing log", definite=False)
            case _:
                self.replies.append(reply)


class Link:
    """A peer link and what it said."""

    def __init__(self, runtime: Runtime, address: Address, timings: Timings = CALM, name: str = "a") -> None:
        self.connected: list[Hello] = []
        self.lost_because: list[str] = []
        self.refusals = 0
        self.reports: list[str] = []
        self.link = PeerLink(runtime, hello(name), "b", address, timings, self._events(), self.reports.append)

    def _events(self) -> Any:
        outer = self

        class Events:
            def connected(self, hello: Hello) -> None:
                outer.connected.append(hello)

            def lost(self, reason: str) -> None:
                outer.lost_because.append(reason)

            def refused(self) -> None:
                outer.refusals += 1

        return Events()


class Raw:
    """An end of a connection that does only what a test tells it; also a listener's `accept`."""

    def __init__(self, answer: Callable[[Raw, FrameKind, bytes], None] = lambda raw, kind, payload: None) -> None:
        self.frames: list[tuple[FrameKind, bytes]] = []
        self.lost = False
        self.connection: Connection | None = None
        self._answer = answer
        self._reader = FrameReader(1 << 24)

    def connection_made(self, connection: Connection) -> None:
        self.connection = connection

    def data_received(self, data: bytes) -> None:
        for kind, payload, _ in self._reader.feed(data):
            self.frames.append((kind, payload))
            self._answer(self, kind, payload)

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True

    def send(self, kind: FrameKind, payload: bytes) -> None:
        self.write(encode_frame(kind, payload))

    def write(self, data: bytes) -> None:
        assert self.connection is not None
        self.connection.write(data)


async def dial(runtime: Runtime, address: Address, greeting: bytes | None = None) -> Raw:
    """A raw connection that has said hello, unless `greeting` is empty."""
    raw = Raw()
    runtime.network.dial(address, raw, NANOSECONDS, lambda error: pytest.fail(str(error)))
    await until(runtime, lambda: raw.connection)
    greeting = encode_frame(FrameKind.HELLO, encode_handshake(hello("a")())) if greeting is None else greeting
    if greeting:
        raw.write(greeting)
    return raw


def greet(raw: Raw, kind: FrameKind, payload: bytes) -> None:
    """Shake hands, then stay silent for ever: a half-open connection."""
    if kind is FrameKind.HELLO:
        raw.send(FrameKind.HELLO, encode_handshake(hello("b")()))


HELLO_RPC = encode_frame(FrameKind.HELLO, encode_handshake(hello("a")()))
HELLO_RAFT = encode_frame(FrameKind.HELLO, encode_handshake(hello("a", purpose=Purpose.RAFT)()))
