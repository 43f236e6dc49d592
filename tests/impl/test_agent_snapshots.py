"""Snapshots of a running server, in a virtual world: taken and restored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from impl.agent.snapshots import lifecycle as snapshots_module
from impl.agent.snapshots.lifecycle import Snapshots, load_store
from impl.catalog.snapshot import BLOCK_BYTES, StoreView, encode_blocks, state_digest
from impl.catalog.store import Store
from impl.runtime.interfaces import MILLISECONDS, NANOSECONDS
from impl.runtime.virtual import VirtualWorld
from impl.storage.errors import CorruptSnapshot, MissingSnapshot
from impl.storage.snapshots import SnapshotWriter
from tests.impl.snapshot_hosts import CLUSTER, DIRECTORY, Host, marker_of

# Taking


def test_a_snapshot_is_taken_when_the_threshold_is_reached_and_not_before() -> None:
    host = Host(VirtualWorld(1), "s1", threshold=50)
    host.machine.put(49)
    host.world.run_for(3 * NANOSECONDS)
    assert host.machine.taken == []
    host.machine.put(1)
    host.world.run_for(3 * NANOSECONDS)
    [meta] = host.machine.taken
    assert (meta.index, meta.term, meta.configuration, meta.digest) == (50, 3, b"members", "d" * 16)
    assert meta.state_digest == state_digest(host.machine.store)
    host.snapshots.marked(marker_of(meta), lambda: 0)
    host.machine.put(49)
    host.world.run_for(3 * NANOSECONDS)
    assert len(host.machine.taken) == 1, "counted from the last snapshot"


def test_a_threshold_that_is_reloaded_holds_from_the_next_look_on() -> None:
    host = Host(VirtualWorld(1), "s1", threshold=50)
    host.machine.put(20)
    host.world.run_for(3 * NANOSECONDS)
    assert host.machine.taken == []
    host.snapshots.reconfigure(20, NANOSECONDS)
    host.world.run_for(3 * NANOSECONDS)
    assert [meta.index for meta in host.machine.taken] == [20]


def test_a_snapshot_is_of_the_moment_at_which_it_began_however_much_is_written_meanwhile() -> None:
    host = Host(VirtualWorld(2), "s1")
    host.machine.put(3000)
    expected = state_digest(host.machine.store)
    host.snapshots.take()
    assert host.snapshots.taking
    while not host.machine.taken:
        host.world.run_for(MILLISECONDS)
        host.machine.put(7, b"later")
    meta = host.machine.taken[0]
    assert (meta.index, meta.state_digest) == (3000, expected)
    restored = Store()
    assert load_store(host.process.runtime, DIRECTORY, marker_of(meta), CLUSTER, restored) == expected
    assert len(restored) == 3000


def test_no_snapshot_is_taken_of_what_is_about_to_be_replaced() -> None:
    host = Host(VirtualWorld(3), "s1")
    host.machine.put(2000)
    host.machine.replacing = True
    host.world.run_for(5 * NANOSECONDS)
    assert (host.machine.taken, host.snapshots.counters.failed, host.snapshots.taking) == ([], 0, False)
    assert host.disk.names(DIRECTORY) == []
    host.machine.replacing = False
    host.world.run_for(3 * NANOSECONDS)
    assert len(host.machine.taken) == 1, "later there is one"


def test_a_snapshot_that_cannot_even_begin_leaves_nothing_behind() -> None:
    host = Host(VirtualWorld(3), "s1")
    host.machine.put(2000, bytes(100))
    host.disk.free_bytes = 10
    host.world.run_for(5 * NANOSECONDS)
    host.world.run_until(lambda: not host.snapshots.taking, NANOSECONDS)
    assert host.snapshots.counters.failed >= 2
    assert host.disk.names(DIRECTORY) == []


def test_a_full_disk_costs_the_snapshot_and_nothing_else() -> None:
    host = Host(VirtualWorld(3), "s1")
    host.machine.put(2000, bytes(100))
    host.disk.free_bytes = 50_000
    host.world.run_for(5 * NANOSECONDS)
    host.world.run_until(lambda: not host.snapshots.taking, NANOSECONDS)
    host.world.run_for(100 * MILLISECONDS)
    assert host.machine.taken == []
    assert host.snapshots.counters.failed >= 2, "it is tried again"
    assert host.disk.names(DIRECTORY) == []
    assert not host.machine.store.tables.entries._views, "changes cost nothing when nobody reads"
    assert host.machine.failures == []
    host.disk.free_bytes = None
    host.world.run_for(3 * NANOSECONDS)
    assert len(host.machine.taken) == 1


def test_a_disk_that_fails_to_sync_costs_the_snapshot_and_nothing_else() -> None:
    host = Host(VirtualWorld(4), "s1")
    host.machine.put(20)
    host.disk.fail_next_syncs(1)
    host.snapshots.take()
    host.world.run_for(NANOSECONDS // 2)
    assert (host.machine.taken, host.snapshots.counters.failed, host.machine.failures) == ([], 1, [])


def bytes_at_once(monkeypatch: pytest.MonkeyPatch) -> int:
    """The most that one piece of work writes when the rows are large."""
    sizes: list[int] = []

    def spy(rows: Any) -> list[bytes]:
        blocks = encode_blocks(rows)
        sizes.append(sum(map(len, blocks)))
        return blocks

    host = Host(VirtualWorld(9), "s1")
    host.machine.put(60, bytes(BLOCK_BYTES // 2))
    with monkeypatch.context() as patch:
        patch.setattr(snapshots_module, "encode_blocks", spy)
        host.take()
    return max(sizes)


def test_the_log_never_waits_for_many_large_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bytes_at_once(monkeypatch) < 5 * BLOCK_BYTES
    monkeypatch.setattr(snapshots_module, "BLOCK_BYTES", 1 << 40)
    assert bytes_at_once(monkeypatch) > 7 * BLOCK_BYTES, "as many rows as there are, whatever their size"


def test_a_snapshot_that_came_too_late_is_removed() -> None:
    host = Host(VirtualWorld(5), "s1")
    host.machine.wanted = False
    host.machine.put(20)
    host.take()
    host.world.run_for(NANOSECONDS // 2)
    assert host.disk.names(DIRECTORY) == []
    assert host.snapshots.counters.taken == 0


# Restoring


def test_a_restored_state_machine_is_the_one_that_was_written() -> None:
    world = VirtualWorld(6)
    host, other = Host(world, "s1"), Host(world, "s2")
    host.machine.put(2500)
    meta = host.take()
    other.disk.put(f"{DIRECTORY}/{meta.file}", host.disk.content(f"{DIRECTORY}/{meta.file}"))
    other.machine.put(3, b"is replaced")
    other.snapshots.restore(meta)
    assert world.run_until(lambda: other.machine.restorations, 60 * NANOSECONDS)
    assert other.machine.restorations == [(2500, meta.state_digest)]
    assert state_digest(other.machine.store) == meta.state_digest


@pytest.mark.parametrize("offset", [30, 5000, -1])
def test_a_snapshot_that_cannot_be_restored_ends_the_process(offset: int) -> None:
    host = Host(VirtualWorld(7), "s1")
    host.machine.put(2500)
    meta = host.take()
    host.disk.flip(f"{DIRECTORY}/{meta.file}", offset % meta.size)
    host.snapshots.restore(meta)
    host.world.run_for(60 * NANOSECONDS)
    assert host.machine.restorations == []
    assert "cannot be restored: corrupt snapshot" in host.machine.failures[0]
    with pytest.raises(CorruptSnapshot):
        load_store(host.process.runtime, DIRECTORY, marker_of(meta), CLUSTER, Store())
    host.disk.remove(f"{DIRECTORY}/{meta.file}")
    with pytest.raises(MissingSnapshot):
        load_store(host.process.runtime, DIRECTORY, marker_of(meta), CLUSTER, Store())


def test_another_intact_snapshot_under_the_name_is_not_taken_for_it() -> None:
    host = Host(VirtualWorld(8), "s1")
    host.machine.put(20)
    first = host.take()
    host.machine.put(20)
    second = host.take()
    host.disk.put(f"{DIRECTORY}/{first.file}", host.disk.content(f"{DIRECTORY}/{second.file}"))
    with pytest.raises(CorruptSnapshot, match="not the file that the log speaks of"):
        load_store(host.process.runtime, DIRECTORY, marker_of(first), CLUSTER, Store())


@pytest.mark.parametrize(
    ("owner", "name", "mutant", "sentence"),
    [
        (StoreView, "close", lambda self: None, test_a_full_disk_costs_the_snapshot_and_nothing_else),
        (SnapshotWriter, "abort", lambda self: None, test_a_full_disk_costs_the_snapshot_and_nothing_else),
        (
            Snapshots,
            "marked",
            lambda self, marker, remove: setattr(self, "last_index", 0),
            test_a_snapshot_is_taken_when_the_threshold_is_reached_and_not_before,
        ),
    ],
)
def test_a_broken_part_is_noticed(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, mutant: object, sentence: Callable[[], None]
) -> None:
    assert hasattr(owner, name)
    monkeypatch.setattr(owner, name, mutant)
    with pytest.raises((AssertionError, ValueError)):
        sentence()
