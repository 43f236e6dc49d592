"""Real HAProxy balances over what an agent's DNS says: registrations, health and weights reach its clients' requests.

Source: HashiCorp, "Load balancing with HAProxy service discovery" (`server-template` with SRV records).
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.impl.agent_processes import PATIENCE_SECONDS, ROOT, AgentProcess, eventually

HAPROXY = shutil.which("haproxy")
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.xdist_group("cluster"),
    pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed (Debian: haproxy)"),
]
CONFIGURATION = """
global
    stats socket {directory}/admin mode 600 level admin
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
resolvers consul
    nameserver agent 127.0.0.1:{dns}
    accepted_payload_size 8192
    timeout resolve 200ms
    timeout retry 200ms
    hold valid 200ms
    hold obsolete 200ms
frontend clients
    bind fd@{listener}
    default_backend web
backend web
    balance roundrobin
    server-template web 5 _web._tcp.service.consul resolvers consul resolve-prefer ipv4 init-addr none
"""
"""HAProxy checks nobody itself: who gets requests is what DNS says."""
CLOSED = 0x3F
"""Bits of a server's administrative state that keep requests from it; another says that its name came by SRV."""
WRONG_AGENT = """
import sys
sys.path.insert(0, {root!r})
import comitia
from tests.mutants.replacement import replace
replace({target!r}, lambda original: {mutant})
comitia.main(["agent", *sys.argv[1:]])
"""


