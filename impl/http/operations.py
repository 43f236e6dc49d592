"""What each route takes and answers, for `openapi`: parameters, bodies, statuses and the types of `shapes`.

One entry for each endpoint and method of `routes`. Statuses that all have in common (400, 500, and 413 where there is a
body) are not repeated. Source: Consul's HTTP API documentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from impl.agent.config.validated import LOG_LEVELS
from impl.http import body_shapes, shapes, unused

ANY_BYTES: Final = object()
"""A body that is a value, not a document."""
ARCHIVE: Final = object()
"""A body, or an answer, that is an archive of the state."""
TEXT: Final = object()
"""An answer in plain text."""
EMPTY: Final = object()
"""An answer without a body."""


@dataclass(frozen=True)
class Operation:
    """One endpoint and method."""

    answers: Mapping[int, tuple[Any, ...]]
    """By status: what the body may be, each a type or one of the constants above."""
    parameters: tuple[str, ...] = ()
    """Names of `PARAMETERS`; one that ends with `!` is required."""
    body: Any = None
    body_required: bool = True
    rest: str = ""
    """What the endpoint takes as the rest of its path."""
    indexed: bool = False
    """Answers carry X-Consul-Index and what goes with it."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of the query."""

    schema: Mapping[str, Any]
    description: str
    several: bool = False


_WORD: Final = {"type": "string"}
_GIVEN: Final = {"type": "string", "const": ""}
_UNSIGNED: Final = {"type": "integer", "minimum": 0, "maximum": (1 << 64) - 1}
_TRUTH: Final = {
    "type": "string",
    "enum": ["true", "false", "1", "0", "t", "f", "T", "F", "TRUE", "FALSE", "True", "False"],
}
_TRUTH_OR_GIVEN: Final = {"type": "string", "enum": [*_TRUTH["enum"], ""]}
_DURATION: Final = {"type": "string", "pattern": r"^([0-9]{1,6}(ns|us|ms|s|m|h)){1,3}$"}

PARAMETERS: Final[Mapping[str, Parameter]] = {
    "dc": Parameter(_WORD, "The datacenter to ask: there is only the agent's own."),
    "pretty": Parameter(_GIVEN, "Indent the answer."),
    "stale": Parameter(_GIVEN, "Any server may answer, from what it has applied."),
    "max_stale": Parameter(_DURATION, "An answer of this age would do; it is never older than without."),
    "consistent": Parameter(_GIVEN, "The leader confirms its leadership first."),
    "index": Parameter(_UNSIGNED, "Answer when the answer's X-Consul-Index is greater."),
    "wait": Parameter(_DURATION, "Answer then at the latest; default 5m, at most 10m."),
    "filter": Parameter(_WORD, "An expression that chooses rows."),
    "peer": Parameter(_WORD, "Only what this peer exported: nothing, since there are no peerings."),
    "near": Parameter(_WORD, "Accepted; without coordinates it orders nothing."),
    "node-meta": Parameter(_WORD, "key:value that the node must have.", several=True),
    "tag": Parameter(_WORD, "A tag that the instance must have.", several=True),
    "passing": Parameter(_TRUTH_OR_GIVEN, "Only instances whose checks all pass."),
    "keys": Parameter(_GIVEN, "Names of keys only, of those that begin so."),
    "separator": Parameter(_WORD, "Names are cut after it."),
    "recurse": Parameter(_GIVEN, "All keys that begin so."),
    "raw": Parameter(_GIVEN, "The value alone."),
    "cas": Parameter(_UNSIGNED, "Only if the key's ModifyIndex is this; 0: only if there is no such key."),
    "flags": Parameter(_UNSIGNED, "The user's own number."),
    "acquire": Parameter(_WORD, "The session that wants the lock."),
    "release": Parameter(_WORD, "The session that gives the lock back."),
    "hash": Parameter(_WORD, "Answer when the service's ContentHash is another one."),
    "enable": Parameter(_TRUTH, "Begin, or end, the maintenance."),
    "reason": Parameter(_WORD, "Why."),
    "note": Parameter(_WORD, "The output of the check."),
    "format": Parameter({"type": "string", "enum": ["json", "text", "prometheus"]}, "How to answer."),
    "loglevel": Parameter({"type": "string", "enum": list(LOG_LEVELS)}, "Lines of this level and of those above it."),
    "logjson": Parameter(_GIVEN, "Lines are JSON."),
    "prune": Parameter(_GIVEN, "As without it: nobody keeps a list of those that left."),
    "wan": Parameter(_TRUTH_OR_GIVEN, "Servers only, by their names in all datacenters."),
    "replace-existing-checks": Parameter(
        {"type": "string", "enum": ["true", "false", ""]}, "Remove checks that are not named."
    ),
    "id": Parameter(_WORD, "Of a server, or its node's name."),
    "address": Parameter(_WORD, "IP:port of a server's RPC."),
    "name": Parameter(_WORD, "Of the server's node."),
    "non-voter": Parameter(_GIVEN, "It is never promoted by itself."),
}

