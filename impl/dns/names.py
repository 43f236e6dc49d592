"""What a DNS question asks for: the name, without its domain, taken apart as Consul does.

    <node>.node[.<dc>[.dc]]            [<tag>.]<service>.service[.<dc>[.dc]]
    _<service>._<tag>[.service][.<dc>[.dc]]    (RFC 2782; the tag "tcp" means none)
    <hex>.addr[.<dc>[.dc]]             8 digits: IPv4, 32: IPv6

*Deviation:* in Consul, `_<service>._<tag>` without `service` exists only for who asks for SRV; a resolver that asked
for another type before may hold it for a name that does not exist (RFC 8020).

Names have no case in DNS. Must not look anything up. Source: Consul, "DNS usage overview", "Static queries".
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import msgspec


class NodeName(msgspec.Struct, frozen=True):
    """A node's addresses."""

    node: str
    datacenter: str


class ServiceName(msgspec.Struct, frozen=True):
    """The instances of a service that have the tag, if one is given."""

    service: str
    tag: str
    datacenter: str


class AddressName(msgspec.Struct, frozen=True):
    """An address that the name itself spells."""

    address: str


class Domain(msgspec.Struct, frozen=True):
    """The domain itself: its SOA and its name servers."""


class ReverseName(msgspec.Struct, frozen=True):
    """Who has an address (in-addr.arpa, ip6.arpa)."""

    address: str


Asked = NodeName | ServiceName | AddressName | Domain | ReverseName


class UnknownName(Exception):
    """The name has none of the forms: NXDOMAIN."""


def asked_within(labels: tuple[str, ...], datacenter: str) -> Asked:
    """What the labels before the domain ask for. `datacenter` is the agent's own. Raises UnknownName."""
    lower = tuple(label.lower() for label in labels)
    if not labels:
        return Domain()
    for position in range(len(labels) - 1, -1, -1):
        kind = lower[position]
        if kind in ("node", "service", "addr"):
            where = _datacenter(lower[position + 1 :], datacenter)
            return _of_kind(kind, labels[:position], where)
    if len(labels) >= 2 and labels[0].startswith("_") and labels[1].startswith("_"):
        return _of_kind("service", labels[:2], _datacenter(lower[2:], datacenter))
    raise UnknownName(".".join(labels))


def _datacenter(rest: tuple[str, ...], own: str) -> str:
    """What follows the kind: nothing, DC, or DC.dc."""
    match rest:
        case ():
            return own
        case (name,) | (name, "dc"):
            return name
        case _:
            raise UnknownName(".".join(rest))


def _of_kind(kind: str, labels: tuple[str, ...], datacenter: str) -> Asked:
    if not labels:
        raise UnknownName(kind)
    if kind == "node":
        return NodeName(".".join(labels).lower(), datacenter)
    if kind == "addr":
        return AddressName(_spelled(labels))
    if len(labels) == 2 and labels[0].startswith("_") and labels[1].startswith("_"):
        tag = labels[1][1:]
        return ServiceName(labels[0][1:], "" if tag.lower() == "tcp" else tag, datacenter)
    return ServiceName(labels[-1], ".".join(labels[:-1]), datacenter)


def _spelled(labels: tuple[str, ...]) -> str:
    """The address that hexadecimal digits spell."""
    try:
        digits = bytes.fromhex(labels[0])
        if len(labels) != 1 or len(digits) not in (4, 16):
            raise ValueError(labels)
        return str(IPv4Address(digits) if len(digits) == 4 else IPv6Address(digits))
    except ValueError:
        raise UnknownName(".".join(labels)) from None


def spelled(address: str) -> str:
    """An address in hexadecimal digits, as `<hex>.addr` has it."""
    return ip_address(address).packed.hex()


def reverse(labels: tuple[str, ...]) -> ReverseName:
    """The address of a name below in-addr.arpa or ip6.arpa. Raises UnknownName."""
    labels = tuple(label.lower() for label in labels)
    try:
        if labels[-2:] == ("in-addr", "arpa") and len(labels) == 6:
            return ReverseName(str(IPv4Address(".".join(reversed(labels[:4])))))
        if labels[-2:] == ("ip6", "arpa") and len(labels) == 34:
            return ReverseName(str(IPv6Address(bytes.fromhex("".join(reversed(labels[:32]))))))
    except ValueError:
        pass
    raise UnknownName(".".join(labels))
