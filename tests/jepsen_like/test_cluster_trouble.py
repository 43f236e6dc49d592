"""Real agents in trouble that no nemesis makes: a disk that does not sync; links slower than a lease; a leader that
ends before it can answer; and a server that joins late.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
import time
from pathlib import Path

import pytest

from jepsen_like.cluster import observe
from jepsen_like.cluster.api import Cluster, ClusterSpec
from jepsen_like.nemesis.operator_api import Operator
from jepsen_like.net.rules import LinkRule
from model_checks.conformance.check import check_traces
from model_checks.verdicts import CheckResult, Verdict
from tests.jepsen_like.real_agents import DEADLINE_S, get, put, run_with, until

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.xdist_group("cluster"),
    pytest.mark.usefixtures("a_machine_that_can", "home"),
]

SLOWER_THAN_A_LEASE_MS = 160.0
"""One way: what a leader (lease: 250 ms) hears is older than its lease, and followers (300 ms) hear of it often."""
ATTEMPTS = 12
"""To kill a leader in the moment: a slow machine may spoil some."""
STEP_DOWN_S = 2.0
"""Within this, a leader whose disk hangs must have made way for another."""
AGENT = Path(__file__).resolve().parents[1] / "mutants"


async def voters(cluster: Cluster) -> set[str]:
    """The voters by the leader's account; empty if nobody leads."""
    leader = await cluster.leader()
    found = None if leader is None else await Operator(cluster, (observe.HttpFailure,)).configuration(leader)
    return set() if found is None else set(found.voters)


def log_of(cluster: Cluster, node: str) -> str:
    return (cluster.directory / "logs" / f"{node}.log").read_text(errors="replace")


def test_a_leader_whose_disk_does_not_sync_makes_way_for_another() -> None:
    async def act(cluster: Cluster) -> None:
        old = await cluster.wait_for_leader(DEADLINE_S)
        await until(lambda: put(cluster, old, "k", b"before"))
        stall = cluster.directory / "data" / old / "stall"
        stall.touch()
        started = time.monotonic()
        others = [node for node in cluster.servers if node != old]

        async def written() -> bool:
            return await put(cluster, others[0], "k", b"after", timeout_s=0.2)

        await until(written, STEP_DOWN_S)
        assert time.monotonic() - started < STEP_DOWN_S
        assert await cluster.leader() in others
        stall.unlink()

        async def follows() -> bool:
            views = (await cluster.status()).views
            return old in views and views[old].leader in others and await get(cluster, old, "k") == b"after"

        await until(follows)
        assert await cluster.unexpected_exits() == []
        assert "stepped down" in log_of(cluster, old)

    command = shlex.join([sys.executable, str(AGENT), "disk-that-hangs"])
    run_with(ClusterSpec(servers=3, agent_command=command), act)


def judged_over_slow_links(traces: Path, agent_command: str | None) -> dict[str, CheckResult]:
    """What conformance says of reads by lease where every answer is older than a lease."""

    async def act(cluster: Cluster) -> None:
        leader = await cluster.wait_for_leader(DEADLINE_S)
        await until(lambda: put(cluster, leader, "k", b"before"))
        for follower in cluster.servers:
            if follower != leader:
                await cluster.shape(leader, follower, LinkRule(delay_ms=SLOWER_THAN_A_LEASE_MS))
        assert await put(cluster, leader, "k", b"after")
        for _ in range(20):
            status, _, body = await cluster.request(leader, "GET", "/v1/kv/k?raw", timeout_s=10)
            assert (status, body) == (200, b"after")

    run_with(ClusterSpec(servers=3, agent_command=agent_command, trace_dir=traces), act)
    return {result.checker: result for result in check_traces(traces)}


def test_a_lease_counts_from_when_its_round_began(tmp_path: Path) -> None:
    results = judged_over_slow_links(tmp_path / "traces", None)
    assert {result.verdict for result in results.values()} == {Verdict.VALID}, results


