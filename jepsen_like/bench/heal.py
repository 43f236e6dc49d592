"""A long cut is healed: how long until there is one leader, and every server holds what was committed?

Five servers in network namespaces. For `cut_s` one server is cut off, the leader in one trial and a follower in the
next, while a client on the majority's side writes; then the cut is healed. TCP alone would sleep for a minute before it
tried again (its retransmission back-off); the redial rules of impl/rpc must not.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Literal

import msgspec

from jepsen_like.client.http import HttpConnection
from jepsen_like.client.kv import Answered, KvClient
from jepsen_like.cluster.api import Cluster, ClusterSpec
from model_checks.verdicts import SetupFailed

Victim = Literal["leader", "follower"]

SERVERS = 5
WRITER = "t1"
PUT_TIMEOUT_S = 1.0
PUT_PAUSE_S = 0.002
DEADLINE_S = 60.0


class Healed(msgspec.Struct, frozen=True):
    """One trial. `behind` entries were missing on the server that was cut off when its links came back."""

    victim: Victim
    cut_s: float
    behind: int
    leader_ms: float
    """From the heal until a leader has committed an entry of its own term and all servers name it."""
    replicated_ms: float
    """From the heal until, besides, every server has applied all that was committed at the heal."""


async def _write_until_cancelled(cluster: Cluster, servers: list[str]) -> None:
    """Puts through one of `servers` after the other, from the writer's namespace."""

    def client(server: str) -> KvClient:
        return KvClient(HttpConnection(lambda: cluster.connect(WRITER, server, timeout_s=1.0), f"{server}:8500"))

    clients = [client(server) for server in servers]
    number = 0
    try:
        while True:
            number += 1
            await clients[number % len(clients)].put(f"heal/{number % 1000}", number, PUT_TIMEOUT_S)
            await asyncio.sleep(PUT_PAUSE_S)
    finally:
        for each in clients:
            each.close()


async def _applied(cluster: Cluster) -> tuple[dict[str, int], set[str | None], int]:
    """What each server has applied, whom they name as leader, and the highest commit index among them."""
    views = (await cluster.status()).views
    servers = [views[name] for name in cluster.servers if name in views]
    applied = {view.node: view.applied_index for view in servers}
    named: set[str | None] = {view.leader for view in servers}
    if len(servers) < len(cluster.servers):
        named.add(None)
    return applied, named, max((view.commit_index for view in servers), default=0)


async def _trial(cluster: Cluster, victim: Victim, cut_s: float) -> Healed:
    leader = await cluster.wait_for_leader()
    away = leader if victim == "leader" else next(name for name in cluster.servers if name != leader)
    others = [name for name in cluster.servers if name != away]
    await cluster.partition([[away], others])
    writing = asyncio.ensure_future(_write_until_cancelled(cluster, others))
    await asyncio.wait([writing], timeout=cut_s)
    if writing.done():
        writing.result()
    writing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await writing
    applied, _, committed = await _applied(cluster)
    behind = committed - applied.get(away, 0)
    healed = await cluster.heal()
    leader_ms = 0.0
    while True:
        applied, named, _ = await _applied(cluster)
        now_ms = (time.monotonic_ns() - healed.start_ns) / 1e6
        if not leader_ms and len(named) == 1 and None not in named and await _serves(cluster, named):
            leader_ms = now_ms
        if leader_ms and all(applied.get(name, 0) >= committed for name in cluster.servers):
            return Healed(victim, cut_s, behind, round(leader_ms, 1), round(now_ms, 1))
        if now_ms > DEADLINE_S * 1000:
            raise SetupFailed(f"not healed after {DEADLINE_S:g} s: committed {committed}, applied {applied}")


async def _serves(cluster: Cluster, named: set[str | None]) -> bool:
    """Whether the leader answers a consistent read, which needs a committed entry of its own term."""
    (leader,) = named
    assert leader is not None
    client = KvClient(HttpConnection(lambda: cluster.connect(leader, leader, timeout_s=1.0), f"{leader}:8500"))
    try:
        return isinstance(await client.get("heal/0", PUT_TIMEOUT_S), Answered)
    finally:
        client.close()


async def measure_heal(cut_s: float, progress: Callable[[str], None]) -> list[Healed]:
    """One trial with the leader cut off, one with a follower. Raises SetupFailed."""
    found: list[Healed] = []
    victims: tuple[Victim, ...] = ("leader", "follower")
    async with Cluster.start(ClusterSpec(servers=SERVERS, test_clients=1)) as cluster:
        for victim in victims:
            progress(f"the {victim} is cut off for {cut_s:g} s")
            found.append(await _trial(cluster, victim, cut_s))
            progress(f"{found[-1].replicated_ms:.0f} ms after the heal everything is replicated")
    return found
