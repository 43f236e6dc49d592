"""What a client of the HTTP API sends for a command or a read of spec/catalog: method, target and body.

Written from Consul's documentation ("KV Store", "Catalog", "Health", "Session", "Transaction" HTTP APIs, "Consistency
modes", "Blocking queries"), not from the implementation's parsers. Every field is sent, so that an agent has nothing to
fill in, but for the type of a check that follows from its definition. Must not import impl.
"""

from __future__ import annotations

import json
from base64 import b64encode
from enum import StrEnum
from typing import Any, assert_never
from urllib.parse import quote, urlencode

import msgspec

from model_checks.catalog.probes import type_of
from spec.catalog.commands import (
    CheckAndSet,
    CheckOperation,
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
    KvOperation,
    List,
    ListNodes,
    ListServices,
    ListSessions,
    Lock,
    NodeChecks,
    NodeOperation,
    NodeServices,
    Noop,
    Operation,
    ReapTombstones,
    Register,
    Request,
    RestoreBegin,
    RestoreChunk,
    RestoreCommit,
    ServiceChecks,
    ServiceHealth,
    ServiceInstances,
    ServiceOperation,
    Set,
    Transaction,
    Unlock,
)
from spec.catalog.state import Check, Index, Node, Pairs, Service, Session

Document = dict[str, Any]
Parameters = list[tuple[str, str]]


class Mode(StrEnum):
    """How fresh a read must be."""

    DEFAULT = "default"
    CONSISTENT = "consistent"
    STALE = "stale"


class HttpRequest(msgspec.Struct, frozen=True):
    """One request, without headers."""

    method: str
    target: str
    body: bytes = b""


class Write(msgspec.Struct, frozen=True):
    """A command. The id of a new session is drawn by who receives it: here it is empty."""

    command: Command


class Read(msgspec.Struct, frozen=True):
    """A read; with `index` a blocking one."""

    request: Request
    mode: Mode = Mode.DEFAULT
    index: Index = 0
    wait_ms: int = 0
    as_list: bool = False
    """Of a node's instances: by `/v1/catalog/node-services`, which lists them, and not by `/v1/catalog/node`."""


class ReadTransaction(msgspec.Struct, frozen=True):
    """A transaction that only reads: it goes past the log."""

    transaction: Transaction
    mode: Mode = Mode.DEFAULT


class Renew(msgspec.Struct, frozen=True):
    """Give a session its full TTL again; answered with the session."""

    session_id: str


Asked = Write | Read | ReadTransaction | Renew


def http_request(asked: Asked) -> HttpRequest:
    """The request that asks for it."""
    match asked:
        case Write(command):
            return _of_command(command)
        case Read(request):
            path, parameters = _of_read(request, asked.as_list)
            parameters += _mode(asked.mode)
            if asked.index:
                parameters += [("index", str(asked.index)), ("wait", f"{asked.wait_ms}ms")]
            return HttpRequest("GET", _target(path, parameters))
        case ReadTransaction(transaction, mode):
            return _of_transaction(transaction, _mode(mode))
        case Renew(session_id):
            return HttpRequest("PUT", f"/v1/session/renew/{_escaped(session_id)}")
        case _:
            assert_never(asked)


def _mode(mode: Mode) -> Parameters:
    return [] if mode is Mode.DEFAULT else [(mode.value, "")]


def _target(path: str, parameters: Parameters) -> str:
    return f"{path}?{urlencode(parameters)}" if parameters else path


def _escaped(name: str) -> str:
    return quote(name, safe="/")


# ------------------------------------------------------------------------------------------------------------- commands


def _of_command(command: Command) -> HttpRequest:
    match command:
        case Set(key, value, flags):
            return _put(key, value, flags)
        case CheckAndSet(key, value, flags, index):
            return _put(key, value, flags, ("cas", str(index)))
        case Lock(key, value, flags, session):
            return _put(key, value, flags, ("acquire", session))
        case Unlock(key, value, flags, session):
            return _put(key, value, flags, ("release", session))
        case Delete(key):
            return HttpRequest("DELETE", f"/v1/kv/{_escaped(key)}")
        case DeleteCheckAndSet(key, index):
            return HttpRequest("DELETE", _target(f"/v1/kv/{_escaped(key)}", [("cas", str(index))]))
        case DeleteTree(prefix):
            return HttpRequest("DELETE", _target(f"/v1/kv/{_escaped(prefix)}", [("recurse", "")]))
        case Register():
            return _json("/v1/catalog/register", registration_document(command))
        case Deregister(node, service_id, check_id):
            return _json("/v1/catalog/deregister", {"Node": node, "ServiceID": service_id, "CheckID": check_id})
        case CreateSession(session):
            return _json("/v1/session/create", session_document(session))
        case DestroySession(session_id):
            return HttpRequest("PUT", f"/v1/session/destroy/{_escaped(session_id)}")
        case Transaction():
            return _of_transaction(command, [])
        case Noop() | ReapTombstones() | RestoreBegin() | RestoreChunk() | RestoreCommit():
            raise ValueError(f"{type(command).__name__} is the servers' own: no request asks for it alone")
        case _:
            assert_never(command)


def _put(key: str, value: bytes, flags: int, *condition: tuple[str, str]) -> HttpRequest:
    return HttpRequest("PUT", _target(f"/v1/kv/{_escaped(key)}", [("flags", str(flags)), *condition]), value)


def _json(target: str, document: Document | list[Document]) -> HttpRequest:
    return HttpRequest("PUT", target, json.dumps(document).encode())


