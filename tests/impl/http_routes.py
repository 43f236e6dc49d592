"""One line for each endpoint and method of the HTTP API: a request that succeeds, and what its users may get wrong.

A route that has no line here fails `test_http_bad_input` and `test_http_openapi`. Paths and bodies may name the session
and the node of the agent that is asked: `{session}`, `{node}`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from impl.http import routes

CONSUL_NODE = {"Node": "n1", "Address": "10.0.0.1"}
KB = 1024


@dataclass(frozen=True)
class Line:
    """A route, and one request to it that is answered with `status`."""

    method: str
    endpoint: str
    rest: str = ""
    """What follows the endpoint, with the query."""
    body: Any = None
    status: int = 200
    indexed: bool = False
    """It answers with X-Consul-Index and what goes with it, and can block."""
    archive: bool = False
    """It answers with an archive, and with an index that one cannot wait on."""
    filtered: bool = False
    json_body: bool = False
    """It needs a JSON object, or a list for transactions."""
    body_bytes_max: int = 0
    missing: tuple[int, str] | None = None
    """What is answered if nothing follows an endpoint that ends with a slash."""
    bad: tuple[tuple[str, Any, int, str], ...] = ()
    """What else is wrong: what follows the endpoint, body, status, text."""
    destroys: bool = False
    """Only an agent of its own may be asked: others are of no use after it."""

    @property
    def name(self) -> str:
        return f"{self.method} {self.endpoint}"


def registry(endpoint: str, rest: str, missing: str = "", **more: Any) -> Line:
    """A read of the catalog that can block and be filtered."""
    more = {"filtered": True} | more
    return Line("GET", endpoint, rest, indexed=True, missing=(400, f"Missing {missing}") if missing else None, **more)


def written(endpoint: str, body: Any, *bad: tuple[str, Any, int, str], size: int = 512 * KB) -> Line:
    """A write that is asked for by a JSON document."""
    return Line("PUT", endpoint, "", body, json_body=True, body_bytes_max=size, bad=bad)


def ttl(verb: str) -> Line:
    unknown = 'Unknown check ID "none". Ensure that the check ID is passed, not the check name.'
    return Line("PUT", f"/v1/agent/check/{verb}/", "c?note=x", bad=(("none", None, 404, unknown),))


def session(verb: str, method: str, known: int, **more: Any) -> Line:
    """A question or command about one session."""
    short = ("short", None, 500, "failed session lookup: index error: UUID must be 36 characters")
    bad = (short, *more.pop("bad", ()))
    return Line(
        method, f"/v1/session/{verb}/", "{session}", status=known, missing=(400, "Missing session"), bad=bad, **more
    )


UNKNOWN_SERVICE = 'Unknown service ID "none". Ensure that the service ID is passed, not the service name.'
UNKNOWN_SESSION = "00000000-0000-4000-8000-000000000000"
NOT_A_NUMBER = 'parsing "x": invalid syntax or out of range'


def unused(endpoint: str, missing: str = "", **more: Any) -> Line:
    """A list of what Comitia does not have."""
    return registry(endpoint, "x" if missing else "", missing, **({"filtered": False} | more))


def refused(method: str, endpoint: str, status: int) -> Line:
    """What has always the same answer."""
    return Line(method, endpoint, "x" if endpoint.endswith("/") else "", status=status)


ACL = """
    PUT bootstrap, POST login, POST logout, GET replication, GET tokens, PUT token, GET token/self,
    GET token/, PUT token/, DELETE token/, GET policies, PUT policy, GET policy/name/,
    GET policy/, PUT policy/, DELETE policy/, GET roles, PUT role, GET role/name/, GET role/, PUT role/, DELETE role/,
    GET auth-methods, PUT auth-method, GET auth-method/, PUT auth-method/, DELETE auth-method/,
    GET binding-rules, PUT binding-rule, GET binding-rule/, PUT binding-rule/, DELETE binding-rule/,
    GET templated-policies, GET templated-policy/name/, POST templated-policy/preview/
