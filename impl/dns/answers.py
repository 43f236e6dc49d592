"""Answers to DNS questions: what is asked for is looked up in the registry and shown as resource records.

Instances with a critical check are left out (with `only_passing`, those with any that does not pass); the order is
drawn anew for each answer, so that clients that take the first spread over all. An answer that does not fit in a
datagram is cut, in whole records, and marked. A name that does not exist is NXDOMAIN, one that has no records of the
type asked for an empty answer, each with the SOA; a lookup that fails is SERVFAIL.

An address may be a name. It is shown as a CNAME only if no instance has an IP (RFC 1034: beside a CNAME is nothing
else); if it is of this domain, its records follow, since stub resolvers do not ask on. *Deviation:* Consul adds records
of every type there, metadata included; this leaves the room to those of the type asked for.

Must not do I/O: `Directory` looks up, the servers of this package carry bytes. Source: Consul, "DNS usage overview",
"DNS caching", RFC 1035, 2308, 2782, 6891.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Final, Protocol

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.CNAME
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA
import dns.rdtypes.IN.SRV
import dns.rrset
import msgspec

from impl.catalog.registry_queries import Instance
from impl.catalog.rows import CRITICAL, PASSING, Node
from impl.dns.names import (
    AddressName,
    Asked,
    Domain,
    NodeName,
    ReverseName,
    ServiceName,
    UnknownName,
    asked_within,
    reverse,
    spelled,
)
from impl.dns.settings import Settings

DATAGRAM_BYTES: Final = 512
"""Of an answer to who does not say that larger ones are welcome (RFC 1035, section 2.3.4)."""
STREAM_BYTES: Final = 65_535
NAME_SERVERS_MAX: Final = 3
RECORDS_MAX: Final = 1024
"""In any answer. Consul's bound of SRV records, beyond which they do not fit; making more would hold up the agent."""
RECORD_BYTES_MIN: Final = 16
"""Of an A record whose name is a pointer; none in an answer about a service is shorter."""
DEPTH_MAX: Final = 3
"""Names, one leading to the next, that are looked up for an address; Consul's bound, against circles."""
TARGETS_MAX: Final = 64
"""Names that are looked up for one answer: each may be a request to a server. For the rest, clients ask on."""
TARGET_RECORDS_MAX: Final = 5
"""Additional records for the target of an SRV record, if that is the name of a service, say, with many addresses."""
_RECORD_BYTES = 12
"""Of a record beside its data."""
_HEADER_BYTES = 12 + 4
"""Of a message beside its records and the name that was asked for."""

Name = dns.name.Name
A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT, ANY = (
    dns.rdatatype.A,
    dns.rdatatype.AAAA,
    dns.rdatatype.CNAME,
    dns.rdatatype.NS,
    dns.rdatatype.PTR,
    dns.rdatatype.SOA,
    dns.rdatatype.SRV,
    dns.rdatatype.TXT,
    dns.rdatatype.ANY,
)

# dnspython has no types for its constructors.
_srv: Callable[..., dns.rdata.Rdata] = dns.rdtypes.IN.SRV.SRV
_cname: Callable[..., dns.rdata.Rdata] = dns.rdtypes.ANY.CNAME.CNAME

Row = tuple[Name, dns.rdata.Rdata]
"""A record and whose it is."""


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

    async def servers(self) -> Sequence[Node]:
        """The nodes of the servers of this datacenter."""
        ...

    async def holders(self, address: str) -> tuple[Sequence[Node], Sequence[Instance]]:
        """The nodes that have an address, and the instances that do."""
        ...


class Counters(msgspec.Struct):
    """What became of questions."""

    answered: int = 0
    malformed: int = 0
    """Answered with FORMERR, or dropped."""
    failed: int = 0
    unspeakable: int = 0
    """Rows left out of an answer because DNS has no way to write their names, ports or weights."""
    truncated: int = 0


@dataclass(slots=True)
class _Effort:
    """What one answer may cost, and what is known already."""

    rows_max: int
    """Records of an answer, beyond which they do not fit anyway."""
    lookups_left: int = TARGETS_MAX
    known: dict[tuple[Name, int], list[Row]] = field(default_factory=dict)
    """By the name of a target and the depth that was left for it."""


