"""Clusters of real agents in the harness, for tests: start one, write, read, wait for a condition."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from jepsen_like.cluster import observe
from jepsen_like.cluster.api import Cluster, ClusterSpec

DEADLINE_S = 20.0
RUN_S = 100.0
"""A test that takes longer hangs."""


def run_with(spec: ClusterSpec, act: Callable[[Cluster], Awaitable[None]]) -> None:
    """Start a cluster, wait for its leader, and act on it."""

    async def main() -> None:
        async with Cluster.start(spec) as cluster:
            await cluster.wait_for_leader(DEADLINE_S)
            await act(cluster)

    asyncio.run(asyncio.wait_for(main(), RUN_S))


async def until(condition: Callable[[], Awaitable[bool]], deadline_s: float = DEADLINE_S) -> None:
    """Wait until the condition is true; fail after the deadline."""
    end = time.monotonic() + deadline_s
    while not await condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        await asyncio.sleep(0.02)


async def put(cluster: Cluster, node: str, key: str, value: bytes, timeout_s: float = 10.0) -> bool:
    """Whether the write was acknowledged."""
    try:
        status, _, body = await cluster.request(node, "PUT", f"/v1/kv/{key}", value, timeout_s=timeout_s)
    except observe.HttpFailure:
        return False
    return (status, body.strip()) == (200, b"true")


async def get(cluster: Cluster, node: str, key: str) -> bytes:
    """The value by a consistent read; empty if there was no answer."""
    try:
        return (await cluster.request(node, "GET", f"/v1/kv/{key}?raw&consistent", timeout_s=10))[2]
    except observe.HttpFailure:
        return b""
