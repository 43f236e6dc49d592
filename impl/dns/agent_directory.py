"""Names looked up in the registry through the agent, by stale reads.

Must not decide what an answer looks like: `answers` does. Source: Consul, "DNS interface".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address

from impl.agent.membership.reconcile import CONSUL
from impl.agent.requests.api import Agent, AgentError, Consistency, ReadOptions
from impl.catalog.queries import Answer, Query
from impl.catalog.registry_queries import (
    Instance,
    InstancesAnswer,
    ListNodes,
    ListServices,
    NodeAnswer,
    NodesAnswer,
    NodeServices,
    ServiceHealth,
    ServiceInstances,
    ServicesAnswer,
)
from impl.catalog.rows import Node
from impl.dns.directory import LookupFailed, NoPath
from impl.dns.records import is_ip

_STALE = ReadOptions(Consistency.STALE)


class AgentDirectory:
    """The `Directory` of one agent."""

    def __init__(self, agent: Agent, datacenter: str, pause: Callable[[], Awaitable[None]]) -> None:
        """`datacenter`: the agent's own, the only one that it can ask. `pause` lets others run in a long search."""
        self._pause = pause
        self._agent = agent
        self._datacenter = datacenter

    async def node(self, name: str, datacenter: str) -> Node | None:
        """As `Directory.node`."""
        answer = await self._ask(NodeServices(name), datacenter)
        assert isinstance(answer, NodeAnswer)
        return answer.node

    async def service(self, name: str, tag: str, datacenter: str) -> Sequence[Instance]:
        """As `Directory.service`."""
        answer = await self._ask(ServiceHealth(name, (tag,) if tag else ()), datacenter)
        assert isinstance(answer, InstancesAnswer)
        return answer.instances

    async def servers(self) -> Sequence[Instance]:
        """As `Directory.servers`."""
        return await self.service(CONSUL, "", self._datacenter)

    async def holders(self, address: str) -> tuple[Sequence[Node], Sequence[Instance]]:
        """As `Directory.holders`. Instances are looked for only if no node has the address: it takes a scan."""
        nodes = await self._ask(ListNodes(), self._datacenter)
        assert isinstance(nodes, NodesAnswer)
        found = [node for node in nodes.nodes if _is_at(node.address, address)]
        if found:
            return found, []
        services = await self._ask(ListServices(), self._datacenter)
        assert isinstance(services, ServicesAnswer)
        holders: list[Instance] = []
        for name in services.services:
            await self._pause()
            answer = await self._ask(ServiceInstances(name), self._datacenter)
            assert isinstance(answer, InstancesAnswer)
            holders.extend(each for each in answer.instances if _is_at(each.service.address, address))
        return [], holders

    async def _ask(self, query: Query, datacenter: str) -> Answer:
        if datacenter.lower() != self._datacenter.lower():
            raise NoPath(datacenter)
        try:
            return (await self._agent.read(query, _STALE)).answer
        except AgentError as error:
            raise LookupFailed(str(error)) from error


def _is_at(registered: str, address: str) -> bool:
    """Whether an address is this one, which a reverse name spells: IPv6 has other spellings, and users register any."""
    return registered == address or (
        ":" in address and ":" in registered and is_ip(registered) and str(ip_address(registered)) == address
    )
