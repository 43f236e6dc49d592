"""Snapshots and outage recovery over real processes, sockets and disks; what they did is judged by conformance."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.impl.agent_processes import AgentProcess, eventually, judged, run_to_end

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

NAMES = ("s1", "s2", "s3")
SMALL = ("-raft-snapshot-threshold", "100", "-raft-snapshot-interval", "200ms", "-raft-trailing-logs", "20")


class Servers:
    """Three servers that take a snapshot every hundred entries."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.agents: dict[str, AgentProcess] = {}
        self.ports: dict[str, str] = {}
        for name in NAMES:
            self.start(name)
        self.leader()

    def flags(self, name: str) -> list[str]:
        join = [f"127.0.0.1:{port}" for other, port in self.ports.items() if other != name][:1]
        flags = ["-server", "-bootstrap-expect", "3", "-node", name, "-data-dir", str(self.directory / name), *SMALL]
        flags += ["-server-port", self.ports.get(name, "0"), "-trace", str(self.directory / "trace")]
        return [*flags, *(["-retry-join", *join] if join else [])]

    def start(self, name: str) -> AgentProcess:
        agent = self.agents[name] = AgentProcess(*self.flags(name)).started()
        self.ports[name] = agent.rpc.rpartition(":")[2]
        return agent

    def leader(self) -> str:
        living = [agent for agent in self.agents.values() if agent.process.poll() is None]
        return str(eventually(lambda: {agent.raft()["leader"] for agent in living}.pop() or None, "a leader"))

    def stats(self, name: str) -> dict[str, Any]:
        stats: dict[str, Any] = json.loads(self.agents[name].request("GET", "/v1/agent/self")[1])["Stats"]
        return stats

    def raft_directory(self, name: str) -> Path:
        return self.directory / name / "raft"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    servers = Servers(tmp_path_factory.mktemp("snapshots"))
    yield servers
    for agent in servers.agents.values():
        if agent.process.poll() is None:
            agent.kill()


def fill(agent: AgentProcess, first: int, count: int) -> None:
    for number in range(first, first + count):
        agent.put(f"key/{number % 150:03d}", f"value {number}")


def test_a_server_that_was_away_for_longer_than_the_log_reaches_gets_the_leaders_snapshot(servers: Servers) -> None:
    leader = servers.leader()
    away = next(name for name in NAMES if name != leader)
    fill(servers.agents[leader], 0, 150)
    servers.agents[away].kill()
    fill(servers.agents[leader], 150, 300)
    eventually(lambda: int(servers.stats(leader)["raft"]["last_snapshot_index"]) > 300, "a snapshot")
    term = servers.stats(leader)["raft"]["term"]
    servers.start(away)
    target = int(servers.stats(leader)["raft"]["applied_index"])
    eventually(lambda: int(servers.stats(away)["raft"]["applied_index"]) >= target, f"{away} catches up")
    counters = servers.stats(away)["snapshots"]
    assert (counters["received"], counters["restored"], counters["refused_chunks"]) == (1, 1, 0)
    assert servers.stats(leader)["raft"]["term"] == term, "no election"
    for number in (0, 149):
        assert servers.agents[away].get(f"key/{number:03d}", "raw&stale") == f"value {300 + number}"


def test_servers_start_again_from_their_snapshots(servers: Servers) -> None:
    for name in NAMES:
        servers.agents[name].kill()
    for name in NAMES:
        servers.start(name)
    leader = servers.leader()
    assert servers.agents[leader].get("key/149") == "value 449"
    fill(servers.agents[leader], 450, 150)

    def only_two(name: str) -> bool:
        """After a new one; a third one is there until the newest one's marker is durable."""
        files = servers.raft_directory(name).glob("snapshots/*.snap")
        indexes = [int(file.name.split("-")[0]) for file in files]
        return len(indexes) <= 2 and max(indexes) > 500

    eventually(lambda: all(map(only_two, NAMES)), "old snapshots are removed")


def test_what_the_servers_did_is_what_the_spec_allows(servers: Servers) -> None:
    told = judged(servers.directory / "trace", servers.agents.values())
    assert '"restore_snapshot"' in told


def test_a_server_whose_snapshot_is_damaged_refuses_to_start_and_names_it(servers: Servers) -> None:
    leader = servers.leader()
    victim = next(name for name in NAMES if name != leader)
    eventually(lambda: servers.agents[victim].terminate() == 0, "it stops")
    kept: dict[Path, bytes] = {path: path.read_bytes() for path in servers.raft_directory(victim).glob("snapshots/*")}
    for path, content in kept.items():
        path.write_bytes(content[:-40] + bytes([content[-40] ^ 1]) + content[-39:])
    code, line = run_to_end(*servers.flags(victim))
    assert code == 1
    assert "corrupt snapshot" in line
    assert str(servers.raft_directory(victim) / "snapshots") in line
    for path in kept:
        path.unlink()
    code, line = run_to_end(*servers.flags(victim))
    assert code == 1
    assert ".snap is missing: everything up to entry" in line
    for path, content in kept.items():
        path.write_bytes(content)
    servers.start(victim)
    eventually(lambda: servers.stats(victim)["raft"]["leader"], "it follows again")


def test_a_server_that_lost_the_others_for_good_leads_alone_after_peers_json(servers: Servers) -> None:
    survivor = servers.leader()
    node_id = json.loads((servers.directory / survivor / "identity.json").read_text())["node_id"]
    servers.agents[survivor].put("last", "word")
    for name in NAMES:
        servers.agents[name].kill()
    peers = servers.raft_directory(survivor) / "peers.json"
    peers.write_text('[{"id": "someone", "address": "127.0.0.1:8300"}]')
    code, line = run_to_end(*servers.flags(survivor))
    assert code == 1
    assert "'someone' is no member of the cluster" in line
    assert "It should look like" in line
    peers.write_text(json.dumps([{"id": node_id, "address": f"127.0.0.1:{servers.ports[survivor]}"}]))
    agent = servers.start(survivor)
    eventually(lambda: agent.raft()["state"] == "Leader", "it leads alone")
    assert agent.get("last") == "word"
    assert agent.get("key/149") == "value 599"
    assert not peers.exists()
    assert json.loads(agent.request("GET", "/v1/operator/raft/configuration")[1])["Servers"][0]["Node"] == survivor
