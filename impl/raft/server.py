"""The state of one server: what Ongaro 2014, figure 3.1 lists, what is owed to others, and the trace of its steps.

The actions that change it are functions in `election`, `following`, `leading` and `reads`. A function whose name is
an action of the spec (ARCHITECTURE.md, section 3) changes the state as that action does, and records it, with
`record`, when done. Nothing else changes `role` to `confirmed`, the log or the vote.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec

from impl.raft.disk import Disk
from impl.raft.log import RaftLog
from impl.raft.messages import Message
from impl.raft.progress import Progress
from impl.raft.quorum import majority
from impl.raft.ready import Event, FailedRead, IssueEvent, LostProposals, Role, RoleChange, StepEvent
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


class Server:
    """One server. Plain attributes: the hot paths read them often. Only the actions write them."""

    __slots__ = (
        "acked_match", "acked_round", "acknowledgement_owed", "broadcast_round", "commit_index", "confirmed",
        "disk", "elapsed", "election_deadline", "events", "failed_reads", "last_applied", "leader_id",
        "leader_lost", "leader_match", "log", "lost", "name", "outbox", "peers", "progress", "quorum", "random",
        "reads", "refusals", "rejections_owed", "role", "role_changes", "round", "sequence", "settings", "trace",
        "unasked", "voters", "votes", "votes_owed",
    )  # fmt: skip

    def __init__(
        self, settings: Settings, voters: Sequence[str], restored: Restored, random: Random, *, trace: bool
    ) -> None:
        if settings.name not in voters:
            raise ValueError(f"{settings.name} is not one of the voters {', '.join(sorted(voters))}")
        self.settings, self.random, self.trace = settings, random, trace
        self.name = settings.name
        self.voters = tuple(sorted(set(voters)))
        self.peers = tuple(voter for voter in self.voters if voter != self.name)
        self.quorum = majority(len(self.voters))
        # State of the spec.
        self.log = RaftLog(restored.entries, digests=trace)
        self.disk = Disk(restored.term, restored.voted_for, self.log.last_index)
        self.role = Role.FOLLOWER
        self.leader_id: str | None = None
        self.commit_index = 0
        self.last_applied = 0
        self.leader_match = 0
        """Follower: the prefix of the log known to equal the log of this term's leader."""
        self.round = 0
        self.votes: set[str] = set()
        """Candidate: the peers that granted their vote."""
        self.refusals: set[str] = set()
        """Candidate: the peers that refused theirs; they will not change their mind in this term."""
        self.progress: dict[str, Progress] = {}
        """Leader: every peer's progress. Empty in other roles."""
        self.reads: deque[PendingRead] = deque()
        self.confirmed: deque[PendingRead] = deque()
        # Owed to others; sent as soon as the disk allows it, forgotten when the term changes.
        self.unasked: set[str] = set()
        """Candidate: peers to ask for a vote at the next occasion."""
        self.votes_owed: dict[str, bool] = {}
        """Candidates to be answered, and whether the vote was granted (in memory)."""
        self.acknowledgement_owed = False
        self.acked_match = 0
        self.acked_round = 0
        """Follower: what the newest acknowledgement to this term's leader said."""
        self.rejections_owed: dict[str, Rejection] = {}
        # Timers, in ticks.
        self.elapsed = 0
        """Since the election timer was reset; of a leader, since its last heartbeat."""
        self.election_deadline = 0
        self.leader_lost = False
        """The connection to the leader closed since the timer was reset."""
        self.broadcast_round = 0
        """Leader: the newest round that was sent to every peer."""
        # Outputs, until the next Ready takes them.
        self.sequence = 0
        self.events: list[Event] = []
        self.outbox: list[tuple[str, Message]] = []
        self.failed_reads: list[FailedRead] = []
        self.lost: list[LostProposals] = []
        self.role_changes: list[RoleChange] = []

    @property
    def term(self) -> int:
        """The current term, in memory."""
        return self.disk.term

    @property
    def voted_for(self) -> str | None:
        """Who got this server's vote in the current term, in memory."""
        return self.disk.voted_for

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

    def record_issue(self, number: int) -> None:
        """A write was issued that covers everything up to now."""
        if self.trace:
            log = self.log
            point = [self.disk.term, self.disk.voted_for, log.last_index, log.digest_at(log.last_index)]
            self.events.append(IssueEvent(number, point))

    def changed_role(self, why: str) -> None:
        """Say why role, term or leader are what they are now."""
        self.role_changes.append(RoleChange(self.role, self.disk.term, self.leader_id, why))

    def reset_election_timer(self) -> None:
        """Draw a new election timeout (section 3.4): a server that is alone has nobody to wait for."""
        self.elapsed = 0
        self.leader_lost = False
        settings = self.settings
        if self.peers:
            self.election_deadline = self.random.randrange(settings.election_ticks_min, settings.election_ticks_max + 1)
        else:
            self.election_deadline = 1

    def forget_term(self) -> None:
        """Forget what is known and owed only within a term: the term is over."""
        self.leader_id = None
        self.leader_lost = False
        self.leader_match = 0
        self.round = 0
        self.votes.clear()
        self.refusals.clear()
        self.progress.clear()
        self.reads.clear()
        self.unasked.clear()
        self.votes_owed.clear()
        self.rejections_owed.clear()
        self.acknowledgement_owed = False
        self.acked_match = 0
        self.acked_round = 0
        self.broadcast_round = 0
