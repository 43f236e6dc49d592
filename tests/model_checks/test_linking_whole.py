"""What exploration and random runs of the whole protocol meet is linked, and every step of the model happens."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from model_checks.explore.profiles import PROFILES
from model_checks.explore.starts import STARTS
from model_checks.linking.command import Groups, explored, judged, unestablished
from model_checks.linking.concrete import Rejected
from model_checks.linking.link import link
from model_checks.linking.report import link_transitions
from model_checks.linking.walks import BOUNDS, Walk, walked
from model_checks.verdicts import CheckResult, Verdict
from spec.raft.actions import ACTIONS, restarted
from spec.raft.log import log_of
from spec.raft.messages import (
    AppendEntriesRequest,
    InstallSnapshotRequest,
    LeaseEnded,
    RequestVoteRequest,
    TimeoutNow,
)
from spec.raft.network import Transition, transition
from spec.raft.types import Configuration, Constants, Entry, Point, Read, Role, Server, Write


@pytest.fixture(scope="module")
def groups() -> Groups:
    return [*explored("small"), (BOUNDS.constants(), walked(range(10, 18), 800))]


@pytest.fixture(scope="module")
def checked(groups: Groups) -> CheckResult:
    return link_transitions(groups)


def test_every_local_step_is_a_step_of_the_model(checked: CheckResult) -> None:
    assert checked.verdict is Verdict.VALID, checked.details
    assert checked.figures["linked"] > 60_000


def test_every_action_of_the_spec_is_linked_and_every_action_of_the_model_happens(checked: CheckResult) -> None:
    """An action of the model that nothing links is vacuous: its proof would say nothing of the spec."""
    assert set(ACTIONS) <= set(checked.figures["by_action"])
    assert 0 not in checked.figures["by_model_action"].values()
    assert judged(checked, whole=True).verdict is Verdict.VALID


def test_every_state_is_led_to_by_linked_steps(groups: Groups) -> None:
    assert unestablished(groups) == 0


def test_the_starts_of_the_profiles_are_scripts() -> None:
    assert {leg.start for legs in PROFILES.values() for leg in legs} <= set(STARTS)


def test_a_random_run_is_a_function_of_its_seed() -> None:
    assert list(Walk(3).steps(60)) == list(Walk(3).steps(60))


# ---------------------------------------------------------------------------------------------- one step at a time

NAMES = ("s1", "s2", "s3")
CLUSTER = Constants(NAMES, election_timeout=3, lease=2, pre_vote=True)
LOG = log_of((Entry(1, "a"), Entry(1, "b"), Entry(1, "c")))


def take(s: Server, name: str, *arguments: object, i: str = "s1", c: Constants = CLUSTER) -> Transition:
    found = transition(ACTIONS, c, i, s, name, *arguments)
    assert found is not None
    return found


def did(step: Transition, c: Constants = CLUSTER) -> list[str]:
    return [do.action for do in link(c, step)]


def leader(commit: int = 3, snapshot: int = 0, base: int = 0) -> Server:
    """s1 leads term 1 with three entries on its disk, which s2 has acknowledged; round 1 began at 4."""
    return replace(
        restarted(Point(1, "s1", LOG, snapshot, base)),
        role=Role.LEADER,
        leader_id="s1",
        commit_index=commit,
        last_applied=commit,
        match_index=(("s2", 3), ("s3", 0)),
        acked_round=(("s2", 1), ("s3", 0)),
        round=1,
        round_starts=((1, 4),),
    )


def test_a_vote_is_decided_in_memory_and_counts_when_it_is_on_disk() -> None:
    """Leases: between the two the server confirms no round of an earlier term."""
    request = RequestVoteRequest(1, "s2", "s1", 0, 0)
    updated = take(restarted(Point(0, None, log_of(()))), "update_term", request).after
    granted = take(updated, "handle_request_vote_request", request, 3)
    assert did(granted) == ["decide_vote"]
    assert did(take(granted.after, "persist", 2)) == ["update_term", "grant_vote"]


def test_a_server_that_heard_of_a_leader_does_not_decide_to_vote() -> None:
    """Ongaro 2014, section 4.2.3."""
    request = RequestVoteRequest(1, "s2", "s1", 0, 0)
    waiting = take(restarted(Point(0, None, log_of(()))), "update_term", request).after
    granted = take(waiting, "handle_request_vote_request", request, 3)
    with pytest.raises(Rejected, match="guard of decide_vote"):
        link(CLUSTER, replace(granted, arguments=(request, 2)))


def test_a_transfer_urges_a_campaign_that_need_not_wait() -> None:
    """Section 3.10: the lease ends before the request to campaign leaves."""
    handed = take(leader(), "transfer_leadership")
    assert did(handed) == ["transfer_leadership"]
    assert did(take(handed.after, "timeout_now", "s2")) == []
    follower = replace(restarted(Point(1, "s1", LOG)), heard_at=9)
    told = take(follower, "handle_timeout_now", TimeoutNow(1, "s1", "s2"), i="s2")
    campaign = take(told.after, "timeout", 9, i="s2")
    assert did(campaign) == ["decide_vote_urged"]
    assert did(take(campaign.after, "persist", 1, i="s2")) == ["timeout"]
    early = replace(campaign, before=replace(told.after, lease_ended=False))
    with pytest.raises(Rejected, match="guard of grant_prevote"):
        link(CLUSTER, early)


def test_a_leader_that_crashes_ends_its_lease() -> None:
    """The evidence that its process is gone stands for the message."""
    crashed = take(leader(), "crash_restart", 0, 7)
    assert LeaseEnded(1, "s1", "s2") in crashed.outcome.sent
    assert did(crashed) == ["restart"]


def test_a_read_by_the_lease_begins_and_is_confirmed_in_one_step() -> None:
    """Section 6.4.1."""
    assert did(take(leader(), "lease_read", "r", 6)) == ["lease_read"]


@pytest.mark.parametrize(
    "change",
    [
        {"transferring": True},
        {"round_starts": ((1, 3),)},
        {"acked_round": (("s2", 0), ("s3", 0))},
        {"durable": Point(1, "s1", log_of((Entry(0, "a"), Entry(0, "b"), Entry(0, "c"))))},
    ],
    ids=["transferring", "over", "not_answered", "no_commit_of_its_term"],
)
def test_a_read_without_a_lease_is_rejected(change: dict[str, object]) -> None:
    allowed = take(leader(), "lease_read", "r", 6)
    wrong = replace(leader(), **change)
    found = (Read("r", 3, 1),)
    outcome = replace(allowed.outcome, server=replace(wrong, confirmed=found))
    with pytest.raises(Rejected):
        link(CLUSTER, Transition("s1", "lease_read", ("r", 6), wrong, outcome))


def test_a_lease_that_outlasts_withheld_votes_is_no_lease() -> None:
    """Whatever else is right: the proof assumes that leases end before votes."""
    cluster = replace(CLUSTER, lease=3)
    with pytest.raises(Rejected, match="does not end before votes"):
        link(cluster, take(leader(), "lease_read", "r", 6, c=cluster))


def test_a_configuration_is_counted_over_as_soon_as_it_is_in_the_log() -> None:
    """Section 4.1: the entry before the removal of s3 needs two of three, what follows two of two."""
    smaller = Configuration(("s1", "s2"), allowed_by=3)
    changed = take(leader(), "change_configuration", smaller)
    assert did(changed) == ["change_configuration", "send_append"]
    longer = replace(changed.after, durable=changed.after.memory, issued=())
    assert did(take(replace(longer, match_index=(("s2", 4),)), "advance_commit_index", 4)) == [
        "append_own",
        "advance_commit",
        "send_append",
    ]
    committed = take(replace(longer, match_index=(("s2", 4),)), "advance_commit_index", 4)
    lonely = replace(longer, match_index=(("s2", 3),))
    alone = replace(committed.outcome, server=replace(lonely, commit_index=4))
    with pytest.raises(Rejected, match="guard of advance_commit"):
        link(CLUSTER, Transition("s1", committed.action, (4,), lonely, alone))


def test_a_snapshot_counts_when_it_is_on_disk_and_then_the_log_may_be_forgotten() -> None:
    """Sections 5.1 and 5.3; a leader knows by itself what is committed."""
    taken = take(leader(), "take_snapshot", 2).after
    compacted = take(taken, "compact", 1).after
    assert did(take(compacted, "persist", 2)) == ["take_snapshot_own", "compact"]
    follower = replace(compacted, role=Role.FOLLOWER, match_index=(), acked_round=(), round=0, round_starts=())
    assert did(take(follower, "persist", 2)) == ["take_snapshot_told", "compact"]


def test_forgetting_more_than_the_snapshot_covers_is_rejected() -> None:
    wrong = replace(leader(), issued=(Write(Point(1, "s1", LOG, 0, 2)),))
    with pytest.raises(Rejected, match="guard of compact"):
        link(CLUSTER, take(wrong, "persist", 1))


def test_a_snapshot_replaces_log_and_state_in_one_step_of_the_model() -> None:
    """The state machine is replaced later, which the model does not see."""
    behind = restarted(Point(1, None, log_of((Entry(1, "z"),))))
    m = InstallSnapshotRequest(1, "s1", "s2", 3, 1, LOG, 1)
    handled = take(behind, "handle_install_snapshot_request", m, 5, i="s2")
    assert did(handled) == ["hear_round"]
    installed = take(handled.after, "persist", 1, i="s2")
    assert did(installed) == ["recv_snapshot"]
    restored = take(installed.after, "restore_snapshot", i="s2")
    assert link(CLUSTER, restored) == ()
    other = replace(restored.outcome, facts=(replace(restored.outcome.facts[0], log=log_of((Entry(1, "q"),) * 3)),))
    with pytest.raises(Rejected, match="does not make this fact true"):
        link(CLUSTER, replace(restored, outcome=other))


def test_entries_below_the_base_are_the_leaders_without_a_look() -> None:
    """What is forgotten is committed, so every leader of the term or a later one holds it (`agreed_below`)."""
    follower = restarted(Point(1, None, LOG, 2, 2))
    m = AppendEntriesRequest(1, "s1", "s2", 1, 1, (Entry(1, "b"), Entry(1, "c"), Entry(1, "d")), 3, 0)
    handled = take(follower, "handle_append_entries_request", m, 5, i="s2")
    assert did(handled) == ["hear_leader"]
    assert did(take(handled.after, "persist", 1, i="s2")) == ["recv_append_noconflict"]
