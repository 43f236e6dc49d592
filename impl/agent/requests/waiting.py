"""Who waits for what in a driver: writes and changes of members for their entry, reads for their confirmation, a
hand-over for its end. Each is answered once, with its result or with what is known about it.

It must not decide anything: the core's `Ready` says what happened.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from impl.agent.requests.api import AgentError, Consistency, DefiniteError, IndefiniteError
from impl.catalog.commands import Write
from impl.catalog.queries import Answer, Query
from impl.catalog.transitions import Result
from impl.raft.errors import NotLeader
from impl.raft.messages import Entry
from impl.raft.ready import LostProposals
from impl.runtime.interfaces import Future

SHUTTING_DOWN = "rpc error: the server is shutting down"
LEADERSHIP_LOST = "rpc error: leadership lost while committing log"


V = TypeVar("V", contravariant=True)


class Pending(Protocol[V]):
    """Where an answer goes: a future, or whatever else is given one result or one error."""

    def done(self) -> bool:
        """Whether nobody waits any more."""

    def set_result(self, result: V, /) -> None:
        """Give the result. Once."""

    def set_exception(self, exception: Exception, /) -> None:
        """Give the error. Once."""


class Proposal(msgspec.Struct):
    """A write that waits to be proposed, and then for its entry to be applied."""

    command: Write
    request: str
    """Id of the client's request, for the trace."""
    answered: Pending[Result]
    term: int = 0
    """In which it was proposed."""


class Reconfiguration(msgspec.Struct, frozen=True):
    """A change of the members that waits to be committed."""

    answered: Pending[int]
    term: int


class WaitingRead(msgspec.Struct, frozen=True):
    """A read that waits for its confirmation, or for the state machine."""

    query: Query
    consistency: Consistency
    answered: Pending[Answer]


class Waiting:
    """The clients of one driver."""

    def __init__(self) -> None:
        self._entries: dict[int, Proposal | Reconfiguration] = {}
        """By the index of the entry that they wait for."""
        self._reads: dict[str, WaitingRead] = {}
        self._hand_over: Future[None] | None = None

    def proposed(self, proposals: Sequence[Proposal], first: int, term: int) -> None:
        """The proposals are entries `first`, ... of this term."""
        for index, proposal in enumerate(proposals, first):
            proposal.term = term
            self._entries[index] = proposal

    def reconfigured(self, index: int, change: Reconfiguration) -> None:
        """A change of the members is the entry at `index`."""
        self._entries[index] = change

    def reading(self, identity: str, read: WaitingRead) -> None:
        """A read was asked for."""
        self._reads[identity] = read

    def handing_over(self, done: Future[None]) -> None:
        """Leadership is to be handed over."""
        self._hand_over = done

    @property
    def expects_entries(self) -> bool:
        """Whether anybody waits for an entry."""
        return bool(self._entries)

    def applied(self, entry: Entry, leader_id: str | None) -> Proposal | Reconfiguration | None:
        """Who waited for this entry, which was applied."""
        waiting = self._entries.pop(entry.index, None)
        if waiting is not None and waiting.term != entry.term:
            # Another leader's entry stands where this one stood: it was overwritten and can never be applied.
            fail(waiting.answered, NotLeader(leader_id))
            return None
        return waiting

    def confirmed(self, identity: str) -> WaitingRead:
        """A read may be answered."""
        return self._reads.pop(identity)

    def read_failed(self, identity: str, leader_id: str | None) -> None:
        """A read will not be confirmed."""
        fail(self._reads.pop(identity).answered, NotLeader(leader_id))

    def lost(self, lost: LostProposals) -> None:
        """This server leads no more: nobody knows what becomes of these entries."""
        for index in range(lost.first_index, lost.last_index + 1):
            waiting = self._entries.get(index)
            if waiting is not None and waiting.term == lost.term:
                del self._entries[index]
                fail(waiting.answered, IndefiniteError(LEADERSHIP_LOST))

    def replaced(self, index: int) -> None:
        """The state machine was replaced: entries up to here will never be applied one by one."""
        for position in [position for position in self._entries if position <= index]:
            fail(self._entries.pop(position).answered, IndefiniteError(LEADERSHIP_LOST))

    def handed_over(self, error: AgentError | None = None) -> None:
        """Leadership is gone, or stays for this reason."""
        done, self._hand_over = self._hand_over, None
        if done is None or done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def stop(self) -> None:
        """The driver stops: what was proposed may yet happen, reads do not."""
        for waiting in self._entries.values():
            fail(waiting.answered, IndefiniteError(SHUTTING_DOWN))
        for read in self._reads.values():
            fail(read.answered, DefiniteError(SHUTTING_DOWN))
        self.handed_over(IndefiniteError(SHUTTING_DOWN))
        self._entries, self._reads = {}, {}


def fail(pending: Pending[Any], error: Exception) -> None:
    """Give the error to whoever still waits."""
    if not pending.done():
        pending.set_exception(error)