_READ: Final = ("dc", "stale", "max_stale", "consistent", "index", "wait", "pretty")


def _read(shape: Any, *parameters: str, rest: str = "", also: Mapping[int, tuple[Any, ...]] | None = None) -> Operation:
    """A query of the state machine."""
    return Operation({200: (shape,), **(also or {})}, (*parameters, *_READ), rest=rest, indexed=True)


def _local(
    shape: Any, *parameters: str, rest: str = "", also: Mapping[int, tuple[Any, ...]] | None = None
) -> Operation:
    """A question that the agent answers itself."""
    return Operation({200: (shape,), **(also or {})}, (*parameters, "pretty"), rest=rest)


def _done(*parameters: str, rest: str = "", body: Any = None) -> Operation:
    """A command to the agent, answered without a body."""
    unknown: dict[int, tuple[Any, ...]] = {404: (TEXT,)} if rest else {}
    return Operation({200: (EMPTY,), **unknown}, parameters, body, rest=rest)


def _write(body: Any, shape: Any = bool) -> Operation:
    """A command of the state machine that is told by a document."""
    return Operation({200: (shape,)}, ("dc", "pretty"), body)


_NODES: Final = ("filter", "near", "node-meta", "peer")
_JUDGED: Final = (200, 404, 429, 503)
_HEALTH: Final[Mapping[int, tuple[Any, ...]]] = dict.fromkeys(_JUDGED, (shapes.AgentHealthDocument, TEXT))
_HEALTHS: Final[Mapping[int, tuple[Any, ...]]] = dict.fromkeys(_JUDGED, (list[shapes.AgentHealthDocument], TEXT))


def _unused(endpoint: str, answer: unused.Nothing | unused.Refusal) -> Operation:
    rest = _rest(endpoint)
    if isinstance(answer, unused.Nothing):
        of_health = endpoint == "/v1/health/ingress/"
        shape = list[shapes.HealthDocument] if of_health else list[shapes.EmptyDocument]
        also = {404: (TEXT,)} if answer.one else {}
        return _read(shape, *(("filter",) if of_health else ()), rest=rest, also=also)
    return Operation({answer.status: (TEXT if answer.text else EMPTY,)}, rest=rest)


def _rest(endpoint: str) -> str:
    """What follows an endpoint of `unused`; "": nothing."""
    if not endpoint.endswith("/"):
        return ""
    listed = unused.ANSWERS.get(("GET", endpoint))
    if isinstance(listed, unused.Nothing):
        return listed.missing.partition(" ")[0]
    return "name" if endpoint.endswith(("/name/", "/fire/")) else "id"


