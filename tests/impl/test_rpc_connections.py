"""Connections on real loopback sockets: links that come back, peers that misbehave."""

from __future__ import annotations

import socket
import time
from functools import partial

import pytest

from impl.rpc.calls import Request, encode
from impl.rpc.client import RpcClient
from impl.rpc.dialler import Dialler
from impl.rpc.framing import FrameKind, encode_frame
from impl.rpc.handshake import Purpose, decode_refusal
from impl.rpc.handshake import encode as encode_handshake
from impl.rpc.peer_link import PeerLink
from impl.rpc.timings import Timings
from impl.runtime.interfaces import MILLISECONDS, NANOSECONDS, Address, Runtime
from tests.impl.rpc_ends import (
    CALM,
    HELLO_RAFT,
    HELLO_RPC,
    LOOPBACK,
    QUICK,
    Link,
    Raw,
    Server,
    dial,
    greet,
    hello,
    in_the_real_world,
    until,
)

NEVER_BY_ITSELF = Timings(redial_ns_min=3600 * NANOSECONDS, redial_ns_max=3600 * NANOSECONDS)


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


def is_heard_after(link: PeerLink, time_ns: int) -> bool:
    return link.last_pong_ns > time_ns


def test_a_process_that_was_paused_itself_does_not_take_its_peers_for_silent() -> None:
    async def test(runtime: Runtime) -> None:
        server = await Server().listen(runtime)
        a = Link(runtime, server.address, QUICK)
        await until(runtime, lambda: a.link.connected)
        for _ in range(3):
            time.sleep(0.2)  # as SIGSTOP does: four times as long as the link may be unanswered
            await until(runtime, partial(is_heard_after, a.link, a.link.last_pong_ns))
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


def greeting_of(**changes: object) -> bytes:
    return encode_frame(FrameKind.HELLO, encode_handshake(hello("a", **changes)()))


async def dialled_until_lost(runtime: Runtime, address: Address, stream: bytes) -> Raw:
    raw = await dial(runtime, address, stream)
    await until(runtime, lambda: raw.lost)
    return raw


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
            raw = await dialled_until_lost(runtime, server.address, stream)
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
