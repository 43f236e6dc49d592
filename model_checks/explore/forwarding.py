"""Exhaustive exploration of request forwarding: every interleaving of agents, connections, beliefs and the register,
within bounds.

`explore_forwarding(bounds, mutant)` searches breadth first, so that a counterexample is a shortest one, checks the
properties of `spec.forwarding_properties` in every state, counts every action, and reports as vacuous what should
sometimes happen and never does. Requests meet only in beliefs, connections and the register, so a run has one request:
a write, or a read of one mode among other clients' writes; `DEEP` has runs in which two meet.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext

import msgspec

from model_checks.explore.forwarding_mutants import MUTANTS, applied_mutant
from model_checks.explore.forwarding_world import ACTIONS, Bounds, World, initial_world, observed, steps
from model_checks.verdicts import CheckResult, Verdict, merge
from spec.forwarding import Agent, Answer, Confirmed, Mode, Request
from spec.forwarding_properties import PROPERTIES, Observed

CHECKER = "explore/forwarding"
STATES_MAX = 2_000_000
WRITE = Request("w", True)
STALE, DEFAULT, CONSISTENT = (Request("r", False, mode) for mode in Mode)
LEGS = {
    "write": Bounds(requests=(WRITE,)),
    "stale read": Bounds(requests=(STALE,), calls=1, crashes=0, others=1),
    "default read": Bounds(requests=(DEFAULT,), entrances=("a",), calls=1, crashes=0, others=1),
    "consistent read": Bounds(requests=(CONSISTENT,), calls=1, crashes=1, others=1),
    "default read, leases broken": Bounds(requests=(DEFAULT,), calls=1, crashes=0, others=1, leases_hold=False),
    "write and read at one server": Bounds(requests=(WRITE, CONSISTENT), entrances=("a",), calls=0, crashes=0),
}
"""What is explored, by name: a mutant names the leg that finds it first."""
VERIFY = tuple(LEGS.values())
DEEP = (
    Bounds(requests=(WRITE,), calls=4),
    Bounds(requests=(STALE,), calls=2, others=1),
    Bounds(requests=(DEFAULT,), calls=2, crashes=0, others=1),
    Bounds(requests=(CONSISTENT,), calls=2, crashes=0, others=1),
    Bounds(requests=(Request("w1", True), Request("w2", True)), calls=2, crashes=0),
    Bounds(requests=(WRITE, CONSISTENT), calls=2, crashes=0),
)

Property = Callable[[Observed], bool]
Happened = Callable[[str, World, World], bool]
"""A step's label, the state before it and the state after it -> whether the interesting thing happened."""


def leaders(world: World) -> int:
    """How many servers believe that they lead (an agent's index in `agents` is that of its name in the bounds)."""
    names = Bounds().servers
    return sum(agent.leader == name for agent, name in zip(world.agents, names, strict=False))


def answered(world: World, answer: Answer, *, writes: bool) -> bool:
    """Whether a client got this answer to a write, or to a read."""
    return any(told.request.writes == writes and told.answer == answer for told in world.answers)


def read_missed(world: World, mode: Mode) -> bool:
    """Whether a read of this mode did not see what was committed when it was asked."""
    floors = dict(world.asked)
    return any(
        told.request.mode is mode and len(told.seen) < floors[told.request]
        for told in world.answers
        if told.answer is Answer.ACKNOWLEDGED and not told.request.writes
    )


def waits_for_index(agent: Agent) -> bool:
    """Whether a confirmed read waits at this agent for the state machine."""
    phases = (task.phase for task in agent.tasks)
    return any(isinstance(phase, Confirmed) and phase.index > len(agent.applied) for phase in phases)


SOMETIMES: dict[str, Happened] = {
    "a write through a client agent is acknowledged": lambda label, _, w: (
        label.startswith("handle_reply(c") and answered(w, Answer.ACKNOWLEDGED, writes=True)
    ),
    "a read is acknowledged": lambda _, __, w: answered(w, Answer.ACKNOWLEDGED, writes=False),
    "a write is refused": lambda _, __, w: answered(w, Answer.REFUSED, writes=True),
    "an unknown write is committed": lambda label, _, w: (
        label.startswith("commit(") and answered(w, Answer.UNKNOWN, writes=True)
    ),
    "an unknown write is not committed": lambda _, __, w: answered(w, Answer.UNKNOWN, writes=True) and not w.log,
    "two servers believe that they lead": lambda _, __, w: leaders(w) == 2,
    "a write whose first call was refused is acknowledged": lambda _, __, w: (
        answered(w, Answer.ACKNOWLEDGED, writes=True) and max(agent.calls for agent in w.agents) == 2
    ),
    "a read is held again after its connection was lost": lambda label, before, w: (
        label.startswith("connection_lost_at_caller") and before.agents != w.agents and not w.answers
    ),
    "a read waits until its index is applied": lambda label, before, _: (
        label.startswith("apply_entry") and any(waits_for_index(agent) for agent in before.agents)
    ),
    "a former leader answers a confirmed read": lambda label, before, w: (
        label.startswith("answer_read") and leaders(before) == 0
    ),
    "a read through a client agent sees another client's write": lambda label, _, w: (
        label.startswith("handle_reply(c") and any(told.seen for told in w.answers)
    ),
    "a stale read misses what was acknowledged": lambda _, __, w: read_missed(w, Mode.STALE),
    "a default read misses it where leases are broken": lambda _, __, w: read_missed(w, Mode.DEFAULT),
}


