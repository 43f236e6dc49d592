"""`limits.http_max_conns_per_client`: a client with more connections than that is told so, in Consul's words, and only
then. Over real sockets, on uvloop, with the short way and without.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, cast

import pytest
import uvloop

from impl.agent.requests.api import ReadOptions, ReadReply
from impl.catalog.queries import Query
from impl.http.app import Application
from impl.http.direct import DirectKv
from impl.runtime import http_server
from impl.runtime.http_connections import Connections, CountedProtocol
from impl.runtime.http_server import HttpServer
from tests.impl.http_two_ways import DEADLINE_S, LIMIT, Memory, new_measures, request

ASKED = request("GET", "/v1/kv/a")
CONSULS_WORDS = (
    b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: text/plain\r\nContent-Length: 81\r\nConnection: close\r\n\r\n"
    b"Your IP is issuing too many concurrent connections, please rate limit your calls\n"
)


class Client(asyncio.Protocol):
    """One connection: what it was told, and whether it is closed. A reset takes nothing back that had arrived."""

    def __init__(self) -> None:
        self.told = b""
        self.closed = False
        self._news = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.told += data
        self._news.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._news.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def ask(self) -> bool:
        """Whether the question was answered; otherwise it was refused, and the connection closed."""
        self.transport.write(ASKED)
        await self.until(lambda: self.closed or self.told.endswith(b"\r\n\r\n"))
        if self.told.startswith(b"HTTP/1.1 404"):
            self.told = b""
            return True
        await self.until(lambda: self.closed)
        assert self.told == CONSULS_WORDS
        return False


class Waiting(Memory):
    """Blocking queries end with the test."""

    def __init__(self) -> None:
        super().__init__(random.Random(1))
        self.end = asyncio.Event()

    async def read(self, query: Query, options: ReadOptions) -> ReadReply:
        if options.min_index:
            await self.end.wait()
        return await super().read(query, options)


class Clients:
    """A server, and connections to it."""

    def __init__(self, connections: Connections, *, short_way: bool) -> None:
        self._agent = agent = Waiting()
        served: Any = agent
        app = Application(served, "dc1", LIMIT, lambda *what: None)
        direct = DirectKv(agent, LIMIT, lambda *what: None, new_measures()) if short_way else None
        self.connections = connections
        self.server = HttpServer.listen(("127.0.0.1", 0), app, direct, connections)
        self._all: list[Client] = []

    async def __aenter__(self) -> Clients:
        return self

    async def __aexit__(self, *error: object) -> None:
        for client in self._all:
            client.transport.abort()
        self._agent.end.set()
        await self.server.close()
        assert error[0] or self.connections._open == {}, "the server has stopped"

    async def answered(self, host: str = "127.0.0.1") -> Client | None:
        """A new connection that was answered, and stays open; None if it was refused."""
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(Client, *self.server.address, local_addr=(host, 0))
        self._all.append(client)
        return client if await client.ask() else None

    async def admitted_at_last(self) -> Client:
        """The server hears of a closed connection a moment later."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                client = await self.answered()
                if client is not None:
                    return client
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
        for client in opened:
            assert client is not None and await client.ask()
        assert client is not None
        client.transport.close()
        await clients.admitted_at_last()
        assert await clients.answered() is None, "only one was closed"


@both_ways
def test_connections_of_one_address_beyond_the_limit_are_answered_with_429_and_closed(short_way: bool) -> None:
    run(the_limit_holds(short_way))


async def orderly(client: Client) -> None:
    client.transport.close()


async def reset(client: Client) -> None:
    linger = struct.pack("ii", 1, 0)
    client.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    client.transport.abort()


async def half_closed(client: Client) -> None:
    client.transport.write_eof()
    await client.until(lambda: client.closed)


async def within_a_request(client: Client) -> None:
    client.transport.write(request("PUT", "/v1/kv/a", b"whole body")[:-3])
    client.transport.close()


async def while_it_waits(client: Client) -> None:
    client.transport.write(request("GET", "/v1/kv/a?index=1&wait=10m"))
    client.transport.close()


def after(last: bytes) -> Callable[[Client], Awaitable[None]]:
    """A request after which the server closes."""

    async def asks(client: Client) -> None:
        client.transport.write(last)
        await client.until(lambda: client.closed)

    return asks


async def left_alone(client: Client) -> None:
    """KEEP_ALIVE_SECONDS pass."""
    await client.until(lambda: client.closed)


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
                await end(await clients.admitted_at_last())
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
            for client in opened:
                assert await client.ask()
            assert await clients.answered() is None
            client.transport.close()
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


def released_in_order_only(protocol: CountedProtocol, exc: Exception | None) -> None:
    if exc is None:
        ORIGINAL(protocol, exc)


ORIGINAL = CountedProtocol.connection_lost


@pytest.mark.parametrize(
    ("owner", "name", "mutant", "noticed_by"),
    [
        (Connections, "admit", lambda connections, host: True, the_limit_holds),
        (Connections, "release", lambda connections, host: None, the_limit_holds),
        (Connections, "release", lambda connections, host: None, nothing_stays),
        (Connections, "release", lambda connections, host: connections._open.pop(host, None), the_limit_holds),
        (CountedProtocol, "connection_lost", released_in_order_only, nothing_stays),
    ],
    ids=[
        "the limit is ignored",
        "the count never goes down",
        "the count never goes down, in any way",
        "all of an address go with one",
        "the count stays after a reset",
    ],
)
def test_a_wrong_count_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
    owner: type,
    name: str,
    mutant: Any,
    noticed_by: Callable[[bool], Coroutine[Any, Any, None]],
) -> None:
    monkeypatch.setattr(http_server, "KEEP_ALIVE_SECONDS", 1)
    monkeypatch.setattr(sys.modules[__name__], "DEADLINE_S", 2.0)
    monkeypatch.setattr(owner, name, mutant)
    with pytest.raises((AssertionError, TimeoutError)):
        run(noticed_by(True))
