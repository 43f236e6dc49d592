"""Where each node of a cluster lives: 10.77.0.0/24, inside the cluster's own namespaces only.

Servers s1.. are .1 and up, client agents c1.. are .101 and up, namespaces of test clients t1.. are .201 and up, so
that an address in a log names its node at a glance.
"""

from __future__ import annotations

import re

NETWORK = bytes((10, 77, 0))
PREFIX_BITS = 24
FIRST_HOST = {"s": 1, "c": 101, "t": 201}
COUNT_MAX = {"s": 99, "c": 99, "t": 54}
NAME = re.compile(r"([sct])([1-9][0-9]?)")


class UnknownNode(ValueError):
    """A name that is not one of the cluster's nodes; the text lists those that are."""


def host_number(node: str) -> int:
    """The last octet of the node's address; raises UnknownNode for names that no cluster has."""
    match = NAME.fullmatch(node)
    if match is None or int(match[2]) > COUNT_MAX[match[1]]:
        raise UnknownNode(f"{node!r}: nodes are called s1.. (servers), c1.. (client agents) and t1.. (test clients)")
    return FIRST_HOST[match[1]] + int(match[2]) - 1


def address_of(node: str) -> str:
    """The node's IPv4 address, as text."""
    return ".".join(map(str, (*NETWORK, host_number(node))))


def node_at(address: str) -> str | None:
    """The node that has this address (a port behind it is ignored), or None."""
    host, _, _ = address.partition(":")
    network, _, last = host.rpartition(".")
    if network != ".".join(map(str, NETWORK)) or not last.isdigit():
        return None
    for kind in ("t", "c", "s"):
        if int(last) >= FIRST_HOST[kind]:
            number = int(last) - FIRST_HOST[kind] + 1
            return f"{kind}{number}" if number <= COUNT_MAX[kind] else None
    return None


def names(kind: str, count: int) -> tuple[str, ...]:
    """The first `count` nodes of a kind ("s", "c" or "t")."""
    if not 0 <= count <= COUNT_MAX[kind]:
        raise UnknownNode(f"{count} nodes of kind {kind!r}: a cluster has 0 to {COUNT_MAX[kind]}")
    return tuple(f"{kind}{number}" for number in range(1, count + 1))
