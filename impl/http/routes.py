"""Which handler serves which endpoint and method of the registry, the sessions and transactions.

An endpoint whose path ends with a slash takes what follows as its `rest`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from impl.http import registry, sessions, transactions
from impl.http.context import Handler

Methods = Mapping[str, Handler]

ENDPOINTS: Final[Mapping[str, Methods]] = {
    "/v1/catalog/register": {"PUT": registry.register},
    "/v1/catalog/deregister": {"PUT": registry.deregister},
    "/v1/catalog/datacenters": {"GET": registry.datacenters},
    "/v1/catalog/nodes": {"GET": registry.nodes},
    "/v1/catalog/services": {"GET": registry.services},
    "/v1/catalog/service/": {"GET": registry.service},
    "/v1/catalog/node/": {"GET": registry.node},
    "/v1/catalog/node-services/": {"GET": registry.node_services},
    "/v1/health/node/": {"GET": registry.health_node},
    "/v1/health/checks/": {"GET": registry.health_checks},
    "/v1/health/state/": {"GET": registry.health_state},
    "/v1/health/service/": {"GET": registry.health_service},
    "/v1/session/create": {"PUT": sessions.create},
    "/v1/session/destroy/": {"PUT": sessions.destroy},
    "/v1/session/renew/": {"PUT": sessions.renew},
    "/v1/session/info/": {"GET": sessions.info},
    "/v1/session/list": {"GET": sessions.list_all},
    "/v1/session/node/": {"GET": sessions.list_node},
    "/v1/txn": {"PUT": transactions.run},
}


def found(path: str) -> tuple[Methods, str] | None:
    """The endpoint of a path, and what follows it; None: there is none."""
    exact = ENDPOINTS.get(path)
    if exact is not None:
        return exact, ""
    parts = path.split("/", 4)
    if len(parts) < 5:
        return None
    methods = ENDPOINTS.get("/".join(parts[:4]) + "/")
    return None if methods is None else (methods, parts[4])
