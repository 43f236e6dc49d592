"""The proof of the catalog, for any number of keys, sessions, nodes, instances and checks; equal replicas of one log.

What is proved has a mutant for each guard: a counterexample to induction at a named obligation, and a run.
"""

from __future__ import annotations

import pytest

from model_checks.proofs import bounded, catalog_runs, catalog_signature, cti, lockstep, replicas, sanity
from model_checks.proofs import selection as selections
from model_checks.proofs.algebra import Symbols, Value
from model_checks.proofs.catalog_theorems import CATALOG
from model_checks.proofs.finite import FiniteAlgebra
from model_checks.proofs.obligations import Obligation, obligations
from model_checks.proofs.prover import Portfolio, prove
from model_checks.proofs.report import Report, outside, status, verdict
from model_checks.proofs.run import prove_systems
from model_checks.proofs.systems import named
from model_checks.verdicts import Verdict
from spec.catalog import invariants, properties

SYSTEMS = ("catalog", "lockstep", "replicas")

BROKEN = {
    ("catalog", "session_end_keeps_lock"): "end_session/held_keys",
    ("catalog", "lock_while_held"): "lock/one_holder",
    ("catalog", "lock_robs"): "lock/nobody_is_robbed",
    ("catalog", "lock_without_session"): "lock/held_keys",
    ("catalog", "lock_index_kept"): "lock/holds_numbered",
    ("catalog", "node_leaves_instances"): "delete_node/nodes_exist",
    ("catalog", "node_leaves_checks"): "delete_node/nodes_exist",
    ("catalog", "node_leaves_sessions"): "delete_node/session_nodes",
    ("catalog", "instance_leaves_checks"): "delete_instance/instances_exist",
    ("catalog", "instance_without_node"): "put_instance/nodes_exist",
    ("catalog", "check_leaves_session"): "delete_check/sessions_rest",
    ("catalog", "critical_leaves_session"): "put_check/sessions_rest",
    ("catalog", "session_on_critical"): "create_session/sessions_rest",
    ("catalog", "changed_set_keeps_index"): "set_key/keys_changed",
    ("catalog", "unchanged_set_moves_index"): "set_key/unchanged_moves_no_index",
    ("catalog", "set_keeps_table_index"): "set_key/row_indexes",
    ("catalog", "release_takes_index_back"): "release/keys_changed",
    ("catalog", "session_end_not_announced"): "end_session/tables_changed",
    ("catalog", "deletion_keeps_index"): "delete_key/keys_changed",
    ("catalog", "deletion_forgets_tombstone"): "delete_key/keys_buried",
    ("catalog", "health_not_announced"): "put_check/checks_changed",
    ("catalog", "node_not_announced"): "put_node/nodes_changed",
    ("catalog", "instance_not_announced"): "put_instance/nodes_told",
    ("catalog", "departure_not_announced"): "delete_instance/instances_changed",
    ("catalog", "refused_keeps_effects"): "refuse/nothing_between",
    ("catalog", "operation_seen"): "set_key/commands_are_atomic",
    ("catalog", "restore_forgets_sessions"): "restore/held_keys",
    ("catalog", "restore_stays_behind"): "restore/bounded_indexes",
    ("catalog", "restore_goes_back"): "restore/entries_are_applied_in_order",
    ("lockstep", "lock_delay_in_apply"): "lock/replicas_equal",
    ("replicas", "apply_depends_on_replica"): "apply/states_of_the_log",
    ("replicas", "install_forgets_sessions"): "install/states_of_the_log",
    ("replicas", "install_keeps_index"): "install/states_of_the_log",
    ("replicas", "snapshot_of_another_index"): "take_snapshot/snapshots_of_the_log",
}
"""For each mutant an obligation that the model satisfies and the mutant does not."""

PROMISED = {theorem.name for theorem in CATALOG.theorems} | {change.name for change in CATALOG.changes}


def portfolio(name: str, mutant: str | None = None) -> Portfolio:
    examined = named(name)
    return Portfolio(selections.load(examined.system, examined.selection), mutant=mutant, system=name)


def obligation(name: str, key: str) -> Obligation:
    return {each.key: each for each in obligations(named(name).system)}[key]


@pytest.fixture(scope="module")
def proved() -> Report:
    return prove_systems([portfolio(name) for name in SYSTEMS], jobs=2)


@pytest.mark.timeout(300)
def test_every_theorem_holds_for_any_number_of_keys_sessions_nodes_and_replicas(proved: Report) -> None:
    for findings in proved.systems:
        assert findings.unproved == []
        assert findings.witness
        assert findings.unreachable == ()
        assert set(status(findings).values()) == {"UNBOUNDED"}
        assert verdict(findings) == (Verdict.VALID, "")


