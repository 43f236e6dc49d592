"""The values of the Raft spec: entries, disk points, servers, facts, constants.

Everything here is frozen, hashable and compared by content. Actions are in `actions`, messages in `messages`.
Source: Ongaro 2014, figure 3.1 (state); raft.tla (variables). *Deviation:* the state says what is on disk (`durable`,
`issued`), which raft.tla leaves out; `next_index` is missing because any slice of the log may be sent.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from spec.raft.log import Log
    from spec.raft.messages import Message

ServerId = str
Term = int
Index = int
Value = str
"""What a client wants replicated: opaque to Raft. Exploration uses short names; conformance uses payload digests."""


class Role(StrEnum):
    """The role of a server in its current term (Ongaro 2014, figure 3.3)."""

    FOLLOWER = "follower"
    CANDIDATE = "candidate"
    LEADER = "leader"


class Entry(msgspec.Struct, frozen=True, order=True):
    """A log entry: the term of the leader that created it, and the client's value."""

    term: Term
    value: Value


class Point(msgspec.Struct, frozen=True):
    """One state of a server's disk: all that a restart finds (Ongaro 2014, figure 3.1, "persistent state")."""

    term: Term
    voted_for: ServerId | None
    log: Log


class Write(msgspec.Struct, frozen=True):
    """A disk point that was issued and is not yet known to be durable.

    `cause` is a history variable, which no real server keeps: the message whose handling issued this write (None for
    timeouts and client requests). Linking needs it to say which abstract step happens when the write is persisted.
    """

    point: Point
    cause: Message | None = None


class Read(msgspec.Struct, frozen=True):
    """A linearizable read at a leader: confirmed once a quorum has answered a round numbered at least `round`."""

    id: str
    index: Index
    round: int


class Server(msgspec.Struct, frozen=True):
    """One server: `role` to `confirmed` are volatile, `durable` and `issued` are the disk.

    Memory is the last point issued.
    """

    role: Role
    leader_id: ServerId | None
    commit_index: Index
    last_applied: Index
    leader_match: Index
    """Follower: length of the prefix of its log known to equal the log of the term's leader. 0 in other roles."""
    round: int
    """Leader: number of the newest confirmation round. Follower: highest round seen from the term's leader."""
    votes: tuple[ServerId, ...]
    """Candidate: who granted a vote, sorted; oneself is not in it (one's own vote counts when it is durable)."""
    match_index: tuple[tuple[ServerId, Index], ...]
    """Leader: (peer, index) sorted by peer, for every peer; empty in other roles."""
    acked_round: tuple[tuple[ServerId, int], ...]
    """Leader: (peer, highest round answered), sorted, for every peer; empty in other roles."""
    reads: tuple[Read, ...]
    """Leader: reads waiting for confirmation, in order of arrival."""
    confirmed: tuple[Read, ...]
    """Reads confirmed and not yet answered. They outlive leadership: once confirmed, a read index stays valid."""
    durable: Point
    issued: tuple[Write, ...]

    @property
    def memory(self) -> Point:
        """What the running server believes: the last point issued."""
        return self.issued[-1].point if self.issued else self.durable

    @property
    def current_term(self) -> Term:
        """The server's term (Ongaro 2014, figure 3.1, currentTerm)."""
        return self.memory.term

    @property
    def voted_for(self) -> ServerId | None:
        """The candidate that received this server's vote in the current term, in memory."""
        return self.memory.voted_for

    @property
    def log(self) -> Log:
        """The server's log, in memory."""
        return self.memory.log


class Constants(msgspec.Struct, frozen=True):
    """What does not change in a run: the servers (sorted names). Static membership: every server votes."""

    servers: tuple[ServerId, ...]

    def is_quorum(self, members: frozenset[ServerId] | set[ServerId]) -> bool:
        """Whether `members` is a majority of the servers."""
        return 2 * sum(1 for server in self.servers if server in members) > len(self.servers)

    def peers(self, i: ServerId) -> tuple[ServerId, ...]:
        """Every server but `i`, sorted."""
        return tuple(server for server in self.servers if server != i)


class Elected(msgspec.Struct, frozen=True):
    """Fact: `server` became leader of `term`, with this log."""

    term: Term
    server: ServerId
    log: Log


class Committed(msgspec.Struct, frozen=True):
    """Fact: the leader of `term` marked its log committed up to `index`; `log` is that prefix."""

    term: Term
    index: Index
    log: Log


class Applied(msgspec.Struct, frozen=True):
    """Fact: `server` applied `entry` at `index`."""

    server: ServerId
    index: Index
    entry: Entry


class ReadStarted(msgspec.Struct, frozen=True):
    """Fact: read `id` arrived at the leader of `term`, which took `index` as its read index."""

    id: str
    term: Term
    index: Index


class ReadConfirmed(msgspec.Struct, frozen=True):
    """Fact: a quorum answered the round of read `id`."""

    id: str
    term: Term
    index: Index


class ReadAnswered(msgspec.Struct, frozen=True):
    """Fact: read `id` was answered from a state machine that had applied `applied` entries."""

    id: str
    index: Index
    applied: Index


Fact = Elected | Committed | Applied | ReadStarted | ReadConfirmed | ReadAnswered


class Outcome(msgspec.Struct, frozen=True):
    """What a local action yields: the next server state, the messages sent, the facts that became true."""

    server: Server
    sent: tuple[Message, ...] = ()
    facts: tuple[Fact, ...] = ()
