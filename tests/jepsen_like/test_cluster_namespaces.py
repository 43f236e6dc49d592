"""Clusters of real processes in real namespaces: faults do what they say, and nothing is left when a cluster ends.

The agents are stubs (stub_agent.py). Skipped, with the reason, on machines that allow no namespaces or TUN devices.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from jepsen_like.cluster import launch, observe, state
from jepsen_like.cluster.api import Cluster, ClusterFailure, ClusterSpec, LinkRule
from jepsen_like.net.addresses import address_of
from model_checks.verdicts import SetupFailed

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.xdist_group("cluster"),
    pytest.mark.usefixtures("a_machine_that_can", "home"),
]

STUB = f"{sys.executable} {Path(__file__).parent / 'stub_agent.py'}"
ROOT = Path(__file__).parents[2]
PORT = 5000


def run_with(spec: ClusterSpec, act: Callable[[Cluster], Awaitable[None]]) -> None:
    async def main() -> None:
        async with Cluster.start(spec) as cluster:
            await act(cluster)

    asyncio.run(asyncio.wait_for(main(), 60))


async def until(condition: Callable[[], Awaitable[bool]], timeout_s: float = 10.0) -> None:
    end = time.monotonic() + timeout_s
    while not await condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        await asyncio.sleep(0.01)


def servers(count: int, test_clients: int = 1) -> ClusterSpec:
    return ClusterSpec(servers=count, test_clients=test_clients, agent_command=STUB)


async def whoami(cluster: Cluster, node: str) -> bytes:
    """The stub's answer, as soon as it serves."""
    for _ in range(500):
        try:
            return (await cluster.request(node, "GET", "/whoami"))[2]
        except observe.HttpFailure:
            await asyncio.sleep(0.01)
    raise AssertionError(f"{node} does not serve")


# Links: two test clients and no agents

TWO = ClusterSpec(servers=0, test_clients=2)


class Datagrams:
    """A UDP socket in each of t1 and t2."""

    def __init__(self, sockets: dict[str, socket.socket]) -> None:
        self._sockets = sockets
        self._loop = asyncio.get_running_loop()

    async def send(self, source: str, target: str, data: bytes) -> None:
        await self._loop.sock_sendto(self._sockets[source], data, (address_of(target), PORT))

    async def receive(self, node: str, timeout_s: float = 5.0) -> bytes:
        return await asyncio.wait_for(self._loop.sock_recv(self._sockets[node], 2000), timeout_s)

    async def hears_nothing(self, node: str) -> bool:
        try:
            await self.receive(node, 0.15)
        except TimeoutError:
            return True
        return False

    async def received_of(self, count: int, batch: int = 50) -> list[bytes]:
        """What arrives at t2 of `count` numbered datagrams from t1, sent in batches that the buffers hold."""
        arrived: list[bytes] = []
        for first in range(0, count, batch):
            for number in range(first, first + batch):
                await self.send("t1", "t2", b"%06d" % number)
            while True:
                try:
                    arrived.append(await self.receive("t2", 0.02))
                except TimeoutError:
                    break
        return arrived


@asynccontextmanager
async def datagrams(cluster: Cluster) -> AsyncIterator[Datagrams]:
    sockets = {}
    for node in ("t1", "t2"):
        sockets[node] = await cluster.socket(node, datagram=True)
        sockets[node].bind((address_of(node), PORT))
    try:
        yield Datagrams(sockets)
    finally:
        for each in sockets.values():
            each.close()


def test_a_one_way_cut_is_a_black_hole_in_one_direction_and_healing_restores_it() -> None:
    async def act(cluster: Cluster) -> None:
        async with datagrams(cluster) as udp:
            start_ns, end_ns = await cluster.cut("t1", "t2", one_way=True)
            assert 0 < end_ns - start_ns < 1_000_000_000
            await udp.send("t1", "t2", b"lost")
            await udp.send("t2", "t1", b"arrives")
            assert await udp.receive("t1") == b"arrives"
            assert await udp.hears_nothing("t2")
            await cluster.heal()
            await udp.send("t1", "t2", b"again")
            assert await udp.receive("t2") == b"again"

    run_with(TWO, act)


