"""Logs of the readable spec as the relational model sees them: each value with the configuration in force.

In the model a value is a client's value and a configuration, which knows its birth: the term and index of its entry,
the configuration before it, and the commit that allowed it. All of it is computed from the log. Equal records are one
object, so values compare fast.

Must not: know what a server is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final
from weakref import WeakKeyDictionary

from spec.raft.log import Log
from spec.raft.types import Configuration, Constants, Index, ServerId, Term


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Record:
    """A configuration of the model. Two records are equal if they are one object: `_record` makes each once."""

    voters: frozenset[ServerId]
    nonvoters: frozenset[ServerId]
    birth_term: Term
    birth_index: Index
    before: Record | None
    """The configuration before this one; None: this is the first."""
    allowed_by: Index

    @property
    def previous(self) -> Record:
        """The configuration before this one; the first one follows itself."""
        return self.before or self

    def is_quorum(self, servers: frozenset[ServerId]) -> bool:
        """Whether servers hold a majority of the voters."""
        return 2 * len(servers & self.voters) > len(self.voters)

    def is_adjacent(self) -> bool:
        """Whether this record and the one before it differ by at most one voter: then their quorums meet."""
        return len(self.voters ^ self.previous.voters) <= 1

    def __repr__(self) -> str:
        shown = [*sorted(self.voters), *(f"({server})" for server in sorted(self.nonvoters))]
        return f"{{{' '.join(shown)} @{self.birth_index}:{self.birth_term}}}"


Annotated = tuple[str, Record]
"""A value of the model: the client's value, and the configuration in force from its entry on."""


@dataclass(frozen=True, slots=True)
class Columns:
    """A log by index, from the genesis on: terms and annotated values."""

    terms: tuple[Term, ...]
    values: tuple[Annotated, ...]


GENESIS_VALUE: Final = "genesis"


@cache
def _record(
    configuration: Configuration, birth_term: Term, birth_index: Index, before: Record | None, allowed_by: Index
) -> Record:
    """The one record with these fields."""
    voters, nonvoters = frozenset(configuration.voters), frozenset(configuration.nonvoters)
    return Record(voters, nonvoters, birth_term, birth_index, before, allowed_by)


class Annotations:
    """The records and columns of the logs of one cluster, each computed once while the log lives."""

    def __init__(self, genesis: Configuration) -> None:
        self.first: Final = _record(genesis, 0, 0, None, 0)
        """The configuration of the genesis."""
        self._records: WeakKeyDictionary[Log, Record] = WeakKeyDictionary()
        self._columns: WeakKeyDictionary[Log, Columns] = WeakKeyDictionary()

    def record(self, log: Log) -> Record:
        """The configuration in force for who has this log."""
        born, index = log.configuration, log.configuration_index
        if born is None:
            return self.first
        birth = log.truncate(index)
        known = self._records.get(birth)
        if known is None:
            before = self.record(birth.truncate(index - 1))
            known = self._records[birth] = _record(born, birth.last_term, index, before, born.allowed_by)
        return known

    def columns(self, log: Log) -> Columns:
        """The log by index."""
        known = self._columns.get(log)
        if known is None:
            known = self._columns[log] = self._computed(log)
        return known

    def _computed(self, log: Log) -> Columns:
        record = self.first
        terms, values = [0], [(GENESIS_VALUE, record)]
        for index, entry in enumerate(log.slice(0, log.length), start=1):
            if entry.configuration is not None:
                record = self.record(log.truncate(index))
            terms.append(entry.term)
            values.append((entry.value, record))
        return Columns(tuple(terms), tuple(values))


@cache
def annotations_of(c: Constants) -> Annotations:
    """The annotations of a cluster."""
    return Annotations(c.genesis)
