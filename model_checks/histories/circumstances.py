"""What a run knows of its cluster beside the history, where a promise depends on it. Everything is optional: a history
that comes alone is judged by what holds whatever happened.

It must not excuse anything by itself: each checker says which of its rules need what.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import msgspec

Span = tuple[int, int]
"""(from, to) in ns of the history's clock."""


class Circumstances(msgspec.Struct, frozen=True):
    """Times are in ns of the history's clock; spans are disjoint and in order."""

    restores: tuple[int, ...] = ()
    """When some server replaced its state machine by a snapshot, or started with one: it knows nothing of the
    lock-delays that began before. In order."""
    reigns: tuple[Span, ...] = ()
    """Spans in which one server was seen to lead in one term, without a gap."""
    calm: tuple[tuple[Span, ...], ...] = ()
    """For each agent: spans in which neither it nor the leader was cut, paused or dead, nor the leadership changed."""
    concurrency: int = 1
    """Process p is thread p modulo this, which asks agent (thread modulo the number of agents)."""

    def calm_at(self, process: int, from_ns: int, to_ns: int) -> bool:
        """Whether nothing disturbed the agent of `process` in that time; False if nothing is known."""
        if not self.calm:
            return False
        return covers(self.calm[process % self.concurrency % len(self.calm)], from_ns, to_ns)

    def restored_between(self, from_ns: int, to_ns: int) -> bool:
        """Whether a server may have forgotten a lock-delay that began in this time."""
        place = bisect.bisect_left(self.restores, from_ns)
        return place < len(self.restores) and self.restores[place] <= to_ns


def covers(spans: Sequence[Span], from_ns: int, to_ns: int) -> bool:
    """Whether one of the disjoint, ordered `spans` contains the whole of [from_ns, to_ns]."""
    place = bisect.bisect_right(spans, (from_ns, 1 << 62)) - 1
    return place >= 0 and spans[place][0] <= from_ns and to_ns <= spans[place][1]


ALONE = Circumstances()
"""Nothing is known but the history."""
