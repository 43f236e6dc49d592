"""kill -9 the leader: how long until the next put is acknowledged?

A client at each surviving server puts again and again with a short timeout; the first acknowledgement of a put that was
sent after the kill ends the trial. Then the killed server is started again, and the next trial begins when all
servers name the same leader and a put through each of them has been acknowledged.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from jepsen_like.bench.servers import Servers
from jepsen_like.client.http import HttpConnection
from jepsen_like.client.kv import Answered, KvClient
from model_checks.verdicts import SetupFailed

PUT_TIMEOUT_S = 0.1
TRIAL_DEADLINE_S = 20.0
RETRY_PAUSE_S = 0.005


def _client(port: int) -> KvClient:
    async def dial() -> socket.socket:
        made = socket.socket()
        made.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", port))
        except BaseException:
            made.close()
            raise
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    return KvClient(HttpConnection(dial, f"127.0.0.1:{port}"))


async def put_until_acknowledged(client: KvClient, key: str, timeout_s: float) -> int:
    """Put again and again until it is acknowledged: the time of that, in ns. Closes the client."""
    try:
        while True:
            answer = await client.put(key, key, timeout_s)
            if isinstance(answer, Answered):
                return time.monotonic_ns()
            await asyncio.sleep(RETRY_PAUSE_S)
    finally:
        client.close()


async def first_acknowledgement(attempts: Iterable[Coroutine[Any, Any, int]]) -> int:
    """The earliest of the times that `attempts` yield; the others are cancelled. Raises SetupFailed if there is none
    in time.
    """
    tasks = [asyncio.ensure_future(attempt) for attempt in attempts]
    try:
        done, _ = await asyncio.wait(tasks, timeout=TRIAL_DEADLINE_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if not done:
        raise SetupFailed(f"no put was acknowledged within {TRIAL_DEADLINE_S:g} s of the leader's end")
    return min(task.result() for task in done)


async def _settled(servers: Servers) -> int:
    """The leader, once all agree on it and a put through each server has been acknowledged."""
    leader = await asyncio.to_thread(servers.wait_for_leader)
    async with asyncio.timeout(TRIAL_DEADLINE_S):
        for port in servers.client_ports:
            await put_until_acknowledged(_client(port), "bench/settle", 1.0)
    return leader


async def trial(servers: Servers) -> float:
    """One kill; milliseconds from just before it to the next acknowledgement. Leaves all servers running."""
    leader = await _settled(servers)
    ports = [port for number, port in enumerate(servers.client_ports) if number != leader]
    killed_ns = servers.kill(leader)
    acknowledged_ns = await first_acknowledgement(
        [put_until_acknowledged(_client(port), "bench/failover", PUT_TIMEOUT_S) for port in ports]
    )
    servers.start(leader)
    return (acknowledged_ns - killed_ns) / 1e6


def measure_failover(servers: Servers, trials: int, progress: Callable[[str], None]) -> list[float]:
    """Milliseconds of each trial. Raises SetupFailed."""
    times: list[float] = []
    for number in range(trials):
        times.append(round(asyncio.run(trial(servers)), 1))
        progress(f"kill -9, trial {number + 1}/{trials}: {times[-1]:.0f} ms")
    return times
