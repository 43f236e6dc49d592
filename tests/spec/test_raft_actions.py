"""Raft's actions, sentence by sentence: Ongaro 2014, chapter 3 and section 6.4, and the durability rules of
ARCHITECTURE.md.
"""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from spec.raft.actions import ACTIONS, CLOCKED, initial_server, restarted
from spec.raft.log import EMPTY, Log, log_of
from spec.raft.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    Message,
    RequestVoteRequest,
    RequestVoteResponse,
)
from spec.raft.types import (
    Applied,
    Committed,
    Constants,
    Elected,
    Entry,
    Outcome,
    Point,
    ReadAnswered,
    Role,
    Server,
    Write,
)

C = Constants(servers=("a", "b", "c"))


def logged(*terms: int) -> Log:
    return log_of(Entry(term, "x") for term in terms)


def follower(term: int = 1, voted_for: str | None = None, log: Log = EMPTY, **fields: object) -> Server:
    return replace(restarted(Point(term, voted_for, log)), **fields)


def candidate(term: int = 1, log: Log = EMPTY, **fields: object) -> Server:
    return follower(term, "a", log, role=Role.CANDIDATE, **fields)


def leader(term: int = 1, log: Log = EMPTY, **fields: object) -> Server:
    nothing = (("b", 0), ("c", 0))
    values: dict[str, object] = {"role": Role.LEADER, "leader_id": "a", "match_index": nothing, "acked_round": nothing}
    return follower(term, "a", log, **{**values, **fields})


def act(action: str, server: Server, *arguments: object) -> Outcome | None:
    """Clocks do not matter here: nobody waits, nobody has a lease."""
    return ACTIONS[action](C, "a", server, *arguments, *((0,) if action in CLOCKED else ()))


def after(action: str, server: Server, *arguments: object) -> Server:
    outcome = act(action, server, *arguments)
    assert outcome is not None, f"{action} is not enabled"
    return outcome.server


def sent(action: str, server: Server, *arguments: object) -> Message:
    outcome = act(action, server, *arguments)
    assert outcome is not None, f"{action} is not enabled"
    assert outcome.server == server, "a send changes nothing"
    (message,) = outcome.sent
    return message


def vote_request(term: int = 1, last: Log = EMPTY) -> RequestVoteRequest:
    return RequestVoteRequest(term, "b", "a", last.length, last.last_term)


def entries_request(prev: Log, *terms: int, term: int = 2, commit: int = 0, round: int = 0) -> AppendEntriesRequest:
    entries = tuple(Entry(each, "x") for each in terms)
    return AppendEntriesRequest(term, "b", "a", prev.length, prev.last_term, entries, commit, round)


# --------------------------------------------------------------------------------------------------------- elections


def test_a_follower_that_times_out_increments_its_term_votes_for_itself_and_becomes_candidate() -> None:
    server = after("timeout", follower(term=3, leader_id="b", leader_match=0, round=2))
    assert (server.role, server.current_term, server.voted_for, server.leader_id) == (Role.CANDIDATE, 4, "a", None)
    assert server.issued == (Write(Point(4, "a", EMPTY)),)
    assert server.durable == Point(3, None, EMPTY)


def test_a_leader_does_not_time_out() -> None:
    assert act("timeout", leader()) is None


def test_a_candidate_requests_votes_only_when_its_own_is_on_disk() -> None:
    hasty = after("timeout", initial_server())
    assert act("request_vote", hasty, "b") is None
    assert act("request_vote", after("persist", hasty, 1), "a") is None, "nobody asks himself"
    assert sent("request_vote", after("persist", hasty, 1), "b") == RequestVoteRequest(1, "a", "b", 0, 0)


def test_a_vote_is_granted_to_the_first_candidate_of_a_term_only() -> None:
    server = after("handle_request_vote_request", follower(), vote_request())
    assert server.voted_for == "b"
    rival = replace(vote_request(), source="c")
    assert after("handle_request_vote_request", server, rival) == server


@pytest.mark.parametrize(
    ("own", "candidates", "granted"),
    [
        (logged(1), logged(2), True),
        (logged(2), logged(1, 1, 1), False),
        (logged(1, 1), logged(1), False),
        (logged(1), logged(1), True),
        (logged(1), logged(1, 1), True),
    ],
)
def test_a_vote_is_denied_if_the_voters_log_is_more_up_to_date(own: Log, candidates: Log, granted: bool) -> None:
    server = after("handle_request_vote_request", follower(term=3, log=own), vote_request(3, candidates))
    assert (server.voted_for == "b") is granted


