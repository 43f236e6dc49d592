"""Connections on real loopback sockets: links that come back, calls that say what is known, peers that misbehave."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest

from impl.rpc import server as server_module
from impl.rpc.calls import Outcome, Request, Response, decode_request, encode
from impl.rpc.client import RpcClient
from impl.rpc.dialler import Dialler
from impl.rpc.errors import CallTimedOut, ConnectFailed, ConnectionLost, NotSent, RemoteError, RpcError
from impl.rpc.framing import FrameKind, FrameReader, encode_frame
from impl.rpc.handshake import PROTOCOL, AgentRole, Hello, Purpose, decode_refusal
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
NEVER_BY_ITSELF = Timings(redial_ns_min=3600 * NANOSECONDS, redial_ns_max=3600 * NANOSECONDS)


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


# Raft links


def test_messages_arrive_once_and_in_order_with_the_checksum_that_the_sender_knew() -> None:
    async def test(runtime: Runtime) -> None:
        service = Server()
        server = await service.listen(runtime)
        a = Link(runtime, server.address)
        await until(runtime, lambda: a.link.connected)
        sent = [b"%d" % number * (number % 50) for number in range(500)]
        assert all(a.link.send(payload) for payload in sent)
        await until(runtime, lambda: len(service.messages) == 500)
        assert service.messages == [("a", payload, a.link.crc(payload)) for payload in sent]
        assert (service.up, [peer.node_name for peer in a.connected], a.link.epoch) == (["a"], ["b"], 1)
        a.link.close()
        await until(runtime, lambda: service.down == ["a"])
        assert a.lost_because == ["closed"]
        server.close()

    in_the_real_world(test)


def test_a_message_sent_while_the_link_is_down_is_lost_and_says_so() -> None:
    async def test(runtime: Runtime) -> None:
        service = Server()
        server = await service.listen(runtime)
        a = Link(runtime, server.address)
        assert not a.link.send(b"too early")
        await until(runtime, lambda: a.link.connected)
        a.link.send(b"in time")
        await until(runtime, lambda: service.messages)
        assert [payload for _, payload, _ in service.messages] == [b"in time"]

    in_the_real_world(test)


def test_frames_cut_at_every_byte_by_the_sender_are_read() -> None:
    async def test(runtime: Runtime) -> None:
        service = Server()
        server = await service.listen(runtime)
        greeting = encode_frame(FrameKind.HELLO, encode_handshake(hello("a", purpose=Purpose.RAFT)()))
        stream = greeting + encode_frame(FrameKind.RAFT, b"one") + encode_frame(FrameKind.RAFT, b"")
        raw = await dial(runtime, server.address, greeting=b"")
        for byte in stream:
            raw.write(bytes((byte,)))
            await runtime.clock.sleep(0)
        await until(runtime, lambda: len(service.messages) == 2)
        assert [payload for _, payload, _ in service.messages] == [b"one", b""]

    in_the_real_world(test)


async def redials_a_silent_peer(runtime: Runtime) -> int:
    """How many connections a link has made to a peer that shakes hands and is never heard again."""
    accepted: list[Raw] = []

    def accept() -> Raw:
        accepted.append(Raw(greet))
        return accepted[-1]

    listener = await runtime.network.listen(LOOPBACK, accept)
    a = Link(runtime, listener.address, QUICK)
    await until(runtime, lambda: len(a.connected) >= 3, seconds=3)
    assert "nothing heard" in a.lost_because[0]
    assert accepted[0].frames.count((FrameKind.PING, b"")) >= 5
    await until(runtime, lambda: accepted[0].lost)
    return a.link.epoch


def test_a_half_open_connection_is_given_up_and_dialled_again() -> None:
    async def test(runtime: Runtime) -> None:
        assert await redials_a_silent_peer(runtime) >= 3

    in_the_real_world(test)


def test_a_link_that_does_not_listen_for_silence_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Dialler, "_ping", lambda self: None)
    with pytest.raises(TimeoutError):
        in_the_real_world(redials_a_silent_peer)


def test_a_process_that_was_paused_itself_does_not_take_its_peers_for_silent() -> None:
    async def test(runtime: Runtime) -> None:
        server = await Server().listen(runtime)
        a = Link(runtime, server.address, QUICK)
        await until(runtime, lambda: a.link.connected)
        for _ in range(3):
            time.sleep(0.2)  # as SIGSTOP does: four times as long as the link may be unanswered
            heard = a.link.last_pong_ns
            await until(runtime, lambda heard=heard: a.link.last_pong_ns > heard)
        assert (a.link.epoch, a.lost_because) == (1, [])

    in_the_real_world(test)


def test_a_peer_that_comes_back_is_dialled_by_itself_or_at_once_when_nudged() -> None:
    async def test(runtime: Runtime) -> None:
        first = await Server().listen(runtime)
        address = first.address
        by_itself, nudged = Link(runtime, address, name="a"), Link(runtime, address, NEVER_BY_ITSELF, name="c")
        await until(runtime, lambda: by_itself.link.connected and nudged.link.connected)
        first.close()
        await until(runtime, lambda: by_itself.lost_because and nudged.lost_because)
        await until(runtime, lambda: any("refused" in report for report in by_itself.reports))
        service = Server()
        await service.listen(runtime, address)
        await until(runtime, lambda: by_itself.link.epoch == 2)
        assert not nudged.link.connected
        nudged.link.nudge()
        await until(runtime, lambda: nudged.link.epoch == 2)
        assert sorted(service.up) == ["a", "c"]

    in_the_real_world(test)


def test_the_newest_link_of_a_peer_replaces_its_older_one_and_only_its_loss_is_told() -> None:
    async def test(runtime: Runtime) -> None:
        service = Server()
        server = await service.listen(runtime)
        greeting = encode_frame(FrameKind.HELLO, encode_handshake(hello("a", purpose=Purpose.RAFT)()))
        old = await dial(runtime, server.address, greeting)
        await until(runtime, lambda: service.up == ["a"])
        new = await dial(runtime, server.address, greeting)
        await until(runtime, lambda: old.lost)
        assert (service.up, service.down) == (["a", "a"], [])
        assert new.connection is not None
        new.connection.abort()
        await until(runtime, lambda: service.down == ["a"])

    in_the_real_world(test)


def test_a_peer_that_does_not_read_is_given_up_before_memory_is() -> None:
    async def test(runtime: Runtime) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            a = Link(runtime, listening.getsockname(), QUICK)
            accepted: list[socket.socket] = []

            def shake() -> socket.socket:
                """In the executor's thread: accept, read the hello, answer it, and never read again."""
                peer, _ = listening.accept()
                peer.recv(65_536)
                peer.sendall(encode_frame(FrameKind.HELLO, encode_handshake(hello("b")())))
                return peer

            runtime.executor.submit(shake, accepted.append, lambda error: pytest.fail(str(error)))
            await until(runtime, lambda: a.link.connected)
            sent = 0
            while a.link.send(bytes(60_000)):
                sent += 60_000
                assert sent < 100_000_000, "nothing bounds what is queued for a peer that does not read"
            await until(runtime, lambda: a.lost_because)
            assert "has not read" in a.lost_because[0]
            a.link.close()
            accepted[0].close()

    in_the_real_world(test)


