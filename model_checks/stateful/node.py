"""One server of the world: the real core over the real durable log on a disk that forgets what was not synced.

It stands for the driver of an agent: it appends and syncs what the core asks for, when it is told to, has the log's
next segment made ahead, takes and restores snapshots, and reads a clock of its own, which drifts. It keeps, beside the
disk, an account of what must survive a power loss; that account is what the observer believes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from random import Random

import msgspec

from impl.raft.configuration import Member
from impl.raft.core import Core
from impl.raft.errors import Replacing
from impl.raft.messages import Entry, InstallSnapshotRequest
from impl.raft.ready import HardState, Record, SnapshotMarker, SnapshotMeta, Write
from impl.raft.settings import Restored, Settings
from impl.runtime.virtual_disk import VirtualDisk
from impl.storage.durable_log import DurableLog
from model_checks.stateful.tracing import state_digest

SEGMENT_BYTES = 1024
"""Small, so that the log rolls often."""

Content = tuple[Entry, ...]
"""The state machine of the world: every entry that it was fed."""


class Node:
    """One server: running (`core` is there) or crashed (`core` is None)."""

    def __init__(self, settings: Settings, members: tuple[str, ...], seed: int, *, traced: bool) -> None:
        """`members`: of the genesis. `traced`: as for processes of one host, who all read one clock."""
        self.name = settings.name
        self.members = members
        self.settings = settings
        self.random = Random(f"{seed}/{self.name}")
        rates = (1.0,) if traced else (1 / (1 + settings.clock_drift), 1.0, 1 + settings.clock_drift)
        self.clock_rate = self.random.choice(rates)
        """How fast its clock runs against real time."""
        self.incarnation = 0
        self.core: Core | None = None
        self.applied: list[Entry] = []
        """What the state machine of this incarnation holds."""
        self.queue: list[Write] = []
        """Writes that the core issued and that were not appended yet."""
        self.surely: list[Entry] = []
        """Entries that a power loss now would leave, at least, those in a snapshot included."""
        self._files: dict[str, tuple[Content, SnapshotMeta]] = {}
        """Snapshot files by checksum: durable as soon as they are here."""
        self._disk = VirtualDisk()
        self._log: DurableLog | None = None
        self._background: list[Iterator[None]] = []
        """What the other thread has to do, one after the other: spare segments."""
        self._appended: list[Write] = []
        self._traced = traced

    @property
    def running(self) -> Core:
        """The core. Raises ValueError if the server is crashed."""
        if self.core is None:
            raise ValueError(f"{self.name} is down")
        return self.core

    def clock(self, real_ns: int) -> int:
        """What its monotonic clock shows."""
        return 1 + int(real_ns * self.clock_rate)

    def start(self, real_ns: int) -> Core:
        """Begin an incarnation from what the disk holds."""
        if self.core is not None:
            raise ValueError(f"{self.name} runs already")
        self._log, recovered = DurableLog.open(self._disk, "raft", self.name, segment_bytes=SEGMENT_BYTES)
        self.incarnation += 1
        marker, hard_state = recovered.snapshot, recovered.hard_state
        content = self._files[marker.checksum][0] if marker is not None else ()
        self.applied = list(content)
        self.surely = [*content[: marker.base if marker is not None else 0], *recovered.entries]
        restored = Restored(hard_state.term, hard_state.voted_for, recovered.entries, marker)
        members = [Member(name) for name in self.members]
        now_ns = self.clock(real_ns)
        self.core = Core(self.settings, members, restored, self.random, trace=True, now_ns=now_ns)
        return self.core

    def append(self, count: int) -> None:
        """Give the next `count` writes to the disk: they may or may not survive a power loss."""
        for write in self.queue[:count]:
            self._open_log.append(write.records)
            self._appended.append(write)
        del self.queue[:count]

    def sync(self) -> None:
        """Make what was appended durable, and tell the core."""
        self._open_log.sync()
        if self._appended:
            for write in self._appended:
                _replay(self.surely, write.records, self._files)
            number = self._appended[-1].number
            self._appended.clear()
            self._open_log.remove_forgotten()
            if self._open_log.wants_spare():
                self._background.append(self._open_log.spare_in_steps())
            self.running.persisted(number)

    def make_spare(self, steps: int) -> int:
        """Let the other thread make so many changes of the disk; returns how many spare segments it finished."""
        finished = 0
        while steps and self._background:
            steps -= 1
            try:
                next(self._background[0])
            except StopIteration:
                del self._background[0]
                finished += 1
        return finished

    def fail_power_after(self, changes: int | None) -> None:
        """So many changes of the disk from now on the power fails, whatever is going on; None: it does not."""
        self._disk.fail_power_after(changes)

    def has_writes(self) -> bool:
        """Whether something waits for the disk."""
        return bool(self.queue or self._appended)

    def take_snapshot(self) -> bool:
        """Write a snapshot file of the state machine. Returns whether the core wanted it."""
        content = tuple(self.applied)
        if not content:
            return False
        try:
            described = self.running.snapshot_meta()
        except Replacing:
            return False
        encoded = msgspec.msgpack.encode(content)
        digest = state_digest(content) if self._traced else ""
        meta = msgspec.structs.replace(
            described, file=f"{len(content)}.snap", size=len(encoded),
            checksum=blake2b(encoded, digest_size=32).hexdigest(), state_digest=digest,
        )  # fmt: skip
        self._files[meta.checksum] = (content, meta)
        return self.running.snapshot_taken(meta)

    @property
    def durable_snapshot(self) -> int:
        """Index of the newest snapshot that a restart would find, at least."""
        marker = self.running.server.disk.durable_marker
        return marker.index if marker is not None else 0

    @property
    def durable_base(self) -> int:
        """What a restart would find forgotten, at least."""
        marker = self.running.server.disk.durable_marker
        return marker.base if marker is not None else 0

    def file(self, checksum: str) -> tuple[Content, SnapshotMeta]:
        """A snapshot file, to be sent."""
        return self._files[checksum]

    def receive_snapshot(self, request: InstallSnapshotRequest, file: tuple[Content, SnapshotMeta]) -> SnapshotMeta:
        """A snapshot file arrived, and is durable: `Core.snapshot_received` may be told."""
        self._files[request.checksum] = file
        return file[1]

    def restore(self, meta: SnapshotMeta) -> Content:
        """Replace the state machine."""
        content, _ = self._files[meta.checksum]
        self.applied = list(content)
        self.running.snapshot_restored(meta.index, meta.state_digest)
        return content

    def crash(self, keep: int, torn_bytes: int) -> None:
        """Power loss: of what was not synced, the first `keep` changes survive, and some bytes of the next."""
        self._open_log.close()
        self.lose_power(keep, torn_bytes)

    def lose_power(self, keep: int, torn_bytes: int) -> None:
        """As `crash`, in the middle of a call of the log, or before there is one."""
        self._disk.power_loss(keep=min(keep, self._disk.unsynced()), torn_bytes=torn_bytes)
        self._stop()

    def crash_scattered(self, seed: int) -> None:
        """Power loss: of what was not synced, any sectors survive, as a disk that reorders may have it."""
        self._open_log.close()
        kept = Random(seed)
        self._disk.power_loss_of_sectors(lambda: kept.random() < 0.6)
        self._stop()

    def _stop(self) -> None:
        self._disk.process_crash()
        self.core = None
        self._log = None
        self._background.clear()
        self.queue.clear()
        self._appended.clear()

    @property
    def _open_log(self) -> DurableLog:
        if self._log is None:
            raise ValueError(f"{self.name} is down")
        return self._log


def _replay(entries: list[Entry], records: list[Record], files: Mapping[str, tuple[Content, SnapshotMeta]]) -> None:
    """What recovery makes of `records`, appended to a log that holds `entries`."""
    for record in records:
        match record:
            case Entry(index=index):
                del entries[index - 1 :]
                entries.append(record)
            case SnapshotMarker(index=index, base=base, checksum=checksum):
                if base == index and [entry.term for entry in entries[index - 1 : index]] != [record.term]:
                    entries[:] = files[checksum][0]
            case HardState():
                pass
