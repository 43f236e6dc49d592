"""The finite backend: the same formulas over a few servers, terms and indexes, without quantifiers, for Z3.

Complete where `unbounded` is not: a satisfiable obligation has a model here, which is a counterexample to induction
(`cti`), and an unsatisfiable one has a minimal core of hypotheses (`selection`). Bounded checks (`bounded`) use it,
too. It proves nothing beyond its sizes.

A state is a table for each symbol from argument tuples to values: Python values where known, else Z3 bit-vectors and
booleans. Quantifiers are expanded. Sizes must fit the bit width: a domain that wraps would give a false "unsat".
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import z3

from model_checks.proofs.algebra import Arity, Patterns, Signature, Sort, Symbols, System, Value
from model_checks.proofs.obligations import Obligation, Problem, problem

Table = dict[tuple[Any, ...], Value]
"""The values of one symbol."""
Tables = dict[str, Table]
"""The values of every symbol of a signature: one state."""

WIDTH: Final = 4
"""Bits of every value that is not a truth: sizes up to 16."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many elements each sort has. At least two of each, or frame conditions are not seen."""

    nodes: int = 3
    terms: int = 4
    indexes: int = 3
    values: int = 2
    messages: int = 2
    reads: int = 2
    configurations: tuple[tuple[int, ...], ...] = ((0, 1, 2), (0, 1), (0, 1, 2))
    """The servers of each configuration, if the system has configurations (the same servers may be named twice)."""
    rounds: int = 2
    times: int = 3
    requests: int = 2
    calls: int = 3
    entries: int = 2
    keys: int = 2
    sessions: int = 2
    contracts: int = 2
    instances: int = 2
    services: int = 2
    checks: int = 2
    copies: int = 2
    states: int = 3

    def counted(self, system: System) -> str:
        """The sizes of the sorts that a system speaks of, in words."""
        arities = (*system.signature.values(), *system.rigid.values())
        used = {sort for arity in arities for sort in (*arity.arguments, arity.result)}
        sizes = {
            Sort.NODE: ("servers", self.nodes),
            Sort.TERM: ("terms", self.terms),
            Sort.INDEX: ("indexes", self.indexes),
            Sort.VALUE: ("values", self.values),
            Sort.MESSAGE: ("messages", self.messages),
            Sort.READ: ("reads", self.reads),
            Sort.CONFIGURATION: ("configurations", len(self.configurations)),
            Sort.ROUND: ("rounds", self.rounds),
            Sort.TIME: ("times", self.times),
            Sort.REQUEST: ("requests", self.requests),
            Sort.CALL: ("calls", self.calls),
            Sort.ENTRY: ("entries", self.entries),
            Sort.KEY: ("keys", self.keys),
            Sort.SESSION: ("sessions", self.sessions),
            Sort.CONTRACT: ("contracts", self.contracts),
            Sort.INSTANCE: ("instances", self.instances),
            Sort.SERVICE: ("services", self.services),
            Sort.CHECK: ("checks", self.checks),
            Sort.COPY: ("copies", self.copies),
            Sort.STATE: ("states", self.states),
        }
        return ", ".join(f"{size} {name}" for sort, (name, size) in sizes.items() if sort in used)


SIZES: Final = Sizes()
"""Large enough for every counterexample and core that is looked for; small enough for half a second each."""


