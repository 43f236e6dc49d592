"""One server of the world: the real core over the real durable log on a disk that forgets what was not synced.

It stands for the driver of an agent: it appends and syncs what the core asks for, when it is told to. It keeps,
beside the disk, an account of what must survive a power loss; that account is what the observer believes.
"""

from __future__ import annotations

from random import Random

from impl.raft.core import Core
from impl.raft.messages import Entry
from impl.raft.ready import HardState, Record, Write
from impl.raft.settings import Restored, Settings
from impl.runtime.virtual_disk import VirtualDisk
from impl.storage.durable_log import DurableLog

SEGMENT_BYTES = 1024
"""Small, so that the log rolls often."""


class Node:
    """One server: running (`core` is there) or crashed (`core` is None)."""

    def __init__(self, name: str, voters: tuple[str, ...], seed: int, batch: int) -> None:
        self.name = name
        self.voters = voters
        self.settings = Settings(name=name, append_entries_max=batch)
        self.random = Random(f"{seed}/{name}")
        self.incarnation = 0
        self.core: Core | None = None
        self.applied: list[Entry] = []
        """What the state machine of this incarnation was fed."""
        self.queue: list[Write] = []
        """Writes that the core issued and that were not appended yet."""
        self.surely: list[Entry] = []
        """Entries that a power loss now would leave, at least."""
        self._disk = VirtualDisk()
        self._log: DurableLog | None = None
        self._appended: list[Write] = []

    @property
    def running(self) -> Core:
        """The core. Raises ValueError if the server is crashed."""
        if self.core is None:
            raise ValueError(f"{self.name} is down")
        return self.core

    def start(self) -> Core:
        """Begin an incarnation from what the disk holds."""
        if self.core is not None:
            raise ValueError(f"{self.name} runs already")
        self._log, recovered = DurableLog.open(self._disk, "raft", self.name, segment_bytes=SEGMENT_BYTES)
        self.incarnation += 1
        self.applied = []
        self.surely = list(recovered.entries)
        hard_state = recovered.hard_state
        restored = Restored(hard_state.term, hard_state.voted_for, recovered.entries)
        self.core = Core(self.settings, self.voters, restored, self.random, trace=True, now_ns=1)
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
                _replay(self.surely, write.records)
            number = self._appended[-1].number
            self._appended.clear()
            self.running.persisted(number)

    def has_writes(self) -> bool:
        """Whether something waits for the disk."""
        return bool(self.queue or self._appended)

    def crash(self, keep: int, torn_bytes: int) -> None:
        """Power loss: of what was not synced, the first `keep` changes survive, and some bytes of the next."""
        self._open_log.close()
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
        self.queue.clear()
        self._appended.clear()

    @property
    def _open_log(self) -> DurableLog:
        if self._log is None:
            raise ValueError(f"{self.name} is down")
        return self._log


def _replay(entries: list[Entry], records: list[Record]) -> None:
    """What recovery makes of `records`, appended to a log that holds `entries`."""
    for record in records:
        match record:
            case Entry(index=index):
                del entries[index - 1 :]
                entries.append(record)
            case HardState():
                pass
