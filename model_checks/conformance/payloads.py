"""The replicated log's payloads and the queries of answers, as commands and requests of spec/catalog:
ARCHITECTURE.md, section 7.

Written from that page, not from the implementation's codec: a payload that the implementation encodes wrongly must
not decode here.
"""

from __future__ import annotations

import base64
from hashlib import blake2b
from typing import Any, assert_never

import msgspec

from model_checks.catalog.payloads import check_fields, node_fields, row_fields, service_fields, session_fields
from spec.catalog.commands import (
    CheckAndSet,
    Delete,
    DeleteCheckAndSet,
    DeleteTree,
    Get,
    Keys,
    KvCommand,
    List,
    Noop,
    Request,
    Set,
)
from spec.catalog.queries import Answer
from spec.catalog.state import Row, State
from spec.raft.types import Configuration


class Malformed(Exception):
    """A payload or query that section 7 does not define."""


_decode = msgspec.msgpack.Decoder(list[Any]).decode


def decoded_command(payload: bytes) -> KvCommand:
    """The command in an entry's payload. Raises Malformed."""
    try:
        fields = _decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Malformed(f"the payload {payload[:40]!r} is not a msgpack array: {error}") from error
    match fields:
        case ["noop"] | ["configuration", *_]:  # Raft's own: the catalog only counts them
            return Noop()
        case ["kv-set", str(key), bytes(value), int(flags)]:
            return Set(key, value, flags)
        case ["kv-cas", str(key), bytes(value), int(flags), int(index)]:
            return CheckAndSet(key, value, flags, index)
        case ["kv-delete", str(key)]:
            return Delete(key)
        case ["kv-delete-cas", str(key), int(index)]:
            return DeleteCheckAndSet(key, index)
        case ["kv-delete-tree", str(prefix)]:
            return DeleteTree(prefix)
        case _:
            raise Malformed(f"{str(fields)[:80]} is not a command of the replicated log")


def decoded_configuration(payload: bytes) -> Configuration:
    """The configuration in an entry's payload: rows of name, node id, storage id, address, whether it votes (and what
    this checker need not know), sorted by name; then the index that allowed it. Raises Malformed.
    """
    try:
        match _decode(payload):
            case ["configuration", list(rows), int(allowed_by)]:
                votes = {str(name): bool(votes) for name, _, _, _, votes, *_ in rows}
                voters = tuple(sorted(name for name in votes if votes[name]))
                nonvoters = tuple(sorted(name for name in votes if not votes[name]))
                if [row[0] for row in rows] != sorted(votes):
                    raise Malformed(f"the members {[row[0] for row in rows]} are not sorted, or one stands there twice")
                return Configuration(voters, nonvoters, allowed_by)
            case other:
                raise Malformed(f"{str(other)[:80]} is not a configuration")
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
        raise Malformed(f"the payload {payload[:40]!r} is not a configuration: {error}") from error


def described_command(command: KvCommand) -> tuple[str | int, ...]:
    """A write as answers name it: its value and flags left out."""
    match command:
        case Noop():
            return ("noop",)
        case Set():
            return ("kv-set", command.key)
        case CheckAndSet():
            return ("kv-cas", command.key, command.index)
        case Delete():
            return ("kv-delete", command.key)
        case DeleteCheckAndSet():
            return ("kv-delete-cas", command.key, command.index)
        case DeleteTree():
            return ("kv-delete-tree", command.prefix)
        case _:
            assert_never(command)


def decoded_request(query: tuple[str | int, ...]) -> Request:
    """The read that an answer names. Raises Malformed."""
    match query:
        case ("kv-get", str(key)):
            return Get(key)
        case ("kv-list", str(prefix)):
            return List(prefix)
        case ("kv-keys", str(prefix), str(separator)):
            return Keys(prefix, separator)
        case _:
            raise Malformed(f"{query} is not a query")


def recorded_rows(answer: Answer) -> list[Any]:
    """An answer of the spec as traces record it."""
    return [recorded_row(row) if isinstance(row, Row) else row for row in answer]


def recorded_row(row: Row) -> list[Any]:
    """One key: name, flags, value in base64, CreateIndex, ModifyIndex, LockIndex, the session that holds it."""
    value = base64.b64encode(row.value).decode()
    return [row.key, row.flags, value, row.create_index, row.modify_index, row.lock_index, row.session]


_encode = msgspec.msgpack.Encoder().encode


def state_digest(state: State) -> str:
    """The digest of the state machine that traces of snapshots record: BLAKE2b-128 over its rows in canonical order
    (ARCHITECTURE.md, section 5).
    """
    digest = blake2b(_encode(["index", "kv", state.table_index]), digest_size=16)
    rows: list[list[Any]] = [["index", name, index] for name, index in state.indexes.items()]
    rows += [["kv", row_fields(row)] for _, row in state.rows.items()]
    rows += [["tombstone", key, index] for key, index in state.tombstones.items()]
    rows += [["node", node_fields(node)] for _, node in state.nodes.items()]
    rows += [["service", service_fields(service)] for _, service in state.services.items()]
    rows += [["check", check_fields(check)] for _, check in state.checks.items()]
    rows += [["session", session_fields(session)] for _, session in state.sessions.items()]
    for row in rows:
        digest.update(_encode(row))
    return digest.hexdigest()
