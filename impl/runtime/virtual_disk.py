"""A disk in memory that knows what was synced, and forgets the rest when told to.

`process_crash` is SIGKILL: the page cache survives, open files and locks do not. `power_loss` is what a cut of the
power may leave: the synced state plus some of the changes since, chosen by the caller: the first `keep` of them (and
a piece of the next), or any sectors of them. Changes are counted over the whole disk in the order in which they were
made: writes, changes of length, and changes of names, which are durable only after `sync_directory` (POSIX promises
no more).

Failures on request: the next sync fails and drops what it should have written, as ext4 and xfs do; space runs out; the
power fails in the middle of a call.

It must not be used from two threads. Sources: Rebello et al. 2020 (fsync failures); Pillai et al. 2014, "All File
Systems Are Not Created Equal" (what crashes leave).
"""

from __future__ import annotations

import errno
import posixpath
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias, assert_never

from impl.runtime.interfaces import Locked

SECTOR_BYTES = 512


class PowerFailed(BaseException):
    """The power went before this change of the disk; the next call must be `power_loss`. No error that a process could
    handle: it is gone.
    """


@dataclass(slots=True, eq=False)
class _Node:
    """The content of one file: as processes see it, and as it is on the disk."""

    seen: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)


@dataclass(frozen=True, slots=True, eq=False)
class _Written:
    node: _Node
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True, eq=False)
class _Resized:
    node: _Node
    size: int


@dataclass(frozen=True, slots=True, eq=False)
class _Named:
    """A name came to stand for a node, or for nothing."""

    path: str
    node: _Node | None


_Change: TypeAlias = _Written | _Resized | _Named