class Backend:
    """An HTTP server that answers with its name; `healthy` is what it says to health checks alone."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.healthy = True
        backend = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                is_check = self.path == "/health"
                self.send_response(503 if is_check and not backend.healthy else 200)
                self.end_headers()
                self.wfile.write(b"" if is_check else backend.name.encode())

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Balanced:
    """An agent, HAProxy that asks it, and backends a, b and c, none of them registered."""

    def __init__(self, directory: Path, stack: ExitStack, *command: str) -> None:
        """`command`: starts an agent with a mistake, whose names lead HAProxy to all three."""
        self._is_misled = bool(command)
        settings = directory / "agent.json"
        settings.write_text(json.dumps({"node_meta": {"os": "linux", "rack": "r1"}}))  # beside the addresses, in DNS
        flags = ("-dev", "-node", "s1", "-server-port", "0", "-dns-port", "0", "-config-file", str(settings))
        self.agent = AgentProcess(*flags, command=command).started()
        stack.callback(self.agent.kill)
        dns = re.search(r" dns=127\.0\.0\.1:(\d+)", self.agent.wait_for_line("agent started"))
        assert dns is not None
        self.backends = {name: Backend(name) for name in "abc"}
        for backend in self.backends.values():
            stack.callback(backend.close)
        self._admin = directory / "admin"
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
            configuration = directory / "haproxy.cfg"
            configuration.write_text(CONFIGURATION.format(directory=directory, dns=dns[1], listener=listener.fileno()))
            process = subprocess.Popen(
                [str(HAPROXY), "-db", "-q", "-f", str(configuration)],
                pass_fds=[listener.fileno()],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        stack.callback(process.wait)
        stack.callback(process.kill)
        eventually(lambda: self.servers_up() is not None, "HAProxy answers")

    def register(self, name: str, weight: int = 1) -> None:
        backend = self.backends[name]
        check = {"HTTP": f"http://127.0.0.1:{backend.port}/health", "Interval": "1s", "Timeout": "30s"}
        weights = {"Passing": weight, "Warning": 1}
        body = {"Name": "web", "ID": name, "Address": "127.0.0.1", "Port": backend.port, "Weights": weights}
        status, text = self.agent.request(
            "PUT", "/v1/agent/service/register", json.dumps(body | {"Check": check}).encode()
        )
        assert status == 200, text

    def deregister(self, name: str) -> None:
        assert self.agent.request("PUT", f"/v1/agent/service/deregister/{name}")[0] == 200

    def servers_up(self) -> dict[int, int]:
        """Port and weight of each server that HAProxy sends requests to. Raises OSError: it does not answer (yet)."""
        with socket.socket(socket.AF_UNIX) as admin:
            admin.connect(str(self._admin))
            admin.sendall(b"show servers state web\n")
            answer = b""
            while data := admin.recv(65_536):
                answer += data
        _, header, *rows = answer.decode().strip().splitlines()
        names = header.removeprefix("# ").split()
        states = [dict(zip(names, row.split(), strict=True)) for row in rows if row]
        up = [state for state in states if state["srv_op_state"] == "2" and not int(state["srv_admin_state"]) & CLOSED]
        return {int(state["srv_port"]): int(state["srv_uweight"]) for state in up}

    def answers(self, requests: int) -> Counter[str]:
        """Who answered, how often."""
        found: Counter[str] = Counter()
        for _ in range(requests):
            connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
            connection.request("GET", "/")
            answer = connection.getresponse()
            found[answer.read().decode() if answer.status == 200 else str(answer.status)] += 1
            connection.close()
        return found

    def until_served_by(self, names: str) -> None:
        """HAProxy comes to send requests to exactly these, and they alone answer."""
        wanted = {self.backends[name].port for name in names}
        self._until(lambda: set(self.servers_up()) == wanted, f"HAProxy sends requests to {names or 'nobody'}")
        assert set(self.answers(20)) == set(names or ["503"])

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            up = self.servers_up()
            assert time.monotonic() < deadline, f"{what}: not in time, but to {up}"
            if self._is_misled and len(up) == len(self.backends):
                deadline = min(deadline, time.monotonic() + 1)
            time.sleep(0.02)

    def until_weights_are(self, **weights: int) -> None:
        """HAProxy comes to have these weights."""
        wanted = {self.backends[name].port: weight for name, weight in weights.items()}
        self._until(lambda: self.servers_up() == wanted, f"HAProxy has the weights {weights}")


@pytest.fixture
def balanced(tmp_path: Path) -> Iterator[Balanced]:
    with ExitStack() as stack:
        yield Balanced(tmp_path, stack)


def requests_reach_exactly_those_that_are_registered_and_healthy(balanced: Balanced) -> None:
    balanced.until_served_by("")
    balanced.backends["c"].healthy = False
    for name in "abc":
        balanced.register(name)
    balanced.until_served_by("ab")
    balanced.backends["c"].healthy = True
    balanced.until_served_by("abc")
    balanced.backends["b"].healthy = False
    balanced.until_served_by("ac")
    balanced.deregister("a")
    balanced.until_served_by("c")


def requests_are_shared_out_by_weight(balanced: Balanced) -> None:
    # HAProxy takes a 256th of an SRV record's weight, rounded up.
    balanced.register("a", 10 * 256)
    balanced.register("b", 5 * 256)
    balanced.register("c")
    balanced.until_weights_are(a=10, b=5, c=1)
    found = balanced.answers(160)
    assert {name: round(count, -1) for name, count in found.items()} == {"a": 100, "b": 50, "c": 10}


def test_requests_reach_exactly_those_that_are_registered_and_healthy(balanced: Balanced) -> None:
    requests_reach_exactly_those_that_are_registered_and_healthy(balanced)


def test_requests_are_shared_out_by_weight(balanced: Balanced) -> None:
    requests_are_shared_out_by_weight(balanced)


@pytest.mark.parametrize(
    ("target", "mutant", "sentence", "why"),
    [
        (
            "impl.dns.selection:Selection._healthy",
            "lambda self, instances: list(instances)",
            requests_reach_exactly_those_that_are_registered_and_healthy,
            r"HAProxy sends requests to ab: .* but to \{\d+: 1, \d+: 1, \d+: 1\}",
        ),
        (
            "impl.dns.records:_srv",
            "lambda *fields: original(*fields[:3], 1, *fields[4:])",
            requests_are_shared_out_by_weight,
            r"HAProxy has the weights .* but to \{\d+: 1, \d+: 1, \d+: 1\}",
        ),
    ],
    ids=["shows-the-critical", "forgets-weights"],
)
def test_an_agent_whose_names_mislead_is_noticed(
    tmp_path: Path, target: str, mutant: str, sentence: Callable[[Balanced], None], why: str
) -> None:
    program = WRONG_AGENT.format(root=str(ROOT), target=target, mutant=mutant)
    with ExitStack() as stack, pytest.raises(AssertionError, match=why):
        sentence(Balanced(tmp_path, stack, sys.executable, "-c", program))
