"""The concrete backend: the relational model's formulas evaluated on Python values, with three-valued truths.

Servers are names, terms, indexes and times are numbers, a quorum is a set of servers, a configuration is a `Record`, a
read and a round are numbered by the leader of a term, a message of the model is a `Slice`. Quantifiers range over the
given servers, terms and indexes; no guard quantifies over anything else.

Must not: know the readable spec's actions.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from model_checks.linking.annotated import GENESIS_VALUE, Annotations, Columns, Record
from model_checks.linking.truths import (
    MAYBE,
    AtMost,
    Ghost,
    Unknown,
    conjunction,
    disjunction,
    negation,
)
from model_checks.proofs.algebra import Patterns, Sort, Symbols, Unweakened, Value
from spec.raft.log import Log
from spec.raft.types import Constants, Index, ServerId, Term, Time

NOTHING: Final = -1
"""What a log holds beyond its end: no term and no value."""


@dataclass(frozen=True, slots=True)
class Slice:
    """A request of the model: the log of `term` from the genesis up to some entry, and a commit index.

    `bound`: the term is only known to be at most `term`. `snapshot`: the entries are history, the state is sent.
    """

    term: Term
    log: Log
    commit: Index
    bound: bool = False
    snapshot: bool = False

    def covers(self, part: Slice) -> bool:
        """Whether the leader that could send this could, in the same state, send `part`, too."""
        terms = self.term <= part.term if part.bound else (self.term == part.term and not self.bound)
        if self.snapshot or part.snapshot:
            return terms and (self.snapshot, self.log, self.commit) == (part.snapshot, part.log, part.commit)
        return terms and part.commit <= self.commit and part.log.is_prefix_of(self.log)


@dataclass(frozen=True, slots=True)
class Numbered:
    """A round of heartbeats, or the read that waits for it: numbered by the leader of `term`.

    A read by a lease waits for no round: its `read` says which it is.
    """

    term: Term
    number: int
    read: str = ""


@dataclass(frozen=True, slots=True)
class Do:
    """A step of the model."""

    action: str
    arguments: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{self.action}({', '.join(map(str, self.arguments))})"


class Rejected(Exception):
    """A step of the readable spec is no step of the model. The text says which part of the link is missing."""


class PythonValues(Unweakened):
    """The part of an algebra over Python values that does not depend on how truths are combined."""

    first_term = 0
    genesis = 0

    def ite(self, condition: Value, yes: Value, no: Value) -> Value:
        return yes if condition else no

    def le(self, left: Value, right: Value) -> Value:
        return left <= right

    def lt(self, left: Value, right: Value) -> Value:
        return left < right

    def successor(self, left: Value, right: Value) -> Value:
        return right == left + 1

    def mark(self, *terms: Value) -> Value:
        return True


class TwoValued(PythonValues):
    """The connectives where every truth is known."""

    def conj(self, *parts: Value) -> Value:
        return all(parts)

    def disj(self, *parts: Value) -> Value:
        return any(parts)

    def neg(self, part: Value) -> Value:
        return not part

    def implies(self, premise: Value, conclusion: Value) -> Value:
        return not premise or conclusion


class ConcreteAlgebra(PythonValues):
    """The algebra over Python values and three-valued truths."""

    def __init__(self, rigid: Symbols, servers: Sequence[ServerId], term_max: Term, index_max: Index) -> None:
        self.rigid = rigid
        self._domains: dict[Sort, Sequence[Any]] = {
            Sort.NODE: servers,
            Sort.TERM: range(term_max + 1),
            Sort.INDEX: range(index_max + 1),
        }

    conj = staticmethod(conjunction)
    disj = staticmethod(disjunction)
    neg = staticmethod(negation)

    def implies(self, premise: Value, conclusion: Value) -> Value:
        return disjunction(negation(premise), conclusion)

    def forall(self, sorts: Sequence[Sort], body: Callable[..., Value], patterns: Patterns | None = None) -> Value:
        unknown = False
        for elements in itertools.product(*(self._domains[sort] for sort in sorts)):
            truth = body(*elements)
            if truth is MAYBE:
                unknown = True
            elif not truth:
                return False
        return MAYBE if unknown else True


def readers(known: Annotations, log: Log) -> tuple[Callable[[Index], Value], Callable[[Index], Value]]:
    """The terms and the annotated values of a log, by index; the log is looked at when the first one is asked for."""
    columns: list[Columns] = []

    def looked_at() -> Columns:
        if not columns:
            columns.append(known.columns(log))
        return columns[0]

    length = log.length
    return (
        lambda index: looked_at().terms[index] if index <= length else NOTHING,
        lambda index: looked_at().values[index] if index <= length else NOTHING,
    )


def field(name: str) -> Callable[[Value], Value]:
    """A field of a configuration."""
    return lambda record: getattr(record, name) if isinstance(record, Record) else Unknown(name)


def rigid(
    c: Constants,
    known: Annotations,
    read_indexes: Mapping[Numbered, Index],
    round_starts: Mapping[Numbered, Time],
) -> Symbols:
    """What never changes: who is in a quorum, what a message says; the indexes and times that reads and rounds have.

    Only their leader knows the index of a read and the start of a round: it is given by the step.
    """

    def ghost(*_: Any) -> Any:
        return Ghost()

    looked_at: dict[Log, tuple[Callable[[Index], Value], Callable[[Index], Value]]] = {}

    def carried(which: int) -> Callable[[Slice, Index], Value]:
        def read(m: Slice, index: Index) -> Value:
            if m.log not in looked_at:
                looked_at[m.log] = readers(known, m.log)
            return looked_at[m.log][which](index) if index > 0 else NOTHING

        return read

    return Symbols(
        {
            "member": lambda n, q: n in q,
            "quorum_of": lambda q, record: record.is_quorum(q) if isinstance(record, Record) else MAYBE,
            "genesis_value": lambda: (GENESIS_VALUE, known.first),
            "configuration": lambda value: value[1] if isinstance(value, tuple) else Unknown("a configuration"),
            **{name: field(name) for name in ("birth_term", "birth_index", "previous", "allowed_by")},
            "term": lambda m: AtMost(m.term) if m.bound else m.term,
            "prev_index": lambda m: 0,
            "prev_term": lambda m: 0,
            "last_index": lambda m: m.log.length,
            "entry_term": carried(0),
            "entry_value": carried(1),
            "commit": lambda m: m.commit,
            "is_snapshot": lambda m: m.snapshot,
            "certificate_term": ghost,
            "certificate_index": ghost,
            "read_term": lambda r: r.term,
            "read_index": lambda r: read_indexes.get(r, Unknown(f"the index of {r}")),
            "round_term": lambda h: h.term,
            "round_start": lambda h: round_starts.get(h, Unknown(f"the start of {h}")),
            "first_time": lambda: 0,
            "lease_end": c.lease_end,
            "vote_from": c.vote_from,
            "asks_first": lambda: c.pre_vote,
        }
    )
