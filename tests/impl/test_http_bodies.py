"""What clients send as JSON becomes the commands that Consul would make of it, or is refused with its text."""

from __future__ import annotations

import json
from itertools import combinations
from typing import Any, get_type_hints

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from impl.catalog.commands import Deregister, Register
from impl.catalog.registry_queries import Instance
from impl.catalog.rows import Check, Node, Service, ServiceAddress, Session
from impl.catalog.tables import KvEntry
from impl.catalog.tagged import KvRow
from impl.catalog.transactions import KvOperation, NodeOperation, OperationError, Outcome, ServiceOperation
from impl.http import bodies, documents
from impl.http import fields as field_reader
from impl.http.request import HttpError
from impl.http.response import json_response, kv_row
from impl.http.shapes import CheckDefinitionDocument

UUID = "40e4a748-2192-161a-0510-9bf59fe950b5"


def register(document: Any) -> Register:
    return bodies.registration(json.dumps(document).encode(), "dc1")


def refused(call: Any) -> tuple[int, str]:
    with pytest.raises(HttpError) as raised:
        call()
    return raised.value.status, raised.value.text


def test_names_have_no_case_and_what_is_unknown_is_ignored() -> None:
    command = register({"node": "n1", "ADDRESS": "10.0.0.1", "Nonsense": 1, "Service": None})
    assert command == Register(Node("n1", "10.0.0.1", datacenter="dc1"))


def test_an_instance_is_called_as_its_service_unless_it_has_an_id() -> None:
    document = {
        "Node": "n1",
        "Address": "1",
        "ID": UUID.upper(),
        "NodeMeta": {"b": "2", "a": "1"},
        "Service": {
            "Service": "web",
            "Tags": ["v1"],
            "Port": 80,
            "Weights": {"Passing": 10, "Warning": 1},
            "TaggedAddresses": {"lan": {"Address": "10.0.0.2", "Port": 81}},
        },
        "Check": {"Name": "alive", "Status": "passing"},
        "Checks": [{"CheckID": "c", "ServiceID": "web"}],
        "SkipNodeUpdate": True,
    }
    node = Node("n1", "1", UUID, "dc1", {}, {"a": "1", "b": "2"})
    web = Service("n1", "web", "web", "", ("v1",), "", 80, {"lan": ServiceAddress("10.0.0.2", 81)}, {}, weights=(10, 1))
    checks = (Check("n1", "c", service_id="web"), Check("n1", "alive", "alive", "passing"))
    assert register(document) == Register(node, web, checks, True)
    assert list(register(document).node.meta) == ["a", "b"]


@pytest.mark.parametrize(
    ("weights", "found"),
    [
        (None, (1, 1)),
        ({"Passing": 5, "Warning": 2}, (5, 2)),
        ({"Passing": 5}, (5, 0)),
        ({"Warning": 5}, (1, 1)),
        ({}, (1, 1)),
        ({"Passing": 1, "Warning": -1}, (1, 1)),
        ({"Passing": 65536, "Warning": 1}, (1, 1)),
    ],
)
def test_the_catalog_takes_one_for_weights_that_make_no_sense(weights: Any, found: tuple[int, int]) -> None:
    service = register({"Node": "n", "Address": "1", "Service": {"Service": "web", "Weights": weights}}).service
    assert service is not None and service.weights == found


