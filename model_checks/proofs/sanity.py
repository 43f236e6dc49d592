"""Does the proof say anything? Lemmas that contradict each other, or guards that they forbid, would prove everything.

- `unreachable`: the axioms and lemmas, with each action's guard, have a model over small sorts, in a state with a
  commit and a leader elected after it.
- `still_needed`: each lemma has an obligation of another goal that fails without it (`selection.json` names it).

Must not: be mistaken for a proof that such states are reachable; `bounded.WITNESS` shows a run from the initial state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import z3

from model_checks.proofs.algebra import Sort, Symbols, System, Value
from model_checks.proofs.finite import FiniteAlgebra, Sizes, truth
from model_checks.proofs.obligations import obligations
from model_checks.proofs.selection import fails_without

SIZES: Final = Sizes(terms=3, indexes=3, values=1, messages=1, reads=1)


NEED_SIZES: Final = Sizes(messages=1, reads=1)
"""Enough for a counterexample to every obligation that lacks its lemma."""


def eventful(a: FiniteAlgebra, s: Symbols) -> Value:
    """A commit, and a leader elected after it."""

    def body(t: Value, u: Value, i: Value) -> Value:
        return a.conj(a.lt(t, u), s.elected(u), s.committed(t, i))

    return a.exists((Sort.TERM, Sort.TERM, Sort.INDEX), body)


State = Callable[[FiniteAlgebra, Symbols], Value]
"""Something that may be asked of a state."""


def unreachable(
    system: System, sizes: Sizes = SIZES, extra: State | None = None, event: State = eventful
) -> tuple[str, ...]:
    """Actions whose guard no eventful state allows that satisfies all lemmas (and `extra`): all should be possible."""
    a = FiniteAlgebra(system, sizes)
    s = a.symbols(a.unknown_state(system.signature, "pre"))
    solver = z3.Solver()
    solver.add(truth(event(a, s)), *(truth(lemma.formula(a, s)) for lemma in system.lemmas))
    solver.add(*a.constraints)
    if extra is not None:
        solver.add(truth(extra(a, s)))
    impossible = []
    for act in system.actions:
        a.constraints.clear()
        arguments = [a.unknown(f"{act.name} {name}", sort) for name, sort in act.parameters.items()]
        guard = truth(act.rule(a, s, *arguments).guard)
        solver.push()
        solver.add(guard, *a.constraints)
        if solver.check() != z3.sat:
            impossible.append(act.name)
        solver.pop()
    return tuple(impossible)


def still_needed(system: System, key: str, lemma: str, sizes: Sizes = NEED_SIZES) -> bool:
    """Whether the obligation of that name, which is said to need a lemma, has a finite counterexample without it."""
    obligation = {obligation.key: obligation for obligation in obligations(system)}[key]
    return obligation.goal != lemma and fails_without(system, obligation, lemma, sizes)
