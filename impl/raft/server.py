"""The state of one server: what Ongaro 2014, figure 3.1 lists, what is owed to others, and the trace of its steps.

The actions that change it are functions in `election`, `pre_vote`, `following`, `leading`, `reads`, `membership`,
`transfer` and `snapshots`. A function whose name is an action of the spec (ARCHITECTURE.md, section 3) changes the
state as that action does, and records it, with `record`, when done. Nothing else changes `role` to `confirmed`, the log
or the vote.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from impl.raft.configuration import Configuration, Member, decode_configuration, first_configuration
from impl.raft.disk import Disk
from impl.raft.log import NO_MEMBERS, RaftLog
from impl.raft.messages import InstallSnapshotRequest, Message
from impl.raft.progress import Progress
from impl.raft.ready import (
    Event,
    FailedRead,
    IssueEvent,
    LostProposals,
    Role,
    RoleChange,
    SnapshotMeta,
    StepEvent,
    TransferFailed,
)
from impl.raft.settings import Random, Restored, Settings


class PendingRead(msgspec.Struct, frozen=True, gc=False):
    """A linearizable read: confirmed once a quorum answered a round of at least `round` (section 6.4)."""

    id: str
    index: int
    round: int


class Received(msgspec.Struct, frozen=True, gc=False):
    """Where a message came from: the server, the message's id and its frame's checksum, for the trace."""

    source: str
    message_id: str
    frame: int


class Rejection(msgspec.Struct, frozen=True, gc=False):
    """An AppendEntriesRequest to be rejected: the prev_log_index that it had, and where the logs may meet."""

    rejected: int
    conflict_index: int
    conflict_term: int


@dataclass(slots=True, kw_only=True, eq=False, repr=False)
class Server:
    """One server. Plain attributes: the hot paths read them often. Only the actions write them.

    Made by `start_server`, which says what the disk held; all else begins as it stands here.
    """

    settings: Settings
    random: Random
    trace: bool
    name: str

    # State of the spec: of every server.
    log: RaftLog
    disk: Disk
    """The current term and the vote are here, too."""
    role: Role = Role.FOLLOWER
    leader_id: str | None = None
    commit_index: int
    last_applied: int
    snapshot: int
    """Index of the newest snapshot; 0: none."""
    heard_at: int
    """When it last heard from a leader of its term, or started; by its own clock."""
    lease_ended: bool = False
    """It is known that the leader of the current term answers no more reads by its lease."""
    urged_by: int = 0
    """The term whose ended lease lets this server vote in the current term without waiting; 0: none."""
    pre_votes: set[str] = field(default_factory=set)
    """The peers that would vote for this server in the next term."""

    # Of a follower, a candidate, a leader.
    leader_match: int = 0
    """Follower: the prefix of the log known to equal the log of this term's leader."""
    votes: set[str] = field(default_factory=set)
    """Candidate: the peers that granted their vote."""
    progress: dict[str, Progress] = field(default_factory=dict)
    """Leader: every peer's progress. Empty in other roles."""
    transferring: bool = False
    """Leader: its lease ended for the rest of its term, for it hands its leadership over."""
    round: int = 0
    reads: deque[PendingRead] = field(default_factory=deque)
    confirmed: deque[PendingRead] = field(default_factory=deque)
    round_starts: deque[tuple[int, int]] = field(default_factory=deque)
    """Leader: (round, when it began), oldest first, from the newest that a quorum has answered on."""

    # The configuration in force, as the hot paths need it; `membership.adopt` keeps it so.
    configuration: Configuration = NO_MEMBERS
    voters: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    """All members but this server, sorted."""
    is_voter: bool = False
    voting: list[Progress] = field(default_factory=list)
    """Leader: the progress of the voters but this server."""

    # Owed to others; sent as soon as the disk allows it, forgotten when the term changes.
    asking: bool = False
    """Would campaign, and collects pre-votes."""
    campaign_reason: str = ""
    unasked: set[str] = field(default_factory=set)
    """Candidate, or asking for pre-votes: peers to ask at the next occasion."""
    refusals: set[str] = field(default_factory=set)
    """Candidate: the peers that refused theirs; they will not change their mind in this term."""
    votes_owed: dict[str, bool] = field(default_factory=dict)
    """Candidates to be answered, and whether the vote was granted (in memory)."""
    acknowledgement_owed: bool = False
    acked_match: int = 0
    acked_round: int = 0
    """Follower: what the newest acknowledgement to this term's leader said."""
    rejections_owed: dict[str, Rejection] = field(default_factory=dict)
    leader_incarnation: int = 0
    """Of the process that leads the current term."""
    transferee: str | None = None
    """Leader: who shall take over."""
    transfer_deadline: int = 0
    restore: SnapshotMeta | None = None
    """A snapshot that was installed and that the state machine does not hold yet."""
    restore_announced: bool = False

    # Time.
    now_ns: int
    ticks: int = 0
    """Since the start."""
    elapsed: int = 0
    """Ticks since the election timer was reset; of a leader, since its last heartbeat."""
    election_deadline: int = 0
    led_since: int = 0
    """Leader: the tick at which it was elected."""
    broadcast_round: int = 0
    """Leader: the newest round that was sent to every peer."""

    # Outputs, until the next Ready takes them.
    sequence: int = 0
    events: list[Event] = field(default_factory=list)
    outbox: list[tuple[str, Message]] = field(default_factory=list)
    snapshots: list[tuple[str, InstallSnapshotRequest]] = field(default_factory=list)
    failed_reads: list[FailedRead] = field(default_factory=list)
    lost: list[LostProposals] = field(default_factory=list)
    role_changes: list[RoleChange] = field(default_factory=list)
    transfers_failed: list[TransferFailed] = field(default_factory=list)

    @property
    def term(self) -> int:
        """The current term, in memory."""
        return self.disk.term

    @property
    def voted_for(self) -> str | None:
        """Who got this server's vote in the current term, in memory."""
        return self.disk.voted_for

    @property
    def waited(self) -> bool:
        """Whether enough time has passed since a leader was heard: its lease is over, whatever the clocks did."""
        return self.now_ns >= self.heard_at + self.settings.election_ns

    @property
    def is_stalled(self) -> bool:
        """Whether the disk has not done a write for as long as an election takes at least."""
        since = self.disk.under_way_since()
        return since is not None and self.ticks - since >= self.settings.election_ticks_min

    def state(self) -> list[Any]:
        """The state array of a trace line (ARCHITECTURE.md, section 5)."""
        log = self.log
        return [
            self.role.value,
            self.disk.term,
            self.disk.voted_for,
            self.leader_id,
            self.commit_index,
            self.last_applied,
            log.last_index,
            log.last_term,
            log.digest_at(log.last_index),
            self.leader_match,
            self.round,
            sorted(self.votes),
            [[peer, self.progress[peer].match_index] for peer in self.peers] if self.progress else [],
            self.snapshot,
            log.base,
            self.heard_at,
            sorted(self.pre_votes),
            self.lease_ended,
            self.urged_by,
            self.transferring,
            log.configuration.index,
        ]

    def record(self, action: str, **arguments: Any) -> None:
        """The spec's `action` was taken. Costs nothing but this call when there is no trace."""
        if self.trace:
            self.events.append(StepEvent(action, arguments, self.state()))

    def record_handler(self, action: str, received: Received) -> None:
        """The spec's `action` was taken with the message that was received."""
        if self.trace:
            arguments = {"message": received.message_id, "frame": received.frame}
            self.events.append(StepEvent(action, arguments, self.state()))

    def record_timed_handler(self, action: str, received: Received) -> None:
        """The same, of an action that reads the clock."""
        if self.trace:
            arguments = {"message": received.message_id, "frame": received.frame, "now": self.now_ns}
            self.events.append(StepEvent(action, arguments, self.state()))

    def record_issue(self, number: int) -> None:
        """A write was issued that covers everything up to now."""
        if self.trace:
            disk, log = self.disk, self.log
            digest = log.digest_at(log.last_index)
            point = [disk.term, disk.voted_for, log.last_index, digest, self.snapshot, log.base]
            self.events.append(IssueEvent(number, point))

    def changed_role(self, why: str) -> None:
        """Say why role, term or leader are what they are now."""
        self.role_changes.append(RoleChange(self.role, self.disk.term, self.leader_id, why))

    def reset_election_timer(self) -> None:
        """Draw a new election timeout (section 3.4)."""
        self.elapsed = 0
        settings = self.settings
        self.election_deadline = self.random.randrange(settings.election_ticks_min, settings.election_ticks_max + 1)

    def forget_leadership(self) -> None:
        """Forget what only a leader or a candidate knows."""
        self.leader_id = None
        self.leader_match = 0
        self.round = 0
        self.votes.clear()
        self.refusals.clear()
        self.progress.clear()
        self.voting.clear()
        self.reads.clear()
        self.round_starts.clear()
        self.transferring = False
        self.transferee = None
        self.unasked.clear()
        self.asking = False
        self.broadcast_round = 0

    def forget_term(self) -> None:
        """Forget what is known and owed only within a term: the term is over."""
        self.forget_leadership()
        self.leader_incarnation = 0
        self.pre_votes.clear()
        self.lease_ended = False
        self.urged_by = 0
        self.votes_owed.clear()
        self.rejections_owed.clear()
        self.acknowledgement_owed = False
        self.acked_match = 0
        self.acked_round = 0


