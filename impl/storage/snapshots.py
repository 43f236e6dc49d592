"""Snapshot files: the state machine up to an index, with what of the log a server needs beside it.

    raft/snapshots/INDEX-TERM-RANDOM.snap
        header: magic | format u32 | length u32 | crc u32 | msgpack SnapshotHeader
        blocks: length u32 | crc u32 | rows (bytes, opaque here)
        end:    a block of length 0 | BLAKE2b-256 of everything before

All integers are little-endian. The last 32 bytes are the *checksum* by which markers and messages name a file: it
covers all the others.

A file is written under another name, synced, renamed, and its directory synced, before anybody is told of it: whatever
has a snapshot's name is complete. It is written and read block by block, and synced every few mebibytes, so that a log
which shares the disk's thread waits for one block and never for a file.

This module must not know what rows mean, nor decide which snapshots are taken, sent or needed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from hashlib import blake2b
from zlib import crc32

import msgspec

from impl.runtime.interfaces import Disk, File
from impl.storage.errors import CorruptSnapshot, ForeignSnapshot, StorageError, UnsupportedSnapshot, write_error
from impl.storage.files import publish, sync_file

FORMAT = 1
MAGIC = b"COMITIAS"
SUFFIX = ".snap"
UNFINISHED = ".new"
"""Ending of a file that is being written. A crash leaves it behind; it holds nothing."""
SYNC_BYTES = 4 * 1024 * 1024
"""Written between two syncs."""
BLOCK_BYTES_MAX = 96 * 1024 * 1024
"""No block is longer: it would hold one row, and no row is longer than an entry of the log."""
CHECKSUM_BYTES = 32
KEPT = 2
"""Snapshots that are kept: the newest, and the one before it."""

_PREFIX = struct.Struct("<8sIII")
_BLOCK = struct.Struct("<II")
_END = _BLOCK.pack(0, 0)


class SnapshotHeader(msgspec.Struct, frozen=True, array_like=True):
    """What a snapshot is of."""

    cluster_id: str
    index: int
    """The state machine had applied everything up to here."""
    term: int
    """Of the entry at `index`."""
    configuration: bytes
    """Payload of the configuration in force at `index`."""
    configuration_index: int
    digest: str
    """Of the log up to `index`, in hex; "" without tracing."""


_decode_header = msgspec.msgpack.Decoder(SnapshotHeader).decode


@dataclass(frozen=True, slots=True)
class SnapshotFile:
    """A complete, durable snapshot."""

    header: SnapshotHeader
    name: str
    size: int
    checksum: str
    """In hex."""


def file_name(index: int, term: int, suffix: str) -> str:
    """Name of a snapshot. `suffix`: random, so that no two files ever share a name."""
    return f"{index}-{term}-{suffix}{SUFFIX}"


def encode_header(header: SnapshotHeader) -> bytes:
    """The header as it stands in the file."""
    body = msgspec.msgpack.encode(header)
    crc = crc32(body, crc32(_PREFIX.pack(MAGIC, FORMAT, len(body), 0)))
    return _PREFIX.pack(MAGIC, FORMAT, len(body), crc) + body


class SnapshotWriter:
    """Writes one snapshot: `add` blocks, then `finish`. All calls block, and belong to one thread."""

    def __init__(self, disk: Disk, directory: str, header: SnapshotHeader, suffix: str) -> None:
        """Begin the file. Raises DiskFull, WriteFailed; then nothing is left behind."""
        self._disk = disk
        self._directory = directory
        self._header = header
        self._name = file_name(header.index, header.term, suffix)
        self._path = f"{directory}/{self._name}{UNFINISHED}"
        self._hash = blake2b(digest_size=CHECKSUM_BYTES)
        self._offset = self._synced = 0
        try:
            self._file = disk.open(self._path, create=True)
        except OSError as error:
            raise write_error(self._path, error) from error
        try:
            self._write(encode_header(header))
        except StorageError:
            self.abort()
            raise

    def add(self, block: bytes) -> None:
        """Write a block of rows. Raises DiskFull, WriteFailed or FsyncFailed, after which only `abort` is left."""
        if not 0 < len(block) <= BLOCK_BYTES_MAX:
            raise ValueError(f"a block of {len(block)} bytes: 1 to {BLOCK_BYTES_MAX}")
        self._write(_BLOCK.pack(len(block), crc32(block)) + block)
        if self._offset - self._synced >= SYNC_BYTES:
            self._sync()

    def finish(self) -> SnapshotFile:
        """Make the file durable under its name. Raises as `add`."""
        self._write(_END)
        checksum = self._hash.digest()
        self._write(checksum)
        self._sync()
        self._file.close()
        publish(self._disk, self._directory, self._path, self._name)
        return SnapshotFile(self._header, self._name, self._offset, checksum.hex())

    def abort(self) -> None:
        """Leave nothing behind."""
        self._file.close()
        if self._disk.exists(self._path):
            self._disk.remove(self._path)

    def _write(self, data: bytes) -> None:
        try:
            self._file.write(self._offset, data)
        except OSError as error:
            raise write_error(self._path, error) from error
        self._hash.update(data)
        self._offset += len(data)

    def _sync(self) -> None:
        sync_file(self._file)
        self._synced = self._offset


class SnapshotReader:
    """Reads one snapshot, block by block. Nothing is to be believed before `block` returned None.

    All calls block, and belong to one thread.
    """

    def __init__(self, disk: Disk, path: str, cluster_id: str | None) -> None:
        """Open it and read its header; without `cluster_id` it may be any cluster's.

        Raises CorruptSnapshot, UnsupportedSnapshot, ForeignSnapshot; FileNotFoundError.
        """
        self._path = path
        self._file: File = disk.open(path)
        self._hash = blake2b(digest_size=CHECKSUM_BYTES)
        self._offset = 0
        self.checksum = ""
        """Set at the end."""
        try:
            self.header = self._read_header()
            if cluster_id is not None and self.header.cluster_id != cluster_id:
                raise ForeignSnapshot(path, self.header.cluster_id, cluster_id)
        except BaseException:
            self._file.close()
            raise

    def block(self) -> bytes | None:
        """The next block; None after the last one, when the checksum of the whole was found right.

        Raises CorruptSnapshot.
        """
        length, crc = _BLOCK.unpack(self._read(_BLOCK.size, "it ends before its last block"))
        if length == 0:
            self._check_end()
            return None
        if length > BLOCK_BYTES_MAX:
            raise self._corrupt(f"a block of {length} bytes")
        block = self._read(length, "it ends within a block")
        if crc32(block) != crc:
            raise self._corrupt("the checksum of a block does not match")
        return block

    def close(self) -> None:
        """Release the file."""
        self._file.close()

    def _read_header(self) -> SnapshotHeader:
        prefix = self._read(_PREFIX.size, "it ends within its header")
        magic, version, length, crc = _PREFIX.unpack(prefix)
        if magic != MAGIC:
            raise self._corrupt("it does not begin like a snapshot")
        if version != FORMAT:
            raise UnsupportedSnapshot(self._path, version, FORMAT)
        body = self._read(length, "it ends within its header")
        if crc32(body, crc32(_PREFIX.pack(magic, version, length, 0))) != crc:
            raise self._corrupt("the checksum of its header does not match")
        try:
            return _decode_header(body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self._corrupt(f"its header cannot be read: {error}") from error

    def _check_end(self) -> None:
        expected = self._hash.digest()
        found = self._file.read(self._offset, CHECKSUM_BYTES + 1)
        if found != expected:
            raise self._corrupt("the checksum of the whole does not match")
        self.checksum = expected.hex()

    def _read(self, length: int, cause: str) -> bytes:
        data = self._file.read(self._offset, length)
        if len(data) < length:
            raise self._corrupt(cause)
        self._hash.update(data)
        self._offset += length
        return data

    def _corrupt(self, cause: str) -> CorruptSnapshot:
        return CorruptSnapshot(self._path, self._offset, cause)


def list_snapshots(disk: Disk, directory: str) -> list[str]:
    """Names of the snapshots in `directory`, the newest first."""
    found = []
    for name in disk.names(directory):
        match name.removesuffix(SUFFIX).split("-"):
            case [index, term, _] if name.endswith(SUFFIX) and index.isdigit() and term.isdigit():
                found.append(((int(index), int(term)), name))
            case _:
                pass
    return [name for _, name in sorted(found, reverse=True)]


def prune_snapshots(disk: Disk, directory: str, needed: str) -> list[str]:
    """Remove all but the newest snapshots and the one that the log needs; returns what was removed.

    Only once the marker that names `needed` is durable.
    """
    names = list_snapshots(disk, directory)
    kept = {needed, *names[:KEPT]}
    doomed = [name for name in names if name not in kept]
    for name in doomed:
        disk.remove(f"{directory}/{name}")
    if doomed:
        disk.sync_directory(directory)
    return doomed


def remove_unfinished(disk: Disk, directory: str) -> None:
    """Remove what a process that ended was writing. Only at the start."""
    for name in disk.names(directory):
        if name.endswith(SUFFIX + UNFINISHED):
            disk.remove(f"{directory}/{name}")
