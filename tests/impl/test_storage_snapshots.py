"""Snapshot files, whole and arriving in pieces: every damage is refused by name."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec
import pytest

from impl.runtime.virtual_disk import VirtualDisk
from impl.storage import snapshots
from impl.storage.errors import (
    CorruptSnapshot,
    DiskFull,
    ForeignSnapshot,
    UnsupportedSnapshot,
)
from impl.storage.incoming import IncomingSnapshot
from impl.storage.records import HardState
from impl.storage.snapshots import (
    SnapshotFile,
    SnapshotReader,
    SnapshotWriter,
    list_snapshots,
    prune_snapshots,
)
from tests.impl.snapshot_files import (
    BLOCKS,
    GENESIS,
    HEADER,
    SNAPSHOTS,
    CrashingDisk,
    PowerFailed,
    open_log,
    prepared,
    read_snapshot,
    write_snapshot,
)

# Files


def test_what_was_written_is_what_is_read() -> None:
    disk = prepared()
    file = write_snapshot(disk)
    assert read_snapshot(disk, file.name) == BLOCKS
    reader = SnapshotReader(disk, f"{SNAPSHOTS}/{file.name}", "cluster")
    while reader.block() is not None:
        pass
    assert (reader.header, reader.checksum) == (HEADER, file.checksum)
    content = disk.content(f"{SNAPSHOTS}/{file.name}")
    assert (len(content), content[-32:].hex()) == (file.size, file.checksum)


def accepted_damage(damages: list[Callable[[bytes], bytes]]) -> int:
    """How many damaged copies of a snapshot are believed."""
    disk = prepared()
    name = write_snapshot(disk).name
    content, believed = disk.content(f"{SNAPSHOTS}/{name}"), 0
    for damage in damages:
        disk.put(f"{SNAPSHOTS}/{name}", damage(content))
        try:
            read_snapshot(disk, name)
        except (CorruptSnapshot, UnsupportedSnapshot):
            continue
        believed += 1
    return believed


def flip(offset: int) -> Callable[[bytes], bytes]:
    return lambda content: content[:offset] + bytes([content[offset] ^ 0x55]) + content[offset + 1 :]


def truncate(length: int) -> Callable[[bytes], bytes]:
    return lambda content: content[:length]


LENGTH = 20 + len(msgspec.msgpack.encode(HEADER)) + sum(8 + len(block) for block in BLOCKS) + 8 + 32
DAMAGES = [flip(offset) for offset in range(LENGTH)] + [truncate(length) for length in range(LENGTH)]


def test_every_flipped_byte_and_every_truncation_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = prepared()
    assert write_snapshot(disk).size == LENGTH
    assert accepted_damage([*DAMAGES, lambda content: content + b"\0"]) == 0
    monkeypatch.setattr(SnapshotReader, "_check_end", lambda self: None)
    assert accepted_damage([truncate(LENGTH - 1), flip(LENGTH - 1)]) == 2, "the whole is what is checked"


def test_a_block_is_checked_before_the_whole_is_known() -> None:
    disk = prepared()
    name = write_snapshot(disk).name
    path = f"{SNAPSHOTS}/{name}"
    disk.put(path, disk.content(path).replace(b"first block", b"worse block"))
    with pytest.raises(CorruptSnapshot, match="checksum of a block"):
        SnapshotReader(disk, path, "cluster").block()


def test_a_snapshot_of_another_cluster_is_refused_with_both_names() -> None:
    disk = prepared()
    name = write_snapshot(disk).name
    with pytest.raises(ForeignSnapshot, match="of cluster cluster, this server belongs to cluster other"):
        read_snapshot(disk, name, "other")


def test_a_snapshot_of_another_format_is_refused_with_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = prepared()
    with monkeypatch.context() as patch:
        patch.setattr(snapshots, "FORMAT", 9)
        name = write_snapshot(disk).name
    with pytest.raises(UnsupportedSnapshot, match="has snapshot format 9, this version reads format 1"):
        read_snapshot(disk, name)


def test_a_file_under_a_snapshots_name_is_complete_whenever_the_power_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def incomplete() -> int:
        wrong = 0
        for crash in range(200):
            disk, done = CrashingDisk(prepared(), crash), False
            try:
                write_snapshot(disk)
                done = True
            except PowerFailed:
                pass
            disk.power_loss()
            for name in list_snapshots(disk, SNAPSHOTS):
                try:
                    read_snapshot(disk, name)
                except CorruptSnapshot:
                    wrong += 1
            if done:
                return wrong
        raise AssertionError("the write never ends")

    assert incomplete() == 0
    monkeypatch.setattr(snapshots, "sync_file", lambda file: None)
    assert incomplete() > 0


def test_a_full_disk_leaves_nothing_behind_and_the_log_goes_on() -> None:
    disk = prepared()
    log, _ = open_log(disk)
    log.append([GENESIS])
    disk.free_bytes = 100
    with pytest.raises(DiskFull, match="free some"):
        writer = SnapshotWriter(disk, SNAPSHOTS, HEADER, "ab12")
        try:
            for block in BLOCKS:
                writer.add(block)
        except DiskFull:
            writer.abort()
            raise
    assert disk.names(SNAPSHOTS) == []
    log.append([HardState(1, "a")])
    log.sync()


def test_the_newest_two_and_the_one_that_is_needed_are_kept() -> None:
    disk = prepared()
    for index in (9, 10, 100, 99):
        write_snapshot(disk, msgspec.structs.replace(HEADER, index=index))
    disk.put(f"{SNAPSHOTS}/incoming-00.part", b"")
    assert list_snapshots(disk, SNAPSHOTS) == [f"{index}-3-ab12.snap" for index in (100, 99, 10, 9)]
    assert prune_snapshots(disk, SNAPSHOTS, "9-3-ab12.snap") == ["10-3-ab12.snap"]
    assert list_snapshots(disk, SNAPSHOTS) == [f"{index}-3-ab12.snap" for index in (100, 99, 9)]
    assert disk.exists(f"{SNAPSHOTS}/incoming-00.part")


# Part files


def receive(disk: VirtualDisk, content: bytes, checksum: str, piece: int, stop: int | None = None) -> IncomingSnapshot:
    part = IncomingSnapshot(disk, SNAPSHOTS, checksum, len(content))
    while not part.complete and (stop is None or part.offset < stop):
        part.append(content[part.offset : part.offset + piece])
    return part


def accept(part: IncomingSnapshot, cluster: str = "cluster") -> SnapshotFile:
    reader = part.verifier(cluster)
    while reader.block() is not None:
        pass
    return part.accept(reader, "cd34")


def sent_snapshot() -> tuple[bytes, str]:
    disk = prepared()
    file = write_snapshot(disk)
    return disk.content(f"{SNAPSHOTS}/{file.name}"), file.checksum


def test_a_snapshot_that_arrives_in_pieces_over_a_restart_is_the_one_that_was_sent() -> None:
    content, checksum = sent_snapshot()
    disk = prepared()
    receive(disk, content, checksum, 11, stop=100)
    disk.process_crash()
    part = receive(disk, content, checksum, 13)
    file = accept(part)
    assert (file.checksum, file.header, file.size) == (checksum, HEADER, len(content))
    assert disk.names(SNAPSHOTS) == [file.name]
    assert read_snapshot(disk, file.name) == BLOCKS
    disk.power_loss()
    assert read_snapshot(disk, file.name) == BLOCKS


def believed_after_power_losses() -> int:
    content, checksum = sent_snapshot()
    believed, chance = 0, random.Random(3)
    for _ in range(60):
        disk = prepared()
        receive(disk, content, checksum, 7, stop=len(content) - 20)
        disk.sync_directory(SNAPSHOTS)
        disk.power_loss_of_sectors(lambda: chance.random() < 0.5)
        try:
            file = accept(receive(disk, content, checksum, 7))
        except CorruptSnapshot:
            continue
        believed += disk.content(f"{SNAPSHOTS}/{file.name}") != content
    return believed


def test_what_a_power_loss_left_of_a_part_is_never_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert believed_after_power_losses() == 0
    monkeypatch.setattr(SnapshotReader, "_check_end", lambda self: None)
    monkeypatch.setattr(snapshots, "crc32", lambda data, start=0: int.from_bytes(bytes(4), "little"))
    content, checksum = sent_snapshot()
    part = receive(prepared(), content, checksum, 50)
    with pytest.raises(CorruptSnapshot, match="not the snapshot that was offered"):
        accept(part)


def test_another_snapshot_than_was_offered_is_refused() -> None:
    content, checksum = sent_snapshot()
    part = receive(prepared(), content, checksum[::-1], 50)
    with pytest.raises(CorruptSnapshot, match="not the snapshot that was offered"):
        accept(part)
    part = receive(prepared(), content, checksum, 50)
    with pytest.raises(ForeignSnapshot):
        accept(part, "other")


def test_a_new_transfer_removes_the_part_of_another() -> None:
    content, checksum = sent_snapshot()
    disk = prepared()
    receive(disk, content, "00" * 32, 11, stop=100)
    receive(disk, content, checksum, 11, stop=100)
    assert disk.names(SNAPSHOTS) == [f"incoming-{checksum}.part"]
    receive(disk, content[:50], checksum, 50)
    assert len(disk.content(f"{SNAPSHOTS}/incoming-{checksum}.part")) == 50, "longer than the whole: begun anew"


def test_no_room_for_a_part_is_said() -> None:
    content, checksum = sent_snapshot()
    disk = prepared()
    disk.free_bytes = 60
    with pytest.raises(DiskFull):
        receive(disk, content, checksum, 50)
