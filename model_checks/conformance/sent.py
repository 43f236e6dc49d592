"""What servers told each other so far in a replay: messages, and that who led a term leads it no more.

Both only grow: a datagram may be received late, and more than once. A server that needs something that is not here
yet waits for it, under a name; whoever adds it wakes the server.
"""

from __future__ import annotations

from typing import NamedTuple

from model_checks.conformance.divergence import PROVENANCE, Divergence
from spec.raft.messages import Message
from spec.raft.types import ServerId, Term, Time


class Delivery(NamedTuple):
    """A message that was sent, its frame's checksum, and what its sender's clock had shown last."""

    message: Message
    frame: int
    clock: Time


class LeadershipEnd(NamedTuple):
    """A process that led a term leads it no more: it lost the role, or it ended. `ns`: of its last line before that."""

    incarnation: int
    ns: int


ENDED = " as the leader of term "


def end_of(leader: ServerId, term: Term) -> str:
    """The name under which one waits for the end of a leadership."""
    return f"{leader}{ENDED}{term}"


class Sent:
    """What was sent so far, by all servers."""

    def __init__(self) -> None:
        self._messages: dict[str, Delivery] = {}
        self._ends: dict[str, LeadershipEnd] = {}
        self._woken: list[str] = []
        self.awaited: dict[str, list[str]] = {}
        """What is waited for (a message's id, or `end_of` a leadership) -> the servers that wait for it."""

    def send(self, id: str, message: Message, frame: int, clock: Time) -> None:
        """Add a message; whoever waits for it may go on. Raises Divergence if the id was used before."""
        if id in self._messages:
            raise Divergence(PROVENANCE, "message ids are unique", f"{id} was sent twice")
        self._messages[id] = Delivery(message, frame, clock)
        self._woken += self.awaited.pop(id, ())

    def sent(self, id: str) -> Delivery | None:
        """The message with this id, or None if it was not sent (yet)."""
        return self._messages.get(id)

    def end_leadership(self, leader: ServerId, term: Term, end: LeadershipEnd) -> None:
        """`leader` leads `term` no more. Only the first end counts."""
        name = end_of(leader, term)
        self._ends.setdefault(name, end)
        self._woken += self.awaited.pop(name, ())

    def leadership_end(self, leader: ServerId, term: Term) -> LeadershipEnd | None:
        """How `leader` came to lead `term` no more, or None if it still does, or never did."""
        return self._ends.get(end_of(leader, term))

    def woken(self) -> list[str]:
        """The servers for which something was added since the last call."""
        woken, self._woken = self._woken, []
        return woken

    def __len__(self) -> int:
        return len(self._messages)
