"""An operator at the console of running agents: `comitia reload`, SIGHUP, `monitor`, `join`, `force-leave`, `info`."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import comitia
from tests.impl.agent_processes import PATIENCE_SECONDS, ROOT, AgentProcess, Cluster, eventually

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

WEB = """
service {
  name = "web"
  port = %d
  check { ttl = "1h" }
}
telemetry { disable_hostname = true }
"""


class Console:
    """One agent with a configuration directory, and `comitia` to speak with it."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "web.hcl"
        self.write(80)
        ports = ("-server-port", "0", "-dns-port", "0")
        self.agent = AgentProcess("-dev", "-node", "s1", *ports, "-config-dir", str(directory)).started()

    def write(self, port: int) -> None:
        self.write_text(WEB % port)

    def write_text(self, text: str) -> None:
        """As a whole: a reload may be under way."""
        new = self.file.with_suffix(".new")
        new.write_text(text)
        new.rename(self.file)

    def metrics(self) -> dict[str, float]:
        """Without labels, as Prometheus reads them."""
        status, text = self.agent.request("GET", "/v1/agent/metrics?format=prometheus")
        assert status == 200
        families = text_string_to_metric_families(text.decode())
        return {each.name.removesuffix("_total"): each.value for family in families for each in family.samples}

    def port(self) -> int:
        services = json.loads(self.agent.request("GET", "/v1/agent/services")[1])
        found: int = services["web"]["Port"]
        return found


