"""The concrete backend: the relational model's formulas evaluated on Python values.

Servers are names, terms and indexes are numbers, a quorum is the set of its members, a read is (term, round number), a
message of the model is a `Slice`. Quantifiers range over the given servers and indexes; no guard quantifies over
anything else.

Must not: know the readable spec's actions.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from model_checks.proofs.algebra import Patterns, Sort, Symbols, Value
from spec.raft.types import Entry, Index, ServerId, Term

NOTHING: Final = -1
"""What a log holds beyond its end: no term and no value."""


class Ghost:
    """A history value of which nothing is known and on which nothing may depend: equal to everything."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


@dataclass(frozen=True, slots=True)
class Slice:
    """An AppendEntries request of the model: entries after `prev_index` of the log of `term`, and a commit index.

    `bound`: the term is only known to be at most `term`.
    """

    term: Term
    prev_index: Index
    prev_term: Term
    entries: tuple[Entry, ...]
    commit: Index
    bound: bool = False

    @property
    def last_index(self) -> Index:
        """The index of the last entry, or `prev_index`."""
        return self.prev_index + len(self.entries)

    def term_at(self, index: Index) -> Term:
        """The term that the slice shows at an index from `prev_index` to `last_index`."""
        return self.prev_term if index == self.prev_index else self.entries[index - self.prev_index - 1].term

    def covers(self, part: Slice) -> bool:
        """Whether the leader that could send this could, in the same state, send `part`, too."""
        terms = self.term <= part.term if part.bound else (self.term == part.term and not self.bound)
        if not terms or part.commit > self.commit:
            return False
        if part.prev_index < self.prev_index or part.last_index > self.last_index:
            return False
        begin, end = part.prev_index - self.prev_index, part.last_index - self.prev_index
        return self.term_at(part.prev_index) == part.prev_term and self.entries[begin:end] == part.entries


def entry_of(m: Slice, index: Index) -> Entry | None:
    """The entry that a slice carries at an index."""
    return m.entries[index - m.prev_index - 1] if m.prev_index < index <= m.last_index else None


def entry_term(m: Slice, index: Index) -> Value:
    """The term of that entry."""
    entry = entry_of(m, index)
    return NOTHING if entry is None else entry.term


def entry_value(m: Slice, index: Index) -> Value:
    """The value of that entry."""
    entry = entry_of(m, index)
    return NOTHING if entry is None else entry.value


RIGID: Final = Symbols(
    {
        "member": lambda n, q: n in q,
        "term": lambda m: m.term,
        "prev_index": lambda m: m.prev_index,
        "prev_term": lambda m: m.prev_term,
        "last_index": lambda m: m.last_index,
        "entry_term": entry_term,
        "entry_value": entry_value,
        "commit": lambda m: m.commit,
        "certificate_term": lambda m: Ghost(),
        "certificate_index": lambda m: Ghost(),
    }
)


class ConcreteAlgebra:
    """The algebra over Python values."""

    rigid = RIGID
    first_term = 0
    genesis = 0

    def __init__(self, servers: tuple[ServerId, ...], index_max: Index) -> None:
        self._domains: dict[Sort, Sequence[Any]] = {Sort.NODE: servers, Sort.INDEX: range(index_max + 1)}

    def conj(self, *parts: Value) -> Value:
        return all(parts)

    def disj(self, *parts: Value) -> Value:
        return any(parts)

    def neg(self, part: Value) -> Value:
        return not part

    def implies(self, premise: Value, conclusion: Value) -> Value:
        return not premise or conclusion

    def ite(self, condition: Value, yes: Value, no: Value) -> Value:
        return yes if condition else no

    def le(self, left: Value, right: Value) -> Value:
        return left <= right

    def lt(self, left: Value, right: Value) -> Value:
        return left < right

    def successor(self, left: Value, right: Value) -> Value:
        return right == left + 1

    def forall(self, sorts: Sequence[Sort], body: Callable[..., Value], patterns: Patterns | None = None) -> Value:
        return all(body(*elements) for elements in itertools.product(*(self._domains[sort] for sort in sorts)))

    def mark(self, *terms: Value) -> Value:
        return True

    def unless(self, mutant: str, rule: Value) -> Value:
        return rule

    def mutated(self, mutant: str) -> bool:
        return False
