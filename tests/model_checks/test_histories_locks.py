"""Histories of sessions and locks: good ones are VALID, each broken promise is INVALID under its name."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from model_checks.histories import lock_oracle, locks
from model_checks.histories.check import check_history
from model_checks.histories.circumstances import ALONE, Circumstances
from model_checks.histories.events import Event, EventType, parse, render
from model_checks.histories.locks import check_locks
from model_checks.histories.operations import pair
from model_checks.histories.register import Model, UnknownOperation
from model_checks.verdicts import CheckResult, Verdict

SECOND = 1_000_000_000
EventList = list[Event]


def operation(
    process: int,
    f: str,
    key: Any,
    argument: Any,
    answer: Any,
    at: tuple[float, float],
    ending: EventType = EventType.OK,
    error: str | None = None,
) -> EventList:
    """An operation from `at[0]` to `at[1]` (seconds)."""
    call_ns, ret_ns = (round(second * SECOND) for second in at)
    value = answer if ending is EventType.OK else argument
    return [
        Event(process, EventType.INVOKE, f, time=call_ns, key=key, value=argument),
        Event(process, ending, f, time=ret_ns, key=key, value=value, error=error),
    ]


def judge(*operations: EventList, circumstances: Circumstances = ALONE) -> CheckResult:
    events = sorted((event for each in operations for event in each), key=lambda event: event.time)
    return check_history(parse(render(events)), Model.LOCK, circumstances=circumstances).result


def create(
    session: str, at: float, *, ttl: float | None = None, lock_delay: float = 0.0, bound: bool = False
) -> EventList:
    wish = {"ttl": ttl, "lock_delay": lock_delay, "behavior": "release", "bound": bound}
    return operation(100 + ord(session), "create", None, wish, {"session": session, **wish}, (at, at + 0.01))


def row(create: int, lock: int, modify: int, session: str | None) -> dict[str, Any]:
    return {"create": create, "lock": lock, "modify": modify, "session": session}


def acquire(process: int, session: str, shown: Any, at: float, until: float | None = None) -> EventList:
    answer = {"session": session} if shown is None else {"session": session, "row": shown}
    return operation(process, "acquire", 1, {"session": session}, answer, (at, until or at + 0.01))


def refused(process: int, session: str, at: float, error: str | None = None) -> EventList:
    argument = {"session": session}
    return operation(process, "acquire", 1, argument, None, (at, at + 0.01), EventType.FAIL, error)


def release(process: int, session: str, at: float, ending: EventType = EventType.OK) -> EventList:
    argument = {"session": session}
    return operation(process, "release", 1, argument, argument, (at, at + 0.01), ending)


def look(process: int, shown: Any, at: float) -> EventList:
    return operation(process, "read", 1, None, shown, (at, at + 0.01))


def renew(process: int, session: str, at: float, found: bool = True) -> EventList:
    return operation(process, "renew", session, None, found, (at, at + 0.01))


def info(process: int, session: str, at: float, found: bool = True) -> EventList:
    return operation(process, "info", session, None, found, (at, at + 0.01))


def destroy(process: int, session: str, at: float, ending: EventType = EventType.OK) -> EventList:
    return operation(process, "destroy", session, None, True, (at, at + 0.01), ending)


def write(
    process: int, value: int, session: str, hold: tuple[int, int], checked: int | None, index: int, at: float
) -> EventList:
    argument = {"value": value, "session": session, "hold": hold, "checked_index": checked}
    return operation(process, "write", 1, argument, {**argument, "index": index}, (at, at + 0.01))


def read_protected(process: int, value: int | None, index: int, at: float) -> EventList:
    return operation(process, "read-protected", 1, None, {"value": value, "index": index}, (at, at + 0.01))


A1, B2 = row(5, 1, 5, "a"), row(5, 2, 9, "b")
"""Session a's hold, and session b's after it."""
HANDED_OVER = (
    create("a", 0.0),
    create("b", 0.0, lock_delay=1.0),
    acquire(1, "a", A1, 1.0),
    refused(2, "b", 1.5),
    write(1, 71, "a", (5, 1), 5, 6, 2.0),
    release(1, "a", 3.0),
    acquire(2, "b", B2, 4.0),
    write(2, 72, "b", (5, 2), 9, 10, 5.0),
    look(3, B2, 6.0),
    read_protected(3, 72, 10, 6.5),
    destroy(2, "b", 7.0),
    look(3, row(5, 2, 12, None), 8.0),
    refused(2, "b", 8.5, 'invalid session "b"'),
)


def test_a_lock_that_is_handed_over_is_valid() -> None:
    result = judge(*HANDED_OVER)
    assert (result.verdict, result.checker) == (Verdict.VALID, "histories/locks"), result.details
    figures = {name: result.figures[name] for name in ("sessions", "holds", "fenced_writes", "locks_lost")}
    assert figures == {"sessions": 2, "holds": 2, "fenced_writes": 2, "locks_lost": 1}


def test_a_history_without_a_hold_is_unknown() -> None:
    assert judge(create("a", 0.0), info(1, "a", 1.0)).verdict is Verdict.UNKNOWN


def test_an_operation_that_locks_do_not_have_is_refused_by_name() -> None:
    with pytest.raises(UnknownOperation, match="no operation 'cas'"):
        judge(operation(1, "cas", 1, [1, 2], [1, 2], (0.0, 1.0)))


LIVES = create("a", 0.0, ttl=10.0)
BROKEN: dict[str, tuple[str, tuple[EventList, ...]]] = {
    "two sessions get one sequencer": (
        locks.EXCLUSION,
        (create("a", 0), create("b", 0), acquire(1, "a", A1, 1.0), acquire(2, "b", row(5, 1, 7, "b"), 1.0)),
    ),
    "two rows at one index": (
        locks.EXCLUSION,
        (create("a", 0), create("b", 0), acquire(1, "a", A1, 1.0), look(2, row(5, 1, 5, None), 1.0)),
    ),
    "a new hold whose LockIndex does not grow": (
        locks.EXCLUSION,
        (create("a", 0), create("b", 0), look(1, row(5, 3, 8, "a"), 1.0), look(2, row(5, 2, 9, "b"), 1.0)),
    ),
    "a hold that comes back after it was over": (
        locks.EXCLUSION,
        (create("a", 0), look(1, row(5, 1, 8, None), 1.0), look(2, row(5, 1, 9, "a"), 1.0)),
    ),
    "an old row after a new one": (
        locks.EXCLUSION,
        (create("a", 0), create("b", 0), look(1, B2, 1.0), look(2, A1, 2.0)),
    ),
    "an acquire while another holds": (
        locks.EXCLUSION,
        (create("a", 0), create("b", 0), acquire(1, "a", A1, 1.0), acquire(2, "b", None, 2.0), look(3, A1, 3.0)),
    ),
    "a released lock that is still held": (
        locks.EXCLUSION,
        (create("a", 0), acquire(1, "a", A1, 1.0), release(1, "a", 2.0), look(3, A1, 3.0)),
    ),
    "a lock that is given away while its session lives": (
        locks.HELD,
        (create("a", 0), create("b", 0), acquire(1, "a", A1, 1.0), acquire(2, "b", B2, 2.0), info(3, "a", 3.0)),
    ),
    "a lock that is deleted while its session lives": (
        locks.HELD,
        (create("a", 0), acquire(1, "a", A1, 1.0), look(2, None, 2.0), renew(3, "a", 3.0)),
    ),
    "a destroyed session that keeps its lock": (
        locks.ENDED,
        (create("a", 0), acquire(1, "a", A1, 1.0), destroy(2, "a", 2.0), look(3, A1, 3.0)),
    ),
    "an acquire with a destroyed session": (
        locks.ENDED,
        (create("a", 0), destroy(2, "a", 2.0), acquire(1, "a", A1, 3.0)),
    ),
    "a write under the lock of a destroyed session": (
        locks.ENDED,
        (create("a", 0), acquire(1, "a", A1, 1), destroy(2, "a", 2), write(1, 7, "a", (5, 1), None, 9, 3.0)),
    ),
    "a session that was gone and can be renewed": (
        locks.ENDED,
        (create("a", 0, ttl=1), look(9, None, 0.5), info(2, "a", 5.0, found=False), renew(1, "a", 6.0)),
    ),
    "a session that ends before its TTL": (
        locks.TTL,
        (LIVES, look(9, A1, 1.0), renew(1, "a", 5.0), info(2, "a", 14.9, found=False)),
    ),
    "a session that is gone when it is renewed in time": (
        locks.TTL,
        (LIVES, look(9, A1, 1), renew(1, "a", 6.0, False)),
    ),
    "a session without a TTL that ends": (locks.TTL, (create("a", 0), look(9, A1, 1.0), info(2, "a", 99.0, False))),
    "a lock that is lost before the TTL": (
        locks.TTL,
        (LIVES, create("b", 0), acquire(1, "a", A1, 1.0), acquire(2, "b", B2, 9.0)),
    ),
    "a lock-delay that is ignored after a destroy": (
        locks.LOCK_DELAY,
        (
            create("a", 0, lock_delay=2.0),
            create("b", 0),
            acquire(1, "a", A1, 1.0),
            destroy(1, "a", 5.0),
            acquire(2, "b", B2, 6.9),
        ),
    ),
    "a lock-delay that is ignored after an expiry": (
        locks.LOCK_DELAY,
        (
            create("a", 0, ttl=10.0, lock_delay=5.0),
            create("b", 0),
            acquire(1, "a", A1, 1.0),
            acquire(2, "b", None, 14.0),
            look(2, B2, 14.1),
        ),
    ),
    "a lock-delay that is ignored after the last sign of life": (
        locks.LOCK_DELAY,
        (
            create("a", 0, lock_delay=2.0, bound=True),
            create("b", 0),
            acquire(1, "a", A1, 1.0),
            renew(1, "a", 5.0),
            acquire(2, "b", B2, 6.5),
        ),
    ),
    "a write with an old sequencer": (
        locks.FENCING,
        (
            create("a", 0),
            create("b", 0),
            look(1, A1, 1.0),
            look(2, B2, 1.0),
            write(3, 7, "a", (5, 1), 5, 11, 1.0),
            release(4, "a", 1.0, EventType.INFO),
        ),
    ),
    "a write of a session that does not have the lock": (
        locks.FENCING,
        (
            create("a", 0),
            create("b", 0),
            look(2, B2, 1.0),
            write(1, 7, "a", (5, 1), None, 11, 1.0),
            look(3, row(5, 2, 15, None), 1.0),
            release(4, "a", 1.0, EventType.INFO),
            release(5, "b", 1.0, EventType.INFO),
        ),
    ),
    "an older holder that writes after a newer one": (
        locks.FENCING,
        (
            create("a", 0),
            create("b", 0),
            look(1, A1, 0.5),
            write(2, 8, "b", (5, 2), 9, 10, 1.0),
            write(3, 7, "a", (5, 1), 5, 11, 1.0),
            release(4, "a", 1.0, EventType.INFO),
        ),
    ),
    "a protected value that is lost": (
        locks.PROTECTED,
        (create("a", 0), look(1, A1, 0.5), write(1, 7, "a", (5, 1), 5, 11, 1.0), read_protected(2, None, 0, 2.0)),
    ),
}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_broken_promise_is_named(name: str) -> None:
    broken, operations = BROKEN[name]
    result = judge(*operations)
    assert (result.verdict, result.property) == (Verdict.INVALID, broken), result.reason
    assert "process" in result.details, "the counterexample is shown"


def test_every_property_has_a_history_that_breaks_it() -> None:
    names = {value for name, value in vars(locks).items() if name.isupper() and isinstance(value, str)}
    assert names - {broken for broken, _ in BROKEN.values()} == {locks.EXPIRY}, "which needs to know who led: below"


def test_a_session_that_nobody_renews_ends_within_twice_its_ttl_where_one_leader_led() -> None:
    history = (LIVES, acquire(1, "a", A1, 1.0), look(2, A1, 40.0))
    assert judge(*history).verdict is Verdict.VALID, "nobody knows who led: a new leader gives the full time again"
    led = Circumstances(reigns=((0, 60 * SECOND),))
    assert judge(*history, circumstances=led).property == locks.EXPIRY
    changed = Circumstances(reigns=((0, 20 * SECOND), (21 * SECOND, 60 * SECOND)))
    assert judge(*history, circumstances=changed).verdict is Verdict.VALID
    early = (LIVES, acquire(1, "a", A1, 1.0), look(2, A1, 24.0))
    assert judge(*early, circumstances=led).verdict is Verdict.VALID, "the leader needs a moment to end it"


DELAYED = (create("a", 0, lock_delay=2.0), create("b", 0), acquire(1, "a", A1, 1.0))
EXCUSED: dict[str, tuple[EventList, ...]] = {
    "the delay is over": (*DELAYED, destroy(1, "a", 5.0), acquire(2, "b", B2, 7.0)),
    "the lock was released": (*DELAYED, release(1, "a", 5.0), acquire(2, "b", B2, 5.1)),
    "the lock may have been released": (*DELAYED, release(1, "a", 5.0, EventType.INFO), acquire(2, "b", B2, 5.1)),
    "the session may have been destroyed long before": (
        *DELAYED,
        destroy(3, "a", 2.0, EventType.INFO),
        destroy(1, "a", 5.0),
        acquire(2, "b", B2, 5.1),
    ),
    "the session's check may have failed long before": (
        create("a", 0, lock_delay=2.0, bound=True),
        create("b", 0),
        acquire(1, "a", A1, 1.0),
        acquire(2, "b", B2, 5.0),
    ),
    "the session may have been destroyed": (
        LIVES,
        look(9, A1, 0.5),
        destroy(3, "a", 1.0, EventType.INFO),
        info(2, "a", 2.0, found=False),
    ),
    "the TTL has passed": (LIVES, look(9, A1, 0.5), renew(1, "a", 5.0), info(2, "a", 15.1, found=False)),
    "the sign of life is no later than the end": (
        create("a", 0),
        operation(1, "acquire", 1, {"session": "a"}, {"session": "a", "row": A1}, (1.0, 9.0)),
        destroy(2, "a", 2.0),
        look(3, row(5, 1, 6, None), 3.0),
    ),
    "the same session took the lock again": (
        create("a", 0),
        look(1, A1, 0.5),
        release(1, "a", 1.0),
        acquire(1, "a", row(5, 2, 9, "a"), 2.0),
        write(1, 7, "a", (5, 1), None, 11, 3.0),
    ),
}


@pytest.mark.parametrize("name", sorted(EXCUSED))
def test_what_can_be_explained_is_valid(name: str) -> None:
    result = judge(*EXCUSED[name])
    assert result.verdict is Verdict.VALID, result.details


def test_a_server_that_restored_a_snapshot_may_have_forgotten_a_lock_delay() -> None:
    history = (*DELAYED, destroy(1, "a", 5.0), acquire(2, "b", B2, 5.5))
    assert judge(*history).property == locks.LOCK_DELAY
    assert judge(*history, circumstances=Circumstances(restores=(4 * SECOND,))).property == locks.LOCK_DELAY
    assert judge(*history, circumstances=Circumstances(restores=(5_200_000_000,))).verdict is Verdict.VALID


# --------------------------------------------------------------------------------------------- against the naive oracle


class Consul:
    """One lock, by what Consul documents; operations take effect between their call and their return, at random."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.index = 10
        self.row: dict[str, Any] | None = None
        self.ended: set[str] = set()

    def take_effect(self, f: str, session: str) -> tuple[Any, EventType, str | None]:
        self.index += self.rng.randint(1, 3)
        holder = None if self.row is None else self.row["session"]
        match f:
            case "read":
                return self.row, EventType.OK, None
            case "renew" | "info":
                return session not in self.ended, EventType.OK, None
            case "destroy":
                self.ended.add(session)
                if holder == session and self.row is not None:
                    self.row = {**self.row, "session": None, "modify": self.index}
                return True, EventType.OK, None
            case "acquire":
                if session in self.ended:
                    return None, EventType.FAIL, f'invalid session "{session}"'
                if holder not in (None, session):
                    return None, EventType.FAIL, None
                if self.row is None:
                    self.row = row(self.index, 1, self.index, session)
                elif holder is None:
                    self.row = {**self.row, "lock": self.row["lock"] + 1, "modify": self.index, "session": session}
                shown = {"row": self.row} if self.rng.random() < 0.7 else {}
                return {"session": session, **shown}, EventType.OK, None
        if holder != session or self.row is None:
            return None, EventType.FAIL, None
        self.row = {**self.row, "session": None, "modify": self.index}
        return {"session": session}, EventType.OK, None


