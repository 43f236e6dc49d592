"""The durable log in use: segments roll, errors of space pass, errors of the disk are final, crashes leave a prefix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from impl.raft.configuration import CONFIGURATION
from impl.runtime.real_disk import RealDisk
from impl.runtime.virtual_disk import VirtualDisk
from impl.storage import log_state, segment, spare
from impl.storage.durable_log import DurableLog
from impl.storage.errors import (
    CorruptLog,
    DiskFull,
    FsyncFailed,
    LogClosed,
    OutOfOrder,
    StorageError,
    WriteFailed,
)
from impl.storage.records import Entry, Genesis, HardState, Record, Recovered
from impl.storage.recovery import segment_name
from impl.storage.spare import Spare

DIRECTORY = "/data/raft"
NODE = "00000000-0000-4000-8000-000000000001"


def open_log(disk: VirtualDisk, segment_bytes: int = 2048) -> tuple[DurableLog, Recovered]:
    return DurableLog.open(disk, DIRECTORY, NODE, segment_bytes=segment_bytes)


def entries(first: int, count: int, term: int = 1, size: int = 130) -> list[Record]:
    return [Entry(index, term, b"%d " % index * (size // 4)) for index in range(first, first + count)]


def test_segments_roll_and_a_write_larger_than_a_segment_gets_one_of_its_size() -> None:
    disk = VirtualDisk()
    log, _ = open_log(disk)
    issued = entries(1, 20) + entries(21, 1, size=5000) + entries(22, 5)
    for record in issued:
        log.append([record])
        log.sync()
    log.close()
    _, recovered = open_log(disk)
    assert list(recovered.entries) == issued
    assert recovered.segments == len(disk.names(DIRECTORY)) >= 4


def bytes_of_a_log(batch: Sequence[Record]) -> int:
    disk = VirtualDisk()
    log, _ = open_log(disk, 1 << 16)
    log.append(entries(1, 1))
    log.append(batch)
    log.sync()
    log.close()
    recovered = open_log(disk, 1 << 16)[1]
    assert (list(recovered.entries), recovered.records) == ([*entries(1, 1), *batch], 1 + len(batch))
    return len(disk.content(f"{DIRECTORY}/{segment_name(1)}").rstrip(b"\0"))


def test_commands_of_one_term_are_one_record_and_configurations_and_large_ones_have_their_own() -> None:
    small, header = [Entry(index, 1, b"x") for index in range(2, 102)], segment.RECORD_HEADER_BYTES
    as_one = bytes_of_a_log(small)
    assert as_one < segment.HEADER_BYTES + 100 * header
    configuration = Entry(50, 1, b"x", CONFIGURATION)
    assert bytes_of_a_log([*small[:48], configuration, *small[49:]]) > as_one + 50 * header
    assert (
        bytes_of_a_log([Entry(2, 1, b"x"), *[Entry(index, 2, b"x") for index in range(3, 102)]]) > as_one + 90 * header
    )


def test_many_bytes_are_not_one_record(monkeypatch: pytest.MonkeyPatch) -> None:
    small = [Entry(index, 1, b"x") for index in range(2, 102)]
    as_one = bytes_of_a_log(small)
    monkeypatch.setattr(segment, "RUN_BYTES_MAX", 99)
    assert bytes_of_a_log(small) > as_one + 99 * segment.RECORD_HEADER_BYTES


def test_a_run_that_loses_the_kind_of_its_entries_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_state, "COMMAND", CONFIGURATION)
    with pytest.raises(AssertionError):
        bytes_of_a_log([Entry(2, 1, b"x", CONFIGURATION), Entry(3, 1, b"x", CONFIGURATION)])


def test_a_real_disk_keeps_what_was_synced(tmp_path: Path) -> None:
    directory = str(tmp_path / "deep" / "raft")
    log, _ = DurableLog.open(RealDisk(), directory, NODE, segment_bytes=4096)
    issued = [HardState(1, "a"), *entries(1, 60)]
    for start in range(0, len(issued), 7):
        log.append(issued[start : start + 7])
        log.sync()
    log.close()
    log, recovered = DurableLog.open(RealDisk(), directory, NODE)
    log.close()
    assert recovered.entries == tuple(issued[1:])
    assert (recovered.hard_state, recovered.cut) == (HardState(1, "a"), None)
    assert recovered.segments > 1


@pytest.mark.parametrize(
    ("records", "text"),
    [
        ([Entry(6, 1, b"")], "entry 6 cannot follow entry 4"),
        ([Entry(0, 1, b"")], "entry 0 cannot follow"),
        ([HardState(1, "b")], "term 1 cannot follow term 2"),
        ([Genesis("other", ())], "has a genesis already"),
    ],
)
def test_records_that_do_not_continue_the_log_are_refused_whole(records: list[Record], text: str) -> None:
    disk = VirtualDisk()
    log, _ = open_log(disk)
    log.append([Genesis("cluster", ()), HardState(2, None), *entries(1, 3)])
    log.sync()
    with pytest.raises(OutOfOrder, match=text):
        log.append([*entries(4, 1), *records])
    log.append(entries(4, 1))
    log.sync()
    log.close()
    assert len(open_log(disk)[1].entries) == 4


# Space


def test_a_full_disk_is_noticed_before_a_byte_is_visible_and_the_log_goes_on_when_there_is_space() -> None:
    disk = VirtualDisk()
    log, _ = open_log(disk)
    log.append([HardState(1, "a"), *entries(1, 8)])
    log.sync()
    disk.free_bytes = 100
    before = {name: disk.content(f"{DIRECTORY}/{name}") for name in disk.names(DIRECTORY)}
    for _ in range(3):
        with pytest.raises(DiskFull, match="No space left on device"):
            log.append(entries(9, 8))
    assert {name: disk.content(f"{DIRECTORY}/{name}") for name in disk.names(DIRECTORY)} == before
    assert (log.last_index, log.hard_state) == (8, HardState(1, "a"))
    log.append(entries(9, 1))
    disk.free_bytes = None
    log.append(entries(10, 8))
    log.sync()
    disk.power_loss()
    assert list(open_log(disk)[1].entries) == entries(1, 17)


def grows_after_a_failed_write() -> Recovered | StorageError:
    """A file system that allocates on every write runs full in the middle of one; later a shorter one fits."""
    disk = VirtualDisk()
    log, _ = open_log(disk)
    log.append(entries(1, 2))
    log.sync()
    disk.copy_on_write, disk.free_bytes = True, 500
    with pytest.raises(DiskFull):
        log.append([entry for number in range(3, 11) for entry in entries(number, 1, term=number)])  # 8 records
    disk.free_bytes = None
    log.append([HardState(7, None)])
    log.sync()
    log.close()
    try:
        return open_log(disk)[1]
    except StorageError as error:
        return error


def test_what_a_failed_write_left_is_never_read() -> None:
    recovered = grows_after_a_failed_write()
    assert isinstance(recovered, Recovered)
    assert (list(recovered.entries), recovered.hard_state) == (entries(1, 2), HardState(7, None))
    assert recovered.cut is None


def test_leaving_what_a_failed_write_left_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DurableLog, "_scrub", lambda self: None)
    assert isinstance(grows_after_a_failed_write(), CorruptLog)


def test_no_space_even_for_overwriting_the_failed_write_is_still_only_a_full_disk() -> None:
    disk = VirtualDisk()
    log, _ = open_log(disk)
    disk.copy_on_write, disk.free_bytes = True, 300
    for _ in range(3):
        with pytest.raises(DiskFull):
            log.append(entries(1, 8))
    disk.free_bytes = None
    log.append(entries(1, 8))
    log.sync()
    disk.power_loss()
    assert list(open_log(disk)[1].entries) == entries(1, 8)


# A disk that fails


def test_a_failed_fsync_is_final_and_nothing_unsynced_is_promised() -> None:
    disk = VirtualDisk()
    log, _ = open_log(disk)
    log.append(entries(1, 2))
    log.sync()
    log.append(entries(3, 2))
    disk.fail_next_syncs()
    with pytest.raises(FsyncFailed, match="replace the disk"):
        log.sync()
    # A second fsync would report success for pages that the kernel has dropped.
    for use in (log.sync, lambda: log.append(entries(5, 1))):
        with pytest.raises(LogClosed, match="unusable since: fsync of"):
            use()
    disk.power_loss()
    assert list(open_log(disk)[1].entries) == entries(1, 2)


def test_a_failed_write_other_than_for_space_is_final() -> None:
    disk = VirtualDisk()
    log, _ = open_log(disk)
    log.append(entries(1, 2))
    log.sync()
    disk.fail_next_writes()
    with pytest.raises(WriteFailed):
        log.append(entries(3, 2))
    with pytest.raises(LogClosed):
        log.sync()
    disk.process_crash()
    assert list(open_log(disk)[1].entries)[:2] == entries(1, 2)


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_an_fsync_that_fails_while_a_segment_is_begun_is_final(failing: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The syncs of a roll: of the old segment, of the new one, of the directory."""
    disk = VirtualDisk()
    log, _ = open_log(disk)
    log.append(entries(1, 8))
    succeeding = iter([True] * (failing - 1) + [False])
    sync = disk._sync

    def fail_the_chosen_one(covered: Callable[[object], bool]) -> None:
        if not next(succeeding):
            disk.fail_next_syncs()
        sync(covered)

    monkeypatch.setattr(disk, "_sync", fail_the_chosen_one)
    with pytest.raises(FsyncFailed):
        log.append(entries(9, 8))
    with pytest.raises(LogClosed):
        log.append(entries(9, 1))


