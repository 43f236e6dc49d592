"""Drives the Raft core of a server: the clock, the disk, the peers and the state machine around `impl/raft/core.py`.

For each `Ready` in turn: write the trace, start the disk write, send the messages, apply what is committed, answer
(ARCHITECTURE.md, section 8). Disk work runs in the executor, one write at a time; while one is under way, the next
ones gather and go to the disk together with one sync (group commit). Nothing here decides anything about Raft: what
must wait for the disk is held back by the core.

The driver must not block the loop, must not reorder what a `Ready` orders, and must not go on after the disk failed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from impl.agent.api import Consistency, DefiniteError, IndefiniteError
from impl.agent.changes import Changes
from impl.agent.logs import Log
from impl.agent.tracer import Tracer
from impl.catalog.commands import UnknownCommand, Write, decode_command, describe_write, encode_command
from impl.catalog.queries import Answer, Query, answer_query, describe_query
from impl.catalog.store import KeysAnswer, Store
from impl.raft.core import Core
from impl.raft.errors import NotLeader, Refused
from impl.raft.messages import AppendEntriesRequest, Entry, Message
from impl.raft.ready import LostProposals, Ready, Record, Role, RoleChange
from impl.raft.ready import Write as DiskWrite
from impl.runtime.interfaces import MILLISECONDS, Future, Runtime
from impl.storage.errors import DiskFull

TICK_NS = 10 * MILLISECONDS
TICKS_AT_ONCE_MAX = 3
"""After a pause of the process, its timers advance by this much at most: time that it could not use did not pass."""
SHUTTING_DOWN = "rpc error: the server is shutting down"
DISK_FULL_RETRY_NS = 200 * MILLISECONDS

encode_message = msgspec.msgpack.Encoder().encode
_message_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)
decode_message = _message_decoder.decode


class Peers(Protocol):
    """The links to the other servers."""

    def send(self, to: str, frame: bytes) -> None:
        """Send an encoded message if the link is up; otherwise it is lost, as a datagram is."""
        ...


class AppendedLog(Protocol):
    """The part of the durable log that the driver writes with (impl/storage)."""

    def append(self, records: Sequence[Record]) -> None:
        """Write records in order. Raises DiskFull: nothing of them counts as written."""
        ...

    def sync(self) -> None:
        """Make everything appended durable."""
        ...


class Proposal(msgspec.Struct, frozen=True):
    """A write that waits for its entry to be applied."""

    command: Write
    request: str
    """Id of the client's request, for the trace."""
    answered: Future[bool]
    term: int = 0


class WaitingRead(msgspec.Struct, frozen=True):
    """A read that waits for leadership to be confirmed."""

    query: Query
    answered: Future[Answer]


