"""The core's border: refusals, limits, what is fatal, what is durable before what. Sentences of `impl/raft/ready.py`
and the paper.
"""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest

from impl.raft import outbox
from impl.raft.core import Core
from impl.raft.disk import Disk
from impl.raft.errors import DurabilityViolated, NotLeader, NotReady, Overloaded, ProtocolViolated
from impl.raft.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    Entry,
    InstallSnapshotRequest,
    PreVoteRequest,
    PreVoteResponse,
    RequestVoteRequest,
    RequestVoteResponse,
    TimeoutNow,
    decode,
    encode,
)
from impl.raft.progress import Progress
from impl.raft.quorum import majority, reached_by_quorum
from impl.raft.ready import HardState, Ready, Role
from impl.raft.settings import Restored, Settings


def core(name: str = "s1", voters: int = 3, restored: Restored | None = None, **limits: Any) -> Core:
    settings = Settings(name=name, pre_vote=False, **limits)
    names = [f"s{number}" for number in range(1, voters + 1)]
    return Core(settings, names, restored or Restored(), Random(1), trace=False, now_ns=1)


def pass_time(server: Core, ticks: int = 1) -> None:
    """Time as an agent sees it: its clock and its timer go on."""
    for _ in range(ticks):
        server.advance_clock(server.server.now_ns + 10_000_000)
        server.tick()


def stand_for_election(server: Core) -> None:
    """Time passes until the server campaigns."""
    for _ in range(200):
        if server.role is not Role.FOLLOWER:
            return
        pass_time(server)
    raise AssertionError("it never campaigned")


def drain(server: Core, *, sync: bool = True) -> list[Ready]:
    """Carry out everything the core asks for; the disk is fast, or does nothing."""
    done = []
    while server.has_ready():
        ready = server.ready()
        done.append(ready)
        if ready.write is not None and sync:
            server.persisted(ready.write.number)
    return done


def leader(voters: int = 3, **limits: Any) -> Core:
    """A leader of term 1 that has committed its first entry."""
    server = core("s1", voters, **limits)
    stand_for_election(server)
    drain(server)
    if voters > 1:
        server.step("s2", RequestVoteResponse(1, 1, True))
        drain(server)
        server.step("s2", AppendEntriesResponse(2, 1, True, 1, 0))
        drain(server)
    assert server.role is Role.LEADER and server.commit_index == 1
    return server


def test_only_a_leader_takes_proposals_and_reads_and_others_say_whom_to_ask() -> None:
    follower = core()
    with pytest.raises(NotLeader) as refused:
        follower.propose([b"x"])
    assert refused.value.leader_id is None
    follower.step("s2", AppendEntriesRequest(1, 1, 0, 0, 0, 0, []))
    with pytest.raises(NotLeader) as refused:
        follower.read("r")
    assert refused.value.leader_id == "s2"
    assert str(refused.value) == "not the leader; ask s2"


def test_a_leader_that_has_committed_nothing_of_its_term_takes_no_reads() -> None:
    server = core()
    stand_for_election(server)
    drain(server)
    server.step("s2", RequestVoteResponse(1, 1, True))
    with pytest.raises(NotReady, match="term 1"):
        server.read("r")


def test_a_leader_that_a_quorum_does_not_follow_refuses_proposals_before_memory_is_full() -> None:
    by_count = leader(uncommitted_entries_max=2)
    by_count.propose([b"a", b"b"])
    with pytest.raises(Overloaded, match="2 entries"):
        by_count.propose([b"c"])
    by_size = leader(uncommitted_bytes_max=10)
    by_size.propose([b"0123456789"])
    with pytest.raises(Overloaded, match="10 bytes"):
        by_size.propose([b"c"])
    by_reads = leader(reads_max=1)
    by_reads.read("r1")
    with pytest.raises(Overloaded, match="1 reads"):
        by_reads.read("r2")


def test_entries_in_flight_to_a_silent_peer_are_bounded() -> None:
    server = leader(append_entries_max=1, inflight_messages_max=3)
    server.propose([b"x"] * 10)
    sent = [message for ready in drain(server) for to, message in ready.messages if to == "s2"]
    assert [
        entry.index for message in sent if isinstance(message, AppendEntriesRequest) for entry in message.entries
    ] == [
        2,
        3,
        4,
    ]
    server.step("s2", AppendEntriesResponse(3, 1, True, 3, 0))
    sent = [message for ready in drain(server) for to, message in ready.messages if to == "s2"]
    assert [
        entry.index for message in sent if isinstance(message, AppendEntriesRequest) for entry in message.entries
    ] == [
        5,
        6,
    ]


def test_two_leaders_in_one_term_are_fatal() -> None:
    with pytest.raises(ProtocolViolated, match="s3 and s1 both lead term 1"):
        leader().step("s3", AppendEntriesRequest(1, 1, 0, 0, 0, 0, []))


def test_a_second_leader_of_the_term_is_fatal_to_a_follower_too() -> None:
    follower = core()
    follower.step("s2", AppendEntriesRequest(1, 1, 0, 0, 0, 0, []))
    with pytest.raises(ProtocolViolated, match="s3 and s2 both lead term 1"):
        follower.step("s3", AppendEntriesRequest(1, 1, 0, 0, 0, 0, []))


