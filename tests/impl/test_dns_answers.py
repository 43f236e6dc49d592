"""DNS answers as Consul's documentation gives them, asked and read with a real DNS library."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdatatype
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from impl.agent.api import ReadOptions, ReadReply
from impl.catalog.queries import Query
from impl.catalog.registry_queries import Instance, NodeAnswer
from impl.catalog.rows import Check, Node, Service
from impl.dns import answers, names
from impl.dns.answers import LookupFailed, NoPath, Responder
from impl.dns.directory import AgentDirectory
from impl.dns.settings import Settings

N1 = Node("n1", "10.0.0.1", datacenter="dc1", meta={"os": "linux", "rfc1035-x": "plain"})
N2 = Node("N2", "10.0.0.2", datacenter="dc1")
EXTERNAL = Node("ext", "example.com", datacenter="dc1")
V6 = Node("six", "2001:db8::1", datacenter="dc1")


def web(node: Node, status: str = "passing", **fields: Any) -> Instance:
    return Instance(
        node,
        Service(node.node, "web", "web", port=80, weights=(10, 1), **fields),
        (Check(node.node, "c", status=status),),
    )


class FakeDirectory:
    def __init__(self) -> None:
        self.nodes = [N1, N2, EXTERNAL, V6]
        self.instances: list[Instance] = [web(N1), web(N2, tags=("v1",))]
        self.failure: Exception | None = None
        self.lookups = 0

    def _check(self, datacenter: str) -> None:
        if self.failure is not None:
            raise self.failure
        if datacenter != "dc1":
            raise NoPath(datacenter)

    async def node(self, name: str, datacenter: str) -> Node | None:
        self._check(datacenter)
        self.lookups += 1
        return next((node for node in self.nodes if node.node.lower() == name), None)

    async def service(self, name: str, tag: str, datacenter: str) -> Sequence[Instance]:
        self._check(datacenter)
        self.lookups += 1
        found = [each for each in self.instances if each.service.service == name]
        return [each for each in found if not tag or tag in each.service.tags]

    async def servers(self) -> Sequence[Node]:
        return [N1, N2]

    async def holders(self, address: str) -> tuple[Sequence[Node], Sequence[Instance]]:
        nodes = [node for node in self.nodes if node.address == address]
        return nodes, [each for each in self.instances if each.service.address == address]


def respond(wire: bytes, directory: FakeDirectory, datagram: bool, **options: Any) -> bytes | None:
    """Without metadata that nobody asked for, unless the options say otherwise."""
    responder = Responder(directory, Settings(**{"node_meta_txt": False} | options), lambda rows: None, lambda: 7)
    return asyncio.run(responder.respond(wire, datagram=datagram))


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


def ask(
    name: str,
    kind: str = "A",
    directory: FakeDirectory | None = None,
    *,
    datagram: bool = True,
    edns: int | None = None,
    **options: Any,
) -> dns.message.Message:
    query = dns.message.make_query(name, kind, use_edns=0 if edns else -1, payload=edns or 0)
    wire = respond(query.to_wire(), directory or FakeDirectory(), datagram, **options)
    assert wire is not None
    return dns.message.from_wire(wire)


def records(message: dns.message.Message, section: str = "answer") -> list[str]:
    return [
        f"{rrset.name} {dns.rdatatype.to_text(rrset.rdtype)} {row}"
        for rrset in getattr(message, section)
        for row in rrset
    ]


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


def metadata_stand_beside_addresses_while_there_is_room() -> None:
    texts = ['n1.node.dc1.consul. TXT "os=linux"', 'n1.node.dc1.consul. TXT "plain"']
    assert records(ask("n1.node.dc1.consul", node_meta_txt=True), "additional") == texts
    assert records(ask("n1.node.dc1.consul"), "additional") == []
    assert records(ask("n1.node.dc1.consul", "AAAA", node_meta_txt=True), "additional") == []
    assert records(ask("n1.node.dc1.consul", "TXT", node_meta_txt=True), "additional") == []
    directory = FakeDirectory()
    directory.instances = [replace(web(N1), service=replace(web(N1).service, port=number)) for number in (80, 81)]
    addresses = ["n1.node.dc1.consul. A 10.0.0.1"]
    found = ask("web.service.consul", "SRV", directory, node_meta_txt=True)
    assert records(found, "additional") == [*addresses, *texts]
    directory.instances = [web(replace(N1, meta={f"key{number}": "x" * 100 for number in range(5)}))]
    found = ask("web.service.consul", "SRV", directory, node_meta_txt=True)
    assert records(found, "additional") == addresses and not found.flags & dns.flags.TC
    assert len(records(ask("web.service.consul", "SRV", directory, node_meta_txt=True, edns=4096), "additional")) == 6
    assert records(ask("web.service.consul", "A", directory, node_meta_txt=True), "additional") == []


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


def serving(*addresses: str, node: Node = N1, service: str = "web") -> FakeDirectory:
    """Instances of a service at these addresses."""
    directory = FakeDirectory()
    directory.instances = [
        Instance(node, Service("n1", f"{service}{number}", service, address=address, port=80), ())
        for number, address in enumerate(addresses)
    ]
    return directory


def a_name_is_shown_only_if_no_instance_has_an_ip() -> None:
    mixed = serving("a.example.com", "192.0.2.7", "b.example.com")
    assert records(ask("web.service.consul", directory=mixed)) == ["web.service.consul. A 192.0.2.7"]
    assert records(ask("web.service.consul", "ANY", mixed)) == ["web.service.consul. A 192.0.2.7"]
    named = serving("a.example.com", "b.example.com")
    for kind in ("A", "AAAA", "CNAME", "ANY"):
        assert records(ask("web.service.consul", kind, named)) == ["web.service.consul. CNAME a.example.com."]
    assert records(ask("web.service.consul", "TXT", named)) == []


def a_name_of_the_domain_is_followed_by_its_records() -> None:
    directory = serving("N1.node.consul")
    assert records(ask("web.service.consul", directory=directory)) == [
        "web.service.consul. CNAME N1.node.consul.",
        "N1.node.consul. A 10.0.0.1",
    ]
    ttls = [rrset.ttl for rrset in ask("web.service.consul", directory=directory, service_ttl=(("web", 7),)).answer]
    assert ttls == [7, 7], "all from the one setting, as in Consul"
    assert records(ask("web.service.consul", "AAAA", directory)) == ["web.service.consul. CNAME N1.node.consul."]
    directory.nodes = [Node("alias", "web.service.consul", datacenter="dc1"), N1]
    assert records(ask("alias.node.consul", directory=directory)) == [
        "alias.node.consul. CNAME web.service.consul.",
        "web.service.consul. CNAME N1.node.consul.",
        "N1.node.consul. A 10.0.0.1",
    ]
    missing = serving("x.node.consul")
    assert records(ask("web.service.consul", directory=missing)) == ["web.service.consul. CNAME x.node.consul."]
    elsewhere = serving("n1.node.dc9.consul")
    assert records(ask("web.service.consul", directory=elsewhere)) == ["web.service.consul. CNAME n1.node.dc9.consul."]


def an_srv_record_leads_to_an_address() -> None:
    found = ask("web.service.consul", "SRV", serving("n1.node.consul", "a.example.com"))
    assert [row.split()[-1] for row in records(found)] == ["n1.node.consul.", "a.example.com."]
    assert records(found, "additional") == ["n1.node.consul. A 10.0.0.1"]
    external = ask("web.service.consul", "SRV", serving("", node=EXTERNAL))
    assert records(external) == ["web.service.consul. SRV 1 1 80 example.com."]
    directory = serving("alias.node.consul")
    directory.nodes = [Node("alias", "n1.node.consul", datacenter="dc1"), N1]
    chain = ["alias.node.consul. CNAME n1.node.consul.", "n1.node.consul. A 10.0.0.1"]
    assert records(ask("web.service.consul", "SRV", directory), "additional") == chain
    directory.instances += serving(*(f"{'x' * 50}{number}.example.com" for number in range(9))).instances
    cut = ask("web.service.consul", "SRV", directory)
    assert cut.flags & dns.flags.TC and records(cut, "additional") == chain, "what belongs to a record stays with it"


def an_address_that_is_the_very_name_is_none() -> None:
    for kind in ("A", "ANY"):
        found = ask("web.service.consul", kind, serving("WEB.service.consul"))
        assert records(found) == ["web.service.consul. A 10.0.0.1"]
    found = ask("web.service.consul", "SRV", serving("web.service.consul."))
    assert records(found) == ["web.service.consul. SRV 1 1 80 n1.node.dc1.consul."]
    directory = FakeDirectory()
    directory.nodes = [Node("me", "me.node.consul", datacenter="dc1")]
    assert records(ask("me.node.consul", directory=directory)) == []


def circles_end() -> None:
    directory = serving("x.node.consul")
    directory.nodes = [Node(name, f"{after}.node.consul", datacenter="dc1") for name, after in ("xy", "yz", "zx")]
    found = ask("web.service.consul", directory=directory, edns=4096)
    assert records(found)[0] == "web.service.consul. CNAME x.node.consul."
    assert (len(records(found)), directory.lookups) == (1 + 3, 1 + 3)


def lookups_are_bounded() -> None:
    directory = serving(*(f"n{number}.node.consul" for number in range(3 * answers.TARGETS_MAX)))
    found = ask("web.service.consul", "SRV", directory, datagram=False)
    assert len(records(found)) == 3 * answers.TARGETS_MAX
    assert directory.lookups == 1 + answers.TARGETS_MAX
    directory = serving(*["db.service.consul"] * 9)
    directory.instances += [replace(each, node=V6) for each in serving(*["192.0.2.7"], service="db").instances]
    directory.instances += serving(*(f"192.0.2.{number}" for number in range(10, 90)), service="db").instances
    found = ask("web.service.consul", "SRV", directory, edns=4096)
    assert directory.lookups == 2
    assert len(records(found, "additional")) == 5


def an_address_is_repeated_for_each_instance_while_there_is_room() -> None:
    directory = FakeDirectory()
    directory.instances = [replace(web(N1), service=replace(web(N1).service, port=number)) for number in range(80, 89)]
    numbers = []
    for payload in (4096, 512):
        query = dns.message.make_query("web.service.consul", "SRV", use_edns=0, payload=payload)
        wire = respond(query.to_wire(), directory, True)
        assert wire is not None
        numbers.append((int.from_bytes(wire[6:8], "big"), int.from_bytes(wire[10:12], "big") - 1))  # without EDNS
    assert numbers == [(9, 9), (9, 1)]


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


def answers_over_udp_are_limited_and_marked() -> None:
    directory = FakeDirectory()
    directory.instances = [web(Node(f"n{number}", f"10.0.0.{number}")) for number in range(1, 60)]
    plain = ask("web.service.consul", directory=directory)
    assert len(records(plain)) == 3 and plain.flags & dns.flags.TC
    unmarked = ask("web.service.consul", directory=directory, enable_truncate=False)
    assert len(records(unmarked)) == 3 and not unmarked.flags & dns.flags.TC
    least = ask("web.service.consul", directory=directory, edns=100)
    assert len(records(least)) > 20, "512 bytes are always welcome (RFC 6891, 6.2.3)"
    larger = ask("web.service.consul", directory=directory, edns=1232)
    assert len(records(larger)) == 59 and not larger.flags & dns.flags.TC
    srv = ask("web.service.consul", "SRV", directory=directory, edns=1232)
    assert 3 < len(records(srv)) < 59 and srv.flags & dns.flags.TC
    stream = ask("web.service.consul", "SRV", directory=directory, datagram=False)
    assert len(records(stream)) == 59 == len(records(stream, "additional"))


def what_belongs_to_an_answer_that_was_cut_stands_there_once() -> None:
    directory = FakeDirectory()
    directory.instances = [replace(web(N1), service=replace(web(N1).service, port=port)) for port in range(80, 90)]
    wire = respond(dns.message.make_query("web.service.consul", "SRV").to_wire(), directory, True)
    assert wire is not None
    assert [int.from_bytes(wire[at : at + 2], "big") for at in (6, 10)] == [3, 1], "answers, additional records"


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


SENTENCES = (
    a_node_has_its_address,
    a_node_may_have_a_name_for_address,
    a_nodes_metadata_are_its_texts,
    metadata_stand_beside_addresses_while_there_is_room,
    an_unknown_name_does_not_exist_and_says_for_how_long,
    a_denial_may_be_kept_for_as_long_as_is_set,
    a_name_without_records_of_the_type_is_empty,
    another_datacenter_does_not_exist,
    a_lookup_that_fails_is_a_failure,
    a_service_has_the_addresses_of_its_instances,
    only_tcp_stands_for_no_tag,
    critical_instances_are_left_out,
    srv_records_have_ports_weights_and_targets,
    a_name_is_shown_only_if_no_instance_has_an_ip,
    a_name_of_the_domain_is_followed_by_its_records,
    an_srv_record_leads_to_an_address,
    an_address_that_is_the_very_name_is_none,
    circles_end,
    lookups_are_bounded,
    an_address_is_repeated_for_each_instance_while_there_is_room,
    a_spelled_address_is_itself,
    an_address_has_a_name,
    the_domain_has_servers,
    the_domain_of_a_name_is_found,
    answers_over_udp_are_limited_and_marked,
    what_belongs_to_an_answer_that_was_cut_stands_there_once,
    what_is_no_question_is_not_implemented,
    a_name_outside_the_domain_is_refused,
    malformed_questions_are_refused_or_dropped,
)


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda sentence: sentence.__name__)
def test_consul_answers(sentence: Callable[[], None]) -> None:
    sentence()


def no_soa(self: Responder, response: dns.message.Message, rcode: dns.rcode.Rcode) -> None:
    response.set_rcode(rcode)


async def every_alias(self: Responder, name: Any, addresses: Any, kind: int, effort: Any, depth: int) -> list[Any]:
    """A CNAME for each name, whatever else there is."""
    aliases = [address for address in addresses if not answers._is_ip(address)]
    return [(name, dns.rdata.from_text("IN", "CNAME", f"{alias}.")) for alias in aliases]


def unbounded(rows_max: int, plain: Any = answers._Effort) -> Any:
    return plain(rows_max, lookups_left=10**6)


async def no_targets(*what: Any) -> list[Any]:
    return []


def put_once(self: Responder, response: dns.message.Message, section: Any, name: Any, ttl: int, record: Any) -> None:
    response.find_rrset(section, name, dns.rdataclass.IN, record.rdtype, create=True).add(record, ttl)


MUTANTS: tuple[tuple[Any, str, Any, Callable[[], None]], ...] = (
    (Responder, "_put", put_once, an_address_is_repeated_for_each_instance_while_there_is_room),
    (answers, "_once", lambda rows: rows, an_address_is_repeated_for_each_instance_while_there_is_room),
    (Responder, "_healthy", lambda self, instances: list(instances), critical_instances_are_left_out),
    (Responder, "_negative", no_soa, an_unknown_name_does_not_exist_and_says_for_how_long),
    (
        Responder,
        "_fitted",
        lambda self, response, limit, most: response.to_wire(),
        answers_over_udp_are_limited_and_marked,
    ),
    (answers, "spelled", lambda address: "00000000", srv_records_have_ports_weights_and_targets),
    (names, "_datacenter", lambda rest, own: own, another_datacenter_does_not_exist),
    (answers, "_is_ip", lambda address: True, a_node_may_have_a_name_for_address),
    (Responder, "_address_rows", every_alias, a_name_is_shown_only_if_no_instance_has_an_ip),
    (Responder, "_target_rows", no_targets, a_name_of_the_domain_is_followed_by_its_records),
    (Responder, "_target_rows", no_targets, an_srv_record_leads_to_an_address),
    (answers, "_names", lambda address, name: False, an_address_that_is_the_very_name_is_none),
    (answers, "DEPTH_MAX", 9, circles_end),
    (answers, "_Effort", unbounded, lookups_are_bounded),
    (answers, "TARGET_RECORDS_MAX", 99, lookups_are_bounded),
    (Responder, "_add_extra_meta", lambda *what: None, metadata_stand_beside_addresses_while_there_is_room),
    (answers, "refusal", lambda wire, rcode: None, malformed_questions_are_refused_or_dropped),
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant[1]}-{mutant[3].__name__}")
def test_a_mutant_contradicts_its_sentence(
    monkeypatch: pytest.MonkeyPatch, mutant: tuple[Any, str, Any, Callable[[], None]]
) -> None:
    owner, name, broken, sentence = mutant
    monkeypatch.setattr(owner, name, broken)
    with pytest.raises((AssertionError, IndexError, ValueError)):
        sentence()


QUESTION = bytes.fromhex("000101000001000000000000")
"""The header of a question."""


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.binary(max_size=80) | st.binary(max_size=40).map(lambda tail: bytes.fromhex("000101000001000000000000") + tail)
)
def test_any_datagram_is_answered_or_dropped(wire: bytes) -> None:
    found = respond(wire, FakeDirectory(), True)
    assert found is None or (len(found) <= answers.DATAGRAM_BYTES and found[:2] == wire[:2])


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


def test_rows_that_dns_cannot_write_cost_no_other() -> None:
    rows_that_dns_cannot_write_cost_no_other()


def test_a_row_that_breaks_the_whole_answer_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Responder, "_speakable", lambda self: contextlib.nullcontext())
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


def many(count: int) -> FakeDirectory:
    directory = FakeDirectory()
    nodes = [Node(f"n{number}", f"10.0.{number >> 8}.{number & 255}", datacenter="dc1") for number in range(count)]
    directory.instances = [web(node) for node in nodes]
    return directory


def no_more_is_made_than_can_be_sent(made: list[int]) -> None:
    directory = many(3 * answers.RECORDS_MAX)
    found = ask("web.service.consul", "SRV", directory, edns=1232)
    assert found.flags & dns.flags.TC and 10 < len(records(found)) < len(made) <= 1232 // answers.RECORD_BYTES_MIN + 1
    made.clear()
    found = ask("web.service.consul", "SRV", directory, datagram=False)
    assert found.flags & dns.flags.TC and len(records(found)) <= answers.RECORDS_MAX
    assert len(made) == answers.RECORDS_MAX + 1


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    made: list[int] = []
    plain = Responder._instance_records

    async def count(self: Responder, *what: Any) -> None:
        made.append(1)
        await plain(self, *what)

    monkeypatch.setattr(Responder, "_instance_records", count)
    return made


def test_a_large_service_does_not_hold_up_the_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    no_more_is_made_than_can_be_sent(counted(monkeypatch))


def test_records_that_are_made_in_vain_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Responder, "_room", lambda self, query, datagram: (answers.STREAM_BYTES, answers.RECORDS_MAX))
    with pytest.raises(AssertionError):
        no_more_is_made_than_can_be_sent(counted(monkeypatch))


def little_metadata_is_made(made: list[int]) -> None:
    directory = many(2 * answers.RECORDS_MAX)
    directory.instances = [
        replace(each, node=replace(each.node, meta={str(key): "x" for key in range(9)})) for each in directory.instances
    ]
    ask("web.service.consul", "SRV", directory, datagram=False, node_meta_txt=True)
    ask("web.service.consul", "SRV", directory, edns=1232, node_meta_txt=True)
    assert len(made) <= 2


def counted_meta(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    made: list[int] = []
    plain = Responder._add_meta

    def count(self: Responder, *what: Any) -> None:
        made.append(1)
        plain(self, *what)

    monkeypatch.setattr(Responder, "_add_meta", count)
    return made


def test_metadata_of_a_large_service_do_not_hold_up_the_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    little_metadata_is_made(counted_meta(monkeypatch))


def test_metadata_that_are_made_in_vain_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def always(self: Responder, response: Any, name: Any, ttl: int, node: Node, effort: Any) -> None:
        self._add_meta(response, response.additional, name, ttl, node)

    monkeypatch.setattr(Responder, "_add_extra_meta", always)
    with pytest.raises(AssertionError):
        little_metadata_is_made(counted_meta(monkeypatch))


def a_large_target_costs_little(made: list[int]) -> None:
    directory = many(500)
    directory.instances += serving("web.service.consul", service="front").instances
    found = ask("front.service.consul", "SRV", directory, datagram=False)
    assert len(records(found, "additional")) == 5 and len(made) <= 6


def counted_addresses(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    made: list[int] = []
    plain = answers._ip_rows

    def count(*what: Any) -> Any:
        made.append(1)
        return plain(*what)

    monkeypatch.setattr(answers, "_ip_rows", count)
    return made


def test_the_target_of_an_srv_record_that_is_a_large_service_costs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    a_large_target_costs_little(counted_addresses(monkeypatch))


def test_addresses_of_targets_that_are_made_in_vain_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "_Effort", unbounded)
    monkeypatch.setattr(answers, "TARGET_RECORDS_MAX", 500)
    with pytest.raises(AssertionError):
        a_large_target_costs_little(counted_addresses(monkeypatch))


def test_what_fits_is_sent() -> None:
    for count in (20, 300):
        found = ask("web.service.consul", "SRV", many(count), edns=1232)
        room = 1232 // (len("n000.node.dc1.consul") + 2 + 18)
        assert abs(len(records(found)) - min(room, count)) <= 2
