"""What has to be proved, as data: each obligation is small, independent of the others, and checked by itself.

    initial      the initial state satisfies every lemma
    majority     any two majorities intersect (`majority`): the only thing that the proof knows of quorums
    step         a consequence of the lemmas, or of them and an action's guard (proved in order, then used)
    consecution  every action preserves every lemma
    change       every action makes every two-state theorem true
    theorem      the lemmas imply every theorem

Together they say that the theorems hold in every reachable state. Must not: know a backend.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import assert_never

from model_checks.proofs.algebra import Algebra, Sort, Statement, Step, Symbols, System, Transition, Value


class Kind(StrEnum):
    """Why an obligation must hold."""

    INITIAL = "initial"
    MAJORITY = "majority"
    STEP = "step"
    CONSECUTION = "consecution"
    CHANGE = "change"
    THEOREM = "theorem"


@dataclass(frozen=True, slots=True, order=True)
class Obligation:
    """`subject` is the action (or the kind's own name), `goal` the property, step or case to be proved."""

    kind: Kind
    subject: str
    goal: str

    @property
    def key(self) -> str:
        """The name that people and the selection file use: "advance_commit/commit_later"."""
        return f"{self.subject}/{self.goal}"


def obligations(system: System) -> tuple[Obligation, ...]:
    """Everything that has to be proved of a system, the hardest kinds first."""
    steps = [Obligation(Kind.STEP, step.action or "lemmas", goal) for step in system.steps for goal in goals(step)]
    theorems = [Obligation(Kind.THEOREM, "theorem", theorem.name) for theorem in system.theorems]
    consecution = [
        Obligation(Kind.CONSECUTION, act.name, lemma.name)
        for lemma in reversed(system.lemmas)
        for act in system.actions
    ]
    changes = [
        Obligation(Kind.CHANGE, act.name, change.name)
        for change in system.changes
        for act in system.actions
        if act.name not in change.excepted
    ]
    initial = [Obligation(Kind.INITIAL, "initial", lemma.name) for lemma in system.lemmas]
    majority = [Obligation(Kind.MAJORITY, "majority", case) for case in system.majorities]
    return (*steps, *theorems, *consecution, *changes, *initial, *majority)


def goals(step: Step) -> list[str]:
    """What has to be proved of a step: its cuts "step:cut", in order, then itself."""
    return [*(f"{step.name}:{cut.name}" for cut in step.cuts), step.name]


Constants = Callable[[str, Sort], Value]
"""Makes an unknown of a sort: an action's argument, or a step's variable."""


@dataclass(frozen=True, slots=True)
class Problem:
    """An obligation in a backend's terms: proved if nothing satisfies hypotheses, given formulas and not the goal.

    Hypotheses are named and built when asked for: a proof from some of them is a proof.
    """

    hypotheses: Mapping[str, Callable[[], Value]]
    given: tuple[Value, ...]
    goal: Value
    before: Symbols
    after: Symbols
    arguments: Mapping[str, Value]
    instances: Sequence[tuple[str, tuple[Value, ...]]] = ()
    """Instances of hypotheses that are said to be enough."""


def problem(system: System, a: Algebra, s: Symbols, constant: Constants, obligation: Obligation) -> Problem:
    """The obligation over state `s`. The majority cases have a vocabulary of their own: ValueError."""
    match obligation.kind:
        case Kind.INITIAL:
            goal = system.property(obligation.goal).formula(a, s)
            return Problem({}, (system.initial(a, s),), goal, s, s, {})
        case Kind.MAJORITY:
            raise ValueError(f"{obligation.key} is stated in majority.py")
        case Kind.STEP | Kind.CONSECUTION | Kind.CHANGE | Kind.THEOREM:
            return _stated(system, a, s, constant, obligation)
        case _:
            assert_never(obligation.kind)


def _stated(system: System, a: Algebra, s: Symbols, constant: Constants, obligation: Obligation) -> Problem:
    """An obligation that may use the lemmas, the steps before it and, if it is about an action, the action's guard."""
    hypotheses: dict[str, Callable[[], Value]] = {lemma.name: partial(lemma.formula, a, s) for lemma in system.lemmas}
    actions = {act.name: act for act in system.actions}
    act = actions.get(obligation.subject)
    arguments = {name: constant(name, sort) for name, sort in act.parameters.items()} if act else {}
    transition = act.rule(a, s, *arguments.values()) if act else Transition(True, {})
    given = [transition.guard] if act else []
    after = s.updated(transition.updates)
    for step in system.steps_of(obligation.subject):
        values = tuple(arguments.values()) if step.action else ()
        statement = step.statement(a, s, *values)
        if obligation.kind is Kind.STEP and step.name == obligation.goal.partition(":")[0]:
            unknowns = {f"step_{k}": constant(f"step_{k}", sort) for k, sort in enumerate(statement.sorts)}
            if step.before is not None:
                given.append(_induction_hypothesis(a, step.before, statement, list(unknowns.values())))
            goal, more = _goal(a, s, step, statement, obligation.goal, (*values, *unknowns.values()))
            instances = step.instances(a, s, *values, *unknowns.values()) if step.instances else ()
            return Problem(hypotheses, (*given, *more), goal, s, s, {**arguments, **unknowns}, instances)
        hypotheses[step.name] = partial(statement.quantified, a)
    if obligation.kind is Kind.CHANGE:
        goal = {change.name: change for change in system.changes}[obligation.goal].formula(a, s, after)
    else:
        goal = system.property(obligation.goal).formula(a, after)
    return Problem(hypotheses, tuple(given), goal, s, after, arguments)


def _goal(
    a: Algebra, s: Symbols, step: Step, statement: Statement, wanted: str, values: tuple[Value, ...]
) -> tuple[Value, list[Value]]:
    """The statement or the cut that is wanted of a step; and what may be assumed: cuts before it, terms to be seen."""
    body = statement.body(*values[len(values) - len(statement.sorts) :])
    given = [a.mark(term) for term in step.hints(a, s, *values)] if step.hints else []
    for cut in step.cuts:
        if f"{step.name}:{cut.name}" == wanted:
            return cut.formula(a, s, *values), [*given, a.neg(body)]
        given.append(cut.formula(a, s, *values))
    return body, given


def _induction_hypothesis(
    a: Algebra,
    before: Callable[[Algebra, Sequence[Value], Sequence[Value]], Value],
    statement: Statement,
    unknowns: Sequence[Value],
) -> Value:
    """The statement for everything before the unknowns."""
    return a.forall(
        statement.sorts, lambda *xs: a.implies(before(a, xs, unknowns), statement.body(*xs)), statement.patterns
    )
