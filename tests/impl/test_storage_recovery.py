"""Recovery of the durable log: what is damaged is refused or explained, and never silently less than it was.

The log under test is small enough to damage it in every way: each byte flipped, each length cut, each sector lost.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial

import pytest

from impl.runtime.virtual_disk import VirtualDisk
from impl.storage import durable_log, scan, segment
from impl.storage.durable_log import DurableLog
from impl.storage.errors import CorruptLog, ForeignDirectory, StorageError, UnsupportedFormat
from impl.storage.records import Entry, Genesis, HardState, Record, Recovered, Voter

DIRECTORY = "/data/raft"
NODE = "00000000-0000-4000-8000-000000000001"
FIRST, LAST = f"{DIRECTORY}/0000000001.log", f"{DIRECTORY}/0000000002.log"
SEGMENT_BYTES = 1536
BATCHES: tuple[tuple[Record, ...], ...] = (
    (Genesis("cluster", (Voter("a", NODE), Voter("b", "id-b"), Voter("c", "id-c"))), HardState(1, "a")),
    (Entry(1, 1, b"one" * 40), Entry(2, 1, b"two")),
    (Entry(3, 1, b"three" * 100), HardState(2, None)),
    # The rest begins a second segment, which repeats the genesis. Entry 2 cuts the log.
    (Entry(2, 2, b"two again" * 60), HardState(3, "b")),
    (Entry(3, 3, b"three again"), Entry(4, 3, b""), Entry(5, 3, b"five")),
)


def open_log(disk: VirtualDisk, **options: bool) -> tuple[DurableLog, Recovered]:
    return DurableLog.open(disk, DIRECTORY, NODE, segment_bytes=SEGMENT_BYTES, **options)


def reopen(disk: VirtualDisk) -> Recovered | StorageError:
    """What a restart finds; an error is an answer too."""
    try:
        log, recovered = open_log(disk)
    except StorageError as error:
        return error
    log.close()
    return recovered


def written(batches: Sequence[Sequence[Record]] = BATCHES) -> VirtualDisk:
    """A disk with these batches, each appended and synced."""
    disk = VirtualDisk()
    log, _ = open_log(disk)
    for batch in batches:
        log.append(batch)
        log.sync()
    log.close()
    return disk


def records_of(batches: Sequence[Sequence[Record]]) -> list[Record]:
    return [record for batch in batches for record in batch]


def meaning(records: Sequence[Record]) -> tuple[Genesis | None, HardState, tuple[Entry, ...]]:
    """What a sequence of records means, by the simplest program that says so."""
    genesis, hard_state, entries = None, HardState(0, None), list[Entry]()
    for record in records:
        if isinstance(record, Genesis):
            genesis = record
        elif isinstance(record, HardState):
            hard_state = record
        else:
            assert isinstance(record, Entry)
            entries = [*entries[: record.index - 1], record]
    return genesis, hard_state, tuple(entries)


def found(recovered: Recovered) -> tuple[Genesis | None, HardState, tuple[Entry, ...]]:
    return recovered.genesis, recovered.hard_state, recovered.entries


ALL = records_of(BATCHES)


def last_record_of(disk: VirtualDisk) -> range:
    """Where the last record stands in the last segment."""
    content = disk.content(LAST)
    _, crc = segment.decode_header("", content)
    last = scan.scan_segment("", content, crc).records[-1]
    return range(last.offset, last.end)


def silent_losses_of_flips(masks: Sequence[int]) -> list[str]:
    """Flips of single bytes after which recovery gives less than was written without an acceptable explanation."""
    losses, last = [], last_record_of(written())
    original = written()
    for path in (FIRST, LAST):
        for offset in range(len(original.content(path))):
            for mask in masks:
                disk = original.copy()
                disk.flip(path, offset, mask)
                recovered = reopen(disk)
                if isinstance(recovered, StorageError):
                    continue
                in_last = path == LAST and offset in last
                explained = recovered.cut is not None and found(recovered) == meaning(ALL[:-1] if in_last else ALL)
                if not explained:
                    losses.append(f"{path} byte {offset}: {recovered}")
    return losses


def test_what_was_written_is_what_is_recovered() -> None:
    recovered = reopen(written())
    assert isinstance(recovered, Recovered)
    assert found(recovered) == meaning(ALL)
    assert recovered.entries == (
        Entry(1, 1, b"one" * 40),
        Entry(2, 2, b"two again" * 60),
        Entry(3, 3, b"three again"),
        Entry(4, 3, b""),
        Entry(5, 3, b"five"),
    )
    assert recovered.hard_state == HardState(3, "b")
    assert (recovered.records, recovered.segments, recovered.cut) == (len(ALL), 2, None)


def test_every_flipped_byte_is_refused_or_is_a_torn_last_record() -> None:
    assert silent_losses_of_flips((0xFF, 0x01)) == []


def test_every_flipped_byte_before_the_last_record_and_the_free_space_is_refused() -> None:
    original, last = written(), last_record_of(written())
    for path, end in ((FIRST, SEGMENT_BYTES), (LAST, last.start)):
        for offset in range(end):
            disk = original.copy()
            disk.flip(path, offset)
            assert isinstance(reopen(disk), CorruptLog), (path, offset)


def test_a_recovery_that_stops_at_the_first_bad_record_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "judge_tail", lambda *_: None)
    assert silent_losses_of_flips((0xFF,))


def test_a_checksum_that_is_not_checked_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    read = segment.read_record

    def believe(data: memoryview, offset: int) -> segment.RawRecord | str:
        """The mutant: takes the checksum that stands there for the right one."""
        stored = int.from_bytes(data[offset : offset + 4], "little")
        with monkeypatch.context() as patch:
            patch.setattr(segment, "record_crc", lambda _: stored)
            return read(data, offset) if stored else "zeros"

    monkeypatch.setattr(scan, "read_record", believe)
    assert silent_losses_of_flips((0x01,))


def splice() -> VirtualDisk:
    """A disk on which one record was replaced by another intact one, as by a write that went astray."""
    good, other = written(), written([*BATCHES[:-1], (Entry(3, 3, b"three  gain"), *BATCHES[-1][1:])])
    content, foreign = bytearray(good.content(LAST)), other.content(LAST)
    _, crc = segment.decode_header("", bytes(content))
    place = scan.scan_segment("", bytes(content), crc).records[3]
    content[place.offset : place.end] = foreign[place.offset : place.end]
    good.put(LAST, bytes(content))
    return good


def test_an_intact_record_in_a_place_that_is_not_its_own_is_refused() -> None:
    error = reopen(splice())
    assert isinstance(error, CorruptLog)
    assert "does not continue its predecessor" in str(error)


def test_checksums_that_are_not_chained_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "continues", lambda record, crc: True)
    assert isinstance(reopen(splice()), Recovered)


def test_a_segment_of_any_other_length_is_refused() -> None:
    original = written()
    for path in (FIRST, LAST):
        content = original.content(path)
        for length in range(len(content)):
            disk = original.copy()
            disk.put(path, content[:length])
            assert isinstance(reopen(disk), CorruptLog), (path, length)


def test_zeros_from_any_byte_on_leave_a_prefix_in_the_last_segment_and_are_refused_before_it() -> None:
    original = written()
    first_segment = len(records_of(BATCHES[:3]))
    for path in (FIRST, LAST):
        content = original.content(path)
        used = len(content.rstrip(b"\0"))
        for offset in range(used):
            disk = original.copy()
            disk.put(path, content[:offset] + bytes(len(content) - offset))
            recovered = reopen(disk)
            if path == FIRST or offset < len(content[: segment.HEADER_BYTES].rstrip(b"\0")):
                assert isinstance(recovered, CorruptLog), (path, offset)
            elif isinstance(recovered, Recovered):
                assert recovered.records >= first_segment
                assert found(recovered) == meaning(ALL[: recovered.records])


@pytest.mark.parametrize("lost", [FIRST, LAST])
def test_a_missing_segment_before_the_last_is_refused(lost: str) -> None:
    disk = written([*BATCHES, (Entry(6, 3, b"x" * 1200),), (Entry(7, 3, b"x" * 1200),)])
    disk.remove(lost)
    error = reopen(disk)
    assert isinstance(error, CorruptLog)
    assert "missing" in str(error)


def test_the_error_names_segment_offset_record_and_remedy() -> None:
    disk = written()
    disk.flip(FIRST, segment.HEADER_BYTES + 50)
    error = reopen(disk)
    assert isinstance(error, CorruptLog)
    assert (error.segment, error.offset, error.record) == ("0000000001.log", segment.HEADER_BYTES, 1)
    assert "remove its data directory" in str(error)


def test_a_torn_tail_is_cut_and_reported_and_the_log_goes_on() -> None:
    disk, last = written(), last_record_of(written())
    disk.flip(LAST, last.stop - 1)
    log, recovered = open_log(disk)
    assert recovered.cut is not None
    assert (recovered.cut.segment, recovered.cut.offset) == ("0000000002.log", last.start)
    assert recovered.cut.bytes == last.stop - last.start
    assert found(recovered) == meaning(ALL[:-1])
    log.append([Entry(5, 4, b"another five")])
    log.sync()
    again = reopen(disk)
    assert isinstance(again, Recovered)
    assert (again.cut, again.entries[-1]) == (None, Entry(5, 4, b"another five"))


def test_another_nodes_directory_is_refused() -> None:
    with pytest.raises(ForeignDirectory, match=r"belongs to node 00000000-.*-data-dir"):
        DurableLog.open(written(), DIRECTORY, "00000000-0000-4000-8000-000000000002")


def test_an_unknown_format_version_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(segment, "FORMAT", 7)
        disk = written()
    with pytest.raises(UnsupportedFormat, match="has log format 7, this version reads format 3"):
        open_log(disk)


def test_a_directory_that_lost_its_log_is_refused() -> None:
    with pytest.raises(CorruptLog, match="held a log and does not now"):
        open_log(VirtualDisk(), must_exist=True)


# Crashes


UNSYNCED = (
    (Entry(6, 3, b"six" * 200), HardState(4, "c"), Entry(7, 4, b"seven" * 30)),
    (Entry(7, 4, bytes(700)), Entry(8, 4, b"eight" * 90)),
)


def interrupted() -> VirtualDisk:
    """A disk with everything of BATCHES synced and two more writes in flight."""
    disk = written()
    log, _ = open_log(disk)
    for batch in UNSYNCED:
        log.append(batch)
    return disk


def refused_or_lost(disk: VirtualDisk) -> str | None:
    """None if recovery gives everything that was synced, and after it a prefix of what was issued."""
    recovered = reopen(disk)
    if isinstance(recovered, StorageError):
        return str(recovered)
    everything = ALL + records_of(UNSYNCED)
    if recovered.records < len(ALL) or found(recovered) != meaning(everything[: recovered.records]):
        return f"not a prefix: {recovered}"
    return None


def is_kept(chance: random.Random) -> bool:
    return chance.random() < 0.6


def sectors_lost(trials: int) -> list[str]:
    """Power losses that keep some sectors of the writes in flight, whichever."""
    problems = []
    for seed in range(trials):
        disk = interrupted()
        disk.power_loss_of_sectors(partial(is_kept, random.Random(seed)))
        if problem := refused_or_lost(disk):
            problems.append(f"seed {seed}: {problem}")
    return problems


def test_a_power_loss_that_keeps_any_piece_of_the_last_writes_leaves_a_prefix_of_what_was_issued() -> None:
    for keep in range(interrupted().unsynced() + 1):
        for torn_bytes in range(0, 1500, 7):
            disk = interrupted()
            disk.power_loss(keep, torn_bytes)
            assert refused_or_lost(disk) is None, (keep, torn_bytes)


def test_a_power_loss_that_keeps_any_sectors_of_the_last_writes_leaves_a_prefix_of_what_was_issued() -> None:
    assert sectors_lost(400) == []


def test_refusing_whatever_an_intact_record_follows_would_refuse_healthy_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why `judge_tail` looks for unwritten sectors: the simpler rule stops servers that a power loss left healthy."""
    monkeypatch.setattr(scan, "_unwritten_sector", lambda *_: False)
    assert any("an intact record follows" in problem for problem in sectors_lost(60))


