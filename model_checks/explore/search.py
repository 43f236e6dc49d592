"""Breadth-first search over interned global states: the fast search, and `explore`, which picks one of the two.

The inner loop adds numbers and looks them up; everything else happens once per local step, per pair of views, or per
new history, in `interned`. Breadth first, so that the first violation found has a shortest path.
"""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from itertools import pairwise
from typing import assert_never

from model_checks.explore.interned import FIELD, MASK, SENDING, Move, Tables
from model_checks.explore.judge import PROPERTIES, Judge
from model_checks.explore.plain import PlainSearch
from model_checks.explore.results import Counterexample, Exploration, Limits, count_witnesses
from spec.raft.actions import ACTIONS
from spec.raft.bounds import Bounds
from spec.raft.network import Protocol, Transition, World, initial_world
from spec.raft.types import Time
from spec.raft.witnesses import SOMETIMES_PAIR


class Engine(StrEnum):
    """How a search works: as the spec reads, over interned tables, or over these with a compiled inner loop."""

    PLAIN = "plain"
    INTERNED = "interned"
    COMPILED = "compiled"


Progress = Callable[[int, int, int], None]
"""Called after each level with the depth, the number of distinct states and the size of the frontier."""


@contextmanager
def collector_paused() -> Iterator[None]:
    """No cyclic garbage collection meanwhile: tables only grow, and walking them again and again costs a third of the
    time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class Violation(Exception):
    """The search met a broken property. `step` is the local step that broke it; None: the start itself is broken."""

    def __init__(self, broken: str, state: int, step: Transition | None) -> None:
        super().__init__(broken)
        self.broken, self.state, self.step = broken, state, step


class InternedSearch:
    """One search; `run` may be called once. `parents` maps every state found to the state it was found from."""

    def __init__(self, protocol: Protocol, bounds: Bounds, judge: Judge, limits: Limits) -> None:
        self.bounds, self.judge, self.limits = bounds, judge, limits
        self.tables = Tables(protocol, bounds, judge)
        self.width = self.tables.width
        self.parents: dict[int, int] = {}
        self.generated = 0
        self.visits: list[Counter[int]] = [Counter() for _ in range(self.width)]
        self.recorded_taken: Counter[int] = Counter()
        self.frontier: list[int] = []
        self.found: list[int] = []
        self._pairs: set[int] = set()
        self._pasts: set[int] = set()
        self._after: dict[int, tuple[str | None, int | None]] = {}

    def run(self, name: str, start: World, progress: Progress | None = None) -> Exploration:
        """Explore everything that `start` reaches within the bounds."""
        with collector_paused():
            return self.explore(name, start, progress)

    def explore(self, name: str, start: World, progress: Progress | None) -> Exploration:
        """`run`, with whatever garbage collection is in force."""
        began, incomplete, depth, counterexample = time.monotonic(), "", 0, None
        first = self.tables.pack(start)
        self.begin(first)
        try:
            self.look_at_start(first)
            self.look_at(first, first, None, range(self.width))
            while self.frontier_size() and not incomplete:
                incomplete = self.expand(began)
                depth += bool(self.frontier_size())
                if progress is not None:
                    progress(depth, self.distinct(), self.frontier_size())
        except Violation as violation:
            counterexample = self.counterexample(violation)
        self.count_visits()
        transitions = self.transitions_met(counterexample)
        return Exploration(
            start=name,
            bounds=self.bounds,
            distinct=self.distinct(),
            generated=self.generated,
            depth=depth,
            seconds=time.monotonic() - began,
            incomplete=incomplete,
            taken=self.taken(),
            transitions=transitions,
            witnesses=count_witnesses(transitions, self.witnessed_pairs()),
            counterexample=counterexample,
        )

    def begin(self, first: int) -> None:
        """Make the start the frontier."""
        self.parents[first] = first
        self.found = [first]

    def distinct(self) -> int:
        """How many states were found."""
        return len(self.parents)

    def frontier_size(self) -> int:
        """How many of them are still to be expanded."""
        return len(self.found)

    def expand(self, began: float) -> str:
        """Find the states one step beyond the frontier; returns why the search gives up, if it does."""
        self.frontier, self.found = self.found, []
        for batch in range(0, len(self.frontier), 20_000):
            self.expand_batch(self.frontier[batch : batch + 20_000], self.found)
            if len(self.parents) > self.limits.states:
                return f"stopped at {len(self.parents):,} states"
            if time.monotonic() - began > self.limits.seconds:
                return f"stopped after {self.limits.seconds:g} seconds"
        return ""

    def expand_batch(self, batch: list[int], found: list[int]) -> None:
        """Append the new states one step beyond `batch` to `found`. The inner loop of the search."""
        tables, parents, visits = self.tables, self.parents, self.visits
        moves_of, deliveries = tables.moves, tables.deliveries
        generated = 0
        for state in batch:
            for position in range(self.width):
                number = state >> FIELD * position & MASK
                visits[position][number] += 1
                moves = moves_of[position].get(number)
                if moves is None:
                    moves = tables.fill(position, number)
                for move in moves:
                    after = state + move.delta
                    if move.recorded >= 0:
                        added = self.recorded(state, move.recorded)
                        if added is None:
                            continue
                        after += added
                    for to, letter in move.sent:
                        receiver = state >> FIELD * to & MASK
                        joined = deliveries[to].get(receiver << FIELD | letter)
                        after += tables.deliver(to, receiver, letter) if joined is None else joined
                    generated += 1
                    if after not in parents:
                        parents[after] = state
                        found.append(after)
                        if move.looks_new or move.recorded >= 0:
                            self.look_at(after, state, move, (position,))
        self.generated += generated

    def recorded(self, state: int, number: int) -> int | None:
        """What a recorded step adds to the history's field; None if it would leave the bounds. Raises Violation."""
        history = state >> FIELD * self.width
        key = history << FIELD | number
        known = self._after.get(key)
        if known is None:
            known = self._after[key] = self.tables.after_record(history, number)
        broken, after = known
        if broken is not None:
            raise Violation(broken, state, self.tables.recorded[number])
        if after is None:
            return None
        self.recorded_taken[number] += 1
        return (after - history) << FIELD * self.width

    def look_at(self, after: int, state: int, move: Move | None, changed: Iterable[int]) -> None:
        """Judge a new state: its pairs of servers and its servers against the history. Raises Violation."""
        tables = self.tables
        views = [tables.views[position][after >> FIELD * position & MASK] for position in range(self.width)]
        history = after >> FIELD * self.width
        if history != state >> FIELD * self.width:
            changed = range(self.width)
        for position in changed:
            past = history << FIELD | views[position]
            if past not in self._pasts:
                self._pasts.add(past)
                broken = self.judge.past(tables.histories.values[history], tables.view_servers[views[position]])
                self.stop_if(broken, after, state, move)
            for other in views:
                pair = views[position] << FIELD | other
                if pair not in self._pairs:
                    self._pairs.add(pair)
                    broken = self.judge.pair(tables.view_servers[views[position]], tables.view_servers[other])
                    self.stop_if(broken, after, state, move)

    def look_at_start(self, first: int) -> None:
        """Judge the states of the start by themselves and what they may send. Raises Violation."""
        for position, i in enumerate(self.tables.c.servers):
            number = self.tables.configurations[position].values[first >> FIELD * position & MASK].server
            broken = self.judge.state(i, self.tables.servers.values[number])
            self.stop_if(broken or self.tables.outbox(position, number).broken, first, first, None)

    def stop_if(self, broken: str | None, after: int, state: int, move: Move | None) -> None:
        """Raise Violation for a state just reached by `move`, or for the start."""
        if broken is not None:
            raise Violation(broken, state, None if move is None else self.step_between(state, after))

    # ------------------------------------------------------------------------------------------------------ results

    def step_between(self, state: int, after: int) -> Transition:
        """The first local step that leads from `state` to `after`."""
        for position in range(self.width):
            number = state >> FIELD * position & MASK
            moves = self.tables.moves[position].get(number) or self.tables.fill(position, number)
            for move, step in zip(moves, self.tables.move_steps[position][number], strict=True):
                if self.reaches(state, move) == after:
                    return step
        raise AssertionError("every state but the first was found by a step")

    def reaches(self, state: int, move: Move) -> int | None:
        """The state after `move`; None if it leaves the bounds."""
        after = state + move.delta
        for to, letter in move.sent:
            after += self.tables.deliver(to, state >> FIELD * to & MASK, letter)
        if move.recorded >= 0:
            history = state >> FIELD * self.width
            _, next_history = self.tables.after_record(history, move.recorded)
            if next_history is None:
                return None
            after += (next_history - history) << FIELD * self.width
        return after

    def counterexample(self, violation: Violation) -> Counterexample:
        """The path to the violation, read back from the parents."""
        path = [] if violation.step is None else [violation.step]
        states = self.path_before(violation.state)
        for after, before in pairwise(states):
            path.append(self.step_between(before, after))
        return Counterexample(violation.broken, self.tables.unpack(states[-1]), tuple(reversed(path)))

    def path_before(self, state: int) -> list[int]:
        """The states from `state` back to the start."""
        path = [state]
        while (parent := self.parents[path[-1]]) != path[-1]:
            path.append(parent)
        return path

    def count_visits(self) -> None:
        """Bring `visits`, `frontier` and `found` up to date, for searches that count elsewhere."""

    def transitions_met(self, counterexample: Counterexample | None) -> tuple[Transition, ...]:
        """The distinct local steps met: from states that were reached, and recorded ones if the history let them be."""
        tables = self.tables
        never = {step for number, step in enumerate(tables.recorded) if not self.recorded_taken[number]}
        if counterexample is not None:
            never.difference_update(counterexample.steps)
        reached = {(position, number) for position in range(self.width) for number in self.visits[position]}
        for state in (*self.frontier, *self.found):
            reached.update((position, state >> FIELD * position & MASK) for position in range(self.width))
        origins: set[tuple[int, int, Time]] = set()
        for position, number in reached:
            server, _, now = tables.configurations[position].values[number]
            origins.update(((position, server, now), (position, server, SENDING)))
        met = (step for step, origin in tables.transitions if origin in origins and step not in never)
        return tuple(dict.fromkeys(met)) if self.bounds.max_time else tuple(met)

    def taken(self) -> dict[str, int]:
        """Per action, global steps with an effect: visits of each configuration times its moves."""
        counts: Counter[str] = Counter()
        for number, times in self.recorded_taken.items():
            counts[self.tables.recorded[number].action] += times
        for position in range(self.width):
            for number, moves in self.tables.moves[position].items():
                times = self.visits[position][number]
                for move, step in zip(moves, self.tables.move_steps[position][number], strict=True):
                    if move.recorded < 0:
                        counts[step.action] += times
        return dict(counts)

    def witnessed_pairs(self) -> dict[str, int]:
        """Per `sometimes` property of pairs, the number of pairs of views met in one world that show it."""
        met = [(pair >> FIELD, pair & MASK) for pair in sorted(self._pairs)]
        servers = self.tables.view_servers
        return {name: sum(seen(servers[a], servers[b]) for a, b in met) for name, seen in SOMETIMES_PAIR.items()}


def explore(
    bounds: Bounds,
    *,
    protocol: Protocol = ACTIONS,
    start: World | None = None,
    start_name: str = "initial",
    properties: Iterable[str] = PROPERTIES,
    limits: Limits | None = None,
    engine: Engine = Engine.INTERNED,
    progress: Progress | None = None,
) -> Exploration:
    """Explore every interleaving of `protocol` within `bounds` from `start` (default: the initial world).

    All engines give the same counts; `PLAIN` is the oracle. The result's `local_transitions` are the distinct local
    steps met, for linking. Raises OverflowError if the bounds are too wide for the packed states, ValueError for an
    unknown property.
    """
    c = bounds.constants()
    judge = Judge(c, properties)
    world = initial_world(c) if start is None else start
    match engine:
        case Engine.PLAIN:
            return PlainSearch(protocol, bounds, judge, limits or Limits()).run(start_name, world)
        case Engine.INTERNED:
            return InternedSearch(protocol, bounds, judge, limits or Limits()).run(start_name, world, progress)
        case Engine.COMPILED:
            from model_checks.explore.compiled import CompiledSearch

            return CompiledSearch(protocol, bounds, judge, limits or Limits()).run(start_name, world, progress)
        case _:
            assert_never(engine)