class Driver:
    """One running server of a formed cluster. All methods are called on the loop."""

    def __init__(
        self,
        runtime: Runtime,
        core: Core,
        disk_log: AppendedLog,
        store: Store,
        peers: Peers,
        log: Log,
        tracer: Tracer | None,
        changes: Changes,
        checksum: Callable[[bytes], int],
    ) -> None:
        """`changes` is notified when role, term, leader or applied index change: who retries need not poll.

        `checksum` is that of the frame that carries an encoded message, for the trace.
        """
        self.core = core
        self.store = store
        self.applied = 0
        """Index of the last entry that the state machine has applied."""
        self.last_contact_ns = 0
        """When a leader of the current term was last heard; 0: never in this incarnation."""
        self.stepped_down: Callable[[], None] = _unheard
        """Called when this server stops leading: blocking queries that it holds must find the new leader."""
        self._runtime = runtime
        self._clock = runtime.clock
        self._disk_log = disk_log
        self._peers = peers
        self._log = log
        self._tracer = tracer
        self._changes = changes
        self._checksum = checksum
        self._arrived: list[Proposal] = []
        self._pending: dict[int, Proposal] = {}
        self._proposed: list[tuple[str, int, int]] = []
        """Appended since the last Ready, for the trace: (request, index, term)."""
        self._reads: dict[str, WaitingRead] = {}
        self._writes: list[DiskWrite] = []
        self._disk_busy = False
        self._disk_full = False
        """Until the next attempt to write."""
        self._disk_full_reported = False
        self._scheduled = False
        self._stopped = False
        self._ticked_ns = self._clock.monotonic_ns()
        self._requests = 0
        self._role = core.role

    def start(self) -> None:
        """Begin to tick."""
        self._ticked_ns = self._clock.monotonic_ns()
        self._clock.call_later(TICK_NS, self._on_timer)
        self._schedule()

    def stop(self) -> None:
        """Take no further input. What waits is answered as unknown; a write under way may still reach the disk."""
        self._stopped = True
        for proposal in [*self._arrived, *self._pending.values()]:
            _fail(proposal.answered, IndefiniteError(SHUTTING_DOWN))
        for read in self._reads.values():
            _fail(read.answered, DefiniteError(SHUTTING_DOWN))
        self._arrived, self._pending, self._reads = [], {}, {}

    # --- inputs -------------------------------------------------------------------------------------------------------

    def propose(self, command: Write, request: str) -> Future[bool]:
        """Replicate and apply a command. The future may raise impl.raft.errors.Refused (definite) or IndefiniteError.

        Raises:
            NotLeader: at once, when this server is not the leader.
        """
        if self.core.role is not Role.LEADER:
            raise NotLeader(self.core.leader_id)
        answered: Future[bool] = self._runtime.tasks.future()
        self._arrived.append(Proposal(command, request, answered))
        self._schedule()
        return answered

    def read(self, query: Query) -> Future[Answer]:
        """A linearizable read (Ongaro 2014, section 6.4). The future may raise DefiniteError.

        Raises:
            Refused: at once, with the reason.
        """
        self._requests += 1
        identity = f"q{self._requests}"
        self.core.read(identity)
        answered: Future[Answer] = self._runtime.tasks.future()
        self._reads[identity] = WaitingRead(query, answered)
        self._schedule()
        return answered

    def read_local(self, query: Query, consistency: Consistency) -> Answer:
        """Answer from what this server has applied."""
        if self.core.has_ready():
            # The steps that made this server what it is now must be in the trace before an answer that rests on them.
            self._pump()
        answer = answer_query(self.store, query)
        if self._tracer is not None:
            self._requests += 1
            self._trace_read(f"q{self._requests}", consistency, query, answer)
            self._flush(self._tracer)
        return answer

    def receive(self, source: str, incarnation: int, message: Message, frame: int) -> None:
        """A message of a peer arrived; `frame` is its frame's checksum."""
        if self._stopped:
            return
        self.core.step(source, message, f"{source}/{incarnation}/{message.sequence}", frame)
        if type(message) is AppendEntriesRequest and self.core.leader_id == source:
            self.last_contact_ns = self._clock.monotonic_ns()
        self._schedule()

    def peer_connected(self, peer: str) -> None:
        """The link to `peer` is up (again)."""
        self.core.peer_connected(peer)
        self._schedule()

    def peer_lost(self, peer: str) -> None:
        """A connection to or from `peer` closed."""
        self.core.peer_lost(peer)
        self._schedule()

    # --- time ---------------------------------------------------------------------------------------------------------

    def _on_timer(self) -> None:
        if self._stopped:
            return
        now = self._clock.monotonic_ns()
        ticks = (now - self._ticked_ns) // TICK_NS
        if ticks > TICKS_AT_ONCE_MAX:
            ticks, self._ticked_ns = TICKS_AT_ONCE_MAX, now
        else:
            self._ticked_ns += ticks * TICK_NS
        for _ in range(ticks):
            if self.core.election_due:
                # A message that is already in the kernel counts: read all sockets first, then decide.
                self._poll_before_tick()
                break
            self.core.tick()
        self._schedule()
        self._clock.call_later(TICK_NS, self._on_timer)

    def _poll_before_tick(self) -> None:
        # The loop runs what a timer calls soon before it polls, and what that calls soon after it has polled.
        self._clock.call_soon(self._poll_is_next)

    def _poll_is_next(self) -> None:
        self._clock.call_soon(self._tick_after_poll)

    def _tick_after_poll(self) -> None:
        if not self._stopped:
            self.core.tick()
            self._schedule()

    # --- outputs ------------------------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._clock.call_soon(self._pump)

    def _pump(self) -> None:
        self._scheduled = False
        if self._stopped:
            return
        if self._arrived:
            self._propose_arrived()
        while self.core.has_ready():
            self._carry_out(self.core.ready())

    def _propose_arrived(self) -> None:
        arrived, self._arrived = self._arrived, []
        try:
            first, term = self.core.propose([encode_command(proposal.command) for proposal in arrived])
        except Refused as refused:
            for proposal in arrived:
                _fail(proposal.answered, refused)
            return
        for index, proposal in enumerate(arrived, first):
            self._pending[index] = Proposal(proposal.command, proposal.request, proposal.answered, term)
            if self._tracer is not None:
                self._proposed.append((proposal.request, index, term))

    def _carry_out(self, ready: Ready) -> None:
        frames = [encode_message(message) for _, message in ready.messages]
        if self._tracer is not None and ready.events:
            self._tracer.events(ready.events, [self._checksum(frame) for frame in frames])
            self._tracer.proposals(self._proposed)
            self._proposed.clear()
            self._flush(self._tracer)
        if ready.write is not None:
            self._writes.append(ready.write)
            self._write()
        for (to, _), frame in zip(ready.messages, frames, strict=True):
            self._peers.send(to, frame)
        answers = self._apply(ready.committed) if ready.committed else []
        for confirmed in ready.reads:
            read = self._reads.pop(confirmed.id)
            answer = answer_query(self.store, read.query)
            answers.append((read.answered, answer))
            if self._tracer is not None:
                self._trace_read(confirmed.id, Consistency.CONSISTENT, read.query, answer, confirmed.id)
        if self._tracer is not None:
            self._flush(self._tracer)
        for future, result in answers:
            if not future.done():
                future.set_result(result)
        self._report(ready)

    def _report(self, ready: Ready) -> None:
        for failed in ready.failed_reads:
            _fail(self._reads.pop(failed.id).answered, NotLeader(self.core.leader_id))
        for lost in ready.lost:
            self._lose(lost)
        for change in ready.role_changes:
            self._log_change(change)
        if ready.role_changes or ready.committed:
            self._changes.notify()

    def _apply(self, committed: Sequence[Entry]) -> list[tuple[Future[Any], Any]]:
        answers: list[tuple[Future[Any], Any]] = []
        for entry in committed:
            try:
                result = self.store.apply(decode_command(entry.payload), entry.index)
            except UnknownCommand as error:
                self._die(f"cannot apply entry {entry.index}: {error}")
            self.applied = entry.index
            proposal = self._pending.pop(entry.index, None)
            if proposal is None:
                continue
            if proposal.term != entry.term:
                # Another leader's entry stands where this one stood: it was overwritten and can never be applied.
                _fail(proposal.answered, NotLeader(self.core.leader_id))
                continue
            answers.append((proposal.answered, result))
            if self._tracer is not None:
                query = describe_write(proposal.command)
                self._tracer.answer(proposal.request, "write", query, self.applied, result, index=entry.index)
        return answers

    def _flush(self, tracer: Tracer) -> None:
        try:
            tracer.flush()
        except OSError as error:
            self._die(f"the trace cannot be written: {error.strerror}: make space, or start without -trace")

    def _lose(self, lost: LostProposals) -> None:
        for index in range(lost.first_index, lost.last_index + 1):
            proposal = self._pending.get(index)
            if proposal is not None and proposal.term == lost.term:
                del self._pending[index]
                _fail(proposal.answered, IndefiniteError("rpc error: leadership lost while committing log"))

    def _trace_read(
        self, number: str, consistency: Consistency, query: Query, answer: Answer, read: str | None = None
    ) -> None:
        assert self._tracer is not None
        rows: list[Any] = list(answer.keys) if isinstance(answer, KeysAnswer) else list(answer.entries)
        more = {} if read is None else {"read": read}
        described = describe_query(query)
        request = self._tracer.identity(number)
        self._tracer.answer(request, consistency.value, described, self.applied, [answer.index, rows], **more)

    def _log_change(self, change: RoleChange) -> None:
        names = {Role.LEADER: "election won", Role.CANDIDATE: "starting election", Role.FOLLOWER: "following"}
        stepped_down = self._role is Role.LEADER and change.role is Role.FOLLOWER
        message = "stepping down" if stepped_down else names[change.role]
        self._role = change.role
        if stepped_down:
            self.stepped_down()
        self._log.info(message, term=change.term, leader=change.leader_id, why=change.why)

    # --- disk ---------------------------------------------------------------------------------------------------------

    def _write(self) -> None:
        if self._disk_busy or self._disk_full or not self._writes:
            return
        writes, self._writes = self._writes, []
        records = [record for write in writes for record in write.records]
        self._disk_busy = True

        def work() -> None:
            self._disk_log.append(records)
            self._disk_log.sync()

        self._runtime.executor.submit(
            work, lambda _: self._written(writes), lambda error: self._write_failed(writes, error)
        )

    def _written(self, writes: list[DiskWrite]) -> None:
        self._disk_busy = False
        if self._disk_full_reported:
            self._disk_full_reported = False
            self._log.info("there is space again: everything that waited is on disk")
        if self._stopped:
            return
        self.core.persisted(writes[-1].number)
        self._pump()
        self._write()

    def _write_failed(self, writes: list[DiskWrite], error: BaseException) -> None:
        self._disk_busy = False
        if not isinstance(error, DiskFull):
            self._die(f"the log cannot be written: {error}")
        if not self._disk_full_reported:
            self._disk_full_reported = True
            self._log.error("disk full: acknowledging and voting nothing until there is space", error=str(error))
        self._disk_full = True
        self._writes[:0] = writes
        self._clock.call_later(DISK_FULL_RETRY_NS, self._retry_write)

    def _retry_write(self) -> None:
        self._disk_full = False
        if not self._stopped:
            self._write()

    def _die(self, reason: str) -> None:
        """End the process before anything else is acknowledged: the disk or the log can no longer be believed."""
        self._stopped = True
        self._log.error("fatal", error=reason)
        self._runtime.host.exit_now(1)
        raise SystemExit(1)


def _unheard() -> None:
    """Nobody listens."""


def _fail(future: Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
