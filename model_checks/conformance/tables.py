"""What is proved of the catalog, evaluated on the tables that a real log built.

Reads and snapshots tie what servers hold to `spec/catalog` (`answers`); here the spec's tables are judged by the same
properties as in its own tests. A look costs as much as the tables are large, so there are at most `LOOKS_MAX`, evenly
spread over the log, and as many at commands that may end sessions, move locks or change several rows. Each judges the
tables after an entry, and the entry's step.

Source: `spec/catalog/properties.py`. Must not: take longer for a longer log.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from model_checks.conformance.divergence import INVARIANTS, Divergence
from spec.catalog import invariants, properties
from spec.catalog.commands import (
    CheckAndSet,
    Command,
    Delete,
    DeleteCheckAndSet,
    Get,
    Lock,
    Noop,
    RestoreCommit,
    ServiceHealth,
    Set,
    Unlock,
)
from spec.catalog.state import Index, State

LOOKS_MAX: Final = 100
READS_MAX: Final = 20
"""Keys, and services, whose answers are compared at a look."""

SIMPLE: Final = (Noop, Set, CheckAndSet, Delete, DeleteCheckAndSet)
"""Commands that change one key at most, and no lock."""


class Tables:
    """Looks at some entries of a log of so many."""

    def __init__(self, entries: int) -> None:
        self._every = max(1, -(-entries // LOOKS_MAX))
        self._entries = entries
        self._left = LOOKS_MAX
        self.looks = 0
        self.broken: Divergence | None = None
        """The first property that did not hold; its place is the answer that the tables were built for."""

    def applied(self, before: State, command: Command, index: Index, after: State) -> None:
        """An entry was applied: perhaps look at it."""
        eventful = self._left > 0 and not isinstance(command, SIMPLE)
        self._left -= eventful
        if not eventful and index % self._every and index != self._entries:
            return
        self.looks += 1
        for name in violated(before, command, index, after):
            why = f"{name.replace('_', ' ')}: not after entry {index}, {type(command).__name__}"
            self.broken = self.broken or Divergence(INVARIANTS, name, why, [f"  {command}"])


def violated(before: State, command: Command, index: Index, after: State) -> Iterator[str]:
    """The properties that do not hold of an entry."""
    if not invariants.indexes_are_ordered(after, index):
        yield "indexes_are_ordered"
    if not invariants.references_exist(after):
        yield "references_exist"
    if not invariants.only_sessions_hold_locks(after):
        yield "only_sessions_hold_locks"
    if isinstance(command, RestoreCommit):
        return  # two states that have nothing to do with each other
    if not properties.holds_are_numbered(before, after):
        yield "holds_are_numbered"
    if not properties.nobody_is_robbed(before, command, index):
        yield "nobody_is_robbed"
    for request in requests(before, command, after):
        if not properties.change_is_announced(before, after, request):
            yield "change_is_announced"
            return


def requests(before: State, command: Command, after: State) -> Iterator[Get | ServiceHealth]:
    """Reads whose answers the entry may have changed: of its key, or of the first keys and services that there are."""
    if isinstance(command, Set | CheckAndSet | Delete | DeleteCheckAndSet | Lock | Unlock):
        yield Get(command.key)
        return
    names = sorted({service.service for state in (before, after) for _, service in state.services.items()})
    yield from (ServiceHealth(name) for name in names[:READS_MAX])
    keys = sorted({key for state in (before, after) for key, _ in state.rows.items()})
    yield from (Get(key) for key in keys[:READS_MAX])
