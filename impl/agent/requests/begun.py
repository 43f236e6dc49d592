"""The short way of a request: begun on the leader without a task, it is answered by a call.

What the core refuses late had no effect (the entry was overwritten, the read never confirmed), so it is asked again in
the long way, with its holds and retries (`routing`). It must not decide what a client is told: whoever began the
request does. What waits for anything but the driver (a lock, a change) is not begun here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, Protocol, TypeVar

from impl.agent.measures import RequestMeasures
from impl.agent.requests.api import Answered, Consistency, ReadOptions, ReadReply
from impl.agent.requests.protocol import KvWrite
from impl.agent.requests.serving import Serving
from impl.agent.sessions.ends import PLAIN
from impl.catalog.commands import Write
from impl.catalog.queries import Answer, Query
from impl.catalog.transitions import Result
from impl.raft.errors import Refused
from impl.runtime.interfaces import Runtime

V = TypeVar("V")


class LongWay(Protocol):
    """Who is asked when the short way came to nothing: `Requests`."""

    async def serve_write(self, request: KvWrite) -> Result:
        """Carry out a write. Raises AgentError."""
        ...

    async def read(self, query: Query, options: ReadOptions) -> ReadReply:
        """As `Agent.read`."""
        ...


class _Begun(ABC, Generic[V]):
    """A `waiting.Pending`, but for the result."""

    __slots__ = ("_answered", "_way")

    _way: ShortWay
    _answered: Answered[V]

    def done(self) -> bool:
        """Whoever began it is told how it ended, whatever has become of its client."""
        return False

    def set_exception(self, exception: Exception) -> None:
        """It failed."""
        if isinstance(exception, Refused):
            self._way.runtime.tasks.spawn(self._once_more(), "request")
        else:
            self._answered(exception)

    async def _once_more(self) -> None:
        try:
            result = await self._again()
        except Exception as error:  # a defect, too, is for whoever asked: it must not end the agent with this task
            self._answered(error)
        else:
            self._answered(result)

    @abstractmethod
    async def _again(self) -> V:
        """The request in the long way."""


class BegunWrite(_Begun[Result]):
    """A write."""

    __slots__ = ("_command", "_request", "_started_ns")

    def __init__(self, way: ShortWay, answered: Answered[Result], command: Write, request: str) -> None:
        self._way = way
        self._answered = answered
        self._command = command
        self._request = request
        self._started_ns = way.now_ns()

    def set_result(self, result: Result) -> None:
        """It was applied."""
        way = self._way
        way.measures.written(self._command, way.now_ns() - self._started_ns)
        self._answered(result)

    async def _again(self) -> Result:
        return await self._way.long_way.serve_write(KvWrite(self._command, self._request, forwarded=False))


class BegunRead(_Begun[ReadReply]):
    """A read; the driver's answer is the leader's."""

    __slots__ = ("_consistency", "_query")

    def __init__(self, way: ShortWay, answered: Answered[ReadReply], query: Query, consistency: Consistency) -> None:
        self._way = way
        self._answered = answered
        self._query = query
        self._consistency = consistency

    def set_result(self, answer: Answer) -> None:
        """It was confirmed."""
        self._way.measures.queries.total += 1
        self._answered(ReadReply(answer, known_leader=True, last_contact_ms=0))

    async def _again(self) -> ReadReply:
        return await self._way.long_way.read(self._query, ReadOptions(self._consistency))


class ShortWay:
    """Begins what this server can do as the leader, at once."""

    def __init__(self, runtime: Runtime, here: Serving, long_way: LongWay, measures: RequestMeasures) -> None:
        self.runtime = runtime
        self.now_ns = runtime.clock.monotonic_ns
        self.long_way = long_way
        self.measures = measures
        self._here = here

    def begin_write(self, command: Write, answered: Answered[Result]) -> bool:
        """As `Agent.write`, if this server leads; `answered` is told how it ended. False: not now, use that."""
        here = self._here
        driver = here.driver
        if driver is None or type(command) not in PLAIN or not here.may_begin(driver):
            return False
        request = here.next_request()
        driver.begin_write(command, request, BegunWrite(self, answered, command, request))
        return True

    def begin_read(self, query: Query, consistency: Consistency, answered: Answered[ReadReply]) -> bool:
        """As `Agent.read`, likewise, of a query that does not wait for a change, and is not `stale`."""
        here = self._here
        driver = here.driver
        if driver is None or not here.may_begin(driver):
            return False
        try:
            driver.begin_read(query, consistency, BegunRead(self, answered, query, consistency))
        except Refused:
            return False
        return True
