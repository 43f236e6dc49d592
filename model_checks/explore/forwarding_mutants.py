"""Broken variants of forwarding, each replacing one named function; exploration must reject every one.

They are data for `check explore --spec forwarding --mutant NAME` and for the tests. Patching is global: one search at
a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import msgspec
from msgspec.structs import replace

from model_checks.explore import forwarding_world
from model_checks.explore.forwarding_world import World
from spec import forwarding
from spec.forwarding import Agent, AgentName, Answer, Appended, Call, Held, Outcome, Task


class Mutant(msgspec.Struct, frozen=True):
    """Replace `module.function` by `broken`; `breaks` is the property that exploration finds broken."""

    module: ModuleType
    function: str
    broken: Callable[..., Any]
    breaks: str
    meaning: str


@contextmanager
def applied_mutant(mutant: Mutant) -> Iterator[None]:
    """Within the block, the mutant's function stands in for the original. AttributeError if that name is gone."""
    original = getattr(mutant.module, mutant.function)
    setattr(mutant.module, mutant.function, mutant.broken)
    try:
        yield
    finally:
        setattr(mutant.module, mutant.function, original)


def retried_after_lost_call(agent: Agent, task: Task) -> Outcome:
    """A write is held and retried like a read."""
    return Outcome(forwarding.with_phase(agent, task, Held()))


def refused_after_lost_call(agent: Agent, task: Task) -> Outcome:
    """A lost call is taken for one that was never sent."""
    return forwarding.finish(agent, task, Answer.REFUSED)


def forwards_what_was_forwarded(agent: Agent, task: Task, to: AgentName) -> bool:
    """No loop guard."""
    return to == agent.leader


def refuses_at_timeout(agent: Agent, task: Task) -> Outcome:
    """A timeout is a definite refusal, whatever is under way."""
    return forwarding.finish(agent, task, Answer.REFUSED)


def refuses_when_leadership_is_lost(agent: Agent, task: Task) -> Outcome | None:
    """An entry whose leader stepped down is taken for one that will never be applied."""
    return forwarding.finish(agent, task, Answer.REFUSED) if isinstance(task.phase, Appended) else None


def acknowledges_when_appended(i: AgentName, agent: Agent, task: Task, entry: int) -> Outcome | None:
    """The leader answers before the entry is applied."""
    if agent.leader != i or not task.request.writes or task.phase != Held():
        return None
    return replace(forwarding.finish(agent, task, Answer.ACKNOWLEDGED), appended=(task.request,))


def answers_twice(agent: Agent, task: Task, answer: Answer) -> Outcome:
    """The task is not forgotten when it is answered, so a client may be answered again."""
    if task.source is None:
        return Outcome(forwarding.with_phase(agent, task, Held()), answers=((task.request, answer),))
    return Outcome(agent, replies=(forwarding.Reply(task.source, answer),))


def delivers_again(world: World, call: Call) -> World:
    """The channel is a set that only grows: the callee may consume a call twice."""
    return world


MUTANTS: dict[str, Mutant] = {
    "retry_write_after_lost_connection": Mutant(
        forwarding, "after_lost_call", retried_after_lost_call, "applied_at_most_once", "a write is retried after EOF"
    ),
    "refuse_after_lost_connection": Mutant(
        forwarding, "after_lost_call", refused_after_lost_call, "refused_means_never_applied", "EOF is a refusal"
    ),
    "forward_what_was_forwarded": Mutant(
        forwarding, "may_forward", forwards_what_was_forwarded, "sent_on_at_most_twice", "no loop guard"
    ),
    "refuse_at_timeout": Mutant(
        forwarding, "hold_timeout", refuses_at_timeout, "refused_means_never_applied", "a timeout is a refusal"
    ),
    "refuse_after_append": Mutant(
        forwarding,
        "leadership_lost",
        refuses_when_leadership_is_lost,
        "refused_means_never_applied",
        "a deposed leader refuses what it appended",
    ),
    "acknowledge_before_apply": Mutant(
        forwarding, "append", acknowledges_when_appended, "acknowledged_means_applied", "answered when appended"
    ),
    "answer_twice": Mutant(forwarding, "finish", answers_twice, "answered_at_most_once", "tasks are not forgotten"),
    "duplicate_calls": Mutant(
        forwarding_world, "consumed", delivers_again, "applied_at_most_once", "forwarding over a datagram channel"
    ),
}
