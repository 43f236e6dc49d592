"""The documents of the HTTP API, as a client of Consul knows them, each with the row of spec/catalog that it shows.

Strict: a field that is missing, of another type, or not named here is refused by the decoder. Fields that the spec does
not have (locality, peers, ...) are named here, with the one value that they may have: `row` raises ValueError for
another. Source: Consul, "KV Store", "Catalog", "Health", "Session" and "Transaction" HTTP APIs. Must not import impl.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping

import msgspec

from model_checks.catalog.payloads import pairs
from spec.catalog.queries import Instance
from spec.catalog.state import Behavior, Row, Session, Status
from spec.catalog.state import Check as CheckRow
from spec.catalog.state import Node as NodeRow
from spec.catalog.state import Service as ServiceRow
from spec.catalog.transactions import Result

JsonValue = str | int | bool | list[str] | dict[str, list[str]]
"""Of a field of a check's definition."""


def canonical_json(document: Mapping[str, JsonValue]) -> str:
    """The text that stands for it in the log: without spaces, names sorted."""
    return msgspec.json.encode(document, order="sorted").decode()


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    """A document without other fields than those named."""


class _Weights(Strict):
    Passing: int
    Warning: int


class _Address(Strict):
    Address: str
    Port: int


class _Connect(Strict, omit_defaults=True):
    Native: bool = False


class _MeshGateway(Strict, omit_defaults=True):
    Mode: str = ""


class _Upstream(Strict, omit_defaults=True):
    DestinationType: str
    DestinationName: str
    Datacenter: str
    MeshGateway: _MeshGateway
    LocalBindPort: int = 0


class _Expose(Strict, omit_defaults=True):
    Checks: bool = False


class _Proxy(Strict, omit_defaults=True):
    Mode: str
    MeshGateway: _MeshGateway
    Expose: _Expose
    DestinationServiceName: str = ""
    LocalServicePort: int = 0
    Upstreams: list[_Upstream] = []
    Config: dict[str, JsonValue] = {}


def _of_mesh(kind: str, name: str, proxy: _Proxy, connect: _Connect, socket: str) -> tuple[str, str]:
    """The service that is reached through an instance, and the text that stands in the log for what it says."""
    document = {"Connect": connect, "Proxy": proxy, "SocketPath": socket}
    silent = {"Connect": _Connect(), "Proxy": _Proxy("", _MeshGateway(), _Expose()), "SocketPath": ""}
    said = {key: value for key, value in document.items() if value != silent[key]}
    text = msgspec.json.encode(said, order="sorted").decode() if said else ""
    return proxy.DestinationServiceName if kind == "connect-proxy" else name if connect.Native else "", text


class KvDocument(Strict):
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


class NodeDocument(Strict):
    """A node."""

    ID: str
    Node: str
    Address: str
    Datacenter: str
    TaggedAddresses: dict[str, str] | None
    Meta: dict[str, str] | None
    CreateIndex: int
    ModifyIndex: int

    def row(self) -> NodeRow:
        """As the spec has it."""
        tagged, meta = pairs(self.TaggedAddresses or {}), pairs(self.Meta or {})
        return NodeRow(
            self.Node, self.Address, self.ID, self.Datacenter, tagged, meta, self.CreateIndex, self.ModifyIndex
        )


class ServiceDocument(Strict):
    """An instance; which node it is on is said beside it."""

    ID: str
    Service: str
    Tags: list[str]
    Address: str
    Meta: dict[str, str] | None
    Weights: _Weights
    EnableTagOverride: bool
    Proxy: _Proxy
    Connect: _Connect
    PeerName: str
    CreateIndex: int
    ModifyIndex: int
    Kind: str = ""
    TaggedAddresses: dict[str, _Address] = {}
    Port: int = 0
    """Left out if there is none, as the addresses."""
    SocketPath: str = ""

    def row(self, node: str) -> ServiceRow:
        """As the spec has it, on its node."""
        require(self.PeerName, "", "PeerName")
        return ServiceRow(
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
            *_of_mesh(self.Kind, self.Service, self.Proxy, self.Connect, self.SocketPath),
        )


class CheckDocument(Strict):
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
    Definition: dict[str, JsonValue]
    CreateIndex: int
    ModifyIndex: int

    def row(self) -> CheckRow:
        """As the spec has it."""
        require(self.ExposedPort, 0, "ExposedPort")
        return CheckRow(
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
            canonical_json(self.Definition) if self.Definition else "",
        )


class _ServiceCheck(Strict):
    ID: str
    Namespace: str


class SessionDocument(Strict):
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


class InstanceDocument(Strict):
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
    ServiceWeights: _Weights
    ServiceMeta: dict[str, str]
    ServicePort: int
    ServiceSocketPath: str
    ServiceEnableTagOverride: bool
    ServiceProxy: _Proxy
    ServiceConnect: _Connect
    ServiceLocality: None
    CreateIndex: int
    ModifyIndex: int
    ServiceTaggedAddresses: dict[str, _Address] = {}
    """Left out if there are none."""

    def row(self) -> Instance:
        """As the spec has it."""
        tagged, meta = pairs(self.TaggedAddresses or {}), pairs(self.NodeMeta or {})
        service = ServiceRow(
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
            *_of_mesh(
                self.ServiceKind, self.ServiceName, self.ServiceProxy, self.ServiceConnect, self.ServiceSocketPath
            ),
        )
        return Instance(NodeRow(self.Node, self.Address, self.ID, self.Datacenter, tagged, meta), service)


class HealthDocument(Strict):
    """An element of `/v1/health/service/NAME`."""

    Node: NodeDocument
    Service: ServiceDocument
    Checks: list[CheckDocument]

    def row(self) -> Instance:
        """As the spec has it."""
        node = self.Node.row()
        return Instance(node, self.Service.row(node.node), tuple(check.row() for check in self.Checks))


class NodeServicesDocument(Strict):
    """`/v1/catalog/node/NAME`: the instances by their ids."""

    Node: NodeDocument
    Services: dict[str, ServiceDocument]


class NodeServiceListDocument(Strict):
    """`/v1/catalog/node-services/NAME`."""

    Node: NodeDocument | None
    Services: list[ServiceDocument]


class TransactionResult(Strict):
    """What an operation of a transaction shows: one of these."""

    KV: KvDocument | None = None
    Node: NodeDocument | None = None
    Service: ServiceDocument | None = None
    Check: CheckDocument | None = None

    def row(self) -> Result:
        """As the spec has it."""
        if self.Service is not None:
            return self.Service.row("")  # not shown
        shown = self.KV or self.Node or self.Check
        if shown is None:
            raise ValueError("a result of a transaction shows nothing")
        return shown.row()


class TransactionError(Strict):
    """Why an operation of a transaction failed."""

    OpIndex: int
    What: str


class TransactionDocument(Strict):
    """The answer to a transaction."""

    Results: list[TransactionResult] | None
    Errors: list[TransactionError] | None


class SessionIdDocument(Strict):
    """The answer to the creation of a session."""

    ID: str


def _tagged(addresses: Mapping[str, _Address]) -> tuple[tuple[str, str, int], ...]:
    return tuple(sorted((name, found.Address, found.Port) for name, found in addresses.items()))


def require(found: object, allowed: object, name: str) -> None:
    """Raise ValueError unless the field has the one value that it may have."""
    if found != allowed:
        raise ValueError(f"{name} is {found!r}")