def test_the_theorems_are_the_readable_specs_properties() -> None:
    of_states = {"references_exist", "only_sessions_hold_locks", "indexes_are_ordered"}
    of_steps = {"holds_are_numbered", "nobody_is_robbed", "key_index_never_goes_back"}
    assert all(callable(getattr(invariants, name)) for name in of_states)
    assert all(callable(getattr(properties, name)) for name in of_steps)
    assert of_states | of_steps <= PROMISED


def test_what_replicas_take_for_granted_is_proved_of_other_systems() -> None:
    for theorem in named("replicas").assumed:
        system, _, name = theorem.partition("/")
        assert name in {each.name for each in named(system).system.theorems}


@pytest.mark.timeout(300)
def test_what_z3_does_not_check_is_said(proved: Report) -> None:
    said = "\n".join(outside(proved))
    for words in ("begins and ends whole", "restores a snapshot", "function of the tables", "state_machine_safety"):
        assert words in said


def test_every_mutant_is_examined() -> None:
    known = {(name, mutant) for name in SYSTEMS for mutant in named(name).mutants}
    assert known == set(BROKEN) == {(name, mutant) for name in SYSTEMS for mutant in named(name).violations}


@pytest.mark.parametrize(("name", "mutant"), sorted(BROKEN))
def test_a_weakened_catalog_is_not_proved(name: str, mutant: str) -> None:
    system, broken, sizes = named(name).system, obligation(name, BROKEN[name, mutant]), named(name).sizes
    assert prove(system, broken, portfolio(name)).proved
    found = cti.find(system, broken, mutant, sizes)
    assert found is not None
    assert found.text.startswith(broken.subject)


@pytest.mark.parametrize(("name", "mutant"), sorted(BROKEN))
def test_a_weakened_catalog_breaks_a_theorem_from_the_initial_state(name: str, mutant: str) -> None:
    system, scenario = named(name).violations[mutant]
    run = bounded.search(system, scenario, mutant)
    assert run is not None
    assert len(run.lines) == len(scenario.actions)
    assert bounded.search(system, scenario) is None, "the catalog itself must keep its promise"


def test_every_theorem_of_the_catalog_is_broken_by_a_mutant() -> None:
    broken = {scenario.theorem for scenario in catalog_runs.VIOLATIONS.values()}
    assert broken == PROMISED


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_lemmas_allow_every_action(name: str) -> None:
    examined = named(name)
    assert sanity.unreachable(examined.system, examined.sanity_sizes, event=examined.eventful) == ()


def test_lemmas_that_forbid_an_action_are_noticed() -> None:
    def nobody_lives(a: FiniteAlgebra, s: Symbols) -> Value:
        return a.conj(*(a.neg(s.session(x)) for x in range(catalog_runs.SIZES.sessions)))

    def anything(a: FiniteAlgebra, s: Symbols) -> Value:
        return True

    impossible = sanity.unreachable(CATALOG, catalog_runs.SIZES, nobody_lives, anything)
    assert {"lock", "end_session"} <= set(impossible)


@pytest.mark.parametrize(
    ("name", "lemma"), [(name, lemma.name) for name in SYSTEMS for lemma in named(name).system.lemmas]
)
def test_every_lemma_of_the_catalog_is_needed(name: str, lemma: str) -> None:
    examined = named(name)
    needed_by = selections.load(examined.system, examined.selection).needed_by
    assert sanity.still_needed(examined.system, needed_by[lemma], lemma, examined.need_sizes)


def test_a_restored_snapshot_has_the_lock_and_its_session_again() -> None:
    run = named("catalog").possible()
    assert run is not None
    steps = [line.split()[1].partition("(")[0] for line in run.lines]
    assert steps.index("end_session") < steps.index("refuse") < steps.index("restore")
    shorter = bounded.Scenario(catalog_runs.WITNESS.actions[:-1], catalog_runs.WITNESS.sizes)
    assert bounded.search(CATALOG, shorter, ending=catalog_runs.witnessed) is None


def test_clocks_alone_may_differ_in_two_replicas() -> None:
    assert {"delayed"} == lockstep.LOCAL
    assert (
        set(catalog_signature.SIGNATURE) - lockstep.LOCAL
        == {name.removeprefix("left_") for name in lockstep.SIGNATURE if name.startswith("left_")} - lockstep.LOCAL
    )
    assert replicas.ASSUMED.keys() == {"whole/state_machine_safety", "lockstep/equal_steps_equal_tables"}
