"""The way from the core's writes to the disk: one append and sync at a time, off the loop; what gathers meanwhile goes
together (group commit).

A full disk is waited out: nothing is confirmed until there is space. Any other failure is final, since a second fsync
would confirm what the first one lost. It must not reorder writes, nor look into them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from impl.agent.logs import Log
from impl.raft.ready import Record
from impl.raft.ready import Write as DiskWrite
from impl.runtime.interfaces import MILLISECONDS, Runtime
from impl.runtime.off_loop import ignore
from impl.storage.errors import DiskFull

DISK_FULL_RETRY_NS = 200 * MILLISECONDS


class AppendedLog(Protocol):
    """The part of the durable log that is written with (impl/storage)."""

    def append(self, records: Sequence[Record]) -> None:
        """Write records in order. Raises DiskFull: nothing of them counts as written."""
        ...

    def sync(self) -> None:
        """Make everything appended durable."""
        ...

    def wants_spare(self) -> bool:
        """Whether `make_spare` should be called now."""
        ...

    def make_spare(self) -> None:
        """Make ready what later writes need, beside those that go on now."""
        ...

    def remove_forgotten(self) -> int:
        """Remove the segments that a durable snapshot marker stands for; returns how many."""
        ...


class DiskWrites:
    """The writes of one core, in order."""

    def __init__(
        self,
        runtime: Runtime,
        disk_log: AppendedLog,
        log: Log,
        written: Callable[[list[DiskWrite]], None],
        fail: Callable[[str], None],
        measured: Callable[[int], None] = lambda elapsed_ns: None,
    ) -> None:
        """`written`: these writes, and all before them, are durable; `fail` ends the process.

        `measured` hears how long each append and sync took.
        """
        self._measured = measured
        self._runtime = runtime
        self._disk_log = disk_log
        self._log = log
        self._confirm = written
        self._fail = fail
        self._writes: list[DiskWrite] = []
        self._busy = False
        self._full = False
        """Until the next attempt to write."""
        self._full_reported = False
        self._stopped = False

    def add(self, write: DiskWrite) -> None:
        """The next write; `start` begins it."""
        self._writes.append(write)

    def stop(self) -> None:
        """Begin no more writes; one that is under way is not confirmed."""
        self._stopped = True

    def start(self) -> None:
        """Begin to write what was added; it follows by itself if a write is under way.

        To be called when the loop has nothing else to do: a thread that is woken earlier finds the interpreter's lock
        taken and sleeps again, two context switches for nothing, and starts no sooner.
        """
        if self._busy or self._full or self._stopped or not self._writes:
            return
        writes, self._writes = self._writes, []
        records = [record for write in writes for record in write.records]
        self._busy = True
        now_ns = self._runtime.clock.monotonic_ns

        def work() -> int:
            started_ns = now_ns()
            self._disk_log.append(records)
            self._disk_log.sync()
            return now_ns() - started_ns

        def done(elapsed_ns: int) -> None:
            self._measured(elapsed_ns)
            self._written(writes)

        self._runtime.executor.submit(work, done, lambda error: self._write_failed(writes, error))

    def _written(self, writes: list[DiskWrite]) -> None:
        self._busy = False
        if self._full_reported:
            self._full_reported = False
            self._log.info("there is space again: everything that waited is on disk")
        if self._stopped:
            return
        if self._disk_log.wants_spare():
            self._runtime.background.submit(self._disk_log.make_spare, ignore, self._no_spare)
        self._confirm(writes)
        self.start()

    def _no_spare(self, error: BaseException) -> None:
        self._log.warn("the log's next segment could not be made ahead", error=str(error))

    def _write_failed(self, writes: list[DiskWrite], error: BaseException) -> None:
        self._busy = False
        if not isinstance(error, DiskFull):
            self._fail(f"the log cannot be written: {error}")
        if not self._full_reported:
            self._full_reported = True
            self._log.error("disk full: acknowledging and voting nothing until there is space", error=str(error))
        self._full = True
        self._writes[:0] = writes
        self._runtime.clock.call_later(DISK_FULL_RETRY_NS, self._retry)

    def _retry(self) -> None:
        self._full = False
        self.start()
