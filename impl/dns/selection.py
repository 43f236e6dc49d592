"""Which rows of the registry may be shown, and in which order.

Instances with a critical check are left out (with `only_passing`, those with any that does not pass); the order is
drawn anew for each answer, so that clients that take the first spread over all. Must not make records: `answers` does.
Source: Consul, "DNS usage overview", "Service lookups".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from impl.catalog.registry_queries import Instance
from impl.catalog.rows import CRITICAL, PASSING, Node
from impl.dns.directory import Directory
from impl.dns.names import NodeName, ReverseName, ServiceName
from impl.dns.records import Name, is_name

NAME_SERVERS_MAX: Final = 3


class Selection:
    """The registry as DNS shows it. Every method may raise NoPath and LookupFailed."""

    def __init__(self, directory: Directory, shuffle: Callable[[list[Any]], None], *, only_passing: bool) -> None:
        """`shuffle` draws an order in place."""
        self._directory = directory
        self._shuffle = shuffle
        self._only_passing = only_passing

    async def node(self, asked: NodeName) -> Node | None:
        """The node; None: it does not exist."""
        return await self._directory.node(asked.node, asked.datacenter)

    async def instances(self, asked: ServiceName) -> list[Instance]:
        """The instances that may be shown, in an order that is drawn."""
        return self._drawn(await self._directory.service(asked.service, asked.tag, asked.datacenter))

    async def servers(self) -> list[Node]:
        """Some of the servers, who serve the domain."""
        servers = self._drawn(await self._directory.servers())
        return [each.node for each in servers[:NAME_SERVERS_MAX]]

    async def holders(self, asked: ReverseName) -> tuple[Sequence[Node], Sequence[Instance]]:
        """The nodes and the instances that have an address."""
        return await self._directory.holders(asked.address)

    def _drawn(self, instances: Sequence[Instance]) -> list[Instance]:
        shown = self._healthy(instances)
        self._shuffle(shown)
        return shown

    def _healthy(self, instances: Sequence[Instance]) -> list[Instance]:
        if self._only_passing:
            return [each for each in instances if is_passing(each)]
        return [each for each in instances if all(check.status != CRITICAL for check in each.checks)]


def is_passing(instance: Instance) -> bool:
    """Whether all its checks pass."""
    return all(check.status == PASSING for check in instance.checks)


def distinct(instances: Sequence[Instance]) -> list[Instance]:
    """The first instance at each port of each address of a node: to a client, others there are the same."""
    found: dict[tuple[str, str, int], Instance] = {}
    for each in instances:
        found.setdefault((each.node.node, each.service.address, each.service.port), each)
    return list(found.values())


def addresses_of(instances: Iterable[Instance], name: Name) -> Iterator[str]:
    """The instances' addresses, when `name` is asked for: many may share one, on ports of their own."""
    for own, of_node in dict.fromkeys((each.service.address, each.node.address) for each in instances):
        yield _address(own, of_node, name)


def address_of(instance: Instance, name: Name) -> str:
    """An instance's address, when `name` is asked for: its node's if it has none, or none but that very name."""
    return _address(instance.service.address, instance.node.address, name)


def _address(own: str, of_node: str, name: Name) -> str:
    return own if own and not is_name(own, name) else of_node


def weight_of(instance: Instance) -> int:
    """How many questions it wants to be the answer to, beside the others."""
    passing, warning = instance.service.weights
    return passing if is_passing(instance) else warning
