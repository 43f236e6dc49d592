"""A client agent: no Raft and no data; it forwards what its HTTP users ask to the servers that it is told of.

It learns all servers from those it was told of, stays with one while that one answers, and goes on to the next when a
call fails. Source: Consul, client agents and `agent/router` (a failed server goes to the end of the list).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec

from impl.agent.config.validated import Address, Config
from impl.agent.describe import describe_config, describe_runtime
from impl.agent.logs import Log
from impl.agent.membership.discovery import Discovery, is_same
from impl.agent.membership.introductions import Introductions
from impl.agent.membership.operations import AskConfiguration, Operate, Operation, RaftConfiguration
from impl.agent.requests import forwarding, methods
from impl.agent.requests.api import (
    AgentError,
    ArchiveStream,
    ArchiveUpload,
    NoClusterLeader,
    NoKnownServers,
    ReadOptions,
    ReadReply,
)
from impl.agent.requests.changes import Changes
from impl.agent.requests.forwarding import Retriable, T
from impl.agent.requests.methods import Call, Method
from impl.agent.requests.pool import Pool
from impl.agent.requests.protocol import (
    ANNOUNCE,
    Announcement,
    Discovered,
    KvRead,
    KvWrite,
    RenewSession,
    Status,
    encode,
)
from impl.agent.snapshots.archive_calls import OpenArchive, opened_archive, opened_upload
from impl.catalog.commands import Write
from impl.catalog.queries import Query
from impl.catalog.rows import Session
from impl.catalog.transitions import Result
from impl.rpc.errors import RemoteError, RpcError
from impl.rpc.handshake import PROTOCOL, AgentRole, Hello, Purpose
from impl.rpc.timings import Timings
from impl.runtime.interfaces import NANOSECONDS, Runtime, Task, new_uuid
from impl.telemetry.instruments import Telemetry

ANNOUNCE_NS = 3 * NANOSECONDS
"""How often a client agent says that it lives; with jitter, a leader that hears nothing for 10 s takes it for dead."""
FAREWELL_NS = NANOSECONDS
"""How long it may take to say that one leaves."""


class Client:
    """One client agent; the `Agent` of its HTTP API."""

    def __init__(
        self,
        runtime: Runtime,
        config: Config,
        node_id: str,
        log: Log,
        left: Callable[[], None],
        telemetry: Telemetry,
    ) -> None:
        """`left` ends the process."""
        self._calls = telemetry.counter("client.rpc", "Calls to servers.")
        self._failed = telemetry.counter("client.rpc.failed", "Calls to servers that failed.")
        telemetry.gauge("comitia.client.known_servers", "Servers that it can ask.", lambda: len(self._servers))
        self._left = left
        self._runtime = runtime
        self._config = config
        self._node_id = node_id
        self._log = log
        self._hold_ns = int(config.rpc_hold_timeout * NANOSECONDS)
        # A client agent keeps no counter of its starts: the time of this one stands for it.
        self._origin = f"{config.node_name}/{runtime.clock.wall_ns()}/r"
        self._writes = 0
        self._discovery = Discovery(None, 0, None)
        self._cluster_id = ""
        self._servers: list[Address] = []
        """In the order in which to ask them: the first one is asked until it fails."""
        self._changes = Changes(runtime)
        self._pool = Pool(runtime, self.hello, Timings())
        self._introductions = Introductions(
            runtime, self._pool, self._discovery, config.join, log.named("discovery"), self._learned, self._knows_one
        )
        self._cluster_size = 1
        self._tasks: list[Task] = [
            runtime.tasks.spawn(self._introductions.run(), "introductions"),
            runtime.tasks.spawn(self._announce(), "announcements"),
        ]

    def hello(self) -> Hello:
        """What this agent says of itself when a connection opens."""
        return Hello(
            protocol=PROTOCOL,
            cluster_id=self._cluster_id,
            node_id=self._node_id,
            node_name=self._config.node_name,
            datacenter=self._config.datacenter,
            incarnation=0,
            role=AgentRole.CLIENT,
            purpose=Purpose.RPC,
        )

    async def stop(self, reason: str, orderly: bool) -> None:
        """Say good-bye if it is `orderly`, and close every connection. What waits fails as its connection closes."""
        for task in self._tasks:
            task.cancel()
        if orderly and self._servers:
            body = encode(self._announcement(leaving=True))
            with suppress(RpcError):
                await self._pool.call(self._servers[0], ANNOUNCE, body, FAREWELL_NS)
        self._pool.close()

    async def _announce(self) -> None:
        """Say again and again that this agent lives: the leader keeps it registered."""
        announcement = self._announcement(leaving=False)
        while True:
            with suppress(AgentError):
                self._cluster_size = await self._ask(methods.ANNOUNCE, announcement)
            await self._runtime.clock.sleep(int(ANNOUNCE_NS * (0.5 + self._runtime.random.random())))

    def _announcement(self, *, leaving: bool) -> Announcement:
        return Announcement(self._config.node_name, self._node_id, self._config.advertise_addr, leaving)

    async def write(self, command: Write) -> Result:
        """As `Agent.write`."""
        self._writes += 1
        return await self._ask(methods.KV_WRITE, KvWrite(command, f"{self._origin}{self._writes}", forwarded=False))

    async def read(self, query: Query, options: ReadOptions) -> ReadReply:
        """As `Agent.read`."""
        started, now = self._runtime.clock.monotonic_ns(), self._runtime.clock.monotonic_ns

        blocked_ns = forwarding.blocked_ns_max(options)

        async def ask(address: Address) -> ReadReply:
            request = KvRead(query, forwarding.still_blocked(options, now() - started), forwarded=False)
            return await methods.KV_READ.ask(self._calls_to(address), request, blocked_ns)

        return await self._try_everybody(ask, is_write=methods.KV_READ.is_write, blocked_ns=blocked_ns)

    async def renew_session(self, session_id: str) -> Session | None:
        """As `Agent.renew_session`."""
        return await self._ask(methods.SESSION_RENEW, RenewSession(session_id, forwarded=False))

    def cluster_size(self) -> int:
        """As `Agent.cluster_size`."""
        return self._cluster_size

    def new_id(self) -> str:
        """As `Agent.new_id`."""
        return new_uuid(self._runtime.random)

    async def status_leader(self) -> str:
        """As `Agent.status_leader`."""
        return (await self._status()).leader

    async def status_peers(self) -> list[str]:
        """As `Agent.status_peers`."""
        return list((await self._status()).peers)

    async def operate(self, operation: Operation) -> int:
        """As `Agent.operate`."""
        return await self._ask(methods.OPERATE, Operate(operation, forwarded=False))

    async def raft_configuration(self, stale: bool) -> RaftConfiguration:
        """As `Agent.raft_configuration`."""
        return await self._ask(methods.RAFT_CONFIGURATION, AskConfiguration(stale, forwarded=False))

    async def save_archive(self, stale: bool) -> ArchiveStream:
        """As `Agent.save_archive`."""
        request = OpenArchive(stale, forwarded=False)
        return await self._try_everybody(
            lambda address: opened_archive(self._runtime, self._calls_to(address), request), is_write=False
        )

    async def upload_archive(self) -> ArchiveUpload:
        """As `Agent.upload_archive`."""
        return await self._try_everybody(
            lambda address: opened_upload(self._runtime, self._calls_to(address), forwarded=False), is_write=False
        )

    def _calls_to(self, address: Address) -> Call:
        return partial(self._pool.call, address)

    async def leave(self) -> None:
        """As `Agent.leave`: nobody counts on a client agent."""
        self._left()

    def reconfigure(self, config: Config) -> None:
        """What can change while it runs is so from now on."""
        self._config = config

    async def join(self, address: Address) -> None:
        """As `Agent.join`."""
        await self._introductions.join(address)

    async def _status(self) -> Status:
        return await self._ask(methods.STATUS, None)

    def describe(self) -> dict[str, Any]:
        """As `Agent.describe`."""
        document = describe_config(self._config, self._node_id, self._config.client_addr, 0)
        known = {info.address: name for name, info in self._discovery.known.items()}
        current = self._servers[0] if self._servers else None
        peers = {known.get(address, str(address)): {"connected": address == current} for address in self._servers}
        document["Stats"] = {
            "agent": {},
            "runtime": describe_runtime(self._runtime),
            "consul": {
                "acl": "disabled",
                "cluster_id": self._cluster_id,
                "known_servers": str(len(self._servers)),
                "server": "false",
            },
            "rpc": {"peers": peers},
        }
        return document

    async def _ask(self, method: Method[T], request: msgspec.Struct | None) -> T:
        """As `_try_everybody`."""
        return await self._try_everybody(
            lambda address: method.ask(self._calls_to(address), request), is_write=method.is_write
        )

    async def _try_everybody(self, ask: Callable[[Address], Awaitable[T]], *, is_write: bool, blocked_ns: int = 0) -> T:
        """Hold and retry as a server does; each attempt goes through the servers until one takes the call."""

        async def attempt() -> T:
            for address in tuple(self._servers):
                self._calls.total += 1
                try:
                    return await ask(address)
                except RpcError as error:
                    self._failed.total += 1
                    if not isinstance(error, RemoteError) or str(error) == str(NoClusterLeader()):
                        # Deviation: Consul stays with a server that has no leader; another one may be better off.
                        self._went_wrong(address)
                    if error.definite and not isinstance(error, RemoteError):
                        continue
                    raise forwarding.judge(error, is_write=is_write) from error
            raise Retriable(NoKnownServers())

        return await forwarding.hold(self._runtime, self._hold_ns, attempt, self._changes, blocked_ns)

    def _went_wrong(self, address: Address) -> None:
        """Ask this server last from now on."""
        if address in self._servers:
            self._servers.remove(address)
            self._servers.append(address)

    def _learned(self, reply: Discovered) -> None:
        self._discovery.learn(reply, self._runtime.clock.monotonic_ns())
        if reply.genesis is not None and not self._cluster_id:
            self._discovery.genesis = reply.genesis
            self._cluster_id = reply.genesis.cluster_id
            self._log.info("cluster known", id=self._cluster_id, servers=[voter.name for voter in reply.genesis.voters])
        known, members = self._discovery.known, self._discovery.roster().members
        # Before a cluster is known, whoever is met may come to know one.
        found = {info.address for info in known.values() if not members or any(is_same(m, info) for m in members)}
        new = sorted(found - set(self._servers))
        # Each client agent begins with another server.
        while new:
            self._servers.append(new.pop(self._runtime.random.randrange(0, len(new))))
        self._servers = [address for address in self._servers if address in found]
        self._changes.notify()

    def _knows_one(self) -> bool:
        return bool(self._servers)
