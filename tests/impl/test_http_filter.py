"""Filters select as Consul's documentation says, and what cannot be parsed says where."""

from __future__ import annotations

import contextlib
import re
from typing import Any, NotRequired, TypedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from impl.http import filter as filters
from impl.http import selectors
from impl.http.filter import BadFilter, Field, Filter, Kind
from impl.http.operations import OPERATIONS


class NodeShape(TypedDict):
    Node: str
    Meta: dict[str, str] | None


class AddressShape(TypedDict):
    Address: str


class ServiceShape(TypedDict):
    Kind: NotRequired[str]
    Service: str
    Tags: list[str]
    Port: int
    Meta: dict[str, str] | None
    TaggedAddresses: NotRequired[dict[str, AddressShape]]
    EnableTagOverride: bool


class CheckShape(TypedDict):
    Status: str


class RowShape(TypedDict):
    Node: NodeShape
    Service: ServiceShape
    Checks: list[CheckShape]
    Failing: list[CheckShape]
    Weight: float


def parse(text: str) -> Filter:
    return filters.parse(text, selectors.of_shape(RowShape))


ROW: dict[str, Any] = {
    "Node": {"Node": "n1", "Meta": {"rack": "a", "my key": "x"}},
    "Service": {"Service": "web", "Tags": ["v1", "primary"], "Port": 80, "Meta": {}, "EnableTagOverride": False},
    "Checks": [],
    "Failing": [{"Status": "passing"}, {"Status": "critical"}],
    "Weight": 1.5,
}

TRUE = (
    'Service.Service == "web"',
    "Service.Service == web",
    "Service.Service == `web`",
    'Service.Service != "db"',
    "Service.Port == 80",
    "Weight == 1.5",
    "Service.EnableTagOverride == false",
    "not Service.EnableTagOverride == true",
    '"primary" in Service.Tags',
    "primary in Service.Tags",
    '"canary" not in Service.Tags',
    "v1 not in Service.Service",
    "rack in Node.Meta",
    'Service.Tags contains "v1"',
    'Service.Tags not contains "v9"',
    'Node.Meta.rack == "a"',
    'Node.Meta["my key"] == x',
    'Node.Meta.none != "a"',
    "Node.Meta.none is empty",
    "Checks is empty",
    "Node.Meta is not empty",
    'Service.Service matches "^w.b$"',
    'Service.Service matches "e"',
    'Service.Service not matches "^d"',
    'Service.Service == "db" or Service.Port == 80 and Node.Node == n1',
    '(Service.Service == "db" or Service.Port == 80) and not (Node.Node == n2)',
    'Service.Service == "w\\eb"',
    "Failing.Status == critical",
    "Failing.Status != critical",
    'Service.Kind == ""',
    "Service.Kind != connect-proxy",
    "Service.TaggedAddresses is empty",
    "Service.TaggedAddresses.lan.Address is empty",
    "Service.TaggedAddresses.lan.Address != x",
)
FALSE = (
    "Service.Port == 81",
    'Service.Service matches "^e"',
    'Service.Service == "db" and Service.Port == 80 or Node.Node == n2',
    "not Service.Port == 80",
    '"v1" not in Service.Tags',
    "Checks is not empty",
    "Checks.Status != critical",
    "Failing.Status == warning",
    "Service.Kind is not empty",
    "Service.TaggedAddresses.lan.Address == x",
)


@pytest.mark.parametrize("text", TRUE)
def test_a_row_is_selected(text: str) -> None:
    assert parse(text)(ROW)


@pytest.mark.parametrize("text", FALSE)
def test_a_row_is_not_selected(text: str) -> None:
    assert not parse(text)(ROW)


BAD = {
    "": "1: expected a name, found the end",
    "Service.Service": 'expected "=="',
    "Service.Service ==": "19: expected a value, found the end",
    'Service.Service == "a" Service': '24: expected "and"',
    "(Node.Node == n1": '17: expected ")", found the end',
    "Node.Node = n1": '11: "=" begins nothing',
    "Service.Service matches `(`": "is not a regular expression",
    "not " * 100 + "Node.Node == n1": "nests deeper than 64",
    "Node.Meta[rack] == a": "expected a quoted string",
    'Node.Node == "' + "x" * 20_000 + '"': "the limit is 16384",
}


@pytest.mark.parametrize("text", BAD, ids=lambda text: text[:20])
def test_what_cannot_be_parsed_says_where(text: str) -> None:
    with pytest.raises(BadFilter, match=re.escape(BAD[text])):
        parse(text)


ABSENT = {"Meta.x == a": False, "Meta.x != a": True, "a in Meta.x": False, "a not in Meta.x": True}
ABSENT |= {"Meta.x is not empty": False, "Meta.x is empty": True, "Meta.x matches a": False, "x in Meta": False}


@pytest.mark.parametrize("text", ABSENT)
@pytest.mark.parametrize("meta", [None, {}, {"y": "a"}], ids=["null", "empty", "another"])
def test_a_key_that_a_map_does_not_have_is_nothing(text: str, meta: dict[str, str] | None) -> None:
    expression = text.replace("Meta", "Service.Meta")
    assert parse(expression)({**ROW, "Service": {**ROW["Service"], "Meta": meta}}) == ABSENT[text]