def start_server(
    settings: Settings,
    members: Sequence[str | Member],
    restored: Restored,
    random: Random,
    *,
    trace: bool,
    now_ns: int,
) -> Server:
    """A follower with what its disk held. `members`: the genesis; `membership.adopt` is still to be called."""
    log = restored_log(first_configuration(members), restored, digests=trace)
    disk = Disk(restored.term, restored.voted_for, log.last_index, log.last_term, restored.snapshot)
    return Server(
        settings=settings,
        random=random,
        trace=trace,
        name=settings.name,
        log=log,
        disk=disk,
        commit_index=disk.snapshot,
        last_applied=disk.snapshot,
        snapshot=disk.snapshot,
        heard_at=now_ns,
        now_ns=now_ns,
    )


def restored_log(genesis: Configuration, restored: Restored, *, digests: bool) -> RaftLog:
    """The log that the disk held: the entries after the snapshot's base."""
    log = RaftLog((), digests=digests, genesis=genesis)
    marker = restored.snapshot
    if marker is not None:
        configuration = genesis
        if marker.configuration_index:
            configuration = decode_configuration(marker.configuration, marker.configuration_index)
        log.replace_by_snapshot(marker.base, marker.base_term, configuration, marker.base_digest)
    log.extend(list(restored.entries))
    return log
