"""Specs, command lines, state directories, agents' accounts and refusals: what needs no privilege to check."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jepsen_like import commands
from jepsen_like.cluster import observe, privilege, spec, state, status
from jepsen_like.cluster.api import ClusterStatus
from jepsen_like.cluster.protocol import ClusterFailure, LinkState, NodeState, WorldState
from jepsen_like.cluster.spec import ClusterSpec
from jepsen_like.net.rules import LinkCounters, LinkRule


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COMITIA_HOME", str(tmp_path))
    return tmp_path / "clusters"


def test_a_server_is_told_of_the_others_and_how_many_are_expected() -> None:
    argv = spec.agent_argv(ClusterSpec(servers=3, trace_dir=Path("/traces")), "s2", Path("/data"))
    assert argv[:4] == (sys.executable, "-m", "comitia", "agent")
    line = " ".join(argv[4:])
    assert line.startswith("-server -bootstrap-expect 3 -trace /traces -node s2 -bind 10.77.0.2 -client 0.0.0.0")
    assert line.endswith("-data-dir /data -retry-join 10.77.0.1 -retry-join 10.77.0.3")


def test_a_spare_server_is_told_of_the_others_and_expects_nobody() -> None:
    given = ClusterSpec(servers=4, spares=1)
    assert "-bootstrap-expect 3" in " ".join(spec.agent_argv(given, "s1", Path("/d")))
    spare = " ".join(spec.agent_argv(given, "s4", Path("/d")))
    assert "-server" in spare and "-bootstrap-expect" not in spare
    assert given.spare_names == ("s4",)
    assert ClusterSpec(servers=3).spare_names == ()


def test_servers_are_told_when_to_take_snapshots_and_client_agents_are_not() -> None:
    given = ClusterSpec(servers=1, clients=1, snapshot_threshold=200, snapshot_interval_ms=500, trailing_logs=50)
    settings = "-raft-snapshot-threshold 200 -raft-snapshot-interval 500ms -raft-trailing-logs 50"
    assert settings in " ".join(spec.agent_argv(given, "s1", Path("/d")))
    assert "-raft" not in " ".join(spec.agent_argv(given, "c1", Path("/d")))


def test_a_client_agent_is_told_of_all_servers_and_keeps_no_trace() -> None:
    given = ClusterSpec(servers=2, clients=1, trace_dir=Path("/t"), agent_command="python 'x y.py' -v")
    argv = spec.agent_argv(given, "c1", Path("/d"))
    assert argv[:3] == ("python", "x y.py", "-v")
    assert argv[-4:] == ("-retry-join", "10.77.0.1", "-retry-join", "10.77.0.2")
    assert "-trace" not in argv


def test_a_directory_is_claimed_by_one_cluster_at_a_time(home: Path) -> None:
    directory, lock = state.claim("x", None)
    assert state.is_alive(directory)
    with pytest.raises(ClusterFailure, match="'x' is running already"):
        state.claim("x", None)
    assert state.claim_free("x", None)[0].name == "x-2"
    with pytest.raises(ClusterFailure, match="alive"):
        state.remove(directory)
    os.close(lock)
    assert not state.is_alive(directory)


def check_names_are_exclusive(mutant: str = "", workers: int = 6, rounds: int = 80) -> None:
    """Many processes claim and remove the same names; each writes a file into its own and must find it there."""
    script = (
        "import os, shutil, time\nfrom jepsen_like.cluster import state\n"
        f"{mutant}\n"
        f"for _ in range({rounds}):\n"
        "    directory, lock = state.claim_free('x', None)\n"
        "    (directory / 'mine').write_text(str(os.getpid()))\n"
        "    time.sleep(0.001)\n"
        "    assert (directory / 'mine').read_text() == str(os.getpid())\n"
        "    os.close(lock)\n"
        "    try:\n        state.remove(directory)\n"
        "    except state.ClusterFailure:\n        pass\n"
    )
    command = [sys.executable, "-c", script]
    root = Path(__file__).parents[2]
    crowd = [subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True) for _ in range(workers)]
    complaints = [process.communicate(timeout=60)[1] for process in crowd]
    assert complaints == [""] * workers


def test_no_two_processes_hold_one_name_while_others_remove_it() -> None:
    check_names_are_exclusive()


def test_a_removal_that_looks_first_and_removes_later_is_noticed() -> None:
    with pytest.raises(AssertionError):
        check_names_are_exclusive(
            "state.remove = lambda path: state.is_alive(path) or time.sleep(0.001) or shutil.rmtree(path, True)"
        )


def test_what_a_dead_cluster_left_does_not_reach_the_next_one_of_its_name(home: Path) -> None:
    (home / "x" / "data" / "s1").mkdir(parents=True)
    (home / "x" / "data" / "s1" / "log").write_text("old")
    (home / "x" / "cluster.json").write_text("{}")
    directory, lock = state.claim("x", None)
    assert [entry.name for entry in directory.iterdir()] == ["lock"]
    os.close(lock)
    state.remove(directory)
    assert state.names() == []


@pytest.mark.parametrize("name", ["", "..", "a/b", "-x", "X", "a" * 64])
def test_names_that_are_no_names_are_refused(name: str) -> None:
    with pytest.raises(ClusterFailure):
        state.claim(name, None)
    with pytest.raises(ClusterFailure):
        state.cluster_directory(name)


def test_metadata_survives_writing_and_reading(home: Path) -> None:
    metadata = state.Metadata(ClusterSpec(name="x", trace_dir=Path("/t")), 7, True)
    directory, lock = state.claim("x", None)
    state.store(directory, metadata)
    assert state.load(directory) == metadata
    (directory / "cluster.json").write_text("{")
    with pytest.raises(ClusterFailure, match=r"no readable cluster\.json"):
        state.load(directory)
    os.close(lock)


def self_answer(**raft: str) -> bytes:
    peers = {"s2": {"connected": True}, "10.77.0.3:8300": {"connected": False}, "elsewhere": {"connected": True}}
    return json.dumps({"Config": {}, "Stats": {"raft": raft, "rpc": {"peers": peers}}}).encode()


def test_an_agents_account_is_read_from_agent_self() -> None:
    view = observe.agent_view("s1", self_answer(state="Leader", term="3", commit_index="10", leader="10.77.0.1:8300"))
    assert view == observe.AgentView("s1", "leader", 3, 10, -1, "s1", {"s2": True, "s3": False})
    assert observe.agent_view("c1", b"{}").role == "client"
    assert observe.agent_view("s1", b'{"Stats": 5}').role == "?"
    with pytest.raises(observe.HttpFailure):
        observe.agent_view("s1", b"<html>")


def test_where_there_is_no_agent_self_the_leaders_address_must_do() -> None:
    assert observe.view_of_leader("s1", b'"10.77.0.1:8300"') == observe.AgentView("s1", "leader", leader="s1")
    assert observe.view_of_leader("s2", b'"10.77.0.1:8300"').role == "?"
    assert observe.view_of_leader("s2", b'""').leader is None


def test_of_two_servers_that_say_they_lead_the_one_of_the_higher_term_does() -> None:
    old, new = observe.AgentView("s3", "leader", 4), observe.AgentView("s1", "leader", 5)
    assert observe.leader_among([old, new, observe.AgentView("s2", "follower", 6)]) == "s1"
    assert observe.leader_among([observe.AgentView("s2", "candidate", 6)]) is None


def test_a_chunked_answer_is_put_together() -> None:
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
    assert observe.parsed(answer) == (200, {"transfer-encoding": "chunked"}, b"abcde")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    ],
)
def test_half_an_answer_is_no_answer(answer: bytes) -> None:
    with pytest.raises(observe.HttpFailure):
        observe.parsed(answer)


def test_the_matrix_shows_rules_first_and_then_what_agents_say() -> None:
    nodes = tuple(NodeState(name, "", "running") for name in ("s1", "s2", "s3"))
    links = (LinkState("s1", "s2", LinkRule(cut=True), LinkCounters()),)
    views = {"s1": observe.AgentView("s1", "leader", reaches={"s2": True, "s3": True})}
    seen = ClusterStatus(WorldState("x", nodes, links, ()), views, "s1")
    columns = [[str(cell) for cell in column.cells] for column in status.reach_table(seen).columns]
    assert columns[2][0] == "cut", "a cut link is shown as cut, whatever its ends believe"
    assert columns[3][0] == "✓"
    assert columns[1][1] == "·", "nothing is claimed about an agent that says nothing"


def test_a_refusal_names_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = OSError(errno.EPERM, "Operation not permitted")
    assert "--cap-add SYS_ADMIN" in str(privilege.namespaces_refused(refused, privileged=True))
    for name, value, remedy in (
        (privilege.APPARMOR, "1", "sysctl kernel.apparmor_restrict_unprivileged_userns=0"),
        (privilege.OLD_DEBIAN, "0", "sysctl kernel.unprivileged_userns_clone=1"),
        (privilege.MAX_NAMESPACES, "0", "sysctl user.max_user_namespaces="),
    ):
        monkeypatch.setattr(privilege, "sysctl", {name: value}.get)
        assert remedy in str(privilege.namespaces_refused(refused, privileged=False))
    monkeypatch.setattr(privilege, "TUN_DEVICE", "/no/such/device")
    assert "modprobe tun" in str(privilege.link_refused(OSError(errno.EOPNOTSUPP, "x"), use_tun=False))


def test_commands_load_by_name() -> None:
    assert commands.cluster_command.name == "cluster"
    with pytest.raises(AttributeError):
        _ = commands.no_such_command
