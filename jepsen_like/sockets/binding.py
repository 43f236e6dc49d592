"""A cluster of processes as the machine's `SystemUnderTest`: HTTP from a test client's namespace, through the switch.

The machine runs in its own thread and waits for answers; the cluster lives on an event loop in another. One connection
to each agent for requests, and one for each blocking query.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from typing import Any, TypeVar

import msgspec

from jepsen_like.client.http import HttpConnection, RequestFailed, Response
from jepsen_like.cluster.api import Cluster, ClusterSpec
from model_checks.catalog.http_answers import HttpReply
from model_checks.catalog.http_requests import HttpRequest
from model_checks.stateful.sockets.system import NoAnswer, Position

T = TypeVar("T")

CLIENT = "t1"
CONNECT_TIMEOUT_S = 5.0
LEADER_TIMEOUT_S = 30.0
SELF = HttpRequest("GET", "/v1/agent/self")
SELF_TIMEOUT_S = 5.0
BLOCKED_TIMEOUT_S = 300.0
"""Longer than any blocking query waits."""


class Raft(msgspec.Struct, frozen=True):
    """What a server says of itself."""

    leads: bool
    lease_held: bool
    term: int
    applied: int


class _Stats(msgspec.Struct):
    raft: dict[str, str]


class _Self(msgspec.Struct):
    Stats: _Stats


class ClusterAgents:
    """A running cluster."""

    def __init__(self, cluster: Cluster, loop: asyncio.AbstractEventLoop) -> None:
        """`loop` runs in another thread."""
        self._cluster = cluster
        self._loop = loop
        self._connections = {agent: self._connection(agent) for agent in cluster.agents}
        self._leader = cluster.servers[0]

    @property
    def servers(self) -> tuple[str, ...]:
        """As `SystemUnderTest.servers`."""
        return self._cluster.servers

    @property
    def agents(self) -> tuple[str, ...]:
        """As `SystemUnderTest.agents`."""
        return self._cluster.agents

    def send(self, agent: str, request: HttpRequest, timeout_s: float) -> HttpReply:
        """As `SystemUnderTest.send`."""
        return self._wait_for(_asked(self._connections[agent], request, timeout_s))

    def begin(self, agent: str, request: HttpRequest) -> BlockedCall:
        """As `SystemUnderTest.begin`."""
        connection = self._connection(agent)
        asking = asyncio.run_coroutine_threadsafe(_asked(connection, request, BLOCKED_TIMEOUT_S), self._loop)
        return BlockedCall(asking, lambda: self._loop.call_soon_threadsafe(connection.close))

    def position(self) -> Position:
        """As `SystemUnderTest.position`. A leader that holds its lease is believed; else all servers are asked."""
        said = self._raft(self._leader)
        if not (said.leads and said.lease_held):
            self._leader, said = self._newest_leader()
        return Position(self._leader, said.applied)

    def _newest_leader(self) -> tuple[str, Raft]:
        """The leader of the highest term: one that was paused may say that it leads although another does.

        What it has applied is the most that any server has. Raises NoAnswer.
        """
        found: dict[str, Raft] = {}
        for server in self.servers:
            with contextlib.suppress(NoAnswer):
                found[server] = self._raft(server)
        leaders = [server for server, said in found.items() if said.leads]
        if not leaders:
            raise NoAnswer("no server says that it leads", sent=True)
        newest = max(leaders, key=lambda server: found[server].term)
        applied = max(said.applied for said in found.values())
        return newest, msgspec.structs.replace(found[newest], applied=applied)

    def applied(self, server: str) -> int:
        """As `SystemUnderTest.applied`."""
        return self._raft(server).applied

    def close(self) -> None:
        """Drop all connections."""
        for connection in self._connections.values():
            self._loop.call_soon_threadsafe(connection.close)

    def unexpected_exits(self) -> list[str]:
        """The agents that ended although nobody asked them to, with their exit statuses."""
        exits = self._wait_for(self._cluster.unexpected_exits())
        return [f"{each.node} (status {each.status})" for each in exits]

    def _raft(self, server: str) -> Raft:
        reply = self.send(server, SELF, SELF_TIMEOUT_S)
        try:
            said = msgspec.json.decode(reply.body, type=_Self).Stats.raft
            applied, term = int(said["applied_index"]), int(said["term"])
        except (msgspec.MsgspecError, KeyError, ValueError) as error:
            raise NoAnswer(f"{server}: /v1/agent/self: status {reply.status}: {error}", sent=True) from error
        return Raft(said.get("state") == "Leader", said.get("lease_held") == "true", term, applied)

    def _connection(self, agent: str) -> HttpConnection:
        return HttpConnection(lambda: self._cluster.connect(CLIENT, agent, timeout_s=CONNECT_TIMEOUT_S), agent)

    def _wait_for(self, asking: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(asking, self._loop).result()


class BlockedCall:
    """A blocking query that is under way."""

    def __init__(self, asking: Future[HttpReply], close: Callable[[], object]) -> None:
        self._asking = asking
        self._close = close

    def wait(self, timeout_s: float) -> HttpReply | None:
        """As `Call.wait`."""
        try:
            return self._asking.result(timeout_s)
        except NotYet:
            return None

    def close(self) -> None:
        """As `Call.close`."""
        self._asking.cancel()
        self._close()


async def _asked(connection: HttpConnection, request: HttpRequest, timeout_s: float) -> HttpReply:
    try:
        response: Response = await connection.request(request.method, request.target, request.body, timeout_s)
    except RequestFailed as failure:
        raise NoAnswer(str(failure), sent=failure.sent) from failure
    return HttpReply(response.status, response.headers, response.body)


@contextlib.contextmanager
def agents_of(spec: ClusterSpec) -> Iterator[ClusterAgents]:
    """Start a cluster, and end it with the block. Raises SetupFailed, ClusterFailure."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="cluster", daemon=True)
    thread.start()

    def run(coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    async def entered() -> Cluster:
        cluster = await starting.__aenter__()
        try:
            await cluster.wait_for_leader(LEADER_TIMEOUT_S)
            await cluster.wait_for_answers(LEADER_TIMEOUT_S)
        except BaseException:
            await starting.__aexit__(None, None, None)
            raise
        return cluster

    starting = Cluster.start(spec)
    try:
        agents = ClusterAgents(run(entered()), loop)
        try:
            yield agents
        finally:
            agents.close()
            run(_left(starting))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _left(starting: contextlib.AbstractAsyncContextManager[Cluster]) -> None:
    await starting.__aexit__(None, None, None)
