"""What filters may select: the fields of the rows that each endpoint filters, as Consul knows them.

They are those of the types in `shapes`, without what Consul keeps from filters (indexes, what is opaque). It knows
types only, never rows. Source: Consul, "Filtering" of each endpoint; the field configurations of Consul's structs.
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


class _OfPeer(TypedDict):
    PeerName: str


_ALSO: Final[Mapping[Any, Any]] = {
    NodeDocument: _OfPeer,
    AgentServiceDocument: _OfPeer,
    InstanceDocument: _OfPeer,
}
"""What Consul has besides."""
_NEVER: Final = ("CreateIndex", "ModifyIndex", "Definition", "ServiceLocality", "Config")
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
