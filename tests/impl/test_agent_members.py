"""Who is who: under the name of a member only that member, with the data directory that remembers its votes."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from impl.agent.logs import Log
from impl.agent.membership import autopilot
from impl.agent.membership import members as module
from impl.agent.membership.autopilot import NEVER_MS
from impl.agent.membership.discovery import Discovery, configuration_of, make_genesis
from impl.agent.membership.members import Members
from impl.agent.membership.operations import RaftServer, ServerHealth
from impl.agent.requests.protocol import ServerInfo
from impl.raft import membership
from impl.raft.configuration import Configuration, Member
from impl.raft.core import Core
from impl.raft.ready import Role
from impl.raft.settings import Restored, Settings
from impl.rpc.handshake import PROTOCOL, AgentRole, Hello, Purpose
from impl.rpc.timings import Timings

GENESIS = make_genesis([(f"s{number}", f"id-{number}", f"disk-{number}") for number in (1, 2, 3)])
THREE = configuration_of(GENESIS)


def info(number: int, storage: str | None = None) -> ServerInfo:
    return ServerInfo(f"s{number}", f"id-{number}", "127.0.0.1", 8000 + number, 1, storage or f"disk-{number}")


def hello(number: int, storage: str | None = None, purpose: Purpose = Purpose.RAFT) -> Hello:
    who = info(number, storage)
    return Hello(
        PROTOCOL, GENESIS.cluster_id, who.node_id, who.name, "dc1", 1, AgentRole.SERVER, purpose, who.storage_id
    )


class FakeCore:
    """A follower with a configuration."""

    role = Role.FOLLOWER
    term = 1
    leader_id = "s2"
    commit_index = 100
    last_index = 40

    def __init__(self) -> None:
        self.configuration = THREE
        self.server: Any = type("FakeServer", (), {"progress": {}})()


class FakeDriver:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.core = FakeCore()
        self.told: list[tuple[object, ...]] = []

    def peer_connected(self, peer: str) -> None:
        self.told.append(("connected", peer))

    def peer_lost(self, peer: str) -> None:
        self.told.append(("lost", peer))

    def process_ended(self, peer: str, incarnation: int) -> None:
        self.told.append(("ended", peer, incarnation))


class Links:
    """Links that are only noted."""

    def __init__(self, *_: object) -> None:
        self.dialled: dict[str, str] = {}
        self.nudged: list[str] = []

    def dial(self, name: str, address: object) -> None:
        self.dialled[name] = str(address)

    def keep(self, names: set[str]) -> None:
        self.dialled = {name: address for name, address in self.dialled.items() if name in names}

    def nudge(self, name: str) -> None:
        self.nudged.append(name)

    def is_connected(self, name: str) -> bool:
        return name in self.dialled


class World:
    """s1 of a formed cluster, which has met s2, s3 and s4."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "PeerLinks", Links)
        self.discovery = Discovery(info(1), 3, GENESIS)
        for number in (2, 3, 4):
            self.discovery.known[f"s{number}"] = info(number)
        nothing: Any = None
        self.wall_ns = 10**18
        runtime: Any = SimpleNamespace(clock=SimpleNamespace(wall_ns=lambda: self.wall_ns))
        self.members = Members(
            runtime, self.discovery, nothing, lambda: hello(1), Timings(), Log(lambda line: None, lambda: 0.0)
        )
        self.links: Any = self.members.links
        self.fake = FakeDriver()
        driver: Any = self.fake
        self.members.formed(driver)

    def configure(self, *numbers: int, index: int = 9, **storages: str) -> None:
        """The servers of these numbers are the members from now on; `s3="new"` gives one another storage."""
        rows = [info(number, storages.get(f"s{number}")) for number in numbers]
        members = tuple(Member(row.name, row.node_id, row.storage_id, f"old:{row.port}") for row in rows)
        self.fake.core.configuration = Configuration(members, index=index)
        self.members.follow()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def links_follow_the_configuration(world: World) -> None:
    assert sorted(world.links.dialled) == ["s2", "s3"]
    world.configure(1, 2, 4)
    assert sorted(world.links.dialled) == ["s2", "s4"]


