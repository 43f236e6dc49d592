"""Commands of spec/catalog as payloads of the replicated log, and back (ARCHITECTURE.md, section 7).

Written from the format, not from the implementation's codec: a payload that one of the two reads differently from the
other shows here. Must not import impl.
"""

from __future__ import annotations

from typing import Any, assert_never

import msgspec

from spec.catalog.commands import (
    CheckAndSet,
    CheckOperation,
    Command,
    CreateSession,
    Delete,
    DeleteCheckAndSet,
    DeleteTree,
    Deregister,
    DestroySession,
    KvOperation,
    KvVerb,
    Lock,
    NodeOperation,
    Noop,
    Operation,
    ReapTombstones,
    Register,
    RestoreBegin,
    RestoreChunk,
    RestoreCommit,
    ServiceOperation,
    Set,
    Transaction,
    Unlock,
    Verb,
)
from spec.catalog.state import (
    ArchivedRow,
    Behavior,
    Check,
    Node,
    Pairs,
    Row,
    Service,
    Session,
    Status,
    TableIndex,
    Tombstone,
)

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Any]).decode


class Malformed(Exception):
    """A payload that section 7 does not define."""


# ---------------------------------------------------------------------------------------------------------------- rows


def row_fields(row: Row) -> list[Any]:
    """A key of the KV store, as an array."""
    return [row.key, row.flags, row.value, row.create_index, row.modify_index, row.lock_index, row.session]


def node_fields(node: Node) -> list[Any]:
    """A node, as an array."""
    addresses, meta = dict(node.tagged_addresses), dict(node.meta)
    return [node.node, node.address, node.id, node.datacenter, addresses, meta, node.create_index, node.modify_index]


def service_fields(service: Service) -> list[Any]:
    """An instance, as an array."""
    return [
        service.node,
        service.id,
        service.service,
        service.kind,
        list(service.tags),
        service.address,
        service.port,
        {name: [address, port] for name, address, port in service.tagged_addresses},
        dict(service.meta),
        list(service.weights),
        service.enable_tag_override,
        service.create_index,
        service.modify_index,
        service.connect,
        service.mesh,
    ]


def check_fields(check: Check) -> list[Any]:
    """A health check, as an array."""
    return [
        check.node,
        check.check_id,
        check.name,
        str(check.status),
        check.notes,
        check.output,
        check.service_id,
        check.service_name,
        list(check.service_tags),
        check.type,
        check.interval,
        check.timeout,
        check.create_index,
        check.modify_index,
        check.definition,
    ]


def session_fields(session: Session) -> list[Any]:
    """A session, as an array."""
    return [
        session.id,
        session.node,
        session.name,
        session.lock_delay_ns,
        str(session.behavior),
        session.ttl,
        list(session.node_checks),
        [list(pair) for pair in session.service_checks],
        session.create_index,
        session.modify_index,
    ]


def archived_fields(row: ArchivedRow) -> list[Any]:
    """A row of an archive, as an array that begins with the name of its table."""
    match row:
        case TableIndex(name, index):
            return ["index", name, index]
        case Row():
            return ["kv", row_fields(row)]
        case Tombstone(key, index):
            return ["tombstone", key, index]
        case Node():
            return ["node", node_fields(row)]
        case Service():
            return ["service", service_fields(row)]
        case Check():
            return ["check", check_fields(row)]
        case Session():
            return ["session", session_fields(row)]
        case _:
            assert_never(row)


def pairs(mapping: dict[str, str]) -> Pairs:
    """A map, as the spec has it."""
    return tuple(sorted(mapping.items()))


def _archived(fields: list[Any]) -> ArchivedRow:
    match fields:
        case ["index", str(name), int(index)]:
            return TableIndex(name, index)
        case ["kv", list(row)]:
            key, flags, value, created, modified, lock_index, session = row
            return Row(key, value, flags, created, modified, lock_index, session)
        case ["tombstone", str(key), int(index)]:
            return Tombstone(key, index)
        case ["node", list(node)]:
            return _node(node)
        case ["service", list(service)]:
            return _service(service)
        case ["check", list(check)]:
            return _check(check)
        case ["session", list(session)]:
            return _session(session)
        case _:
            raise ValueError(f"{str(fields)[:80]} is not a row of an archive")


def _node(fields: list[Any]) -> Node:
    name, address, node_id, datacenter, addresses, meta, created, modified = fields
    return Node(name, address, node_id, datacenter, pairs(addresses), pairs(meta), created, modified)


def _service(fields: list[Any]) -> Service:
    node, identity, name, kind, tags, address, port, addresses, meta, weights, override, created, modified, *of_mesh = (
        fields
    )
    tagged = tuple(sorted((label, *found) for label, found in addresses.items()))
    return Service(
        node,
        identity,
        name,
        kind,
        tuple(tags),
        address,
        port,
        tagged,
        pairs(meta),
        (weights[0], weights[1]),
        override,
        created,
        modified,
        *of_mesh,
    )


def _check(fields: list[Any]) -> Check:
    node, check_id, name, status, notes, output, service_id, service_name, tags, kind, interval, timeout, *rest = fields
    return Check(
        node,
        check_id,
        name,
        Status(status),
        notes,
        output,
        service_id,
        service_name,
        tuple(tags),
        kind,
        interval,
        timeout,
        *rest,
    )


