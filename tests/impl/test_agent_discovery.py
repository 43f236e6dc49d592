"""When servers form a cluster, join one, or are refused: decided by what servers say of themselves."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from impl.agent.config.validated import Address
from impl.agent.membership import discovery as module
from impl.agent.membership.discovery import FRESH_NS, Conflict, Discovery, Refused, configuration_of, make_genesis
from impl.agent.requests.protocol import Discovered, Identity, ServerInfo
from impl.raft.configuration import Configuration, Member
from impl.storage.records import Genesis

NOW = 10**12


def identity(name: str) -> Identity:
    return name, f"id-{name}", f"storage-{name}"


THREE = make_genesis([identity("s1"), identity("s2"), identity("s3")])


def info(name: str, node_id: str | None = None, storage_id: str | None = None) -> ServerInfo:
    port = 8000 + ord(name[-1])
    return ServerInfo(name, node_id or f"id-{name}", "127.0.0.1", port, 0, storage_id or f"storage-{name}")


def server(
    name: str,
    expect: int = 3,
    node_id: str | None = None,
    genesis: Genesis | None = None,
    storage_id: str | None = None,
) -> Discovery:
    return Discovery(info(name, node_id, storage_id), expect, genesis)


def without(name: str, genesis: Genesis = THREE, index: int = 7) -> Configuration:
    """The configuration after a server was removed."""
    return Configuration(tuple(m for m in configuration_of(genesis).members if m.name != name), index=index)


def ask(asker: Discovery, asked: Discovery, now: int = NOW) -> Discovered:
    """One introduction and its answer, as over RPC."""
    asked.hear(asker.introduction())
    reply = asked.answer(now)
    asker.learn(reply, now)
    return reply


def introduce_all(servers: list[Discovery], rounds: int = 2) -> None:
    for _ in range(rounds):
        for asker in servers:
            for asked in servers:
                if asker is not asked:
                    ask(asker, asked)


def a_cluster_forms_when_all_name_the_same_set() -> None:
    servers = [server(name) for name in ("s1", "s2", "s3")]
    introduce_all(servers)
    decided = {one.decide(NOW) for one in servers}
    assert decided == {THREE}


def nobody_forms_before_the_others_name_the_same_set() -> None:
    s1, s2, s3 = servers = [server(name) for name in ("s1", "s2", "s3")]
    ask(s1, s2)
    ask(s1, s3)
    assert [one.decide(NOW) for one in servers] == [None, None, None], "s2 and s3 have not said that they see all three"


def nobody_forms_with_a_server_that_went_silent() -> None:
    servers = [server(name) for name in ("s1", "s2", "s3")]
    introduce_all(servers)
    assert servers[0].decide(NOW + FRESH_NS + 1) is None


def a_server_adopts_the_genesis_that_names_it() -> None:
    formed, late = server("s1", genesis=THREE), server("s3")
    ask(late, formed)
    assert late.decide(NOW) == THREE


def a_server_that_the_genesis_does_not_name_adopts_it_to_join() -> None:
    for expect in (0, 3):
        stranger = server("s4", expect)
        ask(stranger, server("s1", genesis=THREE))
        assert stranger.decide(NOW) == THREE


def a_server_that_lost_its_data_directory_is_refused() -> None:
    wiped = server("s3", node_id="id-new", storage_id="new")
    ask(wiped, server("s1", genesis=THREE))
    with pytest.raises(Refused, match="remove-peer -id=id-s3` and start this server again"):
        wiped.decide(NOW)


def a_server_that_lost_its_data_directory_and_kept_its_node_id_is_refused() -> None:
    wiped = server("s3", storage_id="new")
    ask(wiped, server("s1", genesis=THREE))
    with pytest.raises(Refused, match=r"data directory lost.* remove-peer -id=id-s3`, then start this server again"):
        wiped.decide(NOW)


def a_copied_node_id_under_another_name_is_refused() -> None:
    copy = server("s4", node_id="id-s3")
    ask(copy, server("s1", genesis=THREE))
    with pytest.raises(Refused, match="knows node ID id-s3 by the name 's3'"):
        copy.decide(NOW)


def what_the_newest_configuration_says_counts_and_not_the_genesis() -> None:
    wiped, s1, s2 = server("s3", storage_id="new"), server("s1", genesis=THREE), server("s2", genesis=THREE)
    s2.configured(without("s3"))
    ask(wiped, s1)
    ask(wiped, s2)
    assert wiped.decide(NOW) == THREE, "s3 was removed: it may join as a new server"
    added = Configuration((*without("s3").members, Member("s4", "id-s4", "storage-s4")), index=9)
    s1.configured(added)
    stranger = server("s4", storage_id="another")
    ask(stranger, s2)
    ask(stranger, s1)
    with pytest.raises(Refused, match="data directory lost"):
        stranger.decide(NOW)


def another_expectation_is_another_cluster() -> None:
    servers = [server("s1"), server("s2"), server("s3", expect=5)]
    introduce_all(servers)
    assert [one.decide(NOW) for one in servers] == [None, None, None]


def a_server_that_asks_itself_counts_once() -> None:
    alone = server("s1", expect=2)
    ask(alone, alone)
    assert alone.decide(NOW) is None


SENTENCES = [
    a_server_that_asks_itself_counts_once,
    a_cluster_forms_when_all_name_the_same_set,
    nobody_forms_before_the_others_name_the_same_set,
    nobody_forms_with_a_server_that_went_silent,
    a_server_adopts_the_genesis_that_names_it,
    a_server_that_the_genesis_does_not_name_adopts_it_to_join,
    a_server_that_lost_its_data_directory_is_refused,
    a_server_that_lost_its_data_directory_and_kept_its_node_id_is_refused,
    a_copied_node_id_under_another_name_is_refused,
    what_the_newest_configuration_says_counts_and_not_the_genesis,
    another_expectation_is_another_cluster,
]


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda sentence: str(sentence.__name__))
def test_formation(sentence: object) -> None:
    assert callable(sentence)
    sentence()


def hasty(self: Discovery, now_ns: int) -> Genesis | None:
    candidates = self.candidates(now_ns)
    return make_genesis(candidates) if len(candidates) == self.bootstrap_expect else None


@pytest.mark.parametrize(
    ("name", "mutant", "sentence"),
    [
        ("decide", hasty, nobody_forms_before_the_others_name_the_same_set),
        ("_adopt", lambda self, reply: reply.genesis, a_server_that_lost_its_data_directory_is_refused),
        (
            "_adopt",
            lambda self, reply: reply.genesis,
            a_server_that_lost_its_data_directory_and_kept_its_node_id_is_refused,
        ),
        ("_adopt", lambda self, reply: reply.genesis, a_copied_node_id_under_another_name_is_refused),
        (
            "latest",
            lambda self: configuration_of(self.genesis) if self.genesis else Configuration(()),
            what_the_newest_configuration_says_counts_and_not_the_genesis,
        ),
        ("_fresh", lambda self, now: list(self._replies.values()), nobody_forms_with_a_server_that_went_silent),
    ],
)
def test_broken_formation_is_noticed(
    monkeypatch: pytest.MonkeyPatch, name: str, mutant: object, sentence: object
) -> None:
    assert hasattr(Discovery, name)
    assert callable(sentence)
    monkeypatch.setattr(Discovery, name, mutant)
    with pytest.raises((AssertionError, Refused, pytest.fail.Exception)):
        sentence()


NAMES = ["s1", "s2", "s3", "s4"]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)), max_size=60))
def test_four_servers_that_expect_three_never_form_two_clusters_that_share_a_majority(
    meetings: list[tuple[str, str]],
) -> None:
    servers = {name: server(name) for name in NAMES}
    for asker, asked in meetings:
        if asker != asked:
            try:
                ask(servers[asker], servers[asked])
            except Conflict:
                raise AssertionError("all names differ") from None
            one = servers[asker]
            if one.genesis is None:
                try:
                    one.genesis = one.decide(NOW)
                except Refused:
                    del servers[asker]
                    servers[asker] = server(asker)  # an operator starts it again
    held = [one.genesis for one in servers.values() if one.genesis is not None]
    for genesis in held:
        members = [voter.name for voter in genesis.voters]
        assert len(members) == 3
    majorities = {genesis.cluster_id for genesis in held if held.count(genesis) >= 2}
    assert len(majorities) <= 1


def test_a_second_server_of_the_same_name_is_a_conflict_that_says_what_to_do() -> None:
    with pytest.raises(Conflict, match="give one of the two another -node name"):
        ask(server("s1"), server("s1", node_id="other"))


def test_a_second_data_directory_under_one_identity_is_a_conflict_that_says_what_to_do() -> None:
    with pytest.raises(Conflict, match="stop one of the two"):
        ask(server("s1"), server("s1", storage_id="other"))


def test_a_copied_data_directory_is_a_conflict_that_says_what_to_do() -> None:
    with pytest.raises(Conflict, match="own -data-dir"):
        ask(server("s1", node_id="same"), server("s2", node_id="same"))


def test_hearsay_accuses_nobody_and_replaces_nothing() -> None:
    s1, s2 = server("s1"), server("s2")
    s2.known["s1"] = info("s1", "a stranger's id")
    s2.known["s3"] = ServerInfo("s3", "id-s3", "127.0.0.1", 1)
    s1.known["s3"] = ServerInfo("s3", "id-s3", "127.0.0.1", 2)
    ask(s1, s2)
    assert s1.known["s3"].port == 2
    assert "s1" not in s1.known


def test_an_impostor_is_not_sent_what_is_meant_for_a_voter() -> None:
    s1 = server("s1", genesis=THREE)
    s1.hear(server("s2").introduction())
    s1.hear(server("s2", node_id="impostor").introduction())
    s1.hear(server("s2", storage_id="wiped").introduction())
    assert s1.known["s2"] == info("s2")
    s1.in_force = without("s2")
    s1.hear(server("s2", storage_id="wiped").introduction())
    assert s1.known["s2"].storage_id == "wiped", "once it is removed, the name is free"


def test_an_older_configuration_does_not_replace_a_newer_one() -> None:
    s1 = server("s1", genesis=THREE)
    s1.configured(without("s3", index=9))
    s1.configured(without("s2", index=8))
    assert [member.name for member in s1.latest().members] == ["s1", "s2"]


def test_the_configuration_of_another_cluster_is_nobodys_business() -> None:
    other = server("s5", genesis=make_genesis([identity("s5"), identity("s6")]))
    other.configured(Configuration((Member("s5", "id-s5", "storage-s5"),), index=99))
    s1 = server("s1", genesis=THREE)
    ask(s1, other)
    assert s1.latest() == configuration_of(THREE)


def test_hearsay_says_where_a_server_is_that_was_started_again() -> None:
    client, s1 = Discovery(None, 0, None), server("s1")
    for incarnation, port in ((1, 21), (2, 22), (1, 21)):
        s1.known["s2"] = ServerInfo("s2", "id-s2", "127.0.0.1", port, incarnation, "storage-s2")
        ask(client, s1)
    assert client.known["s2"].port == 22


def test_servers_that_were_told_of_one_another_by_a_third_meet() -> None:
    s1, s2, s3 = server("s1"), server("s2"), server("s3")
    ask(s2, s1)
    ask(s3, s1)
    assert info("s3").address in s2.addresses(()) or info("s2").address in s3.addresses(())


def test_a_server_does_not_ask_itself() -> None:
    mine = info("s1").address
    assert server("s1").addresses((mine, Address("127.0.0.1", 9))) == [Address("127.0.0.1", 9)]


def test_a_member_that_nobody_met_is_looked_for_where_it_was_when_it_was_added() -> None:
    s1 = server("s1", genesis=THREE)
    added = Member("s4", "id-s4", "storage-s4", "127.0.0.1:4")
    s1.in_force = Configuration((*configuration_of(THREE).members, added), index=9)
    assert s1.addresses(()) == [Address("127.0.0.1", 4)]
    s1.known["s4"] = ServerInfo("s4", "id-s4", "127.0.0.1", 44, 1, "storage-s4")
    assert s1.addresses(()) == [Address("127.0.0.1", 44)], "it was met elsewhere since"


def test_more_servers_than_expected_are_named() -> None:
    servers = [server(name) for name in NAMES]
    introduce_all(servers)
    assert servers[0].decide(NOW) is None
    assert servers[0].surplus(NOW) == NAMES


def test_the_cluster_id_depends_on_names_and_ids_and_not_on_their_order() -> None:
    one = make_genesis([("a", "1", "x"), ("b", "2", "y")])
    assert one == make_genesis([("b", "2", "y"), ("a", "1", "x")])
    assert one.cluster_id != make_genesis([("a", "1", "x"), ("b", "3", "y")]).cluster_id
    assert one.cluster_id != make_genesis([("a", "1", "x"), ("b", "2", "z")]).cluster_id
    assert module.make_genesis([("a", "2", "x"), ("b", "1", "y")]).cluster_id != one.cluster_id