REFUSED_REGISTRATIONS: tuple[tuple[Any, int, str], ...] = (
    ({}, 500, "Must provide node"),
    ({"Node": "n"}, 500, "Must provide address if SkipNodeUpdate is not set"),
    ({"Node": "n", "Address": "1", "ID": "x"}, 500, "Bad node ID"),
    ({"Node": "n", "Address": "1", "Service": {"ID": "x"}}, 500, "Must provide service name (Service.Service) when"),
    ({"Node": "n", "Address": "1", "Service": {"Service": "x", "Address": "0.0.0.0"}}, 500, "Invalid service address"),
    ({"Node": "n", "Address": "1", "Service": {"Service": "x", "Address": "[::]"}}, 500, "Invalid service address"),
    ({"Node": "n", "Address": "1", "Check": {"CheckID": "a\0b"}}, 400, "Invalid check ID: it must not contain NUL"),
    (
        {"Node": "n", "Address": "1", "Service": {"Service": "x", "Port": "80"}},
        400,
        "Service.Port must be a number, not a",
    ),
    ({"Node": "n", "Address": "1", "Service": {"Service": "x", "Port": True}}, 400, "must be a number, not a boolean"),
    ({"Node": "n", "Address": "1", "Service": {"Service": "x", "Tags": [1]}}, 400, "a list of strings, not a number"),
    ({"Node": "n", "Address": "1", "NodeMeta": {"a": None}}, 400, "an object of strings, not null"),
    ({"Node": "n", "Address": "1", "Checks": [{"Name": "c", "Status": "bad"}]}, 400, "Status must be one of passing"),
    ({"Node": "n", "Address": "1", "Service": {"Service": "x", "TaggedAddresses": []}}, 400, "must be an object"),
    ({"Node": "n", "Address": "1", "Service": {"Service": "x", "Port": 1e30}}, 400, "must be a 64-bit number"),
    ([], 400, "the body must be an object, not a list"),
)


@pytest.mark.parametrize(("document", "status", "text"), REFUSED_REGISTRATIONS)
def test_a_registration_is_refused_as_consul_refuses_it(document: Any, status: int, text: str) -> None:
    found = refused(lambda: register(document))
    assert found[0] == status and text in found[1]


def test_bad_json_is_refused_with_its_position() -> None:
    assert refused(lambda: bodies.registration(b'{"Node": }', "dc1")) == (
        400,
        "Request decode failed: JSON is malformed: invalid character (byte 9)",
    )
    assert refused(lambda: bodies.deregistration(b"\xff", "dc1"))[0] == 400


def test_a_deregistration_names_at_least_a_node() -> None:
    assert bodies.deregistration(b'{"Node": "n", "ServiceID": "s"}', "dc1") == Deregister("n", "s")
    assert refused(lambda: bodies.deregistration(b"{}", "dc1")) == (500, "Must provide node")


def session(document: Any) -> Session:
    return bodies.session(json.dumps(document).encode(), "me")


def test_a_session_depends_on_its_nodes_agent_unless_it_says_otherwise() -> None:
    assert bodies.session(b"", "me") == Session("", "me", node_checks=("serfHealth",))
    assert session({"NodeChecks": ["a"]}).checks == ("a",)
    assert session({"Checks": ["a"]}).checks == ("a", "serfHealth")
    assert session({"Checks": ["a", "b"], "NodeChecks": ["b", "c"]}).checks == ("a", "b", "c")
    assert session({"Checks": ["serfHealth"], "NodeChecks": ["a"]}).checks == ("a",)
    assert session({"ServiceChecks": [{"ID": "s", "Namespace": ""}]}).checks == ("serfHealth", "s")


@pytest.mark.parametrize(
    "document",
    [
        {"NodeChecks": []},
        {"Checks": []},
        {"Checks": None},
        {"Checks": [], "NodeChecks": ["a"]},
        {"Checks": ["a"], "NodeChecks": []},
        {"Checks": ["serfHealth"], "NodeChecks": []},
    ],
    ids=json.dumps,
)
def test_an_empty_list_of_checks_is_none_not_the_default(document: Any) -> None:
    assert session(document).checks == ()


@pytest.mark.parametrize(
    ("given", "nanoseconds"),
    [
        ("5s", 5_000_000_000),
        (5, 5_000_000_000),
        (999, 999_000_000_000),
        (1000, 1000),
        (0, 0),
        ("0s", 0),
        (2_000_000_000, 2_000_000_000),
        (-1, 0),
    ],
)
def test_a_small_lock_delay_means_seconds(given: Any, nanoseconds: int) -> None:
    assert session({"LockDelay": given}).lock_delay_ns == nanoseconds