def a_server_that_holds_a_link_is_answered_though_it_is_no_member_yet(world: World) -> None:
    world.members.dialled(hello(4))
    assert "s4" in world.links.dialled
    world.members.hung_up(hello(4))
    world.members.follow()
    assert "s4" not in world.links.dialled


def a_server_that_lost_its_data_directory_is_refused_by_the_members(world: World) -> None:
    refusal = world.members.admit(hello(3, "new"))
    assert refusal is not None
    assert "data directory lost" in refusal.text
    assert "remove-peer -id=id-3`, then start this server again" in refusal.text
    assert world.members.admit(hello(3)) is None
    assert world.members.admit(hello(3, "new", Purpose.RPC)) is None, "or else nobody could tell it"


def once_it_was_removed_the_name_is_free(world: World) -> None:
    world.configure(1, 2)
    assert world.members.admit(hello(3, "new")) is None


def a_vote_of_a_new_server_does_not_count_as_that_of_the_old_one_of_its_name(world: World) -> None:
    world.discovery.configured(Configuration(THREE.members[:2], index=9))  # others know that s3 was removed
    world.members.follow()
    assert world.members.admit(hello(3, "new")) is None
    assert not world.members.speaks_for_itself(hello(3, "new")), "this server's own log still counts the old s3"
    assert world.members.speaks_for_itself(hello(3))
    world.configure(1, 2, 3, s3="new")
    assert world.members.speaks_for_itself(hello(3, "new"))
    assert not world.members.speaks_for_itself(hello(3))


def what_others_know_of_a_removal_counts_before_the_own_log_does(world: World) -> None:
    assert world.members.named
    world.discovery.configured(Configuration(THREE.members[1:], index=9))
    world.members.follow()
    assert not world.members.named


def a_configuration_that_is_not_committed_is_in_force_and_told_to_nobody(world: World) -> None:
    world.configure(1, 2, index=101)
    assert world.discovery.roster().names == ("s1", "s2")
    assert world.discovery.latest().names == ("s1", "s2", "s3")
    world.fake.core.commit_index = 101
    world.members.follow()
    assert world.discovery.latest().names == ("s1", "s2")


def a_later_process_of_a_peer_is_evidence_that_the_earlier_one_has_ended(world: World) -> None:
    world.members.connected(hello(2))
    world.members.dialled(msgspec.structs.replace(hello(2), incarnation=2))
    assert ("ended", "s2", 1) in world.fake.told


SENTENCES = [
    links_follow_the_configuration,
    a_server_that_holds_a_link_is_answered_though_it_is_no_member_yet,
    a_server_that_lost_its_data_directory_is_refused_by_the_members,
    once_it_was_removed_the_name_is_free,
    a_vote_of_a_new_server_does_not_count_as_that_of_the_old_one_of_its_name,
    what_others_know_of_a_removal_counts_before_the_own_log_does,
    a_configuration_that_is_not_committed_is_in_force_and_told_to_nobody,
    a_later_process_of_a_peer_is_evidence_that_the_earlier_one_has_ended,
]


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda sentence: str(sentence.__name__))
def test_members(world: World, sentence: Callable[[World], None]) -> None:
    sentence(world)


@pytest.mark.parametrize(
    ("owner", "name", "mutant", "sentence"),
    [
        (Links, "keep", lambda self, names: None, links_follow_the_configuration),
        (Members, "admit", lambda self, hello: None, a_server_that_lost_its_data_directory_is_refused_by_the_members),
        (
            Members,
            "speaks_for_itself",
            lambda self, sender: self.admit(sender) is None,
            a_vote_of_a_new_server_does_not_count_as_that_of_the_old_one_of_its_name,
        ),
        (
            Discovery,
            "latest",
            lambda self: self.in_force or THREE,
            a_configuration_that_is_not_committed_is_in_force_and_told_to_nobody,
        ),
        (
            Discovery,
            "roster",
            lambda self: self.in_force or THREE,
            what_others_know_of_a_removal_counts_before_the_own_log_does,
        ),
    ],
)
def test_broken_membership_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
    owner: object,
    name: str,
    mutant: object,
    sentence: Callable[[World], None],
) -> None:
    assert hasattr(owner, name)
    monkeypatch.setattr(owner, name, mutant)
    with pytest.raises(AssertionError):
        sentence(World(monkeypatch))


