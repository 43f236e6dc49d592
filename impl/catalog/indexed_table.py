"""A table whose rows are also found by what they have in common, and whose changes can be undone.

A *grouping* is a function of a row that names the groups it is in; `group` finds the rows of one. While a journal is
set, every change is noted in it; `undo` takes them back in reverse order, groups included, so that a command of several
steps is carried out whole or not at all.

It must not know what rows mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from impl.catalog.table import Table

V = TypeVar("V")
Grouping = Callable[[V], Iterable[str]]
Journal = list[tuple["IndexedTable[Any]", str, Any]]
"""(table, key, the row that was there before; None: there was none), oldest first."""


class IndexedTable(Table[V]):
    """Rows by key, in the order of their keys, and by group."""

    __slots__ = ("_groupings", "_groups", "journal")

    def __init__(self, groupings: Mapping[str, Grouping[V]] | None = None) -> None:
        """`groupings`: by the names that `group` takes."""
        super().__init__()
        self.journal: Journal | None = None
        self._groupings = tuple((groupings or {}).items())
        self._groups: dict[str, dict[str, set[str]]] = {name: {} for name, _ in self._groupings}

    def put(self, key: str, row: V) -> None:
        """Insert or replace a row."""
        old = self.get(key)
        super().put(key, row)
        self._changed(key, old, row)

    def pop(self, key: str) -> V | None:
        """Remove a row and return it; None if there was none."""
        old = super().pop(key)
        if old is not None:
            self._changed(key, old, None)
        return old

    def group(self, grouping: str, name: str) -> list[V]:
        """The rows of a group, in the order of their keys."""
        return [self[key] for key in sorted(self._groups[grouping].get(name, ()))]

    def has_group(self, grouping: str, name: str) -> bool:
        """Whether a group has rows."""
        return name in self._groups[grouping]

    def groups(self, grouping: str) -> list[str]:
        """The names of the groups that have rows, in order."""
        return sorted(self._groups[grouping])

    def _changed(self, key: str, old: V | None, new: V | None) -> None:
        if self.journal is not None:
            self.journal.append((self, key, old))
        for name, grouping in self._groupings:
            before = set(grouping(old)) if old is not None else set()
            now = set(grouping(new)) if new is not None else set()
            if before == now:
                continue
            groups = self._groups[name]
            for group in before - now:
                groups[group].remove(key)
                if not groups[group]:
                    del groups[group]
            for group in now - before:
                groups.setdefault(group, set()).add(key)


def undo(journal: Journal) -> None:
    """Take back the changes of a journal that is not set in any table any more."""
    while journal:
        table, key, old = journal.pop()
        if old is None:
            table.pop(key)
        else:
            table.put(key, old)
