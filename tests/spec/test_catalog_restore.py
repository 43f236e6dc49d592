"""A restore puts an archived state in the place of the one in force, whole or not at all; each sentence and each
property kills a mutant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from msgspec.structs import replace

from model_checks.catalog.generated import LOGS, restore_of, state_after
from spec.catalog import invariants, queries, restore, restore_properties, transitions
from spec.catalog.commands import (
    Command,
    CreateSession,
    Delete,
    Get,
    Lock,
    Noop,
    Register,
    RestoreBegin,
    RestoreChunk,
    RestoreCommit,
    Set,
)
from spec.catalog.restore import rows_of
from spec.catalog.state import Check, Node, Service, Session, Staging, State, Status, TableIndex, initial_state
from spec.catalog.transitions import Failed, Result

CATALOG: list[Command] = [
    Set("gone", b"1"),
    Delete("gone"),
    Register(Node("n1", "1"), Service("n1", "web-1", "web"), (Check("n1", "alive", status=Status.PASSING),)),
    CreateSession(Session("s", "n1", node_checks=("alive",))),
    Lock("k", b"1", 0, "s"),
]
ARCHIVED = state_after(CATALOG, first=101)
"""Of a log that is a hundred entries longer."""
ROWS = rows_of(ARCHIVED)


def replay(*commands: Command) -> tuple[State, list[Any]]:
    state, results = initial_state(), []
    for index, command in enumerate(commands, 1):
        state, result = transitions.apply(state, command, index)
        results.append(result)
    return state, results


def a_restored_state_equals_the_archived_one() -> None:
    state, results = replay(Set("old", b""), *restore_of(ROWS))
    assert rows_of(state) == ROWS and results[-1] is True
    for request in (Get("k"), Get("gone"), Get("old")):
        assert queries.query(state, request) == queries.query(ARCHIVED, request)


def a_restore_may_be_restored_again_in_the_same_cluster_and_indexes_then_go_back() -> None:
    state, _ = replay(Set("k", b"1"), *restore_of(rows_of(state_after([Set("k", b"1")]))), Set("k", b"2"))
    assert queries.query(state, Get("k"))[0] == 5
    restored, _ = replay(Set("k", b"1"), Set("k", b"2"), *restore_of(rows_of(state_after([Set("k", b"1")]))))
    assert queries.query(restored, Get("k"))[0] == 1


def until_the_commit_the_old_state_is_in_force() -> None:
    state, _ = replay(Set("old", b""), *restore_of(ROWS)[:-1])
    assert rows_of(state) == rows_of(replay(Set("old", b""))[0])


def what_is_written_after_a_restore_has_a_greater_index_than_all_that_was_restored() -> None:
    log = [*restore_of(ROWS), Set("k", b"2")]
    assert queries.query(replay(*log)[0], Get("k"))[0] == 106
    assert queries.query(ARCHIVED, Get("k"))[0] == 105


def the_log_of_a_longer_cluster_is_not_shifted() -> None:
    assert replay(*[Noop()] * 200, *restore_of(ROWS))[0].shift == 0


def a_chunk_that_does_not_follow_is_refused() -> None:
    begin, first, second, *_ = restore_of(ROWS)
    assert replay(begin, second)[1][1] == Failed('chunk 2 of restore "r" does not follow chunk 0')
    assert replay(begin, first, first)[1][2] == Failed('chunk 1 of restore "r" does not follow chunk 1')


def a_chunk_of_another_restore_is_refused() -> None:
    _, first, *_ = restore_of(ROWS)
    assert replay(first)[1] == [Failed('no restore "r" is under way')]
    assert replay(RestoreBegin("q"), first)[1][1] == Failed('no restore "r" is under way')


def rows_that_are_not_in_order_are_refused() -> None:
    wrong = RestoreChunk("r", 1, (ROWS[1], ROWS[0]))
    assert replay(RestoreBegin("r"), wrong)[1][1] == Failed('the rows of chunk 1 of restore "r" are not in order')
    twice = (RestoreChunk("r", 1, ROWS[:2]), RestoreChunk("r", 2, ROWS[1:3]))
    assert replay(RestoreBegin("r"), *twice)[1][2] == Failed('the rows of chunk 2 of restore "r" are not in order')


def a_commit_of_fewer_chunks_or_more_is_refused() -> None:
    *sent, commit = restore_of(ROWS)
    chunks = len(sent) - 1
    assert replay(*sent[:-1], commit)[1][-1] == Failed(f'restore "r" has {chunks - 1} chunks, not {chunks}')


def a_begin_forgets_what_was_staged_before() -> None:
    state, _ = replay(*restore_of(ROWS)[:-1], RestoreBegin("q"))
    assert state.staging is not None and state.staging.rows == ()
    assert replay(*restore_of(ROWS)[:-1], RestoreBegin(""))[0] == initial_state()


def refused(rows: tuple[Any, ...]) -> bool:
    result: Result = replay(*restore_of(rows))[1][-1]
    return result == Failed('the rows of restore "r" are not those of a state')


def rows_that_no_log_builds_are_refused() -> None:
    for missing in (0, *(position for position, row in enumerate(ROWS) if isinstance(row, Node | Check | Session))):
        assert refused(ROWS[:missing] + ROWS[missing + 1 :]), ROWS[missing]
    far = (TableIndex("kv", restore.INDEX_MAX), TableIndex("nodes", restore.INDEX_MAX + 1))
    assert refused(far) and not refused(far[:1])
    assert refused(())


SENTENCES = (
    a_restored_state_equals_the_archived_one,
    a_restore_may_be_restored_again_in_the_same_cluster_and_indexes_then_go_back,
    until_the_commit_the_old_state_is_in_force,
    what_is_written_after_a_restore_has_a_greater_index_than_all_that_was_restored,
    the_log_of_a_longer_cluster_is_not_shifted,
    a_chunk_that_does_not_follow_is_refused,
    a_chunk_of_another_restore_is_refused,
    rows_that_are_not_in_order_are_refused,
    a_commit_of_fewer_chunks_or_more_is_refused,
    a_begin_forgets_what_was_staged_before,
    rows_that_no_log_builds_are_refused,
)


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda sentence: sentence.__name__)
def test_a_restore(sentence: Callable[[], None]) -> None:
    sentence()


# ----------------------------------------------------------------------------------------------------------- properties


def check_properties(commands: list[Command]) -> None:
    state = initial_state()
    for index, command in enumerate(commands, 1):
        before, (state, _) = state, transitions.apply(state, command, index)
        assert invariants.references_exist(state)
        assert restore_properties.nothing_but_a_commit_restores(before, command, state)
        assert restore_properties.a_restore_is_all_or_nothing(before, command, state)
        assert restore_properties.what_is_staged_is_what_was_sent(before, command, state)
        assert restore_properties.indexes_go_on(before, state, index)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(LOGS)
def test_the_properties_hold_in_every_log(commands: list[Command]) -> None:
    check_properties(commands)


def test_logs_have_restores_that_succeed_and_commits_that_fail() -> None:
    told: dict[object, int] = {}

    @settings(max_examples=300, deadline=None, derandomize=True, database=None)
    @given(LOGS)
    def count(commands: list[Command]) -> None:
        for command, result in zip(commands, replay(*commands)[1], strict=True):
            if isinstance(command, RestoreCommit):
                told[type(result)] = told.get(type(result), 0) + 1

    count()
    assert told[bool] >= 10 and told[Failed] >= 10, told


COMMIT, CHUNK, STATE_OF = restore.commit, restore.chunk, restore.state_of


def commits_early(state: State, id: str, chunks: int, index: int) -> State:
    staging = state.staging
    return COMMIT(state, id, chunks if staging is None else staging.chunks, index)


def keeps_the_shift(state: State, id: str, chunks: int, index: int) -> State:
    return replace(COMMIT(state, id, chunks, index), shift=state.shift)


def forgets_sessions(rows: tuple[Any, ...]) -> State:
    return STATE_OF(tuple(row for row in rows if not isinstance(row, Session)))


def keeps_the_old(state: State, id: str, chunks: int, index: int) -> State:
    restored = COMMIT(state, id, chunks, index)
    return replace(restored, tombstones=state.tombstones)


def takes_any(state: State, id: str, number: int, rows: tuple[Any, ...]) -> State:
    staging = restore.under_way(state, id)
    return replace(state, staging=replace(staging, chunks=number, rows=staging.rows + rows))


def begins_beside(state: State, id: str) -> State:
    return replace(state, staging=replace(state.staging, id=id) if state.staging else Staging(id))


def at_once(state: State, id: str, number: int, rows: tuple[Any, ...]) -> State:
    staged = CHUNK(state, id, number, rows)
    assert staged.staging is not None
    return replace(STATE_OF(staged.staging.rows), staging=staged.staging)


def anything(*_: Any) -> bool:
    return True


LONE_SERVICE = tuple(row for row in ROWS if isinstance(row, TableIndex | Service))
BEGIN, FIRST, SECOND, *_ = restore_of(ROWS)
MUTANTS: tuple[tuple[str, Any, str, list[Command]], ...] = (
    ("commit", commits_early, "a_restore_is_all_or_nothing", [BEGIN, FIRST, RestoreCommit("r", 3)]),
    ("commit", keeps_the_shift, "indexes_go_on", restore_of(ROWS)),
    ("commit", keeps_the_old, "a_restore_is_all_or_nothing", restore_of(ROWS)),
    ("chunk", takes_any, "what_is_staged_is_what_was_sent", [BEGIN, SECOND]),
    ("chunk", at_once, "nothing_but_a_commit_restores", [BEGIN, FIRST]),
    ("begin", begins_beside, "what_is_staged_is_what_was_sent", [BEGIN, FIRST, RestoreBegin("q")]),
    ("is_sound", anything, "references_exist", restore_of(LONE_SERVICE)),
)


def in_order(log: list[Command]) -> list[Command]:
    """The log, after entries that its commits can be compared with."""
    return [Noop(), Set("x", b""), *log]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant[0]}-{mutant[1].__name__}")
def test_a_mutant_breaks_a_property(
    monkeypatch: pytest.MonkeyPatch, mutant: tuple[str, Any, str, list[Command]]
) -> None:
    name, broken, broken_property, log = mutant
    check_properties(in_order(log))
    monkeypatch.setattr(restore, name, broken)
    with pytest.raises(AssertionError, match=broken_property):
        check_properties(in_order(log))


SENTENCE_MUTANTS: tuple[tuple[str, Any, Callable[[], None]], ...] = (
    ("state_of", forgets_sessions, a_restored_state_equals_the_archived_one),
    (
        "newest_index",
        lambda state: 10**6,
        a_restore_may_be_restored_again_in_the_same_cluster_and_indexes_then_go_back,
    ),
    ("commit", commits_early, a_commit_of_fewer_chunks_or_more_is_refused),
    ("commit", keeps_the_shift, what_is_written_after_a_restore_has_a_greater_index_than_all_that_was_restored),
    ("commit", keeps_the_old, a_restored_state_equals_the_archived_one),
    ("chunk", takes_any, a_chunk_that_does_not_follow_is_refused),
    ("chunk", takes_any, rows_that_are_not_in_order_are_refused),
    ("chunk", at_once, until_the_commit_the_old_state_is_in_force),
    ("under_way", lambda state, id: state.staging or Staging(id), a_chunk_of_another_restore_is_refused),
    ("begin", begins_beside, a_begin_forgets_what_was_staged_before),
    ("is_sound", anything, rows_that_no_log_builds_are_refused),
    ("newest_index", lambda state: 10**6, the_log_of_a_longer_cluster_is_not_shifted),
)


@pytest.mark.parametrize("mutant", SENTENCE_MUTANTS, ids=lambda mutant: f"{mutant[0]}-{mutant[2].__name__}")
def test_a_mutant_contradicts_its_sentence(
    monkeypatch: pytest.MonkeyPatch, mutant: tuple[str, Any, Callable[[], None]]
) -> None:
    name, broken, sentence = mutant
    monkeypatch.setattr(restore, name, broken)
    with pytest.raises(AssertionError):
        sentence()
