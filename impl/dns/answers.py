"""Answers to DNS questions: what is asked for is looked up in the registry and shown as resource records.

A name that does not exist is NXDOMAIN, one that has no records of the type asked for an empty answer, each with the
SOA; a lookup that fails is SERVFAIL. A row that DNS has no way to write is left out.

Must not know messages: `responder` writes answers into them, `fitting` cuts them. Source: Consul, "DNS usage overview",
"DNS caching"; RFC 1035, 2308, 2782.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import dns.name
import dns.rcode
import dns.rdata

from impl.catalog.registry_queries import Instance
from impl.catalog.rows import Node
from impl.dns.aliases import Aliases
from impl.dns.counters import Counters
from impl.dns.directory import LookupFailed, NoPath
from impl.dns.names import AddressName, Asked, Domain, NodeName, ReverseName, ServiceName, UnknownName
from impl.dns.records import (
    ANY,
    NS,
    PTR,
    SOA,
    SRV,
    TXT,
    Name,
    Row,
    ip_rows,
    is_ip,
    metadata_rows,
    pointer_row,
    soa_row,
    srv_row,
)
from impl.dns.selection import Selection, address_of, addresses_of, distinct, weight_of
from impl.dns.settings import Settings
from impl.dns.zone import Zone

TARGET_RECORDS_MAX: Final = 5
"""Additional records for the target of an SRV record, if that is the name of a service, say, with many addresses."""


class Record(NamedTuple):
    """A resource record, of class IN."""

    name: Name
    ttl: int
    """Seconds."""
    data: dns.rdata.Rdata


@dataclass(slots=True)
class Answer:
    """A code, and the records of each section, in order."""

    rcode: dns.rcode.Rcode = dns.rcode.NOERROR
    authoritative: bool = True
    answer: list[Record] = field(default_factory=list)
    authority: list[Record] = field(default_factory=list)
    additional: list[Record] = field(default_factory=list)


class Answers:
    """Makes the answer to one question."""

    def __init__(
        self,
        zone: Zone,
        settings: Settings,
        selection: Selection,
        counters: Counters,
        serial: Callable[[], int],
        enough: int,
    ) -> None:
        """`serial` is the SOA's; `enough`: records of a section, beyond which none are made: they would not fit."""
        self._zone = zone
        self._settings = settings
        self._selection = selection
        self._counters = counters
        self._serial = serial
        self._enough = enough

    async def about(self, name: Name, kind: int) -> Answer:
        """The answer to the question for the records of a name that are of a type."""
        try:
            asked = self._zone.asked(name, kind)
            if asked is None:
                return Answer(dns.rcode.REFUSED, authoritative=False)
            found = await self._found(asked, name, kind)
        except (UnknownName, NoPath):
            found = None
        except LookupFailed:
            self._counters.failed += 1
            return Answer(dns.rcode.SERVFAIL)
        if found is None:
            return self._denial(dns.rcode.NXDOMAIN)
        return found if found.answer else self._denial(dns.rcode.NOERROR)

    def _denial(self, rcode: dns.rcode.Rcode) -> Answer:
        return Answer(rcode, authority=[self._soa()])

    def _soa(self) -> Record:
        name, data = soa_row(self._zone.domain, self._serial(), self._settings)
        # Resolvers keep a denial for the lesser of this TTL and the record's last number (RFC 2308, section 5).
        return Record(name, self._settings.soa_min_ttl, data)

    async def _found(self, asked: Asked, name: Name, kind: int) -> Answer | None:
        """What there is; None: the name does not exist."""
        match asked:
            case Domain():
                return await self._domain(kind)
            case AddressName(address):
                return Answer(answer=_records(self._settings.node_ttl, ip_rows(name, address, kind)))
            case NodeName():
                node = await self._selection.node(asked)
                return await self._node(node, name, kind) if node is not None else None
            case ServiceName():
                instances = await self._selection.instances(asked)
                if not instances:
                    return None
                ttl = self._settings.ttl_of(instances[0].service.service)
                if kind == SRV:
                    return await self._located(instances, name, ttl)
                return Answer(answer=await self._addresses(addresses_of(instances, name), name, kind, ttl))
            case ReverseName():
                return await self._holders(asked, name, kind)

    async def _addresses(self, addresses: Iterable[str], name: Name, kind: int, ttl: int) -> list[Record]:
        limit = self._settings.a_record_limit or self._enough
        aliases = Aliases(self._zone, self._selection, self._counters, min(limit, self._enough))
        return _records(ttl, await aliases.address_rows(name, addresses, kind))

    async def _domain(self, kind: int) -> Answer:
        found, ttl = Answer(), self._settings.node_ttl
        if kind in (SOA, ANY):
            found.answer.append(self._soa())
        if kind in (NS, SOA, ANY):
            section = found.authority if kind == SOA else found.answer
            for server in await self._selection.servers():
                with self._counters.speakable():
                    target = self._zone.node(server)
                    section += _records(ttl, [pointer_row(self._zone.domain, NS, target)])
                    found.additional += _records(ttl, ip_rows(target, server.address, ANY))
        return found

    async def _node(self, node: Node, name: Name, kind: int) -> Answer:
        ttl = self._settings.node_ttl
        found = Answer(answer=await self._addresses((node.address,), name, kind, ttl))
        with self._counters.speakable():
            if kind in (TXT, ANY):
                found.answer += _records(ttl, metadata_rows(name, node))
            elif found.answer:
                self._add_metadata(found, name, ttl, node)
        return found

    def _add_metadata(self, found: Answer, name: Name, ttl: int, node: Node) -> None:
        """A node's metadata, which nobody asked for, if that is set; no more than could fit."""
        if self._settings.node_meta_txt and len(found.additional) < self._enough:
            found.additional += _records(ttl, metadata_rows(name, node))

    async def _located(self, instances: Sequence[Instance], name: Name, ttl: int) -> Answer:
        """SRV records, with the addresses of their targets and what is known about the nodes."""
        found = Answer()
        targets = Aliases(self._zone, self._selection, self._counters, TARGET_RECORDS_MAX)
        for instance in distinct(instances):
            if len(found.answer) >= self._enough:
                break  # more than fit already: the rest would be made in vain
            with self._counters.speakable():
                await self._add_instance(found, instance, name, ttl, targets)
        # Behind all addresses, and once a node. *Deviation:* Consul repeats them.
        for node in {each.node.node: each.node for each in instances[: self._enough]}.values():
            with self._counters.speakable():
                self._add_metadata(found, self._zone.node(node), ttl, node)
        return found

    async def _add_instance(self, found: Answer, instance: Instance, name: Name, ttl: int, targets: Aliases) -> None:
        """The SRV record of an instance, and the addresses of its target."""
        service, node = instance.service, instance.node
        address = address_of(instance, name)
        if not address:
            return
        if is_ip(address):
            own = address == service.address
            target = self._zone.address(address, node) if own else self._zone.node(node)
            rows = ip_rows(target, address, ANY)
        else:
            target = dns.name.from_text(address)
            rows = (await targets.target_rows(target, ANY))[:TARGET_RECORDS_MAX]
        found.answer += _records(ttl, [srv_row(name, weight_of(instance), service.port, target)])
        found.additional += _records(ttl, rows)

    async def _holders(self, asked: ReverseName, name: Name, kind: int) -> Answer | None:
        nodes, instances = await self._selection.holders(asked)
        if not nodes and not instances:
            return None
        found = Answer()
        if kind in (PTR, ANY):
            for node in nodes:
                with self._counters.speakable():
                    found.answer += _records(0, [pointer_row(name, PTR, self._zone.node(node))])
            services = {} if nodes else {each.service.service: each for each in instances}
            for service in sorted(services):
                with self._counters.speakable():
                    found.answer += _records(0, [pointer_row(name, PTR, self._zone.service(services[service]))])
        return found


def _records(ttl: int, rows: Iterable[Row]) -> list[Record]:
    return [Record(name, ttl, data) for name, data in rows]
