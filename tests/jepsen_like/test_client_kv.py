"""The test's own HTTP client, against a small server that answers, refuses, stays silent and hangs up as it is told."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from collections.abc import Awaitable, Callable

import pytest

from jepsen_like.client import kv as kv_module
from jepsen_like.client import outcomes
from jepsen_like.client.http import HttpConnection, RequestFailed, Response
from jepsen_like.client.kv import Answered, KvClient, Unanswered
from jepsen_like.generator.values import Ending

Handler = Callable[[str, str, bytes], tuple[int, bytes] | str]
"""Method, target, body -> status and body, or "silence", "hang up", "nonsense", "close after"."""


class Server:
    """One loopback port; counts connections."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.connections = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().split("\r\n")
                method, target, _ = lines[0].split()
                length = next(int(line.split(":")[1]) for line in lines if line.lower().startswith("content-length"))
                body = await reader.readexactly(length)
                answer = self.handler(method, target, body)
                if answer == "silence":
                    await reader.read()
                    return
                if answer == "hang up":
                    return
                if answer == "nonsense":
                    writer.write(b"this is not HTTP\r\n\r\n")
                    continue
                assert isinstance(answer, tuple)
                status, text = answer
                writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(text)}\r\n\r\n".encode() + text)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


def talk(handler: Handler, scenario: Callable[[KvClient, Server], Awaitable[None]]) -> None:
    async def run() -> None:
        server = Server(handler)
        async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening:
            server.port = listening.sockets[0].getsockname()[1]

            async def dial() -> socket.socket:
                made = socket.socket()
                made.setblocking(False)
                try:
                    await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", server.port))
                except OSError:
                    made.close()
                    raise
                return made

            client = KvClient(HttpConnection(dial, "127.0.0.1"))
            try:
                await scenario(client, server)
            finally:
                client.close()
                await asyncio.sleep(0)

    asyncio.run(run())


def row(value: object, index: int) -> bytes:
    encoded = base64.b64encode(json.dumps(value).encode()).decode()
    return json.dumps([{"Key": "r/1", "ModifyIndex": index, "Value": encoded, "Flags": 0}]).encode()


def test_a_key_is_read_with_its_index_and_an_absent_one_is_none() -> None:
    async def scenario(client: KvClient, server: Server) -> None:
        found = await client.get("r/1", 1.0)
        assert isinstance(found, Answered)
        assert found.result is not None
        assert (found.result.json(), found.result.modify_index) == (7, 42)
        assert await client.get("r/2", 1.0) == Answered(None)
        assert server.connections == 1

    talk(lambda method, target, body: (200, row(7, 42)) if target == "/v1/kv/r/1?consistent" else (404, b""), scenario)


def test_each_consistency_is_asked_for_as_consul_wants_it() -> None:
    targets: list[str] = []

    def handler(method: str, target: str, body: bytes) -> tuple[int, bytes]:
        targets.append(target)
        return 404, b""

    async def scenario(client: KvClient, server: Server) -> None:
        for consistency in ("consistent", "stale", "default"):
            await client.get("r/1", 1.0, consistency)

    talk(handler, scenario)
    assert targets == ["/v1/kv/r/1?consistent", "/v1/kv/r/1?stale", "/v1/kv/r/1"]


def test_check_and_set_sends_the_index_and_tells_false_from_true() -> None:
    async def scenario(client: KvClient, server: Server) -> None:
        assert await client.put("r/1", 8, 1.0, cas=42) == Answered(True)
        assert await client.put("r/1", 8, 1.0, cas=41) == Answered(False)

    talk(lambda method, target, body: (200, b"true" if target.endswith("?cas=42") else b"false\n"), scenario)


def ending_of(answer: tuple[int, bytes] | str, *, write: bool) -> Ending:
    found: list[Ending] = []

    async def scenario(client: KvClient, server: Server) -> None:
        result = await (client.put("r/1", 1, 0.05) if write else client.get("r/1", 0.05))
        assert isinstance(result, Unanswered)
        found.append(result.ending)

    talk(lambda method, target, body: answer, scenario)
    return found[0]


