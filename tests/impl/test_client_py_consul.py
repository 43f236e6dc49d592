"""A Python client of Consul, as it comes from PyPI, works with a server and with a client agent: each group of its API.

`py-consul`, the one that is maintained. (What needs ACLs, events or prepared queries is not served yet.)
"""

from __future__ import annotations

import base64
import http.server
import json
import sys
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import consul
import pytest

from tests.impl.agent_processes import ROOT, AgentProcess, eventually

pytestmark = pytest.mark.xdist_group("py-consul")


def checks_of(agent: AgentProcess, node: str) -> Any:
    return json.loads(agent.request("GET", f"/v1/health/node/{node}")[1])


@pytest.fixture(scope="module")
def agents() -> Iterator[dict[str, AgentProcess]]:
    server = AgentProcess("-dev", "-node", "s1", "-server-port", "0").started()
    client = AgentProcess("-node", "c1", "-retry-join", server.rpc).started()
    try:
        for node in ("s1", "c1"):
            eventually(partial(checks_of, server, node), node)
        yield {"s1": server, "c1": client}
    finally:
        client.terminate()
        server.terminate()


@pytest.fixture(params=["s1", "c1"])
def node(request: pytest.FixtureRequest) -> str:
    """Which agent is asked."""
    name: str = request.param
    return name


@pytest.fixture
def api(agents: dict[str, AgentProcess], node: str) -> Iterator[consul.Consul]:
    found = consul.Consul(host="127.0.0.1", port=agents[node].http_port)
    found.kv.delete("", recurse=True)
    yield found
    session = getattr(found.http, "session", None)
    if session is not None:
        session.close()


def session_of(api: consul.Consul, **options: Any) -> str:
    """A session without lock-delay, so that tests need not wait for it."""
    identity: str = api.session.create(lock_delay=0, **options)
    return identity


def test_a_key_is_put_read_listed_and_deleted(api: consul.Consul) -> None:
    index, nothing = api.kv.get("none")
    assert nothing is None and int(index) >= 1, "a watch can wait for it"
    assert api.kv.put("a/x", "1") is True and api.kv.put("a/y", b"\x00\xff", flags=7) is True
    index, row = api.kv.get("a/y")
    assert (row["Key"], row["Value"], row["Flags"], int(index)) == ("a/y", b"\x00\xff", 7, row["ModifyIndex"])
    assert [each["Key"] for each in api.kv.get("a/", recurse=True)[1]] == ["a/x", "a/y"]
    assert api.kv.get("", keys=True, separator="/")[1] == ["a/"]
    assert api.kv.put("a/x", "2", cas=0) is False
    assert api.kv.put("a/x", "2", cas=api.kv.get("a/x")[1]["ModifyIndex"]) is True
    assert api.kv.get("a/x", consistency="consistent")[1]["Value"] == b"2"
    assert api.kv.delete("a/x", cas=1) is False and api.kv.delete("a/", recurse=True) is True
    assert api.kv.get("a/", recurse=True)[1] is None


def test_an_agent_that_forgets_headers_is_noticed() -> None:
    command = (sys.executable, str(ROOT / "tests/mutants"), "headers-forgotten-where-nothing-is-found")
    agent = AgentProcess("-dev", "-server-port", "0", command=command).started()
    try:
        with pytest.raises(consul.ConsulException, match="Missing index header"):
            test_a_key_is_put_read_listed_and_deleted(consul.Consul(port=agent.http_port))
    finally:
        agent.terminate()


def test_a_blocking_query_answers_when_the_key_changes_or_the_wait_ends(api: consul.Consul) -> None:
    api.kv.put("watched", "1")
    index, _ = api.kv.get("watched")
    assert api.kv.get("watched", index=index, wait="50ms") == (index, api.kv.get("watched")[1])
    answers: list[Any] = []
    waiting = threading.Thread(target=lambda: answers.append(api.kv.get("watched", index=index, wait="30s")))
    waiting.start()
    api.kv.put("watched", "2")
    waiting.join(25)
    ((later, row),) = answers
    assert row["Value"] == b"2" and int(later) > int(index)