def test_an_acknowledgement_of_what_was_never_sent_is_fatal() -> None:
    with pytest.raises(ProtocolViolated, match="s2 acknowledges entry 9 of 1"):
        leader().step("s2", AppendEntriesResponse(9, 1, True, 9, 0))


def test_nothing_cannot_be_proposed() -> None:
    with pytest.raises(ValueError, match="at least one payload"):
        leader().propose([])


def test_a_leader_that_would_overwrite_committed_entries_is_fatal() -> None:
    follower = core()
    follower.step("s2", AppendEntriesRequest(1, 1, 0, 0, 1, 0, [Entry(1, 1, b"a")]))
    drain(follower)
    with pytest.raises(ProtocolViolated, match="everything up to 1 is committed"):
        follower.step("s3", AppendEntriesRequest(1, 2, 0, 0, 0, 0, [Entry(1, 2, b"b")]))


def test_a_slice_with_gaps_is_fatal() -> None:
    with pytest.raises(ProtocolViolated, match=r"after index 0 has entries 2\.\.2"):
        core().step("s2", AppendEntriesRequest(1, 1, 0, 0, 0, 0, [Entry(2, 1, b"")]))


def test_a_server_follows_a_leader_and_votes_for_a_candidate_that_its_configuration_does_not_name() -> None:
    server = core()
    server.step("s9", AppendEntriesRequest(1, 1, 0, 0, 0, 0, [Entry(1, 1, b"a")]))
    assert (server.term, server.leader_id, server.last_index) == (1, "s9", 1)
    pass_time(server, 29)
    server.step("s8", RequestVoteRequest(1, 2, 1, 1, urged_by=1))
    assert (server.term, server.server.voted_for) == (2, "s8")


def test_no_message_leaves_before_its_term_and_vote_are_on_disk() -> None:
    server = core()
    stand_for_election(server)
    (ready,) = drain(server, sync=False)
    assert ready.messages == []
    assert ready.write is not None and ready.write.records == [HardState(1, "s1")]
    server.persisted(ready.write.number)
    assert [to for to, _ in server.ready().messages] == ["s2", "s3"]


def test_an_acknowledgement_waits_for_the_disk_and_covers_all_that_arrived() -> None:
    follower = core()
    follower.step("s2", AppendEntriesRequest(1, 1, 0, 0, 0, 0, [Entry(1, 1, b"a")]))
    first = follower.ready()
    follower.step("s2", AppendEntriesRequest(2, 1, 1, 1, 0, 0, [Entry(2, 1, b"b")]))
    second = follower.ready()
    assert first.messages == second.messages == []
    assert first.write is not None and second.write is not None
    follower.persisted(second.write.number)
    ((to, message),) = follower.ready().messages
    assert to == "s2"
    assert isinstance(message, AppendEntriesResponse) and message.success and message.match_index == 2


def test_an_entry_is_applied_only_when_it_is_on_this_servers_disk() -> None:
    server = leader()
    server.propose([b"a"])
    ready = server.ready()
    for peer in ("s2", "s3"):
        server.step(peer, AppendEntriesResponse(5, 1, True, 2, 0))
    assert server.commit_index == 2
    assert server.ready().committed == []
    assert ready.write is not None
    server.persisted(ready.write.number)
    assert [entry.index for entry in server.ready().committed] == [2]


def test_what_was_cut_from_memory_does_not_become_durable_when_its_write_is_confirmed() -> None:
    follower = core()
    follower.step("s2", AppendEntriesRequest(1, 1, 0, 0, 0, 0, [Entry(1, 1, b"a"), Entry(2, 1, b"b")]))
    first = follower.ready().write
    follower.step("s3", AppendEntriesRequest(1, 2, 0, 0, 0, 0, [Entry(1, 2, b"c")]))
    second = follower.ready().write
    assert first is not None and second is not None
    follower.persisted(first.number)
    assert follower.ready().messages == [], "the disk holds entries 1 and 2 of term 1, which memory does not have"
    follower.persisted(second.number)
    ((to, message),) = follower.ready().messages
    assert (to, message.term) == ("s3", 2)
    assert isinstance(message, AppendEntriesResponse) and message.match_index == 1


def test_a_claim_that_the_disk_does_not_support_stops_the_server() -> None:
    server = core()
    stand_for_election(server)
    with pytest.raises(DurabilityViolated, match="stop this server"):
        outbox.send(server.server, "s2", RequestVoteRequest(1, 1, 0, 0))


@pytest.mark.parametrize("number", [0, 2, 7])
def test_confirming_a_write_that_is_not_on_its_way_is_an_error(number: int) -> None:
    disk = Disk(0, None, 0)
    disk.record_hard_state(1, "s1")
    disk.issue()
    with pytest.raises(ValueError, match=f"write {number} is not on its way"):
        disk.confirm(number)


