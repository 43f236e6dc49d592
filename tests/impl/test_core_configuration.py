"""Configurations as values, and the reasons why a leader refuses a change. Sentences of Ongaro 2014, chapter 4, and of
`impl/raft/errors.py`.
"""

from __future__ import annotations

from random import Random

import msgspec
import pytest

from impl.raft import membership
from impl.raft.configuration import (
    Configuration,
    Member,
    decode_configuration,
    encode_configuration,
    first_configuration,
    with_member,
    with_voter,
    without_member,
)
from impl.raft.core import Core
from impl.raft.errors import (
    AlreadyMember,
    ConfigurationInProgress,
    LastVoter,
    NotLeader,
    NotOneChange,
    NotReady,
    TransferImpossible,
    UnknownServer,
    WouldLoseQuorum,
)
from impl.raft.messages import AppendEntriesResponse, RequestVoteResponse
from impl.raft.ready import Role
from impl.raft.settings import Restored, Settings

THREE = first_configuration(["s1", "s2", "s3"])


def drain(server: Core) -> None:
    while server.has_ready():
        ready = server.ready()
        if ready.write is not None:
            server.persisted(ready.write.number)


def pass_time(server: Core, ticks: int) -> None:
    for _ in range(ticks):
        server.advance_clock(server.server.now_ns + 10_000_000)
        server.tick()


def leader(*, committed: bool = True) -> Core:
    """The leader s1 of three; s3 never answers. `committed`: its first entry is."""
    server = Core(Settings(name="s1", pre_vote=False), ["s1", "s2", "s3"], Restored(), Random(1), trace=False, now_ns=1)
    for _ in range(200):
        if server.role is Role.CANDIDATE:
            break
        pass_time(server, 1)
    drain(server)
    server.step("s2", RequestVoteResponse(1, 1, True))
    drain(server)
    server.step("s2", AppendEntriesResponse(2, 1, True, 1 if committed else 0, 0))
    drain(server)
    assert server.role is Role.LEADER
    return server


def test_a_configuration_survives_the_log() -> None:
    configuration = Configuration((Member("s1", "n1", "d1", "h:1", True), Member("s2", voter=False)), 7, 9)
    assert decode_configuration(encode_configuration(configuration), 9) == configuration
    with pytest.raises(msgspec.DecodeError):
        decode_configuration(msgspec.msgpack.encode(["kv-set", "k", b"", 0]), 9)
    with pytest.raises(msgspec.ValidationError, match="entry 9 is no configuration but 'noop'"):
        decode_configuration(msgspec.msgpack.encode(["noop", [], 0]), 9)


def test_each_change_concerns_one_server_and_is_refused_if_there_is_nothing_to_change() -> None:
    four = Configuration(with_member(THREE, Member("s4", voter=False)))
    assert (four.names, four.voters) == (("s1", "s2", "s3", "s4"), ("s1", "s2", "s3"))
    assert Configuration(with_voter(four, "s4", voter=True)).voters == four.names
    assert Configuration(without_member(four, "s1")).names == ("s2", "s3", "s4")
    with pytest.raises(AlreadyMember, match="s1 is already a member of the cluster"):
        with_member(THREE, Member("s1"))
    with pytest.raises(AlreadyMember, match="s1 is already a voter"):
        with_voter(THREE, "s1", voter=True)
    with pytest.raises(UnknownServer, match="s9 is not a member of the cluster; the members are s1, s2, s3"):
        without_member(THREE, "s9")


def test_only_a_leader_that_has_committed_an_entry_of_its_term_changes_the_configuration() -> None:
    follower = Core(Settings(name="s1"), ["s1", "s2"], Restored(), Random(1), trace=False, now_ns=1)
    with pytest.raises(NotLeader):
        follower.change_configuration(without_member(THREE, "s3"))
    with pytest.raises(NotReady, match="term 1"):
        leader(committed=False).change_configuration(without_member(THREE, "s3"))


def test_one_change_at_a_time_of_one_server() -> None:
    server = leader()
    for members in ([Member("s1")], THREE.members, (), [*THREE.members, Member("s1")]):
        with pytest.raises(NotOneChange, match="one server at a time"):
            server.change_configuration(members)
    assert server.last_index == 1, "nothing was done"
    assert server.change_configuration(without_member(server.configuration, "s3")) == (2, 1)
    assert server.configuration.names == ("s1", "s2"), "in force before it is committed"
    with pytest.raises(ConfigurationInProgress, match="the configuration at index 2 is not committed yet"):
        server.change_configuration(with_member(server.configuration, Member("s4", voter=False)))


def test_a_change_after_which_those_who_answer_are_no_quorum_is_refused_with_who_is_silent() -> None:
    server = leader()
    with pytest.raises(WouldLoseQuorum, match="2 of 2 voters must answer, and there is nothing from s3") as refused:
        server.change_configuration(without_member(server.configuration, "s2"))
    assert refused.value.unreachable == ("s3",)
    server.change_configuration(without_member(server.configuration, "s3"))


def test_the_last_voter_stays() -> None:
    alone = Core(Settings(name="s1", pre_vote=False), ["s1"], Restored(), Random(1), trace=False, now_ns=1)
    while alone.role is not Role.LEADER:
        pass_time(alone, 1)
        drain(alone)
    assert alone.change_configuration(with_member(alone.configuration, Member("s2", voter=False))) == (2, 1)
    drain(alone)
    for members in (without_member(alone.configuration, "s1"), with_voter(alone.configuration, "s1", voter=False)):
        with pytest.raises(LastVoter, match="s1 is the last voter, and nothing could be committed without it; promote"):
            alone.change_configuration(members)
    assert alone.last_index == 2, "nothing was done"


def test_a_leader_that_lets_the_last_voter_go_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "check_quorum_after", lambda server, voters: None)
    with pytest.raises((pytest.fail.Exception, IndexError)):  # the core has no majority of nobody
        test_the_last_voter_stays()


def test_a_check_that_forgets_who_is_silent_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "is_live", lambda server, peer: True)
    with pytest.raises(pytest.fail.Exception):
        test_a_change_after_which_those_who_answer_are_no_quorum_is_refused_with_who_is_silent()


def test_leadership_goes_to_a_voter_that_answers() -> None:
    server = leader()
    server.change_configuration(with_member(server.configuration, Member("s4", voter=False)))
    for to, reason in (("s1", "leads already"), ("s3", "does not answer"), ("s4", "is a non-voter: promote it first")):
        with pytest.raises(TransferImpossible, match=f"{to} {reason}"):
            server.transfer_leadership(to)
    with pytest.raises(UnknownServer, match="s9 is not a member"):
        server.transfer_leadership("s9")
    assert server.transfer_leadership(None) == "s2"


def test_a_transfer_of_which_nothing_comes_ends_after_an_election_timeout() -> None:
    server = leader()
    server.transfer_leadership("s2")
    failed = []
    for sequence in range(80):
        pass_time(server, 1)
        server.step("s2", AppendEntriesResponse(10 + sequence, 1, True, 1, 0))
        while server.has_ready():
            failed += server.ready().transfers_failed
    assert [(failure.to, failure.reason) for failure in failed] == [("s2", "s2 did not take over within 600 ms")]
    assert server.propose([b"x"]) == (2, 1)
