"""What a server does itself with a request that is its to serve: writes and consistent reads as the leader, stale reads
as any server.

As the leader it proposes writes, has reads confirmed, times sessions, hears client agents and changes the cluster. What
depends on a session that is about to end waits until it has (`sessions.ends`). If it does not lead, or cannot serve
yet, it raises `forwarding.Retriable`: the request had no effect.

It must neither forward a request nor hold it until somebody leads: `routing` does, and hands over what is to be served
here. It must not know who asked. Source: Consul, "Consistency modes", "Blocking queries", "Session HTTP API".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from impl.agent.driver import Driver
from impl.agent.measures import RequestMeasures
from impl.agent.membership.discovery import Discovery
from impl.agent.membership.members import Members
from impl.agent.membership.operations import ForceLeave, Operation, RaftConfiguration, RemovePeer
from impl.agent.membership.reconcile import Reconciler
from impl.agent.membership.reconfiguration import Reconfiguration
from impl.agent.requests import forwarding
from impl.agent.requests.api import Consistency, DefiniteError, NoClusterLeader, ReadOptions, ReadReply
from impl.agent.requests.changes import Changes, Watches
from impl.agent.requests.forwarding import Retriable
from impl.agent.requests.protocol import NOT_READY, Announcement, KvWrite, Status
from impl.agent.requests.waiting import SHUTTING_DOWN
from impl.agent.sessions.ends import PLAIN, SessionEnds, acquired
from impl.agent.sessions.keeper import SessionKeeper
from impl.agent.snapshots.archives import Archives, LocalArchive
from impl.agent.snapshots.restoring import LocalUpload, Restoring
from impl.catalog.commands import Write
from impl.catalog.queries import KvGet, Query, watched
from impl.catalog.registry_queries import GetSession, SessionsAnswer
from impl.catalog.rows import Session
from impl.catalog.transitions import Result
from impl.raft.errors import NotLeader, NotReady, Refused
from impl.raft.ready import Role
from impl.runtime.interfaces import MILLISECONDS, NANOSECONDS, Future, Runtime

SETTLE_NS_MAX: Final = 1_000 * MILLISECONDS
"""How long an acquire or a renewal waits here for the end of a session that is on its way, before it is tried again."""


class Serving:
    """One server's own part in serving requests. Without a driver, before the cluster has formed, it serves none."""

    def __init__(
        self,
        runtime: Runtime,
        origin: str,
        discovery: Discovery,
        watches: Watches,
        changes: Changes,
        members: Members,
        *,
        reconfiguration: Reconfiguration,
        sessions: SessionKeeper,
        reconciler: Reconciler,
        archives: Archives,
        restoring: Restoring,
        measures: RequestMeasures,
    ) -> None:
        """`origin` (NODE/INCARNATION) names this process. `changes` is notified when leadership, or what the driver has
        applied, changes.
        """
        self.driver: Driver | None = None
        """Set once the cluster has formed."""
        self._runtime = runtime
        self._origin = f"{origin}/r"
        self._requests = 0
        self._discovery = discovery
        self._watches = watches
        self._changes = changes
        self._members = members
        self._reconfiguration = reconfiguration
        self._sessions = sessions
        self._reconciler = reconciler
        self._ends = SessionEnds(changes.notify)
        self._archives = archives
        self._restoring = restoring
        self._measures = measures
        self._stopped = False

    def formed(self, driver: Driver) -> None:
        """The cluster has formed: serve."""
        self.driver = driver
        driver.stepped_down = self._watches.wake_all
        driver.replaced = self._watches.abandon
        self._changes.notify()

    def stop(self) -> None:
        """Refuse what is held and what comes."""
        self._stopped = True
        self._changes.notify()
        self._watches.wake_all()

    def next_request(self) -> str:
        """An id for a write that a user of this server asks for: NODE/INCARNATION/rN."""
        self._requests += 1
        return f"{self._origin}{self._requests}"

    # --- writes -------------------------------------------------------------------------------------------------------

    async def write(self, request: KvWrite) -> Result:
        """Carry a write out as the leader, or raise Retriable or AgentError."""
        self.refuse_if_out()
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
            await self._changes.wait(remaining)

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

    def propose(self, command: Write) -> Future[Result]:
        """Append a command as the leader; nothing is held or tried again. As `Driver.propose`."""
        driver = self.driver
        if driver is None or self._stopped:
            raise NotLeader(None)
        return driver.propose(command, self.next_request())

    # --- reads --------------------------------------------------------------------------------------------------------

    async def read(self, query: Query, options: ReadOptions) -> ReadReply:
        """Answer as the leader, or raise Retriable or AgentError."""
        return await self._blocking(query, options, self._read)

    async def read_stale(self, query: Query, options: ReadOptions) -> ReadReply:
        """Answer from what this server has applied, whatever its role, if it `may_serve_stale`. Raises AgentError."""
        return await self._blocking(query, options, self._read_stale)

    def may_serve_stale(self) -> bool:
        """Consul: any server that has heard from a leader, or is one."""
        driver = self.driver
        return driver is not None and (driver.last_contact_ns > 0 or driver.core.role is Role.LEADER)

    async def _read(self, query: Query, options: ReadOptions) -> ReadReply:
        self.refuse_if_out()
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

    # --- what else a leader does --------------------------------------------------------------------------------------

    async def renew(self, session_id: str) -> Session | None:
        """Renew as the leader, or raise Retriable. Whether the session lives is a linearizable question: a leader that
        has not applied everything yet does not know it, and one that was replaced would renew what nobody times any
        more. One whose end is on its way cannot be renewed.
        """
        driver = self._leading()
        reply = await self._read(GetSession(session_id), ReadOptions())
        assert isinstance(reply.answer, SessionsAnswer)
        if not reply.answer.sessions:
            return None
        session = driver.store.tables.sessions.get(session_id)
        if session is None:
            return None
        if self._ends.is_ending(session_id):
            await self._until(lambda: not self._ends.is_ending(session_id))
            return await self.renew(session_id)
        self._sessions.renew(session)
        return session

    async def hear(self, announcement: Announcement) -> int:
        """Note as the leader that a client agent lives, or leaves, or raise Retriable. The number of nodes."""
        self._leading()
        self._reconciler.heard(announcement)
        return self.cluster_size()

    async def operate(self, operation: Operation) -> int:
        """Change the cluster as the leader, or raise Retriable or AgentError. As `Agent.operate`."""
        self.refuse_if_out()
        if not isinstance(operation, ForceLeave):
            return await self._reconfiguration.execute(operation)
        configuration = self._leading().core.configuration
        is_server = configuration.member(operation.node) is not None
        self._reconciler.force_leave(operation.node, is_server)
        if is_server:
            return await self._reconfiguration.execute(RemovePeer(id=operation.node))
        return configuration.index

    async def configuration(self) -> RaftConfiguration:
        """The leader's newest configuration, or raise Retriable."""
        self._leading()
        return self.known_configuration()

    async def save(self) -> LocalArchive:
        """An archive of all that was acknowledged, as the leader, or raise Retriable or AgentError."""
        await self._read(KvGet(""), ReadOptions())
        return await self._save()

    async def save_stale(self) -> LocalArchive:
        """An archive of what this server has applied, if it `may_serve_stale`. Raises AgentError."""
        self._refuse_if_stopped()
        return await self._save()

    async def _save(self) -> LocalArchive:
        driver, genesis = self.driver, self._discovery.genesis
        assert driver is not None and genesis is not None, "checked before"
        archive = await self._archives.save(driver, genesis.cluster_id)
        archive.known_leader = driver.core.leader_id is not None
        archive.last_contact_ms = self.last_contact_ms()
        return archive

    async def receive(self) -> LocalUpload:
        """Receive an archive that is to be restored, as the leader, or raise Retriable or AgentError."""
        self.refuse_if_out()
        self._leading()
        return LocalUpload(await self._archives.receive(), self._restoring, self.propose)

    # --- what it knows ------------------------------------------------------------------------------------------------

    def refuse_if_out(self) -> None:
        """A server that is no member finds no leader by waiting: another server may. Raises DefiniteError."""
        self._refuse_if_stopped()
        if self.driver is not None and not self._members.named:
            raise NoClusterLeader()

    def _refuse_if_stopped(self) -> None:
        if self._stopped:
            raise DefiniteError(SHUTTING_DOWN)

    def _leading(self) -> Driver:
        """The driver, if this server leads, or raise Retriable."""
        driver = self.driver
        if driver is None or driver.core.role is not Role.LEADER:
            raise Retriable(NoClusterLeader())
        return driver

    def may_begin(self, driver: Driver) -> bool:
        """Whether this server may begin what only a leader can do."""
        return driver.core.role is Role.LEADER and not self._stopped and self._members.named

    def known_configuration(self) -> RaftConfiguration:
        """The newest configuration that this server knows."""
        return self._members.describe()

    def status(self) -> Status:
        """What this server knows of the cluster, without asking anybody."""
        leader = self.driver.core.leader_id if self.driver is not None else None
        return Status(self._members.address_of(leader) if leader else "", self._members.addresses())

    def cluster_size(self) -> int:
        """As `Agent.cluster_size`."""
        return max(len(self.driver.store.tables.nodes), 1) if self.driver is not None else 1

    def last_contact_ms(self) -> int:
        """Milliseconds since a leader was heard; 0 on the leader."""
        driver = self.driver
        if driver is None or driver.core.role is Role.LEADER or not driver.last_contact_ns:
            return 0
        return (self._runtime.clock.monotonic_ns() - driver.last_contact_ns) // MILLISECONDS
