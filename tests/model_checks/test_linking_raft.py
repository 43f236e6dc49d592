"""The readable spec is linked to the relational model, step by step; broken specs are not."""

from __future__ import annotations

import json
from dataclasses import replace as dataclass_replace

import pytest
import z3
from click.testing import CliRunner
from msgspec.structs import replace

from model_checks.explore.starts import STARTS, scripted_steps
from model_checks.linking.claims import claims
from model_checks.linking.command import command, judged, unestablished
from model_checks.linking.concrete import Rejected, Slice
from model_checks.linking.link import link
from model_checks.linking.polarity import negative_mentions
from model_checks.linking.report import link_transitions
from model_checks.proofs import unbounded
from model_checks.proofs.algebra import Algebra, Sort, Symbols, Value, action
from model_checks.proofs.algebra import Transition as ModelTransition
from model_checks.proofs.model import NODE, inside
from model_checks.proofs.whole import WHOLE
from model_checks.verdicts import CheckResult, Verdict
from spec.raft.actions import ACTIONS, CLOCKED, initial_server
from spec.raft.bounds import Bounds
from spec.raft.log import log_of
from spec.raft.messages import AppendEntriesRequest
from spec.raft.network import Transition, transition
from spec.raft.types import Entry, Outcome, Point, Role, Server, Write

THREE = Bounds().constants()


def test_the_scripted_starts_of_exploration_are_linked_too() -> None:
    """Claims hold by induction from the initial state: so the steps that lead to a seeded start count, too."""
    for start in STARTS:
        constants, steps = scripted_steps(start)
        checked = link_transitions([(constants, steps)])
        assert checked.verdict is (Verdict.VALID if steps else Verdict.UNKNOWN)
        assert start == "initial" or len(steps) > 20


def test_a_state_that_no_linked_step_leads_to_makes_the_result_unknown() -> None:
    constants, steps = scripted_steps("elected")
    assert unestablished([(constants, list(steps))]) == 0
    beheaded = [step for step in steps if step.action != "become_leader"]
    assert unestablished([(constants, beheaded)]) > 0
    assumed = CheckResult(checker="link", verdict=Verdict.VALID, figures={"unestablished": 1, "by_model_action": {}})
    assert judged(assumed, whole=False).verdict is Verdict.UNKNOWN


def test_the_initial_state_claims_nothing() -> None:
    assert list(claims("s1", initial_server())) == []


# ---------------------------------------------------------------------------------------------- one step at a time


def take(s: Server, name: str, *arguments: object, i: str = "s1") -> Transition:
    found = transition(ACTIONS, THREE, i, s, name, *arguments, *((0,) if name in CLOCKED else ()))
    assert found is not None
    return found


def follower(term: int, log: tuple[Entry, ...] = ()) -> Server:
    return replace(initial_server(), durable=Point(term, None, log_of(log)))


def leader() -> Server:
    """s1 leads term 1 by the vote of s2, with one entry that its disk does not hold yet."""
    s = initial_server()
    for name, *arguments in (("timeout",), ("persist", 1)):
        s = take(s, name, *arguments).after
    s = replace(s, votes=("s2",))
    s = take(s, "become_leader").after
    return take(s, "client_request", "x").after


def test_a_timeout_that_only_issues_its_vote_decides_it() -> None:
    assert [do.action for do in link(THREE, take(initial_server(), "timeout"))] == ["decide_vote"]


def test_a_vote_happens_in_the_model_when_it_reaches_the_disk() -> None:
    candidate = take(initial_server(), "timeout").after
    assert [do.action for do in link(THREE, take(candidate, "persist", 1))] == ["timeout"]


def test_a_crash_that_kept_a_write_is_that_write_and_the_loss_of_the_role() -> None:
    candidate = take(initial_server(), "timeout").after
    assert [do.action for do in link(THREE, take(candidate, "crash_restart", 1))] == ["timeout", "restart"]
    assert [do.action for do in link(THREE, take(candidate, "crash_restart", 0))] == ["restart"]