def test_a_closed_log_refuses_all_use() -> None:
    log, _ = open_log(VirtualDisk())
    log.close()
    for use in (log.sync, lambda: log.append(entries(1, 1))):
        with pytest.raises(LogClosed, match="was closed"):
            use()


# The log against a list


def meaning(records: Sequence[Record]) -> tuple[Genesis | None, HardState, tuple[Entry, ...]]:
    genesis, hard_state, log = None, HardState(0, None), list[Entry]()
    for record in records:
        if isinstance(record, Genesis):
            genesis = record
        elif isinstance(record, HardState):
            hard_state = record
        else:
            assert isinstance(record, Entry)
            log = [*log[: record.index - 1], record]
    return genesis, hard_state, tuple(log)


# A segment that is made ahead


def filled_by_half(segment_bytes: int = 2048) -> tuple[VirtualDisk, DurableLog]:
    disk = VirtualDisk()
    log, _ = open_log(disk, segment_bytes)
    assert not log.wants_spare()
    log.append(entries(1, 5))
    log.sync()
    assert log.wants_spare()
    assert not log.wants_spare(), "it is asked for once"
    return disk, log


def a_segment_that_was_made_ahead_has_its_space() -> None:
    disk, log = filled_by_half()
    log.make_spare()
    disk.free_bytes = 0
    log.append(entries(6, 16))
    log.sync()
    disk.power_loss()
    disk.free_bytes = None
    _, recovered = open_log(disk)
    assert (list(recovered.entries), recovered.segments) == (entries(1, 21), 2)
    assert disk.names(DIRECTORY) == [segment_name(1), segment_name(2)]