def test_delay_is_what_the_rule_says() -> None:
    async def round_trip_ms(udp: Datagrams) -> float:
        before = time.monotonic_ns()
        await udp.send("t1", "t2", b"ping")
        await udp.receive("t2")
        await udp.send("t2", "t1", b"pong")
        await udp.receive("t1")
        return (time.monotonic_ns() - before) / 1e6

    async def act(cluster: Cluster) -> None:
        async with datagrams(cluster) as udp:
            assert min([await round_trip_ms(udp) for _ in range(10)]) < 60  # the machine may be busy
            await cluster.shape("t1", "t2", LinkRule(delay_ms=60.0))
            assert 120 <= min([await round_trip_ms(udp) for _ in range(5)]) < 240
            await cluster.heal_links([("t2", "t1")])
            assert 60 <= min([await round_trip_ms(udp) for _ in range(5)]) < 120
            await cluster.heal()
            await cluster.shape("t2", "t1", LinkRule(delay_ms=60.0), one_way=True)
            assert 60 <= min([await round_trip_ms(udp) for _ in range(5)]) < 120

    run_with(TWO, act)


def test_loss_duplication_reordering_and_corruption_reach_the_application() -> None:
    async def act(cluster: Cluster) -> None:
        async with datagrams(cluster) as udp:
            await cluster.shape("t1", "t2", LinkRule(loss=0.3))
            assert 620 <= len(await udp.received_of(1000)) <= 780  # five standard deviations
            await cluster.shape("t1", "t2", LinkRule(duplicate=1.0))
            assert await udp.received_of(50) == [b"%06d" % (n // 2) for n in range(100)]
            await cluster.shape("t1", "t2", LinkRule(reorder=0.3, reorder_ms=5.0))
            arrived = await udp.received_of(50)
            assert arrived != sorted(arrived)
            assert len(arrived) == 50
            await cluster.shape("t1", "t2", LinkRule(corrupt=1.0))
            assert await udp.received_of(50) == [], "the kernel must drop what has a wrong checksum"
            await cluster.shape("t1", "t2", LinkRule(corrupt_unseen=1.0))
            arrived = await udp.received_of(50)
            assert len(arrived) == 50
            assert all(data != b"%06d" % n for n, data in enumerate(arrived)), "every datagram has a flipped bit"

    run_with(TWO, act)


def test_a_connection_over_a_cut_link_hangs_and_completes_when_it_is_healed() -> None:
    async def act(cluster: Cluster) -> None:
        await whoami(cluster, "s1")
        await cluster.partition([["t1"], ["s1"]])
        with pytest.raises(TimeoutError):
            await cluster.connect("t1", "s1", timeout_s=0.3)
        pending = asyncio.create_task(cluster.connect("t1", "s1", timeout_s=10))
        link = {(each.source, each.target): each.counters for each in (await cluster.world()).links}
        assert link["t1", "s1"].cut >= 1
        assert ("s1", "t1") not in link or link["s1", "t1"].packets == 0
        await asyncio.sleep(0)
        await cluster.heal()
        connection = await pending
        assert connection.getsockname()[0] == address_of("t1")
        status, _, body = await observe.http_request(connection, "s1", "GET", "/whoami")
        assert status == 200
        assert b'"from": "10.77.0.201"' in body, "a test client's traffic comes from its own address"

    run_with(servers(1), act)


def test_without_a_tun_device_cables_do_the_same() -> None:
    """The tests of links above, on a machine without /dev/net/tun."""
    if os.geteuid() != 0:
        pytest.skip("only root can hide a device")
    these = "one_way_cut or delay or corruption or healed"
    pytest_words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", these, __file__]
    hidden = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /dev/net && exec "$@"', "sh", *pytest_words]
    done = subprocess.run(hidden, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert "4 passed" in done.stdout, done.stdout + done.stderr


# Processes


def test_a_killed_agent_is_gone_when_it_is_acknowledged_and_comes_back_on_restart() -> None:
    async def act(cluster: Cluster) -> None:
        await whoami(cluster, "s2")
        interval = await cluster.kill("s2")
        assert interval.start_ns < interval.end_ns
        with pytest.raises(ConnectionRefusedError):
            await cluster.connect("t1", "s2", timeout_s=5)
        with pytest.raises(ClusterFailure, match="s2 is not running"):
            await cluster.kill("s2")
        await cluster.restart("s2")
        await whoami(cluster, "s2")
        node = next(each for each in (await cluster.world()).nodes if each.name == "s2")
        assert (node.state, node.starts) == ("running", 2)
        assert await cluster.unexpected_exits() == []

    run_with(servers(2), act)


def test_an_agent_that_ends_by_itself_is_reported_with_its_status() -> None:
    async def act(cluster: Cluster) -> None:
        await whoami(cluster, "s2")
        with pytest.raises(observe.HttpFailure):
            await cluster.request("s2", "PUT", "/v1/exit?3")

        async def reported() -> bool:
            return [(each.node, each.status) for each in await cluster.unexpected_exits()] == [("s2", 3)]

        await until(reported)

    run_with(servers(2), act)


def test_a_paused_agent_accepts_connections_and_answers_nothing_until_resumed() -> None:
    async def act(cluster: Cluster) -> None:
        await whoami(cluster, "s1")
        await cluster.pause("s1")
        with pytest.raises(observe.HttpFailure, match="timed out"):
            await cluster.request("s1", "GET", "/whoami", timeout_s=0.3)
        assert (await cluster.world()).nodes[0].state == "paused"
        with pytest.raises(ClusterFailure, match="paused already"):
            await cluster.pause("s1")
        await cluster.resume("s1")
        assert await whoami(cluster, "s1")
        with pytest.raises(ClusterFailure, match="not paused"):
            await cluster.resume("s1")

    run_with(servers(1), act)


def test_a_stopped_agent_ends_by_itself_even_when_it_was_paused() -> None:
    async def act(cluster: Cluster) -> None:
        await whoami(cluster, "s1")
        await cluster.pause("s1")
        await cluster.stop("s1")
        exits = (await cluster.world()).exits
        assert [(each.status, each.expected) for each in exits] == [(0, True)]

    run_with(servers(1), act)


def test_agents_get_consuls_flags_and_a_log_each(tmp_path: Path) -> None:
    spec = ClusterSpec(
        servers=2, clients=1, agent_command=STUB, log_dir=tmp_path / "logs", trace_dir=tmp_path / "traces"
    )

    async def act(cluster: Cluster) -> None:
        await asyncio.gather(*(whoami(cluster, node) for node in cluster.agents))

    run_with(spec, act)
    words = (tmp_path / "logs" / "s1.log").read_text().splitlines()[0]
    for expected in (
        "'-server', '-bootstrap-expect', '2'",
        "'-bind', '10.77.0.1'",
        "'-retry-join', '10.77.0.2'",
        "'-trace'",
    ):
        assert expected in words
    client = (tmp_path / "logs" / "c1.log").read_text().splitlines()[0]
    assert "-server" not in client
    assert "'-retry-join', '10.77.0.1', '-retry-join', '10.77.0.2'" in client


def test_an_agent_command_that_does_not_exist_is_named() -> None:
    with pytest.raises(SetupFailed, match="cannot start /no/such/agent"):
        launch.launch(ClusterSpec(servers=1, agent_command="/no/such/agent"), attached=True)


def test_unknown_nodes_and_impossible_rules_are_refused_by_name() -> None:
    async def act(cluster: Cluster) -> None:
        for attempt in (
            cluster.cut("t1", "s7"),
            cluster.partition([["t1"], ["s7"]]),
            cluster.kill("s7"),
            cluster.socket("s7"),
        ):
            with pytest.raises(ClusterFailure, match=r"no node is called 's7'; there are t1, t2"):
                await attempt
        with pytest.raises(ClusterFailure, match="t1 runs no agent"):
            await cluster.pause("t1")
        with pytest.raises(ClusterFailure, match="loss is a probability"):
            await cluster.shape("t1", "t2", LinkRule(loss=2))

    run_with(TWO, act)


def test_a_published_port_reaches_the_agent_past_all_cuts_and_is_refused_when_it_is_down() -> None:
    async def act(cluster: Cluster) -> None:
        await whoami(cluster, "s1")
        host, _, port = str((await cluster.world()).nodes[0].published).partition(":")

        async def from_host(method: str = "GET", body: bytes = b"") -> bytes:
            reader, writer = await asyncio.open_connection(host, int(port))
            head = f"{method} /whoami HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)  # arrives before the relay has reached the agent
            try:
                return await reader.read()
            finally:
                writer.close()

        await cluster.partition([["s1"], ["t1"]])
        assert b'"node": "s1"' in await from_host()
        assert (await from_host("PUT", bytes(3_000_000))).endswith(b"true")
        await cluster.kill("s1")
        with pytest.raises(ConnectionResetError):
            await from_host()

    run_with(ClusterSpec(servers=1, test_clients=1, agent_command=STUB, publish=True), act)


@pytest.fixture
def readable_to_all() -> Iterator[Path]:
    """A directory that any user may enter, unlike pytest's own, with the stub in it."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        yield Path(shutil.copy(Path(__file__).parent / "stub_agent.py", directory)).parent


def test_agents_run_as_the_user_who_called_sudo(readable_to_all: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = shutil.which("python3", path="/usr/bin:/bin")  # the present one may lie where `nobody` may not go
    if os.geteuid() != 0 or python is None:
        pytest.skip("only root can give up being root, and an interpreter for everybody is needed")
    monkeypatch.setenv("SUDO_UID", "65534")
    monkeypatch.setenv("SUDO_GID", "65534")
    monkeypatch.setenv("COMITIA_HOME", str(readable_to_all))
    monkeypatch.chdir(readable_to_all)

    async def act(cluster: Cluster) -> None:
        assert b'"uid": 65534' in await whoami(cluster, "s1")
        for theirs in ("data/s1", "logs/s1.log", "lock", "control.sock", "."):
            assert (cluster.directory / theirs).stat().st_uid == 65534, theirs

    run_with(ClusterSpec(servers=1, agent_command=f"{python} stub_agent.py"), act)


# What is left


def namespaces_of(pid: int) -> set[str]:
    """The links of a process's namespaces and of those that it holds open, as `net:[4026531840]`."""
    found = set()
    for folder in ("ns", "fd"):
        try:
            names = os.listdir(f"/proc/{pid}/{folder}")
        except FileNotFoundError:  # it has ended meanwhile
            continue
        for name in names:
            try:
                found.add(os.readlink(f"/proc/{pid}/{folder}/{name}"))
            except OSError:
                continue
    return {link for link in found if re.fullmatch(r"(net|mnt|pid|user):\[\d+\]", link)}


def namespaces_of_cluster(directory: Path) -> set[str]:
    """Those of the supervisor and of all its processes, without ours."""
    supervisor = state.load(directory).supervisor_pid
    inside = os.readlink(f"/proc/{supervisor}/ns/pid")
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    found: set[str] = set()
    for pid in pids:
        of_process = namespaces_of(pid)
        if inside in of_process and pid != os.getpid():
            found |= of_process
    return found - namespaces_of(os.getpid())


def left_behind(namespaces: set[str]) -> list[str]:
    """Every process of the host that is in one of these namespaces or holds it open."""
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return sorted(f"{pid} in {each}" for pid in pids for each in namespaces_of(pid) & namespaces)


def host_side() -> tuple[list[str], list[str]]:
    """Interfaces and mounts of the host."""
    mounts = [line.split(" ", 3)[3] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return sorted(os.listdir("/sys/class/net")), sorted(mounts)


def wait_until_nothing_is_left(namespaces: set[str], timeout_s: float = 10.0) -> None:
    end = time.monotonic() + timeout_s
    while left := left_behind(namespaces):
        assert time.monotonic() < end, f"left behind: {left}"
        time.sleep(0.01)


RUNNER = """
import asyncio, sys
from jepsen_like.cluster.api import Cluster, ClusterSpec

async def main():
    async with Cluster.start(ClusterSpec(servers=3, test_clients=1, name="run", agent_command=sys.argv[1])) as cluster:
        await cluster.wait_for_leader()
        connection = await cluster.connect("t1", "s1")
        await cluster.partition([["s1"], ["s2", "s3"]])
        print("partitioned", flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.fixture
def runner(home: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that owns a cluster and has just partitioned it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", RUNNER, STUB], stdout=subprocess.PIPE, text=True, env=environment
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "partitioned\n"
        yield owner
        owner.kill()


def test_when_the_runner_is_killed_during_a_partition_nothing_is_left(
    runner: subprocess.Popen[str], home: Path
) -> None:
    before = host_side()
    namespaces = namespaces_of_cluster(home / "clusters" / "run")
    assert len([each for each in namespaces if each.startswith("net:")]) == 5, "four nodes and the supervisor's own"
    assert left_behind(namespaces)
    runner.send_signal(signal.SIGKILL)
    runner.wait()
    wait_until_nothing_is_left(namespaces)
    assert host_side() == before
    assert not state.is_alive(home / "clusters" / "run")


def test_when_the_supervisor_is_killed_nothing_is_left_and_the_owner_is_told(home: Path) -> None:
    before = host_side()
    namespaces: set[str] = set()

    async def act(cluster: Cluster) -> None:
        await whoami(cluster, "s1")
        namespaces.update(namespaces_of_cluster(cluster.directory))
        assert left_behind(namespaces)
        await cluster.partition([["s1"], ["s2"]])
        os.kill(state.load(cluster.directory).supervisor_pid, signal.SIGKILL)
        with pytest.raises(ClusterFailure, match="supervisor is gone"):
            for _ in range(1000):
                await cluster.world()
                await asyncio.sleep(0.01)

    run_with(servers(2), act)
    wait_until_nothing_is_left(namespaces)
    assert host_side() == before


def test_when_the_switch_is_killed_the_cluster_ends_and_says_why(home: Path) -> None:
    async def act(cluster: Cluster) -> None:
        inside = os.readlink(f"/proc/{state.load(cluster.directory).supervisor_pid}/ns/pid")
        everyone = [path for path in Path("/proc").glob("[0-9]*") if inside in namespaces_of(int(path.name))]
        switches = [
            path for path in everyone if re.search(r"^NSpid:.*\s2$", (path / "status").read_text(), re.MULTILINE)
        ]
        assert len(switches) == 1, "the supervisor's first child"
        os.kill(int(switches[0].name), signal.SIGKILL)
        with pytest.raises(ClusterFailure, match=r"supervisor is gone|switch has died"):
            for _ in range(1000):
                await cluster.world()
                await asyncio.sleep(0.01)

    run_with(ClusterSpec(servers=0, test_clients=2, log_dir=home / "logs"), act)
    assert "the switch has died" in (home / "logs" / "supervisor.log").read_text()


def test_a_process_in_a_namespace_of_the_cluster_would_be_noticed() -> None:
    with subprocess.Popen(
        ["unshare", "--net", "--", "sh", "-c", "echo ready; exec sleep 60"], stdout=subprocess.PIPE
    ) as left:
        assert left.stdout is not None
        assert left.stdout.readline() == b"ready\n"
        with pytest.raises(AssertionError, match=f"left behind: .*{left.pid}"):
            wait_until_nothing_is_left({os.readlink(f"/proc/{left.pid}/ns/net")}, timeout_s=0.05)
        left.kill()


def test_a_cluster_without_a_lifeline_outlives_its_starter_until_it_is_shut_down(home: Path) -> None:
    script = (
        "from jepsen_like.cluster import launch, spec\n"
        f"launch.launch(spec.ClusterSpec(servers=1, name='stays', agent_command={STUB!r}), attached=False)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    directory = home / "clusters" / "stays"
    assert state.is_alive(directory)
    namespaces = namespaces_of_cluster(directory)

    async def look_and_end() -> None:
        cluster = await Cluster.attach("stays")
        assert await cluster.wait_for_leader() == "s1"
        await cluster.shut_down()

    asyncio.run(look_and_end())
    wait_until_nothing_is_left(namespaces)
    assert not state.is_alive(directory)


def test_an_error_in_the_test_itself_leaves_nothing_either(home: Path) -> None:
    namespaces: set[str] = set()

    async def act(cluster: Cluster) -> None:
        namespaces.update(namespaces_of_cluster(cluster.directory))
        raise RuntimeError("the test went wrong")

    with pytest.raises(RuntimeError, match="the test went wrong"):
        run_with(servers(1), act)
    wait_until_nothing_is_left(namespaces)
    assert state.names() == []


def test_two_clusters_side_by_side_have_the_same_ports_and_separate_faults() -> None:
    async def main() -> None:
        async with Cluster.start(servers(2)) as one, Cluster.start(servers(2)) as two:
            assert one.directory != two.directory
            await asyncio.gather(*(whoami(cluster, node) for cluster in (one, two) for node in ("s1", "s2")))
            await one.cut("t1", "s1")
            with pytest.raises(TimeoutError):
                await one.connect("t1", "s1", timeout_s=0.3)
            (await two.connect("t1", "s1", timeout_s=5)).close()
            await two.kill("s2")
            assert [node.state for node in (await one.world()).nodes] == ["running", "running", "none"]

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_name_is_taken_while_its_cluster_lives() -> None:
    async def act(_: Cluster) -> None:
        with pytest.raises(ClusterFailure, match="'twice' is running already"):
            await asyncio.to_thread(launch.launch, ClusterSpec(servers=1, name="twice"), attached=True)

    run_with(ClusterSpec(servers=0, test_clients=1, name="twice"), act)
