"""DNS answers as Consul's documentation gives them: which names exist, and which records they have."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from impl.agent.requests.api import ReadOptions, ReadReply
from impl.catalog.queries import Query
from impl.catalog.registry_queries import Instance, NodeAnswer
from impl.catalog.rows import Node, Service
from impl.dns import aliases, answers, names, responder, zone
from impl.dns import records as record_module
from impl.dns.agent_directory import AgentDirectory
from impl.dns.answers import Answer, Answers
from impl.dns.counters import Counters
from impl.dns.directory import LookupFailed, NoPath
from impl.dns.fitting import DATAGRAM_BYTES
from impl.dns.responder import Responder
from impl.dns.selection import Selection
from impl.dns.settings import Settings
from tests.impl.dns_questions import N1, N2, FakeDirectory, Mutant, ask, contradict, mutant_id, records, respond, web


def a_node_has_its_address() -> None:
    for name in ("n1.node.consul", "N1.Node.Consul", "n1.node.dc1.consul", "n1.node.dc1.dc.consul"):
        found = ask(name)
        assert [row.split()[1:] for row in records(found)] == [["A", "10.0.0.1"]]
        assert found.flags & dns.flags.AA


def a_node_may_have_a_name_for_address() -> None:
    assert records(ask("ext.node.consul")) == ["ext.node.consul. CNAME example.com."]
    assert records(ask("six.node.consul", "AAAA")) == ["six.node.consul. AAAA 2001:db8::1"]


def a_nodes_metadata_are_its_texts() -> None:
    assert records(ask("n1.node.consul", "TXT")) == ['n1.node.consul. TXT "os=linux"', 'n1.node.consul. TXT "plain"']
    directory = FakeDirectory()
    directory.nodes = [replace(N1, meta={"RFC1035-x": 'a "b" \\c'})]
    assert records(ask("n1.node.consul", "TXT", directory)) == ['n1.node.consul. TXT "a \\"b\\" \\\\c"']


def metadata_are_written_as_rfc_1464_says() -> None:
    directory = FakeDirectory()
    directory.nodes = [replace(N1, meta={"a=b": "c=d", " `k ": "1`2", "long": "é" * 100, "rfc1035-x": "`="})]
    found = ask("n1.node.consul", "TXT", directory, datagram=False)
    texts = [b"".join(data.strings).decode() for data in found.answer[0]]
    assert texts == ["` ``k` =1``2", "a`=b=c=d", f"long={'é' * 100}", "`="]
    assert [len(data.strings) for data in found.answer[0]] == [1, 1, 1, 1]
    directory.nodes = [replace(N1, meta={"k": "x" * 500})]
    found = ask("n1.node.consul", "TXT", directory, datagram=False)
    assert [len(string) for string in found.answer[0][0].strings] == [255, 247]


def an_unknown_name_does_not_exist_and_says_for_how_long() -> None:
    for name in ("x.node.consul", "x.service.consul", "x.query.consul", "consul.consul", "x.addr.consul"):
        found = ask(name)
        assert found.rcode() == dns.rcode.NXDOMAIN, name
        assert records(found, "authority")[0].startswith("consul. SOA ns.consul. hostmaster.consul. 7 ")


def a_denial_may_be_kept_for_as_long_as_is_set() -> None:
    for name in ("x.node.consul", "n1.node.consul"):
        (soa,) = ask(name, "AAAA", soa_min_ttl=60).authority
        assert (soa.ttl, soa[0].minimum) == (60, 60)
    assert ask("consul", "SOA", soa_min_ttl=60).answer[0].ttl == 60
    assert ask("x.node.consul").authority[0].ttl == 0


def a_name_without_records_of_the_type_is_empty() -> None:
    found = ask("n1.node.consul", "AAAA")
    assert (found.rcode(), found.answer, len(found.authority)) == (dns.rcode.NOERROR, [], 1)


def another_datacenter_does_not_exist() -> None:
    for name in ("n1.node.dc9.consul", "n1.node.dc1.x.consul", "n1.node.dc1.dc.x.consul"):
        assert ask(name).rcode() == dns.rcode.NXDOMAIN, name


def a_lookup_that_fails_is_a_failure() -> None:
    directory = FakeDirectory()
    directory.failure = LookupFailed("No cluster leader")
    assert ask("n1.node.consul", directory=directory).rcode() == dns.rcode.SERVFAIL


def a_service_has_the_addresses_of_its_instances() -> None:
    for name in ("web.service.consul", "_web._tcp.service.consul", "_web._tcp.consul", "web.service.dc1.consul"):
        assert [row.split()[2] for row in records(ask(name))] == ["10.0.0.1", "10.0.0.2"]
    for name in ("v1.web.service.consul", "_web._v1.service.consul"):
        assert [row.split()[2] for row in records(ask(name))] == ["10.0.0.2"]


def only_tcp_stands_for_no_tag() -> None:
    directory = FakeDirectory()
    directory.instances = [web(N1), web(N2, tags=("udp",))]
    assert [row.split()[2] for row in records(ask("_web._udp.service.consul", directory=directory))] == ["10.0.0.2"]
    assert len(records(ask("_web._TCP.service.consul", directory=directory))) == 2


def critical_instances_are_left_out() -> None:
    directory = FakeDirectory()
    directory.instances = [web(N1, "critical"), web(N2, "warning")]
    assert [row.split()[2] for row in records(ask("web.service.consul", directory=directory))] == ["10.0.0.2"]
    assert ask("web.service.consul", directory=directory, only_passing=True).rcode() == dns.rcode.NXDOMAIN


def srv_records_have_ports_weights_and_targets() -> None:
    directory = FakeDirectory()
    directory.instances = [
        web(N1),
        web(N2, "warning", address="192.0.2.7"),
        web(N2, address="api.example.com"),
    ]
    found = ask("web.service.consul", "SRV", directory, edns=4096)
    assert records(found) == [
        "web.service.consul. SRV 1 10 80 n1.node.dc1.consul.",
        "web.service.consul. SRV 1 1 80 c0000207.addr.dc1.consul.",
        "web.service.consul. SRV 1 10 80 api.example.com.",
    ]
    assert records(found, "additional") == [
        "n1.node.dc1.consul. A 10.0.0.1",
        "c0000207.addr.dc1.consul. A 192.0.2.7",
    ]


def instances_at_one_port_are_one() -> None:
    directory = FakeDirectory()
    directory.instances = [web(N1), web(N1, "warning"), web(N1, address="192.0.2.7"), web(N2)]
    found = ask("web.service.consul", "SRV", directory, edns=4096)
    assert [row.split(maxsplit=2)[2] for row in records(found)] == [
        "1 10 80 n1.node.dc1.consul.",
        "1 10 80 c0000207.addr.dc1.consul.",
        "1 10 80 N2.node.dc1.consul.",
    ]
    assert len(records(found, "additional")) == 3


def a_spelled_address_is_itself() -> None:
    assert records(ask("c0000207.addr.dc1.consul")) == ["c0000207.addr.dc1.consul. A 192.0.2.7"]
    six = "20010db8000000000000000000000001.addr.dc1.consul"
    assert records(ask(six, "AAAA")) == [f"{six}. AAAA 2001:db8::1"]
    assert ask("c00002.addr.dc1.consul").rcode() == dns.rcode.NXDOMAIN


def an_address_has_a_name() -> None:
    assert records(ask("1.0.0.10.in-addr.arpa", "PTR")) == ["1.0.0.10.in-addr.arpa. PTR n1.node.dc1.consul."]
    directory = FakeDirectory()
    directory.instances = [web(N1, address="192.0.2.7")]
    found = ask("7.2.0.192.in-addr.arpa", "PTR", directory)
    assert records(found) == ["7.2.0.192.in-addr.arpa. PTR web.service.dc1.consul."]
    reverse = ".".join(reversed("20010db8000000000000000000000001")) + ".ip6.arpa"
    assert records(ask(reverse, "PTR"))[0].endswith("PTR six.node.dc1.consul.")
    assert ask("9.9.9.9.in-addr.arpa", "PTR").rcode() == dns.rcode.NXDOMAIN


def the_domain_has_servers() -> None:
    found = ask("consul", "NS")
    assert [row.split()[2] for row in records(found)] == ["n1.node.dc1.consul.", "N2.node.dc1.consul."]
    assert len(found.additional) == 2


def a_server_that_is_critical_is_no_name_server() -> None:
    directory = FakeDirectory()
    directory.server_instances = [web(N1, "critical"), web(N2)]
    for kind, section in (("NS", "answer"), ("SOA", "authority")):
        assert records(ask("consul", kind, directory), section) == ["consul. NS N2.node.dc1.consul."]


def the_domain_of_a_name_is_found() -> None:
    for name in ("consul", "n1.node.consul", "web.service.consul", "service.consul", "none.service.dc9.consul"):
        found = ask(name, "SOA")
        assert found.rcode() == dns.rcode.NOERROR
        (soa,) = records(found)
        assert soa.startswith("consul. SOA ns.consul.")
        assert records(found, "authority") == ["consul. NS n1.node.dc1.consul.", "consul. NS N2.node.dc1.consul."]
        assert records(found, "additional") == ["n1.node.dc1.consul. A 10.0.0.1", "N2.node.dc1.consul. A 10.0.0.2"]
        assert records(ask(name, "NS")) == records(found, "authority")
    assert ask("example.com", "SOA").rcode() == dns.rcode.REFUSED


def what_is_no_question_is_not_implemented() -> None:
    query = dns.message.make_query("n1.node.consul", "A")
    query.set_opcode(dns.opcode.STATUS)
    answer = respond(query.to_wire(), FakeDirectory(), True)
    assert answer is not None and dns.message.from_wire(answer).rcode() == dns.rcode.NOTIMP


def a_name_outside_the_domain_is_refused() -> None:
    assert ask("example.com").rcode() == dns.rcode.REFUSED


def malformed_questions_are_refused_or_dropped() -> None:
    query = dns.message.make_query("n1.node.consul", "A").to_wire()
    found = respond(query[:20], FakeDirectory(), True)
    assert found is not None and found[:2] == query[:2] and found[3] & 15 == dns.rcode.FORMERR
    assert respond(query[:5], FakeDirectory(), True) is None
    response = dns.message.make_response(dns.message.from_wire(query)).to_wire()
    assert respond(response, FakeDirectory(), True) is None


def the_domain_is_not_transferred() -> None:
    for name, kind in (("consul", "AXFR"), ("consul", "IXFR"), ("n1.node.consul", "AXFR")):
        found = ask(name, kind, datagram=False)
        assert (found.rcode(), found.answer) == (dns.rcode.NOTIMP, [])


SENTENCES = (
    a_node_has_its_address,
    a_node_may_have_a_name_for_address,
    a_nodes_metadata_are_its_texts,
    metadata_are_written_as_rfc_1464_says,
    an_unknown_name_does_not_exist_and_says_for_how_long,
    a_denial_may_be_kept_for_as_long_as_is_set,
    a_name_without_records_of_the_type_is_empty,
    another_datacenter_does_not_exist,
    a_lookup_that_fails_is_a_failure,
    a_service_has_the_addresses_of_its_instances,
    only_tcp_stands_for_no_tag,
    critical_instances_are_left_out,
    srv_records_have_ports_weights_and_targets,
    instances_at_one_port_are_one,
    a_spelled_address_is_itself,
    an_address_has_a_name,
    the_domain_has_servers,
    a_server_that_is_critical_is_no_name_server,
    the_domain_of_a_name_is_found,
    what_is_no_question_is_not_implemented,
    a_name_outside_the_domain_is_refused,
    malformed_questions_are_refused_or_dropped,
    the_domain_is_not_transferred,
)


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda sentence: sentence.__name__)
def test_consul_answers(sentence: Callable[[], None]) -> None:
    sentence()


def no_soa(self: Answers, rcode: dns.rcode.Rcode) -> Answer:
    return Answer(rcode)


MUTANTS: tuple[Mutant, ...] = (
    (Selection, "_healthy", lambda self, instances: list(instances), critical_instances_are_left_out),
    (Selection, "_healthy", lambda self, instances: list(instances), a_server_that_is_critical_is_no_name_server),
    (record_module, "_attribute", "{}={}".format, metadata_are_written_as_rfc_1464_says),
    (record_module, "STRING_BYTES_MAX", 60, metadata_are_written_as_rfc_1464_says),
    (Answers, "_denial", no_soa, an_unknown_name_does_not_exist_and_says_for_how_long),
    (answers, "distinct", list, instances_at_one_port_are_one),
    (zone, "spelled", lambda address: "00000000", srv_records_have_ports_weights_and_targets),
    (names, "_datacenter", lambda rest, own: own, another_datacenter_does_not_exist),
    (aliases, "is_ip", lambda address: True, a_node_may_have_a_name_for_address),
    (responder, "_TRANSFERS", (), the_domain_is_not_transferred),
    (responder, "refusal", lambda wire, rcode: None, malformed_questions_are_refused_or_dropped),
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=mutant_id)
def test_a_mutant_contradicts_its_sentence(monkeypatch: pytest.MonkeyPatch, mutant: Mutant) -> None:
    contradict(monkeypatch, mutant)


def test_settings_that_are_reloaded_hold_for_the_next_question() -> None:
    responder = Responder(FakeDirectory(), Settings(node_ttl=9), lambda rows: None, lambda: 7)
    wire = dns.message.make_query("n1.node.consul", "A").to_wire()

    def ttl() -> int:
        answer = asyncio.run(responder.respond(wire, datagram=True))
        assert answer is not None
        return dns.message.from_wire(answer).answer[0].ttl

    assert ttl() == 9
    responder.reconfigure(Settings(node_ttl=4))
    assert ttl() == 4


QUESTION = bytes.fromhex("000101000001000000000000")
"""The header of a question."""


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.binary(max_size=80) | st.binary(max_size=40).map(lambda tail: bytes.fromhex("000101000001000000000000") + tail)
)
def test_any_datagram_is_answered_or_dropped(wire: bytes) -> None:
    found = respond(wire, FakeDirectory(), True)
    assert found is None or (len(found) <= DATAGRAM_BYTES and found[:2] == wire[:2])


LONG = "x" * 64
"""No label of a DNS name has more than 63 letters; Consul's catalog takes what it is given."""


