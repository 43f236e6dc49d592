"""Snapshots of the state over real processes: saved while writes go on, restored in another cluster, refused if they
are not whole; if the leader is killed the old state stays in force. What the servers did is judged by conformance."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from impl.agent.snapshots.archives import verify_archive
from impl.catalog.snapshot import decode_rows
from impl.runtime.real_disk import RealDisk
from impl.storage.snapshots import SnapshotReader
from tests.impl.agent_processes import ROOT, AgentProcess, Cluster, eventually, judged

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

NODES, INSTANCES = 30, 8
SMALL = ("-raft-snapshot-threshold", "60", "-raft-snapshot-interval", "100ms", "-raft-trailing-logs", "20")
VALUE = b"value" * 18_000
"""Every chunk holds one of these."""


class Smaller(Cluster):
    """Three servers that take a snapshot of their own every sixty entries, and a client agent."""

    def start(self, name: str, *more: str) -> AgentProcess:
        return super().start(name, *more, *SMALL) if more else super().start(name)


class Archive:
    """An archive of a server's state, taken apart."""

    def __init__(self, data: bytes, directory: Path) -> None:
        path, state = directory / "archive", directory / "state"
        state.unlink(missing_ok=True)
        path.write_bytes(data)
        self.meta = verify_archive(RealDisk(), str(path), str(state), 1 << 30)
        reader, self.rows = SnapshotReader(RealDisk(), str(state), None), list[list[Any]]()
        while (block := reader.block()) is not None:
            self.rows += msgspec.to_builtins(decode_rows(block), builtin_types=[bytes])
        reader.close()

    def of_users(self) -> list[list[Any]]:
        """The rows without those of the agents themselves, which the leader of each cluster keeps."""
        shown = []
        for kind, first, *rest in self.rows:
            if kind == "index":
                if first == "kv" or first.startswith(("node.n-", "service.web")):
                    shown.append([kind, first, *rest])
            elif kind not in ("node", "service", "check") or first[0].startswith("n-"):
                shown.append([kind, first, *rest])
        return shown


def register(agent: AgentProcess) -> None:
    for node in range(NODES):
        for number in range(INSTANCES):
            service = {"ID": f"i{number}", "Service": f"web{number % 3}", "Port": 80}
            check = {"CheckID": f"c{number}", "Status": "passing", "ServiceID": f"i{number}"}
            body = {"Node": f"n-{node:03d}", "Address": "10.0.0.1", "Service": service, "Check": check}
            assert agent.request("PUT", "/v1/catalog/register", json.dumps(body).encode())[0] == 200


