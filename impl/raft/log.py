"""The replicated log in memory: append at the end, cut at the end, constant-time look-ups.

It says nothing of what is on disk (`disk`) nor of what is committed. Index 0 is the genesis, of term 0.
Source: Ongaro 2014, figure 3.1; the search for a conflict by term is section 3.5's back-off, as in etcd-io/raft.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from hashlib import blake2b

from impl.raft.messages import Entry

DIGEST_OF_NOTHING = bytes(8)


def chain_digest(previous: bytes, entry: Entry) -> bytes:
    """The digest of a log that ends with `entry` after a log of digest `previous` (ARCHITECTURE.md, section 5)."""
    head = previous + entry.index.to_bytes(8, "big") + entry.term.to_bytes(8, "big")
    return blake2b(head + entry.payload, digest_size=8).digest()


def _term(entry: Entry) -> int:
    return entry.term


class RaftLog:
    """Entries 1..last_index without gaps, terms never falling.

    `digests`: keep the chained digest of every prefix, for traces.
    """

    __slots__ = ("_digests", "_entries", "_sizes", "last_index", "last_term")

    def __init__(self, entries: Iterable[Entry], *, digests: bool) -> None:
        self._entries: list[Entry] = []
        self._sizes: list[int] = [0]
        """At i, the bytes of payload in entries 1..i: any range is measured in constant time."""
        self._digests: list[bytes] | None = [DIGEST_OF_NOTHING] if digests else None
        self.last_index = 0
        self.last_term = 0
        self.extend(list(entries))

    def term_at(self, index: int) -> int:
        """Term of the entry at `index`; 0 at index 0. The index must not be beyond the last."""
        return self._entries[index - 1].term if index else 0

    def has(self, index: int, term: int) -> bool:
        """Whether the log has an entry of `term` at `index`: the consistency check of AppendEntries (section 3.5)."""
        return index <= self.last_index and self.term_at(index) == term

    def slice(self, previous: int, last: int) -> list[Entry]:
        """The entries (previous, last]."""
        return self._entries[previous:last]

    def bytes_between(self, previous: int, last: int) -> int:
        """Bytes of payload in the entries (previous, last]."""
        return self._sizes[last] - self._sizes[previous]

    def last_of_batch(self, previous: int, entries_max: int, bytes_max: int) -> int:
        """Where a batch that starts after `previous` ends: within both limits, but never empty while an entry
        follows.
        """
        end = min(previous + entries_max, self.last_index)
        if self.bytes_between(previous, end) <= bytes_max:
            return end
        fitting = bisect_right(self._sizes, self._sizes[previous] + bytes_max, previous + 1, end + 1) - 1
        return max(fitting, previous + 1)

    def find_conflict(self, index: int, term: int) -> tuple[int, int]:
        """The greatest index <= `index` whose term is <= `term`, and that entry's term.

        Nothing after it can agree with a log whose entry at `index` is of `term`, since terms never fall along a log.
        """
        found = bisect_right(self._entries, term, 0, min(index, self.last_index), key=_term)
        return found, self.term_at(found)

    def extend(self, entries: list[Entry]) -> None:
        """Append entries that follow the last one."""
        if not entries:
            return
        self._entries.extend(entries)
        sizes = self._sizes
        size = sizes[-1]
        for entry in entries:
            size += len(entry.payload)
            sizes.append(size)
        if self._digests is not None:
            for entry in entries:
                self._digests.append(chain_digest(self._digests[-1], entry))
        self.last_index = entries[-1].index
        self.last_term = entries[-1].term

    def cut(self, last: int) -> None:
        """Drop every entry after index `last`."""
        del self._entries[last:]
        del self._sizes[last + 1 :]
        if self._digests is not None:
            del self._digests[last + 1 :]
        self.last_index = last
        self.last_term = self.term_at(last)

    def digest_at(self, index: int) -> str:
        """Hex of the chained digest of the entries 1..index. Only for a log that keeps digests."""
        if self._digests is None:
            raise ValueError("this log keeps no digests: it was made without tracing")
        return self._digests[index].hex()
