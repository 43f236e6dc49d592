"""DNS answers that have to fit: what is left out, what is repeated while there is room; nothing is made in vain."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import dns.flags
import dns.message
import dns.rdataclass
import pytest
from msgspec.structs import replace

from impl.catalog.registry_queries import Instance
from impl.catalog.rows import Node
from impl.dns import answers, fitting, responder
from impl.dns.aliases import Aliases
from impl.dns.answers import Answer, Answers
from impl.dns.fitting import RECORD_BYTES_MIN, RECORDS_MAX, STREAM_BYTES, Room
from tests.impl.dns_questions import (
    N1,
    FakeDirectory,
    Mutant,
    ask,
    contradict,
    counted,
    many,
    mutant_id,
    records,
    respond,
    web,
)


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


def an_address_is_repeated_for_each_instance_while_there_is_room() -> None:
    directory = FakeDirectory()
    directory.instances = [replace(web(N1), service=replace(web(N1).service, port=number)) for number in range(80, 89)]
    numbers = []
    for payload in (4096, 513):
        query = dns.message.make_query("web.service.consul", "SRV", use_edns=0, payload=payload)
        wire = respond(query.to_wire(), directory, True)
        assert wire is not None
        numbers.append((int.from_bytes(wire[6:8], "big"), int.from_bytes(wire[10:12], "big") - 1))  # without EDNS
    assert numbers == [(9, 9), (9, 1)]


def answers_over_udp_are_limited_and_marked() -> None:
    directory = many(59)
    plain = ask("web.service.consul", directory=directory)
    assert len(records(plain)) == 3 and plain.flags & dns.flags.TC
    unmarked = ask("web.service.consul", directory=directory, enable_truncate=False)
    assert len(records(unmarked)) == 3 and not unmarked.flags & dns.flags.TC
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


def the_limit_is_for_all_who_take_512_bytes_and_ends_at_8() -> None:
    counts = [
        len(records(ask("web.service.consul", directory=many(20), edns=edns, udp_answer_limit=limit)))
        for edns, limit in ((None, 3), (512, 3), (100, 3), (None, 9), (513, 3))
    ]
    assert counts == [3, 3, 3, 8, 20]


def no_datagram_is_larger_than_can_be_sent() -> None:
    directory = FakeDirectory()
    directory.instances = [web(Node(f"{'x' * 60}{number}", "10.0.0.1", datacenter="dc1")) for number in range(1000)]
    query = dns.message.make_query("web.service.consul", "SRV", use_edns=0, payload=65_535)
    lengths = [len(respond(query.to_wire(), directory, datagram) or b"") for datagram in (True, False)]
    assert 65_000 < lengths[0] <= 65_467 < lengths[1] <= 65_535


def an_address_that_many_share_leaves_room_for_others() -> None:
    directory = FakeDirectory()
    directory.instances = [web(N1, address="10.0.0.1") for _ in range(100)] + [web(N1), web(N1, address="10.0.0.2")]
    for edns in (None, 1232):
        found = ask("web.service.consul", directory=directory, edns=edns)
        assert [row.split()[-1] for row in records(found)] == ["10.0.0.1", "10.0.0.2"]


def addresses_are_as_few_as_is_set() -> None:
    for options in ({"datagram": False}, {"edns": 1232}):
        found = ask("web.service.consul", directory=many(9), a_record_limit=2, **options)
        assert len(records(found)) == 2 and not found.flags & dns.flags.TC
        assert len(records(ask("web.service.consul", "SRV", many(9), a_record_limit=2, **options))) == 9
    assert len(records(ask("web.service.consul", directory=many(9), a_record_limit=4))) == 3
    large = ask("web.service.consul", directory=many(3 * RECORDS_MAX), a_record_limit=2 * RECORDS_MAX, datagram=False)
    assert len(records(large)) == RECORDS_MAX and large.flags & dns.flags.TC


SENTENCES = (
    metadata_stand_beside_addresses_while_there_is_room,
    an_address_is_repeated_for_each_instance_while_there_is_room,
    answers_over_udp_are_limited_and_marked,
    what_belongs_to_an_answer_that_was_cut_stands_there_once,
    the_limit_is_for_all_who_take_512_bytes_and_ends_at_8,
    no_datagram_is_larger_than_can_be_sent,
    an_address_that_many_share_leaves_room_for_others,
    addresses_are_as_few_as_is_set,
)


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda sentence: sentence.__name__)
def test_answers_fit(sentence: Callable[[], None]) -> None:
    sentence()


def put_once(answer: Answer, response: dns.message.Message) -> None:
    for section, found in ((response.answer, answer.answer), (response.additional, answer.additional)):
        for name, ttl, data in found:
            response.find_rrset(section, name, dns.rdataclass.IN, data.rdtype, create=True).add(data, ttl)


def everything(response: dns.message.Message, room: Room, *, mark: bool) -> tuple[bytes, bool]:
    return response.to_wire(), False


def addresses_of_each(instances: list[Instance], name: Any) -> Iterator[str]:
    return (each.service.address or each.node.address for each in instances)


def without_a_limit(zone: Any, selection: Any, counters: Any, enough: int) -> Aliases:
    return Aliases(zone, selection, counters, RECORDS_MAX)


MUTANTS: tuple[Mutant, ...] = (
    (responder, "_write", put_once, an_address_is_repeated_for_each_instance_while_there_is_room),
    (fitting, "_once", lambda rows: rows, an_address_is_repeated_for_each_instance_while_there_is_room),
    (responder, "fitted", everything, answers_over_udp_are_limited_and_marked),
    (fitting, "UDP_ANSWER_LIMIT_MAX", 20, the_limit_is_for_all_who_take_512_bytes_and_ends_at_8),
    (fitting, "DATAGRAM_BYTES", 99, the_limit_is_for_all_who_take_512_bytes_and_ends_at_8),
    (fitting, "DATAGRAM_BYTES_MAX", 65_535, no_datagram_is_larger_than_can_be_sent),
    (answers, "addresses_of", addresses_of_each, an_address_that_many_share_leaves_room_for_others),
    (answers, "Aliases", without_a_limit, addresses_are_as_few_as_is_set),
    (Answers, "_add_metadata", lambda *what: None, metadata_stand_beside_addresses_while_there_is_room),
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=mutant_id)
def test_a_mutant_contradicts_its_sentence(monkeypatch: pytest.MonkeyPatch, mutant: Mutant) -> None:
    contradict(monkeypatch, mutant)


def no_more_is_made_than_can_be_sent(made: list[int]) -> None:
    directory = many(3 * RECORDS_MAX)
    found = ask("web.service.consul", "SRV", directory, edns=1232)
    assert found.flags & dns.flags.TC and 10 < len(records(found)) < len(made) <= 1232 // RECORD_BYTES_MIN + 1
    made.clear()
    found = ask("web.service.consul", "SRV", directory, datagram=False)
    assert found.flags & dns.flags.TC and len(records(found)) <= RECORDS_MAX
    assert len(made) == RECORDS_MAX + 1


def test_a_large_service_does_not_hold_up_the_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    no_more_is_made_than_can_be_sent(counted(monkeypatch, Answers, "_add_instance"))


def test_records_that_are_made_in_vain_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responder, "room_for", lambda *asked, datagram: Room(STREAM_BYTES, RECORDS_MAX))
    with pytest.raises(AssertionError):
        no_more_is_made_than_can_be_sent(counted(monkeypatch, Answers, "_add_instance"))


def little_metadata_is_made(made: list[int]) -> None:
    directory = many(2 * RECORDS_MAX)
    directory.instances = [
        replace(each, node=replace(each.node, meta={str(key): "x" for key in range(9)})) for each in directory.instances
    ]
    ask("web.service.consul", "SRV", directory, datagram=False, node_meta_txt=True)
    ask("web.service.consul", "SRV", directory, edns=1232, node_meta_txt=True)
    assert len(made) <= 2


def test_metadata_of_a_large_service_do_not_hold_up_the_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    little_metadata_is_made(counted(monkeypatch, answers, "metadata_rows"))


def test_metadata_that_are_made_in_vain_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Answers._add_metadata

    def always(self: Answers, *what: Any) -> None:
        self._enough = 10**6
        plain(self, *what)

    monkeypatch.setattr(Answers, "_add_metadata", always)
    with pytest.raises(AssertionError):
        little_metadata_is_made(counted(monkeypatch, answers, "metadata_rows"))


def test_what_fits_is_sent() -> None:
    for count in (20, 300):
        found = ask("web.service.consul", "SRV", many(count), edns=1232)
        room = 1232 // (len("n000.node.dc1.consul") + 2 + 18)
        assert abs(len(records(found)) - min(room, count)) <= 2
