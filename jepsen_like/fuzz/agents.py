"""The agents that are fuzzed: processes on loopback, and what the kernel says they use.

One `-dev` server, or servers that form a cluster and a client agent that is asked in their stead. Nothing is kept.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from jepsen_like.cluster.spec import SOURCE_ROOT, agent_prefix
from model_checks.verdicts import SetupFailed

START_DEADLINE_S = 30.0
_STARTED = re.compile(r"agent started: .*?http=\S+:(\d+)(?: .*?rpc=(\S+))?")


class Usage(msgspec.Struct, frozen=True):
    """What a process holds."""

    resident_kib: int
    files: int
    """Open file descriptors: connections are among them."""
    threads: int
    tasks: int
    """As the agent counts them in `Stats.runtime`."""


class AgentUnderTest:
    """One agent process. Its log is a file in the directory."""

    def __init__(self, name: str, directory: Path, prefix: tuple[str, ...], *flags: str) -> None:
        self.name = name
        self._log = directory / f"{name}.log"
        command = [*prefix, "-node", name, "-http-port", "0", "-dns-port", "-1", *flags]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=SOURCE_ROOT, start_new_session=True
            )
        self.port, self.rpc = 0, ""

    def wait_until_started(self) -> None:
        """Until it says where it listens. Raises SetupFailed."""
        deadline = time.monotonic() + START_DEADLINE_S
        while (found := _STARTED.search(self.log())) is None:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SetupFailed(f"agent {self.name} did not start: {self.log()[-500:]}")
            time.sleep(0.02)
        self.port, self.rpc = int(found[1]), found[2] or ""

    def log(self) -> str:
        """Everything that it logged."""
        return self._log.read_text(errors="replace")

    def get(self, path: str) -> Any:
        """The JSON answer to a GET. Raises OSError."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())
        except (http.client.HTTPException, ValueError) as error:
            raise OSError(f"{path}: {error}") from error
        finally:
            connection.close()

    def usage(self) -> Usage:
        """What it holds now. Raises OSError: it has ended."""
        directory = Path(f"/proc/{self.process.pid}")
        status = dict(line.split(":", 1) for line in (directory / "status").read_text().splitlines())
        tasks = int(self.get("/v1/agent/self")["Stats"].get("runtime", {}).get("goroutines", 0))
        resident, threads = int(status["VmRSS"].split()[0]), int(status["Threads"])
        return Usage(resident, len(os.listdir(directory / "fd")), threads, tasks)

    def end(self) -> None:
        """A signal, and SIGKILL if that does not help."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@contextlib.contextmanager
def running(servers: int, agent_command: str | None) -> Iterator[AgentUnderTest]:
    """The agent to ask: a `-dev` server for 0 servers, else a client agent of so many. Raises SetupFailed."""
    prefix = agent_prefix(agent_command)
    started: list[AgentUnderTest] = []
    with tempfile.TemporaryDirectory(prefix="comitia-fuzz-") as name:
        directory = Path(name)

        def start(node: str, *flags: str) -> AgentUnderTest:
            agent = AgentUnderTest(node, directory, prefix, *flags)
            started.append(agent)
            agent.wait_until_started()
            return agent

        try:
            if servers == 0:
                asked = start("dev", "-dev", "-server-port", "0")
            else:
                expect = ["-server", "-bootstrap-expect", str(servers), "-server-port", "0"]
                first = start("s1", *expect, "-data-dir", str(directory / "s1"))
                for number in range(2, servers + 1):
                    node = f"s{number}"
                    start(node, *expect, "-data-dir", str(directory / node), "-retry-join", first.rpc)
                asked = start("c1", "-retry-join", first.rpc)
            _wait_until_registered(asked)
            yield asked
        finally:
            for agent in reversed(started):
                agent.end()


def _wait_until_registered(agent: AgentUnderTest) -> None:
    """Sessions need the agent's node in the catalog."""
    deadline = time.monotonic() + START_DEADLINE_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if agent.get(f"/v1/health/node/{agent.name}"):
                return
        time.sleep(0.05)
    raise SetupFailed(f"agent {agent.name} was not registered within {START_DEADLINE_S:g} s: {agent.log()[-500:]}")
