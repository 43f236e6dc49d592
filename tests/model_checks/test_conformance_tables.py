"""The catalog that a real log built satisfies what is proved of catalogs; what it costs is bounded."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from model_checks.catalog.random_logs import random_log
from model_checks.conformance import check_traces
from model_checks.conformance.spec_nodes import Lines
from model_checks.conformance.spec_runs import written
from model_checks.conformance.tables import LOOKS_MAX, Tables
from model_checks.verdicts import Verdict
from spec.catalog import kv, registry, sessions
from spec.catalog.commands import Command, CreateSession, Deregister, DestroySession, Lock, Noop, Register, Set
from spec.catalog.state import Check, Index, Node, Row, Service, Session, State, Status, initial_state
from spec.catalog.transitions import apply
from tests.model_checks.catalog_mutants import keeps_lock_index, keeps_locks, nobody, robs, unchanged


def looked_at(log: Iterable[Command], entries: int) -> Tables:
    tables, state = Tables(entries), initial_state()
    for index, command in enumerate(log, 1):
        before, (state, _) = state, apply(state, command, index)
        tables.applied(before, command, index, state)
    return tables


def test_the_tables_of_a_random_log_are_as_proved() -> None:
    tables = looked_at(random_log(7, 300), 300)
    assert tables.broken is None
    assert tables.looks > LOOKS_MAX


def test_a_longer_log_is_looked_at_as_often() -> None:
    few = looked_at((Set(f"k{n % 7}", b"%d" % n) for n in range(1_000)), 1_000)
    many = looked_at((Set(f"k{n % 7}", b"%d" % n) for n in range(10_000)), 10_000)
    assert few.looks == many.looks == LOOKS_MAX


def same_index(state: State, row: Row, index: Index) -> State:
    old = state.rows.get(row.key)
    kept = row if old is None else replace(row, modify_index=old.modify_index)
    return replace(state, rows=state.rows.put(row.key, kept), rows_index=index)


ALIVE = Check("n1", "alive", status=Status.PASSING)
WEB = Register(Node("n1", "1"), Service("n1", "x", "web"), (ALIVE,))
SESSION = Session("s", "n1", node_checks=("alive",))
HELD: tuple[Command, ...] = (Noop(), WEB, CreateSession(SESSION), Lock("k", b"1", 0, "s"))
OTHER: tuple[Command, ...] = (CreateSession(replace(SESSION, id="t")), Lock("k", b"1", 0, "t"))

MUTANTS: tuple[tuple[Any, str, Callable[..., Any], str, tuple[Command, ...]], ...] = (
    (kv, "stored", same_index, "change_is_announced", (Noop(), Set("k", b"1"), Set("k", b"2"))),
    (sessions, "end", keeps_locks, "only_sessions_hold_locks", (*HELD, DestroySession("s"))),
    (sessions, "of_check", nobody, "references_exist", (*HELD, Deregister("n1", check_id="alive"))),
    (registry, "announced", unchanged, "indexes_are_ordered", (Noop(), WEB)),
    (registry, "health_touched", unchanged, "change_is_announced", (Noop(), WEB, Deregister("n1", check_id="alive"))),
    (kv, "lock", robs, "nobody_is_robbed", (*HELD, *OTHER)),
    (kv, "lock", keeps_lock_index, "holds_are_numbered", (*HELD, DestroySession("s"), *OTHER)),
)
"""A function of the spec, another in its place, the property that breaks, a log."""


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant[1]}-{mutant[3]}")
def test_tables_that_are_not_as_proved_are_noticed(
    monkeypatch: pytest.MonkeyPatch, mutant: tuple[Any, str, Callable[..., Any], str, tuple[Command, ...]]
) -> None:
    module, name, broken, property_name, log = mutant
    assert looked_at(log, len(log)).broken is None
    monkeypatch.setattr(module, name, broken)
    found = looked_at(log, len(log)).broken
    assert found is not None
    assert found.property == property_name


def test_the_tables_of_a_run_are_looked_at(good_run: Lines, tmp_path: Path) -> None:
    results = {result.checker: result for result in check_traces(written(good_run, tmp_path))}
    assert results["conformance/invariants"].figures["catalog_cuts"] > 20


def test_tables_of_a_run_that_are_not_as_proved_are_noticed(
    good_run: Lines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The replay's own catalog is broken: an update of a key moves no index."""
    monkeypatch.setattr(kv, "stored", same_index)
    results = {result.checker: result for result in check_traces(written(good_run, tmp_path))}
    found = results["conformance/invariants"]
    assert (found.verdict, found.property) == (Verdict.INVALID, "change_is_announced")
    assert "not after entry" in found.reason and "Set" in found.reason
