"""`comitia snapshot inspect`: what a file holds is counted, and damage anywhere is found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import comitia
from impl.catalog.commands import KvSet, Register
from impl.catalog.rows import Check, Node, Service
from impl.catalog.snapshot import StoreView, encode_blocks, state_digest
from impl.catalog.store import Store
from impl.runtime.real_disk import RealDisk
from impl.storage import snapshots
from impl.storage.snapshots import SnapshotHeader, SnapshotWriter


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as stop:
        comitia.main(["snapshot", "inspect", *words])
    assert isinstance(stop.value.code, int)
    return stop.value.code


@pytest.fixture
def store() -> Store:
    store = Store()
    store.apply(KvSet("a", b"1" * 100, 0), 1)
    store.apply(KvSet("b", b"2", 0), 2)
    checks = (Check("n1", "c", status="passing"),)
    store.apply(Register(Node("n1", "10.0.0.1"), Service("n1", "web", "web", port=80), checks), 3)
    return store


@pytest.fixture
def path(store: Store, tmp_path: Path) -> Path:
    writer = SnapshotWriter(RealDisk(), str(tmp_path), SnapshotHeader("cluster", 3, 2, b"", 0, ""), "ab12")
    view = StoreView(store)
    while not view.done:
        for block in encode_blocks(view.rows()):
            writer.add(block)
    return tmp_path / writer.finish().name


def test_the_rows_are_counted(path: Path, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-format=json", str(path)) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["index"], found["term"], found["cluster"], found["id"]) == (3, 2, "cluster", "3-2-ab12")
    assert {kind: found["rows"][kind] for kind in ("kv", "node", "service", "check")} == {
        "kv": 2,
        "node": 1,
        "service": 1,
        "check": 1,
    }
    assert found["state_digest"] == state_digest(store)
    assert 100 < found["sizes"]["kv"] < sum(found["sizes"].values()) < found["size"] == path.stat().st_size
    assert run(str(path)) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["Index", "3"] in lines and ["Type", "Count", "Size"] in lines
    assert ["kv", "2"] in [line[:2] for line in lines]


def damage_is_found(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        assert run(str(path)) == 1
        assert "Error reading snapshot: " in capsys.readouterr().err
    path.write_bytes(whole[:-1])
    assert run(str(path)) == 1


def test_damage_is_found(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage_is_found(path, capsys)


def test_a_reader_that_believes_everything_is_noticed(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots.SnapshotReader, "_check_end", lambda self: None)
    with pytest.raises(AssertionError):
        damage_is_found(path, capsys)


def test_a_file_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(tmp_path / "none.snap")) == 1
    assert "none.snap: No such file or directory" in capsys.readouterr().err
    assert run() == 1
    assert "Missing FILE argument" in capsys.readouterr().err
