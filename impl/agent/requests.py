"""The requests that reach a server, from its HTTP users and from other agents: served here, or forwarded to the leader.

Before the cluster has formed there is no leader either: requests are held. Source: Consul, `ForwardRPC`, "Consistency
modes", "Blocking queries".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec

from impl.agent import forwarding
from impl.agent.api import (
    Answered,
    ArchiveStream,
    ArchiveUpload,
    Consistency,
    DefiniteError,
    NoClusterLeader,
    ReadOptions,
    ReadReply,
)
from impl.agent.archive_calls import OpenArchive, opened_archive, opened_upload
from impl.agent.archives import Archives, LocalArchive
from impl.agent.begun import BegunRead, BegunWrite
from impl.agent.changes import Changes, Watches
from impl.agent.config import Address, Config
from impl.agent.discovery import Discovery
from impl.agent.driver import Driver
from impl.agent.forwarding import Retriable
from impl.agent.measures import RequestMeasures
from impl.agent.members import Members
from impl.agent.operations import AskConfiguration, ForceLeave, Operate, Operation, RaftConfiguration, RemovePeer
from impl.agent.pool import Pool
from impl.agent.protocol import (
    ANNOUNCE,
    KV_READ,
    KV_WRITE,
    NOT_READY,
    OPERATE,
    RAFT_CONFIGURATION,
    SESSION_RENEW,
    Announcement,
    KvRead,
    KvWrite,
    RenewSession,
    ServerInfo,
    Status,
    decode_answer,
    encode,
)
from impl.agent.reconcile import Reconciler
from impl.agent.reconfiguration import Reconfiguration
from impl.agent.restoring import LocalUpload, Restoring
from impl.agent.session_ends import PLAIN, SessionEnds, acquired
from impl.agent.session_keeper import SessionKeeper
from impl.agent.waiting import SHUTTING_DOWN
from impl.catalog.commands import Write
from impl.catalog.queries import KvGet, Query, watched
from impl.catalog.registry_queries import GetSession, SessionsAnswer
from impl.catalog.rows import Session
from impl.catalog.transitions import Result
from impl.raft.errors import NotLeader, NotReady, Refused
from impl.raft.ready import Role
from impl.rpc.errors import RpcError
from impl.runtime.interfaces import MILLISECONDS, NANOSECONDS, Future, Runtime, new_uuid
from impl.telemetry.instruments import Telemetry

_result_decoder: msgspec.msgpack.Decoder[Result] = msgspec.msgpack.Decoder(Result)
_session_decoder: msgspec.msgpack.Decoder[Session | None] = msgspec.msgpack.Decoder(Session | None)
_read_decoder: msgspec.msgpack.Decoder[ReadReply] = msgspec.msgpack.Decoder(ReadReply)
_int_decoder: msgspec.msgpack.Decoder[int] = msgspec.msgpack.Decoder(int)
_configuration_decoder: msgspec.msgpack.Decoder[RaftConfiguration] = msgspec.msgpack.Decoder(RaftConfiguration)


SETTLE_NS_MAX = 1_000 * MILLISECONDS
"""How long an acquire or a renewal waits here for the end of a session that is on its way, before it is tried again."""


class Requests:
    """The `Agent` of a server: serves what it can itself and forwards the rest to the leader."""

    def __init__(
        self,
        runtime: Runtime,
        config: Config,
        discovery: Discovery,
        pool: Pool,
        watches: Watches,
        changes: Changes,
        members: Members,
        reconfiguration: Reconfiguration,
        sessions: SessionKeeper,
        reconciler: Reconciler,
        incarnation: int,
        *,
        archives: Archives,
        restoring: Restoring,
        describe: Callable[[], dict[str, Any]],
        leave: Callable[[], Awaitable[None]],
        join: Callable[[Address], Awaitable[None]],
        measures: RequestMeasures | None = None,
    ) -> None:
        """`changes` is notified when leadership, or what the driver has applied, changes. `describe` makes the document
        of `/v1/agent/self`; `leave` and `join` are the `Agent`'s.
        """
        self._measures = measures or RequestMeasures(Telemetry(runtime.clock))
        self.describe = describe
        self._leave = leave
        self._join = join
        self._origin = f"{config.node_name}/{incarnation}/r"
        self._writes = 0
        self.driver: Driver | None = None
        """Set once the cluster has formed."""
        self._runtime = runtime
        self._config = config
        self._discovery = discovery
        self._pool = pool
        self._watches = watches
        self.changes = changes
        self._members = members
        self._reconfiguration = reconfiguration
        self._sessions = sessions
        self._reconciler = reconciler
        self._ends = SessionEnds(changes.notify)
        self._archives = archives
        self._restoring = restoring
        self._stopped = False
        self._hold_ns = int(config.rpc_hold_timeout * NANOSECONDS)

    def formed(self, driver: Driver) -> None:
        """The cluster has formed: serve."""
        self.driver = driver
        driver.stepped_down = self._watches.wake_all
        driver.replaced = self._watches.abandon
        self.changes.notify()

    def stop(self) -> None:
        """Refuse what is held and what comes."""
        self._stopped = True
        self.changes.notify()
        self._watches.wake_all()

    # --- as asked by clients ------------------------------------------------------------------------------------------

    async def write(self, command: Write) -> Result:
        """As `Agent.write`."""
        return await self._write_held(KvWrite(command, self._next_request(), forwarded=True))

    def _next_request(self) -> str:
        self._writes += 1
        return f"{self._origin}{self._writes}"

    async def write_leading(self, command: Write) -> Result:
        """Write as the leader or not at all: what this server's clock decided no other leader may carry out.

        Raises AgentError.
        """
        return await self.serve_write(KvWrite(command, self._next_request(), forwarded=True))

    async def _write_held(self, request: KvWrite) -> Result:
        return await self._hold(lambda: self._write_once(request))

    async def read(self, query: Query, options: ReadOptions) -> ReadReply:
        """As `Agent.read`."""
        if options.consistency is Consistency.STALE and self._may_serve_stale():
            return await self._blocking(query, options, self._read_stale)
        started, now = self._runtime.clock.monotonic_ns(), self._runtime.clock.monotonic_ns

        async def attempt() -> ReadReply:
            return await self._read_once(query, forwarding.still_blocked(options, now() - started))

        return await self._hold(attempt, forwarding.blocked_ns_max(options))

    def begin_write(self, command: Write, answered: Answered[Result]) -> bool:
        """As `write`, without a task, if this server leads; `answered` is told how it ended. False: not now, use
        `write`.
        """
        driver = self.driver
        if driver is None or type(command) not in PLAIN or not self._leads(driver):
            return False
        now_ns = self._runtime.clock.monotonic_ns
        started_ns = now_ns()

        def measure() -> None:
            self._measures.written(command, now_ns() - started_ns)

        write = KvWrite(command, self._next_request(), forwarded=True)
        again = partial(self._write_held, write)
        driver.begin_write(command, write.request, BegunWrite(self._runtime, answered, again, measure))
        return True

    def begin_read(self, query: Query, consistency: Consistency, answered: Answered[ReadReply]) -> bool:
        """As `read`, likewise, of a query that does not wait for a change, and is not `stale`."""
        driver = self.driver
        if driver is None or not self._leads(driver):
            return False
        again = partial(self.read, query, ReadOptions(consistency))
        try:
            driver.begin_read(query, consistency, BegunRead(self._runtime, answered, again, self._count_query))
        except Refused:
            return False
        return True

    def _count_query(self) -> None:
        self._measures.queries.total += 1

    def _leads(self, driver: Driver) -> bool:
        """Whether this server may begin what only a leader can do."""
        return driver.core.role is Role.LEADER and not self._stopped and self._members.named

    async def renew_session(self, session_id: str) -> Session | None:
        """As `Agent.renew_session`."""
        return await self._hold(lambda: self._renew_once(session_id))

    def cluster_size(self) -> int:
        """As `Agent.cluster_size`."""
        return max(len(self.driver.store.tables.nodes), 1) if self.driver is not None else 1

    def new_id(self) -> str:
        """As `Agent.new_id`."""
        return new_uuid(self._runtime.random)

    async def operate(self, operation: Operation) -> int:
        """As `Agent.operate`."""
        return await self._hold(lambda: self._operate_once(operation))

    async def raft_configuration(self, stale: bool) -> RaftConfiguration:
        """As `Agent.raft_configuration`."""
        if stale and self.driver is not None:
            return self._members.describe()
        return await self._hold(self._configuration_once)

    async def leave(self) -> None:
        """As `Agent.leave`."""
        await self._leave()

    async def save_archive(self, stale: bool) -> ArchiveStream:
        """As `Agent.save_archive`."""
        return await self.open_archive(OpenArchive(stale, forwarded=False))

    async def upload_archive(self) -> ArchiveUpload:
        """As `Agent.upload_archive`."""
        return await self.open_upload(forwarded=False)

    async def join(self, address: Address) -> None:
        """As `Agent.join`."""
        await self._join(address)

    # --- as asked by other agents -------------------------------------------------------------------------------------

    async def serve_write(self, request: KvWrite) -> Result:
        """A write of another agent. A forwarded one is not forwarded again: the receiver leads or refuses."""
        if not request.forwarded:
            return await self._write_held(KvWrite(request.command, request.request, forwarded=True))
        try:
            return await self._write_here(request)
        except Retriable as retriable:
            raise retriable.final from retriable

    async def serve_read(self, request: KvRead) -> ReadReply:
        """A read of another agent, under the same rule."""
        if not request.forwarded:
            return await self.read(request.query, request.options)
        try:
            return await self._blocking(request.query, request.options, self._read_here)
        except Retriable as retriable:
            raise retriable.final from retriable

    async def serve_renewal(self, request: RenewSession) -> Session | None:
        """A renewal that another agent asks for, under the same rule."""
        if not request.forwarded:
            return await self.renew_session(request.session_id)
        try:
            return await self._renew_here(request.session_id)
        except Retriable as retriable:
            raise retriable.final from retriable

    async def serve_announcement(self, announcement: Announcement) -> int:
        """A client agent lives, or leaves; the number of registered nodes."""
        if not announcement.forwarded:
            return await self._hold(lambda: self._announce_once(announcement))
        try:
            return self._announce_here(announcement)
        except Retriable as retriable:
            raise retriable.final from retriable

    async def serve_operate(self, request: Operate) -> int:
        """A change of the cluster that another agent asks for, under the same rule."""
        if not request.forwarded:
            return await self.operate(request.operation)
        self._refuse_if_out()
        try:
            return await self._operate_here(request.operation)
        except Retriable as retriable:
            raise retriable.final from retriable

    async def serve_configuration(self, request: AskConfiguration) -> RaftConfiguration:
        """The configuration, for another agent."""
        if not request.forwarded:
            return await self.raft_configuration(request.stale)
        try:
            return self._configuration_here()
        except Retriable as retriable:
            raise retriable.final from retriable

    async def open_archive(self, request: OpenArchive) -> ArchiveStream:
        """An archive for a user or for another agent, under the same rule."""
        if request.stale and self._may_serve_stale():
            self._refuse_if_stopped()
            return await self._archive_here()
        if not request.forwarded:
            return await self._hold(self._archive_once)
        try:
            return await self._archive_led()
        except Retriable as retriable:
            raise retriable.final from retriable

    async def open_upload(self, *, forwarded: bool) -> ArchiveUpload:
        """An archive that a user or another agent wants to restore, under the same rule."""
        if not forwarded:
            return await self._hold(self._upload_once)
        try:
            return await self._upload_here()
        except Retriable as retriable:
            raise retriable.final from retriable

    async def status_leader(self) -> str:
        """As `Agent.status_leader`."""
        return self.status().leader

    async def status_peers(self) -> list[str]:
        """As `Agent.status_peers`."""
        return list(self.status().peers)

    def status(self) -> Status:
        """What this server knows of the cluster, without asking anybody."""
        leader = self.driver.core.leader_id if self.driver is not None else None
        return Status(self._members.address_of(leader) if leader else "", self._members.addresses())

    # --- one attempt --------------------------------------------------------------------------------------------------

    async def _hold(self, attempt: Callable[[], Awaitable[forwarding.T]], blocked_ns: int = 0) -> forwarding.T:
        return await forwarding.hold(self._runtime, self._hold_ns, attempt, self.changes, blocked_ns)

    async def _write_once(self, request: KvWrite) -> Result:
        self._refuse_if_out()
        leader = self._remote_leader()
        if leader is None:
            return await self._write_here(request)
        return decode_answer(_result_decoder, await self._ask(leader, KV_WRITE, encode(request), is_write=True))

    async def _renew_once(self, session_id: str) -> Session | None:
        self._refuse_if_out()
        leader = self._remote_leader()
        if leader is None:
            return await self._renew_here(session_id)
        body = encode(RenewSession(session_id, forwarded=True))
        # A renewal that was lost may be repeated: it only gives time.
        return decode_answer(_session_decoder, await self._ask(leader, SESSION_RENEW, body, is_write=False))

    async def _renew_here(self, session_id: str) -> Session | None:
        """Renew as the leader, or raise Retriable. Whether the session lives is a linearizable question: a leader that
        has not applied everything yet does not know it, and one that was replaced would renew what nobody times any
        more. One whose end is on its way cannot be renewed.
        """
        driver = self._leading()
        reply = await self._read_here(GetSession(session_id), ReadOptions())
        assert isinstance(reply.answer, SessionsAnswer)
        if not reply.answer.sessions:
            return None
        session = driver.store.tables.sessions.get(session_id)
        if session is None:
            return None
        if self._ends.is_ending(session_id):
            await self._until(lambda: not self._ends.is_ending(session_id))
            return await self._renew_here(session_id)
        self._sessions.renew(session)
        return session

    async def _announce_once(self, announcement: Announcement) -> int:
        self._refuse_if_out()
        leader = self._remote_leader()
        if leader is None:
            return self._announce_here(announcement)
        body = encode(msgspec.structs.replace(announcement, forwarded=True))
        # What was heard twice is no more than heard.
        return decode_answer(_int_decoder, await self._ask(leader, ANNOUNCE, body, is_write=False))

    def _announce_here(self, announcement: Announcement) -> int:
        """Hear it as the leader, or raise Retriable."""
        self._leading()
        self._reconciler.heard(announcement)
        return self.cluster_size()

    async def _operate_once(self, operation: Operation) -> int:
        self._refuse_if_out()
        leader = self._remote_leader()
        if leader is None:
            return await self._operate_here(operation)
        body = encode(Operate(operation, forwarded=True))
        return decode_answer(_int_decoder, await self._ask(leader, OPERATE, body, is_write=True))

    async def _operate_here(self, operation: Operation) -> int:
        """Carry it out as the leader, or raise Retriable."""
        if not isinstance(operation, ForceLeave):
            return await self._reconfiguration.execute(operation)
        configuration = self._leading().core.configuration
        is_server = configuration.member(operation.node) is not None
        self._reconciler.force_leave(operation.node, is_server)
        if is_server:
            return await self._reconfiguration.execute(RemovePeer(id=operation.node))
        return configuration.index

    async def _configuration_once(self) -> RaftConfiguration:
        self._refuse_if_out()
        leader = self._remote_leader()
        if leader is None:
            return self._configuration_here()
        body = encode(AskConfiguration(stale=False, forwarded=True))
        reply = await self._ask(leader, RAFT_CONFIGURATION, body, is_write=False)
        return decode_answer(_configuration_decoder, reply)

    def _configuration_here(self) -> RaftConfiguration:
        """The leader's, or raise Retriable."""
        self._leading()
        return self._members.describe()

    async def _archive_once(self) -> ArchiveStream:
        self._refuse_if_out()
        leader = self._remote_leader()
        if leader is None:
            return await self._archive_led()
        try:
            call = partial(self._pool.call, leader.address)
            return await opened_archive(self._runtime, call, OpenArchive(stale=False, forwarded=True))
        except RpcError as error:
            raise forwarding.judge(error, is_write=False) from error

    async def _archive_led(self) -> LocalArchive:
        """An archive of all that was acknowledged, as the leader, or raise Retriable."""
        await self._read_here(KvGet(""), ReadOptions())
        return await self._archive_here()

    async def _archive_here(self) -> LocalArchive:
        """An archive of what this server has applied."""
        driver, genesis = self.driver, self._discovery.genesis
        assert driver is not None and genesis is not None, "checked before"
        archive = await self._archives.save(driver, genesis.cluster_id)
        archive.known_leader = driver.core.leader_id is not None
        archive.last_contact_ms = self.last_contact_ms()
        return archive

    async def _upload_once(self) -> ArchiveUpload:
        self._refuse_if_out()
        leader = self._remote_leader()
        if leader is None:
            return await self._upload_here()
        try:
            return await opened_upload(self._runtime, partial(self._pool.call, leader.address), forwarded=True)
        except RpcError as error:
            raise forwarding.judge(error, is_write=False) from error

    async def _upload_here(self) -> LocalUpload:
        """Receive an archive as the leader, or raise Retriable."""
        self._refuse_if_out()
        self._leading()
        return LocalUpload(await self._archives.receive(), self._restoring, self.propose)

    def propose(self, command: Write) -> Future[Result]:
        """Append a command as the leader; nothing is held or tried again. As `Driver.propose`."""
        driver = self.driver
        if driver is None or self._stopped:
            raise NotLeader(None)
        return driver.propose(command, self._next_request())

    async def _ask(self, leader: ServerInfo, method: str, body: bytes, *, is_write: bool, blocked_ns: int = 0) -> bytes:
        """The leader's answer to a forwarded request. Raises Retriable or AgentError."""
        try:
            return await self._pool.call(leader.address, method, body, forwarding.CALL_TIMEOUT_NS + blocked_ns)
        except RpcError as error:
            raise forwarding.judge(error, is_write=is_write) from error

    async def _write_here(self, request: KvWrite) -> Result:
        self._refuse_if_out()
        if self.driver is None:
            raise Retriable(NoClusterLeader())
        if type(request.command) in PLAIN:
            return await self._propose(self.driver, request)
        driver, command = self.driver, request.command
        if acquired(command):
            await self._until(lambda: self._is_settled(driver, command))
        # From here to the proposal nothing else runs: what is refused and what is proposed follow from one state.
        if (refusal := self._sessions.refusal(command)) is not None:
            return refusal
        with self._ends.proposing(driver.store.tables, command):
            return await self._propose(driver, request)

    def _is_settled(self, driver: Driver, command: Write) -> bool:
        """Whether it is known who has lost the locks that a command wants; who does not lead need not know."""
        if driver.core.role is not Role.LEADER:
            return True
        return driver.core.has_applied_own_term and not self._ends.concern(driver.store.tables, command)

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that this server will know when it has applied what it proposed. Raises Retriable."""
        deadline = self._runtime.clock.monotonic_ns() + SETTLE_NS_MAX
        while not condition():
            remaining = deadline - self._runtime.clock.monotonic_ns()
            if remaining <= 0:
                raise Retriable(DefiniteError(NOT_READY))
            await self.changes.wait(remaining)

    async def _propose(self, driver: Driver, request: KvWrite) -> Result:
        now_ns = self._runtime.clock.monotonic_ns
        started_ns = now_ns()
        try:
            result = await driver.propose(request.command, request.request)
        except (NotLeader, NotReady) as error:  # NotReady: it hands its leadership over
            raise Retriable(NoClusterLeader()) from error
        except Refused as error:
            raise DefiniteError(f"rpc error: {error}") from error
        self._measures.written(request.command, now_ns() - started_ns)
        return result

    async def _read_once(self, query: Query, options: ReadOptions) -> ReadReply:
        self._refuse_if_out()
        leader = self._remote_leader()
        if leader is None:
            return await self._blocking(query, options, self._read_here)
        body = encode(KvRead(query, options, forwarded=True))
        blocked_ns = forwarding.blocked_ns_max(options)
        reply = await self._ask(leader, KV_READ, body, is_write=False, blocked_ns=blocked_ns)
        return decode_answer(_read_decoder, reply)

    async def _read_here(self, query: Query, options: ReadOptions) -> ReadReply:
        """Answer as the leader, or raise Retriable."""
        self._refuse_if_out()
        driver = self._leading()
        try:
            answer = await driver.read(query, options.consistency)
        except NotReady as error:
            raise Retriable(DefiniteError(NOT_READY)) from error
        except NotLeader as error:
            raise Retriable(NoClusterLeader()) from error
        except Refused as error:
            raise DefiniteError(f"rpc error: {error}") from error
        self._measures.queries.total += 1
        return ReadReply(answer, known_leader=True, last_contact_ms=0)

    async def _read_stale(self, query: Query, options: ReadOptions) -> ReadReply:
        """Answer from what this server has applied, whatever its role."""
        self._refuse_if_stopped()
        driver = self.driver
        assert driver is not None, "checked before"
        answer = driver.read_local(query, Consistency.STALE)
        self._measures.queries.total += 1
        return ReadReply(answer, driver.core.leader_id is not None, self.last_contact_ms())

    async def _blocking(
        self, query: Query, options: ReadOptions, read: Callable[[Query, ReadOptions], Awaitable[ReadReply]]
    ) -> ReadReply:
        """Read; while the answer's index is not greater than the one given, wait for a change and read again."""
        if not options.min_index:
            return await read(query, options)
        wait_ns = int(options.wait * NANOSECONDS)
        wait_ns += int(wait_ns * self._runtime.random.random() / forwarding.JITTER_FRACTION)
        deadline = self._runtime.clock.monotonic_ns() + wait_ns
        restores = self._watches.restores
        while True:
            remaining = max(deadline - self._runtime.clock.monotonic_ns(), 0)
            if self.driver is None:
                raise Retriable(NoClusterLeader())
            change = self._watches.next(watched(self.driver.store, query), remaining)
            try:
                reply = await read(query, options)
            except BaseException:
                change.cancel()
                raise
            # After a restore the index may have gone back: its client learns that at once, as Consul's does.
            if remaining == 0 or reply.answer.index > options.min_index or self._watches.restores != restores:
                change.cancel()
                return reply
            await change.wait()

    # --- what it knows ------------------------------------------------------------------------------------------------

    def _refuse_if_stopped(self) -> None:
        if self._stopped:
            raise DefiniteError(SHUTTING_DOWN)

    def _refuse_if_out(self) -> None:
        """A server that is no member finds no leader by waiting: another server may."""
        self._refuse_if_stopped()
        if self.driver is not None and not self._members.named:
            raise NoClusterLeader()

    def _leading(self) -> Driver:
        """The driver, if this server leads, or raise Retriable."""
        driver = self.driver
        if driver is None or driver.core.role is not Role.LEADER:
            raise Retriable(NoClusterLeader())
        return driver

    def _may_serve_stale(self) -> bool:
        """Consul: any server that has heard from a leader, or is one."""
        driver = self.driver
        return driver is not None and (driver.last_contact_ns > 0 or driver.core.role is Role.LEADER)

    def _remote_leader(self) -> ServerInfo | None:
        """The leader to forward to; None if it is this server, or to be held because none is known."""
        driver = self.driver
        if driver is None or driver.core.role is Role.LEADER or driver.core.leader_id is None:
            return None
        return self._discovery.known.get(driver.core.leader_id)

    def last_contact_ms(self) -> int:
        """Milliseconds since a leader was heard; 0 on the leader."""
        driver = self.driver
        if driver is None or driver.core.role is Role.LEADER or not driver.last_contact_ns:
            return 0
        return (self._runtime.clock.monotonic_ns() - driver.last_contact_ns) // MILLISECONDS
