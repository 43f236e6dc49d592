"""A snapshot that arrives piece by piece: a part file that survives restarts of either side.

    raft/snapshots/incoming-CHECKSUM.part

Pieces are appended in order. After a restart the transfer goes on where the file ends; whether what stands there is
what was sent is decided once, at the end, by the checksum of the whole: a power loss may have left anything in a file
that was not synced. At most one transfer has a part file; whoever begins another one removes it.

All calls block, and belong to one thread.
"""

from __future__ import annotations

from impl.runtime.interfaces import Disk
from impl.storage.errors import CorruptSnapshot, write_error
from impl.storage.files import publish, sync_file
from impl.storage.snapshots import SYNC_BYTES, SnapshotFile, SnapshotReader, file_name

PREFIX, ENDING = "incoming-", ".part"


class IncomingSnapshot:
    """A part file that is open for appending. `accept` or `discard` ends it; `close` keeps it for later."""

    def __init__(self, disk: Disk, directory: str, checksum: str, size: int) -> None:
        """Begin it, or go on with what is there. Raises DiskFull, WriteFailed."""
        self.checksum = checksum
        self.size = size
        """Of the whole snapshot, in bytes."""
        self._disk = disk
        self._directory = directory
        self._path = f"{directory}/{PREFIX}{checksum}{ENDING}"
        remove_parts(disk, directory, except_for=self._path)
        try:
            self._file = disk.open(self._path, create=not disk.exists(self._path))
            self.offset = self._synced = self._file.size()
            """Bytes that are there: the next piece begins here."""
            if self.offset > size:
                self._file.truncate(0)
                self.offset = self._synced = 0
        except OSError as error:
            raise write_error(self._path, error) from error

    @property
    def complete(self) -> bool:
        """Whether every byte is there."""
        return self.offset == self.size

    def append(self, data: bytes) -> None:
        """Write the next piece. Raises DiskFull, WriteFailed, FsyncFailed."""
        try:
            self._file.write(self.offset, data)
        except OSError as error:
            raise write_error(self._path, error) from error
        self.offset += len(data)
        if self.complete or self.offset - self._synced >= SYNC_BYTES:
            sync_file(self._file)
            self._synced = self.offset

    def verifier(self, cluster_id: str) -> SnapshotReader:
        """Reads what arrived; to be read to its end, block by block. Raises as SnapshotReader."""
        return SnapshotReader(self._disk, self._path, cluster_id)

    def accept(self, verified: SnapshotReader, suffix: str) -> SnapshotFile:
        """Give the file a snapshot's name. `verified` was read to its end.

        Raises CorruptSnapshot if it is another snapshot than was offered; WriteFailed, FsyncFailed.
        """
        if verified.checksum != self.checksum:
            raise CorruptSnapshot(self._path, self.offset, "it is not the snapshot that was offered")
        sync_file(self._file)
        self._file.close()
        header = verified.header
        name = file_name(header.index, header.term, suffix)
        publish(self._disk, self._directory, self._path, name)
        return SnapshotFile(header, name, self.size, self.checksum)

    def discard(self) -> None:
        """Remove what arrived."""
        self._file.close()
        remove_parts(self._disk, self._directory)

    def close(self) -> None:
        """Keep what arrived for a later attempt."""
        self._file.close()


def remove_parts(disk: Disk, directory: str, except_for: str = "") -> None:
    """Remove part files."""
    for name in disk.names(directory):
        path = f"{directory}/{name}"
        if name.startswith(PREFIX) and name.endswith(ENDING) and path != except_for:
            disk.remove(path)
