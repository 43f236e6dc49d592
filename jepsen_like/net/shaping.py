"""What happens to a packet on a link that has a rule: when each copy arrives, if at all.

Pure but for its own state (when the line is free, the last arrival, the draws so far): time is an argument,
randomness is seeded per link, so that a link's draws depend on its own packets only.
"""

from __future__ import annotations

from random import Random

from jepsen_like.net.corruption import corrupt_seen, corrupt_unseen
from jepsen_like.net.rules import LinkCounters, LinkRule

MS = 1_000_000


class Shaper:
    """A directed link under a rule."""

    def __init__(self, rule: LinkRule, random: Random, counters: LinkCounters) -> None:
        self.rule = rule
        self._random = random
        self._counters = counters
        self._line_free_ns = 0
        self._last_arrival_ns = 0

    def plan(self, packet: bytes, now_ns: int) -> list[tuple[int, bytes]]:
        """(arrival time, bytes) of each copy that arrives. Draws only for the properties that the rule has, in a
        fixed order."""
        rule, random, counters = self.rule, self._random, self._counters
        if rule.cut:
            counters.cut += 1
            return []
        if rule.loss and random.random() < rule.loss:
            counters.lost += 1
            return []
        if rule.corrupt and random.random() < rule.corrupt:
            packet = corrupt_seen(packet, random)
            counters.corrupted += 1
        if rule.corrupt_unseen and random.random() < rule.corrupt_unseen:
            packet = corrupt_unseen(packet, random)
            counters.corrupted += 1
        copies = 1
        if rule.duplicate and random.random() < rule.duplicate:
            counters.duplicated += 1
            copies = 2
        arrivals = []
        for _ in range(copies):
            arrival = self._arrival(len(packet), now_ns)
            if arrival is not None:
                arrivals.append((arrival, packet))
        return arrivals

    def _arrival(self, size: int, now_ns: int) -> int | None:
        """When a packet of this size arrives that is sent now; None if the queue before a limited rate is full."""
        rule = self.rule
        sent = now_ns
        if rule.rate_bytes_per_s:
            start = max(now_ns, self._line_free_ns)
            waiting_bytes = (start - now_ns) * rule.rate_bytes_per_s / 1e9
            if waiting_bytes + size > rule.queue_bytes:
                self._counters.overflowed += 1
                return None
            sent = self._line_free_ns = start + int(size * 1e9 / rule.rate_bytes_per_s)
        delay_ms = rule.delay_ms
        if rule.jitter_ms:
            delay_ms = max(0.0, delay_ms + self._random.uniform(-rule.jitter_ms, rule.jitter_ms))
        arrival = sent + int(delay_ms * MS)
        if rule.reorder and self._random.random() < rule.reorder:
            self._counters.reordered += 1
            return arrival + int(rule.reorder_ms * MS)  # not remembered: later packets may overtake it
        self._last_arrival_ns = arrival = max(arrival, self._last_arrival_ns)
        return arrival
