"""Addresses that may be names, and what these lead to.

A name is shown as a CNAME only if no instance has an IP (RFC 1034, section 3.6.2: beside a CNAME is nothing else); if
it is of this domain, its records follow, since stub resolvers do not ask on. *Deviation:* Consul adds records of every
type there, metadata included; this leaves the room to those of the type asked for. *Deviation:* who asks Consul for
IPv6 is told of a name though there are IPs, if all are IPv4; in a resolver's cache it would stand for these, too.

Each name may be a request to a server, and names may lead to each other in circles: both are bounded, for one answer.
Must not know what the answer is: `answers` does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import dns.name

from impl.dns.counters import Counters
from impl.dns.directory import NoPath
from impl.dns.names import AddressName, NodeName, ServiceName, UnknownName
from impl.dns.records import AAAA, ANY, CNAME, A, Name, Row, alias_row, ip_rows, is_ip, is_name
from impl.dns.selection import Selection, addresses_of
from impl.dns.zone import Zone

DEPTH_MAX: Final = 3
"""Names, one leading to the next, that are looked up for an address; Consul's bound, against circles."""
TARGETS_MAX: Final = 64
"""Names that are looked up for one answer. For the rest, clients ask on."""


class Aliases:
    """The names that come up in one answer."""

    def __init__(self, zone: Zone, selection: Selection, counters: Counters, enough: int) -> None:
        """`enough`: the addresses of one name that are made into rows at the most, if it has more."""
        self._zone = zone
        self._selection = selection
        self._counters = counters
        self._enough = enough
        self._lookups_left = TARGETS_MAX
        self._known: dict[tuple[Name, int], list[Row]] = {}
        """By the name of a target and how many names led to it."""

    async def address_rows(self, name: Name, addresses: Iterable[str], kind: int, depth: int = 0) -> list[Row]:
        """Records for those addresses that are IPs; if there is none, a CNAME for one name, and what it leads to.

        `depth`: how many names led to this one. Raises LookupFailed.
        """
        rows: list[Row] = []
        alias: Name | None = None
        has_ip = False
        for address in addresses:
            if len(rows) >= self._enough:
                break
            with self._counters.speakable():
                if is_ip(address):
                    has_ip = True
                    rows += ip_rows(name, address, kind)
                elif alias is None and address and not is_name(address, name):
                    alias = dns.name.from_text(address)
        if has_ip or alias is None or kind not in (A, AAAA, CNAME, ANY):
            return rows
        more = [] if kind == CNAME else await self.target_rows(alias, kind, depth)
        return [alias_row(name, alias), *more]

    async def target_rows(self, target: Name, kind: int, depth: int = 0) -> list[Row]:
        """The records of a name that an address leads to, if it is served here, and of those that it leads to.

        Raises LookupFailed.
        """
        if depth >= DEPTH_MAX or not target.is_subdomain(self._zone.domain):
            return []
        if (target, depth) not in self._known:
            if not self._lookups_left:
                return []
            self._lookups_left -= 1
            try:
                self._known[target, depth] = await self._looked_up(target, kind, depth + 1)
            except (UnknownName, NoPath):
                self._known[target, depth] = []
        return self._known[target, depth]

    async def _looked_up(self, target: Name, kind: int, depth: int) -> list[Row]:
        addresses: Iterable[str]
        match self._zone.asked(target, kind):
            case AddressName(address):
                return ip_rows(target, address, kind)
            case NodeName() as asked:
                node = await self._selection.node(asked)
                addresses = (node.address,) if node is not None else ()
            case ServiceName() as asked:
                instances = await self._selection.instances(asked)
                addresses = addresses_of(instances, target)
            case _:
                return []
        return await self.address_rows(target, addresses, kind, depth)
