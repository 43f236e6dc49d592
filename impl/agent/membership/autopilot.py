"""How well the servers are, in the eyes of their leader: what Consul's autopilot shows, and since when it is so.

Source: Consul, "Operator HTTP API", Autopilot; hashicorp/raft-autopilot, `ServerState.isHealthy`. *Deviation:* how
long ago a server was heard is the leader's own observation, by the answers that it got; Consul asks the servers.
Nothing here is acted upon: `promotion` promotes, and a dead server stays a member until an operator removes it.

It must not do I/O, and has no clock of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from impl.agent.membership.promotion import TRAILING_MAX

CONTACT_MS_MAX: Final = 200
"""Whoever was not heard for longer is not healthy."""
NEVER_MS: Final = -1
"""Of a server that was never heard by this leader."""


class Observation(msgspec.Struct, frozen=True):
    """A server, as its leader sees it now."""

    name: str
    contact_ms: int
    """Since it was heard last, or `NEVER_MS`; 0: the leader itself."""
    trailing: int
    """Entries of the leader's log that it has not acknowledged."""
    connected: bool

    @property
    def healthy(self) -> bool:
        """Whether it would be missed if another one failed."""
        heard = NEVER_MS < self.contact_ms <= CONTACT_MS_MAX
        return self.connected and heard and self.trailing <= TRAILING_MAX


class Stability:
    """Since when each server has been as healthy as it is."""

    def __init__(self) -> None:
        self._term = 0
        self._since: dict[str, tuple[bool, int]] = {}

    def look(self, term: int, now_ns: int, observed: Iterable[Observation]) -> Mapping[str, int]:
        """The time (of `now_ns`) of each server's last change that the leader of `term` has seen. Ask often."""
        if term != self._term:
            self._term, self._since = term, {}
        before = self._since
        self._since = {}
        for each in observed:
            healthy, since = before.get(each.name, (None, now_ns))
            self._since[each.name] = (each.healthy, since if healthy == each.healthy else now_ns)
        return {name: since for name, (_, since) in self._since.items()}