def a_server_is_no_voter_by_a_configuration_that_names_the_one_it_replaces() -> None:
    for storage_id, voter in (("disk-1", True), ("new", False), ("", True)):
        settings = Settings(name="s1", storage_id=storage_id)
        core = Core(settings, THREE.members, Restored(), Random(1), trace=False, now_ns=1)
        assert core.server.is_voter is voter, storage_id
        for tick in range(1, 200):
            core.advance_clock(tick * 10_000_000)
            core.tick()
        assert bool(core.ready().messages) is voter, "a voter asks whether it would be elected, nobody else does"


def test_a_server_is_no_voter_by_a_configuration_that_names_the_one_it_replaces() -> None:
    a_server_is_no_voter_by_a_configuration_that_names_the_one_it_replaces()


def test_a_server_that_takes_itself_for_the_one_it_replaces_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "is_me", lambda server, member: True)
    with pytest.raises(AssertionError):
        a_server_is_no_voter_by_a_configuration_that_names_the_one_it_replaces()


def test_the_description_says_where_servers_were_met_last_and_else_where_they_were_added(world: World) -> None:
    world.configure(1, 2, 5)
    described = world.members.describe()
    assert described.index == 9
    assert described.servers == (
        RaftServer("id-1", "s1", "127.0.0.1:8001", False, True, 40),
        RaftServer("id-2", "s2", "127.0.0.1:8002", True, True, 0),
        RaftServer("id-5", "s5", "old:8005", False, True, 0),
    )
    assert world.members.addresses() == ("127.0.0.1:8001", "127.0.0.1:8002", "old:8005")


def a_leader_says_how_well_its_members_are(world: World) -> None:
    core = world.fake.core
    progress = {"s2": (40, 95), "s3": (30, 20)}
    core.server = SimpleNamespace(
        ticks=100,
        log=SimpleNamespace(base=35, term_at=lambda index: 7),
        progress={
            name: SimpleNamespace(match_index=match, answered_at=answered)
            for name, (match, answered) in progress.items()
        },
    )
    core.role, core.term = Role.LEADER, 7
    world.configure(1, 2, 3, 5)
    healths = world.members.healths()
    assert healths["s1"] == ServerHealth(True, True, 0, 7, world.wall_ns)
    assert healths["s2"] == ServerHealth(True, True, 50, 7, world.wall_ns)
    assert healths["s3"] == ServerHealth(False, True, 800, 0, world.wall_ns), "it was not heard for too long"
    assert healths["s5"] == ServerHealth(False, False, NEVER_MS, 0, world.wall_ns), "nobody has ever met it"
    begun, world.wall_ns = world.wall_ns, world.wall_ns + 10**9
    core.server.progress["s3"].answered_at = 100
    later = world.members.healths()
    assert (later["s3"].healthy, later["s3"].since_ns) == (True, world.wall_ns)
    assert (later["s2"].healthy, later["s2"].since_ns) == (True, begun)
    assert [server.health for server in world.members.describe().servers] == list(later.values())
    core.role = Role.FOLLOWER
    assert world.members.healths() == {}


def test_a_leader_says_how_well_its_members_are(world: World) -> None:
    a_leader_says_how_well_its_members_are(world)


@pytest.mark.parametrize(
    ("owner", "name", "mutant"),
    [
        (autopilot.Observation, "healthy", True),
        (autopilot.Stability, "look", lambda self, term, now_ns, observed: {each.name: now_ns for each in observed}),
        (module, "NEVER_MS", 0),
    ],
    ids=["all-are-well", "nobody-is-stable", "never-is-just-now"],
)
def test_a_wrong_diagnosis_is_noticed(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, mutant: Any) -> None:
    monkeypatch.setattr(owner, name, mutant)
    with pytest.raises(AssertionError):
        a_leader_says_how_well_its_members_are(World(monkeypatch))


def test_a_peer_that_dials_is_dialled_at_once(world: World) -> None:
    world.members.dialled(hello(2))
    assert world.links.nudged == ["s2"]
