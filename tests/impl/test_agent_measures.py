"""What an agent measures of Raft and of requests is true: commit times are those of what was committed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from impl.agent.measures import RaftMeasures, RequestMeasures
from impl.catalog.commands import Deregister, KvSet, ReapTombstones, Register, Transaction
from impl.catalog.rows import Node
from impl.raft.ready import Role
from impl.runtime.interfaces import MILLISECONDS, NANOSECONDS
from impl.runtime.virtual import VirtualWorld
from impl.runtime.virtual_disk import VirtualDisk
from impl.telemetry.instruments import Sample, Summary, Telemetry


class Server:
    """The measures of one server, in a world whose time only passes when it is told to."""

    def __init__(self) -> None:
        self.world = VirtualWorld(1)
        clock = self.world.process("n", VirtualDisk()).runtime.clock
        self.telemetry = Telemetry(clock)
        self.raft = RaftMeasures(self.telemetry, clock)
        self.requests = RequestMeasures(self.telemetry)

    def sample(self, name: str) -> Summary:
        (found,) = [sample.ever for metric, sample in self.telemetry.samples() if metric.name == name]
        return found

    def counter(self, name: str) -> int:
        (found,) = [total for metric, total in self.telemetry.counters() if metric.name == name]
        return found


def commit_times_are_from_the_proposal_until_it_is_applied() -> None:
    server = Server()
    server.raft.proposed(3, 13)
    server.world.run_for(5 * MILLISECONDS)
    server.raft.proposed(2, 15)
    server.world.run_for(5 * MILLISECONDS)
    server.raft.applied(12)
    assert server.sample("raft.commitTime").count == 0
    server.raft.applied(15)
    commits = server.sample("raft.commitTime")
    assert (commits.count, commits.least, commits.greatest) == (2, 5.0, 10.0)
    assert (server.counter("raft.apply"), server.sample("raft.leader.dispatchNumLogs").total) == (5, 5)


def test_commit_times_are_from_the_proposal_until_it_is_applied() -> None:
    commit_times_are_from_the_proposal_until_it_is_applied()


def what_a_deposed_leader_proposed_has_no_commit_time() -> None:
    server = Server()
    server.raft.changed(Role.CANDIDATE, False)
    server.raft.changed(Role.LEADER, False)
    server.raft.proposed(1, 10)
    server.raft.changed(Role.FOLLOWER, True)
    server.world.run_for(NANOSECONDS)
    server.raft.applied(10)  # another leader's entry
    assert server.sample("raft.commitTime").count == 0
    roles = {role: server.counter(f"raft.state.{role}") for role in ("leader", "candidate", "follower")}
    assert roles == {"leader": 1, "candidate": 1, "follower": 1}
    assert server.counter("comitia.raft.stepped_down") == 1


def test_what_a_deposed_leader_proposed_has_no_commit_time() -> None:
    what_a_deposed_leader_proposed_has_no_commit_time()


def test_the_disk_of_a_leader_and_of_a_follower_are_told_apart() -> None:
    server = Server()
    server.raft.written(2 * MILLISECONDS, Role.LEADER)
    server.raft.written(4 * MILLISECONDS, Role.FOLLOWER)
    assert server.sample("raft.leader.dispatchLog").total == 2.0
    assert server.sample("raft.rpc.appendEntries.storeLogs").total == 4.0


def writes_are_measured_by_what_they_change() -> None:
    server = Server()
    for command in (KvSet("k", b"", 0), Register(Node("n", "")), Deregister("n"), Transaction(()), ReapTombstones(1)):
        server.requests.written(command, 3 * MILLISECONDS)
    for name in ("kvs.apply", "catalog.register", "catalog.deregister", "txn.apply"):
        assert server.sample(name) == Summary(1, 3.0, 9.0, 3.0, 3.0)
    assert server.sample("session.apply").count == 0


def test_writes_are_measured_by_what_they_change() -> None:
    writes_are_measured_by_what_they_change()


def _remembers_for_ever(patch: pytest.MonkeyPatch) -> None:
    def mutant(self: RaftMeasures, role: Role, stepped_down: bool) -> None:
        self._roles[role].total += 1
        self._stepped_down.total += stepped_down

    patch.setattr(RaftMeasures, "changed", mutant)


def _measures_in_seconds(patch: pytest.MonkeyPatch) -> None:
    observe = Sample.observe
    patch.setattr(Sample, "observe", lambda self, value: observe(self, value / 1000))


@pytest.mark.parametrize(
    ("mutant", "sentence"),
    [
        (_remembers_for_ever, what_a_deposed_leader_proposed_has_no_commit_time),
        (_measures_in_seconds, commit_times_are_from_the_proposal_until_it_is_applied),
        (_measures_in_seconds, writes_are_measured_by_what_they_change),
    ],
)
def test_broken_measures_are_noticed(
    monkeypatch: pytest.MonkeyPatch, mutant: Callable[[pytest.MonkeyPatch], None], sentence: Callable[[], None]
) -> None:
    mutant(monkeypatch)
    with pytest.raises(AssertionError):
        sentence()