class VirtualDisk:
    """One server's disk; implements `Disk`.

    Attributes to set: `free_bytes` (None: endless), `copy_on_write` (writes inside a file need space too), `lying`
    (sync confirms and does nothing). To read: `syncs`, `writes`.
    """

    def __init__(self) -> None:
        self.free_bytes: int | None = None
        self.copy_on_write = False
        self.lying = False
        self.syncs = 0
        self.writes = 0
        self._failing_syncs = 0
        self._failing_writes = 0
        self._powered_for: int | None = None
        """Changes and syncs until the power fails; None: it does not."""
        self._generation = 0
        self._directories = {"", "/", "."}
        self._names: dict[str, _Node] = {}
        self._durable_names: dict[str, _Node] = {}
        self._pending: list[_Change] = []
        self._locks: dict[str, str] = {}

    # What a test does to the disk

    def fail_next_syncs(self, count: int = 1) -> None:
        """The next `count` syncs raise EIO, and what they should have made durable never will be."""
        self._failing_syncs = count

    def fail_next_writes(self, count: int = 1) -> None:
        """The next `count` writes raise EIO after half of the data."""
        self._failing_writes = count

    def fail_power_after(self, changes: int | None) -> None:
        """From now on so many changes and syncs are made; the next raises PowerFailed. None: so is any number."""
        self._powered_for = changes

    def unsynced(self) -> int:
        """How many changes a power loss may lose now."""
        return len(self._pending)

    def process_crash(self) -> None:
        """The process is gone: descriptors and locks with it. The page cache stays, and stays unsynced."""
        self._generation += 1
        self._locks.clear()

    def power_loss(self, keep: int = 0, torn_bytes: int = 0) -> None:
        """Keep the synced state and the first `keep` changes since; of the next, if a write, its first `torn_bytes`
        bytes."""
        kept = self._pending[:keep]
        match self._pending[keep : keep + 1]:
            case [_Written(node, offset, data)] if torn_bytes:
                kept.append(_Written(node, offset, data[:torn_bytes]))
            case _:
                pass
        self._lose_power(kept)

    def power_loss_of_sectors(self, keep: Callable[[], bool]) -> None:
        """Keep any sectors of the unsynced writes: `keep` is asked for each, in order; changes of names in their order.

        A disk and its file system may write the sectors of an unsynced file in any order. What a sector holds then is
        its state after some of the changes to it, in their order: once one is lost, so are the later ones.
        """
        kept: list[_Change] = []
        lost: set[tuple[int, int]] = set()
        names_lost = False
        for change in self._pending:
            match change:
                case _Written(node, offset, data):
                    for at, piece in _sectors(offset, data):
                        sector = (id(node), at // SECTOR_BYTES)
                        if sector in lost or not keep():
                            lost.add(sector)
                        else:
                            kept.append(_Written(node, at, piece))
                case _Resized():
                    kept.append(change)
                case _Named():
                    names_lost = names_lost or not keep()
                    kept.extend([] if names_lost else [change])
                case _:
                    assert_never(change)
        self._lose_power(kept)

    def flip(self, path: str, offset: int, mask: int = 0xFF) -> None:
        """Change a byte of a file, on the disk and in the cache."""
        node = self._node(path)
        node.seen[offset] ^= mask
        node.durable[offset] ^= mask

    def content(self, path: str) -> bytes:
        """A file as processes see it."""
        return bytes(self._node(path).seen)

    def put(self, path: str, content: bytes) -> None:
        """Make a file durable with this content, whatever it was."""
        node = _Node(bytearray(content), bytearray(content))
        self._names[path] = self._durable_names[path] = node
        self.make_directories(posixpath.dirname(path))

    def copy(self) -> VirtualDisk:
        """An independent disk with the same content, all of it durable, nothing locked."""
        other = VirtualDisk()
        other._directories = set(self._directories)
        for path, node in self._names.items():
            other.put(path, bytes(node.seen))
        return other

    # Disk

    def open(self, path: str, *, create: bool = False) -> VirtualFile:
        """As `Disk.open`."""
        if create:
            if path in self._names:
                raise FileExistsError(errno.EEXIST, "File exists", path)
            if posixpath.dirname(path) not in self._directories:
                raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
            self._use_power()
            self._name(path, _Node())
        return VirtualFile(self, path, self._node(path), self._generation)

    def exists(self, path: str) -> bool:
        """As `Disk.exists`."""
        return path in self._names or path in self._directories

    def names(self, directory: str) -> list[str]:
        """As `Disk.names`."""
        if directory not in self._directories:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", directory)
        return sorted(posixpath.basename(path) for path in self._names if posixpath.dirname(path) == directory)

    def make_directories(self, directory: str) -> None:
        """As `Disk.make_directories`."""
        while directory not in self._directories:
            self._directories.add(directory)
            directory = posixpath.dirname(directory)

    def rename(self, source: str, target: str) -> None:
        """As `Disk.rename`."""
        node = self._node(source)
        self._use_power()
        self._name(target, node)
        self._name(source, None)

    def remove(self, path: str) -> None:
        """As `Disk.remove`."""
        node = self._node(path)
        self._use_power()
        self._name(path, None)
        if self.free_bytes is not None:
            self.free_bytes += len(node.seen)

    def sync_directory(self, directory: str) -> None:
        """As `Disk.sync_directory`."""
        self._sync(lambda change: isinstance(change, _Named) and posixpath.dirname(change.path) == directory)

    def lock(self, path: str, owner: str) -> VirtualLock:
        """As `Disk.lock`."""
        if path in self._locks:
            raise Locked(path, self._locks[path])
        self._locks[path] = owner
        return VirtualLock(self._locks, path)

    # What files do

    def write(self, node: _Node, offset: int, data: bytes) -> None:
        """Change the cache of `node`; durable later."""
        self._use_power()
        self.writes += 1
        failure: int | None = None
        if self._failing_writes:
            self._failing_writes -= 1
            data, failure = data[: len(data) // 2], errno.EIO
        needed = len(data) if self.copy_on_write else max(0, offset + len(data) - len(node.seen))
        if self.free_bytes is not None and needed > self.free_bytes:
            data, failure = data[: len(data) - (needed - self.free_bytes)], errno.ENOSPC
            needed = self.free_bytes
        self._spend(needed)
        change = _Written(node, offset, bytes(data))
        _apply(change, node.seen)
        self._pending.append(change)
        if failure is not None:
            raise OSError(failure, "No space left on device" if failure == errno.ENOSPC else "Input/output error")

    def resize(self, node: _Node, size: int) -> None:
        """Change the length of `node`."""
        self._use_power()
        needed = max(0, size - len(node.seen))
        if self.free_bytes is not None and needed > self.free_bytes:
            raise OSError(errno.ENOSPC, "No space left on device")
        self._spend(needed)
        change = _Resized(node, size)
        _apply(change, node.seen)
        self._pending.append(change)

    def sync(self, node: _Node) -> None:
        """Make every change of `node` durable."""
        self._sync(lambda change: not isinstance(change, _Named) and change.node is node)

    def alive(self, generation: int) -> None:
        """Raise if the process that opened the file has crashed since."""
        if generation != self._generation:
            raise OSError(errno.EBADF, "the process that opened this file has crashed")

    def _sync(self, covered: Callable[[_Change], bool]) -> None:
        self._use_power()
        self.syncs += 1
        if self._failing_syncs:
            self._failing_syncs -= 1
            self._pending = [change for change in self._pending if not covered(change)]
            raise OSError(errno.EIO, "Input/output error")
        if not self.lying:
            for change in self._pending:
                if covered(change):
                    self._harden(change)
            self._pending = [change for change in self._pending if not covered(change)]

    def _harden(self, change: _Change) -> None:
        match change:
            case _Written(node) | _Resized(node):
                _apply(change, node.durable)
            case _Named(path, None):
                self._durable_names.pop(path, None)
            case _Named(path, node) if node is not None:
                self._durable_names[path] = node
            case _:
                raise AssertionError(change)

    def _use_power(self) -> None:
        if self._powered_for is not None:
            if not self._powered_for:
                raise PowerFailed
            self._powered_for -= 1

    def _lose_power(self, kept: list[_Change]) -> None:
        self.process_crash()
        self._powered_for = None
        for change in kept:
            self._harden(change)
        self._pending = []
        self._names = dict(self._durable_names)
        for node in self._names.values():
            node.seen = bytearray(node.durable)

    def _name(self, path: str, node: _Node | None) -> None:
        if node is None:
            del self._names[path]
        else:
            self._names[path] = node
        self._pending.append(_Named(path, node))

    def _node(self, path: str) -> _Node:
        if path not in self._names:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        return self._names[path]

    def _spend(self, amount: int) -> None:
        if self.free_bytes is not None:
            self.free_bytes -= amount


class VirtualFile:
    """An open file of a VirtualDisk; implements `File`. Dies with the process that opened it."""

    def __init__(self, disk: VirtualDisk, path: str, node: _Node, generation: int) -> None:
        self.path = path
        self._disk = disk
        self._node = node
        self._generation = generation

    def size(self) -> int:
        """As `File.size`."""
        self._disk.alive(self._generation)
        return len(self._node.seen)

    def read(self, offset: int, length: int) -> bytes:
        """As `File.read`."""
        self._disk.alive(self._generation)
        return bytes(self._node.seen[offset : offset + length])

    def write(self, offset: int, data: bytes) -> None:
        """As `File.write`."""
        self._disk.alive(self._generation)
        self._disk.write(self._node, offset, data)

    def allocate(self, size: int) -> None:
        """As `File.allocate`."""
        self._disk.alive(self._generation)
        self._disk.resize(self._node, max(size, len(self._node.seen)))

    def truncate(self, size: int) -> None:
        """As `File.truncate`."""
        self._disk.alive(self._generation)
        self._disk.resize(self._node, size)

    def sync(self) -> None:
        """As `File.sync`."""
        self._disk.alive(self._generation)
        self._disk.sync(self._node)

    def close(self) -> None:
        """As `File.close`."""
        self._generation = -1


class VirtualLock:
    """A held lock; implements `Lock`."""

    def __init__(self, locks: dict[str, str], path: str) -> None:
        self._locks = locks
        self._path = path

    def release(self) -> None:
        """As `Lock.release`."""
        self._locks.pop(self._path, None)


def _apply(change: _Written | _Resized, content: bytearray) -> None:
    match change:
        case _Written(_, offset, data):
            content.extend(bytes(max(0, offset - len(content))))
            content[offset : offset + len(data)] = data
        case _Resized(_, size):
            content.extend(bytes(max(0, size - len(content))))
            del content[size:]
        case _:
            assert_never(change)


def _sectors(offset: int, data: bytes) -> list[tuple[int, bytes]]:
    """A write, in pieces that end at the borders of sectors."""
    pieces = []
    start = 0
    while start < len(data):
        end = min(len(data), start + SECTOR_BYTES - (offset + start) % SECTOR_BYTES)
        pieces.append((offset + start, data[start:end]))
        start = end
    return pieces
