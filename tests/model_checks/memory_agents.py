"""A cluster without processes: the real HTTP API and the real state stores over one log in memory.

A binding of the socket machine for tests of the machine and its judge. The first server leads; the others are behind by
as many entries as chance wants. Trouble is made by `drop`, called with each request: it says whether the request is
carried out, and whether it is answered.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from impl.agent.membership.reconcile import Sighting, due
from impl.agent.requests.api import Consistency, ReadOptions, ReadReply
from impl.agent.sessions.timers import LockDelays
from impl.catalog.commands import Command, KvAcquire, Noop, Transaction, Write
from impl.catalog.queries import Query, answer_query
from impl.catalog.rows import Session
from impl.catalog.store import Store
from impl.catalog.transactions import KvOperation, OperationError, Outcome
from impl.catalog.transitions import Result
from impl.http.app import Application
from impl.runtime.interfaces import new_uuid
from model_checks.catalog.http_answers import HttpReply
from model_checks.catalog.http_requests import HttpRequest
from model_checks.stateful.sockets.system import NoAnswer, Position
from tests.impl.asgi import ask

SERVERS, CLIENT = ("s1", "s2", "s3"), "c1"


class Fate(NamedTuple):
    """What becomes of a request: it is carried out now, later (`late`) or never, and answered or not."""

    carried_out: bool = True
    answered: bool = True
    late: bool = False


class _Blocked(BaseException):
    """A blocking query is not to be answered yet."""


class _Server:
    def __init__(self) -> None:
        self.delays = LockDelays()
        self.store = Store(lost=lambda key, delay_ns: self.delays.begin(key, delay_ns, time.monotonic_ns()))
        self.applied = 0

    def apply(self, log: list[Command], up_to: int) -> Result | None:
        result: Result | None = None
        while self.applied < up_to:
            self.applied += 1
            result = self.store.apply(log[self.applied - 1], self.applied)
        return result


class MemoryAgents:
    """The `SystemUnderTest`."""

    def __init__(self, seed: int = 0) -> None:
        self.servers, self.agents = SERVERS, (*SERVERS, CLIENT)
        self.random = Random(seed)
        self.log: list[Command] = [Noop()]
        self.at = {name: _Server() for name in SERVERS}
        self.leader = SERVERS[0]
        self.drop: Callable[[HttpRequest], Fate] = lambda request: Fate()
        self.late: list[tuple[str, HttpRequest]] = []
        self.asleep = False
        """Blocking queries never return."""
        seen = [Sighting(name, new_uuid(self.random), "10.0.0.1", True, 8300) for name in SERVERS]
        for command in due(
            self.at["s1"].store.tables,
            [*seen, Sighting(CLIENT, new_uuid(self.random), "10.0.0.2", True)],
            SERVERS,
            "dc1",
        ):
            self.append(command)

    def append(self, command: Command) -> Result:
        """An entry of the log, applied by the leader at once."""
        self.log.append(command)
        result = self.at[self.leader].apply(self.log, len(self.log))
        assert result is not None
        return result

    def send(self, agent: str, request: HttpRequest, timeout_s: float) -> HttpReply:
        fate = self.drop(request)
        if fate.late:
            self.late.append((agent, request))
        reply = self._answer(agent, request) if fate.carried_out and not fate.late else None
        if reply is None or not fate.answered:
            raise NoAnswer("connection lost", sent=True)
        return reply

    def _answer(self, agent: str, request: HttpRequest) -> HttpReply | None:
        for server in SERVERS:
            if server != self.leader:
                self.at[server].apply(self.log, self.random.randint(self.at[server].applied, len(self.log)))
        speaker: Any = _Agent(self, agent)
        failures: list[str] = []
        app = Application(speaker, "dc1", 4096, lambda what, error: failures.append(f"{what}: {error!r}"), agent)
        try:
            status, headers, body, _ = ask(app, request.method, request.target, [request.body])
        except _Blocked:
            return None
        assert not failures, failures
        return HttpReply(status, {name.lower(): value for name, value in headers.items()}, body)

    def begin(self, agent: str, request: HttpRequest) -> _Call:
        return _Call(self, agent, request)

    def position(self) -> Position:
        if self.late and self.random.random() < 0.3:
            self._answer(*self.late.pop())
        return Position(self.leader, self.at[self.leader].applied)

    def applied(self, server: str) -> int:
        self.at[server].apply(self.log, self.random.randint(self.at[server].applied, len(self.log)))
        return self.at[server].applied


class _Call:
    def __init__(self, agents: MemoryAgents, agent: str, request: HttpRequest) -> None:
        self._agents, self._agent, self._request = agents, agent, request

    def wait(self, timeout_s: float) -> HttpReply | None:
        deadline = time.monotonic() + timeout_s
        while True:
            reply = None if self._agents.asleep else self._agents._answer(self._agent, self._request)
            if reply is not None or time.monotonic() > deadline:
                return reply

    def close(self) -> None:
        pass


class _Agent:
    def __init__(self, agents: MemoryAgents, name: str) -> None:
        self._agents = agents
        self._name = name

    async def write(self, command: Write) -> Result:
        agents, now = self._agents, time.monotonic_ns()
        delays = agents.at[agents.leader].delays
        match command:
            case KvAcquire(key) if delays.remaining_ns(key, now):
                return False
            case Transaction(operations):
                errors = [
                    OperationError(position, f'failed to lock key "{each.key}" due to lock delay')
                    for position, each in enumerate(operations)
                    if isinstance(each, KvOperation) and each.verb == "lock" and delays.remaining_ns(each.key, now)
                ]
                if errors:
                    return Outcome([], errors)
        return agents.append(command)

    async def read(self, query: Query, options: ReadOptions) -> ReadReply:
        agents, stale = self._agents, options.consistency is Consistency.STALE
        server = agents.leader
        if stale:
            server = self._name if self._name in SERVERS else agents.random.choice(SERVERS)
        deadline = time.monotonic() + options.wait
        while True:
            answer = answer_query(agents.at[server].store, query)
            if answer.index > options.min_index or not options.min_index or time.monotonic() > deadline:
                return ReadReply(answer, True, 0)
            if options.wait > 1:
                raise _Blocked

    async def renew_session(self, session_id: str) -> Session | None:
        return self._agents.at[self._agents.leader].store.tables.sessions.get(session_id)

    def new_id(self) -> str:
        return new_uuid(self._agents.random)
