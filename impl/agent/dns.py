"""DNS as one agent serves it: its settings, its registry and its randomness joined to a port.

It must not decide what is answered: `impl.dns` does. Source: Consul, "DNS interface": every agent answers.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from impl.agent.api import Agent
from impl.agent.config import Config
from impl.agent.logs import Log
from impl.dns.answers import Responder
from impl.dns.directory import AgentDirectory
from impl.dns.server import DnsServer
from impl.runtime.interfaces import NANOSECONDS, Random, Runtime


async def serve_dns(runtime: Runtime, config: Config, agent: Agent, log: Log) -> DnsServer:
    """Answer DNS questions at the client address and the configured port. OSError: the address is not available."""

    def unexpected(error: Exception) -> None:
        log.error("question failed", error=repr(error))

    responder = Responder(
        AgentDirectory(agent, config.datacenter, lambda: runtime.clock.sleep(0)),
        config.dns,
        partial(shuffle, runtime.random),
        lambda: runtime.clock.wall_ns() // NANOSECONDS,
    )
    return await DnsServer.listen(runtime, (config.client_addr, config.dns_port), responder, unexpected)


def shuffle(random: Random, rows: list[Any]) -> None:
    """Draw an order, each with the same chance (Fisher and Yates)."""
    for last in range(len(rows) - 1, 0, -1):
        other = random.randrange(0, last + 1)
        rows[last], rows[other] = rows[other], rows[last]
