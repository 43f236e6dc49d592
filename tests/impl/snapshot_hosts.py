"""Servers of the virtual world as far as snapshots go, for tests."""

from __future__ import annotations

from impl.agent.logs import Log
from impl.agent.snapshots.lifecycle import Snapshots
from impl.agent.snapshots.transfer import (
    SnapshotReceiver,
)
from impl.catalog.commands import KvSet
from impl.catalog.store import Store
from impl.raft.errors import Replacing
from impl.raft.messages import InstallSnapshotRequest
from impl.raft.messages import encode as encode_message
from impl.raft.ready import SnapshotMarker, SnapshotMeta
from impl.rpc.handshake import Hello
from impl.runtime.interfaces import NANOSECONDS
from impl.runtime.virtual import VirtualProcess, VirtualWorld
from impl.runtime.virtual_disk import VirtualDisk

DIRECTORY = "/data/raft/snapshots"
CLUSTER = "cluster"


class Machine:
    """As much of a driver as snapshots need."""

    def __init__(self, store: Store | None = None, applied: int = 0) -> None:
        self.store = store if store is not None else Store()
        self.applied = applied
        self.term = 3
        self.taken: list[SnapshotMeta] = []
        self.received: list[tuple[Hello, InstallSnapshotRequest, SnapshotMeta]] = []
        self.restorations: list[tuple[int, str]] = []
        self.failures: list[str] = []
        self.wanted = True
        self.replacing = False

    def put(self, count: int, value: bytes = b"v") -> None:
        for _ in range(count):
            self.applied += 1
            self.store.apply(KvSet(f"key/{self.applied:06d}", value, 0), self.applied)

    def snapshot_meta(self) -> SnapshotMeta:
        if self.replacing:
            raise Replacing(self.applied + 1)
        return SnapshotMeta(
            index=self.applied, term=self.term, configuration=b"members", configuration_index=0, file="", checksum="",
            size=0, digest="d" * 16,
        )  # fmt: skip

    def snapshot_taken(self, meta: SnapshotMeta) -> bool:
        self.taken.append(meta)
        return self.wanted

    def snapshot_received(
        self, sender: Hello, request: InstallSnapshotRequest, frame: bytes, meta: SnapshotMeta
    ) -> bool:
        assert frame == encode_message(request)
        self.received.append((sender, request, meta))
        return self.wanted

    def restored(self, store: Store, index: int, state_digest: str) -> None:
        self.store, self.applied = store, index
        self.restorations.append((index, state_digest))

    def fail(self, reason: str) -> None:
        self.failures.append(reason)


class Host:
    """A server of the virtual world, as far as snapshots go. `restart` begins its next process."""

    def __init__(self, world: VirtualWorld, name: str, threshold: int = 10) -> None:
        self.world, self.name, self.threshold = world, name, threshold
        self.disk = VirtualDisk()
        self.disk.make_directories(DIRECTORY)
        self.lines: list[str] = []
        self.machine = Machine()
        self.boot()

    def boot(self, newest: SnapshotMarker | None = None) -> None:
        self.process: VirtualProcess = self.world.process(self.name, self.disk)
        self.log = Log(self.lines.append, lambda: 0.0)
        self.snapshots = Snapshots(
            self.process.runtime, DIRECTORY, CLUSTER, self.log, threshold=self.threshold, interval_ns=NANOSECONDS,
            newest=newest,
        )  # fmt: skip
        self.snapshots.start(self.machine)
        self.receiver = SnapshotReceiver(self.snapshots, self.machine, self.log)

    def take(self) -> SnapshotMeta:
        """A snapshot of what is applied, durable when this returns."""
        before = len(self.machine.taken)
        self.snapshots.take()
        assert self.world.run_until(lambda: len(self.machine.taken) > before, 60 * NANOSECONDS), self.lines
        return self.machine.taken[-1]


def marker_of(meta: SnapshotMeta) -> SnapshotMarker:
    return SnapshotMarker(
        meta.index, meta.term, meta.index, meta.term, meta.configuration, meta.configuration_index, meta.file,
        meta.checksum, meta.size, meta.digest,
    )  # fmt: skip