def agreed(cluster: Cluster, directory: Path) -> Archive:
    """The state of all servers, once they have the same."""

    def same() -> Archive | None:
        names = [name for name in cluster.agents if name.startswith("s")]
        answers = [cluster.agents[name].request("GET", "/v1/snapshot?stale") for name in names]
        if any(status != 200 for status, _ in answers):
            return None
        found = [Archive(body, directory) for _, body in answers]
        alike = len({(each.meta.index, each.meta.state_digest) for each in found}) == 1
        return found[0] if alike else None

    found = eventually(same, "all servers have the same state")
    assert isinstance(found, Archive)
    return found


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("source"), 3)
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Smaller]:
    cluster = Smaller(tmp_path_factory.mktemp("target"), 3)
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def archive(source: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive that the command line saved from the client agent while others wrote."""
    leader, client = source.agents[source.leader()], source.agents["c1"]
    register(leader)
    session = json.dumps({"Node": "n-001", "NodeChecks": [], "Checks": [], "TTL": "86400s"}).encode()
    holder = json.loads(leader.request("PUT", "/v1/session/create", session)[1])["ID"]
    assert leader.request("PUT", f"/v1/kv/lock?acquire={holder}", b"mine") == (200, b"true")
    leader.put("gone", "1")
    leader.request("DELETE", "/v1/kv/gone")
    for number in range(150):
        assert leader.request("PUT", f"/v1/kv/big/{number:03d}", VALUE)[0] == 200
    done, written = threading.Event(), list[None]()

    def write() -> None:
        while not done.is_set():
            leader.put("counter", str(len(written)))
            written.append(None)

    writer = threading.Thread(target=write)
    writer.start()
    eventually(lambda: len(written) > 10, "writes go on")
    path = tmp_path_factory.mktemp("archive") / "backup.snap"
    before = len(written)
    found = snapshot("save", client, str(path))
    after = len(written)
    done.set()
    writer.join()
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("Saved and verified snapshot to index ")
    counted = [
        row for kind, row, *_ in Archive(path.read_bytes(), path.parent).rows if kind == "kv" and row[0] == "counter"
    ]
    assert before - 1 <= int(counted[0][2]) <= after, "a state of the time between"
    return path


def snapshot(command: str, agent: AgentProcess, path: str) -> subprocess.CompletedProcess[str]:
    address = f"127.0.0.1:{agent.http_port}"
    words = [sys.executable, str(ROOT / "comitia.py"), "snapshot", command, "-http-addr", address, path]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


def test_a_snapshot_that_is_not_whole_is_refused_and_changes_nothing(
    target: Smaller, archive: Path, tmp_path: Path
) -> None:
    whole = archive.read_bytes()
    target.agents["s1"].put("here", "before")
    bent = bytearray(whole)
    bent[len(whole) // 2] ^= 1
    bad = {"cut": whole[:-9], "bent": bytes(bent), "other": b"PK" + bytes(999), "empty": b""}
    for name, agent in target.agents.items():
        for what, data in bad.items():
            path = tmp_path / f"{name}-{what}"
            path.write_bytes(data)
            found = snapshot("restore", agent, str(path))
            assert found.returncode == 1, (name, what)
            assert "Unexpected response code: 500 (failed to verify snapshot: " in found.stderr
    kept = agreed(target, tmp_path)
    assert not kept.of_users()[1:2] or kept.of_users()[1][0] == "kv"
    assert target.agents["c1"].get("here") == "before"


def test_a_restore_whose_leader_is_killed_leaves_the_old_state(target: Smaller, archive: Path, tmp_path: Path) -> None:
    leader = target.leader()
    told: list[subprocess.CompletedProcess[str]] = []
    client = target.agents["c1"]
    restoring = threading.Thread(target=lambda: told.append(snapshot("restore", client, str(archive))))
    restoring.start()
    follower = target.agents[target.followers()[0]]
    eventually(lambda: staged_chunks(follower) > 3, "some of it is staged on every server")
    target.agents[leader].kill()
    restoring.join()
    assert told[0].returncode == 1, told
    assert "it is unknown whether the snapshot was, or will be, restored" in told[0].stderr
    new = target.agents[target.leader()]
    assert new.get("here") == "before"
    assert new.request("GET", "/v1/kv/lock")[0] == 404
    new.wait_for_line("dropping what is staged of a restore whose leader was lost")
    target.start(leader)
    servers = [agent for name, agent in target.agents.items() if name.startswith("s")]
    eventually(lambda: not any(map(staged_chunks, servers)), "what was staged is dropped everywhere")
    assert agreed(target, tmp_path).of_users()[1][1][0] == "here"


def staged_chunks(agent: AgentProcess) -> int:
    """How much of a restore a server has staged."""
    chunks: int = json.loads(agent.request("GET", "/v1/agent/self")[1])["Stats"]["snapshots"]["staged_chunks"]
    return chunks


def test_a_snapshot_is_restored_in_another_cluster_on_every_server(
    target: Smaller, archive: Path, tmp_path: Path
) -> None:
    client = target.agents["c1"]
    index = int(client.request("GET", "/v1/kv/here")[0] == 200 and client.headers["x-consul-index"])
    answers: list[tuple[int, bytes]] = []
    watching = threading.Thread(
        target=lambda: answers.append(client.request("GET", f"/v1/kv/here?index={index}&wait=60s", timeout=70))
    )
    watching.start()
    found = snapshot("restore", client, str(archive))
    assert (found.returncode, found.stdout) == (0, "Restored snapshot\n"), found.stderr
    watching.join(30)
    assert answers and answers[0][0] == 404, "watches are abandoned: the key is gone"
    expected = Archive(archive.read_bytes(), tmp_path)
    now = agreed(target, tmp_path)
    assert now.of_users() == expected.of_users()
    for name in ("s1", "c1"):
        status, _ = client.request("GET", f"/v1/health/node/{name}")
        assert status == 200
        eventually(partial(is_alive, client, name), f"{name} is registered again")


def serf_health(agent: AgentProcess, node: str) -> list[str]:
    checks = json.loads(agent.request("GET", f"/v1/health/node/{node}")[1])
    return [check["Status"] for check in checks if check["CheckID"] == "serfHealth"]


def is_alive(agent: AgentProcess, node: str) -> bool:
    return serf_health(agent, node) == ["passing"]


def test_what_is_written_later_has_greater_indexes_and_wakes_who_knows_the_restored_ones(target: Smaller) -> None:
    client = target.agents["c1"]
    client.request("GET", "/v1/kv/counter")
    index = int(client.headers["x-consul-index"])
    answers: list[tuple[int, bytes]] = []
    watching = threading.Thread(
        target=lambda: answers.append(client.request("GET", f"/v1/kv/counter?raw&index={index}&wait=60s", timeout=70))
    )
    watching.start()
    target.agents["s2"].put("counter", "later")
    watching.join(30)
    assert answers == [(200, b"later")]


def took_a_snapshot(agent: AgentProcess) -> bool:
    return bool(agent.raft()["last_snapshot_index"] != "0")


def test_a_cluster_may_restore_its_own_snapshot_and_need_not_restore_it_again_when_it_starts(
    source: Cluster, archive: Path, tmp_path: Path
) -> None:
    leader = source.agents[source.leader()]
    leader.put("lock/later", "1")
    leader.put("counter", "now")
    leader.request("GET", "/v1/kv/counter")
    before = int(leader.headers["x-consul-index"])
    assert all(source.agents[name].raft()["last_snapshot_index"] == "0" for name in ("s1", "s2", "s3"))
    assert snapshot("restore", leader, str(archive)).returncode == 0
    leader.request("GET", "/v1/kv/counter")
    assert int(leader.headers["x-consul-index"]) < before, "restored indexes are those of the archive"
    assert leader.request("GET", "/v1/kv/lock/later")[0] == 404
    expected = Archive(archive.read_bytes(), tmp_path).of_users()
    assert agreed(source, tmp_path).of_users() == expected
    for name in ("s1", "s2", "s3"):
        eventually(partial(took_a_snapshot, source.agents[name]), f"{name} took a snapshot at once")


@pytest.mark.parametrize("name", ["source", "target"])
def test_what_the_servers_did_is_what_the_spec_allows(name: str, request: pytest.FixtureRequest) -> None:
    cluster: Cluster = request.getfixturevalue(name)
    directory = cluster.directory / "trace"
    judged(directory, cluster.agents.values())
    if name == "target":
        assert any("restore-commit" in path.read_text() for path in directory.iterdir())


def test_a_server_that_lost_its_directory_gets_the_restored_state(target: Smaller, tmp_path: Path) -> None:
    # Last, and without a trace: it would be the same file again.
    victim = target.followers()[0]
    target.agents[victim].kill()
    identity = json.loads((target.directory / victim / "identity.json").read_text())["node_id"]
    leader = target.agents[target.leader()]
    assert leader.request("DELETE", f"/v1/operator/raft/peer?id={identity}")[0] == 200
    (target.directory / victim).rename(target.directory / f"{victim}.lost")
    flags = target.flags[victim]
    if "-retry-join" not in flags:
        flags += ["-retry-join", leader.rpc]
    command = ["-data-dir", str(target.directory / victim), *flags]
    target.agents[victim] = AgentProcess(*command).started()
    assert agreed(target, tmp_path).of_users()
    assert target.agents[victim].get("counter", "raw&stale") == "later"
