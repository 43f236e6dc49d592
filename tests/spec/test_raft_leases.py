"""Who waits, who need not, and what a lease is: Ongaro 2014, sections 3.10, 4.2.3, 6.2, 6.4.1 and 9.6, in sentences."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from spec.raft.actions import ACTIONS, restarted
from spec.raft.log import EMPTY, Log, log_of
from spec.raft.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    LeaseEnded,
    Message,
    PreVoteRequest,
    PreVoteResponse,
    RequestVoteRequest,
    TimeoutNow,
)
from spec.raft.types import Constants, Entry, Outcome, Point, Read, ReadConfirmed, ReadStarted, Role, Server, Write

C = Constants(servers=("a", "b", "c"), election_timeout=4, lease=2)
PRE_VOTE = replace(C, pre_vote=True)
ONE = log_of([Entry(1, "x")])


def follower(term: int = 1, voted_for: str | None = None, log: Log = ONE, **fields: object) -> Server:
    return replace(restarted(Point(term, voted_for, log)), **fields)


def leader(log: Log = ONE, **fields: object) -> Server:
    nothing = (("b", 0), ("c", 0))
    values: dict[str, object] = {"role": Role.LEADER, "leader_id": "a", "match_index": nothing, "acked_round": nothing}
    return follower(1, "a", log, **{**values, **fields})


def act(action: str, server: Server, *arguments: object, c: Constants = C) -> Outcome | None:
    return ACTIONS[action](c, "a", server, *arguments)


def after(action: str, server: Server, *arguments: object, c: Constants = C) -> Server:
    outcome = act(action, server, *arguments, c=c)
    assert outcome is not None, f"{action} is not enabled"
    return outcome.server


def sent(action: str, server: Server, *arguments: object, c: Constants = C) -> tuple[Message, ...]:
    outcome = act(action, server, *arguments, c=c)
    assert outcome is not None, f"{action} is not enabled"
    return outcome.sent


def vote_request(term: int = 1, urged_by: int = 0) -> RequestVoteRequest:
    return RequestVoteRequest(term, "b", "a", 1, 1, urged_by)


# ------------------------------------------------------------------------------------------------------------ waiting


def test_a_server_that_hears_from_its_leader_remembers_when() -> None:
    heartbeat = AppendEntriesRequest(1, "b", "a", 5, 1, (), 0, 3)
    assert after("handle_append_entries_request", follower(), heartbeat, 7).heard_at == 7, "a refusal counts, too"
    old = replace(heartbeat, term=0)
    assert after("handle_append_entries_request", follower(heard_at=2), old, 7).heard_at == 2


def test_who_has_just_heard_from_a_leader_does_not_vote() -> None:
    server = follower(heard_at=5)
    assert after("handle_request_vote_request", server, vote_request(), 8).voted_for is None
    assert after("handle_request_vote_request", server, vote_request(), 9).voted_for == "b"


def test_who_has_just_heard_from_a_leader_does_not_campaign() -> None:
    server = follower(heard_at=5)
    assert act("timeout", server, 8) is None
    assert after("timeout", server, 9).role is Role.CANDIDATE


def test_who_restarts_waits_as_if_it_had_just_heard_from_a_leader() -> None:
    server = after("crash_restart", follower(heard_at=1), 0, 6)
    assert server.heard_at == 6
    assert act("timeout", server, 9) is None


def test_who_knows_that_the_lease_has_ended_need_not_wait() -> None:
    server = follower(heard_at=5, lease_ended=True)
    campaigning = after("timeout", server, 5)
    assert (campaigning.urged_by, campaigning.lease_ended) == (1, False)
    (asked,) = sent("request_vote", after("persist", campaigning, 1), "b")
    assert asked == RequestVoteRequest(2, "a", "b", 1, 1, urged_by=1)


@pytest.mark.parametrize(
    ("term", "lease_ended", "urged_by", "urged"),
    [
        (1, False, 1, 1),
        (1, False, 0, 0),
        (2, False, 1, 0),
        (1, True, 0, 1),
    ],
)
def test_a_voter_need_not_wait_if_the_lease_of_the_latest_leader_that_it_knows_has_ended(
    term: int, lease_ended: bool, urged_by: int, urged: int
) -> None:
    request = vote_request(3, urged_by)
    server = after("update_term", follower(term, heard_at=5, lease_ended=lease_ended), request)
    assert (server.urged_by, server.lease_ended) == (urged, False)
    voted = after("handle_request_vote_request", server, request, 5).voted_for
    assert (voted == "b") is (urged > 0)


# -------------------------------------------------------------------------------------------- what ends a lease


def test_a_leader_that_transfers_its_leadership_answers_no_more_by_its_lease() -> None:
    holding = leader(commit_index=1, round=1, round_starts=((1, 5),), acked_round=(("b", 1), ("c", 0)))
    assert act("lease_read", holding, "r", 6) is not None
    assert act("timeout_now", holding, "b") is None, "first the lease ends"
    transferring = after("transfer_leadership", holding)
    assert act("lease_read", transferring, "r", 6) is None
    assert sent("timeout_now", transferring, "b") == (TimeoutNow(1, "a", "b"),)
    assert act("timeout_now", transferring, "a") is None
    assert act("transfer_leadership", follower()) is None


def test_a_leader_that_loses_its_role_says_that_its_lease_has_ended() -> None:
    everyone = tuple(LeaseEnded(1, "a", peer) for peer in ("b", "c"))
    newer = vote_request(2)
    assert sent("update_term", leader(), newer) == everyone
    assert sent("step_down", leader()) == everyone
    assert sent("crash_restart", leader(), 0, 3) == everyone
    assert sent("update_term", follower(), newer) == ()
    assert sent("crash_restart", follower(), 0, 3) == ()
    without_leases = replace(C, lease=-1)
    assert sent("step_down", leader(), c=without_leases) == ()


def test_a_leader_that_steps_down_follows_nobody_in_its_term() -> None:
    busy = leader(round=3, round_starts=((3, 1),), reads=(Read("r", 1, 3),), transferring=True, commit_index=1)
    server = after("step_down", busy)
    assert server == follower(1, "a", commit_index=1)
    assert act("step_down", server) is None


@pytest.mark.parametrize("kind", [TimeoutNow, LeaseEnded])
def test_the_end_of_a_lease_is_believed_of_the_current_term_only(kind: type[TimeoutNow | LeaseEnded]) -> None:
    action = "handle_timeout_now" if kind is TimeoutNow else "handle_lease_ended"
    server = follower(2)
    assert after(action, server, kind(2, "b", "a")).lease_ended
    assert after(action, server, kind(1, "b", "a")) == server
    assert act(action, server, kind(3, "b", "a")) is None
    assert act(action, server, kind(2, "b", "c")) is None
    assert act(action, leader(), kind(1, "b", "a")) is None, "two leaders of one term are not to be hidden"
    assert act("update_term", server, LeaseEnded(3, "b", "a")) is None, "evidence carries no term"


# ------------------------------------------------------------------------------------------------------------- leases


def test_a_leader_remembers_when_its_rounds_began_from_the_newest_answered_on() -> None:
    server = after("begin_round", after("begin_round", after("begin_round", leader(), 1), 2), 3)
    assert server.round_starts == ((1, 1), (2, 2), (3, 3))
    answered = after("handle_append_entries_response", server, AppendEntriesResponse(1, "b", "a", False, 0, 2))
    assert answered.round_starts == ((2, 2), (3, 3))
    older = after("handle_append_entries_response", answered, AppendEntriesResponse(1, "c", "a", False, 0, 1))
    assert older.round_starts == ((2, 2), (3, 3))
    assert act("begin_round", follower(), 1) is None


def test_a_read_is_answered_by_lease_for_some_time_after_an_answered_round_began() -> None:
    holding = leader(commit_index=1, round=2, round_starts=((1, 5), (2, 6)), acked_round=(("b", 1), ("c", 0)))
    outcome = act("lease_read", holding, "r", 7)
    assert outcome is not None
    assert outcome.facts == (ReadStarted("r", 1, 1), ReadConfirmed("r", 1, 1))
    assert outcome.server.confirmed == (Read("r", 1, 1),)
    assert act("lease_read", holding, "r", 8) is None, "the lease is counted from the round that was answered"
    assert act("lease_read", outcome.server, "r", 7) is None, "a read arrives once"


@pytest.mark.parametrize(
    "lacking",
    [
        {"acked_round": (("b", 0), ("c", 0))},
        {"round_starts": ()},
        {"commit_index": 0},
        {"transferring": True},
        {"role": Role.FOLLOWER},
    ],
)
def test_there_is_no_lease_without_a_quorums_answer_a_committed_entry_and_the_role(lacking: dict[str, Any]) -> None:
    holding = leader(commit_index=1, round=1, round_starts=((1, 5),), acked_round=(("b", 1), ("c", 0)))
    assert act("lease_read", holding, "r", 6) is not None
    assert act("lease_read", replace(holding, **lacking), "r", 6) is None


def test_reads_that_need_a_round_begin_one_that_counts_for_the_lease() -> None:
    server = after("read_request", leader(commit_index=1), "r", 4)
    assert server.round_starts == ((1, 4),)
    assert after("read_request", leader(commit_index=1), "r", 4, c=replace(C, lease=-1)).round_starts == ()


# ----------------------------------------------------------------------------------------------------------- pre-vote


def asks(term: int = 2, last_index: int = 1, last_term: int = 1) -> PreVoteRequest:
    return PreVoteRequest(term, "b", "a", last_index, last_term)


def test_a_server_campaigns_only_with_the_pre_votes_of_a_quorum() -> None:
    alone = follower()
    assert act("timeout", alone, 4, c=PRE_VOTE) is None
    supported = after("handle_pre_vote_response", alone, PreVoteResponse(2, "c", "a", True))
    assert supported.pre_votes == ("c",)
    campaigning = after("timeout", supported, 4, c=PRE_VOTE)
    assert (campaigning.role, campaigning.pre_votes) == (Role.CANDIDATE, ())
    assert act("timeout", supported, 3, c=PRE_VOTE) is None, "pre-votes do not replace the wait"
    assert act("timeout", replace(alone, lease_ended=True), 0, c=PRE_VOTE) is not None, "who is urged does not ask"


def test_a_pre_vote_is_asked_for_the_next_term_with_the_log_on_disk() -> None:
    assert sent("request_pre_vote", follower(), "b") == (PreVoteRequest(2, "a", "b", 1, 1),)
    writing = follower(issued=(Write(Point(1, None, ONE.append(Entry(1, "y")))),))
    assert act("request_pre_vote", writing, "b") is None
    assert act("request_pre_vote", leader(), "b") is None
    assert act("request_pre_vote", follower(), "a") is None


def answered(server: Server, m: PreVoteRequest, now: int = 4) -> PreVoteResponse | None:
    outcome = act("handle_pre_vote_request", server, m, now)
    assert outcome is not None
    assert outcome.server == server, "a pre-vote changes nothing"
    assert all(isinstance(each, PreVoteResponse) for each in outcome.sent)
    return next((each for each in outcome.sent if isinstance(each, PreVoteResponse)), None)


def test_a_pre_vote_is_granted_as_a_vote_would_be_in_a_later_term() -> None:
    yes, no = PreVoteResponse(2, "a", "b", True), PreVoteResponse(1, "a", "b", False)
    assert answered(follower(), asks()) == yes
    assert answered(follower(voted_for="c"), asks()) == yes, "the vote of the current term is another matter"
    assert answered(follower(), asks(term=1)) == no
    assert answered(follower(), asks(last_index=0, last_term=0)) == no, "the log is outdated"
    assert answered(follower(heard_at=3), asks()) == no, "it heard from a leader"
    assert answered(follower(heard_at=3, lease_ended=True), asks()) == yes


def test_a_refused_pre_vote_names_a_term_that_the_disk_knows_or_nothing() -> None:
    ahead = after("update_term", follower(), vote_request(5))
    assert answered(ahead, asks()) is None
    assert answered(after("persist", ahead, 1), asks()) == PreVoteResponse(5, "a", "b", False)


def test_pre_votes_change_no_term_but_their_refusal_tells_of_a_higher_one() -> None:
    server = follower()
    assert act("update_term", server, asks(9)) is None
    assert act("update_term", server, PreVoteResponse(9, "b", "a", True)) is None
    refusal = PreVoteResponse(9, "b", "a", False)
    assert after("update_term", server, refusal).current_term == 9
    assert act("handle_pre_vote_response", server, refusal) is None


def test_pre_votes_are_counted_for_the_next_term_only_and_forgotten_when_a_leader_is_heard() -> None:
    server = follower(pre_votes=("b",))
    assert after("handle_pre_vote_response", server, PreVoteResponse(3, "c", "a", True)) == server
    assert after("handle_pre_vote_response", server, PreVoteResponse(1, "c", "a", True)) == server
    assert after("handle_pre_vote_response", server, PreVoteResponse(2, "c", "a", True)).pre_votes == ("b", "c")
    assert after("handle_pre_vote_response", leader(), PreVoteResponse(2, "c", "a", True)) == leader()
    heartbeat = AppendEntriesRequest(1, "b", "a", 0, 0, (), 0, 0)
    assert after("handle_append_entries_request", server, heartbeat, 1).pre_votes == ()
    assert after("update_term", server, vote_request(2)).pre_votes == ()


def test_the_log_that_counts_for_a_pre_vote_is_the_one_on_disk() -> None:
    longer = ONE.append(Entry(1, "y"))
    writing = follower(log=ONE, issued=(Write(Point(1, None, longer)),))
    assert answered(writing, asks()) == PreVoteResponse(2, "a", "b", True)
    assert answered(follower(log=EMPTY, issued=()), asks(last_index=0, last_term=0)) == PreVoteResponse(
        2, "a", "b", True
    )
