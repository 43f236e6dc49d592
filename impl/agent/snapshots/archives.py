"""Archives of the state on a server: made from a view of the store, received, and verified.

Both are temporary files in the data directory (`archives/`), gone when they were read or closed, or when nobody went on
for a minute, and at the next start. An archive is written to its file before anything of it is handed out, so that the
view, which costs memory while others write, lives as long as the disk takes and not as long as a client.

All work goes in steps of a few milliseconds, on the loop or in the executor. Nothing here touches the state: see
`restoring`. Source: Consul, "Snapshot HTTP API".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

import msgspec

from impl.agent.config.validated import ConfigError, parse_duration
from impl.agent.describe import VERSION
from impl.agent.driver import Driver
from impl.agent.logs import Log
from impl.agent.requests.api import DefiniteError
from impl.agent.snapshots.lifecycle import write_view
from impl.catalog.restore import Place, Soundness, place
from impl.catalog.rows import BEHAVIORS, STATUSES
from impl.catalog.snapshot import BLOCK_BYTES, ROWS_AT_ONCE, StateDigest, StoreView, encode_rows
from impl.catalog.tagged import ArchivedRow, CheckRow, NodeRow, ServiceRow, SessionRow
from impl.raft.errors import Replacing
from impl.runtime.interfaces import NANOSECONDS, Disk, File, Runtime, Timer
from impl.runtime.off_loop import ignore, off_loop
from impl.storage.archive import VERSION as ARCHIVE_VERSION
from impl.storage.archive import ArchiveMeta, BadArchive, Unpacking, pack
from impl.storage.errors import CorruptSnapshot, StorageError, UnsupportedSnapshot
from impl.storage.snapshots import SnapshotHeader, SnapshotReader

OPEN_MAX: Final = 8
"""Archives that are read or received at a time."""
IDLE_NS: Final = 60 * NANOSECONDS
"""A reader, or sender, that does nothing for so long is gone."""
HANDED_OUT_BYTES: Final = 128 * 1024
"""A piece that is handed out has about so many bytes."""

ROW_BYTES_MAX: Final = 6 * 1024 * 1024
"""A row must fit into an entry, and that into a frame between servers."""
BLOCK_BYTES_MAX: Final = ROW_BYTES_MAX + 2 * 1024 * 1024
"""More than whoever makes archives puts into a block."""

_rows: msgspec.msgpack.Decoder[list[ArchivedRow]] = msgspec.msgpack.Decoder(list[ArchivedRow])


class Verifying:
    """Checks the rows of an archive's state file, step by step: order, soundness, digest, and every row by itself."""

    def __init__(self, disk: Disk, path: str, meta: ArchiveMeta) -> None:
        """Raises BadArchive, OSError."""
        try:
            self._reader = SnapshotReader(disk, path, None)
        except (CorruptSnapshot, UnsupportedSnapshot) as error:
            raise _bad(error) from error
        header = self._reader.header
        if (header.index, header.term) != (meta.index, meta.term):
            self._reader.close()
            raise BadArchive(f"state.bin is of index {header.index}, and meta.json says {meta.index}")
        self._meta = meta
        self._digest = StateDigest()
        self._soundness = Soundness()
        self._last: Place = (-1, "")

    def block(self) -> list[ArchivedRow] | None:
        """The next rows; None: that was all, and all of it is right. Raises BadArchive, OSError."""
        try:
            block = self._reader.block()
        except CorruptSnapshot as error:
            raise _bad(error) from error
        if block is None:
            self._check_end()
            return None
        if len(block) > BLOCK_BYTES_MAX:
            raise BadArchive(f"state.bin has a block of {len(block)} bytes")
        try:
            rows = _rows.decode(block)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise BadArchive(f"state.bin has a row that this version cannot read ({error})") from error
        self._digest.add(block)
        for row in rows:
            found = place(row)
            if found <= self._last:
                raise BadArchive(f"state.bin: row {found[1]!r} is not in order")
            self._last = found
            if len(encode_rows(row)) > ROW_BYTES_MAX:
                raise BadArchive(f"state.bin: row {found[1][:80]!r} has more than {ROW_BYTES_MAX} bytes")
            if (why := _why_not(row)) is not None:
                raise BadArchive(f"state.bin: row {found[1]!r}: {why}")
            self._soundness.add(row, found[1])
        return rows

    def close(self) -> None:
        """Release the file."""
        self._reader.close()

    def _check_end(self) -> None:
        if self._digest.hexdigest() != self._meta.state_digest:
            raise BadArchive("state.bin holds another state than meta.json says")
        if not self._soundness.sound:
            raise BadArchive("state.bin does not hold a state: rows that others need are missing, or indexes are wrong")


