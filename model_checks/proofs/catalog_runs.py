"""Runs of the catalog from the initial state: what its mutants break, and what it can do (as in `bounded`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from model_checks.proofs.algebra import Symbols, Value
from model_checks.proofs.bounded import Scenario
from model_checks.proofs.catalog_lemmas import read
from model_checks.proofs.finite import FiniteAlgebra, Sizes

SIZES: Final = Sizes(nodes=2, terms=1, indexes=4, values=2, messages=1, reads=1, rounds=1, times=1)
"""Two of everything that a catalog speaks of; entries up to the third."""

RUN_SIZES: Final = Sizes(
    nodes=1, terms=1, indexes=3, values=2, messages=1, reads=1, rounds=1, times=1, keys=1, instances=1, checks=1
)

SESSION: Final = ("put_node", "create_session")
CHECKED: Final = ("put_node", "put_check", "create_session")
SERVED: Final = ("put_node", "put_instance")


def _scenario(theorem: str, *actions: str) -> Scenario:
    return Scenario(actions, RUN_SIZES, theorem)


_REFERENCES: Final = "references_exist"
_LOCKS: Final = "only_sessions_hold_locks"
_HEALTH: Final = "health_change_is_announced"

VIOLATIONS: Final[Mapping[str, Scenario]] = {
    "session_end_keeps_lock": _scenario(_LOCKS, "begin", *SESSION, "lock", "end_session", "commit"),
    "lock_while_held": _scenario(
        "a_lock_has_one_holder", "begin", *SESSION, "create_session", "lock", "lock", "commit"
    ),
    "lock_robs": _scenario("nobody_is_robbed", "begin", *SESSION, "create_session", "lock", "lock"),
    "lock_without_session": _scenario(_LOCKS, "begin", "lock", "commit"),
    "lock_index_kept": _scenario(
        "holds_are_numbered",
        *("begin", *SESSION, "create_session", "lock", "commit"),
        *("begin", "release", "lock", "commit"),
    ),
    "node_leaves_instances": _scenario(_REFERENCES, "begin", *SERVED, "delete_node", "commit"),
    "node_leaves_checks": _scenario(_REFERENCES, "begin", "put_node", "put_check", "delete_node", "commit"),
    "node_leaves_sessions": _scenario(_REFERENCES, "begin", *SESSION, "delete_node", "commit"),
    "instance_leaves_checks": _scenario(_REFERENCES, "begin", *SERVED, "put_check", "delete_instance", "commit"),
    "instance_without_node": _scenario(_REFERENCES, "begin", "put_instance", "commit"),
    "check_leaves_session": _scenario(_REFERENCES, "begin", *CHECKED, "delete_check", "commit"),
    "critical_leaves_session": _scenario(_REFERENCES, "begin", *CHECKED, "put_check", "commit"),
    "session_on_critical": _scenario(_REFERENCES, "begin", *CHECKED, "commit"),
    "changed_set_keeps_index": _scenario(
        "key_change_is_announced", "begin", "set_key", "commit", "begin", "set_key", "commit"
    ),
    "unchanged_set_moves_index": _scenario(
        "unchanged_moves_no_index", "begin", "set_key", "commit", "begin", "set_key"
    ),
    "set_keeps_table_index": _scenario("indexes_are_ordered", "begin", "set_key", "commit"),
    "release_takes_index_back": Scenario(
        ("begin", *SESSION, "lock", "commit", "begin", "set_key", "commit", "begin", "release", "commit"),
        replace(RUN_SIZES, indexes=4),
        "key_index_never_goes_back",
    ),
    "session_end_not_announced": _scenario(
        "list_change_is_announced", "begin", *SESSION, "commit", "begin", "end_session", "commit"
    ),
    "deletion_keeps_index": _scenario(
        "key_change_is_announced", "begin", "set_key", "commit", "begin", "delete_key", "commit"
    ),
    "deletion_forgets_tombstone": _scenario(
        "deletions_are_remembered", "begin", "set_key", "commit", "begin", "delete_key", "commit"
    ),
    "health_not_announced": _scenario(_HEALTH, "begin", *SERVED, "commit", "begin", "put_check", "commit"),
    "node_not_announced": _scenario(_HEALTH, "begin", *SERVED, "commit", "begin", "put_node", "commit"),
    "instance_not_announced": _scenario(
        "node_change_is_announced", "begin", "put_node", "commit", "begin", "put_instance", "commit"
    ),
    "departure_not_announced": Scenario(
        (
            *("begin", *SERVED, "commit", "begin", "delete_instance", "put_instance", "commit"),
            *("begin", "delete_instance", "commit"),
        ),
        replace(RUN_SIZES, indexes=4),
        _HEALTH,
    ),
    "refused_keeps_effects": _scenario("refused_changes_nothing", "begin", "set_key", "refuse"),
    "operation_seen": _scenario("commands_are_atomic", "begin", "set_key"),
    "restore_forgets_sessions": _scenario(_LOCKS, "begin", *SESSION, "lock", "commit", "take_snapshot", "restore"),
    "restore_stays_behind": _scenario("indexes_are_ordered", "restore"),
    "restore_goes_back": _scenario("entries_are_applied_in_order", "begin", "commit", "take_snapshot", "restore"),
}
"""For each mutant a run that breaks a theorem."""

WITNESS: Final = Scenario(
    (
        *("begin", *SERVED, "put_check", "create_session", "lock", "commit", "take_snapshot"),
        *("begin", "release", "end_session", "touch_service", "put_check", "commit"),
        *("begin", "touch_service", "delete_check", "delete_instance", "delete_key", "delete_node", "refuse"),
        "restore",
    ),
    replace(RUN_SIZES, indexes=5),
)
"""A session holds a key, a check becomes critical and ends it; an entry is refused; the snapshot is restored."""


def witnessed(a: FiniteAlgebra, s: Symbols) -> Value:
    """The end of `WITNESS`: the lock is held again, by a session that rests on the check of an instance."""
    t = read(a, s)
    return a.conj(t.holds(0, 0), t.session(0), a.rigid.asks(t.terms(0), 0), t.of_instance(0), s.applied() == 4)


def eventful(a: FiniteAlgebra, s: Symbols) -> Value:
    """A key is held, another was deleted, a session rests on a check."""
    return a.conj(s.holds(0, 0), s.tombstone(1), s.session(1), a.rigid.asks(s.terms(1), 1))
