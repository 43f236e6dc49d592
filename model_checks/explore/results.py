"""What an exploration yields: counts, coverage, witnesses, the local steps met, and perhaps a counterexample."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from model_checks.verdicts import Verdict
from spec.raft.actions import ACTIONS
from spec.raft.bounds import Bounds
from spec.raft.network import Transition, World
from spec.raft.witnesses import SOMETIMES, SOMETIMES_PAIR


class Limits(msgspec.Struct, frozen=True):
    """Where a search gives up. Reaching one makes the verdict UNKNOWN, unlike the spec's own bounds."""

    states: int = 50_000_000
    seconds: float = float("inf")


class Counterexample(msgspec.Struct, frozen=True):
    """A shortest path from the start to the violation: the last step breaks the property."""

    broken: str
    start: World
    steps: tuple[Transition, ...]


class Exploration(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one search. `distinct` and `generated` count global states; steps without effect are left out, but
    handlers that answer are not."""

    start: str
    bounds: Bounds
    distinct: int
    generated: int
    depth: int
    """Steps on the longest of the shortest paths from the start to any state."""
    seconds: float
    incomplete: str
    """Why the search gave up before every state within the bounds was seen; empty if it did not."""
    taken: Mapping[str, int]
    """Per action, global steps taken that changed something."""
    transitions: tuple[Transition, ...]
    """Every distinct local step met, sends and steps without effect included."""
    witnesses: Mapping[str, int]
    """Per `sometimes` property, in how many local steps (or worlds' pairs of servers) it was seen; 0 is vacuous."""
    counterexample: Counterexample | None = None

    @property
    def verdict(self) -> Verdict:
        """INVALID with a counterexample; VALID if every state within the bounds was seen; else UNKNOWN."""
        if self.counterexample is not None:
            return Verdict.INVALID
        return Verdict.UNKNOWN if self.incomplete else Verdict.VALID

    @property
    def local_transitions(self) -> Iterable[Transition]:
        """Every distinct local step met: what linking consumes."""
        return self.transitions

    @property
    def coverage(self) -> Mapping[str, int]:
        """Per action of the spec, the number of distinct local steps met; 0 means never taken."""
        return count_actions(self.transitions)


def count_actions(transitions: Iterable[Transition]) -> dict[str, int]:
    """The number of `transitions` of each action of the spec."""
    counts = dict.fromkeys(ACTIONS, 0)
    for step in transitions:
        counts[step.action] = counts.get(step.action, 0) + 1
    return counts


def count_witnesses(transitions: Iterable[Transition], pairs: Mapping[str, int]) -> dict[str, int]:
    """How often each `sometimes` property was seen: in `transitions`, and as counted in `pairs` of servers."""
    counts = dict.fromkeys((*SOMETIMES, *SOMETIMES_PAIR), 0)
    for step in transitions:
        for name, seen in SOMETIMES.items():
            counts[name] += seen(step)
    return counts | dict(pairs)
