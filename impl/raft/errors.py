"""Why the core refuses an input, and what is fatal.

A refusal is definite: nothing was appended, nothing will happen. After any other exception the process must stop at
once and send nothing more: its memory cannot be trusted.
"""

from __future__ import annotations


class Refused(Exception):
    """The core did not take the input; it had no effect and never will."""


class NotLeader(Refused):
    """Only a leader takes proposals and reads. `leader_id` is the leader that this server knows of, if any."""

    def __init__(self, leader_id: str | None) -> None:
        super().__init__(f"not the leader; ask {leader_id}" if leader_id else "not the leader, and none is known yet")
        self.leader_id = leader_id


class NotReady(Refused):
    """The leader has not yet committed an entry of its own term, so it does not know the commit index (Ongaro 2014,
    section 6.4).
    """

    def __init__(self, term: int) -> None:
        super().__init__(f"the leader has not yet committed an entry of its term {term}; retry shortly")
        self.term = term


class Overloaded(Refused):
    """A queue of the core is full: a quorum does not keep up, or cannot be reached."""

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(f"more than {limit} {what} are waiting for a quorum; retry later")


class Fatal(Exception):
    """Going on could break what was promised to others. Stop this server; compare its trace with the others'."""


class ProtocolViolated(Fatal):
    """A peer did what no server of this protocol does."""


class DurabilityViolated(Fatal):
    """A message was about to leave that claims what the disk does not hold: a fault of this program."""
