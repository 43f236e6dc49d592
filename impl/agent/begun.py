"""Requests that were begun on the leader without a task: where the driver's answer goes, and what follows a refusal.

What the core refuses late had no effect (the entry was overwritten, the read never confirmed), so it is asked again in
the long way, with its holds and retries (`forwarding`). It must not decide what a client is told: whoever began the
request does.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from impl.agent.api import Answered, ReadReply
from impl.catalog.queries import Answer
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
