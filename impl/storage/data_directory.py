"""The data directory of a server: who it is, how often it started, its log; held by one process at a time.

    lock           flock; holds the process id
    identity.json  format, node id, node name, storage id; written once, first of all
    incarnation    how many processes have opened the directory, and a CRC-32; replaced atomically at each start
    raft/          the segments of the log; raft/snapshots/ the files of impl/storage/snapshots.py

Order matters. Identity, then log, then counter: a start that was cut anywhere can be repeated, and a directory with a
counter and without a log, or the other way round, has lost something. The incarnation is durable before anything is
recorded or sent under it, so that no two processes share one.

It must not know what the log means.
"""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

import msgspec

from impl.runtime.interfaces import Disk, Lock, Locked, Random, new_uuid
from impl.storage.durable_log import DurableLog
from impl.storage.errors import CorruptIdentity, DirectoryInUse, ForeignDirectory, MissingSnapshot
from impl.storage.files import read_file, replace_file
from impl.storage.records import Recovered, SnapshotMarker
from impl.storage.segment import SEGMENT_BYTES
from impl.storage.snapshots import remove_unfinished

FORMAT = 2


class Identity(msgspec.Struct, frozen=True):
    """Who the node is, for ever. Content of identity.json."""

    format: int
    node_id: str
    """A UUID in lower case."""
    node_name: str
    storage_id: str
    """A random UUID of this directory. Nobody can choose it: a voter whose directory was lost comes back under its
    name and node id, but not under its storage id, and so is never taken for the voter that remembers its votes."""


class _Versioned(msgspec.Struct, frozen=True):
    """What identity.json says in every format."""

    format: int


@dataclass(frozen=True, slots=True)
class DataDirectory:
    """An open data directory."""

    node_id: str
    node_name: str
    storage_id: str
    incarnation: int
    """1 in the first process that opened it; never used twice."""
    log: DurableLog
    recovered: Recovered
    lock: Lock

    def close(self) -> None:
        """Close the log and let another process in."""
        self.log.close()
        self.lock.release()


def open_data_directory(
    disk: Disk,
    path: str,
    random: Random,
    pid: int,
    node_name: str,
    node_id: str | None = None,
    *,
    segment_bytes: int = SEGMENT_BYTES,
) -> DataDirectory:
    """Lock the directory, find or make the identity, open the log, count the incarnation.

    `node_id`: the one that the user asks for; None takes the recorded one or mints one. Raises DirectoryInUse,
    ForeignDirectory (recorded under another name or id), CorruptIdentity, MissingSnapshot, what `DurableLog.open`
    raises, and OSError if the directory cannot be made or written.
    """
    disk.make_directories(path)
    try:
        lock = disk.lock(f"{path}/lock", str(pid))
    except Locked as error:
        raise DirectoryInUse(path, error.owner) from error
    try:
        known = read_identity(disk, path)
        identity = _choose(path, known, node_name, node_id, random)
        if known is None:
            replace_file(disk, path, "identity.json", msgspec.json.format(msgspec.json.encode(identity)) + b"\n")
        started = disk.exists(f"{path}/incarnation")
        log, recovered = DurableLog.open(
            disk, f"{path}/raft", identity.node_id, must_exist=started, segment_bytes=segment_bytes
        )
        if recovered.records and not started:
            raise CorruptIdentity(f"{path}/incarnation", "it is missing, but the log has records")
        _prepare_snapshots(disk, f"{path}/raft/snapshots", recovered.snapshot)
        incarnation = count_incarnation(disk, path)
    except BaseException:
        lock.release()
        raise
    return DataDirectory(identity.node_id, identity.node_name, identity.storage_id, incarnation, log, recovered, lock)


def read_identity(disk: Disk, path: str) -> Identity | None:
    """The recorded identity; None in a directory that was never used. Raises CorruptIdentity."""
    name = f"{path}/identity.json"
    if not disk.exists(name):
        return None
    content = read_file(disk, name)
    try:
        version = msgspec.json.decode(content, type=_Versioned).format
        if version != FORMAT:
            raise CorruptIdentity(name, f"format {version}, this version knows {FORMAT}")
        return msgspec.json.decode(content, type=Identity)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptIdentity(name, str(error)) from error


def _choose(path: str, known: Identity | None, node_name: str, node_id: str | None, random: Random) -> Identity:
    if known is None:
        chosen = node_id.lower() if node_id else new_uuid(random)
        return Identity(FORMAT, chosen, node_name, new_uuid(random))
    if known.node_name != node_name or (node_id and known.node_id != node_id.lower()):
        wanted = f"node {node_name}" + (f" ({node_id})" if node_id else "")
        raise ForeignDirectory(path, f"node {known.node_name} ({known.node_id})", wanted)
    return known


def _prepare_snapshots(disk: Disk, directory: str, needed: SnapshotMarker | None) -> None:
    disk.make_directories(directory)
    remove_unfinished(disk, directory)
    if needed is not None and not disk.exists(f"{directory}/{needed.file}"):
        raise MissingSnapshot(f"{directory}/{needed.file}", needed.index)


def count_incarnation(disk: Disk, path: str) -> int:
    """Add one to the durable counter and return it. Raises CorruptIdentity, FsyncFailed, OSError."""
    name = f"{path}/incarnation"
    last = _parse_incarnation(name, read_file(disk, name)) if disk.exists(name) else 0
    number = str(last + 1).encode()
    replace_file(disk, path, "incarnation", number + b" %08x\n" % crc32(number))
    return last + 1


def _parse_incarnation(name: str, content: bytes) -> int:
    match content.split():
        case [number, checksum] if number.isdigit() and checksum == b"%08x" % crc32(number):
            return int(number)
        case _:
            raise CorruptIdentity(name, "its checksum does not match")
