"""The implementation's store answers as spec/catalog does, after any log, for any query: two programs, written apart.

Payloads go through the implementation's codec and come back through the checker's: the format is all that they share.
"""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from impl.catalog.commands import (
    Command,
    KvCas,
    KvDelete,
    KvDeleteCas,
    KvDeleteTree,
    KvSet,
    Noop,
    decode_command,
    describe_write,
    encode_command,
)
from impl.catalog.queries import KvGet, KvKeys, KvList, Query, answer_query, describe_query
from impl.catalog.snapshot import state_digest as implemented_digest
from impl.catalog.store import KvAnswer, Store
from model_checks.conformance.payloads import (
    decoded_command,
    decoded_request,
    described_command,
    recorded_rows,
    state_digest,
)
from spec.catalog import kv, transitions
from spec.catalog.queries import query
from spec.catalog.state import State, initial_state

KEYS = st.sampled_from(["a", "a/", "a/b", "a/b/c", "a/é", "ab", "b", "b//c", "日本"])
PREFIXES = st.sampled_from(["", "a", "a/", "a/b", "b/", "é", "z"])
VALUES = st.sampled_from([b"", b"1", b"\x00\xff"])
FLAGS = st.sampled_from([0, 1, 2**64 - 1])
INDEXES = st.integers(0, 14)
COMMANDS: st.SearchStrategy[Command] = st.one_of(
    st.just(Noop()),
    st.builds(KvSet, KEYS, VALUES, FLAGS),
    st.builds(KvCas, KEYS, VALUES, FLAGS, INDEXES),
    st.builds(KvDelete, KEYS),
    st.builds(KvDeleteCas, KEYS, INDEXES),
    st.builds(KvDeleteTree, PREFIXES),
)
QUERIES: st.SearchStrategy[Query] = st.one_of(
    st.builds(KvGet, KEYS),
    st.builds(KvList, PREFIXES),
    st.builds(KvKeys, PREFIXES, st.sampled_from(["", "/", "b", "//"])),
)


def recorded(store: Store, asked: Query) -> list[Any]:
    """The implementation's answer as its traces have it: [index, rows]."""
    answer = answer_query(store, asked)
    rows = answer.entries if isinstance(answer, KvAnswer) else answer.keys
    built: list[Any] = msgspec.to_builtins([answer.index, list(rows)])
    return built


def compare(log: list[Command], queries: list[Query]) -> None:
    """Apply the log to both, and ask both after every entry."""
    store, state = Store(), initial_state()
    for index, command in enumerate([Noop(), *log], 1):
        payload = encode_command(command)
        told = store.apply(decode_command(payload), index)
        state, result = transitions.apply(state, decoded_command(payload), index)
        assert told == result, f"{command} at index {index}"
        if not isinstance(command, Noop):
            assert tuple(describe_write(command)) == described_command(decoded_command(payload))
        assert implemented_digest(store) == state_digest(state), f"after index {index}"
        for asked in queries:
            expected = query(state, decoded_request(tuple(describe_query(asked))))
            assert recorded(store, asked) == [expected[0], recorded_rows(expected[1])], f"{asked} after index {index}"


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(COMMANDS, max_size=14), st.lists(QUERIES, min_size=1, max_size=3))
def test_the_store_answers_as_the_specification(log: list[Command], queries: list[Query]) -> None:
    compare(log, queries)


def no_tombstone(state: State, key: str, index: int) -> State:
    if key not in state.rows:
        return state
    return replace(state, rows=state.rows.without(key), rows_index=index, tombstones_index=index)


def test_a_missing_tombstone_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv, "delete_row", no_tombstone)
    with pytest.raises(AssertionError, match="after index 4"):
        compare([KvSet("a/b", b"", 0), KvSet("a/", b"", 0), KvDelete("a/"), KvSet("b", b"", 0)], [KvList("a/")])


def test_values_are_recorded_in_base64() -> None:
    store = Store()
    store.apply(KvSet("a", b"\x00\xff", 3), 2)
    assert recorded(store, KvGet("a")) == [2, [["a", 3, base64.b64encode(b"\x00\xff").decode(), 2, 2, 0, ""]]]
