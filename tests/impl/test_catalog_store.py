"""The KV store against sentences of Consul's documentation, and against a naive model under random commands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from impl.catalog import kv
from impl.catalog import store as store_module
from impl.catalog.commands import (
    Command,
    Deregister,
    KvAcquire,
    KvCas,
    KvDelete,
    KvDeleteCas,
    KvDeleteTree,
    KvSet,
    Noop,
    Register,
    SessionCreate,
    SessionDestroy,
)
from impl.catalog.queries import KvGet, KvKeys, KvList, answer_query, describe_query
from impl.catalog.rows import Node, Session
from impl.catalog.store import KvAnswer, KvEntry, Store
from impl.catalog.tables import Tables

KvCommand = Noop | KvSet | KvCas | KvDelete | KvDeleteCas | KvDeleteTree


def applied(*commands: Command) -> Store:
    """A store that applied the commands at indexes 1, 2, ..."""
    store = Store()
    for index, command in enumerate(commands, 1):
        store.apply(command, index)
    return store


def an_unchanged_set_keeps_the_modify_index() -> None:
    store = applied(KvSet("a", b"1", 7), KvSet("a", b"1", 7))
    assert store.get("a") == KvAnswer(1, (KvEntry("a", 7, b"1", 1, 1),))
    assert applied(KvSet("a", b"1", 0), KvSet("a", b"1", 1)).get("a").index == 2, "other flags are a change"


def a_set_keeps_the_create_index() -> None:
    assert applied(KvSet("a", b"1", 0), Noop(), KvSet("a", b"2", 0)).get("a").entries[0].create_index == 1


def cas_zero_only_creates() -> None:
    store = applied(KvSet("a", b"1", 0))
    assert store.apply(KvCas("a", b"2", 0, 0), 2) is False
    assert store.apply(KvCas("b", b"2", 0, 0), 3) is True
    assert store.get("a").entries[0].value == b"1"


def cas_needs_the_exact_modify_index() -> None:
    store = applied(KvSet("a", b"1", 0), KvSet("a", b"2", 0))
    assert store.apply(KvCas("a", b"3", 0, 1), 3) is False
    assert store.apply(KvCas("a", b"3", 0, 2), 4) is True
    assert store.apply(KvCas("absent", b"3", 0, 4), 5) is False


def delete_cas_on_an_absent_key_is_true() -> None:
    store = applied(KvSet("a", b"1", 0))
    assert store.apply(KvDeleteCas("b", 99), 2) is True
    assert store.apply(KvDeleteCas("a", 99), 3) is False
    assert store.apply(KvDeleteCas("a", 1), 4) is True
    assert store.get("a").entries == ()


def a_missing_key_has_the_index_of_the_table() -> None:
    store = applied(KvSet("a", b"1", 0), Noop(), KvDelete("a"), Noop())
    assert store.get("b") == KvAnswer(3, ())


def an_index_is_never_below_one() -> None:
    store = Store()
    assert (store.get("a").index, store.list_prefix("a").index, store.list_keys("", "").index) == (1, 1, 1)


def a_list_has_the_highest_index_of_entries_and_tombstones() -> None:
    store = applied(KvSet("a/x", b"1", 0), KvSet("a/y", b"1", 0), KvSet("b", b"1", 0), KvDelete("a/x"))
    assert store.list_prefix("a/").index == 4
    assert store.list_prefix("b").index == 3
    assert store.list_prefix("c").index == 4, "neither entries nor tombstones: the table's"


def deleting_an_absent_key_changes_no_index() -> None:
    store = applied(KvSet("a", b"1", 0), KvDelete("b"), KvDeleteTree("c"))
    assert store.get("missing").index == 1


def a_deleted_tree_leaves_one_tombstone_at_its_prefix() -> None:
    store = applied(KvSet("a/x", b"1", 0), KvSet("a/y/z", b"1", 0), KvSet("b", b"", 0), KvDeleteTree("a/"))
    store.apply(KvSet("b", b"new", 0), 5)
    assert store.list_prefix("a").index == 4
    assert store.list_prefix("a/y").index == 5, "the tombstone is at the prefix that was deleted, not below it"
    assert [entry.key for entry in store.list_prefix("").entries] == ["b"]


def keys_are_cut_after_the_separator() -> None:
    store = applied(*(KvSet(key, b"", 0) for key in ("a/", "a/b/c", "a/b/d", "a/e", "ab")))
    assert store.list_keys("a/", "/").keys == ("a/", "a/b/", "a/e")
    assert store.list_keys("a", "").keys == ("a/", "a/b/c", "a/b/d", "a/e", "ab")
    assert store.list_keys("", "/").keys == ("a/", "ab")


SENTENCES = [
    an_unchanged_set_keeps_the_modify_index,
    a_set_keeps_the_create_index,
    cas_zero_only_creates,
    cas_needs_the_exact_modify_index,
    delete_cas_on_an_absent_key_is_true,
    a_missing_key_has_the_index_of_the_table,
    an_index_is_never_below_one,
    a_list_has_the_highest_index_of_entries_and_tombstones,
    deleting_an_absent_key_changes_no_index,
    a_deleted_tree_leaves_one_tombstone_at_its_prefix,
    keys_are_cut_after_the_separator,
]


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda sentence: str(sentence.__name__))
def test_the_store_is_as_consul_says(sentence: Callable[[], None]) -> None:
    sentence()


def always_new_entry(tables: Tables, key: str, value: bytes, flags: int, index: int) -> None:
    tables.entries.put(key, KvEntry(key, flags, value, index, index))
    tables.touch_key(index, key)


def unchanged_bumps(tables: Tables, key: str, value: bytes, flags: int, index: int) -> None:
    old = tables.entries.get(key)
    tables.entries.put(key, KvEntry(key, flags, value, old.create_index if old else index, index))
    tables.touch_key(index, key)


def blind_set(tables: Tables, key: str, value: bytes, flags: int, expected: int, index: int) -> bool:
    kv.set_key(tables, key, value, flags, index)
    return True


def strict_delete(tables: Tables, key: str, expected: int, index: int) -> bool:
    old = tables.entries.get(key)
    if old is None or old.modify_index != expected:
        return False
    kv.delete_key(tables, key, index)
    return True


def delete_without_tombstone(tables: Tables, key: str, index: int) -> None:
    if tables.entries.pop(key) is not None:
        tables.touch_key(index, key)


def delete_always_counts(tables: Tables, key: str, index: int) -> None:
    tables.entries.pop(key)
    tables.tombstones.put(key, index)
    tables.touch_key(index, key)


def delete_tree_key_by_key(tables: Tables, prefix: str, index: int) -> None:
    for key in tables.entries.under(prefix):
        kv.delete_key(tables, key, index)


MUTANTS: list[tuple[Any, str, Callable[..., object], Callable[[], None]]] = [
    (kv, "set_key", always_new_entry, a_set_keeps_the_create_index),
    (kv, "set_key", unchanged_bumps, an_unchanged_set_keeps_the_modify_index),
    (kv, "check_and_set", blind_set, cas_zero_only_creates),
    (kv, "check_and_set", blind_set, cas_needs_the_exact_modify_index),
    (kv, "check_and_delete", strict_delete, delete_cas_on_an_absent_key_is_true),
    (kv, "delete_key", delete_without_tombstone, a_list_has_the_highest_index_of_entries_and_tombstones),
    (kv, "delete_key", delete_always_counts, deleting_an_absent_key_changes_no_index),
    (kv, "delete_tree", delete_tree_key_by_key, a_deleted_tree_leaves_one_tombstone_at_its_prefix),
    (Store, "get", lambda store, key: KvAnswer(store.index, ()), an_index_is_never_below_one),
    (Store, "get", lambda store, key: KvAnswer(1, ()), a_missing_key_has_the_index_of_the_table),
]


@pytest.mark.parametrize(("owner", "name", "mutant", "sentence"), MUTANTS)
def test_a_broken_store_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    mutant: Callable[..., object],
    sentence: Callable[[], None],
) -> None:
    monkeypatch.setattr(owner, name, mutant)
    with pytest.raises(AssertionError):
        sentence()


def test_keys_that_are_not_cut_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_cut_after", lambda key, separator, start: key)
    with pytest.raises(AssertionError):
        keys_are_cut_after_the_separator()


class NaiveStore:
    """The same rules over plain dictionaries, every query a scan."""

    def __init__(self) -> None:
        self.rows: dict[str, KvEntry] = {}
        self.graves: dict[str, int] = {}
        self.table = 0

    def apply(self, command: KvCommand, index: int) -> bool:
        before = dict(self.rows)
        verdict = self._apply(command, index)
        if before != self.rows:
            self.table = index
        return verdict

    def _apply(self, command: KvCommand, index: int) -> bool:
        row = None if isinstance(command, Noop | KvDeleteTree) else self.rows.get(command.key)
        if isinstance(command, KvCas | KvDeleteCas):
            absent_deletes = isinstance(command, KvDeleteCas) and row is None
            if not absent_deletes and command.index != (row.modify_index if row else 0):
                return False
        if isinstance(command, KvSet | KvCas) and (not row or (row.value, row.flags) != (command.value, command.flags)):
            created = row.create_index if row else index
            self.rows[command.key] = KvEntry(command.key, command.flags, command.value, created, index)
        elif isinstance(command, KvDelete | KvDeleteCas) and row:
            del self.rows[command.key]
            self.graves[command.key] = index
        elif isinstance(command, KvDeleteTree):
            kept = {key: row for key, row in self.rows.items() if not key.startswith(command.prefix)}
            if kept != self.rows and command.prefix:
                self.graves[command.prefix] = index
            self.rows = kept
        return True

    def list_prefix(self, prefix: str) -> KvAnswer:
        rows = tuple(self.rows[key] for key in sorted(self.rows) if key.startswith(prefix))
        indexes = [row.modify_index for row in rows] + [i for key, i in self.graves.items() if key.startswith(prefix)]
        return KvAnswer(max(1, self.table if not prefix or not indexes else max(indexes)), rows)


KEYS = st.sampled_from(["", "a", "a/", "a/b", "a/b/c", "b", "\u00e9", "\U0001f600"])
VALUES = st.sampled_from([b"", b"1", b"2"])
INDEXES = st.integers(0, 12)
COMMANDS: st.SearchStrategy[KvCommand] = st.one_of(
    st.builds(KvSet, KEYS, VALUES, st.integers(0, 1)),
    st.builds(KvCas, KEYS, VALUES, st.integers(0, 1), INDEXES),
    st.builds(KvDelete, KEYS),
    st.builds(KvDeleteCas, KEYS, INDEXES),
    st.builds(KvDeleteTree, KEYS),
    st.just(Noop()),
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(COMMANDS, max_size=12), KEYS)
def test_the_indexed_store_equals_the_naive_one(commands: list[KvCommand], prefix: str) -> None:
    store, naive = Store(), NaiveStore()
    for index, command in enumerate(commands, 1):
        assert store.apply(command, index) == naive.apply(command, index)
    assert store.list_prefix(prefix) == naive.list_prefix(prefix)
    row = naive.rows.get(prefix)
    assert store.get(prefix) == (KvAnswer(row.modify_index, (row,)) if row else KvAnswer(max(1, naive.table), ()))


def test_keys_are_ordered_by_their_bytes() -> None:
    names = ["\uffff", "\U0001f600", "z", "\u00e9"]
    store = applied(*(KvSet(name, b"", 0) for name in names))
    assert list(store.list_keys("", "").keys) == sorted(names, key=lambda name: name.encode())


def test_whoever_waits_is_told_of_every_key_that_changed() -> None:
    told: list[str] = []
    store = Store(told.append)
    commands: list[Command] = [
        KvSet("a/x", b"", 0),
        KvSet("a/x", b"", 0),
        KvSet("a/y", b"", 0),
        KvDelete("no"),
        KvDeleteTree("a/"),
    ]
    for index, command in enumerate(commands, 1):
        store.apply(command, index)
    assert told == ["a/x", "a/y", "a/x", "a/y"]


def test_whoever_waits_is_told_of_groups_and_of_locks_that_were_lost() -> None:
    touched: list[str] = []
    lost: list[tuple[str, int]] = []
    changed: list[tuple[str, bool]] = []
    store = Store(
        None,
        touched.append,
        lambda session_id, session: changed.append((session_id, session is not None)),
        lambda key, delay_ns: lost.append((key, delay_ns)),
    )
    commands: list[Command] = [
        Register(Node("n", "1")),
        SessionCreate(Session("s", "n", lock_delay_ns=5)),
        KvAcquire("k", b"", 0, "s"),
        Deregister("n"),
    ]
    for index, command in enumerate(commands, 1):
        store.apply(command, index)
    assert touched == ["nodes", "node.n", "sessions", "nodes", "node_last_extinction", "node.n", "sessions"]
    assert changed == [("s", True), ("s", False)]
    assert lost == [("k", 5)]


@pytest.mark.parametrize(("asked_ns", "told"), [(0, []), (61_000_000_000, [("k", 60_000_000_000)])])
def test_a_lock_delay_is_a_minute_at_most_and_none_is_none(asked_ns: int, told: list[tuple[str, int]]) -> None:
    lost: list[tuple[str, int]] = []
    store = Store(lost=lambda key, delay_ns: lost.append((key, delay_ns)))
    session = Session("s", "n", lock_delay_ns=asked_ns)
    commands: list[Command] = [
        Register(Node("n", "1")),
        SessionCreate(session),
        KvAcquire("k", b"", 0, "s"),
        SessionDestroy("s"),
    ]
    for index, command in enumerate(commands, 1):
        store.apply(command, index)
    assert lost == told


def test_a_query_is_answered_by_what_its_name_says() -> None:
    store = applied(KvSet("a/b", b"1", 0))
    assert answer_query(store, KvGet("a/b")) == store.get("a/b")
    assert answer_query(store, KvList("a")) == store.list_prefix("a")
    assert answer_query(store, KvKeys("a", "/")) == store.list_keys("a", "/")
    assert describe_query(KvKeys("a", "/")) == ["kv-keys", "a", "/"]
