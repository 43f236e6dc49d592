"""The leader's machine loses power: no connection is closed, nobody is told. How long until the next put is
acknowledged?

Servers in network namespaces. All links of the leader are cut in one step (silence, not a reset), then its process is
killed, whose last words no longer reach anybody. The clock starts before the cut. A client at each surviving server
puts again and again, as in `failover`; afterwards the links are mended and the server is started again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from jepsen_like.bench.failover import PUT_TIMEOUT_S, TRIAL_DEADLINE_S, first_acknowledgement, put_until_acknowledged
from jepsen_like.client.http import HttpConnection
from jepsen_like.client.kv import KvClient
from jepsen_like.cluster.api import Cluster, ClusterSpec
from jepsen_like.nemesis.partition import between
from model_checks.verdicts import SetupFailed

POLL_S = 0.02


def _client(cluster: Cluster, node: str) -> KvClient:
    """A client on the server's own machine: its link is not what is measured."""
    return KvClient(HttpConnection(lambda: cluster.connect(node, node, timeout_s=1.0), f"{node}:8500"))


async def _settled(cluster: Cluster) -> str:
    """The leader, once all servers name it and a put through each of them has been acknowledged."""
    end = time.monotonic() + TRIAL_DEADLINE_S
    while True:
        views = (await cluster.status()).views
        named = {views[name].leader if name in views else None for name in cluster.servers}
        if len(named) == 1 and None not in named:
            break
        if time.monotonic() > end:
            raise SetupFailed(f"the servers did not agree on a leader within {TRIAL_DEADLINE_S:g} s: {named}")
        await asyncio.sleep(POLL_S)
    (leader,) = named
    assert leader is not None
    async with asyncio.timeout(TRIAL_DEADLINE_S):
        for name in cluster.servers:
            await put_until_acknowledged(_client(cluster, name), "bench/settle", 1.0)
    return leader


async def _trial(cluster: Cluster) -> float:
    """One power loss; milliseconds from just before it to the next acknowledgement. Leaves all servers running."""
    leader = await _settled(cluster)
    others = [name for name in cluster.servers if name != leader]
    cut = await cluster.cut_links(between([leader], others))
    killing = asyncio.ensure_future(cluster.kill(leader))
    acknowledged_ns = await first_acknowledgement(
        [put_until_acknowledged(_client(cluster, name), "bench/power-off", PUT_TIMEOUT_S) for name in others]
    )
    await killing
    await cluster.heal()
    await cluster.restart(leader)
    return (acknowledged_ns - cut.start_ns) / 1e6


async def measure_power_off(servers: int, trials: int, progress: Callable[[str], None]) -> list[float]:
    """Milliseconds of each trial. Raises SetupFailed."""
    times: list[float] = []
    async with Cluster.start(ClusterSpec(servers=servers)) as cluster:
        for number in range(trials):
            times.append(round(await _trial(cluster), 1))
            progress(f"power-off, trial {number + 1}/{trials}: {times[-1]:.0f} ms")
    return times
