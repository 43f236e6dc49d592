"""What is not known stays unknown, and where a step stands for many, its guard depends on none of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import z3

from model_checks.linking.annotated import Annotations
from model_checks.linking.concrete import ConcreteAlgebra, rigid
from model_checks.linking.truths import (
    MAYBE,
    AtMost,
    Ghost,
    NotLocal,
    Unknown,
    conjunction,
    disjunction,
    negation,
)
from model_checks.proofs import unbounded
from model_checks.proofs.algebra import Sort
from model_checks.proofs.whole import WHOLE
from spec.raft.log import log_of
from spec.raft.types import Configuration, Constants, Entry

TRUTHS = (True, False, MAYBE)


def possible(truth: Any) -> set[bool]:
    """What a truth may turn out to be."""
    return {True, False} if truth is MAYBE else {truth}


@pytest.mark.parametrize("left", TRUTHS, ids=str)
@pytest.mark.parametrize("right", TRUTHS, ids=str)
def test_what_is_decided_is_right_whatever_is_not_known(left: Any, right: Any) -> None:
    """Kleene: a compound is known if it is the same for everything that its parts may be."""
    cases: tuple[tuple[Any, Callable[[bool, bool], bool]], ...] = (
        (conjunction(left, right), lambda x, y: x and y),
        (disjunction(left, right), lambda x, y: x or y),
        (disjunction(negation(left), right), lambda x, y: not x or y),
    )
    for found, meaning in cases:
        assert possible(found) == {meaning(x, y) for x in possible(left) for y in possible(right)}


def test_python_may_not_decide_what_is_not_known() -> None:
    with pytest.raises(NotLocal):
        bool(MAYBE)
    with pytest.raises(NotLocal):
        hash(Unknown("a log"))


def test_an_unknown_value_equals_and_precedes_nothing_for_certain() -> None:
    unknown = Unknown("a log")
    for compared in (unknown == 3, unknown == 3, unknown != 3, unknown <= 3, unknown > 3, unknown + 1 == 3):
        assert compared is MAYBE


def test_an_upper_bound_decides_what_lies_above_it() -> None:
    bound = AtMost(4)
    assert (bound <= 4, bound < 5, bound == 5, bound >= 5) == (True, True, False, False)
    for compared in (bound <= 3, bound < 4, bound == 4, bound == 3, bound >= 4):
        assert compared is MAYBE


def test_history_equals_everything() -> None:
    assert Ghost() == 3
    assert Ghost() == Ghost()


def test_a_quantifier_is_decided_by_the_first_false_instance() -> None:
    c = Constants(("s1", "s2"))
    a = ConcreteAlgebra(rigid(c, Annotations(c.genesis), {}, {}), c.servers, 2, 2)
    assert a.forall((Sort.INDEX,), lambda j: MAYBE if j == 0 else j < 2) is False
    assert a.forall((Sort.INDEX,), lambda j: MAYBE if j == 0 else True) is MAYBE
    assert a.forall((Sort.INDEX,), lambda j: a.implies(j == 0, True)) is True


def test_an_entry_carries_the_configuration_in_force() -> None:
    """Ongaro 2014, section 4.1; a configuration knows the one before it and the commit that allowed it."""
    known = Annotations(Configuration(("s1", "s2", "s3")))
    removed = Configuration(("s1", "s2"), allowed_by=1)
    log = log_of((Entry(1, "a"), Entry(1, "", removed), Entry(2, "b")))
    records = [value[1] for value in known.columns(log).values]
    assert records == [known.first, known.first, known.record(log), known.record(log)]
    born = known.record(log)
    assert (born.birth_term, born.birth_index, born.previous, born.allowed_by) == (1, 2, known.first, 1)
    assert born.is_quorum(frozenset({"s1", "s2"}))
    assert not born.is_quorum(frozenset({"s1", "s3"})), "who left does not count"
    assert born.is_adjacent()
    assert not known.record(log_of((Entry(1, "", Configuration(("s1",))),))).is_adjacent(), "two servers at once"
    other = log_of((Entry(1, "z"), Entry(1, "", removed)))
    assert known.record(other) is born, "a configuration is what it says, whatever else the log holds"


# --------------------------------------------------------------------------------------------- one step for many values


@pytest.mark.parametrize(
    ("action", "sort", "term", "needs"),
    [
        ("hear_round", Sort.ROUND, "round_term", "round_begun"),
        ("confirm_round", Sort.ROUND, "round_term", "round_heard"),
        ("confirm_leadership", Sort.READ, "read_term", "read_begun"),
    ],
)
def test_who_answers_one_round_may_answer_every_other_that_has_begun(
    action: str, sort: Sort, term: str, needs: str
) -> None:
    """By Z3: of the guard only the term, and that the round has begun or was heard, is a matter of the number."""
    a = unbounded.UnboundedAlgebra(WHOLE.rigid)
    s = unbounded.functions(WHOLE.signature)
    v = z3.Const("v", unbounded.SORTS[Sort.NODE])
    one, other = (z3.Const(name, unbounded.SORTS[sort]) for name in ("one", "other"))
    rule = WHOLE.action(action).rule
    same = [getattr(a.rigid, term)(one) == getattr(a.rigid, term)(other), rule(a, s, v, one).guard]
    known = getattr(s, needs)
    begun = known(v, other) if needs == "round_heard" else known(other)
    differs = z3.Not(rule(a, s, v, other).guard)
    solver = z3.Solver()
    solver.add(*a.axioms(), *same, begun, differs)
    assert solver.check() == z3.unsat
    solver = z3.Solver()
    solver.set("rlimit", 1_000_000)
    solver.add(*a.axioms(), *same, differs)
    assert solver.check() != z3.unsat, "what has not begun is not answered"
