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
from impl.snapshot_commands import byte_size
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
    return written(store, tmp_path)


def written(store: Store, tmp_path: Path) -> Path:
    writer = SnapshotWriter(RealDisk(), str(tmp_path), SnapshotHeader("cluster", 3, 2, b"", 0, ""), "ab12")
    view = StoreView(store)
    while not view.done:
        for block in encode_blocks(view.rows()):
            writer.add(block)
    return tmp_path / writer.finish().name


def test_the_rows_are_counted(path: Path, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-format=json", str(path)) == 0
    found = json.loads(capsys.readouterr().out)
    meta, counts = found["Meta"], {each["Name"]: each["Count"] for each in found["Stats"]}
    assert (meta["Index"], meta["Term"], meta["Cluster"], meta["ID"]) == (3, 2, "cluster", "3-2-ab12")
    assert [counts[name] for name in ("KVS", "Node", "Service", "Check")] == [2, 1, 1, 1]
    assert meta["StateDigest"] == state_digest(store)
    sizes = {each["Name"]: each["Sum"] for each in found["Stats"]}
    assert 100 < sizes["KVS"] < found["TotalSize"] < meta["Size"] == path.stat().st_size
    assert found["StatsKV"] is None
    assert run(str(path)) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["Index", "3"] in lines and ["Type", "Count", "Size"] in lines
    assert ["KVS", "2"] in [line[:2] for line in lines]


def test_keys_are_counted_by_their_prefixes(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index, key in enumerate(["app/web/a", "app/web/b", "app/db/a", "other"], 4):
        store.apply(KvSet(key, b"", 0), index)
    path = written(store, tmp_path)
    assert run("-format=json", "-kvdetails", str(path)) == 0
    found = {each["Name"]: each["Count"] for each in json.loads(capsys.readouterr().out)["StatsKV"]}
    assert found == {"app/web": 2, "app/db": 1, "other": 1, "a": 1, "b": 1}
    assert run("-format=json", "-kvdetails", "-kvdepth=1", "-kvfilter=app", str(path)) == 0
    found = {each["Name"]: each["Count"] for each in json.loads(capsys.readouterr().out)["StatsKV"]}
    assert found == {"app": 3}


@pytest.mark.parametrize(
    ("size", "shown"), [(0, "0"), (285, "285B"), (2048, "2KB"), (12_595, "12.3KB"), (3 << 20, "3MB")]
)
def test_sizes_are_shown_as_consul_does(size: int, shown: str) -> None:
    assert byte_size(size) == shown


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
