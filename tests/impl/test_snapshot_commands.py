"""`comitia snapshot`: what a file holds is counted, and damage anywhere is found; what is saved is verified before it
takes a name, and what was there before stays until then."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import comitia
from impl.catalog.commands import KvSet, Register
from impl.catalog.rows import Check, Node, Service
from impl.catalog.snapshot import StoreView, encode_blocks, state_digest
from impl.catalog.store import Store
from impl.cli import snapshot as snapshot_commands
from impl.cli.snapshot import byte_size
from impl.runtime.real_disk import RealDisk
from impl.storage import snapshots
from impl.storage.snapshots import SnapshotHeader, SnapshotWriter
from tests.impl.test_storage_archive import WHOLE


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


# Saving and restoring


class Stub:
    """An agent that answers GET /v1/snapshot with `body`, of which it announces `announced` bytes, and takes PUTs."""

    def __init__(self) -> None:
        self.body, self.announced = b"", 0
        self.asked: list[str] = []
        self.taken: list[bytes] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                stub.asked.append(self.path)
                document = {"Config": {"Version": "1.22.0", "Datacenter": "dc1", "NodeName": "s1"}}
                self_document = {**document, "Stats": {"raft": {"state": "Leader"}}}
                body = json.dumps(self_document).encode() if self.path == "/v1/agent/self" else stub.body
                self.send_response(200)
                self.send_header("X-Consul-Index", "8419")
                self.send_header("Content-Length", str(stub.announced or len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_PUT(self) -> None:
                stub.taken.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def stub() -> Iterator[Stub]:
    stub = Stub()
    yield stub
    stub.stop()


def save(stub: Stub, *words: str) -> int:
    with pytest.raises(SystemExit) as stop:
        comitia.main(["snapshot", "save", "-http-addr", stub.address, *words])
    assert isinstance(stop.value.code, int)
    return stop.value.code


def test_what_is_saved_is_verified_and_only_its_owner_reads_it(
    stub: Stub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.body = WHOLE
    path = tmp_path / "backup.snap"
    path.write_bytes(b"older")
    assert save(stub, "-stale", str(path)) == 0
    assert capsys.readouterr().out == "Saved and verified snapshot to index 8419\n"
    assert path.read_bytes() == WHOLE and path.stat().st_mode & 0o777 == 0o600
    assert stub.asked == ["/v1/snapshot?stale="]
    assert [each.name for each in tmp_path.iterdir()] == ["backup.snap"]


def what_is_not_whole_does_not_take_the_place_of_what_was_there(stub: Stub, tmp_path: Path) -> list[int]:
    path = tmp_path / "backup.snap"
    path.write_bytes(b"older")
    codes = []
    for stub.body, stub.announced in ((WHOLE[:-9], 0), (WHOLE[:-9], len(WHOLE)), (b"hello", 0)):
        codes.append(save(stub, str(path)))
        assert path.read_bytes() == b"older"
        assert [each.name for each in tmp_path.iterdir()] == ["backup.snap"]
    return codes


def test_what_is_not_whole_does_not_take_the_place_of_what_was_there(
    stub: Stub, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert what_is_not_whole_does_not_take_the_place_of_what_was_there(stub, tmp_path) == [1, 1, 1]
    told = capsys.readouterr().err
    assert "Error verifying snapshot file: failed to decompress snapshot: unexpected end of file" in told
    monkeypatch.setattr(snapshot_commands, "_unpacked", lambda *_: None)
    with pytest.raises(AssertionError):
        what_is_not_whole_does_not_take_the_place_of_what_was_there(stub, tmp_path)


def test_the_name_says_what_was_asked_for(stub: Stub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stub.body = WHOLE
    assert save(stub, "-append-filename", "node,version,status,dc", str(tmp_path / "b.snap")) == 0
    assert [each.name for each in tmp_path.iterdir()] == ["b-1.22.0-dc1-s1-leader.snap"]
    assert save(stub, "-append-filename=colour", str(tmp_path / "b.snap")) == 1
    assert "use version, dc, node, status" in capsys.readouterr().err


def test_a_file_is_restored_as_it_is(stub: Stub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "backup.snap"
    path.write_bytes(WHOLE)
    with pytest.raises(SystemExit) as stop:
        comitia.main(["snapshot", "restore", "-http-addr", stub.address, str(path)])
    assert stop.value.code == 0 and stub.taken == [WHOLE]
    assert capsys.readouterr().out == "Restored snapshot\n"
    with pytest.raises(SystemExit) as stop:
        comitia.main(["snapshot", "restore", "-http-addr", stub.address, str(tmp_path / "none")])
    assert stop.value.code == 1
    assert "Error opening snapshot file" in capsys.readouterr().err


def test_an_archive_is_inspected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "backup.snap"
    path.write_bytes(WHOLE)
    assert run("-format=json", str(path)) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["Meta"]["ID"], found["Meta"]["Version"], found["Meta"]["Index"]) == ("2-700-1", 1, 700)
    path.write_bytes(WHOLE[:-3])
    assert run(str(path)) == 1
    assert "Error reading snapshot: failed to decompress snapshot" in capsys.readouterr().err
    assert run(str(path), str(path)) == 1
    assert "Too many arguments (expected 1, got 2)" in capsys.readouterr().err
