"""A table of the state store: rows ordered by key, with views that stand still while the table changes.

A view costs nothing when it is made. From then on, a change of a row that the view has not handed out yet first saves
what the row was (copy on write); the view hands out its rows in order, a few at a time, each from what was saved or
else from the table. So a snapshot of a million rows blocks nobody for longer than a few rows take.

It must not know what rows mean.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Generic, TypeVar

from sortedcontainers import SortedDict

V = TypeVar("V")


class Table(Generic[V]):
    """Rows by key, in the order of their keys (of code points, as UTF-8 sorts bytes)."""

    __slots__ = ("_rows", "_views")

    def __init__(self) -> None:
        self._rows: SortedDict[str, V] = SortedDict()
        self._views: list[View[V]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: str) -> V:
        row: V = self._rows[key]
        return row

    def get(self, key: str) -> V | None:
        """The row of this key; None if there is none."""
        row: V | None = self._rows.get(key)
        return row

    def put(self, key: str, row: V) -> V | None:
        """Insert or replace a row; returns the one that was there, None if there was none."""
        if self._views:
            self._save(key)
        rows = self._rows
        old: V | None = rows.get(key)
        if old is None:
            rows[key] = row
        else:
            dict.__setitem__(rows, key, row)  # its place is the same: SortedDict's own way looks for it again
        return old

    def pop(self, key: str) -> V | None:
        """Remove a row and return it; None if there was none."""
        if self._views:
            self._save(key)
        row: V | None = self._rows.pop(key, None)
        return row

    def under(self, prefix: str) -> list[str]:
        """The keys that start with `prefix`, in order."""
        found: list[str] = []
        for key in self._rows.irange(minimum=prefix):
            if not key.startswith(prefix):
                break
            found.append(key)
        return found

    def after(self, key: str | None, count: int) -> list[str]:
        """The first `count` keys after `key`; from the first key on if it is None."""
        return _after(self._rows, key, count)

    def last(self, count: int) -> list[str]:
        """The last `count` keys, the last one first."""
        return list(islice(reversed(self._rows), count))

    def view(self) -> View[V]:
        """The rows as they are now. Must be read to its end, or closed."""
        view = View(self)
        self._views.append(view)
        return view

    def forget(self, view: View[V]) -> None:
        """The view is not read any more."""
        self._views.remove(view)

    def _save(self, key: str) -> None:
        old = self._rows.get(key)
        for view in self._views:
            view.save(key, old)


class View(Generic[V]):
    """The rows of a table as they were when the view was made. Made by `Table.view`."""

    __slots__ = ("_cursor", "_saved", "_table", "done")

    def __init__(self, table: Table[V]) -> None:
        """Not for callers: use `Table.view`."""
        self.done = False
        """Everything was handed out, or the view was closed."""
        self._table = table
        self._cursor: str | None = None
        """Rows up to this key have been handed out."""
        self._saved: SortedDict[str, V | None] = SortedDict()
        """Rows beyond the cursor that changed since the view was made, as they were; None: there was none."""

    def save(self, key: str, old: V | None) -> None:
        """The row of `key` is about to change."""
        if (self._cursor is None or key > self._cursor) and key not in self._saved:
            self._saved[key] = old

    def rows(self, count: int) -> Iterable[tuple[str, V]]:
        """The next rows, at most 2 * `count` of them, in order; perhaps none although there are more: see `done`.

        To be read before anything changes. (A list of pairs would do, were it not that a million pairs make the garbage
        collector look through the whole store, which takes it some 20 ms.)
        """
        if self.done:
            return ()
        live, saved = self._table.after(self._cursor, count), _after(self._saved, self._cursor, count)
        ends = [keys[-1] for keys in (live, saved) if len(keys) == count]
        if ends:
            end = min(ends)
            live = [key for key in live if key <= end]
            saved = [key for key in saved if key <= end]
            self._cursor = end
        found: dict[str, V] = {key: self._table[key] for key in live}
        if saved:
            found = self._merge(found, saved)
        if not ends:
            self.close()
        return zip(found.keys(), found.values(), strict=True)

    def _merge(self, found: dict[str, V], saved: list[str]) -> dict[str, V]:
        """What is in the table, corrected by what was saved."""
        for key in saved:
            old = self._saved.pop(key)
            if old is None:
                found.pop(key, None)
            else:
                found[key] = old
        return {key: found[key] for key in sorted(found)}

    def close(self) -> None:
        """It is not read any more: changes cost nothing again."""
        if not self.done:
            self.done = True
            self._table.forget(self)


def _after(rows: SortedDict[str, V], key: str | None, count: int) -> list[str]:
    if key is None:
        return list(islice(rows, count))
    return list(islice(rows.irange(minimum=key, inclusive=(False, True)), count))
