"""The interpreter: asks the generator, gives work to workers, tells the generator what completed. It owns loop and
clock.

Completions are taken before new invocations are asked for (jepsen.generator.interpreter): what has completed is
recorded as early as possible, so that no operation looks longer, and more concurrent, than it was. A process that
gets info is over; its thread goes on under a new process number.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol

from jepsen_like.generator.combinators import Nothing
from jepsen_like.generator.values import (
    Completed,
    Completion,
    Context,
    Ending,
    Generator,
    Invocation,
    Pending,
    Thread,
)
from model_checks.histories.events import NEMESIS, Event, EventType

POLL_S = 0.005
"""How long to wait at most before a generator that was pending is asked again."""
LATE_NS = 200_000
"""An invocation this close to its time is made at once: timers are no finer."""

_TYPES = {Ending.OK: EventType.OK, Ending.FAIL: EventType.FAIL, Ending.INFO: EventType.INFO}


class Worker(Protocol):
    """Does what a thread is told. What it raises ends the test: a worker turns failures of the system into
    completions.
    """

    async def invoke(self, invocation: Invocation) -> Completion:
        """Do it, and say how it ended."""


class Interpreter:
    """Threads that carry out one generator after the other. `record` gets every event, with its time, in order."""

    def __init__(
        self,
        workers: Mapping[Thread, Worker],
        record: Callable[[Event], None],
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._generator: Generator = Nothing()
        self._workers = workers
        self._record = record
        self._now_ns = now_ns
        self._started_ns = now_ns()
        self._clients = sum(1 for thread in workers if isinstance(thread, int))
        self._processes = {thread: thread for thread in workers if isinstance(thread, int)}
        self._threads = tuple(sorted(workers, key=lambda thread: (isinstance(thread, str), thread)))
        self._busy: dict[Thread, tuple[Invocation, asyncio.Task[Completion]]] = {}
        self._finished: deque[Thread] = deque()
        self._wake = asyncio.Event()
        self._index = 0

    @property
    def now_ns(self) -> int:
        """Nanoseconds since this interpreter was made: the time that generators see."""
        return self._now_ns() - self._started_ns

    async def run(self, generator: Generator) -> None:
        """Until `generator` is exhausted and everything has completed. If cancelled, open invocations become info."""
        self._generator = generator
        try:
            while await self._step():
                pass
        finally:
            await self._abandon()

    def _context(self) -> Context:
        free = tuple(itertools.filterfalse(self._busy.__contains__, self._threads))
        return Context(self.now_ns, self._threads, free)

    async def _step(self) -> bool:
        """Take what has completed, else make one invocation or wait; False when all is over."""
        if self._finished:
            self._complete(self._finished.popleft())
            return True
        context = self._context()
        answer = self._generator.ask(context)
        if answer is None:
            if not self._busy:
                return False
            await self._wait(None)
            return True
        if isinstance(answer, Pending):
            await self._wait(POLL_S)
            return True
        assert answer.invocation.at_ns is not None
        early_ns = answer.invocation.at_ns - context.now_ns
        if early_ns > LATE_NS:
            await self._wait(early_ns / 1e9)
            return True
        self._generator = answer.after
        self._dispatch(answer.invocation)
        await asyncio.sleep(0)  # let sockets be read between two invocations, however late we are
        return True

    async def _wait(self, timeout_s: float | None) -> None:
        self._wake.clear()  # nothing has finished: that was looked at since anything else could run
        try:
            async with asyncio.timeout(timeout_s):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _emit(self, kind: EventType, invocation: Invocation, value: object, error: str | None) -> None:
        thread = invocation.thread
        assert thread is not None
        process = self._processes[thread] if isinstance(thread, int) else NEMESIS
        self._record(
            Event(
                process=process,
                type=EventType.INFO if process == NEMESIS else kind,
                f=invocation.f,
                index=self._index,
                time=self._now_ns(),
                key=invocation.key,
                value=value,
                error=error,
            )
        )
        self._index += 1

    def _dispatch(self, invocation: Invocation) -> None:
        thread = invocation.thread
        assert thread is not None
        self._emit(EventType.INVOKE, invocation, invocation.value, None)
        task = asyncio.ensure_future(self._workers[thread].invoke(invocation))
        self._busy[thread] = (invocation, task)

        def done(_: asyncio.Task[Completion]) -> None:
            self._finished.append(thread)
            self._wake.set()

        task.add_done_callback(done)

    def _complete(self, thread: Thread) -> None:
        invocation, task = self._busy.pop(thread)
        completion = task.result()
        self._emit(_TYPES[completion.ending], invocation, completion.value, completion.error)
        if completion.ending is Ending.INFO and isinstance(thread, int):
            self._processes[thread] += self._clients
        self._generator = self._generator.update(self._context(), Completed(invocation, completion))

    async def _abandon(self) -> None:
        """Cancel what is still open and record it as info: it may or may not have happened."""
        open_invocations = [(invocation, task) for invocation, task in self._busy.values()]
        for _, task in open_invocations:
            task.cancel()
        await asyncio.gather(*(task for _, task in open_invocations), return_exceptions=True)
        for invocation, _ in open_invocations:
            self._emit(EventType.INFO, invocation, invocation.value, "the test ended")
        self._busy.clear()
