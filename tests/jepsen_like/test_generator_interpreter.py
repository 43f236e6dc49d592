"""The interpreter: what it records, in which order, under which process numbers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from jepsen_like.generator.combinators import Each, Limit, Stagger
from jepsen_like.generator.interpreter import Interpreter
from jepsen_like.generator.values import Completion, Draws, Ending, Generator, Invocation, Thread
from model_checks.histories.events import Event, EventType, parse, render
from model_checks.histories.operations import pair


class Scripted:
    """A worker that ends as it is told, after a few turns of the loop."""

    def __init__(self, ending: Callable[[Invocation], Ending], turns: int = 1) -> None:
        self.ending = ending
        self.turns = turns

    async def invoke(self, invocation: Invocation) -> Completion:
        for _ in range(self.turns):
            await asyncio.sleep(0)
        return Completion(self.ending(invocation), invocation.value)


def run(generator: Generator, workers: dict[Thread, Scripted]) -> list[Event]:
    events: list[Event] = []
    interpreter = Interpreter(workers, events.append)
    asyncio.run(interpreter.run(generator))
    return events


def always(ending: Ending) -> Callable[[Invocation], Ending]:
    return lambda invocation: ending


def writes(count: int, thread: Thread | None = None) -> Each:
    return Each(tuple(Invocation("write", key=0, value=number, thread=thread) for number in range(count)))


def test_every_invocation_is_recorded_before_its_completion_with_growing_indexes_and_times() -> None:
    events = run(writes(50), {0: Scripted(always(Ending.OK)), 1: Scripted(always(Ending.OK), 3)})
    assert [event.index for event in events] == list(range(100))
    assert [event.time for event in events] == sorted(event.time for event in events)
    operations = pair(parse(render(events)))
    assert sorted(operation.argument for operation in operations) == list(range(50))


def test_a_client_that_gets_info_goes_on_under_a_new_process_number() -> None:
    workers: dict[Thread, Scripted] = {thread: Scripted(always(Ending.INFO)) for thread in (0, 1, 2)}
    events = run(writes(3, thread=1), workers | {"partition": Scripted(always(Ending.OK))})
    assert [(event.process, event.type) for event in events] == [
        (process, kind) for process in (1, 4, 7) for kind in (EventType.INVOKE, EventType.INFO)
    ], "as many further as there are clients"


def test_a_client_that_gets_fail_keeps_its_process_number() -> None:
    events = run(writes(3, thread=1), {thread: Scripted(always(Ending.FAIL)) for thread in (0, 1, 2)})
    assert [event.process for event in events if event.type is EventType.INVOKE] == [1, 1, 1]


def test_a_nemesis_is_recorded_as_such_and_only_with_info() -> None:
    events = run(Each((Invocation("cut", thread="partition"),)), {"partition": Scripted(always(Ending.OK))})
    assert [(event.process, event.type) for event in events] == [("nemesis", EventType.INFO)] * 2


def test_completions_are_taken_before_new_invocations() -> None:
    """Both clients have answered when the loop looks again: both completions stand before the third invocation."""
    release = asyncio.Event()
    ended: list[object] = []

    class Gate:
        async def invoke(self, invocation: Invocation) -> Completion:
            if invocation.value == 1:
                release.set()
            await release.wait()
            ended.append(invocation.value)
            return Completion(Ending.OK, invocation.value)

    events: list[Event] = []
    interpreter = Interpreter({0: Gate(), 1: Gate()}, events.append)
    asyncio.run(interpreter.run(writes(4)))
    assert [event.type for event in events[:5]].count(EventType.INVOKE) == 3
    assert [event.type for event in events[2:4]] == [EventType.OK, EventType.OK]
    assert [event.value for event in events[2:4]] == ended[:2], "in the order in which they came"


def test_when_the_test_is_cancelled_open_operations_become_info() -> None:
    class Never:
        async def invoke(self, invocation: Invocation) -> Completion:
            await asyncio.Event().wait()
            raise AssertionError("unreachable")

    events: list[Event] = []

    async def scenario() -> None:
        started = asyncio.Event()

        def record(event: Event) -> None:
            events.append(event)
            started.set()

        task = asyncio.ensure_future(Interpreter({0: Never()}, record).run(writes(1)))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    assert [(event.type, event.value) for event in events] == [(EventType.INVOKE, 0), (EventType.INFO, 0)]


def test_a_worker_that_raises_ends_the_test_loudly() -> None:
    class Broken:
        async def invoke(self, invocation: Invocation) -> Completion:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(Interpreter({0: Broken()}, lambda event: None).run(writes(1)))


def test_staggered_invocations_are_not_made_before_their_time() -> None:
    generator = Limit(20, Stagger(2_000_000, writes(1_000), Draws(1)))
    events = run(generator, {0: Scripted(always(Ending.OK))})
    invoked = [event.time for event in events if event.type is EventType.INVOKE]
    planned_ns = 0
    draws = Draws(1)
    for number, time_ns in enumerate(invoked):
        assert time_ns - invoked[0] >= planned_ns - 1_000_000, number
        pause_ns, draws = draws.below(4_000_000)
        planned_ns += pause_ns
