"""The virtual disk tells what a real one may do: otherwise the tests that rest on it prove nothing."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

import pytest

from impl.runtime.interfaces import Disk, Locked
from impl.runtime.real_disk import RealDisk
from impl.runtime.virtual_disk import PowerFailed, VirtualDisk


def disk_with(content: bytes) -> VirtualDisk:
    disk = VirtualDisk()
    disk.put("/d/f", content)
    return disk


def test_a_power_loss_keeps_what_was_synced_and_nothing_else() -> None:
    disk = disk_with(b"....")
    file = disk.open("/d/f")
    file.write(0, b"ab")
    file.sync()
    file.write(2, b"cd")
    disk.power_loss()
    assert disk.content("/d/f") == b"ab.."


def test_a_kill_keeps_the_page_cache_and_it_stays_unsynced() -> None:
    disk = disk_with(b"....")
    disk.open("/d/f").write(0, b"ab")
    disk.process_crash()
    assert disk.content("/d/f") == b"ab.."
    disk.power_loss()
    assert disk.content("/d/f") == b"...."


def test_the_caller_chooses_how_much_of_the_unsynced_writes_survives() -> None:
    for keep, torn, expected in ((0, 0, b"...."), (0, 1, b"a..."), (1, 0, b"ab.."), (1, 1, b"abc."), (2, 9, b"abcd")):
        disk = disk_with(b"....")
        file = disk.open("/d/f")
        file.write(0, b"ab")
        file.write(2, b"cd")
        disk.power_loss(keep, torn)
        assert disk.content("/d/f") == expected


def test_sectors_of_one_write_survive_independently() -> None:
    disk = disk_with(bytes(2048))
    disk.open("/d/f").write(256, b"x" * 1024)
    answers = iter([False, True, False])
    disk.power_loss_of_sectors(lambda: next(answers))
    assert disk.content("/d/f") == bytes(512) + b"x" * 512 + bytes(1024)


def test_a_sector_holds_its_state_after_some_of_the_changes_to_it_in_their_order() -> None:
    for answers, expected in (([True, True], b"ab"), ([True, False], b"a."), ([False], b"..")):
        disk = disk_with(b"..")
        file = disk.open("/d/f")
        file.write(0, b"a")
        file.write(1, b"b")
        disk.power_loss_of_sectors(iter(answers).__next__)
        assert disk.content("/d/f") == expected


def test_names_are_durable_after_the_directory_was_synced() -> None:
    disk = disk_with(b"old")
    file = disk.open("/d/new", create=True)
    file.write(0, b"new")
    file.sync()
    disk.rename("/d/new", "/d/f")
    assert (disk.names("/d"), disk.content("/d/f")) == (["f"], b"new")
    other = disk.copy()
    disk.power_loss()
    assert (disk.names("/d"), disk.content("/d/f")) == (["f"], b"old")
    other.sync_directory("/d")
    other.power_loss()
    assert other.content("/d/f") == b"new"


@pytest.mark.parametrize(("changes", "content"), [(0, b"old"), (1, b"old"), (2, b"new"), (3, b"new")])
def test_the_power_fails_after_so_many_changes(changes: int, content: bytes) -> None:
    """A sync is one of them: what it has made durable stays."""
    disk = disk_with(b"old")
    file = disk.open("/d/f")
    disk.fail_power_after(changes)
    with suppress(PowerFailed):
        file.write(0, b"new")
        file.sync()
        disk.remove("/d/f")
        disk.sync_directory("/d")
        raise AssertionError("it had power to the end")
    disk.power_loss()
    assert disk.content("/d/f") == content
    disk.open("/d/g", create=True)


def test_a_failed_sync_drops_the_pages_and_the_next_one_lies_about_them() -> None:
    """Rebello et al. 2020: after a failed fsync the pages are clean, whatever is on the disk."""
    disk = disk_with(b"....")
    file = disk.open("/d/f")
    file.write(0, b"ab")
    disk.fail_next_syncs()
    with pytest.raises(OSError, match="Input/output error"):
        file.sync()
    file.sync()
    assert disk.content("/d/f") == b"ab.."
    disk.power_loss()
    assert disk.content("/d/f") == b"...."


def test_space_runs_out_when_a_file_grows_and_not_when_it_is_overwritten() -> None:
    disk = disk_with(b"....")
    disk.free_bytes = 3
    file = disk.open("/d/f")
    file.write(0, b"abcd")
    with pytest.raises(OSError) as caught:
        file.allocate(8)
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(OSError) as caught:
        file.write(2, b"123456")
    assert (caught.value.errno, disk.content("/d/f")) == (errno.ENOSPC, b"ab12345")


def test_files_and_locks_die_with_their_process() -> None:
    disk = disk_with(b"....")
    file, _ = disk.open("/d/f"), disk.lock("/d/lock", "7")
    with pytest.raises(Locked, match="locked by process 7"):
        disk.lock("/d/lock", "8")
    disk.process_crash()
    with pytest.raises(OSError, match="has crashed"):
        file.write(0, b"x")
    disk.lock("/d/lock", "8").release()
    disk.lock("/d/lock", "9")


def test_a_directory_that_another_process_makes_at_the_same_time_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Agents that share a directory of traces start together: one of them ended with "File exists"."""
    mkdir = os.mkdir

    def overtaken(path: str, mode: int) -> None:
        mkdir(path)
        mkdir(path, mode)

    monkeypatch.setattr(os, "mkdir", overtaken)
    RealDisk().make_directories(f"{tmp_path}/a/b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        RealDisk().make_directories(f"{tmp_path}/file")


@pytest.mark.parametrize("real", [False, True])
def test_both_disks_answer_alike(real: bool, tmp_path: object) -> None:
    disk: Disk = RealDisk() if real else VirtualDisk()
    root = f"{tmp_path}/a/b"
    disk.make_directories(root)
    disk.make_directories(root)
    file = disk.open(f"{root}/f", create=True)
    with pytest.raises(FileExistsError):
        disk.open(f"{root}/f", create=True)
    with pytest.raises(FileNotFoundError):
        disk.open(f"{root}/g")
    with pytest.raises(FileNotFoundError):
        disk.open(f"{root}/h/g", create=True)
    file.allocate(10)
    file.write(4, b"abc")
    assert (file.size(), file.read(3, 5), file.read(8, 100)) == (10, b"\0abc\0", b"\0\0")
    file.truncate(6)
    file.sync()
    assert file.read(0, 100) == b"\0\0\0\0ab"
    disk.open(f"{root}/e", create=True).close()
    assert disk.names(root) == ["e", "f"]
    disk.rename(f"{root}/f", f"{root}/e")
    disk.sync_directory(root)
    assert (disk.names(root), disk.exists(f"{root}/f"), disk.exists(root)) == (["e"], False, True)
    assert file.read(4, 2) == b"ab"
    disk.remove(f"{root}/e")
    assert disk.names(root) == []
    file.close()
    with pytest.raises(OSError):
        file.size()
    lock = disk.lock(f"{root}/lock", "12")
    with pytest.raises(Locked) as caught:
        disk.lock(f"{root}/lock", "13")
    assert caught.value.owner == "12"
    lock.release()
    disk.lock(f"{root}/lock", "13").release()