def _bad(error: CorruptSnapshot | UnsupportedSnapshot) -> BadArchive:
    if isinstance(error, CorruptSnapshot):
        return BadArchive(f"state.bin at byte {error.offset}: {error.cause}")
    return BadArchive(f"state.bin: {error}")


def _why_not(row: ArchivedRow) -> str | None:
    """What no agent would have let into the log."""
    match row:
        case NodeRow(node):
            names: tuple[str, ...] = (node.node,)
        case ServiceRow(service):
            names = (service.node, service.id, service.service)
        case CheckRow(check):
            names = (check.node, check.check_id, check.service_id)
            if check.status not in STATUSES:
                return f"its status is {check.status!r}"
        case SessionRow(session):
            names = (session.node, session.id, *session.checks)
            if session.behavior not in BEHAVIORS:
                return f"its behavior is {session.behavior!r}"
            try:
                parse_duration(session.ttl or "0")
            except ConfigError:
                return f"its TTL is {session.ttl!r}"
        case _:
            return None
    return "a name has a NUL" if any("\0" in name for name in names) else None


def verify_archive(disk: Disk, path: str, state_path: str, bytes_max: int) -> ArchiveMeta:
    """Verify an archive completely and at once; what it is of. The state file is left there.

    Blocks. Raises BadArchive, OSError.
    """
    unpacking = Unpacking(disk, path, state_path, bytes_max)
    try:
        while unpacking.step():
            pass
    finally:
        unpacking.close()
    meta = unpacking.meta
    assert meta is not None, "it was whole"
    verifying = Verifying(disk, state_path, meta)
    try:
        while verifying.block() is not None:
            pass
    finally:
        verifying.close()
    return meta


class Idle:
    """Calls `gone` once when nobody has touched it for `IDLE_NS`."""

    def __init__(self, runtime: Runtime, gone: Callable[[], None]) -> None:
        self._runtime = runtime
        self._gone = gone
        self._timer: Timer = runtime.clock.call_later(IDLE_NS, gone)

    def touch(self) -> None:
        """Somebody goes on."""
        self._timer.cancel()
        self._timer = self._runtime.clock.call_later(IDLE_NS, self._gone)

    def stop(self) -> None:
        """Nobody needs to know any more."""
        self._timer.cancel()


