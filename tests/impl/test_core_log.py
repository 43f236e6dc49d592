"""The log in memory against a plain list, and its digests against the definition (ARCHITECTURE.md, section 5)."""

from __future__ import annotations

from hashlib import blake2b

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from impl.raft.configuration import CONFIGURATION, encode_configuration, first_configuration
from impl.raft.log import RaftLog
from impl.raft.messages import Entry

TERMS_AND_SIZES = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 40)), max_size=30)


def entries_of(steps: list[tuple[int, int]]) -> list[Entry]:
    """Entries 1, 2, ... whose terms rise by the given steps and whose payloads have the given sizes."""
    entries, term = [], 1
    for index, (rise, size) in enumerate(steps, 1):
        term += rise
        entries.append(Entry(index, term, b"x" * size))
    return entries


@given(TERMS_AND_SIZES, TERMS_AND_SIZES, st.integers(0, 30))
@settings(derandomize=True, database=None, deadline=None)
def test_appending_and_cutting_give_what_a_list_gives(
    first: list[tuple[int, int]], second: list[tuple[int, int]], cut: int
) -> None:
    entries = entries_of(first)
    cut = min(cut, len(entries))
    rise = sum(step for step, _ in first)
    more = [Entry(cut + entry.index, entry.term + rise, entry.payload) for entry in entries_of(second)]
    log = RaftLog(entries, digests=True)
    log.cut(cut)
    log.extend(more)
    expected = entries[:cut] + more
    fresh = RaftLog(expected, digests=True)
    assert log.slice(0, len(expected)) == expected
    assert (log.last_index, log.last_term) == (len(expected), expected[-1].term if expected else 0)
    assert [log.term_at(index) for index in range(1, len(expected) + 1)] == [entry.term for entry in expected]
    assert [log.digest_at(index) for index in range(len(expected) + 1)] == [
        fresh.digest_at(index) for index in range(len(expected) + 1)
    ]
    assert log.bytes_between(0, len(expected)) == sum(len(entry.payload) for entry in expected)


@given(TERMS_AND_SIZES, st.integers(0, 30), st.integers(1, 8), st.integers(1, 120))
@settings(derandomize=True, database=None, deadline=None)
def test_a_batch_keeps_both_limits_unless_its_first_entry_alone_is_larger(
    steps: list[tuple[int, int]], previous: int, entries_max: int, bytes_max: int
) -> None:
    entries = entries_of(steps)
    log = RaftLog(entries, digests=False)
    previous = min(previous, len(entries))
    last = log.last_of_batch(previous, entries_max, bytes_max)
    batch = entries[previous:last]
    size = sum(len(entry.payload) for entry in batch)
    assert bool(batch) == (previous < len(entries))
    assert len(batch) <= entries_max
    assert size <= bytes_max or len(batch) == 1
    if last < len(entries) and len(batch) < entries_max:
        assert size + len(entries[last].payload) > bytes_max, "the batch could have been longer"


@given(TERMS_AND_SIZES, st.integers(0, 40), st.integers(0, 70))
@settings(derandomize=True, database=None, deadline=None)
def test_nothing_after_the_conflict_found_can_agree(steps: list[tuple[int, int]], index: int, term: int) -> None:
    entries = entries_of(steps)
    log = RaftLog(entries, digests=False)
    terms = [0, *(entry.term for entry in entries)]
    naive = max(at for at in range(min(index, len(entries)) + 1) if terms[at] <= term)
    assert log.find_conflict(index, term) == (naive, terms[naive])


def test_the_digest_is_the_documented_chain() -> None:
    log = RaftLog([Entry(1, 3, b"ab"), Entry(2, 4, b"")], digests=True)
    first = blake2b(bytes(8) + (1).to_bytes(8, "big") + (3).to_bytes(8, "big") + b"ab", digest_size=8).digest()
    second = blake2b(first + (2).to_bytes(8, "big") + (4).to_bytes(8, "big"), digest_size=8).digest()
    assert [log.digest_at(index) for index in range(3)] == ["0" * 16, first.hex(), second.hex()]


def test_a_log_without_tracing_computes_no_digests() -> None:
    with pytest.raises(ValueError, match="without tracing"):
        RaftLog([Entry(1, 1, b"")], digests=False).digest_at(1)


@given(TERMS_AND_SIZES, st.integers(0, 30), st.integers(0, 30), st.integers(1, 8), st.integers(0, 40))
@settings(derandomize=True, database=None, deadline=None)
def test_a_log_that_forgot_its_begin_answers_above_it_as_the_whole_log_does(
    steps: list[tuple[int, int]], base: int, cut: int, entries_max: int, index: int
) -> None:
    entries = entries_of(steps)
    base = min(base, len(entries))
    whole, short = RaftLog(entries, digests=True), RaftLog(entries, digests=True)
    short.compact(base)
    short.free(5)
    cut = max(base, min(cut, len(entries)))
    for log in (whole, short):
        log.cut(cut)
        log.extend([Entry(cut + 1, log.last_term + 1, b"more")])
    last = whole.last_index
    assert (short.base, short.last_index, short.last_term) == (base, last, whole.last_term)
    for at in range(base, last + 1):
        assert short.term_at(at) == whole.term_at(at)
        assert short.digest_at(at) == whole.digest_at(at)
        assert short.slice(at, last) == whole.slice(at, last)
        assert short.bytes_between(base, at) == whole.bytes_between(base, at)
        assert short.last_of_batch(at, entries_max, 60) == whole.last_of_batch(at, entries_max, 60)
    for term in range(whole.last_term + 1):
        found, found_term = short.find_conflict(index, term)
        expected = whole.find_conflict(index, term)
        assert (found, found_term) == expected if expected[0] >= base else found < base


def test_the_configuration_in_force_is_the_latest_of_the_log_and_an_earlier_one_when_it_is_cut() -> None:
    genesis = first_configuration(["s1", "s2"])
    log = RaftLog([Entry(1, 1, b"")], digests=False, genesis=genesis)
    for index, names in ((2, ["s1"]), (4, ["s1", "s3"])):
        if index > log.last_index + 1:
            log.extend([Entry(log.last_index + 1, 1, b"")])
        log.extend([Entry(index, 1, encode_configuration(first_configuration(names)), CONFIGURATION)])
    assert (log.configuration.voters, log.configuration.index) == (("s1", "s3"), 4)
    assert log.configuration_at(3).voters == ("s1",) and log.configuration_at(1) == genesis
    log.compact(3)
    assert [found.index for found in log.configurations] == [2, 4]
    log.cut(3)
    assert log.configuration.index == 2
    log.replace_by_snapshot(9, 2, genesis, "")
    assert (log.configuration, log.base, log.last_index, log.last_term) == (genesis, 9, 9, 2)
