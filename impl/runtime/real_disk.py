"""The file system of this machine, and the thread that waits for it.

The only module that touches files. It must not decide anything: no retries, no formats.
"""

from __future__ import annotations

import fcntl
import os
import queue
import threading
from collections.abc import Callable
from typing import TypeVar

from impl.runtime.interfaces import Locked

T = TypeVar("T")


class RealFile:
    """An open file; implements `File`."""

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def size(self) -> int:
        """As `File.size`."""
        return os.fstat(self._descriptor).st_size

    def read(self, offset: int, length: int) -> bytes:
        """As `File.read`."""
        parts = []
        while length > 0:
            part = os.pread(self._descriptor, length, offset)
            if not part:
                break
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return b"".join(parts)

    def write(self, offset: int, data: bytes) -> None:
        """As `File.write`."""
        written = os.pwrite(self._descriptor, data, offset)
        rest = memoryview(data)
        while written < len(rest):
            # A short write is how the kernel announces a full disk; the next one says why.
            written += os.pwrite(self._descriptor, rest[written:], offset + written)

    def allocate(self, size: int) -> None:
        """As `File.allocate`. Reserved space is not enough: file systems turn it into written space at each
        fdatasync, which then waits for their journal too. Overwriting zeros that were written is a quarter faster
        (ext4).
        """
        start = self.size()
        os.posix_fallocate(self._descriptor, 0, size)
        if size > start:
            self.write(start, bytes(size - start))

    def truncate(self, size: int) -> None:
        """As `File.truncate`."""
        os.ftruncate(self._descriptor, size)

    def sync(self) -> None:
        """As `File.sync`."""
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """As `File.close`."""
        os.close(self._descriptor)


class RealLock:
    """A held flock; implements `Lock`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        """As `Lock.release`."""
        os.close(self._descriptor)


class RealDisk:
    """The machine's file system; implements `Disk`."""

    def open(self, path: str, *, create: bool = False) -> RealFile:
        """As `Disk.open`."""
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if create else 0)
        return RealFile(path, os.open(path, flags, 0o600))

    def exists(self, path: str) -> bool:
        """As `Disk.exists`."""
        return os.path.lexists(path)

    def names(self, directory: str) -> list[str]:
        """As `Disk.names`."""
        return sorted(os.listdir(directory))

    def make_directories(self, directory: str) -> None:
        """As `Disk.make_directories`."""
        missing = []
        while directory and not os.path.isdir(directory):
            missing.append(directory)
            directory = os.path.dirname(directory)
        for path in reversed(missing):
            try:
                os.mkdir(path, 0o700)
            except FileExistsError:
                if not os.path.isdir(path):
                    raise
                # Another process made it just now: agents may share a directory of traces.
            self.sync_directory(os.path.dirname(path) or ".")

    def rename(self, source: str, target: str) -> None:
        """As `Disk.rename`."""
        os.replace(source, target)

    def remove(self, path: str) -> None:
        """As `Disk.remove`."""
        os.unlink(path)

    def sync_directory(self, directory: str) -> None:
        """As `Disk.sync_directory`."""
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def lock(self, path: str, owner: str) -> RealLock:
        """As `Disk.lock`: flock, so that the death of the process releases it."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 64, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise Locked(path, holder) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, owner.encode("ascii") + b"\n", 0)
        return RealLock(descriptor)


class DiskThread:
    """One thread that runs blocking work in order; implements `Executor`.

    `post` runs a callback on the loop from another thread.
    """

    def __init__(self, name: str, post: Callable[[Callable[[], None]], object]) -> None:
        self._post = post
        self._queue: queue.SimpleQueue[Callable[[], Callable[[], None]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[], T], done: Callable[[T], None], failed: Callable[[BaseException], None]) -> None:
        """As `Executor.submit`."""

        def job() -> Callable[[], None]:
            try:
                result = work()
            except BaseException as error:
                # Kept for the callback: `error` itself is unbound when this block ends.
                cause = error
                return lambda: failed(cause)
            return lambda: done(result)

        self._queue.put(job)

    def stop(self) -> None:
        """Finish what was submitted, then end the thread. Results that come after the loop's end are dropped."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            try:
                self._post(job())
            except RuntimeError:
                # The loop has closed: nobody is left to be told.
                return