@pytest.mark.parametrize(
    ("document", "status", "text"),
    [
        ({"TTL": "1s"}, 500, "Invalid Session TTL '1000000000', must be between [10s=24h0m0s]"),
        ({"TTL": "25h"}, 500, "must be between [10s=24h0m0s]"),
        ({"TTL": "soon"}, 500, "Session TTL 'soon' invalid"),
        ({"Behavior": "keep"}, 500, "Invalid Behavior setting 'keep'"),
        ({"LockDelay": []}, 400, "LockDelay must be a duration, not a list"),
        ({"LockDelay": "later"}, 400, "Request decode failed"),
        ({"LockDelay": "99999999999h"}, 400, "invalid duration '99999999999h': the longest is 292 years"),
        ({"LockDelay": 1e300}, 400, "LockDelay must be a duration of at most 292 years"),
    ],
)
def test_a_session_is_refused_as_consul_refuses_it(document: Any, status: int, text: str) -> None:
    found = refused(lambda: session(document))
    assert found[0] == status and text in found[1]


def operations(document: Any) -> Any:
    return bodies.operations(json.dumps(document).encode(), "dc1", 10)


def test_operations_of_every_kind() -> None:
    document = [
        {"KV": {"Verb": "set", "Key": "k", "Value": "dg==", "Flags": 1}},
        {"Node": {"Verb": "get", "Node": {"Node": "n"}}},
        {"Service": {"Verb": "delete-cas", "Node": "n", "Service": {"Service": "web", "ModifyIndex": 3}}},
    ]
    assert operations(document) == (
        KvOperation("set", "k", b"v", 1),
        NodeOperation("get", Node("n", "", datacenter="dc1")),
        ServiceOperation("delete-cas", Service("n", "web", "web", modify_index=3)),
    )


