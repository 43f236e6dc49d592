"""What every endpoint answers to bad input: Consul's status, Consul's text where it is known, and nothing is changed.

Each test asks every route of `http_routes.LINES`, over a real connection to a real agent.
"""

from __future__ import annotations

import dataclasses
import http.client
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from impl.http import routes
from impl.http.agent import version
from tests.impl.agent_processes import ROOT
from tests.impl.http_agents import PreparedAgent
from tests.impl.http_routes import LINES, UNKNOWN_SESSION, Line, served

TRIES = 5
METHODS = ("GET", "PUT", "POST", "DELETE", "PATCH", "HEAD")
READ_HEADERS = {
    "x-consul-index",
    "x-consul-knownleader",
    "x-consul-lastcontact",
    "x-consul-effective-consistency",
    "x-consul-query-backend",
}


@pytest.fixture(scope="module")
def agent() -> Iterator[PreparedAgent]:
    with PreparedAgent.running() as agent:
        yield agent


def lines(chosen: Callable[[Line], object] = lambda line: True) -> pytest.MarkDecorator:
    """One test for each route that is chosen."""
    found = [line for line in LINES if chosen(line) and not line.destroys]
    assert found
    return pytest.mark.parametrize("line", found, ids=[line.name for line in found])


def with_parameter(rest: str, parameter: str) -> str:
    return f"{rest}{'&' if '?' in rest else '?'}{parameter}"


def refused(answer: tuple[int, bytes], status: int, text: str) -> None:
    assert (answer[0], text in answer[1].decode()) == (status, True), answer


def writing_nothing(agent: PreparedAgent, ask: Callable[[], None]) -> None:
    """Ask for what must leave the log alone; again, if an entry of the agent's own came between."""
    for _ in range(TRIES):
        before = agent.index()
        ask()
        if agent.index() == before:
            return
    raise AssertionError(f"the log grew each of {TRIES} times")


# ------------------------------------------------------------------------------------------- the table is complete


def complete() -> None:
    assert sorted(served()) == sorted((line.method, line.endpoint) for line in LINES)


def test_every_route_has_its_line() -> None:
    complete()


def test_a_route_without_a_line_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(routes.ENDPOINTS, "/v1/agent/new", {"GET": version})
    with pytest.raises(AssertionError):
        complete()


# -------------------------------------------------------------------------------------------------------- good requests


@lines()
def test_a_good_request_is_answered_with_consuls_headers(agent: PreparedAgent, line: Line) -> None:
    status = agent.of(line, body=line.body)[0]
    assert status == line.status
    assert agent.headers["x-consul-default-acl-policy"] == "allow"
    assert READ_HEADERS.issubset(agent.headers) == (line.indexed or line.archive)


@lines(lambda line: line.method == "GET" and line.status == 200 and not line.archive)
def test_pretty_answers_say_the_same(agent: PreparedAgent, line: Line) -> None:
    plain, pretty = agent.of(line), agent.of(line, with_parameter(line.rest, "pretty"))
    if line.name in ("GET /v1/agent/host", "GET /v1/agent/metrics"):
        assert json.loads(plain[1]).keys() == json.loads(pretty[1]).keys()
    else:
        assert json.loads(plain[1]) == json.loads(pretty[1])
    assert pretty[1].endswith(b"\n") and not plain[1].endswith(b"\n")


@lines(lambda line: line.indexed)
def test_reads_that_find_nothing_have_the_headers_too(agent: PreparedAgent, line: Line) -> None:
    rest = {"": "", "any": "passing"}.get(line.rest, UNKNOWN_SESSION if "{session}" in line.rest else "none")
    status, answer = agent.of(line, rest)
    assert READ_HEADERS.issubset(agent.headers) and int(agent.headers["x-consul-index"]) >= 1
    if line.endpoint == "/v1/kv/":
        assert (status, answer) == (404, b"")
    elif line.endpoint == "/v1/catalog/node/":
        assert (status, answer) == (200, b"null")
    elif line.endpoint == "/v1/catalog/node-services/":
        assert (status, json.loads(answer)) == (200, {"Node": None, "Services": []})
    elif rest == "none" or "session" in line.rest:
        assert (status, answer) == (200, b"[]")
    else:
        assert status == 200


# --------------------------------------------------------------------------------------------------------- bad requests


