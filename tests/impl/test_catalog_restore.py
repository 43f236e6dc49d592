"""Restores in the state store: what is staged travels in snapshots, what is replaced is freed in pieces, and archives
hold the state in force alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings

from impl.catalog import snapshot
from impl.catalog.commands import Command, KvSet, Register, RestoreBegin, RestoreChunk, RestoreCommit, decode_command
from impl.catalog.restore import Staging
from impl.catalog.rows import Check, Node, Service
from impl.catalog.snapshot import StoreView, decode_rows, encode_blocks, restore_rows, state_digest
from impl.catalog.store import Store
from impl.catalog.tables import Tables
from impl.catalog.tagged import IndexRow
from model_checks.catalog import payloads
from model_checks.catalog.generated import LOGS, restore_of, state_after
from spec.catalog import commands as asked
from spec.catalog import state
from spec.catalog.restore import rows_of


def rows_in(store: Store, *, archive: bool = False) -> list[Any]:
    view, rows = StoreView(store, archive=archive), list[Any]()
    while not view.done:
        rows += view.rows()
    return rows


def copied(store: Store) -> Store:
    """The store as a server has it that installed a snapshot of it."""
    again = Store()
    for block in encode_blocks(rows_in(store)):
        restore_rows(again, decode_rows(block))
    return again


def whoever_installs_a_snapshot_agrees(log: list[asked.Command]) -> None:
    plain = [decode_command(payloads.encoded(command)) for command in log]
    whole, copies = Store(), dict[int, Store]()
    for index, command in enumerate(plain, 1):
        copies[index] = copied(whole)
        told = whole.apply(command, index)
        assert {str(copy.apply(command, index)) for copy in copies.values()} == {str(told)}
        digests = {state_digest(copy) for copy in copies.values()}
        assert digests == {state_digest(whole)}, f"after {command}"


@settings(max_examples=60, deadline=None, derandomize=True)
@given(LOGS)
def test_a_server_that_installs_a_snapshot_in_the_middle_of_a_restore_agrees_with_all_others(
    log: list[asked.Command],
) -> None:
    whoever_installs_a_snapshot_agrees(log[:25])


ARCHIVED = rows_of(
    state_after(
        [asked.Register(state.Node("n1", "1"), state.Service("n1", "x", "web")), asked.Set("a", b"1")],
        first=70,
    )
)
RESTORE = [asked.Set("old", b"1"), *restore_of(ARCHIVED), asked.Set("new", b"2")]


def forgets_chunks(id: str, chunks: int = 0) -> Staging:
    return Staging(id)


@pytest.mark.parametrize(
    ("name", "mutant"),
    [("Staging", forgets_chunks), ("ShiftRow", lambda value: IndexRow("shifted", value))],
    ids=["chunks", "shift"],
)
def test_a_snapshot_that_forgets_some_of_it_is_noticed(
    monkeypatch: pytest.MonkeyPatch, name: str, mutant: Callable[..., Any]
) -> None:
    whoever_installs_a_snapshot_agrees(RESTORE)
    monkeypatch.setattr(snapshot, name, mutant)
    with pytest.raises((AssertionError, TypeError)):
        whoever_installs_a_snapshot_agrees(RESTORE)


def test_an_archive_holds_the_state_in_force_and_nothing_of_restores() -> None:
    store = Store()
    for index, command in enumerate(RESTORE[:-1], 1):
        before = state_digest(store, archive=True)
        store.apply(decode_command(payloads.encoded(command)), index)
        kinds = {row.__struct_config__.tag for row in rows_in(store, archive=True)}
        assert not kinds & {"shift", "staging"}
        if isinstance(command, asked.RestoreBegin | asked.RestoreChunk):
            assert state_digest(store, archive=True) == before
    assert store.tables.shift and [payloads.archived_fields(row) for row in ARCHIVED] == plain(
        rows_in(store, archive=True)
    )
    assert "shift" in {row.__struct_config__.tag for row in rows_in(store)}


def plain(rows: list[Any]) -> list[Any]:
    found: list[Any] = msgspec.msgpack.decode(msgspec.msgpack.encode(rows))
    return found


def large(count: int) -> Store:
    store = Store()
    for number in range(count):
        node = f"n{number % 50}"
        store.apply(
            Register(Node(node, "1"), Service(node, f"i{number}", "web"), (Check(node, f"c{number}"),)), 1 + number
        )
        store.apply(KvSet(f"k{number}", b"", 0), 1 + number)
    return store


def restore_into(store: Store, archived: Store, index: int) -> None:
    rows = tuple(rows_in(archived, archive=True))
    commands: list[Command] = [RestoreBegin("r"), RestoreChunk("r", 1, rows), RestoreCommit("r", 1)]
    for position, command in enumerate(commands):
        assert store.apply(command, index + position) is True


def test_a_view_of_what_is_replaced_stands_still() -> None:
    store = large(300)
    expected, view, rows = rows_in(store), StoreView(store), list[Any]()
    rows += [row for _ in range(4) for row in view.rows(20)]
    restore_into(store, large(10), 1000)
    store.apply(KvSet("k5", b"changed", 0), 1100)
    while not view.done:
        rows += view.rows(20)
    assert rows == expected


def test_who_waits_is_told_and_what_is_replaced_is_freed_in_pieces() -> None:
    told: list[str] = []
    retired: list[Tables] = []
    store = Store(replaced=lambda: told.append("replaced"), retired=retired.append)
    for row in rows_in(large(300), archive=True):
        restore_rows(store, [row])
    restore_into(store, large(10), 1000)
    assert told == ["replaced"] and len(retired) == 1
    old, steps = retired[0], 0
    assert (len(old.entries), len(old.checks), len(old.services)) == (300, 300, 300)
    while old.release(50):
        steps += 1
    assert 18 < steps < 30
    assert not any(len(getattr(old, name)) for name in ("entries", "nodes", "services", "checks", "indexes"))
    assert not old.checks.has_group("status", "critical")
    assert len(store.tables.checks) == 10, "what is in force is not touched"


def test_a_restore_that_is_given_up_is_freed_too_and_wakes_nobody() -> None:
    told: list[str] = []
    retired: list[Tables] = []
    store = Store(replaced=lambda: told.append("replaced"), retired=retired.append)
    store.apply(RestoreBegin("r"), 1)
    assert retired == []
    store.apply(RestoreChunk("r", 1, tuple(rows_in(large(10), archive=True))), 2)
    store.apply(RestoreBegin(""), 3)
    assert [len(each.services) for each in retired] == [10] and told == []
    assert state_digest(store) == state_digest(Store())
