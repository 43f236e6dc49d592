"""What an agent counts and measures of its work, under Consul's names: the instruments of its parts.

Each part is handed its own, and counts in the middle of its work: for a put that is a few additions and three looks at
the clock. What the parts know anyway is asked for when it is shown (`gauges`). Source: Consul, "Telemetry".

*Deviations:* commit times are those of what was proposed together, from the proposal until it is applied; times of the
disk are those of one append and one sync, whatever they carry.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from impl.catalog.commands import (
    Deregister,
    KvAcquire,
    KvCas,
    KvDelete,
    KvDeleteCas,
    KvDeleteTree,
    KvRelease,
    KvSet,
    Register,
    SessionCreate,
    SessionDestroy,
    Transaction,
    Write,
)
from impl.raft.ready import Role
from impl.runtime.interfaces import MILLISECONDS, Clock
from impl.telemetry.instruments import Sample, Telemetry

_KV: Final = (KvSet, KvCas, KvDelete, KvDeleteCas, KvDeleteTree, KvAcquire, KvRelease)


class RaftMeasures:
    """What a driver measures."""

    def __init__(self, telemetry: Telemetry, clock: Clock) -> None:
        self._now_ns = clock.monotonic_ns
        self._apply = telemetry.counter("raft.apply", "Entries that this server proposed as the leader.")
        self._commit = telemetry.sample(
            "raft.commitTime", "From the proposal of entries until they are applied, in ms."
        )
        self._together = telemetry.sample("raft.leader.dispatchNumLogs", "Entries that the leader proposed together.")
        self._dispatch = telemetry.sample("raft.leader.dispatchLog", "A leader's append to its log and sync, in ms.")
        self._store = telemetry.sample("raft.rpc.appendEntries.storeLogs", "The same of a server that does not lead.")
        self.snapshot_persist = telemetry.sample("raft.snapshot.persist", "Writing a snapshot, in ms.")
        self.snapshot_restore = telemetry.sample("raft.rpc.installSnapshot", "Loading the leader's snapshot, in ms.")
        self._roles = {
            Role.LEADER: telemetry.counter("raft.state.leader", "Times that this server came to lead."),
            Role.CANDIDATE: telemetry.counter("raft.state.candidate", "Elections that this server began."),
            Role.FOLLOWER: telemetry.counter("raft.state.follower", "Times that this server became a follower."),
        }
        self._stepped_down = telemetry.counter("comitia.raft.stepped_down", "Times that this server led, and gave way.")
        self._proposed: deque[tuple[int, int]] = deque()
        """(last index, when) of what was proposed together and is not applied yet."""

    def proposed(self, count: int, last: int) -> None:
        """The leader appended so many entries, up to `last`."""
        self._apply.total += count
        self._together.observe(count)
        self._proposed.append((last, self._now_ns()))

    def applied(self, index: int) -> None:
        """Entries up to here are applied."""
        proposed = self._proposed
        if proposed and proposed[0][0] <= index:
            now_ns = self._now_ns()
            while proposed and proposed[0][0] <= index:
                self._commit.observe((now_ns - proposed.popleft()[1]) / MILLISECONDS)

    def changed(self, role: Role, stepped_down: bool) -> None:
        """This server has another role: what it proposed may never be committed."""
        self._roles[role].total += 1
        self._stepped_down.total += stepped_down
        self._proposed.clear()

    def written(self, elapsed_ns: int, role: Role) -> None:
        """The disk took so long."""
        (self._dispatch if role is Role.LEADER else self._store).observe(elapsed_ns / MILLISECONDS)


def unheard(clock: Clock) -> RaftMeasures:
    """For whoever has no telemetry: measured, and never shown."""
    return RaftMeasures(Telemetry(clock), clock)


class RequestMeasures:
    """What the leader measures of writes, and any server of reads."""

    def __init__(self, telemetry: Telemetry) -> None:
        kv = telemetry.sample("kvs.apply", "A write of the KV store on the leader, in ms.")
        session = telemetry.sample("session.apply", "The begin or end of a session, in ms.")
        self._writes: dict[type[Write], Sample] = {
            **dict.fromkeys(_KV, kv),
            SessionCreate: session,
            SessionDestroy: session,
            Transaction: telemetry.sample("txn.apply", "A transaction, in ms."),
            Register: telemetry.sample("catalog.register", "A registration in the catalog, in ms."),
            Deregister: telemetry.sample("catalog.deregister", "A deregistration, in ms."),
        }
        self.queries = telemetry.counter("rpc.query", "Reads that this server answered.")

    def written(self, command: Write, elapsed_ns: int) -> None:
        """The leader carried out a command, or the state machine refused it."""
        sample = self._writes.get(type(command))
        if sample is not None:
            sample.observe(elapsed_ns / MILLISECONDS)
