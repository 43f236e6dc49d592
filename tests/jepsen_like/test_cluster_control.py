"""The control socket: many clients come, ask, and go at any moment; the others do not notice."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from jepsen_like.cluster import control_server
from jepsen_like.cluster.control import ControlConnection, dial
from jepsen_like.cluster.control_server import ControlServer
from jepsen_like.cluster.protocol import ClusterFailure, Describe, Heal, Kill, MakeSocket, Operation, Reply, Request


async def perform(operation: Operation) -> tuple[Reply, list[int], bool]:
    """Plays the supervisor: a descriptor for MakeSocket, failures for Kill, an empty reply for the rest."""
    match operation:
        case MakeSocket(node):
            read, write = os.pipe()
            os.write(write, node.encode())
            os.close(write)
            return Reply(0), [read], True
        case Kill("s1"):
            raise ClusterFailure("s1 is not running")
        case Kill():
            raise ZeroDivisionError("a defect")
        case _:
            return Reply(0, 1, 2), [], False


def with_server(directory: Path, act: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        server = ControlServer(directory, None, perform)
        server.open()
        try:
            await act()
        finally:
            await server.close()

    asyncio.run(asyncio.wait_for(main(), 30))


def test_replies_find_whoever_asked_and_descriptors_go_with_them(tmp_path: Path) -> None:
    async def act() -> None:
        connection = ControlConnection(dial(tmp_path))

        async def ask(number: int) -> None:
            _, descriptors = await connection.ask(MakeSocket(f"t{number}"))
            with open(descriptors[0], "rb") as pipe:
                assert pipe.read() == b"t%d" % number
            assert (await connection.ask(Heal()))[0].end_ns == 2

        await asyncio.gather(*(ask(number) for number in range(50)))
        connection.close()

    with_server(tmp_path, act)


def test_failures_and_defects_are_answers(tmp_path: Path) -> None:
    async def act() -> None:
        connection = ControlConnection(dial(tmp_path))
        with pytest.raises(ClusterFailure, match="s1 is not running"):
            await connection.ask(Kill("s1"))
        with pytest.raises(ClusterFailure, match="internal error of the supervisor"):
            await connection.ask(Kill("s2"))
        connection.close()
        with pytest.raises(ClusterFailure, match="was closed"):
            await connection.ask(Heal())

    with_server(tmp_path, act)


async def a_few_turns() -> None:
    """Let the loop run what is ready."""
    for _ in range(10):
        await asyncio.sleep(0)


async def check_others_are_answered(directory: Path) -> None:
    """Again and again somebody asks for a descriptor and does not listen to the answer, and somebody else does."""
    for _ in range(20):
        with dial(directory) as deaf:
            deaf.shutdown(socket.SHUT_RD)
            deaf.sendall(msgspec.json.encode(Request(1, MakeSocket("t1"))) + b"\n")
            await a_few_turns()  # the server accepts, reads, answers, fails
        connection = ControlConnection(dial(directory))
        await a_few_turns()  # the server accepts, and waits
        await asyncio.wait_for(connection.ask(Describe()), 2)
        connection.close()


def test_clients_that_do_not_listen_to_the_answer_disturb_nobody(tmp_path: Path) -> None:
    with_server(tmp_path, lambda: check_others_are_answered(tmp_path))


def test_closing_a_connection_that_the_loop_still_watches_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def act() -> None:
        with pytest.raises((TimeoutError, ClusterFailure)):
            await check_others_are_answered(tmp_path)

    monkeypatch.setattr(control_server, "_hang_up", socket.socket.close)
    with_server(tmp_path, act)


@pytest.mark.parametrize("nonsense", [b"nonsense\n", b'{"id": 1, "do": {"op": "rm"}}\n', b"\xff\n", b"x" * (2 << 20)])
def test_nonsense_ends_that_connection_only(tmp_path: Path, nonsense: bytes) -> None:
    async def act() -> None:
        loop = asyncio.get_running_loop()
        good = ControlConnection(dial(tmp_path))
        with dial(tmp_path) as bad:
            bad.setblocking(False)
            try:
                await loop.sock_sendall(bad, nonsense)
                assert await loop.sock_recv(bad, 1) == b""
            except ConnectionError:  # closed while we were still talking
                pass
        await good.ask(Describe())
        good.close()

    with_server(tmp_path, act)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"id": 1, "descriptors": 1}', "too many open files"),  # the kernel drops those that do not fit
        (b'{"id": "one"}', "another language"),
        (b"\xff", "another language"),
    ],
)
def test_an_answer_that_cannot_be_used_fails_whoever_waits(line: bytes, reason: str) -> None:
    async def main() -> None:
        ours, its = socket.socketpair()
        connection = ControlConnection(ours)
        asking = asyncio.ensure_future(connection.ask(Describe()))
        with its:
            its.sendall(line + b"\n")
            with pytest.raises(ClusterFailure, match=reason):
                await asyncio.wait_for(asking, 5)

    asyncio.run(main())