def test_a_granted_vote_is_sent_only_when_it_is_on_disk() -> None:
    request = vote_request()
    server = after("handle_request_vote_request", follower(), request)
    assert server.issued == (Write(Point(1, "b", EMPTY), cause=request),)
    assert act("vote_response", server, "b", True) is None
    assert sent("vote_response", after("persist", server, 1), "b", True) == RequestVoteResponse(1, "a", "b", True)
    assert act("vote_response", after("persist", server, 1), "c", True) is None, "the vote is another's"
    assert sent("vote_response", server, "c", False) == RequestVoteResponse(1, "a", "c", False)


def test_no_message_is_sent_in_a_term_that_the_disk_does_not_know() -> None:
    server = after("update_term", follower(), vote_request(term=2))
    assert act("vote_response", server, "b", False) is None
    assert act("append_entries_response", server, "b", False, 0) is None


def test_a_candidate_wins_with_votes_from_a_majority_counting_its_own_durable_one() -> None:
    alone = candidate()
    assert act("become_leader", alone) is None
    winner = after("handle_request_vote_response", alone, RequestVoteResponse(1, "b", "a", True))
    assert winner.votes == ("b",)
    outcome = act("become_leader", winner)
    assert outcome is not None
    assert outcome.facts == (Elected(1, "a", EMPTY),)
    assert outcome.server == leader()
    undurable = replace(winner, durable=Point(0, None, EMPTY), issued=(Write(winner.durable),))
    assert act("become_leader", undurable) is None


@pytest.mark.parametrize("response", [RequestVoteResponse(1, "b", "a", False), RequestVoteResponse(0, "b", "a", True)])
def test_refusals_and_votes_of_older_terms_are_not_counted(response: RequestVoteResponse) -> None:
    assert after("handle_request_vote_response", candidate(), response) == candidate()


def test_a_server_that_hears_of_a_higher_term_becomes_follower_of_that_term() -> None:
    read_leader = after("read_request", leader(log=logged(1), commit_index=1), "r")
    confirmed = replace(read_leader, confirmed=read_leader.reads, reads=read_leader.reads)
    server = after("update_term", confirmed, vote_request(term=5))
    assert (server.role, server.current_term, server.voted_for) == (Role.FOLLOWER, 5, None)
    assert (server.votes, server.match_index, server.acked_round, server.reads) == ((), (), (), ())
    assert (server.leader_id, server.leader_match, server.round) == (None, 0, 0)
    assert server.confirmed == confirmed.confirmed, "a confirmed read index stays valid"
    assert server.log == logged(1)


def test_a_handler_waits_until_the_messages_term_is_entered() -> None:
    assert act("handle_request_vote_request", follower(), vote_request(term=2)) is None
    assert act("handle_append_entries_request", follower(), entries_request(EMPTY)) is None
    assert act("update_term", follower(term=2), vote_request(term=2)) is None


def test_a_message_for_another_server_is_not_handled() -> None:
    for message in (vote_request(), entries_request(EMPTY, term=1), AppendEntriesResponse(1, "b", "a", True, 0, 0)):
        elsewhere = replace(message, dest="c")
        for action in ("update_term", "handle_request_vote_request", "handle_append_entries_request"):
            assert act(action, follower(), elsewhere) is None


# ------------------------------------------------------------------------------------------------------- replication


def test_a_leader_appends_a_clients_entry_to_its_own_log() -> None:
    server = after("client_request", leader(term=2, log=logged(1)), "y")
    assert server.log == logged(1).append(Entry(2, "y"))
    assert server.durable.log == logged(1)
    assert act("client_request", follower(), "y") is None


def test_a_leader_sends_any_slice_with_the_entry_before_it() -> None:
    server = leader(term=2, log=logged(1, 2, 2), commit_index=2, round=4)
    entries = (Entry(2, "x"), Entry(2, "x"))
    assert sent("append_entries", server, "b", 1, 3) == AppendEntriesRequest(2, "a", "b", 1, 1, entries, 2, 4)
    heartbeat = AppendEntriesRequest(2, "a", "b", 1, 1, (), 1, 4)
    assert sent("append_entries", server, "b", 1, 1) == heartbeat, (
        "the commit index sent is at most the last entry sent"
    )
    assert act("append_entries", server, "b", 2, 4) is None
    assert act("append_entries", server, "a", 0, 0) is None


