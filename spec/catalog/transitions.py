"""`apply(state, command, index) -> (state', result)`: one entry of the log, applied. Pure and deterministic: every
server gets the same state.

The result is what the client that wrote the command is told: true or false, the outcome of a transaction, or `Failed`
with the text of an error, after which the state is as it was. Source: Consul's HTTP API; its state machine ("FSM").
"""

from __future__ import annotations

from typing import assert_never

import msgspec

from spec.catalog import kv, registry, restore, sessions, transactions
from spec.catalog.commands import (
    CheckAndSet,
    Command,
    CreateSession,
    Delete,
    DeleteCheckAndSet,
    DeleteTree,
    Deregister,
    DestroySession,
    Lock,
    Noop,
    ReapTombstones,
    Register,
    RestoreBegin,
    RestoreChunk,
    RestoreCommit,
    Set,
    Transaction,
    Unlock,
)
from spec.catalog.kv import Invalid
from spec.catalog.state import Index, State


class Failed(msgspec.Struct, frozen=True):
    """The command could not be carried out; nothing was changed."""

    why: str


Result = bool | transactions.Outcome | Failed


def apply(state: State, command: Command, index: Index) -> tuple[State, Result]:
    """Apply the command of the entry at `index` of the log: in the state all indexes are `state.shift` greater."""
    try:
        return carried_out(state, command, index + state.shift)
    except Invalid as invalid:
        return state, Failed(str(invalid))


def carried_out(state: State, command: Command, index: Index) -> tuple[State, bool | transactions.Outcome]:
    """Apply the command. Raises Invalid."""
    match command:
        case Noop():
            return state, True
        case Set():
            return kv.set_row(state, command.key, command.value, command.flags, index), True
        case CheckAndSet():
            return kv.check_and_set(state, command.key, command.value, command.flags, command.index, index)
        case Lock():
            return kv.lock(state, command.key, command.value, command.flags, command.session, index)
        case Unlock():
            return kv.unlock(state, command.key, command.value, command.flags, command.session, index)
        case Delete():
            return kv.delete_row(state, command.key, index), True
        case DeleteCheckAndSet():
            return kv.delete_check_and_set(state, command.key, command.index, index)
        case DeleteTree():
            return kv.delete_tree(state, command.prefix, index), True
        case ReapTombstones():
            return kv.reap_tombstones(state, command.up_to), True
        case Register():
            skip = command.skip_node_update
            return registry.register(state, command.node, command.service, command.checks, skip, index), True
        case Deregister():
            return registry.deregister(state, command.node, command.service_id, command.check_id, index), True
        case CreateSession():
            return sessions.create(state, command.session, index), True
        case DestroySession():
            return sessions.end(state, command.session_id, index), True
        case Transaction():
            return transactions.run(state, command, index)
        case RestoreBegin():
            return restore.begin(state, command.id), True
        case RestoreChunk():
            return restore.chunk(state, command.id, command.number, command.rows), True
        case RestoreCommit():
            return restore.commit(state, command.id, command.chunks, index), True
        case _:
            assert_never(command)
