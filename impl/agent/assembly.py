"""Puts a server's core, state machine, trace and driver together, from its configuration and what its disk held."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from impl.agent.config.validated import Config
from impl.agent.driver import Driver, Peers
from impl.agent.logs import Log
from impl.agent.measures import RaftMeasures
from impl.agent.membership.discovery import configuration_of
from impl.agent.requests.changes import Changes
from impl.agent.snapshots.lifecycle import Snapshots, load_store
from impl.agent.snapshots.transfer import Call
from impl.agent.tracer import Tracer
from impl.catalog.store import Store
from impl.raft.core import Core
from impl.raft.settings import Restored, Settings
from impl.rpc.framing import FrameKind, checksum
from impl.runtime.interfaces import NANOSECONDS, Runtime
from impl.storage.data_directory import DataDirectory
from impl.storage.records import Genesis


class CannotTrace(Exception):
    """The trace cannot be written. The text says why and what to do."""


def raft_settings(config: Config, storage_id: str) -> Settings:
    """The core's settings: its own defaults, scaled, and what the user chose."""
    plain, scale = Settings(name=config.node_name), config.raft_multiplier
    return msgspec.structs.replace(
        plain,
        storage_id=storage_id,
        heartbeat_ticks=plain.heartbeat_ticks * scale,
        election_ticks_min=plain.election_ticks_min * scale,
        election_ticks_max=plain.election_ticks_max * scale,
        leader_lost_ticks_max=plain.leader_lost_ticks_max * scale,
        lease_ms=config.raft_lease_ms,
        clock_drift=config.clock_drift,
        snapshot_trailing=config.raft_trailing_logs,
    )


def assemble(
    runtime: Runtime,
    config: Config,
    data: DataDirectory,
    genesis: Genesis,
    peers: Peers,
    log: Log,
    changes: Changes,
    new_store: Callable[[], Store],
    call: Call,
    measures: RaftMeasures,
) -> tuple[Driver, Tracer | None]:
    """The driver, not started, and the trace that it writes.

    Args:
        changes: as `Driver`'s.
        new_store: makes an empty state machine.
        call: asks another server by its name.

    Raises:
        CannotTrace: the trace directory cannot be written.
        StorageError: the snapshot that the log begins with cannot be read.
    """
    recovered, state = data.recovered, data.recovered.hard_state
    first, settings = configuration_of(genesis), raft_settings(config, data.storage_id)
    snapshots = Snapshots(
        runtime,
        f"{config.data_dir}/raft/snapshots",
        genesis.cluster_id,
        log,
        threshold=config.raft_snapshot_threshold,
        interval_ns=int(config.raft_snapshot_interval * NANOSECONDS),
        newest=recovered.snapshot,
        new_store=new_store,
        measures=measures,
    )
    store = new_store()
    if recovered.snapshot is not None:
        load_store(runtime, snapshots.directory, recovered.snapshot, genesis.cluster_id, store)
    core = Core(
        settings,
        first.members,
        Restored(state.term, state.voted_for, recovered.entries, recovered.snapshot),
        runtime.random,
        trace=bool(config.trace_dir),
        now_ns=runtime.clock.monotonic_ns(),
    )
    tracer = None
    if config.trace_dir:
        tracer = _trace(runtime, config, data, core, genesis, first.names)
    driver = Driver(
        runtime,
        core,
        data.log,
        store,
        peers,
        log,
        tracer,
        changes,
        lambda payload: checksum(FrameKind.RAFT, payload),
        snapshots,
        call,
        measures,
    )
    return driver, tracer


def _trace(
    runtime: Runtime, config: Config, data: DataDirectory, core: Core, genesis: Genesis, voters: Sequence[str]
) -> Tracer:
    settings = core.server.settings
    try:
        tracer = Tracer(runtime.disk, runtime.clock.monotonic_ns, config.trace_dir, config.node_name, data.incarnation)
        tracer.header(
            genesis.cluster_id,
            voters,
            core.trace_state(),
            election_ns=settings.election_ns,
            lease_ns=settings.lease_ns,
            recovered=data.recovered.by_hand,
        )
    except OSError as error:
        raise CannotTrace(
            f"cannot write a trace in {config.trace_dir}: {error.strerror}: choose another -trace directory"
        ) from error
    return tracer