def test_a_leader_may_send_entries_that_its_own_disk_does_not_hold() -> None:
    server = after("client_request", leader(), "x")
    assert sent("append_entries", server, "b", 0, 1) == AppendEntriesRequest(1, "a", "b", 0, 0, (Entry(1, "x"),), 0, 0)


def test_entries_are_refused_if_the_log_does_not_hold_the_entry_before_them() -> None:
    for prev in (logged(1, 1), logged(2)):
        server = after("handle_append_entries_request", follower(term=2, log=logged(1)), entries_request(prev, 2))
        assert (server.log, server.issued, server.leader_id, server.leader_match) == (logged(1), (), "b", 0)


def test_a_conflicting_entry_is_deleted_with_all_that_follow_it_and_each_change_is_a_write() -> None:
    request = entries_request(logged(1), 2, 2)
    server = after("handle_append_entries_request", follower(term=2, log=logged(1, 1, 1)), request)
    assert server.log == logged(1, 2, 2)
    assert server.issued == tuple(
        Write(Point(2, None, log), request) for log in (logged(1), logged(1, 2), logged(1, 2, 2))
    )
    assert server.leader_match == 3


def test_entries_already_in_the_log_are_not_written_again_and_nothing_after_them_is_cut() -> None:
    server = follower(term=2, log=logged(1, 2, 2), leader_id="b", leader_match=3)
    assert after("handle_append_entries_request", server, entries_request(logged(1), 2)) == server
    assert after("handle_append_entries_request", server, entries_request(EMPTY)) == server


def test_the_commit_index_is_learned_up_to_the_last_new_entry_and_never_falls() -> None:
    server = follower(term=2, log=logged(1))
    server = after("handle_append_entries_request", server, entries_request(logged(1), 2, commit=5, round=3))
    assert (server.commit_index, server.round) == (2, 3)
    server = after("handle_append_entries_request", server, entries_request(logged(1), commit=0, round=1))
    assert (server.commit_index, server.round) == (2, 3)


def test_a_candidate_that_hears_the_leader_of_its_term_becomes_follower() -> None:
    server = after("handle_append_entries_request", candidate(term=2, votes=("c",)), entries_request(EMPTY))
    assert (server.role, server.leader_id, server.votes, server.voted_for) == (Role.FOLLOWER, "b", (), "a")


def test_a_leader_never_accepts_entries_of_its_own_term() -> None:
    assert act("handle_append_entries_request", leader(term=2), entries_request(EMPTY)) is None


def test_an_acknowledgement_covers_only_what_the_disk_holds_of_the_leaders_log() -> None:
    server = after("handle_append_entries_request", follower(term=2), entries_request(EMPTY, 2, 2, round=7))
    assert act("append_entries_response", server, "b", True, 1) is None
    half = after("persist", server, 1)
    assert sent("append_entries_response", half, "b", True, 1) == AppendEntriesResponse(2, "a", "b", True, 1, 7)
    assert act("append_entries_response", half, "b", True, 2) is None
    assert act("append_entries_response", half, "c", True, 1) is None, "c does not lead"
    longer = replace(after("persist", server, 2), leader_match=1)
    assert act("append_entries_response", longer, "b", True, 2) is None, "nothing is known of the leader's second entry"


def test_an_entry_cut_in_memory_is_not_acknowledged_while_the_disk_still_holds_it() -> None:
    server = after("handle_append_entries_request", follower(term=2, log=logged(1)), entries_request(EMPTY, 2))
    assert (server.durable.log, server.log) == (logged(1), logged(2))
    assert act("append_entries_response", server, "b", True, 1) is None


def test_a_leader_learns_matches_and_rounds_which_only_grow() -> None:
    server = leader(log=logged(1, 1), round=3)
    server = after("handle_append_entries_response", server, AppendEntriesResponse(1, "b", "a", True, 2, 3))
    server = after("handle_append_entries_response", server, AppendEntriesResponse(1, "b", "a", True, 1, 1))
    assert (server.match_index, server.acked_round) == ((("b", 2), ("c", 0)), (("b", 3), ("c", 0)))
    server = after("handle_append_entries_response", server, AppendEntriesResponse(1, "c", "a", False, 2, 2))
    assert (server.match_index, server.acked_round) == ((("b", 2), ("c", 0)), (("b", 3), ("c", 2)))