@pytest.mark.parametrize(
    ("answer", "ending"),
    [
        ("silence", Ending.INFO),
        ("hang up", Ending.INFO),
        ("nonsense", Ending.INFO),
        ((500, b"No cluster leader"), Ending.FAIL),
        ((500, b"rpc error making call: No cluster leader\n"), Ending.FAIL),
        ((500, b"No known Consul servers"), Ending.FAIL),
        ((500, b"leadership lost while committing log"), Ending.INFO),
        ((500, b"rpc error making call: EOF"), Ending.INFO),
        ((500, b"No cluster leader, but perhaps it was applied"), Ending.INFO),
        ((502, b""), Ending.INFO),
        ((400, b"bad"), Ending.FAIL),
        ((404, b"unknown path"), Ending.FAIL),
        ((413, b"too large"), Ending.FAIL),
        ((429, b"slow down"), Ending.FAIL),
    ],
)
def test_the_outcome_table_for_writes(answer: tuple[int, bytes] | str, ending: Ending) -> None:
    assert ending_of(answer, write=True) is ending


@pytest.mark.parametrize(
    "answer", ["silence", "hang up", (500, b"leadership lost while committing log"), (404, b"path")]
)
def test_a_read_without_an_answer_is_fail_since_it_changes_nothing(answer: tuple[int, bytes] | str) -> None:
    assert ending_of(answer, write=False) is Ending.FAIL


def test_a_refused_connection_is_fail_even_for_a_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_module, "REFUSED_PAUSE_S", 0.0)

    async def scenario(client: KvClient, server: Server) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            server.port = free.getsockname()[1]  # bound, not listening: refused
            result = await client.put("r/1", 1, 1.0)
        assert isinstance(result, Unanswered)
        assert result.ending is Ending.FAIL
        assert "no connection" in result.error

    talk(lambda method, target, body: (200, b"true"), scenario)


def test_after_a_timeout_a_late_answer_is_not_taken_for_the_next_one() -> None:
    """The connection is given up with its request: otherwise the answer to the first would be the second's."""
    asked = 0

    def handler(method: str, target: str, body: bytes) -> tuple[int, bytes] | str:
        nonlocal asked
        asked += 1
        return "silence" if asked == 1 else (200, row(asked, 1))

    async def scenario(client: KvClient, server: Server) -> None:
        assert isinstance(await client.get("r/1", 0.05), Unanswered)
        found = await client.get("r/1", 1.0)
        assert isinstance(found, Answered)
        assert found.result is not None
        assert found.result.json() == 2
        assert server.connections == 2

    talk(handler, scenario)


def test_an_answer_that_is_not_consuls_is_an_error_not_a_crash() -> None:
    async def scenario(client: KvClient, server: Server) -> None:
        for answer in (await client.get("r/1", 1.0), await client.keys("set/", 1.0)):
            assert isinstance(answer, Unanswered)
            assert "not what Consul answers" in answer.error

    talk(lambda method, target, body: (200, b'{"surprise": true}'), scenario)


def test_treating_every_error_as_fail_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutant that would make a lost acknowledgement look like a write that never happened."""
    monkeypatch.setattr(outcomes, "of_failure", lambda failure, *, changes: Ending.FAIL)
    assert ending_of("silence", write=True) is not Ending.INFO


def test_sent_decides_between_fail_and_info() -> None:
    assert outcomes.of_failure(RequestFailed("x", sent=True), changes=True) is Ending.INFO
    assert outcomes.of_failure(RequestFailed("x", sent=False), changes=True) is Ending.FAIL
    assert outcomes.of_failure(RequestFailed("x", sent=True), changes=False) is Ending.FAIL
    assert outcomes.describe(Response(500, {}, b"No cluster leader\n")) == "500 No cluster leader"
