"""Snapshot files and the log that builds on them: every damage is refused by name, no crash loses anything."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec
import pytest

from impl.raft.ready import SnapshotMarker
from impl.runtime.virtual_disk import VirtualDisk
from impl.storage import durable_log, snapshots
from impl.storage.data_directory import open_data_directory
from impl.storage.durable_log import DurableLog
from impl.storage.errors import (
    CorruptLog,
    CorruptSnapshot,
    DiskFull,
    ForeignSnapshot,
    MissingSnapshot,
    OutOfOrder,
    StorageError,
    UnsupportedSnapshot,
)
from impl.storage.incoming import IncomingSnapshot
from impl.storage.records import Entry, Genesis, HardState, Record, Recovered, Voter
from impl.storage.snapshots import (
    SnapshotFile,
    SnapshotHeader,
    SnapshotReader,
    SnapshotWriter,
    list_snapshots,
    prune_snapshots,
)

RAFT, SNAPSHOTS = "/data/raft", "/data/raft/snapshots"
NODE = "00000000-0000-4000-8000-000000000001"
GENESIS = Genesis("cluster", (Voter("a", NODE), Voter("b", "id-b")))
HEADER = SnapshotHeader("cluster", 7, 3, b"members", 4, "ab" * 8)
BLOCKS = [b"first block " * 5, b"x", b"the last block " * 9]


def prepared() -> VirtualDisk:
    disk = VirtualDisk()
    disk.make_directories(SNAPSHOTS)
    return disk


def write_snapshot(disk: VirtualDisk, header: SnapshotHeader = HEADER, suffix: str = "ab12") -> SnapshotFile:
    writer = SnapshotWriter(disk, SNAPSHOTS, header, suffix)
    for block in BLOCKS:
        writer.add(block)
    return writer.finish()


def read_snapshot(disk: VirtualDisk, name: str, cluster: str = "cluster") -> list[bytes]:
    reader, blocks = SnapshotReader(disk, f"{SNAPSHOTS}/{name}", cluster), []
    while (block := reader.block()) is not None:
        blocks.append(block)
    return blocks


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


# The log that builds on them


class PowerFailed(Exception):
    """The process is no more."""


class CrashingDisk(VirtualDisk):
    """Fails for good at the n-th change, before it is made."""

    def __init__(self, start: VirtualDisk, changes: int) -> None:
        other = start.copy()
        super().__init__()
        self.__dict__.update(other.__dict__)
        self.changes = changes

    def _count(self) -> None:
        if self.changes == 0:
            raise PowerFailed
        self.changes -= 1

    def write(self, node: object, offset: int, data: bytes) -> None:
        self._count()
        super().write(node, offset, data)  # type: ignore[arg-type]

    def resize(self, node: object, size: int) -> None:
        self._count()
        super().resize(node, size)  # type: ignore[arg-type]

    def rename(self, source: str, target: str) -> None:
        self._count()
        super().rename(source, target)

    def remove(self, path: str) -> None:
        self._count()
        super().remove(path)

    def sync(self, node: object) -> None:
        self._count()
        super().sync(node)  # type: ignore[arg-type]

    def sync_directory(self, directory: str) -> None:
        self._count()
        super().sync_directory(directory)


def open_log(disk: VirtualDisk) -> tuple[DurableLog, Recovered]:
    return DurableLog.open(disk, RAFT, NODE, segment_bytes=1024)


def entries(first: int, last: int, term: int = 3) -> list[Record]:
    return [Entry(index, term, b"entry %d " % index * 8, index % 2) for index in range(first, last + 1)]


def marker_of(file: SnapshotFile, base: int, base_term: int = 3) -> SnapshotMarker:
    header = file.header
    return SnapshotMarker(
        header.index, header.term, base, base_term, header.configuration, header.configuration_index,
        file.name, file.checksum, file.size, header.digest,
    )  # fmt: skip


def header_at(index: int, term: int = 3) -> SnapshotHeader:
    return msgspec.structs.replace(HEADER, index=index, term=term)


def filled(last: int = 60) -> VirtualDisk:
    """A log of many segments, synced entry by entry, with an older snapshot at 10 that it does not need any more."""
    disk = prepared()
    log, _ = open_log(disk)
    log.append([GENESIS, HardState(3, "a")])
    for record in entries(1, last):
        log.append([record])
        log.sync()
    log.append([marker_of(write_snapshot(disk, header_at(10), "old0"), 5)])
    log.sync()
    log.close()
    return disk


def snapshot_and_compact(disk: VirtualDisk, index: int = 50, base: int = 45) -> None:
    """What a server does, in its order: file, marker, sync, removal of what they stand for."""
    log, _ = open_log(disk)
    file = write_snapshot(disk, header_at(index))
    log.append([marker_of(file, base)])
    log.sync()
    log.remove_forgotten()
    prune_snapshots(disk, SNAPSHOTS, file.name)
    log.append([HardState(4, "b"), *entries(61, 62, 4)])
    log.sync()


def is_whole(disk: VirtualDisk) -> str:
    """Empty if what a restart finds has everything; else what is missing."""
    try:
        _, recovered = open_log(disk)
    except StorageError as error:
        return str(error)
    marker = recovered.snapshot
    if marker is None or recovered.genesis != GENESIS:
        return "no marker or no genesis"
    if marker.index not in (10, 50) or recovered.hard_state.term not in (3, 4):
        return f"strange marker {marker}"
    expected = [*entries(1, 60), *entries(61, 62, 4)][marker.base :]
    if list(recovered.entries) not in (expected, expected[:-1], expected[:-2]):
        return f"entries {[entry.index for entry in recovered.entries]} beyond {marker.base}"
    try:
        read_snapshot(disk, marker.file)
    except (StorageError, OSError) as error:
        return f"the marker's file: {error}"
    return ""


def losses(work: Callable[[VirtualDisk], None], start: VirtualDisk) -> list[str]:
    """What is lost by a crash at each step of `work`: by SIGKILL, by power losses that keep this or that."""
    found, chance = [], random.Random(1)
    for crash in range(500):
        disk = CrashingDisk(start, crash)
        try:
            work(disk)
        except PowerFailed:
            pass
        else:
            return found
        disk.changes = -1
        killed, lost, part = disk.copy(), disk, CrashingDisk(start, crash)
        with pytest.raises(PowerFailed):
            work(part)
        part.changes = -1
        lost.power_loss()
        part.power_loss_of_sectors(lambda: chance.random() < 0.7)
        found += [f"step {crash}: {problem}" for problem in map(is_whole, (killed, lost, part)) if problem]
    raise AssertionError("the work never ends")


def test_a_crash_at_any_step_of_a_snapshot_and_its_compaction_loses_nothing() -> None:
    assert losses(snapshot_and_compact, filled()) == []


def marker_first(disk: VirtualDisk) -> None:
    """The mutant: the log names the file before the file is there."""
    log, _ = open_log(disk)
    file = SnapshotFile(header_at(50), "50-3-ab12.snap", 0, "")
    log.append([marker_of(file, 45)])
    log.sync()
    write_snapshot(disk, header_at(50))


def segments_first(disk: VirtualDisk) -> None:
    """The mutant: removes what the marker stands for before the marker is durable."""
    log, _ = open_log(disk)
    file = write_snapshot(disk, header_at(50))
    log.append([marker_of(file, 45)])
    log._durable_base = 45
    log.remove_forgotten()
    log.sync()


def prune_first(disk: VirtualDisk) -> None:
    """The mutant: removes the older snapshots before the marker is durable, thinking that it is."""
    log, _ = open_log(disk)
    write_snapshot(disk, header_at(40), "mid0")
    file = write_snapshot(disk, header_at(50))
    prune_snapshots(disk, SNAPSHOTS, file.name)
    log.append([marker_of(file, 45)])
    log.sync()


@pytest.mark.parametrize("mutant", [marker_first, segments_first, prune_first])
def test_any_other_order_loses_something(mutant: Callable[[VirtualDisk], None]) -> None:
    assert losses(mutant, filled())


def test_segments_that_carry_nothing_cannot_be_understood_without_those_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DurableLog, "_carried", lambda self: [])
    assert losses(snapshot_and_compact, filled())


def test_removal_leaves_exactly_what_is_needed() -> None:
    disk = filled()
    before = len(segments(disk))
    snapshot_and_compact(disk)
    assert is_whole(disk) == ""
    _, recovered = open_log(disk)
    assert recovered.segments == len(segments(disk)) < before / 2
    assert recovered.entries[0].index == 46
    first = f"{RAFT}/{segments(disk)[0]}"
    disk.remove(first)
    with pytest.raises(CorruptLog, match="the segment is missing: entries 46 to"):
        open_log(disk)


def segments(disk: VirtualDisk) -> list[str]:
    return [name for name in disk.names(RAFT) if name.endswith(".log")]


def test_nothing_is_removed_before_the_marker_is_durable() -> None:
    disk = filled()
    log, _ = open_log(disk)
    assert log.remove_forgotten() == 1, "the older marker is durable"
    log.append([marker_of(write_snapshot(disk, header_at(50)), 45)])
    assert log.remove_forgotten() == 0
    log.sync()
    assert log.remove_forgotten() > 5


def test_a_marker_keeps_the_entries_after_it_if_the_log_holds_its_last_entry() -> None:
    disk = prepared()
    log, _ = open_log(disk)
    log.append([GENESIS, *entries(1, 9)])
    log.append([marker_of(write_snapshot(disk, header_at(7)), 7)])
    log.append(entries(10, 10))
    log.close()
    _, recovered = open_log(disk)
    assert list(recovered.entries) == entries(8, 10)


def after_a_replacement() -> tuple[list[int], int]:
    """Indexes and segments of a log that a snapshot replaced, twice, with entries in between."""
    disk = prepared()
    log, _ = open_log(disk)
    log.append([GENESIS, *entries(1, 30)])
    log.append([marker_of(write_snapshot(disk, header_at(20, term=4)), 20, 4)])
    for record in entries(21, 26, term=5):
        log.append([record])
    log.append([marker_of(write_snapshot(disk, header_at(40, term=6)), 40, 6)])
    log.append(entries(41, 42, term=6))
    log.sync()
    log.close()
    log, recovered = open_log(disk)
    assert log.last_index == 42
    log.append(entries(43, 60, term=6))
    log.sync()
    log.remove_forgotten()
    _, again = open_log(disk)
    assert again.entries[:2] == recovered.entries
    return [entry.index for entry in again.entries], again.segments


def test_a_marker_replaces_a_log_that_does_not_hold_its_last_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    indexes, count = after_a_replacement()
    assert indexes == list(range(41, 61))
    assert count < 6
    monkeypatch.setattr(durable_log.LogState, "holds", lambda self, index, term: True)
    with pytest.raises((OutOfOrder, AssertionError)):
        after_a_replacement()


@pytest.mark.parametrize(
    ("index", "base", "text"),
    [
        (9, 4, "snapshot 9 with base 4 cannot follow 10 with 5"),
        (10, 4, "with base 4 cannot follow"),
        (20, 21, "base 21 of the snapshot up to 20"),
        (61, 50, "that replaces the log has base 50"),
    ],
)
def test_a_marker_that_does_not_continue_the_log_is_refused(index: int, base: int, text: str) -> None:
    log, _ = open_log(filled())
    with pytest.raises(OutOfOrder, match=text):
        log.append([marker_of(SnapshotFile(header_at(index), "x", 0, ""), base)])


def test_an_entry_at_or_below_the_base_is_refused() -> None:
    log, _ = open_log(filled())
    with pytest.raises(OutOfOrder, match="entry 5 cannot follow entry 60: everything up to 5 is forgotten"):
        log.append(entries(5, 5))


def what_is_meant(records: list[Record]) -> tuple[int, list[tuple[int, int]]]:
    """Base, and (index, term) of the entries, by the simplest program that says so."""
    log: dict[int, int] = {}
    base, base_term = 0, 0
    for record in records:
        match record:
            case Entry(index, term):
                log = {key: value for key, value in log.items() if key < index} | {index: term}
            case SnapshotMarker(index, term):
                held = (index, term) == (base, base_term) or log.get(index) == term
                base, base_term = record.base, record.base_term
                log = {key: value for key, value in log.items() if key > base} if held else {}
            case _:
                pass
    return base, sorted(log.items())


def random_history(chance: random.Random) -> list[Record]:
    """Records as servers write them: terms grow, cuts stay above the snapshot, snapshots grow."""
    records: list[Record] = [GENESIS]
    log, term, base, snapshot = {0: 0}, 1, 0, 0
    for _ in range(60):
        last = max(log)
        term += chance.random() < 0.2
        match chance.randrange(8):
            case 0:
                records.append(HardState(term, None))
            case 1 if last > snapshot:
                snapshot = chance.randrange(snapshot + 1, last + 1)
                base = chance.randrange(base, snapshot + 1)
                records.append(SnapshotMarker(snapshot, log[snapshot], base, log[base], b"", 0, "f", "c", 1))
                log = {key: value for key, value in log.items() if key >= base}
            case 2 if chance.random() < 0.4:
                snapshot = base = last + chance.randrange(0, 5) - 2 if last > snapshot + 3 else last + 3
                term += 1
                records.append(SnapshotMarker(base, term, base, term, b"", 0, "f", "c", 1))
                log = {base: term}
            case 3 if last > snapshot + 1:
                index = chance.randrange(snapshot + 1, last + 1)
                log = {key: value for key, value in log.items() if key < index} | {index: term}
                records.append(Entry(index, term, b"cut"))
            case _:
                log[last + 1] = term
                records.append(Entry(last + 1, term, bytes(chance.randrange(200))))
    return records


def wrongly_recovered(seeds: int) -> list[int]:
    wrong = []
    for seed in range(seeds):
        chance = random.Random(seed)
        records, disk, position = random_history(chance), prepared(), 0
        try:
            while position < len(records):
                log, recovered = open_log(disk)
                found = (recovered.snapshot.base if recovered.snapshot else 0, list(recovered.entries))
                assert (found[0], [(entry.index, entry.term) for entry in found[1]]) == what_is_meant(
                    records[:position]
                )
                for _ in range(chance.randrange(1, 20)):
                    batch = records[position : position + chance.randrange(1, 4)]
                    position += len(batch)
                    log.append(batch)
                    log.sync()
                    log.remove_forgotten()
                log.close()
        except (AssertionError, StorageError):
            wrong.append(seed)
    return wrong


def test_random_histories_are_recovered_as_they_are_meant_with_every_removal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wrongly_recovered(150) == []
    with monkeypatch.context() as patch:
        patch.setattr(DurableLog, "_carried", lambda self: [GENESIS])
        assert wrongly_recovered(30)
    monkeypatch.setattr(durable_log.LogState, "holds", lambda self, index, term: index <= self.last_index)
    assert wrongly_recovered(150)


# The data directory


def test_a_log_whose_snapshot_is_gone_is_refused_with_its_name() -> None:
    disk = VirtualDisk()
    data = open_data_directory(disk, "/data", random.Random(1), 1, "a", segment_bytes=1024)
    data.log.append([GENESIS, *entries(1, 60)])
    file = write_snapshot(disk, header_at(50))
    data.log.append([marker_of(file, 45)])
    data.log.sync()
    disk.put(f"{SNAPSHOTS}/60-3-dead.snap.new", b"unfinished")
    data.close()
    data = open_data_directory(disk, "/data", random.Random(1), 1, "a", segment_bytes=1024)
    assert data.recovered.snapshot is not None
    assert disk.names(SNAPSHOTS) == [file.name], "what was being written is removed"
    data.close()
    disk.remove(f"{SNAPSHOTS}/{file.name}")
    with pytest.raises(MissingSnapshot, match=rf"snapshots/{file.name} is missing: everything up to entry 50"):
        open_data_directory(disk, "/data", random.Random(1), 1, "a", segment_bytes=1024)


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
