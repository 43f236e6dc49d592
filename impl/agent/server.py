"""A server agent from start to stop: listeners, the driver, shutdown.

It decides nothing about Raft, formation or requests: `core`, `formation`, `routing` and `serving` do. What stands here
is who is made when, who is told what, and in which order it all ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from impl.agent.assembly import CannotTrace, assemble
from impl.agent.config.validated import Config
from impl.agent.describe import describe_config, describe_raft, describe_runtime, describe_snapshots
from impl.agent.driver import Driver
from impl.agent.gauges import ServerGauges, show_rpc
from impl.agent.logs import Log
from impl.agent.measures import RaftMeasures, RequestMeasures
from impl.agent.membership.address_book import AddressBook
from impl.agent.membership.discovery import Discovery, configuration_of, is_same
from impl.agent.membership.formation import Formation
from impl.agent.membership.introductions import Introductions
from impl.agent.membership.joining import Joining, forget_leaving, has_left, note_leaving
from impl.agent.membership.members import Members
from impl.agent.membership.operations import RemovePeer
from impl.agent.membership.reconcile import Reconciler
from impl.agent.membership.reconfiguration import Reconfiguration
from impl.agent.requests.api import AgentError
from impl.agent.requests.begun import ShortWay
from impl.agent.requests.changes import Changes, Watches
from impl.agent.requests.pool import Pool
from impl.agent.requests.protocol import ServerInfo
from impl.agent.requests.routing import Requests
from impl.agent.requests.service import Service
from impl.agent.requests.serving import Serving
from impl.agent.sessions.keeper import SessionKeeper
from impl.agent.snapshots.archives import Archives
from impl.agent.snapshots.restoring import Restoring, release
from impl.agent.tracer import Tracer
from impl.catalog.store import Store
from impl.catalog.tables import Tables
from impl.raft.errors import Refused as CoreRefused
from impl.raft.ready import Role
from impl.rpc.handshake import PROTOCOL, AgentRole, Hello, Purpose
from impl.rpc.server import RpcServer
from impl.rpc.timings import Timings
from impl.runtime.interfaces import NANOSECONDS, Runtime, Task
from impl.runtime.off_loop import ignore, off_loop
from impl.storage.data_directory import DataDirectory
from impl.storage.errors import StorageError
from impl.storage.records import Genesis
from impl.telemetry.instruments import Telemetry

SWEEP_NS = 10 * NANOSECONDS


@dataclass(frozen=True, slots=True)
class Formed:
    """What a server has once it is part of a cluster."""

    driver: Driver
    tracer: Tracer | None
    gauges: ServerGauges

    def stop(self, reason: str) -> None:
        """Take no more input, and end the trace."""
        self.driver.stop()
        if self.tracer is not None:
            self.tracer.end(reason)
        self.gauges.stop()


class Server:
    """One server agent. `requests` is the `Agent` of its HTTP API, which tries `short_way` before. Made by `start`."""

    def __init__(
        self,
        runtime: Runtime,
        config: Config,
        data: DataDirectory,
        log: Log,
        fail: Callable[[str], None],
        left: Callable[[], None],
        telemetry: Telemetry,
    ) -> None:
        """Not for callers: use `start`."""
        self._runtime = runtime
        self._config = config
        self._data = data
        self._log = log
        self._fail = fail
        self._left = left
        self._telemetry = telemetry
        self._measures = RaftMeasures(telemetry, runtime.clock)
        self._rpc: RpcServer | None = None
        self._formed: Formed | None = None
        self._tasks: list[Task] = []
        self._stopped = False
        # Who there is, and how to reach them.
        timings = _timings(config)
        self._discovery = Discovery(_myself(config, data), config.bootstrap_expect, data.recovered.genesis)
        self._address_book = AddressBook(runtime, config.data_dir, log)
        self._pool = Pool(runtime, self.hello, timings)
        self._members = Members(runtime, self._discovery, self._pool, self.hello, timings, log.named("raft"))
        self._formation = Formation(runtime, self._discovery, data, log, met=self._met, run=self._run, fail=fail)
        self._introductions = Introductions(
            runtime,
            self._pool,
            self._discovery,
            config.join,
            log.named("discovery"),
            self._formation.learned,
            self._members.everybody_is_known,
        )
        # What waits for changes of the state or the leadership, and what a leader does unasked.
        self._watches = Watches(runtime)
        self._changes = Changes(runtime)
        self._sessions = SessionKeeper(runtime)
        self._reconfiguration = Reconfiguration(
            runtime, self._discovery, self._members, self._pool, self._changes, log.named("raft")
        )
        self._reconciler = Reconciler(runtime, config.datacenter, self._members, log.named("catalog"))
        self._restoring = Restoring(runtime, log.named("snapshot"))
        # What takes requests: of users, in two ways, and of other agents.
        measures = RequestMeasures(telemetry)
        self._serving = self._make_serving(measures)
        self.requests = self._make_requests()
        self.short_way = ShortWay(runtime, self._serving, self.requests, measures)
        self._service = Service(
            runtime,
            self._discovery,
            self.requests,
            self._members,
            introduced=self._met,
            conflict=self._formation.conflict,
        )
        telemetry.gauge("session_ttl.active", "Sessions whose TTL this server counts.", lambda: len(self._sessions))
        telemetry.gauge("rpc.queries_blocking", "Blocking queries that wait.", lambda: len(self._watches))

    def _make_serving(self, measures: RequestMeasures) -> Serving:
        runtime, config = self._runtime, self._config
        return Serving(
            runtime,
            f"{config.node_name}/{self._data.incarnation}",
            self._discovery,
            self._watches,
            self._changes,
            self._members,
            reconfiguration=self._reconfiguration,
            sessions=self._sessions,
            reconciler=self._reconciler,
            archives=Archives(runtime, config.data_dir, config.snapshot_max_size, self._log.named("snapshot")),
            restoring=self._restoring,
            measures=measures,
        )

    def _make_requests(self) -> Requests:
        return Requests(
            self._runtime,
            int(self._config.rpc_hold_timeout * NANOSECONDS),
            self._discovery,
            self._pool,
            self._changes,
            self._serving,
            describe=self.describe,
            leave=self.leave,
            join=self._introductions.join,
        )

    @classmethod
    async def start(
        cls,
        runtime: Runtime,
        config: Config,
        data: DataDirectory,
        log: Log,
        fail: Callable[[str], None],
        left: Callable[[], None],
        telemetry: Telemetry,
    ) -> Server:
        """Listen and begin to look for the other servers.

        Args:
            fail: ends the agent with an error text when it turns out that it cannot be part of this cluster.
            left: ends the agent after it has left the cluster.

        Raises:
            OSError: the RPC address is not available.
        """
        server = cls(runtime, config, data, log, fail, left, telemetry)
        address = (config.bind_addr, config.server_port)
        server._rpc = await RpcServer.listen(
            runtime,
            address,
            server.hello,
            server._service,
            report=log.named("rpc").warn,
            admit=server._members.admit,
        )
        myself = server._discovery.myself
        assert myself is not None, "a server knows itself"
        server._discovery.myself = msgspec.structs.replace(myself, port=server._rpc.address[1])
        server._discovery.remember(server._address_book.noted)
        if data.recovered.genesis is not None:
            server._run(data.recovered.genesis)
        rpc = server._rpc
        show_rpc(telemetry, lambda: rpc.counters)
        server._tasks.append(runtime.tasks.spawn(server._introductions.run(), "introductions"))
        server._tasks.append(runtime.tasks.spawn(server._sweep(), "sweep"))
        server._formation.consider()
        return server

    @property
    def address(self) -> str:
        """Where its RPC can be dialled."""
        assert self._discovery.myself is not None, "a server knows itself"
        return str(self._discovery.myself.address)

    @property
    def _driver(self) -> Driver | None:
        return self._formed.driver if self._formed is not None else None

    def hello(self) -> Hello:
        """What this server says of itself when a connection opens; `PeerLink` and `RpcClient` set the purpose."""
        genesis = self._discovery.genesis
        return Hello(
            protocol=PROTOCOL,
            cluster_id=genesis.cluster_id if genesis is not None else "",
            node_id=self._data.node_id,
            node_name=self._config.node_name,
            datacenter=self._config.datacenter,
            incarnation=self._data.incarnation,
            role=AgentRole.SERVER,
            purpose=Purpose.RPC,
            storage_id=self._data.storage_id,
        )

    def reconfigure(self, config: Config) -> None:
        """What can change while it runs is so from now on."""
        if self._driver is not None and self._driver.snapshots is not None:
            interval_ns = int(config.raft_snapshot_interval * NANOSECONDS)
            self._driver.snapshots.reconfigure(config.raft_snapshot_threshold, interval_ns)
        self._config = config

    async def leave(self) -> None:
        """As `Agent.leave`. A note makes the next start of this server ask to join again."""
        self._log.info("leaving the cluster")
        await self._hand_over("this server leaves")
        if self._members.includes_me() and len(self._discovery.roster().names) > 1:
            try:
                await off_loop(self._runtime, lambda: note_leaving(self._runtime.disk, self._config.data_dir))
                await self.requests.operate(RemovePeer(id=self._data.node_id))
            except (AgentError, OSError, StorageError) as error:
                self._log.warn("leaving without having been removed from the configuration", error=str(error))
        self._left()

    async def _hand_over(self, why: str) -> None:
        """A leader lets another server lead, if there is one, and in any case leads no more. Takes bounded time."""
        driver = self._driver
        if driver is None or driver.core.role is not Role.LEADER:
            return
        if driver.core.configuration.voters != (self._config.node_name,):
            try:
                await driver.transfer_leadership(None)
            except (AgentError, CoreRefused) as error:
                self._log.warn("leadership was not handed over", error=str(error))
        driver.step_down(why)

    async def stop(self, reason: str, orderly: bool) -> None:
        """Hand leadership over, refuse what waits, end the trace, close. A disk write under way is finished first.

        Not `orderly`: after a defect nothing is handed over, but still nobody is answered once others can see that this
        process listens no more.
        """
        if orderly:
            await self._hand_over(f"this server stops: {reason}")
        self._stopped = True
        self._serving.stop()
        for task in self._tasks:
            task.cancel()
        if self._formed is not None:
            self._formed.stop(reason)
        self._pool.close()
        self._members.links.close()
        if self._rpc is not None:
            self._rpc.close()
        await off_loop(self._runtime, self._data.close)

    # --- the cluster --------------------------------------------------------------------------------------------------

    def _met(self) -> None:
        """Somebody spoke of itself: dial the members whose address is known now."""
        if self._driver is not None:
            self._members.follow()
            self._address_book.note(tuple(sorted(self._discovery.known.values())))

    def _run(self, genesis: Genesis) -> None:
        """The genesis is durable: run Raft, unless the agent was stopped while it was being written."""
        if self._stopped:
            return
        config, data = self._config, self._data
        self._discovery.genesis = genesis
        voters = [voter.name for voter in genesis.voters]
        took_part = self._formation.began and self._members.myself.name in voters
        self._log.info("cluster formed" if took_part else "cluster known", id=genesis.cluster_id, servers=voters)
        try:
            driver, tracer = assemble(
                self._runtime,
                config,
                data,
                genesis,
                self._members.links,
                self._log.named("raft"),
                self._changes,
                self._new_store,
                self._members.call,
                self._measures,
            )
        except (CannotTrace, StorageError) as error:
            self._fail(str(error))
            return
        gauges = ServerGauges(self._telemetry, self._runtime, config, driver, self._members)
        self._formed = Formed(driver, tracer, gauges)
        self._service.driver = driver
        driver.start()
        gauges.start()
        self._members.formed(driver)
        self._serving.formed(driver)
        self._met()
        keeping = self._sessions.run(driver, self.requests.write_leading)
        self._tasks.append(self._runtime.tasks.spawn(keeping, "sessions"))
        reconciling = self._reconciler.run(driver, self.requests.write_leading)
        self._tasks.append(self._runtime.tasks.spawn(reconciling, "reconcile"))
        watching = self._restoring.watch(driver, self._serving.propose)
        self._tasks.append(self._runtime.tasks.spawn(watching, "restores"))
        self._tasks.append(self._runtime.tasks.spawn(self._reconfiguration.watch(), "reconfiguration"))
        self._tasks.append(self._runtime.tasks.spawn(self._joining(genesis).run(), "joining"))

    def _new_store(self) -> Store:
        watches, sessions = self._watches, self._sessions
        return Store(watches.changed, watches.touched, sessions.changed, sessions.lost, self._replaced, self._retired)

    def _replaced(self) -> None:
        """The state store's callback: a restore has put another state in force."""
        self._watches.abandon()
        self._sessions.replaced()
        self._reconciler.replaced()
        if self._driver is not None and self._driver.snapshots is not None:
            # So that a restart need not restore it again, chunk by chunk.
            self._driver.snapshots.take()

    def _retired(self, tables: Tables) -> None:
        """The state store's callback."""
        self._runtime.tasks.spawn(release(self._runtime, tables), "release")

    def _joining(self, genesis: Genesis) -> Joining:
        """Only members are sent entries: a server with an empty log that the genesis does not name was never one."""
        disk, directory, recovered = self._runtime.disk, self._config.data_dir, self._data.recovered
        named = any(is_same(member, self._members.myself) for member in configuration_of(genesis).members)
        is_new = not (recovered.entries or recovered.snapshot or named)

        def joined() -> None:
            self._runtime.executor.submit(
                lambda: forget_leaving(disk, directory),
                ignore,
                lambda error: self._log.warn("cannot remove the note that this server left", error=str(error)),
            )

        return Joining(
            self._runtime,
            self._discovery,
            self._members,
            self._pool,
            self._log.named("raft"),
            asks=is_new or has_left(disk, directory),
            read_replica=self._config.read_replica,
            joined=joined,
        )

    async def _sweep(self) -> None:
        while True:
            await self._runtime.clock.sleep(SWEEP_NS)
            self._watches.sweep()

    def describe(self) -> dict[str, Any]:
        """As `Agent.describe`."""
        genesis, myself, driver = self._discovery.genesis, self._members.myself, self._driver
        document = describe_config(self._config, self._data.node_id, myself.host, myself.port)
        counters = self._rpc.counters if self._rpc is not None else None
        document["Stats"] = {
            "agent": {"incarnation": str(self._data.incarnation)},
            "runtime": describe_runtime(self._runtime),
            "consul": {
                "acl": "disabled",
                "bootstrap": str(self._config.bootstrap_expect == 1).lower(),
                "cluster_id": genesis.cluster_id if genesis is not None else "",
                "known_datacenters": "1",
                "leader": str(driver is not None and driver.core.role is Role.LEADER).lower(),
                "leader_addr": self._serving.status().leader,
                "server": "true",
            },
            "raft": describe_raft(driver, self._members, self._serving.last_contact_ms()),
            "snapshots": describe_snapshots(driver),
            "rpc": {"peers": self._members.links.describe(), "counters": msgspec.to_builtins(counters)},
        }
        return document


def _myself(config: Config, data: DataDirectory) -> ServerInfo:
    """What others are told of this server; its port is known once it listens."""
    return ServerInfo(
        config.node_name,
        data.node_id,
        config.advertise_addr,
        config.server_port,
        data.incarnation,
        data.storage_id,
    )


def _timings(config: Config) -> Timings:
    plain = Timings()
    return replace(plain, link_unanswered_ns=plain.link_unanswered_ns * config.raft_multiplier)
