"""Archives of the state, as `/v1/snapshot` hands them out: a gzipped tar of three files.

    meta.json     what it is of, with Consul's names: Version, ID, Index, Term, Size; and Cluster, Software, StateDigest
    state.bin     the rows, in a file of the format of `impl/storage/snapshots.py`
    SHA256SUMS    the sums of the two

Whoever reads one may be given anything: what is unpacked is bounded, whatever is not as above is refused, and nothing
is to be believed before all of it was read. Source: Consul, "Snapshot HTTP API"; its snapshot/archive.go names the
files. *Deviation:* state.bin is of Comitia's own format, so that archives of Consul's servers are refused by name.

All calls block; both ways go in steps of a few milliseconds. This module must not know what rows mean.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Final

import msgspec

from impl.runtime.interfaces import Disk, File

META, STATE, SUMS = "meta.json", "state.bin", "SHA256SUMS"
VERSION: Final = 1
PIECE_BYTES: Final = 64 * 1024
"""What a step reads: some two milliseconds of compression."""
NOTHING_MAX: Final = 64
"""So many pieces in turn must unpack to something."""
SMALL_BYTES_MAX: Final = 64 * 1024
"""No file but the state is larger."""
_GZIP = 31
"""zlib's window bits for gzip."""
_BLOCK = 512
"""Of tar."""


class BadArchive(Exception):
    """It is not a whole archive. The text says why."""


class ArchiveMeta(msgspec.Struct, frozen=True, rename="pascal"):
    """What an archive is of."""

    version: int
    id: str = msgspec.field(name="ID")
    index: int = 0
    """The catalog's index: of the last entry applied."""
    term: int = 0
    size: int = 0
    """Of state.bin, in bytes."""
    cluster: str = ""
    software: str = ""
    state_digest: str = ""
    """Of the rows (`impl/catalog/snapshot.py`)."""


def pack(meta: ArchiveMeta, state: File, mtime: int) -> Iterator[bytes]:
    """The archive of a state file of `meta.size` bytes, in pieces, some of which are empty. `mtime`: Unix seconds."""
    compressor = zlib.compressobj(wbits=_GZIP)
    document = msgspec.json.encode(meta) + b"\n"
    sums = b""
    for name, size, pieces in ((META, len(document), [document]), (STATE, meta.size, _pieces(state, meta.size))):
        digest = sha256()
        yield compressor.compress(_header(name, size, mtime))
        for piece in pieces:
            digest.update(piece)
            yield compressor.compress(piece)
        yield compressor.compress(_padding(size))
        sums += f"{digest.hexdigest()}  {name}\n".encode()
    yield compressor.compress(_header(SUMS, len(sums), mtime) + sums + _padding(len(sums)) + bytes(2 * _BLOCK))
    yield compressor.flush()


def _pieces(file: File, size: int) -> Iterable[bytes]:
    return (file.read(offset, min(PIECE_BYTES, size - offset)) for offset in range(0, size, PIECE_BYTES))