def test_an_entry_of_the_leaders_term_is_committed_once_a_majority_holds_it_on_disk() -> None:
    server = leader(term=2, log=logged(1, 2), match_index=(("b", 2), ("c", 0)))
    outcome = act("advance_commit_index", server, 2)
    assert outcome is not None
    assert outcome.facts == (Committed(2, 2, logged(1, 2)),)
    assert outcome.server.commit_index == 2
    undurable = replace(server, durable=Point(2, "a", logged(1)), issued=(Write(server.durable),))
    assert act("advance_commit_index", undurable, 2) is None, "the leader counts itself by its disk"
    assert act("advance_commit_index", replace(undurable, match_index=(("b", 2), ("c", 2))), 2) is not None


def test_an_entry_of_an_older_term_is_never_committed_by_counting_replicas() -> None:
    server = leader(term=2, log=logged(1), match_index=(("b", 1), ("c", 1)))
    assert act("advance_commit_index", server, 1) is None


def test_committed_entries_are_applied_in_order_once_the_disk_holds_them() -> None:
    server = follower(log=logged(1, 1), commit_index=1)
    outcome = act("apply", server)
    assert outcome is not None
    assert outcome.facts == (Applied("a", 1, Entry(1, "x")),)
    assert act("apply", outcome.server) is None
    undurable = replace(server, durable=Point(1, None, EMPTY), issued=(Write(server.durable),))
    assert act("apply", undurable) is None


# ------------------------------------------------------------------------------------------------------------- reads


def test_a_read_waits_until_the_leader_has_committed_an_entry_of_its_own_term() -> None:
    assert act("read_request", leader(term=2, log=logged(1, 2), commit_index=1), "r") is None
    assert act("read_request", leader(term=2, log=logged(1, 2), commit_index=2), "r") is not None
    assert act("read_request", leader(), "r") is None


def test_a_read_is_confirmed_by_a_round_that_began_after_it_arrived() -> None:
    server = after(
        "read_request", leader(log=logged(1), commit_index=1, round=4, acked_round=(("b", 4), ("c", 4))), "r"
    )
    assert act("confirm_read", server, "r") is None, "the fourth round began before the read"
    heard = after("handle_append_entries_response", server, AppendEntriesResponse(1, "b", "a", True, 1, 5))
    confirmed = after("confirm_read", heard, "r")
    assert (confirmed.reads, [read.id for read in confirmed.confirmed]) == ((), ["r"])


def test_a_confirmed_read_is_answered_when_its_index_is_applied_in_whatever_role() -> None:
    read = after("read_request", leader(log=logged(1), commit_index=1), "r").reads
    server = follower(log=logged(1), commit_index=1, confirmed=read)
    assert act("answer_read", server, "r") is None
    outcome = act("answer_read", after("apply", server), "r")
    assert outcome is not None
    assert outcome.facts == (ReadAnswered("r", 1, 1),)
    assert outcome.server.confirmed == ()


# -------------------------------------------------------------------------------------------------------------- disk


def three_writes() -> Server:
    return after("handle_append_entries_request", follower(term=2, log=logged(1)), entries_request(EMPTY, 2, 2))


@pytest.mark.parametrize(("k", "log"), [(1, EMPTY), (2, logged(2)), (3, logged(2, 2))])
def test_the_disk_confirms_writes_in_the_order_in_which_they_were_issued(k: int, log: Log) -> None:
    server = after("persist", three_writes(), k)
    assert server.durable.log == log
    assert len(server.issued) == 3 - k
    assert server.log == logged(2, 2)


@pytest.mark.parametrize(("k", "log"), [(0, logged(1)), (1, EMPTY), (2, logged(2)), (3, logged(2, 2))])
def test_a_crash_keeps_a_prefix_of_what_was_issued_and_forgets_everything_volatile(k: int, log: Log) -> None:
    server = replace(three_writes(), commit_index=1)
    assert after("crash_restart", server, k) == follower(term=2, log=log)


@pytest.mark.parametrize("action", ["persist", "crash_restart"])
def test_the_disk_holds_no_write_that_was_not_issued(action: str) -> None:
    assert act(action, three_writes(), 4) is None
    assert act("persist", three_writes(), 0) is None