class Archives:
    """The archives of one server."""

    def __init__(self, runtime: Runtime, data_dir: str, bytes_max: int, log: Log) -> None:
        self.runtime = runtime
        self.bytes_max = bytes_max
        """Of an archive that is received, and of what it unpacks to."""
        self.log = log
        self._directory = f"{data_dir}/archives"
        self._open = 0
        runtime.executor.submit(self._clean, ignore, ignore)

    async def save(self, driver: Driver, cluster_id: str) -> LocalArchive:
        """An archive of the state as it is now. Raises DefiniteError."""
        try:
            term = driver.snapshot_meta().term
        except Replacing as error:
            raise DefiniteError(f"rpc error: {error}") from error
        self._reserve()
        # In one step of the loop: what is said of the view is true of it.
        view = StoreView(driver.store, archive=True)
        index = driver.applied + driver.store.tables.shift
        header = SnapshotHeader(cluster_id, index, term, b"", 0, "")
        try:
            await self._prepare()
            file, digest = await write_view(self.runtime, self._directory, header, view)
            path = f"{self._directory}/{file.name}"
            state = await off_loop(self.runtime, partial(self.runtime.disk.open, path))
        except (StorageError, OSError) as error:
            self._open -= 1
            raise DefiniteError(f"failed to write snapshot file: {error}") from error
        finally:
            view.close()
        identity = f"{term}-{index}-{self.runtime.clock.wall_ns() // 1_000_000}"
        meta = ArchiveMeta(ARCHIVE_VERSION, identity, index, term, file.size, cluster_id, VERSION, digest)
        self.log.info("saving a snapshot of the state", index=index, bytes=file.size)
        return LocalArchive(self, meta, path, state)

    async def receive(self) -> ReceivedArchive:
        """An empty archive that is to be filled. Raises DefiniteError."""
        self._reserve()
        try:
            await self._prepare()
            path = self.new_path("upload")
            file = await off_loop(self.runtime, lambda: self.runtime.disk.open(path, create=True))
        except (StorageError, OSError) as error:
            self._open -= 1
            raise DefiniteError(f"failed to create snapshot file: {error}") from error
        return ReceivedArchive(self, path, file)

    def _reserve(self) -> None:
        if self._open >= OPEN_MAX:
            raise DefiniteError(f"{OPEN_MAX} snapshots are being saved or restored here: try again when one is done")
        self._open += 1

    def _clean(self) -> None:
        """Remove what a process left that ended."""
        disk = self.runtime.disk
        if disk.exists(self._directory):
            for name in disk.names(self._directory):
                disk.remove(f"{self._directory}/{name}")

    async def _prepare(self) -> None:
        await off_loop(self.runtime, partial(self.runtime.disk.make_directories, self._directory))

    def new_path(self, what: str) -> str:
        """The path of a new temporary file."""
        return f"{self._directory}/{what}-{self.runtime.random.randbytes(8).hex()}"

    def closed(self, path: str, file: File) -> None:
        """Close and remove what nobody reads any more."""
        self._open -= 1
        self.runtime.executor.submit(file.close, ignore, ignore)
        self.remove(path)

    def remove(self, path: str) -> None:
        """Remove a temporary file."""
        disk = self.runtime.disk
        self.runtime.executor.submit(partial(disk.remove, path), ignore, ignore)


class LocalArchive:
    """An archive that is read out, piece by piece: `api.ArchiveStream`."""

    def __init__(self, archives: Archives, meta: ArchiveMeta, path: str, state: File) -> None:
        """Not for callers: use `Archives.save`."""
        self.index = meta.index
        self.known_leader = True
        self.last_contact_ms = 0
        self._archives = archives
        self._path = path
        self._state = state
        mtime = archives.runtime.clock.wall_ns() // NANOSECONDS
        self._pieces: Iterator[bytes] | None = pack(meta, state, mtime)
        self._idle = Idle(archives.runtime, self.close)

    async def read(self) -> bytes:
        """The next piece; b"": that was all. Raises DefiniteError."""
        self._idle.touch()
        parts, size = [], 0
        while size < HANDED_OUT_BYTES:
            if self._pieces is None:
                raise DefiniteError(f"the snapshot was not read for {IDLE_NS // NANOSECONDS} s")
            try:
                # One step at a time: the log's writes wait for no more.
                piece = await off_loop(self._archives.runtime, partial(next, self._pieces, None))
            except OSError as error:
                raise DefiniteError(f"failed to read snapshot file: {error}") from error
            if piece is None:
                break
            parts.append(piece)
            size += len(piece)
        return b"".join(parts)

    def close(self) -> None:
        """Nobody reads it any more."""
        self._idle.stop()
        if self._pieces is not None:
            self._pieces = None
            self._archives.closed(self._path, self._state)


