"""Calls on real loopback sockets: what is known of each when it fails."""

from __future__ import annotations

import socket
from collections.abc import Coroutine
from typing import Any

import msgspec
import pytest

from impl.rpc import server as server_module
from impl.rpc.calls import Outcome, Request, Response, decode_request, encode
from impl.rpc.client import RpcClient
from impl.rpc.errors import CallTimedOut, ConnectFailed, ConnectionLost, NotSent, RemoteError, RpcError
from impl.rpc.framing import FrameKind, encode_frame
from impl.runtime.interfaces import MILLISECONDS, NANOSECONDS, Runtime
from tests.impl.rpc_ends import (
    CALM,
    HELLO_RPC,
    LOOPBACK,
    QUICK,
    Raw,
    Server,
    dial,
    greet,
    hello,
    in_the_real_world,
    until,
)


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
