"""The unbounded backend: formulas with quantifiers for Z3, over any number of servers, terms, indexes and messages.

Terms and indexes are uninterpreted sorts with a total order and a least element; nothing else about numbers is used.
Of quorums only this is used: any two have a common member, found by the function `common` (that majorities do is proved
in `majority`). The axiom is instantiated for pairs of *marked* quorums only. A system whose configurations change
states its own axiom instead.

The theory is outside EPR (Node -> Term -> Quorum -> Node), so an answer may be "unknown"; that is never a pass. It is
never "sat": counterexamples come from `finite`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Final

import z3

from model_checks.proofs.algebra import Patterns, Signature, Sort, Symbols, System, Value
from model_checks.proofs.obligations import Obligation, problem

SORTS: Final[dict[Sort, Any]] = {
    **{sort: z3.DeclareSort(sort.value) for sort in Sort if sort is not Sort.BOOL},
    Sort.BOOL: z3.BoolSort(),
}


class UnboundedAlgebra:
    """The algebra over Z3 terms with quantifiers."""

    def __init__(self, rigid: Signature, mutant: str | None = None) -> None:
        self._signature = rigid
        self.rigid = functions(rigid)
        self.first_term = z3.Const("first_term", SORTS[Sort.TERM])
        self.genesis = z3.Const("genesis", SORTS[Sort.INDEX])
        self._mutant = mutant
        self._fresh = itertools.count()
        self._order = {
            sort: z3.Function(f"{sort.value}_le", SORTS[sort], SORTS[sort], z3.BoolSort())
            for sort in (Sort.TERM, Sort.INDEX, Sort.TIME)
        }

    def conj(self, *parts: Value) -> Value:
        return z3.And(*parts)

    def disj(self, *parts: Value) -> Value:
        return z3.Or(*parts)

    def neg(self, part: Value) -> Value:
        return z3.Not(part)

    def implies(self, premise: Value, conclusion: Value) -> Value:
        return z3.Implies(premise, conclusion)

    def ite(self, condition: Value, yes: Value, no: Value) -> Value:
        return z3.If(condition, yes, no)

    def le(self, left: Value, right: Value) -> Value:
        return self._order[Sort(left.sort().name())](left, right)

    def lt(self, left: Value, right: Value) -> Value:
        return z3.Not(self.le(right, left))

    def successor(self, left: Value, right: Value) -> Value:
        between = self.forall((Sort.INDEX,), lambda k: z3.Not(z3.And(self.lt(left, k), self.lt(k, right))))
        return z3.And(self.lt(left, right), between)

    def forall(self, sorts: Sequence[Sort], body: Callable[..., Value], patterns: Patterns | None = None) -> Value:
        variables = [z3.Const(f"{sort.value}!{next(self._fresh)}", SORTS[sort]) for sort in sorts]
        usable = []
        for group in patterns(*variables) if patterns else []:
            if all(matchable(term) for term in group):
                usable.append(z3.MultiPattern(*group) if len(group) > 1 else group[0])
        formula = body(*variables)
        return z3.ForAll(variables, z3.BoolVal(formula) if isinstance(formula, bool) else formula, patterns=usable)

    def mark(self, *terms: Value) -> Value:
        name = "mark_" + "_".join(term.sort().name() for term in terms)
        return z3.Function(name, *(term.sort() for term in terms), z3.BoolSort())(*terms)

    def unless(self, mutant: str, rule: Value) -> Value:
        return z3.BoolVal(True) if self._mutant == mutant else rule

    def mutated(self, mutant: str) -> bool:
        return self._mutant == mutant

    def axioms(self) -> list[Value]:
        """Total orders with a least element, marks are true, quorums intersect (unless the mutant denies it)."""
        axioms: list[Value] = [*self._ordered(Sort.TERM, self.first_term), *self._ordered(Sort.INDEX, self.genesis)]
        if any(Sort.TIME in arity.arguments for arity in self._signature.values()):
            axioms.extend(self._ordered(Sort.TIME, None))
        if "member" not in self._signature:
            return axioms
        q, p = z3.Consts("q p", SORTS[Sort.QUORUM])
        mark_q, mark_p = self.mark(q), self.mark(p)  # bound to names: a pattern does not keep its terms alive
        axioms.append(z3.ForAll([q], mark_q, patterns=[mark_q]))
        if "quorum_of" not in self._signature and self._mutant != "no_quorum":
            common = z3.Function("common", q.sort(), q.sort(), SORTS[Sort.NODE])(q, p)
            shared = z3.And(self.rigid.member(common, q), self.rigid.member(common, p))
            axioms.append(z3.ForAll([q, p], shared, patterns=[z3.MultiPattern(mark_q, mark_p)]))
        return axioms

    def _ordered(self, sort: Sort, least: Value | None) -> list[Value]:
        x, y, z = z3.Consts("x y z", SORTS[sort])
        le = self._order[sort]
        return [
            z3.ForAll([x], le(x, x)),
            z3.ForAll([x, y, z], z3.Implies(z3.And(le(x, y), le(y, z)), le(x, z))),
            z3.ForAll([x, y], z3.Implies(z3.And(le(x, y), le(y, x)), x == y)),
            z3.ForAll([x, y], z3.Or(le(x, y), le(y, x))),
            *([] if least is None else [z3.ForAll([x], le(least, x))]),
        ]


def functions(signature: Signature) -> Symbols:
    """A signature's symbols as uninterpreted functions."""
    return Symbols(
        {
            name: z3.Function(name, *(SORTS[sort] for sort in arity.arguments), SORTS[arity.result])
            for name, arity in signature.items()
        }
    )