@pytest.fixture
def console(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Console]:
    console = Console(tmp_path)
    monkeypatch.setenv("CONSUL_HTTP_ADDR", f"127.0.0.1:{console.agent.http_port}")
    yield console
    if console.agent.process.poll() is None:
        assert console.agent.terminate() == 0


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit code, output and errors of a command."""
    with pytest.raises(SystemExit) as stop:
        comitia.main(list(words))
    found = capsys.readouterr()
    assert isinstance(stop.value.code, int)
    return stop.value.code, found.out, found.err


def test_a_limit_on_connections_holds_and_changes_with_a_reload(
    console: Console, capsys: pytest.CaptureFixture[str]
) -> None:
    address = ("127.0.0.1", console.agent.http_port)

    def greeted(connection: socket.socket) -> bytes:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        return connection.recv(1000)

    with contextlib.ExitStack() as closing:
        for _ in range(200):
            connection = closing.enter_context(socket.create_connection(address, PATIENCE_SECONDS))
            assert greeted(connection).startswith(b"HTTP/1.1 200 OK")
        with socket.create_connection(address, PATIENCE_SECONDS) as refused:
            assert b"429 Too Many Requests" in greeted(refused)
        code, _, told = run(capsys, "reload")
        assert code != 0 and "Your IP is issuing too many concurrent connections" in told, "even of its operator"
        console.write_text("limits { http_max_conns_per_client = 0 }")
        console.agent.process.send_signal(signal.SIGHUP)
        console.agent.wait_for_line("configuration reloaded")
        with socket.create_connection(address, PATIENCE_SECONDS) as admitted:
            assert greeted(admitted).startswith(b"HTTP/1.1 200 OK")


def test_a_configuration_is_reloaded_by_command_and_by_signal(
    console: Console, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert console.port() == 80
    assert console.agent.request("PUT", "/v1/agent/check/pass/service:web")[0] == 200
    console.write(81)
    assert run(capsys, "reload") == (0, "Configuration reload triggered\n", "")
    assert console.port() == 81
    other = tmp_path / "other.txt"
    other.write_text('services { name = "api" port = 1 }\nservices { name = "db" port = 2 check { ttl = "1h" } }')
    assert run(capsys, "services", "register", str(other))[0] == 1
    other = other.rename(tmp_path / "other.hcl")
    assert run(capsys, "services", "register", str(other))[:2] == (
        0,
        "Registered service: api\nRegistered service: db\n",
    )
    other.unlink()
    console.write_text("service { name = }")
    code, _, told = run(capsys, "reload")
    assert code == 1 and f"failed to parse {console.file}: line 1: a value is expected" in told
    console.agent.process.send_signal(signal.SIGHUP)
    eventually(lambda: len([1 for line in console.agent.lines if "stays in force" in line]) == 2, "the signal is heard")
    assert console.port() == 81
    console.write(82)
    console.agent.process.send_signal(signal.SIGHUP)
    eventually(lambda: console.port() == 82, "the signal reloads")
    checks = json.loads(console.agent.request("GET", "/v1/agent/checks")[1])
    assert checks["service:web"]["Status"] == "passing" and "service:db" in checks


def test_the_log_is_monitored_until_the_agent_ends(console: Console, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "monitor", "-log-level=loud")[::2] == (
        1,
        "Error starting monitor: Unexpected response code: 400 (Unknown log level: loud)\n",
    )
    command = [sys.executable, str(ROOT / "comitia.py"), "monitor", "-log-level", "debug", "-log-json"]

    def follows() -> bool:
        gauges = json.loads(console.agent.request("GET", "/v1/agent/metrics")[1])["Gauges"]
        return any(gauge["Name"] == "comitia.log.followers" and gauge["Value"] for gauge in gauges)

    for number in (signal.SIGINT, signal.SIGTERM):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as monitor:
            eventually(follows, "the monitor follows")
            monitor.send_signal(number)
            assert monitor.wait(PATIENCE_SECONDS) == 0
        eventually(lambda: not follows(), "nobody follows")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as monitor:
        assert monitor.stdout is not None
        eventually(follows, "the monitor follows")
        assert console.agent.request("PUT", "/v1/agent/reload")[0] == 200
        lines = map(json.loads, monitor.stdout)  # the agent may just be winning its election
        reload = next(line for line in lines if line["@module"] == "agent")
        assert (reload["@message"], reload["@level"]) == ("reloading configuration", "info")
        assert console.agent.terminate() == 0
        rest = monitor.stdout.read()
        assert '"stopping"' in rest and rest.rstrip().endswith("remote side has exited or crashed.")
        assert monitor.wait(PATIENCE_SECONDS) == 1


def test_an_agent_that_was_told_of_nobody_alive_joins_when_it_is_told_to(
    console: Console, capsys: pytest.CaptureFixture[str]
) -> None:
    client = AgentProcess("-node", "c1", "-retry-join", "127.0.0.1:1").started()
    here = f"-http-addr=127.0.0.1:{client.http_port}"
    code, _, told = run(capsys, "join", here, "127.0.0.1:2")
    assert code == 1 and "Error joining address '127.0.0.1:2'" in told and "Connection refused" in told
    assert told.endswith("Failed to join any nodes.\n")
    other = AgentProcess("-dev", "-node", "other", "-server-port", "0").started()
    eventually(lambda: other.raft()["state"] == "Leader", "a cluster of its own")
    code, _, told = run(capsys, "join", other.rpc)
    assert code == 1 and "s1 belongs to cluster" in told and other.terminate() == 0
    assert run(capsys, "join", here)[::2] == (1, "At least one address to join must be specified.\n")
    joined = run(capsys, "join", here, console.agent.rpc)
    assert joined == (0, "Successfully joined cluster by contacting 1 nodes.\n", "")
    client.put("a", "b")
    eventually(lambda: b'"c1"' in console.agent.request("GET", "/v1/agent/members")[1], "it is a member")
    assert client.terminate() == 0


def test_the_agent_describes_itself_and_its_machine(console: Console, capsys: pytest.CaptureFixture[str]) -> None:
    host = json.loads(console.agent.request("GET", "/v1/agent/host")[1])
    assert host["Errors"] is None and host["Memory"]["total"] > 0 and host["Disk"]["total"] > 0
    assert host["CPU"] and host["Host"]["os"] == sys.platform and host["CollectionTime"] > 0
    own = json.loads(console.agent.request("GET", "/v1/agent/self")[1])
    assert list(own) == ["Config", "DebugConfig", "Coord", "Member", "Stats", "Meta"]
    assert own["DebugConfig"]["NodeName"] == "s1" and own["DebugConfig"]["Logging"]["LogLevel"] == "INFO"
    code, shown, _ = run(capsys, "info")
    assert code == 0
    for line in ("agent:\n", "\tservices = 1\n", "\tcheck_ttls = 1\n", "build:\n", "\tserver = true\n", "runtime:\n"):
        assert line in shown
    assert run(capsys, "force-leave")[::2] == (1, "A single node name must be specified to force leave.\n")


def test_what_strangers_send_is_counted(console: Console) -> None:
    found = re.search(r" dns=127\.0\.0\.1:(\d+)", console.agent.wait_for_line("agent started"))
    assert found is not None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(b"\0" * 5, ("127.0.0.1", int(found[1])))
        host, _, port = console.agent.rpc.rpartition(":")
        with socket.create_connection((host, int(port))) as other:
            other.sendall(b"GET / HTTP/1.1\r\n\r\n" * 10)
            eventually(lambda: console.metrics()["comitia_rpc_malformed"] == 1, "the frame is counted")
        eventually(lambda: console.metrics()["comitia_dns_malformed"] == 1, "the datagram is counted")


def test_the_work_of_an_agent_is_measured(console: Console) -> None:
    before = eventually(lambda: (found := console.metrics()).get("consul_server_isLeader") == 1 and found, "it leads")
    assert before["consul_raft_state_leader"] == before["consul_raft_peers"] == before["consul_autopilot_healthy"] == 1
    for number in range(7):
        console.agent.put(f"key{number}", "value")
        console.agent.get(f"key{number}")
    after = console.metrics()
    grown = {name: value - before.get(name, 0) for name, value in after.items()}
    assert grown["consul_kvs_apply_count"] == after["consul_state_kv_entries"] == 7
    assert grown["consul_raft_apply"] >= 7 and grown["consul_rpc_query"] >= 7
    assert (
        grown["consul_raft_commitTime_count"] >= 1
        and after["consul_raft_commitTime_count"] <= after["consul_raft_apply"]
    )
    assert grown["consul_raft_leader_dispatchLog_count"] >= 1 and grown["consul_raft_leader_dispatchLog_sum"] > 0
    assert (
        before["consul_raft_applied_index"] + 7 <= after["consul_raft_applied_index"] <= after["consul_raft_last_index"]
    )
    assert after["consul_runtime_alloc_bytes"] > 1 << 20


@pytest.mark.slow
def test_agents_that_failed_are_made_to_leave(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cluster = Cluster(tmp_path, 3)
    try:
        dead = cluster.followers()[0]
        leader = cluster.agents[cluster.leader()]
        here = f"-http-addr=127.0.0.1:{leader.http_port}"

        def members() -> dict[str, int]:
            found: list[dict[str, Any]] = json.loads(leader.request("GET", "/v1/agent/members")[1])
            return {member["Name"]: member["Status"] for member in found}

        eventually(lambda: set(members()) == {"s1", "s2", "s3", "c1"}, "everybody is registered")
        code, _, told = run(capsys, "force-leave", here, "c1")
        assert (code, told) == (0, "c1 is alive, and stays a member: only it can leave\n")
        assert run(capsys, "force-leave", here, "c2")[::2] == (
            1,
            "Error force leaving: Unexpected response code: 500 (agent: No node found with name 'c2')\n",
        )
        for name in (dead, "c1"):
            cluster.agents[name].kill()
        eventually(lambda: [members()[name] for name in (dead, "c1")] == [4, 4], "they are known to have failed")

        def metrics() -> dict[str, float]:
            """By the end of their names; the gauges have the machine's in theirs."""
            text = leader.request("GET", "/v1/agent/metrics?format=prometheus")[1].decode()
            samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
            return {
                sample.name.rpartition("_raft_")[2].rpartition("_autopilot_")[2]: sample.value for sample in samples
            }

        assert (metrics()["healthy"], metrics()["failure_tolerance"]) == (0, 0)
        assert metrics()["leader_lastContact_count"] > 0 and metrics()["peers"] == 3
        for name in (dead, "c1"):
            assert run(capsys, "force-leave", here, "-prune", name) == (0, "", "")
        eventually(lambda: not {dead, "c1"} & set(members()), "they are gone")
        peers = json.loads(leader.request("GET", "/v1/operator/raft/configuration")[1])["Servers"]
        assert dead not in {peer["Node"] for peer in peers} and len(peers) == 2
        assert (metrics()["healthy"], metrics()["failure_tolerance"]) == (1, 0)
    finally:
        cluster.stop()
