"""The short way of HTTP requests answers as the long way does, byte for byte: both serve the same bytes here, cut where
TCP may cut them, from two equal agents. ASGI under uvicorn's own protocol is the oracle.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvloop

from impl.agent.requests.api import Answered
from impl.catalog.commands import KvSet, Write
from impl.catalog.transitions import Result
from impl.http import direct as direct_module
from impl.http import kv
from impl.http.app import Application
from impl.http.direct import DirectKv
from impl.http.measures import HttpMeasures
from impl.runtime import http_protocol, http_server
from impl.runtime.http_connections import CountedProtocol
from impl.runtime.http_protocol import DirectProtocol
from impl.runtime.http_server import HttpServer
from impl.runtime.interfaces import Respond
from tests.impl import http_two_ways
from tests.impl.http_two_ways import (
    CLOSING,
    DEADLINE_S,
    LIMIT,
    MALFORMED,
    OTHER,
    PLAIN,
    Both,
    Memory,
    new_measures,
    request,
)  # fmt: skip


def cut(draw: random.Random, stream: bytes) -> list[bytes]:
    """The stream in pieces, as TCP may deliver it; many clients send the head by itself."""
    cuts = sorted(draw.randrange(len(stream)) for _ in range(draw.choice((0, 0, 1, 2, 4))))
    if draw.random() < 0.3:
        cuts = [stream.index(b"\r\n\r\n") + 4]
    return [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


def script(seed: int) -> tuple[list[list[bytes]], list[bytes]]:
    """Requests that wait for each other, then some without waiting; the last one ends the connection. All in pieces."""
    draw = random.Random(seed)
    if draw.random() < 0.2:
        return [], [draw.choice(MALFORMED)]
    in_turn, behind = (
        [draw.choice(draw.choice((PLAIN, PLAIN, OTHER))) for _ in range(draw.randrange(8))] for _ in range(2)
    )
    waited_for = [cut(draw, each) for each in in_turn if not each.startswith(b"HEAD")]
    return waited_for, cut(draw, b"".join([*behind, draw.choice(CLOSING)]))


async def compare(seeds: range) -> int:
    """Answers, and what the agents hold after them, must be equal; how many requests went the short way."""
    both = Both(seeds.start)
    short, long = both.agents
    try:
        for seed in seeds:
            in_turn, behind = script(seed)
            direct, asgi = await both.exchange(behind, in_turn)
            assert direct == asgi, f"script {seed}"
            assert short.store.list_prefix("") == long.store.list_prefix(""), f"script {seed}"
            assert not both.unexpected
        assert both.measured(0) == both.measured(1)
        assert min(both.measured(0)) > 0
    finally:
        await both.close()
    return short.begun


def run(main: Any) -> Any:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def test_both_ways_answer_the_same_bytes() -> None:
    assert run(compare(range(400))) > 100, "the short way was hardly taken"


def test_both_ways_answer_each_kind_of_request_the_same() -> None:
    async def main() -> None:
        both = Both(2)
        try:
            for stream in (*(each + CLOSING[0] for each in (*PLAIN, *OTHER)), *CLOSING, *MALFORMED):
                direct, asgi = await both.exchange([stream])
                assert direct == asgi, stream[:80]
        finally:
            await both.close()

    run(main())


def test_what_is_plain_goes_the_short_way_and_nothing_else_does() -> None:
    taken: list[bytes] = []

    class Counting(DirectKv):
        def answer(self, method: bytes, path: bytes, query: bytes, body: bytes, respond: Respond) -> bool:
            taken.append(path)
            return respond(200, b"content-length: 0\r\n", b"")

    async def offered(server: HttpServer, first: bytes) -> bool:
        taken.clear()
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(first)
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), DEADLINE_S)
        offered = bool(taken)
        writer.write(CLOSING[0])
        await asyncio.wait_for(reader.read(), DEADLINE_S)
        writer.close()
        return offered

    async def main() -> None:
        memory: Any = Memory(random.Random(1))
        server = HttpServer.listen(
            ("127.0.0.1", 0),
            Application(memory, "dc1", LIMIT, lambda *what: None),
            Counting(memory, LIMIT, lambda *what: None, new_measures()),
        )
        for each in PLAIN:
            assert await offered(server, each), each[:80]
        for each in OTHER:
            of_protocol = not each.startswith((b"GET /v1/kv/", b"PUT /v1/kv/")) or b"a#b" in each
            unusual = (b"x-consul-", b"expect", b"chunked", b"nobody reads", b"zz")
            longer = any(word in each.lower() for word in unusual)
            assert await offered(server, each) is not (of_protocol or longer), each[:80]
        await server.close()

    run(main())


async def a_body_is_no_request(both: Both) -> None:
    smuggled = request("PUT", "/v1/kv/smuggled", b"1")
    refused = request("POST", "/v1/kv/a", smuggled)  # and answered before its body has come
    head = refused[: -len(smuggled)]
    for answer in await both.exchange(
        [smuggled, request("GET", "/v1/kv/smuggled", b"", "Connection: close")], [[head]]
    ):
        assert re.findall(rb"HTTP/1.1 ([0-9]+)", answer) == [b"405", b"404"]


def test_what_stands_in_a_body_is_no_request() -> None:
    async def main() -> None:
        both = Both(1)
        both.agents[0].random = AtOnce()
        try:
            await a_body_is_no_request(both)
        finally:
            await both.close()

    run(main())


def test_a_body_that_is_taken_for_a_request_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DirectProtocol, "on_message_begin", CountedProtocol.on_message_begin)
    monkeypatch.setattr(http_two_ways, "DEADLINE_S", 1.0)
    with pytest.raises((AssertionError, TimeoutError)):
        test_what_stands_in_a_body_is_no_request()


def test_whoever_wants_another_protocol_is_answered_in_this_one() -> None:
    async def main() -> None:
        both = Both(1)
        heads = []
        for server in both.servers:
            reader, writer = await asyncio.open_connection(*server.address)
            writer.write(request("GET", "/v1/kv/a", b"", "Connection: Upgrade", "Upgrade: websocket"))
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), DEADLINE_S)
            heads.append(re.sub(rb"date: [^\r]*\r\n", b"", head))
            writer.close()
        assert heads[0] == heads[1]
        assert heads[0].startswith(b"HTTP/1.1 404 Not Found\r\n")
        await both.close()

    run(main())


def test_a_client_that_goes_away_within_its_body_has_written_nothing() -> None:
    async def main() -> None:
        both = Both(1)
        for server in both.servers:
            _, writer = await asyncio.open_connection(*server.address)
            writer.write(request("PUT", "/v1/kv/a", b"whole body")[:-3])
            await asyncio.sleep(0.01)
            writer.close()
            await writer.wait_closed()
        direct, asgi = await both.exchange([request("GET", "/v1/kv/?recurse", b"", "Connection: close")])
        assert direct == asgi
        assert direct.startswith(b"HTTP/1.1 404")
        await both.close()

    run(main())


class AtOnce(random.Random):
    """Whatever is begun ends at once."""

    def randrange(self, *_: Any) -> int:
        return 3


REQUESTS, VALUE_BYTES = 400, 90_000


def test_a_client_that_does_not_read_is_not_answered_without_end() -> None:
    async def main() -> None:
        both = Both(1)
        agent, server = both.agents[0], both.servers[0]
        agent.random = AtOnce()
        agent.store.apply(KvSet("a", b"v" * VALUE_BYTES, 0), 1)
        reader, writer = await asyncio.open_connection(*server.address, limit=1 << 16)
        try:
            sent = 0
            while agent.reads == sent and sent < REQUESTS:  # until it answers no more
                writer.write(request("GET", "/v1/kv/a?raw"))
                sent += 1
                patience = time.monotonic() + 0.3
                while agent.reads < sent and time.monotonic() < patience:
                    await asyncio.sleep(0.001)
            assert sent < REQUESTS // 2, "everything was answered, and waits in memory"
            writer.write(CLOSING[0])
            received = 0
            while part := await asyncio.wait_for(reader.read(1 << 20), DEADLINE_S):
                received += len(part)
            assert received > sent * VALUE_BYTES
        finally:
            writer.transport.abort()
            await both.close()

    run(main())


def test_a_server_that_stops_answers_what_is_under_way_and_closes() -> None:
    class Late(Memory):
        def begin_write(self, command: Write, answered: Answered[Result]) -> bool:
            self.answered = answered
            return True

    async def main() -> None:
        agent = Late(random.Random(1))
        app = Application(agent, "dc1", LIMIT, lambda *what: None)  # type: ignore[arg-type]
        server = HttpServer.listen(("127.0.0.1", 0), app, DirectKv(agent, LIMIT, lambda *what: None, new_measures()))
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(PLAIN[0])
        while not hasattr(agent, "answered"):
            await asyncio.sleep(0.001)
        closing = asyncio.get_running_loop().create_task(server.close())
        await asyncio.sleep(0.2)
        agent.answered(True)
        answer = await asyncio.wait_for(reader.read(), DEADLINE_S)
        assert b"connection: close\r\n\r\ntrue" in answer
        await closing
        writer.close()

    run(main())


def fails(*_: Any) -> Any:
    raise ZeroDivisionError("a defect")


def begins_and_fails(memory: Memory, what: Any, *rest: Any) -> bool:
    """What was begun ends, too, a moment later."""
    *_, answered = rest
    asyncio.get_running_loop().call_soon(answered, True)
    return bool(fails())


def ends_in_a_defect(memory: Memory, what: Any, *rest: Any) -> bool:
    *_, answered = rest
    answered(ZeroDivisionError("a defect"))
    return True


DEFECTS: list[tuple[bytes, tuple[tuple[Any, str, Any], ...]]] = [
    (request("GET", "/v1/kv/a%20b"), ((kv, "shown", fails),)),
    (request("GET", "/v1/kv/a%20b"), ((kv, "read_options", fails), (direct_module, "read_options", fails))),
    (request("GET", "/v1/kv/a%20b"), ((Memory, "begin_read", fails), (Memory, "read", fails))),
    (request("GET", "/v1/kv/a%20b"), ((Memory, "begin_read", ends_in_a_defect), (Memory, "read", fails))),
    (request("PUT", "/v1/kv/a%20b?cas=7", b"1"), ((kv, "written", fails),)),
    (request("PUT", "/v1/kv/a%20b", b"1"), ((kv, "write_of_put", fails),)),
    (request("PUT", "/v1/kv/a%20b", b"1"), ((Memory, "begin_write", begins_and_fails), (Memory, "write", fails))),
    (request("PUT", "/v1/kv/a%20b", b"1"), ((Memory, "begin_write", ends_in_a_defect), (Memory, "write", fails))),
]


async def a_defect_is_a_500(asked: bytes, defects: tuple[tuple[Any, str, Any], ...]) -> None:
    """The connection goes on, and there is one answer for each request."""
    both = Both(1)
    both.agents[0].random = AtOnce()
    try:
        with pytest.MonkeyPatch.context() as patch:
            for owner, name, defect in defects:
                patch.setattr(owner, name, defect)
            direct, asgi = await both.exchange([asked, request("GET", "/v1/status/leader", b"", "Connection: close")])
        assert direct == asgi
        assert direct.startswith(b"HTTP/1.1 500 ") and direct.count(b"HTTP/1.1") == 2
        assert b"internal error: ZeroDivisionError('a defect')" in direct and b"127.0.0.1:8300" in direct
        what = f"{asked[:3].decode()} /v1/kv/a b"
        assert both.unexpected == [(what, "ZeroDivisionError('a defect')")] * 2
        assert both.measured(0) == both.measured(1)
    finally:
        await both.close()


@pytest.mark.parametrize(("asked", "defects"), DEFECTS)
def test_an_error_that_nobody_expected_is_logged_and_a_500(
    asked: bytes, defects: tuple[tuple[Any, str, Any], ...]
) -> None:
    run(a_defect_is_a_500(asked, defects))


def passed_on(direct: DirectKv, method: bytes, path: bytes, error: Exception) -> Any:
    raise error


def again_and_again(original: Callable[..., bool]) -> Callable[..., bool]:
    def respond(cycle: Any, *answer: Any) -> bool:
        cycle.response_complete = False
        return original(cycle, *answer)

    return respond


@pytest.mark.parametrize("number", range(len(DEFECTS)))
def test_an_error_that_is_passed_on_is_noticed(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(DirectKv, "_failed", passed_on)
    monkeypatch.setattr(http_two_ways, "DEADLINE_S", 1.0)
    with pytest.raises((AssertionError, TimeoutError)):
        run(a_defect_is_a_500(*DEFECTS[number]))


def test_a_second_answer_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    cycle = http_protocol._DirectCycle
    monkeypatch.setattr(cycle, "respond", again_and_again(cycle.respond))
    with pytest.raises(AssertionError):
        run(a_defect_is_a_500(*DEFECTS[6]))


def one_at_a_time(protocol: DirectProtocol, data: bytes) -> bool:
    protocol.cycle = None
    return ORIGINAL(protocol, data)


def never_paused(protocol: DirectProtocol, data: bytes) -> bool:
    protocol.flow.write_paused = False
    return ORIGINAL(protocol, data)


def in_one_piece(protocol: DirectProtocol, data: bytes) -> bool:
    """What is missing of the body never comes."""
    took = ORIGINAL(protocol, data)
    protocol._begun = b""
    return took


def head(pattern: bytes, instead: bytes) -> re.Pattern[bytes]:
    """The head of a plain request, without one of its conditions."""
    found = http_protocol._PLAIN_HEAD.pattern
    assert pattern in found
    return re.compile(found.replace(pattern, instead))


@contextmanager
def broken(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, mutant: Any) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, mutant)
        yield


ORIGINAL = DirectProtocol._took


@pytest.mark.parametrize(
    ("owner", "name", "mutant"),
    [
        (DirectProtocol, "_took", one_at_a_time),
        (DirectProtocol, "_took", in_one_piece),
        (DirectProtocol, "default_lines", lambda protocol: b"server: comitia\r\n"),
        (http_protocol, "_PLAIN_HEAD", head(rb"HTTP/1\.1", rb"HTTP/1\.[01]")),
        (http_protocol, "_PLAIN_HEAD", head(rb"connection: keep-alive", rb"connection: [ -~]*")),
        (http_protocol, "_PLAIN_HEAD", head(rb"user-agent", rb"user-agent|expect")),
        (http_protocol, "_PLAIN_HEAD", head(rb"(?!consul-(?:namespace|partition):)", rb"")),
        (http_protocol, "_PLAIN_HEAD", head(rb"user-agent", rb"user-agent|content-length")),
        (http_protocol, "_PLAIN_HEAD", head(rb"user-agent", rb"user-agent|transfer-encoding")),
        (http_protocol, "_PLAIN_HEAD", head(rb"(GET|PUT) (/v1/kv/", rb"([A-Z]+) (/v1/kv/")),
        (http_protocol, "_PLAIN_HEAD", head(rb"$->@-~]*)(?:", rb"#$->@-~]*)(?:")),
        (HttpMeasures, "took", lambda measures, method, started_ns: None),
        (http_protocol, "_END", b"Connection: Keep-Alive\r\n\r\n"),
    ],
)
def test_a_short_way_that_differs_is_noticed(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, mutant: Any
) -> None:
    monkeypatch.setattr(http_two_ways, "DEADLINE_S", 2.0)
    with broken(monkeypatch, owner, name, mutant), pytest.raises((AssertionError, TimeoutError)):
        run(compare(range(400)))


def test_a_short_way_that_writes_on_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    with broken(monkeypatch, DirectProtocol, "_took", never_paused), pytest.raises(AssertionError):
        test_a_client_that_does_not_read_is_not_answered_without_end()


def test_a_connection_that_nobody_uses_is_closed_and_one_in_use_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "KEEP_ALIVE_SECONDS", 1)

    async def used_for_longer(server: HttpServer) -> bool:
        """False: this machine stood still for so long that nobody did use it."""
        loop = asyncio.get_running_loop()
        reader, writer = await asyncio.open_connection(*server.address)
        try:
            began = last = loop.time()
            while last < began + 1.5:
                asked = loop.time()
                writer.write(PLAIN[12])
                try:
                    await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), DEADLINE_S)
                except (asyncio.IncompleteReadError, ConnectionError):
                    assert loop.time() - last >= 1.0, "it was in use"
                    return False
                last = asked
                await asyncio.sleep(0.3)
            assert await asyncio.wait_for(reader.read(), DEADLINE_S) == b""
            assert loop.time() - last >= 1.0, "it was used less than a second ago"
            return True
        finally:
            writer.close()

    async def main() -> None:
        both = Both(1)
        try:
            for agent, server in zip(both.agents, both.servers, strict=True):
                agent.random = AtOnce()
                for _ in range(10):
                    if await used_for_longer(server):
                        break
                else:
                    raise AssertionError("this machine stands still again and again")
        finally:
            await both.close()

    run(main())