def quorums(nodes: int, mutant: str | None) -> list[frozenset[int]]:
    """The smallest majorities; every non-empty set under the mutant."""
    sizes = range(1, nodes + 1) if mutant == "no_quorum" else [nodes // 2 + 1]
    return [frozenset(members) for size in sizes for members in itertools.combinations(range(nodes), size)]


def majorities(configurations: Sequence[Sequence[int]]) -> list[frozenset[int]]:
    """The smallest majorities of any of the configurations."""
    found = {
        frozenset(members)
        for servers in configurations
        for members in itertools.combinations(sorted(servers), len(servers) // 2 + 1)
    }
    return sorted(found, key=sorted)


def known(value: Value) -> bool:
    """Whether a value is a Python value, not an unknown."""
    return isinstance(value, (bool, int))


def truth(value: Value) -> Any:
    """A truth value as a Z3 term."""
    return z3.BoolVal(value) if isinstance(value, bool) else value


def number(value: Value) -> Any:
    """A number as a Z3 term."""
    return z3.BitVecVal(value, WIDTH) if isinstance(value, int) else value


class FiniteAlgebra:
    """The algebra over small sorts, with unknowns; simplifies what is known while it builds."""

    first_term = 0
    genesis = 0

    def __init__(self, system: System, sizes: Sizes, mutant: str | None = None) -> None:
        self.system = system
        configured = "quorum_of" in system.rigid
        self.quorums = majorities(sizes.configurations) if configured else quorums(sizes.nodes, mutant)
        self._mutant = mutant
        self.domains: dict[Sort, Sequence[Any]] = {
            Sort.NODE: range(sizes.nodes),
            Sort.QUORUM: range(len(self.quorums)),
            Sort.VALUE: range(sizes.values),
            Sort.MESSAGE: range(sizes.messages),
            Sort.READ: range(sizes.reads),
            Sort.CONFIGURATION: range(len(sizes.configurations)),
            Sort.ROUND: range(sizes.rounds),
            Sort.TIME: range(sizes.times),
            Sort.REQUEST: range(sizes.requests),
            Sort.CALL: range(sizes.calls),
            Sort.ENTRY: range(sizes.entries),
            Sort.KEY: range(sizes.keys),
            Sort.SESSION: range(sizes.sessions),
            Sort.CONTRACT: range(sizes.contracts),
            Sort.INSTANCE: range(sizes.instances),
            Sort.SERVICE: range(sizes.services),
            Sort.CHECK: range(sizes.checks),
            Sort.COPY: range(sizes.copies),
            Sort.STATE: range(sizes.states),
            Sort.TERM: range(sizes.terms),
            Sort.INDEX: range(sizes.indexes),
            Sort.BOOL: (False, True),
        }
        if any(len(domain) > 2**WIDTH for domain in self.domains.values()):
            raise ValueError(f"sizes beyond {2**WIDTH} do not fit the bit width: {sizes}, {len(self.quorums)} quorums")
        self.constraints: list[Any] = []
        self.rigid_tables = self.unknown_state(
            {name: arity for name, arity in system.rigid.items() if name not in ("member", "quorum_of")}, "rigid"
        )
        self.rigid_tables["member"] = {
            (n, q): n in members for q, members in enumerate(self.quorums) for n in range(sizes.nodes)
        }
        if configured:
            self.rigid_tables["quorum_of"] = {
                (q, c): members <= set(servers) and 2 * len(members) > len(servers)
                for q, members in enumerate(self.quorums)
                for c, servers in enumerate(sizes.configurations)
            }
        self.rigid = self.symbols(self.rigid_tables)
        self.constraints.extend(truth(axiom) for axiom in system.axioms(self))

    # connectives: Python's truth values are absorbed

    def conj(self, *parts: Value) -> Value:
        unknown = []
        for part in parts:
            if part is False:
                return False
            if part is not True:
                unknown.append(part)
        return True if not unknown else unknown[0] if len(unknown) == 1 else z3.And(*unknown)

    def disj(self, *parts: Value) -> Value:
        unknown = []
        for part in parts:
            if part is True:
                return True
            if part is not False:
                unknown.append(part)
        return False if not unknown else unknown[0] if len(unknown) == 1 else z3.Or(*unknown)

    def neg(self, part: Value) -> Value:
        return (not part) if isinstance(part, bool) else z3.Not(part)

    def implies(self, premise: Value, conclusion: Value) -> Value:
        return self.disj(self.neg(premise), conclusion)

    def ite(self, condition: Value, yes: Value, no: Value) -> Value:
        if isinstance(condition, bool):
            return yes if condition else no
        if isinstance(yes, bool) or isinstance(no, bool) or z3.is_bool(yes):
            return self.disj(self.conj(condition, yes), self.conj(self.neg(condition), no))
        if isinstance(yes, int) and isinstance(no, int) and yes == no:
            return yes
        return z3.If(condition, number(yes), number(no))

    def le(self, left: Value, right: Value) -> Value:
        if isinstance(left, int) and isinstance(right, int):
            return left <= right
        return z3.ULE(number(left), number(right))

    def lt(self, left: Value, right: Value) -> Value:
        return self.neg(self.le(right, left))

    def successor(self, left: Value, right: Value) -> Value:
        return right == left + 1

    def forall(self, sorts: Sequence[Sort], body: Callable[..., Value], patterns: Patterns | None = None) -> Value:
        return self.conj(*self._instances(sorts, body))

    def exists(self, sorts: Sequence[Sort], body: Callable[..., Value]) -> Value:
        """Some instance holds (for questions about states; the model itself needs none)."""
        return self.disj(*self._instances(sorts, body))

    def _instances(self, sorts: Sequence[Sort], body: Callable[..., Value]) -> Iterator[Value]:
        return (body(*elements) for elements in itertools.product(*(self.domains[sort] for sort in sorts)))

    def mark(self, *terms: Value) -> Value:
        return True

    def unless(self, mutant: str, rule: Value) -> Value:
        return True if self._mutant == mutant else rule

    def mutated(self, mutant: str) -> bool:
        return self._mutant == mutant

    # states

    def unknown(self, name: str, sort: Sort) -> Value:
        """A new unknown, constrained to its sort's size."""
        if sort is Sort.BOOL:
            return z3.Bool(name)
        value = z3.BitVec(name, WIDTH)
        self.constraints.append(z3.ULE(value, number(len(self.domains[sort]) - 1)))
        return value

    def keys(self, arity: Arity) -> Iterator[tuple[Any, ...]]:
        """All argument tuples of a symbol."""
        return itertools.product(*(self.domains[sort] for sort in arity.arguments))

    def unknown_state(self, signature: Signature, tag: str) -> Tables:
        """A state of unknowns."""
        return {
            name: {key: self.unknown(f"{name}{key}@{tag}", arity.result) for key in self.keys(arity)}
            for name, arity in signature.items()
        }

    def symbols(self, tables: Tables) -> Symbols:
        """A state's symbols as functions; unknown arguments become a case distinction."""
        return Symbols({name: lambda *key, table=table: self._look(table, key) for name, table in tables.items()})

    def _look(self, table: Table, key: tuple[Value, ...]) -> Value:
        position = next((position for position, part in enumerate(key) if not known(part)), None)
        if position is None:
            # an index outside the sort: nothing is there, any value will do
            return table[key] if key in table else next(iter(table.values()))
        choices = sorted({row[position] for row in table if row[:position] == key[:position]})
        found = self._look(table, (*key[:position], choices[0], *key[position + 1 :]))
        for choice in choices[1:]:
            row = (*key[:position], choice, *key[position + 1 :])
            found = self.ite(key[position] == choice, self._look(table, row), found)
        return found

    def successor_tables(self, tables: Tables, updates: Mapping[str, Callable[..., Value]]) -> Tables:
        """The tables after an action's updates."""
        after = dict(tables)
        for name, update in updates.items():
            after[name] = {key: update(*key) for key in self.keys(self.system.signature[name])}
        return after


@dataclass(frozen=True, slots=True)
class FiniteProblem:
    """An obligation over small sorts, with the tables of its unknowns: what a model is read from."""

    algebra: FiniteAlgebra
    before: Tables
    stated: Problem
    sizes: Sizes

    def negated(self) -> list[Any]:
        """Everything but the hypotheses: satisfiable iff the goal can fail."""
        parts = [truth(part) for part in self.stated.given]
        return [*parts, z3.Not(truth(self.stated.goal)), *self.algebra.constraints]

    def hypothesis(self, name: str) -> Any:
        """One hypothesis as a Z3 term."""
        return truth(self.stated.hypotheses[name]())


def finite_problem(
    system: System, obligation: Obligation, sizes: Sizes = SIZES, mutant: str | None = None
) -> FiniteProblem:
    """The obligation over small sorts."""
    algebra = FiniteAlgebra(system, sizes, mutant)
    before = algebra.unknown_state(system.signature, "pre")

    def constant(name: str, sort: Sort) -> Value:
        return algebra.unknown(f"the_{name}", sort)

    return FiniteProblem(
        algebra, before, problem(system, algebra, algebra.symbols(before), constant, obligation), sizes
    )
