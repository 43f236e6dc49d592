"""Agents as processes, for tests: started, spoken to over HTTP, ended by signals; and clusters of them on loopback."""

from __future__ import annotations

import atexit
import contextlib
import http.client
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 40.0
STARTED = re.compile(r"agent started: node=(\S+) http=(\S+):(\d+) .*?(?:rpc=(\S+))?(?: |$)")


_started: list[subprocess.Popen[str]] = []


@atexit.register
def _end_everybody() -> None:
    """A test that failed may have left agents behind."""
    for process in _started:
        if process.poll() is None:
            process.kill()


class AgentProcess:
    """One `comitia agent`, without DNS unless the flags ask for it; its log is read until it has started."""

    def __init__(self, *flags: str, command: Sequence[str] = ()) -> None:
        """`command`: how to start an agent, if not `comitia agent`."""
        start = command or [sys.executable, str(ROOT / "comitia.py"), "agent"]
        command = [*start, "-http-port", "0", "-dns-port", "-1", *flags]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        _started.append(self.process)
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                self.lines.append(line)
                self._news.notify_all()

    def wait_for_line(self, text: str) -> str:
        """The first line of the log that contains `text`."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        with self._news:
            while True:
                for line in self.lines:
                    if text in line:
                        return line
                left = deadline - time.monotonic()
                assert left > 0, f"no line with {text!r} in:\n{''.join(self.lines)}"
                assert self._reader.is_alive() or not self._news.wait(0), f"ended:\n{''.join(self.lines)}"
                self._news.wait(min(left, 0.2))

    def started(self) -> AgentProcess:
        found = STARTED.search(self.wait_for_line("agent started"))
        assert found is not None
        self.http_host, self.http_port = found[2], int(found[3])
        rpc = re.search(r" rpc=(\S+)", found.string)
        self.rpc = rpc[1] if rpc else ""
        return self

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        timeout: float = 15.0,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.http_host, self.http_port, timeout=timeout)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            self.headers = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, answer.read()

    def put(self, key: str, value: str) -> None:
        status, answer = self.request("PUT", f"/v1/kv/{key}", value.encode())
        assert (status, answer.strip()) == (200, b"true")

    def get(self, key: str, query: str = "raw&consistent") -> str:
        status, body = self.request("GET", f"/v1/kv/{key}?{query}")
        assert status == 200, body
        return body.decode()

    def raft(self) -> dict[str, Any]:
        stats = json.loads(self.request("GET", "/v1/agent/self")[1])["Stats"]
        raft: dict[str, Any] = stats["raft"]
        return raft

    def kill(self) -> None:
        self.process.kill()
        self.ended()

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.ended()

    def ended(self) -> int:
        """Wait for its end: the exit code."""
        code = self.process.wait(PATIENCE_SECONDS)
        self._reader.join(PATIENCE_SECONDS)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code


@contextlib.contextmanager
def paused(agents: Iterable[AgentProcess]) -> Iterator[None]:
    """Stand still, so that their traces do not grow while they are read: that may be UNKNOWN."""
    living = [agent.process for agent in agents if agent.process.poll() is None]
    for process in living:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in living:
            process.send_signal(signal.SIGCONT)


def judged(directory: Path, agents: Iterable[AgentProcess]) -> str:
    """What conformance says of the traces of these agents, which must be VALID."""
    command = [sys.executable, str(ROOT / "comitia.py"), "check", "trace", str(directory), "--json"]
    with paused(agents):
        done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    verdict = json.loads(done.stdout or "{}")
    assert done.returncode == 0, f"{verdict.get('reason')}\n{verdict.get('details')}\n{done.stderr[-1000:]}"
    return done.stdout


def eventually(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if value := condition():
                return value
        time.sleep(0.02)
    raise AssertionError(f"not within {PATIENCE_SECONDS} s: {what}")


def run_to_end(*flags: str) -> tuple[int, str]:
    """An agent that is expected to refuse to start: exit code and its last line."""
    agent = AgentProcess(*flags)
    return agent.ended(), agent.lines[-1]


class Cluster:
    """Servers s1 to sN that only know s1's address, and a client agent that knows only the last server's."""

    def __init__(self, directory: Path, servers: int) -> None:
        self.directory = directory
        self.servers = servers
        self.agents: dict[str, AgentProcess] = {}
        self.flags: dict[str, list[str]] = {}
        first = self.start("s1", "-server-port", "0")
        for number in range(2, servers + 1):
            self.start(f"s{number}", "-server-port", "0", "-retry-join", first.rpc)
        last = self.agents[f"s{servers}"].rpc
        self.agents["c1"] = AgentProcess("-node", "c1", "-retry-join", last).started()
        self.leader()

    def start(self, name: str, *more: str) -> AgentProcess:
        if more:
            self.flags[name] = ["-server", "-bootstrap-expect", str(self.servers), "-node", name, *more]
        directories = ["-data-dir", str(self.directory / name), "-trace", str(self.directory / "trace")]
        agent = self.agents[name] = AgentProcess(*directories, *self.flags[name]).started()
        flags = self.flags[name]
        flags[flags.index("-server-port") + 1] = agent.rpc.rpartition(":")[2]  # it keeps its port when started again
        return agent

    def leader(self) -> str:
        def find() -> str | None:
            for name, agent in self.agents.items():
                if name.startswith("s") and agent.process.poll() is None and agent.raft()["state"] == "Leader":
                    return name
            return None

        found = eventually(find, "a leader")
        assert isinstance(found, str)
        return found

    def followers(self) -> list[str]:
        leader = self.leader()
        return [name for name in sorted(self.agents) if name.startswith("s") and name != leader]

    def stop(self) -> None:
        for agent in self.agents.values():
            if agent.process.poll() is None:
                agent.kill()
