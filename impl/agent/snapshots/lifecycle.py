"""Snapshots of the state machine: taken now and then, restored when the core says so, removed when no longer needed.

Both ways go in small steps: a few hundred rows on the loop, one block in the executor, in turn, so that neither the
loop nor the log's writes ever wait for a whole snapshot. A snapshot that cannot be written costs nothing but itself:
the log grows on, the next interval tries again. One that cannot be restored is fatal.

What is taken, sent or needed is for `core` to say; how a file looks, for `impl/storage/snapshots.py`. Source: Ongaro
2014, chapter 5; Consul's `raft_snapshot_threshold`, `raft_snapshot_interval`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import msgspec

from impl.agent.logs import Log
from impl.agent.measures import RaftMeasures, unheard
from impl.catalog.snapshot import (
    BLOCK_BYTES,
    ROWS_AT_ONCE,
    Row,
    StateDigest,
    StoreView,
    UnknownRow,
    decode_rows,
    encode_blocks,
    restore_rows,
)
from impl.catalog.store import Store
from impl.raft.errors import Replacing
from impl.raft.ready import SnapshotMarker, SnapshotMeta
from impl.runtime.interfaces import MILLISECONDS, Runtime, Task
from impl.runtime.off_loop import ignore, off_loop
from impl.storage.errors import CorruptSnapshot, MissingSnapshot, StorageError
from impl.storage.snapshots import (
    SnapshotFile,
    SnapshotHeader,
    SnapshotReader,
    SnapshotWriter,
    prune_snapshots,
)

ROWS_AT_FIRST = 8
"""Rows in the first step of a snapshot; later ones are as long as the size of the rows suggests."""


class SnapshotCounters(msgspec.Struct):
    """What became of snapshots in this incarnation."""

    taken: int = 0
    restored: int = 0
    failed: int = 0
    """Not written, for want of space or because of the disk."""
    sent: int = 0
    """Transfers that the receiver has accepted."""
    received: int = 0
    chunks_sent: int = 0
    chunks_received: int = 0
    refused_chunks: int = 0
    """Pieces whose checksum was wrong here; they are sent again."""
    refused_snapshots: int = 0
    """Whole snapshots whose checksum, cluster or format was wrong here; they are fetched again."""
    transfers_failed: int = 0
    """Ended by a lost connection or a refusal; they go on later."""


class Machine(Protocol):
    """What a snapshot is taken of and restored into: the driver."""

    store: Store
    applied: int

    def snapshot_meta(self) -> SnapshotMeta:
        """What a snapshot of `store` as it is now is of; the file is missing. Raises Replacing."""

    def snapshot_taken(self, meta: SnapshotMeta) -> bool:
        """The file is durable. False: it came too late to be of use."""

    def restored(self, store: Store, index: int, state_digest: str) -> None:
        """`store` is the state machine as the snapshot up to `index` holds it."""

    def fail(self, reason: str) -> None:
        """This process cannot go on."""


class Snapshots:
    """The snapshots of one server, in one directory."""

    def __init__(
        self,
        runtime: Runtime,
        directory: str,
        cluster_id: str,
        log: Log,
        *,
        threshold: int,
        interval_ns: int,
        newest: SnapshotMarker | None = None,
        new_store: Callable[[], Store] = Store,
        measures: RaftMeasures | None = None,
    ) -> None:
        """A snapshot is worth it after `threshold` entries, looked at every `interval_ns`.

        `newest`: the marker that recovery found; `new_store` makes an empty state machine to be filled.
        """
        self.runtime = runtime
        self.directory = directory
        self.cluster_id = cluster_id
        self.counters = SnapshotCounters()
        self.last_index = newest.index if newest is not None else 0
        """Up to here a snapshot is in force."""
        self.last_term = newest.term if newest is not None else 0
        self.taking = self.restoring = False
        self._log = log
        self._threshold = threshold
        self._interval_ns = interval_ns
        self._new_store = new_store
        self._measures = measures or unheard(runtime.clock)
        self._files = {newest.checksum: meta_of_marker(newest)} if newest is not None else {}
        """By checksum: the files that are known to be here."""
        self._machine: Machine | None = None
        self._tasks: list[Task] = []
        self._stopped = False

    def start(self, machine: Machine) -> None:
        """Begin to look whether it is time for a snapshot."""
        self._machine = machine
        self.runtime.clock.call_later(self._interval_ns, self._look)

    def reconfigure(self, threshold: int, interval_ns: int) -> None:
        """When a snapshot is worth it from now on; the look that is due comes first."""
        self._threshold, self._interval_ns = threshold, interval_ns

    def stop(self) -> None:
        """Leave what is under way."""
        self._stopped = True
        for task in self._tasks:
            task.cancel()

    def path(self, checksum: str) -> str | None:
        """Where the snapshot with this checksum is; None if it is not here."""
        known = self._files.get(checksum)
        return f"{self.directory}/{known.file}" if known is not None else None

    def meta(self, checksum: str) -> SnapshotMeta | None:
        """The snapshot with this checksum, if it is here."""
        return self._files.get(checksum)

    def spawn(self, task: Task) -> None:
        """A task that ends with this server."""
        self._tasks = [other for other in self._tasks if not other.done()]
        self._tasks.append(task)

    # --- taking -------------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        if self._stopped:
            return
        machine = self._machine
        assert machine is not None, "started"
        if machine.applied - self.last_index >= self._threshold:
            self.take()
        self.runtime.clock.call_later(self._interval_ns, self._look)

    def take(self) -> None:
        """Take a snapshot of what is applied now, unless one is being taken or restored."""
        if not (self.taking or self.restoring or self._stopped):
            self.taking = True
            self.spawn(self.runtime.tasks.spawn(self._take(), "snapshot"))

    async def _take(self) -> None:
        machine = self._machine
        assert machine is not None, "started"
        try:
            meta = machine.snapshot_meta()
        except Replacing:
            self.taking = False  # one is coming
            return
        # In the same step of the loop: the header says how far the view has applied the log.
        view, header = StoreView(machine.store), self._header(meta)
        started = self.runtime.clock.monotonic_ns()
        try:
            file, digest = await write_view(self.runtime, self.directory, header, view)
        except (StorageError, OSError) as error:
            self.counters.failed += 1
            self._log.error("snapshot not taken: the log grows until one is", error=str(error))
        else:
            elapsed = (self.runtime.clock.monotonic_ns() - started) // MILLISECONDS
            self._log.info("snapshot taken", index=file.header.index, file=file.name, bytes=file.size, ms=elapsed)
            self._measures.snapshot_persist.observe(elapsed)
            self._taken(machine, meta_of(file, digest))
        finally:
            view.close()
            self.taking = False

    def _header(self, meta: SnapshotMeta) -> SnapshotHeader:
        return SnapshotHeader(
            self.cluster_id, meta.index, meta.term, meta.configuration, meta.configuration_index, meta.digest
        )

    def _taken(self, machine: Machine, meta: SnapshotMeta) -> None:
        self.add(meta)
        if machine.snapshot_taken(meta):
            self.counters.taken += 1
            self.last_index, self.last_term = meta.index, meta.term
        else:
            self.remove(meta)

    def add(self, meta: SnapshotMeta) -> None:
        """The file is complete and durable."""
        self._files[meta.checksum] = meta

    def remove(self, meta: SnapshotMeta) -> None:
        """Nobody needs the file."""
        del self._files[meta.checksum]
        path = f"{self.directory}/{meta.file}"
        self.runtime.executor.submit(lambda: self.runtime.disk.remove(path), ignore, self._not_removed)

    def marked(self, marker: SnapshotMarker, remove_segments: Callable[[], int]) -> None:
        """The log's marker is durable: what it makes superfluous can go."""
        self.last_index, self.last_term = marker.index, marker.term

        def work() -> tuple[int, list[str]]:
            return remove_segments(), prune_snapshots(self.runtime.disk, self.directory, marker.file)

        self.runtime.executor.submit(work, self._removed, self._not_removed)

    def _removed(self, removed: tuple[int, list[str]]) -> None:
        segments, files = removed
        self._files = {checksum: known for checksum, known in self._files.items() if known.file not in files}
        if segments or files:
            self._log.info("removed what the newest snapshot stands for", segments=segments, snapshots=len(files))

    def _not_removed(self, error: BaseException) -> None:
        if isinstance(error, StorageError):
            assert self._machine is not None, "started"
            self._machine.fail(str(error))
        self._log.error("cannot remove old snapshots", error=str(error))

    # --- restoring ----------------------------------------------------------------------------------------------------

    def restore(self, meta: SnapshotMeta) -> None:
        """Build the state machine anew from this snapshot. One at a time."""
        self.restoring = True
        self.spawn(self.runtime.tasks.spawn(self._restore(meta), "restore"))

    async def _restore(self, meta: SnapshotMeta) -> None:
        machine = self._machine
        assert machine is not None, "started"
        started = self.runtime.clock.monotonic_ns()
        try:
            store, digest = await self._read(meta)
        except (StorageError, OSError, UnknownRow) as error:
            machine.fail(f"the snapshot up to {meta.index} cannot be restored: {error}")
            return
        self.restoring = False
        self.counters.restored += 1
        elapsed = (self.runtime.clock.monotonic_ns() - started) // MILLISECONDS
        self._log.info("snapshot restored", index=meta.index, keys=len(store), ms=elapsed)
        self._measures.snapshot_restore.observe(elapsed)
        machine.restored(store, meta.index, digest)

    async def _read(self, meta: SnapshotMeta) -> tuple[Store, str]:
        store, digest = self._new_store(), StateDigest()
        path = f"{self.directory}/{meta.file}"
        reader = await off_loop(self.runtime, lambda: SnapshotReader(self.runtime.disk, path, self.cluster_id))
        try:
            while (block := await off_loop(self.runtime, reader.block)) is not None:
                digest.add(block)
                restore_rows(store, decode_rows(block))
            if reader.checksum != meta.checksum:
                raise CorruptSnapshot(path, 0, "it is not the file that the log speaks of")
        finally:
            self.runtime.executor.submit(reader.close, ignore, ignore)
        return store, digest.hexdigest()


