"""One chaos run against a real cluster: start, load and break it, mend everything, ask whether it lives, read for the
last time.

Judges nothing: it fills a run directory, which `analysis` reads (now or later). Whatever ends it early (Ctrl-C too),
what was broken is mended, open operations are recorded as info, and logs and traces are collected.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import socket
import time
from collections.abc import Callable
from pathlib import Path

import uvloop

from jepsen_like.client.http import HttpConnection
from jepsen_like.client.kv import KvClient, Unanswered
from jepsen_like.cluster.api import Cluster, ClusterFailure, ClusterSpec, ClusterStatus
from jepsen_like.generator.combinators import Any, OnThreads, Stagger, TimeLimit
from jepsen_like.generator.interpreter import Interpreter, Worker
from jepsen_like.generator.values import Draws, Generator, Thread
from jepsen_like.nemesis import package
from jepsen_like.nemesis.book import Fault
from jepsen_like.nemesis.workers import Crew
from jepsen_like.store.run_directory import ChaosParams, Journal, Leadership, RunDirectory, RunSummary
from jepsen_like.workload.base import Workload, timeout_s
from jepsen_like.workload.catalog import WORKLOADS
from model_checks.histories.events import Event, EventType
from model_checks.verdicts import SetupFailed

FORMATION_DEADLINE_S = 20.0
LIVENESS_DEADLINE_S = 20.0
LEADER_SAMPLE_S = 0.25
SNAPSHOT_THRESHOLD = 200
"""Entries; a quarter of them stay behind a snapshot. Half a second of the usual load."""
SNAPSHOT_INTERVAL_MS = 500
SECOND_NS = 1_000_000_000

Progress = Callable[[str], None]
"""Gets a line about what happens now."""


def replay_command(params: ChaosParams) -> str:
    """The command line that repeats a run with these parameters."""
    words = ["comitia", "chaos", "test", "--servers", str(params.nodes), "--clients", str(params.clients)]
    words += ["--workload", params.workload, "--nemesis", ",".join(params.nemesis) or "none"]
    words += ["--time-limit", f"{params.time_limit_s:g}", "--seed", str(params.seed), "--rate", f"{params.rate:g}"]
    words += ["--concurrency", str(params.concurrency)]
    if params.snapshot_threshold is not None:
        words += ["--snapshot-threshold", str(params.snapshot_threshold)]
    if not params.default_reads:
        words += ["--default-reads", "apart"]
    if params.agent_command is not None:
        words += ["--agent-command", params.agent_command]
    return shlex.join(words)


def cluster_spec(params: ChaosParams, directory: RunDirectory) -> ClusterSpec:
    """The cluster of a run: with the nemesis `snapshot`, or a threshold of its own, its servers forget early."""
    threshold = params.snapshot_threshold
    if threshold is None and "snapshot" in params.nemesis:
        threshold = SNAPSHOT_THRESHOLD
    return ClusterSpec(
        servers=params.nodes,
        clients=params.clients,
        test_clients=len(params.agents),
        agent_command=params.agent_command,
        snapshot_threshold=threshold,
        snapshot_interval_ms=None if threshold is None else SNAPSHOT_INTERVAL_MS,
        trailing_logs=None if threshold is None else threshold // 4,
        log_dir=directory.logs,
        trace_dir=directory.traces,
        seed=params.seed,
    )


class Counts:
    """Figures of a run while it goes on, for the progress line."""

    def __init__(self) -> None:
        self.by_type = dict.fromkeys(EventType, 0)
        self.faults = 0
        self.leader: str | None = None
        self.keys: dict[object, None] = {}

    def event(self, event: Event) -> None:
        """Count an event of the history; nemesis events are counted as faults when they are executed."""
        if event.process != "nemesis":
            self.by_type[event.type] += 1
            if event.key is not None:
                self.keys.setdefault(event.key)

    def line(self, seconds: float, limit_s: float) -> str:
        """One line for a person."""
        ok, fail, info = (self.by_type[kind] for kind in (EventType.OK, EventType.FAIL, EventType.INFO))
        return (
            f"{seconds:4.0f}/{limit_s:g} s  {ok:,} ok, {fail:,} failed, {info:,} unknown; "
            f"{self.faults} faults; leader {self.leader or '-'}"
        )


class ChaosRun:
    """The state of a run that is going on."""

    def __init__(self, params: ChaosParams, directory: RunDirectory, cluster: Cluster, progress: Progress) -> None:
        self.params = params
        self.cluster = cluster
        self.progress = progress
        self.workload: Workload = WORKLOADS[params.workload]
        self.counts = Counts()
        self.history, self.faults = Journal(directory.history), Journal(directory.faults)
        self.leaders = Journal(directory.leaders)
        self.crew = Crew(cluster, params.nemesis, self._fault, len(params.agents))
        self.kv = {thread: self._client(thread) for thread in range(params.concurrency)}
        workers: dict[Thread, Worker] = {
            thread: self.workload.worker(client, timeout_s(thread)) for thread, client in self.kv.items()
        }
        workers.update(self.crew.workers)
        self.interpreter = Interpreter(workers, self._event)

    def _client(self, thread: int) -> KvClient:
        place = thread % len(self.params.agents)
        agent, origin = self.params.agents[place], f"t{place + 1}"

        async def dial() -> socket.socket:
            return await self.cluster.connect(origin, agent)

        return KvClient(HttpConnection(dial, self.cluster.address(agent)))

    def _event(self, event: Event) -> None:
        self.history.event(event)
        self.counts.event(event)

    def _fault(self, fault: Fault) -> None:
        self.faults.line(fault)
        self.counts.faults += fault.breaks

    def main_generator(self) -> Generator:
        """Clients at the rate asked for and one track a nemesis package, for the time limit."""
        draws = Draws(self.params.seed)
        clients = Stagger(
            max(1, int(SECOND_NS / self.params.rate)),
            self.workload.generator(draws.fork("workload"), self.params.default_reads),
            draws.fork("stagger"),
        )
        tracks = package.generator(self.params.nemesis, draws.fork("nemesis"))
        end_ns = self.interpreter.now_ns + int(self.params.time_limit_s * SECOND_NS)
        threads: frozenset[Thread] = frozenset(range(self.params.concurrency))
        return TimeLimit(end_ns, Any((*tracks, OnThreads(threads, clients))))

    async def sample_leaders(self) -> None:
        """Write down who leads, now and then, for the report; and show how far the run is."""
        started = time.monotonic()
        while True:
            status = await self._status()
            leader = status.leader if status is not None else None
            term = status.views[leader].term if status is not None and leader is not None else 0
            self.leaders.line(Leadership(time.monotonic_ns(), leader, term))
            self.counts.leader = leader
            self.progress(self.counts.line(time.monotonic() - started, self.params.time_limit_s))
            await asyncio.sleep(LEADER_SAMPLE_S)

    async def _status(self) -> ClusterStatus | None:
        with contextlib.suppress(ClusterFailure):
            return await self.cluster.status(0.2)
        return None

    async def mend(self) -> int:
        """The nemeses' final generator: undo every fault; the time at which all was mended."""
        await self.interpreter.run(package.final_generator(self.params.nemesis))
        return time.monotonic_ns()

    async def mend_at_once(self) -> int:
        """The same without the interpreter, which may have been cancelled."""
        await self.crew.book.mend_everything()
        return time.monotonic_ns()

    async def live(self, healed_ns: int) -> tuple[float | None, str]:
        """Seconds from `healed_ns` until every agent had answered a write and all servers had applied all of them."""
        if self.crew.book.away:
            return None, f"{', '.join(self.crew.book.away)} did not become voters again after the heal"
        deadline_ns = healed_ns + int(LIVENESS_DEADLINE_S * SECOND_NS)
        pending = list(range(len(self.params.agents)))
        error = "no attempt"
        while pending and time.monotonic_ns() < deadline_ns:
            thread = pending[0]
            done = await self.kv[thread].put(f"liveness/{self.params.agents[thread]}", thread, 2.0)
            if isinstance(done, Unanswered):
                error = done.error
                await asyncio.sleep(0.02)
            else:
                pending.pop(0)
        if pending:
            problem = f"{self.params.agents[pending[0]]} answered no write within {LIVENESS_DEADLINE_S:g} s of the heal"
            return None, f"{problem} (last: {error})"
        while time.monotonic_ns() < deadline_ns:
            status = await self._status()
            if status is not None and self._replicated(status):
                return (time.monotonic_ns() - healed_ns) / 1e9, ""
            await asyncio.sleep(0.02)
        return None, f"the servers had not all applied the same log within {LIVENESS_DEADLINE_S:g} s of the heal"

    def _replicated(self, status: ClusterStatus) -> bool:
        views = [status.views.get(server) for server in self.cluster.servers]
        applied = {view.applied_index for view in views if view is not None}
        committed = {view.commit_index for view in views if view is not None}
        return status.leader is not None and None not in views and applied == committed and len(applied) == 1

    async def main(self) -> None:
        """Load and break, for the time limit."""
        sampling = asyncio.ensure_future(self.sample_leaders())
        try:
            await self.interpreter.run(self.main_generator())
        finally:
            sampling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sampling

    async def read_for_the_last_time(self) -> None:
        """What the workload does last, and its final reads, through every agent."""
        everybody: list[Thread] = list(range(self.params.concurrency))
        await self.interpreter.run(OnThreads(frozenset(everybody), self.workload.farewell(everybody)))
        threads = everybody[: len(self.params.agents)]
        keys = sorted(self.counts.keys, key=str)
        await self.interpreter.run(OnThreads(frozenset(threads), self.workload.final_reads(keys, threads)))

    def close(self) -> None:
        """Close connections and journals."""
        for client in self.kv.values():
            client.close()
        for journal in (self.history, self.faults, self.leaders):
            journal.close()