def test_a_link_refuses_whoever_is_not_the_expected_peer() -> None:
    async def test(runtime: Runtime) -> None:
        def answer(raw: Raw, kind: FrameKind, payload: bytes) -> None:
            raw.send(FrameKind.HELLO, encode_handshake(hello("x")()))

        listener = await runtime.network.listen(LOOPBACK, lambda: Raw(answer))
        a = Link(runtime, listener.address)
        await until(runtime, lambda: a.reports)
        assert a.reports == ["x answers where b was expected"]
        assert not a.connected

    in_the_real_world(test)


# Peers that misbehave


HELLO_RPC = encode_frame(FrameKind.HELLO, encode_handshake(hello("a")()))
HELLO_RAFT = encode_frame(FrameKind.HELLO, encode_handshake(hello("a", purpose=Purpose.RAFT)()))


def greeting_of(**changes: object) -> bytes:
    return encode_frame(FrameKind.HELLO, encode_handshake(hello("a", **changes)()))


@pytest.mark.parametrize(
    ("stream", "cause"),
    [
        (b"GET /v1/kv/a HTTP/1.1\r\nHost: localhost\r\n\r\n", "oversized"),
        (HELLO_RPC + b"\x7f" + bytes(20), "oversized"),
        (HELLO_RPC + encode_frame(FrameKind.REQUEST, b"x")[:-1] + b"y", "corrupt"),
        (HELLO_RPC + encode_frame(FrameKind.REQUEST, b"\xc1"), "malformed"),
        (HELLO_RPC + encode_frame(FrameKind.REQUEST, b"\x93\x01\xa2\xff\xfe\xc4\x00"), "malformed"),
        (HELLO_RPC + encode_frame(FrameKind.REQUEST, encode(Request(0, "echo", b""))), "malformed"),
        (HELLO_RPC + encode_frame(FrameKind.RAFT, b"x"), "malformed"),
        (HELLO_RAFT + encode_frame(FrameKind.REQUEST, encode(Request(1, "echo", b""))), "malformed"),
        (HELLO_RPC + HELLO_RPC, "malformed"),
        (encode_frame(FrameKind.RAFT, b"x"), "malformed"),
        (encode_frame(FrameKind.HELLO, b"\x00"), "malformed"),
        (greeting_of(protocol=99), "protocol"),
        (greeting_of(cluster_id="c2"), "cluster"),
        (greeting_of(datacenter="dc2"), "datacenter"),
        (greeting_of(purpose=Purpose.RAFT, cluster_id=""), "unformed"),
    ],
)
def test_a_peer_that_makes_no_sense_loses_its_connection_and_the_server_goes_on(stream: bytes, cause: str) -> None:
    async def test(runtime: Runtime) -> None:
        service = Server()
        server = await service.listen(runtime)
        client = RpcClient(runtime, hello("c"), server.address, CALM)
        assert await client.call("echo", b"before", NANOSECONDS) == b"before"
        for _ in range(3):
            raw = await dial(runtime, server.address, stream)
            await until(runtime, lambda raw=raw: raw.lost)
        assert await client.call("echo", b"after", NANOSECONDS) == b"after"
        assert server.counters.refused == {cause: 3}
        assert len(service.reports) == 1, "once per cause and peer, not per connection"
        assert (len(service.calls), service.messages) == (2, [])
        if cause in ("protocol", "cluster", "datacenter", "unformed"):
            assert raw.frames[0][0] is FrameKind.REFUSAL
            assert decode_refusal(raw.frames[0][1]).cause == cause
        client.close()

    in_the_real_world(test)


