"""A real agent runs checks of every kind that connects, on real servers, and the catalog shows what they found."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.impl.agent_processes import AgentProcess, eventually

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]


@pytest.fixture
def agent() -> Iterator[AgentProcess]:
    agent = AgentProcess("-dev", "-node", "s1", "-server-port", "0").started()
    eventually(lambda: b"serfHealth" in agent.request("GET", "/v1/health/node/s1")[1], "s1 is registered")
    yield agent
    assert agent.terminate() == 0


@pytest.fixture
def grpc() -> Iterator[int]:
    """The port of a gRPC server, whose service "bad" is not serving."""
    command = [sys.executable, str(Path(__file__).with_name("grpc_health_server.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.communicate()


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a UDP server that never answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        yield server.getsockname()[1]


def test_checks_of_every_kind_say_what_they_found(agent: AgentProcess, grpc: int, silent: int) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    kinds: dict[str, dict[str, Any]] = {
        "grpc": {"GRPC": f"127.0.0.1:{grpc}"},
        "grpc-good": {"GRPC": f"127.0.0.1:{grpc}/good"},
        "grpc-bad": {"GRPC": f"127.0.0.1:{grpc}/bad"},
        "grpc-nobody": {"GRPC": nobody},
        "h2ping": {"H2PING": f"127.0.0.1:{grpc}", "H2PingUseTLS": False},
        "h2ping-clear": {"H2PING": f"127.0.0.1:{grpc}"},
        "tcp": {"TCP": f"127.0.0.1:{grpc}"},
        "tcp-tls": {"TCP": f"127.0.0.1:{grpc}", "TCPUseTLS": True},
        "udp": {"UDP": f"127.0.0.1:{silent}", "Timeout": "1s"},
        "udp-nobody": {"UDP": nobody},
        "http-nobody": {"HTTP": f"http://{nobody}/"},
    }
    for name, fields in kinds.items():
        check = {"CheckID": name, "Interval": "1s"} | fields
        alias = {"CheckID": f"of {name}", "AliasNode": "s1", "AliasService": name}
        for service in ({"Name": name, "Check": check}, {"Name": f"of-{name}", "Check": alias}):
            assert agent.request("PUT", "/v1/agent/service/register", json.dumps(service).encode())[0] == 200

    def found(name: str) -> dict[str, str]:
        rows: dict[str, dict[str, str]] = json.loads(agent.request("GET", "/v1/agent/checks")[1])
        return rows[name]

    eventually(lambda: all(found(name)["Output"] for name in kinds), "all have run")
    passing = {name for name in kinds if found(name)["Status"] == "passing"}
    assert passing == {"grpc", "grpc-good", "h2ping", "tcp", "udp"}
    outputs = {name: found(name)["Output"] for name in kinds}
    assert outputs["grpc-bad"] == f"gRPC 127.0.0.1:{grpc}/bad serving status: NOT_SERVING"
    assert "connection refused" in outputs["grpc-nobody"] and "connection refused" in outputs["http-nobody"]

    def shown() -> set[str]:
        rows = json.loads(agent.request("GET", "/v1/health/state/passing")[1])
        return {row["CheckID"] for row in rows} - {"serfHealth"}

    wanted = passing | {f"of {name}" for name in passing}
    eventually(lambda: shown() == wanted, "the catalog shows it, and each alias has its service's health")
