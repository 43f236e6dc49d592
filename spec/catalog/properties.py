"""What holds in every state of the catalog and over every command, whatever the log says.

What is said of two states does not hold over the commit of a restore, which puts another state in place of the one
before (`restore_properties`). Source: Consul, "KV Store - HTTP API" (CreateIndex, ModifyIndex), "Blocking Queries"
(index), "Sessions" (what a session's end means), "Catalog HTTP API" (what needs what).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from spec.catalog.commands import Command, Get, Request, Transaction
from spec.catalog.kv import Invalid
from spec.catalog.queries import query
from spec.catalog.state import Index, State, Status, node_key, row_key
from spec.catalog.transactions import step
from spec.catalog.transitions import apply


def indexes_are_ordered(state: State, last_applied: Index) -> bool:
    """0 < CreateIndex <= ModifyIndex <= the table's index <= that of the last entry applied, in every table.

    So what is written later has a greater index than all that was restored.
    """
    last = last_applied + state.shift
    tables = (
        (state.rows.items(), state.rows_index),
        (state.nodes.items(), state.index("nodes")),
        (state.services.items(), state.index("services")),
        (state.checks.items(), state.index("checks")),
        (state.sessions.items(), state.index("sessions")),
    )
    return (
        all(0 < row.create_index <= row.modify_index <= index for rows, index in tables for _, row in rows)
        and all(0 < index <= state.tombstones_index for _, index in state.tombstones.items())
        and all(0 < index <= last for _, index in state.indexes.items())
        and state.table_index <= last
    )


def references_exist(state: State) -> bool:
    """Instances and sessions have their node, checks their node and instance, sessions their checks, none critical."""
    services = all(node_key(service.node) in state.nodes for _, service in state.services.items())
    checks = all(
        node_key(check.node) in state.nodes
        and (not check.service_id or row_key(check.node, check.service_id) in state.services)
        for _, check in state.checks.items()
    )
    return services and checks and all(rests(state, session) for session, _ in state.sessions.items())


def rests(state: State, session_id: str) -> bool:
    """Whether what a session depends on is there and healthy."""
    session = state.sessions.get(session_id)
    if session is None or node_key(session.node) not in state.nodes:
        return False
    checks = [state.checks.get(row_key(session.node, check_id)) for check_id in session.checks]
    return all(check is not None and check.status is not Status.CRITICAL for check in checks)


def only_sessions_hold_locks(state: State) -> bool:
    """A session that ended holds nothing; a key that is held was acquired."""
    held = [row for _, row in state.rows.items() if row.session]
    return all(row.session in state.sessions and row.lock_index > 0 for row in held)


def holds_are_numbered(before: State, after: State) -> bool:
    """A key that another session holds now than before, or none, has another (CreateIndex, LockIndex), unless none
    holds it now: so (key, CreateIndex, LockIndex) names one hold.
    """
    for key, row in after.rows.items():
        old = before.rows.get(key)
        if old is None or not row.session or old.session == row.session:
            continue
        if (row.create_index, row.lock_index) <= (old.create_index, old.lock_index):
            return False
    return True


def nobody_is_robbed(before: State, command: Command, index: Index) -> bool:
    """A key passes from one session to another only through nobody, or by the end of the first. A transaction may
    release it and acquire it for another: so each of its operations is looked at.
    """
    passed = operations(before, command, index)
    return not any(robbed(old, new) for old, new in pairwise(passed))


def robbed(before: State, after: State) -> bool:
    """Whether a session that lives lost a key to another."""
    pairs = ((before.rows.get(key), row) for key, row in after.rows.items())
    return any(
        old is not None and old.session and row.session not in ("", old.session) and old.session in after.sessions
        for old, row in pairs
    )


def operations(before: State, command: Command, index: Index) -> Iterator[State]:
    """The states that a command passes through, operation by operation, up to the one that fails. Only the first and
    the last can be seen.
    """
    yield before
    if not isinstance(command, Transaction):
        yield apply(before, command, index)[0]
        return
    for operation in command.operations:
        try:
            before, _ = step(before, operation, index)
        except Invalid:
            return
        yield before


def change_is_announced(before: State, after: State, request: Request) -> bool:
    """If a command changed an answer, the answer's index grew: a blocking query misses nothing."""
    (old_index, old), (new_index, new) = query(before, request), query(after, request)
    return old == new or new_index > old_index


def key_index_never_goes_back(before: State, after: State, key: str) -> bool:
    """The index of a read of one key never goes back. (That of a list may: see `delete_tree`.)"""
    return query(after, Get(key))[0] >= query(before, Get(key))[0]
