"""Mistakes that show in one moment only, which a campaign may miss: the moment is made, and conformance judges it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest

from jepsen_like.cluster import observe
from jepsen_like.cluster.api import Cluster, ClusterSpec
from jepsen_like.nemesis.operator_api import Operator
from jepsen_like.net.rules import LinkRule
from model_checks.conformance.check import check_traces
from model_checks.verdicts import CheckResult, Verdict
from tests.jepsen_like.real_agents import DEADLINE_S, put, run_with, until

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.xdist_group("cluster"),
    pytest.mark.usefixtures("a_machine_that_can", "home"),
]

AGENT = Path(__file__).resolve().parents[1] / "mutants"
SLOW_MS = 120.0
"""One way: a leader's first entry needs twice that to be committed, and followers (300 ms) hear of it often enough."""
TIMES = 3
"""The moment is made so often: on a slow machine it may pass once."""
CLUSTERS = 5
"""And for a mistake in so many clusters: a server that is slow to start is asked when it may vote already."""


async def leads(cluster: Cluster, *among: str) -> bool:
    return await cluster.leader() in among


async def both_vote(cluster: Cluster, operator: Operator, leader: str) -> bool:
    """And the leader has committed something in its term."""
    found = await operator.configuration(leader)
    return found is not None and len(found.voters) == 2 and await put(cluster, leader, "k", b"v")


async def is_promoted(operator: Operator, leader: str, server: str) -> bool:
    return await operator.promote(leader, server) == ""


async def a_change_is_asked_of_a_leader_that_has_committed_nothing(cluster: Cluster) -> None:
    """Of two servers: the other one is to vote no more, so the leader needs nobody to agree with that."""
    operator = Operator(cluster, (observe.HttpFailure,))
    for _ in range(TIMES):
        old = await cluster.wait_for_leader(DEADLINE_S)
        (new,) = (node for node in cluster.servers if node != old)
        await until(partial(both_vote, cluster, operator, old))
        await cluster.shape(old, new, LinkRule(delay_ms=SLOW_MS))
        await operator.transfer(old, new)
        await until(partial(leads, cluster, new))
        await operator.demote(new, old)
        await cluster.heal()
        await until(partial(is_promoted, operator, new, old))


async def a_vote_is_asked_of_a_server_that_has_just_started(cluster: Cluster) -> None:
    for _ in range(TIMES):
        leader = await cluster.wait_for_leader(DEADLINE_S)
        await until(partial(put, cluster, leader, "k", b"v"))
        asking, starting = (node for node in cluster.servers if node != leader)
        await cluster.kill(starting)
        await cluster.partition([[leader], [asking, starting]])
        await cluster.restart(starting)
        await until(partial(leads, cluster, asking, starting))
        await cluster.heal()


# mutant -> (servers, the moment, properties of which one is broken in it)
MOMENTS = {
    "own-term-rule-dropped": (
        2,
        a_change_is_asked_of_a_leader_that_has_committed_nothing,
        ("change_configuration is enabled",),
    ),
    "restart-votes-at-once": (
        3,
        a_vote_is_asked_of_a_server_that_has_just_started,
        ("handle_pre_vote_request sends the spec's message", "handle_request_vote_request leads to the spec's state"),
    ),
}


def judged(
    servers: int, moment: Callable[[Cluster], Awaitable[None]], traces: Path, agent_command: str | None
) -> dict[str, CheckResult]:
    run_with(ClusterSpec(servers=servers, agent_command=agent_command, trace_dir=traces), moment)
    return {result.checker: result for result in check_traces(traces)}


@pytest.mark.parametrize("mutant", sorted(MOMENTS))
def test_an_honest_agent_masters_the_moment(tmp_path: Path, mutant: str) -> None:
    servers, moment, _ = MOMENTS[mutant]
    results = judged(servers, moment, tmp_path / "traces", None)
    assert {result.verdict for result in results.values()} == {Verdict.VALID}, results


@pytest.mark.parametrize("mutant", sorted(MOMENTS))
def test_a_mistake_in_the_moment_is_found_out(tmp_path: Path, mutant: str) -> None:
    servers, moment, properties = MOMENTS[mutant]
    command = shlex.join([sys.executable, str(AGENT), mutant])
    for number in range(CLUSTERS):
        objection = judged(servers, moment, tmp_path / f"traces-{number}", command)["conformance/raft"]
        if objection.verdict is not Verdict.VALID:
            break
    assert objection.verdict is Verdict.INVALID
    assert objection.property in properties
