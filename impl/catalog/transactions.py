"""Transactions, on the tables: operations in order, each seeing what those before it did; all of them or none.

After an operation that failed the others are still tried, so that its client learns of every error at once.
Source: Consul, "Transaction HTTP API".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, assert_never

import msgspec

from impl.catalog import kv, registry
from impl.catalog.rows import Check, Node, Service, node_key, row_key
from impl.catalog.tables import Invalid, KvEntry, Tables
from impl.catalog.tagged import CheckRow, KvRow, NodeRow, ServiceRow

Unsigned = Annotated[int, msgspec.Meta(ge=0)]
VERBS = ("get", "set", "cas", "delete", "delete-cas")
"""Of operations on nodes, instances and checks."""
KV_WRITES = ("set", "cas", "lock", "unlock", "delete", "delete-tree", "delete-cas")
KV_READS = ("get", "get-or-empty", "get-tree", "check-index", "check-session", "check-not-exists")


class KvOperation(msgspec.Struct, frozen=True, array_like=True, tag="kv", gc=False):
    """An operation on a key, or for trees on a prefix."""

    verb: str
    key: str
    value: bytes = b""
    flags: Unsigned = 0
    index: Unsigned = 0
    session: str = ""


class NodeOperation(msgspec.Struct, frozen=True, array_like=True, tag="node", gc=False):
    """An operation on a node; conditional ones compare with its `modify_index`, as those below."""

    verb: str
    node: Node


class ServiceOperation(msgspec.Struct, frozen=True, array_like=True, tag="service", gc=False):
    """An operation on an instance."""

    verb: str
    service: Service


class CheckOperation(msgspec.Struct, frozen=True, array_like=True, tag="check", gc=False):
    """An operation on a check."""

    verb: str
    check: Check


Operation = KvOperation | NodeOperation | ServiceOperation | CheckOperation


Shown = KvRow | NodeRow | ServiceRow | CheckRow
"""A result."""


class OperationError(msgspec.Struct, frozen=True, array_like=True):
    """Why an operation failed; `position` counts from 0."""

    position: int
    what: str


class Outcome(msgspec.Struct, frozen=True, array_like=True, tag="outcome"):
    """The results of the operations that have one, in order, or the errors of those that failed."""

    results: list[Shown]
    errors: list[OperationError]


def only_reads(operations: tuple[Operation, ...]) -> bool:
    """Whether a transaction changes nothing, and need not stand in the log."""
    return all(
        operation.verb in KV_READS if isinstance(operation, KvOperation) else operation.verb == "get"
        for operation in operations
    )


class _Failed(Exception):
    pass


def run(tables: Tables, operations: tuple[Operation, ...], index: int) -> Outcome:
    """Carry out a transaction. One that only reads may be run with index 0."""
    outcome = Outcome([], [])
    try:
        with tables.atomic():
            for position, operation in enumerate(operations):
                try:
                    outcome.results.extend(_step(tables, operation, index))
                except Invalid as invalid:
                    outcome.errors.append(OperationError(position, str(invalid)))
            if outcome.errors:
                raise _Failed
    except _Failed:
        outcome.results.clear()
    return outcome


def _step(tables: Tables, operation: Operation, index: int) -> Sequence[Shown]:
    match operation:
        case KvOperation():
            return [KvRow(entry) for entry in _kv(tables, operation, index)]
        case NodeOperation(verb, node):
            return _row(
                "node",
                verb,
                f'node "{node.node}"',
                node.modify_index,
                tables.nodes.get(node_key(node.node)),
                lambda: registry.node_by_id(tables, node.id) if node.id else tables.nodes.get(node_key(node.node)),
                lambda: registry.ensure_node(tables, node, index),
                lambda: registry.delete_node(tables, node.node, index),
            )
        case ServiceOperation(verb, service):
            key = row_key(service.node, service.id)
            return _row(
                "service",
                verb,
                f'service "{service.id}" on node "{service.node}"',
                service.modify_index,
                tables.services.get(key),
                lambda: tables.services.get(key),
                lambda: registry.ensure_service(tables, service, index),
                lambda: registry.delete_service(tables, service.node, service.id, index),
            )
        case CheckOperation(verb, check):
            key = row_key(check.node, check.check_id)
            return _row(
                "check",
                verb,
                f'check "{check.check_id}" on node "{check.node}"',
                check.modify_index,
                tables.checks.get(key),
                lambda: tables.checks.get(key),
                lambda: registry.ensure_check(tables, check, index),
                lambda: registry.delete_check(tables, check.node, check.check_id, index),
            )
        case _:
            assert_never(operation)


def _row(
    table: str,
    verb: str,
    name: str,
    expected: int,
    compared: Node | Service | Check | None,
    now: Callable[[], Node | Service | Check | None],
    ensure: Callable[[], None],
    delete: Callable[[], None],
) -> Sequence[Shown]:
    """The verbs mean the same for nodes, instances and checks."""
    matches = expected == (0 if compared is None else compared.modify_index)
    match verb:
        case "get":
            pass
        case "set" | "cas":
            if verb == "cas" and not matches:
                raise Invalid(f"failed to set {name}, index is stale")
            ensure()
        case "delete" | "delete-cas":
            if verb == "delete-cas" and (compared is None or not matches):
                raise Invalid(f"failed to delete {name}, index is stale")
            delete()
            return []
        case _:
            raise Invalid(f'unknown {table.capitalize()} verb "{verb}"')
    row = now()
    if row is None:
        raise Invalid(f"{name} doesn't exist")
    match row:
        case Node():
            return [NodeRow(row)]
        case Service():
            return [ServiceRow(row)]
        case Check():
            return [CheckRow(row)]
        case _:
            assert_never(row)


def _kv(tables: Tables, op: KvOperation, index: int) -> list[KvEntry]:
    """What is written is shown without its value."""
    match op.verb:
        case "set":
            kv.set_key(tables, op.key, op.value, op.flags, index)
        case "cas":
            if not kv.check_and_set(tables, op.key, op.value, op.flags, op.index, index):
                raise Invalid(f'failed to set key "{op.key}", index is stale')
        case "lock":
            if not kv.acquire(tables, op.key, op.value, op.flags, op.session, index):
                raise Invalid(f'failed to lock key "{op.key}", lock is already held')
        case "unlock":
            if not kv.release(tables, op.key, op.value, op.flags, op.session, index):
                raise Invalid(f'failed to unlock key "{op.key}", lock isn\'t held, or is held by another session')
        case "delete":
            kv.delete_key(tables, op.key, index)
            return []
        case "delete-tree":
            kv.delete_tree(tables, op.key, index)
            return []
        case "delete-cas":
            if not kv.check_and_delete(tables, op.key, op.index, index):
                raise Invalid(f'failed to delete key "{op.key}", index is stale')
            return []
        case _:
            return _kv_read(tables, op)
    return [_without_value(tables.entries[op.key])]


def _kv_read(tables: Tables, op: KvOperation) -> list[KvEntry]:
    entry = tables.entries.get(op.key)
    match op.verb:
        case "get":
            if entry is None:
                raise Invalid(f'key "{op.key}" doesn\'t exist')
            return [entry]
        case "get-or-empty":
            return [entry if entry is not None else KvEntry(op.key, op.flags, b"", 0, 0)]
        case "get-tree":
            return [tables.entries[key] for key in tables.entries.under(op.key)]
        case "check-index":
            if entry is None:
                raise Invalid(f'failed to check index, key "{op.key}" doesn\'t exist')
            if entry.modify_index != op.index:
                current = f"current modify index {entry.modify_index} != {op.index}"
                raise Invalid(f'failed index check for key "{op.key}", {current}')
            return [_without_value(entry)]
        case "check-session":
            if entry is None:
                raise Invalid(f'failed to check session, key "{op.key}" doesn\'t exist')
            if entry.session != op.session:
                current = f'current session "{entry.session}" != "{op.session}"'
                raise Invalid(f'failed session check for key "{op.key}", {current}')
            return [_without_value(entry)]
        case "check-not-exists":
            if entry is not None:
                raise Invalid(f'key "{op.key}" exists')
            return []
        case _:
            raise Invalid(f'unknown KV verb "{op.verb}"')


def _without_value(entry: KvEntry) -> KvEntry:
    return msgspec.structs.replace(entry, value=b"")
