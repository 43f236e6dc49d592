"""What the HTTP API answered, as rows of spec/catalog.

Written from Consul's documentation of its documents, not from the implementation's. Strict: a field that is missing, of
another type, or not named here is `Malformed`. Fields that the spec does not have (the mesh, locality, ...) are named
here with the one value that they may have. Must not import impl.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from model_checks.catalog.payloads import Malformed, pairs
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
from spec.catalog.state import Behavior, Check, Index, Node, Row, Service, Session, Status
from spec.catalog.transactions import OperationError, Outcome, Result

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


# ------------------------------------------------------------------------------------------------------------ documents


class _Strict(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    pass


class _Weights(_Strict):
    Passing: int
    Warning: int


class _Address(_Strict):
    Address: str
    Port: int


class _Empty(_Strict):
    pass


class _Proxy(_Strict):
    Mode: str
    MeshGateway: _Empty
    Expose: _Empty


class KvDocument(_Strict):
    """A key."""

    LockIndex: int
    Key: str
    Flags: int
    Value: str | None
    CreateIndex: int
    ModifyIndex: int
    Session: str = ""

    def row(self) -> Row:
        """As the spec has it."""
        value = b64decode(self.Value or "", validate=True)
        return Row(self.Key, value, self.Flags, self.CreateIndex, self.ModifyIndex, self.LockIndex, self.Session)


class NodeDocument(_Strict):
    """A node."""

    ID: str
    Node: str
    Address: str
    Datacenter: str
    TaggedAddresses: dict[str, str] | None
    Meta: dict[str, str] | None
    CreateIndex: int
    ModifyIndex: int

    def row(self) -> Node:
        """As the spec has it."""
        tagged, meta = pairs(self.TaggedAddresses or {}), pairs(self.Meta or {})
        return Node(
            self.Node, self.Address, self.ID, self.Datacenter, tagged, meta, self.CreateIndex, self.ModifyIndex
        )


class ServiceDocument(_Strict):
    """An instance; which node it is on is said beside it."""

    ID: str
    Service: str
    Tags: list[str]
    Address: str
    Meta: dict[str, str] | None
    Port: int
    Weights: _Weights
    EnableTagOverride: bool
    Proxy: _Proxy
    Connect: _Empty
    PeerName: str
    CreateIndex: int
    ModifyIndex: int
    Kind: str = ""
    TaggedAddresses: dict[str, _Address] = {}

    def row(self, node: str) -> Service:
        """As the spec has it, on its node."""
        _only(self.Proxy.Mode, "", "Proxy.Mode")
        _only(self.PeerName, "", "PeerName")
        return Service(
            node,
            self.ID,
            self.Service,
            self.Kind,
            tuple(self.Tags),
            self.Address,
            self.Port,
            _tagged(self.TaggedAddresses),
            pairs(self.Meta or {}),
            (self.Weights.Passing, self.Weights.Warning),
            self.EnableTagOverride,
            self.CreateIndex,
            self.ModifyIndex,
        )


class CheckDocument(_Strict):
    """A health check."""

    Node: str
    CheckID: str
    Name: str
    Status: str
    Notes: str
    Output: str
    ServiceID: str
    ServiceName: str
    ServiceTags: list[str]
    Type: str
    Interval: str
    Timeout: str
    ExposedPort: int
    Definition: _Empty
    CreateIndex: int
    ModifyIndex: int

    def row(self) -> Check:
        """As the spec has it."""
        _only(self.ExposedPort, 0, "ExposedPort")
        return Check(
            self.Node,
            self.CheckID,
            self.Name,
            Status(self.Status),
            self.Notes,
            self.Output,
            self.ServiceID,
            self.ServiceName,
            tuple(self.ServiceTags),
            self.Type,
            self.Interval,
            self.Timeout,
            self.CreateIndex,
            self.ModifyIndex,
        )


class _ServiceCheck(_Strict):
    ID: str
    Namespace: str


class SessionDocument(_Strict):
    """A session."""

    ID: str
    Name: str
    Node: str
    LockDelay: int
    Behavior: str
    TTL: str
    NodeChecks: list[str]
    ServiceChecks: list[_ServiceCheck] | None
    CreateIndex: int
    ModifyIndex: int

    def row(self) -> Session:
        """As the spec has it."""
        return Session(
            self.ID,
            self.Node,
            self.Name,
            self.LockDelay,
            Behavior(self.Behavior),
            self.TTL,
            tuple(self.NodeChecks),
            tuple((each.ID, each.Namespace) for each in self.ServiceChecks or ()),
            self.CreateIndex,
            self.ModifyIndex,
        )


class _InstanceDocument(_Strict):
    """An element of `/v1/catalog/service/NAME`: the indexes are the instance's, the node's are not shown."""

    ID: str
    Node: str
    Address: str
    Datacenter: str
    TaggedAddresses: dict[str, str] | None
    NodeMeta: dict[str, str] | None
    ServiceKind: str
    ServiceID: str
    ServiceName: str
    ServiceTags: list[str]
    ServiceAddress: str
    ServiceTaggedAddresses: dict[str, _Address]
    ServiceWeights: _Weights
    ServiceMeta: dict[str, str]
    ServicePort: int
    ServiceSocketPath: str
    ServiceEnableTagOverride: bool
    ServiceProxy: _Proxy
    ServiceConnect: _Empty
    ServiceLocality: None
    CreateIndex: int
    ModifyIndex: int

    def row(self) -> Instance:
        _only(self.ServiceSocketPath, "", "ServiceSocketPath")
        _only(self.ServiceProxy.Mode, "", "ServiceProxy.Mode")
        tagged, meta = pairs(self.TaggedAddresses or {}), pairs(self.NodeMeta or {})
        service = Service(
            self.Node,
            self.ServiceID,
            self.ServiceName,
            self.ServiceKind,
            tuple(self.ServiceTags),
            self.ServiceAddress,
            self.ServicePort,
            _tagged(self.ServiceTaggedAddresses),
            pairs(self.ServiceMeta),
            (self.ServiceWeights.Passing, self.ServiceWeights.Warning),
            self.ServiceEnableTagOverride,
            self.CreateIndex,
            self.ModifyIndex,
        )
        return Instance(Node(self.Node, self.Address, self.ID, self.Datacenter, tagged, meta), service)


class _HealthDocument(_Strict):
    Node: NodeDocument
    Service: ServiceDocument
    Checks: list[CheckDocument]

    def row(self) -> Instance:
        node = self.Node.row()
        return Instance(node, self.Service.row(node.node), tuple(check.row() for check in self.Checks))


class _NodeServicesDocument(_Strict):
    Node: NodeDocument
    Services: dict[str, ServiceDocument]


class _NodeServiceListDocument(_Strict):
    Node: NodeDocument | None
    Services: list[ServiceDocument]


class _TransactionResult(_Strict):
    KV: KvDocument | None = None
    Node: NodeDocument | None = None
    Service: ServiceDocument | None = None
    Check: CheckDocument | None = None

    def row(self) -> Result:
        if self.Service is not None:
            return self.Service.row("")  # not shown
        shown = self.KV or self.Node or self.Check
        if shown is None:
            raise ValueError("a result of a transaction shows nothing")
        return shown.row()


class _TransactionError(_Strict):
    OpIndex: int
    What: str


class _TransactionDocument(_Strict):
    Results: list[_TransactionResult] | None
    Errors: list[_TransactionError] | None


class _SessionId(_Strict):
    ID: str


def _tagged(addresses: Mapping[str, _Address]) -> tuple[tuple[str, str, int], ...]:
    return tuple(sorted((name, found.Address, found.Port) for name, found in addresses.items()))


def _only(found: object, allowed: object, name: str) -> None:
    if found != allowed:
        raise ValueError(f"{name} is {found!r}")


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
            return tuple(each.row() for each in _document(body, list[_InstanceDocument]))
        case ServiceHealth():
            return tuple(each.row() for each in _document(body, list[_HealthDocument]))
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
        listed = _document(body, _NodeServiceListDocument)
        if listed.Node is None:
            _only(listed.Services, [], "Services of no node")
            return ()
        node = listed.Node.row()
        return (OfNode(node, tuple(each.row(node.node) for each in listed.Services)),)
    found = _document(body, _NodeServicesDocument | None)  # type: ignore[arg-type]
    if found is None:
        return ()
    for name, each in found.Services.items():
        _only(each.ID, name, f"the ID under {name!r}")
    node = found.Node.row()
    return (OfNode(node, tuple(each.row(node.node) for each in found.Services.values())),)


def sessions(body: bytes) -> tuple[Session, ...]:
    """The sessions in a list of them. Raises Malformed."""
    return tuple(each.row() for each in _document(body, list[SessionDocument]))


def session_id(reply: HttpReply) -> str:
    """The id that a new session got. Raises Malformed."""
    return _document(reply.body, _SessionId).ID


def truth(reply: HttpReply) -> bool:
    """`true` or `false`. Raises Malformed."""
    return _document(reply.body, bool)


def outcome(reply: HttpReply) -> Outcome:
    """The outcome of a transaction: 200 with results, 409 with errors. Raises Malformed."""
    document = _document(reply.body, _TransactionDocument)
    try:
        results = tuple(each.row() for each in document.Results or ())
    except ValueError as error:
        raise Malformed(f"{error}: {reply.body[:200]!r}") from error
    errors = tuple(OperationError(each.OpIndex, each.What) for each in document.Errors or ())
    if (reply.status == 409) != bool(errors) or (errors and document.Results is not None):
        raise Malformed(f"status {reply.status} with {len(results)} results and {len(errors)} errors")
    return Outcome(results, errors)


# ------------------------------------------------------------------------------------------------------------ the spec's


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
    results = tuple(replace(row, node="") if isinstance(row, Service) else row for row in found.results)
    return replace(found, results=results)
