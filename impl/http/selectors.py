"""What filters may select: the fields of the rows that each endpoint filters, as Consul knows them.

They are those of the types in `shapes`, without what Consul keeps from filters (indexes) and with what it has of the
mesh and Comitia shows empty or not at all. It knows types only, never rows. Source: Consul, "Filtering" of each
endpoint; the field configurations of Consul's structs.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Any, Final, TypedDict, Union, get_args, get_origin, get_type_hints, is_typeddict

from impl.http.filter import Field, Kind
from impl.http.shapes import (
    AgentServiceDocument,
    CheckDocument,
    HealthDocument,
    InstanceDocument,
    MemberDocument,
    NodeDocument,
    ServiceDocument,
)

ROWS: Final[Mapping[str, Any]] = {
    "/v1/catalog/nodes": NodeDocument,
    "/v1/catalog/services": InstanceDocument,
    "/v1/catalog/service/": InstanceDocument,
    "/v1/catalog/node/": ServiceDocument,
    "/v1/catalog/node-services/": ServiceDocument,
    "/v1/health/node/": CheckDocument,
    "/v1/health/checks/": CheckDocument,
    "/v1/health/state/": CheckDocument,
    "/v1/health/service/": HealthDocument,
    "/v1/catalog/connect/": InstanceDocument,
    "/v1/health/connect/": HealthDocument,
    "/v1/health/ingress/": HealthDocument,
    "/v1/agent/services": AgentServiceDocument,
    "/v1/agent/checks": CheckDocument,
    "/v1/agent/members": MemberDocument,
}
"""The type of the rows that an endpoint filters. Of `/v1/catalog/services`: those that its answer is made of."""


class _MeshGateway(TypedDict):
    Mode: str


class _Upstream(TypedDict):
    DestinationType: str
    DestinationNamespace: str
    DestinationPeer: str
    DestinationName: str
    Datacenter: str
    LocalBindAddress: str
    LocalBindPort: int
    LocalBindSocketPath: str
    LocalBindSocketMode: str
    MeshGateway: _MeshGateway


class _ExposedPath(TypedDict):
    ListenerPort: int
    Path: str
    LocalPathPort: int
    Protocol: str
    ParsedFromCheck: bool


class _Expose(TypedDict):
    Checks: bool
    Paths: list[_ExposedPath]


class _TransparentProxy(TypedDict):
    OutboundListenerPort: int
    DialedDirectly: bool


class _Proxy(TypedDict):
    DestinationServiceName: str
    DestinationServiceID: str
    LocalServiceAddress: str
    LocalServicePort: int
    LocalServiceSocketPath: str
    Mode: str
    TransparentProxy: _TransparentProxy
    Upstreams: list[_Upstream]
    MeshGateway: _MeshGateway
    Expose: _Expose


class _Connect(TypedDict):
    Native: bool


class _OfNode(TypedDict):
    PeerName: str


class _OfService(TypedDict):
    Proxy: _Proxy
    Connect: _Connect
    SocketPath: str
    PeerName: str


class _OfInstance(TypedDict):
    ServiceProxy: _Proxy
    ServiceConnect: _Connect
    PeerName: str


_ALSO: Final[Mapping[Any, Any]] = {
    NodeDocument: _OfNode,
    ServiceDocument: _OfService,
    AgentServiceDocument: _OfService,
    InstanceDocument: _OfInstance,
}
"""What Consul has besides, or has more of."""
_NEVER: Final = ("CreateIndex", "ModifyIndex", "Definition", "ServiceLocality")
_PLAIN: Final[Mapping[Any, Kind]] = {str: Kind.TEXT, int: Kind.NUMBER, float: Kind.NUMBER, bool: Kind.TRUTH}


def of_path(path: str) -> Field | None:
    """What a filter may select at the path of a request; None: nothing is filtered there."""
    for endpoint, shape in ROWS.items():
        if path == endpoint or (endpoint.endswith("/") and path.startswith(endpoint)):
            return of_shape(shape)
    return None


@cache
def of_shape(shape: Any) -> Field:
    """What a filter may select in rows of this type, a TypedDict."""
    hints = get_type_hints(shape) | (get_type_hints(_ALSO[shape]) if shape in _ALSO else {})
    return Field(Kind.STRUCT, {name: _field(hint) for name, hint in hints.items() if name not in _NEVER})


def _field(hint: Any) -> Field:
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (each for each in get_args(hint) if each is not NoneType)
    if is_typeddict(hint):
        return of_shape(hint)
    if get_origin(hint) is dict:
        return Field(Kind.MAP, values=_field(get_args(hint)[1]))
    if get_origin(hint) is list:
        element = _field(get_args(hint)[0])
        return Field(Kind.STRUCTS, element.fields) if element.kind is Kind.STRUCT else Field(Kind.TEXTS)
    return Field(_PLAIN[hint])
