"""`/v1/operator/autopilot/`: how well the servers are, and what the leader does by itself.

Source: Consul, "Operator HTTP API", Autopilot. *Deviation:* the configuration is what Comitia does, and cannot be
changed: a PUT of what is in force already is done, any other is refused (400) by the name of the field. Dead servers
are never removed (`CleanupDeadServers`), and a server that has kept up for 2 s is promoted.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from impl.agent.describe import VERSION
from impl.agent.local.definitions import go_duration
from impl.agent.membership.autopilot import CONTACT_MS_MAX
from impl.agent.membership.operations import RaftServer, ServerHealth
from impl.agent.membership.promotion import STABLE_NS, TRAILING_MAX
from impl.agent.requests.api import Consistency, ReadOptions
from impl.catalog.registry_queries import ListNodes, NodesAnswer
from impl.http.context import Context, Request
from impl.http.fields import Fields, read_json
from impl.http.request import HttpError, parse_unsigned
from impl.http.response import Response, json_response
from impl.http.shapes import (
    AutopilotConfigurationDocument,
    AutopilotHealthDocument,
    AutopilotServerDocument,
    AutopilotStateDocument,
    ServerHealthDocument,
)
from impl.raft.quorum import majority
from impl.runtime.interfaces import MILLISECONDS, NANOSECONDS

BODY_SIZE_MAX: Final = 64 * 1024
TIMES: Final = {"LastContactThreshold": CONTACT_MS_MAX * MILLISECONDS, "ServerStabilizationTime": STABLE_NS}
"""In nanoseconds."""
CONFIGURATION: Final[AutopilotConfigurationDocument] = {
    "CleanupDeadServers": False,
    "LastContactThreshold": go_duration(TIMES["LastContactThreshold"]),
    "MaxTrailingLogs": TRAILING_MAX,
    "MinQuorum": 0,
    "ServerStabilizationTime": go_duration(TIMES["ServerStabilizationTime"]),
    "RedundancyZoneTag": "",
    "DisableUpgradeMigration": False,
    "UpgradeVersionTag": "",
    "CreateIndex": 0,
    "ModifyIndex": 0,
}
UNKNOWN: Final = ServerHealth(False, False, -1, 0, 0)
"""Of a server that the leader has not looked at yet."""


async def configuration(context: Context, request: Request) -> Response:
    """GET /v1/operator/autopilot/configuration."""
    return json_response(CONFIGURATION, request.pretty)


async def configure(context: Context, request: Request) -> Response:
    """PUT /v1/operator/autopilot/configuration: true if it is in force already; with `cas`, false for another index."""
    fields = Fields(read_json(await request.body(BODY_SIZE_MAX)))
    expected = parse_unsigned("cas", request.parameters.get("cas", "0"))
    for name, value in CONFIGURATION.items():
        if fields.raw(name) is not None and not _is_in_force(fields, name, value) and not name.endswith("Index"):
            raise HttpError(400, f"Autopilot's {name} is {value!r} in Comitia, and cannot be changed")
    return json_response(expected == CONFIGURATION["ModifyIndex"], request.pretty)


def _is_in_force(fields: Fields, name: str, value: object) -> bool:
    if name in TIMES:
        return fields.duration(name) == TIMES[name]
    match value:
        case bool():
            return fields.truth(name) == value
        case int():
            return fields.unsigned(name) == value
        case _:
            return fields.text(name) == value


async def health(context: Context, request: Request) -> Response:
    """GET /v1/operator/autopilot/health: 200, or 429 if a server is not healthy."""
    servers = (await context.agent.raft_configuration(stale=False)).servers
    document: AutopilotHealthDocument = {
        "Healthy": _all_healthy(servers),
        "FailureTolerance": _tolerance(servers),
        "Servers": [_said(ServerHealthDocument, server, {}) for server in servers],
    }
    shown = json_response(document, request.pretty)
    return shown if document["Healthy"] else Response(429, shown.headers, shown.body)


async def state(context: Context, request: Request) -> Response:
    """GET /v1/operator/autopilot/state."""
    servers = (await context.agent.raft_configuration(stale=False)).servers
    nodes = (await context.agent.read(ListNodes(), ReadOptions(Consistency.STALE))).answer
    assert isinstance(nodes, NodesAnswer)
    metadata = {node.id: node.meta for node in nodes.nodes}
    document: AutopilotStateDocument = {
        "Healthy": _all_healthy(servers),
        "FailureTolerance": _tolerance(servers),
        "OptimisticFailureTolerance": 0,  # of redundancy zones
        "Servers": {each.id: _said(AutopilotServerDocument, each, metadata.get(each.id, {})) for each in servers},
        "Leader": next((server.id for server in servers if server.leader), ""),
        "Voters": [server.id for server in servers if server.voter],
    }
    return json_response(document, request.pretty)


# -------------------------------------------------------------------------------------------------------------- details


def _is_healthy(server: RaftServer) -> bool:
    return server.health is not None and server.health.healthy


def _all_healthy(servers: tuple[RaftServer, ...]) -> bool:
    return all(_is_healthy(server) for server in servers)


def _tolerance(servers: tuple[RaftServer, ...]) -> int:
    """How many healthy voters may fail before there is no quorum."""
    voters = [server for server in servers if server.voter]
    return max(sum(_is_healthy(server) for server in voters) - majority(len(voters)), 0)


def _said(shape: Any, server: RaftServer, meta: Mapping[str, str]) -> Any:
    """What there is to say of a server, as far as a type of `shapes` has it, in its order."""
    found = server.health or UNKNOWN
    status = "alive" if found.connected else "failed"
    values = {
        "ID": server.id,
        "Name": server.node,
        "Address": server.address,
        "SerfStatus": status,
        "NodeStatus": status,
        "Version": VERSION,
        "Leader": server.leader,
        "LastContact": _contact(found),
        "LastTerm": found.last_term,
        "LastIndex": server.last_index,
        "Healthy": found.healthy,
        "Voter": server.voter,
        "StableSince": _time(found.since_ns),
        "ReadReplica": server.read_replica,
        "Status": "leader" if server.leader else "voter" if server.voter else "non-voter",
        "Meta": meta,
        "NodeType": "read-replica" if server.read_replica else "voter",
    }
    return {name: values[name] for name in shape.__annotations__}


def _contact(found: ServerHealth) -> str:
    """As Consul, which shows a server that was never heard with -1 ns."""
    return go_duration(found.contact_ms * MILLISECONDS) if found.contact_ms >= 0 else "-1ns"


def _time(unix_ns: int) -> str:
    return datetime.fromtimestamp(unix_ns // NANOSECONDS, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
