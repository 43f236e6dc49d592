"""When the leader promotes a non-voter by itself: it has kept up for a while, so that its vote costs nobody an outage.

Source: Consul, autopilot: `max_trailing_logs` 250; *Deviation:* stable for 2 s instead of `server_stabilization_time`
10 s. Only members that are `staging` are candidates: those that were added to become voters and not demoted since.

It must not do I/O, and has no clock of its own.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from impl.runtime.interfaces import MILLISECONDS

TRAILING_MAX = 250
"""Entries of the leader's log that a server may lack and still count as caught up."""
STABLE_NS = 2_000 * MILLISECONDS


class Candidate(msgspec.Struct, frozen=True):
    """A non-voter, as its leader sees it."""

    name: str
    trailing: int
    """Entries of the leader's log that it has not acknowledged."""
    connected: bool


def has_caught_up(candidate: Candidate) -> bool:
    """Whether it could vote now without holding up the others."""
    return candidate.connected and candidate.trailing <= TRAILING_MAX


class Promotion:
    """How long each candidate has kept up."""

    def __init__(self) -> None:
        self._term = 0
        self._since: dict[str, int] = {}

    def due(self, term: int, now_ns: int, candidates: Iterable[Candidate]) -> list[str]:
        """Names of those to be promoted by the leader of `term`, in order of the time that they have kept up.

        Ask often: a candidate that is behind at the time of asking begins anew.
        """
        if term != self._term:
            self._term, self._since = term, {}
        keeping_up = sorted(candidate.name for candidate in candidates if has_caught_up(candidate))
        self._since = {name: self._since.get(name, now_ns) for name in keeping_up}
        stable = [(since, name) for name, since in self._since.items() if now_ns - since >= STABLE_NS]
        return [name for _, name in sorted(stable)]
