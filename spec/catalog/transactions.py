"""Transactions: operations in order, each seeing what those before it did; all of them are carried out, or none.

Every operation is tried even after one failed, so that all errors are told at once; then nothing is changed.
Source: Consul, "Transaction HTTP API".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

import msgspec

from spec.catalog import kv, registry
from spec.catalog.commands import (
    CheckOperation,
    KvOperation,
    KvVerb,
    NodeOperation,
    Operation,
    ServiceOperation,
    Transaction,
    Verb,
)
from spec.catalog.kv import Invalid
from spec.catalog.state import Check, Index, Node, Row, Service, State, node_key, row_key

Result = Row | Node | Service | Check
Step = tuple[State, tuple[Result, ...]]


class OperationError(msgspec.Struct, frozen=True):
    """Why an operation failed: its place in the transaction, from 0, and the text for the client."""

    position: int
    what: str


class Outcome(msgspec.Struct, frozen=True):
    """Of a transaction: the results of its operations, or the errors of those that failed."""

    results: tuple[Result, ...] = ()
    errors: tuple[OperationError, ...] = ()


def run(state: State, transaction: Transaction, index: Index) -> tuple[State, Outcome]:
    """Carry out a transaction. One that only reads may be run with the index 0 and changes nothing."""
    after = state
    results: list[Result] = []
    errors: list[OperationError] = []
    for position, operation in enumerate(transaction.operations):
        try:
            after, found = step(after, operation, index)
        except Invalid as invalid:
            errors.append(OperationError(position, str(invalid)))
        else:
            results.extend(found)
    if errors:
        return state, Outcome(errors=tuple(errors))
    return after, Outcome(results=tuple(results))


def step(state: State, operation: Operation, index: Index) -> Step:
    """One operation. Raises Invalid: it fails, and so does its transaction."""
    match operation:
        case KvOperation():
            return kv_step(state, operation, index)
        case NodeOperation():
            return node_step(state, operation, index)
        case ServiceOperation():
            return service_step(state, operation, index)
        case CheckOperation():
            return check_step(state, operation, index)
        case _:
            assert_never(operation)


def kv_step(state: State, op: KvOperation, index: Index) -> Step:
    """An operation on the KV store. What is read comes with its value; what is written, without."""
    match op.verb:
        case KvVerb.SET:
            return written(kv.set_row(state, op.key, op.value, op.flags, index), op.key)
        case KvVerb.CAS:
            state, done = kv.check_and_set(state, op.key, op.value, op.flags, op.index, index)
            require(done, f'failed to set key "{op.key}", index is stale')
            return written(state, op.key)
        case KvVerb.LOCK:
            state, done = kv.lock(state, op.key, op.value, op.flags, op.session, index)
            require(done, f'failed to lock key "{op.key}", lock is already held')
            return written(state, op.key)
        case KvVerb.UNLOCK:
            state, done = kv.unlock(state, op.key, op.value, op.flags, op.session, index)
            text = f'failed to unlock key "{op.key}", lock isn\'t held, or is held by another session'
            require(done, text)
            return written(state, op.key)
        case KvVerb.DELETE:
            return kv.delete_row(state, op.key, index), ()
        case KvVerb.DELETE_TREE:
            return kv.delete_tree(state, op.key, index), ()
        case KvVerb.DELETE_CAS:
            state, done = kv.delete_check_and_set(state, op.key, op.index, index)
            require(done, f'failed to delete key "{op.key}", index is stale')
            return state, ()
        case _:
            return state, kv_read(state, op)


def kv_read(state: State, op: KvOperation) -> tuple[Row, ...]:
    """An operation that reads the KV store, or checks it."""
    row = state.rows.get(op.key)
    match op.verb:
        case KvVerb.GET:
            return (found(row, f'key "{op.key}" doesn\'t exist'),)
        case KvVerb.GET_OR_EMPTY:
            return (row if row is not None else Row(op.key, b"", op.flags, 0, 0),)
        case KvVerb.GET_TREE:
            return tuple(each for _, each in state.rows.with_prefix(op.key))
        case KvVerb.CHECK_INDEX:
            row = found(row, f'failed to check index, key "{op.key}" doesn\'t exist')
            text = f'failed index check for key "{op.key}", current modify index {row.modify_index} != {op.index}'
            require(row.modify_index == op.index, text)
            return (without_value(row),)
        case KvVerb.CHECK_SESSION:
            row = found(row, f'failed to check session, key "{op.key}" doesn\'t exist')
            text = f'failed session check for key "{op.key}", current session "{row.session}" != "{op.session}"'
            require(row.session == op.session, text)
            return (without_value(row),)
        case KvVerb.CHECK_NOT_EXISTS:
            require(row is None, f'key "{op.key}" exists')
            return ()
        case _:
            raise Invalid(f'unknown KV verb "{op.verb}"')


def written(state: State, key: str) -> Step:
    """The row that an operation left at `key`."""
    row = state.rows.get(key)
    assert row is not None, "it was just written"
    return state, (without_value(row),)


def without_value(row: Row) -> Row:
    """A row as writes and checks answer it."""
    return msgspec.structs.replace(row, value=b"")


def node_step(state: State, op: NodeOperation, index: Index) -> Step:
    """An operation on a node, which is found by its id if the operation has one, else by its name."""
    node = op.node

    def now(state: State) -> Node | None:
        return registry.by_id(state, node.id) if node.id else state.nodes.get(node_key(node.node))

    return row_step(
        state,
        op.verb,
        now,
        named=state.nodes.get(node_key(node.node)),
        expected=node.modify_index,
        missing=f'node "{node.node}" doesn\'t exist',
        name=f'node "{node.node}"',
        ensure=lambda: registry.ensure_node(state, node, index),
        delete=lambda: registry.delete_node(state, node.node, index),
    )


def service_step(state: State, op: ServiceOperation, index: Index) -> Step:
    """An operation on an instance."""
    service = op.service
    key = row_key(service.node, service.id)
    name = f'service "{service.id}" on node "{service.node}"'
    return row_step(
        state,
        op.verb,
        lambda state: state.services.get(key),
        named=state.services.get(key),
        expected=service.modify_index,
        missing=f"{name} doesn't exist",
        name=name,
        ensure=lambda: registry.ensure_service(state, service, index),
        delete=lambda: registry.delete_service(state, service.node, service.id, index),
    )


def check_step(state: State, op: CheckOperation, index: Index) -> Step:
    """An operation on a check."""
    check = op.check
    key = row_key(check.node, check.check_id)
    name = f'check "{check.check_id}" on node "{check.node}"'
    return row_step(
        state,
        op.verb,
        lambda state: state.checks.get(key),
        named=state.checks.get(key),
        expected=check.modify_index,
        missing=f"{name} doesn't exist",
        name=name,
        ensure=lambda: registry.ensure_check(state, check, index),
        delete=lambda: registry.delete_check(state, check.node, check.check_id, index),
    )


def row_step(
    state: State,
    verb: Verb,
    now: Callable[[State], Node | Service | Check | None],
    *,
    named: Node | Service | Check | None,
    expected: Index,
    missing: str,
    name: str,
    ensure: Callable[[], State],
    delete: Callable[[], State],
) -> Step:
    """What the verbs mean is the same for nodes, instances and checks.

    Conditional ones look at the row of that name, even where a node is shown by its id.
    """
    stale = expected != (0 if named is None else named.modify_index)
    match verb:
        case Verb.GET:
            return shown(state, now(state), missing)
        case Verb.SET | Verb.CAS:
            require(verb is Verb.SET or not stale, f"failed to set {name}, index is stale")
            state = ensure()
            return shown(state, now(state), missing)
        case Verb.DELETE | Verb.DELETE_CAS:
            # Unlike that of a key, the conditional deletion of what is not there fails.
            require(verb is Verb.DELETE or not (stale or named is None), f"failed to delete {name}, index is stale")
            return delete(), ()
        case _:
            assert_never(verb)


def shown(state: State, row: Node | Service | Check | None, missing: str) -> Step:
    """The row that an operation shows. Raises Invalid(missing) if there is none."""
    if row is None:
        raise Invalid(missing)
    return state, (row,)


def found(row: Row | None, otherwise: str) -> Row:
    """The row. Raises Invalid(otherwise) if there is none."""
    if row is None:
        raise Invalid(otherwise)
    return row


def require(condition: bool, otherwise: str) -> None:
    """Raise Invalid(otherwise) unless the condition holds."""
    if not condition:
        raise Invalid(otherwise)
