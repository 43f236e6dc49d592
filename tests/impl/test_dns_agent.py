"""Real `dig` asks a real agent whose catalog was filled over HTTP. The questions are those of Consul's DNS pages."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.impl.agent_processes import AgentProcess, eventually, run_to_end

DIG = shutil.which("dig")
FLAGS = ("-dev", "-node", "s1", "-server-port", "0")
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.xdist_group("cluster"),
    pytest.mark.skipif(DIG is None, reason="dig is not installed (Debian: dnsutils)"),
]
INSTANCES = 40
"""More than fit into 512 bytes."""


class Names:
    """An agent with DNS, and dig to ask it."""

    def __init__(self) -> None:
        self.agent = AgentProcess(*FLAGS, "-dns-port", "0").started()
        found = re.search(r" dns=127\.0\.0\.1:(\d+)", self.agent.wait_for_line("agent started"))
        assert found is not None
        self.port = found[1]

    def register(self, node: str, address: str, **more: Any) -> None:
        body = {"Node": node, "Address": address, **more}
        assert self.agent.request("PUT", "/v1/catalog/register", json.dumps(body).encode()) == (200, b"true\n")

    def dig(self, *words: str) -> str:
        command = [str(DIG), "@127.0.0.1", "-p", self.port, "+tries=1", "+time=10", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout

    def answers(self, *words: str) -> list[list[str]]:
        """Type and data of each record of the answer, in order of their texts."""
        lines = self.dig("+noall", "+answer", "+nocookie", *words).splitlines()
        return sorted(line.split(maxsplit=4)[3:] for line in lines if line and not line.startswith(";"))


@pytest.fixture(scope="module")
def names() -> Iterator[Names]:
    names = Names()
    eventually(lambda: names.agent.request("GET", "/v1/status/leader")[1] not in (b'""', b""), "a leader")
    passing = {"Name": "web alive", "Status": "passing", "ServiceID": "web"}
    tagged = {
        "Service": "web",
        "Tags": ["v1"],
        "Port": 80,
        "Address": "192.0.2.1",
        "Weights": {"Passing": 7, "Warning": 1},
    }
    names.register("n1", "10.0.0.1", NodeMeta={"os": "linux"}, Service={"Service": "web", "Port": 80}, Check=passing)
    names.register("n2", "10.0.0.2", Service=tagged, Check=passing)
    names.register("n3", "10.0.0.3", Service={"Service": "web", "Port": 80}, Check=passing | {"Status": "critical"})
    names.register("six", "2001:db8::6")
    for number in range(INSTANCES):
        names.register(f"many{number}", f"10.1.0.{number}", Service={"Service": "many", "Port": 9000 + number})
    yield names
    assert names.agent.terminate() == 0


def test_nodes_have_addresses(names: Names) -> None:
    assert names.answers("n1.node.consul") == [["A", "10.0.0.1"]]
    assert names.answers("N1.node.dc1.consul") == [["A", "10.0.0.1"]]
    assert names.answers("six.node.consul", "AAAA") == [["AAAA", "2001:db8::6"]]
    assert names.answers("n1.node.consul", "TXT") == [["TXT", '"os=linux"']]
    assert names.answers("0a000001.addr.consul") == [["A", "10.0.0.1"]]


def test_services_have_those_instances_that_are_not_critical(names: Names) -> None:
    assert names.answers("web.service.consul") == [["A", "10.0.0.1"], ["A", "192.0.2.1"]]
    assert names.answers("v1.web.service.consul") == [["A", "192.0.2.1"]]
    assert names.answers("_web._v1.service.consul", "SRV") == [["SRV", "1 7 80 c0000201.addr.dc1.consul."]]
    found = names.dig("_web._tcp.service.consul", "SRV", "+nocookie")
    assert "1 1 80 n1.node.dc1.consul." in found
    assert re.search(r"ADDITIONAL SECTION:(\n.*)*n1\.node\.dc1\.consul\.\s+0\s+IN\s+A\s+10\.0\.0\.1", found)
    assert re.search(r'n1\.node\.dc1\.consul\.\s+0\s+IN\s+TXT\s+"os=linux"', found)


def test_names_have_no_case(names: Names) -> None:
    names.register(
        "n1", "10.0.0.1", NodeMeta={"os": "linux"}, Service={"Service": "Mixed", "Tags": ["Blue"], "Port": 1}
    )
    assert names.answers("WEB.Service.Consul") == names.answers("web.service.consul")
    for name in (
        "Mixed.service.consul",
        "mixed.service.consul",
        "blue.Mixed.SERVICE.DC1.consul",
        "_Mixed._TCP.service.consul",
    ):
        assert names.answers(name) == [["A", "10.0.0.1"]]


def test_an_address_that_is_a_name_leads_to_an_address(names: Names) -> None:
    for service, addresses in (
        ("alias", ("n1.node.consul",)),
        ("mix", ("a.example.com", "192.0.2.9")),
        ("self", ("self.service.consul",)),
    ):
        for number, address in enumerate(addresses):
            instance = {"ID": f"{service}{number}", "Service": service, "Address": address, "Port": 80}
            names.register("n2", "10.0.0.2", Service=instance)
    assert names.answers("alias.service.consul") == [["A", "10.0.0.1"], ["CNAME", "n1.node.consul."]]
    found = names.dig("alias.service.consul", "SRV", "+nocookie")
    assert re.search(r"ADDITIONAL SECTION:(\n.*)*n1\.node\.consul\.\s+0\s+IN\s+A\s+10\.0\.0\.1", found)
    assert names.answers("mix.service.consul") == [["A", "192.0.2.9"]]
    assert names.answers("self.service.consul") == [["A", "10.0.0.2"]]
    names.register("ext", "www.example.com", Service={"Service": "outside", "Port": 443})
    assert names.answers("outside.service.consul", "SRV") == [["SRV", "1 1 443 www.example.com."]]


def test_addresses_have_names(names: Names) -> None:
    assert names.answers("-x", "10.0.0.1") == [["PTR", "n1.node.dc1.consul."]]
    assert names.answers("-x", "192.0.2.1") == [["PTR", "web.service.dc1.consul."]]
    assert names.answers("-x", "2001:db8::6") == [["PTR", "six.node.dc1.consul."]]


def test_names_that_do_not_exist_are_denied_with_the_soa(names: Names) -> None:
    for name in ("n9.node.consul", "none.service.consul", "n1.node.dc9.consul"):
        found = names.dig(name)
        assert "status: NXDOMAIN" in found
        assert re.search(r"consul\.\s+0\s+IN\s+SOA\s+ns\.consul\. hostmaster\.consul\. \d+ 3600 600 86400 0", found)
    assert "status: NOERROR" in names.dig("n1.node.consul", "MX")
    assert "status: REFUSED" in names.dig("example.com")


def test_what_does_not_fit_is_marked_and_whole_over_tcp(names: Names) -> None:
    plain = names.dig("many.service.consul", "+noedns", "+ignore")
    assert re.search(r"flags: [a-z ]*\btc\b", plain)
    assert plain.count("\tA\t10.1.0.") == 3
    large = names.dig("many.service.consul", "+bufsize=4096", "+ignore")
    assert not re.search(r"flags: qr [a-z ]*\btc\b", large)
    assert large.count("\tA\t10.1.0.") == INSTANCES
    # Names are compressed, but the targets of SRV records are not: this is beyond 512 bytes even with EDNS.
    assert re.search(r"flags: [a-z ]*\btc\b", names.dig("many.service.consul", "SRV", "+bufsize=512", "+ignore"))
    assert len(names.answers("many.service.consul", "SRV", "+tcp")) == INSTANCES
    assert len(names.answers("many.service.consul", "+noedns")) == INSTANCES, "dig asks again over TCP by itself"


def test_changes_are_seen_at_once(names: Names) -> None:
    names.register("late", "10.0.0.77")
    assert names.answers("late.node.consul") == [["A", "10.0.0.77"]]
    names.register("late", "10.0.0.78")
    assert names.answers("late.node.consul") == [["A", "10.0.0.78"]]


def test_orders_are_drawn(names: Names) -> None:
    drawn = {names.dig("many.service.consul", "+short", "+tcp") for _ in range(4)}
    assert len(drawn) > 1


def test_another_agent_at_the_port_is_told_what_to_do(names: Names) -> None:
    code, line = run_to_end(*FLAGS, "-dns-port", names.port)
    assert code == 1
    assert f"cannot listen on 127.0.0.1:{names.port}: address already in use" in line
    assert "choose another -dns-port" in line