def test_a_restarted_server_remembers_term_vote_and_log_and_nothing_else() -> None:
    entries = (Entry(1, 1, b"a"), Entry(2, 3, b"b"))
    server = core(restored=Restored(3, "s2", entries))
    assert (server.term, server.last_index, server.commit_index, server.role) == (3, 2, 0, Role.FOLLOWER)
    server.step("s3", RequestVoteRequest(1, 3, 9, 9))
    (ready,) = drain(server)
    ((to, message),) = ready.messages
    assert to == "s3"
    assert isinstance(message, RequestVoteResponse) and not message.vote_granted, "its vote of term 3 is taken"


def test_the_election_timeout_is_drawn_anew_from_its_range_each_time() -> None:
    server = core(election_ticks_min=30, election_ticks_max=60)
    seen = set()
    for sequence in range(400):
        server.step("s2", AppendEntriesRequest(sequence, 1, 0, 0, 0, 0, []))
        seen.add(server.server.election_deadline)
    assert seen == set(range(30, 61))


def test_a_closed_connection_is_no_evidence_but_the_end_of_the_leaders_process_is() -> None:
    server = core()
    server.step("s2", AppendEntriesRequest(1, 1, 0, 0, 0, 0, []), "s2/7/1")
    server.peer_lost("s2")
    server.process_ended("s3", 9)
    server.process_ended("s2", 6)
    assert not server.server.lease_ended, "s3 does not lead, and an earlier process of s2 did not either"
    server.process_ended("s2", 7)
    pass_time(server, server.server.settings.leader_lost_ticks_max)
    assert server.role is Role.CANDIDATE
    votes = [message for ready in drain(server) for _, message in ready.messages]
    assert [message.urged_by for message in votes if isinstance(message, RequestVoteRequest)] == [1, 1]


def test_a_leader_that_is_heard_again_takes_the_shorter_delay_back() -> None:
    server = core()
    server.step("s2", AppendEntriesRequest(1, 1, 0, 0, 0, 0, []), "s2/7/1")
    server.process_ended("s2", 7)
    server.step("s2", AppendEntriesRequest(2, 1, 0, 0, 0, 0, []), "s2/7/2")
    pass_time(server, server.server.settings.election_ticks_min - 1)
    assert server.role is Role.FOLLOWER


def test_the_driver_is_told_that_the_next_tick_would_start_an_election() -> None:
    server = core()
    while not server.election_due:
        pass_time(server)
        assert server.role is Role.FOLLOWER
    pass_time(server)
    assert server.role is Role.CANDIDATE


@pytest.mark.parametrize(
    "message",
    [
        RequestVoteRequest(1, 2, 3, 4),
        RequestVoteResponse(1, 2, True),
        AppendEntriesRequest(1, 2, 3, 4, 5, 6, [Entry(4, 2, b"\x00\xff")]),
        AppendEntriesResponse(1, 2, False, 3, 4, 5, 6),
        PreVoteRequest(1, 2, 3, 4),
        PreVoteResponse(1, 2, True),
        InstallSnapshotRequest(1, 2, 3, 4, 5, "06", b"\x00", 7, 8),
        TimeoutNow(1, 2),
    ],
)
def test_a_message_survives_the_wire(message: RequestVoteRequest) -> None:
    assert decode(encode(message)) == message


@pytest.mark.parametrize("junk", [b"", b"\xc1", b"\x90", b"\x91\x09", encode(RequestVoteRequest(1, 2, 3, 4))[:-1]])
def test_junk_on_the_wire_is_a_decode_error(junk: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(junk)


def test_a_majority_of_any_number_of_voters_meets_any_other() -> None:
    assert [majority(voters) for voters in range(1, 8)] == [1, 2, 2, 3, 3, 4, 4]
    assert reached_by_quorum([5, 1, 3]) == 3
    assert reached_by_quorum([5, 1, 3, 9]) == 3
    assert reached_by_quorum([7]) == 7


def test_a_rejection_that_was_overtaken_is_ignored() -> None:
    progress = Progress(next_index=10)
    assert progress.is_stale_rejection(4), "the probe was sent after index 9"
    assert not progress.is_stale_rejection(9)
    progress.acknowledge(6)
    assert progress.is_stale_rejection(6)
    assert not progress.is_stale_rejection(8)


def test_a_heartbeat_must_fit_the_election_timeout() -> None:
    with pytest.raises(ValueError, match="use 0 < heartbeat < min <= max"):
        Settings(name="s1", heartbeat_ticks=30, election_ticks_min=30)


def test_a_lease_that_could_outlast_an_election_timeout_is_refused() -> None:
    with pytest.raises(ValueError, match=r"use lease \* \(1 \+ drift\)\^2 < election timeout"):
        Settings(name="s1", lease_ms=280)
    assert Settings(name="s1", lease_ms=280, clock_drift=0.01).lease_ns == 280_000_000
    assert Settings(name="s1", lease_ms=0, clock_drift=0.9).lease_ns == -1


def test_who_is_no_voter_never_campaigns() -> None:
    stranger = core(name="s9")
    pass_time(stranger, 200)
    assert (stranger.role, stranger.term) == (Role.FOLLOWER, 0)
