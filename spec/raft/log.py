"""Logs as interned persistent chains: append, equality and hash in O(1), any lookup in O(log n).

A log is its last entry on top of a shorter log. Chains are interned: two logs with the same entries are the same
object, so comparison is identity, whole server states hash cheaply, and a common prefix is a common ancestor. Every
node keeps one *jump* to an ancestor, placed as in a skew-binary list, so ancestors and common prefixes of logs of
100,000 entries take some 30 hops.

Interning is weak: a log lives as long as somebody holds it or a longer one. Identity holds within a process; pickling
carries the entries and interns again on arrival. Not safe for appends from several threads at once.

Indexes start at 1, as in Raft; index 0 is the genesis (term 0), which every log has. Nothing here knows the protocol,
except that the latest configuration of a log is known without a search.
Sources: Ongaro 2014, section 3.5 (log structure); E. W. Myers, "An applicative random-access stack", Information
Processing Letters 17(5), 1983 (jumps).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from weakref import WeakValueDictionary

from spec.raft.types import Configuration, Entry, Index, Term


class Log:
    """An immutable sequence of entries. Build it with `EMPTY.append(...)` or `log_of(entries)`, not with the class."""

    __slots__ = (
        "__weakref__",
        "_jump",
        "_parent",
        "_top",
        "configuration",
        "configuration_index",
        "last_term",
        "length",
    )

    _top: Final[Entry | None]
    _parent: Final[Log]
    _jump: Final[Log]
    length: Final[Index]
    """Number of entries; also the index of the last one."""
    last_term: Final[Term]
    """Term of the last entry; 0 if there is none."""
    configuration: Final[Configuration | None]
    """The latest configuration in this log; None: that of the genesis."""
    configuration_index: Final[Index]
    """Its index; 0: the genesis."""

    def __init__(self, parent: Log | None, top: Entry | None) -> None:
        self._top = top
        self._parent = self if parent is None else parent
        self._jump = self if parent is None else _jump_over(parent)
        self.length = 0 if parent is None else parent.length + 1
        self.last_term = 0 if top is None else top.term
        here = None if top is None else top.configuration
        below = (None, 0) if parent is None else (parent.configuration, parent.configuration_index)
        self.configuration, self.configuration_index = below if here is None else (here, self.length)

    def __len__(self) -> int:
        return self.length

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        shown = self.slice(max(0, self.length - 8), self.length)
        dots = "... " if self.length > 8 else ""
        return f"[{dots}{' '.join(map(_shown, shown))}]"

    def __reduce__(self) -> tuple[object, ...]:
        return (log_of, (self.slice(0, self.length),))

    def append(self, entry: Entry) -> Log:
        """This log with one more entry."""
        longer = _interned.get((self, entry))
        if longer is None:
            longer = _interned[self, entry] = Log(self, entry)
        return longer

    def extend(self, entries: Iterable[Entry]) -> Log:
        """This log with more entries."""
        log = self
        for entry in entries:
            log = log.append(entry)
        return log

    def truncate(self, to: Index) -> Log:
        """The prefix of length `to`. Raises IndexError if the log is shorter. O(log n)."""
        if not 0 <= to <= self.length:
            raise IndexError(f"no prefix of length {to} in a log of {self.length} entries")
        node = self
        while node.length > to:
            node = node._jump if node._jump.length >= to else node._parent
        return node

    def entry(self, index: Index) -> Entry:
        """The entry at `index` (from 1). Raises IndexError outside the log. O(log n)."""
        top = self.truncate(index)._top
        if top is None:
            raise IndexError("index 0 is the genesis, which is not an entry")
        return top

    def term_at(self, index: Index) -> Term:
        """The term of the entry at `index`; 0 at index 0. Raises IndexError outside the log. O(log n)."""
        return self.truncate(index).last_term

    def slice(self, prev: Index, last: Index) -> tuple[Entry, ...]:
        """The entries (prev, last], oldest first. Raises IndexError outside the log. O(log n + last - prev)."""
        if not 0 <= prev <= last:
            raise IndexError(f"no slice after {prev} up to {last}")
        node = self.truncate(last)
        found: list[Entry] = []
        while node.length > prev and node._top is not None:
            found.append(node._top)
            node = node._parent
        return tuple(reversed(found))

    def common_prefix(self, other: Log) -> Log:
        """The longest log that is a prefix of both. O(log n)."""
        shorter = min(self.length, other.length)
        left, right = self.truncate(shorter), other.truncate(shorter)
        while left is not right:
            # Equal lengths have jumps of equal length, so both sides stay level. Jump unless it may overshoot.
            if left._jump is right._jump:
                left, right = left._parent, right._parent
            else:
                left, right = left._jump, right._jump
        return left

    def agrees(self, other: Log, n: Index) -> bool:
        """Whether both logs hold at least `n` entries and the first `n` are the same. O(log n)."""
        if n > self.length or n > other.length:
            return False
        return self is other or self.truncate(n) is other.truncate(n)

    def is_prefix_of(self, other: Log) -> bool:
        """Whether `other` begins with this log."""
        return self.agrees(other, self.length)


def _shown(entry: Entry) -> str:
    """An entry in a log's repr."""
    if entry.configuration is None:
        return f"{entry.term}:{entry.value}"
    nonvoters = "".join(f" ({server})" for server in entry.configuration.nonvoters)
    return f"{entry.term}:{{{' '.join(entry.configuration.voters)}{nonvoters}}}"


def _jump_over(parent: Log) -> Log:
    """Where a child of `parent` jumps to: two equal strides below it merge into one (skew-binary increment)."""
    jump = parent._jump
    if parent.length > 0 and parent.length - jump.length == jump.length - jump._jump.length:
        return jump._jump
    return parent


_interned: WeakValueDictionary[tuple[Log, Entry], Log] = WeakValueDictionary()

EMPTY: Final = Log(None, None)
"""The log that holds only the genesis."""


def log_of(entries: Iterable[Entry]) -> Log:
    """The log with exactly these entries."""
    return EMPTY.extend(entries)