def test_a_segment_that_was_made_ahead_has_its_space() -> None:
    a_segment_that_was_made_ahead_has_its_space()


def test_a_write_larger_than_a_segment_gets_a_larger_spare_file() -> None:
    disk, log = filled_by_half()
    log.make_spare()
    log.append(entries(6, 1, size=5000))
    log.append(entries(7, 16))
    log.sync()
    log.close()
    assert list(open_log(disk)[1].entries) == [*entries(1, 5), *entries(6, 1, size=5000), *entries(7, 16)]


def test_without_space_nothing_is_made_ahead_and_nothing_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spare, "PIECE_BYTES", 512)
    disk, log = filled_by_half()
    disk.free_bytes = 1200
    log.make_spare()
    assert disk.names(DIRECTORY) == [segment_name(1)], "what was begun is gone"
    assert not log.wants_spare()
    with pytest.raises(DiskFull):
        log.append(entries(6, 16))
    disk.free_bytes = None
    log.append(entries(6, 16))
    assert log.last_index == 21
    assert log.wants_spare(), "and the next segment has another chance"


def test_what_was_made_ahead_before_a_crash_is_removed_when_the_log_is_opened() -> None:
    disk, log = filled_by_half()
    log.make_spare()
    disk.process_crash()
    assert "spare.log.new" in disk.names(DIRECTORY)
    _, recovered = open_log(disk)
    assert (disk.names(DIRECTORY), list(recovered.entries)) == ([segment_name(1)], entries(1, 5))


def test_one_spare_file_is_made_at_a_time_however_long_it_takes() -> None:
    """Or else the log takes the first, and the name that stands for the second by then."""
    disk, log = filled_by_half()
    first = log.spare_in_steps()
    next(first)
    log.append(entries(6, 16))
    log.sync()
    assert not log.wants_spare(), "the first is not ready"
    assert list(first) and not log.wants_spare(), "it waits to be taken"
    log.append(entries(22, 16))
    log.sync()
    assert log.wants_spare()
    disk.power_loss()
    assert list(open_log(disk)[1].entries) == entries(1, 37)


