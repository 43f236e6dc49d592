"""Files that are read, or take the place of others, as a whole. All calls block."""

from __future__ import annotations

from impl.runtime.interfaces import Disk, File
from impl.storage.errors import FsyncFailed, write_error

SMALL_BYTES_MAX = 1 << 20
"""For `read_file`: more than a file that people or agents write by hand ever holds."""


def read_file(disk: Disk, path: str, bytes_max: int | None = None) -> bytes:
    """The content, or its beginning. Raises OSError."""
    file = disk.open(path)
    try:
        return file.read(0, file.size() if bytes_max is None else bytes_max)
    finally:
        file.close()


def replace_file(disk: Disk, directory: str, name: str, content: bytes) -> None:
    """Give a small file new content, atomically and durably: after a crash it holds the old or the new.

    Raises FsyncFailed, OSError.
    """
    path = f"{directory}/{name}"
    unfinished = f"{path}.new"
    if disk.exists(unfinished):
        disk.remove(unfinished)
    file = disk.open(unfinished, create=True)
    try:
        file.write(0, content)
        sync_file(file)
    finally:
        file.close()
    disk.rename(unfinished, path)
    sync_directory(disk, directory)


def publish(disk: Disk, directory: str, path: str, name: str) -> None:
    """Give a complete, synced file its name, durably. Raises WriteFailed, FsyncFailed."""
    try:
        disk.rename(path, f"{directory}/{name}")
    except OSError as error:
        raise write_error(path, error) from error
    sync_directory(disk, directory)


def sync_file(file: File) -> None:
    """fdatasync. Raises FsyncFailed."""
    try:
        file.sync()
    except OSError as error:
        raise FsyncFailed(file.path, error) from error


def sync_directory(disk: Disk, directory: str) -> None:
    """Make what was made, renamed or removed in it durable. Raises FsyncFailed."""
    try:
        disk.sync_directory(directory)
    except OSError as error:
        raise FsyncFailed(directory, error) from error