def test_a_leaders_write_is_an_append_to_its_own_disk_even_after_it_stepped_down() -> None:
    """Section 10.2.1: the leader is one of its followers; what it issued may reach the disk at any time."""
    heartbeat = AppendEntriesRequest(2, "s2", "s1", 0, 0, (), 0, 0)
    deposed = take(leader(), "update_term", heartbeat).after
    assert deposed.role is Role.FOLLOWER
    steps = link(THREE, take(deposed, "persist", 2))
    assert [do.action for do in steps] == ["append_own", "update_term"]


def test_a_torn_write_is_linked_at_every_border() -> None:
    """Cut first, then entry after entry: the disk may hold any of these points after a crash."""
    s = follower(3, (Entry(1, "a"), Entry(1, "b"), Entry(1, "c")))
    entries = (Entry(3, "d"), Entry(3, "e"))
    m = AppendEntriesRequest(3, "s2", "s1", 1, 1, entries, 0, 0)
    written = take(s, "handle_append_entries_request", m).after
    assert [write.point.log.length for write in written.issued] == [1, 2, 3]
    for k, names in enumerate(([], ["recv_append_conflict"], ["recv_append_noconflict"], ["recv_append_noconflict"])):
        done = [do.action for do in link(THREE, take(written, "crash_restart", k))]
        assert done[-1] == "restart"
        assert done[-2:-1] == names


def test_an_acknowledgement_of_what_the_disk_lacks_is_rejected() -> None:
    s = follower(1)
    m = AppendEntriesRequest(1, "s2", "s1", 0, 0, (Entry(1, "a"),), 0, 0)
    hasty = take(s, "handle_append_entries_request", m).after
    answered = take(replace(hasty, durable=hasty.memory, issued=()), "append_entries_response", "s2", True, 1)
    assert link(THREE, answered)
    with pytest.raises(Rejected, match="differ in log_length"):
        link(THREE, replace(answered, before=hasty, outcome=replace(answered.outcome, server=hasty)))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"commit_index": 1}, "the next state implies sent"),
        ({"votes": ("s3",), "role": Role.CANDIDATE}, "the next state implies vote"),
        ({"role": Role.LEADER}, "the model and the spec differ in leader"),
        ({"durable": Point(1, "s2", log_of(()))}, "differ in current_term"),
        ({"durable": Point(0, None, log_of((Entry(1, "a"),)))}, "differ in log_length"),
        ({"issued": (Write(Point(1, None, log_of(()))),)}, "issues a write that no message caused"),
    ],
)
def test_a_state_that_nothing_led_to_is_rejected(change: dict[str, object], why: str) -> None:
    s = initial_server()
    wrong = Transition("s1", "vote_response", ("s2", False), s, Outcome(replace(s, **change)))
    with pytest.raises(Rejected, match=why):
        link(THREE, wrong)


def test_a_fact_without_a_step_of_the_model_is_rejected() -> None:
    elected = take(
        replace(take(take(initial_server(), "timeout").after, "persist", 1).after, votes=("s2",)), "become_leader"
    )
    assert link(THREE, elected)
    silent = replace(elected, outcome=replace(elected.outcome, facts=()))
    with pytest.raises(Rejected, match="the facts say"):
        link(THREE, silent)
    other = replace(elected, outcome=replace(elected.outcome, facts=(replace(elected.outcome.facts[0], term=2),)))
    with pytest.raises(Rejected, match="does not make this fact true"):
        link(THREE, other)


def test_what_a_leader_could_send_it_could_send_in_part() -> None:
    entries = (Entry(1, "a"), Entry(2, "b"), Entry(3, "c"))
    whole = Slice(3, log_of(entries), 2)
    assert whole.covers(Slice(3, log_of(entries[:2]), 1))
    assert whole.covers(Slice(4, log_of(entries[:2]), 2, bound=True))
    assert not whole.covers(Slice(3, log_of((Entry(2, "a"), *entries[1:])), 1)), "another term before"
    assert not whole.covers(Slice(3, log_of((Entry(1, "a"), Entry(2, "z"))), 1)), "another entry"
    assert not whole.covers(Slice(3, log_of(entries[:2]), 3)), "a higher commit index"
    assert not whole.covers(Slice(4, log_of(entries[:2]), 1)), "another term's leader"
    assert not whole.covers(Slice(2, log_of(entries[:2]), 1, bound=True)), "a later term's leader"
    assert not whole.covers(Slice(3, log_of((*entries, Entry(3, "d"))), 1)), "beyond its end"
    assert not whole.covers(Slice(3, log_of(entries), 2, snapshot=True)), "a snapshot is no part of a request"
    assert not Slice(3, log_of(entries), 3, snapshot=True).covers(Slice(3, log_of(entries), 3)), "nor the other way"


