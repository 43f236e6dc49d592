"""Replicas of one log: each has applied a prefix of it, or begun with a snapshot of another's state.

The catalog is a state of which nothing is known but that the next one is a function `run` of it, an entry and its
index: that is what `lockstep` shows. `history(i)` is the state that the first i entries make of the empty one. Which
entry is at an index is the same for all (Raft's state_machine_safety).

Source: Schneider 1990 (state machine approach). Must not: know what a state is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from model_checks.proofs.algebra import (
    Algebra,
    Arity,
    Signature,
    Sort,
    Symbols,
    System,
    Transition,
    Value,
    action,
    state_property,
)
from model_checks.proofs.bounded import Scenario
from model_checks.proofs.finite import FiniteAlgebra, Sizes
from model_checks.proofs.model import set_at

NODE, COPY, STATE, VALUE, INDEX = Sort.NODE, Sort.COPY, Sort.STATE, Sort.VALUE, Sort.INDEX

RIGID: Final[Signature] = {
    "empty": Arity((), STATE),
    "entry": Arity((INDEX,), VALUE),
    "run": Arity((STATE, VALUE, INDEX), STATE),
    "history": Arity((INDEX,), STATE),
    "run_here": Arity((NODE, STATE, VALUE, INDEX), STATE),
    "without_sessions": Arity((STATE,), STATE),
}
"""The log, what entries do, the states that they make. The last two are the mutants': what one replica makes of an
entry by itself, and a state without its sessions."""

SIGNATURE: Final[Signature] = {
    "state": Arity((NODE,), STATE),
    "applied": Arity((NODE,), INDEX),
    "taken": Arity((COPY,), Sort.BOOL),
    "snapshot": Arity((COPY,), STATE),
    "snapshot_index": Arity((COPY,), INDEX),
}
"""Replicas, and snapshots: whether one was taken, its state, the last entry that it holds."""

MUTANTS: Final[Mapping[str, str]] = {
    "apply_depends_on_replica": "what an entry does depends on who applies it",
    "install_forgets_sessions": "a replica that installs a snapshot does not take its sessions",
    "install_keeps_index": "a replica that installs a snapshot goes on with the entries that it had not applied",
    "snapshot_of_another_index": "a snapshot names another entry than the last that it holds",
}
"""Replicas that differ."""

ASSUMED: Final[Mapping[str, str]] = {
    "whole/state_machine_safety": "all replicas apply the same entry at an index",
    "lockstep/equal_steps_equal_tables": "what an entry does is a function of the tables and the entry",
}
"""What is proved of other systems."""


def axioms(a: Algebra) -> Sequence[Value]:
    """The history of the log."""
    r = a.rigid

    def next_state(i: Value, j: Value) -> Value:
        return a.implies(a.successor(i, j), r.history(j) == r.run(r.history(i), r.entry(j), j))

    return (
        r.history(a.genesis) == r.empty(),
        a.forall((INDEX, INDEX), next_state, lambda i, j: [[r.history(i), r.entry(j)]]),
    )


def initial(a: Algebra, s: Symbols) -> Value:
    """All replicas are empty; no snapshot was taken."""
    return a.conj(
        a.forall((NODE,), lambda n: a.conj(s.state(n) == a.rigid.empty(), s.applied(n) == a.genesis)),
        a.forall((COPY,), lambda b: a.neg(s.taken(b))),
    )


@action(n=NODE, j=INDEX)
def apply(a: Algebra, s: Symbols, n: Value, j: Value) -> Transition:
    """A replica applies the next entry."""
    r = a.rigid
    made = r.run(s.state(n), r.entry(j), j)
    if a.mutated("apply_depends_on_replica"):
        made = r.run_here(n, s.state(n), r.entry(j), j)
    return Transition(
        a.successor(s.applied(n), j), {"state": set_at(a, s.state, n, made), "applied": set_at(a, s.applied, n, j)}
    )


@action(n=NODE, b=COPY, i=INDEX)
def take_snapshot(a: Algebra, s: Symbols, n: Value, b: Value, i: Value) -> Transition:
    """A replica's state is written down, with the last entry that it holds."""
    return Transition(
        a.unless("snapshot_of_another_index", i == s.applied(n)),
        {
            "taken": lambda x: a.disj(x == b, s.taken(x)),
            "snapshot": set_at(a, s.snapshot, b, s.state(n)),
            "snapshot_index": set_at(a, s.snapshot_index, b, i),
        },
    )


