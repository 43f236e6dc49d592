"""The file of the log's next segment, allocated ahead by another thread: no write waits for that, which takes 30 ms.

It is made in pieces, each synced by itself, so that a sync of the log meanwhile waits for one piece at most. Under its
name it is nothing yet: a crash leaves it behind, and opening the log removes it (`recovery.UNFINISHED`). That it could
not be made is nobody's error: whoever begins a segment makes a file then, and says why that fails.

`make` runs in another thread than everything else here and in the log; what they share is one reference, which goes
from one to the other, and a word that it is under way: a second one must not begin meanwhile, nor while a file waits
to be taken, since it would take the file of that name from under the log.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from impl.runtime.interfaces import Disk, File
from impl.storage.recovery import SUFFIX, UNFINISHED

PIECE_BYTES: Final = 256 * 1024
"""What is allocated and synced at a time."""
DUE: Final = 0.5
"""The share of a segment that is used when the next one is made."""


class Spare:
    """At most one allocated file, in the directory of the log."""

    def __init__(self, disk: Disk, directory: str, size: int) -> None:
        self.path = f"{directory}/spare{SUFFIX}{UNFINISHED}"
        self._disk = disk
        self._size = size
        self._file: File | None = None
        self._wanted_for = 0
        """The segment for which one was last asked: a disk that is full is asked once for each."""
        self._wanted = False
        """It was asked for, and `make` has not ended since."""

    def is_due(self, sequence: int, used: float) -> bool:
        """Whether to `make` one now: of segment `sequence` this share is used. True at most once for each."""
        if used < DUE or self._wanted or self._file is not None or self._wanted_for >= sequence:
            return False
        self._wanted_for, self._wanted = sequence, True
        return True

    def make(self) -> Iterator[None]:
        """Allocate the file, which blocks. Each change of the disk is a step; between two the log may do anything."""
        try:
            if self._disk.exists(self.path):
                self._disk.remove(self.path)
                yield
            file = self._disk.open(self.path, create=True)
            yield
            try:
                for size in range(PIECE_BYTES, self._size + PIECE_BYTES, PIECE_BYTES):
                    file.allocate(min(size, self._size))
                    yield
                    file.sync()
                    yield
            except OSError:
                file.close()
                with suppress(OSError):
                    self._disk.remove(self.path)
                return
            self._file = file
        finally:
            self._wanted = False

    def take(self) -> File | None:
        """The file, which is at `path`; None: there is none."""
        file, self._file = self._file, None
        return file

    def close(self) -> None:
        """Release the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
