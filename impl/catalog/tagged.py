"""Rows with the names of their tables: what snapshots consist of, and the results of transactions.

The names must stay stable: these rows are on disks, and agents send them to each other.
"""

from __future__ import annotations

import msgspec

from impl.catalog.rows import Check, Node, Service
from impl.catalog.tables import KvEntry


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