async def run(params: ChaosParams, directory: RunDirectory, progress: Progress) -> RunSummary:
    """Carry out the run; everything that happened is in `directory` when it returns or raises.

    Raises SetupFailed if the cluster does not come up. CancelledError (Ctrl-C) is passed on after healing and
    collecting.
    """
    progress("starting the cluster")
    spec = cluster_spec(params, directory)
    started_ns = time.monotonic_ns()
    healed_ns = 0
    live_s, problem = None, "not asked"
    exits: tuple[str, ...] = ()
    async with Cluster.start(spec) as cluster:
        try:
            await cluster.wait_for_leader(FORMATION_DEADLINE_S)
        except ClusterFailure as error:
            raise SetupFailed(f"the cluster did not form: {error}; logs: {directory.logs}") from error
        chaos = ChaosRun(params, directory, cluster, progress)
        interrupted = True
        try:
            await chaos.main()
            progress("healing")
            healed_ns = await chaos.mend()
            live_s, problem = await chaos.live(healed_ns)
            progress("final reads")
            await chaos.read_for_the_last_time()
            interrupted = False
        finally:
            if interrupted:
                with contextlib.suppress(ClusterFailure):
                    healed_ns = await chaos.mend_at_once()
            chaos.close()
            with contextlib.suppress(ClusterFailure):
                exits = tuple(f"{e.node} (exit status {e.status})" for e in await cluster.unexpected_exits())
            summary = RunSummary(
                started_ns=started_ns,
                ended_ns=time.monotonic_ns(),
                interrupted=interrupted,
                healed_ns=healed_ns,
                live_s=live_s,
                liveness_problem=problem,
                exits=exits,
            )
            directory.save_run(summary)
        progress("stopping the cluster")
    return summary


def run_blocking(params: ChaosParams, root: Path, progress: Progress) -> tuple[RunDirectory, RunSummary | None]:
    """Make the directory and run, on a loop of its own. The summary is None if Ctrl-C ended the run early."""
    directory = RunDirectory.create(root, params, replay_command(params))
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
            return directory, loop.run(run(params, directory, progress))
    except KeyboardInterrupt:
        return directory, None