def test_a_lock_is_acquired_by_one_session_and_released_by_it(api: consul.Consul) -> None:
    mine, other = session_of(api), session_of(api)
    assert api.kv.put("lock", "me", acquire=mine) is True and api.kv.put("lock", "you", acquire=other) is False
    row = api.kv.get("lock")[1]
    assert (row["Session"], row["LockIndex"], row["Value"]) == (mine, 1, b"me")
    assert api.kv.put("lock", "", release=other) is False and api.kv.put("lock", "", release=mine) is True
    assert api.kv.put("lock", "you", acquire=other) is True and api.session.destroy(other) is True
    assert "Session" not in api.kv.get("lock")[1]
    with pytest.raises(consul.ConsulException, match="invalid session"):
        api.kv.put("lock", "me", acquire=other)


def test_a_session_is_created_listed_renewed_and_destroyed(api: consul.Consul, node: str) -> None:
    identity = session_of(api, name="mine", ttl=60, behavior="delete")
    _, found = api.session.info(identity)
    assert (found["Name"], found["TTL"], found["Behavior"], found["Node"]) == ("mine", "60s", "delete", node)
    assert identity in [each["ID"] for each in api.session.list()[1]]
    assert identity in [each["ID"] for each in api.session.node(node)[1]]
    assert api.session.renew(identity)["ID"] == identity
    assert api.session.destroy(identity) is True and api.session.info(identity)[1] is None
    with pytest.raises(consul.NotFound):
        api.session.renew(identity)


def test_the_catalog_takes_registrations_and_forgets_them(api: consul.Consul) -> None:
    service = {"service": "redis", "id": "redis1", "tags": ["master"], "port": 8000, "address": "10.1.10.12"}
    check = {"name": "alive", "status": "passing", "serviceid": "redis1"}
    assert api.catalog.register("foreign", "10.1.10.12", service=service, check=check) is True
    assert "foreign" in [each["Node"] for each in api.catalog.nodes()[1]]
    assert api.catalog.services()[1]["redis"] == ["master"]
    assert api.catalog.node("foreign")[1]["Services"]["redis1"]["Port"] == 8000
    (row,) = api.catalog.service("redis")[1]
    assert (row["ServiceID"], row["ServiceAddress"], row["Address"]) == ("redis1", "10.1.10.12", "10.1.10.12")
    assert api.catalog.service("redis", tag="slave")[1] == [] and api.catalog.datacenters() == ["dc1"]
    assert api.catalog.deregister("foreign", service_id="redis1") is True
    assert api.catalog.node("foreign")[1]["Services"] == {}
    assert api.catalog.deregister("foreign") is True and api.catalog.node("foreign")[1] is None
    with pytest.raises(consul.ConsulException, match="Must provide address if SkipNodeUpdate is not set"):
        api.catalog.register("foreign", "")


def test_an_agents_service_passes_by_its_ttl_and_is_healthy_then(api: consul.Consul) -> None:
    assert api.agent.service.register("app", service_id="app1", port=80, tags=["v1"], check=consul.Check.ttl("60s"))
    assert api.agent.services()["app1"]["Tags"] == ["v1"]
    index, nodes = api.health.service("app", passing=True)
    assert nodes == []
    assert api.agent.check.ttl_pass("service:app1", "fine") is True
    found = eventually(lambda: api.health.service("app", passing=True, index=index, wait="5s")[1], "it passes")
    assert (found[0]["Service"]["ID"], found[0]["Checks"][-1]["Output"]) == ("app1", "fine")
    assert api.agent.check.ttl_warn("service:app1") is True
    eventually(lambda: [each["Status"] for each in api.health.checks("app")[1]] == ["warning"], "it warns")
    assert api.agent.check.ttl_fail("service:app1") is True
    eventually(lambda: "app" in [each["ServiceName"] for each in api.health.state("critical")[1]], "it fails")
    assert api.agent.service.deregister("app1") is True and "app1" not in api.agent.services()
    eventually(lambda: not api.health.service("app")[1], "it is gone")