def test_whoever_says_nothing_is_closed() -> None:
    async def test(runtime: Runtime) -> None:
        timings = Timings(handshake_ns=50 * MILLISECONDS, idle_ns=50 * MILLISECONDS)
        service = Server()
        server = await service.listen(runtime, timings=timings)
        mute = await dial(runtime, server.address, greeting=b"")
        idle = await dial(runtime, server.address, HELLO_RAFT)
        await until(runtime, lambda: mute.lost and idle.lost)
        assert server.counters.refused == {"silent": 1}
        assert service.down == ["a"]
        assert server.counters.connections == 0

    in_the_real_world(test)


def test_connections_beyond_the_bound_are_closed_at_once() -> None:
    async def test(runtime: Runtime) -> None:
        server = await Server().listen(runtime, timings=Timings(connections_max=2))
        kept = [await dial(runtime, server.address) for _ in range(2)]
        await until(runtime, lambda: all(raw.frames for raw in kept))
        third = await dial(runtime, server.address)
        await until(runtime, lambda: third.lost)
        assert not any(raw.lost for raw in kept)
        assert server.counters.refused == {"too many": 1}

    in_the_real_world(test)


def test_an_address_in_use_is_an_error_at_the_start() -> None:
    async def test(runtime: Runtime) -> None:
        server = await Server().listen(runtime)
        with pytest.raises(OSError, match="in use"):
            await Server().listen(runtime, server.address)

    in_the_real_world(test)


# Calls


async def outcome(call: Coroutine[Any, Any, bytes]) -> RpcError:
    with pytest.raises(RpcError) as caught:
        await call
    return caught.value


