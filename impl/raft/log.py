"""The replicated log in memory: append at the end, cut at either end, constant-time look-ups.

The entries up to `base` are forgotten: a snapshot stands for them (Ongaro 2014, section 5.1). The log also knows the
configurations that it holds, the latest of which is in force (section 4.1). It says nothing of what is on disk
(`disk`) nor of what is committed. Index 0 is the genesis, of term 0.
Source: figure 3.1; the search for a conflict by term is section 3.5's back-off, as in etcd-io/raft.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from hashlib import blake2b

from impl.raft.configuration import Configuration, decode_configuration
from impl.raft.messages import Entry

DIGEST_OF_NOTHING = bytes(8)
NO_MEMBERS = Configuration(())


def chain_digest(previous: bytes, entry: Entry) -> bytes:
    """The digest of a log that ends with `entry` after a log of digest `previous` (ARCHITECTURE.md, section 5)."""
    head = previous + entry.index.to_bytes(8, "big") + entry.term.to_bytes(8, "big")
    return blake2b(head + entry.payload, digest_size=8).digest()


def _term(entry: Entry) -> int:
    return entry.term


class RaftLog:
    """Entries base+1..last_index without gaps, terms never falling.

    `digests`: keep the chained digest of every prefix from the base on, for traces.
    """

    __slots__ = (
        "_digests", "_entries", "_forgotten", "_sizes", "base", "base_term", "configurations", "last_index",
        "last_term",
    )  # fmt: skip

    def __init__(self, entries: Iterable[Entry], *, digests: bool, genesis: Configuration = NO_MEMBERS) -> None:
        self._digests: list[bytes] | None = [DIGEST_OF_NOTHING] if digests else None
        self._forgotten: list[Entry] = []
        self.replace_by_snapshot(0, 0, genesis, "")
        self.extend(list(entries))

    def replace_by_snapshot(self, index: int, term: int, configuration: Configuration, digest: str) -> None:
        """Nothing is left but a base, whose last entry was of `term`, with the configuration then in force."""
        self._entries: list[Entry] = []
        self._sizes: list[int] = [0]
        """At i, the bytes of payload in entries base+1..base+i, plus a constant: any range is measured in constant
        time.
        """
        if self._digests is not None:
            self._digests = [bytes.fromhex(digest) if digest else DIGEST_OF_NOTHING]
        self.base = self.last_index = index
        self.base_term = self.last_term = term
        self.configurations: list[Configuration] = [configuration]
        """In the order of their indexes; the first was in force at the snapshot, all others are entries of this log."""

    @property
    def configuration(self) -> Configuration:
        """The configuration in force: the latest in the log, committed or not (section 4.1)."""
        return self.configurations[-1]

    def configuration_at(self, index: int) -> Configuration:
        """The configuration in force for a log that ends at `index`, which must not be below the newest snapshot."""
        return next(found for found in reversed(self.configurations) if found.index <= index)

    def term_at(self, index: int) -> int:
        """Term of the entry at `index`, of [base, last_index]; 0 at index 0."""
        base = self.base
        return self._entries[index - base - 1].term if index > base else self.base_term

    def has(self, index: int, term: int) -> bool:
        """Whether the log has an entry of `term` at `index`, at or above its base: the consistency check of
        AppendEntries (section 3.5).
        """
        return self.base <= index <= self.last_index and self.term_at(index) == term

    def slice(self, previous: int, last: int) -> list[Entry]:
        """The entries (previous, last]; `previous` must not be below the base."""
        return self._entries[previous - self.base : last - self.base]

    def bytes_between(self, previous: int, last: int) -> int:
        """Bytes of payload in the entries (previous, last]; `previous` must not be below the base."""
        return self._sizes[last - self.base] - self._sizes[previous - self.base]

    def last_of_batch(self, previous: int, entries_max: int, bytes_max: int) -> int:
        """Where a batch that starts after `previous` ends: within both limits, but never empty while an entry
        follows.
        """
        end = min(previous + entries_max, self.last_index)
        if self.bytes_between(previous, end) <= bytes_max:
            return end
        sizes, at = self._sizes, previous - self.base
        fitting = bisect_right(sizes, sizes[at] + bytes_max, at + 1, end - self.base + 1) - 1
        return self.base + max(fitting, at + 1)

    def find_conflict(self, index: int, term: int) -> tuple[int, int]:
        """The greatest index <= `index` whose term is <= `term`, and that entry's term; below the base, just an index
        below it.

        Nothing after it can agree with a log whose entry at `index` is of `term`, since terms never fall along a log.
        """
        if index < self.base:
            return index, 0
        end = min(index, self.last_index) - self.base
        found = bisect_right(self._entries, term, 0, end, key=_term)
        if not found and self.base_term > term:
            return self.base - 1, 0
        return self.base + found, self.term_at(self.base + found)

    def extend(self, entries: list[Entry]) -> None:
        """Append entries that follow the last one. Raises msgspec.DecodeError for a configuration that is none."""
        if not entries:
            return
        self._entries.extend(entries)
        sizes = self._sizes
        size = sizes[-1]
        for entry in entries:
            size += len(entry.payload)
            sizes.append(size)
            if entry.kind and entry.index > self.configurations[-1].index:
                self.configurations.append(decode_configuration(entry.payload, entry.index))
        if self._digests is not None:
            for entry in entries:
                self._digests.append(chain_digest(self._digests[-1], entry))
        self.last_index = entries[-1].index
        self.last_term = entries[-1].term

    def cut(self, last: int) -> None:
        """Drop every entry after index `last`, which must not be below the base."""
        kept = last - self.base
        del self._entries[kept:]
        del self._sizes[kept + 1 :]
        if self._digests is not None:
            del self._digests[kept + 1 :]
        while self.configurations[-1].index > last:
            self.configurations.pop()
        self.last_index = last
        self.last_term = self.term_at(last)

    def compact(self, base: int) -> None:
        """Forget the entries up to `base`, of [old base, last_index]. Their memory is given back by `free`."""
        gone = base - self.base
        self.base_term = self.term_at(base)
        self._forgotten += self._entries[:gone]
        del self._entries[:gone]
        del self._sizes[:gone]
        if self._digests is not None:
            del self._digests[:gone]
        while len(self.configurations) > 1 and self.configurations[1].index <= base:
            del self.configurations[0]
        self.base = base

    def free(self, count: int) -> None:
        """Give back the memory of `count` forgotten entries: all at once would take as long as a heartbeat."""
        if self._forgotten:
            del self._forgotten[-count:]

    def digest_at(self, index: int) -> str:
        """Hex of the chained digest of the entries 1..index; not below the base. Only for a log that keeps digests."""
        if self._digests is None:
            raise ValueError("this log keeps no digests: it was made without tracing")
        return self._digests[index - self.base].hex()
