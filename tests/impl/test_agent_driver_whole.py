"""The driver around the rest of Raft: leases and the clock, changes of members, hand-overs, snapshots."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from impl.agent.driver import Driver
from impl.agent.logs import Log
from impl.agent.requests.api import Consistency, DefiniteError, IndefiniteError
from impl.agent.requests.changes import Changes
from impl.agent.requests.waiting import Reconfiguration, Waiting
from impl.agent.snapshots.lifecycle import Snapshots
from impl.catalog.commands import KvSet
from impl.catalog.queries import Answer, KvGet
from impl.catalog.store import KvAnswer, Store
from impl.catalog.tables import KvEntry
from impl.raft.configuration import Member, with_member, without_member
from impl.raft.core import Core
from impl.raft.errors import NotLeader
from impl.raft.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    InstallSnapshotRequest,
    Message,
    PreVoteRequest,
    PreVoteResponse,
    RequestVoteRequest,
    RequestVoteResponse,
    decode,
)
from impl.raft.messages import encode as encode_message
from impl.raft.ready import Role
from impl.raft.settings import Restored, Settings
from impl.rpc.handshake import AgentRole, Hello, Purpose
from impl.runtime.interfaces import MILLISECONDS, NANOSECONDS, Future
from impl.runtime.virtual import VirtualWorld
from impl.runtime.virtual_disk import VirtualDisk
from impl.storage.durable_log import DurableLog
from impl.storage.records import Genesis, Voter

SNAPSHOTS = "/data/raft/snapshots"


class Bench:
    """A driver of s1 in a virtual world; the other voters are what the test says. `answers`: what s2 does by itself."""

    def __init__(self, voters: int = 3, threshold: int = 10**9, trailing: int = 5) -> None:
        self.world = VirtualWorld(1)
        self.disk = VirtualDisk()
        self.disk.make_directories(SNAPSHOTS)
        self.process = self.world.process("s1", self.disk)
        self.names = [f"s{number}" for number in range(1, voters + 1)]
        self.disk_log, _ = DurableLog.open(self.disk, "/data/raft", "id-s1", segment_bytes=4096)
        self.disk_log.append([Genesis("cluster", tuple(Voter(name, f"id-{name}") for name in self.names))])
        settings = Settings(name="s1", snapshot_trailing=trailing)
        self.core = Core(settings, self.names, Restored(), Random(1), trace=False, now_ns=self.world.now_ns)
        self.sent: list[tuple[str, Message]] = []
        self.answers: Callable[[str, Message], None] = self.agree
        self.lines: list[str] = []
        log = Log(self.lines.append, lambda: 0.0)
        runtime = self.process.runtime
        self.snapshots = Snapshots(
            runtime, SNAPSHOTS, "cluster", log, threshold=threshold, interval_ns=100 * MILLISECONDS
        )
        self.calls: list[str] = []
        self.driver = Driver(
            runtime, self.core, self.disk_log, Store(), self, log, None, Changes(runtime), len, self.snapshots,
            self.call,
        )  # fmt: skip
        self.driver.start()

    async def call(self, to: str, method: str, body: bytes, timeout_ns: int) -> bytes:
        self.calls.append(f"{method} to {to}")
        raise OSError("nobody there")

    def send(self, to: str, frame: bytes) -> None:
        message = decode(frame)
        self.sent.append((to, message))
        self.answers(to, message)

    def agree(self, to: str, message: Message) -> None:
        """s2 says yes to everything, a millisecond later."""
        if to != "s2":
            return
        answer: Message
        match message:
            case PreVoteRequest(_, term):
                answer = PreVoteResponse(1, term, True)
            case RequestVoteRequest(_, term):
                answer = RequestVoteResponse(1, term, True)
            case AppendEntriesRequest():
                match_index = message.prev_log_index + len(message.entries)
                answer = AppendEntriesResponse(1, message.term, True, match_index, message.round)
            case _:
                return
        self.process.after(MILLISECONDS, lambda: self.driver.receive("s2", 1, answer, 0))

    def silence(self, to: str, message: Message) -> None:
        """Nobody answers."""

    def until(self, condition: Callable[[], object], seconds: float = 5) -> Bench:
        assert self.world.run_until(condition, int(seconds * NANOSECONDS)), self.lines
        return self

    def lead(self) -> Bench:
        self.until(lambda: self.core.role is Role.LEADER)
        return self.until(lambda: self.driver.applied >= 1)

    def put(self, key: str) -> Any:
        return self.driver.propose(KvSet(key, b"v", 0), f"s1/1/{key}")


def entries(read: Future[Answer]) -> tuple[KvEntry, ...]:
    answer = read.result()
    assert isinstance(answer, KvAnswer)
    return answer.entries


# Leases and the clock


def a_default_read_needs_no_round_while_the_lease_holds() -> None:
    bench = Bench().lead()
    bench.world.run_for(200 * MILLISECONDS)
    bench.answers = bench.silence
    sent = len(bench.sent)
    read = bench.driver.read(KvGet("k"), Consistency.DEFAULT)
    bench.until(read.done, 0.001)
    assert len(bench.sent) == sent
    assert entries(read) == ()


def a_leader_that_was_paused_answers_nothing_by_an_old_lease() -> None:
    bench = Bench().lead()
    bench.world.run_for(200 * MILLISECONDS)
    bench.answers = bench.silence
    bench.world.now_ns += 260 * MILLISECONDS  # no timer fires, and no message comes
    read = bench.driver.read(KvGet("k"), Consistency.DEFAULT)
    bench.world.run_for(MILLISECONDS)
    assert not read.done(), "another leader may have been elected since"


def a_consistent_read_is_never_answered_by_the_lease() -> None:
    bench = Bench().lead()
    bench.world.run_for(200 * MILLISECONDS)
    bench.answers = bench.silence
    read = bench.driver.read(KvGet("k"), Consistency.CONSISTENT)
    bench.world.run_for(30 * MILLISECONDS)
    assert not read.done()


def without_a_lease_a_default_read_takes_a_round() -> None:
    bench = Bench().lead()
    bench.answers = bench.silence
    bench.world.run_for(270 * MILLISECONDS)
    read = bench.driver.read(KvGet("k"), Consistency.DEFAULT)
    bench.world.run_for(5 * MILLISECONDS)
    assert not read.done()
    bench.answers = bench.agree
    bench.until(read.done, 0.2)


# Members and hand-overs


def a_change_of_members_is_answered_when_it_is_committed() -> None:
    bench = Bench().lead()
    bench.answers = bench.silence
    change = bench.driver.change_configuration(with_member(bench.core.configuration, Member("s4", voter=False)))
    bench.world.run_for(50 * MILLISECONDS)
    assert not change.done()
    bench.answers = bench.agree
    bench.until(change.done)
    assert change.result() == bench.core.configuration.index == 2
    put = bench.put("k")
    bench.until(put.done)
    assert put.result() is True


def a_change_that_may_or_may_not_be_committed_says_so() -> None:
    bench = Bench().lead()
    bench.answers = bench.silence
    change = bench.driver.change_configuration(without_member(bench.core.configuration, "s3"))
    bench.world.run_for(5 * MILLISECONDS)
    bench.driver.receive("s3", 1, AppendEntriesRequest(1, 9, 0, 0, 0, 0, []), 0)
    bench.until(change.done)
    with pytest.raises(IndefiniteError, match="leadership lost"):
        change.result()


def a_hand_over_is_done_when_this_server_leads_no_more() -> None:
    bench = Bench().lead()
    handed = bench.driver.transfer_leadership("s2")
    bench.world.run_for(20 * MILLISECONDS)
    assert not handed.done()
    bench.driver.receive("s2", 1, AppendEntriesRequest(1, 9, 0, 0, 0, 0, []), 0)
    bench.until(handed.done, 0.1)
    assert handed.result() is None


def a_hand_over_that_nobody_takes_fails_with_the_reason() -> None:
    bench = Bench().lead()
    handed = bench.driver.transfer_leadership("s2")
    bench.until(handed.done, 2)
    with pytest.raises(DefiniteError, match="leadership was not transferred to s2"):
        handed.result()


def stopping_answers_who_waits_for_a_hand_over() -> None:
    bench = Bench().lead()
    handed = bench.driver.transfer_leadership("s2")
    bench.driver.stop()
    with pytest.raises(IndefiniteError, match="shutting down"):
        handed.result()


def a_follower_whose_leaders_process_has_ended_campaigns_at_once() -> None:
    bench = Bench()
    bench.driver.receive("s3", 4, AppendEntriesRequest(1, 1, 0, 0, 0, 0, []), 0)
    bench.world.run_for(20 * MILLISECONDS)
    bench.driver.process_ended("s3", 4)
    bench.until(lambda: bench.core.role is Role.LEADER, 0.2)


# Snapshots


def a_log_that_grew_is_compacted_by_a_snapshot_and_old_segments_go() -> None:
    bench = Bench(threshold=100).lead()
    for number in range(300):
        bench.put(f"key{number}")
        if number % 20 == 0:
            bench.world.run_for(10 * MILLISECONDS)
    bench.until(lambda: bench.snapshots.counters.taken >= 1 and bench.core.server.log.base > 0)
    bench.world.run_for(300 * MILLISECONDS)
    log, recovered = DurableLog.open(bench.disk.copy(), "/data/raft", "id-s1", segment_bytes=4096)
    log.close()
    assert recovered.snapshot is not None
    assert recovered.entries[0].index == recovered.snapshot.base + 1
    assert recovered.snapshot.base == recovered.snapshot.index - 5
    assert "0000000001.log" not in bench.disk.names("/data/raft")
    assert recovered.snapshot.file in bench.disk.names(SNAPSHOTS)


HELLO = Hello(1, "cluster", "id-s2", "s2", "dc1", 3, AgentRole.SERVER, Purpose.RPC)


def foreign_snapshot() -> tuple[VirtualDisk, InstallSnapshotRequest, Any]:
    """A snapshot of another server, up to index 400 of term 2."""
    other = Bench(voters=1, threshold=1).lead()
    for number in range(30):
        other.put(f"other{number}")
    other.until(lambda: other.snapshots.counters.taken >= 1 and other.snapshots.last_index > 20)
    meta = next(iter(other.snapshots._files.values()))
    request = InstallSnapshotRequest(
        5, 2, meta.index, meta.term, meta.size, meta.checksum, meta.configuration, meta.configuration_index, 1
    )
    return other.disk, request, meta


def a_snapshot_that_arrived_replaces_the_state_and_wakes_whoever_watches() -> None:
    disk, request, meta = foreign_snapshot()
    bench = Bench()
    bench.driver.receive("s2", 3, AppendEntriesRequest(1, 2, 0, 0, 0, 0, []), 0)
    bench.disk.put(f"{SNAPSHOTS}/{meta.file}", disk.content(f"{SNAPSHOTS}/{meta.file}"))
    woken: list[int] = []
    bench.driver.replaced = lambda: woken.append(bench.driver.applied)
    old = bench.driver.store
    assert bench.driver.snapshot_received(HELLO, request, encode_message(request), meta)
    bench.until(lambda: bench.driver.applied == meta.index)
    bench.world.run_for(10 * MILLISECONDS)
    assert woken == [meta.index], "a restore abandons watches"
    assert bench.driver.store is not old
    assert len(bench.driver.store) >= 20
    [answer] = [message for _, message in bench.sent if isinstance(message, AppendEntriesResponse)][-1:]
    assert (answer.success, answer.match_index) == (True, meta.index)
    assert not bench.driver.snapshot_received(HELLO, request, encode_message(request), meta), "it is here already"


def writes_below_a_snapshot_that_replaced_the_state_are_answered_as_unknown() -> None:
    disk, request, meta = foreign_snapshot()
    bench = Bench()
    bench.disk.put(f"{SNAPSHOTS}/{meta.file}", disk.content(f"{SNAPSHOTS}/{meta.file}"))
    bench.driver.receive("s2", 3, AppendEntriesRequest(1, 2, 0, 0, 0, 0, []), 0)
    below, beyond = bench.process.runtime.tasks.future(), bench.process.runtime.tasks.future()
    bench.driver._waiting.reconfigured(meta.index, Reconfiguration(below, 1))
    bench.driver._waiting.reconfigured(meta.index + 1, Reconfiguration(beyond, 1))
    assert bench.driver.snapshot_received(HELLO, request, encode_message(request), meta)
    bench.until(lambda: bench.driver.applied == meta.index)
    assert below.done()
    assert not beyond.done()
    with pytest.raises(IndefiniteError):
        below.result()


def who_lags_behind_the_base_is_sent_the_snapshot() -> None:
    bench = Bench(threshold=50).lead()
    for number in range(200):
        bench.put(f"key{number}")
        if number % 20 == 0:
            bench.world.run_for(10 * MILLISECONDS)
    bench.until(lambda: bench.core.server.log.base > 100)
    bench.driver.receive("s3", 1, AppendEntriesResponse(1, 1, False, 200, 0, 0, 0), 0)
    bench.until(lambda: bench.calls, 2)
    assert bench.calls[0] == "snapshot-offer to s3"
    bench.until(lambda: any("snapshot not sent" in line for line in bench.lines))


SENTENCES = [
    a_default_read_needs_no_round_while_the_lease_holds,
    a_leader_that_was_paused_answers_nothing_by_an_old_lease,
    a_consistent_read_is_never_answered_by_the_lease,
    without_a_lease_a_default_read_takes_a_round,
    a_change_of_members_is_answered_when_it_is_committed,
    a_change_that_may_or_may_not_be_committed_says_so,
    a_hand_over_is_done_when_this_server_leads_no_more,
    a_hand_over_that_nobody_takes_fails_with_the_reason,
    stopping_answers_who_waits_for_a_hand_over,
    a_follower_whose_leaders_process_has_ended_campaigns_at_once,
    a_log_that_grew_is_compacted_by_a_snapshot_and_old_segments_go,
    a_snapshot_that_arrived_replaces_the_state_and_wakes_whoever_watches,
    writes_below_a_snapshot_that_replaced_the_state_are_answered_as_unknown,
    who_lags_behind_the_base_is_sent_the_snapshot,
]


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda sentence: str(sentence.__name__))
def test_the_driver_of_the_whole(sentence: Callable[[], None]) -> None:
    sentence()


def always_by_lease(driver: Driver, query: KvGet, consistency: Consistency) -> Any:
    """The mutant: takes the lease for enough whatever was asked for."""
    return READ(driver, query, Consistency.DEFAULT)


READ = Driver.read


@pytest.mark.parametrize(
    ("owner", "name", "mutant", "sentence"),
    [
        (
            Driver,
            "_advance_clock",
            lambda driver: None,
            a_leader_that_was_paused_answers_nothing_by_an_old_lease,
        ),
        (Driver, "read", always_by_lease, a_consistent_read_is_never_answered_by_the_lease),
        (Core, "lease_read", lambda core, read: False, a_default_read_needs_no_round_while_the_lease_holds),
        (Waiting, "lost", lambda waiting, lost: None, a_change_that_may_or_may_not_be_committed_says_so),
        (Waiting, "handed_over", lambda waiting, error=None: None, a_hand_over_is_done_when_this_server_leads_no_more),
        (Waiting, "handed_over", lambda waiting, error=None: None, a_hand_over_that_nobody_takes_fails_with_the_reason),
        (
            Waiting,
            "replaced",
            lambda waiting, index: None,
            writes_below_a_snapshot_that_replaced_the_state_are_answered_as_unknown,
        ),
        (
            Snapshots,
            "marked",
            lambda snapshots, marker, remove: None,
            a_log_that_grew_is_compacted_by_a_snapshot_and_old_segments_go,
        ),
        (
            Snapshots,
            "restore",
            lambda snapshots, meta: snapshots._machine.restored(Store(), meta.index, ""),
            a_snapshot_that_arrived_replaces_the_state_and_wakes_whoever_watches,
        ),
    ],
)
def test_a_broken_driver_of_the_whole_is_noticed(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, mutant: object, sentence: Callable[[], None]
) -> None:
    assert hasattr(owner, name)
    monkeypatch.setattr(owner, name, mutant)
    with pytest.raises(AssertionError):
        sentence()


def test_only_a_leader_changes_members_or_hands_over() -> None:
    bench = Bench()
    with pytest.raises(NotLeader):
        bench.driver.change_configuration([Member("s1")])
    with pytest.raises(NotLeader):
        bench.driver.transfer_leadership(None)
    with pytest.raises(NotLeader):
        bench.driver.read(KvGet("k"), Consistency.DEFAULT)
    stale = bench.driver.read(KvGet("k"), Consistency.STALE)
    assert entries(stale) == ()


def test_a_configuration_is_no_command() -> None:
    bench = Bench().lead()
    change = bench.driver.change_configuration(with_member(bench.core.configuration, Member("s4", voter=False)))
    bench.until(change.done)
    assert len(bench.driver.store) == 0