def _header(name: str, size: int, mtime: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, mtime, 0o600
    return info.tobuf(tarfile.USTAR_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)


class Unpacking:
    """Checks an archive and writes its state file, step by step."""

    def __init__(self, disk: Disk, path: str, state_path: str, bytes_max: int) -> None:
        """The archive at `path`; the state file is made. At most `bytes_max` are unpacked. Raises OSError."""
        self.meta: ArchiveMeta | None = None
        """Set when all is done."""
        self._state = disk.open(state_path, create=True)
        try:
            self._source = disk.open(path)
        except BaseException:
            self._state.close()
            raise
        self._steps = self._run(_Inflating(self._source, bytes_max))

    def step(self) -> bool:
        """Do some of it; False: it was whole, and all is done. Raises BadArchive, OSError."""
        return next(self._steps, None) is not None

    def close(self) -> None:
        """Release both files."""
        self._source.close()
        self._state.close()

    def _run(self, stream: _Inflating) -> Iterator[bool]:
        small: dict[str, bytes] = {}
        found: dict[str, str] = {}
        while (block := stream.exactly(_BLOCK)) != bytes(_BLOCK):
            name, size = self._member(block, found)
            digest = sha256()
            parts = []
            for offset in range(0, size, PIECE_BYTES):
                piece = stream.exactly(min(PIECE_BYTES, size - offset))
                digest.update(piece)
                if name == STATE:
                    self._state.write(offset, piece)
                else:
                    parts.append(piece)
                yield True
            stream.exactly(len(_padding(size)))
            found[name], small[name] = digest.hexdigest(), b"".join(parts)
        while rest := stream.some(PIECE_BYTES):
            if rest.strip(b"\0"):
                raise BadArchive("failed reading snapshot: something follows the end of the archive")
            yield True
        for name in (META, STATE, SUMS):
            if name not in found:
                raise BadArchive(f'failed checking integrity of snapshot: file missing for "{name}"')
        _check_sums(small[SUMS], {name: found[name] for name in (META, STATE)})
        meta = _read_meta(small[META])
        if meta.size != self._state.size():
            raise BadArchive(f"{STATE} has {self._state.size()} bytes, and {META} says {meta.size}")
        self.meta = meta

    def _member(self, block: bytes, found: dict[str, str]) -> tuple[str, int]:
        """Name and size of the file that a header announces."""
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise BadArchive(f"failed reading snapshot: {error}") from error
        if not info.isreg() or info.name not in (META, STATE, SUMS):
            raise BadArchive(f"unexpected file {info.name[:80]!r} in snapshot")
        if info.name in found:
            raise BadArchive(f"file {info.name!r} is twice in snapshot")
        if info.size < 0 or (info.name != STATE and info.size > SMALL_BYTES_MAX):
            raise BadArchive(f"file {info.name!r} in snapshot has {info.size} bytes, more than {SMALL_BYTES_MAX}")
        return info.name, info.size


def _check_sums(lines: bytes, found: dict[str, str]) -> None:
    """Raises BadArchive unless the lines are the sums of just these files."""
    listed: dict[str, str] = {}
    for line in lines.decode("ascii", "replace").splitlines():
        digest, _, name = line.partition("  ")
        if name not in found:
            raise BadArchive(f"failed checking integrity of snapshot: list missing hash for {name[:80]!r}")
        listed[name] = digest
    for name, digest in found.items():
        if name not in listed:
            raise BadArchive(f'failed checking integrity of snapshot: file missing for "{name}"')
        if listed[name] != digest:
            raise BadArchive(f'failed checking integrity of snapshot: hash check failed for "{name}"')


def _read_meta(document: bytes) -> ArchiveMeta:
    try:
        meta = msgspec.json.decode(document, type=ArchiveMeta)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadArchive(f"failed to decode snapshot metadata: {error}") from error
    if not meta.state_digest:
        raise BadArchive(
            "it is an archive of other software: Consul's own servers keep their state in another format, which "
            "Comitia cannot read"
        )
    if meta.version != VERSION:
        raise BadArchive(f"it has version {meta.version}, and this build reads {VERSION}: run the one that wrote it")
    return meta


class _Inflating:
    """What a gzip file holds, in bounded pieces."""

    def __init__(self, source: File, bytes_max: int) -> None:
        self._source = source
        self._offset = 0
        self._left = bytes_max
        self._bytes_max = bytes_max
        self._inflate = zlib.decompressobj(wbits=_GZIP)

    def exactly(self, count: int) -> bytes:
        """The next bytes. Raises BadArchive."""
        parts, missing = [], count
        while missing:
            part = self.some(missing)
            if not part:
                raise BadArchive("failed reading snapshot: unexpected end of the archive")
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def some(self, count: int) -> bytes:
        """Up to `count` bytes; none: that was all, and the file is whole. Raises BadArchive."""
        for _ in range(NOTHING_MAX):
            if self._inflate.eof:
                break
            data = self._inflate.unconsumed_tail or self._source.read(self._offset, PIECE_BYTES)
            if not self._inflate.unconsumed_tail:
                self._offset += len(data)
            if not data:
                raise BadArchive("failed to decompress snapshot: unexpected end of file: it was cut off")
            try:
                part = self._inflate.decompress(data, count)
            except zlib.error as error:
                raise BadArchive(f"failed to decompress snapshot: {error}") from error
            self._left -= len(part)
            if self._left < 0:
                raise BadArchive(
                    f"it unpacks to more than {self._bytes_max} bytes: raise limits.snapshot_max_size if it is yours"
                )
            if part:
                return part
        else:
            raise BadArchive(f"failed to decompress snapshot: {NOTHING_MAX * PIECE_BYTES} bytes of it hold nothing")
        if self._inflate.unused_data or self._source.read(self._offset, 1):
            raise BadArchive("failed to decompress snapshot: something follows the end of the file")
        return b""
