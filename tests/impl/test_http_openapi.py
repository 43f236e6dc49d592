"""The OpenAPI document describes every route, and what the agent answers is what it describes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from openapi_spec_validator import validate

from impl.http import body_shapes, openapi, routes
from impl.http.agent import version
from impl.http.operations import OPERATIONS
from impl.http.response import HeldKvRow, KvRow
from impl.http.shapes import KeyDocument
from tests.impl.http_agents import PreparedAgent
from tests.impl.http_routes import LINES, Line, served
from tests.impl.openapi_answers import Conformance

PROXY: dict[str, Any] = {
    "Kind": "connect-proxy",
    "Port": 1,
    "SocketPath": "/s",
    "Proxy": {
        "DestinationServiceName": "web",
        "DestinationServiceID": "web1",
        "LocalServiceAddress": "127.0.0.1",
        "LocalServicePort": 80,
        "LocalServiceSocketPath": "/l",
        "Mode": "direct",
        "Config": {"a": 1},
        "MeshGateway": {"Mode": "local"},
        "TransparentProxy": {"OutboundListenerPort": 1, "DialedDirectly": True},
        "Expose": {"Checks": True, "Paths": [{"ListenerPort": 1, "Path": "/", "LocalPathPort": 2, "Protocol": "http"}]},
        "Upstreams": [
            {
                "DestinationName": "db",
                "DestinationPeer": "p",
                "LocalBindAddress": "127.0.0.1",
                "LocalBindPort": 1,
                "Config": {"b": []},
            }
        ],
    },
}
"""Nothing is left out."""


@pytest.fixture(scope="module")
def agent() -> Iterator[PreparedAgent]:
    with PreparedAgent.running() as agent:
        agent.put("held", "v")
        agent.do("PUT", "/v1/kv/held?acquire={session}", b"1")
        body = {"Node": "n", "Address": "1", "Meta": {"a": "b"}, "TaggedAddresses": {"lan": "1"}}
        service = PROXY | {"Service": "full", "TaggedAddresses": {"lan": {"Address": "1", "Port": 2}}}
        agent.do("PUT", "/v1/catalog/register", body | {"Service": service, "Check": {"Name": "c"}})
        agent.do("PUT", "/v1/agent/service/register", service | {"Name": "full"})
        agent.do("PUT", "/v1/agent/service/register", {"Name": "native", "Port": 1, "Connect": {"Native": True}})
        yield agent


@pytest.fixture(scope="module")
def conformance(agent: PreparedAgent) -> Conformance:
    return Conformance(json.loads(agent.do("GET", "/v1/openapi.json")))


def described() -> None:
    assert sorted(OPERATIONS) == sorted(served())


def test_every_route_and_method_has_an_operation_and_the_other_way_round() -> None:
    described()


def test_a_route_that_is_not_described_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(routes.ENDPOINTS, "/v1/agent/new", {"GET": version})
    with pytest.raises(AssertionError):
        described()


def test_the_document_is_openapi() -> None:
    document = openapi.document(routes.served())
    validate(document)
    operations = [each for methods in document["paths"].values() for each in methods.values()]
    assert len({each["operationId"] for each in operations}) == len(operations) == len(OPERATIONS)
    assert all(each["summary"] for each in operations)


def test_answers_have_no_fields_but_those_that_are_described() -> None:
    schemas = openapi.document(routes.served())["components"]["schemas"]
    opened = {name for name, schema in schemas.items() if schema.get("additionalProperties") is not False}
    assert opened == body_shapes.NAMES


def test_a_key_is_described_as_the_fast_rows_write_it() -> None:
    fields = tuple(KeyDocument.__annotations__)
    assert HeldKvRow.__struct_fields__ == fields
    assert KvRow.__struct_fields__ == tuple(field for field in fields if field != "Session")


def requests(line: Line) -> Iterator[tuple[str, Any]]:
    """What to ask of a route: what is right and what is wrong, as far as a method and an endpoint are the line's."""
    yield line.rest, line.body
    for rest, body, _, _ in line.bad:
        yield rest, body
    for each in {
        "GET /v1/kv/": ("held", "?keys", "?recurse", "k?raw", "none"),
        "GET /v1/catalog/service/": ("full", "web", "none"),
        "GET /v1/catalog/node/": ("n", "none"),
        "GET /v1/catalog/node-services/": ("n", "none"),
        "GET /v1/health/service/": ("full", "none", "web?stale", "web?consistent"),
        "GET /v1/agent/service/": ("full",),
        "GET /v1/agent/health/service/name/": ("none", "web?format=text", "full"),
        "GET /v1/agent/health/service/id/": ("none", "none?format=text", "full"),
        "GET /v1/agent/members": ("?wan",),
    }.get(line.name, ()):
        yield each, None


TRANSACTIONS: tuple[list[dict[str, Any]], ...] = (
    [{"KV": {"Verb": "get", "Key": "k"}}, {"KV": {"Verb": "get", "Key": "held"}}],
    [{"Node": {"Verb": "get", "Node": {"Node": "n"}}}],
    [{"Service": {"Verb": "get", "Node": "n", "Service": {"ID": "full", "Service": "full"}}}],
    [{"Check": {"Verb": "get", "Check": {"Node": "n", "CheckID": "c"}}}],
    [{"KV": {"Verb": "get", "Key": "none"}}],
)


@pytest.mark.parametrize("line", [line for line in LINES if not line.destroys], ids=lambda line: line.name)
def test_what_is_answered_is_what_is_described(agent: PreparedAgent, conformance: Conformance, line: Line) -> None:
    for rest, body in (*requests(line), *((("", each) for each in TRANSACTIONS) if line.endpoint == "/v1/txn" else ())):
        status, answer = agent.of(line, rest, body)
        objection = conformance.objection(line.method, line.endpoint, status, agent.headers, answer)
        assert not objection, (rest, body, status, answer, objection)


def test_answers_that_differ_from_the_description_are_noticed(agent: PreparedAgent, conformance: Conformance) -> None:
    (line,) = (each for each in LINES if each.name == "GET /v1/health/service/")
    status, answer = agent.of(line)
    headers, document = agent.headers, json.loads(answer)

    def objection(status: int, headers: dict[str, str], document: Any) -> str:
        body = json.dumps(document).encode()
        return conformance.objection(line.method, line.endpoint, status, headers, body)

    assert not objection(status, headers, document)
    (row, *_) = document
    node = row["Node"]
    for wrong in (
        {**row, "Node": {name: value for name, value in node.items() if name != "Address"}},
        {**row, "Node": {**node, "Colour": "red"}},
        {**row, "Node": {**node, "ModifyIndex": "7"}},
        {**row, "Checks": None},
        {**row, "Checks": [{**check, "Status": "fine"} for check in row["Checks"]]},
    ):
        assert objection(status, headers, [wrong])
    assert objection(status, headers, None) and objection(409, headers, document)
    assert objection(status, headers | {"content-type": "text/html"}, document)
    assert objection(status, headers | {"x-consul-index": "0"}, document)
    assert objection(status, {name: value for name, value in headers.items() if name != "x-consul-index"}, document)
