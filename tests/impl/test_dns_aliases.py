"""DNS answers about addresses that are names: CNAMEs, what they lead to, and how far."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dns.flags
import dns.rdata
import pytest
from msgspec.structs import replace

from impl.catalog.rows import Node
from impl.dns import aliases, answers, selection
from impl.dns.aliases import TARGETS_MAX, Aliases
from impl.dns.records import is_ip
from tests.impl.dns_questions import (
    EXTERNAL,
    N1,
    V6,
    FakeDirectory,
    Mutant,
    ask,
    contradict,
    counted,
    many,
    mutant_id,
    records,
    serving,
)


def a_name_is_shown_only_if_no_instance_has_an_ip() -> None:
    mixed = serving("a.example.com", "192.0.2.7", "b.example.com")
    assert records(ask("web.service.consul", directory=mixed)) == ["web.service.consul. A 192.0.2.7"]
    assert records(ask("web.service.consul", "ANY", mixed)) == ["web.service.consul. A 192.0.2.7"]
    for kind in ("AAAA", "CNAME"):
        assert records(ask("web.service.consul", kind, mixed)) == [], "a CNAME would stand for the IPv4 address, too"
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
    directory = serving(*(f"n{number}.node.consul" for number in range(3 * TARGETS_MAX)))
    found = ask("web.service.consul", "SRV", directory, datagram=False)
    assert len(records(found)) == 3 * TARGETS_MAX
    assert directory.lookups == 1 + TARGETS_MAX
    directory = serving(*["db.service.consul"] * 9)
    directory.instances += [replace(each, node=V6) for each in serving(*["192.0.2.7"], service="db").instances]
    directory.instances += serving(*(f"192.0.2.{number}" for number in range(10, 90)), service="db").instances
    found = ask("web.service.consul", "SRV", directory, edns=4096)
    assert directory.lookups == 2
    assert len(records(found, "additional")) == 5


SENTENCES = (
    a_name_is_shown_only_if_no_instance_has_an_ip,
    a_name_of_the_domain_is_followed_by_its_records,
    an_srv_record_leads_to_an_address,
    an_address_that_is_the_very_name_is_none,
    circles_end,
    lookups_are_bounded,
)


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda sentence: sentence.__name__)
def test_names_lead_to_addresses(sentence: Callable[[], None]) -> None:
    sentence()


async def every_alias(self: Aliases, name: Any, addresses: Any, kind: int, depth: int = 0) -> list[Any]:
    """A CNAME for each name, whatever else there is."""
    aliases = [address for address in addresses if not is_ip(address)]
    return [(name, dns.rdata.from_text("IN", "CNAME", f"{alias}.")) for alias in aliases]


async def alias_for_other_types(
    self: Aliases, name: Any, addresses: Any, kind: int, depth: int = 0, plain: Any = Aliases.address_rows
) -> Any:
    """As Consul: a CNAME beside IPs, if none is of the type."""
    found = list(addresses)
    named = [address for address in found if not is_ip(address)]
    return await plain(self, name, found, kind, depth) or await plain(self, name, named, kind, depth)


def unbounded(*what: Any) -> Aliases:
    made = Aliases(*what)
    made._lookups_left = 10**6
    return made


async def no_targets(*what: Any) -> list[Any]:
    return []


MUTANTS: tuple[Mutant, ...] = (
    (Aliases, "address_rows", every_alias, a_name_is_shown_only_if_no_instance_has_an_ip),
    (Aliases, "address_rows", alias_for_other_types, a_name_is_shown_only_if_no_instance_has_an_ip),
    (Aliases, "target_rows", no_targets, a_name_of_the_domain_is_followed_by_its_records),
    (Aliases, "target_rows", no_targets, an_srv_record_leads_to_an_address),
    (selection, "is_name", lambda address, name: False, an_address_that_is_the_very_name_is_none),
    (aliases, "DEPTH_MAX", 9, circles_end),
    (answers, "Aliases", unbounded, lookups_are_bounded),
    (answers, "TARGET_RECORDS_MAX", 99, lookups_are_bounded),
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=mutant_id)
def test_a_mutant_contradicts_its_sentence(monkeypatch: pytest.MonkeyPatch, mutant: Mutant) -> None:
    contradict(monkeypatch, mutant)


def a_large_target_costs_little(made: list[int]) -> None:
    directory = many(500)
    directory.instances += serving("web.service.consul", service="front").instances
    found = ask("front.service.consul", "SRV", directory, datagram=False)
    assert len(records(found, "additional")) == 5 and len(made) <= 6


def test_the_target_of_an_srv_record_that_is_a_large_service_costs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    a_large_target_costs_little(counted(monkeypatch, aliases, "ip_rows"))


def test_addresses_of_targets_that_are_made_in_vain_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "Aliases", unbounded)
    monkeypatch.setattr(answers, "TARGET_RECORDS_MAX", 500)
    with pytest.raises(AssertionError):
        a_large_target_costs_little(counted(monkeypatch, aliases, "ip_rows"))
