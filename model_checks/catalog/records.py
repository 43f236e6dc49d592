"""What `answer` lines of a trace say of writes and reads, as values of spec/catalog (ARCHITECTURE.md, section 7).

JSON has no bytes: they stand in base64. Must not import impl.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Any, assert_never

from model_checks.catalog.payloads import (
    Malformed,
    check_fields,
    node_fields,
    operation,
    pairs,
    row_fields,
    service_fields,
    session_fields,
)
from spec.catalog.commands import (
    CheckAndSet,
    ChecksInState,
    Command,
    CreateSession,
    Delete,
    DeleteCheckAndSet,
    DeleteTree,
    Deregister,
    DestroySession,
    Get,
    GetSession,
    Keys,
    List,
    ListNodes,
    ListServices,
    ListSessions,
    Lock,
    NodeChecks,
    NodeServices,
    Noop,
    ReapTombstones,
    Register,
    Request,
    RestoreBegin,
    RestoreChunk,
    RestoreCommit,
    ServiceChecks,
    ServiceHealth,
    ServiceInstances,
    Set,
    Transaction,
    Unlock,
)
from spec.catalog.queries import Answer, Instance, OfNode, Tags
from spec.catalog.state import Check, Node, Row, Service, Session
from spec.catalog.transactions import Outcome
from spec.catalog.transitions import Failed, Result


def described_command(command: Command) -> list[Any]:
    """A write as answers name it: what it stores is left out."""
    match command:
        case Noop():
            return ["noop"]
        case Set(key):
            return ["kv-set", key]
        case CheckAndSet(key, _, _, index):
            return ["kv-cas", key, index]
        case Lock(key, _, _, session):
            return ["kv-acquire", key, session]
        case Unlock(key, _, _, session):
            return ["kv-release", key, session]
        case Delete(key):
            return ["kv-delete", key]
        case DeleteCheckAndSet(key, index):
            return ["kv-delete-cas", key, index]
        case DeleteTree(prefix):
            return ["kv-delete-tree", prefix]
        case ReapTombstones(up_to):
            return ["tombstones-reap", up_to]
        case Register(node, service, checks):
            return ["register", node.node, "" if service is None else service.id, len(checks)]
        case Deregister(node_name, service_id, check_id):
            return ["deregister", node_name, service_id, check_id]
        case CreateSession(new):
            return ["session-create", new.id]
        case DestroySession(session_id):
            return ["session-destroy", session_id]
        case Transaction(operations):
            return ["transaction", len(operations)]
        case RestoreBegin(id):
            return ["restore-begin", id]
        case RestoreChunk(id, number, rows):
            return ["restore-chunk", id, number, len(rows)]
        case RestoreCommit(id, chunks):
            return ["restore-commit", id, chunks]
        case _:
            assert_never(command)


def described_request(request: Request) -> list[Any]:
    """A read as answers name it: what `decoded_request` reads."""
    match request:
        case Get(key):
            return ["kv-get", key]
        case List(prefix):
            return ["kv-list", prefix]
        case Keys(prefix, separator):
            return ["kv-keys", prefix, separator]
        case ListNodes(meta):
            return ["catalog-nodes", dict(meta)]
        case ListServices(meta):
            return ["catalog-services", dict(meta)]
        case ServiceInstances(service, tags, meta, connect):
            return ["catalog-service", service, list(tags), dict(meta), connect]
        case NodeServices(node):
            return ["catalog-node", node]
        case NodeChecks(node):
            return ["health-node", node]
        case ServiceChecks(service, meta):
            return ["health-checks", service, dict(meta)]
        case ChecksInState(status, meta):
            return ["health-state", status, dict(meta)]
        case ServiceHealth(service, tags, passing, meta, connect):
            return ["health-service", service, list(tags), passing, dict(meta), connect]
        case GetSession(session_id):
            return ["session-get", session_id]
        case ListSessions(node):
            return ["session-list", node]
        case _:
            assert_never(request)


def decoded_request(query: Sequence[Any]) -> Request | Transaction:
    """The read that an answer names; a transaction reads, too. Raises Malformed."""
    match query:
        case ["kv-get", str(key)]:
            return Get(key)
        case ["kv-list", str(prefix)]:
            return List(prefix)
        case ["kv-keys", str(prefix), str(separator)]:
            return Keys(prefix, separator)
        case ["catalog-nodes", dict(meta)]:
            return ListNodes(pairs(meta))
        case ["catalog-services", dict(meta)]:
            return ListServices(pairs(meta))
        case ["catalog-service", str(service), list(tags), dict(meta), bool(connect)]:
            return ServiceInstances(service, tuple(tags), pairs(meta), connect)
        case ["catalog-node", str(node)]:
            return NodeServices(node)
        case ["health-node", str(node)]:
            return NodeChecks(node)
        case ["health-checks", str(service), dict(meta)]:
            return ServiceChecks(service, pairs(meta))
        case ["health-state", str(status), dict(meta)]:
            return ChecksInState(status, pairs(meta))
        case ["health-service", str(service), list(tags), bool(passing), dict(meta), bool(connect)]:
            return ServiceHealth(service, tuple(tags), passing, pairs(meta), connect)
        case ["session-get", str(session_id)]:
            return GetSession(session_id)
        case ["session-list", str(node)]:
            return ListSessions(node)
        case ["transaction-read", list(operations)]:
            return Transaction(tuple(operation(_with_bytes(each)) for each in operations))
        case _:
            raise Malformed(f"{query} is not a query")


def _with_bytes(fields: list[Any]) -> list[Any]:
    """An operation as payloads have it."""
    return [*fields[:3], b64decode(fields[3]), *fields[4:]] if fields[:1] == ["kv"] else fields


def recorded_rows(answer: Answer) -> list[Any]:
    """An answer of the spec as traces record it."""
    return [_recorded(row) for row in answer]


def recorded_outcome(outcome: Outcome) -> list[Any]:
    """The outcome of a transaction: results, and errors."""
    kinds = {Row: "kv", Node: "node", Service: "service", Check: "check"}
    results = [[kinds[type(row)], _recorded(row)] for row in outcome.results]
    return [results, [[error.position, error.what] for error in outcome.errors]]


def recorded_result(result: Result) -> Any:
    """The result of a write as traces record it."""
    match result:
        case bool():
            return result
        case Failed(why):
            return ["failed", why]
        case Outcome():
            return ["outcome", *recorded_outcome(result)]
        case _:
            assert_never(result)


def _recorded(row: object) -> Any:
    match row:
        case Row():
            return [b64encode(each).decode() if isinstance(each, bytes) else each for each in row_fields(row)]
        case Node():
            return node_fields(row)
        case Service():
            return service_fields(row)
        case Check():
            return check_fields(row)
        case Session():
            return session_fields(row)
        case Instance(node, service, checks):
            return [node_fields(node), service_fields(service), [check_fields(check) for check in checks]]
        case OfNode(node, services):
            return [node_fields(node), [service_fields(service) for service in services]]
        case Tags(name, tags):
            return [name, list(tags)]
        case _:
            return row
