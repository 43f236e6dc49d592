"""Applies a command of the log to the tables: what every server does with every committed entry.

Deterministic: the result depends on the commands applied before and on nothing else, so that servers that applied the
same entries hold the same state. Must not read a clock, a random number or a configuration.
"""

from __future__ import annotations

from typing import assert_never

import msgspec

from impl.catalog import kv, registry, restore, sessions, transactions
from impl.catalog.commands import (
    Command,
    Deregister,
    KvAcquire,
    KvCas,
    KvDelete,
    KvDeleteCas,
    KvDeleteTree,
    KvRelease,
    KvSet,
    Noop,
    ReapTombstones,
    Register,
    RestoreBegin,
    RestoreChunk,
    RestoreCommit,
    SessionCreate,
    SessionDestroy,
    Transaction,
)
from impl.catalog.tables import Invalid, Tables


class Failed(msgspec.Struct, frozen=True, array_like=True, tag="failed"):
    """The command could not be carried out, and nothing was changed. The text is what its client reads."""

    why: str


Result = bool | Failed | transactions.Outcome


def apply(tables: Tables, command: Command, index: int) -> Result:
    """Apply the command committed at `index` of the log; return what the writer is told (ARCHITECTURE.md, section 7).

    In the tables all indexes are `Tables.shift` greater.
    """
    try:
        return _carried_out(tables, command, index + tables.shift)
    except Invalid as invalid:
        return Failed(str(invalid))


def _carried_out(tables: Tables, command: Command, index: int) -> bool | transactions.Outcome:
    if type(command) is KvSet:  # nearly every command is one, and the match takes half as long as all the rest
        kv.set_key(tables, command.key, command.value, command.flags, index)
        return True
    match command:
        case KvSet(key, value, flags):
            kv.set_key(tables, key, value, flags, index)
        case KvCas(key, value, flags, expected):
            return kv.check_and_set(tables, key, value, flags, expected, index)
        case KvDelete(key):
            kv.delete_key(tables, key, index)
        case KvDeleteCas(key, expected):
            return kv.check_and_delete(tables, key, expected, index)
        case KvDeleteTree(prefix):
            kv.delete_tree(tables, prefix, index)
        case KvAcquire(key, value, flags, session):
            return kv.acquire(tables, key, value, flags, session, index)
        case KvRelease(key, value, flags, session):
            return kv.release(tables, key, value, flags, session, index)
        case ReapTombstones(up_to):
            kv.reap_tombstones(tables, up_to)
        case Register(node, service, checks, skip_node_update):
            with tables.atomic():
                registry.register(tables, node, service, checks, skip_node_update, index)
        case Deregister(node_name, service_id, check_id):
            registry.deregister(tables, node_name, service_id, check_id, index)
        case SessionCreate(new_session):
            sessions.create(tables, new_session, index)
        case SessionDestroy(session_id):
            sessions.end(tables, session_id, index)
        case Transaction(operations):
            return transactions.run(tables, operations, index)
        case RestoreBegin(restore_id):
            restore.begin(tables, restore_id)
        case RestoreChunk(restore_id, number, rows):
            restore.stage(tables, restore_id, number, rows)
        case RestoreCommit(restore_id, chunks):
            restore.commit(tables, restore_id, chunks, index)
        case Noop():
            pass
        case _:
            assert_never(command)
    return True
