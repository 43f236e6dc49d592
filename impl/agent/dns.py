"""DNS as one agent serves it: its settings, its registry and its randomness joined to a port.

It must not decide what is answered: `impl.dns` does. Source: Consul, "DNS interface": every agent answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from impl.agent.config.validated import Config
from impl.agent.gauges import show_dns
from impl.agent.logs import Log
from impl.agent.requests.api import Agent
from impl.dns.agent_directory import AgentDirectory
from impl.dns.responder import Responder
from impl.dns.server import DnsServer
from impl.runtime.interfaces import MILLISECONDS, NANOSECONDS, Clock, Random, Runtime
from impl.telemetry.instruments import Telemetry

_REVERSE: Final = b"\x04arpa\x00"
"""How the names of reverse look-ups end, on the wire."""


@dataclass(frozen=True, slots=True)
class Dns:
    """DNS that is served, and who answers."""

    server: DnsServer
    responder: Responder


class _MeasuredResponder(Responder):
    """Answers, and measures how long that takes."""

    def __init__(self, telemetry: Telemetry, clock: Clock, node_name: str, *responder: Any) -> None:
        super().__init__(*responder)
        labels = (("node", node_name),)
        self._now_ns = clock.monotonic_ns
        self._domain_query = telemetry.sample("dns.domain_query", "Answering a question for a name, in ms.", labels)
        self._ptr_query = telemetry.sample("dns.ptr_query", "Answering a reverse look-up, in ms.", labels)

    async def respond(self, wire: bytes, *, datagram: bool) -> bytes | None:
        started_ns = self._now_ns()
        answer = await super().respond(wire, datagram=datagram)
        sample = self._ptr_query if _REVERSE in wire.lower() else self._domain_query
        sample.observe((self._now_ns() - started_ns) / MILLISECONDS)
        return answer


async def serve_dns(runtime: Runtime, config: Config, agent: Agent, log: Log, telemetry: Telemetry) -> Dns:
    """Answer DNS questions at the configured address and port. OSError: the address is not available."""

    def unexpected(error: Exception) -> None:
        log.error("question failed", error=repr(error))

    responder = _MeasuredResponder(
        telemetry,
        runtime.clock,
        config.node_name,
        AgentDirectory(agent, config.datacenter, lambda: runtime.clock.sleep(0)),
        config.dns,
        partial(shuffle, runtime.random),
        lambda: runtime.clock.wall_ns() // NANOSECONDS,
    )
    server = await DnsServer.listen(runtime, (config.dns_addr, config.dns_port), responder, unexpected)
    show_dns(telemetry, responder.counters, lambda: server.dropped)
    return Dns(server, responder)


def shuffle(random: Random, rows: list[Any]) -> None:
    """Draw an order, each with the same chance (Fisher and Yates)."""
    for last in range(len(rows) - 1, 0, -1):
        other = random.randrange(0, last + 1)
        rows[last], rows[other] = rows[other], rows[last]
