"""Rows with the names of their tables: what snapshots consist of, and the results of transactions.

The names must stay stable: these rows are on disks, and agents send them to each other.
"""

from __future__ import annotations

import msgspec

from impl.catalog.rows import Check, Node, Service, Session
from impl.catalog.tables import KvEntry


class IndexRow(msgspec.Struct, frozen=True, array_like=True, tag="index", gc=False):
    """The index of the last change of a table."""

    name: str
    value: int


class TombstoneRow(msgspec.Struct, frozen=True, array_like=True, tag="tombstone", gc=False):
    """A key or prefix that was deleted."""

    key: str
    index: int


class KvRow(msgspec.Struct, frozen=True, array_like=True, tag="kv", gc=False):
    """A key."""

    row: KvEntry


class NodeRow(msgspec.Struct, frozen=True, array_like=True, tag="node", gc=False):
    """A node."""

    row: Node


class ServiceRow(msgspec.Struct, frozen=True, array_like=True, tag="service", gc=False):
    """An instance of a service."""

    row: Service


class CheckRow(msgspec.Struct, frozen=True, array_like=True, tag="check", gc=False):
    """A health check."""

    row: Check


class SessionRow(msgspec.Struct, frozen=True, array_like=True, tag="session", gc=False):
    """A session."""

    row: Session


ArchivedRow = IndexRow | KvRow | TombstoneRow | NodeRow | ServiceRow | CheckRow | SessionRow
"""What the state in force consists of."""
KV_INDEX = "kv"
"""Name of the index of the KV store: of the last entry that changed a key or left a tombstone. Its row comes first."""
