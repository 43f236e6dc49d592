"""The real agents in the harness: they elect, survive what it does to them, and keep what they acknowledged."""

from __future__ import annotations

import asyncio

import pytest

from jepsen_like.cluster.api import Cluster, ClusterSpec
from tests.jepsen_like.real_agents import DEADLINE_S, get, put, run_with, until

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.xdist_group("cluster"),
    pytest.mark.usefixtures("a_machine_that_can", "home"),
]


def test_a_leader_cut_off_is_replaced_and_follows_when_the_link_is_mended() -> None:
    async def act(cluster: Cluster) -> None:
        old = await cluster.wait_for_leader(DEADLINE_S)
        others = [node for node in cluster.servers if node != old]
        await until(lambda: put(cluster, old, "k", b"before"))
        await cluster.partition([[old], [*others, *cluster.clients]])

        async def replaced() -> bool:
            return await cluster.leader() in others

        await until(replaced)
        # the client agent may have asked the old leader, and must then leave open whether the write happened
        await until(lambda: put(cluster, "c1", "k", b"after"))
        await cluster.heal()

        async def agreed() -> bool:
            views = (await cluster.status()).views
            return len({(views[node].leader, views[node].term) for node in cluster.servers if node in views}) == 1

        await until(agreed)
        assert await get(cluster, old, "k") == b"after"

    run_with(ClusterSpec(servers=3, clients=1), act)


def test_servers_killed_together_keep_what_they_acknowledged_and_nobody_ends_by_itself() -> None:
    async def act(cluster: Cluster) -> None:
        await until(lambda: put(cluster, "s1", "k", b"kept"))
        await asyncio.gather(*(cluster.kill(node) for node in cluster.servers))
        await asyncio.gather(*(cluster.restart(node) for node in cluster.servers))

        async def readable() -> bool:
            return await get(cluster, "s2", "k") == b"kept"

        await until(readable)
        await cluster.pause("s3")
        await until(lambda: put(cluster, "s1", "k", b"kept too"))
        await cluster.resume("s3")
        assert await cluster.unexpected_exits() == []

    run_with(ClusterSpec(servers=3), act)