def test_a_check_of_the_node_and_maintenance_are_seen_in_its_health(api: consul.Consul, node: str) -> None:
    assert api.agent.check.register("disk", consul.Check.ttl("60s"), check_id="d", notes="n") is True
    assert api.agent.checks()["d"]["Notes"] == "n" and api.agent.check.ttl_pass("d") is True
    eventually(lambda: {"d": "passing"}.items() <= statuses(api, node).items(), "the catalog follows")
    assert api.agent.maintenance(True, "repairs") is True
    eventually(lambda: statuses(api, node).get("_node_maintenance") == "critical", "it is under maintenance")
    assert api.agent.maintenance(False) is True and api.agent.check.deregister("d") is True
    eventually(lambda: set(statuses(api, node)) == {"serfHealth"}, "all is as before")


def statuses(api: consul.Consul, node: str) -> dict[str, str]:
    return {each["CheckID"]: each["Status"] for each in api.health.node(node)[1]}


def passing(api: consul.Consul, service: str) -> Any:
    return api.health.service(service, passing=True)[1]


def test_an_http_check_and_a_tcp_check_are_run(api: consul.Consul) -> None:
    class Healthy(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.headers["x-asks"] == "consul" else 403)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Healthy) as served:
        serving = threading.Thread(target=served.serve_forever)
        serving.start()
        try:
            port = served.server_address[1]
            by_http = consul.Check.http(f"http://127.0.0.1:{port}/", "1s", header={"x-asks": ["consul"]})
            api.agent.service.register("web", check=by_http)
            api.agent.service.register("tcp", check=consul.Check.tcp("127.0.0.1", port, "1s"))
            for name in ("web", "tcp"):
                eventually(partial(passing, api, name), name)
                api.agent.service.deregister(name)
        finally:
            served.shutdown()
            serving.join()


def test_a_transaction_is_done_whole_or_not_at_all(api: consul.Consul) -> None:
    def kv(verb: str, key: str, value: str = "") -> dict[str, Any]:
        return {"KV": {"Verb": verb, "Key": key, "Value": base64.b64encode(value.encode()).decode()}}

    done = api.txn.put([kv("set", "t/a", "1"), kv("set", "t/b", "2"), kv("get", "t/a")])
    assert done["Errors"] is None and [each["KV"]["Key"] for each in done["Results"]] == ["t/a", "t/b", "t/a"]
    with pytest.raises(consul.ConsulException, match=r'(?s)409 .*key \\"none\\" doesn.t exist'):
        api.txn.put([kv("set", "t/c", "3"), kv("get", "none")])
    assert api.kv.get("t/c")[1] is None


def test_the_status_names_the_leader_among_the_peers(api: consul.Consul, agents: dict[str, AgentProcess]) -> None:
    assert api.status.leader() == agents["s1"].rpc and api.status.peers() == [agents["s1"].rpc]


def test_agents_know_themselves_and_each_other(api: consul.Consul, node: str) -> None:
    myself = api.agent.self()
    assert (myself["Config"]["NodeName"], myself["Member"]["Name"]) == (node, node)
    members = {each["Name"]: each["Tags"]["role"] for each in api.agent.members()}
    assert members == {"s1": "consul", "c1": "node"}


def test_bad_input_is_told_apart_from_failures(api: consul.Consul) -> None:
    with pytest.raises(consul.ConsulException, match="400 Invalid index"):
        api.kv.get("k", index="x", wait="1s")
    with pytest.raises(consul.ConsulException, match="500 No path to datacenter"):
        api.kv.get("k", dc="elsewhere")


def test_members_definitions_and_filters_are_read(api: consul.Consul) -> None:
    (server,) = api.operator.raft_config()["Servers"]
    assert (server["Node"], server["Leader"], server["Voter"]) == ("s1", True, True)
    api.agent.service.register("hashed", meta={"a": "b"}, weights={"Passing": 3, "Warning": 1})
    assert api.agent.service_definition("hashed")["Weights"] == {"Passing": 3, "Warning": 1}
    assert list(api.agent.services(filter_expr='Meta.a == "b"')) == ["hashed"]
    api.agent.service.deregister("hashed")