class ReceivedArchive:
    """An archive that arrives, piece by piece."""

    def __init__(self, archives: Archives, path: str, file: File) -> None:
        """Not for callers: use `Archives.receive`."""
        self.size = 0
        self._archives = archives
        self._path = path
        self._file = file
        self._closed = False
        self._idle = Idle(archives.runtime, self.close)

    async def add(self, data: bytes) -> None:
        """The next piece. Raises DefiniteError, TooLarge."""
        self._refuse_if_closed()
        self._idle.touch()
        if self.size + len(data) > self._archives.bytes_max:
            raise TooLarge(self._archives.bytes_max)
        try:
            await off_loop(self._archives.runtime, partial(self._file.write, self.size, data))
        except OSError as error:
            raise DefiniteError(f"failed to write snapshot file: {error}") from error
        self.size += len(data)

    async def verified(self) -> VerifiedArchive:
        """What arrived, found to be a whole archive; to be closed. Raises DefiniteError."""
        self._refuse_if_closed()
        self._idle.stop()
        archives, runtime = self._archives, self._archives.runtime
        state = archives.new_path("state")
        try:
            unpacking = await off_loop(runtime, lambda: Unpacking(runtime.disk, self._path, state, archives.bytes_max))
            try:
                while await off_loop(runtime, unpacking.step):
                    pass
            finally:
                runtime.executor.submit(unpacking.close, ignore, ignore)
            meta = unpacking.meta
            assert meta is not None, "it was whole"
            await self._verify_rows(state, meta)
        except (BadArchive, OSError) as error:
            archives.remove(state)
            raise DefiniteError(f"failed to verify snapshot: {error}") from error
        except BaseException:
            archives.remove(state)
            raise
        return VerifiedArchive(archives, meta, state)

    async def _verify_rows(self, state: str, meta: ArchiveMeta) -> None:
        runtime = self._archives.runtime
        verifying = await off_loop(runtime, lambda: Verifying(runtime.disk, state, meta))
        try:
            while await off_loop(runtime, verifying.block) is not None:
                pass
        finally:
            runtime.executor.submit(verifying.close, ignore, ignore)

    def close(self) -> None:
        """Forget it."""
        self._idle.stop()
        if not self._closed:
            self._closed = True
            self._archives.closed(self._path, self._file)

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise DefiniteError(f"nothing of the snapshot arrived for {IDLE_NS // NANOSECONDS} s")


class VerifiedArchive:
    """The rows of an archive that was verified."""

    def __init__(self, archives: Archives, meta: ArchiveMeta, path: str) -> None:
        """Not for callers: use `ReceivedArchive.verified`."""
        self.meta = meta
        self._archives = archives
        self._path = path
        self._verifying: Verifying | None = None
        self._cut: deque[list[ArchivedRow]] = deque()

    async def rows(self) -> list[ArchivedRow] | None:
        """The next rows, few enough for one step of a server; None: that was all.

        Raises BadArchive, OSError: the disk has changed its mind.
        """
        runtime = self._archives.runtime
        if self._verifying is None:
            self._verifying = await off_loop(runtime, lambda: Verifying(runtime.disk, self._path, self.meta))
        while not self._cut:
            parts = await off_loop(runtime, partial(_next_parts, self._verifying))
            if parts is None:
                return None
            self._cut.extend(parts)
        return self._cut.popleft()

    def close(self) -> None:
        """Nobody needs it any more."""
        if self._verifying is not None:
            self._archives.runtime.executor.submit(self._verifying.close, ignore, ignore)
        self._archives.remove(self._path)


def _next_parts(verifying: Verifying) -> list[list[ArchivedRow]] | None:
    block = verifying.block()
    return None if block is None else list(cut(block))


def cut(rows: Sequence[ArchivedRow]) -> Iterator[list[ArchivedRow]]:
    """The rows in parts, none of which is large unless a single row is."""
    part: list[ArchivedRow] = []
    size = 0
    for row in rows:
        length = len(encode_rows(row))
        if part and (len(part) >= ROWS_AT_ONCE or size + length > BLOCK_BYTES):
            yield part
            part, size = [], 0
        part.append(row)
        size += length
    if part:
        yield part


class TooLarge(DefiniteError):
    """An archive has more bytes than are taken."""

    def __init__(self, bytes_max: int) -> None:
        super().__init__(f"the snapshot has more than {bytes_max} bytes: raise limits.snapshot_max_size if it is yours")
