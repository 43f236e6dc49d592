"""The core: inputs in, `Ready` out. What a driver holds.

The core does no I/O and knows neither time nor threads: everything it learns is an input, everything it wants is in
`ready()`. It must be called from one thread. After each input, or a batch of inputs, the driver calls `ready()` while
`has_ready()`. An exception other than `Refused` is fatal: the process must stop without sending anything more.
Source: etcd-io/raft (`Step`, `Tick`, `Ready`); the actions are those of ARCHITECTURE.md, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_never

from impl.raft import election, following, leading, reads
from impl.raft.errors import NotLeader, NotReady, Overloaded
from impl.raft.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    Entry,
    Message,
    RequestVoteRequest,
    RequestVoteResponse,
)
from impl.raft.ready import Ready, Role, Write
from impl.raft.server import Received, Server
from impl.raft.settings import Random, Restored, Settings


class Core:
    """One server of the cluster `voters` (node names, in any order, with `settings.name` among them)."""

    def __init__(
        self, settings: Settings, voters: Sequence[str], restored: Restored, random: Random, *, trace: bool
    ) -> None:
        self.server = Server(settings, voters, restored, random, trace=trace)
        """The state, for those who look; never to be written from outside."""
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
    def last_index(self) -> int:
        """Index of the last entry in memory."""
        return self.server.log.last_index

    def trace_state(self) -> list[Any]:
        """The state array of a trace line (ARCHITECTURE.md, section 5); at the start, the header's. Needs a trace."""
        return self.server.state()

    @property
    def election_due(self) -> bool:
        """Whether the next `tick` starts an election: the driver reads its sockets once more before that tick."""
        server = self.server
        return server.role is not Role.LEADER and server.elapsed + 1 >= server.election_deadline

    def tick(self) -> None:
        """10 ms passed."""
        server = self.server
        server.elapsed += 1
        if server.role is Role.LEADER:
            self._dirty |= leading.spread_commit_index(server)
            if server.elapsed >= server.settings.heartbeat_ticks:
                server.elapsed = 0
                leading.heartbeat(server)
                self._dirty = True
        elif server.elapsed >= server.election_deadline:
            election.timeout(server, _why_timeout(server))
            self._dirty = True
        elif server.role is Role.CANDIDATE and server.elapsed % server.settings.heartbeat_ticks == 0:
            election.ask_again(server)
            self._dirty = True

    def step(self, source: str, message: Message, message_id: str = "", frame: int = 0) -> None:
        """A message of `source` arrived; `message_id` and `frame` (its frame's CRC-32) are for the trace.

        A message of a server that is not a voter is dropped. Raises ProtocolViolated: stop the process.
        """
        server = self.server
        if source not in server.peers:
            return
        self._dirty = True
        received = Received(source, message_id, frame)
        if message.term > server.disk.term:
            election.update_term(server, message.term, received)
        if message.term < server.disk.term:
            self._answer_stale(source, message)
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
            case _:
                assert_never(message)

    def _answer_stale(self, source: str, message: Message) -> None:
        match message:
            case AppendEntriesRequest():
                following.reject_stale_append(self.server, source, message)
            case RequestVoteRequest():
                election.reject_stale_vote_request(self.server, source)
            case AppendEntriesResponse() | RequestVoteResponse():
                pass
            case _:
                assert_never(message)

    def propose(self, payloads: Sequence[bytes]) -> tuple[int, int]:
        """Append an entry for each payload; returns (index of the first, term).

        Raises NotLeader and Overloaded: nothing was appended. ValueError: there is no payload.
        """
        if not payloads:
            raise ValueError("nothing was proposed: give at least one payload")
        server = self.server
        if server.role is not Role.LEADER:
            raise NotLeader(server.leader_id)
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

    def persisted(self, number: int) -> None:
        """The disk holds every write up to `number`. Raises ValueError if it is not on its way."""
        server = self.server
        self._dirty = True
        persist(server, number)
        election.become_leader_if_elected(server)
        leading.advance_commit_index(server)

    def peer_connected(self, peer: str) -> None:
        """Messages to `peer` may get through from now on; those sent before may be lost."""
        server = self.server
        progress = server.progress.get(peer)
        if progress is not None:
            progress.probe(progress.match_index + 1 if progress.match_index else progress.next_index)
            progress.probe_due = self._dirty = True
        elif server.role is Role.CANDIDATE:
            election.ask_again(server)
            self._dirty = True

    def peer_lost(self, peer: str) -> None:
        """A connection to or from `peer` closed: its process died, perhaps.

        A follower that lost its leader campaigns after a small random delay. A leader sends `peer` no entries until
        it answers.
        """
        server = self.server
        progress = server.progress.get(peer)
        if progress is not None:
            progress.probe(progress.match_index + 1 if progress.match_index else progress.next_index)
        elif server.role is Role.FOLLOWER and peer == server.leader_id and not server.leader_lost:
            delay = server.random.randrange(1, server.settings.leader_lost_ticks_max + 1)
            server.election_deadline = min(server.election_deadline, server.elapsed + delay)
            server.leader_lost = True

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
        elif server.role is Role.CANDIDATE:
            election.request_vote(server)
        election.vote_response(server)
        following.append_entries_response(server)
        committed = apply(server)
        result = Ready(
            events=server.events,
            write=write,
            messages=server.outbox,
            committed=committed,
            reads=reads.answer_reads(server),
            failed_reads=server.failed_reads,
            lost=server.lost,
            role_changes=server.role_changes,
        )
        server.events, server.outbox, server.failed_reads, server.lost, server.role_changes = [], [], [], [], []
        self._dirty = server.last_applied < applicable_index(server)
        return result


def _why_timeout(server: Server) -> str:
    if server.leader_lost:
        return f"the connection to leader {server.leader_id} closed"
    waited = f"{server.elapsed * server.settings.tick_ms} ms"
    if server.role is Role.CANDIDATE:
        return f"the election of term {server.term} was not decided within {waited}"
    if server.leader_id is not None:
        return f"nothing from leader {server.leader_id} for {waited}"
    return f"no leader of term {server.term} within {waited}"


def issue(server: Server) -> Write:
    """Everything that changed in memory since the last write, as the next write: no step of the spec."""
    write = server.disk.issue()
    server.record_issue(write.number)
    return write


def persist(server: Server, number: int) -> None:
    """The spec's persist: the writes up to `number` are durable."""
    server.disk.confirm(number)
    server.record("persist", write=number)


def applicable_index(server: Server) -> int:
    """How far entries may be applied: committed, and on this server's disk (ARCHITECTURE.md, section 3, rule 4)."""
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
