"""Drives the Raft core of a server: the clock, the disk, the peers and the state machine around `impl/raft/core.py`.

For each `Ready` in turn: write the trace, queue the disk write, send the messages, begin transfers of snapshots,
restore or apply what is committed, answer; then the disk starts (ARCHITECTURE.md, section 8). The core is told the time
before each batch of inputs, after they were received. Nothing here decides anything about Raft: what must wait for the
disk is held back by the core.

The driver must not block the loop, must not reorder what a `Ready` orders, and must not go on after the disk failed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from impl.agent.disk_writes import AppendedLog, DiskWrites
from impl.agent.logs import Log
from impl.agent.measures import RaftMeasures, unheard
from impl.agent.requests.api import Consistency, DefiniteError, IndefiniteError
from impl.agent.requests.changes import Changes
from impl.agent.requests.waiting import SHUTTING_DOWN, Pending, Proposal, Reconfiguration, Waiting, WaitingRead, fail
from impl.agent.snapshots.lifecycle import Snapshots
from impl.agent.snapshots.transfer import Call, SnapshotReceiver, SnapshotSender
from impl.agent.tracer import Tracer
from impl.catalog.commands import UnknownCommand, Write, decode_command, describe_write, encode_command
from impl.catalog.queries import Answer, Query, answer_query, describe_query, recorded_answer
from impl.catalog.store import Store
from impl.catalog.transitions import Result
from impl.raft.configuration import COMMAND, Member
from impl.raft.core import Core
from impl.raft.errors import NotLeader, Refused
from impl.raft.messages import AppendEntriesRequest, Entry, InstallSnapshotRequest, Message, encode
from impl.raft.ready import Ready, Role, RoleChange, SnapshotMarker, SnapshotMeta
from impl.raft.ready import Write as DiskWrite
from impl.rpc.handshake import Hello
from impl.runtime.interfaces import MILLISECONDS, Future, Runtime

TICK_NS = 10 * MILLISECONDS
GATHERED_MAX = 128
"""Writes that wait for the batch before them; what is more does not wait."""
GATHERING_NS = 2 * MILLISECONDS
"""How long they wait, and until the next input or tick: where servers are far apart, or busy, waiting gains nothing."""
TICKS_AT_ONCE_MAX = 3
"""After a pause of the process, its timers advance by this much at most: time that it could not use did not pass."""


class Peers(Protocol):
    """The links to the other servers."""

    def send(self, to: str, frame: bytes) -> None:
        """Send an encoded message if the link is up; otherwise it is lost, as a datagram is."""
        ...


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
        snapshots: Snapshots | None = None,
        call: Call | None = None,
        measures: RaftMeasures | None = None,
    ) -> None:
        """`changes` is notified when role, term, leader or applied index change: who retries need not poll.

        `store` has applied the log up to `core.last_applied`. `checksum` is that of the frame that carries an encoded
        message, for the trace. Without `snapshots` the log only grows; `call` asks a peer by its name. Without
        `measures` nobody hears what this costs.
        """
        self.core = core
        self.store = store
        self.applied = core.last_applied
        """Index of the last entry that the state machine has applied."""
        self.last_contact_ns = 0
        """When a leader of the current term was last heard; 0: never in this incarnation."""
        self.stepped_down: Callable[[], None] = _unheard
        """Called when this server stops leading: blocking queries must look again."""
        self.replaced: Callable[[], None] = _unheard
        """Called when the state machine was replaced by a snapshot: blocking queries end (Consul: a restore abandons
        watches)."""
        self.snapshots = snapshots
        self.receiver: SnapshotReceiver | None = None
        """Serves the calls of a leader that sends its snapshot."""
        self._sender: SnapshotSender | None = None
        if snapshots is not None and call is not None:
            self.receiver = SnapshotReceiver(snapshots, self, log)
            self._sender = SnapshotSender(snapshots, call, self.snapshot_sent, log)
        self._runtime = runtime
        self._clock = runtime.clock
        self._disk_log = disk_log
        self._measures = measures or unheard(runtime.clock)
        self._disk = DiskWrites(runtime, disk_log, log, self._written, self.fail, self._disk_took)
        self._peers = peers
        self._log = log
        self._tracer = tracer
        self._changes = changes
        self._checksum = checksum
        self._arrived: list[tuple[Proposal, bytes]] = []
        """Writes that the next pass of the loop proposes together, encoded."""
        self._proposed = (0, 0, 0)
        """(term, last index, when) of the newest batch that was proposed here."""
        self._waiting = Waiting()
        self._untraced: list[tuple[str, int, int]] = []
        """Appended since the last Ready, for the trace: (request, index, term)."""
        self._scheduled = False
        self._stopped = False
        self._ticked_ns = self._clock.monotonic_ns()
        self._requests = 0
        self._role = core.role

    def start(self) -> None:
        """Begin to tick."""
        self._ticked_ns = self._clock.monotonic_ns()
        self._clock.call_later(TICK_NS, self._on_timer)
        if self.snapshots is not None:
            self.snapshots.start(self)
        self._schedule()

    def stop(self) -> None:
        """Take no further input. What waits is answered as unknown; a write under way may still reach the disk."""
        self._stopped = True
        self._disk.stop()
        if self.snapshots is not None:
            self.snapshots.stop()
        for proposal, _ in self._arrived:
            fail(proposal.answered, IndefiniteError(SHUTTING_DOWN))
        self._arrived = []
        self._waiting.stop()

    # --- inputs -------------------------------------------------------------------------------------------------------

    def propose(self, command: Write, request: str) -> Future[Result]:
        """Replicate and apply a command. The future may raise impl.raft.errors.Refused (definite) or IndefiniteError.

        Raises:
            NotLeader: at once, when this server is not the leader.
            OverflowError: at once, when a number of the command has more than 64 bits: others' writes do not suffer.
        """
        answered: Future[Result] = self._runtime.tasks.future()
        self.begin_write(command, request, answered)
        return answered

    def begin_write(self, command: Write, request: str, answered: Pending[Result]) -> None:
        """As `propose`; `answered` hears what its future would."""
        if self.core.role is not Role.LEADER:
            raise NotLeader(self.core.leader_id)
        self._arrived.append((Proposal(command, request, answered), encode_command(command)))
        self._schedule()

    def read(self, query: Query, consistency: Consistency = Consistency.CONSISTENT) -> Future[Answer]:
        """A linearizable read: `consistent` by a round of confirmations, `default` by the lease if there is one, else
        as `consistent` (Ongaro 2014, sections 6.4 and 6.4.1); `stale` from what is applied here. The future may raise
        DefiniteError.

        Raises:
            Refused: at once, with the reason.
        """
        answered: Future[Answer] = self._runtime.tasks.future()
        if consistency is Consistency.STALE:
            answered.set_result(self.read_local(query, consistency))
            return answered
        self.begin_read(query, consistency, answered)
        return answered

    def begin_read(self, query: Query, consistency: Consistency, answered: Pending[Answer]) -> None:
        """As `read` if it is not `stale`; `answered` hears what its future would."""
        self._requests += 1
        identity = f"q{self._requests}"
        self._advance_clock()
        if consistency is not Consistency.DEFAULT or not self.core.lease_read(identity):
            self.core.read(identity)
        self._waiting.reading(identity, WaitingRead(query, consistency, answered))
        self._schedule()

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

    def change_configuration(self, members: Sequence[Member]) -> Future[int]:
        """Change the members by one server; the index of the change, once it is committed. The future may raise
        IndefiniteError, or NotLeader if the change was overwritten.

        Raises:
            Refused: at once, with the reason; nothing was changed.
        """
        self._advance_clock()
        index, term = self.core.change_configuration(members)
        answered: Future[int] = self._runtime.tasks.future()
        self._waiting.reconfigured(index, Reconfiguration(answered, term))
        self._schedule()
        return answered

    def transfer_leadership(self, to: str | None) -> Future[None]:
        """Hand the leadership over; done when this server leads no more. The future may raise DefiniteError.

        Raises:
            Refused: at once, with the reason.
        """
        self._advance_clock()
        self.core.transfer_leadership(to)
        done: Future[None] = self._runtime.tasks.future()
        self._waiting.handing_over(done)
        self._schedule()
        return done

    def step_down(self, why: str) -> None:
        """Lead no more."""
        self._advance_clock()
        self.core.step_down(why)
        self._pump()

    def receive(self, source: str, incarnation: int, message: Message, frame: int) -> None:
        """A message of a peer arrived; `frame` is its frame's checksum."""
        if self._stopped:
            return
        self._advance_clock()
        self.core.step(source, message, f"{source}/{incarnation}/{message.sequence}", frame)
        if type(message) is AppendEntriesRequest and self.core.leader_id == source:
            self.last_contact_ns = self._clock.monotonic_ns()
        self._schedule()

    def peer_connected(self, peer: str) -> None:
        """The link to `peer` is up (again)."""
        self._advance_clock()
        self.core.peer_connected(peer)
        self._schedule()

    def peer_lost(self, peer: str) -> None:
        """A connection to or from `peer` closed."""
        self._advance_clock()
        self.core.peer_lost(peer)
        self._schedule()

    def process_ended(self, peer: str, incarnation: int) -> None:
        """There is evidence that this process of `peer` has ended (ARCHITECTURE.md, section 6)."""
        if self._stopped:
            return
        self._advance_clock()
        self.core.process_ended(peer, incarnation)
        self._schedule()

    # --- snapshots ----------------------------------------------------------------------------------------------------

    @property
    def term(self) -> int:
        """The current term."""
        return self.core.term

    def snapshot_meta(self) -> SnapshotMeta:
        """What a snapshot of `store` as it is now is of; the file is missing. Raises Replacing."""
        return self.core.snapshot_meta()

    def snapshot_taken(self, meta: SnapshotMeta) -> bool:
        """The snapshot file is durable. False: it came too late to be of use."""
        self._advance_clock()
        needed = not self._stopped and self.core.snapshot_taken(meta)
        self._schedule()
        return needed

    def snapshot_received(
        self, sender: Hello, request: InstallSnapshotRequest, frame: bytes, meta: SnapshotMeta
    ) -> bool:
        """The file that `request` announced is complete, verified and durable; `frame` is the request as bytes.

        False: it is not needed.
        """
        if self._stopped:
            return False
        self._advance_clock()
        identity = f"{sender.node_name}/{sender.incarnation}/{request.sequence}"
        needed = self.core.snapshot_received(sender.node_name, request, identity, self._checksum(frame), meta)
        self._schedule()
        return needed

    def snapshot_sent(self, peer: str, ok: bool) -> None:
        """A transfer to `peer` is over."""
        self._advance_clock()
        self.core.snapshot_sent(peer, ok)
        self._schedule()

    def restored(self, store: Store, index: int, state_digest: str) -> None:
        """`store` is the state machine as the snapshot up to `index` holds it."""
        self.store, self.applied = store, index
        self._waiting.replaced(index)
        self._advance_clock()
        self.core.snapshot_restored(index, state_digest)
        self._pump()
        self.replaced()
        self._changes.notify()

    # --- time ---------------------------------------------------------------------------------------------------------

    def _advance_clock(self) -> None:
        self.core.advance_clock(self._clock.monotonic_ns())

    def _on_timer(self) -> None:
        if self._stopped:
            return
        now = self._clock.monotonic_ns()
        self.core.advance_clock(now)
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
            self._advance_clock()
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
        if self._arrived and not self._gathering():
            self._advance_clock()
            self._propose_arrived()
        while self.core.has_ready():
            self._carry_out(self.core.ready())
        self._disk.start()

    def _gathering(self) -> bool:
        """Whether what has arrived waits for more to come: until the batch before it is committed, if that is soon and
        these are not many (Nagle's algorithm, RFC 896). A batch costs every server a message, a sync and a few
        wake-ups, however large it is.
        """
        core = self.core
        # In the term in which it was proposed the batch is either committed, or this server leads no more.
        term, last, since_ns = self._proposed
        under_way = core.commit_index < last and core.term == term and core.role is Role.LEADER
        in_time = under_way and self._clock.monotonic_ns() - since_ns < GATHERING_NS
        return in_time and len(self._arrived) < GATHERED_MAX

    def _propose_arrived(self) -> None:
        arrived = [proposal for proposal, _ in self._arrived]
        payloads = [payload for _, payload in self._arrived]
        self._arrived = []
        try:
            first, term = self.core.propose(payloads)
        except Refused as refused:
            for proposal in arrived:
                fail(proposal.answered, refused)
            return
        self._proposed = term, first + len(arrived) - 1, self._clock.monotonic_ns()
        self._waiting.proposed(arrived, first, term)
        self._measures.proposed(len(arrived), first + len(arrived) - 1)
        if self._tracer is not None:
            self._untraced.extend((proposal.request, index, term) for index, proposal in enumerate(arrived, first))

    def _carry_out(self, ready: Ready) -> None:
        frames = [encode(message) for _, message in ready.messages]
        offers = [encode(request) for _, request in ready.snapshots]
        if self._tracer is not None and ready.events:
            self._tracer.events(ready.events, [self._checksum(frame) for frame in (*frames, *offers)])
            self._tracer.proposals(self._untraced)
            self._untraced.clear()
            self._flush(self._tracer)
        if ready.write is not None:
            self._disk.add(ready.write)
        for (to, _), frame in zip(ready.messages, frames, strict=True):
            self._peers.send(to, frame)
        for (to, request), offer in zip(ready.snapshots, offers, strict=True):
            assert self._sender is not None, "a server without snapshots has none to send"
            self._sender.send(to, request, offer)
        if ready.restore is not None:
            assert self.snapshots is not None, "a server without snapshots is never asked to restore one"
            self.snapshots.restore(ready.restore)
        answers = self._apply(ready.committed) if ready.committed else []
        for confirmed in ready.reads:
            read = self._waiting.confirmed(confirmed.id)
            answer = answer_query(self.store, read.query)
            answers.append((read.answered, answer))
            if self._tracer is not None:
                self._trace_read(confirmed.id, read.consistency, read.query, answer, confirmed.id)
        if self._tracer is not None:
            self._flush(self._tracer)
        for pending, result in answers:
            if not pending.done():
                pending.set_result(result)
        self._report(ready)

    def _report(self, ready: Ready) -> None:
        for failed in ready.failed_reads:
            self._waiting.read_failed(failed.id, self.core.leader_id)
        for lost in ready.lost:
            self._waiting.lost(lost)
        for change in ready.role_changes:
            self._log_change(change)
        for outcome in ready.transfers_failed:
            self._log.warn("leadership was not transferred", to=outcome.to, why=outcome.reason)
            refused = DefiniteError(f"leadership was not transferred to {outcome.to}: {outcome.reason}")
            self._waiting.handed_over(refused)
        if ready.role_changes or ready.committed:
            self._changes.notify()

    def _apply(self, committed: Sequence[Entry]) -> list[tuple[Pending[Any], Any]]:
        answers: list[tuple[Pending[Any], Any]] = []
        apply, leader_id, expected = self.store.apply, self.core.leader_id, self._waiting.expects_entries
        try:
            for entry in committed:
                result = apply(decode_command(entry.payload), entry.index) if entry.kind == COMMAND else True
                self.applied = entry.index
                waiting = self._waiting.applied(entry, leader_id) if expected else None
                if waiting is None:
                    continue
                if isinstance(waiting, Reconfiguration):
                    answers.append((waiting.answered, entry.index))
                    continue
                answers.append((waiting.answered, result))
                if self._tracer is not None:
                    query = describe_write(waiting.command)
                    self._tracer.answer(waiting.request, "write", query, self.applied, result, index=entry.index)
        except UnknownCommand as error:
            self.fail(f"cannot apply entry {self.applied + 1}: {error}")
        self._measures.applied(self.applied)
        return answers

    def _flush(self, tracer: Tracer) -> None:
        try:
            tracer.flush()
        except OSError as error:
            self.fail(f"the trace cannot be written: {error.strerror}: make space, or start without -trace")

    def _trace_read(
        self, number: str, consistency: Consistency, query: Query, answer: Answer, read: str | None = None
    ) -> None:
        assert self._tracer is not None
        more = {} if read is None else {"read": read}
        described = describe_query(query)
        request = self._tracer.identity(number)
        self._tracer.answer(request, consistency.value, described, self.applied, recorded_answer(answer), **more)

    def _log_change(self, change: RoleChange) -> None:
        names = {Role.LEADER: "election won", Role.CANDIDATE: "starting election", Role.FOLLOWER: "following"}
        stepped_down = self._role is Role.LEADER and change.role is Role.FOLLOWER
        message = "stepping down" if stepped_down else names[change.role]
        self._role = change.role
        self._measures.changed(change.role, stepped_down)
        if stepped_down:
            self.stepped_down()
            self._waiting.handed_over()
        self._log.info(message, term=change.term, leader=change.leader_id, why=change.why)

    # --- disk ---------------------------------------------------------------------------------------------------------

    def _disk_took(self, elapsed_ns: int) -> None:
        self._measures.written(elapsed_ns, self.core.role)

    def _written(self, writes: list[DiskWrite]) -> None:
        """The disk holds these writes, and all before them."""
        self._advance_clock()
        self.core.persisted(writes[-1].number)
        self._pump()
        markers = [record for write in writes for record in write.records if isinstance(record, SnapshotMarker)]
        if markers and self.snapshots is not None:
            self.snapshots.marked(markers[-1], self._disk_log.remove_forgotten)

    def fail(self, reason: str) -> None:
        """End the process before anything else is acknowledged: the disk or the log can no longer be believed."""
        self._stopped = True
        self._disk.stop()
        self._log.error("fatal", error=reason)
        self._runtime.host.exit_now(1)
        raise SystemExit(1)


def _unheard() -> None:
    """Nobody listens."""