def rows_that_dns_cannot_write_cost_no_other() -> None:
    directory = FakeDirectory()
    strange = [web(Node(LONG, "10.0.0.9", datacenter="dc1")), web(N1, address="a..b"), web(N1, address=f"{LONG}.com")]
    directory.instances = [*strange, web(N2)]
    assert [row.split()[-1] for row in records(ask("web.service.consul", "SRV", directory))] == ["N2.node.dc1.consul."]
    directory.instances = [Instance(N1, Service("n1", LONG, LONG, address="192.0.2.9"), ())]
    found = ask("9.2.0.192.in-addr.arpa", "PTR", directory)
    assert (found.rcode(), found.answer) == (dns.rcode.NOERROR, [])
    directory.nodes = [replace(N1, meta={"k": "x" * 70_000})]
    found = ask("n1.node.consul", directory=directory, node_meta_txt=True)
    assert (records(found), found.additional) == (["n1.node.consul. A 10.0.0.1"], [])


def test_rows_that_dns_cannot_write_cost_no_other() -> None:
    rows_that_dns_cannot_write_cost_no_other()


def test_a_row_that_breaks_the_whole_answer_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counters, "speakable", lambda self: contextlib.nullcontext())
    with pytest.raises(dns.exception.DNSException):
        rows_that_dns_cannot_write_cost_no_other()


class OneNode:
    """An agent that knows of one node."""

    async def read(self, query: Query, options: ReadOptions) -> ReadReply:
        return ReadReply(NodeAnswer(1, N1, []), True, 0)


def test_a_datacenter_is_asked_by_its_name_or_as_dns_spells_it_and_no_other() -> None:
    async def pause() -> None:
        return

    agent: Any = OneNode()
    directory = AgentDirectory(agent, "Dc1", pause)
    assert [asyncio.run(directory.node("n1", name)) for name in ("Dc1", "dc1")] == [N1, N1]
    with pytest.raises(NoPath):
        asyncio.run(directory.node("n1", "dc2"))


def test_a_service_has_its_own_ttl_or_that_of_the_longest_prefix() -> None:
    ttls = (("*", 1), ("we*", 2), ("web-*", 3), ("db", 4))
    found = Settings(service_ttl=ttls)
    assert [found.ttl_of(name) for name in ("web", "web-1", "db", "db1")] == [2, 3, 4, 1]
    assert Settings().ttl_of("web") == 0
    assert ask("web.service.consul", service_ttl=ttls, node_ttl=9).answer[0].ttl == 2
    assert ask("n1.node.consul", service_ttl=ttls, node_ttl=9).answer[0].ttl == 9
