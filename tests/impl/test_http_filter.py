"""Filters select as Consul's documentation says, and what cannot be parsed says where."""

from __future__ import annotations

import contextlib
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from impl.http import filter as filters
from impl.http.filter import BadFilter, parse

ROW: dict[str, Any] = {
    "Node": {"Node": "n1", "Meta": {"rack": "a", "my key": "x"}},
    "Service": {"Service": "web", "Tags": ["v1", "primary"], "Port": 80, "Meta": {}, "EnableTagOverride": False},
    "Checks": [],
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
    'Service.Service not matches "^d"',
    'Service.Service == "db" or Service.Port == 80 and Node.Node == n1',
    '(Service.Service == "db" or Service.Port == 80) and not (Node.Node == n2)',
    'Service.Service == "w\\eb"',
)
FALSE = (
    "Service.Port == 81",
    'Service.Service == "db" and Service.Port == 80 or Node.Node == n2',
    "not Service.Port == 80",
    '"v1" not in Service.Tags',
    "Checks is not empty",
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


@pytest.mark.parametrize("text", ["None.Such == 1", "Service.None == 1", "Service.Port.x == 1", "Service.Port == web"])
def test_a_field_that_rows_do_not_have_is_an_error(text: str) -> None:
    with pytest.raises(BadFilter):
        parse(text)(ROW)


def test_a_regular_expression_takes_a_time_linear_in_the_text() -> None:
    """Python's `re` would try 2^5000 ways to match this one, and hold up the agent for ever."""
    long = {"Name": "a" * 5000 + "b"}
    assert not parse('Name matches "(a+)+$"')(long) and parse('Name matches "^(a+)+b$"')(long)


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


def test_a_filter_that_forgets_not_contradicts_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "_negated", lambda found, negated: found)
    with pytest.raises(AssertionError):
        for text in TRUE:
            assert parse(text)(ROW)