class Responder:
    """Answers the questions that reach one agent."""

    def __init__(
        self, directory: Directory, settings: Settings, shuffle: Callable[[list[Any]], None], serial: Callable[[], int]
    ) -> None:
        """`shuffle` draws an order in place; `serial` is the SOA's serial number (Consul: seconds since 1970)."""
        self.counters = Counters()
        self._directory = directory
        self._settings = settings
        self._shuffle = shuffle
        self._serial = serial
        self._domain = dns.name.from_text(settings.domain)

    def reconfigure(self, settings: Settings) -> None:
        """From now on; the domain stays."""
        self._settings = settings

    async def respond(self, wire: bytes, *, datagram: bool) -> bytes | None:
        """The answer to a message; None: drop it."""
        try:
            query = dns.message.from_wire(wire)
        except (dns.exception.DNSException, ValueError):
            self.counters.malformed += 1
            return refusal(wire, dns.rcode.FORMERR)
        if query.flags & dns.flags.QR:
            self.counters.malformed += 1
            return None
        response = dns.message.make_response(query, recursion_available=False)
        limit, most = self._room(query, datagram)
        if query.opcode() != dns.opcode.QUERY:
            response.set_rcode(dns.rcode.NOTIMP)
        elif len(query.question) != 1:
            self.counters.malformed += 1
            response.set_rcode(dns.rcode.FORMERR)
        else:
            await self._answer(query, response, limit)
        self.counters.answered += 1
        return self._fitted(response, limit, most)

    # --- what is asked ------------------------------------------------------------------------------------------------

    async def _answer(self, query: dns.message.Message, response: dns.message.Message, limit: int) -> None:
        question = query.question[0]
        try:
            asked = self._asked(question.name, question.rdtype)
        except UnknownName:
            self._negative(response, dns.rcode.NXDOMAIN)
            return
        if asked is None:
            response.set_rcode(dns.rcode.REFUSED)
            return
        response.flags |= dns.flags.AA
        try:
            exists = await self._records(asked, question.name, question.rdtype, response, limit)
        except NoPath:
            exists = False
        except LookupFailed:
            self.counters.failed += 1
            response.set_rcode(dns.rcode.SERVFAIL)
            return
        if not exists:
            self._negative(response, dns.rcode.NXDOMAIN)
        elif not response.answer:
            self._negative(response, dns.rcode.NOERROR)

    def _asked(self, name: Name, kind: int) -> Asked | None:
        """None: the name is in no domain that is served here."""
        if name.is_subdomain(self._domain):
            if kind in (SOA, NS):
                return Domain()  # as Consul: who looks for the zone of a name finds it, whatever the name
            within = name.relativize(self._domain)
            return asked_within(tuple(label.decode("latin-1") for label in within.labels), self._settings.datacenter)
        labels = tuple(label.decode("latin-1") for label in name.labels if label)
        return reverse(labels) if labels[-1:] == ("arpa",) else None

    async def _records(self, asked: Asked, name: Name, kind: int, response: dns.message.Message, limit: int) -> bool:
        """Add the records, hardly more than `limit` bytes of them; whether the name exists."""
        effort = _Effort(min(limit // RECORD_BYTES_MIN, RECORDS_MAX))
        match asked:
            case Domain():
                await self._domain_records(kind, response)
                return True
            case AddressName(address):
                self._put_all(response.answer, _ip_rows(name, address, kind), self._settings.node_ttl, response)
                return True
            case NodeName(node, datacenter):
                found = await self._directory.node(node, datacenter)
                if found is not None:
                    await self._node_records(found, name, kind, response, effort)
                return found is not None
            case ServiceName(service, tag, datacenter):
                instances = await self._drawn(service, tag, datacenter)
                await self._service_records(instances, name, kind, response, effort)
                return bool(instances)
            case ReverseName(address):
                return await self._reverse_records(address, name, kind, response)

    async def _drawn(self, service: str, tag: str, datacenter: str) -> list[Instance]:
        """The instances of a service that may be shown, in an order that is drawn."""
        instances = self._healthy(await self._directory.service(service, tag, datacenter))
        self._shuffle(instances)
        return instances

    def _healthy(self, instances: Sequence[Instance]) -> list[Instance]:
        if self._settings.only_passing:
            return [each for each in instances if all(check.status == PASSING for check in each.checks)]
        return [each for each in instances if all(check.status != CRITICAL for check in each.checks)]

    # --- records ------------------------------------------------------------------------------------------------------

    async def _domain_records(self, kind: int, response: dns.message.Message) -> None:
        if kind in (SOA, ANY):
            response.answer.append(self._soa())
        if kind in (NS, SOA, ANY):
            section = response.authority if kind == SOA else response.answer
            servers = list(await self._directory.servers())
            self._shuffle(servers)
            for server in servers[:NAME_SERVERS_MAX]:
                with self._speakable():
                    target = self._node_name(server)
                    self._add(response, section, self._domain, self._settings.node_ttl, NS, target.to_text())
                    self._put_all(
                        response.additional, _ip_rows(target, server.address, ANY), self._settings.node_ttl, response
                    )

    async def _node_records(
        self, node: Node, name: Name, kind: int, response: dns.message.Message, effort: _Effort
    ) -> None:
        ttl = self._settings.node_ttl
        rows = await self._address_rows(name, (node.address,), kind, effort, DEPTH_MAX)
        self._put_all(response.answer, rows, ttl, response)
        if kind in (TXT, ANY):
            self._add_meta(response, response.answer, name, ttl, node)
        elif rows:
            self._add_extra_meta(response, name, ttl, node, effort)

    def _add_meta(self, response: dns.message.Message, section: list[Any], name: Name, ttl: int, node: Node) -> None:
        with self._speakable():
            for key, value in sorted(node.meta.items()):
                text = value if key.lower().startswith("rfc1035-") else f"{key}={value}"
                self._add(response, section, name, ttl, TXT, _quoted(text))

    def _add_extra_meta(self, response: dns.message.Message, name: Name, ttl: int, node: Node, effort: _Effort) -> None:
        """A node's metadata, which nobody asked for, if that is set; no more than could fit."""
        if self._settings.node_meta_txt and len(response.additional) <= effort.rows_max:
            self._add_meta(response, response.additional, name, ttl, node)

    async def _service_records(
        self, instances: Sequence[Instance], name: Name, kind: int, response: dns.message.Message, effort: _Effort
    ) -> None:
        if kind == SRV:
            of_targets = _Effort(TARGET_RECORDS_MAX)
            for instance in instances:
                if sum(map(len, response.answer)) > effort.rows_max:
                    break  # more than fit already: the rest would be made in vain
                with self._speakable():
                    await self._instance_records(instance, name, response, of_targets)
            # Behind all addresses, and once a node. *Deviation:* Consul repeats them.
            for node in {each.node.node: each.node for each in instances[: effort.rows_max]}.values():
                with self._speakable():
                    ttl = self._settings.ttl_of(instances[0].service.service)
                    self._add_extra_meta(response, self._node_name(node), ttl, node, effort)
        elif instances:
            addresses = (_address(instance, name) for instance in instances)
            rows = await self._address_rows(name, addresses, kind, effort, DEPTH_MAX)
            self._put_all(response.answer, rows, self._settings.ttl_of(instances[0].service.service), response)

    async def _instance_records(
        self, instance: Instance, name: Name, response: dns.message.Message, effort: _Effort
    ) -> None:
        """The SRV record of an instance, and the addresses of its target."""
        service, node = instance.service, instance.node
        ttl = self._settings.ttl_of(service.service)
        address = _address(instance, name)
        if not address:
            return
        if not _is_ip(address):
            target = dns.name.from_text(address)
            rows = (await self._target_rows(target, ANY, effort, DEPTH_MAX))[:TARGET_RECORDS_MAX]
        else:
            own = bool(service.address) and address == service.address
            spelling = f"{spelled(address)}.addr.{self._datacenter(node)}"
            target = self._within(spelling) if own else self._node_name(node)
            rows = _ip_rows(target, address, ANY)
        passing = all(check.status == PASSING for check in instance.checks)
        weight = service.weights[0] if passing else service.weights[1]
        record: dns.rdata.Rdata = _srv(dns.rdataclass.IN, SRV, 1, weight, service.port, target)
        self._put(response, response.answer, name, ttl, record)
        self._put_all(response.additional, rows, ttl, response)

    # --- addresses that are names -------------------------------------------------------------------------------------

    async def _address_rows(
        self, name: Name, addresses: Iterable[str], kind: int, effort: _Effort, depth: int
    ) -> list[Row]:
        """Records for those addresses that are IPs; if there is none, a CNAME for one name, and what it leads to."""
        rows: list[Row] = []
        alias: Name | None = None
        for address in addresses:
            if len(rows) > effort.rows_max:
                break
            with self._speakable():
                if _is_ip(address):
                    rows += _ip_rows(name, address, kind)
                elif alias is None and address and not _names(address, name):
                    alias = dns.name.from_text(address)
        if rows or alias is None or kind not in (A, AAAA, CNAME, ANY):
            return rows
        more = [] if kind == CNAME else await self._target_rows(alias, kind, effort, depth)
        return [(name, _cname(dns.rdataclass.IN, CNAME, alias)), *more]

    async def _target_rows(self, target: Name, kind: int, effort: _Effort, depth: int) -> list[Row]:
        """The records of a name that an address leads to, if it is served here, and of those that it leads to."""
        if not depth or not target.is_subdomain(self._domain):
            return []
        if (target, depth) not in effort.known:
            if not effort.lookups_left:
                return []
            effort.lookups_left -= 1
            try:
                effort.known[target, depth] = await self._found_rows(target, kind, effort, depth - 1)
            except (UnknownName, NoPath):
                effort.known[target, depth] = []
        return effort.known[target, depth]

    async def _found_rows(self, target: Name, kind: int, effort: _Effort, depth: int) -> list[Row]:
        match self._asked(target, kind):
            case AddressName(address):
                return _ip_rows(target, address, kind)
            case NodeName(node, datacenter):
                found = await self._directory.node(node, datacenter)
                addresses = iter((found.address,) if found is not None else ())
            case ServiceName(service, tag, datacenter):
                instances = await self._drawn(service, tag, datacenter)
                addresses = (_address(instance, target) for instance in instances)
            case _:
                return []
        return await self._address_rows(target, addresses, kind, effort, depth)

    # --- other records ------------------------------------------------------------------------------------------------

    async def _reverse_records(self, address: str, name: Name, kind: int, response: dns.message.Message) -> bool:
        nodes, instances = await self._directory.holders(address)
        if kind in (PTR, ANY):
            for node in nodes:
                with self._speakable():
                    self._add(response, response.answer, name, 0, PTR, self._node_name(node).to_text())
            holders = {(each.service.service, self._datacenter(each.node)) for each in instances if not nodes}
            for service, datacenter in sorted(holders):
                with self._speakable():
                    target = self._within(f"{service}.service.{datacenter}")
                    self._add(response, response.answer, name, 0, PTR, target.to_text())
        return bool(nodes or instances)

    @contextmanager
    def _speakable(self) -> Iterator[None]:
        """Users register what they like: a row with a label of 64 letters, say, is left out, and the rest answered."""
        try:
            yield
        except (dns.exception.DNSException, ValueError):
            self.counters.unspeakable += 1

    def _add(
        self,
        response: dns.message.Message,
        section: list[Any],
        name: Name,
        ttl: int,
        kind: dns.rdatatype.RdataType,
        text: str,
    ) -> None:
        self._put(response, section, name, ttl, dns.rdata.from_text(dns.rdataclass.IN, kind, text))

    def _put(
        self, response: dns.message.Message, section: list[Any], name: Name, ttl: int, record: dns.rdata.Rdata
    ) -> None:
        """Add a record to those of its name and type; the message finds them by an index.

        What is additional is repeated for every record that it belongs to, as Consul does: HAProxy takes one for each.
        """
        if section is response.additional:
            section.append(dns.rrset.from_rdata(name, ttl, record))
            return
        response.find_rrset(section, name, dns.rdataclass.IN, record.rdtype, create=True).add(record, ttl)

    def _put_all(self, section: list[Any], rows: Sequence[Row], ttl: int, response: dns.message.Message) -> None:
        for name, record in rows:
            self._put(response, section, name, ttl, record)

    def _soa(self) -> dns.rrset.RRset:
        s, domain = self._settings, self._domain.to_text()
        numbers = f"{self._serial()} {s.soa_refresh} {s.soa_retry} {s.soa_expire} {s.soa_min_ttl}"
        # Resolvers keep a denial for the lesser of this TTL and the last number (RFC 2308, section 5).
        return dns.rrset.from_text(
            self._domain, s.soa_min_ttl, dns.rdataclass.IN, SOA, f"ns.{domain} hostmaster.{domain} {numbers}"
        )

    def _negative(self, response: dns.message.Message, rcode: dns.rcode.Rcode) -> None:
        response.set_rcode(rcode)
        response.flags |= dns.flags.AA
        response.authority = [self._soa()]

    def _node_name(self, node: Node) -> Name:
        return self._within(f"{node.node}.node.{self._datacenter(node)}")

    def _datacenter(self, node: Node) -> str:
        return node.datacenter or self._settings.datacenter

    def _within(self, text: str) -> Name:
        return dns.name.from_text(text, self._domain)

    # --- size ---------------------------------------------------------------------------------------------------------

    def _room(self, query: dns.message.Message, datagram: bool) -> tuple[int, int]:
        """Bytes and records that an answer may have."""
        if not datagram:
            return STREAM_BYTES, RECORDS_MAX
        if query.edns >= 0:
            return max(DATAGRAM_BYTES, query.payload), RECORDS_MAX
        return DATAGRAM_BYTES, self._settings.udp_answer_limit

    def _fitted(self, response: dns.message.Message, limit: int, most: int) -> bytes:
        """The answer's bytes, cut to what the client takes: `limit` bytes and `most` records."""
        self._cut_to(response, most)
        while True:
            try:
                return response.to_wire(max_size=limit, want_shuffle=False)
            except dns.exception.TooBig:
                count = sum(map(len, response.answer))
                if len(plain := [each for each in response.additional if each.rdtype != TXT]) < len(
                    response.additional
                ):
                    response.additional = plain
                elif len(once := _once(response.additional)) < len(response.additional):
                    response.additional = once
                elif response.additional:
                    response.additional = []
                elif count:
                    self._cut_to(response, min(_fitting(response, limit), count - 1))
                else:
                    response.authority = []

    def _cut_to(self, response: dns.message.Message, count: int) -> None:
        """Keep the first `count` records of the answer, and what belongs to them."""
        if sum(len(rrset) for rrset in response.answer) <= count:
            return
        kept: list[dns.rrset.RRset] = []
        for rrset in response.answer:
            rows = list(rrset)[: max(count, 0)]
            count -= len(rows)
            if rows:
                kept.append(dns.rrset.from_rdata_list(rrset.name, rrset.ttl, rows))
        response.answer = kept
        targets = {getattr(row, "target", None) for rrset in kept for row in rrset}
        belonging: list[dns.rrset.RRset] = []
        for rrset in response.additional:  # an alias comes before what it leads to
            if rrset.name in targets:
                belonging.append(rrset)
                targets.update(getattr(row, "target", None) for row in rrset)
        response.additional = _once(belonging)
        self.counters.truncated += 1
        if self._settings.enable_truncate:
            response.flags |= dns.flags.TC


def _once(additional: list[dns.rrset.RRset]) -> list[dns.rrset.RRset]:
    """Each record once."""
    return list({(rrset.name, rrset.rdtype, rrset[0]): rrset for rrset in additional}.values())


def _fitting(response: dns.message.Message, limit: int) -> int:
    """How many records of the answer about fit, the question and EDNS beside them."""
    left = limit - _HEADER_BYTES - len(response.question[0].name.to_wire() or b"")
    count = 0
    for rrset in response.answer:
        for record in rrset:
            left -= _RECORD_BYTES + len(record.to_wire() or b"")
            if left < 0:
                return count
            count += 1
    return count


def refusal(wire: bytes, rcode: int) -> bytes | None:
    """An answer that says nothing but the code; None if not even the header of a question can be read."""
    if len(wire) < 12 or wire[2] & 0x80:
        return None
    return wire[:2] + bytes([0x80 | (wire[2] & 0x79), rcode]) + bytes(8)


def _is_ip(address: str) -> bool:
    try:
        ip_address(address)
    except ValueError:
        return False
    return True


def _names(address: str, name: Name) -> bool:
    """Whether an address is that very name."""
    try:
        return bool(dns.name.from_text(address) == name)
    except (dns.exception.DNSException, ValueError):
        return False


def _address(instance: Instance, name: Name) -> str:
    """An instance's address, when `name` is asked for: its node's if it has none, or none but that very name."""
    address = instance.service.address
    return address if address and not _names(address, name) else instance.node.address


def _ip_rows(name: Name, address: str, kind: int) -> list[Row]:
    """An A or AAAA record, if the address is one and the type was asked for."""
    if not _is_ip(address):
        return []
    version = A if ip_address(address).version == 4 else AAAA
    made = dns.rdtypes.IN.A.A if version == A else dns.rdtypes.IN.AAAA.AAAA
    return [(name, made(dns.rdataclass.IN, version, address))] if kind in (version, ANY) else []


def _quoted(text: str) -> str:
    """A TXT record's strings: 255 bytes at most, each."""
    pieces = [text[at : at + 60] for at in range(0, max(len(text), 1), 60)]
    return " ".join('"' + piece.replace("\\", "\\\\").replace('"', '\\"') + '"' for piece in pieces)
