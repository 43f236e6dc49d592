"""Requests begun without a task: how they end, and that what the core refuses late goes the long way, once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from impl.agent.measures import RequestMeasures
from impl.agent.requests import begun
from impl.agent.requests.api import AgentError, Consistency, IndefiniteError, NoClusterLeader, ReadOptions, ReadReply
from impl.agent.requests.begun import BegunRead, BegunWrite, ShortWay
from impl.agent.requests.protocol import KvWrite
from impl.agent.requests.routing import Requests
from impl.agent.requests.serving import Serving
from impl.catalog.commands import KvAcquire, KvSet, SessionDestroy, Write
from impl.catalog.queries import KvGet, Query
from impl.catalog.store import KvAnswer
from impl.catalog.transitions import Result
from impl.raft.errors import NotLeader
from impl.raft.ready import Role
from impl.runtime.interfaces import Runtime
from impl.runtime.real import run
from impl.telemetry.instruments import Telemetry
from tests.impl.test_forwarding_rules import Leaderless, Remote, follower

ANSWER = KvAnswer(7, ())
COMMAND = KvSet("k", b"v", 0)


class Client:
    """What was told, how often the long way was taken, and how that ends."""

    def __init__(self, later: object = True) -> None:
        self.told: list[object] = []
        self.asked_again = 0
        self.later = later
        clock: Any = SimpleNamespace(monotonic_ns=time.monotonic_ns, wall_ns=time.time_ns)
        runtime: Any = SimpleNamespace(clock=clock, tasks=SimpleNamespace(spawn=lambda work, name: asyncio.run(work)))
        nowhere: Any = None
        self.telemetry = Telemetry(clock)
        self.way = ShortWay(runtime, nowhere, self, RequestMeasures(self.telemetry))

    async def serve_write(self, request: KvWrite) -> Any:
        assert (request.command, request.request, request.forwarded) == (COMMAND, "s1/1/r7", False)
        return self._again()

    async def read(self, query: Query, options: ReadOptions) -> Any:
        assert (query, options) == (KvGet("k"), ReadOptions(Consistency.CONSISTENT))
        return self._again()

    def _again(self) -> object:
        self.asked_again += 1
        if isinstance(self.later, Exception):
            raise self.later
        return self.later

    @property
    def measured(self) -> int:
        samples = [sample.fold().count for _, sample in self.telemetry.samples()]
        return self.way.measures.queries.total + sum(samples)

    def write(self) -> BegunWrite:
        return BegunWrite(self.way, self.told.append, COMMAND, "s1/1/r7")

    def read_begun(self) -> BegunRead:
        return BegunRead(self.way, self.told.append, KvGet("k"), Consistency.CONSISTENT)


def a_result_is_told_and_nothing_is_asked_again() -> None:
    client = Client()
    client.write().set_result(False)
    client.read_begun().set_result(ANSWER)
    assert client.told == [False, ReadReply(ANSWER, True, 0)]
    assert (client.asked_again, client.measured) == (0, 2)


def a_write_that_may_have_happened_is_not_tried_again() -> None:
    client = Client()
    unknown = IndefiniteError("rpc error: leadership lost while committing log")
    client.write().set_exception(unknown)
    assert client.told == [unknown]
    assert not client.asked_again


def what_the_core_refused_late_is_asked_again_in_the_long_way() -> None:
    client = Client(later=True)
    client.write().set_exception(NotLeader("s2"))
    assert (client.told, client.asked_again) == ([True], 1)


def how_the_long_way_ends_is_told() -> None:
    client = Client(later=NoClusterLeader())
    client.read_begun().set_exception(NotLeader(None))
    assert (client.told, client.asked_again) == ([client.later], 1)


def a_defect_is_told_and_not_asked_for_again() -> None:
    client, defect = Client(), ZeroDivisionError()
    client.write().set_exception(defect)
    assert (client.told, client.asked_again) == ([defect], 0)


def a_defect_of_the_long_way_is_told_and_ends_nobody_else() -> None:
    client = Client(later=ZeroDivisionError())
    client.write().set_exception(NotLeader("s2"))
    assert (client.told, client.asked_again) == ([client.later], 1)


class Driver:
    """What was begun, as a driver is told of it."""

    last_contact_ns = 0

    def __init__(self) -> None:
        self.core = Leaderless()
        self.core.role = Role.LEADER
        self.begun: list[tuple[str, BegunWrite]] = []

    def begin_write(self, command: Write, request: str, answered: BegunWrite) -> None:
        self.begun.append((request, answered))


class Leader:
    """A server that leads, its other end once it does not, and what its users were told."""

    def __init__(self, runtime: Runtime) -> None:
        self.remote = Remote()
        self.told: list[object] = []
        self.driver = Driver()
        driver: Any = self.driver
        made = follower(runtime, self.remote)
        made.serving.formed(driver)
        self.short_way = ShortWay(runtime, made.serving, made.requests, RequestMeasures(Telemetry(runtime.clock)))

    def write(self, command: Write) -> bool:
        return self.short_way.begin_write(command, self.told.append)


def of_a_leader(sentence: Callable[[Leader, Runtime], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def told() -> None:
        async def main(runtime: Runtime) -> int:
            await sentence(Leader(runtime), runtime)
            return 0

        assert run(main) == 0

    told.__name__ = sentence.__name__
    return told


@of_a_leader
async def who_does_not_lead_begins_nothing(leader: Leader, runtime: Runtime) -> None:
    assert leader.write(KvSet("k", b"v", 0))
    leader.driver.core.role = Role.FOLLOWER
    assert not leader.write(KvSet("k", b"v", 0))
    assert not leader.short_way.begin_read(KvGet("k"), Consistency.DEFAULT, leader.told.append)
    assert len(leader.driver.begun) == 1


@of_a_leader
async def what_wants_a_lock_or_ends_a_session_is_not_begun(leader: Leader, runtime: Runtime) -> None:
    assert not leader.write(KvAcquire("k", b"v", 0, "s"))
    assert not leader.write(SessionDestroy("s"))
    assert leader.driver.begun == []


@of_a_leader
async def a_write_that_is_asked_again_is_the_same_request(leader: Leader, runtime: Runtime) -> None:
    leader.write(KvSet("k", b"v", 0))
    request, answered = leader.driver.begun[0]
    leader.driver.core.role = Role.FOLLOWER
    answered.set_exception(NotLeader("s2"))
    while not leader.told:
        await runtime.clock.sleep(1)
    assert leader.told == [True]
    assert [asked.request for asked in leader.remote.applied] == [request]


SENTENCES = [
    a_result_is_told_and_nothing_is_asked_again,
    a_write_that_may_have_happened_is_not_tried_again,
    what_the_core_refused_late_is_asked_again_in_the_long_way,
    how_the_long_way_ends_is_told,
    a_defect_is_told_and_not_asked_for_again,
    a_defect_of_the_long_way_is_told_and_ends_nobody_else,
    who_does_not_lead_begins_nothing,
    what_wants_a_lock_or_ends_a_session_is_not_begun,
    a_write_that_is_asked_again_is_the_same_request,
]


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda sentence: str(sentence.__name__))
def test_what_was_begun(sentence: Callable[[], None]) -> None:
    sentence()


def always_again(pending: Any, exception: Exception) -> None:
    pending._way.runtime.tasks.spawn(pending._once_more(), "request")


def never_again(pending: Any, exception: Exception) -> None:
    pending._answered(exception)


async def told_nothing(pending: Any) -> None:
    await pending._again()


async def told_what_was_expected(pending: Any) -> None:
    try:
        pending._answered(await pending._again())
    except AgentError as error:
        pending._answered(error)


class Everything:
    def __contains__(self, command: object) -> bool:
        return True


_serve_write = Requests.serve_write


async def as_another_request(requests: Requests, request: KvWrite) -> Result:
    return await _serve_write(requests, KvWrite(request.command, "s1/1/r99", forwarded=False))


@pytest.mark.parametrize(
    ("owner", "name", "mutant", "sentence"),
    [
        (begun._Begun, "set_exception", always_again, a_write_that_may_have_happened_is_not_tried_again),
        (begun._Begun, "set_exception", always_again, a_defect_is_told_and_not_asked_for_again),
        (begun._Begun, "set_exception", never_again, what_the_core_refused_late_is_asked_again_in_the_long_way),
        (begun._Begun, "_once_more", told_nothing, what_the_core_refused_late_is_asked_again_in_the_long_way),
        (begun._Begun, "_once_more", told_what_was_expected, a_defect_of_the_long_way_is_told_and_ends_nobody_else),
        (Serving, "may_begin", lambda *_: True, who_does_not_lead_begins_nothing),
        (begun, "PLAIN", Everything(), what_wants_a_lock_or_ends_a_session_is_not_begun),
        (Requests, "serve_write", as_another_request, a_write_that_is_asked_again_is_the_same_request),
    ],
)
def test_a_broken_one_is_noticed(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, mutant: object, sentence: Callable[[], None]
) -> None:
    monkeypatch.setattr(owner, name, mutant)
    with pytest.raises((AssertionError, ZeroDivisionError, pytest.fail.Exception)):
        sentence()
