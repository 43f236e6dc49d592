"""`/v1/catalog`, `/v1/health`, `/v1/session` and `/v1/txn` as a client sees them, over a state store in memory."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any
from urllib.parse import quote_plus

import pytest

from impl.agent.requests.api import Consistency, ReadOptions, ReadReply
from impl.catalog.commands import Write
from impl.catalog.queries import Query, answer_query
from impl.catalog.rows import Session
from impl.catalog.store import Store
from impl.catalog.transitions import Result
from impl.http import registry, routes, unused, writes
from impl.http.app import Application
from impl.http.response import Response, json_response
from tests.impl.asgi import ask

ID = "00000000-0000-4000-8000-000000000001"


class Memory:
    """An agent whose cluster is one state store."""

    def __init__(self) -> None:
        self.store = Store()
        self.index = 1
        self.asked: list[ReadOptions] = []

    async def write(self, command: Write) -> Result:
        self.index += 1
        return self.store.apply(command, self.index)

    async def read(self, query: Query, options: ReadOptions) -> ReadReply:
        self.asked.append(options)
        return ReadReply(answer_query(self.store, query), True, 0)

    async def renew_session(self, session_id: str) -> Session | None:
        return self.store.tables.sessions.get(session_id)

    def new_id(self) -> str:
        return ID


class Client:
    """Calls the application as an ASGI server does."""

    def __init__(self) -> None:
        self.agent = Memory()
        agent: Any = self.agent
        self.app = Application(agent, "dc1", 80, lambda what, error: pytest.fail(f"{what}: {error!r}"), "me")
        self.headers: dict[str, str] = {}

    def __call__(self, method: str, target: str, document: Any = None) -> tuple[int, Any]:
        body = b"" if document is None else document if isinstance(document, bytes) else json.dumps(document).encode()
        status, self.headers, answer, _ = ask(self.app, method, target, [body])
        text = answer.decode()
        return status, json.loads(text) if "json" in self.headers.get("Content-Type", "") else text


WEB: dict[str, Any] = {
    "Node": "n1",
    "Address": "10.0.0.1",
    "NodeMeta": {"rack": "a"},
    "Service": {"Service": "web", "Tags": ["v1", "primary"], "Port": 80},
    "Check": {"Name": "alive", "Status": "passing"},
}


@pytest.fixture
def client() -> Client:
    client = Client()
    assert client("PUT", "/v1/catalog/register", WEB) == (200, True)
    return client


def test_what_is_registered_is_found_by_every_question(client: Client) -> None:
    assert [node["Node"] for node in client("GET", "/v1/catalog/nodes")[1]] == ["n1"]
    assert client.headers["X-Consul-Index"] == "2" and client.headers["X-Consul-Knownleader"] == "true"
    assert client("GET", "/v1/catalog/services") == (200, {"web": ["primary", "v1"]})
    assert client("GET", "/v1/catalog/service/web")[1][0]["ServicePort"] == 80
    node = client("GET", "/v1/catalog/node/n1")[1]
    assert (node["Node"]["Address"], list(node["Services"])) == ("10.0.0.1", ["web"])
    assert [each["ID"] for each in client("GET", "/v1/catalog/node-services/n1")[1]["Services"]] == ["web"]
    health = client("GET", "/v1/health/service/web?passing")[1]
    assert [check["CheckID"] for check in health[0]["Checks"]] == ["alive"]
    for path in ("node/n1", "state/passing", "state/any"):
        assert [check["Name"] for check in client("GET", f"/v1/health/{path}")[1]] == ["alive"]
    assert client("GET", "/v1/catalog/datacenters") == (200, ["dc1"])


def test_what_does_not_exist_is_empty_or_null_as_consul_answers(client: Client) -> None:
    assert client("GET", "/v1/catalog/node/none") == (200, None)
    assert client("GET", "/v1/catalog/service/none") == (200, [])
    assert client("GET", "/v1/health/service/none") == (200, [])
    assert client("GET", "/v1/health/node/none") == (200, [])
    assert client("GET", f"/v1/session/info/{ID}") == (200, [])
    assert client("GET", "/v1/catalog/service/") == (400, "Missing service name")
    assert client("GET", "/v1/health/state/") == (400, "Missing check state")


def test_instances_are_chosen_by_tags_metadata_and_filters(client: Client) -> None:
    for query, found in (
        ("tag=v1&tag=primary", 1),
        ("tag=v1&tag=canary", 0),
        ("node-meta=rack:a", 1),
        ("node-meta=rack:b", 0),
        ("filter=Service.Port==80", 1),
        ("filter=%22canary%22+in+Service.Tags", 0),
        ("near=_agent", 1),
    ):
        assert len(client("GET", f"/v1/health/service/web?{query}")[1]) == found, query
    status, text = client("GET", "/v1/health/service/web?filter=Service.Port+%3D")
    assert status == 400 and text.startswith("Failed to create boolean expression evaluator: 14: ")
    assert client("GET", "/v1/catalog/nodes?filter=None.Such==1")[0] == 400
    assert (
        client("GET", "/v1/catalog/nodes?filter=+")[0] == 400 and client("GET", "/v1/catalog/nodes?filter=")[0] == 200
    )
    assert client("GET", "/v1/health/service/web?passing=maybe") == (400, "Invalid value for ?passing")


PLAIN: dict[str, Any] = {
    "Node": "plain",
    "Address": "10.0.0.2",
    "Service": {"Service": "web", "ID": "web2", "Port": 81},
}


def filtered(client: Client, path: str, expression: str) -> Any:
    status, document = client("GET", f"{path}?filter={quote_plus(expression)}")
    assert status == 200, document
    return document


def test_a_filter_may_ask_for_metadata_that_some_rows_do_not_have(client: Client) -> None:
    client("PUT", "/v1/catalog/register", PLAIN | {"Check": {"Name": "alive", "ServiceID": "web2"}})
    client("PUT", "/v1/catalog/register", WEB | {"Service": WEB["Service"] | {"Meta": {"version": "1"}}})
    for path, expression, found in (
        ("health/service/web", 'Service.Meta.version == "1"', 1),
        ("health/service/web", 'Service.Meta.version != "1"', 1),
        ("health/service/web", "Node.Meta.rack is not empty", 1),
        ("health/service/web", 'Service.Kind == ""', 2),
        ("health/service/web", "Service.TaggedAddresses.lan.Address == x", 0),
        ("health/service/web", "Checks.Status == critical", 1),
        ("catalog/service/web", "NodeMeta.rack == a", 1),
        ("catalog/service/web", '"1" not in ServiceMeta.version', 1),
        ("catalog/nodes", "rack in Meta or TaggedAddresses.lan == x", 1),
    ):
        assert len(filtered(client, f"/v1/{path}", expression)) == found, expression


def test_a_selector_that_does_not_exist_is_refused_though_there_are_no_rows(client: Client) -> None:
    text = 'Failed to create boolean expression evaluator: Selector "Foo" is not valid'
    for path in ("health/service/none", "catalog/service/none", "health/node/none", "catalog/node/none"):
        assert client("GET", f"/v1/{path}?filter=Foo==1") == (400, text)
    assert client.agent.asked == [], "before anybody waits"


def test_the_instances_of_a_node_are_filtered(client: Client) -> None:
    client("PUT", "/v1/catalog/register", WEB | {"Service": {"Service": "db", "Port": 81, "Meta": {"a": "b"}}})
    assert list(filtered(client, "/v1/catalog/node/n1", "Meta.a == b")["Services"]) == ["db"]
    listed = filtered(client, "/v1/catalog/node-services/n1", "Meta.a == b")
    assert [each["ID"] for each in listed["Services"]] == ["db"]
    nothing = filtered(client, "/v1/catalog/node/n1", "Port == 1")
    assert (nothing["Node"]["Node"], nothing["Services"]) == ("n1", {})
    assert filtered(client, "/v1/catalog/node/none", "Port == 1") is None


def test_names_and_tags_are_those_of_the_instances_that_a_filter_chooses(client: Client) -> None:
    client("PUT", "/v1/catalog/register", PLAIN | {"Service": PLAIN["Service"] | {"Tags": ["canary"]}})
    client("PUT", "/v1/catalog/register", PLAIN | {"Service": {"Service": "db"}})
    path = "/v1/catalog/services"
    for expression, found in (
        ("ServiceName == web", {"web": ["canary", "primary", "v1"]}),
        ("canary in ServiceTags", {"web": ["canary"]}),
        ("NodeMeta.rack == a", {"web": ["primary", "v1"]}),
        ("Node == plain", {"db": [], "web": ["canary"]}),
        ("ServiceName == none", {}),
    ):
        assert filtered(client, path, expression) == found
    filtered_index = client.headers["X-Consul-Index"]
    assert client("GET", f"{path}?node-meta=rack:a&filter=ServicePort!=80") == (200, {})
    client("GET", path)
    assert client.headers["X-Consul-Index"] == filtered_index


def test_reads_block_and_choose_their_consistency(client: Client) -> None:
    client("GET", "/v1/catalog/services?index=5&wait=10s&stale")
    assert client.agent.asked[-1] == ReadOptions(Consistency.STALE, 5, 10.0)
    for index in ("x", "-1", str(1 << 64), "9" * 5000):
        assert client("GET", f"/v1/catalog/nodes?index={index}") == (400, "Invalid index")


def test_how_old_an_answer_may_be_is_read_and_conflicts_with_consistent(client: Client) -> None:
    assert client("GET", "/v1/catalog/nodes?max_stale=10s")[0] == 200
    assert client.agent.asked[-1].consistency is Consistency.DEFAULT, "the freshest answer is always good enough"
    assert client("GET", "/v1/catalog/nodes?max_stale=old") == (400, 'Invalid max_stale value "old"')
    for other, name in (("max_stale=1s", "stale"), ("stale", "stale"), ("cached", "cached")):
        text = f"Cannot specify ?{name} with ?consistent, conflicting semantics."
        assert client("GET", f"/v1/catalog/nodes?consistent&{other}") == (400, text)
    assert client("GET", "/v1/catalog/nodes?consistent&max_stale=0s")[0] == 200


def test_of_another_clusters_services_there_are_none(client: Client) -> None:
    for path in ("catalog/nodes", "catalog/service/web", "health/service/web", "health/node/n1", "health/state/any"):
        assert client("GET", f"/v1/{path}?peer=cluster-02") == (200, [])
        assert client("GET", f"/v1/{path}?peer=")[1]
    assert client("GET", "/v1/catalog/services?peer=cluster-02") == (200, {})
    assert client("GET", "/v1/catalog/node/n1?peer=cluster-02") == (200, None)
    assert client("GET", "/v1/catalog/node-services/n1?peer=cluster-02") == (200, {"Node": None, "Services": []})


def test_what_an_instance_does_not_have_is_left_out_where_consul_does(client: Client) -> None:
    client("PUT", "/v1/catalog/register", {**WEB, "Service": {"Service": "bare"}})
    assert "Port" not in client("GET", "/v1/health/service/bare")[1][0]["Service"]
    assert "Port" not in client("GET", "/v1/catalog/node/n1")[1]["Services"]["bare"]
    instance = client("GET", "/v1/catalog/service/bare")[1][0]
    assert instance["ServicePort"] == 0 and "ServiceTaggedAddresses" not in instance


def test_an_agent_may_indent_all_its_answers(client: Client) -> None:
    agent: Any = client.agent
    client.app = Application(agent, "dc1", 80, lambda what, error: pytest.fail(what), "me", pretty=True)
    for method, target, answer in (
        ("GET", "/v1/catalog/datacenters", b'[\n    "dc1"\n]\n'),
        ("PUT", "/v1/kv/a", b"true\n"),
        ("PUT", "/v1/kv/a?cas=0", b"false\n"),
        ("GET", "/v1/kv/?keys", b'[\n    "a"\n]\n'),
        ("GET", "/v1/kv/a?raw", b""),
        ("DELETE", "/v1/kv/a?recurse&cas=1", b"Conflicting flags: cas=1&recurse=\n"),
        ("DELETE", "/v1/kv/a", b"true\n"),
    ):
        assert ask(client.app, method, target).body == answer


def test_an_unknown_method_is_refused_with_those_that_are_known(client: Client) -> None:
    assert client("POST", "/v1/catalog/register")[0] == 405
    assert client.headers["Allow"] == "OPTIONS,PUT"
    assert client("GET", "/v1/catalog/nothing")[0] == 404


def test_a_registration_that_the_state_machine_refuses_is_told_why(client: Client) -> None:
    bad = {**WEB, "Check": {"Name": "c", "ServiceID": "none"}}
    text = 'failed inserting check on node "n1": Missing service registration'
    assert client("PUT", "/v1/catalog/register", bad) == (500, text)


def test_a_deregistration_removes_an_instance_or_the_node(client: Client) -> None:
    assert client("PUT", "/v1/catalog/deregister", {"Node": "n1", "ServiceID": "web"}) == (200, True)
    assert client("GET", "/v1/catalog/services") == (200, {})
    client("PUT", "/v1/catalog/deregister", {"Node": "n1"})
    assert client("GET", "/v1/catalog/nodes") == (200, [])


def test_what_is_meant_for_another_datacenter_is_not_done_here(client: Client) -> None:
    before, refusal = client.agent.index, (500, "No path to datacenter")
    assert client("PUT", "/v1/catalog/register", {**WEB, "Datacenter": "dc2"}) == refusal
    assert client("PUT", "/v1/catalog/deregister", {"Node": "n1", "Datacenter": "dc2"}) == refusal
    assert client("PUT", "/v1/catalog/register?dc=dc2", {**WEB, "Datacenter": "dc1"}) == refusal
    assert client.agent.index == before
    assert client("PUT", "/v1/catalog/register", {**WEB, "Datacenter": "dc1"}) == (200, True)
    assert client("PUT", "/v1/catalog/register?dc=dc1", {**WEB, "Datacenter": "dc2"}) == (200, True), "dc= decides"
    assert client("GET", "/v1/catalog/nodes")[1][0]["Datacenter"] == "dc1"
    assert client("PUT", "/v1/catalog/deregister?dc=dc1", {"Node": "n1", "Datacenter": "dc2"}) == (200, True)


UNUSED_LISTS = [
    "health/ingress/web",
    "catalog/gateway-services/gateway",
    "config/service-defaults",
    "peerings",
    "exported-services",
    "event/list",
    "query",
    "coordinate/datacenters",
    "coordinate/nodes",
]


@pytest.mark.parametrize("path", UNUSED_LISTS)
def test_of_what_is_not_used_there_is_nothing_at_an_index_that_can_be_waited_on(client: Client, path: str) -> None:
    assert client("GET", f"/v1/{path}") == (200, [])
    assert client.headers["X-Consul-Index"] == "2" and client.headers["X-Consul-Knownleader"] == "true"
    assert client("GET", f"/v1/{path}?index=2&wait=10s&stale") == (200, [])
    assert client.agent.asked[-1] == ReadOptions(Consistency.STALE, 2, 10.0)


def test_who_waits_for_what_is_not_used_is_not_woken_by_services(client: Client) -> None:
    client("PUT", "/v1/catalog/register", {**WEB, "Service": {"Service": "gone"}})
    client("PUT", "/v1/catalog/deregister", {"Node": "n1", "ServiceID": "gone"})
    client("GET", "/v1/event/list")
    extinct = client.headers["X-Consul-Index"]
    client("PUT", "/v1/catalog/register", {**WEB, "Service": {**WEB["Service"], "Port": 81}})
    client("GET", "/v1/event/list")
    assert client.headers["X-Consul-Index"] == extinct


def nothing_is_done_in_silence(client: Client) -> None:
    """Whatever would write is refused, by the name of what there is not; what would read shows nothing."""
    before = client.agent.index
    for (method, endpoint), answer in unused.ANSWERS.items():
        status, shown = client(method, f"/v1{endpoint.removeprefix('/v1')}{'x' if endpoint.endswith('/') else ''}", {})
        if "/connect/" in endpoint or "/discovery-chain/" in endpoint:
            assert (status, shown) == (500, "Connect must be enabled in order to use this endpoint"), endpoint
        elif method != "GET":
            assert status == 401 or (status == 400 and shown.endswith("are not supported by Comitia")), endpoint
        elif status == 200:
            assert shown == [], endpoint
        else:
            assert status in (401, 404), endpoint
        assert (status == 401) == ("/acl/" in endpoint or "/token/" in endpoint), (endpoint, answer)
    assert client.agent.index == before


def test_nothing_is_done_in_silence(client: Client) -> None:
    nothing_is_done_in_silence(client)


@pytest.mark.parametrize("endpoint", ["/v1/query/", "/v1/event/fire/", "/v1/coordinate/update", "/v1/acl/token"])
def test_a_write_that_is_accepted_and_not_done_is_noticed(
    client: Client, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def accept(context: Any, request: Any) -> Response:
        return json_response(True, False)

    monkeypatch.setitem(routes.ENDPOINTS[endpoint], "PUT", accept)
    with pytest.raises(AssertionError):
        nothing_is_done_in_silence(client)


def test_a_configuration_entry_that_is_not_there_can_be_waited_for(client: Client) -> None:
    assert client("GET", "/v1/config/service-defaults/web?index=2&wait=10s") == (404, "Config entry not found")
    assert client.headers["X-Consul-Index"] == "2"
    assert client.agent.asked[-1] == ReadOptions(Consistency.DEFAULT, 2, 10.0)


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("PUT", "event/fire/deploy", 400, "Events are not supported by Comitia"),
        ("POST", "query", 400, "Prepared queries are not supported by Comitia"),
        ("PUT", "coordinate/update", 400, "Coordinates are not supported by Comitia"),
        ("PUT", "config", 400, "Configuration entries are not supported by Comitia"),
        ("GET", "config/service-defaults/web", 404, "Config entry not found"),
        ("GET", "connect/intentions", 500, "Connect must be enabled in order to use this endpoint"),
        ("GET", "discovery-chain/web", 500, "Connect must be enabled in order to use this endpoint"),
        ("POST", "peering/token", 400, "Peerings are not supported by Comitia"),
        ("GET", "query/none/execute", 404, "Query not found"),
        ("GET", "coordinate/node/n1", 404, ""),
        ("GET", "acl/tokens", 401, "ACL support disabled"),
        ("PUT", "acl/token", 401, "ACL support disabled"),
        ("PUT", "acl/token/id/clone", 401, "ACL support disabled"),
        ("DELETE", "acl/policy/", 401, "ACL support disabled"),
        ("PUT", "agent/token/default", 401, "ACL support disabled"),
    ],
)
def test_what_comitia_does_not_have_is_refused_by_name(
    client: Client, method: str, path: str, status: int, text: str
) -> None:
    before = client.agent.index
    assert client(method, f"/v1/{path}", {}) == (status, text)
    assert client.agent.index == before


PROXY: dict[str, Any] = {
    "Node": "n1",
    "Address": "10.0.0.1",
    "Service": {
        "Kind": "connect-proxy",
        "Service": "web-proxy",
        "Port": 21000,
        "Proxy": {
            "destination_service_name": "web",
            "LocalServicePort": 80,
            "Config": {"z": 1, "Name_of": None},
            "Upstreams": [{"destination_name": "db", "LocalBindPort": 5432}],
            "Expose": {"Checks": True, "Paths": [{"Path": "/health", "LocalPathPort": 8080}]},
            "MeshGateway": {"Mode": "local"},
            "TransparentProxy": {"DialedDirectly": True},
        },
    },
}
SHOWN = {
    "TransparentProxy": {"DialedDirectly": True},
    "DestinationServiceName": "web",
    "LocalServicePort": 80,
    "Mode": "",
    "Config": {"Name_of": None, "z": 1},
    "Upstreams": [
        {
            "DestinationType": "service",
            "DestinationName": "db",
            "Datacenter": "",
            "LocalBindPort": 5432,
            "MeshGateway": {},
        }
    ],
    "MeshGateway": {"Mode": "local"},
    "Expose": {"Checks": True, "Paths": [{"Path": "/health", "LocalPathPort": 8080}]},
}


def test_a_service_is_reached_through_its_proxies_and_its_native_instances(client: Client) -> None:
    assert client("GET", "/v1/health/connect/web") == (200, [])
    assert client("PUT", "/v1/catalog/register", PROXY) == (200, True)
    native = {**WEB, "Service": {"ID": "own", "Service": "web", "SocketPath": "/s", "Connect": {"Native": True}}}
    assert client("PUT", "/v1/catalog/register", native) == (200, True)
    own, proxy = client("GET", "/v1/health/connect/web?passing")[1]
    assert (own["Service"]["Connect"], own["Service"]["SocketPath"]) == ({"Native": True}, "/s")
    assert (proxy["Service"]["Kind"], proxy["Service"]["Proxy"]) == ("connect-proxy", SHOWN)
    assert list(proxy["Service"]["Proxy"]) == list(SHOWN), "in Go's order"
    assert [check["CheckID"] for check in proxy["Checks"]] == ["alive"]
    own, proxy = client("GET", "/v1/catalog/connect/WEB")[1]
    assert (own["ServiceConnect"], own["ServiceSocketPath"]) == ({"Native": True}, "/s")
    assert (proxy["ServiceName"], proxy["ServiceProxy"], proxy["ServiceConnect"]) == ("web-proxy", SHOWN, {})
    for expression in ("Service.Connect.Native == true", "Service.Kind == connect-proxy", "Service.Proxy.Mode == x"):
        found = client("GET", f"/v1/health/connect/web?filter={quote_plus(expression)}")[1]
        assert len(found) == (0 if expression.endswith("x") else 1)
    assert client("GET", "/v1/health/connect/web-proxy") == (200, [])
    assert len(client("GET", "/v1/catalog/service/web")[1]) == 2
    client("PUT", "/v1/catalog/deregister", {"Node": "n1", "ServiceID": "web-proxy"})
    assert [each["ServiceID"] for each in client("GET", "/v1/catalog/connect/web")[1]] == ["own"]


def test_a_transaction_registers_a_proxy(client: Client) -> None:
    proxy = b'{"Kind":"connect-proxy","Service":"p","Port":1,"Proxy":{"DestinationServiceName":"web"}}'
    status, outcome = client("PUT", "/v1/txn", b'[{"Service":{"Verb":"set","Node":"n1","Service":%b}}]' % proxy)
    assert status == 200 and outcome["Results"][0]["Service"]["Proxy"]["DestinationServiceName"] == "web"
    assert len(client("GET", "/v1/health/connect/web")[1]) == 1


@pytest.mark.parametrize(
    ("service", "problems"),
    [
        (
            {"Kind": "connect-proxy", "Proxy": {"DestinationServiceName": "web"}},
            ["Port or SocketPath must be set"],
        ),
        ({"Kind": "connect-proxy", "Port": 1}, ["Proxy.DestinationServiceName must be non-empty for Connect proxy"]),
        (
            {"Kind": "connect-proxy", "Port": 1, "Proxy": {"DestinationServiceName": "*"}, "Connect": {"Native": True}},
            ["Proxy.DestinationServiceName must not be a wildcard", "A Proxy cannot also be Connect Native"],
        ),
        ({"Connect": {"Native": True}}, ["Port or SocketPath must be set for a Connect native service."]),
        ({"Kind": "mesh-gateway"}, ["Port must be non-zero for a mesh-gateway"]),
        (
            {"Kind": "ingress-gateway", "Proxy": {"DestinationServiceName": "web"}},
            ["The Proxy.DestinationServiceName configuration is invalid for a ingress-gateway"],
        ),
    ],
)
def test_a_proxy_that_makes_no_sense_is_refused_as_consul_does(
    client: Client, service: dict[str, Any], problems: list[str]
) -> None:
    status, text = client("PUT", "/v1/catalog/register", {**WEB, "Service": {"Service": "x", **service}})
    assert status == 500
    assert text.startswith(f"{len(problems)} error{'s' * (len(problems) > 1)} occurred:\n\t* {problems[0]}")
    assert all(f"\t* {problem}" in text for problem in problems) and text.endswith("\n\n")


def session(client: Client, **options: Any) -> str:
    status, document = client("PUT", "/v1/session/create", {"Node": "n1", "NodeChecks": ["alive"], **options})
    assert status == 200
    return str(document["ID"])


def test_a_session_is_created_listed_renewed_and_destroyed(client: Client) -> None:
    identity = session(client, Name="lock", TTL="30s")
    for path in (f"info/{identity}", "list", "node/n1"):
        (found,) = client("GET", f"/v1/session/{path}")[1]
        assert (found["ID"], found["Name"], found["TTL"], found["LockDelay"]) == (identity, "lock", "30s", 15 * 10**9)
    assert client("PUT", f"/v1/session/renew/{identity}")[1][0]["ID"] == identity
    assert client("PUT", f"/v1/session/destroy/{identity}") == (200, True)
    assert client("PUT", f"/v1/session/renew/{identity}") == (404, f"Session id '{identity}' not found")
    assert client("GET", "/v1/session/list") == (200, [])


def test_a_session_needs_what_it_depends_on(client: Client) -> None:
    refused = client("PUT", "/v1/session/create", {"Node": "none"})
    assert refused == (500, "Missing node registration")
    assert client("PUT", "/v1/session/create") == (500, "Missing node registration"), "the agent's own node"


def test_a_lock_is_held_by_one_session_and_lost_with_it(client: Client) -> None:
    holder = session(client)
    assert client("PUT", f"/v1/kv/k?acquire={holder}", b"1") == (200, True)
    assert client("PUT", f"/v1/kv/k?release={ID[:-1]}2", b"1") == (200, False)
    (entry,) = client("GET", "/v1/kv/k")[1]
    assert (entry["Session"], entry["LockIndex"]) == (holder, 1)
    client("PUT", "/v1/catalog/deregister", {"Node": "n1", "CheckID": "alive"})
    (entry,) = client("GET", "/v1/kv/k")[1]
    assert "Session" not in entry and entry["LockIndex"] == 1


def kv(verb: str, key: str, **fields: Any) -> dict[str, Any]:
    return {"KV": {"Verb": verb, "Key": key, **fields}}


def test_a_transaction_is_carried_out_whole_or_not_at_all(client: Client) -> None:
    value = b64encode(b"v").decode()
    status, done = client("PUT", "/v1/txn", [kv("set", "a", Value=value), kv("get", "a")])
    assert status == 200 and done["Errors"] is None
    assert [result["KV"]["Value"] for result in done["Results"]] == [None, value]
    status, failed = client("PUT", "/v1/txn", [kv("set", "b", Value=value), kv("get", "none")])
    assert (status, failed) == (409, {"Results": None, "Errors": [{"OpIndex": 1, "What": 'key "none" doesn\'t exist'}]})
    assert client("GET", "/v1/kv/b")[0] == 404
    index = client.agent.index
    assert client("PUT", "/v1/txn?stale", [kv("get-tree", "a")])[1]["Results"][0]["KV"]["Key"] == "a"
    assert client.agent.index == index, "a transaction that only reads goes past the log"
    assert client.agent.asked[-1].consistency is Consistency.STALE


def test_a_body_that_is_too_large_is_refused(client: Client) -> None:
    assert client("PUT", "/v1/txn", b" " * 1000)[0] == 413


def test_a_filter_that_is_ignored_is_noticed(monkeypatch: pytest.MonkeyPatch, client: Client) -> None:
    monkeypatch.setattr(registry, "_chosen_by", lambda request: None)
    with pytest.raises(AssertionError):
        test_instances_are_chosen_by_tags_metadata_and_filters(client)


def test_a_refusal_that_is_ignored_is_noticed(monkeypatch: pytest.MonkeyPatch, client: Client) -> None:
    async def all_is_well(agent: Any, command: Any) -> bool:
        await agent.write(command)
        return True

    monkeypatch.setattr(writes, "result", all_is_well)
    with pytest.raises(AssertionError):
        test_a_registration_that_the_state_machine_refuses_is_told_why(client)
