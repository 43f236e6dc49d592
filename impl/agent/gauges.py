"""What an agent knows of itself anyway, to be shown as telemetry: nothing of it costs anything until it is asked for.

Source: Consul, "Telemetry". What only a leader knows is not there on others. *Deviation:* Consul's autopilot waits for
a server to be stable; here a server is healthy as soon as `autopilot` says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from impl.agent.config.validated import Config
from impl.agent.driver import TICK_NS, Driver
from impl.agent.local.registrations import Registrations
from impl.agent.logs import Log
from impl.agent.membership.members import Members
from impl.catalog.tables import Tables
from impl.dns.counters import Counters as DnsCounters
from impl.raft.quorum import majority
from impl.raft.ready import Role
from impl.rpc.server import Counters as RpcCounters
from impl.runtime.interfaces import MILLISECONDS, NANOSECONDS, Runtime, Timer
from impl.telemetry.instruments import Telemetry

FRAME_FAULTS: Final = ("malformed", "oversized", "corrupt")
"""Why a connection is closed whose bytes make no sense (`impl/rpc/framing.py`)."""
CONTACT_NS: Final = NANOSECONDS
"""How often a leader notes when it last heard from its followers."""


def show_process(telemetry: Telemetry, runtime: Runtime, log: Log) -> None:
    """Memory, tasks and garbage collections of this process, and who follows its log."""
    usage = runtime.host.usage
    telemetry.gauge("runtime.alloc_bytes", "Memory of this process (resident).", lambda: usage().resident_bytes)
    telemetry.gauge("runtime.sys_bytes", "Address space of this process.", lambda: usage().virtual_bytes)
    telemetry.gauge("runtime.num_goroutines", "Tasks of this process.", runtime.tasks.count)
    telemetry.gauge("runtime.total_gc_runs", "Collections of garbage.", lambda: usage().collections)
    telemetry.gauge("comitia.log.followers", "Who follows the log.", log.follower_count)


def show_local(telemetry: Telemetry, local: Registrations) -> None:
    """The agent's own services and checks."""
    state = local.state
    telemetry.gauge("comitia.agent.services", "Services of this agent.", lambda: len(state.services))
    telemetry.gauge("comitia.agent.checks", "Checks of this agent.", lambda: len(state.checks))
    unwritten = "Services and checks of this agent that the catalog does not show yet."
    telemetry.gauge(
        "comitia.agent.unsynced", unwritten, lambda: len(state.pending_services) + len(state.pending_checks)
    )


def show_dns(telemetry: Telemetry, counters: DnsCounters, dropped: Callable[[], int]) -> None:
    """What became of questions."""
    telemetry.counted("comitia.dns.answered", "Questions that were answered.", lambda: counters.answered)
    telemetry.counted("comitia.dns.malformed", "Messages that are no questions.", lambda: counters.malformed)
    telemetry.counted("comitia.dns.failed", "Questions answered with SERVFAIL.", lambda: counters.failed)
    telemetry.counted("comitia.dns.truncated", "Answers that were cut.", lambda: counters.truncated)
    telemetry.counted("comitia.dns.dropped", "Questions that came while too many waited.", dropped)


def show_rpc(telemetry: Telemetry, counters: Callable[[], RpcCounters]) -> None:
    """The server port."""
    telemetry.counted("rpc.accept_conn", "Connections to the server port.", lambda: counters().accepted)
    telemetry.counted("rpc.request", "Calls of other agents.", lambda: counters().calls)
    telemetry.counted(
        "comitia.rpc.frames", "Frames that came in, messages of Raft among them.", lambda: counters().frames_in
    )
    telemetry.gauge("comitia.rpc.connections", "Connections that are open.", lambda: counters().connections)
    telemetry.counted(
        "comitia.rpc.malformed", "Connections closed for a frame that makes no sense.", lambda: _malformed(counters())
    )
    telemetry.counted(
        "comitia.rpc.refused",
        "Connections closed for another fault of the other side.",
        lambda: sum(counters().refused.values()) - _malformed(counters()),
    )