def test_a_part_of_a_slice_can_be_sent_wherever_the_slice_can() -> None:
    """For any log and any term, by Z3: `Slice.covers` is no more than the guard of `send_append` allows."""
    a = unbounded.UnboundedAlgebra(WHOLE.rigid)
    s = unbounded.functions(WHOLE.signature)
    n = z3.Const("n", unbounded.SORTS[Sort.NODE])
    whole, part = (z3.Const(name, unbounded.SORTS[Sort.MESSAGE]) for name in ("whole", "part"))
    r, j = a.rigid, z3.Const("j", unbounded.SORTS[Sort.INDEX])
    same = a.conj(r.entry_term(part, j) == r.entry_term(whole, j), r.entry_value(part, j) == r.entry_value(whole, j))
    within = [
        r.term(part) == r.term(whole),
        r.is_snapshot(part) == r.is_snapshot(whole),
        *(r.prev_index(m) == a.genesis for m in (whole, part)),
        *(r.prev_term(m) == a.first_term for m in (whole, part)),
        z3.ForAll([j], a.implies(inside(a, part, j, r.last_index(part)), same)),
        a.le(r.prev_index(part), r.last_index(part)),
        a.le(r.last_index(part), r.last_index(whole)),
        a.le(r.commit(part), r.commit(whole)),
        r.certificate_term(part) == r.certificate_term(whole),
        r.certificate_index(part) == r.certificate_index(whole),
    ]
    rule = WHOLE.action("send_append").rule
    solver = z3.Solver()
    solver.add(*a.axioms(), *within, rule(a, s, n, whole).guard, z3.Not(rule(a, s, n, part).guard))
    assert solver.check() == z3.unsat
    solver = z3.Solver()
    solver.set("rlimit", 1_000_000)
    solver.add(*a.axioms(), *within[:-3], rule(a, s, n, whole).guard, z3.Not(rule(a, s, n, part).guard))
    assert solver.check() != z3.unsat, "a higher commit index cannot be sent"


# -------------------------------------------------------------------------------------- the smallest network is enough


def test_no_guard_of_the_model_mentions_the_network_negatively() -> None:
    assert negative_mentions(WHOLE) == {}


def test_a_guard_that_asks_for_silence_is_noticed() -> None:
    """A server that may act only while nobody voted could act in the smallest network, and not in the real one."""

    @action(n=NODE)
    def lead_unopposed(a: Algebra, s: Symbols, n: Value) -> ModelTransition:
        nobody = a.forall((NODE,), lambda v: a.neg(s.vote(v, s.current_term(n), n)))
        return ModelTransition(a.conj(s.candidate(n), nobody), {})

    wrong = dataclass_replace(WHOLE, actions=(*WHOLE.actions, lead_unopposed))
    assert negative_mentions(wrong) == {"lead_unopposed": frozenset({"vote"})}


# ------------------------------------------------------------------------------------------------------------ command


def test_nothing_linked_is_unknown() -> None:
    assert link_transitions([]).verdict is Verdict.UNKNOWN


def test_a_model_step_that_never_happened_makes_the_result_unknown() -> None:
    lonely = CheckResult(checker="link", verdict=Verdict.VALID, figures={"by_model_action": {"begin_read": 0}})
    assert judged(lonely, whole=True).verdict is Verdict.UNKNOWN
    assert judged(lonely, whole=False).verdict is Verdict.VALID


def test_the_command_rejects_a_mutant_and_says_which_step() -> None:
    outcome = CliRunner().invoke(command, ["--mutant", "two_votes", "--json"], standalone_mode=False)
    assert outcome.return_value == 1
    report = json.loads(outcome.stdout.splitlines()[-1])
    assert report["verdict"] == "INVALID"
    assert "grant_vote" in report["reason"]