@pytest.mark.parametrize(
    ("document", "status", "text"),
    [
        ({}, 400, "it must be a list of operations, not an object"),
        ([{"Service": {"Verb": "get", "Service": {"Service": "a"}, "Node": "n\0"}}], 400, "Invalid node name"),
        ([{}], 400, "an operation has one of KV, Node, Service and Check"),
        ([{"KV": {"Verb": "set", "Key": "k", "Value": "?"}}], 400, "failed to decode value"),
        (
            [{"KV": {"Verb": "set", "Key": "k", "Value": "a" * 20}}],
            413,
            'Value for key "k" is too large (15 > 10 bytes)',
        ),
        ([{"KV": {"Verb": "set", "Key": "k", "Flags": -1}}], 400, "an unsigned 64-bit number"),
        ([{}] * 129, 413, "Transaction contains too many operations (129 > 128)"),
    ],
)
def test_a_transaction_is_refused_as_consul_refuses_it(document: Any, status: int, text: str) -> None:
    found = refused(lambda: operations(document))
    assert found[0] == status and text in found[1]


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"KV": {"Verb": "grab", "Key": "k"}}, 'unknown KV verb "grab"'),
        ({"Node": {"Verb": "lock", "Node": {"Node": "n"}}}, "unknown node operation: lock"),
        ({"Service": {"Verb": "", "Service": {"Service": "web"}}}, "unknown service operation: "),
        ({"Check": {"Verb": "pass", "Check": {"CheckID": "c"}}}, "unknown check operation: pass"),
        ({"KV": {"Verb": "set", "Key": ""}}, "Must provide key"),
        ({"KV": {"Verb": "get-tree"}}, "Must provide key"),
    ],
)
def test_an_operation_that_consuls_servers_refuse_is_named_by_its_position(document: Any, text: str) -> None:
    good = {"KV": {"Verb": "delete-tree", "Key": ""}}
    with pytest.raises(bodies.RefusedOperations) as raised:
        operations([good, document])
    assert raised.value.errors == [OperationError(1, text)]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=3) | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["Node", "Address", "Service", "Checks", "KV", "Verb", "Tags", "TaggedAddresses", "Weights"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(JSON)
def test_any_document_is_read_or_refused(document: Any) -> None:
    body = json.dumps(document).encode()
    for read in (
        lambda: bodies.registration(body, "dc1"),
        lambda: bodies.deregistration(body, "dc1"),
        lambda: bodies.session(body, "me"),
        lambda: bodies.operations(body, "dc1", 10),
    ):
        try:
            msgspec.msgpack.encode(read())
        except HttpError as error:
            assert error.status in (400, 413, 500) and error.text
        except bodies.RefusedOperations as refusal:
            assert refusal.errors


# ------------------------------------------------------------------------------------------------------------ documents


def test_rows_are_shown_with_gos_names_and_empty_values() -> None:
    node = Node("n1", "1", meta={"a": "b"}, create_index=3, modify_index=4)
    web = Service("n1", "w", "web", tags=("v1",), port=80)
    assert documents.node_document(node)["TaggedAddresses"] is None
    assert list(documents.node_document(node)) == [
        "ID", "Node", "Address", "Datacenter", "TaggedAddresses", "Meta", "CreateIndex", "ModifyIndex",
    ]  # fmt: skip
    health = documents.health_document(Instance(node, web))
    assert health["Checks"] == [] and health["Service"]["Weights"] == {"Passing": 1, "Warning": 1}
    assert "TaggedAddresses" not in health["Service"] and "Kind" not in health["Service"]
    flat = documents.instance_document(Instance(node, web))
    assert (flat["ServicePort"], flat["ServiceMeta"], flat["NodeMeta"]) == (80, {}, {"a": "b"})
    assert documents.node_services_document(None, []) is None


def shown_key(entry: KvEntry) -> dict[str, Any]:
    """A key as the result of a transaction, as JSON has it."""
    body = json_response(documents.outcome_document(Outcome([KvRow(entry)], [])), pretty=False).body
    document: dict[str, Any] = msgspec.json.decode(body)["Results"][0]["KV"]
    return document


def test_a_key_is_shown_with_its_holder_only_while_it_is_held() -> None:
    entry = KvEntry("k", 0, b"", 1, 2, 3, "s")
    held, free = shown_key(entry), shown_key(msgspec.structs.replace(entry, session=""))
    assert held["Session"] == "s" and held["Value"] is None
    assert "Session" not in free


def test_an_outcome_has_results_or_errors() -> None:
    assert documents.outcome_document(Outcome([KvRow(KvEntry("k", 0, b"v", 1, 1))], [])) == {
        "Results": [{"KV": msgspec.to_builtins(kv_row(KvEntry("k", 0, b"v", 1, 1)))}],
        "Errors": None,
    }
    shown = {"LockIndex": 0, "Key": "k", "Flags": 0, "Value": "dg==", "CreateIndex": 1, "ModifyIndex": 1}
    assert list(shown_key(KvEntry("k", 0, b"v", 1, 1)).items()) == list(shown.items())
    assert documents.outcome_document(Outcome([], [OperationError(2, "no")])) == {
        "Results": None,
        "Errors": [{"OpIndex": 2, "What": "no"}],
    }


MUTANTS = (
    (bodies, "SMALL_LOCK_DELAY", 0, lambda: test_a_small_lock_delay_means_seconds(5, 5_000_000_000)),
    (bodies, "TTL_SECONDS_MIN", 0, lambda: test_a_session_is_refused_as_consul_refuses_it({"TTL": "1s"}, 500, "")),
    (
        field_reader,
        "refused_type",
        lambda *_: HttpError(400, "Request decode failed"),
        lambda: a_wrong_type_is_called_by_its_name(),
    ),
    (documents, "_tagged", lambda service: None, lambda: documents_show_tagged_addresses()),
)


def a_wrong_type_is_called_by_its_name() -> None:
    assert refused(lambda: register({"Node": 1})) == (400, "Request decode failed: Node must be a string, not a number")


def test_a_wrong_type_is_called_by_its_name() -> None:
    a_wrong_type_is_called_by_its_name()


def documents_show_tagged_addresses() -> None:
    web = Service("n1", "w", "web", tagged_addresses={"lan": ServiceAddress("1", 2)})
    assert documents.service_document(web)["TaggedAddresses"] == {"lan": {"Address": "1", "Port": 2}}


def test_tagged_addresses_are_shown() -> None:
    documents_show_tagged_addresses()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant[1])
def test_a_mutant_contradicts_its_sentence(monkeypatch: pytest.MonkeyPatch, mutant: Any) -> None:
    module, name, broken, sentence = mutant
    monkeypatch.setattr(module, name, broken)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        sentence()


def probed(definition: Any, **fields: Any) -> Check:
    document = {"Node": "n", "Address": "1", "Check": {"Name": "c", "Definition": definition, **fields}}
    return register(document).checks[0]