UNASKABLE = {
    "None.Such == 1": 'Selector "None.Such" is not valid',
    "Service.None == 1": 'Selector "Service.None" is not valid',
    "a in Nothing": 'Selector "Nothing" is not valid',
    "Service.Port.x == 1": 'Selector "Service.Port.x" is not valid',
    "Node.Meta.a.b == 1": 'Selector "Node.Meta.a.b" is not valid',
    "Service.Port == web": '"web" is not a number',
    "Service.EnableTagOverride == yes": '"yes" is not a boolean',
    "Service.Port matches 8": '"matches" cannot be asked of selector "Service.Port"',
    "Service == web": '"==" cannot be asked of selector "Service"',
    "Node.Node == n1 or Foo == 1": 'Selector "Foo" is not valid',
}


@pytest.mark.parametrize("text", UNASKABLE)
def test_what_no_row_can_have_is_an_error_before_there_are_rows(text: str) -> None:
    with pytest.raises(BadFilter, match=re.escape(UNASKABLE[text])):
        parse(text)


@pytest.mark.parametrize(
    ("endpoint", "text"),
    [
        ("/v1/health/service/web", "Service.Connect.Native == false and Service.Proxy.Upstreams is empty"),
        ("/v1/health/service/web", 'Service.Proxy.DestinationServiceName == "" and Node.PeerName == ""'),
        ("/v1/catalog/service/web", "ServiceProxy.Expose.Checks == false and NodeMeta.x is empty"),
        ("/v1/catalog/services", "ServiceConnect.Native != true"),
        ("/v1/catalog/node/n1", "Proxy.MeshGateway.Mode != local"),
        (
            "/v1/agent/services",
            'Kind == "" and Connect.Native == false and SocketPath == "" and x in Tags',
        ),
    ],
)
def test_what_consul_has_of_the_mesh_can_be_asked_though_it_is_not_shown(endpoint: str, text: str) -> None:
    row: dict[str, Any] = {"Service": {"Connect": {}, "Proxy": {"Mode": ""}}, "Node": {}, "Tags": ["x"]}
    assert filters.parse(text, fields_at(endpoint))(row)


@pytest.mark.parametrize("text", ["CreateIndex == 1", "ModifyIndex != 1", "Definition.Interval == x"])
def test_indexes_and_definitions_cannot_be_asked(text: str) -> None:
    with pytest.raises(BadFilter):
        filters.parse(text, fields_at("/v1/health/state/any"))


def fields_at(path: str) -> Field:
    found = selectors.of_path(path)
    assert found is not None
    return found


@pytest.mark.parametrize("word", ["1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False"])
def test_a_boolean_is_written_as_go_reads_it(word: str) -> None:
    assert parse(f"Service.EnableTagOverride == {word}")(ROW) == (word[0] in "0fF")


OF_ROWS = {
    "/v1/catalog/nodes": ("Node", "ServiceName"),
    "/v1/catalog/services": ("ServiceName", "Service"),
    "/v1/catalog/service/web": ("ServiceName", "Service"),
    "/v1/catalog/node/n": ("Service", "ServiceName"),
    "/v1/catalog/node-services/n": ("Service", "ServiceName"),
    "/v1/health/node/n": ("CheckID", "Checks.CheckID"),
    "/v1/health/checks/web": ("CheckID", "Checks.CheckID"),
    "/v1/health/state/any": ("CheckID", "Checks.CheckID"),
    "/v1/health/service/web": ("Checks.CheckID", "CheckID"),
    "/v1/catalog/connect/web": ("ServiceName", "Service"),
    "/v1/health/connect/web": ("Checks.CheckID", "CheckID"),
    "/v1/health/ingress/web": ("Checks.CheckID", "CheckID"),
    "/v1/agent/services": ("Service", "ServiceName"),
    "/v1/agent/checks": ("CheckID", "Checks.CheckID"),
    "/v1/agent/members": ("Name", "Node"),
}
"""A field of the rows of each endpoint, and one that others have."""


def test_at_each_endpoint_its_own_rows_are_judged() -> None:
    assert {path for path in selectors.ROWS if not any(each.startswith(path) for each in OF_ROWS)} == set()
    for path, (own, foreign) in OF_ROWS.items():
        filters.parse(f"{own} == x", fields_at(path))
        with pytest.raises(BadFilter, match="is not valid"):
            filters.parse(f"{foreign} == x", fields_at(path))


def test_every_endpoint_that_has_a_filter_says_what_it_filters() -> None:
    filtered = {endpoint for (_, endpoint), operation in OPERATIONS.items() if "filter" in operation.parameters}
    assert set(selectors.ROWS) == filtered
    assert selectors.of_path("/v1/catalog/datacenters") is None


def test_a_regular_expression_takes_a_time_linear_in_the_text() -> None:
    """Python's `re` would try 2^5000 ways to match this one, and hold up the agent for ever."""
    long = {"Service": {"Service": "a" * 5000 + "b"}}
    assert not parse('Service.Service matches "(a+)+$"')(long)
    assert parse('Service.Service matches "^(a+)+b$"')(long)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text('Service.Tags "\\`()[]=!notandoris in matches1-', max_size=40))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with contextlib.suppress(BadFilter):
        parse(text)(ROW)


def test_a_filter_whose_and_is_an_or_contradicts_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "all", any, raising=False)
    with pytest.raises(AssertionError):
        for text in FALSE:
            assert not parse(text)(ROW)


def test_a_filter_that_is_judged_by_its_rows_alone_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters._Parser, "_field", lambda self, path, operator: Field(Kind.TEXT))
    with pytest.raises(pytest.fail.Exception):
        test_what_no_row_can_have_is_an_error_before_there_are_rows("a in Nothing")


def test_a_filter_that_forgets_not_contradicts_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "_negated", lambda found, negated: found)
    with pytest.raises(AssertionError):
        for text in TRUE:
            assert parse(text)(ROW)
