"""Agents as their users meet them: processes on loopback, spoken to over HTTP, ended by signals and by kill -9."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.impl.agent_processes import PATIENCE_SECONDS, ROOT, AgentProcess, Cluster, eventually, run_to_end

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    running = Cluster(tmp_path_factory.mktemp("cluster"), 3)
    yield running
    running.stop()


def test_what_is_written_at_any_agent_is_read_at_every_agent(cluster: Cluster) -> None:
    for name, agent in cluster.agents.items():
        agent.put(f"from/{name}", name)
    for name in cluster.agents:
        for agent in cluster.agents.values():
            assert agent.get(f"from/{name}") == name
    assert json.loads(cluster.agents["c1"].get("from/", "keys")) == ["from/c1", "from/s1", "from/s2", "from/s3"]


def test_a_stale_read_is_answered_by_a_follower_and_says_how_old_it_may_be(cluster: Cluster) -> None:
    cluster.agents["s1"].put("old", "x")
    follower = cluster.agents[cluster.followers()[0]]
    eventually(lambda: follower.request("GET", "/v1/kv/old?stale")[0] == 200, "replication")
    assert follower.headers["x-consul-effective-consistency"] == "stale"
    assert follower.headers["x-consul-knownleader"] == "true"
    assert 0 <= int(follower.headers["x-consul-lastcontact"]) < 5_000


def is_named(leader: str, agent: AgentProcess) -> bool:
    return bool(json.loads(agent.request("GET", "/v1/status/leader")[1]) == leader)


def test_every_agent_names_the_same_leader_and_peers(cluster: Cluster) -> None:
    leader = cluster.agents[cluster.leader()].rpc
    peers = sorted(agent.rpc for name, agent in cluster.agents.items() if name.startswith("s"))
    for agent in cluster.agents.values():
        eventually(partial(is_named, leader, agent), "the leader")
        assert json.loads(agent.request("GET", "/v1/status/peers")[1]) == peers


def test_a_blocking_query_returns_when_its_key_changes(cluster: Cluster) -> None:
    client, writer = cluster.agents["c1"], cluster.agents["s1"]
    writer.put("watched", "1")
    client.request("GET", "/v1/kv/watched")
    index = client.headers["x-consul-index"]
    answers: list[tuple[int, bytes]] = []
    waiter = threading.Thread(
        target=lambda: answers.append(client.request("GET", f"/v1/kv/watched?raw&index={index}&wait=60s", timeout=30))
    )
    waiter.start()
    writer.put("another", "1")
    waiter.join(0.3)
    assert waiter.is_alive(), "another key woke it"
    writer.put("watched", "2")
    waiter.join(PATIENCE_SECONDS)
    assert answers == [(200, b"2")]
    assert int(client.headers["x-consul-index"]) > int(index)


def test_a_blocking_query_ends_with_its_wait(cluster: Cluster) -> None:
    agent = cluster.agents[cluster.followers()[0]]
    assert agent.request("GET", "/v1/kv/never?index=1000000&wait=50ms")[0] == 404


def test_a_value_that_is_too_large_is_refused_and_the_agent_goes_on(cluster: Cluster) -> None:
    agent = cluster.agents["s1"]
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it need not read what it has refused
        status, body = agent.request("PUT", "/v1/kv/big", b"x" * (512 * 1024 + 1))
        assert status == 413
        assert b"too large" in body
    agent.put("big", "x" * 512 * 1024)
    assert len(cluster.agents["c1"].get("big")) == 512 * 1024


def test_garbage_on_the_server_port_costs_one_connection(cluster: Cluster) -> None:
    import socket

    host, _, port = cluster.agents["s1"].rpc.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_SECONDS) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n" * 10)
        assert connection.recv(1) == b""
    cluster.agents["s1"].put("after/garbage", "1")


def test_a_killed_leader_is_replaced_and_comes_back_with_its_data(cluster: Cluster) -> None:
    client = cluster.agents["c1"]
    client.put("before", "1")
    killed = cluster.leader()
    cluster.agents[killed].kill()
    # The first attempt may have gone to the killed process: its outcome is unknown.
    eventually(lambda: client.request("PUT", "/v1/kv/during", b"2") == (200, b"true"), "a new leader")
    successor = cluster.leader()
    assert successor != killed
    survivors = [name for name in ("s1", "s2", "s3") if name != killed]
    evidence = f"the process of leader {killed} has ended"
    assert any(evidence in line for name in survivors for line in cluster.agents[name].lines), "nobody had to wait"
    restarted = cluster.start(killed)
    assert restarted.get("before") == "1"
    applied = int(cluster.agents[cluster.leader()].raft()["applied_index"])
    eventually(lambda: int(restarted.raft()["applied_index"]) >= applied, "the log of the new leader")
    assert restarted.get("during", "raw&stale") == "2"


def test_a_majority_that_is_killed_and_started_again_forgets_nothing(cluster: Cluster) -> None:
    cluster.agents["c1"].put("kept", "1")
    assert "-retry-join" not in cluster.flags["s1"], "s1 finds the others again by its address book"
    for name in ("s1", "s2", "s3"):
        cluster.agents[name].kill()
    for name in ("s1", "s2", "s3"):
        cluster.start(name)
    assert cluster.agents["c1"].get("kept") == "1"


def test_without_a_quorum_a_request_ends_with_no_cluster_leader(cluster: Cluster, tmp_path: Path) -> None:
    alone = AgentProcess(
        "-server", "-node", "x1", "-bootstrap-expect", "3", "-data-dir", str(tmp_path), "-server-port", "0",
        "-config-file", str(write_config(tmp_path, {"performance": {"rpc_hold_timeout": "200ms"}})),
    ).started()  # fmt: skip
    client = AgentProcess(
        "-node", "x2", "-retry-join", alone.rpc,
        "-config-file", str(write_config(tmp_path, {"performance": {"rpc_hold_timeout": "200ms"}})),
    ).started()  # fmt: skip
    try:
        assert alone.request("PUT", "/v1/kv/a", b"1") == (500, b"No cluster leader")
        assert alone.request("GET", "/v1/kv/a?stale") == (500, b"No cluster leader")
        eventually(lambda: client.request("PUT", "/v1/kv/a", b"1") == (500, b"No cluster leader"), "an answer")
        alone.kill()
        status, text = client.request("PUT", "/v1/kv/a", b"1")
        assert (status, text) in ((500, b"No known Consul servers"), (500, b"No cluster leader"))
    finally:
        client.kill()


def write_config(directory: Path, document: dict[str, Any]) -> Path:
    path = directory / "agent.json"
    path.write_text(json.dumps(document))
    return path


def test_a_second_server_of_a_members_name_is_told_why_it_cannot_be(cluster: Cluster, tmp_path: Path) -> None:
    join = ["-server-port", "0", "-retry-join", cluster.agents["s1"].rpc, "-bootstrap-expect", "3", "-server"]
    code, line = run_to_end(*join, "-node", "s2", "-data-dir", str(tmp_path / "s2"))
    assert (code, "another -node name" in line) == (1, True), line


def test_two_servers_of_one_name_do_not_form_a_cluster(tmp_path: Path) -> None:
    flags = ("-server", "-bootstrap-expect", "2", "-node", "twin", "-server-port", "0")
    first = AgentProcess(*flags, "-data-dir", str(tmp_path / "1")).started()
    code, line = run_to_end(*flags, "-data-dir", str(tmp_path / "2"), "-retry-join", first.rpc)
    assert (code, "another -node name" in line) == (1, True), line
    assert first.ended() == 1, "the other one was told the same"


def test_a_mistaken_start_is_one_line_and_exit_code_1(cluster: Cluster, tmp_path: Path) -> None:
    s1 = cluster.agents["s1"]
    taken = s1.rpc.rpartition(":")[2]
    server = ("-server", "-node", "t", "-data-dir", str(tmp_path))
    for flags, reason in (
        (("-server", "-node", "s1", "-data-dir", str(cluster.directory / "s1")), "is in use by pid"),
        ((*server, "-server-port", taken), "already in use"),
        (("-dev", "-node", "t", "-server-port", "0", "-http-port", str(s1.http_port)), "choose another -http-port"),
        (("-server", "-node", "t", "-data-dir", "/proc/nowhere"), "choose another -data-dir"),
        ((*server, "-bind", "0.0.0.0", "-advertise", "127.0.0.1"), "-allow-insecure-rpc"),
        (
            ("-dev", "-node", "s1", "-server-port", "0", "-trace", str(cluster.directory / "trace")),
            "choose another -trace directory",
        ),
        (("-dev", "-sever"), "flag provided but not defined"),
    ):
        code, line = run_to_end(*flags)
        assert (code, reason in line) == (1, True), line


def test_another_nodes_data_directory_is_refused(tmp_path: Path) -> None:
    flags = ("-server", "-bootstrap-expect", "1", "-data-dir", str(tmp_path), "-server-port", "0")
    agent = AgentProcess("-node", "a", *flags).started()
    assert agent.terminate() == 0, agent.lines
    code, line = run_to_end("-node", "b", *flags)
    assert (code, "belongs to node a" in line) == (1, True), line


def test_a_signal_ends_an_agent_gracefully(tmp_path: Path) -> None:
    agent = AgentProcess(
        "-server", "-bootstrap-expect", "1", "-node", "one", "-data-dir", str(tmp_path / "d"), "-server-port", "0",
        "-trace", str(tmp_path / "t"), "-pid-file", str(tmp_path / "pid"),
    ).started()  # fmt: skip
    agent.put("a", "1")
    assert (tmp_path / "pid").read_text().strip() == str(agent.process.pid)
    held: list[tuple[int, bytes]] = []
    waiter = threading.Thread(target=lambda: held.append(agent.request("GET", "/v1/kv/a?index=1000&wait=60s")))
    waiter.start()
    waiter.join(0.2)
    assert agent.terminate() == 0
    waiter.join(PATIENCE_SECONDS)
    assert held == [(500, b"rpc error: the server is shutting down")]
    assert not (tmp_path / "pid").exists()
    trace = [json.loads(line) for line in (tmp_path / "t" / "one-000001.ndjson").read_text().splitlines()]
    assert trace[0]["kind"] == "header"
    assert (trace[-1]["kind"], trace[-1]["reason"]) == ("end", "SIGTERM")
    assert [line["seq"] for line in trace[1:]] == list(range(1, len(trace)))


def test_flags_that_scripts_of_consul_pass_are_taken(tmp_path: Path) -> None:
    flags = ("-server", "-bootstrap", "-rejoin", "-ui", "-disable-host-node-id", "-serf-lan-port=8301", "-grpc-port=-1")
    more = ("-retry-interval=5s", "-node-meta=os:linux", "-node-meta", "url:a:b", "-advertise-wan=127.0.0.1")
    place = ("-data-dir", str(tmp_path), "-server-port", "0", "-node", "s1")
    agent = AgentProcess(*flags, *more, *place).started()
    assert "there is no web UI" in agent.wait_for_line("-ui is ignored")
    meta = eventually(
        lambda: next((node["Meta"] for node in json.loads(agent.request("GET", "/v1/catalog/nodes")[1])), None), "s1"
    )
    assert (meta["os"], meta["url"]) == ("linux", "a:b")
    assert agent.terminate() == 0
    code, error = run_to_end("-dev", "-node-meta=a b:c")
    assert (code, "Key contains invalid characters" in error) == (1, True)


def test_a_damaged_log_is_refused_and_named(tmp_path: Path) -> None:
    flags = ("-server", "-bootstrap-expect", "1", "-node", "one", "-data-dir", str(tmp_path), "-server-port", "0")
    agent = AgentProcess(*flags).started()
    for number in range(3):
        agent.put(f"k{number}", "a value to be found in the log")
    agent.kill()
    segment = next(path for path in (tmp_path / "raft").iterdir() if path.is_file())
    content = bytearray(segment.read_bytes())
    content[content.index(b"a value to be found")] ^= 1
    segment.write_bytes(bytes(content))
    code, line = run_to_end(*flags)
    assert (code, "corrupt log: segment" in line) == (1, True), line


def test_kv_prints_what_consuls_command_prints(cluster: Cluster) -> None:
    def kv(*words: str) -> tuple[int, str, str]:
        verb, *rest = words
        address = f"-http-addr=127.0.0.1:{cluster.agents['c1'].http_port}"
        command = [sys.executable, str(ROOT / "comitia.py"), "kv", verb, address, *rest]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
        return done.returncode, done.stdout, done.stderr

    assert kv("put", "cli/a", "-5") == (0, "Success! Data written to: cli/a\n", "")
    assert kv("get", "cli/a") == (0, "-5\n", "")
    assert kv("get", "cli/none") == (1, "", "Error! No key exists at: cli/none\n")
    assert kv("put", "-cas", "-modify-index=1", "cli/a", "x") == (1, "", "Error! Did not write to cli/a: CAS failed\n")
    assert kv("get", "-recurse", "cli/") == (0, "cli/a:-5\n", "")
    assert json.loads(kv("export", "cli/")[1]) == [{"key": "cli/a", "flags": 0, "value": "LTU="}]
    assert kv("delete", "-recurse", "cli/") == (0, "Success! Deleted keys with prefix: cli/\n", "")


def test_a_blocking_query_survives_the_leader_that_held_it(cluster: Cluster) -> None:
    client = cluster.agents["c1"]
    client.put("held", "1")
    client.request("GET", "/v1/kv/held")
    index = client.headers["x-consul-index"]
    answers: list[tuple[int, bytes]] = []
    waiter = threading.Thread(
        target=lambda: answers.append(client.request("GET", f"/v1/kv/held?raw&index={index}&wait=60s", timeout=40))
    )
    waiter.start()
    killed = cluster.leader()
    cluster.agents[killed].kill()
    survivor = cluster.agents[cluster.leader()]
    survivor.put("held", "2")
    waiter.join(PATIENCE_SECONDS)
    cluster.start(killed)
    assert answers == [(200, b"2")]
