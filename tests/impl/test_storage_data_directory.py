"""The data directory: one process at a time, one identity for ever, an incarnation that is never used twice."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from impl.runtime.real_disk import RealDisk
from impl.runtime.virtual_disk import VirtualDisk
from impl.storage import data_directory
from impl.storage.data_directory import DataDirectory, open_data_directory
from impl.storage.errors import CorruptIdentity, CorruptLog, DirectoryInUse, ForeignDirectory, FsyncFailed
from impl.storage.records import HardState


def start(disk: VirtualDisk, node_name: str = "a", node_id: str | None = None, seed: int = 1) -> DataDirectory:
    return open_data_directory(disk, "/data", random.Random(seed), 42, node_name, node_id=node_id, segment_bytes=2048)


def test_a_node_keeps_its_minted_id_and_counts_its_incarnations() -> None:
    disk = VirtualDisk()
    first = start(disk)
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", first.node_id)
    first.close()
    second = start(disk, seed=2)
    assert (second.node_id, first.incarnation, second.incarnation) == (first.node_id, 1, 2)


def storage_ids_of_a_directory_that_was_lost() -> tuple[str, str, str]:
    """Of one directory, opened twice, and of the one that took its place under the same name and node id."""
    disk, node_id = VirtualDisk(), "00000000-0000-4000-8000-000000000007"
    first = start(disk, node_id=node_id)
    first.close()
    again = start(disk, node_id=node_id, seed=2)
    return first.storage_id, again.storage_id, start(VirtualDisk(), node_id=node_id, seed=3).storage_id


def test_a_directory_that_was_lost_is_never_taken_for_the_one_that_remembers(monkeypatch: pytest.MonkeyPatch) -> None:
    first, again, replaced = storage_ids_of_a_directory_that_was_lost()
    assert first == again != replaced
    monkeypatch.setattr(data_directory, "new_uuid", lambda random: "derived from what anybody can choose")
    first, _, replaced = storage_ids_of_a_directory_that_was_lost()
    assert first == replaced, "an id that is not random would not tell them apart"


def incarnations(crashes: int) -> list[int]:
    """What processes call themselves when the power fails right after each start."""
    disk, numbers = VirtualDisk(), []
    for _ in range(crashes):
        numbers.append(start(disk).incarnation)
        disk.power_loss()
    return numbers


def test_an_incarnation_is_durable_before_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert incarnations(5) == [1, 2, 3, 4, 5]
    monkeypatch.setattr(VirtualDisk, "sync_directory", lambda self, directory: None)
    with pytest.raises((AssertionError, CorruptLog)):
        assert incarnations(5) == [1, 2, 3, 4, 5]


def test_a_first_start_that_was_cut_anywhere_can_be_repeated() -> None:
    unhurried = VirtualDisk()
    unhurried.lying = True
    start(unhurried)
    assert unhurried.unsynced() > 8
    for keep in range(unhurried.unsynced() + 1):
        disk = VirtualDisk()
        disk.lying = True
        start(disk)
        disk.power_loss(keep)
        disk.lying = False
        start(disk, seed=9).close()


def test_another_name_or_id_is_refused_and_the_directory_is_released() -> None:
    disk = VirtualDisk()
    start(disk).close()
    with pytest.raises(ForeignDirectory, match=r"belongs to node a \(.*\), not to node b: .*-data-dir"):
        start(disk, "b")
    with pytest.raises(ForeignDirectory, match="not to node a"):
        start(disk, "a", node_id="11111111-2222-4333-8444-555555555555")
    start(disk).close()


def test_a_directory_without_its_log_or_its_counter_is_refused() -> None:
    disk = VirtualDisk()
    directory = start(disk)
    directory.log.append([HardState(3, "a")])
    directory.log.sync()
    directory.close()
    other = disk.copy()
    disk.remove("/data/raft/0000000001.log")
    with pytest.raises(CorruptLog, match="held a log and does not now"):
        start(disk)
    other.remove("/data/incarnation")
    with pytest.raises(CorruptIdentity, match="it is missing, but the log has records"):
        start(other)


@pytest.mark.parametrize("name", ["identity.json", "incarnation"])
def test_a_damaged_identity_or_counter_is_refused(name: str) -> None:
    disk = VirtualDisk()
    start(disk).close()
    for content in (b"", b"7", b"7 00000000\n", b'{"format": 1, "node_id": "x", "node_name": "a"}', b"\xff\xfe"):
        damaged = disk.copy()
        damaged.put(f"/data/{name}", content)
        with pytest.raises(CorruptIdentity, match="remove the data directory"):
            start(damaged)


def test_a_counter_whose_checksum_is_not_looked_at_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_directory, "_parse_incarnation", lambda name, content: int(content.split()[0]))
    disk = VirtualDisk()
    start(disk).close()
    disk.put("/data/incarnation", b"7 00000000\n")
    assert start(disk).incarnation == 8, "an incarnation out of nowhere"


def test_a_failed_fsync_of_the_counter_is_final(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = VirtualDisk()
    start(disk).close()
    # The first two syncs are the log's.
    succeed = iter([True, True])
    sync = disk._sync

    def third_fails(covered: Callable[[object], bool]) -> None:
        if not next(succeed, False):
            disk.fail_next_syncs()
        sync(covered)

    monkeypatch.setattr(disk, "_sync", third_fails)
    with pytest.raises(FsyncFailed):
        start(disk)


def test_a_second_process_is_told_who_holds_the_directory(tmp_path: Path) -> None:
    directory = str(tmp_path / "data")
    held = open_data_directory(RealDisk(), directory, random.Random(1), os.getpid(), "a", segment_bytes=4096)
    with pytest.raises(DirectoryInUse, match=f"is in use by pid {os.getpid()}: stop that process"):
        open_data_directory(RealDisk(), directory, random.Random(1), 1, "a")
    held.close()
    open_data_directory(RealDisk(), directory, random.Random(1), os.getpid(), "a").close()


def test_the_death_of_a_process_releases_the_directory(tmp_path: Path) -> None:
    directory = str(tmp_path / "data")
    program = (
        "import os, random, sys\n"
        "from impl.runtime.real_disk import RealDisk\n"
        "from impl.storage.data_directory import open_data_directory\n"
        "held = open_data_directory(RealDisk(), sys.argv[1], random.Random(1), os.getpid(), 'a', segment_bytes=4096)\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", program, directory], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(DirectoryInUse, match=f"pid {process.pid}"):
            open_data_directory(RealDisk(), directory, random.Random(1), os.getpid(), "a")
        process.kill()
    open_data_directory(RealDisk(), directory, random.Random(1), os.getpid(), "a").close()
