"""Histories of registrations, health answers and watchers: good ones are VALID, each broken promise is INVALID under
its name.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from model_checks.histories import registry
from model_checks.histories.check import check_history
from model_checks.histories.circumstances import ALONE, Circumstances
from model_checks.histories.events import Event, EventType, parse, render
from model_checks.histories.register import Model, UnknownOperation
from model_checks.verdicts import CheckResult, Verdict

SECOND = 1_000_000_000
CALM = Circumstances(calm=(((0, 1_000 * SECOND),),))
"""One agent, which nothing disturbs."""


def operation(
    process: int,
    f: str,
    key: str,
    argument: Any,
    answer: Any,
    at: tuple[float, float],
    ending: EventType = EventType.OK,
) -> list[Event]:
    call_ns, ret_ns = (round(second * SECOND) for second in at)
    value = answer if ending is EventType.OK else argument
    return [
        Event(process, EventType.INVOKE, f, time=call_ns, key=key, value=argument),
        Event(process, ending, f, time=ret_ns, key=key, value=value),
    ]


def judge(*operations: list[Event], circumstances: Circumstances = ALONE) -> CheckResult:
    events = sorted((event for each in operations for event in each), key=lambda event: event.time)
    return check_history(parse(render(events)), Model.REGISTRY, circumstances=circumstances).result


def register(
    number: int, version: int, at: float, status: str = "passing", ending: EventType = EventType.OK
) -> list[Event]:
    state = {"version": version, "status": status}
    return operation(1, "register", f"web/{number}", state, state, (at, at + 0.01), ending)


def deregister(number: int, at: float, ending: EventType = EventType.OK) -> list[Event]:
    return operation(2, "deregister", f"web/{number}", None, None, (at, at + 0.01), ending)


def shown(index: int, **states: Any) -> dict[str, Any]:
    """An answer: `_0=(version, status)` is instance web/0."""
    return {"index": index, "instances": {f"web/{name[1:]}": list(state) for name, state in states.items()}}


def read(answer: Any, at: float, mode: str = "consistent", passing: bool = False, process: int = 3) -> list[Event]:
    return operation(process, "read", "web", {"mode": mode, "passing": passing}, answer, (at, at + 0.01))


def watch(answer: Any, given: int, at: float, until: float, mode: str = "default") -> list[Event]:
    """A blocking query with `wait=4s`."""
    answer = {**answer, "given": given, "wait_ms": 4_000}
    return operation(4, "watch", "web", {"mode": mode, "passing": False}, answer, (at, until))


UP, DOWN = (1, "passing"), (2, "critical")
GOOD = (
    read(shown(3), 0.5),
    register(0, 1, 1.0),
    read(shown(7, _0=UP), 2.0),
    watch(shown(7, _0=UP), 3, 0.6, 1.1),
    watch(shown(9, _0=DOWN), 7, 1.2, 3.2),
    register(0, 2, 3.0, "critical"),
    read(shown(9), 4.0, passing=True),
    watch(shown(9, _0=DOWN), 9, 3.3, 7.5),
    deregister(0, 8.0),
    read(shown(12), 9.0, "default"),
    watch(shown(12), 9, 7.6, 8.1),
    read(shown(9, _0=DOWN), 9.5, "stale"),
)


def test_registrations_that_are_shown_are_valid() -> None:
    result = judge(*GOOD, circumstances=CALM)
    assert (result.verdict, result.checker) == (Verdict.VALID, "histories/registry"), result.details
    figures = {name: result.figures[name] for name in ("changes", "judged_answers", "woken", "timed_out")}
    assert figures == {"changes": 3, "judged_answers": 8, "woken": 3, "timed_out": 1}


def test_a_history_in_which_nothing_was_read_is_unknown() -> None:
    assert judge(register(0, 1, 1.0)).verdict is Verdict.UNKNOWN


def test_an_operation_that_a_registry_does_not_have_is_refused_by_name() -> None:
    with pytest.raises(UnknownOperation, match="no operation 'write'"):
        judge(operation(1, "write", "web/0", 1, 1, (0.0, 1.0)))


MISSED = (
    read(shown(3), 0.1),
    watch(shown(3), 0, 0.2, 0.3),
    register(0, 1, 1.0),
    watch(shown(7, _0=UP), 3, 0.4, 4.5),
)
TOLD = operation(5, "agent-register", "own/0", {"version": 1, "status": "critical"}, True, (1.0, 1.1))
FLIPPED = operation(5, "agent-check", "own/0", "passing", True, (2.0, 2.1))
BROKEN: dict[str, tuple[str, tuple[list[Event], ...]]] = {
    "an acknowledged registration that is not shown": (registry.ANSWERS, (register(0, 1, 1.0), read(shown(3), 2.0))),
    "an acknowledged deregistration that is still shown": (
        registry.ANSWERS,
        (register(0, 1, 1.0), deregister(0, 2.0), read(shown(7, _0=UP), 3.0, "default")),
    ),
    "an old registration after a new one": (
        registry.ANSWERS,
        (register(0, 1, 1.0), register(0, 2, 2.0, "critical"), read(shown(7, _0=UP), 3.0)),
    ),
    "a critical instance that is shown as passing": (
        registry.ANSWERS,
        (register(0, 1, 1.0), register(0, 2, 2.0, "critical"), read(shown(7, _0=UP), 3.0, passing=True)),
    ),
    "a passing instance that is missed among the passing": (
        registry.ANSWERS,
        (register(0, 1, 1.0), read(shown(7), 3.0, passing=True)),
    ),
    "an instance that nobody registered": (registry.ANSWERS, (register(0, 1, 1.0), read(shown(7, _0=UP, _9=UP), 3.0))),
    "a watcher that is answered with what was long ago": (
        registry.ANSWERS,
        (register(0, 1, 1.0), watch(shown(3), 0, 2.0, 2.1), watch(shown(7, _0=UP), 3, 2.2, 2.3)),
    ),
    "one index for two states": (
        registry.ONE_STATE,
        (read(shown(7), 0.5), register(0, 1, 1.0), read(shown(7, _0=UP), 3.0)),
    ),
    "one index for two states of stale answers": (
        registry.ONE_STATE,
        (read(shown(6), 0.5), register(0, 1, 1.0), read(shown(7, _0=UP), 3, "stale"), read(shown(7), 4.0, "stale")),
    ),
    "an index that goes back": (
        registry.FORWARD,
        (register(0, 1, 1.0), read(shown(9, _0=UP), 2.0), read(shown(8, _0=UP), 3.0)),
    ),
    "a blocking query whose index goes back": (
        registry.FORWARD,
        (register(0, 1, 1.0), watch(shown(8, _0=UP), 9, 2.0, 3.0)),
    ),
    "a blocking query that misses a change": (registry.WOKEN, MISSED),
    "a blocking query that misses a deregistration": (
        registry.WOKEN,
        (
            register(0, 1, 0.5),
            watch(shown(7, _0=UP), 0, 0.6, 0.7),
            deregister(0, 1.0),
            watch(shown(9), 7, 0.8, 4.9),
        ),
    ),
    "a watcher whose last answer is an old one": (
        registry.LAST,
        (register(0, 1, 1.0), watch(shown(3), 0, 2.0, 2.1, "stale"), read(shown(7, _0=UP), 3.0)),
    ),
    "a registration at an agent that does not reach the catalog": (
        registry.CONVERGES,
        (*GOOD, TOLD, operation(5, "settled", "own/0", None, None, (9.0, 20.0))),
    ),
    "a status at an agent that does not reach the catalog": (
        registry.CONVERGES,
        (*GOOD, TOLD, FLIPPED, operation(5, "settled", "own/0", None, [1, "critical"], (9.0, 20.0))),
    ),
}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_broken_promise_is_named(name: str) -> None:
    broken, operations = BROKEN[name]
    result = judge(*operations, circumstances=CALM)
    assert (result.verdict, result.property) == (Verdict.INVALID, broken), result.reason
    assert "process" in result.details, "the counterexample is shown"


def test_every_property_has_a_history_that_breaks_it() -> None:
    properties = {registry.ANSWERS, registry.ONE_STATE, registry.FORWARD, registry.WOKEN, registry.LAST}
    assert {broken for broken, _ in BROKEN.values()} == properties | {registry.CONVERGES}


EXCUSED: dict[str, tuple[Circumstances, tuple[list[Event], ...]]] = {
    "a late answer where something was disturbed": (Circumstances(calm=(((0, 2 * SECOND),),)), MISSED),
    "a late answer where nothing is known": (ALONE, MISSED),
    "a change just before the time-out": (
        CALM,
        (read(shown(3), 0.1), watch(shown(3), 0, 0.2, 0.3), register(0, 1, 3.0), watch(shown(7, _0=UP), 3, 0.4, 4.5)),
    ),
    "a change that may already be in the answer with that index": (
        CALM,
        (watch(shown(7, _0=UP), 0, 0.9, 1.2), register(0, 1, 1.0), watch(shown(7, _0=UP), 7, 1.3, 5.5)),
    ),
    "a deregistration of what was gone": (
        CALM,
        (
            register(1, 1, 0.1),
            watch(shown(7, _1=UP), 0, 0.6, 0.7),
            deregister(0, 1.0),
            watch(shown(7, _1=UP), 7, 0.8, 4.9),
        ),
    ),
    "a registration that may have happened": (
        CALM,
        (register(0, 1, 1.0), register(0, 2, 2.0, ending=EventType.INFO), read(shown(7, _0=UP), 3.0)),
    ),
    "a deregistration that may have happened after the last answer of a watcher": (
        CALM,
        (
            register(0, 1, 1.0),
            deregister(0, 1.5, EventType.INFO),
            watch(shown(7, _0=UP), 0, 2.0, 2.1, "stale"),
            read(shown(9), 3.0),
        ),
    ),
    "a stale answer": (CALM, (register(0, 1, 1.0), read(shown(3), 2.0, "stale"), read(shown(7, _0=UP), 3.0))),
    "a stale index that goes back": (
        CALM,
        (register(0, 1, 1.0), read(shown(9, _0=UP), 2.0), read(shown(8, _0=UP), 3.0, "stale")),
    ),
    "what may have been told to an agent last": (
        CALM,
        (
            *GOOD,
            TOLD,
            operation(5, "agent-deregister", "own/0", None, None, (3.0, 3.1), EventType.INFO),
            operation(6, "settled", "own/0", None, None, (9.0, 20.0)),
        ),
    ),
}


@pytest.mark.parametrize("name", sorted(EXCUSED))
def test_what_can_be_explained_is_valid(name: str) -> None:
    circumstances, operations = EXCUSED[name]
    result = judge(*operations, circumstances=circumstances)
    assert result.verdict is Verdict.VALID, result.details


def random_run(seed: int) -> list[list[Event]]:
    """Three writers and three readers of a service whose instances change at one moment of each operation."""
    rng = random.Random(seed)
    moments: list[tuple[float, int, str, float, float]] = []
    for process in range(6):
        at = rng.random()
        for _ in range(25):
            until = at + 0.05 + rng.random()
            f = "read" if process >= 3 else rng.choice(("register", "register", "deregister"))
            moments.append((rng.uniform(at, until), process, f, at, until))
            at = until + rng.random() / 2
    index, states, history = 10, dict[str, list[Any]](), []
    for version, (_, process, f, at, until) in enumerate(sorted(moments)):
        instance = f"web/{rng.randrange(3)}"
        ending = EventType.INFO if f != "read" and rng.random() < 0.1 else EventType.OK
        if f == "register":
            status = rng.choice(("passing", "critical"))
            index, states = index + 1, {**states, instance: [version, status]}
            value = {"version": version, "status": status}
            history.append(operation(process, f, instance, value, value, (at, until), ending))
        elif f == "deregister":
            index += instance in states
            states = {name: state for name, state in states.items() if name != instance}
            history.append(operation(process, f, instance, None, None, (at, until), ending))
        else:
            passing = rng.random() < 0.5
            seen = {name: state for name, state in states.items() if not passing or state[1] == "passing"}
            asked = {"mode": rng.choice(("default", "consistent")), "passing": passing}
            history.append(operation(process, f, "web", asked, {"index": index, "instances": seen}, (at, until)))
    return history


@pytest.mark.parametrize("seed", range(5))
def test_random_runs_of_an_honest_registry_are_valid_and_one_old_answer_is_found(seed: int) -> None:
    history = random_run(seed)
    result = judge(*history)
    assert result.verdict is Verdict.VALID, result.details
    reads = [place for place, (invoked, _) in enumerate(history) if invoked.f == "read" and invoked.value["passing"]]
    invoked, completed = history[reads[-1]]
    first = next(history[place][1].value for place in reads if history[place][1].value["instances"])
    assert first["index"] < completed.value["index"]
    old = Event(completed.process, EventType.OK, "read", time=completed.time, key="web", value=first)
    history[reads[-1]] = [invoked, old]
    assert judge(*history).verdict is Verdict.INVALID