def test_a_lost_sector_that_a_later_write_testifies_is_corruption(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last batch was written after a sync: what stands before it had reached the disk, zeros or not."""

    def lose_a_sector() -> Recovered | StorageError:
        disk = written([*BATCHES[:3], (Entry(4, 2, b"x" * 600),), (Entry(5, 2, b"y"),)])
        content = disk.content(LAST)
        _, crc = segment.decode_header("", content)
        start = scan.scan_segment("", content, crc).records[1].offset
        disk.put(LAST, content[:start] + bytes(1024 - start) + content[1024:])
        return reopen(disk)

    error = lose_a_sector()
    assert isinstance(error, CorruptLog)
    assert "had reached the disk" in str(error)
    encode = segment.encode_records
    monkeypatch.setattr(
        durable_log, "encode_records", lambda records, crc, _, *rest: encode(records, crc, 2**31, *rest)
    )
    assert isinstance(lose_a_sector(), Recovered), "records that do not testify would have lost entries silently"


def test_what_a_killed_process_wrote_is_durable_once_it_was_recovered(monkeypatch: pytest.MonkeyPatch) -> None:
    def survives() -> bool:
        disk = interrupted()
        disk.process_crash()
        _, recovered = open_log(disk)
        assert recovered.records == len(ALL) + len(records_of(UNSYNCED)), "a kill loses no page cache"
        disk.power_loss()
        again = reopen(disk)
        return isinstance(again, Recovered) and again.records == recovered.records

    assert survives()
    monkeypatch.setattr(DurableLog, "_sync_file", lambda self, file: None)
    assert not survives(), "recovery without fsync would build on what the next power loss takes away"