def random_history(rng: random.Random) -> list[EventList]:
    """A few concurrent operations of three processes on one lock by two sessions."""
    model = Consul(rng)
    spans = []
    for process in range(3):
        at = rng.random()
        for _ in range(3):
            until = at + rng.random() * 2
            spans.append((rng.uniform(at, until), process, at, until))
            at = until + rng.random() * 0.5
    history = []
    for _, process, at, until in sorted(spans):
        f = rng.choice(("acquire", "acquire", "acquire", "release", "read", "read", "destroy", "renew"))
        session = rng.choice("ab")
        answer, ending, error = model.take_effect(f, session)
        if ending is EventType.OK and rng.random() < 0.1:
            ending = EventType.INFO
        key = 1 if f in ("acquire", "release", "read") else session
        argument = {"session": session} if f in ("acquire", "release") else None
        history.append(operation(process, f, key, argument, answer, (10 + at, 10 + until), ending, error))
    return history


def tampered(rng: random.Random, history: list[EventList]) -> list[EventList]:
    """The history with one answer changed."""
    place = rng.randrange(len(history))
    invoked, completed = history[place]
    value = completed.value
    if completed.type is EventType.OK and isinstance(value, bool) and completed.f == "renew":
        value = not value
    elif completed.type is EventType.OK and isinstance(value, dict):
        shown = value if "modify" in value else value.get("row")
        if shown is not None:
            field = rng.choice(("lock", "modify", "session"))
            wrong = rng.choice(("a", "b", None)) if field == "session" else shown[field] + rng.choice((-2, -1, 1, 2))
            value = {**shown, field: wrong} if shown is value else {**value, "row": {**shown, field: wrong}}
    changed = [invoked, Event(**{**{f: getattr(completed, f) for f in completed.__struct_fields__}, "value": value})]
    return [*history[:place], changed, *history[place + 1 :]]


