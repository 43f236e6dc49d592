"""What DNS asks of the registry, and how that may fail. Only the interface: `agent_directory` asks an agent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from impl.catalog.registry_queries import Instance
from impl.catalog.rows import Node


class NoPath(Exception):
    """The datacenter is not known here: NXDOMAIN."""


class LookupFailed(Exception):
    """The registry could not be asked: SERVFAIL."""


class Directory(Protocol):
    """Where names are looked up. Every method may raise NoPath and LookupFailed."""

    async def node(self, name: str, datacenter: str) -> Node | None:
        """A node by its name."""
        ...

    async def service(self, name: str, tag: str, datacenter: str) -> Sequence[Instance]:
        """The instances of a service, with their checks."""
        ...

    async def servers(self) -> Sequence[Instance]:
        """The servers of this datacenter, with their checks."""
        ...

    async def holders(self, address: str) -> tuple[Sequence[Node], Sequence[Instance]]:
        """The nodes that have an address, and the instances that do."""
        ...
