"""Membership changes of one server, in the words of Ongaro 2014, chapter 4."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from spec.raft.actions import ACTIONS, restarted
from spec.raft.log import EMPTY, Log, log_of
from spec.raft.messages import AppendEntriesRequest, AppendEntriesResponse
from spec.raft.types import Committed, Configuration, Constants, Entry, Outcome, Point, Role, Server

C = Constants(servers=("a", "b", "c", "d", "e"), voters=("a", "b", "c"))
ONE = log_of([Entry(1, "x")])


def of(voters: str, nonvoters: str = "", allowed_by: int = 1) -> Configuration:
    return Configuration(tuple(voters), tuple(nonvoters), allowed_by)


def configured(configuration: Configuration, log: Log = ONE) -> Log:
    return log.append(Entry(1, "", configuration))


def follower(log: Log = ONE, **fields: object) -> Server:
    return replace(restarted(Point(1, None, log)), **fields)


def leader(log: Log = ONE, **fields: object) -> Server:
    members = C.configuration(log).members
    nothing = tuple((member, 0) for member in members if member != "a")
    values: dict[str, object] = {"role": Role.LEADER, "leader_id": "a", "match_index": nothing, "acked_round": nothing}
    values |= {"commit_index": 1}
    return replace(restarted(Point(1, "a", log)), **{**values, **fields})


def act(action: str, server: Server, *arguments: object) -> Outcome | None:
    return ACTIONS[action](C, "a", server, *arguments)


def after(action: str, server: Server, *arguments: object) -> Server:
    outcome = act(action, server, *arguments)
    assert outcome is not None, f"{action} is not enabled"
    return outcome.server


def test_servers_use_the_latest_configuration_in_their_log_committed_or_not() -> None:
    assert C.configuration(EMPTY) == Configuration(("a", "b", "c"))
    longer = configured(of("ab")).append(Entry(1, "y"))
    assert (longer.configuration, longer.configuration_index) == (of("ab"), 2)
    assert C.configuration(longer) == of("ab")
    assert C.configuration(longer.truncate(1)) == C.genesis, "a configuration that is cut is in force no more"
    assert C.configuration(longer.append(Entry(1, "", of("abc", allowed_by=2)))).voters == ("a", "b", "c")


def test_a_majority_is_one_of_the_voters() -> None:
    configuration = of("abc", "de")
    assert configuration.is_quorum({"a", "b"})
    assert not configuration.is_quorum({"a", "d", "e"})
    assert not of("ab").is_quorum({"a"})
    assert not Configuration(()).is_quorum({"a"}), "nobody's majority is no majority"


@pytest.mark.parametrize(
    ("proposed", "possible"),
    [
        (of("ab"), True),
        (of("bc"), True),
        (of("abcd"), True),
        (of("abc", "d"), True),
        (of("ab", "c"), True),
        (of("abc"), False),
        (of("a"), False),
        (of("abd"), False),
        (of("ab", "d"), False),
        (of("abcde"), False),
        (of("abcz"), False),
        (of("abc", "c"), False),
        (Configuration(("b", "a"), (), 1), False),
        (of("ab", allowed_by=0), False),
    ],
)
def test_one_server_joins_leaves_or_gets_or_loses_its_vote_at_a_time(proposed: Configuration, possible: bool) -> None:
    assert (act("change_configuration", leader(), proposed) is not None) is possible


def test_the_last_voter_cannot_leave() -> None:
    alone = leader(configured(of("a")), commit_index=2)
    assert act("change_configuration", alone, Configuration((), ("a",), 2)) is None
    assert act("change_configuration", alone, of("ab", allowed_by=2)) is not None


def test_a_change_waits_until_the_one_before_it_is_committed() -> None:
    pending = leader(configured(of("ab")))
    assert act("change_configuration", pending, of("a")) is None
    committed = replace(pending, commit_index=2)
    assert act("change_configuration", committed, of("a", allowed_by=2)) is not None


def test_a_leader_changes_nothing_before_it_has_committed_an_entry_of_its_own_term() -> None:
    fresh = leader(log=log_of([Entry(0, "x")]))
    assert act("change_configuration", fresh, of("ab")) is None
    assert act("change_configuration", leader(commit_index=0), of("ab", allowed_by=0)) is None
    assert act("change_configuration", follower(commit_index=1), of("ab")) is None


def test_a_leader_counts_over_the_new_configuration_from_the_moment_it_appends_it() -> None:
    server = leader(match_index=(("b", 1), ("c", 1)), acked_round=(("b", 3), ("c", 2)), round=3)
    joined = after("change_configuration", server, of("abcd"))
    assert joined.log.entry(2) == Entry(1, "", of("abcd"))
    assert joined.match_index == (("b", 1), ("c", 1), ("d", 0))
    assert joined.acked_round == (("b", 3), ("c", 2), ("d", 0))
    left = after("change_configuration", server, of("ab"), "why")
    assert (left.match_index, left.acked_round) == ((("b", 1),), (("b", 3),))
    assert left.log.entry(2).value == "why"


def test_what_a_server_acknowledged_before_it_left_is_forgotten() -> None:
    left = replace(after("change_configuration", leader(match_index=(("b", 0), ("c", 1))), of("ab")), commit_index=2)
    answer = AppendEntriesResponse(1, "c", "a", True, 1, 0)
    assert after("handle_append_entries_response", left, answer) == left
    back = after("change_configuration", left, of("abc", allowed_by=2))
    assert back.match_index == (("b", 0), ("c", 0))


def test_a_server_without_a_vote_is_no_part_of_a_majority() -> None:
    server = leader(configured(of("abc", "d")), match_index=(("b", 0), ("c", 0), ("d", 2)))
    assert act("advance_commit_index", server, 2) is None
    assert act("advance_commit_index", replace(server, match_index=(("b", 2), ("c", 0), ("d", 0))), 2) is not None


def test_a_leader_that_leaves_commits_its_leave_without_counting_itself() -> None:
    leaving = leader(configured(of("bc")), match_index=(("b", 2), ("c", 0)))
    assert act("advance_commit_index", leaving, 2) is None
    outcome = act("advance_commit_index", replace(leaving, match_index=(("b", 2), ("c", 2))), 2)
    assert outcome is not None
    assert outcome.facts == (Committed(1, 2, leaving.log),)


def test_a_candidate_counts_the_voters_of_the_latest_configuration_in_its_log() -> None:
    campaigning = follower(configured(of("abcde")), role=Role.CANDIDATE, durable=Point(1, "a", configured(of("abcde"))))
    assert act("become_leader", replace(campaigning, votes=("b",))) is None
    outcome = act("become_leader", replace(campaigning, votes=("b", "e")))
    assert outcome is not None
    assert [peer for peer, _ in outcome.server.match_index] == ["b", "c", "d", "e"]


def test_who_has_no_vote_does_not_campaign_once_that_is_committed() -> None:
    left_out = follower(configured(of("bc")))
    assert act("timeout", replace(left_out, commit_index=2), 0) is None
    assert act("timeout", left_out, 0) is not None, "it may be the only one that can commit this"
    learning = follower(configured(of("abc", "d")))
    assert ACTIONS["timeout"](C, "d", replace(learning, commit_index=2), 0) is None
    assert ACTIONS["request_pre_vote"](C, "d", replace(learning, commit_index=2), "b") is None


def test_a_follower_takes_configurations_as_entries_and_loses_them_as_entries() -> None:
    entry = Entry(1, "", of("ab"))
    taken = after(
        "handle_append_entries_request", follower(), AppendEntriesRequest(1, "b", "a", 1, 1, (entry,), 0, 0), 0
    )
    assert C.configuration(taken.log) == of("ab")
    newer = follower(log=configured(of("ab")), durable=Point(2, None, configured(of("ab"))))
    conflicting = AppendEntriesRequest(2, "b", "a", 1, 1, (Entry(2, "y"),), 0, 0)
    assert C.configuration(after("handle_append_entries_request", newer, conflicting, 0).log) == C.genesis
