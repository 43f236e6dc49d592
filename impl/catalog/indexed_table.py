"""A table whose rows are also found by what they have in common, and whose changes can be undone.

A *grouping* names the groups that a row is in; `group` finds the rows of one. While a journal is set, every change is
noted in it; `undo` takes them back in reverse order, groups included, so that a command of several steps is carried out
whole or not at all.

It must not know what rows mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from impl.catalog.table import Table

V = TypeVar("V")


class Grouping(Generic[V], NamedTuple):
    """What of a row decides which groups it is in (cheap: it is compared whenever a row changes), and their names."""

    of: Callable[[V], Any]
    names: Callable[[Any], tuple[str, ...]]


Groups = dict[str, set[str]]
"""The keys of the rows in each group."""
Journal = list[tuple["IndexedTable[Any]", str, Any]]
"""(table, key, the row that was there before; None: there was none), oldest first."""


class IndexedTable(Table[V]):
    """Rows by key, in the order of their keys, and by group."""

    __slots__ = ("_groupings", "_groups", "journal")

    def __init__(self, groupings: Mapping[str, Grouping[V]] | None = None) -> None:
        """`groupings`: by the names that `group` takes."""
        super().__init__()
        self.journal: Journal | None = None
        self._groups: dict[str, Groups] = {name: {} for name in groupings or {}}
        self._groupings = tuple((*grouping, self._groups[name]) for name, grouping in (groupings or {}).items())

    def put(self, key: str, row: V) -> V | None:
        """Insert or replace a row; returns the one that was there, None if there was none."""
        old = super().put(key, row)
        if self.journal is not None:
            self.journal.append((self, key, old))
        for of, names, groups in self._groupings:
            now = of(row)
            if old is None:
                _regroup(groups, key, (), names(now))
            elif (before := of(old)) != now:
                _regroup(groups, key, names(before), names(now))
        return old

    def pop(self, key: str) -> V | None:
        """Remove a row and return it; None if there was none."""
        old = super().pop(key)
        if old is None:
            return None
        if self.journal is not None:
            self.journal.append((self, key, old))
        for of, names, groups in self._groupings:
            _regroup(groups, key, names(of(old)), ())
        return old

    def drop_last(self, count: int) -> None:
        """Remove the last rows, at most `count` of them, whatever they are."""
        for key in self.last(count):
            self.pop(key)

    def group(self, grouping: str, name: str) -> list[V]:
        """The rows of a group, in the order of their keys."""
        return [self[key] for key in sorted(self._groups[grouping].get(name, ()))]

    def has_group(self, grouping: str, name: str) -> bool:
        """Whether a group has rows."""
        return name in self._groups[grouping]

    def group_count(self, grouping: str) -> int:
        """How many groups have rows."""
        return len(self._groups[grouping])

    def groups(self, grouping: str) -> list[str]:
        """The names of the groups that have rows, in order."""
        return sorted(self._groups[grouping])


def _regroup(groups: Groups, key: str, before: tuple[str, ...], now: tuple[str, ...]) -> None:
    for group in before:
        if group not in now:
            members = groups[group]
            members.discard(key)
            if not members:
                del groups[group]
    for group in now:
        groups.setdefault(group, set()).add(key)


def undo(journal: Journal) -> None:
    """Take back the changes of a journal that is not set in any table any more."""
    while journal:
        table, key, old = journal.pop()
        if old is None:
            table.pop(key)
        else:
            table.put(key, old)