def test_a_call_returns_the_answer_or_the_error_that_the_other_side_gave() -> None:
    async def test(runtime: Runtime) -> None:
        server = await Server().listen(runtime)
        client = RpcClient(runtime, hello("a"), server.address, CALM)
        assert await client.call("echo", b"body", NANOSECONDS) == b"body"
        for method, text, definite in (
            ("refuse", "No cluster leader", True),
            ("muddle", "leadership lost while committing log", False),
        ):
            error = await outcome(client.call(method, b"", NANOSECONDS))
            assert isinstance(error, RemoteError)
            assert (str(error), error.definite) == (text, definite)
        client.close()

    in_the_real_world(test)


def test_before_the_request_is_sent_every_failure_is_definite() -> None:
    async def test(runtime: Runtime) -> None:
        service = Server()
        server = await service.listen(runtime)
        with socket.socket() as reserved:
            reserved.bind(("127.0.0.1", 0))
            refused = await outcome(
                RpcClient(runtime, hello("a"), reserved.getsockname(), CALM).call("echo", b"", NANOSECONDS)
            )
        stranger = RpcClient(runtime, hello("a", cluster_id="c2"), server.address, CALM)
        wrong_cluster = await outcome(stranger.call("echo", b"", NANOSECONDS))
        client = RpcClient(runtime, hello("a"), server.address, CALM)
        too_large = await outcome(client.call("echo", bytes(65_536), NANOSECONDS))
        silent = await runtime.network.listen(LOOPBACK, Raw)
        no_handshake = await outcome(
            RpcClient(runtime, hello("a"), silent.address, CALM).call("echo", b"", 20 * MILLISECONDS)
        )
        client.close()
        closed = await outcome(client.call("echo", b"", NANOSECONDS))
        assert [type(error) for error in (refused, wrong_cluster)] == [ConnectFailed, ConnectFailed]
        assert [type(error) for error in (too_large, no_handshake, closed)] == [NotSent, NotSent, NotSent]
        assert all(error.definite for error in (refused, wrong_cluster, too_large, no_handshake, closed))
        assert "belongs to cluster" in str(wrong_cluster)
        assert service.calls == []

    in_the_real_world(test)


async def requests_seen_by_a_server_that_hangs_up(runtime: Runtime) -> int:
    """One call to a server that takes each request and closes the connection: how often it sees it."""
    seen: list[bytes] = []

    def answer(raw: Raw, kind: FrameKind, payload: bytes) -> None:
        greet(raw, kind, payload)
        if kind is FrameKind.REQUEST:
            seen.append(payload)
            assert raw.connection is not None
            raw.connection.close()

    listener = await runtime.network.listen(LOOPBACK, lambda: Raw(answer))
    client = RpcClient(runtime, hello("a"), listener.address, CALM)
    error = await outcome(client.call("write", b"x", 300 * MILLISECONDS))
    assert isinstance(error, ConnectionLost | CallTimedOut)
    assert not error.definite
    client.close()
    return len(seen)


def test_a_call_whose_connection_is_lost_is_unknown_and_never_sent_again() -> None:
    async def test(runtime: Runtime) -> None:
        assert await requests_seen_by_a_server_that_hangs_up(runtime) == 1

    in_the_real_world(test)


def test_a_client_that_sends_again_what_was_lost_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def resend(self: RpcClient, text: str) -> None:
        self._waiting.update(dict.fromkeys(self._sent.values()))
        self._sent.clear()
        self._dialler.start(keep=False)

    monkeypatch.setattr(RpcClient, "down", resend)

    async def test(runtime: Runtime) -> None:
        assert await requests_seen_by_a_server_that_hangs_up(runtime) > 1

    in_the_real_world(test)


def test_a_call_that_is_not_answered_in_time_is_unknown_and_its_late_answer_harms_nobody() -> None:
    async def test(runtime: Runtime) -> None:
        service = Server()
        server = await service.listen(runtime)
        client = RpcClient(runtime, hello("a"), server.address, CALM)
        error = await outcome(client.call("later", b"", 50 * MILLISECONDS))
        assert isinstance(error, CallTimedOut)
        assert not error.definite
        service.replies[0].ok(b"late")
        assert await client.call("echo", b"next", NANOSECONDS) == b"next"
        assert client.late_answers == 1
        client.close()

    in_the_real_world(test)


