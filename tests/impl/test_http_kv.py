"""`/v1/kv` and its neighbours as a client sees them, over an agent that is a state store in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from impl.agent.requests.api import (
    AgentError,
    Consistency,
    IndefiniteError,
    NoClusterLeader,
    NoKnownServers,
    ReadOptions,
    ReadReply,
)
from impl.catalog.commands import KvDelete, Write
from impl.catalog.queries import Query, answer_query
from impl.catalog.rows import Session
from impl.catalog.store import Store
from impl.catalog.transitions import Result
from impl.http import kv, request, response
from impl.http.app import Application
from tests.impl.asgi import ask

LIMIT = 512 * 1024


class Memory:
    """An agent whose cluster is one state store; `failure` is raised instead of answering."""

    def __init__(self) -> None:
        self.store = Store()
        self.index = 0
        self.failure: Exception | None = None
        self.asked: list[ReadOptions] = []

    async def write(self, command: Write) -> Result:
        if self.failure is not None:
            raise self.failure
        self.index += 1
        return self.store.apply(command, self.index)

    async def read(self, query: Query, options: ReadOptions) -> ReadReply:
        if self.failure is not None:
            raise self.failure
        self.asked.append(options)
        answer = answer_query(self.store, query)
        stale = options.consistency is Consistency.STALE
        return ReadReply(answer, True, 42 if stale else 0)

    async def renew_session(self, session_id: str) -> Session | None:
        return self.store.tables.sessions.get(session_id)

    def new_id(self) -> str:
        return "00000000-0000-4000-8000-000000000001"

    async def status_leader(self) -> str:
        return "127.0.0.1:8300"

    async def status_peers(self) -> list[str]:
        return ["127.0.0.1:8300"]

    def describe(self) -> dict[str, Any]:
        return {"Config": {"NodeName": "<s1>"}}


class Answer(msgspec.Struct):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Calls the application as an ASGI server does."""

    def __init__(self) -> None:
        self.agent = Memory()
        self.unexpected: list[tuple[str, Exception]] = []
        agent: Any = self.agent
        self.app = Application(agent, "dc1", LIMIT, lambda what, error: self.unexpected.append((what, error)))

    def __call__(self, method: str, target: str, body: bytes = b"", *, chunks: list[bytes] | None = None) -> Answer:
        found = ask(self.app, method, target, [body] if chunks is None else chunks, sized=chunks is None)
        self.received = found.received
        assert found.headers["Content-Length"] == str(len(found.body))
        return Answer(found.status, found.headers, found.body)


@pytest.fixture
def client() -> Client:
    return Client()


def a_missing_key_is_404_with_an_empty_body_and_an_index(client: Client) -> None:
    answer = client("GET", "/v1/kv/nothing")
    assert (answer.status, answer.body) == (404, b"")
    assert answer.headers["X-Consul-Index"] == "1"


def a_put_answers_true_and_a_failed_cas_false(client: Client) -> None:
    assert client("PUT", "/v1/kv/a", b"1").body == b"true"
    assert client("PUT", "/v1/kv/a?cas=0", b"2").body == b"false"
    assert client("PUT", "/v1/kv/a?cas=1", b"2").body == b"true"


def a_row_has_gos_field_order_and_base64(client: Client) -> None:
    client("PUT", "/v1/kv/a?flags=18446744073709551615", b"\x00\xff")
    expected = (
        b'[{"LockIndex":0,"Key":"a","Flags":18446744073709551615,"Value":"AP8=","CreateIndex":1,"ModifyIndex":1}]'
    )
    answer = client("GET", "/v1/kv/a")
    assert answer.body == expected
    assert answer.headers["Content-Type"] == "application/json"


def an_empty_value_is_null(client: Client) -> None:
    client("PUT", "/v1/kv/a", b"")
    assert client("GET", "/v1/kv/a").json[0]["Value"] is None


def json_is_escaped_as_go_does(client: Client) -> None:
    client("PUT", "/v1/kv/%3Ca%26b%3E", b"1")
    answer = client("GET", "/v1/kv/?recurse")
    assert b'"Key":"\\u003ca\\u0026b\\u003e"' in answer.body
    assert answer.json[0]["Key"] == "<a&b>"


