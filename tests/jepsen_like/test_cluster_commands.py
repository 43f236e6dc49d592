"""`comitia cluster` as typed: up, look, break, mend, down; and one-line errors that say what to do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from jepsen_like.cluster import state

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster"), pytest.mark.usefixtures("a_machine_that_can")]

ROOT = Path(__file__).parents[2]
STUB = f"{sys.executable} {Path(__file__).parent / 'stub_agent.py'}"


def cluster(*words: str, code: int = 0) -> str:
    """What `comitia cluster WORDS` prints; asserts its exit code."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "comitia.py"), "cluster", *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state directory of its own; whatever a test left running is ended."""
    monkeypatch.setenv("COMITIA_HOME", str(tmp_path))
    for variable in ("SUDO_UID", "COMITIA_CLUSTER"):
        monkeypatch.delenv(variable, raising=False)
    yield tmp_path
    if state.names():
        cluster("down", "--all")


def test_a_cluster_is_started_looked_at_broken_mended_and_ended_by_hand() -> None:
    up = json.loads(cluster("up", "--servers", "3", "--clients", "1", "--agent-command", STUB, "--json"))
    assert (up["name"], up["leader"]) == ("default", "s1")
    assert [node["name"] for node in up["nodes"]] == ["s1", "s2", "s3", "c1"]
    with urllib.request.urlopen(f"http://{up['nodes'][3]['http']}/whoami", timeout=5) as answer:
        assert json.load(answer)["node"] == "c1"

    assert "partitioned" in cluster("partition", "s1/s2,s3")
    assert "50±5 ms, loss 1%" in cluster("slow", "s2", "s3", "--delay", "50", "--jitter", "5", "--loss", "0.01")
    cluster("cut", "c1", "s2", "--one-way")
    cluster("pause", "s2")
    cluster("kill", "s3")
    shown = cluster("status")
    for expected in ("leader", "paused", "stopped", "cut", "50±5 ms, loss 1%"):
        assert expected in shown
    links = {
        (link["source"], link["target"]): link["rule"] for link in json.loads(cluster("status", "--json"))["links"]
    }
    assert {link for link, rule in links.items() if rule.get("cut")} == {
        *(("s1", "s2"), ("s2", "s1"), ("s1", "s3"), ("s3", "s1")),
        ("c1", "s2"),
    }

    cluster("heal")
    cluster("resume", "s2")
    cluster("restart", "s3")
    document = json.loads(cluster("status", "--json", "--timeout", "5"))
    assert document["links"] == []
    assert {node["name"]: node["state"] for node in document["nodes"]} == dict.fromkeys(
        ("s1", "s2", "s3", "c1"), "running"
    )
    assert "GET /v1/agent/self" in cluster("logs", "s1")
    assert cluster("down") == "cluster default is gone\n"
    assert "no clusters" in cluster("list")


def test_exec_runs_in_the_nodes_namespaces_with_its_own_exit_status() -> None:
    cluster("up", "--servers", "2", "--agent-command", STUB)
    addresses = cluster("exec", "s2", "--", "cat", "/proc/net/fib_trie")
    assert "10.77.0.2" in addresses
    assert "10.77.0.1\n" not in addresses
    assert cluster("exec", "s1", "sh", "-c", "readlink /proc/self/ns/net") != os.readlink("/proc/self/ns/net") + "\n"
    assert "stub_agent.py" in cluster("exec", "s1", "--", "cat", "/proc/4/cmdline")
    cluster("exec", "s1", "--", "sh", "-c", "exit 7", code=7)
    assert "no-such-program" in cluster("exec", "s1", "--", "no-such-program", code=127)


def test_clusters_side_by_side_are_told_apart_by_name() -> None:
    cluster("up", "--servers", "1", "--name", "one", "--agent-command", STUB)
    assert "'one' is running already" in cluster(
        "up", "--servers", "1", "--name", "one", "--agent-command", STUB, code=255
    )
    cluster("up", "--servers", "1", "--name", "two", "--agent-command", STUB)
    assert "several clusters are running (one, two): say which with --name" in cluster("status", code=255)
    cluster("kill", "s1", "--name", "two")
    states = [json.loads(cluster("status", "-n", name, "--json"))["nodes"][0]["state"] for name in ("one", "two")]
    assert states == ["running", "stopped"]
    assert {row["name"]: row["alive"] for row in json.loads(cluster("list", "--json"))} == {"one": True, "two": True}


def test_what_a_killed_supervisor_left_is_reported_and_cleared(home: Path) -> None:
    cluster("up", "--servers", "1", "--name", "gone", "--agent-command", STUB)
    directory = home / "clusters" / "gone"
    os.kill(state.load(directory).supervisor_pid, signal.SIGKILL)
    while state.is_alive(directory):
        pass
    assert "gone             dead" in cluster("list")
    assert "supervisor is gone" in cluster("status", "--name", "gone", code=255)
    assert "cleared what it left" in cluster("down", "gone")
    assert not directory.exists()


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["status"], 255, "no cluster is running; start one with `comitia cluster up`"),
        (["status", "--name", "nope"], 255, "no cluster is called 'nope'"),
        (["partition", "s1,s2"], 254, "a partition needs two groups or more"),
        (["slow", "s1", "s2", "--loss", "3"], 254, "loss is a probability"),
        (["up", "--servers", "0"], 254, "--servers"),
        (["up", "--name", "Not A Name"], 255, "is no name for a cluster"),
        (["up", "--agent-command", "'"], 254, "--agent-command"),
        (["up", "--agent-command", "/no/such/agent"], 255, "cannot start /no/such/agent"),
        (["up", "--servers", "1", "--agent-command", "sh -c 'echo out of luck; exit 3'"], 255, "out of luck"),
        (["heal", "s1"], 254, "two nodes, or none"),
    ],
)
def test_mistakes_get_one_line_that_says_what_to_do(words: list[str], code: int, text: str) -> None:
    assert text in cluster(*words, code=code)
