"""What is asked: cases that schemathesis makes of the OpenAPI document, valid and invalid, bent towards what exists.

A random name meets nothing, and a random datacenter ends every request at once: most names are therefore drawn from a
few that are registered, and waits, addresses and URLs are such that a case ends soon and leaves this machine alone.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Mapping
from typing import Any

import schemathesis
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.schemas import APIOperation

WAIT = "5ms"
NAMES = ("none", "00000000-0000-4000-8000-000000000000", "é", "a b", "a//b", ".", "x" * 300)
"""Of what does not exist; those that do are drawn beside them."""
PIECES = (
    *("Node", "Service.Service", "ServiceName", "Meta.a", "Tags", "ID", "CheckID", "Status"),
    *("==", "!=", "in", "not", "is empty", "contains", "matches", "and", "or", "(", ")"),
    *('"web"', "`.*`", '"(a+)+$"', "80", '"', "."),
)
_VERBS = ("set", "cas", "get", "get-tree", "lock", "unlock", "delete", "delete-cas", "delete-tree", "check-index")
_ADDRESSES = ("127.0.0.1:9", "127.0.0.1", "[::1]:9", "", "127.0.0.1:x")
_WAIT_LOOKS_GOOD = re.compile(r"^[+-]?[0-9.]+[a-zµμ]")

ARCHIVE = "application/x-gzip"
schemathesis.openapi.media_type(ARCHIVE, st.binary() | st.binary().map(gzip.compress))

Draw = Callable[[st.SearchStrategy[Any]], Any]
Known = Mapping[str, tuple[str, ...]]
"""Names of what exists, by what the parameters of paths call it: node, service, check, state, session, key."""

_GOOD: Mapping[str, Any] = {
    "putCatalogRegister": {"Node": "n1", "Address": "10.0.0.1", "SkipNodeUpdate": False},
    "putSessionCreate": {"Node": "n1", "NodeChecks": [], "TTL": "24h", "LockDelay": "1s", "Behavior": "delete"},
    "putAgentServiceRegister": {"Name": "web", "Check": {"TTL": "1h"}},
    "putAgentCheckRegister": {"Name": "c", "TTL": "1h", "Status": "passing"},
}
"""Fields of bodies, by operationId, without which few bodies would make sense."""


@st.composite
def cases(draw: Draw, operation: APIOperation[Any, Any, Any, Any], known: Known) -> Case[Any]:
    """A request to one operation."""
    modes = [GenerationMode.POSITIVE]
    if any(True for _ in operation.query) or any(True for _ in operation.body):
        modes.append(GenerationMode.NEGATIVE)
    case: Case[Any] = draw(operation.as_strategy(generation_mode=draw(st.sampled_from(modes))))
    for name in case.path_parameters:
        if draw(_OFTEN):
            case.path_parameters[name] = draw(_names(known, name))
    if isinstance(case.query, dict):
        _bend_query(draw, case.query, known)
    if isinstance(case.body, dict | list):
        bent = draw(_OFTEN)
        case.body = _bent(draw, case.body, known if bent else None)
        good = _GOOD.get(operation.definition.raw["operationId"])
        if bent and good is not None and isinstance(case.body, dict) and draw(st.booleans()):
            case.body = {**(case.body if draw(st.booleans()) else {}), **good}
    return case


_OFTEN = st.sampled_from((True, True, True, False))


def _names(known: Known, kind: str) -> st.SearchStrategy[str]:
    """Mostly of what exists."""
    existing = known.get(kind, ("none",))
    return st.sampled_from((*existing * 4, *NAMES))


def _bend_query(draw: Draw, query: dict[str, Any], known: Known) -> None:
    if "dc" in query and draw(_OFTEN):
        query["dc"] = draw(st.sampled_from(("dc1", "")))
    if "index" in query or "hash" in query:
        wait = query.get("wait")
        if not isinstance(wait, str) or _WAIT_LOOKS_GOOD.match(wait) or not wait:
            query["wait"] = WAIT
    if "filter" in query and draw(st.booleans()):
        query["filter"] = " ".join(draw(st.lists(st.sampled_from(PIECES), max_size=7)))
    for name, kind in (("id", "node"), ("acquire", "session"), ("release", "session"), ("tag", "service")):
        if name in query and draw(_OFTEN):
            query[name] = draw(_names(known, kind))
    if "address" in query:
        query["address"] = draw(st.sampled_from(_ADDRESSES))


_KINDS: Mapping[str, str] = {
    "Node": "node",
    "Service": "service",
    "ServiceID": "service",
    "ServiceName": "service",
    "ID": "service",
    "Name": "service",
    "Key": "key",
    "Session": "session",
    "CheckID": "check",
    "AliasNode": "node",
    "AliasService": "service",
}
"""What is named by a field of a body."""


def _bent(draw: Draw, value: Any, known: Known | None) -> Any:
    """A body whose checks reach nothing but this machine and, if `known` is given, whose names may exist."""
    match value:
        case Mapping():
            return {key: _bent_field(draw, key, each, known) for key, each in value.items()}
        case list():
            return [_bent(draw, each, known) for each in value]
        case _:
            return value


def _bent_field(draw: Draw, key: str, value: Any, known: Known | None) -> Any:
    if isinstance(value, str):
        if key.upper() in ("HTTP", "TCP", "UDP", "GRPC", "H2PING") and value:
            address = draw(st.sampled_from(_ADDRESSES))
            return f"http://{address}/" if key.upper() == "HTTP" else address
        if known is not None and key == "Verb":
            return draw(st.sampled_from(_VERBS))
        if known is not None and key in _KINDS:
            return draw(_names(known, _KINDS[key]))
    return _bent(draw, value, known)