def pretty_indents_by_four(client: Client) -> None:
    client("PUT", "/v1/kv/a", b"1")
    assert client("GET", "/v1/kv/a?pretty").body.startswith(b'[\n    {\n        "LockIndex": 0,')
    assert client("GET", "/v1/kv/a?pretty").body.endswith(b"]\n")


def raw_is_the_value_and_must_not_be_sniffed(client: Client) -> None:
    client("PUT", "/v1/kv/a", b"<b>")
    answer = client("GET", "/v1/kv/a?raw")
    assert answer.body == b"<b>"
    assert answer.headers["Content-Type"] == "text/plain"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Consul-Index"] == "1"


def a_root_key_list_is_empty_and_not_404(client: Client) -> None:
    answer = client("GET", "/v1/kv/?keys")
    assert (answer.status, answer.body) == (200, b"[]")
    assert client("GET", "/v1/kv/x?keys").status == 404


def keys_and_recurse_and_delete_tree(client: Client) -> None:
    for key in ("a/b/c", "a/d", "e"):
        client("PUT", f"/v1/kv/{key}", b"1")
    assert client("GET", "/v1/kv/a/?keys&separator=/").json == ["a/b/", "a/d"]
    assert client("GET", "/v1/kv/a/?keys&seperator=%2F").json == ["a/b/", "a/d"]
    assert [row["Key"] for row in client("GET", "/v1/kv/a/?recurse").json] == ["a/b/c", "a/d"]
    assert client("DELETE", "/v1/kv/a/?recurse").body == b"true"
    assert client("GET", "/v1/kv/?keys").json == ["e"]
    assert client("DELETE", "/v1/kv/e?cas=1").body == b"false"
    assert client("DELETE", "/v1/kv/e?cas=3").body == b"true"


def reads_say_how_consistent_they_are(client: Client) -> None:
    for query, effective, contact in (
        ("", "leader", "0"),
        ("?consistent", "consistent", "0"),
        ("?stale", "stale", "42"),
    ):
        answer = client("GET", f"/v1/kv/a{query}")
        assert answer.headers["X-Consul-Effective-Consistency"] == effective
        assert answer.headers["X-Consul-Lastcontact"] == contact
        assert answer.headers["X-Consul-Knownleader"] == "true"


def stale_and_consistent_conflict(client: Client) -> None:
    answer = client("GET", "/v1/kv/a?stale&consistent")
    assert answer.status == 400
    assert answer.body == b"Cannot specify ?stale with ?consistent, conflicting semantics."


def bad_numbers_are_400(client: Client) -> None:
    for target in ("a?cas=x", "a?cas=-1", "a?flags=18446744073709551616", "a?cas=", "a?flags=1_0", "a?cas=%C2%B2"):
        assert client("PUT", f"/v1/kv/{target}", b"1").status == 400, target
    assert client("DELETE", "/v1/kv/a?cas=x").status == 400
    assert client("GET", "/v1/kv/a?index=x").body == b"Invalid index"
    assert client("GET", "/v1/kv/a?index=1&wait=x").body == b"Invalid wait time"
    assert client.agent.index == 0, "nothing was written"


def a_key_is_needed(client: Client) -> None:
    for method in ("GET", "PUT", "DELETE"):
        answer = client(method, "/v1/kv/")
        assert (answer.status, answer.body) == (400, b"Missing key name"), method


def conflicting_flags_are_400(client: Client) -> None:
    for method, query in (("PUT", "cas=1&acquire=s"), ("PUT", "acquire=a&release=b"), ("DELETE", "recurse&cas=1")):
        answer = client(method, f"/v1/kv/a?{query}", b"1" if method == "PUT" else b"")
        assert answer.status == 400
        assert answer.body.startswith(b"Conflicting flags: ")
    assert client("PUT", "/v1/kv/a?acquire=nobody", b"1").body == b'invalid session "nobody"'


def other_methods_are_405_with_the_allowed_ones(client: Client) -> None:
    answer = client("POST", "/v1/kv/a", b"1")
    assert (answer.status, answer.body) == (405, b"method POST not allowed")
    assert answer.headers["Allow"] == "OPTIONS,GET,PUT,DELETE"
    assert client("PUT", "/v1/status/leader").status == 405
    options = client("OPTIONS", "/v1/kv/a")
    assert (options.status, options.headers["Allow"]) == (200, "OPTIONS,GET,PUT,DELETE")