def registration_document(command: Register) -> Document:
    """The body of `PUT /v1/catalog/register`: the fields of the node, and beside them its instance and checks."""
    document = {"NodeMeta" if name == "Meta" else name: value for name, value in node_document(command.node).items()}
    document |= {
        "SkipNodeUpdate": command.skip_node_update,
        "Checks": [check_document(each) for each in command.checks],
    }
    if command.service is not None:
        document["Service"] = service_document(command.service)
    return document


def node_document(node: Node) -> Document:
    """A node, as clients write it."""
    return {
        "ID": node.id,
        "Node": node.node,
        "Address": node.address,
        "Datacenter": node.datacenter,
        "TaggedAddresses": dict(node.tagged_addresses),
        "Meta": dict(node.meta),
        "ModifyIndex": node.modify_index,
    }


def service_document(service: Service) -> Document:
    """An instance; its node is said elsewhere."""
    return {
        "ID": service.id,
        "Service": service.service,
        "Kind": service.kind,
        "Tags": list(service.tags),
        "Address": service.address,
        "Port": service.port,
        "TaggedAddresses": {name: {"Address": to, "Port": port} for name, to, port in service.tagged_addresses},
        "Meta": dict(service.meta),
        "Weights": {"Passing": service.weights[0], "Warning": service.weights[1]},
        "EnableTagOverride": service.enable_tag_override,
        "ModifyIndex": service.modify_index,
        **msgspec.json.decode(service.mesh or "{}"),
    }


def check_document(check: Check) -> Document:
    """A health check."""
    return {
        "Node": check.node,
        "CheckID": check.check_id,
        "Name": check.name,
        "Status": check.status.value,
        "Notes": check.notes,
        "Output": check.output,
        "ServiceID": check.service_id,
        "ServiceName": check.service_name,
        "ServiceTags": list(check.service_tags),
        "Type": check.type if check.type != type_of(check.definition) else "",
        "Interval": check.interval,
        "Timeout": check.timeout,
        "Definition": msgspec.json.decode(check.definition or "{}"),
        "ModifyIndex": check.modify_index,
    }


def session_document(session: Session) -> Document:
    """The body of `PUT /v1/session/create`."""
    return {
        "Name": session.name,
        "Node": session.node,
        "LockDelay": f"{session.lock_delay_ns}ns",
        "Behavior": session.behavior.value,
        "TTL": session.ttl,
        "NodeChecks": list(session.node_checks),
        "ServiceChecks": [{"ID": check_id, "Namespace": namespace} for check_id, namespace in session.service_checks],
    }


def _of_transaction(transaction: Transaction, parameters: Parameters) -> HttpRequest:
    return _json(_target("/v1/txn", parameters), [_operation(each) for each in transaction.operations])


def _operation(operation: Operation) -> Document:
    match operation:
        case KvOperation(verb, key, value, flags, index, session):
            return {
                "KV": {
                    "Verb": verb.value,
                    "Key": key,
                    "Value": b64encode(value).decode(),
                    "Flags": flags,
                    "Index": index,
                    "Session": session,
                }
            }
        case NodeOperation(verb, node):
            return {"Node": {"Verb": verb.value, "Node": node_document(node)}}
        case ServiceOperation(verb, service):
            return {"Service": {"Verb": verb.value, "Node": service.node, "Service": service_document(service)}}
        case CheckOperation(verb, check):
            return {"Check": {"Verb": verb.value, "Check": check_document(check)}}
        case _:
            assert_never(operation)


# ---------------------------------------------------------------------------------------------------------------- reads


def _of_read(request: Request, as_list: bool) -> tuple[str, Parameters]:
    match request:
        case Get(key):
            return f"/v1/kv/{_escaped(key)}", []
        case List(prefix):
            return f"/v1/kv/{_escaped(prefix)}", [("recurse", "")]
        case Keys(prefix, separator):
            return f"/v1/kv/{_escaped(prefix)}", [("keys", ""), *([("separator", separator)] if separator else [])]
        case ListNodes(meta):
            return "/v1/catalog/nodes", _meta(meta)
        case ListServices(meta):
            return "/v1/catalog/services", _meta(meta)
        case ServiceInstances(service, tags, meta, connect):
            return f"/v1/catalog/{_kind(connect)}/{_escaped(service)}", [*_tags(tags), *_meta(meta)]
        case NodeServices(node):
            return f"/v1/catalog/{'node-services' if as_list else 'node'}/{_escaped(node)}", []
        case NodeChecks(node):
            return f"/v1/health/node/{_escaped(node)}", []
        case ServiceChecks(service, meta):
            return f"/v1/health/checks/{_escaped(service)}", _meta(meta)
        case ChecksInState(status, meta):
            return f"/v1/health/state/{_escaped(status)}", _meta(meta)
        case ServiceHealth(service, tags, passing, meta, connect):
            parameters = [*_tags(tags), *([("passing", "")] if passing else []), *_meta(meta)]
            return f"/v1/health/{_kind(connect)}/{_escaped(service)}", parameters
        case GetSession(session_id):
            return f"/v1/session/info/{_escaped(session_id)}", []
        case ListSessions(node):
            return f"/v1/session/node/{_escaped(node)}" if node else "/v1/session/list", []
        case _:
            assert_never(request)


def _kind(connect: bool) -> str:
    return "connect" if connect else "service"


def _meta(meta: Pairs) -> Parameters:
    return [("node-meta", f"{name}:{value}") for name, value in meta]


def _tags(tags: tuple[str, ...]) -> Parameters:
    return [("tag", tag) for tag in tags]
