"""The log on disk: append-only segments; one buffered write per append, one fdatasync per sync.

An append is visible to the next recovery as a prefix at most, and durable when the following `sync` returned. It
never spans segments: if it does not fit, the current segment is synced and a new one is begun first, so that the
only errors of space come before any byte of the append is visible (segments are preallocated), or from a file system
that allocates again on each write; what such a write left is overwritten with zeros before the next one.

Single-threaded by contract: all calls come from one thread at a time (the executor's), but for `make_spare`. After a
fatal error the log refuses every call: a second fsync would confirm what the first one lost.

A snapshot marker forgets the entries up to its base. Once it is durable, `remove_forgotten` removes the oldest segments
as far as they hold nothing else: each segment carries the genesis and the newest marker, so the first one that is left
says what the log was when it began.

It must not know Raft's rules beyond the order of its records, nor what is in a snapshot.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from impl.runtime.interfaces import Disk, File
from impl.storage.errors import (
    CorruptLog,
    DiskFull,
    FsyncFailed,
    LogClosed,
    OutOfOrder,
    StorageError,
    WriteFailed,
    write_error,
)
from impl.storage.log_state import LogState
from impl.storage.records import Entry, HardState, Record, Recovered, SnapshotMarker
from impl.storage.recovery import SUFFIX, UNFINISHED, Found, Tail, recover, segment_name
from impl.storage.segment import HEADER_BYTES, SEGMENT_BYTES, SegmentHeader, encode_header, encode_records
from impl.storage.spare import Spare


class DurableLog:
    """A log that is open for appending. Made by `open`."""

    def __init__(self, disk: Disk, directory: str, node_id: str, segment_bytes: int, found: Found) -> None:
        """Not for callers: use `open`."""
        self._disk = disk
        self._directory = directory
        self._node_id = node_id
        self._segment_bytes = segment_bytes
        self._state = found.state
        self._segments = list(found.segments)
        """(sequence, highest index of an entry in it) of each segment."""
        self._durable_base = found.state.base
        self._file: File | None = None
        self._spare = Spare(disk, directory, segment_bytes)
        self._sequence = 0
        self._size = 0
        self._end = 0
        """Where the next record goes."""
        self._synced_end = 0
        self._dirty = False
        """Something was written since the last sync: records, or zeros over what a failed write left."""
        self._scrub_end = 0
        """Bytes up to here may hold the rest of a failed write; zeros must replace them first."""
        self._crc = 0
        self._refusal: str | None = None

    @classmethod
    def open(
        cls, disk: Disk, directory: str, node_id: str, *, must_exist: bool = False, segment_bytes: int = SEGMENT_BYTES
    ) -> tuple[DurableLog, Recovered]:
        """Recover the log in `directory`, or begin one; cut a torn tail; make what was read durable.

        `must_exist`: this directory had a log once, so that its absence is a loss. Raises CorruptLog,
        UnsupportedFormat, ForeignDirectory, DiskFull, FsyncFailed, WriteFailed.
        """
        disk.make_directories(directory)
        recovered, found = recover(disk, directory, node_id)
        if must_exist and not found.segments:
            raise CorruptLog(segment_name(1), 0, 0, "the segment is missing: the directory held a log and does not now")
        log = cls(disk, directory, node_id, segment_bytes, found)
        log._begin(found.tail)
        return log, recovered

    def append(self, records: Sequence[Record]) -> None:
        """Write `records` after those before, in one write; durable when the next `sync` returned.

        An Entry whose index is not beyond the last one replaces everything from there on. Raises DiskFull (nothing
        counts as written; try the same append again later. A crash may still reveal it, as any write that was issued
        and not confirmed), OutOfOrder, WriteFailed, FsyncFailed (of the segment before, if a new one is begun),
        LogClosed.
        """
        self._usable()
        after, run, replacing, new_highest = self._check_order(records)
        self._scrub()
        data, crc = encode_records(records, self._crc, self._end - self._synced_end, replacing, run)
        if self._end + len(data) > self._size:
            self._roll(len(data))
            data, crc = encode_records(records, self._crc, 0, replacing, run)
        self._write(self._end, data)
        self._end += len(data)
        self._crc = crc
        self._state = after
        sequence, highest = self._segments[-1]
        self._segments[-1] = (sequence, max(highest, new_highest))

    def sync(self) -> None:
        """Make everything appended durable (fdatasync). Raises FsyncFailed, after which the log refuses all use."""
        self._usable()
        if not self._dirty:
            return
        self._sync_file(self._open_file())
        self._synced_end, self._dirty = self._end, False
        self._durable_base = self._state.base

    def wants_spare(self) -> bool:
        """Whether `make_spare` must be called now; true at most once for each segment."""
        return self._refusal is None and self._spare.is_due(self._sequence, self._end / self._size)

    def make_spare(self) -> None:
        """Allocate the next segment ahead. The one call that may come from another thread, beside others."""
        for _ in self.spare_in_steps():
            pass

    def spare_in_steps(self) -> Iterator[None]:
        """As `make_spare`; each change of the disk is a step, for schedulers that choose what happens in between."""
        return self._spare.make()

    def remove_forgotten(self) -> int:
        """Remove the oldest segments whose entries a durable snapshot marker forgets; returns how many.

        They go one by one, the oldest first, each for good before the next: whatever is left is a log without gaps.
        Raises WriteFailed, FsyncFailed, LogClosed.
        """
        self._usable()
        removed = 0
        while len(self._segments) > 1 and 0 < self._durable_base >= self._segments[0][1]:
            path = f"{self._directory}/{segment_name(self._segments[0][0])}"
            try:
                self._disk.remove(path)
            except OSError as error:
                raise self._fatal(WriteFailed(path, error)) from error
            self._sync_directory()
            del self._segments[0]
            removed += 1
        return removed

    def close(self) -> None:
        """Release the file. What was not synced may be lost."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._spare.close()
        self._refusal = self._refusal or "the log was closed"

    @property
    def last_index(self) -> int:
        """Index of the last entry appended; 0 if there is none."""
        return self._state.last_index

    @property
    def hard_state(self) -> HardState:
        """In force after everything appended."""
        return self._state.hard_state

    def _begin(self, tail: Tail) -> None:
        """Remove what an unfinished roll left; zero a torn tail; sync; or make the first segment."""
        for name in self._disk.names(self._directory):
            if name.endswith(SUFFIX + UNFINISHED):
                self._disk.remove(f"{self._directory}/{name}")
        if not tail.sequence:
            self._roll(0)
            return
        self._file = self._disk.open(f"{self._directory}/{segment_name(tail.sequence)}")
        self._sequence, self._size = tail.sequence, tail.size
        self._end, self._crc, self._scrub_end = tail.end, tail.crc, tail.garbage_end
        self._scrub()
        # Records that a killed process wrote and never synced are still only in the page cache. They become the
        # durable point of this incarnation, so they must be durable before anybody is told of them; so must the
        # segment's name.
        self._sync_file(self._file)
        self._sync_directory()
        self._synced_end, self._dirty = self._end, False

    def _check_order(self, records: Sequence[Record]) -> tuple[LogState, int, list[int], int]:
        """What the log will be after `records`, how many of them are a run, which are snapshot markers that replace it,
        and the highest index of an entry among them.

        Raises OutOfOrder if they do not continue it.
        """
        after, replacing = self._state.copy(), list[int]()
        run = after.take_run(records)
        highest = after.last_index if run else 0
        for position in range(run, len(records)):
            record = records[position]
            replaces = isinstance(record, SnapshotMarker) and not after.holds(record.index, record.term)
            if replaces:
                replacing.append(position)
            cause = after.take(record, replaces)
            if cause:
                raise OutOfOrder(cause)
            if isinstance(record, Entry):
                highest = max(highest, record.index)
        return after, run, replacing, highest

    def _roll(self, needed: int) -> None:
        """Begin a new segment with room for `needed` bytes. On DiskFull the current one stays in use."""
        if self._file is not None:
            self.sync()
        state, carried = self._state, self._carried()
        room = sum(len(encode_records([record], 0, 0)[0]) for record in carried)
        size = max(self._segment_bytes, HEADER_BYTES + room + needed)
        header = SegmentHeader(
            self._sequence + 1,
            self._node_id,
            size,
            self._end,
            self._crc,
            state.last_index,
            state.hard_state,
            len(carried),
        )
        block, crc = encode_header(header)
        repeated, crc = encode_records(carried, crc, 0)
        block += repeated
        path = f"{self._directory}/{segment_name(self._sequence + 1)}"
        file = self._make_file(path, size, block)
        if self._file is not None:
            self._file.close()
        self._file = file
        self._sequence, self._size, self._crc = self._sequence + 1, size, crc
        self._end = self._synced_end = self._scrub_end = len(block)
        self._dirty = False
        self._segments.append((self._sequence, 0))

    def _carried(self) -> list[Record]:
        """What a segment repeats, so that those before it are not needed to understand it."""
        return [record for record in (self._state.genesis, self._state.snapshot) if record is not None]

    def _make_file(self, path: str, size: int, block: bytes) -> File:
        """A preallocated segment with its header, durable under its name: a segment that exists is complete."""
        name, file = self._spare.path, self._spare.take()
        try:
            if file is None:
                name = path + UNFINISHED
                if self._disk.exists(name):
                    self._disk.remove(name)
                file = self._disk.open(name, create=True)
            try:
                file.allocate(size)  # nothing to do for a spare file, unless the write is large
                file.write(0, block)
            except OSError:
                file.close()
                self._disk.remove(name)
                raise
        except OSError as error:
            raise self._write_error(path, error) from error
        self._sync_file(file)
        try:
            self._disk.rename(name, path)
        except OSError as error:
            raise self._fatal(WriteFailed(path, error)) from error
        self._sync_directory()
        return file

    def _write(self, offset: int, data: bytes) -> None:
        file = self._open_file()
        self._dirty = True
        try:
            file.write(offset, data)
        except OSError as error:
            self._scrub_end = max(self._scrub_end, offset + len(data))
            raise self._write_error(file.path, error) from error

    def _scrub(self) -> None:
        """Replace by zeros what a torn or failed write left beyond the end: it must never look like a record again."""
        if self._scrub_end > self._end:
            self._write(self._end, bytes(self._scrub_end - self._end))
        self._scrub_end = self._end

    def _sync_file(self, file: File) -> None:
        try:
            file.sync()
        except OSError as error:
            raise self._fatal(FsyncFailed(file.path, error)) from error

    def _sync_directory(self) -> None:
        try:
            self._disk.sync_directory(self._directory)
        except OSError as error:
            raise self._fatal(FsyncFailed(self._directory, error)) from error

    def _open_file(self) -> File:
        if self._file is None:
            raise LogClosed("the log was closed")
        return self._file

    def _usable(self) -> None:
        if self._refusal is not None:
            raise LogClosed(self._refusal)

    def _write_error(self, path: str, error: OSError) -> StorageError:
        cause = write_error(path, error)
        return cause if isinstance(cause, DiskFull) else self._fatal(cause)

    def _fatal(self, error: StorageError) -> StorageError:
        self._refusal = f"the log is unusable since: {error}"
        return error
