"""The log that builds on snapshot files: no crash, in any order of the steps, loses anything."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec
import pytest

from impl.raft.ready import SnapshotMarker
from impl.runtime.virtual_disk import VirtualDisk
from impl.storage.data_directory import open_data_directory
from impl.storage.durable_log import DurableLog
from impl.storage.errors import (
    CorruptLog,
    MissingSnapshot,
    OutOfOrder,
    StorageError,
)
from impl.storage.log_state import LogState
from impl.storage.records import Entry, HardState, Record
from impl.storage.snapshots import (
    SnapshotFile,
    SnapshotHeader,
    prune_snapshots,
)
from tests.impl.snapshot_files import (
    GENESIS,
    HEADER,
    RAFT,
    SNAPSHOTS,
    CrashingDisk,
    PowerFailed,
    open_log,
    prepared,
    read_snapshot,
    write_snapshot,
)


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
    found, chance = list[str](), random.Random(1)
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
    monkeypatch.setattr(LogState, "holds", lambda self, index, term: True)
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
    monkeypatch.setattr(LogState, "holds", lambda self, index, term: index <= self.last_index)
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
