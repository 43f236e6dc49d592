"""What a directed link does to packets, as values; and the plans (partition, cut, slow, heal) that compute new rules
from old.

Pure: no sockets, no time. A *link* is an ordered pair of node names; a link without a rule carries every packet at
once. The vocabulary follows netem(8) and Jepsen: a *grudge* is the set of links that a partition cuts. Deviation from
netem: `jitter_ms` alone never reorders (it is the wait that varies, not the order); `reorder` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

Link = tuple[str, str]
"""(from, to): packets that `from` sends to `to`."""


class InvalidRule(ValueError):
    """A rule or plan that names an impossible value or an unknown node; the text says which, and what is allowed."""


class LinkRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What one directed link does to each packet. Probabilities are in [0, 1], drawn independently per packet.

    The order is that of a path: cut, loss, corruption, duplication, then rate, delay and reordering for each copy.
    """

    cut: bool = False
    """A silent black hole: no reset, no ICMP. Packets already delayed on the link are lost too."""
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    """Uniform in [-jitter, +jitter] around the delay, never below zero."""
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    """Probability that a packet is held back by `reorder_ms` more, so that later ones overtake it."""
    reorder_ms: float = 10.0
    corrupt: float = 0.0
    """Probability that one bit behind the IP header is flipped; the receiver's kernel finds a wrong checksum and
    drops."""
    corrupt_unseen: float = 0.0
    """Probability that one payload bit is flipped and the TCP or UDP checksum repaired: the application receives it."""
    rate_bytes_per_s: float = 0.0
    """0: unlimited."""
    queue_bytes: int = 1 << 20
    """What may wait for a limited rate; more is dropped from the tail."""


PROBABILITIES = ("loss", "duplicate", "reorder", "corrupt", "corrupt_unseen")
QUANTITIES = ("delay_ms", "jitter_ms", "reorder_ms", "rate_bytes_per_s", "queue_bytes")
CLEAR = LinkRule()
CUT = LinkRule(cut=True)


def checked(rule: LinkRule) -> LinkRule:
    """The rule itself, if every value is possible; raises InvalidRule otherwise."""
    for field in PROBABILITIES:
        if not 0.0 <= getattr(rule, field) <= 1.0:
            raise InvalidRule(f"{field} is a probability, between 0 and 1, not {getattr(rule, field)}")
    for field in QUANTITIES:
        if not 0 <= getattr(rule, field) < float("inf"):
            raise InvalidRule(f"{field} must be 0 or more, not {getattr(rule, field)}")
    return rule


Rules = Mapping[Link, LinkRule]
"""The links that are not clear."""


def normalised(rules: Rules) -> dict[Link, LinkRule]:
    """Without the links whose rule changes nothing, in a fixed order."""
    return {link: rules[link] for link in sorted(rules) if rules[link] != CLEAR}


def grudge(groups: Sequence[Sequence[str]]) -> frozenset[Link]:
    """The links between nodes of different groups, both ways. Nodes in no group keep all their links."""
    members = [node for group in groups for node in group]
    twice = sorted({node for node in members if members.count(node) > 1})
    if twice:
        raise InvalidRule(f"{', '.join(twice)}: in two groups of one partition; groups must not overlap")
    return frozenset((a, b) for left in groups for right in groups if left is not right for a in left for b in right)


def partitioned(rules: Rules, groups: Sequence[Sequence[str]]) -> dict[Link, LinkRule]:
    """The named nodes reach exactly those of their own group; other properties of the links stay as they were.

    A second partition replaces the first: links inside a group are mended.
    """
    if len(groups) < 2:
        raise InvalidRule("a partition needs two groups or more, as in s1,s2/s3,s4,s5")
    severed = grudge(groups)
    named = [node for group in groups for node in group]
    result = dict(rules)
    for a in named:
        for b in named:
            if a != b:
                result[a, b] = msgspec.structs.replace(result.get((a, b), CLEAR), cut=(a, b) in severed)
    return normalised(result)


def severed(rules: Rules, links: Iterable[Link]) -> dict[Link, LinkRule]:
    """These links cut, whatever else they do."""
    result = dict(rules)
    for link in links:
        result[link] = msgspec.structs.replace(result.get(link, CLEAR), cut=True)
    return normalised(result)


def shaped(rules: Rules, links: Iterable[Link], rule: LinkRule) -> dict[Link, LinkRule]:
    """These links follow `rule`, instead of what they did before."""
    return normalised({**rules, **dict.fromkeys(links, checked(rule))})


def healed(rules: Rules, links: Iterable[Link] | None = None) -> dict[Link, LinkRule]:
    """Without the rules of these links, or of all."""
    if links is None:
        return {}
    return normalised({**rules, **dict.fromkeys(links, CLEAR)})


def parse_partition(text: str) -> list[list[str]]:
    """`s1,s2/s3,s4,s5` as groups; raises InvalidRule."""
    groups = [[node.strip() for node in group.split(",")] for group in text.split("/")]
    if any(not node for group in groups for node in group):
        raise InvalidRule(f"{text!r}: empty group or name; write a partition as s1,s2/s3,s4,s5")
    if len(groups) < 2:
        raise InvalidRule(f"{text!r}: a partition needs two groups or more, as in s1,s2/s3,s4,s5")
    grudge(groups)
    return groups


class LinkCounters(msgspec.Struct):
    """Packets of one directed link since the cluster started. `delivered` counts copies, so duplicates count twice."""

    packets: int = 0
    bytes: int = 0
    delivered: int = 0
    cut: int = 0
    lost: int = 0
    overflowed: int = 0
    duplicated: int = 0
    reordered: int = 0
    corrupted: int = 0
