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
from spec.forwarding import (
    Agent,
    AgentName,
    Answer,
    Appended,
    Call,
    Confirmed,
    Confirming,
    Entry,
    Held,
    Mode,
    Outcome,
    Task,
)


class Mutant(msgspec.Struct, frozen=True):
    """Replace `module.function` by `broken`; `breaks` is the property that exploration finds broken."""

    module: ModuleType
    function: str
    broken: Callable[..., Any]
    breaks: str
    meaning: str
    leg: str = "write"
    """The leg of `forwarding.LEGS` that finds it."""


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
    """An entry whose leader stepped down is taken for one that will never be committed."""
    return forwarding.finish(agent, task, Answer.REFUSED) if isinstance(task.phase, Appended) else None


def acknowledges_when_appended(i: AgentName, agent: Agent, task: Task, entry: Entry) -> Outcome | None:
    """The leader answers before the entry is committed."""
    if agent.leader != i or not task.request.writes or task.phase != Held():
        return None
    return replace(forwarding.finish(agent, task, Answer.ACKNOWLEDGED), appended=(task.request,))


def answers_twice(agent: Agent, task: Task, answer: Answer, seen: tuple[Entry, ...] = ()) -> Outcome:
    """The task is not forgotten when it is answered, so a client may be answered again."""
    if task.source is None:
        told = forwarding.Answered(task.request, answer, seen)
        return Outcome(forwarding.with_phase(agent, task, Held()), answers=(told,))
    return Outcome(agent, replies=(forwarding.Reply(task.source, answer, seen),))


def reads_by_belief(i: AgentName, agent: Agent, task: Task, index: int) -> Outcome | None:
    """Whoever believes that it leads answers any read from what it has applied."""
    if agent.leader != i or task.request.writes or task.phase != Held():
        return None
    return Outcome(forwarding.with_phase(agent, task, Confirmed(0)))


def reads_by_default_on_belief(i: AgentName, agent: Agent, task: Task, index: int) -> Outcome | None:
    """Consul's own rule for `default` reads. Its two windows: an old leader that has not noticed, and a new one that
    has not applied everything yet.
    """
    return reads_by_belief(i, agent, task, index) if task.request.mode is Mode.DEFAULT else None


def answers_before_applied(agent: Agent, task: Task) -> Outcome | None:
    """A confirmed read does not wait for the state machine."""
    confirmed = isinstance(task.phase, Confirmed)
    return forwarding.finish(agent, task, Answer.ACKNOWLEDGED, agent.applied) if confirmed else None


def answers_before_confirmed(agent: Agent, task: Task) -> Outcome | None:
    """A read whose leadership was lost before it was confirmed is answered all the same, from index 0."""
    if isinstance(task.phase, Confirming):
        return Outcome(forwarding.with_phase(agent, task, Confirmed(0)))
    return forwarding.finish(agent, task, Answer.UNKNOWN) if isinstance(task.phase, Appended) else None


def reads_stale_whatever_was_asked(agent: Agent, task: Task) -> Outcome | None:
    """A forwarded read loses its mode: the server that takes the call answers as if it were `stale`."""
    if not agent.server or task.request.writes or task.source is None or task.phase != Held():
        return None
    return forwarding.finish(agent, task, Answer.ACKNOWLEDGED, agent.applied)


def applies_when_appended(i: AgentName, agent: Agent, task: Task, entry: Entry) -> Outcome | None:
    """The leader's state machine takes an entry before it is committed."""
    if agent.leader != i or not task.request.writes or task.phase != Held():
        return None
    taken = replace(agent, applied=(*agent.applied, entry))
    return Outcome(forwarding.with_phase(taken, task, Appended(entry)), appended=(task.request,))


def reads_from_the_first_index(world: World) -> int:
    """The register confirms a read whose index is older than the read."""
    return 0


def leases_of_the_past(bounds: forwarding_world.Bounds, world: World) -> range:
    """A lease is believed after another leader has committed."""
    return range(len(world.committed) + 1)


def delivers_again(world: World, call: Call) -> World:
    """The channel is a set that only grows: the callee may consume a call twice."""
    return world


MUTANTS: dict[str, Mutant] = {
    "retry_write_after_lost_connection": Mutant(
        forwarding, "after_lost_call", retried_after_lost_call, "applied_at_most_once", "a write is retried after EOF"
    ),
    "refuse_after_lost_connection": Mutant(
        forwarding, "after_lost_call", refused_after_lost_call, "refused_means_never_committed", "EOF is a refusal"
    ),
    "forward_what_was_forwarded": Mutant(
        forwarding, "may_forward", forwards_what_was_forwarded, "sent_on_at_most_twice", "no loop guard"
    ),
    "refuse_at_timeout": Mutant(
        forwarding, "hold_timeout", refuses_at_timeout, "refused_means_never_committed", "a timeout is a refusal"
    ),
    "refuse_after_append": Mutant(
        forwarding,
        "leadership_lost",
        refuses_when_leadership_is_lost,
        "refused_means_never_committed",
        "a deposed leader refuses what it appended",
    ),
    "acknowledge_before_apply": Mutant(
        forwarding, "append", acknowledges_when_appended, "acknowledged_means_committed", "answered when appended"
    ),
    "answer_twice": Mutant(forwarding, "finish", answers_twice, "answered_at_most_once", "tasks are not forgotten"),
    "duplicate_calls": Mutant(
        forwarding_world, "consumed", delivers_again, "applied_at_most_once", "forwarding over a datagram channel"
    ),
    "read_on_belief": Mutant(
        forwarding,
        "begin_read",
        reads_by_belief,
        "consistent_reads_are_linearizable",
        "no confirmation",
        "consistent read",
    ),
    "default_read_on_belief": Mutant(
        forwarding,
        "lease_read",
        reads_by_default_on_belief,
        "default_reads_are_linearizable",
        "Consul's rule for default reads",
        "default read",
    ),
    "read_before_applied": Mutant(
        forwarding,
        "answer_read",
        answers_before_applied,
        "consistent_reads_are_linearizable",
        "the read index is not waited for",
        "consistent read",
    ),
    "read_outlives_unconfirmed": Mutant(
        forwarding,
        "leadership_lost",
        answers_before_confirmed,
        "consistent_reads_are_linearizable",
        "a deposed leader answers what was never confirmed",
        "consistent read",
    ),
    "forwarded_read_loses_its_mode": Mutant(
        forwarding,
        "stale_read",
        reads_stale_whatever_was_asked,
        "consistent_reads_are_linearizable",
        "forwarding forgets the mode",
        "consistent read",
    ),
    "apply_before_committed": Mutant(
        forwarding,
        "append",
        applies_when_appended,
        "reads_answer_a_prefix",
        "what is not committed is read",
        "write and read at one server",
    ),
    "read_index_too_old": Mutant(
        forwarding_world,
        "read_index",
        reads_from_the_first_index,
        "consistent_reads_are_linearizable",
        "the register breaks promise 3",
        "consistent read",
    ),
    "lease_too_long": Mutant(
        forwarding_world,
        "lease_indexes",
        leases_of_the_past,
        "default_reads_are_linearizable",
        "the register breaks promise 4",
        "default read",
    ),
}
