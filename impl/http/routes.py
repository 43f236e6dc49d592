"""Which handler serves which endpoint and method; `/v1/kv` alone is found by `app`, without a search.

An endpoint whose path ends with a slash takes what follows as its `rest`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from impl.http import (
    agent,
    autopilot,
    controls,
    kv,
    openapi,
    operator,
    registry,
    sessions,
    snapshot,
    transactions,
    unused,
)
from impl.http.context import Context, Handler, Request
from impl.http.response import Response, json_response

Methods = Mapping[str, Handler]


async def _describe(context: Context, request: Request) -> Response:
    """GET /v1/openapi.json: the OpenAPI document of everything that is served here. Comitia's own."""
    return json_response(_document(), request.pretty)


@cache
def _document() -> dict[str, Any]:
    return openapi.document(served())


ENDPOINTS: Final[Mapping[str, Methods]] = {
    "/v1/catalog/register": {"PUT": registry.register},
    "/v1/catalog/deregister": {"PUT": registry.deregister},
    "/v1/catalog/datacenters": {"GET": registry.datacenters},
    "/v1/catalog/nodes": {"GET": registry.nodes},
    "/v1/catalog/services": {"GET": registry.services},
    "/v1/catalog/service/": {"GET": registry.service},
    "/v1/catalog/connect/": {"GET": registry.connect},
    "/v1/catalog/node/": {"GET": registry.node},
    "/v1/catalog/node-services/": {"GET": registry.node_services},
    "/v1/health/node/": {"GET": registry.health_node},
    "/v1/health/checks/": {"GET": registry.health_checks},
    "/v1/health/state/": {"GET": registry.health_state},
    "/v1/health/service/": {"GET": registry.health_service},
    "/v1/health/connect/": {"GET": registry.health_connect},
    "/v1/session/create": {"PUT": sessions.create},
    "/v1/session/destroy/": {"PUT": sessions.destroy},
    "/v1/session/renew/": {"PUT": sessions.renew},
    "/v1/session/info/": {"GET": sessions.info},
    "/v1/session/list": {"GET": sessions.list_all},
    "/v1/session/node/": {"GET": sessions.list_node},
    "/v1/agent/self": {"GET": agent.about_self},
    "/v1/agent/leave": {"PUT": agent.leave},
    "/v1/agent/services": {"GET": agent.services},
    "/v1/agent/service/": {"GET": agent.service},
    "/v1/agent/service/register": {"PUT": agent.register_service},
    "/v1/agent/service/deregister/": {"PUT": agent.deregister_service},
    "/v1/agent/service/maintenance/": {"PUT": agent.maintain_service},
    "/v1/agent/checks": {"GET": agent.checks},
    "/v1/agent/check/register": {"PUT": agent.register_check},
    "/v1/agent/check/deregister/": {"PUT": agent.deregister_check},
    "/v1/agent/check/pass/": {"PUT": agent.pass_check},
    "/v1/agent/check/warn/": {"PUT": agent.warn_check},
    "/v1/agent/check/fail/": {"PUT": agent.fail_check},
    "/v1/agent/check/update/": {"PUT": agent.update_check},
    "/v1/agent/health/service/name/": {"GET": agent.health_by_name},
    "/v1/agent/health/service/id/": {"GET": agent.health_by_id},
    "/v1/agent/maintenance": {"PUT": agent.maintain_node},
    "/v1/agent/members": {"GET": agent.members},
    "/v1/agent/version": {"GET": agent.version},
    "/v1/agent/host": {"GET": controls.host},
    "/v1/agent/metrics": {"GET": controls.metrics},
    "/v1/agent/monitor": {"GET": controls.monitor},
    "/v1/agent/reload": {"PUT": controls.reload},
    "/v1/agent/join/": {"PUT": controls.join},
    "/v1/agent/force-leave/": {"PUT": controls.force_leave},
    "/v1/txn": {"PUT": transactions.run},
    "/v1/snapshot": {"GET": snapshot.save, "PUT": snapshot.restore},
    "/v1/status/leader": {"GET": operator.status_leader},
    "/v1/status/peers": {"GET": operator.status_peers},
    "/v1/operator/raft/configuration": {"GET": operator.configuration},
    "/v1/operator/raft/peer": {"DELETE": operator.remove_peer, "PUT": operator.add_peer},
    "/v1/operator/raft/promote": {"PUT": operator.promote},
    "/v1/operator/raft/demote": {"PUT": operator.demote},
    "/v1/operator/raft/transfer-leader": {"POST": operator.transfer_leader, "PUT": operator.transfer_leader},
    "/v1/operator/autopilot/configuration": {"GET": autopilot.configuration, "PUT": autopilot.configure},
    "/v1/operator/autopilot/health": {"GET": autopilot.health},
    "/v1/operator/autopilot/state": {"GET": autopilot.state},
    "/v1/openapi.json": {"GET": _describe},
    **unused.endpoints(),
}


def served() -> Mapping[str, Mapping[str, Any]]:
    """Every endpoint with its methods, `/v1/kv/` too, whose functions are of use for what they say of themselves."""
    return {"/v1/kv/": {"GET": kv.get, "PUT": kv.put, "DELETE": kv.delete}, **ENDPOINTS}


def found(path: str) -> tuple[Methods, str] | None:
    """The endpoint of a path, and what follows it; None: there is none."""
    exact = ENDPOINTS.get(path)
    if exact is not None:
        return exact, ""
    if f"{path}/" in ENDPOINTS:
        return None  # not what is under a shorter prefix: `/v1/agent/service/deregister` is no service
    end = len(path)
    # The longest prefix wins: `/v1/agent/service/deregister/` is more than a service of that name.
    while (end := path.rfind("/", 0, end)) > 0:
        methods = ENDPOINTS.get(path[: end + 1])
        if methods is not None:
            return methods, path[end + 1 :]
    return None