@action(n=NODE, b=COPY)
def install(a: Algebra, s: Symbols, n: Value, b: Value) -> Transition:
    """A replica that is behind takes a snapshot, its own after a restart, or another's."""
    found = s.snapshot(b)
    if a.mutated("install_forgets_sessions"):
        found = a.rigid.without_sessions(found)
    index = s.applied(n) if a.mutated("install_keeps_index") else s.snapshot_index(b)
    return Transition(
        a.conj(s.taken(b), a.lt(s.applied(n), s.snapshot_index(b))),
        {"state": set_at(a, s.state, n, found), "applied": set_at(a, s.applied, n, index)},
    )


@action(n=NODE)
def restart(a: Algebra, s: Symbols, n: Value) -> Transition:
    """A replica forgets everything."""
    return Transition(
        True,
        {"state": set_at(a, s.state, n, a.rigid.empty()), "applied": set_at(a, s.applied, n, a.genesis)},
    )


@state_property
def states_of_the_log(a: Algebra, s: Symbols) -> Value:
    """A replica's state is what the entries that it applied make of the empty one."""
    return a.forall((NODE,), lambda n: s.state(n) == a.rigid.history(s.applied(n)))


@state_property
def snapshots_of_the_log(a: Algebra, s: Symbols) -> Value:
    """So is a snapshot's."""
    return a.forall((COPY,), lambda b: a.implies(s.taken(b), s.snapshot(b) == a.rigid.history(s.snapshot_index(b))))


@state_property
def equal_index_equal_state(a: Algebra, s: Symbols) -> Value:
    """Two replicas that have applied entries up to the same index are equal, however they came there."""
    return a.forall((NODE, NODE), lambda n, m: a.implies(s.applied(n) == s.applied(m), s.state(n) == s.state(m)))


@state_property
def snapshot_is_the_state(a: Algebra, s: Symbols) -> Value:
    """A snapshot is the state of every replica that has applied as much."""

    def body(n: Value, b: Value) -> Value:
        as_much = a.conj(s.taken(b), s.applied(n) == s.snapshot_index(b))
        return a.implies(as_much, s.state(n) == s.snapshot(b))

    return a.forall((NODE, COPY), body)


REPLICAS: Final = System(
    signature=SIGNATURE,
    rigid=RIGID,
    initial=initial,
    actions=(apply, take_snapshot, install, restart),
    lemmas=(states_of_the_log, snapshots_of_the_log),
    theorems=(equal_index_equal_state, snapshot_is_the_state),
    changes=(),
    steps=(),
    axioms=axioms,
    majorities=(),
)
"""Replicas of one log."""

SIZES: Final = Sizes(nodes=2, terms=1, indexes=3, values=2, messages=1, reads=1, rounds=1, times=1)

VIOLATIONS: Final[Mapping[str, Scenario]] = {
    mutant: Scenario(actions, SIZES, "equal_index_equal_state")
    for mutant, actions in {
        "apply_depends_on_replica": ("apply", "apply"),
        "install_forgets_sessions": ("apply", "take_snapshot", "install"),
        "install_keeps_index": ("apply", "take_snapshot", "install", "restart"),
        "snapshot_of_another_index": ("take_snapshot", "install", "apply"),
    }.items()
}
"""For each mutant a run after which two replicas differ."""

WITNESS: Final = Scenario(("apply", "apply", "take_snapshot", "install", "restart", "install"), SIZES)
"""A replica takes another's snapshot, restarts, takes it again."""


def witnessed(a: FiniteAlgebra, s: Symbols) -> Value:
    """The end of `WITNESS`: both have applied the second entry, and the log has changed the state."""
    return a.conj(s.applied(0) == 2, s.applied(1) == 2, s.state(0) != a.rigid.empty())


def eventful(a: FiniteAlgebra, s: Symbols) -> Value:
    """A snapshot is ahead of a replica."""
    return a.conj(s.taken(0), a.lt(s.applied(0), s.snapshot_index(0)))
