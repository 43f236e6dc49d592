"""A real Prometheus finds agents by an SRV name in Comitia's DNS, scrapes them, and sees one more come.

Prometheus asks the servers of /etc/resolv.conf at port 53 and no others: it gets one of its own in a mount namespace,
and the first agent answers DNS there. The agents listen on loopback addresses that nobody else uses.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.impl.agent_processes import AgentProcess, eventually

PROMETHEUS, UNSHARE = shutil.which("prometheus"), shutil.which("unshare")
WRITES = 5


def _why_not() -> str:
    if PROMETHEUS is None:
        return "prometheus is not installed (Debian: prometheus)"
    if os.geteuid() != 0:
        return "port 53 and a mount namespace need root"
    if UNSHARE is None or subprocess.run([UNSHARE, "-m", "true"], capture_output=True, check=False).returncode:
        return "mount namespaces cannot be made here"
    return ""


pytestmark = [
    pytest.mark.cluster,
    pytest.mark.xdist_group("cluster"),
    pytest.mark.skipif(bool(_why_not()), reason=_why_not()),
]


class Monitored:
    """Agents at 127.A.B.1, 2, ... and a Prometheus at 127.A.B.200."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.network = f"127.{64 + os.getpid() % 128}.{os.getpid() // 128 % 256}"
        self.agents: list[AgentProcess] = []
        first = self.start("s1", "-server", "-bootstrap-expect", "1", "-server-port", "0", "-dns-port", "53")
        self.rpc = first.rpc
        self.prometheus = self._start_prometheus()

    def start(self, name: str, *flags: str, telemetry: str = "disable_hostname = true") -> AgentProcess:
        address, files = f"{self.network}.{len(self.agents) + 1}", self.directory / name
        files.mkdir()
        (files / "telemetry.hcl").write_text(f"telemetry {{ {telemetry} }}")
        where = ("-bind", address, "-client", address)
        agent = AgentProcess("-node", name, "-data-dir", str(files / "data"), "-config-dir", str(files), *where, *flags)
        self.agents.append(agent)
        return agent.started()

    def _start_prometheus(self) -> subprocess.Popen[bytes]:
        with socket.socket() as free:
            free.bind((f"{self.network}.200", 0))
            self.address = f"{self.network}.200:{free.getsockname()[1]}"
        resolver, config = self.directory / "resolv.conf", self.directory / "prometheus.json"
        resolver.write_text(f"nameserver {self.network}.1\n")
        found = {"names": ["metrics.service.consul"], "type": "SRV", "refresh_interval": "1s"}
        job = {
            "job_name": "comitia",
            "metrics_path": "/v1/agent/metrics",
            "params": {"format": ["prometheus"]},
            "dns_sd_configs": [found],
        }
        # YAML includes JSON.
        config.write_text(json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": [job]}))
        words = [
            str(PROMETHEUS),
            f"--config.file={config}",
            f"--storage.tsdb.path={self.directory / 'tsdb'}",
            f"--web.listen-address={self.address}",
            "--log.level=warn",
        ]
        script = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
        self.log = (self.directory / "prometheus.log").open("wb")
        return subprocess.Popen([str(UNSHARE), "-m", "sh", "-c", script, str(resolver), *words], stderr=self.log)

    def query(self, expression: str) -> dict[str, float]:
        """Values by the name of the node that they are from."""
        url = f"http://{self.address}/api/v1/query?query={quote(expression)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        except urllib.error.HTTPError as error:  # it is not ready yet
            error.close()
            return {}
        return {each["metric"]["instance"].partition(".")[0]: float(each["value"][1]) for each in found}

    def until(self, expression: str, wanted: dict[str, float]) -> None:
        try:
            eventually(lambda: self.query(expression) == wanted, f"{expression} is {wanted}")
        except AssertionError as error:
            told = (self.directory / "prometheus.log").read_text()
            raise AssertionError(f"{error}; it is {self.query(expression)}\n{told}") from None

    def stop(self) -> None:
        self.prometheus.terminate()
        self.prometheus.wait(20)
        self.log.close()
        for agent in reversed(self.agents):
            if agent.process.poll() is None:
                agent.kill()


def register(agent: AgentProcess) -> None:
    body = json.dumps({"Name": "metrics", "Port": agent.http_port}).encode()
    assert agent.request("PUT", "/v1/agent/service/register", body)[0] == 200


@pytest.fixture
def monitored(tmp_path: Path) -> Iterator[Monitored]:
    monitored = Monitored(tmp_path)
    try:
        yield monitored
    finally:
        monitored.stop()


def test_prometheus_finds_agents_by_dns_and_scrapes_them(monitored: Monitored) -> None:
    server = monitored.agents[0]
    client = monitored.start("c1", "-retry-join", monitored.rpc)
    for agent in (server, client):
        register(agent)
    monitored.until("up", {"s1": 1, "c1": 1})
    for number in range(WRITES):
        client.put(f"key{number}", "value")
    monitored.until("consul_kvs_apply_count", {"s1": WRITES})
    monitored.until('consul_api_http_count{method="PUT",path="v1.kv._"} > 0', {"c1": WRITES})
    monitored.until("consul_server_isLeader", {"s1": 1})
    monitored.until("consul_state_kv_entries", {"s1": WRITES})
    # One more registers itself, and shows nothing: the first two are told apart from it.
    register(monitored.start("c2", "-retry-join", monitored.rpc, telemetry='prometheus_retention_time = "0s"'))
    monitored.until("up", {"s1": 1, "c1": 1, "c2": 0})