def objects(history: list[EventList]) -> tuple[bool, bool]:
    """Whether the checker objects, and whether no order explains the history."""
    events = [*create("a", 0.0), *create("b", 0.0)]
    events += sorted((event for each in history for event in each), key=lambda event: event.time)
    operations = pair(parse(render(events)))
    objections = check_locks(operations).objections
    return bool(objections), not lock_oracle.explainable(operations[2:])


def test_the_checker_objects_to_nothing_that_some_order_explains() -> None:
    """And finds most of what no order explains: it is sound, and not complete."""
    rng = random.Random(20)
    wrong = found = 0
    for _ in range(1_500):
        history = random_history(rng)
        assert objects(history) == (False, False), history
        objected, unexplained = objects(tampered(rng, history))
        assert unexplained or not objected, history
        wrong += unexplained
        found += objected
    assert wrong > 300
    assert found > 0.6 * wrong, (found, wrong)


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        ("_rows", "two sessions get one sequencer"),
        ("_real_time", "an old row after a new one"),
        ("_inside", "an acquire while another holds"),
        ("_lost", "a lock that is given away while its session lives"),
        ("_ended", "a destroyed session that keeps its lock"),
        ("_time_to_live", "a session that ends before its TTL"),
        ("_delays", "a lock-delay that is ignored after a destroy"),
        ("_fenced", "a write with an old sequencer"),
        ("_not_in_force", "a write of a session that does not have the lock"),
    ],
)
def test_each_rule_is_needed(monkeypatch: pytest.MonkeyPatch, rule: str, name: str) -> None:
    blind: Callable[..., Any] = lambda *_: ""  # noqa: E731
    monkeypatch.setattr(locks, rule, blind)
    broken, operations = BROKEN[name]
    assert judge(*operations).property != broken
