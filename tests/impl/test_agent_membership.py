"""Members come and go, and leadership is handed over: real processes, operated by the command line and over HTTP."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.impl.agent_processes import PATIENCE_SECONDS, ROOT, AgentProcess, Cluster, eventually, paused

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

ELECTION_SECONDS_MIN = 0.3


FOUR = ["s1", "s2", "s3", "s4"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three servers that form a cluster, and a fourth that joins it. Each test leaves all four as voters."""
    running = Cluster(tmp_path_factory.mktemp("cluster"), 3)
    running.agents["c1"].put("before", "1")
    join(running, "s4")
    everybody_votes(running)
    yield running
    running.stop()


def servers(cluster: Cluster, agent: str = "c1") -> dict[str, dict[str, Any]]:
    """The configuration by node name, as the leader has it."""
    status, body = cluster.agents[agent].request("GET", "/v1/operator/raft/configuration")
    assert status == 200, body
    return {server["Node"]: server for server in json.loads(body)["Servers"]}


def voters(cluster: Cluster) -> list[str]:
    return sorted(name for name, server in servers(cluster).items() if server["Voter"])


def comitia(cluster: Cluster, *words: str, agent: str = "c1") -> tuple[int, str, str]:
    """The command, with the address of the agent in the environment: exit code, output, errors."""
    environment = {**os.environ, "CONSUL_HTTP_ADDR": f"127.0.0.1:{cluster.agents[agent].http_port}"}
    command = [sys.executable, str(ROOT / "comitia.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * PATIENCE_SECONDS, env=environment)
    return done.returncode, done.stdout, done.stderr


def operate(cluster: Cluster, method: str, target: str, agent: str = "c1") -> tuple[int, str]:
    status, body = cluster.agents[agent].request(method, f"/v1/operator/raft/{target}")
    return status, body.decode()


def join(cluster: Cluster, name: str, *flags: str) -> AgentProcess:
    """Start a server that the cluster does not know."""
    cluster.flags[name] = [
        "-server", "-node", name, "-server-port", "0", "-retry-join", cluster.agents["s1"].rpc, *flags,
    ]  # fmt: skip
    return cluster.start(name)


def everybody_votes(cluster: Cluster) -> None:
    eventually(lambda: voters(cluster) == FOUR, "four voters")


def test_a_fourth_server_that_joined_has_the_data_and_counts(cluster: Cluster) -> None:
    fourth = cluster.agents["s4"]
    assert fourth.get("before", "raw&stale") == "1"
    fourth.put("through/s4", "1")
    peers = json.loads(cluster.agents["s1"].request("GET", "/v1/status/peers")[1])
    assert fourth.rpc in peers
    assert len(peers) == 4
    eventually(lambda: len(fourth.raft()["latest_configuration"].split()) == 12, "three fields of four servers")
    assert fourth.raft()["num_peers"] == "3"


def test_the_table_of_the_members_has_consuls_columns(cluster: Cluster) -> None:
    code, table, _ = comitia(cluster, "operator", "raft", "list-peers")
    header, *rows = table.splitlines()
    assert code == 0
    assert header.split("  ")[0].strip() == "Node"
    assert header.split() == [
        "Node",
        "ID",
        "Address",
        "State",
        "Voter",
        "RaftProtocol",
        "Commit",
        "Index",
        "Trails",
        "Leader",
        "By",
    ]
    assert [row.split()[0] for row in rows] == ["s1", "s2", "s3", "s4"]
    leader = cluster.leader()
    for row in rows:
        name, _, address, state, voter, protocol, *_ = row.split()
        assert address == cluster.agents[name].rpc
        assert (state, voter, protocol) == ("leader" if name == leader else "follower", "true", "3")
    code, document, _ = comitia(cluster, "operator", "raft", "list-peers", "-format=json", "-stale")
    assert (code, {server["Node"] for server in json.loads(document)["Servers"]}) == (0, {"s1", "s2", "s3", "s4"})


def test_autopilot_says_who_is_not_well_wherever_it_is_asked(cluster: Cluster) -> None:
    def health(agent: str) -> tuple[int, dict[str, Any]]:
        status, body = cluster.agents[agent].request("GET", "/v1/operator/autopilot/health")
        return status, json.loads(body)

    def ill(agent: str) -> list[str]:
        return [server["Name"] for server in health(agent)[1]["Servers"] if not server["Healthy"]]

    eventually(lambda: health("c1")[0] == 200, "all are well")
    assert health("c1")[1]["FailureTolerance"] == 1
    leader = next(name for name, server in servers(cluster).items() if server["Leader"])
    follower, other = [name for name in FOUR if name != leader][:2]
    with paused([cluster.agents[follower]]):
        eventually(lambda: ill("c1") == [follower], "one is not well")
        status, found = health(other)
        assert (status, found["Healthy"], found["FailureTolerance"]) == (429, False, 0)
    eventually(lambda: health(other)[0] == 200, "it is well again")


def test_leadership_goes_to_the_server_that_is_named_without_an_election_timeout(cluster: Cluster) -> None:
    old = cluster.leader()
    new = next(name for name in ("s1", "s2") if name != old)
    term = int(cluster.agents[new].raft()["term"])
    assert comitia(cluster, "operator", "raft", "transfer-leader", f"-id={new}") == (0, "Success\n", "")
    eventually(lambda: cluster.leader() == new, "the new leader")
    assert int(cluster.agents[new].raft()["term"]) == term + 1
    cluster.agents[new].wait_for_line(f"{old} hands its leadership over")
    status, text = operate(cluster, "POST", f"transfer-leader?id={new}")
    assert (status, "leads already" in text) == (500, True), text


def test_a_leader_that_is_removed_is_followed_by_another_and_can_be_added_again(cluster: Cluster) -> None:
    removed = cluster.leader()
    agent = cluster.agents[removed]
    assert comitia(cluster, "operator", "raft", "remove-peer", f"-address={agent.rpc}") == (
        0,
        f'Removed peer with address "{agent.rpc}"\n',
        "",
    )
    eventually(lambda: removed not in servers(cluster), "the removal")
    cluster.agents["c1"].put("without", removed)
    agent.wait_for_line(f"add-peer -address={agent.rpc}")
    assert agent.process.poll() is None, "it lives on"
    assert comitia(cluster, "operator", "raft", "add-peer", f"-address={agent.rpc}")[0] == 0
    everybody_votes(cluster)
    assert agent.get("without", "raw&stale") == removed


def test_who_was_demoted_stays_a_non_voter_until_promoted(cluster: Cluster) -> None:
    assert comitia(cluster, "operator", "raft", "demote", "-id=s4") == (0, 'Demoted server with id "s4"\n', "")
    assert voters(cluster) == ["s1", "s2", "s3"]
    index = int(cluster.agents["s1"].raft()["latest_configuration_index"])
    time.sleep(2.5)  # longer than a leader watches a server before it promotes it
    assert int(cluster.agents["s1"].raft()["latest_configuration_index"]) == index
    assert comitia(cluster, "operator", "raft", "promote", "-id=s4")[0] == 0
    assert voters(cluster) == FOUR


def test_commands_that_name_the_wrong_server_are_refused_with_the_reason_and_change_nothing(cluster: Cluster) -> None:
    before = servers(cluster).keys(), cluster.agents["s1"].raft()["latest_configuration_index"]
    s2, s3 = cluster.agents["s2"], cluster.agents["s3"]
    for method, target, reason in (
        ("DELETE", "peer?id=s9", 'id "s9" was not found in the Raft configuration'),
        ("DELETE", "peer?address=127.0.0.1:1", 'address "127.0.0.1:1" was not found in the Raft configuration'),
        ("PUT", "promote?id=s9", 'id "s9" was not found'),
        ("PUT", "promote?id=s2", "s2 is already a voter"),
        ("PUT", f"peer?address={s2.rpc}", "s2 is already a member"),
        ("PUT", f"peer?address={s2.rpc}&id=another", f"cannot add 'another': the server at {s2.rpc} has the ID"),
        ("PUT", f"peer?address={s3.rpc}&name=s9", f"cannot add 's9': the server at {s3.rpc} is called 's3'"),
        ("PUT", "peer?address=127.0.0.1:1", "cannot add the server at 127.0.0.1:1: it cannot be reached"),
        ("POST", "transfer-leader?id=s9", 'id "s9" was not found'),
    ):
        status, text = operate(cluster, method, target)
        assert (status, reason in text) == (500, True), (target, text)
    status, text = operate(cluster, "PUT", "peer?address=no%20address")
    assert (status, "give host:port" in text) == (400, True), text
    assert before == (servers(cluster).keys(), cluster.agents["s1"].raft()["latest_configuration_index"])
    code, _, errors = comitia(cluster, "operator", "raft", "remove-peer", "-id=s9")
    assert (code, errors.startswith("Error removing peer: Unexpected response code: 500 (id")) == (1, True)


def test_a_server_of_another_cluster_cannot_be_added(cluster: Cluster, tmp_path: Path) -> None:
    stranger = AgentProcess(
        "-server", "-bootstrap-expect", "1", "-node", "x1", "-data-dir", str(tmp_path), "-server-port", "0"
    ).started()
    eventually(lambda: stranger.raft()["state"] == "Leader", "a cluster of its own")
    status, text = operate(cluster, "PUT", f"peer?address={stranger.rpc}")
    assert stranger.terminate() == 0
    assert (status, "belongs to cluster" in text) == (500, True), text
    assert "x1" not in servers(cluster)


def test_a_server_that_leaves_is_removed_and_joins_again_when_it_is_started(cluster: Cluster) -> None:
    assert comitia(cluster, "leave", agent="s4") == (0, "Graceful leave complete\n", "")
    assert cluster.agents["s4"].ended() == 0
    assert sorted(servers(cluster)) == ["s1", "s2", "s3"]
    cluster.start("s4")
    everybody_votes(cluster)
    assert not (cluster.directory / "s4" / "left").exists()


def nodes(cluster: Cluster) -> set[str]:
    """The names in the catalog."""
    return {node["Node"] for node in json.loads(cluster.agents["s1"].request("GET", "/v1/catalog/nodes")[1])}


def among_nodes(cluster: Cluster, *names: str) -> bool:
    return set(names) <= nodes(cluster)


def gone(cluster: Cluster, name: str) -> bool:
    return name not in nodes(cluster)


def test_a_server_leaves_on_a_signal_if_its_configuration_says_so(cluster: Cluster) -> None:
    file = cluster.directory / "leaves.json"
    file.write_text('{"leave_on_terminate": true}')
    fifth = join(cluster, "s5", "-config-file", str(file))
    eventually(lambda: "s5" in voters(cluster), "a fifth voter")
    assert fifth.terminate() == 0
    assert sorted(servers(cluster)) == FOUR
    fifth.wait_for_line("a signal lets this agent leave")


def test_a_second_signal_ends_a_server_that_cannot_leave(tmp_path: Path) -> None:
    file = tmp_path / "leaves.json"
    file.write_text('{"leave_on_terminate": true}')
    pair = Cluster(tmp_path, 2)
    one, other = pair.agents["s1"], pair.agents["s2"]
    one.terminate()
    leaving = pair.start("s1", *pair.flags["s1"][5:], "-config-file", str(file))
    eventually(lambda: pair.leader() and len(servers(pair)) == 2, "a cluster of two")
    other.kill()
    leaving.process.send_signal(signal.SIGTERM)
    leaving.wait_for_line("a signal lets this agent leave")
    assert leaving.process.poll() is None
    assert leaving.terminate() == 0
    leaving.wait_for_line("stopping: reason=SIGTERM")
    pair.stop()


def test_a_server_stays_a_member_when_it_is_interrupted(cluster: Cluster) -> None:
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        cluster.agents["s4"].process.send_signal(signal_number)
        assert cluster.agents["s4"].ended() == 0
        assert sorted(servers(cluster)) == FOUR
        cluster.start("s4")
    everybody_votes(cluster)


def test_a_client_agent_leaves_on_a_signal_unless_its_configuration_says_otherwise(cluster: Cluster) -> None:
    file = cluster.directory / "stays.json"
    file.write_text('{"leave_on_terminate": false, "skip_leave_on_interrupt": true}')
    join_flag = ("-retry-join", cluster.agents["s1"].rpc)
    stays = ("-config-file", str(file), *join_flag)
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        staying, leaving = (f"{name}-{signal_number.name}" for name in ("staying", "leaving"))
        one = AgentProcess("-node", staying, *stays).started()
        other = AgentProcess("-node", leaving, *join_flag).started()
        eventually(partial(among_nodes, cluster, staying, leaving), "both are registered")
        for agent in (one, other):  # the one that leaves ends last: what the first said has been heard by then
            agent.process.send_signal(signal_number)
            assert agent.ended() == 0
        eventually(partial(gone, cluster, leaving), "the one that left is gone")
        assert staying in nodes(cluster)


def test_a_leader_that_is_stopped_hands_over_first(cluster: Cluster) -> None:
    leader = cluster.leader()
    others = [name for name in FOUR if name != leader]
    started = time.monotonic()
    assert cluster.agents[leader].terminate() == 0
    assert time.monotonic() - started < 5
    eventually(lambda: cluster.leader() != leader, "a new leader")
    reasons = [line for name in others for line in cluster.agents[name].lines if "starting election" in line]
    assert any(f"{leader} hands its leadership over" in line for line in reasons)
    assert not any(f"process of leader {leader}" in line for line in reasons)
    cluster.start(leader)
    everybody_votes(cluster)


def test_a_change_that_would_lose_the_quorum_names_who_cannot_be_reached(cluster: Cluster) -> None:
    # A busy machine may not hand over in time; then it says so, and nothing has changed.
    eventually(
        lambda: operate(cluster, "POST", "transfer-leader?id=s1")[0] == 200 or cluster.leader() == "s1", "s1 leads"
    )
    assert operate(cluster, "DELETE", "peer?id=s4")[0] == 200
    leader = cluster.leader()
    killed, other = (name for name in ("s1", "s2", "s3") if name != leader)
    cluster.agents[killed].kill()

    def refused() -> bool:
        status, text = operate(cluster, "DELETE", f"peer?id={other}", agent=leader)
        assert status == 500, "it would have lost the quorum"
        return "the cluster would lose its quorum" in text and killed in text

    eventually(refused, "the leader's own view of who answers")
    assert sorted(servers(cluster, leader)) == ["s1", "s2", "s3"]
    cluster.start(killed)
    eventually(lambda: operate(cluster, "PUT", f"peer?address={cluster.agents['s4'].rpc}")[0] == 200, "s4 is back")
    everybody_votes(cluster)


def test_a_lost_data_directory_is_refused_until_the_old_server_is_removed(cluster: Cluster) -> None:
    lost = cluster.followers()[0]
    agent, node_id = cluster.agents[lost], servers(cluster)[lost]["ID"]
    agent.kill()
    shutil.rmtree(cluster.directory / lost)
    rejoin = [*cluster.flags[lost], "-data-dir", str(cluster.directory / lost)]
    others = [cluster.agents[name].rpc for name in FOUR if name != lost]
    for rpc in others:
        rejoin += ["-retry-join", rpc]
    for identity in (["-node-id", node_id], []):
        wiped = AgentProcess(*rejoin, *identity)
        assert wiped.ended() == 1
        assert f"remove-peer -id={node_id}" in wiped.lines[-1]
        assert ("data directory lost" in wiped.lines[-1]) == bool(identity), wiped.lines[-1]
        shutil.rmtree(cluster.directory / lost)
    assert operate(cluster, "DELETE", f"peer?id={node_id}")[0] == 200
    cluster.agents[lost] = AgentProcess(*rejoin).started()
    everybody_votes(cluster)
    assert servers(cluster)[lost]["ID"] != node_id
    assert cluster.agents[lost].get("before", "raw&stale") == "1"


def test_a_read_replica_is_never_promoted_by_itself(cluster: Cluster) -> None:
    replica = join(cluster, "r1", "-read-replica")
    eventually(lambda: "r1" in servers(cluster), "the addition")
    cluster.agents["c1"].put("replicated", "1")
    eventually(lambda: replica.request("GET", "/v1/kv/replicated?stale")[0] == 200, "the data")
    time.sleep(2.5)  # as above
    assert voters(cluster) == FOUR
    assert replica.terminate() == 0
    assert operate(cluster, "DELETE", "peer?id=r1")[0] == 200
