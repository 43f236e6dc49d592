"""Clusters of plain processes on loopback, to be measured: Comitia's servers, and etcd's members beside them.

Both sync every write to the same file system, as by default. Started here, ended here, by their own process ids.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from model_checks.verdicts import SetupFailed

SOURCE_ROOT = Path(__file__).resolve().parents[2]
ELECTIONS = ("starting election", "stepping down")
"""How a server's log speaks of an election."""
START_DEADLINE_S = 20.0
STOP_DEADLINE_S = 5.0


def free_ports(count: int) -> list[int]:
    """Ports that were free on loopback a moment ago."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def get_json(port: int, path: str, timeout_s: float = 1.0) -> Any:
    """The JSON answer to a GET; raises OSError if there is none, or it is not JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())
    except (http.client.HTTPException, json.JSONDecodeError) as error:
        raise OSError(f"port {port}{path}: {error}") from error
    finally:
        connection.close()


class Servers(ABC):
    """Processes by number, each with a data directory and a log file of its own."""

    name = ""

    def __init__(self, count: int, directory: Path) -> None:
        self.directory = directory
        self.peer_ports = free_ports(count)
        self.client_ports = free_ports(count)
        self.processes: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def numbers(self) -> range:
        """Every server's number."""
        return range(len(self.client_ports))

    @abstractmethod
    def command(self, number: int) -> list[str]:
        """The command line of one server."""

    @abstractmethod
    def leader_seen_by(self, number: int) -> int | None:
        """The number of the server that `number` believes leads; None if it says nothing."""

    @abstractmethod
    def term(self, number: int) -> int:
        """The Raft term that the server is in. Raises OSError."""

    def start(self, number: int) -> None:
        """Start, or start again, one server on its data."""
        with (self.directory / f"{number}.log").open("ab") as log:
            self.processes[number] = subprocess.Popen(
                self.command(number), stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=SOURCE_ROOT
            )

    def kill(self, number: int) -> int:
        """kill -9; the time just before, in ns of CLOCK_MONOTONIC."""
        process = self.processes.pop(number)
        before_ns = time.monotonic_ns()
        process.send_signal(signal.SIGKILL)
        process.wait()
        return before_ns

    def wait_for_leader(self) -> int:
        """The leader, once every running server names the same one that runs. Raises SetupFailed."""
        deadline = time.monotonic() + START_DEADLINE_S
        while time.monotonic() < deadline:
            seen = {self.leader_seen_by(number) for number in self.processes}
            if len(seen) == 1:
                leader = seen.pop()
                if leader is not None and leader in self.processes:
                    return leader
            ended = [number for number, process in self.processes.items() if process.poll() is not None]
            if ended:
                raise SetupFailed(f"{self.name} server {ended[0]} ended by itself: {self.last_words(ended[0])}")
            time.sleep(0.05)
        raise SetupFailed(f"{self.name}: no agreement on a leader within {START_DEADLINE_S:g} s")

    def last_words(self, number: int) -> str:
        """The end of a server's log."""
        return (self.directory / f"{number}.log").read_text(errors="replace")[-500:]

    def lines_about_elections(self) -> list[str]:
        """What the logs say of campaigns and lost leadership, in the order of time, after the server's number."""
        found: list[tuple[str, str]] = []
        for number in self.numbers:
            lines = (self.directory / f"{number}.log").read_text(errors="replace").splitlines()
            found += [
                (line, f"server {number + 1}: {line}") for line in lines if any(words in line for words in ELECTIONS)
            ]
        return [words for _, words in sorted(found)]  # a line begins with its time

    def cpu_seconds(self) -> float:
        """CPU time that the running servers have used."""
        ticks = 0
        for process in self.processes.values():
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """End all processes, gracefully for a while."""
        for process in self.processes.values():
            process.terminate()
        deadline = time.monotonic() + STOP_DEADLINE_S
        for process in self.processes.values():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()


class ComitiaServers(Servers):
    """`comitia agent -server` with default settings, but that one address may have any number of connections: the
    generator stands for many machines.
    """

    name = "comitia"

    def __init__(self, count: int, directory: Path) -> None:
        super().__init__(count, directory)
        self.config = directory / "bench.hcl"
        self.config.write_text("limits { http_max_conns_per_client = 0 }\n")

    def command(self, number: int) -> list[str]:
        arguments = [sys.executable, "-m", "comitia", "agent", "-server", "-node", f"s{number + 1}"]
        arguments += ["-bootstrap-expect", str(len(self.peer_ports)), "-bind", "127.0.0.1"]
        arguments += ["-server-port", str(self.peer_ports[number]), "-http-port", str(self.client_ports[number])]
        arguments += ["-dns-port", "-1", "-config-file", str(self.config)]
        for other, port in enumerate(self.peer_ports):
            if other != number:
                arguments += ["-retry-join", f"127.0.0.1:{port}"]
        return [*arguments, "-data-dir", str(self.directory / f"s{number + 1}"), "-log-level", "INFO"]

    def leader_seen_by(self, number: int) -> int | None:
        try:
            address = str(get_json(self.client_ports[number], "/v1/status/leader"))
        except OSError:
            return None
        port = address.rpartition(":")[2]
        return self.peer_ports.index(int(port)) if port.isdigit() and int(port) in self.peer_ports else None

    def term(self, number: int) -> int:
        return int(get_json(self.client_ports[number], "/v1/agent/self")["Stats"]["raft"]["term"])


class EtcdServers(Servers):
    """`etcd` with default settings; gRPC on the client port."""

    name = "etcd"

    def __init__(self, count: int, directory: Path) -> None:
        if shutil.which("etcd") is None or shutil.which("etcdctl") is None:
            raise SetupFailed("--against etcd needs etcd and etcdctl in PATH (Debian: etcd-server, etcd-client)")
        super().__init__(count, directory)
        self._members: dict[int, int] = {}  # etcd's member id -> our number, learnt as members answer

    def command(self, number: int) -> list[str]:
        peers = [f"http://127.0.0.1:{port}" for port in self.peer_ports]
        client = f"http://127.0.0.1:{self.client_ports[number]}"
        cluster = ",".join(f"e{other}={peer}" for other, peer in enumerate(peers))
        return [
            *("etcd", "--name", f"e{number}", "--data-dir", str(self.directory / f"e{number}")),
            *("--listen-peer-urls", peers[number], "--initial-advertise-peer-urls", peers[number]),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--initial-cluster", cluster, "--initial-cluster-state", "new"),
        ]

    def _status(self, number: int) -> dict[str, Any]:
        endpoint = f"127.0.0.1:{self.client_ports[number]}"
        done = subprocess.run(
            ["etcdctl", "--endpoints", endpoint, "--command-timeout", "1s", "endpoint", "status", "-w", "json"],
            env={**os.environ, "ETCDCTL_API": "3"},
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            raise OSError(f"etcdctl: {done.stderr.decode(errors='replace')[-200:]}")
        status: dict[str, Any] = json.loads(done.stdout)[0]["Status"]
        return status

    def term(self, number: int) -> int:
        return int(self._status(number)["raftTerm"])

    def leader_seen_by(self, number: int) -> int | None:
        try:
            status = self._status(number)
        except OSError:
            return None
        self._members[status["header"]["member_id"]] = number
        return self._members.get(status.get("leader", 0))


@contextlib.contextmanager
def running(servers: Servers) -> Iterator[Servers]:
    """All started; ended at the end of the block, whatever happens."""
    try:
        for number in servers.numbers:
            servers.start(number)
        yield servers
    finally:
        servers.stop()
