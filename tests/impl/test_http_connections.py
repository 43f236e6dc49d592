"""`limits.http_max_conns_per_client`: a client with more connections than that is told so, in Consul's words, and only
then. Over real sockets, on uvloop, with the short way and without.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
import uvloop

from impl.http.app import Application
from impl.http.direct import DirectKv
from impl.runtime import http_server
from impl.runtime.http_connections import Connections
from impl.runtime.http_server import HttpServer
from tests.impl.test_http_protocol import DEADLINE_S, LIMIT, Memory, request

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
ASKED = request("GET", "/v1/kv/a")
CONSULS_WORDS = (
    b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: text/plain\r\nContent-Length: 81\r\nConnection: close\r\n\r\n"
    b"Your IP is issuing too many concurrent connections, please rate limit your calls\n"
)


class Clients:
    """A server, and connections to it."""

    def __init__(self, connections: Connections, *, short_way: bool) -> None:
        agent: Any = Memory(random.Random(1))
        app = Application(agent, "dc1", LIMIT, lambda *what: None)
        self.connections = connections
        self.server = HttpServer.listen(
            ("127.0.0.1", 0), app, DirectKv(agent, LIMIT, lambda *what: None) if short_way else None, connections
        )
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Clients:
        return self

    async def __aexit__(self, *error: object) -> None:
        for writer in self._writers:
            writer.transport.abort()
        await self.server.close()
        assert error[0] or self.connections._open == {}, "the server has stopped"

    async def answered(self, host: str = "127.0.0.1") -> Streams | None:
        """A new connection that was answered, and stays open; None if it was refused."""
        reader, writer = await asyncio.open_connection(*self.server.address, local_addr=(host, 0))
        self._writers.append(writer)
        head = await self.head((reader, writer))
        if head.startswith(b"HTTP/1.1 404"):
            return reader, writer
        assert head + await asyncio.wait_for(reader.readexactly(81), DEADLINE_S) == CONSULS_WORDS
        return None

    async def head(self, streams: Streams) -> bytes:
        """Ask, and be answered."""
        streams[1].write(ASKED)
        return await asyncio.wait_for(streams[0].readuntil(b"\r\n\r\n"), DEADLINE_S)

    async def admitted_at_last(self) -> Streams:
        """The server hears of a closed connection a moment later."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                streams = await self.answered()
                if streams is not None:
                    return streams
                await asyncio.sleep(0.005)


def run(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


both_ways = pytest.mark.parametrize("short_way", [True, False], ids=["short-way", "asgi"])


async def the_limit_holds(short_way: bool) -> None:
    async with Clients(Connections(3), short_way=short_way) as clients:
        opened = [await clients.answered() for _ in range(3)]
        for _ in range(10):
            assert await clients.answered() is None, "a fourth"
        assert await clients.answered("127.0.0.2") is not None, "another address counts by itself"
        for streams in opened:
            assert streams is not None
            assert (await clients.head(streams)).startswith(b"HTTP/1.1 404")
        streams[1].close()
        await clients.admitted_at_last()
        assert await clients.answered() is None, "only one was closed"


@both_ways
def test_connections_of_one_address_beyond_the_limit_are_answered_with_429_and_closed(short_way: bool) -> None:
    run(the_limit_holds(short_way))


async def orderly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def half_closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(), DEADLINE_S) == b""
    writer.close()


async def within_a_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(request("PUT", "/v1/kv/a", b"whole body")[:-3])
    writer.close()


async def while_it_waits(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(request("GET", "/v1/kv/a?index=1&wait=10m"))
    writer.close()


def after(last: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """A request after which the server closes."""

    async def asks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(last)
        await asyncio.wait_for(reader.read(), DEADLINE_S)
        writer.close()

    return asks


async def left_alone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    assert await asyncio.wait_for(reader.read(), DEADLINE_S) == b"", "KEEP_ALIVE_SECONDS have passed"
    writer.close()


WAYS = {
    "by its client": orderly,
    "by a reset": reset,
    "in one direction": half_closed,
    "within a request": within_a_request,
    "while a request waits": while_it_waits,
    "by the server, as asked": after(request("GET", "/v1/kv/a", b"", "Connection: close")),
    "by the server, after what is no request": after(b"no request at all\r\n\r\n"),
    "by the server, since nobody uses it": left_alone,
}


async def nothing_stays(short_way: bool) -> None:
    async with Clients(Connections(2), short_way=short_way) as clients:
        for end in WAYS.values():
            for _ in range(3 if end is not left_alone else 1):
                await end(*await clients.admitted_at_last())
        for _ in range(2):
            await clients.admitted_at_last()
        assert await clients.answered() is None


@both_ways
def test_a_connection_counts_until_it_is_closed_in_whatever_way(
    short_way: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "KEEP_ALIVE_SECONDS", 1)
    run(nothing_stays(short_way))


@pytest.mark.parametrize("most", [0, -1])
def test_zero_or_less_is_no_limit(most: int) -> None:
    async def main() -> None:
        async with Clients(Connections(most), short_way=True) as clients:
            for _ in range(250):
                assert await clients.answered() is not None

    run(main())


def test_a_limit_that_changes_holds_for_new_connections_and_closes_none() -> None:
    async def main() -> None:
        connections = Connections(2)
        async with Clients(connections, short_way=True) as clients:
            opened = [await clients.admitted_at_last() for _ in range(2)]
            connections.most_per_client = 1
            for streams in opened:
                await clients.head(streams)
            assert await clients.answered() is None
            opened[0][1].close()
            async with asyncio.timeout(DEADLINE_S):
                while connections._open != {"127.0.0.1": 1}:
                    await asyncio.sleep(0.001)
            assert await clients.answered() is None, "one is open, and one may be"
            connections.most_per_client = 2
            assert await clients.answered() is not None

    run(main())


def test_who_has_asked_before_the_server_looks_is_told_all_the_same() -> None:
    async def main() -> None:
        async with Clients(Connections(1), short_way=True) as clients:
            await clients.admitted_at_last()
            with socket.create_connection(clients.server.address, DEADLINE_S) as client:
                client.sendall(ASKED * 100)  # the loop stands still meanwhile
                assert await asyncio.to_thread(client.recv, 10_000) == CONSULS_WORDS

    run(main())


@pytest.mark.parametrize(
    ("name", "mutant", "noticed_by"),
    [
        ("admit", lambda connections, host: True, the_limit_holds),
        ("release", lambda connections, host: None, the_limit_holds),
        ("release", lambda connections, host: None, nothing_stays),
        ("release", lambda connections, host: connections._open.pop(host, None), the_limit_holds),
    ],
    ids=["limit ignored", "count never goes down", "count never goes down, whatever the way", "all go with one"],
)
def test_a_wrong_count_is_noticed(
    monkeypatch: pytest.MonkeyPatch, name: str, mutant: Any, noticed_by: Callable[[bool], Coroutine[Any, Any, None]]
) -> None:
    monkeypatch.setattr("tests.impl.test_http_connections.DEADLINE_S", 1.0)
    monkeypatch.setattr(Connections, name, mutant)
    with pytest.raises((AssertionError, TimeoutError)):
        run(noticed_by(True))
