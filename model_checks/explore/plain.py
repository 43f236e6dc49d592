"""Breadth-first search over worlds exactly as `spec.raft.network` composes them: the oracle for the fast search.

It holds whole worlds in a dictionary and computes each step anew: slow (some thousand states a second) and plain to
read. With `reduced=False` it takes neither sends at once nor forgets dead messages, which is the unreduced semantics
that the reduction must preserve.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from itertools import combinations

from model_checks.explore.judge import Judge
from model_checks.explore.results import Counterexample, Exploration, Limits, count_witnesses
from spec.raft.bounds import Bounds
from spec.raft.network import ADVANCE_CLOCK, Protocol, Transition, World, sends, settled, steps, take
from spec.raft.types import Constants
from spec.raft.witnesses import SOMETIMES_PAIR


class PlainSearch:
    """One search; `run` may be called once. `worlds` maps every world found to the step and world it was found by."""

    def __init__(
        self, protocol: Protocol, bounds: Bounds, judge: Judge, limits: Limits, *, reduced: bool = True
    ) -> None:
        self.protocol, self.bounds, self.judge, self.limits, self.reduced = protocol, bounds, judge, limits, reduced
        self.c: Constants = judge.c
        self.worlds: dict[World, tuple[World, Transition] | None] = {}
        self.transitions: dict[Transition, None] = {}
        self.taken: Counter[str] = Counter()
        self.witnessed: Counter[str] = Counter()
        self.generated = 0

    def run(self, name: str, start: World) -> Exploration:
        """Explore everything that `start` reaches within the bounds."""
        began, incomplete, depth, counterexample = time.monotonic(), "", 0, None
        if self.reduced:
            for i in self.c.servers:
                start = settled(self.protocol, self.c, start, i)
        self.worlds[start] = None
        broken = self.judge_world(start)
        if broken is not None:
            counterexample = Counterexample(broken, start, ())
        frontier = [start]
        while frontier and counterexample is None and not incomplete:
            found, counterexample = self.expand(frontier)
            frontier, depth = found, depth + bool(found)
            if len(self.worlds) > self.limits.states:
                incomplete = f"stopped at {len(self.worlds):,} states"
            elif time.monotonic() - began > self.limits.seconds:
                incomplete = f"stopped after {self.limits.seconds:g} seconds"
        return Exploration(
            start=name,
            bounds=self.bounds,
            distinct=len(self.worlds),
            generated=self.generated,
            depth=depth,
            seconds=time.monotonic() - began,
            incomplete=incomplete,
            taken=dict(self.taken),
            transitions=tuple(self.transitions),
            witnesses=count_witnesses(self.transitions, self.witnessed),
            counterexample=counterexample,
        )

    def expand(self, frontier: list[World]) -> tuple[list[World], Counterexample | None]:
        """The new worlds one step beyond `frontier`, and the first violation met."""
        found: list[World] = []
        for world in frontier:
            for step, after in self.successors(world):
                broken = self.judge.step(step) or self.judge.facts(world.history, step)
                if broken is None and after not in self.worlds:
                    self.worlds[after] = (world, step)
                    found.append(after)
                    broken = self.judge_world(after)
                if broken is not None:
                    return found, self.counterexample(broken, world, step)
        return found, None

    def successors(self, world: World) -> Iterator[tuple[Transition, World]]:
        """Every step from `world` that has an effect, with the world after it; records all that it meets."""
        every = [(step, bool(step.outcome.sent)) for step in steps(self.protocol, self.c, self.bounds, world)]
        for i, s in zip(self.c.servers, world.servers, strict=True):
            every += [(step, False) for step in sends(self.protocol, self.c, i, s)]
        for step, answers in every:
            after = take(self.c, self.bounds, world, step)
            if after is None:
                continue
            if step.action != ADVANCE_CLOCK:
                self.transitions[step] = None
            idle = not answers and step.action != ADVANCE_CLOCK
            if step.changes_nothing and (idle if self.reduced else after == world):
                continue
            self.taken[step.action] += 1
            self.generated += 1
            yield step, settled(self.protocol, self.c, after, step.server) if self.reduced else after

    def judge_world(self, world: World) -> str | None:
        """Name the first property that `world` breaks; notes the witnesses that it holds."""
        for s, t in combinations(world.servers, 2):
            for name, seen in SOMETIMES_PAIR.items():
                self.witnessed[name] += seen(s, t)
        for i, s in zip(self.c.servers, world.servers, strict=True):
            sent = [m for step in sends(self.protocol, self.c, i, s) for m in step.outcome.sent]
            broken = self.judge.state(i, s) or self.judge.sent(s, sent) or self.judge.past(world.history, s)
            broken = broken or next(filter(None, (self.judge.pair(s, t) for t in world.servers)), None)
            if broken is not None:
                return broken
        return None

    def counterexample(self, broken: str, world: World, last: Transition) -> Counterexample:
        """The path by which `world` was found, with `last` at its end."""
        path, here = [last], world
        while (found_by := self.worlds[here]) is not None:
            here, step = found_by
            path.append(step)
        return Counterexample(broken, here, tuple(reversed(path)))