async def write_view(
    runtime: Runtime, directory: str, header: SnapshotHeader, view: StoreView
) -> tuple[SnapshotFile, str]:
    """Write the view's rows; the file, and the digest of the rows. Leaves nothing behind if it fails.

    Raises StorageError, OSError.
    """
    suffix = runtime.random.randbytes(4).hex()
    digest = StateDigest()
    writer = await off_loop(runtime, lambda: SnapshotWriter(runtime.disk, directory, header, suffix))

    def write(rows: Sequence[Row]) -> int:
        blocks = encode_blocks(rows)
        for block in blocks:
            digest.add(block)
            writer.add(block)
        return sum(map(len, blocks))

    count = ROWS_AT_FIRST
    try:
        while not view.done:
            rows = view.rows(count)
            written = await off_loop(runtime, partial(write, rows))
            # Rows may be large, and the log's next write waits for this one.
            if written >= BLOCK_BYTES:
                count = max(count // 2, 1)
            elif len(rows) >= count:
                count = min(2 * count, ROWS_AT_ONCE)
        return await off_loop(runtime, writer.finish), digest.hexdigest()
    except BaseException:
        runtime.executor.submit(writer.abort, ignore, ignore)
        raise


def load_store(runtime: Runtime, directory: str, marker: SnapshotMarker, cluster_id: str, store: Store) -> str:
    """Fill an empty store from the snapshot that the log begins with, at once: nothing else runs yet.

    Returns the digest of the state. Raises MissingSnapshot, CorruptSnapshot, ForeignSnapshot, UnsupportedSnapshot.
    """
    path = f"{directory}/{marker.file}"
    if not runtime.disk.exists(path):
        raise MissingSnapshot(path, marker.index)
    reader, digest = SnapshotReader(runtime.disk, path, cluster_id), StateDigest()
    try:
        while (block := reader.block()) is not None:
            digest.add(block)
            restore_rows(store, decode_rows(block))
        if reader.checksum != marker.checksum:
            raise CorruptSnapshot(path, 0, "it is not the file that the log speaks of")
    except UnknownRow as error:
        raise CorruptSnapshot(path, 0, str(error)) from error
    finally:
        reader.close()
    return digest.hexdigest()


def meta_of(file: SnapshotFile, state_digest: str = "") -> SnapshotMeta:
    """A file as the core knows it."""
    header = file.header
    return SnapshotMeta(
        index=header.index,
        term=header.term,
        configuration=header.configuration,
        configuration_index=header.configuration_index,
        file=file.name,
        checksum=file.checksum,
        size=file.size,
        digest=header.digest,
        state_digest=state_digest,
    )


def meta_of_marker(marker: SnapshotMarker) -> SnapshotMeta:
    """The file that a marker of the log names: what the two have in common."""
    return msgspec.convert(marker, SnapshotMeta, from_attributes=True)