def test_the_definition_of_a_check_is_kept_as_it_is_shown() -> None:
    definition = {
        "tcp": "localhost:8888",
        "Interval": "90s",
        "Timeout": 1_500_000_000,
        "DeregisterCriticalServiceAfter": "",
        "TLSSkipVerify": False,
        "Header": {"x-b": ["2"], "X-A": []},
        "Nonsense": 1,
    }
    check = probed(definition)
    assert (
        check.definition
        == '{"Header":{"X-A":[],"x-b":["2"]},"Interval":"1m30s","TCP":"localhost:8888","Timeout":"1.5s"}'
    )
    assert (check.type, check.interval, check.timeout) == ("tcp", "", "")
    assert documents.check_document(check)["Definition"] == json.loads(check.definition)
    again = probed(json.loads(check.definition))
    assert again == check, "what was read can be written back"
    for nothing in ({}, None, {"Interval": 0, "Method": ""}):
        assert (probed(nothing).definition, documents.check_document(probed(nothing))["Definition"]) == ("", {})


ANY_VALUE: dict[Any, Any] = {
    str: "250ms",
    bool: True,
    int: 7,
    list[str]: ["a", "b"],
    dict[str, list[str]]: {"a": ["1"]},
}
"""Of each type; the text suits durations, too."""


@pytest.mark.parametrize(("name", "kind"), get_type_hints(CheckDefinitionDocument).items())
def test_no_field_of_a_definition_is_lost(name: str, kind: Any) -> None:
    definition = {name: ANY_VALUE[kind]}
    assert documents.check_document(probed(definition))["Definition"] == definition


def test_a_node_of_a_transaction_has_its_metadata_and_may_be_looked_for_by_its_id() -> None:
    (stored,) = operations([{"Node": {"Verb": "set", "Node": {"Node": "n", "Meta": {"a": "b"}}}}])
    assert stored.node.meta == {"a": "b"}
    (sought,) = operations([{"Node": {"Verb": "get", "Node": {"ID": UUID}}}])
    assert (sought.node.node, sought.node.id) == ("", UUID)


def test_a_transaction_may_have_128_operations() -> None:
    assert len(operations([{"KV": {"Verb": "get", "Key": "k"}}] * 128)) == 128


def test_of_two_things_that_a_check_may_be_it_is_what_consul_looks_for_first() -> None:
    asked: list[tuple[str, Any, str]] = [
        ("GRPC", "h:1", "grpc"),
        ("HTTP", "http://h/", "http"),
        ("TTL", "10s", "ttl"),
        ("TCP", "h:1", "tcp"),
        ("UDP", "h:1", "udp"),
        ("AliasNode", "n", "alias"),
        ("DockerContainerID", "d", "docker"),
        ("ScriptArgs", ["true"], "script"),
        ("H2PING", "h:1", "h2ping"),
        ("OSService", "o", "os_service"),
    ]
    for (name, value, kind), (later, its, _) in combinations(asked, 2):
        assert probed({later: its, name: value, "Interval": "10s"}).type == kind, (name, later)


@pytest.mark.parametrize(
    ("definition", "kind"),
    [
        ({"HTTP": "http://h/", "Interval": "10s"}, "http"),
        ({"HTTP": "http://h/"}, ""),
        ({"TTL": "10s"}, "ttl"),
        ({"TTL": "10s", "HTTP": "http://h/", "Interval": "10s"}, "http"),
        ({"TTL": "10s", "TCP": "h:1", "Interval": "10s"}, "ttl"),
        ({"AliasService": "web"}, "alias"),
        ({"ScriptArgs": ["true"], "DockerContainerID": "d", "Interval": 1}, "docker"),
        ({}, ""),
    ],
)
def test_a_check_without_a_type_has_that_of_its_definition(definition: Any, kind: str) -> None:
    assert probed(definition).type == kind
    assert probed(definition, Type="own").type == "own"


@pytest.mark.parametrize(
    "bad", [{"HTTP": 1}, {"Interval": "10 bananas"}, {"Header": {"a": "b"}}, {"ScriptArgs": [1]}, 1]
)
def test_a_definition_of_the_wrong_types_is_refused(bad: Any) -> None:
    status, text = refused(lambda: probed(bad))
    assert status == 400 and text.startswith("Request decode failed: ")
