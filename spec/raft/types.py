"""The values of the Raft spec: configurations, entries, disk points, servers, facts, constants.

Everything here is frozen, hashable and compared by content. Actions are in `actions`, messages in `messages`.
Source: Ongaro 2014, figure 3.1 (state), chapters 4 (configurations), 5 (snapshots), sections 6.4.1 (leases) and 9.6
(pre-vote); raft.tla (variables). *Deviation:* the state says what is on disk (`durable`, `issued`), which raft.tla
leaves out; `next_index` is missing because any slice of the log may be sent.
"""

from __future__ import annotations

from collections.abc import Collection
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


Time = int
"""What all clocks show. Bounded drift is a matter of `Constants.lease` and `Constants.election_timeout`."""


class Role(StrEnum):
    """The role of a server in its current term (Ongaro 2014, figure 3.3)."""

    FOLLOWER = "follower"
    CANDIDATE = "candidate"
    LEADER = "leader"


class Configuration(msgspec.Struct, frozen=True, order=True):
    """Who belongs to the cluster (Ongaro 2014, chapter 4): `voters` make quorums, `nonvoters` only receive the log
    (section 4.2.1). Both sorted, without a common member.
    """

    voters: tuple[ServerId, ...]
    nonvoters: tuple[ServerId, ...] = ()
    allowed_by: Index = 0
    """History variable, which no guard but that of `change_configuration` reads: the commit index of the leader that
    proposed this configuration, at that time. Linking needs it."""

    @property
    def members(self) -> tuple[ServerId, ...]:
        """Voters and nonvoters, sorted."""
        return tuple(sorted(self.voters + self.nonvoters))

    def is_quorum(self, servers: Collection[ServerId]) -> bool:
        """Whether `servers` hold a majority of the voters. Whoever does not vote does not count: neither does a leader
        that is no voter (Ongaro 2014, section 4.2.2).
        """
        return 2 * sum(1 for voter in self.voters if voter in servers) > len(self.voters)


class Entry(msgspec.Struct, frozen=True, order=True):
    """A log entry: the term of the leader that created it, and the client's value or a configuration.

    A configuration is in force as soon as it stands in a log (Ongaro 2014, section 4.1); its `value` says nothing.
    """

    term: Term
    value: Value
    configuration: Configuration | None = None


class Point(msgspec.Struct, frozen=True):
    """One state of a server's disk: all that a restart finds (Ongaro 2014, figure 3.1, "persistent state").

    base <= snapshot <= log.length. Entries up to `base` are forgotten: `log` keeps them as *history*, which no guard
    and no visible update may read (except to send a snapshot, whose entries are history, too).
    """

    term: Term
    voted_for: ServerId | None
    log: Log
    snapshot: Index = 0
    """The disk holds the state machine's state after this index: the file was durable before this record."""
    base: Index = 0


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
    """One server: `durable` and `issued` are the disk, all else is volatile. Memory is the last point issued."""

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
    heard_at: Time = 0
    """When this server last heard from a leader of its term, or started."""
    pre_votes: tuple[ServerId, ...] = ()
    """Who would vote for this server in `current_term + 1`, sorted, without oneself (Ongaro 2014, section 9.6)."""
    lease_ended: bool = False
    """It is known that the leader of `current_term` answers no more reads by its lease."""
    urged_by: Term = 0
    """The term whose ended lease lets this server vote in `current_term` without waiting; 0: none."""
    round_starts: tuple[tuple[int, Time], ...] = ()
    """Leader: rounds and when they began, oldest first, only from the newest that a quorum has answered on."""
    transferring: bool = False
    """Leader: its lease has ended for the rest of its term (Ongaro 2014, section 3.10)."""

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
    """What does not change in a run: every server that may ever exist (sorted), and the features that are on."""

    servers: tuple[ServerId, ...]
    voters: tuple[ServerId, ...] = ()
    """The voters of the genesis, sorted; () means all servers."""
    election_timeout: Time = 0
    """A server that heard from a leader less than this ago neither votes nor campaigns (Ongaro 2014, section 4.2.3)."""
    lease: Time = -1
    """How long after a round began its leader may answer reads by it; negative: no leases (section 6.4.1)."""
    pre_vote: bool = False
    """Whether a campaign needs pre-votes (section 9.6)."""

    @property
    def genesis(self) -> Configuration:
        """The configuration of a log that holds none."""
        return Configuration(self.voters or self.servers)

    @property
    def has_leases(self) -> bool:
        """Whether leaders answer reads by leases."""
        return self.lease >= 0

    def configuration(self, log: Log) -> Configuration:
        """The configuration in force for who has this log: the latest in it, committed or not (section 4.1)."""
        return log.configuration or self.genesis

    def lease_end(self, start: Time) -> Time:
        """The last instant at which a leader may answer by a round that began at `start`."""
        return start + self.lease

    def vote_from(self, heard: Time) -> Time:
        """The first instant at which a server that heard from a leader at `heard` may vote."""
        return heard + self.election_timeout

    def peers(self, i: ServerId) -> tuple[ServerId, ...]:
        """Every server but `i`, sorted, members or not."""
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


class Restored(msgspec.Struct, frozen=True):
    """Fact: `server` replaced its state machine by a snapshot's, which holds `log`, of length `index`."""

    server: ServerId
    index: Index
    log: Log


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


Fact = Elected | Committed | Applied | Restored | ReadStarted | ReadConfirmed | ReadAnswered


class Outcome(msgspec.Struct, frozen=True):
    """What a local action yields: the next server state, the messages sent, the facts that became true."""

    server: Server
    sent: tuple[Message, ...] = ()
    facts: tuple[Fact, ...] = ()
