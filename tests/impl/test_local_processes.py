"""Agents keep the catalog true: processes on loopback, with services of their own."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.impl.agent_processes import AgentProcess, Cluster, eventually

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    running = Cluster(tmp_path_factory.mktemp("local"), 3)
    yield running
    running.stop()


def ask(agent: AgentProcess, path: str) -> Any:
    status, body = agent.request("GET", path)
    return json.loads(body) if status == 200 else None


def put(agent: AgentProcess, path: str, document: object = None) -> tuple[int, bytes]:
    return agent.request("PUT", path, json.dumps(document).encode() if document is not None else None)


def test_servers_and_client_agents_are_registered_by_themselves(cluster: Cluster) -> None:
    agent = cluster.agents["s1"]
    roles = {"s1": "consul", "s2": "consul", "s3": "consul", "c1": "node"}

    def members() -> bool:
        return {each["Name"]: each["Tags"]["role"] for each in ask(agent, "/v1/agent/members")} == roles

    def servers() -> bool:
        found = ask(agent, "/v1/health/service/consul?passing") or []
        return [each["Node"]["Node"] for each in found] == ["s1", "s2", "s3"]

    eventually(members, "four members")
    eventually(servers, "the service consul")
    eventually(lambda: put(cluster.agents["c1"], "/v1/session/create")[0] == 200, "serfHealth of the client agent")


def test_a_service_of_a_client_agent_is_found_at_every_agent_with_what_its_check_says(cluster: Cluster) -> None:
    client, server = cluster.agents["c1"], cluster.agents["s2"]
    check = {"HTTP": f"http://127.0.0.1:{server.http_port}/v1/kv/healthy?consistent", "Interval": "1s"}
    assert put(client, "/v1/agent/service/register", {"Name": "web", "Port": 80, "Check": check})[0] == 200
    eventually(lambda: len(ask(server, "/v1/health/service/web") or []) == 1, "the service")
    assert ask(server, "/v1/health/service/web?passing") == []
    server.put("healthy", "1")
    (found,) = eventually(lambda: ask(server, "/v1/health/service/web?passing"), "a passing check")
    assert (found["Node"]["Node"], found["Service"]["Port"]) == ("c1", 80)
    assert client.request("GET", "/v1/agent/health/service/name/web?format=text") == (200, b"passing")
    assert put(client, "/v1/agent/service/deregister/web")[0] == 200
    eventually(lambda: ask(server, "/v1/health/service/web") == [], "deregistration")


def test_a_client_agent_that_leaves_is_deregistered(cluster: Cluster) -> None:
    agent = cluster.agents["s1"]
    leaving = AgentProcess("-node", "c2", "-retry-join", agent.rpc).started()
    eventually(lambda: any(node["Node"] == "c2" for node in ask(agent, "/v1/catalog/nodes")), "the client agent")
    assert leaving.terminate() == 0
    eventually(lambda: all(node["Node"] != "c2" for node in ask(agent, "/v1/catalog/nodes")), "its end")


def test_the_catalog_shows_a_change_as_soon_as_its_agent_has_answered(cluster: Cluster) -> None:
    client, server = cluster.agents["c1"], cluster.agents["s1"]
    shown = {"/v1/catalog/service/now", "/v1/health/service/now?passing"}

    def ids(path: str, at: AgentProcess) -> list[str]:
        return [each.get("ServiceID") or each["Service"]["ID"] for each in ask(at, path)]

    for round_number in range(40):
        at, other = (client, server) if round_number % 2 else (server, client)
        service = f"now-{round_number}"
        document = {"Name": "now", "ID": service, "Check": {"TTL": "1h", "CheckID": "ttl"}}
        assert put(at, "/v1/agent/service/register", document)[0] == 200
        assert service in ids("/v1/catalog/service/now", other), round_number
        assert put(at, "/v1/agent/check/pass/ttl")[0] == 200
        assert service in ids("/v1/health/service/now?passing", other), round_number
        assert put(at, f"/v1/agent/service/maintenance/{service}?enable=true")[0] == 200
        assert ids("/v1/health/service/now?passing", other) == [], round_number
        assert put(at, f"/v1/agent/service/deregister/{service}")[0] == 200
        assert [ids(path, other) for path in sorted(shown)] == [[], []], round_number


def test_a_client_agent_without_servers_answers_all_the_same(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"performance": {"rpc_hold_timeout": "500ms"}}))
    alone = AgentProcess("-node", "alone", "-retry-join", "127.0.0.1:1", "-config-file", str(config)).started()
    for number in range(4):
        started = time.monotonic()
        assert put(alone, "/v1/agent/service/register", {"Name": f"web{number}", "Check": {"TTL": "1h"}})[0] == 200
        assert put(alone, f"/v1/agent/check/pass/service:web{number}")[0] == 200
        assert time.monotonic() - started < 10
    assert len(ask(alone, "/v1/agent/services")) == 4
    assert alone.terminate() == 0
