"""Two replicas of the catalog that take the same steps: a self-composition of `catalog`.

The vocabulary stands there twice, `left_` and `right_`. Both replicas are given the same operations and snapshots, each
decides by its own tables whether it takes them; their clocks differ as they like. If both begin empty they are equal
for ever: nothing that the catalog does depends on the replica. That is what makes the next state a *function* of the
tables and the entry, all that `replicas` knows of the catalog.

Source: Barthe, D'Argenio, Rezk 2004 (self-composition). Must not: say what the tables are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from model_checks.proofs.algebra import Action, Algebra, Signature, Symbols, System, Transition, Value, state_property
from model_checks.proofs.bounded import Scenario
from model_checks.proofs.catalog import ACTIONS, clock
from model_checks.proofs.catalog_lemmas import initial as initial_of_one
from model_checks.proofs.catalog_lemmas import same
from model_checks.proofs.catalog_runs import RUN_SIZES, SESSION
from model_checks.proofs.catalog_signature import LOCAL_LOCK_DELAY, RIGID
from model_checks.proofs.catalog_signature import SIGNATURE as ONE
from model_checks.proofs.finite import FiniteAlgebra

SIDES: Final = ("left_", "right_")
LOCAL: Final = frozenset({"delayed"})
"""What a replica knows by itself."""

ARGUED: Final = ("which operations an entry consists of is a function of the tables and the entry, as spec/catalog is",)
"""What Z3 does not check."""

SIGNATURE: Final[Signature] = {side + name: arity for side in SIDES for name, arity in ONE.items()}

MUTANTS: Final[Mapping[str, str]] = {
    LOCAL_LOCK_DELAY: "applying an acquisition looks whether the key's lock-delay is over by the server's own clock"
}
"""Catalogs that depend on the replica."""


def replica(s: Symbols, side: str) -> Symbols:
    """One of the two, under the catalog's plain names."""
    return Symbols({name: getattr(s, side + name) for name in ONE})


def initial(a: Algebra, s: Symbols) -> Value:
    """Both are empty."""
    return a.conj(*(initial_of_one(a, replica(s, side)) for side in SIDES), equal(a, s))


def equal(a: Algebra, s: Symbols) -> Value:
    """The replicas are the same in all but what each knows by itself."""
    parts = []
    for name, arity in ONE.items():
        if name not in LOCAL:
            left, right = (getattr(s, side + name) for side in SIDES)
            parts.append(same(a, left, right, arity.arguments))
    return a.conj(*parts)


def one_side(act: Action, side: str) -> Callable[..., Transition]:
    """What an action does at one replica."""

    def rule(a: Algebra, s: Symbols, *arguments: Value) -> Transition:
        mine = replica(s, side)
        taken = act.rule(a, mine, *arguments)

        def after(name: str) -> Callable[..., Value]:
            return lambda *at: a.ite(taken.guard, taken.updates[name](*at), getattr(mine, name)(*at))

        return Transition(taken.guard, {side + name: after(name) for name in taken.updates})

    return rule


def together(act: Action) -> Action:
    """An action that is given to both replicas: whichever can takes it."""

    def rule(a: Algebra, s: Symbols, *arguments: Value) -> Transition:
        left, right = (one_side(act, side)(a, s, *arguments) for side in SIDES)
        return Transition(a.disj(left.guard, right.guard), {**left.updates, **right.updates})

    return Action(act.name, act.parameters, rule)


CLOCKS: Final = tuple(Action(f"{side}clock", clock.parameters, one_side(clock, side)) for side in SIDES)


@state_property
def replicas_equal(a: Algebra, s: Symbols) -> Value:
    """Tables, copies, the history of holds and where the entry stands are the same at both replicas."""
    return equal(a, s)


@state_property
def equal_steps_equal_tables(a: Algebra, s: Symbols) -> Value:
    """Two replicas that were given the same entries have the same tables, and the same snapshots of them."""
    return equal(a, s)


LOCKSTEP: Final = System(
    signature=SIGNATURE,
    rigid=RIGID,
    initial=initial,
    actions=(*(together(act) for act in ACTIONS if act is not clock), *CLOCKS),
    lemmas=(replicas_equal,),
    theorems=(equal_steps_equal_tables,),
    changes=(),
    steps=(),
    majorities=(),
)
"""Two replicas side by side."""

LOCKED: Final = ("begin", *SESSION, "lock", "commit")

VIOLATIONS: Final[Mapping[str, Scenario]] = {
    LOCAL_LOCK_DELAY: Scenario(("left_clock", *LOCKED), RUN_SIZES, "equal_steps_equal_tables")
}
"""For the mutant a run after which the replicas differ."""

WITNESS: Final = Scenario(("left_clock", *LOCKED, "take_snapshot", "restore"), RUN_SIZES)
"""Clocks differ; a key is locked, and a snapshot restored."""


def witnessed(a: FiniteAlgebra, s: Symbols) -> Value:
    """The end of `WITNESS`: both replicas say that the key is held."""
    return a.conj(s.left_holds(0, 0), s.right_holds(0, 0), s.left_delayed(0) != s.right_delayed(0))


def eventful(a: FiniteAlgebra, s: Symbols) -> Value:
    """A key is held, a check exists, the clocks differ."""
    return a.conj(s.left_holds(0, 0), s.right_check(0), s.left_delayed(0) != s.right_delayed(0))
