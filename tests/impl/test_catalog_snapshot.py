"""Views stand still while the store changes; equal states make equal rows, and those rows make the state again."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from impl.catalog import snapshot
from impl.catalog.commands import Command, KvDelete, KvDeleteTree, KvSet, Noop, decode_command
from impl.catalog.queries import KvKeys, KvList, answer_query
from impl.catalog.snapshot import (
    BLOCK_BYTES,
    Row,
    StateDigest,
    StoreView,
    UnknownRow,
    decode_rows,
    encode_blocks,
    restore_rows,
    state_digest,
)
from impl.catalog.store import Store
from impl.catalog.table import Table, View
from impl.catalog.tables import KvEntry
from impl.catalog.tagged import KvRow, TombstoneRow
from model_checks.catalog import generated, payloads

KEYS = ["", "a", "a/", "a/b", "a/c", "ab", "b", "b/x", "c", "é", "\U0001f600"]
commands = st.one_of(
    st.builds(KvSet, st.sampled_from(KEYS), st.sampled_from([b"", b"1", b"22"]), st.integers(0, 2)),
    st.builds(KvDelete, st.sampled_from(KEYS)),
    st.builds(KvDeleteTree, st.sampled_from(KEYS[:8])),
    st.just(Noop()),
    generated.COMMANDS.map(lambda command: decode_command(payloads.encoded(command))),
)


def apply_all(store: Store, issued: list[Command], first: int = 1) -> Store:
    for index, command in enumerate(issued, first):
        store.apply(command, index)
    return store


def plain_rows(store: Store) -> list[list[object]]:
    """The rows of a state in canonical order, by the simplest program that says so."""
    tables = store.tables
    rows: list[list[object]] = [["index", "kv", store.index]]
    rows.extend(["index", name, tables.indexes[name]] for name in sorted(tables.indexes.under("")))
    rows.extend(["kv", plain(tables.entries[key])] for key in sorted(tables.entries.under("")))
    rows.extend(["tombstone", key, tables.tombstones[key]] for key in sorted(tables.tombstones.under("")))
    for name in ("node", "service", "check", "session"):
        table = getattr(tables, f"{name}s")
        rows.extend([name, plain(table[key])] for key in sorted(table.under("")))
    return rows


def plain(row: object) -> object:
    return msgspec.to_builtins(row, builtin_types=[bytes])


def read_out(view: StoreView, count: int, between: Callable[[], None] = lambda: None) -> list[Row]:
    rows: list[Row] = []
    while not view.done:
        rows.extend(view.rows(count))
        between()
    return rows


@settings(max_examples=300)
@given(st.lists(commands, max_size=30), st.lists(commands, max_size=40), st.integers(1, 4))
def test_a_view_is_the_store_as_it_was_whatever_changes_meanwhile(
    before: list[Command], meanwhile: list[Command], count: int
) -> None:
    view_is_the_store_as_it_was(before, meanwhile, count)


def view_is_the_store_as_it_was(before: list[Command], meanwhile: list[Command], count: int) -> None:
    store = apply_all(Store(), before)
    expected = plain_rows(store)
    view, pending = StoreView(store), list(enumerate(meanwhile, 1 + len(before)))

    def change() -> None:
        for index, command in pending[:3]:
            store.apply(command, index)
        del pending[:3]

    change()
    rows = read_out(view, count, change)
    assert msgspec.to_builtins(rows, builtin_types=[bytes]) == expected
    assert not any(table._views for table in vars(store.tables).values() if isinstance(table, Table))


BEFORE: list[Command] = [KvSet(key, b"1", 0) for key in KEYS]
MEANWHILE: list[Command] = [
    KvDelete("a"), KvSet("c", b"2", 0), KvSet("aa", b"new", 0), KvDeleteTree("b"), KvSet("a", b"again", 0),
    KvSet("c", b"3", 0), KvDelete("\U0001f600"), KvSet("b", b"back", 0), KvDelete("é"),
]  # fmt: skip


def save_nothing(view: View[object], key: str, old: object) -> None:
    """Changes show through."""


def save_the_latest(view: View[object], key: str, old: object) -> None:
    if view._cursor is None or key > view._cursor:
        view._saved[key] = old


def save_behind_the_cursor(view: View[object], key: str, old: object) -> None:
    view._saved.setdefault(key, old)


@pytest.mark.parametrize("mutant", [save_nothing, save_the_latest])
def test_a_view_that_does_not_save_what_changes_is_noticed(
    monkeypatch: pytest.MonkeyPatch, mutant: Callable[..., None]
) -> None:
    view_is_the_store_as_it_was(BEFORE, MEANWHILE, 2)
    monkeypatch.setattr(View, "save", mutant)
    with pytest.raises(AssertionError):
        view_is_the_store_as_it_was(BEFORE, MEANWHILE, 2)


def saved_behind_the_cursor() -> int:
    table: Table[int] = Table()
    for number in range(100):
        table.put(f"{number:03d}", number)
    view = table.view()
    view.rows(50)
    for number in range(50):
        table.put(f"{number:03d}", -1)
    return len(view._saved)


def test_what_was_handed_out_is_not_saved_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    assert saved_behind_the_cursor() == 0
    monkeypatch.setattr(View, "save", save_behind_the_cursor)
    assert saved_behind_the_cursor() == 50


def test_a_step_hands_out_a_bounded_number_of_rows_however_much_changed() -> None:
    store = apply_all(Store(), [KvSet(f"k{number:04d}", b"", 0) for number in range(2000)])
    view = StoreView(store)
    store.apply(KvDeleteTree("k0"), 3000)
    for number in range(2000):
        store.apply(KvSet(f"k{number:04d}/new", b"", 0), 3001 + number)
    sizes, steps = 0, 0
    while not view.done:
        rows = view.rows(100)
        assert len(rows) <= 200
        sizes, steps = sizes + len(rows), steps + 1
    assert sizes == 2001
    assert steps < 60


def digest_of(issued: list[Command], count: int, between: list[Command]) -> str:
    store = apply_all(Store(), issued)
    view, digest, pending = StoreView(store), StateDigest(), list(between)

    def change() -> None:
        if pending:
            store.apply(pending.pop(0), 1000 - len(pending))

    while not view.done:
        for block in encode_blocks(view.rows(count)):
            digest.add(block)
        change()
    return digest.hexdigest()


def test_the_digest_is_of_the_rows_alone_and_says_nothing_of_blocks_or_steps() -> None:
    packed = b"".join(msgspec.msgpack.encode(row) for row in plain_rows(apply_all(Store(), BEFORE + MEANWHILE)))
    expected = blake2b(packed, digest_size=16).hexdigest()
    assert {
        digest_of(BEFORE + MEANWHILE, count, between) for count in (1, 2, 7, 500) for between in ([], MEANWHILE)
    } == {expected}
    assert state_digest(apply_all(Store(), BEFORE + MEANWHILE)) == expected
    empty = blake2b(msgspec.msgpack.encode(["index", "kv", 0]), digest_size=16).hexdigest()
    assert state_digest(Store()) == empty


@pytest.mark.parametrize("rows", [1, 15, 16, 65535, 65536])
def test_the_digest_skips_the_header_of_arrays_of_every_size(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    table = [TombstoneRow("k", number) for number in range(rows)]
    expected = blake2b(b"".join(map(msgspec.msgpack.encode, table)), digest_size=16).hexdigest()

    def digest() -> str:
        whole = StateDigest()
        whole.add(snapshot.encode_rows(table))
        return whole.hexdigest()

    assert digest() == expected
    monkeypatch.setattr(snapshot, "_array_header_bytes", lambda first: 0)
    assert digest() != expected


def test_states_that_differ_in_anything_have_different_digests() -> None:
    histories: list[list[Command]] = [
        [KvSet("a", b"1", 0)],
        [KvSet("a", b"1", 1)],
        [KvSet("a", b"2", 0)],
        [KvSet("b", b"1", 0)],
        [Noop(), KvSet("a", b"1", 0)],
        [KvSet("a", b"0", 0), KvSet("a", b"1", 0)],
        [KvSet("a", b"1", 0), KvDelete("a")],
        [],
    ]
    assert len({state_digest(apply_all(Store(), history)) for history in histories}) == len(histories)


@settings(max_examples=150)
@given(st.lists(commands, max_size=40), st.integers(1, 5))
def test_the_rows_of_a_snapshot_make_the_same_state_again(issued: list[Command], count: int) -> None:
    store, again = apply_all(Store(), issued), Store()
    for block in encode_blocks(read_out(StoreView(store), count)):
        restore_rows(again, decode_rows(block))
    assert state_digest(again) == state_digest(store)
    for prefix in KEYS:
        for query in (KvList(prefix), KvKeys(prefix, "/")):
            assert answer_query(again, query) == answer_query(store, query)
    for index, command in enumerate(BEFORE + MEANWHILE, 1000):
        assert again.apply(command, index) == store.apply(command, index)
    assert state_digest(again) == state_digest(store)


def test_a_restoration_wakes_nobody() -> None:
    woken: list[str] = []
    store = Store(woken.append)
    restore_rows(store, read_out(StoreView(apply_all(Store(), BEFORE)), 10))
    assert woken == []
    assert len(store) == len(KEYS)


def test_large_values_make_blocks_of_their_own() -> None:
    rows = [
        KvRow(KvEntry(f"k{number}", 0, bytes(size), 1, 1)) for number, size in enumerate([10, BLOCK_BYTES, 10, 10, 5])
    ]
    blocks = encode_blocks(rows)
    assert [len(decode_rows(block)) for block in blocks] == [2, 3]
    assert [row for block in blocks for row in decode_rows(block)] == rows
    assert encode_blocks([]) == []


@pytest.mark.parametrize("block", [b"", b"\x91\xa1x", msgspec.msgpack.encode([["session", "x"]]), b"\xc1"])
def test_a_row_of_a_newer_version_is_named_and_not_skipped(block: bytes) -> None:
    with pytest.raises(UnknownRow, match="run the version that wrote it"):
        decode_rows(block)
