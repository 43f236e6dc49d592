"""What holds over every command of the catalog, whatever the log says. (`invariants`: what holds in every state.)

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
from spec.catalog.state import Index, State
from spec.catalog.transactions import step
from spec.catalog.transitions import apply


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
            before, _ = step(before, operation, index + before.shift)
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
