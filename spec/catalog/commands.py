"""What the replicated log asks of the catalog, and what clients ask of its state. Values only; meanings are in
`apply` and `query`.

Source: Consul, "KV Store - HTTP API" (PUT with cas and flags, DELETE with recurse and cas, GET with recurse, keys and
separator).
"""

from __future__ import annotations

import msgspec


class Noop(msgspec.Struct, frozen=True):
    """The entry that a new leader appends so as to commit one of its own term (Ongaro 2014, section 6.4)."""


class Set(msgspec.Struct, frozen=True):
    """Store `value` and `flags` under `key`."""

    key: str
    value: bytes
    flags: int = 0


class CheckAndSet(msgspec.Struct, frozen=True):
    """Set, only if the key's ModifyIndex is `index`; 0: only if the key does not exist."""

    key: str
    value: bytes
    flags: int
    index: int


class Delete(msgspec.Struct, frozen=True):
    """Delete one key."""

    key: str


class DeleteCheckAndSet(msgspec.Struct, frozen=True):
    """Delete one key, only if its ModifyIndex is `index`."""

    key: str
    index: int


class DeleteTree(msgspec.Struct, frozen=True):
    """Delete every key that begins with `prefix`."""

    prefix: str


Command = Noop | Set | CheckAndSet | Delete | DeleteCheckAndSet | DeleteTree


class Get(msgspec.Struct, frozen=True):
    """Read one key."""

    key: str


class List(msgspec.Struct, frozen=True):
    """Read every key that begins with `prefix` (?recurse)."""

    prefix: str


class Keys(msgspec.Struct, frozen=True):
    """The names of the keys that begin with `prefix`, cut after the first `separator` behind it, if that is not empty
    (?keys).
    """

    prefix: str
    separator: str = ""


Request = Get | List | Keys
