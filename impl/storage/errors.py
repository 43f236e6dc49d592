"""Errors of the data directory and of the log, by cause. Each text names the cause and what to do about it.

Of the log's errors, `DiskFull` is the only one after which it stays usable. What happens to a snapshot that is being
written or received costs that snapshot and nothing else.
"""

from __future__ import annotations

import errno

_NO_SPACE = frozenset((errno.ENOSPC, errno.EDQUOT))


class StorageError(Exception):
    """Something is wrong with the data directory."""


class CorruptLog(StorageError):
    """An intact record follows a damaged one, or a segment that must be complete is not: acknowledged records are
    lost or changed.

    Never repaired silently: a voter that forgets what it acknowledged can make the cluster lose committed entries.
    """

    def __init__(self, segment: str, offset: int, record: int, cause: str) -> None:
        super().__init__(
            f"corrupt log: segment {segment}, record {record} at byte {offset}: {cause}. This server must not vote "
            "with a log that forgot something: remove its data directory and let it join as a new server, or restore "
            "the file"
        )
        self.segment = segment
        self.offset = offset
        self.record = record
        """Number of the first damaged record in the segment, from 1; 0 = the segment's header."""
        self.cause = cause


class UnsupportedFormat(StorageError):
    """The segment was written by a version with another format."""

    def __init__(self, segment: str, found: int, known: int) -> None:
        super().__init__(
            f"{segment} has log format {found}, this version reads format {known}: start the version that wrote it, or "
            "use another data directory"
        )


class ForeignDirectory(StorageError):
    """The data directory belongs to another node."""

    def __init__(self, directory: str, owner: str, wanted: str) -> None:
        super().__init__(
            f"data directory {directory} belongs to {owner}, not to {wanted}: give each agent a -data-dir of its own, "
            "or start this one under its old name and node ID"
        )


class DirectoryInUse(StorageError):
    """Another process works in the data directory."""

    def __init__(self, directory: str, pid: str) -> None:
        super().__init__(
            f"data directory {directory} is in use by pid {pid or 'unknown'}: "
            "stop that process, or use another -data-dir"
        )


class CorruptIdentity(StorageError):
    """The file that says who this node is, or how often it started, cannot be believed."""

    def __init__(self, path: str, cause: str) -> None:
        super().__init__(
            f"{path} is damaged ({cause}): restore it, or remove the data directory and join as a new server"
        )


class DiskFull(StorageError):
    """No space. Nothing of this append counts as written; the log stays as it was and can be appended to when there
    is space again."""

    def __init__(self, path: str, cause: OSError) -> None:
        super().__init__(
            f"no space left to write {path} ({cause.strerror}): free some; nothing is acknowledged until then"
        )


class FsyncFailed(StorageError):
    """The disk did not confirm a write. Fatal: the kernel may have dropped the pages, and a second fsync would say
    success.

    Source: Rebello et al. 2020, "Can applications recover from fsync failures?"
    """

    def __init__(self, path: str, cause: OSError) -> None:
        super().__init__(
            f"fsync of {path} failed ({cause.strerror}): what it holds is unknown; replace the disk, then restart"
        )


class WriteFailed(StorageError):
    """A write failed for another reason than space. Fatal, as FsyncFailed."""

    def __init__(self, path: str, cause: OSError) -> None:
        super().__init__(f"write to {path} failed ({cause.strerror}): replace the disk, then restart")


def write_error(path: str, error: OSError) -> DiskFull | WriteFailed:
    """What a failed write means."""
    return DiskFull(path, error) if error.errno in _NO_SPACE else WriteFailed(path, error)


class CorruptSnapshot(StorageError):
    """A snapshot file is not what was written."""

    def __init__(self, file: str, offset: int, cause: str) -> None:
        super().__init__(
            f"corrupt snapshot: {file} at byte {offset}: {cause}. If this server needs it to start, restore the file, "
            "or remove the data directory and let the server join as a new one"
        )
        self.file = file
        self.offset = offset
        self.cause = cause


class ForeignSnapshot(StorageError):
    """A snapshot of another cluster."""

    def __init__(self, file: str, found: str, wanted: str) -> None:
        super().__init__(
            f"{file} is a snapshot of cluster {found}, this server belongs to cluster {wanted}: remove it, or give the "
            "server a data directory of its own"
        )


class UnsupportedSnapshot(StorageError):
    """The snapshot was written by a version with another format."""

    def __init__(self, file: str, found: int, known: int) -> None:
        super().__init__(
            f"{file} has snapshot format {found}, this version reads format {known}: run the version that wrote it, or "
            "the same version on all servers"
        )


class MissingSnapshot(StorageError):
    """The log says that its beginning is in a snapshot file, which is not there."""

    def __init__(self, path: str, index: int) -> None:
        super().__init__(
            f"snapshot {path} is missing: everything up to entry {index} was in it and nowhere else. Restore the file, "
            "or remove the data directory and let this server join as a new one"
        )


class LogClosed(StorageError):
    """The log was closed, or an earlier fatal error stands: it refuses all further use."""


class OutOfOrder(StorageError):
    """A record does not continue the log: a defect of the caller. Nothing was written."""
