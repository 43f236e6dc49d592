"""Interned logs behave as tuples of entries do, at a logarithmic price."""

from __future__ import annotations

import gc
import pickle
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spec.raft import log as log_module
from spec.raft.log import EMPTY, Log, log_of
from spec.raft.types import Entry

ENTRIES = st.lists(st.builds(Entry, term=st.integers(1, 3), value=st.sampled_from("xy")), max_size=40)


def hops_to(log: Log, length: int) -> int:
    """How many ancestors `truncate` visits on its way."""
    hops, node = 0, log
    while node.length > length:
        node, hops = (node._jump if node._jump.length >= length else node._parent), hops + 1
    return hops


def longest_common(left: Sequence[Entry], right: Sequence[Entry]) -> int:
    """The oracle: compare entry by entry."""
    same = 0
    for a, b in zip(left, right, strict=False):
        if a != b:
            break
        same += 1
    return same


def assert_is_a_sequence(entries: list[Entry]) -> None:
    """A log answers every question as the tuple of its entries would."""
    log = log_of(entries)
    assert log.length == len(log) == len(entries)
    assert log.last_term == (entries[-1].term if entries else 0)
    assert [log.entry(index) for index in range(1, len(entries) + 1)] == entries
    for prev in range(len(entries) + 1):
        assert log.truncate(prev) is log_of(entries[:prev])
        assert log.term_at(prev) == (entries[prev - 1].term if prev else 0)
        assert log.slice(prev, len(entries)) == tuple(entries[prev:])
        assert log.slice(0, prev) == tuple(entries[:prev])


@given(ENTRIES)
def test_a_log_answers_as_the_tuple_of_its_entries(entries: list[Entry]) -> None:
    assert_is_a_sequence(entries)


@given(ENTRIES, ENTRIES, st.integers(0, 40))
def test_common_prefixes_and_agreement_are_those_of_tuples(left: list[Entry], right: list[Entry], shared: int) -> None:
    right = left[:shared] + right
    a, b = log_of(left), log_of(right)
    common = longest_common(left, right)
    assert a.common_prefix(b) is b.common_prefix(a) is log_of(left[:common])
    for n in range(max(len(left), len(right)) + 2):
        assert a.agrees(b, n) == (n <= common)
    assert a.is_prefix_of(b) == (common == len(left))


@given(ENTRIES, ENTRIES)
def test_equal_logs_are_one_object(left: list[Entry], right: list[Entry]) -> None:
    assert (log_of(left) is log_of(right)) == (left == right)
    assert (log_of(left) == log_of(right)) == (left == right)


def test_pickling_carries_the_entries_and_interns_on_arrival() -> None:
    log = log_of([Entry(1, "x"), Entry(2, "y")])
    assert pickle.loads(pickle.dumps(log)) is log


@pytest.mark.parametrize("index", [-1, 3])
def test_an_index_outside_the_log_is_an_error(index: int) -> None:
    log = log_of([Entry(1, "x"), Entry(2, "y")])
    for question in (log.truncate, log.term_at, log.entry):
        with pytest.raises(IndexError):
            question(index)
    with pytest.raises(IndexError):
        log.slice(min(index, 2), max(index, 0))


def test_the_genesis_is_not_an_entry() -> None:
    assert EMPTY.term_at(0) == 0
    with pytest.raises(IndexError, match="genesis"):
        EMPTY.entry(0)


def deepest_search(length: int) -> int:
    log = log_of(Entry(1 + index // 7, "x") for index in range(length))
    return max(hops_to(log, target) for target in range(0, length, max(1, length // 500)))


def test_any_prefix_of_a_hundred_thousand_entries_is_some_thirty_hops_away() -> None:
    assert deepest_search(100_000) <= 34  # 2 log2(n)


def test_mutant_without_jumps_is_seen_to_be_linear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "_jump_over", lambda parent: parent)
    # Entries of their own, lest the interned logs of another test answer.
    log = log_of(Entry(1, f"mutant {index}") for index in range(2_000))
    assert hops_to(log, 0) == 2_000


def test_mutant_whose_jumps_depend_on_more_than_the_length_is_seen_to_lose_common_prefixes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log_module, "_jump_over", lambda parent: EMPTY if parent.last_term == 3 else parent)
    shared = [Entry(1, f"uneven {index}") for index in range(20)]
    left, right = log_of([*shared, *[Entry(2, "l")] * 2]), log_of([*shared, *[Entry(3, "r")] * 2])
    assert left.common_prefix(right).length != 20


def test_a_log_that_nobody_holds_is_forgotten_whatever_its_length() -> None:
    gc.collect()
    before = len(log_module._interned)
    log = log_of(Entry(9, "forgotten") for _ in range(50_000))
    assert len(log_module._interned) == before + 50_000
    del log
    assert len(log_module._interned) == before
