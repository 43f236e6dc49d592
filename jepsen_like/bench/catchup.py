"""A follower was away while a million entries were written: how long until it has caught up, by a snapshot, under
load?

One of three servers with default settings is killed; clients put until the commit index has grown by as many entries
as asked for, and on until the leader has forgotten those that the server needs (it takes a snapshot every 30 s). Then
the server is started again while some of the clients go on. It must be sent a snapshot, and nobody may call an
election: a follower that is busy with a snapshot still answers its leader, and the leader that reads one from its disk
still leads (Ongaro 2014, section 5.1).
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

import msgspec

from jepsen_like.bench.kv import start_process
from jepsen_like.bench.load import PUT, LoadSpec, share
from jepsen_like.bench.servers import ComitiaServers, get_json
from model_checks.verdicts import SetupFailed, Verdict

FILLING_CLIENTS = 128
FILLING_PROCESSES = 2
PROGRESS_S = 5.0
POLL_S = 0.05
STALLED_S = 30.0
CATCH_UP_DEADLINE_S = 600.0
HOUR_NS = 3_600_000_000_000


class Extent(msgspec.Struct, frozen=True):
    """A server's Raft log by its own account. Indexes; `snapshot` is the last index that its newest snapshot covers."""

    term: int
    commit: int
    applied: int
    last: int
    base: int
    snapshot: int


class CaughtUp(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured. Times in seconds, rates in entries a second."""

    entries: int
    """So many had been committed that the follower did not hold."""
    filling_s: float
    seconds: float
    """From its start until it had applied all that was committed when it was started."""
    seconds_to_serve: float
    """Of these, until it first answered."""
    snapshot_index: int
    """What the snapshot that it was sent covers; 0: it was sent none."""
    load_per_second: float
    """Entries that were committed meanwhile."""
    elections: int

    @property
    def verdict(self) -> Verdict:
        """INVALID if there was an election; UNKNOWN if no snapshot was sent: then this was not measured."""
        if self.elections:
            return Verdict.INVALID
        return Verdict.VALID if self.snapshot_index else Verdict.UNKNOWN


def extent_of(servers: ComitiaServers, number: int) -> Extent:
    """Raises OSError if the server does not answer."""
    raft = get_json(servers.client_ports[number], "/v1/agent/self", 5.0)["Stats"]["raft"]
    names = ("term", "commit_index", "applied_index", "last_log_index", "log_base", "last_snapshot_index")
    return Extent(*(int(raft.get(name) or 0) for name in names))


class Fill:
    """Load generators that run until they are ended."""

    def __init__(self, port: int, clients: int, processes: int, keys: int, value_bytes: int) -> None:
        now_ns = time.monotonic_ns()
        self._running: list[subprocess.Popen[bytes]] = []
        for number in range(processes):
            part = share(clients, processes, number)
            spec = LoadSpec(
                system="comitia",
                operation=PUT,
                port=port,
                connections=part,
                clients=part,
                keys=keys,
                value_bytes=value_bytes,
                since_ns=now_ns + HOUR_NS,  # nothing is measured here: the servers' indexes tell
                until_ns=now_ns + 2 * HOUR_NS,
            )
            if part:
                self._running.append(start_process(spec))

    def end(self) -> None:
        """Kill the generators: their last puts may or may not happen."""
        for process in self._running:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        self._running.clear()


def fill(servers: ComitiaServers, leader: int, until: int, forgotten: int, progress: Callable[[str], None]) -> None:
    """Wait until the commit index is `until` and the leader has forgotten entry `forgotten`.

    Raises SetupFailed if the commit index stands still.
    """
    commit, base, grew = 0, 0, time.monotonic()
    told = grew
    while commit < until or base < forgotten:
        time.sleep(POLL_S)
        now = time.monotonic()
        seen = extent_of(servers, leader)
        base = seen.base
        if seen.commit > commit:
            commit, grew = seen.commit, now
        if now > grew + STALLED_S:
            raise SetupFailed(f"the commit index stands still at {commit:,}: {servers.last_words(leader)}")
        if now > told + PROGRESS_S:
            told = now
            progress(f"{until - commit:,} entries to go" if commit < until else "the leader still has the whole log")


def measure_catch_up(
    servers: ComitiaServers, entries: int, keys: int, value_bytes: int, clients: int, progress: Callable[[str], None]
) -> CaughtUp:
    """One follower, `entries` behind, under the load of `clients`. Raises SetupFailed."""
    leader = servers.wait_for_leader()
    away = next(number for number in servers.numbers if number != leader)
    before = extent_of(servers, away)
    servers.kill(away)
    progress(f"server {away + 1} is away")
    started = time.monotonic()
    port = servers.client_ports[leader]
    filling = Fill(port, FILLING_CLIENTS, FILLING_PROCESSES, keys, value_bytes)
    try:
        fill(servers, leader, before.last + entries, before.last + 1, progress)
    finally:
        filling.end()
    filling_s = time.monotonic() - started
    going_on = Fill(port, clients, 1, keys, value_bytes)
    try:
        if clients:  # a generator takes a while to start
            fill(servers, leader, extent_of(servers, leader).commit + clients, 0, progress)
        return _catch_up(servers, leader, away, before, filling_s, progress)
    finally:
        going_on.end()


def _catch_up(
    servers: ComitiaServers, leader: int, away: int, before: Extent, filling_s: float, progress: Callable[[str], None]
) -> CaughtUp:
    target = extent_of(servers, leader)
    progress(f"server {away + 1} comes back, {target.commit - before.last:,} entries behind")
    servers.start(away)
    started = time.monotonic()
    serving_s = 0.0
    while True:
        time.sleep(POLL_S)
        seconds = time.monotonic() - started
        if seconds > CATCH_UP_DEADLINE_S:
            raise SetupFailed(f"not caught up after {CATCH_UP_DEADLINE_S:g} s: {servers.last_words(away)}")
        try:
            seen = extent_of(servers, away)
        except OSError:
            continue
        serving_s = serving_s or seconds
        if seen.applied >= target.commit:
            break
    after = extent_of(servers, leader)
    return CaughtUp(
        entries=target.commit - before.last,
        filling_s=round(filling_s, 1),
        seconds=round(seconds, 2),
        seconds_to_serve=round(serving_s, 2),
        snapshot_index=seen.snapshot if seen.base > before.last else 0,
        load_per_second=round((after.commit - target.commit) / seconds, 1),
        elections=max(after.term, seen.term) - target.term,
    )
