"""What is proved of Raft, evaluated on what real servers did.

Every step is judged by itself. Facts (a leader was elected, an entry committed or applied, a read answered) are judged
pairwise, as they become true: over the whole run, not only at one time. Cuts are judged whole: at every election, every
`CUT_EVERY` steps and at the end, every server's state and every pair of servers, by the properties that exploration and
the proofs check. The replay passes consistent cuts only (`replay`), so a violation is real in every order of events
that the traces allow.

Reads by lease are the exception: their promise rests on time, not on messages, so they are judged at the end, against
what was committed before them by the clock that all servers share.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import ParamSpec

from model_checks.conformance.divergence import INVARIANTS, Divergence, Place
from model_checks.conformance.entries import digest_of
from model_checks.conformance.observed import observed
from model_checks.conformance.server import ServerReplay
from spec.raft.log import EMPTY, Log
from spec.raft.network import History, Transition, with_commitment
from spec.raft.properties import FACT_PROPERTIES, HISTORY_PROPERTIES, PAIR_PROPERTIES, STEP_PROPERTIES
from spec.raft.properties import INVARIANTS as SERVER_INVARIANTS
from spec.raft.types import (
    Applied,
    Committed,
    Constants,
    Elected,
    Entry,
    Fact,
    Index,
    ReadAnswered,
    ReadConfirmed,
    ReadStarted,
    Restored,
    Time,
)

CUT_EVERY = 5_000


class Invariants:
    """The history that properties over time need, and the properties."""

    def __init__(self, constants: Constants) -> None:
        self.constants = constants
        self.history = History()
        self.applied: list[Entry] = []
        """The entries that some server applied, from index 1 on: all servers must have applied the same ones."""
        self.facts: Counter[str] = Counter()
        self.cuts = 0
        self._floors: dict[str, Index] = {}
        """Read -> the highest index that was committed anywhere when it arrived."""
        self._committed_at: list[tuple[int, Index]] = []
        """Commitments: when (nanoseconds, at the latest), and up to which index."""
        self._by_lease: list[tuple[Time, ReadConfirmed, Place]] = []

    @property
    def committed(self) -> Log:
        """The longest log that some leader committed."""
        return max((fact.log for fact in self.history.committed), key=len, default=EMPTY)

    def taken(self, step: Transition) -> None:
        """Judge a step. Raises Divergence."""
        for name, holds in STEP_PROPERTIES.items():
            if not evaluated(holds, step):
                both = [f"  before: {observed(step.before)}", f"  after:  {observed(step.after)}"]
                raise Divergence(INVARIANTS, name, f"{step.server} took {step.action}", both)

    def fact(self, replayed: ServerReplay, fact: Fact) -> None:
        """Judge a fact against the history, then add it. Raises Divergence."""
        self.facts[type(fact).__name__] += 1
        server = replayed.node
        if isinstance(fact, Applied):
            self._applied(server, fact)
            return
        if isinstance(fact, Restored):
            self._restored(server, fact)
            return
        if replayed.action == "lease_read":
            if isinstance(fact, ReadConfirmed):
                self._by_lease.append((replayed.clock, fact, replayed.here()))
            return
        history = self.history
        if isinstance(fact, ReadConfirmed | ReadAnswered):
            history = History(reads=((fact.id, self._floors.get(fact.id, 0)),))
        self._judge(server, fact, history)
        if isinstance(fact, Elected):
            self.history = History((*history.elected, fact), history.committed)
        elif isinstance(fact, Committed):
            self.history = History(history.elected, with_commitment(history.committed, fact))
            self._committed_at.append((replayed.here().ns, fact.index))
        elif isinstance(fact, ReadStarted):
            self._floors[fact.id] = history.highest_committed

    def _applied(self, server: str, fact: Applied) -> None:
        """Equal to what another server applied at this index, which was judged then; otherwise judged now."""
        if fact.index > len(self.applied):
            self.applied.append(fact.entry)  # each server applies every index in order: none is skipped
        elif self.applied[fact.index - 1] == fact.entry:
            return
        else:
            why = f"{server} applied {fact.entry} at index {fact.index}, another server {self.applied[fact.index - 1]}"
            raise Divergence(INVARIANTS, "State Machine Safety", why)
        self._judge(server, fact, self.history)

    def _restored(self, server: str, fact: Restored) -> None:
        """What a snapshot holds is what was applied: chained digests make the last entry stand for all."""
        self.applied += fact.log.slice(len(self.applied), fact.index) if fact.index > len(self.applied) else ()
        if self.applied[fact.index - 1] != fact.log.entry(fact.index):
            why = f"{server} restored {fact.log.entry(fact.index)} at index {fact.index}"
            others = f"others applied {self.applied[fact.index - 1]}"
            raise Divergence(INVARIANTS, "State Machine Safety", f"{why}, {others}")
        self._judge(server, fact, self.history)

    def judge_leases(self) -> Divergence | None:
        """The first read by lease that does not cover what was committed before it."""
        commitments, floor = sorted(self._committed_at, reverse=True), 0
        for now, read, place in sorted(self._by_lease, key=lambda each: each[0]):
            while commitments and commitments[-1][0] < now:
                floor = max(floor, commitments.pop()[1])
            if read.index < floor:
                why = f"{read.id} was confirmed by a lease at index {read.index}, when {floor} was committed"
                divergence = Divergence(INVARIANTS, "Read Linearizability", why)
                divergence.place = place
                return divergence
        return None

    def _judge(self, server: str, fact: Fact, history: History) -> None:
        for name, holds in FACT_PROPERTIES.items():
            if not evaluated(holds, self.constants, history, fact):
                raise Divergence(INVARIANTS, name, f"{server}: {described(fact)}", described_history(history))

    def cut(self, servers: dict[str, ServerReplay]) -> None:
        """Judge the cut at which the replay stands. Raises Divergence."""
        self.cuts += 1
        states = [(name, replayed.spec) for name, replayed in sorted(servers.items())]
        for name, state in states:
            for prop, holds in SERVER_INVARIANTS.items():
                if not evaluated(holds, self.constants, name, state):
                    raise Divergence(INVARIANTS, prop, f"{name} in a consistent cut", [f"  {observed(state)}"])
            for prop, covered in HISTORY_PROPERTIES.items():
                if not evaluated(covered, self.history, state):
                    raise Divergence(INVARIANTS, prop, f"{name} in a consistent cut", [f"  {observed(state)}"])
        for at, (name, state) in enumerate(states):
            for other_name, other in states[at + 1 :]:
                for prop, agree in PAIR_PROPERTIES.items():
                    if not evaluated(agree, state, other):
                        both = [f"  {name}: {observed(state)}", f"  {other_name}: {observed(other)}"]
                        raise Divergence(INVARIANTS, prop, f"{name} and {other_name} in a consistent cut", both)


P = ParamSpec("P")


def evaluated(holds: Callable[P, bool], *args: P.args, **kwargs: P.kwargs) -> bool:
    """Whether a property holds. It does not where it speaks of entries that a log lost."""
    try:
        return holds(*args, **kwargs)
    except IndexError:
        return False


def described(fact: Fact) -> str:
    """A fact on one line: logs by length and digest."""
    if isinstance(fact, Elected):
        return f"elected in term {fact.term} with a log of {fact.log.length} entries ({digest_of(fact.log)})"
    if isinstance(fact, Committed):
        return f"committed index {fact.index} in term {fact.term} ({digest_of(fact.log)})"
    if isinstance(fact, Restored):
        return f"restored a snapshot of {fact.index} entries ({digest_of(fact.log)})"
    return repr(fact)


def described_history(history: History) -> list[str]:
    """The facts that a new one was judged against."""
    return [f"  before: {fact.server}: {described(fact)}" for fact in history.elected] + [
        f"  before: {described(fact)}" for fact in history.committed
    ]
