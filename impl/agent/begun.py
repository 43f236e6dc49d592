"""The short way of a request: begun on the leader without a task, it is answered by a call.

What the core refuses late had no effect (the entry was overwritten, the read never confirmed), so it is asked again in
the long way, with its holds and retries (`requests`). It must not decide what a client is told: whoever began the
request does. What waits for anything but the driver (a lock, a change) is not begun here.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from impl.agent.api import Answered, Consistency, ReadOptions, ReadReply
from impl.agent.measures import RequestMeasures
from impl.agent.protocol import KvWrite
from impl.agent.serving import Serving
from impl.agent.session_ends import PLAIN
from impl.catalog.commands import Write
from impl.catalog.queries import Answer, Query
from impl.catalog.transitions import Result
from impl.raft.errors import Refused
from impl.runtime.interfaces import Runtime

V = TypeVar("V")


class _Begun(Generic[V]):
    """A `waiting.Pending`, but for the result."""

    __slots__ = ("_again", "_answered", "_measure", "_runtime")

    def __init__(
        self,
        runtime: Runtime,
        answered: Answered[V],
        again: Callable[[], Coroutine[Any, Any, V]],
        measure: Callable[[], None],
    ) -> None:
        """`again`: the request in the long way. `measure` is called when it succeeds without that."""
        self._measure = measure
        self._runtime = runtime
        self._answered = answered
        self._again = again

    def done(self) -> bool:
        """Whoever began it is told how it ended, whatever has become of its client."""
        return False

    def set_exception(self, exception: Exception) -> None:
        """It failed."""
        if isinstance(exception, Refused):
            self._runtime.tasks.spawn(self._once_more(), "request")
        else:
            self._answered(exception)

    async def _once_more(self) -> None:
        try:
            result = await self._again()
        except Exception as error:  # a defect, too, is for whoever asked: it must not end the agent with this task
            self._answered(error)
        else:
            self._answered(result)


class BegunWrite(_Begun[Result]):
    """A write."""

    __slots__ = ()

    def set_result(self, result: Result) -> None:
        """It was applied."""
        self._measure()
        self._answered(result)


class BegunRead(_Begun[ReadReply]):
    """A read; the driver's answer is the leader's."""

    __slots__ = ()

    def set_result(self, answer: Answer) -> None:
        """It was confirmed."""
        self._measure()
        self._answered(ReadReply(answer, known_leader=True, last_contact_ms=0))


class LongWay(Protocol):
    """Who is asked when the short way came to nothing: `Requests`."""

    async def serve_write(self, request: KvWrite) -> Result:
        """Carry out a write. Raises AgentError."""
        ...

    async def read(self, query: Query, options: ReadOptions) -> ReadReply:
        """As `Agent.read`."""
        ...


class ShortWay:
    """Begins what this server can do as the leader, at once."""

    def __init__(self, runtime: Runtime, here: Serving, long_way: LongWay, measures: RequestMeasures) -> None:
        self._runtime = runtime
        self._here = here
        self._write_again = long_way.serve_write
        self._read_again = long_way.read
        self._measures = measures

    def begin_write(self, command: Write, answered: Answered[Result]) -> bool:
        """As `Agent.write`, if this server leads; `answered` is told how it ended. False: not now, use that."""
        here = self._here
        driver = here.driver
        if driver is None or type(command) not in PLAIN or not here.may_begin(driver):
            return False
        now_ns = self._runtime.clock.monotonic_ns
        started_ns = now_ns()

        def measure() -> None:
            self._measures.written(command, now_ns() - started_ns)

        write = KvWrite(command, here.next_request(), forwarded=False)
        again = partial(self._write_again, write)
        driver.begin_write(command, write.request, BegunWrite(self._runtime, answered, again, measure))
        return True

    def begin_read(self, query: Query, consistency: Consistency, answered: Answered[ReadReply]) -> bool:
        """As `Agent.read`, likewise, of a query that does not wait for a change, and is not `stale`."""
        here = self._here
        driver = here.driver
        if driver is None or not here.may_begin(driver):
            return False
        again = partial(self._read_again, query, ReadOptions(consistency))
        try:
            driver.begin_read(query, consistency, BegunRead(self._runtime, answered, again, self._count_query))
        except Refused:
            return False
        return True

    def _count_query(self) -> None:
        self._measures.queries.total += 1
