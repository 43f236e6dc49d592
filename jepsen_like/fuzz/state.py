"""What the fuzzed agent holds: something to meet before each round, nothing of it at the end."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import quote

from jepsen_like.fuzz.agents import AgentUnderTest

REQUEST_SECONDS = 15
NO_SESSION = "00000000-0000-4000-8000-000000000000"


def _do(agent: AgentUnderTest, method: str, path: str, document: Any = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", agent.port, timeout=REQUEST_SECONDS)
    try:
        connection.request(method, path, None if document is None else json.dumps(document))
        answer = connection.getresponse()
        return answer.status, answer.read()
    except http.client.HTTPException as error:
        raise OSError(f"{method} {path}: {error}") from error
    finally:
        connection.close()


def prepare(agent: AgentUnderTest) -> dict[str, tuple[str, ...]]:
    """Register a service, a check, another node, keys and a session, as far as they are gone.

    The names of what exists, by what the parameters of paths call it.

    Raises OSError.
    """
    ttl = {"TTL": "1h", "Status": "passing"}
    _do(agent, "PUT", "/v1/agent/maintenance?enable=false")
    _do(agent, "PUT", "/v1/agent/service/register", {"Name": "web", "Tags": ["a"], "Meta": {"a": "b"}, "Check": ttl})
    _do(agent, "PUT", "/v1/agent/check/register", {"Name": "c", **ttl})
    node: dict[str, Any] = {"Node": "n1", "Address": "10.0.0.1", "NodeMeta": {"a": "b"}}
    _do(
        agent, "PUT", "/v1/catalog/register", {**node, "Service": {"Service": "db", "Port": 80}, "Check": {"Name": "c"}}
    )
    for key in ("k", "k/a"):
        _do(agent, "PUT", f"/v1/kv/{key}", "v")
    status, answer = _do(agent, "PUT", "/v1/session/create", {"Name": "k", "TTL": "24h", "NodeChecks": []})
    session = json.loads(answer)["ID"] if status == 200 else NO_SESSION
    return {
        "node": (agent.name, "n1"),
        "service": ("web", "db", "consul"),
        "check": ("c", "service:web", "serfHealth"),
        "state": ("any", "passing", "critical"),
        "session": (session,),
        "key": ("k", "k/a"),
    }


def leave(agent: AgentUnderTest) -> int:
    """Tell the agent to leave: the status of its answer. Raises OSError."""
    return _do(agent, "PUT", "/v1/agent/leave")[0]


def clear(agent: AgentUnderTest) -> int:
    """Remove everything again; how many services and checks of the agent are left.

    (Those whose names no path may hold: they are taken by JSON and cannot be named in a URL, as with Consul.) Raises
    OSError.
    """
    _do(agent, "PUT", "/v1/agent/maintenance?enable=false")
    for what in ("service", "check"):
        for name in agent.get(f"/v1/agent/{what}s"):
            _do(agent, "PUT", f"/v1/agent/{what}/deregister/{quote(name, safe='')}")
    for session in agent.get("/v1/session/list"):
        _do(agent, "PUT", f"/v1/session/destroy/{session['ID']}")
    for node in agent.get("/v1/catalog/nodes"):
        if "consul-version" not in (node["Meta"] or {}):
            _do(agent, "PUT", "/v1/catalog/deregister", {"Node": node["Node"]})
    _do(agent, "DELETE", "/v1/kv/?recurse")
    return len(agent.get("/v1/agent/services")) + len(agent.get("/v1/agent/checks"))
