"""What became of the questions that reached one agent. Telemetry shows it; nothing else may rest on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dns.exception
import msgspec


class Counters(msgspec.Struct):
    """Since the agent started."""

    answered: int = 0
    malformed: int = 0
    """Answered with FORMERR, or dropped."""
    failed: int = 0
    unspeakable: int = 0
    """Rows left out of an answer because DNS has no way to write their names, ports or weights."""
    truncated: int = 0

    @contextmanager
    def speakable(self) -> Iterator[None]:
        """Users register what they like: a row with a label of 64 letters, say, is left out, and the rest answered."""
        try:
            yield
        except (dns.exception.DNSException, ValueError):
            self.unspeakable += 1
