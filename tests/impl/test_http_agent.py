"""`/v1/agent` as a client sees it: services, checks, maintenance, health and members of one agent."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from impl.agent.local import registrations
from impl.agent.local import sidecars as local_sidecars
from impl.agent.local.registrations import Registrations, Scripts
from impl.agent.logs import Log
from impl.agent.requests.api import NoClusterLeader, ReadOptions, ReadReply
from impl.catalog.commands import Register, Write
from impl.catalog.queries import Query, answer_query
from impl.catalog.rows import CRITICAL, PASSING, SERF_HEALTH, WARNING, Check, Node, Service, row_key
from impl.catalog.store import Store
from impl.catalog.transitions import Result
from impl.http import agent as handlers
from impl.http import definitions
from impl.http.app import Application
from impl.runtime.interfaces import NANOSECONDS
from impl.runtime.virtual import VirtualWorld
from impl.runtime.virtual_disk import VirtualDisk

OPEN: list[Client] = []


@pytest.fixture(autouse=True)
def _ended() -> Iterator[None]:
    """A check that is left alone would be collected in the middle of its wait."""
    yield
    while OPEN:
        client = OPEN.pop()
        client.own.stop()
        client.world.run_for(1)


class Client:
    """Calls the application as an ASGI server does, in a virtual world. It is the agent, too, as far as it is asked."""

    def __init__(self, scripts: Scripts | None = None) -> None:
        OPEN.append(self)
        self.store = Store()
        self.reachable = True
        self.world = VirtualWorld(1)
        self.runtime = self.world.process("n", VirtualDisk()).runtime
        anything: Any = self
        log = Log(lambda line: None, lambda: 0.0)
        node = Node("n", "10.0.0.1", "id", "dc1")
        self.own = Registrations(self.runtime, anything, node, (), anything, scripts or Scripts(), log)
        self.app = Application(
            anything, "dc1", 64, lambda what, error: pytest.fail(f"{what}: {error!r}"), "n", self.own
        )
        self.headers: dict[str, str] = {}
        self.accept = b""

    def describe(self) -> dict[str, Any]:
        return {"Member": {"Name": "n"}}

    def cluster_size(self) -> int:
        return 1

    async def read(self, query: Query, options: ReadOptions) -> ReadReply:
        if not self.reachable:
            raise NoClusterLeader()
        return ReadReply(answer_query(self.store, query), True, 0)

    def begin(self, method: str, target: str, document: Any = None) -> list[dict[str, Any]]:
        """Ask; what is answered comes into the list as time passes."""
        path, _, query = target.partition("?")
        body = b"" if document is None else document if isinstance(document, bytes) else json.dumps(document).encode()
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(event: dict[str, Any]) -> None:
            sent.append(event)

        scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode()}
        scope |= {"query_string": query.encode(), "headers": [(b"accept", self.accept)] if self.accept else []}
        self.runtime.tasks.spawn(self.app(scope, receive, send), "request")
        self.world.run_for(1)
        return sent

    def __call__(self, method: str, target: str, document: Any = None) -> tuple[int, Any]:
        head, body = self.begin(method, "/v1/agent/" + target, document)
        self.headers = {name.decode().lower(): value.decode() for name, value in head["headers"]}
        text = body["body"].decode()
        return head["status"], json.loads(text) if "json" in self.headers.get("content-type", "") else text

    def put(self, target: str, document: Any = None) -> None:
        assert self("PUT", target, document) == (200, "")

    def health(self, service: str = "web") -> tuple[int, str]:
        status, text = self("GET", f"health/service/name/{service}?format=text")
        return status, text


class SlowCatalog(Client):
    """The catalog takes two seconds for a write."""

    def __init__(self) -> None:
        super().__init__()
        self.index = 0
        self.own.start()
        self.world.run_for(5 * NANOSECONDS)

    async def write(self, command: Write) -> Result:
        await self.runtime.clock.sleep(2 * NANOSECONDS)
        self.index += 1
        return self.store.apply(command, self.index)

    def status_of(self, check_id: str) -> str:
        """As the catalog shows it."""
        found = self.store.tables.checks.get(row_key("n", check_id))
        return found.status if found is not None else ""


WEB = {"Name": "web", "Tags": ["a"], "Port": 80, "Meta": {"Team_Name": "x"}, "Check": {"TTL": "10s"}}


def test_a_service_is_shown_as_it_was_registered() -> None:
    client = Client()
    client.put("service/register", WEB)
    assert client("GET", "services")[1]["web"] == {
        "ID": "web",
        "Service": "web",
        "Tags": ["a"],
        "Meta": {"Team_Name": "x"},
        "Port": 80,
        "Address": "",
        "Weights": {"Passing": 1, "Warning": 1},
        "EnableTagOverride": False,
        "Datacenter": "dc1",
    }
    assert client("GET", "services?filter=Port!=80") == (200, {})
    status, document = client("GET", "service/web")
    assert status == 200 and document["ContentHash"] == client.headers["x-consul-contenthash"]
    client.put("service/deregister/web")
    assert client("GET", "services") == (200, {}) and client("GET", "checks") == (200, {})


def test_names_of_fields_have_neither_case_nor_underscores() -> None:
    client = Client(Scripts(True, True))
    check = {"script_args": ["true"], "interval": "10s", "deregister_critical_service_after": "90m"}
    client.put("service/register", {"name": "w", "enable_tag_override": True, "checks": [check, {"ttl": "1m"}]})
    assert client("GET", "services")[1]["w"]["EnableTagOverride"] is True
    checks = client("GET", "checks")[1]
    assert sorted(checks) == ["service:w:1", "service:w:2"]
    assert (checks["service:w:1"]["Type"], checks["service:w:1"]["Interval"]) == ("script", "10s")
    assert client.own.definitions["service:w:1"].deregister_after_ns == 5400 * NANOSECONDS


IN_STEP = (
    ("service/register", WEB, "service:web", CRITICAL),
    ("check/pass/service:web", None, "service:web", PASSING),
    ("check/warn/service:web", None, "service:web", WARNING),
    ("check/fail/service:web", None, "service:web", CRITICAL),
    ("check/update/service:web", {"Status": "passing"}, "service:web", PASSING),
    ("check/register", {"Name": "c", "TTL": "1h"}, "c", CRITICAL),
    ("check/deregister/c", None, "c", ""),
    ("service/maintenance/web?enable=true", None, "_service_maintenance:web", CRITICAL),
    ("maintenance?enable=true", None, "_node_maintenance", CRITICAL),
    ("maintenance?enable=false", None, "_node_maintenance", ""),
    ("service/deregister/web", None, "service:web", ""),
)
"""What an agent is asked, one after the other, and how a check then stands in the catalog; "": it is not there."""


def answers_are_in_step_with_the_catalog() -> None:
    client = SlowCatalog()
    for target, document, check_id, status in IN_STEP:
        sent = client.begin("PUT", f"/v1/agent/{target}", document)
        client.world.run_for(NANOSECONDS)
        assert not sent and client.status_of(check_id) != status, target
        client.world.run_for(2 * NANOSECONDS)
        assert sent and sent[0]["status"] == 200 and client.status_of(check_id) == status, target


def test_whoever_writes_to_an_agent_is_answered_when_the_catalog_has_it() -> None:
    answers_are_in_step_with_the_catalog()


def test_a_proxy_and_a_native_service_are_shown_as_what_they_are() -> None:
    client = Client()
    proxy = {"destination_service_name": "web", "Mode": "direct"}
    client.put("service/register", {"Name": "p", "Kind": "connect-proxy", "Port": 1, "Proxy": proxy})
    client.put("service/register", {"Name": "n", "Port": 1, "Connect": {"native": True}, "socket_path": "/s"})
    found = client("GET", "services")[1]
    assert found["p"]["Proxy"] == {
        "DestinationServiceName": "web",
        "Mode": "direct",
        "MeshGateway": {},
        "Expose": {},
    }
    assert (found["n"]["Connect"], found["n"]["SocketPath"]) == ({"Native": True}, "/s")
    assert "Connect" not in found["p"] and "Proxy" not in found["n"]
    status, text = client("PUT", "service/register", {"Name": "p", "Kind": "connect-proxy", "Port": 1})
    assert status == 400 and text.startswith("Validation failed: 1 error occurred:\n\t* Proxy.DestinationServiceName")


SIDECAR = {
    "Name": "web",
    "ID": "web1",
    "Port": 80,
    "Tags": ["v1"],
    "Meta": {"team": "a"},
    "Connect": {"SidecarService": {}},
}


def a_sidecar_is_registered_and_deregistered_with_its_service() -> None:
    client = Client()
    client.put("service/register", SIDECAR)
    found = client("GET", "services")[1]
    assert list(found) == ["web1", "web1-sidecar-proxy"] and "Connect" not in found["web1"]
    proxy = found["web1-sidecar-proxy"]
    assert (proxy["Kind"], proxy["Service"], proxy["Port"]) == ("connect-proxy", "web-sidecar-proxy", 21000)
    assert (proxy["Tags"], proxy["Meta"]) == (["v1"], {"team": "a"})
    assert proxy["Proxy"] == {
        "DestinationServiceName": "web",
        "DestinationServiceID": "web1",
        "LocalServiceAddress": "127.0.0.1",
        "LocalServicePort": 80,
        "MeshGateway": {},
        "Expose": {},
    }
    checks = client("GET", "checks")[1]
    assert [(check["Name"], check["Type"], check["ServiceID"]) for _, check in sorted(checks.items())] == [
        ("Connect Sidecar Listening", "tcp", "web1-sidecar-proxy"),
        ("Connect Sidecar Aliasing web1", "alias", "web1-sidecar-proxy"),
    ]
    assert client.own.definitions["service:web1-sidecar-proxy:1"].tcp == "127.0.0.1:21000"
    client.put("service/register", SIDECAR | {"ID": "web2"})
    client.put("service/register", SIDECAR)
    ports = {name: each["Port"] for name, each in client("GET", "services")[1].items() if "sidecar" in name}
    assert ports == {"web1-sidecar-proxy": 21000, "web2-sidecar-proxy": 21001}, "it keeps its port"
    client.put("service/deregister/web1")
    assert list(client("GET", "services")[1]) == ["web2", "web2-sidecar-proxy"]
    client.put("service/deregister/web2-sidecar-proxy")
    assert list(client("GET", "services")[1]) == ["web2"]


def test_a_sidecar_is_registered_and_deregistered_with_its_service() -> None:
    a_sidecar_is_registered_and_deregistered_with_its_service()


def test_a_sidecar_may_say_what_it_is() -> None:
    client = Client()
    sidecar = {
        "name": "p",
        "port": 20000,
        "address": "10.0.0.9",
        "tags": ["own"],
        "check": {"ttl": "1m"},
        "proxy": {"local_service_port": 81, "upstreams": [{"destination_name": "db", "local_bind_port": 5432}]},
    }
    client.put("service/register", {"name": "web", "port": 80, "connect": {"sidecar_service": sidecar}})
    proxy = client("GET", "service/web-sidecar-proxy")[1]
    assert (proxy["Service"], proxy["Port"], proxy["Address"], proxy["Tags"]) == ("p", 20000, "10.0.0.9", ["own"])
    assert (proxy["Proxy"]["DestinationServiceName"], proxy["Proxy"]["LocalServicePort"]) == ("web", 81)
    assert proxy["Proxy"]["Upstreams"][0]["DestinationName"] == "db"
    assert list(client("GET", "checks")[1]) == ["service:web-sidecar-proxy"]


def test_there_are_ports_for_so_many_sidecars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_sidecars, "PORTS", range(21000, 21001))
    client = Client()
    client.put("service/register", SIDECAR)
    status, text = client("PUT", "service/register", SIDECAR | {"ID": "web2"})
    assert (status, text) == (
        500,
        "no port provided for sidecar_service and none left in the configured range [21000, 21000]",
    )
    assert list(client("GET", "services")[1]) == ["web1", "web1-sidecar-proxy"]


@pytest.mark.parametrize(
    ("sidecar", "more", "text"),
    [
        ({"ID": "x"}, {}, "A SidecarService cannot specify an ID as this is managed by the agent"),
        ({"Connect": {"SidecarService": {}}}, {}, "A SidecarService cannot have a nested SidecarService"),
        ({}, {"Kind": "mesh-gateway"}, "A mesh-gateway cannot have a sidecar service defined"),
        ({"Proxy": {"DestinationServiceName": "*"}}, {}, "Proxy.DestinationServiceName must not be a wildcard"),
    ],
)
def test_a_sidecar_that_makes_no_sense_is_refused(sidecar: Any, more: dict[str, Any], text: str) -> None:
    client = Client()
    status, answer = client("PUT", "service/register", SIDECAR | {"Connect": {"SidecarService": sidecar}} | more)
    assert status == 400 and answer.startswith(f"Validation failed: 1 error occurred:\n\t* {text}")
    assert client("GET", "services") == (200, {})


def test_a_script_of_a_sidecar_is_refused_as_one_of_its_service() -> None:
    sidecar = {"Check": {"ScriptArgs": ["true"], "Interval": "9s"}}
    status, text = Client()("PUT", "service/register", SIDECAR | {"Connect": {"SidecarService": sidecar}})
    assert status == 400 and text.startswith("Scripts are disabled on this agent")


@pytest.mark.parametrize(
    ("owner", "name", "mutant"),
    [
        (local_sidecars, "_port", lambda before, used: 21000),
        (registrations, "sidecar_of", lambda service, present: None),
        (registrations, "with_sidecars", lambda definitions, present: list(definitions)),
        (local_sidecars, "_default_checks", lambda service, proxy, host: ()),
    ],
    ids=["one-port-for-all", "sidecar-stays", "sidecar-is-not-registered", "sidecar-is-not-checked"],
)
def test_a_mistake_with_sidecars_is_noticed(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, mutant: Any
) -> None:
    monkeypatch.setattr(owner, name, mutant)
    with pytest.raises(AssertionError):
        a_sidecar_is_registered_and_deregistered_with_its_service()


def test_a_weight_that_is_missing_is_none() -> None:
    client = Client()
    client.put("service/register", {"Name": "w", "Weights": {"Passing": 5}})
    assert client("GET", "service/w")[1]["Weights"] == {"Passing": 5, "Warning": 0}


def test_a_name_that_is_spelled_twice_says_what_is_not_null() -> None:
    client, addresses = Client(), {"lan": {"address": "10.0.0.9", "port": 81}}
    client.put("service/register", {"Name": "a", "TaggedAddresses": addresses, "tagged_addresses": None})
    client.put("service/register", {"Name": "b", "tagged_addresses": addresses, "TaggedAddresses": None})
    for name in "ab":
        found = client("GET", f"service/{name}")[1]["TaggedAddresses"]
        assert found == {"lan": {"Address": "10.0.0.9", "Port": 81}}


def test_checks_that_are_not_named_are_replaced_if_that_is_asked_for_as_consul_reads_it() -> None:
    client = Client()
    for value, left in (("=false", 2), ("=1", 2), ("=true", 1), ("", 1)):
        client.put("service/register", {"Name": "w", "Checks": [{"CheckID": "a", "TTL": "1m"}]})
        client.put(f"service/register?replace-existing-checks{value}", {"Name": "w", "Check": {"TTL": "1m"}})
        assert len(client("GET", "checks")[1]) == left
        client.put("service/deregister/w")


def test_a_service_waits_for_its_definition_to_change() -> None:
    client = Client()
    client.put("service/register", WEB)
    digest = client("GET", "service/web")[1]["ContentHash"]
    answered = client.begin("GET", f"/v1/agent/service/web?hash={digest}&wait=60s")
    client.own.set_ttl("service:web", PASSING, "a check is no part of it")
    client.world.run_for(30 * NANOSECONDS)
    assert answered == []
    client.put("service/register", WEB | {"Port": 81})
    client.world.run_for(1)
    assert json.loads(answered[1]["body"])["Port"] == 81
    digest = client("GET", "service/web")[1]["ContentHash"]
    answered = client.begin("GET", f"/v1/agent/service/web?hash={digest}&wait=60s")
    client.world.run_for(61 * NANOSECONDS)
    assert answered[0]["status"] == 200


def test_a_ttl_check_is_set_by_its_users() -> None:
    client = Client()
    client.put("service/register", WEB)
    assert client.health() == (503, "critical")
    client.put("check/pass/service:web?note=fine")
    assert client.health() == (200, "passing")
    assert client("GET", "checks")[1]["service:web"]["Output"] == "fine"
    client.put("check/warn/service:web")
    assert client.health() == (429, "warning")
    client.put("check/update/service:web", {"Status": "passing", "Output": "x"})
    assert client.health() == (200, "passing")
    client.put("check/fail/service:web")
    assert client.health() == (503, "critical")


def test_a_check_of_the_node_counts_for_every_service() -> None:
    client = Client()
    client.put("service/register", {"Name": "web"})
    client.put("check/register", {"Name": "disk", "TTL": "10s", "Status": "warning"})
    assert client.health() == (429, "warning")
    client.put("check/deregister/disk")
    assert client.health() == (200, "passing")


def test_the_health_of_a_name_is_that_of_its_worst_instance() -> None:
    client = Client()
    for number, status in enumerate(("passing", "warning")):
        client.put("service/register", {"ID": f"w{number}", "Name": "web", "Check": {"TTL": "1h", "Status": status}})
    code, shown = client("GET", "health/service/name/web")
    assert (code, [each["AggregatedStatus"] for each in shown]) == (429, ["passing", "warning"])
    assert client("GET", "health/service/id/w0")[0] == 200
    assert client("GET", "health/service/name/none") == (404, [])
    assert client("GET", "health/service/id/none")[0] == 404


def test_maintenance_is_critical_and_ends() -> None:
    client = Client()
    client.put("service/register", {"Name": "web"})
    client.put("service/maintenance/web?enable=true&reason=new+disk")
    check = client("GET", "checks")[1]["_service_maintenance:web"]
    assert (check["Status"], check["Notes"], check["ServiceID"]) == (CRITICAL, "new disk", "web")
    assert client.health() == (503, "maintenance")
    client.put("service/maintenance/web?enable=false")
    assert client.health() == (200, "passing")
    client.put("maintenance?enable=true")
    assert "no reason was provided" in client("GET", "checks")[1]["_node_maintenance"]["Notes"]
    assert client.health() == (503, "maintenance")
    client.put("maintenance?enable=false")
    assert client("GET", "checks") == (200, {})


def test_checks_that_a_service_had_go_on_as_they_stand_unless_they_are_to_be_replaced() -> None:
    client = Client()
    client.put("service/register", WEB)
    client.put("check/pass/service:web")
    client.put("check/register", {"Name": "extra", "ServiceID": "web", "TTL": "1h"})
    client.put("service/register", WEB | {"Tags": ["b"]})
    checks = client("GET", "checks")[1]
    assert (checks["service:web"]["Status"], checks["extra"]["ServiceTags"]) == (PASSING, ["b"])
    client.put("service/maintenance/web?enable=true")
    client.put("service/register?replace-existing-checks=true", WEB)
    assert sorted(client("GET", "checks")[1]) == ["_service_maintenance:web", "service:web"]


def test_a_service_that_is_critical_for_too_long_is_deregistered() -> None:
    client = Client()
    check = {"TTL": "10s", "Status": "passing", "DeregisterCriticalServiceAfter": "1s"}
    client.put("service/register", WEB | {"Check": check})
    client.own.start()
    client.reachable = False  # nothing of it is written
    client.world.run_for(65 * NANOSECONDS)
    assert "web" in client.own.state.services, "a minute is the least"
    client.world.run_for(40 * NANOSECONDS)
    assert "web" not in client.own.state.services


def test_scripts_are_refused_unless_users_of_http_may_have_them() -> None:
    check = {"Name": "c", "Args": ["true"], "Interval": "10s"}
    assert "Scripts are disabled on this agent; to enable" in Client()("PUT", "check/register", check)[1]
    remote = "disabled on this agent from remote calls"
    assert remote in Client(Scripts(local=True))("PUT", "check/register", check)[1]
    assert Client()("PUT", "service/register", {"Name": "s", "Check": check})[0] == 400
    Client(Scripts(True, True)).put("check/register", check)


@pytest.mark.parametrize(
    ("document", "kind", "fields"),
    [
        ({"TCP": "h:1", "TCPUseTLS": True, "TLSServerName": "s"}, "tcp", {"tcp_use_tls": True, "tls_server_name": "s"}),
        ({"UDP": "h:1"}, "udp", {"udp": "h:1"}),
        ({"GRPC": "h:1/s", "GRPCUseTLS": True}, "grpc", {"grpc": "h:1/s", "grpc_use_tls": True}),
        ({"grpc": "h:1", "grpc_use_tls": True}, "grpc", {"grpc_use_tls": True}),
        ({"H2PING": "h:1"}, "h2ping", {"h2ping_use_tls": True}),
        ({"h2ping": "h:1", "h2ping_use_tls": False}, "h2ping", {"h2ping_use_tls": False}),
        ({"AliasNode": "n2", "AliasService": "web", "Interval": ""}, "alias", {"alias_node": "n2"}),
        ({"alias_service": "web", "Interval": ""}, "alias", {"alias_service": "web"}),
    ],
)
def test_every_kind_of_check_is_registered_by_its_fields(
    document: dict[str, Any], kind: str, fields: dict[str, Any]
) -> None:
    client = Client()
    client.put("check/register", {"Name": "c", "Interval": "10s"} | document)
    assert client("GET", "checks")[1]["c"]["Type"] == kind
    definition = client.own.definitions["c"]
    assert {name: getattr(definition, name) for name in fields} == fields


@pytest.mark.parametrize(
    ("target", "document", "status", "text"),
    [
        ("service/register", {}, 400, "Missing service name"),
        ("service/register", b"{", 400, "Request decode failed"),
        ("service/register", [], 400, "must be an object"),
        ("service/register", {"Name": "x", "Address": "0.0.0.0"}, 400, "Invalid service address"),
        ("service/register", {"Name": "x", "Port": "80"}, 400, "Port must be a number"),
        ("service/register", {"Name": "x", "Checks": {}}, 200, ""),
        ("service/register", {"Name": "x", "Checks": "a"}, 400, "Checks must be a list"),
        (
            "service/register",
            {"Name": "x", "Weights": {"Passing": 0}},
            400,
            "Invalid Weights: Passing must be greater than 0",
        ),
        (
            "service/register",
            {"Name": "x", "Weights": {"Passing": 1, "Warning": -1}},
            400,
            "Invalid Weights: Warning must be greater or equal than 0",
        ),
        ("service/register", {"Name": "x", "Weights": {"Warning": 5}}, 400, "Invalid Weights: Passing must be greater"),
        ("service/register", {"Name": "x", "Weights": {"Passing": 65535, "Warning": 0}}, 200, ""),
        (
            "service/register",
            {"Name": "x", "Check": {"TTL": "1s", "Status": "fine"}},
            400,
            "Status for checks must",
        ),
        (
            "service/register",
            {"Name": "x", "Weights": {"Passing": 65536, "Warning": 1}},
            400,
            "Invalid Weights: DNS Weight must be between 0 and 65535",
        ),
        (
            "service/register",
            {"Name": "x", "Weights": {"Passing": 1, "Warning": 65536}},
            400,
            "Invalid Weights: DNS Weight must be between 0 and 65535",
        ),
        ("service/register", {"Name": "x", "Check": {"HTTP": "http://x"}}, 400, "Interval must be > 0"),
        ("service/register", {"Name": "x", "Check": {"TTL": "soon"}}, 400, "TTL: invalid duration"),
        ("service/register", {"Name": "x", "Check": {"TTL": "1s", "Header": 1}}, 400, "Header must be an object"),
        ("service/register", {"Name": "a\0b"}, 400, "Invalid service ID"),
        ("check/register", {"Name": "a\0b", "TTL": "1s"}, 400, "Invalid check ID"),
        ("check/register", {"TTL": "1s"}, 400, "Missing check name"),
        ("check/register", {"Name": "c"}, 400, "TTL must be > 0"),
        ("check/register", {"Name": "c", "TTL": "1s", "Status": "fine"}, 400, "Bad check status"),
        ("check/register", {"Name": "c", "DockerContainerID": "x"}, 400, "Docker checks are not supported"),
        ("check/register", {"Name": "c", "OSService": "x"}, 400, "OS service checks are not supported"),
        ("check/register", {"Name": "c", "TTL": "1s", "ServiceID": "x"}, 404, 'ServiceID "x" does not exist'),
        ("check/deregister/c", None, 404, 'Unknown check ID "c"'),
        ("check/pass/c", None, 404, 'Unknown check ID "c"'),
        ("check/update/c", {"Status": "fine"}, 400, "Invalid check status: 'fine'"),
        ("service/deregister/x", None, 404, 'Unknown service ID "x"'),
        ("service/maintenance/x?enable=true", None, 404, 'Unknown service ID "x"'),
        ("service/maintenance/x", None, 400, "Missing value for enable"),
        ("maintenance?enable=", None, 400, 'Invalid value for enable: ""'),
    ],
)
def test_what_makes_no_sense_is_refused_as_consul_does(target: str, document: Any, status: int, text: str) -> None:
    found = Client()("PUT", target, document)
    assert found[0] == status and text in found[1]


LIMITS = {f"k{number}": "v" for number in range(62)} | {"k" * 128: "é" * 256, "A-z_09": ""}


@pytest.mark.parametrize(
    ("meta", "text"),
    [
        (LIMITS, ""),
        (LIMITS | {"more": ""}, "Node metadata cannot contain more than 64 key/value pairs"),
        ({"": "v"}, "Couldn't load metadata pair ('', 'v'): Key cannot be blank"),
        ({"a b": "v"}, "Couldn't load metadata pair ('a b', 'v'): Key contains invalid characters"),
        ({"a\n": "v"}, "Couldn't load metadata pair ('a\n', 'v'): Key contains invalid characters"),
        (
            {"k" * 129: "v"},
            f"Couldn't load metadata pair ('{'k' * 129}', 'v'): Key is too long (limit: 128 characters)",
        ),
        (
            {"consul-x": "v"},
            "Couldn't load metadata pair ('consul-x', 'v'): Key prefix 'consul-' is reserved for internal use",
        ),
        (
            {"k": "é" * 257},
            f"Couldn't load metadata pair ('k', '{'é' * 257}'): Value is too long (limit: 512 characters)",
        ),
    ],
)
def test_metadata_of_a_service_have_limits(meta: dict[str, str], text: str) -> None:
    found = Client()("PUT", "service/register", {"Name": "web", "Meta": meta})
    assert found == ((400, f"Invalid Service Meta: {text}") if text else (200, ""))


def test_unknown_methods_and_services_are_named() -> None:
    client = Client()
    assert client("GET", "service/register")[0] == 405
    assert client("GET", "service/none") == (404, "unknown service ID: none")


def test_health_is_a_text_for_whoever_accepts_text() -> None:
    client = Client()
    client.put("service/register", WEB)
    client.accept = b"text/plain; charset=utf-8"
    for target in ("health/service/name/web", "health/service/id/web", "health/service/id/web?format=json"):
        assert client("GET", target) == (503, "critical")
    assert client("GET", "health/service/name/none") == (404, "ServiceName none Not Found")
    client.accept = b"application/json, text/plain"
    assert client("GET", "health/service/id/web")[1]["AggregatedStatus"] == CRITICAL


def test_members_are_the_agents_that_the_catalog_shows() -> None:
    client = Client()
    version = {"consul-version": "1"}

    def alive(node: str, status: str) -> Check:
        return Check(node, SERF_HEALTH, status=status)

    client.store.apply(
        Register(Node("s", "1", "i", "dc1"), Service("s", "consul", "consul", port=8300), (alive("s", PASSING),)), 1
    )
    client.store.apply(Register(Node("c", "2", "j", meta=version), None, (alive("c", CRITICAL),)), 2)
    client.store.apply(Register(Node("external", "3")), 3)
    members = client("GET", "members")[1]
    shown = [(each["Name"], each["Port"], each["Tags"]["role"], each["Status"]) for each in members]
    assert shown == [("c", 0, "node", 4), ("s", 8300, "consul", 1)]
    assert all(each["Tags"]["vsn"] == "2" and each["Tags"]["segment"] == "" for each in members)
    assert [each["Name"] for each in client("GET", "members?wan")[1]] == ["s.dc1"]
    assert [each["Name"] for each in client("GET", "members?filter=Status+==+4")[1]] == ["c"]
    assert [each["Name"] for each in client("GET", "members?filter=Tags.role+==+consul")[1]] == ["s"]
    assert client("GET", "members?filter=Status+==")[0] == 400
    client.reachable = False
    assert client("GET", "members") == (200, [{"Name": "n"}])
    assert client("GET", "members?filter=Name+==+m") == (200, [])


def test_the_version_is_known() -> None:
    assert Client()("GET", "version")[1]["HumanVersion"].startswith("1.")


def _ignores_the_node(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(handlers, "_checks", lambda local, service_id: local.state.checks_of(service_id))


def _allows_scripts(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(handlers, "_refuse_script", lambda local, definition: None)


def _takes_the_best(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(handlers, "_WORST_FIRST", tuple(reversed(handlers._WORST_FIRST)))


def _answers_at_once(patch: pytest.MonkeyPatch) -> None:
    async def synced(self: Registrations) -> None:
        return

    patch.setattr(Registrations, "synced", synced)


def _waits_for_the_disk_alone(patch: pytest.MonkeyPatch) -> None:
    async def kept(context: Any) -> Any:
        await context.local.shelf.written()
        return handlers._DONE

    patch.setattr(handlers, "_kept", kept)


def _takes_any_weights(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(definitions, "weights_problem", lambda passing, warning: "")


def _takes_any_metadata(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(definitions, "metadata_problem", lambda meta: "")


def weights_are_positive() -> None:
    document = {"Name": "x", "Weights": {"Passing": 0}}
    test_what_makes_no_sense_is_refused_as_consul_does("service/register", document, 400, "Passing must be greater")


def metadata_have_keys() -> None:
    test_metadata_of_a_service_have_limits({"": "v"}, "Couldn't load metadata pair ('', 'v'): Key cannot be blank")


def _hashes_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Registrations, "content_hash", lambda self, service_id: "0")


@pytest.mark.parametrize(
    ("mutant", "sentence"),
    [
        (_ignores_the_node, test_a_check_of_the_node_counts_for_every_service),
        (_allows_scripts, test_scripts_are_refused_unless_users_of_http_may_have_them),
        (_takes_the_best, test_the_health_of_a_name_is_that_of_its_worst_instance),
        (_hashes_nothing, test_a_service_waits_for_its_definition_to_change),
        (_takes_any_weights, weights_are_positive),
        (_takes_any_metadata, metadata_have_keys),
        (_answers_at_once, answers_are_in_step_with_the_catalog),
        (_waits_for_the_disk_alone, answers_are_in_step_with_the_catalog),
    ],
)
def test_mutants_are_killed(
    mutant: Callable[[pytest.MonkeyPatch], None], sentence: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant(monkeypatch)
    with pytest.raises((AssertionError, IndexError)):
        sentence()
