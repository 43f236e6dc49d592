"""What the implementation writes in traces of the catalog is what conformance reads: payloads, results, answers and
digests of the whole command set, each made by one side and judged by the other."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from msgspec.structs import replace

from impl.catalog import registry_queries as asked
from impl.catalog.commands import KvDelete, KvSet, Noop, decode_command, describe_write, encode_command
from impl.catalog.queries import (
    KvGet,
    KvKeys,
    KvList,
    Query,
    ReadTransaction,
    answer_query,
    describe_query,
    recorded_answer,
)
from impl.catalog.rows import Node as NodeRow
from impl.catalog.snapshot import state_digest as implemented_digest
from impl.catalog.store import Store
from impl.catalog.transactions import KvOperation, NodeOperation
from model_checks.catalog import payloads
from model_checks.catalog.generated import LOGS, restore_of, state_after
from model_checks.catalog.records import described_command, recorded_result
from model_checks.conformance.answers import answer_of
from model_checks.conformance.payloads import state_digest
from spec.catalog import kv, restore, sessions, transitions
from spec.catalog.commands import Command, CreateSession, Register
from spec.catalog.restore import rows_of
from spec.catalog.state import Behavior, Node, Session, State, initial_state

RACK = {"rack": "a"}
QUERIES: tuple[Query, ...] = (
    KvGet("a"),
    KvList(""),
    KvList("a/"),
    KvKeys("", "/"),
    asked.ListNodes(),
    asked.ListNodes(RACK),
    asked.ListServices(),
    asked.ListServices(RACK),
    asked.ServiceInstances("web", ("v1",), RACK),
    asked.ServiceInstances("web", connect=True),
    asked.NodeServices("N1"),
    asked.NodeChecks("n1"),
    asked.ServiceChecks("web", RACK),
    asked.ChecksInState("any"),
    asked.ServiceHealth("web", (), True),
    asked.GetSession("s"),
    asked.ListSessions("n1"),
    ReadTransaction((KvOperation("get-tree", "a"), NodeOperation("get", NodeRow("n1", "")))),
)


def as_in_a_trace(value: Any) -> Any:
    """What a line of a trace makes of a value."""
    return msgspec.json.decode(msgspec.json.encode(value))


def compare(log: list[bytes]) -> None:
    """Apply the payloads to both, and ask both after every entry."""
    store, state = Store(), initial_state()
    for index, payload in enumerate([encode_command(Noop()), *log], 1):
        command = decode_command(payload)
        told = store.apply(command, index)
        state, result = transitions.apply(state, payloads.decoded(payload), index)
        assert as_in_a_trace(told) == recorded_result(result), f"{command} at index {index}"
        if not isinstance(command, Noop):
            assert describe_write(command) == described_command(payloads.decoded(payload))
        assert implemented_digest(store) == state_digest(state), f"after index {index}"
        for query in QUERIES:
            answered = as_in_a_trace(recorded_answer(answer_query(store, query)))
            assert answered == answer_of(state, as_in_a_trace(describe_query(query))), f"{query} after index {index}"


@settings(max_examples=150, deadline=None, derandomize=True)
@given(LOGS)
def test_the_store_answers_as_the_specification(log: list[Command]) -> None:
    compare(list(map(payloads.encoded, log)))


def no_tombstone(state: State, key: str, index: int) -> State:
    if key not in state.rows:
        return state
    return replace(state, rows=state.rows.without(key), rows_index=index, tombstones_index=index)


def test_a_missing_tombstone_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    log = [KvSet("a/b", b"", 0), KvSet("a/", b"", 0), KvDelete("a/"), KvSet("b", b"", 0)]
    monkeypatch.setattr(kv, "delete_row", no_tombstone)
    with pytest.raises(AssertionError, match="after index 4"):
        compare([encode_command(command) for command in log])


def test_a_refusal_that_is_not_told_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "create", lambda state, session, index: state)
    payload = ["session-create", ["s", "nowhere", "", 0, "release", "", [], [], 0, 0]]
    with pytest.raises(AssertionError, match="at index 2"):
        compare([msgspec.msgpack.encode(payload)])


def test_a_restore_that_forgets_sessions_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    node, session = Node("n1", "1"), Session("s", "n1", behavior=Behavior.DELETE)
    log = restore_of(rows_of(state_after([Register(node), CreateSession(session)])))
    compare(list(map(payloads.encoded, log)))

    def forgets(state: State, id: str, chunks: int, index: int) -> State:
        return replace(COMMIT(state, id, chunks, index), sessions=state.sessions)

    monkeypatch.setattr(restore, "commit", forgets)
    with pytest.raises(AssertionError, match="after index"):
        compare(list(map(payloads.encoded, log)))


COMMIT = restore.commit


def test_values_are_recorded_in_base64() -> None:
    store = Store()
    store.apply(KvSet("a", b"\x00\xff", 3), 2)
    value = base64.b64encode(b"\x00\xff").decode()
    assert as_in_a_trace(recorded_answer(store.get("a"))) == [2, [["a", 3, value, 2, 2, 0, ""]]]
