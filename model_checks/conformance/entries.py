"""Names for log entries: an entry's value in the spec is its chained digest, and its payload is kept aside.

The digest of ARCHITECTURE.md, section 5, covers the entry and everything before it. So two servers' logs are equal up
to an index if and only if the values there are equal, and comparing a recorded digest with the spec's log costs
nothing. Raft does not look at values; the catalog's replay finds the payloads here.
"""

from __future__ import annotations

from hashlib import blake2b
from struct import Struct

from spec.raft.log import Log
from spec.raft.types import Index, Term, Value

GENESIS_DIGEST = "0" * 16
_FRAME = Struct(">QQ").pack


def chained_digest(previous: str, index: Index, term: Term, payload: bytes) -> Value:
    """The digest of a log that ends with this entry, from that of the log before it: 16 hexadecimal digits."""
    return blake2b(bytes.fromhex(previous) + _FRAME(index, term) + payload, digest_size=8).hexdigest()


def digest_of(log: Log) -> str:
    """The chained digest over the whole log: the value of its last entry."""
    return log.entry(log.length).value if log.length else GENESIS_DIGEST


def digest_at(log: Log, index: Index) -> str:
    """The chained digest over the first `index` entries. Raises IndexError if the log is shorter."""
    return log.entry(index).value if index else GENESIS_DIGEST


class Payloads:
    """The payloads of all entries that any leader appended, by their entry's value."""

    def __init__(self) -> None:
        self._by_value: dict[Value, bytes] = {}

    def name(self, log: Log, term: Term, payload: bytes) -> Value:
        """The value of an entry with this payload at the end of `log`; remembers the payload."""
        value = chained_digest(digest_of(log), log.length + 1, term, payload)
        self._by_value[value] = payload
        return value

    def __getitem__(self, value: Value) -> bytes:
        return self._by_value[value]