class Search(msgspec.Struct):
    """What one search did, for reports; `path` leads to the first state that breaks `broken`."""

    states: int = 0
    generated: int = 0
    depth: int = 0
    exhausted: bool = True
    actions: Counter[str] = msgspec.field(default_factory=Counter)
    happened: set[str] = msgspec.field(default_factory=set)
    broken: str = ""
    path: list[str] = []


def explore_forwarding(
    bounds: tuple[Bounds, ...] = VERIFY,
    mutant: str | None = None,
    properties: tuple[Property, ...] = PROPERTIES,
    states_max: int = STATES_MAX,
) -> CheckResult:
    """Explore each of `bounds` to the end. INVALID names the property and shows a shortest path.

    `mutant` is the name of a broken variant in `forwarding_mutants`; KeyError if there is none.
    """
    started = time.monotonic()
    with applied_mutant(MUTANTS[mutant]) if mutant else nullcontext():
        searches: list[Search] = []
        for each in bounds:
            searches.append(search(each, properties, states_max))
            if searches[-1].broken:
                break
    return reported(searches, mutant, states_max, time.monotonic() - started)


def search(bounds: Bounds, properties: tuple[Property, ...], states_max: int) -> Search:
    """Breadth-first search from the initial world; ends at the first broken property, at exhaustion, or at
    `states_max`.
    """
    start = initial_world(bounds)
    parents: dict[World, tuple[World, str] | None] = {start: None}
    frontier, done = [start], Search(states=1)
    while frontier:
        done.depth += 1
        found: list[World] = []
        for world in frontier:
            for label, after in steps(bounds, world):
                done.generated += 1
                done.actions[label.partition("(")[0]] += 1
                if after in parents:
                    continue
                note_what_happened(done, label, world, after)
                parents[after] = (world, label)
                found.append(after)
                done.broken = broken_property(bounds, after, properties)
                if done.broken:
                    done.path, done.states = path_to(parents, after), len(parents)
                    return done
        frontier, done.states = found, len(parents)
        if done.states > states_max:
            done.exhausted = False
            return done
    return done


def note_what_happened(done: Search, label: str, before: World, after: World) -> None:
    """Evaluate the `sometimes` properties that were not seen yet, on a step that led to a new state."""
    if len(done.happened) < len(SOMETIMES):
        done.happened.update(
            name for name, seen in SOMETIMES.items() if name not in done.happened and seen(label, before, after)
        )


def broken_property(bounds: Bounds, world: World, properties: tuple[Property, ...]) -> str:
    """The first property that does not hold in `world`, or an empty string."""
    seen = observed(bounds, world)
    return next((prop.__name__ for prop in properties if not prop(seen)), "")


def path_to(parents: dict[World, tuple[World, str] | None], world: World) -> list[str]:
    """The labels of the steps from the initial world to `world`."""
    labels: list[str] = []
    while (link := parents[world]) is not None:
        world, label = link
        labels.append(label)
    return labels[::-1]


def reported(searches: list[Search], mutant: str | None, states_max: int, seconds: float) -> CheckResult:
    """One result for all searches."""
    actions: Counter[str] = sum((done.actions for done in searches), Counter())
    happened = set(actions).union(*(done.happened for done in searches))
    never = sorted((set(SOMETIMES) | ACTIONS) - happened)
    result = CheckResult(
        checker=CHECKER,
        verdict=merge(Verdict.VALID if done.exhausted else Verdict.UNKNOWN for done in searches),
        figures={
            "mutant": mutant,
            "states": sum(done.states for done in searches),
            "generated": sum(done.generated for done in searches),
            "depth": max(done.depth for done in searches),
            "actions": dict(sorted(actions.items())),
            "never": never,
        },
        seconds=seconds,
    )
    last = searches[-1]
    if last.broken:
        result.verdict, result.property = Verdict.INVALID, last.broken
        result.reason = f"{last.broken} is broken after {len(last.path)} steps"
        result.details = "\n".join(f"{number:3}. {label}" for number, label in enumerate(last.path, 1))
    elif result.verdict == Verdict.UNKNOWN:
        result.reason = f"not exhausted within {states_max} states: use smaller bounds"
    elif never:
        result.verdict, result.reason = Verdict.UNKNOWN, f"vacuous: never happened: {'; '.join(never)}"
    return result
