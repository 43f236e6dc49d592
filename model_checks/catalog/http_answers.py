"""What the HTTP API answered, as rows of spec/catalog.

What is not as Consul documents it is `Malformed` (`http_documents`). Must not import impl.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from model_checks.catalog.http_documents import (
    CheckDocument,
    HealthDocument,
    InstanceDocument,
    KvDocument,
    NodeDocument,
    NodeServiceListDocument,
    NodeServicesDocument,
    SessionDocument,
    SessionIdDocument,
    TransactionDocument,
    require,
)
from model_checks.catalog.payloads import Malformed
from spec.catalog.commands import (
    ChecksInState,
    Get,
    GetSession,
    Keys,
    List,
    ListNodes,
    ListServices,
    ListSessions,
    NodeChecks,
    NodeServices,
    Request,
    ServiceChecks,
    ServiceHealth,
    ServiceInstances,
)
from spec.catalog.queries import Answer, Instance, OfNode, Tags
from spec.catalog.state import Index, Session
from spec.catalog.state import Service as ServiceRow
from spec.catalog.transactions import OperationError, Outcome

T = TypeVar("T")


class HttpReply(msgspec.Struct, frozen=True):
    """A whole answer: header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Told(msgspec.Struct, frozen=True):
    """A read's answer: the index (0: the answer has none), the rows, and what the headers say of their freshness."""

    index: Index
    rows: Answer
    known_leader: bool
    last_contact_ms: int
    effective: str


# -------------------------------------------------------------------------------------------------------------- answers


def _document(body: bytes, kind: type[T]) -> T:
    """Raises Malformed."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Malformed(f"{error}: {body[:200]!r}") from error


def told(reply: HttpReply, request: Request, as_list: bool = False) -> Told:
    """What a read was answered. Raises Malformed: it is not what Consul's documentation describes."""
    try:
        rows = _rows(reply, request, as_list)
    except ValueError as error:  # an unknown status or behaviour, bad base64
        raise Malformed(f"{error}: {reply.body[:200]!r}") from error
    index = _number(reply, "x-consul-index")
    if index < 1:
        raise Malformed(f"X-Consul-Index is {index}")
    return Told(index, rows, *freshness(reply))


def freshness(reply: HttpReply) -> tuple[bool, int, str]:
    """Whether a leader is known, the time since it was heard (ms), and the consistency in force. Raises Malformed."""
    known = _header(reply, "x-consul-knownleader")
    if known not in ("true", "false"):
        raise Malformed(f"X-Consul-KnownLeader is {known!r}")
    contact = _number(reply, "x-consul-lastcontact")
    return known == "true", contact, _header(reply, "x-consul-effective-consistency")


def _header(reply: HttpReply, name: str) -> str:
    if name not in reply.headers:
        raise Malformed(f"the answer has no header {name}")
    return reply.headers[name]


def _number(reply: HttpReply, name: str) -> int:
    text = _header(reply, name)
    if not (text.isascii() and text.isdigit()):
        raise Malformed(f"{name} is {text!r}")
    return int(text)


def _rows(reply: HttpReply, request: Request, as_list: bool) -> Answer:
    if reply.status == 404 and isinstance(request, Get | List | Keys):
        if reply.body:
            raise Malformed(f"404 for what is not there has a body: {reply.body[:200]!r}")
        return ()
    if reply.status != 200:
        raise Malformed(f"status {reply.status}: {reply.body[:200]!r}")
    body = reply.body
    match request:
        case Get() | List():
            found = tuple(each.row() for each in _document(body, list[KvDocument]))
            return _not_empty(found, "what is not there is a 404")
        case Keys(prefix):
            names = tuple(_document(body, list[str]))
            return _not_empty(names, "what is not there is a 404") if prefix else names
        case ListNodes():
            return tuple(each.row() for each in _document(body, list[NodeDocument]))
        case ListServices():
            return tuple(Tags(name, tuple(tags)) for name, tags in _document(body, dict[str, list[str]]).items())
        case ServiceInstances():
            return tuple(each.row() for each in _document(body, list[InstanceDocument]))
        case ServiceHealth():
            return tuple(each.row() for each in _document(body, list[HealthDocument]))
        case NodeServices():
            return _of_node(body, as_list)
        case NodeChecks() | ServiceChecks() | ChecksInState():
            return tuple(each.row() for each in _document(body, list[CheckDocument]))
        case GetSession() | ListSessions():
            return sessions(body)


def _not_empty(rows: tuple[T, ...], otherwise: str) -> tuple[T, ...]:
    if not rows:
        raise ValueError(otherwise)
    return rows


def _of_node(body: bytes, as_list: bool) -> tuple[OfNode, ...]:
    if as_list:
        listed = _document(body, NodeServiceListDocument)
        if listed.Node is None:
            require(listed.Services, [], "Services of no node")
            return ()
        node = listed.Node.row()
        return (OfNode(node, tuple(each.row(node.node) for each in listed.Services)),)
    if body == b"null":
        return ()
    found = _document(body, NodeServicesDocument)
    for name, each in found.Services.items():
        require(each.ID, name, f"the ID under {name!r}")
    node = found.Node.row()
    return (OfNode(node, tuple(each.row(node.node) for each in found.Services.values())),)


def sessions(body: bytes) -> tuple[Session, ...]:
    """The sessions in a list of them. Raises Malformed."""
    return tuple(each.row() for each in _document(body, list[SessionDocument]))


def session_id(reply: HttpReply) -> str:
    """The id that a new session got. Raises Malformed."""
    return _document(reply.body, SessionIdDocument).ID


def truth(reply: HttpReply) -> bool:
    """`true` or `false`. Raises Malformed."""
    return _document(reply.body, bool)


def outcome(reply: HttpReply) -> Outcome:
    """The outcome of a transaction: 200 with results, 409 with errors. Raises Malformed."""
    document = _document(reply.body, TransactionDocument)
    try:
        results = tuple(each.row() for each in document.Results or ())
    except ValueError as error:
        raise Malformed(f"{error}: {reply.body[:200]!r}") from error
    errors = tuple(OperationError(each.OpIndex, each.What) for each in document.Errors or ())
    if (reply.status == 409) != bool(errors) or (errors and document.Results is not None):
        raise Malformed(f"status {reply.status} with {len(results)} results and {len(errors)} errors")
    return Outcome(results, errors)


# ---------------------------------------------------------------------------------------------------------- the spec's


def shown(request: Request, rows: Answer) -> Answer:
    """An answer of the spec, without what the documents do not show.

    They name a node once, so how its name was spelled for an instance on it does not show; and the elements of
    `/v1/catalog/service` have the indexes of the instance, not of the node.
    """
    hidden: list[Any] = []
    for row in rows:
        match row:
            case Instance(node, service):
                row = replace(row, service=replace(service, node=node.node))
                if isinstance(request, ServiceInstances):
                    row = replace(row, node=replace(node, create_index=0, modify_index=0))
            case OfNode(node, services):
                row = replace(row, services=tuple(replace(each, node=node.node) for each in services))
        hidden.append(row)
    return tuple(hidden)


def shown_outcome(found: Outcome) -> Outcome:
    """An outcome of the spec, without what the documents do not show: the nodes of instances."""
    results = tuple(replace(row, node="") if isinstance(row, ServiceRow) else row for row in found.results)
    return replace(found, results=results)
