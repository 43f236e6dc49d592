"""Why the core refuses an input, and what is fatal.

A refusal is definite: nothing was appended, nothing will happen. After any other exception the process must stop at
once and send nothing more: its memory cannot be trusted.
"""

from __future__ import annotations

from collections.abc import Sequence


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


class Transferring(NotReady):
    """The leader hands its leadership over and takes nothing new; a new leader, or this one, does so shortly."""

    def __init__(self, term: int, to: str) -> None:
        Refused.__init__(self, f"leadership is being transferred to {to}; retry shortly")
        self.term = term


class Replacing(Refused):
    """A received snapshot stands in the log, and is not restored yet: the state machine is of a log that is gone."""

    def __init__(self, index: int) -> None:
        super().__init__(f"the state is about to be replaced by the snapshot up to {index}; retry shortly")
        self.index = index


class TransferImpossible(Refused):
    """There is nobody to whom leadership could be transferred."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"leadership cannot be transferred: {reason}")


class ChangeRefused(Refused):
    """A change of the configuration that must not be made, or not now. Nothing was changed."""


class ConfigurationInProgress(ChangeRefused):
    """One change at a time: the one before is not committed yet (Ongaro 2014, section 4.1)."""

    def __init__(self, index: int) -> None:
        super().__init__(f"the configuration at index {index} is not committed yet; retry when it is")
        self.index = index


class NotOneChange(ChangeRefused):
    """A change must concern exactly one server."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}: add, remove, promote or demote one server at a time")


class LastVoter(ChangeRefused):
    """Without it nothing could be committed any more, not even the change."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name} is the last voter, and nothing could be committed without it; promote another server first"
        )
        self.name = name


class WouldLoseQuorum(ChangeRefused):
    """With the servers that answer now, the new configuration could commit nothing."""

    def __init__(self, voters: int, needed: int, unreachable: Sequence[str]) -> None:
        super().__init__(
            f"the cluster would lose its quorum: {needed} of {voters} voters must answer, and there is nothing from "
            f"{', '.join(unreachable)}; bring back, or remove, who is gone first"
        )
        self.unreachable = tuple(unreachable)


class UnknownServer(ChangeRefused):
    """No member has that name."""

    def __init__(self, name: str, members: Sequence[str]) -> None:
        super().__init__(f"{name} is not a member of the cluster; the members are {', '.join(members)}")
        self.name = name


class AlreadyMember(ChangeRefused):
    """The server is already what it should become."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"{name} is already {what}")
        self.name = name


class Fatal(Exception):
    """Going on could break what was promised to others. Stop this server; compare its trace with the others'."""


class ProtocolViolated(Fatal):
    """A peer did what no server of this protocol does."""


class DurabilityViolated(Fatal):
    """A message was about to leave that claims what the disk does not hold: a fault of this program."""
