"""The replicated log's payloads: one type per command, and their codec (ARCHITECTURE.md, section 7).

A payload is a msgpack array whose first element names the command. The codec must stay stable: payloads are on disks.
Keys are text (UTF-8); values are bytes. Flags and indexes are unsigned 64-bit integers, as Consul's.
"""

from __future__ import annotations

from typing import Annotated, assert_never

import msgspec

from impl.catalog.rows import Check, Node, Service, Session
from impl.catalog.tagged import ArchivedRow
from impl.catalog.transactions import Operation

Unsigned = Annotated[int, msgspec.Meta(ge=0)]


class Noop(msgspec.Struct, frozen=True, array_like=True, tag="noop"):
    """The entry that a new leader appends: it makes the entries of earlier terms committable (Ongaro 2014, 6.4)."""


class KvSet(msgspec.Struct, frozen=True, array_like=True, tag="kv-set"):
    """Insert or replace a key. Result: true."""

    key: str
    value: bytes
    flags: Unsigned


class KvCas(msgspec.Struct, frozen=True, array_like=True, tag="kv-cas"):
    """Set a key if its ModifyIndex equals `index`; 0 means: only if it does not exist. Result: whether it was set."""

    key: str
    value: bytes
    flags: Unsigned
    index: Unsigned


class KvDelete(msgspec.Struct, frozen=True, array_like=True, tag="kv-delete"):
    """Delete a key, present or not. Result: true."""

    key: str


class KvDeleteCas(msgspec.Struct, frozen=True, array_like=True, tag="kv-delete-cas"):
    """Delete a key if its ModifyIndex equals `index`. Result: true if so or if the key is absent."""

    key: str
    index: Unsigned


class KvDeleteTree(msgspec.Struct, frozen=True, array_like=True, tag="kv-delete-tree"):
    """Delete every key that starts with `prefix`. Result: true."""

    prefix: str


class KvAcquire(msgspec.Struct, frozen=True, array_like=True, tag="kv-acquire"):
    """Set a key and take its lock for a session. Result: whether it was taken."""

    key: str
    value: bytes
    flags: Unsigned
    session: str


class KvRelease(msgspec.Struct, frozen=True, array_like=True, tag="kv-release"):
    """Set a key and give its lock back, if the session holds it. Result: whether it did."""

    key: str
    value: bytes
    flags: Unsigned
    session: str


class ReapTombstones(msgspec.Struct, frozen=True, array_like=True, tag="tombstones-reap"):
    """Forget the tombstones that are not newer than `up_to`; the leader's doing. Result: true."""

    up_to: Unsigned


class Register(msgspec.Struct, frozen=True, array_like=True, tag="register"):
    """Register a node with, perhaps, an instance and checks, all or nothing. Result: true, or why not."""

    node: Node
    service: Service | None = None
    checks: tuple[Check, ...] = ()
    skip_node_update: bool = False


class Deregister(msgspec.Struct, frozen=True, array_like=True, tag="deregister"):
    """Deregister an instance (`service_id`), or else a check (`check_id`), or else the node. Result: true."""

    node: str
    service_id: str = ""
    check_id: str = ""


class SessionCreate(msgspec.Struct, frozen=True, array_like=True, tag="session-create"):
    """Begin a session, whose id the leader drew. Result: true, or why not."""

    session: Session


class SessionDestroy(msgspec.Struct, frozen=True, array_like=True, tag="session-destroy"):
    """End a session: its client's wish, or its TTL expired. Result: true."""

    session_id: str


class Transaction(msgspec.Struct, frozen=True, array_like=True, tag="transaction"):
    """Operations in order, all or none. Result: the outcome."""

    operations: tuple[Operation, ...]


class RestoreBegin(msgspec.Struct, frozen=True, array_like=True, tag="restore-begin"):
    """Begin to stage another state, in place of what was staged before; "": stage nothing any more. Result: true."""

    id: str


class RestoreChunk(msgspec.Struct, frozen=True, array_like=True, tag="restore-chunk"):
    """The next rows of the staged state, in canonical order. `number`: from 1. Result: true, or why not."""

    id: str
    number: Unsigned
    rows: tuple[ArchivedRow, ...]


class RestoreCommit(msgspec.Struct, frozen=True, array_like=True, tag="restore-commit"):
    """The staged state, of so many chunks, takes the place of the one in force. Result: true, or why not."""

    id: str
    chunks: Unsigned


Write = (
    KvSet
    | KvCas
    | KvDelete
    | KvDeleteCas
    | KvDeleteTree
    | KvAcquire
    | KvRelease
    | ReapTombstones
    | Register
    | Deregister
    | SessionCreate
    | SessionDestroy
    | Transaction
    | RestoreBegin
    | RestoreChunk
    | RestoreCommit
)
Command = Noop | Write

encode_command = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command)


class UnknownCommand(Exception):
    """A committed payload that this version cannot apply: skipping it would let the state machines differ."""


def decode_command(payload: bytes) -> Command:
    """The command of a committed entry.

    Raises:
        UnknownCommand: the payload is not a command of this version; the server must stop, not skip it.
    """
    try:
        return _decoder.decode(payload)
    except msgspec.MsgspecError as error:
        raise UnknownCommand(
            f"a committed entry is not a command of this version ({error}): run the version that wrote it"
        ) from error


def describe_write(command: Write) -> list[str | int]:
    """The command with its value left out, as `answer` lines of a trace name it."""
    match command:
        case KvSet():
            return ["kv-set", command.key]
        case KvCas():
            return ["kv-cas", command.key, command.index]
        case KvDelete():
            return ["kv-delete", command.key]
        case KvDeleteCas():
            return ["kv-delete-cas", command.key, command.index]
        case KvDeleteTree():
            return ["kv-delete-tree", command.prefix]
        case KvAcquire():
            return ["kv-acquire", command.key, command.session]
        case KvRelease():
            return ["kv-release", command.key, command.session]
        case ReapTombstones():
            return ["tombstones-reap", command.up_to]
        case Register():
            service = command.service.id if command.service is not None else ""
            return ["register", command.node.node, service, len(command.checks)]
        case Deregister():
            return ["deregister", command.node, command.service_id, command.check_id]
        case SessionCreate():
            return ["session-create", command.session.id]
        case SessionDestroy():
            return ["session-destroy", command.session_id]
        case Transaction():
            return ["transaction", len(command.operations)]
        case RestoreBegin():
            return ["restore-begin", command.id]
        case RestoreChunk():
            return ["restore-chunk", command.id, command.number, len(command.rows)]
        case RestoreCommit():
            return ["restore-commit", command.id, command.chunks]
        case _:
            assert_never(command)