def _session(fields: list[Any]) -> Session:
    identity, node, name, delay, behavior, ttl, node_checks, of_services, created, modified = fields
    checks, namespaced = tuple(node_checks), tuple((check_id, namespace) for check_id, namespace in of_services)
    return Session(identity, node, name, delay, Behavior(behavior), ttl, checks, namespaced, created, modified)


# ------------------------------------------------------------------------------------------------------------- payloads


def encoded(command: Command) -> bytes:
    """The payload of a command."""
    return _encode(_array(command))


def _array(command: Command) -> list[Any]:
    match command:
        case Noop():
            return ["noop"]
        case Set(key, value, flags):
            return ["kv-set", key, value, flags]
        case CheckAndSet(key, value, flags, index):
            return ["kv-cas", key, value, flags, index]
        case Lock(key, value, flags, session):
            return ["kv-acquire", key, value, flags, session]
        case Unlock(key, value, flags, session):
            return ["kv-release", key, value, flags, session]
        case Delete(key):
            return ["kv-delete", key]
        case DeleteCheckAndSet(key, index):
            return ["kv-delete-cas", key, index]
        case DeleteTree(prefix):
            return ["kv-delete-tree", prefix]
        case ReapTombstones(up_to):
            return ["tombstones-reap", up_to]
        case Register(node, service, checks, skip):
            instance = None if service is None else service_fields(service)
            return ["register", node_fields(node), instance, [check_fields(check) for check in checks], skip]
        case Deregister(node, service_id, check_id):
            return ["deregister", node, service_id, check_id]
        case CreateSession(new):
            return ["session-create", session_fields(new)]
        case DestroySession(session_id):
            return ["session-destroy", session_id]
        case Transaction(operations):
            return ["transaction", [_operation_array(operation) for operation in operations]]
        case RestoreBegin(id):
            return ["restore-begin", id]
        case RestoreChunk(id, number, rows):
            return ["restore-chunk", id, number, [archived_fields(row) for row in rows]]
        case RestoreCommit(id, chunks):
            return ["restore-commit", id, chunks]
        case _:
            assert_never(command)


def _operation_array(operation: Operation) -> list[Any]:
    match operation:
        case KvOperation(verb, key, value, flags, index, session):
            return ["kv", str(verb), key, value, flags, index, session]
        case NodeOperation(verb, node):
            return ["node", str(verb), node_fields(node)]
        case ServiceOperation(verb, service):
            return ["service", str(verb), service_fields(service)]
        case CheckOperation(verb, check):
            return ["check", str(verb), check_fields(check)]
        case _:
            assert_never(operation)


def decoded(payload: bytes) -> Command:
    """The command of a payload. Raises Malformed."""
    try:
        return _command(_decode(payload))
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Malformed(f"the payload {payload[:40]!r} is not a msgpack array: {error}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise Malformed(f"the payload {payload[:40]!r} is not of the format: {error}") from error


def _command(fields: list[Any]) -> Command:
    match fields:
        case ["noop"] | ["configuration", *_]:  # Raft's own: the catalog only counts them
            return Noop()
        case ["kv-set", str(key), bytes(value), int(flags)]:
            return Set(key, value, flags)
        case ["kv-cas", str(key), bytes(value), int(flags), int(index)]:
            return CheckAndSet(key, value, flags, index)
        case ["kv-acquire", str(key), bytes(value), int(flags), str(session)]:
            return Lock(key, value, flags, session)
        case ["kv-release", str(key), bytes(value), int(flags), str(session)]:
            return Unlock(key, value, flags, session)
        case ["kv-delete", str(key)]:
            return Delete(key)
        case ["kv-delete-cas", str(key), int(index)]:
            return DeleteCheckAndSet(key, index)
        case ["kv-delete-tree", str(prefix)]:
            return DeleteTree(prefix)
        case ["tombstones-reap", int(up_to)]:
            return ReapTombstones(up_to)
        case ["register", list(node), service, list(checks), bool(skip)]:
            instance = None if service is None else _service(service)
            return Register(_node(node), instance, tuple(_check(check) for check in checks), skip)
        case ["deregister", str(node), str(service_id), str(check_id)]:
            return Deregister(node, service_id, check_id)
        case ["session-create", list(session)]:
            return CreateSession(_session(session))
        case ["session-destroy", str(session_id)]:
            return DestroySession(session_id)
        case ["transaction", list(operations)]:
            return Transaction(tuple(operation(each) for each in operations))
        case ["restore-begin", str(id)]:
            return RestoreBegin(id)
        case ["restore-chunk", str(id), int(number), list(rows)]:
            return RestoreChunk(id, number, tuple(_archived(row) for row in rows))
        case ["restore-commit", str(id), int(chunks)]:
            return RestoreCommit(id, chunks)
        case _:
            raise ValueError(f"{str(fields)[:80]} is not a command of the replicated log")


def operation(fields: list[Any]) -> Operation:
    """An operation of a transaction. Raises ValueError."""
    match fields:
        case ["kv", str(verb), str(key), bytes(value), int(flags), int(index), str(session)]:
            return KvOperation(KvVerb(verb), key, value, flags, index, session)
        case ["node", str(verb), list(node)]:
            return NodeOperation(Verb(verb), _node(node))
        case ["service", str(verb), list(service)]:
            return ServiceOperation(Verb(verb), _service(service))
        case ["check", str(verb), list(check)]:
            return CheckOperation(Verb(verb), _check(check))
        case _:
            raise ValueError(f"{str(fields)[:80]} is not an operation of a transaction")
