"""Archives of the state: whole ones are unpacked, anything else is refused by what is wrong, at bounded cost."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zlib
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest

from impl.agent.snapshots import archives
from impl.agent.snapshots.archives import Verifying, cut, verify_archive
from impl.catalog.commands import KvSet, Register, SessionCreate
from impl.catalog.restore import Soundness
from impl.catalog.rows import Check, Node, Service, Session
from impl.catalog.snapshot import StateDigest, StoreView, encode_blocks, encode_rows, state_digest
from impl.catalog.store import Store
from impl.catalog.tables import KvEntry
from impl.catalog.tagged import ArchivedRow, CheckRow, IndexRow, KvRow, NodeRow, ServiceRow, SessionRow
from impl.runtime.virtual_disk import VirtualDisk
from impl.storage import archive
from impl.storage.archive import ArchiveMeta, BadArchive, Unpacking, pack
from impl.storage.snapshots import SnapshotHeader, SnapshotWriter

DIRECTORY = "/data/archives"
BYTES_MAX = 1 << 20


def filled() -> Store:
    store = Store()
    store.apply(Register(Node("n1", "1"), Service("n1", "w", "web"), (Check("n1", "c", status="passing"),)), 1)
    store.apply(SessionCreate(Session("s", "n1", node_checks=("c",))), 2)
    for number in range(600):
        store.apply(KvSet(f"k{number}", f"value {number}".encode() * 20, 0), 3 + number)
    return store


STORE = filled()


def rows_of(store: Store) -> list[ArchivedRow]:
    view, rows = StoreView(store, archive=True), list[Any]()
    while not view.done:
        rows += view.rows()
    return rows


def packed(rows: list[ArchivedRow] | None = None, digest: str | None = None, index: int = 700) -> bytes:
    """An archive as a server makes it, of these rows."""
    rows = rows_of(STORE) if rows is None else rows
    disk = VirtualDisk()
    disk.make_directories(DIRECTORY)
    writer = SnapshotWriter(disk, DIRECTORY, SnapshotHeader("cluster", 700, 2, b"", 0, ""), "x")
    whole = StateDigest()
    for block in encode_blocks(rows):
        writer.add(block)
        whole.add(block)
    file = writer.finish()
    meta = ArchiveMeta(1, "2-700-1", index, 2, file.size, "cluster", "1.22.0", digest or whole.hexdigest())
    return b"".join(pack(meta, disk.open(f"{DIRECTORY}/{file.name}"), 1_700_000_000))


WHOLE = packed()


def verified(data: bytes, bytes_max: int = BYTES_MAX) -> ArchiveMeta:
    disk = VirtualDisk()
    disk.make_directories(DIRECTORY)
    file = disk.open(f"{DIRECTORY}/a", create=True)
    file.write(0, data)
    return verify_archive(disk, f"{DIRECTORY}/a", f"{DIRECTORY}/s", bytes_max)


def refused(data: bytes, bytes_max: int = BYTES_MAX) -> str:
    with pytest.raises(BadArchive) as caught:
        verified(data, bytes_max)
    return str(caught.value)


def members(data: bytes = WHOLE) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
        return {each.name: tar.extractfile(each).read() for each in tar.getmembers()}  # type: ignore[union-attr]


def tarred(*files: tuple[str, bytes], sums: bool = True, kind: bytes = tarfile.REGTYPE) -> bytes:
    out = io.BytesIO()
    listed = "".join(f"{sha256(content).hexdigest()}  {name}\n" for name, content in files).encode()
    with tarfile.open(fileobj=out, mode="w:gz", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in (*files, *([("SHA256SUMS", listed)] if sums else [])):
            info = tarfile.TarInfo(name)
            info.size, info.type = len(content), kind
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def test_any_tool_unpacks_an_archive_and_its_sums_are_right() -> None:
    files = members()
    assert list(files) == ["meta.json", "state.bin", "SHA256SUMS"]
    for line in files["SHA256SUMS"].decode().splitlines():
        digest, name = line.split("  ")
        assert sha256(files[name]).hexdigest() == digest
    meta = json.loads(files["meta.json"])
    assert (meta["Index"], meta["Term"], meta["Size"]) == (700, 2, len(files["state.bin"]))
    assert meta["StateDigest"] == state_digest(STORE, archive=True)


def test_an_archive_that_other_tools_packed_again_is_whole() -> None:
    files = members()
    meta, state = ("meta.json", files["meta.json"]), ("state.bin", files["state.bin"])
    assert verified(tarred(meta, state)) == verified(tarred(state, meta)) == verified(WHOLE)


def every_flipped_bit_and_every_cut_is_found() -> None:
    for position in range(0, len(WHOLE), 61):
        damaged = bytearray(WHOLE)
        damaged[position] ^= 1 << (position % 8)
        if position in (4, 5, 6, 7, 8, 9):  # gzip's time, hints and system, which say nothing
            continue
        with pytest.raises(BadArchive):
            verified(bytes(damaged))
    for length in (0, 1, 10, len(WHOLE) // 2, len(WHOLE) - 1):
        with pytest.raises(BadArchive):
            verified(WHOLE[:length])


def test_damage_is_found() -> None:
    every_flipped_bit_and_every_cut_is_found()


FILES = members()
META, STATE = ("meta.json", FILES["meta.json"]), ("state.bin", FILES["state.bin"])
OTHER_STATE = ("state.bin", FILES["state.bin"][:-1] + b"?")


def sums_are_checked() -> None:
    wrong = tarred(META, STATE)[:0] + tarred(META, OTHER_STATE, ("SHA256SUMS", FILES["SHA256SUMS"]), sums=False)
    assert refused(wrong) == 'failed checking integrity of snapshot: hash check failed for "state.bin"'
    lines = FILES["SHA256SUMS"].splitlines(keepends=True)
    short = tarred(META, STATE, ("SHA256SUMS", lines[0]), sums=False)
    assert refused(short) == 'failed checking integrity of snapshot: file missing for "state.bin"'
    assert "list missing hash for 'x'" in refused(tarred(META, STATE, ("SHA256SUMS", b"00  x\n"), sums=False))


def test_the_sums_are_checked() -> None:
    sums_are_checked()


def other_files_are_refused() -> None:
    assert refused(tarred(META, STATE, ("../evil", b""))) == "unexpected file '../evil' in snapshot"
    assert refused(tarred(META, STATE, STATE)) == "file 'state.bin' is twice in snapshot"
    assert "unexpected file" in refused(tarred(META, STATE, kind=tarfile.SYMTYPE))
    assert refused(tarred(META)) == 'failed checking integrity of snapshot: file missing for "state.bin"'
    assert "has 100000 bytes, more than" in refused(tarred(("meta.json", bytes(100_000)), STATE))


def test_other_files_are_refused() -> None:
    other_files_are_refused()


def test_what_is_no_archive_at_all_is_named() -> None:
    assert refused(b"PK\x03\x04" + bytes(600)).startswith("failed to decompress snapshot: ")
    assert refused(gzip.compress(b"hello" * 300)).startswith("failed reading snapshot: ")
    assert "something follows the end of the file" in refused(WHOLE + b"x")
    assert "something follows the end of the archive" in refused(gzip.compress(gzip.decompress(WHOLE) + b"x" * 512))


def test_an_archive_of_consuls_own_servers_is_named() -> None:
    foreign = json.dumps({"Version": 1, "ID": "2-13-1", "Index": 13, "Term": 2, "Peers": "", "Size": 4}).encode()
    assert "Consul's own servers" in refused(tarred(("meta.json", foreign), ("state.bin", b"\0abc")))


def bombs_cost_what_is_allowed() -> None:
    bomb = tarred(META, ("state.bin", bytes(16 << 20)))
    assert len(bomb) < 100_000
    assert refused(bomb) == "it unpacks to more than 1048576 bytes: raise limits.snapshot_max_size if it is yours"
    hollow = zlib.compressobj(wbits=31)
    nothing = b"".join(hollow.compress(b"") + hollow.flush(zlib.Z_FULL_FLUSH) for _ in range(10))
    unit = nothing[-5:]
    assert "hold nothing" in refused(nothing + unit * 840_000)


def test_bombs_cost_what_is_allowed() -> None:
    bombs_cost_what_is_allowed()


def with_row(row: ArchivedRow, after: type) -> list[ArchivedRow]:
    rows = rows_of(STORE)
    last = max(position for position, each in enumerate(rows) if isinstance(each, after))
    return [*rows[: last + 1], row, *rows[last + 1 :]]


def rows_that_make_no_state_are_refused() -> None:
    numbers: dict[str, Any] = {"create_index": 1, "modify_index": 1}
    lone = with_row(ServiceRow(Service("n2", "x", "web", **numbers)), ServiceRow)
    assert "rows that others need are missing" in refused(packed(lone))
    assert "is not in order" in refused(packed(with_row(NodeRow(Node("a", "1", **numbers)), NodeRow)))
    assert "has a NUL" in refused(packed(with_row(NodeRow(Node("z\0", "1", **numbers)), NodeRow)))
    odd = with_row(CheckRow(Check("n1", "d", status="unwell", **numbers)), CheckRow)
    assert "its status is 'unwell'" in refused(packed(odd))
    ttl = with_row(SessionRow(Session("t", "n1", ttl="soon", **numbers)), SessionRow)
    assert "its TTL is 'soon'" in refused(packed(ttl))
    behavior = with_row(SessionRow(Session("t", "n1", behavior="explode", **numbers)), SessionRow)
    assert "its behavior is 'explode'" in refused(packed(behavior))
    assert "indexes are wrong" in refused(packed([IndexRow("kv", 1 << 63)]))
    large = KvRow(KvEntry("kz", 0, bytes(6 << 20), 3, 3))
    assert "has more than" in refused(packed(with_row(large, KvRow)), 1 << 24)
    assert refused(packed(digest="0" * 32)) == "state.bin holds another state than meta.json says"
    assert "is of index 700, and meta.json says 9" in refused(packed(index=9))


def test_rows_that_make_no_state_are_refused() -> None:
    rows_that_make_no_state_are_refused()


def first_of_row(row: Any) -> tuple[int, str]:
    return (1 << 40, "")


def no_check_of_sums(*_: object) -> None:
    """Believes the archive."""


def without_limit(source: Any, bytes_max: int) -> Any:
    return INFLATING(source, 1 << 40)


INFLATING = archive._Inflating
MUTANTS: tuple[tuple[object, str, Any, Callable[[], None]], ...] = (
    (archive, "_check_sums", no_check_of_sums, sums_are_checked),
    (archive, "_Inflating", without_limit, bombs_cost_what_is_allowed),
    (Soundness, "sound", True, rows_that_make_no_state_are_refused),
    (archives, "_why_not", lambda row: None, rows_that_make_no_state_are_refused),
    (Verifying, "_check_end", no_check_of_sums, rows_that_make_no_state_are_refused),
    (archives, "ROW_BYTES_MAX", 1 << 40, rows_that_make_no_state_are_refused),
    (Unpacking, "_member", lambda self, block, found: (tarfile.TarInfo.frombuf(block, "utf-8", "strict").name,
                                                       tarfile.TarInfo.frombuf(block, "utf-8", "strict").size),
     other_files_are_refused),
)  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: str(mutant[1]))
def test_a_mutant_is_noticed(
    monkeypatch: pytest.MonkeyPatch, mutant: tuple[object, str, Any, Callable[[], None]]
) -> None:
    place, name, broken, sentence = mutant
    monkeypatch.setattr(place, name, broken)
    with pytest.raises((AssertionError, pytest.fail.Exception, OSError)):
        sentence()


def test_chunks_are_small_whatever_the_blocks_of_an_archive_are() -> None:
    rows: list[ArchivedRow] = [KvRow(KvEntry(f"{n:04}", 0, bytes(50_000 * (n % 3)), 1, 1)) for n in range(600)]
    parts = list(cut(rows))
    assert [row for part in parts for row in part] == rows
    assert all(len(part) <= 250 and (len(part) == 1 or len(encode_rows(part)) < 140_000) for part in parts)
