"""What ends an agent: signals, with and without leaving, and how long leaving may take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from impl.agent import ending
from impl.agent.ending import LEAVING_NS_MAX, Ending
from impl.agent.logs import Log
from impl.runtime.virtual import VirtualWorld
from impl.runtime.virtual_disk import VirtualDisk

LEAVES = frozenset({"SIGTERM"})


class Agent:
    """An ending that hears signals, in virtual time; `leave` takes for ever unless `leaves` is called."""

    def __init__(self, server: bool = True) -> None:
        self.world = VirtualWorld(1)
        runtime = self.world.process("s1", VirtualDisk()).runtime
        self.signals: dict[str, Callable[[], None]] = {}
        host: Any = type("Host", (), {"on_signal": staticmethod(self.signals.__setitem__)})
        self.lines: list[str] = []
        self.asked_to_leave = 0
        self._left = runtime.tasks.future()
        self.ending = Ending(replace(runtime, host=host), Log(self.lines.append, lambda: 0.0), LEAVES)
        if server:
            self.ending.leave = self._leave

    async def _leave(self) -> None:
        self.asked_to_leave += 1
        await self._left
        self.ending.stop("leave")

    def leaves(self) -> None:
        self._left.set_result(None)

    def signal(self, name: str) -> None:
        self.signals[name]()
        self.world.run_for(0)

    @property
    def reason(self) -> str:
        return self.ending.reason.result() if self.ending.reason.done() else ""


def a_signal_lets_a_server_leave() -> None:
    agent = Agent()
    agent.signal("SIGTERM")
    assert (agent.asked_to_leave, agent.reason) == (1, "")
    agent.leaves()
    agent.world.run_for(0)
    assert agent.reason == "leave"
    agent.world.run_for(2 * LEAVING_NS_MAX)
    assert not any("too long" in line for line in agent.lines)


def another_signal_ends_it_at_once() -> None:
    agent = Agent()
    agent.signal("SIGTERM")
    agent.signal("SIGTERM")
    assert (agent.asked_to_leave, agent.reason) == (1, "SIGTERM")


def a_server_that_cannot_leave_ends_all_the_same() -> None:
    agent = Agent()
    agent.signal("SIGTERM")
    agent.world.run_for(LEAVING_NS_MAX - 1)
    assert agent.reason == ""
    agent.world.run_for(1)
    assert agent.reason == "SIGTERM"
    assert "leaving takes too long" in agent.lines[-1]


def other_signals_and_agents_that_cannot_leave_just_end() -> None:
    for agent, name in ((Agent(), "SIGINT"), (Agent(server=False), "SIGTERM")):
        agent.signal(name)
        assert (agent.asked_to_leave, agent.reason) == (0, name)


def the_first_reason_stays() -> None:
    agent = Agent()
    agent.ending.stop("leave")
    agent.ending.fail(ValueError("too late"))
    agent.signal("SIGINT")
    assert agent.reason == "leave"


PROPERTIES = [
    a_signal_lets_a_server_leave,
    another_signal_ends_it_at_once,
    a_server_that_cannot_leave_ends_all_the_same,
    other_signals_and_agents_that_cannot_leave_just_end,
    the_first_reason_stays,
]


@pytest.mark.parametrize("property_", PROPERTIES)
def test_an_agent_ends_as_it_is_told(property_: Callable[[], None]) -> None:
    property_()


def deaf_while_leaving(self: Ending, name: str, original: Any) -> None:
    if not self._leaving:
        original(self, name)


def leaving_by_any_signal(self: Ending, name: str, original: Any) -> None:
    self._leaves_on = frozenset(ending.SIGNALS)
    original(self, name)


async def patient(self: Ending, name: str, original: Any) -> None:
    await self._runtime.clock.sleep(9 * LEAVING_NS_MAX)


async def in_a_hurry(self: Ending, name: str, original: Any) -> None:
    self.stop(name)


@pytest.mark.parametrize(
    ("name", "mutant", "property_"),
    [
        ("_signalled", deaf_while_leaving, another_signal_ends_it_at_once),
        ("_signalled", leaving_by_any_signal, other_signals_and_agents_that_cannot_leave_just_end),
        ("_give_up", patient, a_server_that_cannot_leave_ends_all_the_same),
        ("_give_up", in_a_hurry, a_signal_lets_a_server_leave),
    ],
)
def test_one_that_does_not_is_noticed(
    monkeypatch: pytest.MonkeyPatch, name: str, mutant: Any, property_: Callable[[], None]
) -> None:
    original = getattr(Ending, name)
    monkeypatch.setattr(Ending, name, lambda self, signal: mutant(self, signal, original))
    with pytest.raises(AssertionError):
        property_()