@lines()
def test_other_methods_are_405_and_told_which_are_served(agent: PreparedAgent, line: Line) -> None:
    served_here = [each.method for each in LINES if each.endpoint == line.endpoint]
    for method in set(METHODS) - set(served_here):
        status, answer = agent.ask(method, line.endpoint + line.rest)
        assert (status, answer) == (405, b"" if method == "HEAD" else f"method {method} not allowed".encode())
        assert set(agent.headers["allow"].split(",")) == {"OPTIONS", *served_here}
    assert agent.ask("OPTIONS", line.endpoint + line.rest)[0] == 200
    assert set(agent.headers["allow"].split(",")) == {"OPTIONS", *served_here}


@lines()
def test_another_datacenter_cannot_be_reached_and_namespaces_are_none(agent: PreparedAgent, line: Line) -> None:
    def ask() -> tuple[int, bytes]:
        return agent.of(line, with_parameter(line.rest, "dc=elsewhere"), line.body)

    if line.endpoint.startswith("/v1/agent/") or line.endpoint == "/v1/catalog/datacenters":
        assert ask()[0] == line.status
    else:
        writing_nothing(agent, lambda: refused(ask(), 500, "No path to datacenter"))
    refused(
        agent.of(line, with_parameter(line.rest, "ns=mine"), line.body),
        400,
        'Invalid query parameter: "ns" - Namespaces are a Consul Enterprise feature',
    )


@lines()
def test_headers_that_ask_for_a_namespace_are_400(agent: PreparedAgent, line: Line) -> None:
    for header, feature in (("X-Consul-Namespace", "Namespaces"), ("x-consul-partition", "Partitions")):
        answer = agent.of(line, body=line.body, headers={header: "mine"})
        refused(answer, 400, f" - {feature} are a Consul Enterprise feature")
    assert agent.of(line, body=line.body, headers={"X-Consul-Namespace": ""})[0] == line.status


@lines()
def test_what_is_no_url_is_400(agent: PreparedAgent, line: Line) -> None:
    refused(agent.of(line, with_parameter(line.rest, "x=%f"), line.body), 400, 'invalid URL escape "%f"')
    refused(agent.of(line, with_parameter(line.rest, "x=%ff"), line.body), 400, "Invalid query string: not UTF-8")
    if line.endpoint.endswith("/"):
        for rest in ("a%2", "a%0a", "%ff", "a%e2%80%ae"):
            refused(agent.of(line, rest, line.body), 400, "Invalid URL path: ")


@lines(lambda line: line.endpoint.endswith("/") and line.endpoint[:-1] not in routes.ENDPOINTS)
def test_a_forgotten_slash_is_redirected(agent: PreparedAgent, line: Line) -> None:
    assert agent.ask(line.method, line.endpoint[:-1] + "?a=b")[0] == 301
    assert agent.headers["location"] == line.endpoint + "?a=b"


@lines(lambda line: not line.endpoint.endswith("/") and f"{line.endpoint}/" not in routes.ENDPOINTS)
def test_a_slash_too_many_is_404(agent: PreparedAgent, line: Line) -> None:
    status, answer = agent.ask(line.method, line.endpoint + "/")
    if routes.found(line.endpoint + "/") is None:
        refused((status, answer), 404, "Invalid URL path: not a recognized HTTP API endpoint")
    else:
        # `/v1/agent/service/register/` is a service of that name, to be read, and `/v1/acl/token/self/` a token.
        assert status == (line.status if line.endpoint.startswith(("/v1/acl/", "/v1/connect/")) else 405)


@lines(lambda line: line.missing is not None)
def test_a_missing_name_is_asked_for(agent: PreparedAgent, line: Line) -> None:
    assert line.missing is not None
    refused(agent.of(line, "", line.body), *line.missing)


@lines(lambda line: line.indexed)
def test_bad_blocking_and_consistency_are_400(agent: PreparedAgent, line: Line) -> None:
    for parameter, text in (
        ("index=x", "Invalid index"),
        ("index=-1", "Invalid index"),
        ("index=18446744073709551616", "Invalid index"),
        ("index=1&wait=x", "Invalid wait time"),
        ("index=1&wait=10", "Invalid wait time"),
        (f"index=1&wait={'9' * 400}h", "Invalid wait time"),
        ("stale&consistent", "Cannot specify ?stale with ?consistent, conflicting semantics."),
    ):
        refused(agent.of(line, with_parameter(line.rest, parameter)), 400, text)


@lines(lambda line: line.indexed)
def test_of_a_repeated_parameter_the_first_counts(agent: PreparedAgent, line: Line) -> None:
    assert agent.of(line, with_parameter(line.rest, "index=0&index=x"))[0] == 200
    refused(agent.of(line, with_parameter(line.rest, "index=x&index=0")), 400, "Invalid index")


