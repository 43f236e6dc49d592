"""Every command of the readable catalog is an entry of the relational model; a broken catalog is rejected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from model_checks.catalog.generated import COMMANDS, restore_of, state_after
from model_checks.catalog.random_logs import random_log
from model_checks.linking import catalog
from model_checks.linking.catalog import Linked, link_log, link_logs
from model_checks.linking.command import command
from model_checks.verdicts import Verdict
from spec.catalog import kv, registry, restore, sessions, transactions
from spec.catalog.commands import (
    Command,
    CreateSession,
    Delete,
    DeleteTree,
    Deregister,
    DestroySession,
    KvOperation,
    KvVerb,
    Lock,
    Noop,
    Register,
    Set,
    Transaction,
    Unlock,
)
from spec.catalog.restore import rows_of
from spec.catalog.state import Check, Index, Node, Row, Service, Session, State, Status, TableIndex, initial_state
from spec.catalog.transactions import Outcome
from tests.model_checks.catalog_mutants import keeps_lock_index, keeps_locks, nobody, robs, unchanged

ALIVE = Check("n1", "alive", status=Status.PASSING)
WEB = Register(Node("n1", "1"), Service("n1", "x", "web"), (ALIVE, Check("n1", "c", service_id="x")))
SESSION = Session("s", "n1", node_checks=("alive",))
HELD: tuple[Command, ...] = (WEB, CreateSession(SESSION), Lock("k", b"1", 0, "s"))
OTHER = CreateSession(replace(SESSION, id="t", node_checks=()))


def linked(log: tuple[Command, ...]) -> Linked:
    found = Linked()
    link_log(log, found)
    return found


def test_every_command_of_random_logs_is_linked_and_every_action_of_the_model_used() -> None:
    checked = link_logs(random_log(seed, 100, restores=True) for seed in range(15))
    assert checked.verdict is Verdict.VALID, checked.details
    assert checked.figures["linked"] == 1500


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(COMMANDS, max_size=20))
def test_every_command_that_is_drawn_is_linked(log: list[Command]) -> None:
    assert not linked(tuple(log)).rejected


def test_a_node_that_is_deregistered_takes_everything_with_it_row_by_row() -> None:
    found = linked((*HELD, Deregister("n1")))
    assert not found.rejected
    ended = ("release", "end_session", "delete_check", "delete_instance", "delete_node")
    assert all(found.steps[action] for action in ended)


def test_a_tree_is_deleted_under_the_tombstone_of_its_prefix() -> None:
    assert not linked((Set("a/1", b""), Set("a/2", b""), DeleteTree("a/"), Set("a/1", b""), DeleteTree(""))).rejected


ELSEWHERE = restore_of(rows_of(state_after([*HELD], 500)))
"""The archive of a catalog whose log is longer."""


def test_an_archive_of_another_catalog_is_restored_and_later_entries_have_greater_indexes() -> None:
    found = linked((Noop(), *ELSEWHERE, Set("k", b"2"), Deregister("n1"), *restore_of(rows_of(initial_state()))))
    assert not found.rejected
    assert found.steps["restore"] == 2 and found.steps["delete_node"] == 1


def test_an_archive_that_no_catalog_could_have_written_is_not_linked() -> None:
    """The spec takes it: nothing relies on it that a service has an index of its own."""
    rows = tuple(row for row in rows_of(state_after([*HELD])) if row != TableIndex("service.web", 1))
    (why,) = linked((Noop(), *restore_of(rows))).rejected
    assert "the archive is not of a catalog: members" in why


def test_what_was_never_used_of_the_model_makes_the_link_unknown() -> None:
    checked = link_logs([HELD])
    assert checked.verdict is Verdict.UNKNOWN
    assert "move_instance" in checked.reason


# ------------------------------------------------------------------------------------------------------------- mutants


def always_new(state: State, row: Row, index: Index) -> State:
    return replace(state, rows=state.rows.put(row.key, replace(row, modify_index=index)), rows_index=index)


def same_index(state: State, row: Row, index: Index) -> State:
    return replace(state, rows=state.rows.put(row.key, row), rows_index=index)


def without_tombstone(state: State, key: str, index: Index) -> State:
    return replace(state, rows=state.rows.without(key), rows_index=index)


def keeps_effects(state: State, transaction: Transaction, index: Index) -> tuple[State, Outcome]:
    for operation in transaction.operations:
        try:
            state, _ = transactions.step(state, operation, index)
        except kv.Invalid as invalid:
            return state, Outcome(errors=(transactions.OperationError(0, str(invalid)),))
    return state, Outcome()


commit = restore.commit


def without_sessions(state: State, id: str, chunks: int, index: Index) -> State:
    return replace(commit(state, id, chunks, index), sessions=initial_state().sessions)


def without_shift(state: State, id: str, chunks: int, index: Index) -> State:
    return replace(commit(state, id, chunks, index), shift=state.shift)


def no_checks(*_: object) -> tuple[Check, ...]:
    return ()


FAILING = Transaction((KvOperation(KvVerb.SET, "a", b"1"), KvOperation(KvVerb.GET, "none")))
CRITICAL = Register(Node("n1", "1"), None, (replace(ALIVE, status=Status.CRITICAL),))

MUTANTS: tuple[tuple[Any, str, Callable[..., Any], str, tuple[Command, ...]], ...] = (
    (sessions, "end", keeps_locks, "end_session", (*HELD, DestroySession("s"))),
    (sessions, "of_check", nobody, "delete_check", (*HELD, Deregister("n1", check_id="alive"))),
    (sessions, "of_check", nobody, "put_check", (*HELD, CRITICAL)),
    (sessions, "of_node", nobody, "delete_check", (*HELD, Deregister("n1"))),
    (sessions, "of_node", nobody, "delete_node", (WEB, OTHER, Deregister("n1"))),
    (registry, "checks_of", no_checks, "delete_instance", (WEB, Deregister("n1", service_id="x"))),
    (registry, "health_touched", unchanged, "put_check", (WEB, CRITICAL)),
    (registry, "services_touched", unchanged, "put_node", (WEB, Register(Node("n1", "2")))),
    (registry, "left", unchanged, "populated", (WEB, Deregister("n1", service_id="x"))),
    (registry, "announced", unchanged, "service", (WEB,)),
    (kv, "lock", robs, "lock", (*HELD, OTHER, Lock("k", b"1", 0, "t"))),
    (kv, "lock", keeps_lock_index, "lock", (*HELD, Unlock("k", b"1", 0, "s"), Lock("k", b"1", 0, "s"))),
    (kv, "stored", always_new, "modify", (Set("k", b"1"), Set("k", b"1"))),
    (kv, "stored", same_index, "modify", (Set("k", b"1"), Set("k", b"2"))),
    (kv, "delete_row", without_tombstone, "tombstone", (Set("k", b"1"), Delete("k"))),
    (restore, "commit", without_sessions, "session", (Noop(), *ELSEWHERE)),
    (restore, "commit", without_shift, "restore", (Noop(), *ELSEWHERE)),
    (transactions, "run", keeps_effects, "row", (FAILING,)),
)
"""A function of the spec, another in its place, what the link says of, and a log."""


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant[1]}-{mutant[2].__name__}-{mutant[3]}")
def test_a_broken_catalog_is_rejected(
    monkeypatch: pytest.MonkeyPatch, mutant: tuple[Any, str, Callable[..., Any], str, tuple[Command, ...]]
) -> None:
    module, name, broken, said, log = mutant
    assert not linked(log).rejected
    monkeypatch.setattr(module, name, broken)
    (why,) = linked(log).rejected
    assert f"guard of {said}(" in why or f": {said}" in why or f": kept_{said}" in why, why


def test_a_claim_of_too_little_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is claimed is looked at: without its operations a command is no stutter."""
    monkeypatch.setattr(catalog, "planned", lambda *_: iter(()))
    (why,) = linked((Set("k", b"1"),)).rejected
    assert "row('k') is None in the model, True in the spec" in why


def test_the_command_links_logs_from_a_seed() -> None:
    arguments = ["--spec", "catalog", "--seed", "3", "--commands", "1500", "--json"]
    result = CliRunner().invoke(command, arguments, standalone_mode=False)
    assert result.return_value == 0
    assert '"verdict":"VALID"' in result.output
    assert "seeds 3 to 17" in result.output
