"""The KV store of spec/catalog says what Consul's documentation and state store say; each sentence kills a mutant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spec.catalog import invariants, kv, properties, queries, transitions
from spec.catalog.commands import (
    CheckAndSet,
    Command,
    Delete,
    DeleteCheckAndSet,
    DeleteTree,
    Get,
    Keys,
    List,
    Noop,
    Set,
)
from spec.catalog.ordered_map import OrderedMap
from spec.catalog.state import Row, State, initial_state


def after(*commands: Command) -> State:
    """The state after the log `commands`, whose indexes begin with 1."""
    return replay(commands)[0]


def replay(commands: tuple[Command, ...]) -> tuple[State, list[transitions.Result]]:
    state = initial_state()
    results: list[transitions.Result] = []
    for index, command in enumerate(commands, 1):
        state, result = transitions.apply(state, command, index)
        results.append(result)
    return state, results


def a_key_that_was_set_is_read_with_its_modify_index() -> None:
    state = after(Noop(), Set("a", b"1", 42), Set("b", b"2"), Set("a", b"3", 43))
    assert queries.query(state, Get("a")) == (4, (Row("a", b"3", 43, create_index=2, modify_index=4),))


def a_missing_key_has_the_index_of_the_last_change_of_the_tables() -> None:
    state = after(Set("a", b""), Set("b", b""), Delete("a"), Noop())
    assert queries.query(state, Get("a")) == (3, ())


def the_index_of_a_read_is_never_below_one() -> None:
    for request in (Get("a"), List("a"), List(""), Keys("a", "/")):
        assert queries.query(after(Noop()), request) == (1, ())


def a_set_that_changes_nothing_does_not_bump_the_modify_index() -> None:
    state = after(Set("a", b"1", 7), Set("a", b"1", 7))
    assert queries.query(state, Get("a"))[0] == 1
    assert queries.query(state, Get("other"))[0] == 1


def a_set_that_changes_only_the_flags_is_a_change() -> None:
    assert queries.query(after(Set("a", b"1", 7), Set("a", b"1", 8)), Get("a"))[0] == 2


def check_and_set_with_index_zero_only_creates() -> None:
    state, results = replay((CheckAndSet("a", b"1", 0, 0), CheckAndSet("a", b"2", 0, 0)))
    assert results == [True, False]
    assert state.rows.get("a") == Row("a", b"1", 0, 1, 1)


def check_and_set_with_another_index_needs_equality() -> None:
    state, results = replay((Set("a", b"1"), CheckAndSet("a", b"2", 0, 2), CheckAndSet("a", b"3", 5, 1)))
    assert results == [True, False, True]
    assert state.rows.get("a") == Row("a", b"3", 5, 1, 3)


def check_and_set_of_an_absent_key_with_an_index_fails() -> None:
    state, results = replay((CheckAndSet("a", b"1", 0, 1),))
    assert (results, len(state.rows)) == ([False], 0)


def a_check_and_set_that_changes_nothing_succeeds_without_a_new_index() -> None:
    state, results = replay((Set("a", b"1"), CheckAndSet("a", b"1", 0, 1)))
    assert (results, queries.query(state, Get("a"))[0]) == ([True, True], 1)


def delete_check_and_set_needs_equality() -> None:
    state, results = replay((Set("a", b"1"), DeleteCheckAndSet("a", 0), DeleteCheckAndSet("a", 1)))
    assert (results, len(state.rows)) == ([True, False, True], 0)


def delete_check_and_set_of_an_absent_key_is_true() -> None:
    state, results = replay((Noop(), DeleteCheckAndSet("a", 17)))
    assert (results, state) == ([True, True], initial_state())


def a_key_that_is_deleted_and_set_again_has_a_new_create_index() -> None:
    state = after(Set("a", b"1"), Delete("a"), Set("a", b"1"))
    assert state.rows.get("a") == Row("a", b"1", 0, 3, 3)


def deleting_an_absent_key_changes_no_index() -> None:
    assert after(Set("b", b""), Delete("a"), DeleteTree("x/")) == after(Set("b", b""))


def a_list_has_the_newest_index_under_its_prefix() -> None:
    state = after(Set("a/1", b""), Set("a/2", b""), Set("b", b""))
    index, rows = queries.query(state, List("a/"))
    assert (index, [row.key for row in rows if isinstance(row, Row)]) == (2, ["a/1", "a/2"])


def a_deletion_under_a_prefix_moves_the_index_of_its_list() -> None:
    state = after(Set("a/1", b""), Set("a/2", b""), Delete("a/2"), Set("b", b""))
    assert queries.query(state, List("a/"))[0] == 3


def a_list_of_nothing_has_the_index_of_the_tables() -> None:
    assert queries.query(after(Set("b", b""), Set("c", b"")), List("a/")) == (2, ())


def a_list_of_everything_has_the_index_of_the_tables() -> None:
    assert queries.query(after(Set("a", b""), Set("b", b""), DeleteTree("")), List("")) == (3, ())


def a_tree_deletion_leaves_one_tombstone_named_by_the_prefix() -> None:
    state = after(Set("a/1", b""), Set("a/2", b""), Set("b", b""), DeleteTree("a/"), Set("b", b"x"))
    assert dict(state.tombstones.items()) == {"a/": 4}
    assert queries.query(state, List("a/")) == (4, ())
    assert [key for key, _ in state.rows.items()] == ["b"]


def a_tree_deletion_may_take_the_index_of_a_deeper_list_back() -> None:
    """Consul's behaviour: its documentation tells clients to reset their index when the answer's goes backwards."""
    log = (Set("a/b/1", b""), Set("a/b/2", b""), Delete("a/b/1"), Set("a/b/2", b"x"))
    assert queries.query(after(*log), List("a/b/"))[0] == 4
    assert queries.query(after(*log, DeleteTree("a/")), List("a/b/"))[0] == 3


def keys_are_cut_after_the_first_separator_behind_the_prefix() -> None:
    state = after(*(Set(key, b"") for key in ("web/a", "web/b/1", "web/b/2", "web/c/d/e", "zip")))
    assert queries.query(state, Keys("web/", "/")) == (4, ("web/a", "web/b/", "web/c/"))
    assert queries.query(state, Keys("", "/")) == (5, ("web/", "zip"))
    assert queries.query(state, Keys("web/b/")) == (3, ("web/b/1", "web/b/2"))


SENTENCES = (
    a_key_that_was_set_is_read_with_its_modify_index,
    a_missing_key_has_the_index_of_the_last_change_of_the_tables,
    the_index_of_a_read_is_never_below_one,
    a_set_that_changes_nothing_does_not_bump_the_modify_index,
    a_set_that_changes_only_the_flags_is_a_change,
    check_and_set_with_index_zero_only_creates,
    check_and_set_with_another_index_needs_equality,
    check_and_set_of_an_absent_key_with_an_index_fails,
    a_check_and_set_that_changes_nothing_succeeds_without_a_new_index,
    delete_check_and_set_needs_equality,
    delete_check_and_set_of_an_absent_key_is_true,
    a_key_that_is_deleted_and_set_again_has_a_new_create_index,
    deleting_an_absent_key_changes_no_index,
    a_list_has_the_newest_index_under_its_prefix,
    a_deletion_under_a_prefix_moves_the_index_of_its_list,
    a_list_of_nothing_has_the_index_of_the_tables,
    a_list_of_everything_has_the_index_of_the_tables,
    a_tree_deletion_leaves_one_tombstone_named_by_the_prefix,
    a_tree_deletion_may_take_the_index_of_a_deeper_list_back,
    keys_are_cut_after_the_first_separator_behind_the_prefix,
)


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda sentence: sentence.__name__)
def test_consul_says(sentence: Callable[[], None]) -> None:
    sentence()


def set_always_bumps(state: State, key: str, value: bytes, flags: int, index: int) -> State:
    row = state.rows.get(key)
    created = index if row is None else row.create_index
    rows = state.rows.put(key, Row(key, value, flags, created, index))
    return State(rows, state.tombstones, index, state.tombstones_index)


def set_ignores_flags(state: State, key: str, value: bytes, flags: int, index: int) -> State:
    row = state.rows.get(key)
    return state if row is not None and row.value == value else set_always_bumps(state, key, value, flags, index)


def set_forgets_creation(state: State, key: str, value: bytes, flags: int, index: int) -> State:
    rows = state.rows.put(key, Row(key, value, flags, index, index))
    return State(rows, state.tombstones, index, state.tombstones_index)


def delete_without_tombstone(state: State, key: str, index: int) -> State:
    return State(state.rows.without(key), state.tombstones, index, index) if key in state.rows else state


def delete_always_counts(state: State, key: str, index: int) -> State:
    return State(state.rows.without(key), state.tombstones.put(key, index), index, index)


def delete_without_index(state: State, key: str, index: int) -> State:
    return State(state.rows.without(key), state.tombstones, state.rows_index, state.tombstones_index)


def tree_with_a_tombstone_for_each_key(state: State, prefix: str, index: int) -> State:
    for key in [key for key, _ in state.rows.with_prefix(prefix)]:
        state = State(state.rows.without(key), state.tombstones.put(key, index), index, index)
    return state


def list_index_of_rows_only(state: State, prefix: str) -> int:
    return max((row.modify_index for _, row in state.rows.with_prefix(prefix)), default=max(state.table_index, 1))


def names_without_merging(state: State, prefix: str, separator: str) -> tuple[str, ...]:
    return tuple(key for key, _ in state.rows.with_prefix(prefix))


MUTANTS: tuple[tuple[Any, str, Any, Callable[[], None]], ...] = (
    (kv, "set_row", set_always_bumps, a_set_that_changes_nothing_does_not_bump_the_modify_index),
    (kv, "set_row", set_ignores_flags, a_set_that_changes_only_the_flags_is_a_change),
    (kv, "set_row", set_forgets_creation, a_key_that_was_set_is_read_with_its_modify_index),
    (kv, "modify_index", lambda s, k: 1, check_and_set_with_index_zero_only_creates),
    (kv, "modify_index", lambda s, k: 2, check_and_set_with_another_index_needs_equality),
    (kv, "delete_row", delete_without_tombstone, a_deletion_under_a_prefix_moves_the_index_of_its_list),
    (kv, "delete_row", delete_always_counts, deleting_an_absent_key_changes_no_index),
    (kv, "delete_row", delete_without_index, a_missing_key_has_the_index_of_the_last_change_of_the_tables),
    (
        kv,
        "delete_tree",
        tree_with_a_tombstone_for_each_key,
        a_tree_deletion_leaves_one_tombstone_named_by_the_prefix,
    ),
    (queries, "list_index", list_index_of_rows_only, a_deletion_under_a_prefix_moves_the_index_of_its_list),
    (queries, "at_least_one", lambda index: index, the_index_of_a_read_is_never_below_one),
    (queries, "names", names_without_merging, keys_are_cut_after_the_first_separator_behind_the_prefix),
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant[1]}-{mutant[3].__name__}")
def test_a_mutant_contradicts_its_sentence(
    monkeypatch: pytest.MonkeyPatch, mutant: tuple[Any, str, Any, Callable[[], None]]
) -> None:
    module, name, broken, sentence = mutant
    monkeypatch.setattr(module, name, broken)
    with pytest.raises(AssertionError):
        sentence()


KEYS = st.sampled_from(["a", "a/", "a/b", "a/b/c", "b", "ab"])
VALUES = st.sampled_from([b"", b"1", b"2"])
COMMANDS: st.SearchStrategy[Command] = st.one_of(
    st.just(Noop()),
    st.builds(Set, KEYS, VALUES, st.integers(0, 1)),
    st.builds(CheckAndSet, KEYS, VALUES, st.just(0), st.integers(0, 8)),
    st.builds(Delete, KEYS),
    st.builds(DeleteCheckAndSet, KEYS, st.integers(0, 8)),
    st.builds(DeleteTree, st.sampled_from(["", "a", "a/", "b"])),
)


def check_properties(commands: list[Command]) -> None:
    state = initial_state()
    for index, command in enumerate([Noop(), *commands], 1):  # a leader's first entry is its own
        before, (state, _) = state, transitions.apply(state, command, index)
        assert invariants.indexes_are_ordered(state, index)
        for key in ("a", "a/b", "b"):
            assert properties.change_is_announced(before, state, Get(key))
            assert properties.key_index_never_goes_back(before, state, key)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(COMMANDS, max_size=12))
def test_the_properties_hold_in_every_log(commands: list[Command]) -> None:
    check_properties(commands)


def test_a_deletion_that_moves_no_index_breaks_the_properties(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv, "delete_row", delete_without_index)
    with pytest.raises(AssertionError, match="change_is_announced"):
        check_properties([Set("a", b"1"), Delete("a")])


def test_an_index_that_restarts_at_a_deletion_breaks_the_properties(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgets(state: State, key: str, index: int) -> State:
        return State(state.rows.without(key), state.tombstones, 0, 0)

    monkeypatch.setattr(kv, "delete_row", forgets)
    with pytest.raises(AssertionError):
        check_properties([Set("b", b"1"), Set("a", b"1"), Delete("a")])


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.text("abc", max_size=3), st.one_of(st.none(), st.integers())), max_size=60),
    st.text("ab", max_size=2),
)
def test_the_ordered_map_equals_a_sorted_dict_and_keeps_old_versions(
    changes: list[tuple[str, int | None]], prefix: str
) -> None:
    expected: dict[str, int] = {}
    mapping: OrderedMap[int] = OrderedMap()
    versions = []
    for key, value in changes:
        versions.append((mapping, sorted(expected.items())))
        if value is None:
            expected.pop(key, None)
            mapping = mapping.without(key)
        else:
            expected[key] = value
            mapping = mapping.put(key, value)
        assert len(mapping) == len(expected)
    assert list(mapping.with_prefix(prefix)) == [
        pair for pair in sorted(expected.items()) if pair[0].startswith(prefix)
    ]
    for version, items in versions:
        assert list(version.items()) == items


def test_the_ordered_map_stays_balanced_under_sorted_insertion() -> None:
    mapping: OrderedMap[int] = OrderedMap()
    for number in range(2000):
        mapping = mapping.put(f"{number:05}", number)
    root = mapping._root
    assert root is not None and root.height <= 16