@lines(lambda line: line.filtered)
def test_a_bad_filter_is_400_with_the_position(agent: PreparedAgent, line: Line) -> None:
    for expression, where in (("a%20b", "3: "), ("(", "2: "), ("a%20matches%20%22(%22", "11: "), ("%22", "1: ")):
        wrong = agent.of(line, with_parameter(line.rest, f"filter={expression}"))
        refused(wrong, 400, f"Failed to create boolean expression evaluator: {where}")


@lines(lambda line: line.json_body)
def test_a_body_that_is_not_what_was_asked_for_is_400(agent: PreparedAgent, line: Line) -> None:
    wrong = (
        (b"{", "truncated"),
        (b'{"a": b}', "(byte 6)"),
        (b"\xff", "(byte 0)"),
        (b"[" * 50_000, "nested too deep"),
        (b'"text"', "must be"),
        (b"3", "must be"),
        (b"null", "must be"),
    )

    def ask() -> None:
        for body, text in wrong:
            refused(agent.of(line, body=body), 400, text)

    writing_nothing(agent, ask)


@lines(lambda line: line.body_bytes_max)
def test_a_body_over_the_limit_is_413(agent: PreparedAgent, line: Line) -> None:
    size, limit = line.body_bytes_max + 1, line.body_bytes_max
    path = (line.endpoint + line.rest).format(node="dev", session=UNKNOWN_SESSION)

    def ask() -> None:
        text = f"Request body({size} bytes) too large, max size: {limit} bytes."
        refused(agent.of(line, body=b" " * size), 413, text)
        connection = http.client.HTTPConnection("127.0.0.1", agent.http_port, timeout=15)
        connection.request(line.method, path, iter([b" " * size]))
        assert connection.getresponse().status == 413, "of a body that does not say its size"
        connection.close()

    writing_nothing(agent, ask)


@lines(lambda line: line.bad)
def test_what_else_is_wrong_is_told(agent: PreparedAgent, line: Line) -> None:
    def ask() -> None:
        for rest, body, status, text in line.bad:
            refused(agent.of(line, rest, body), status, text)

    # What the state machine refuses stands in the log; what came no further does not.
    if "agent" in line.endpoint or any(status == 500 for _, _, status, _ in line.bad):
        ask()
    else:
        writing_nothing(agent, ask)


def test_keys_are_kept_as_they_are_escaped(agent: PreparedAgent) -> None:
    for escaped, key in (
        ("a%2Fb", "a/b"),
        ("a%20b", "a b"),
        ("a+b", "a+b"),
        ("%C3%A9", "é"),
        ("a//b", "a//b"),
        ("..", ".."),
    ):
        agent.put(escaped, "v")
        (row,) = json.loads(agent.request("GET", f"/v1/kv/{escaped}")[1])
        assert row["Key"] == key


def test_what_is_no_endpoint_is_404_whatever_is_asked_of_it(agent: PreparedAgent) -> None:
    refused(agent.ask("GET", "/v1/nothing?dc=elsewhere"), 404, "not a recognized HTTP API endpoint")
    refused(agent.ask("GET", "/kv/k"), 404, "ensure the path starts with '/v1/'")
    assert agent.ask("GET", "/v1/agent/service/deregister")[0] == 301, "it is no service of that name"


# -------------------------------------------------------------------------------------------------------------- mutants

MUTANTS = (
    ("headers-forgotten-where-nothing-is-found", test_reads_that_find_nothing_have_the_headers_too, "GET /v1/kv/"),
    ("datacenter-ignored", test_another_datacenter_cannot_be_reached_and_namespaces_are_none, "PUT /v1/kv/"),
    ("body-limit-ignored", test_a_body_over_the_limit_is_413, "PUT /v1/session/create"),
    ("escapes-taken-as-they-are", test_what_is_no_url_is_400, "DELETE /v1/kv/"),
    ("key-error-let-through", test_a_good_request_is_answered_with_consuls_headers, "PUT /v1/session/create"),
)


@pytest.mark.parametrize(("mutant", "noticed_by", "name"), MUTANTS)
def test_an_agent_with_a_mistake_is_noticed(mutant: str, noticed_by: Any, name: str) -> None:
    (line,) = (line for line in LINES if line.name == name)
    if mutant == "key-error-let-through":
        line = dataclasses.replace(line, body={})
    command = (sys.executable, str(ROOT / "tests/mutants"), mutant)
    with PreparedAgent.running(*command) as mutated, pytest.raises(AssertionError):
        noticed_by(mutated, line)
