"""Reads by lease are judged by time: a lease that outlives the leadership is noticed even if the protocol allows it.

No message tells of it: the old leader hears from nobody. So neither the replay's order nor the guards can tell (the
replay believes in the broken protocol, too), only the clock that all servers share.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from msgspec.structs import replace

from model_checks.conformance import check_traces, server
from model_checks.conformance.spec_nodes import NOOP, Node
from model_checks.conformance.spec_runs import ELECTION_NS, SpecCluster, random_payload, written
from model_checks.verdicts import CheckResult, Verdict, merge
from spec.catalog.commands import Get
from spec.raft.actions import ACTIONS, Action
from spec.raft.reads import may_take_reads
from spec.raft.types import Constants, Outcome, Point, Read, ReadConfirmed, ReadStarted, Role, Server, ServerId, Time


def endless_lease(c: Constants, i: ServerId, s: Server, read: str, now: Time = 0) -> Outcome | None:
    """Whoever believes that it leads answers."""
    if not may_take_reads(s, read):
        return None
    found = Read(read, s.commit_index, s.round)
    facts = (ReadStarted(read, s.current_term, found.index), ReadConfirmed(read, s.current_term, found.index))
    return Outcome(replace(s, confirmed=(*s.confirmed, found)), facts=facts)


def exchange(cluster: SpecCluster, connected: list[Node]) -> None:
    """Deliver, sync and answer until nothing is left to do among the connected servers; what others sent is lost."""
    names = {node.name for node in connected}
    for _ in range(20):
        arriving = [*cluster.network]
        cluster.network.clear()
        for id, message, frame in arriving:
            if {message.source, message.dest} <= names:
                next(node for node in connected if node.name == message.dest).receive(id, message, frame)
        for node in connected:
            node.issue()
            while node.server.issued:
                node.persist()
            node.respond()
        if not cluster.network:
            return
    raise AssertionError("the servers talk without end")


def elect(cluster: SpecCluster, node: Node, connected: list[Node]) -> None:
    """Let `node` be elected, and commit the entry that begins its term."""
    cluster.clock += ELECTION_NS
    for action in ("request_pre_vote", "timeout", "request_vote"):
        if action == "timeout":
            assert node.take(action)
            exchange(cluster, connected)
        else:
            for peer in cluster.constants.voters:
                node.send(action, peer)
            exchange(cluster, connected)
    assert node.take("become_leader")
    node.propose([NOOP])
    replicate(cluster, node, connected)


def replicate(cluster: SpecCluster, node: Node, connected: list[Node]) -> None:
    """Begin a round, send all entries to all, commit and apply them."""
    node.take("begin_round")
    for peer, match in node.server.match_index:
        node.send("append_entries", peer, match, node.server.log.length)
    exchange(cluster, connected)
    node.take("advance_commit_index", node.server.log.length, index=node.server.log.length)
    node.apply()


def deposed_leader_reads(directory: Path, actions: Mapping[str, Action]) -> dict[str, CheckResult]:
    """s1 leads and is cut off; s2 is elected and commits a write; then s1 is asked."""
    cluster = SpecCluster(1, actions=actions, spares=0)
    s1, s2, s3 = cluster.nodes
    elect(cluster, s1, [s1, s2, s3])
    s1.read("default", Get("k1"))
    s1.answer_reads()
    elect(cluster, s2, [s2, s3])
    s2.propose([random_payload(cluster.random)])
    replicate(cluster, s2, [s2, s3])
    assert s1.server.role is s2.server.role is Role.LEADER
    s1.read("default", Get("k1"))
    s1.answer_reads()
    return {result.checker.partition("/")[2]: result for result in check_traces(written(cluster.lines, directory))}


def test_a_deposed_leader_has_no_lease(tmp_path: Path) -> None:
    results = deposed_leader_reads(tmp_path, {})
    assert merge(result.verdict for result in results.values()) == Verdict.VALID
    assert results["raft"].figures["features"]["lease_reads"] == 1


def test_a_read_by_a_lease_that_is_over_is_not_enabled(tmp_path: Path) -> None:
    raft = deposed_leader_reads(tmp_path, {"lease_read": endless_lease})["raft"]
    assert (raft.verdict, raft.property) == (Verdict.INVALID, "lease_read is enabled")


def test_a_protocol_with_endless_leases_is_not_linearizable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant = {"lease_read": endless_lease}
    monkeypatch.setattr(server, "ACTIONS", {**ACTIONS, **mutant})
    results = deposed_leader_reads(tmp_path, mutant)
    assert results["raft"].verdict == Verdict.VALID
    assert (results["invariants"].verdict, results["invariants"].property) == (
        Verdict.INVALID,
        "Read Linearizability",
    )
    assert "confirmed by a lease at index 1, when 3 was committed" in results["invariants"].reason


def forgets_its_vote(c: Constants, i: ServerId, s: Server, k: int, now: Time = 0) -> Outcome | None:
    """A restart that finds the disk without the vote that it confirmed."""
    outcome = ACTIONS["crash_restart"](c, i, s, k, now)
    if outcome is None:
        return None
    durable = outcome.server.durable
    forgotten = Point(durable.term, None, durable.log, durable.snapshot, durable.base)
    return replace(outcome, server=replace(outcome.server, durable=forgotten))


def forgets_when_it_heard(c: Constants, i: ServerId, s: Server, k: int, now: Time = 0) -> Outcome | None:
    """A restart that believes to have heard from no leader for long."""
    return ACTIONS["crash_restart"](c, i, s, k, 0)


@pytest.mark.parametrize(
    ("crash", "broken"),
    [
        (forgets_its_vote, "the disk keeps what it confirmed, and nothing that was not written"),
        (forgets_when_it_heard, "clocks do not go back, nor ahead"),
    ],
)
def test_a_restart_that_forgets_is_noticed(crash: Action, broken: str, tmp_path: Path) -> None:
    lines = SpecCluster(1, actions={"crash_restart": crash}).run(4_000).lines
    assert broken in [result.property for result in check_traces(written(lines, tmp_path))]
