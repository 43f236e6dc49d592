"""The core: inputs in, `Ready` out. What a driver holds.

The core does no I/O and knows neither time nor threads: everything it learns is an input, everything it wants is in
`ready()`. It must be called from one thread. After each input, or a batch of inputs, the driver calls `ready()` while
`has_ready()`. An exception other than `Refused` is fatal: the process must stop without sending anything more.
Source: etcd-io/raft (`Step`, `Tick`, `Ready`); the actions are those of ARCHITECTURE.md, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_never

from impl.raft import election, following, leading, membership, pre_vote, reads, snapshots, timers, transfer
from impl.raft.configuration import Configuration, Member
from impl.raft.errors import NotLeader, NotReady, Overloaded, Transferring
from impl.raft.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    Entry,
    InstallSnapshotRequest,
    Message,
    PreVoteRequest,
    PreVoteResponse,
    RequestVoteRequest,
    RequestVoteResponse,
    TimeoutNow,
)
from impl.raft.ready import Ready, Role, SnapshotMeta, Write
from impl.raft.server import Received, Server, start_server
from impl.raft.settings import Random, Restored, Settings


class Core:
    """One server. `members`: the genesis (names alone will do); `now_ns`: the monotonic clock, as for `advance_clock`.

    The server need not be a member: it follows whoever leads, and campaigns only as a voter.
    """

    def __init__(
        self,
        settings: Settings,
        members: Sequence[str | Member],
        restored: Restored,
        random: Random,
        *,
        trace: bool,
        now_ns: int,
    ) -> None:
        self.server = start_server(settings, members, restored, random, trace=trace, now_ns=now_ns)
        """The state, for those who look; never to be written from outside."""
        membership.adopt(self.server)
        self.server.reset_election_timer()
        self._dirty = False

    @property
    def role(self) -> Role:
        """The role in the current term."""
        return self.server.role

    @property
    def term(self) -> int:
        """The current term; in memory, perhaps not yet on disk."""
        return self.server.disk.term

    @property
    def leader_id(self) -> str | None:
        """The leader of the current term, as far as known. A leader names itself."""
        return self.server.leader_id

    @property
    def commit_index(self) -> int:
        """Everything up to here is known to be committed."""
        return self.server.commit_index

    @property
    def last_applied(self) -> int:
        """Everything up to here was handed out in `Ready.committed`."""
        return self.server.last_applied

    @property
    def has_applied_own_term(self) -> bool:
        """Whether an entry of the current term was handed out: nothing of earlier terms is left to apply."""
        return self.server.log.term_at(self.server.last_applied) == self.server.term

    @property
    def last_index(self) -> int:
        """Index of the last entry in memory."""
        return self.server.log.last_index

    @property
    def configuration(self) -> Configuration:
        """The configuration in force: the latest in the log, committed or not."""
        return self.server.log.configuration

    def trace_state(self) -> list[Any]:
        """The state array of a trace line (ARCHITECTURE.md, section 5); at the start, the header's. Needs a trace."""
        return self.server.state()

    @property
    def election_due(self) -> bool:
        """Whether the next `tick` starts an election: the driver reads its sockets once more before that tick."""
        server = self.server
        return server.role is not Role.LEADER and server.elapsed + 1 >= server.election_deadline

    def advance_clock(self, now_ns: int) -> None:
        """The monotonic clock shows `now_ns`: to be told before each batch of inputs, after they were received."""
        if now_ns > self.server.now_ns:
            self.server.now_ns = now_ns

    def tick(self) -> None:
        """10 ms passed."""
        if timers.tick(self.server):
            self._dirty = True

    def step(self, source: str, message: Message, message_id: str = "", frame: int = 0) -> None:
        """A message of `source` arrived; `message_id` and `frame` (its frame's CRC-32) are for the trace.

        An InstallSnapshotRequest is not for here (`snapshot_received`), and dropped. Raises ProtocolViolated: stop the
        process.
        """
        server = self.server
        if type(message) is RequestVoteRequest and election.is_disturbed_by(server, message):
            return
        self._dirty = True
        received = Received(source, message_id, frame)
        if message.term > server.disk.term and election.carries_term(message):
            election.update_term(server, received, message)
        if message.term < server.disk.term:
            self._answer_stale(received, message)
            return
        match message:
            case AppendEntriesRequest():
                following.handle_append_entries_request(server, received, message)
            case AppendEntriesResponse():
                leading.handle_append_entries_response(server, received, message)
            case RequestVoteRequest():
                election.handle_request_vote_request(server, received, message)
            case RequestVoteResponse():
                election.handle_request_vote_response(server, received, message)
            case PreVoteRequest():
                pre_vote.handle_pre_vote_request(server, received, message)
            case PreVoteResponse():
                pre_vote.handle_pre_vote_response(server, received, message)
            case TimeoutNow():
                transfer.handle_timeout_now(server, received)
            case InstallSnapshotRequest():
                pass
            case _:
                assert_never(message)

    def _answer_stale(self, received: Received, message: Message) -> None:
        match message:
            case AppendEntriesRequest():
                following.reject_stale(self.server, received.source, message.prev_log_index)
            case RequestVoteRequest():
                election.reject_stale_vote_request(self.server, received.source)
            case PreVoteRequest():
                pre_vote.handle_pre_vote_request(self.server, received, message)
            case AppendEntriesResponse() | RequestVoteResponse() | PreVoteResponse():
                pass
            case TimeoutNow() | InstallSnapshotRequest():
                pass
            case _:
                assert_never(message)

    def propose(self, payloads: Sequence[bytes]) -> tuple[int, int]:
        """Append an entry for each payload; returns (index of the first, term).

        Raises NotLeader, Transferring and Overloaded: nothing was appended. ValueError: there is no payload.
        """
        if not payloads:
            raise ValueError("nothing was proposed: give at least one payload")
        server = self.server
        if server.role is not Role.LEADER:
            raise NotLeader(server.leader_id)
        if server.transferee is not None:
            raise Transferring(server.term, server.transferee)
        settings, log = server.settings, server.log
        if log.last_index - server.commit_index >= settings.uncommitted_entries_max:
            raise Overloaded("entries", settings.uncommitted_entries_max)
        if log.bytes_between(server.commit_index, log.last_index) >= settings.uncommitted_bytes_max:
            raise Overloaded("bytes of entries", settings.uncommitted_bytes_max)
        self._dirty = True
        return leading.client_request(server, payloads), server.disk.term

    def read(self, read_id: str) -> None:
        """Ask for a linearizable read; `Ready.reads` or `Ready.failed_reads` answers.

        `read_id` must be unique in this incarnation. Raises NotLeader, NotReady, Overloaded.
        """
        server = self.server
        if server.role is not Role.LEADER:
            raise NotLeader(server.leader_id)
        if not reads.knows_commit_index(server):
            raise NotReady(server.disk.term)
        if len(server.reads) + len(server.confirmed) >= server.settings.reads_max:
            raise Overloaded("reads", server.settings.reads_max)
        self._dirty = True
        reads.read_request(server, read_id)
        if not server.peers:
            reads.confirm_reads(server)

    def lease_read(self, read_id: str) -> bool:
        """A linearizable read without a round of its own: `Ready.reads` answers. False: not by lease, use `read`."""
        server = self.server
        if server.role is not Role.LEADER or not reads.knows_commit_index(server) or not reads.has_lease(server):
            return False
        if len(server.confirmed) >= server.settings.reads_max:
            return False
        self._dirty = True
        reads.lease_read(server, read_id)
        return True

    def persisted(self, number: int) -> None:
        """The disk holds every write up to `number`. Raises ValueError if it is not on its way."""
        server = self.server
        self._dirty = True
        persist(server, number)
        election.become_leader_if_elected(server)
        leading.advance_commit_index(server)

    def change_configuration(self, members: Sequence[Member]) -> tuple[int, int]:
        """Add, remove, promote or demote one server (`configuration.with_member` and the like make `members`); returns
        (index, term) of the entry, to be awaited as a proposal is.

        Raises NotLeader, NotReady, Transferring, ChangeRefused: nothing was changed.
        """
        server = self._leader()
        if server.transferee is not None:
            raise Transferring(server.term, server.transferee)
        membership.check_change(server, members)
        self._dirty = True
        term = server.term
        return membership.change_configuration(server, members), term

    def transfer_leadership(self, to: str | None) -> str:
        """Hand the leadership over, to the voter whose log is most complete if None; returns to whom.

        It is done when the role changes, and failed when `Ready.transfers_failed` says so, an election timeout later at
        most. Raises NotLeader, Transferring, TransferImpossible, UnknownServer.
        """
        server = self._leader()
        if server.transferee is not None:
            raise Transferring(server.term, server.transferee)
        if to is None:
            to = transfer.best_transferee(server)
        else:
            transfer.check_transferee(server, to)
        self._dirty = True
        transfer.begin(server, to)
        return to

    def step_down(self, why: str) -> None:
        """Lead no more, if this server does: it is about to stop, for example."""
        if self.server.role is Role.LEADER:
            self._dirty = True
            election.step_down(self.server, why)

    def _leader(self) -> Server:
        if self.server.role is not Role.LEADER:
            raise NotLeader(self.server.leader_id)
        return self.server

    def snapshot_meta(self) -> SnapshotMeta:
        """A snapshot of the state machine as it is now, all of `committed` applied; the driver fills in its file.

        Raises Replacing.
        """
        return snapshots.describe(self.server)

    def snapshot_taken(self, meta: SnapshotMeta) -> bool:
        """The snapshot file `meta.file` is durable. Returns False if it is not newer than what is there: remove it."""
        server = self.server
        if not server.snapshot < meta.index <= server.last_applied:
            return False
        self._dirty = True
        snapshots.take_snapshot(server, meta)
        return True

    def snapshot_received(
        self, source: str, message: InstallSnapshotRequest, message_id: str, frame: int, meta: SnapshotMeta
    ) -> bool:
        """The file that `message` announced is complete, verified and durable here: `meta`.

        Returns whether it is needed; if not, remove it. Raises ProtocolViolated: stop the process.
        """
        server = self.server
        if server.restore is not None:
            return False
        self._dirty = True
        received = Received(source, message_id, frame)
        if message.term > server.disk.term:
            election.update_term(server, received, message)
        if message.term < server.disk.term:
            following.reject_stale(server, source, message.last_index)
            return False
        return snapshots.handle_install_snapshot_request(server, received, message, meta)

    def snapshot_restored(self, index: int, state_digest: str = "") -> None:
        """The state machine is now that of the snapshot of `Ready.restore`. Raises ValueError: it was not asked for."""
        server = self.server
        if server.restore is None or not server.restore_announced or server.restore.index != index:
            raise ValueError(f"nobody asked to restore a snapshot of index {index}")
        self._dirty = True
        snapshots.restore_snapshot(server, index, state_digest)

    def snapshot_sent(self, peer: str, ok: bool) -> None:
        """The transfer to `peer` is over: it has the whole file, or there was no way."""
        progress = self.server.progress.get(peer)
        if progress is not None and progress.pending_snapshot:
            if ok:
                progress.snapshot_sent_at = self.server.ticks
            else:
                progress.no_snapshot()

    def process_ended(self, peer: str, incarnation: int) -> None:
        """There is evidence that the process `incarnation` of `peer`, and so every earlier one, has ended: nobody
        listens where it did, or a later one does. A closed connection is no evidence.

        If it was this server's leader, its lease is over, and this server campaigns after a short random delay.
        """
        server = self.server
        if server.role is Role.LEADER or peer != server.leader_id or server.lease_ended or not server.settings.lease_ms:
            return
        if incarnation >= server.leader_incarnation:
            self._dirty = True
            transfer.handle_lease_ended(server, peer, incarnation)

    def peer_connected(self, peer: str) -> None:
        """Messages to `peer` may get through from now on; those sent before may be lost."""
        server = self.server
        progress = server.progress.get(peer)
        if progress is not None:
            progress.probe_again()
            progress.probe_due = self._dirty = True
        elif server.asking:
            pre_vote.ask_again(server)
            self._dirty = True
        elif server.role is Role.CANDIDATE:
            election.ask_again(server)
            self._dirty = True

    def peer_lost(self, peer: str) -> None:
        """A connection to or from `peer` closed. A leader sends `peer` no entries until it answers."""
        progress = self.server.progress.get(peer)
        if progress is not None:
            progress.probe_again()

    def has_ready(self) -> bool:
        """Whether `ready()` may have something to say."""
        return self._dirty

    def ready(self) -> Ready:
        """Everything to be done now, once. The driver carries it out in the order of `Ready`'s fields.

        `apply` and `answer_read` are recorded here: what is handed out in `committed` counts as applied.
        """
        server = self.server
        write = issue(server) if server.disk.has_pending() else None
        if server.role is Role.LEADER:
            leading.replicate(server)
        elif server.asking:
            pre_vote.request_pre_vote(server)
        elif server.role is Role.CANDIDATE:
            election.request_vote(server)
        election.vote_response(server)
        following.append_entries_response(server)
        if server.progress:
            snapshots.send_snapshots(server)
        committed = apply(server)
        result = Ready(
            events=server.events,
            write=write,
            messages=server.outbox,
            snapshots=server.snapshots,
            restore=snapshots.due_restore(server) if server.restore is not None else None,
            committed=committed,
            reads=reads.answer_reads(server),
            failed_reads=server.failed_reads,
            lost=server.lost,
            role_changes=server.role_changes,
            transfers_failed=server.transfers_failed,
        )
        server.events, server.outbox, server.failed_reads, server.lost, server.role_changes = [], [], [], [], []
        if server.snapshots or server.transfers_failed:
            server.snapshots, server.transfers_failed = [], []
        self._dirty = server.last_applied < applicable_index(server)
        return result


def issue(server: Server) -> Write:
    """Everything that changed in memory since the last write, as the next write: no step of the spec."""
    write = server.disk.issue(server.ticks)
    server.record_issue(write.number)
    return write


def persist(server: Server, number: int) -> None:
    """The spec's persist: the writes up to `number` are durable."""
    server.disk.confirm(number)
    server.record("persist", write=number)


def applicable_index(server: Server) -> int:
    """How far entries may be applied: committed, and on this server's disk (ARCHITECTURE.md, section 3, rule 4).

    No further than now while the state machine waits to be replaced by a snapshot.
    """
    if server.restore is not None:
        return server.last_applied
    return server.disk.durable_up_to(server.commit_index)


def apply(server: Server) -> list[Entry]:
    """Hand out the next entries that may be applied (Ongaro 2014, figure 3.1, rules for all servers)."""
    last = min(applicable_index(server), server.last_applied + server.settings.apply_entries_max)
    if last <= server.last_applied:
        return []
    entries = server.log.slice(server.last_applied, last)
    server.last_applied = last
    server.record("apply", index=last)
    return entries
