"""Requests begun without a task: how they end, and that what the core refuses late goes the long way, once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from impl.agent import begun
from impl.agent.api import AgentError, IndefiniteError, NoClusterLeader, ReadReply
from impl.agent.begun import BegunRead, BegunWrite
from impl.catalog.store import KvAnswer
from impl.raft.errors import NotLeader

ANSWER = KvAnswer(7, ())


class Client:
    """What was told, how often the long way was taken, and how that ends."""

    def __init__(self, later: object = True) -> None:
        self.told: list[object] = []
        self.asked_again = self.measured = 0
        self.later = later
        self.runtime: Any = SimpleNamespace(tasks=SimpleNamespace(spawn=lambda work, name: asyncio.run(work)))

    async def again(self) -> Any:
        self.asked_again += 1
        if isinstance(self.later, Exception):
            raise self.later
        return self.later

    def measure(self) -> None:
        self.measured += 1

    def write(self) -> BegunWrite:
        return BegunWrite(self.runtime, self.told.append, self.again, self.measure)

    def read(self) -> BegunRead:
        return BegunRead(self.runtime, self.told.append, self.again, self.measure)


def a_result_is_told_and_nothing_is_asked_again() -> None:
    client = Client()
    client.write().set_result(False)
    client.read().set_result(ANSWER)
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
    client.read().set_exception(NotLeader(None))
    assert (client.told, client.asked_again) == ([client.later], 1)


def a_defect_is_told_and_not_asked_for_again() -> None:
    client, defect = Client(), ZeroDivisionError()
    client.write().set_exception(defect)
    assert (client.told, client.asked_again) == ([defect], 0)


def a_defect_of_the_long_way_is_told_and_ends_nobody_else() -> None:
    client = Client(later=ZeroDivisionError())
    client.write().set_exception(NotLeader("s2"))
    assert (client.told, client.asked_again) == ([client.later], 1)


SENTENCES = [
    a_result_is_told_and_nothing_is_asked_again,
    a_write_that_may_have_happened_is_not_tried_again,
    what_the_core_refused_late_is_asked_again_in_the_long_way,
    how_the_long_way_ends_is_told,
    a_defect_is_told_and_not_asked_for_again,
    a_defect_of_the_long_way_is_told_and_ends_nobody_else,
]


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda sentence: str(sentence.__name__))
def test_what_was_begun(sentence: Callable[[], None]) -> None:
    sentence()


def always_again(pending: Any, exception: Exception) -> None:
    pending._runtime.tasks.spawn(pending._once_more(), "request")


def never_again(pending: Any, exception: Exception) -> None:
    pending._answered(exception)


async def told_nothing(pending: Any) -> None:
    await pending._again()


async def told_what_was_expected(pending: Any) -> None:
    try:
        pending._answered(await pending._again())
    except AgentError as error:
        pending._answered(error)


@pytest.mark.parametrize(
    ("name", "mutant", "sentence"),
    [
        ("set_exception", always_again, a_write_that_may_have_happened_is_not_tried_again),
        ("set_exception", always_again, a_defect_is_told_and_not_asked_for_again),
        ("set_exception", never_again, what_the_core_refused_late_is_asked_again_in_the_long_way),
        ("_once_more", told_nothing, what_the_core_refused_late_is_asked_again_in_the_long_way),
        ("_once_more", told_what_was_expected, a_defect_of_the_long_way_is_told_and_ends_nobody_else),
    ],
)
def test_a_broken_one_is_noticed(
    monkeypatch: pytest.MonkeyPatch, name: str, mutant: Callable[..., Any], sentence: Callable[[], None]
) -> None:
    monkeypatch.setattr(begun._Begun, name, mutant)
    with pytest.raises((AssertionError, ZeroDivisionError)):
        sentence()