OPERATIONS: Final[Mapping[tuple[str, str], Operation]] = {
    ("GET", "/v1/kv/"): Operation(
        {200: (list[shapes.KeyDocument], list[str], TEXT), 404: (EMPTY,)},
        ("keys", "separator", "recurse", "raw", *_READ),
        rest="key",
        indexed=True,
    ),
    ("PUT", "/v1/kv/"): Operation(
        {200: (bool,)}, ("dc", "cas", "flags", "acquire", "release"), ANY_BYTES, body_required=False, rest="key"
    ),
    ("DELETE", "/v1/kv/"): Operation({200: (bool,)}, ("dc", "cas", "recurse"), rest="key"),
    ("PUT", "/v1/catalog/register"): _write(body_shapes.Registration),
    ("PUT", "/v1/catalog/deregister"): _write(body_shapes.Deregistration),
    ("GET", "/v1/catalog/datacenters"): _local(list[str]),
    ("GET", "/v1/catalog/nodes"): _read(list[shapes.NodeDocument], *_NODES),
    ("GET", "/v1/catalog/services"): _read(dict[str, list[str]], "filter", "node-meta"),
    ("GET", "/v1/catalog/service/"): _read(list[shapes.InstanceDocument], "tag", *_NODES, rest="service"),
    ("GET", "/v1/catalog/connect/"): _read(list[shapes.InstanceDocument], "tag", *_NODES, rest="service"),
    ("GET", "/v1/catalog/node/"): _read(shapes.NodeServicesDocument | None, "filter", rest="node"),
    ("GET", "/v1/catalog/node-services/"): _read(shapes.NodeServiceListDocument, "filter", rest="node"),
    ("GET", "/v1/health/node/"): _read(list[shapes.CheckDocument], "filter", rest="node"),
    ("GET", "/v1/health/checks/"): _read(list[shapes.CheckDocument], *_NODES, rest="service"),
    ("GET", "/v1/health/state/"): _read(list[shapes.CheckDocument], *_NODES, rest="state"),
    ("GET", "/v1/health/service/"): _read(list[shapes.HealthDocument], "passing", "tag", *_NODES, rest="service"),
    ("GET", "/v1/health/connect/"): _read(list[shapes.HealthDocument], "passing", "tag", *_NODES, rest="service"),
    ("PUT", "/v1/session/create"): Operation(
        {200: (shapes.CreatedDocument,)}, ("dc", "pretty"), body_shapes.NewSession, body_required=False
    ),
    ("PUT", "/v1/session/destroy/"): Operation({200: (bool,)}, ("dc", "pretty"), rest="session"),
    ("PUT", "/v1/session/renew/"): Operation(
        {200: (list[shapes.SessionDocument],), 404: (TEXT,)}, ("dc", "pretty"), rest="session"
    ),
    ("GET", "/v1/session/info/"): _read(list[shapes.SessionDocument], rest="session"),
    ("GET", "/v1/session/list"): _read(list[shapes.SessionDocument]),
    ("GET", "/v1/session/node/"): _read(list[shapes.SessionDocument], rest="node"),
    ("GET", "/v1/snapshot"): Operation({200: (ARCHIVE,)}, ("dc", "stale")),
    ("PUT", "/v1/snapshot"): Operation({200: (EMPTY,)}, ("dc",), ARCHIVE),
    ("GET", "/v1/agent/self"): _local(shapes.SelfDocument),
    ("PUT", "/v1/agent/leave"): _done(),
    ("GET", "/v1/agent/services"): _local(dict[str, shapes.AgentServiceDocument], "filter"),
    ("GET", "/v1/agent/service/"): _local(
        shapes.HashedServiceDocument, "hash", "wait", rest="service", also={404: (TEXT,)}
    ),
    ("PUT", "/v1/agent/service/register"): _done("replace-existing-checks", body=body_shapes.ServiceDefinitionBody),
    ("PUT", "/v1/agent/service/deregister/"): _done(rest="service"),
    ("PUT", "/v1/agent/service/maintenance/"): _done("enable!", "reason", rest="service"),
    ("GET", "/v1/agent/checks"): _local(dict[str, shapes.CheckDocument], "filter"),
    ("PUT", "/v1/agent/check/register"): Operation({200: (EMPTY,), 404: (TEXT,)}, body=body_shapes.CheckDefinitionBody),
    ("PUT", "/v1/agent/check/deregister/"): _done(rest="check"),
    ("PUT", "/v1/agent/check/pass/"): _done("note", rest="check"),
    ("PUT", "/v1/agent/check/warn/"): _done("note", rest="check"),
    ("PUT", "/v1/agent/check/fail/"): _done("note", rest="check"),
    ("PUT", "/v1/agent/check/update/"): _done(rest="check", body=body_shapes.StatusUpdate),
    ("GET", "/v1/agent/health/service/name/"): Operation(_HEALTHS, ("format", "pretty"), rest="service"),
    ("GET", "/v1/agent/health/service/id/"): Operation(_HEALTH, ("format", "pretty"), rest="service"),
    ("PUT", "/v1/agent/maintenance"): _done("enable!", "reason"),
    ("GET", "/v1/agent/members"): _local(list[shapes.MemberDocument], "wan", "filter"),
    ("GET", "/v1/agent/version"): _local(shapes.VersionDocument),
    ("GET", "/v1/agent/host"): _local(shapes.HostDocument),
    ("GET", "/v1/agent/metrics"): Operation({200: (shapes.MetricsDocument, TEXT), 415: (TEXT,)}, ("format", "pretty")),
    ("GET", "/v1/agent/monitor"): Operation({200: (TEXT,), 429: (TEXT,)}, ("loglevel", "logjson")),
    ("PUT", "/v1/agent/reload"): Operation({200: (EMPTY,)}),
    ("PUT", "/v1/agent/join/"): Operation({200: (EMPTY,)}, ("wan",), rest="server"),
    ("PUT", "/v1/agent/force-leave/"): Operation({200: (TEXT,)}, ("prune",), rest="node"),
    ("PUT", "/v1/txn"): Operation(
        {200: (shapes.OutcomeDocument,), 409: (shapes.OutcomeDocument,)},
        ("dc", "stale", "consistent", "pretty"),
        list[body_shapes.OperationBody],
    ),
    ("GET", "/v1/status/leader"): _local(str, "dc"),
    ("GET", "/v1/status/peers"): _local(list[str], "dc"),
    ("GET", "/v1/operator/autopilot/configuration"): _local(shapes.AutopilotConfigurationDocument, "dc", "stale"),
    ("PUT", "/v1/operator/autopilot/configuration"): Operation(
        {200: (bool,)}, ("dc", "cas", "pretty"), body_shapes.AutopilotBody
    ),
    ("GET", "/v1/operator/autopilot/health"): _local(
        shapes.AutopilotHealthDocument, "dc", also={429: (shapes.AutopilotHealthDocument,)}
    ),
    ("GET", "/v1/operator/autopilot/state"): _local(shapes.AutopilotStateDocument, "dc"),
    ("GET", "/v1/operator/raft/configuration"): _local(shapes.RaftConfigurationDocument, "dc", "stale"),
    ("DELETE", "/v1/operator/raft/peer"): _done("dc", "id", "address"),
    ("PUT", "/v1/operator/raft/peer"): _local(shapes.ChangedDocument, "dc", "address!", "id", "name", "non-voter"),
    ("PUT", "/v1/operator/raft/promote"): _local(shapes.ChangedDocument, "dc", "id!"),
    ("PUT", "/v1/operator/raft/demote"): _local(shapes.ChangedDocument, "dc", "id!"),
    ("POST", "/v1/operator/raft/transfer-leader"): _local(shapes.SuccessDocument, "dc", "id"),
    ("PUT", "/v1/operator/raft/transfer-leader"): _local(shapes.SuccessDocument, "dc", "id"),
    ("GET", "/v1/openapi.json"): _local(dict[str, Any]),
    **{(method, endpoint): _unused(endpoint, answer) for (method, endpoint), answer in unused.ANSWERS.items()},
}
