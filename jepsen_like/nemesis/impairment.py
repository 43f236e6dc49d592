"""When was each agent cut off or paused? From the executed schedule alone.

A server is *cut off* while it cannot exchange messages, both ways and directly, with voters that make a majority
(with itself, if it votes). A client agent is cut off while no server that is neither cut off, paused nor dead can be
reached both ways. Intervals are inner ones: they begin when a fault was fully in force and end when its mending began.
Dead is not impaired: there is nobody to ask.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence

from jepsen_like.nemesis.book import Fault


def _impaired(fault: Fault, servers: Sequence[str], clients: Sequence[str]) -> set[str]:
    cut = set(fault.cut)

    def linked(a: str, b: str) -> bool:
        return (a, b) not in cut and (b, a) not in cut

    voters = [s for s in servers if s not in fault.away]
    down = set(fault.paused) | set(fault.dead)
    cut_off = {s for s in servers if sum(v == s or linked(s, v) for v in voters) <= len(voters) // 2}
    serving = [s for s in servers if s not in cut_off and s not in down]
    cut_off |= {c for c in clients if not any(linked(c, s) for s in serving)}
    return (cut_off | set(fault.paused)) - set(fault.dead)


def intervals(
    faults: Iterable[Fault], servers: Sequence[str], clients: Sequence[str]
) -> dict[str, list[tuple[int, int]]]:
    """Agent -> disjoint intervals (start_ns, end_ns), in order, in which it was cut off or paused."""
    found: dict[str, list[tuple[int, int]]] = {name: [] for name in (*servers, *clients)}
    since: dict[str, int] = {}
    last_ns = 0
    for fault in sorted((fault for fault in faults if fault.end_ns), key=lambda fault: fault.end_ns):
        last_ns = fault.end_ns
        now = _impaired(fault, servers, clients)
        for node in sorted(since.keys() - now):
            start = since.pop(node)
            if fault.start_ns > start:
                found[node].append((start, fault.start_ns))
        for node in sorted(now):
            since.setdefault(node, fault.end_ns)
    for node, start in sorted(since.items()):
        found[node].append((start, max(start, last_ns)))
    return found


def within(spans: Sequence[tuple[int, int]], time_ns: int) -> bool:
    """Whether `time_ns` lies in one of the disjoint, ordered `spans`."""
    place = bisect.bisect_right(spans, (time_ns, 1 << 62)) - 1
    return place >= 0 and spans[place][0] <= time_ns < spans[place][1]
