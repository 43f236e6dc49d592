"""Two HTTP servers over equal agents, one with the short way of requests and one without, asked the same bytes."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from impl.agent.requests.api import AgentError, Answered, Consistency, IndefiniteError, ReadOptions, ReadReply
from impl.catalog.commands import KvSet, Write
from impl.catalog.queries import Query, answer_query
from impl.catalog.store import Store
from impl.catalog.transitions import Result
from impl.http.app import Application
from impl.http.direct import DirectKv
from impl.http.measures import HttpMeasures
from impl.runtime.http_server import HttpServer
from impl.telemetry.instruments import Telemetry

LIMIT = 100_000
"""Of a value: above what uvicorn buffers before it stops reading (64 KiB)."""
DEADLINE_S = 10.0


class Memory:
    """An agent that is a state store; keys that begin with `lost` are never known to be written.

    What is begun ends at once, later, or is left to the long way, as `random` has it.
    """

    def __init__(self, random: random.Random) -> None:
        self.store = Store()
        self.index = 0
        self.begun = self.reads = 0
        self.random = random

    async def write(self, command: Write) -> Result:
        await asyncio.sleep(0)
        result = self._apply(command)
        if isinstance(result, AgentError):
            raise result
        return result

    async def read(self, query: Query, options: ReadOptions) -> ReadReply:
        await asyncio.sleep(0)
        self.reads += 1
        return ReadReply(answer_query(self.store, query), True, 0)

    async def status_leader(self) -> str:
        return "127.0.0.1:8300"

    def begin_write(self, command: Write, answered: Answered[Result]) -> bool:
        return self._begin(lambda: answered(self._apply(command)))

    def begin_read(self, query: Query, consistency: Consistency, answered: Answered[ReadReply]) -> bool:
        self.reads += 1
        return self._begin(lambda: answered(ReadReply(answer_query(self.store, query), True, 0)))

    def _begin(self, end: Callable[[], None]) -> bool:
        match self.random.randrange(4):
            case 0:
                return False
            case 1:
                asyncio.get_running_loop().call_soon(end)
            case 2:
                asyncio.get_running_loop().call_later(0.001, end)
            case _:
                end()
        self.begun += 1
        return True

    def _apply(self, command: Write) -> Result | AgentError:
        if isinstance(command, KvSet) and command.key.startswith("lost"):
            return IndefiniteError("rpc error: leadership lost while committing log")
        self.index += 1
        return self.store.apply(command, self.index)


def request(method: str, target: str, body: bytes = b"", *lines: str, version: str = "1.1") -> bytes:
    length = (f"Content-Length: {len(body)}",) if body or method == "PUT" else ()
    head = "\r\n".join((f"{method} {target} HTTP/{version}", "Host: test", *length, *lines, "", ""))
    return head.encode("latin-1") + body


def chunked(target: str, *chunks: bytes, trailer: str = "") -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n" + trailer.encode() + b"\r\n"
    return f"PUT {target} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + body


PLAIN = [
    request("PUT", "/v1/kv/a", b"1"),
    request("PUT", "/v1/kv/b?flags=7", b"\x00\xff<>&"),
    request("PUT", "/v1/kv/a?cas=1", b"2"),
    request("PUT", "/v1/kv/dir/%61%20%C3%A9+", b"x" * 300),
    request("PUT", "/v1/kv/empty"),
    request("PUT", "/v1/kv/lost", b"1"),
    request("PUT", "/v1/kv/long", b"y" * 60_000, "X-Other: 1", "connection: keep-alive"),
    request("GET", "/v1/kv/a"),
    request("GET", "/v1/kv/a?consistent"),
    request("GET", "/v1/kv/b?raw"),
    request("GET", "/v1/kv/b?pretty&raw="),
    request("GET", "/v1/kv/dir/a%20%c3%a9+?pretty"),
    request("GET", "/v1/kv/none"),
    request("GET", "/v1/kv/long?raw&consistent", b"", "Accept: */*"),
]
OTHER = [
    request("GET", "/v1/kv/?recurse"),
    request("GET", "/v1/kv/dir?keys&separator=/"),
    request("PUT", "/v1/kv/a?acquire=no-session", b"1"),
    request("PUT", "/v1/kv/a?pretty", b"1"),
    request("GET", "/v1/kv/a?ns=other"),
    request("GET", "/v1/kv/a", b"", "X-Consul-Namespace: other"),
    request("PUT", "/v1/kv/a", b"1", "x-consul-partition: other"),
    request("GET", "/v1/kv/a?stale"),
    request("GET", "/v1/kv/a?index=0&wait=1s"),
    request("GET", "/v1/kv/a?stale&consistent"),
    request("GET", "/v1/kv/a?dc=dc1"),
    request("GET", "/v1/kv/a?dc=elsewhere"),
    request("GET", "/v1/kv/"),
    request("GET", "/v1/kv/%ff"),
    request("GET", "/v1/kv/a?index=x"),
    request("GET", "/v1/kv/a#b"),
    request("GET", "//v1/kv/a"),
    request("GET", "http://test/v1/kv/a"),
    request("GET", "/v1/kv/a", b"a body that nobody reads"),
    request("GET", "/v1/status/leader"),
    request("HEAD", "/v1/kv/a"),
    request("OPTIONS", "/v1/kv/a"),
    request("POST", "/v1/kv/a", b"1"),
    request("DELETE", "/v1/kv/a"),
    request("DELETE", "/v1/kv/?recurse"),
    request("PUT", "/v1/kv/"),
    request("PUT", "/v1/kv/a?flags=-1", b"1"),
    request("PUT", "/v1/kv/a?cas=1&release=s", b"1"),
    request("PUT", "/v1/kv/a", b"expected", "Expect: 100-continue"),
    request("PUT", "/v1/kv/big", b"z" * 70_000),
    request("PUT", "/v1/kv/a", b"z" * (LIMIT + 1)),
    chunked("/v1/kv/chunked", b"12", b"345"),
    chunked("/v1/kv/chunked", b"z" * (LIMIT + 1), b"z"),
    chunked("/v1/kv/trailed", b"1", trailer="Expires: never\r\n"),
    b"PUT /v1/kv/unsized HTTP/1.1\r\nHost: test\r\n\r\n",
]
CLOSING = [
    request("GET", "/v1/kv/a", b"", "Connection: close"),
    request("PUT", "/v1/kv/a", b"closing", "Connection: close"),
    request("GET", "/v1/kv/a", version="1.0"),
    request("PUT", "/v1/kv/a", b"old", "Connection: keep-alive", version="1.0"),
]
"""After these the server closes the connection."""
MALFORMED = [
    b"no request at all\r\n\r\n",
    b"GET /v1/kv/\xff HTTP/1.1\r\nHost: test\r\n\r\n",
    b"GET /v1/kv/a b HTTP/1.1\r\nHost: test\r\n\r\n",
    b"PUT /v1/kv/a HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n12",
    b"PUT /v1/kv/a HTTP/1.1\r\nContent-Length: +1\r\n\r\n1",
    b"PUT /v1/kv/a HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET /v1/kv/a HTTP/1.1\r\nno colon\r\n\r\n",
]
"""After these, too, but at once: what is still under way before them is lost, by either way."""


def new_measures() -> HttpMeasures:
    clock: Any = SimpleNamespace(monotonic_ns=time.monotonic_ns, wall_ns=time.time_ns)
    return HttpMeasures(Telemetry(clock), clock)


class Both:
    """A server with the short way, and one without."""

    def __init__(self, seed: int) -> None:
        self.agents = [Memory(random.Random(seed)) for _ in range(2)]
        self.unexpected: list[object] = []
        self.servers: list[HttpServer] = []
        self.measures: list[HttpMeasures] = []

        def unexpected(what: str, error: Exception) -> None:
            self.unexpected.append((what, repr(error)))

        for number, agent in enumerate(self.agents):
            served: Any = agent
            measures = new_measures()
            self.measures.append(measures)
            app = Application(served, "dc1", LIMIT, unexpected, "", None, measures=measures)
            direct = DirectKv(agent, LIMIT, unexpected, measures) if number == 0 else None
            self.servers.append(HttpServer.listen(("127.0.0.1", 0), app, direct))

    def measured(self, number: int) -> list[int]:
        """How many GETs and PUTs of keys each server has measured."""
        return [self.measures[number]._kv[method].fold().count for method in ("GET", "PUT")]

    async def close(self) -> None:
        for server in self.servers:
            await server.close()

    async def exchange(self, pieces: list[bytes], in_turn: Sequence[list[bytes]] = ()) -> list[bytes]:
        """What each of them answers until it closes, without the dates.

        Before `pieces` come the requests `in_turn`, in pieces, too, each when the one before it is answered.
        """
        answers = []
        for server in self.servers:
            reader, writer = await asyncio.open_connection(*server.address)
            try:
                answer = b""
                for each in in_turn:
                    await self._send(writer, each)
                    answer += await asyncio.wait_for(one_answer(reader), DEADLINE_S)
                    if b"connection: close\r\n" in answer.lower():
                        break
                else:
                    await self._send(writer, pieces)
                answer += await asyncio.wait_for(reader.read(), DEADLINE_S)
            except (ConnectionResetError, BrokenPipeError):
                answer = b"reset"
            finally:
                writer.close()
            answers.append(re.sub(rb"date: [^\r]*\r\n", b"", answer))
        return answers

    async def _send(self, writer: asyncio.StreamWriter, pieces: list[bytes]) -> None:
        for piece in pieces:
            if writer.transport.is_closing():
                return  # what it answered before is still to be read
            writer.write(piece)
            await asyncio.sleep(0)


async def one_answer(reader: asyncio.StreamReader) -> bytes:
    """The next answer, which has a body of announced length; with what comes before it (100 Continue)."""
    head = await reader.readuntil(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 100 "):
        return head + await one_answer(reader)
    length = re.search(rb"content-length: ([0-9]+)", head)
    return head + (await reader.readexactly(int(length[1])) if length is not None else b"")
