"""The domain that an agent serves: what a name in it asks for, and how the names of rows are spelled in it.

Must not look anything up. Source: Consul, "DNS usage overview", "Static queries".
"""

from __future__ import annotations

from dataclasses import dataclass

import dns.name

from impl.catalog.registry_queries import Instance
from impl.catalog.rows import Node
from impl.dns.names import Asked, Domain, asked_within, reverse, spelled
from impl.dns.records import NS, SOA, Name
from impl.dns.settings import Settings


@dataclass(frozen=True, slots=True)
class Zone:
    """A domain and the datacenter that its names mean if they name none."""

    domain: Name
    datacenter: str

    @classmethod
    def of(cls, settings: Settings) -> Zone:
        """Stays when settings are reloaded."""
        return cls(dns.name.from_text(settings.domain), settings.datacenter)

    def asked(self, name: Name, kind: int) -> Asked | None:
        """What a question is about; None: the name is in no domain that is served here. Raises UnknownName."""
        if name.is_subdomain(self.domain):
            if kind in (SOA, NS):
                return Domain()  # as Consul: who looks for the zone of a name finds it, whatever the name
            return asked_within(_labels(name.relativize(self.domain)), self.datacenter)
        labels = _labels(name)[:-1]
        return reverse(labels) if labels[-1:] == ("arpa",) else None

    def node(self, node: Node) -> Name:
        """The name of a node."""
        return self._within(f"{node.node}.node.{self._datacenter(node)}")

    def address(self, address: str, node: Node) -> Name:
        """A name that is an address's own, as a node has none for the address of one of its instances."""
        return self._within(f"{spelled(address)}.addr.{self._datacenter(node)}")

    def service(self, instance: Instance) -> Name:
        """The name of an instance's service."""
        return self._within(f"{instance.service.service}.service.{self._datacenter(instance.node)}")

    def _datacenter(self, node: Node) -> str:
        return node.datacenter or self.datacenter

    def _within(self, text: str) -> Name:
        return dns.name.from_text(text, self.domain)


def _labels(name: Name) -> tuple[str, ...]:
    return tuple(label.decode("latin-1") for label in name.labels)
