"""The way of a request that reaches a server, from its HTTP users or from other agents: it is served here, forwarded to
the leader, or held and tried again.

What was forwarded is neither held nor forwarded again: its receiver leads or refuses, and whoever forwarded it goes on.
Before the cluster has formed there is no leader either: requests are held. Source: Consul, `ForwardRPC`, "Consistency
modes".

It must not serve anything itself: `serving` does, by calls from here; nothing calls back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import msgspec

from impl.agent.config.validated import Address
from impl.agent.membership.discovery import Discovery
from impl.agent.membership.operations import AskConfiguration, Operate, Operation, RaftConfiguration
from impl.agent.requests import forwarding, methods
from impl.agent.requests.api import ArchiveStream, ArchiveUpload, Consistency, ReadOptions, ReadReply
from impl.agent.requests.changes import Changes
from impl.agent.requests.forwarding import T
from impl.agent.requests.methods import Call, Method
from impl.agent.requests.pool import Pool
from impl.agent.requests.protocol import Announcement, KvRead, KvWrite, RenewSession, ServerInfo, Status
from impl.agent.requests.serving import Serving
from impl.agent.snapshots.archive_calls import OpenArchive, opened_archive, opened_upload
from impl.catalog.commands import Write
from impl.catalog.queries import Query
from impl.catalog.rows import Session
from impl.catalog.transitions import Result
from impl.raft.ready import Role
from impl.rpc.errors import RpcError
from impl.runtime.interfaces import Runtime, new_uuid

Asked = TypeVar("Asked", KvWrite, RenewSession, Announcement, Operate, AskConfiguration)


class Requests:
    """The `Agent` of a server. Each request comes in two ways: as its users ask, and as other agents do (`serve_...`).

    All methods raise AgentError.
    """

    def __init__(
        self,
        runtime: Runtime,
        hold_ns: int,
        discovery: Discovery,
        pool: Pool,
        changes: Changes,
        here: Serving,
        *,
        describe: Callable[[], dict[str, Any]],
        leave: Callable[[], Awaitable[None]],
        join: Callable[[Address], Awaitable[None]],
    ) -> None:
        """`hold_ns`: `rpc_hold_timeout`. `here` serves what this server can. `changes` is notified when an attempt may
        end differently. `describe` makes the document of `/v1/agent/self`; `leave` and `join` are the `Agent`'s.
        """
        self._runtime = runtime
        self._hold_ns = hold_ns
        self._discovery = discovery
        self._pool = pool
        self._changes = changes
        self._here = here
        self.describe = describe
        self._leave = leave
        self._join = join

    # --- as asked by users --------------------------------------------------------------------------------------------

    async def write(self, command: Write) -> Result:
        """As `Agent.write`."""
        return await self.serve_write(KvWrite(command, self._here.next_request(), forwarded=False))

    async def write_leading(self, command: Write) -> Result:
        """Write as the leader or not at all: what this server's clock decided no other leader may carry out."""
        return await self.serve_write(KvWrite(command, self._here.next_request(), forwarded=True))

    async def read(self, query: Query, options: ReadOptions) -> ReadReply:
        """As `Agent.read`."""
        if options.consistency is Consistency.STALE and self._here.may_serve_stale():
            return await self._here.read_stale(query, options)
        started, now = self._runtime.clock.monotonic_ns(), self._runtime.clock.monotonic_ns

        async def attempt() -> ReadReply:
            left = forwarding.still_blocked(options, now() - started)
            request, blocked_ns = KvRead(query, left, forwarded=True), forwarding.blocked_ns_max(left)
            return await self._attempt(
                lambda: self._here.read(query, left),
                lambda call: methods.KV_READ.ask(call, request, blocked_ns),
                is_write=methods.KV_READ.is_write,
            )

        return await self._hold(attempt, forwarding.blocked_ns_max(options))

    async def renew_session(self, session_id: str) -> Session | None:
        """As `Agent.renew_session`."""
        return await self.serve_renewal(RenewSession(session_id, forwarded=False))

    def cluster_size(self) -> int:
        """As `Agent.cluster_size`."""
        return self._here.cluster_size()

    def new_id(self) -> str:
        """As `Agent.new_id`."""
        return new_uuid(self._runtime.random)

    async def operate(self, operation: Operation) -> int:
        """As `Agent.operate`."""
        return await self.serve_operate(Operate(operation, forwarded=False))

    async def raft_configuration(self, stale: bool) -> RaftConfiguration:
        """As `Agent.raft_configuration`."""
        return await self.serve_configuration(AskConfiguration(stale, forwarded=False))

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

    async def status_leader(self) -> str:
        """As `Agent.status_leader`."""
        return self.status().leader

    async def status_peers(self) -> list[str]:
        """As `Agent.status_peers`."""
        return list(self.status().peers)

    # --- as asked by other agents -------------------------------------------------------------------------------------

    async def serve_write(self, request: KvWrite) -> Result:
        """A write."""
        return await self._serve(lambda: self._here.write(request), methods.KV_WRITE, request)

    async def serve_read(self, request: KvRead) -> ReadReply:
        """A read."""
        if not request.forwarded:
            return await self.read(request.query, request.options)
        return await forwarding.once(lambda: self._here.read(request.query, request.options))

    async def serve_renewal(self, request: RenewSession) -> Session | None:
        """A renewal of a session."""
        return await self._serve(lambda: self._here.renew(request.session_id), methods.SESSION_RENEW, request)

    async def serve_announcement(self, announcement: Announcement) -> int:
        """A client agent lives, or leaves; the number of registered nodes."""
        return await self._serve(lambda: self._here.hear(announcement), methods.ANNOUNCE, announcement)

    async def serve_operate(self, request: Operate) -> int:
        """A change of the cluster."""
        return await self._serve(lambda: self._here.operate(request.operation), methods.OPERATE, request)

    async def serve_configuration(self, request: AskConfiguration) -> RaftConfiguration:
        """The configuration."""
        if request.stale and not request.forwarded and self._here.driver is not None:
            return self._here.known_configuration()
        return await self._serve(self._here.configuration, methods.RAFT_CONFIGURATION, request)

    async def open_archive(self, request: OpenArchive) -> ArchiveStream:
        """An archive of the state."""
        if request.stale and self._here.may_serve_stale():
            return await self._here.save_stale()
        led = OpenArchive(stale=False, forwarded=True)
        return await self._route(
            self._here.save,
            lambda call: opened_archive(self._runtime, call, led),
            forwarded=request.forwarded,
            is_write=False,
        )

    async def open_upload(self, *, forwarded: bool) -> ArchiveUpload:
        """An archive that somebody wants to restore."""
        return await self._route(
            self._here.receive,
            lambda call: opened_upload(self._runtime, call, forwarded=True),
            forwarded=forwarded,
            is_write=False,
        )

    def status(self) -> Status:
        """What this server knows of the cluster, without asking anybody."""
        return self._here.status()

    # --- the way ------------------------------------------------------------------------------------------------------

    async def _serve(self, here: Callable[[], Awaitable[T]], method: Method[T], request: Asked) -> T:
        """`here` serves the request on this server, `method` at the leader."""
        return await self._route(
            here,
            lambda call: method.ask(call, msgspec.structs.replace(request, forwarded=True)),
            forwarded=request.forwarded,
            is_write=method.is_write,
        )

    async def _route(
        self,
        here: Callable[[], Awaitable[T]],
        there: Callable[[Call], Awaitable[T]],
        *,
        forwarded: bool,
        is_write: bool,
    ) -> T:
        """What was `forwarded` now and `here` or not at all; anything else when and where it can be served."""
        if forwarded:
            return await forwarding.once(here)
        return await self._hold(lambda: self._attempt(here, there, is_write=is_write))

    async def _hold(self, attempt: Callable[[], Awaitable[T]], blocked_ns: int = 0) -> T:
        return await forwarding.hold(self._runtime, self._hold_ns, attempt, self._changes, blocked_ns)

    async def _attempt(
        self, here: Callable[[], Awaitable[T]], there: Callable[[Call], Awaitable[T]], *, is_write: bool
    ) -> T:
        """One attempt: `there` if another server is known to lead, else `here`. Raises Retriable or AgentError."""
        self._here.refuse_if_out()
        leader = self._remote_leader()
        if leader is None:
            return await here()
        try:
            return await there(partial(self._pool.call, leader.address))
        except RpcError as error:
            raise forwarding.judge(error, is_write=is_write) from error

    def _remote_leader(self) -> ServerInfo | None:
        """The leader to forward to; None if it is this server, or to be held because none is known."""
        driver = self._here.driver
        if driver is None or driver.core.role is Role.LEADER or driver.core.leader_id is None:
            return None
        return self._discovery.known.get(driver.core.leader_id)
