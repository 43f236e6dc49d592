"""Snapshot files on a virtual disk, and a disk that fails at a chosen step, for tests."""

from __future__ import annotations

from impl.runtime.virtual_disk import VirtualDisk
from impl.storage.durable_log import DurableLog
from impl.storage.records import Genesis, Recovered, Voter
from impl.storage.snapshots import (
    SnapshotFile,
    SnapshotHeader,
    SnapshotReader,
    SnapshotWriter,
)

RAFT, SNAPSHOTS = "/data/raft", "/data/raft/snapshots"
NODE = "00000000-0000-4000-8000-000000000001"
GENESIS = Genesis("cluster", (Voter("a", NODE), Voter("b", "id-b")))
HEADER = SnapshotHeader("cluster", 7, 3, b"members", 4, "ab" * 8)
BLOCKS = [b"first block " * 5, b"x", b"the last block " * 9]


def prepared() -> VirtualDisk:
    disk = VirtualDisk()
    disk.make_directories(SNAPSHOTS)
    return disk


def write_snapshot(disk: VirtualDisk, header: SnapshotHeader = HEADER, suffix: str = "ab12") -> SnapshotFile:
    writer = SnapshotWriter(disk, SNAPSHOTS, header, suffix)
    for block in BLOCKS:
        writer.add(block)
    return writer.finish()


def read_snapshot(disk: VirtualDisk, name: str, cluster: str = "cluster") -> list[bytes]:
    reader, blocks = SnapshotReader(disk, f"{SNAPSHOTS}/{name}", cluster), []
    while (block := reader.block()) is not None:
        blocks.append(block)
    return blocks


class PowerFailed(Exception):
    """The process is no more."""


class CrashingDisk(VirtualDisk):
    """Fails for good at the n-th change, before it is made."""

    def __init__(self, start: VirtualDisk, changes: int) -> None:
        other = start.copy()
        super().__init__()
        self.__dict__.update(other.__dict__)
        self.changes = changes

    def _count(self) -> None:
        if self.changes == 0:
            raise PowerFailed
        self.changes -= 1

    def write(self, node: object, offset: int, data: bytes) -> None:
        self._count()
        super().write(node, offset, data)  # type: ignore[arg-type]

    def resize(self, node: object, size: int) -> None:
        self._count()
        super().resize(node, size)  # type: ignore[arg-type]

    def rename(self, source: str, target: str) -> None:
        self._count()
        super().rename(source, target)

    def remove(self, path: str) -> None:
        self._count()
        super().remove(path)

    def sync(self, node: object) -> None:
        self._count()
        super().sync(node)  # type: ignore[arg-type]

    def sync_directory(self, directory: str) -> None:
        self._count()
        super().sync_directory(directory)


def open_log(disk: VirtualDisk) -> tuple[DurableLog, Recovered]:
    return DurableLog.open(disk, RAFT, NODE, segment_bytes=1024)
