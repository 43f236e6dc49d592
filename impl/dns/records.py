"""Resource records made of what the registry has: addresses, names, metadata.

Pure. What DNS has no way to write (a label of 64 letters, a port of six digits) raises a DNSException or ValueError. It
must not know where the values come from: `answers` and `aliases` do. Source: RFC 1035, section 3;
RFC 1464, 2782, 3596.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_address

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.CNAME
import dns.rdtypes.ANY.TXT
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA
import dns.rdtypes.IN.SRV

from impl.catalog.rows import Node
from impl.dns.settings import Settings

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
Name = dns.name.Name
Row = tuple[Name, dns.rdata.Rdata]
"""A record and whose it is; how long it may be kept is the answer's."""
SRV_PRIORITY = 1
"""Consul's: who is preferred is said by weights alone."""
STRING_BYTES_MAX = 255
TEXT_BYTES_MAX = 65_000
"""More would not leave room for the length of each string."""

# dnspython has no types for its constructors.
_srv: Callable[..., dns.rdata.Rdata] = dns.rdtypes.IN.SRV.SRV
_txt: Callable[..., dns.rdata.Rdata] = dns.rdtypes.ANY.TXT.TXT
_cname: Callable[..., dns.rdata.Rdata] = dns.rdtypes.ANY.CNAME.CNAME


def is_ip(address: str) -> bool:
    """Whether an address is one; else it is a name."""
    try:
        ip_address(address)
    except ValueError:
        return False
    return True


def is_name(address: str, name: Name) -> bool:
    """Whether an address is that very name."""
    try:
        return bool(dns.name.from_text(address) == name)
    except (dns.exception.DNSException, ValueError):
        return False


def ip_rows(name: Name, address: str, kind: int) -> list[Row]:
    """An A or AAAA record, if the address is an IP and that type was asked for."""
    if not is_ip(address):
        return []
    version = A if ip_address(address).version == 4 else AAAA
    made = dns.rdtypes.IN.A.A if version == A else dns.rdtypes.IN.AAAA.AAAA
    return [(name, made(dns.rdataclass.IN, version, address))] if kind in (version, ANY) else []


def alias_row(name: Name, target: Name) -> Row:
    """A CNAME record."""
    return name, _cname(dns.rdataclass.IN, CNAME, target)


def srv_row(name: Name, weight: int, port: int, target: Name) -> Row:
    """An SRV record."""
    return name, _srv(dns.rdataclass.IN, SRV, SRV_PRIORITY, weight, port, target)


def pointer_row(name: Name, kind: dns.rdatatype.RdataType, target: Name) -> Row:
    """An NS or PTR record, which has nothing but a name."""
    return name, dns.rdata.from_text(dns.rdataclass.IN, kind, target.to_text())


def metadata_rows(name: Name, node: Node) -> list[Row]:
    """A TXT record for each pair of a node's metadata, by key; a key may say that its value is the whole text."""
    texts = [
        value if key.lower().startswith("rfc1035-") else _attribute(key, value)
        for key, value in sorted(node.meta.items())
    ]
    return [(name, _txt(dns.rdataclass.IN, TXT, _strings(text.encode()))) for text in texts]


def soa_row(domain: Name, serial: int, settings: Settings) -> Row:
    """The domain's SOA record."""
    s, text = settings, domain.to_text()
    numbers = f"{serial} {s.soa_refresh} {s.soa_retry} {s.soa_expire} {s.soa_min_ttl}"
    return domain, dns.rdata.from_text(dns.rdataclass.IN, SOA, f"ns.{text} hostmaster.{text} {numbers}")


def _attribute(key: str, value: str) -> str:
    """A pair as one text: "`" says that what follows belongs to the key (RFC 1464, section 2)."""
    key = re.sub("[`=]", r"`\g<0>", key)
    key = re.sub("^ +| +$", lambda spaces: "` " * len(spaces[0]), key)
    return f"{key}={value.replace('`', '``')}"


def _strings(text: bytes) -> list[bytes]:
    """As a TXT record has them (RFC 1035, section 3.3.14): as few as hold the text, at least one."""
    if len(text) > TEXT_BYTES_MAX:
        raise ValueError("no TXT record holds so much")
    return [text[at : at + STRING_BYTES_MAX] for at in range(0, max(len(text), 1), STRING_BYTES_MAX)]