"""

CONNECT = """
    GET connect/ca/roots, GET connect/ca/configuration, PUT connect/ca/configuration, GET agent/connect/ca/roots,
    GET agent/connect/ca/leaf/, POST agent/connect/authorize, GET connect/intentions, POST connect/intentions,
    GET connect/intentions/match, GET connect/intentions/check, GET connect/intentions/exact,
    PUT connect/intentions/exact, DELETE connect/intentions/exact, GET connect/intentions/, PUT connect/intentions/,
    DELETE connect/intentions/, GET discovery-chain/, POST discovery-chain/
"""

LINES = (
    Line(
        "GET",
        "/v1/kv/",
        "k",
        indexed=True,
        missing=(400, "Missing key name"),
        bad=(
            ("%ff", None, 400, "Invalid URL path: not UTF-8"),
            ("a%00b", None, 400, "Invalid URL path: it has unprintable"),
        ),
    ),
    Line(
        "PUT",
        "/v1/kv/",
        "k",
        b"v",
        body_bytes_max=512 * KB,
        missing=(400, "Missing key name"),
        bad=(
            ("k?cas=x", b"", 400, f"Invalid cas: {NOT_A_NUMBER}"),
            ("k?flags=x", b"", 400, f"Invalid flags: {NOT_A_NUMBER}"),
            ("k?flags=-1", b"", 400, "Invalid flags"),
            ("k?cas=1&acquire={session}", b"", 400, "Conflicting flags: "),
            (f"k?acquire={UNKNOWN_SESSION}", b"", 500, f'invalid session "{UNKNOWN_SESSION}"'),
            ("k?cas=%zz", b"", 400, 'Invalid query string: invalid URL escape "%zz"'),
            ("k%zz", b"", 400, 'Invalid URL path: invalid URL escape "%zz"'),
        ),
    ),
    Line(
        "DELETE",
        "/v1/kv/",
        "none",
        missing=(400, "Missing key name"),
        bad=(
            ("k?cas=x", None, 400, f"Invalid cas: {NOT_A_NUMBER}"),
            ("k?cas=0&recurse", None, 400, "Conflicting flags: "),
        ),
    ),
    written(
        "/v1/catalog/register",
        CONSUL_NODE | {"Service": {"Service": "web", "Port": 80}},
        ("", {}, 500, "Must provide node"),
        ("", CONSUL_NODE | {"Datacenter": "elsewhere"}, 500, "No path to datacenter"),
        ("", {"Node": "n1"}, 500, "Must provide address if SkipNodeUpdate is not set"),
        ("", CONSUL_NODE | {"Service": {"ID": "x"}}, 500, "Must provide service name (Service.Service) when"),
        ("", CONSUL_NODE | {"Service": {"Service": "x", "Port": "80"}}, 400, "Port must be a number, not a string"),
        ("", CONSUL_NODE | {"ID": "x"}, 500, "Bad node ID"),
        ("", CONSUL_NODE | {"Check": {"Name": "c", "Status": "fine"}}, 400, "Status must be one of"),
        ("", CONSUL_NODE | {"Check": {"Name": "c", "ServiceID": "none"}}, 500, "Missing service registration"),
    ),
    written(
        "/v1/catalog/deregister",
        {"Node": "none"},
        ("", {"ServiceID": "web"}, 500, "Must provide node"),
        ("", {"Node": "none", "Datacenter": "elsewhere"}, 500, "No path to datacenter"),
    ),
    Line("GET", "/v1/catalog/datacenters"),
    registry("/v1/catalog/nodes", ""),
    registry("/v1/catalog/services", ""),
    registry("/v1/catalog/service/", "consul", "service name"),
    registry("/v1/catalog/connect/", "web", "service name"),
    registry("/v1/catalog/node/", "{node}", "node name"),
    registry("/v1/catalog/node-services/", "{node}", "node name"),
    registry("/v1/health/node/", "{node}", "node name"),
    registry("/v1/health/checks/", "web", "service name"),
    registry("/v1/health/state/", "any", "check state"),
    registry(
        "/v1/health/service/",
        "consul",
        "service name",
        bad=(("web?passing=x", None, 400, "Invalid value for ?passing"),),
    ),
    registry("/v1/health/connect/", "web", "service name"),
    written(
        "/v1/session/create",
        {"Name": "lock"},
        ("", {"Node": "none"}, 500, "Missing node registration"),
        ("", {"TTL": "1s"}, 500, "Invalid Session TTL '1000000000', must be between [10s=24h0m0s]"),
        ("", {"TTL": "x"}, 500, "Session TTL 'x' invalid: "),
        ("", {"TTL": "9" * 300 + "h"}, 500, "invalid: invalid duration"),
        ("", {"Behavior": "keep"}, 500, "Invalid Behavior setting 'keep'"),
        ("", {"LockDelay": "x"}, 400, "Request decode failed: invalid duration 'x'"),
        ("", {"NodeChecks": ["none"]}, 500, "Missing check 'none' registration"),
        size=64 * KB,
    ),
    session("destroy", "PUT", 200),  # before the next line, whose session is gone then
    session("renew", "PUT", 404, bad=((UNKNOWN_SESSION, None, 404, f"Session id '{UNKNOWN_SESSION}' not found"),)),
    session("info", "GET", 200, indexed=True),
    Line("GET", "/v1/session/list", indexed=True),
    Line("GET", "/v1/session/node/", "{node}", indexed=True, missing=(400, "Missing node name")),
    Line("GET", "/v1/agent/self"),
    Line("PUT", "/v1/agent/leave", destroys=True),
    Line("GET", "/v1/agent/services", filtered=True),
    Line(
        "GET",
        "/v1/agent/service/",
        "web",
        missing=(404, "unknown service ID: "),
        bad=(("none", None, 404, "unknown service ID: none"), ("web?hash=x&wait=x", None, 400, "Invalid wait time")),
    ),
    written(
        "/v1/agent/service/register",
        {"Name": "web", "Check": {"TTL": "1h", "Status": "passing"}},
        ("", {}, 400, "Missing service name"),
        ("", {"Name": "x", "Check": {"TTL": "soon"}}, 400, "TTL: invalid duration 'soon'"),
        (
            "",
            {"Name": "x", "Check": {}, "Checks": [{"Status": "fine"}]},
            400,
            "Status for checks must",
        ),
        (
            "",
            {"Name": "x", "Check": {"ScriptArgs": ["true"], "Interval": "9s"}},
            400,
            "Scripts are disabled on this agent",
        ),
        ("", {"Name": "x", "Address": "0.0.0.0"}, 400, "Invalid service address"),
    ),
    Line("PUT", "/v1/agent/service/deregister/", "gone", status=404, bad=(("none", None, 404, UNKNOWN_SERVICE),)),
    Line(
        "PUT",
        "/v1/agent/service/maintenance/",
        "web?enable=false",
        missing=(400, "Missing service ID"),
        bad=(
            ("web", None, 400, "Missing value for enable"),
            ("web?enable=x", None, 400, 'Invalid value for enable: "x"'),
            ("none?enable=true", None, 404, UNKNOWN_SERVICE),
        ),
    ),
    Line("GET", "/v1/agent/checks", filtered=True),
    written(
        "/v1/agent/check/register",
        {"Name": "c", "TTL": "1h"},
        ("", {}, 400, "Missing check name"),
        ("", {"Name": "x", "TTL": "1h", "ServiceID": "none"}, 404, 'ServiceID "none" does not exist'),
        ("", {"Name": "x"}, 400, "Invalid check: "),
        ("", {"Name": "x", "HTTP": "http://127.0.0.1/"}, 400, "Invalid check: "),
    ),
    Line("PUT", "/v1/agent/check/deregister/", "none", status=404),
    ttl("pass"),
    ttl("warn"),
    ttl("fail"),
    Line(
        "PUT",
        "/v1/agent/check/update/",
        "c",
        {"Status": "passing", "Output": "fine"},
        json_body=True,
        body_bytes_max=512 * KB,
        bad=(
            ("c", {"Status": "fine"}, 400, "Invalid check status: 'fine'"),
            ("none", {"Status": "passing"}, 404, 'Unknown check ID "none"'),
        ),
    ),
    Line("GET", "/v1/agent/health/service/name/", "web", missing=(400, "Missing service Name")),
    Line("GET", "/v1/agent/health/service/id/", "web", missing=(400, "Missing serviceID")),
    Line(
        "PUT",
        "/v1/agent/maintenance",
        "?enable=false",
        bad=(("", None, 400, "Missing value for enable"), ("?enable=x", None, 400, 'Invalid value for enable: "x"')),
    ),
    Line(
        "GET",
        "/v1/agent/members",
        filtered=True,
        bad=(
            ("?wan=x", None, 400, "Invalid value for ?wan"),
            ("?wan=1&segment=a", None, 400, "Cannot provide a segment with wan=true"),
        ),
    ),
    Line("GET", "/v1/agent/version"),
    Line("GET", "/v1/agent/host"),
    Line("GET", "/v1/agent/metrics"),
    # What succeeds has no end.
    Line(
        "GET",
        "/v1/agent/monitor",
        "?loglevel=loud",
        status=400,
        bad=(("?loglevel=x", None, 400, "log level: x"),),
    ),
    Line("PUT", "/v1/agent/reload"),
    Line(
        "PUT",
        "/v1/agent/join/",
        "127.0.0.1:1",
        status=500,
        missing=(400, "cannot join ''"),
        bad=(("127.0.0.1:x", None, 400, "cannot join"), ("127.0.0.1:1?wan=x", None, 400, "Invalid value for ?wan")),
    ),
    Line(
        "PUT",
        "/v1/agent/force-leave/",
        "{node}",
        missing=(500, "No node found with name ''"),
        bad=(("none", None, 500, "agent: No node found with name 'none'"),),
    ),
    Line(
        "PUT",
        "/v1/txn",
        "",
        [{"KV": {"Verb": "set", "Key": "t", "Value": "dg=="}}],
        json_body=True,
        body_bytes_max=KB * KB,
        bad=(
            ("", {}, 400, "Failed to parse body: it must be a list of operations, not an object"),
            ("", [{}], 400, "Failed to parse body: an operation has one of KV, Node, Service and Check"),
            ("", [{"KV": {"Verb": "grow", "Key": "t"}}], 409, 'unknown KV verb \\"grow\\"'),
            ("", [{"KV": {"Verb": "set", "Key": "t", "Value": "?"}}], 400, "failed to decode value"),
            (
                "",
                [{"KV": {"Verb": "set", "Key": "t", "Value": "é"}}],
                400,
                "failed to decode value",
            ),  # found by the fuzz
            (
                "",
                [{"KV": {"Verb": "get", "Key": "none"}}] * 129,
                413,
                "Transaction contains too many operations (129 > 128)",
            ),
            ("", [{"Node": {"Verb": "set", "Node": {}}}], 409, '"OpIndex":0,"What":"Must provide node"'),
            (
                "",
                [{"KV": {"Verb": "set", "Key": "t"}}, {"Service": {"Verb": "delete", "Service": {"ID": "db1"}}}],
                409,
                '{"Results":null,"Errors":[{"OpIndex":1,"What":"Must provide service name '
                '(Service.Service) when service ID is provided"}]}',
            ),
            ("?stale&consistent", [{"KV": {"Verb": "get", "Key": "t"}}], 400, "Cannot specify ?stale with ?consistent"),
        ),
    ),
    Line("GET", "/v1/snapshot", archive=True),
    Line(
        "PUT",
        "/v1/snapshot",
        "",
        b"no archive",
        status=500,
        bad=(("?stale", b"", 500, "stale not allowed for restore"),),
    ),
    Line("GET", "/v1/openapi.json"),
    Line("GET", "/v1/status/leader"),
    Line("GET", "/v1/status/peers"),
    Line("GET", "/v1/operator/raft/configuration"),
    Line("GET", "/v1/operator/autopilot/configuration"),
    written(
        "/v1/operator/autopilot/configuration",
        {"MaxTrailingLogs": 250, "ServerStabilizationTime": "2s", "RedundancyZoneTag": "", "ModifyIndex": 7},
        ("", {"CleanupDeadServers": True}, 400, "Autopilot's CleanupDeadServers is False in Comitia, and cannot be"),
        ("", {"MinQuorum": 3}, 400, "Autopilot's MinQuorum is 0 in Comitia, and cannot be changed"),
        ("", {"LastContactThreshold": 1}, 400, "Autopilot's LastContactThreshold is '200ms' in Comitia"),
        ("?cas=x", {}, 400, f"Invalid cas: {NOT_A_NUMBER}"),
        size=64 * KB,
    ),
    Line("GET", "/v1/operator/autopilot/health"),
    Line("GET", "/v1/operator/autopilot/state"),
    Line(
        "DELETE",
        "/v1/operator/raft/peer",
        "?id=none",
        status=500,
        bad=(
            ("", None, 400, "Must specify either ?id with the server's ID or ?address with IP:port of peer to remove"),
            ("?id=a&address=b", None, 400, "Must specify only one of ?id or ?address"),
        ),
    ),
    Line(
        "PUT",
        "/v1/operator/raft/peer",
        "?address=nowhere",
        status=500,
        bad=(
            ("", None, 400, "Must specify ?address with IP:port of the server to add"),
            ("?address=127.0.0.1:x", None, 400, "Invalid ?address: cannot join '127.0.0.1:x': give host:port"),
        ),
    ),
    Line("PUT", "/v1/operator/raft/promote", "?id=none", status=500, bad=(("", None, 400, "Must specify ?id with"),)),
    Line("PUT", "/v1/operator/raft/demote", "?id=none", status=500, bad=(("", None, 400, "Must specify ?id with"),)),
    Line("POST", "/v1/operator/raft/transfer-leader", "?id=none", status=500),
    Line("PUT", "/v1/operator/raft/transfer-leader", "?id=none", status=500),
    unused("/v1/health/ingress/", "service name", filtered=True),
    unused("/v1/catalog/gateway-services/", "gateway name"),
    unused("/v1/config/", "kind of configuration entries"),
    refused("PUT", "/v1/config", 400),
    refused("DELETE", "/v1/config/", 400),
    *(refused(method, f"/v1/{path}", 500) for method, path in (each.split() for each in CONNECT.split(","))),
    unused("/v1/peerings"),
    refused("GET", "/v1/peering/", 404),
    refused("DELETE", "/v1/peering/", 400),
    refused("POST", "/v1/peering/token", 400),
    refused("POST", "/v1/peering/establish", 400),
    unused("/v1/exported-services"),
    unused("/v1/event/list"),
    unused("/v1/query"),
    unused("/v1/coordinate/datacenters"),
    unused("/v1/coordinate/nodes"),
    refused("GET", "/v1/query/", 404),
    refused("GET", "/v1/coordinate/node/", 404),
    refused("PUT", "/v1/event/fire/", 400),
    refused("POST", "/v1/query", 400),
    refused("PUT", "/v1/query/", 400),
    refused("DELETE", "/v1/query/", 400),
    refused("PUT", "/v1/coordinate/update", 400),
    refused("PUT", "/v1/agent/token/", 401),
    *(refused(method, f"/v1/acl/{path}", 401) for method, path in (each.split() for each in ACL.split(","))),
)


def served() -> list[tuple[str, str]]:
    """Method and endpoint of every route."""
    return [(method, endpoint) for endpoint, methods in routes.served().items() for method in methods]
