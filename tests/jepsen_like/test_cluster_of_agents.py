"""The real agents in the harness: they elect, survive what it does to them, and keep what they acknowledged."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from jepsen_like.cluster import launch, observe
from jepsen_like.cluster.api import Cluster, ClusterSpec
from model_checks.verdicts import SetupFailed

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

DEADLINE_S = 20.0


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMITIA_HOME", str(tmp_path))
    monkeypatch.delenv("SUDO_UID", raising=False)
    try:
        launch.launch(ClusterSpec(servers=0), attached=True).end()
    except SetupFailed as error:
        pytest.skip(str(error))


def run_with(spec: ClusterSpec, act: Callable[[Cluster], Awaitable[None]]) -> None:
    async def main() -> None:
        async with Cluster.start(spec) as cluster:
            await cluster.wait_for_leader(DEADLINE_S)
            await act(cluster)

    asyncio.run(asyncio.wait_for(main(), 90))


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not await condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        await asyncio.sleep(0.02)


async def put(cluster: Cluster, node: str, key: str, value: bytes) -> bool:
    """Whether the write was acknowledged."""
    try:
        status, _, body = await cluster.request(node, "PUT", f"/v1/kv/{key}", value, timeout_s=10)
    except observe.HttpFailure:
        return False
    return (status, body.strip()) == (200, b"true")


async def get(cluster: Cluster, node: str, key: str) -> bytes:
    try:
        return (await cluster.request(node, "GET", f"/v1/kv/{key}?raw&consistent", timeout_s=10))[2]
    except observe.HttpFailure:
        return b""


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