def test_a_server_that_falls_silent_fails_its_calls_before_their_own_time() -> None:
    async def test(runtime: Runtime) -> None:
        listener = await runtime.network.listen(LOOPBACK, lambda: Raw(greet))
        client = RpcClient(runtime, hello("a"), listener.address, QUICK)
        error = await outcome(client.call("write", b"", 3600 * NANOSECONDS))
        assert isinstance(error, ConnectionLost)
        assert "nothing heard" in str(error)

    in_the_real_world(test)


async def served_when_a_request_is_repeated(runtime: Runtime) -> tuple[int, bool]:
    """How often a request is served whose frame came twice, and whether the connection was closed for it."""
    service = Server()
    server = await service.listen(runtime)
    request = encode_frame(FrameKind.REQUEST, encode(Request(1, "echo", b"x")))
    raw = await dial(runtime, server.address, HELLO_RPC + request + request)
    await until(runtime, lambda: raw.lost or len(service.calls) == 2)
    return len(service.calls), raw.lost


def test_a_request_is_served_at_most_once_on_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(runtime: Runtime) -> None:
        assert await served_when_a_request_is_repeated(runtime) == (1, True)

    async def mutant(runtime: Runtime) -> None:
        numbers = iter(range(1, 9))

        def renumber(payload: bytes) -> Request:
            """The mutant: the server does not look at ids."""
            return msgspec.structs.replace(decode_request(payload), id=next(numbers))

        monkeypatch.setattr(server_module, "decode_request", renumber)
        assert (await served_when_a_request_is_repeated(runtime))[0] == 2

    in_the_real_world(test)
    in_the_real_world(mutant)


def test_an_answer_to_a_request_that_was_never_sent_closes_the_connection() -> None:
    async def test(runtime: Runtime) -> None:
        def answer(raw: Raw, kind: FrameKind, payload: bytes) -> None:
            greet(raw, kind, payload)
            if kind is FrameKind.REQUEST:
                raw.send(FrameKind.RESPONSE, encode(Response(77, Outcome.OK, b"")))

        listener = await runtime.network.listen(LOOPBACK, lambda: Raw(answer))
        error = await outcome(RpcClient(runtime, hello("a"), listener.address, CALM).call("x", b"", NANOSECONDS))
        assert isinstance(error, ConnectionLost)
        assert "never sent" in str(error)

    in_the_real_world(test)


def test_many_calls_share_a_connection_and_each_gets_its_own_answer() -> None:
    async def test(runtime: Runtime) -> None:
        service = Server()
        server = await service.listen(runtime)
        client = RpcClient(runtime, hello("a"), server.address, CALM)
        answers: dict[int, bytes] = {}

        async def ask(number: int) -> None:
            answers[number] = await client.call("later", b"%d" % number, 10 * NANOSECONDS)

        for number in range(50):
            runtime.tasks.spawn(ask(number), "ask")
        await until(runtime, lambda: len(service.replies) == 50)
        for (_, body), reply in reversed(list(zip(service.calls, service.replies, strict=True))):
            reply.ok(b"re " + body)
        await until(runtime, lambda: len(answers) == 50)
        assert answers == {number: b"re %d" % number for number in range(50)}
        assert (client.epoch, server.counters.accepted, server.counters.calls) == (1, 1, 50)
        client.close()

    in_the_real_world(test)


def test_an_answer_too_large_for_a_frame_is_an_error_and_not_a_lost_connection() -> None:
    async def test(runtime: Runtime) -> None:
        service = Server()
        server = await service.listen(runtime)
        client = RpcClient(runtime, hello("a"), server.address, CALM)

        async def ask() -> None:
            error = await outcome(client.call("later", b"", NANOSECONDS))
            assert isinstance(error, RemoteError)
            assert "ask for less" in str(error)

        task = runtime.tasks.spawn(ask(), "ask")
        await until(runtime, lambda: service.replies)
        service.replies[0].ok(bytes(70_000))
        await until(runtime, task.done)
        assert client.epoch == 1

    in_the_real_world(test)