def a_value_over_the_limit_is_413(client: Client) -> None:
    assert client("PUT", "/v1/kv/a", b"x" * LIMIT).status == 200
    assert client("PUT", "/v1/kv/b", b"x" * (LIMIT + 1)).status == 413
    assert client.received == 1, "read, so that the client is ready for the answer"
    assert client("PUT", "/v1/kv/b", b"x" * (request.DISCARDED_BYTES_MAX + 1)).status == 413
    assert client.received == 0, "it would be too much"
    many = [b"x" * (request.DISCARDED_BYTES_MAX + 1), b"x", b"x", b"x"]
    assert client("PUT", "/v1/kv/b", chunks=many).status == 413
    assert client.received == 1, "not read to its end"
    assert client("GET", "/v1/kv/b").status == 404


def keys_are_decoded_once_and_must_be_text(client: Client) -> None:
    client("PUT", "/v1/kv/a%2Fb%20%25+c", b"1")
    assert client("GET", "/v1/kv/?keys").json == ["a/b %+c"]
    assert client("PUT", "/v1/kv/%FF", b"1").status == 400


SENTENCES: list[Callable[[Client], None]] = [
    a_missing_key_is_404_with_an_empty_body_and_an_index,
    a_put_answers_true_and_a_failed_cas_false,
    a_row_has_gos_field_order_and_base64,
    an_empty_value_is_null,
    json_is_escaped_as_go_does,
    pretty_indents_by_four,
    raw_is_the_value_and_must_not_be_sniffed,
    a_root_key_list_is_empty_and_not_404,
    keys_and_recurse_and_delete_tree,
    reads_say_how_consistent_they_are,
    stale_and_consistent_conflict,
    bad_numbers_are_400,
    a_key_is_needed,
    conflicting_flags_are_400,
    other_methods_are_405_with_the_allowed_ones,
    a_value_over_the_limit_is_413,
    keys_are_decoded_once_and_must_be_text,
]


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda sentence: str(sentence.__name__))
def test_the_api_is_as_consul_says(client: Client, sentence: Callable[[Client], None]) -> None:
    sentence(client)
    assert not client.unexpected


async def read_everything(scope: request.Scope, receive: request.Receive, limit: int) -> bytes:
    body = b""
    while (event := await receive())["type"] == "http.request":
        body += event["body"]
        if not event["more_body"]:
            break
    if len(body) > limit:
        raise request.HttpError(413, "too large")
    return body


MUTANTS: list[tuple[object, str, object, Callable[[Client], None]]] = [
    (kv, "read_body", read_everything, a_value_over_the_limit_is_413),
    (kv, "_refuse_conflicts", lambda parameters, *names: None, conflicting_flags_are_400),
    (kv, "parse_unsigned", lambda name, text: int(text or 0) % 2**64 if text.isdigit() else 0, bad_numbers_are_400),
    (kv, "read_headers", lambda index, reply, mode: (), a_missing_key_is_404_with_an_empty_body_and_an_index),
    (kv, "kv_row", lambda entry: {"Key": entry.key, "Value": entry.value}, a_row_has_gos_field_order_and_base64),
    (kv, "_NOT_WRITTEN", kv.WRITTEN, a_put_answers_true_and_a_failed_cas_false),
    (kv, "_RAW", (), raw_is_the_value_and_must_not_be_sniffed),
    (response, "_EFFECTIVE", dict.fromkeys(Consistency, (b"X", b"y")), reads_say_how_consistent_they_are),
]