def test_a_lease_that_counts_from_receipt_is_found_out(tmp_path: Path) -> None:
    command = shlex.join([sys.executable, str(AGENT), "lease-counted-from-receipt"])
    objection = judged_over_slow_links(tmp_path / "traces", command)["conformance/raft"]
    assert (objection.verdict, objection.property) == (Verdict.INVALID, "lease_read is enabled")


def proposed(traces: Path, client: str) -> dict[str, int]:
    """The requests of an agent that leaders have proposed by their traces, and the index of each newest proposal."""
    found: dict[str, int] = {}
    for path in traces.glob("*.ndjson"):
        for line in path.read_bytes().splitlines():
            if line.startswith(b'{"kind":"propose"') and line.endswith(b"}"):
                proposal = json.loads(line)
                if proposal["request"].startswith(f"{client}/"):
                    found[proposal["request"]] = proposal["index"]
    return found


async def leader_ends_unanswered(cluster: Cluster, traces: Path, key: str) -> bool:
    """A client agent forwards a write; the leader is killed when all followers hold it and their answers are under way.

    Whether it was unanswered then. Whoever leads next holds it, and so commits it.
    """
    leader = await cluster.wait_for_leader(DEADLINE_S)
    followers = [node for node in cluster.servers if node != leader]
    await until(lambda: put(cluster, "c1", key, b"before"))
    for follower in followers:
        await cluster.shape(follower, leader, LinkRule(delay_ms=SLOWER_THAN_A_LEASE_MS), one_way=True)
    known = proposed(traces, "c1")
    putting = asyncio.ensure_future(put(cluster, "c1", key, b"after"))

    async def held() -> bool:
        new = [index for request, index in proposed(traces, "c1").items() if request not in known]
        views = (await cluster.status()).views
        return bool(new) and all(node in views and views[node].last_log_index >= max(new) for node in followers)

    await until(held)
    unanswered = not putting.done()
    await cluster.kill(leader)
    await putting
    await cluster.heal()
    await cluster.restart(leader)
    await until(lambda: put(cluster, followers[0], "later", b"committed, and so is what was before"))
    return unanswered


def judged_with_an_answer_lost(traces: Path, agent_command: str | None) -> dict[str, CheckResult]:
    """What conformance says of a write whose leader ended between its followers' holding it and its answer."""

    async def act(cluster: Cluster) -> None:
        for attempt in range(ATTEMPTS):
            if await leader_ends_unanswered(cluster, traces, f"k{attempt}"):
                return
        pytest.fail(f"no leader of {ATTEMPTS} was killed in time")

    run_with(ClusterSpec(servers=3, clients=1, agent_command=agent_command, trace_dir=traces), act)
    return {result.checker: result for result in check_traces(traces)}


def test_a_write_whose_leader_ends_before_it_answers_is_applied_once(tmp_path: Path) -> None:
    results = judged_with_an_answer_lost(tmp_path / "traces", None)
    assert {result.verdict for result in results.values()} == {Verdict.VALID}, results


def test_a_write_that_is_tried_again_then_is_found_out(tmp_path: Path) -> None:
    command = shlex.join([sys.executable, str(AGENT), "write-retried-after-eof"])
    objection = judged_with_an_answer_lost(tmp_path / "traces", command)["conformance/forwarding"]
    assert (objection.verdict, objection.property) == (Verdict.INVALID, "a write is applied at most once")


def test_a_spare_server_joins_and_becomes_a_voter() -> None:
    async def act(cluster: Cluster) -> None:
        await until(lambda: put(cluster, "s1", "k", b"here"))
        assert await voters(cluster) == {"s1", "s2", "s3"}
        await cluster.restart("s4")

        async def votes() -> bool:
            return await voters(cluster) == set(cluster.servers)

        await until(votes)
        assert await get(cluster, "s4", "k") == b"here"

    run_with(ClusterSpec(servers=4, spares=1), act)