def _malformed(counters: RpcCounters) -> int:
    return sum(counters.refused.get(cause, 0) for cause in FRAME_FAULTS)


class ServerGauges:
    """What one server of a formed cluster shows."""

    def __init__(
        self, telemetry: Telemetry, runtime: Runtime, config: Config, driver: Driver, members: Members
    ) -> None:
        self._telemetry = telemetry
        self._runtime = runtime
        self._driver = driver
        self._members = members
        self._labels = (("datacenter", config.datacenter),)
        self._contact = telemetry.sample(
            "raft.leader.lastContact",
            "On the leader, how long ago each follower was heard, in ms: looked at every second.",
        )
        self._timer: Timer | None = None
        self._show_raft()
        self._show_state()

    def start(self) -> None:
        """Begin to look who was heard."""
        self._timer = self._runtime.clock.call_later(CONTACT_NS, self._look)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        core = self._driver.core
        if core.role is Role.LEADER:
            for progress in core.server.voting:
                if progress.answered_at >= 0:
                    self._contact.observe((core.server.ticks - progress.answered_at) * TICK_NS / MILLISECONDS)
        self.start()

    def _show_raft(self) -> None:
        gauge, core, driver = self._telemetry.gauge, self._driver.core, self._driver
        gauge("server.isLeader", "1 on the leader.", lambda: int(core.role is Role.LEADER))
        gauge("raft.last_index", "The last entry of the log.", lambda: core.last_index)
        gauge("raft.applied_index", "The last entry that is applied.", lambda: driver.applied)
        gauge("raft.commit_index", "The last entry that is known to be committed.", lambda: core.commit_index)
        gauge("raft.term", "The current term.", lambda: core.term)
        gauge("raft.peers", "Servers of the configuration.", lambda: len(core.configuration.members))
        gauge("autopilot.healthy", "1 if the leader finds all servers healthy.", self._healthy)
        gauge("autopilot.failure_tolerance", "So many voters may fail; told by the leader.", self._tolerance)
        if driver.snapshots is not None:
            counters, count = driver.snapshots.counters, self._telemetry.counted
            count("comitia.snapshots.taken", "Snapshots that were written.", lambda: counters.taken)
            count("comitia.snapshots.restored", "Snapshots of leaders that were loaded.", lambda: counters.restored)
            count("comitia.snapshots.failed", "Snapshots that could not be written.", lambda: counters.failed)
            count("comitia.snapshots.sent", "Snapshots that others took over.", lambda: counters.sent)

    def _show_state(self) -> None:
        self._count("state.nodes", "Nodes of the catalog.", lambda tables: len(tables.nodes))
        self._count("state.services", "Names of services.", lambda tables: tables.services.group_count("service"))
        self._count("state.service_instances", "Instances of services.", lambda tables: len(tables.services))
        self._count("state.kv_entries", "Keys of the KV store.", lambda tables: len(tables.entries))
        self._count("comitia.state.sessions", "Sessions.", lambda tables: len(tables.sessions))

    def _count(self, name: str, help: str, count: Callable[[Tables], int]) -> None:
        """Rows of the catalog as this server has it; the store is another one after a restore."""
        self._telemetry.gauge(name, help, lambda: count(self._driver.store.tables), self._labels)

    def _well(self) -> list[bool] | None:
        """Of each voter, whether the leader finds it healthy; None on others."""
        healths = self._members.healths()
        return [healths[name].healthy for name in self._driver.core.configuration.voters] if healths else None

    def _healthy(self) -> int | None:
        well = self._well()
        return None if well is None else int(all(well))

    def _tolerance(self) -> int | None:
        well = self._well()
        return None if well is None else max(sum(well) - majority(len(well)), 0)