def matchable(term: Any) -> bool:
    """Whether Z3 can match a term: uninterpreted symbols only. A substituted post-state may hold an if-then-else."""
    if not z3.is_app(term):
        return True
    return term.decl().kind() == z3.Z3_OP_UNINTERPRETED and all(matchable(child) for child in term.children())


def constant(name: str, sort: Sort) -> Value:
    """An unknown of a sort."""
    return z3.Const(f"the_{name}", SORTS[sort])


def formulas(
    system: System, obligation: Obligation, selected: frozenset[str] | None, mutant: str | None
) -> list[Value]:
    """Formulas that are unsatisfiable together iff the obligation follows from the selected hypotheses (None: all)."""
    # two symbols of one name and different sorts are different in Z3: rigid and mutable names may coincide
    algebra = UnboundedAlgebra(system.rigid, mutant)
    stated = problem(system, algebra, functions(system.signature), constant, obligation)
    axioms = [*algebra.axioms(), *system.axioms(algebra)]
    if stated.instances and selected is not None:
        chosen = [instance(stated.hypotheses[name](), terms) for name, terms in stated.instances]
    else:
        chosen = [build() for name, build in stated.hypotheses.items() if selected is None or name in selected]
    return [*axioms, *chosen, *stated.given, z3.Not(stated.goal)]


def core(system: System, obligation: Obligation, seed: int, limit: int) -> tuple[str, ...] | None:
    """The hypotheses of a proof from all of them; None: none was found within the limit."""
    algebra = UnboundedAlgebra(system.rigid)
    stated = problem(system, algebra, functions(system.signature), constant, obligation)
    solver = z3.Solver()
    solver.set("mbqi", False)
    solver.set("random_seed", seed)
    solver.set("rlimit", limit)
    solver.add(*algebra.axioms(), *system.axioms(algebra), *stated.given, z3.Not(stated.goal))
    for name, build in stated.hypotheses.items():
        solver.assert_and_track(build(), name)
    if solver.check() != z3.unsat:
        return None
    return tuple(sorted(str(name) for name in solver.unsat_core()))


def instance(hypothesis: Any, terms: Sequence[Value]) -> Value:
    """A universally quantified hypothesis at some terms: it follows from it, whatever the terms."""
    if not z3.is_quantifier(hypothesis) or hypothesis.num_vars() != len(terms):
        raise ValueError(f"{len(terms)} terms are not an instance of {hypothesis}")
    return z3.substitute_vars(hypothesis.body(), *reversed(terms))