@pytest.mark.parametrize(("module", "name", "mutant", "sentence"), MUTANTS)
def test_a_broken_api_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
    client: Client,
    module: object,
    name: str,
    mutant: object,
    sentence: Callable[[Client], None],
) -> None:
    assert hasattr(module, name)
    monkeypatch.setattr(module, name, mutant)
    with pytest.raises((AssertionError, KeyError)):
        sentence(client)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (NoClusterLeader(), "No cluster leader"),
        (NoKnownServers(), "No known Consul servers"),
        (IndefiniteError("rpc error: leadership lost while committing log"), "rpc error: leadership lost"),
        (AgentError("Not ready to serve consistent reads"), "Not ready to serve consistent reads"),
    ],
)
def test_a_failed_request_is_500_with_consuls_text(client: Client, error: Exception, text: str) -> None:
    client.agent.failure = error
    for answer in (client("PUT", "/v1/kv/a", b"1"), client("GET", "/v1/kv/a?consistent"), client("DELETE", "/v1/kv/a")):
        assert answer.status == 500
        assert answer.body.decode().startswith(text)


def test_an_error_that_nobody_expected_is_500_and_reported(client: Client) -> None:
    client.agent.failure = ZeroDivisionError("a bug")
    assert client("GET", "/v1/kv/a").status == 500
    assert client.unexpected[0][0] == "GET /v1/kv/a"


def test_a_blocking_query_passes_index_and_wait_within_consuls_bounds(client: Client) -> None:
    client("GET", "/v1/kv/a?index=7&wait=90s&stale")
    client("GET", "/v1/kv/a?index=7")
    client("GET", "/v1/kv/a?index=7&wait=1h")
    assert client.agent.asked == [
        ReadOptions(Consistency.STALE, 7, 90.0),
        ReadOptions(Consistency.DEFAULT, 7, 300.0),
        ReadOptions(Consistency.DEFAULT, 7, 600.0),
    ]


def test_a_client_that_goes_away_while_sending_writes_nothing(client: Client) -> None:
    with pytest.raises(IndexError):  # no answer was sent at all
        client("PUT", "/v1/kv/a", chunks=[])
    assert client.agent.index == 0


WORDS = st.sampled_from(
    [b"", b"a", b"/", b"%", b"%zz", b"%00", b"%FF", b"+", b"=", b"&", b"cas", b"flags=1", b"keys", b"recurse", b"raw",
     b"stale", b"consistent", b"index=3", b"wait=1s", b"separator=/", b"dc=x", b"18446744073709551616", b"\xc3\xa9"]
)  # fmt: skip


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    st.sampled_from(["GET", "PUT", "DELETE", "POST", "HEAD", "OPTIONS", "PATCH"]),
    st.lists(WORDS, max_size=4),
    st.lists(WORDS, max_size=6),
)
def test_no_request_meets_an_error_that_nobody_expected(method: str, path: list[bytes], query: list[bytes]) -> None:
    client = Client()
    raw = {"raw_path": b"/v1/kv/" + b"".join(path), "path": "", "query_string": b"&".join(query)}
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"1", "more_body": False}

    async def send(event: dict[str, Any]) -> None:
        statuses.extend([event["status"]] if "status" in event else [])

    asyncio.run(client.app({"type": "http", "method": method, "headers": [], **raw}, receive, send))
    assert statuses[0] in (200, 400, 404, 405, 500)
    assert not client.unexpected


def test_another_datacenter_cannot_be_reached(client: Client) -> None:
    assert client("PUT", "/v1/kv/a?dc=dc1", b"1").status == 200
    answer = client("GET", "/v1/kv/a?dc=dc2")
    assert (answer.status, answer.body) == (500, b"No path to datacenter")


def test_unknown_paths_are_404_and_say_what_is_wrong(client: Client) -> None:
    assert client("GET", "/v1/nothing").body == b"Invalid URL path: not a recognized HTTP API endpoint\n"
    assert b"ensure the path starts with '/v1/'" in client("GET", "/kv/a").body
    assert client("GET", "/").status == 200


def test_status_and_self_are_json(client: Client) -> None:
    assert client("GET", "/v1/status/leader").body == b'"127.0.0.1:8300"'
    assert client("GET", "/v1/status/peers").json == ["127.0.0.1:8300"]
    assert client("GET", "/v1/agent/self").body == b'{"Config":{"NodeName":"\\u003cs1\\u003e"}}'


def test_a_deletion_without_body_needs_none(client: Client) -> None:
    client("PUT", "/v1/kv/a", b"1")
    assert client("DELETE", "/v1/kv/a").body == b"true"
    assert client.agent.store.apply(KvDelete("a"), 9)