def test_a_spare_file_that_is_not_taken_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Spare, "take", lambda self: None)
    with pytest.raises(DiskFull):
        a_segment_that_was_made_ahead_has_its_space()


class Twin:
    """The log, and beside it the list of records that were issued and how many of them are known to be durable."""

    def __init__(self) -> None:
        self.disk = VirtualDisk()
        self.issued: list[Record] = []
        self.durable = 0
        self.log, _ = open_log(self.disk, 1024)

    def append(self, shape: list[tuple[int, int]]) -> None:
        """(kind, size) of each record: 0 a term, 1 a vote, 2-4 an entry that cuts 0-2 entries."""
        batch: list[Record] = []
        for kind, size in shape:
            _, hard_state, log = meaning(self.issued + batch)
            if kind < 2:
                batch.append(HardState(hard_state.term + 1 - kind, f"n{size}" if kind else None))
            else:
                index = max(1, len(log) + 1 - (kind - 2))
                batch.append(Entry(index, hard_state.term, bytes([size % 7]) * size))
        self.log.append(batch)
        self.issued += batch

    def sync(self) -> None:
        self.log.sync()
        self.durable = len(self.issued)

    def recover(self) -> None:
        """Some records, at least the durable ones, in order; and the log goes on from there."""
        self.log, recovered = open_log(self.disk, 1024)
        assert self.durable <= recovered.records <= len(self.issued), "a durable record is lost"
        self.issued = self.issued[: recovered.records]
        self.durable = recovered.records
        assert (recovered.genesis, recovered.hard_state, recovered.entries) == meaning(self.issued)


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(
            st.just("append"), st.lists(st.tuples(st.integers(0, 4), st.integers(0, 900)), min_size=1, max_size=5)
        ),
        st.tuples(st.just("sync"), st.none()),
        st.tuples(st.just("spare"), st.none()),
        st.tuples(st.just("kill"), st.none()),
        st.tuples(st.just("power"), st.tuples(st.integers(0, 6), st.integers(0, 2000))),
        st.tuples(st.just("sectors"), st.randoms(use_true_random=False)),
    ),
    max_size=14,
)


def is_kept(chance: Random) -> bool:
    return chance.random() < 0.5


def run_twin(operations: list[tuple[str, object]]) -> None:
    twin = Twin()
    for name, argument in operations:
        match name, argument:
            case "append", list():
                twin.append(argument)
            case "sync", _:
                twin.sync()
            case "spare", _:
                if twin.log.wants_spare():
                    twin.log.make_spare()
            case "kill", _:
                twin.disk.process_crash()
                twin.recover()
            case "power", (int(keep), int(torn)):
                twin.disk.power_loss(keep, torn)
                twin.recover()
            case "sectors", Random() as chance:
                twin.disk.power_loss_of_sectors(partial(is_kept, chance))
                twin.recover()


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(OPERATIONS)
def test_the_log_is_the_list_of_its_records_through_overrides_and_crashes(
    operations: list[tuple[str, object]],
) -> None:
    run_twin(operations)


def test_a_sync_that_does_nothing_is_caught_by_a_power_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    schedule: list[tuple[str, object]] = [("append", [(2, 10)]), ("sync", None), ("power", (0, 0))]
    run_twin(schedule)
    with monkeypatch.context() as patch:
        patch.setattr(DurableLog, "_sync_file", lambda self, file: None)
        with pytest.raises((AssertionError, CorruptLog)):
            run_twin(schedule)
    monkeypatch.setattr(DurableLog, "_sync_directory", lambda self: None)
    with pytest.raises(AssertionError, match="a durable record is lost"):
        run_twin(schedule)


def test_a_roll_that_does_not_sync_the_old_segment_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    big = [(2, 500)]
    schedule: list[tuple[str, object]] = [("append", big), ("append", big), ("sync", None), ("power", (0, 0))]
    run_twin(schedule)
    roll = DurableLog._roll

    def forgetful(log: DurableLog, needed: int) -> None:
        log._dirty = False
        roll(log, needed)

    monkeypatch.setattr(DurableLog, "_roll", forgetful)
    with pytest.raises((AssertionError, CorruptLog)):
        run_twin(schedule)
