"""What a leader does before it changes the members: it asks who is meant, and whether a quorum is there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from impl.agent.config.validated import Address
from impl.agent.logs import Log
from impl.agent.membership import reconfiguration as module
from impl.agent.membership.discovery import Discovery, make_genesis
from impl.agent.membership.operations import AddPeer, Demote, Join, Promote, RemovePeer, TransferLeader
from impl.agent.membership.reconfiguration import Reconfiguration
from impl.agent.requests.api import AgentError, DefiniteError, NoClusterLeader
from impl.agent.requests.changes import Changes
from impl.agent.requests.forwarding import Retriable
from impl.agent.requests.protocol import DISCOVER, STATUS, Discovered, ServerInfo
from impl.raft.configuration import Configuration, Member, with_voter
from impl.raft.errors import ConfigurationInProgress, WouldLoseQuorum
from impl.raft.ready import Role
from impl.rpc.errors import ConnectFailed
from impl.runtime.interfaces import MILLISECONDS, Future, Runtime
from impl.runtime.real import run

GENESIS = make_genesis([(f"s{number}", f"id-{number}", f"disk-{number}") for number in (1, 2, 3)])


def info(number: int, **changes: Any) -> ServerInfo:
    plain = ServerInfo(f"s{number}", f"id-{number}", "127.0.0.1", 8000 + number, 1, f"disk-{number}")
    return msgspec.structs.replace(plain, **changes)


def member(number: int, *, voter: bool = True, staging: bool = False) -> Member:
    return Member(f"s{number}", f"id-{number}", f"disk-{number}", f"127.0.0.1:{8000 + number}", voter, staging)


class Progress:
    def __init__(self, match_index: int) -> None:
        self.match_index = match_index


class World:
    """s1 leads; servers that are `there` answer; what is asked of the core is noted and done at once."""

    def __init__(self, *members: Member) -> None:
        self.configuration = Configuration(members or tuple(member(number) for number in (1, 2, 3)), index=5)
        self.there = {number: info(number) for number in (1, 2, 3, 4)}
        self.genesis = dict.fromkeys(self.there, GENESIS)
        self.match = {f"s{number}": 1000 for number in self.there}
        self.changes: list[tuple[Member, ...]] = []
        self.transfers: list[str | None] = []
        self.role = Role.LEADER
        self.refusal: Exception | None = None
        self.commit_index = 1000
        self.asked: list[str] = []

    # as much of a driver and its core

    @property
    def core(self) -> Any:
        return self

    @property
    def server(self) -> Any:
        return self

    @property
    def progress(self) -> dict[str, Progress]:
        return {name: Progress(match) for name, match in self.match.items()}

    last_index = 1000
    term = 3

    def change_configuration(self, members: tuple[Member, ...]) -> Awaitable[int]:
        if self.refusal is not None:
            raise self.refusal
        self.changes.append(members)
        self.configuration = Configuration(members, index=self.configuration.index + 1)
        return self._done(self.configuration.index)

    def transfer_leadership(self, to: str | None) -> Awaitable[None]:
        self.transfers.append(to)
        return self._done(None)

    async def _done(self, result: Any) -> Any:
        return result

    # as much of the members, their links and the pool

    myself = info(1)

    @property
    def driver(self) -> Any:
        return self

    @property
    def links(self) -> Any:
        return self

    def is_connected(self, name: str) -> bool:
        return int(name[1:]) in self.there

    def address_of(self, name: str) -> str:
        return f"127.0.0.1:{8000 + int(name[1:])}"

    def follow(self) -> None:
        """Nothing to link to."""

    async def call(self, to: str | Address, method: str, body: bytes, timeout_ns: int) -> bytes:
        number = to.port - 8000 if isinstance(to, Address) else int(to[1:])
        self.asked.append(method)
        if number not in self.there:
            raise ConnectFailed("dial: Connection refused")
        if method == STATUS:
            return b""
        assert method == DISCOVER
        reply = Discovered(self.there[number], 3, self.genesis[number], (), ())
        return msgspec.msgpack.encode(reply)

    def execute(self, operation: Any) -> Any:
        """Its result, or the error."""
        results: list[Any] = []

        async def main(runtime: Runtime) -> int:
            it: Any = self
            discovery = Discovery(info(1), 3, GENESIS)
            log = Log(lambda line: None, lambda: 0.0)
            reconfiguration = Reconfiguration(runtime, discovery, it, it, Changes(runtime), log)
            try:
                results.append(await reconfiguration.execute(operation))
            except (Retriable, AgentError) as error:
                results.append(error)
            return 0

        assert run(main) == 0
        return results[0]


def refused(world: World, operation: Any, reason: str) -> None:
    """It is refused with the reason, definitely, and nothing is changed."""
    before = world.configuration
    outcome = world.execute(operation)
    assert isinstance(outcome, DefiniteError), outcome
    assert reason in str(outcome)
    assert (world.changes, world.configuration) == ([], before)


def a_server_is_added_as_a_non_voter_that_is_to_be_promoted() -> None:
    for operation, staging in (
        (Join(info(4), read_replica=False), True),
        (Join(info(4), read_replica=True), False),
        (AddPeer("127.0.0.1:8004"), True),
        (AddPeer("127.0.0.1:8004", "id-4", "s4", non_voter=True), False),
    ):
        world = World()
        assert world.execute(operation) == 6
        assert world.changes == [(*(member(number) for number in (1, 2, 3)), member(4, voter=False, staging=staging))]


def who_asks_to_join_and_is_a_member_is_one_already() -> None:
    world = World()
    assert world.execute(Join(info(2), read_replica=False)) == 5
    assert world.changes == []


def nobody_is_added_who_cannot_be_reached_or_is_somebody_else() -> None:
    world = World()
    refused(world, AddPeer("127.0.0.1:8009"), "cannot be reached: dial: Connection refused")
    refused(world, AddPeer("nonsense address"), "give host:port")
    refused(world, AddPeer("127.0.0.1:8004", id="id-9"), "has the ID id-4")
    refused(world, AddPeer("127.0.0.1:8004", name="s9"), "is called 's4'")
    refused(world, AddPeer("127.0.0.1:8002"), "s2 is already a member")
    refused(world, Join(info(9, port=8004), read_replica=False), "correct its -advertise address")


def a_server_of_no_cluster_is_not_added() -> None:
    world = World()
    del world.genesis[4]
    world.genesis = {**world.genesis, 4: make_genesis([("s4", "id-4", "disk-4")])}
    refused(world, AddPeer("127.0.0.1:8004"), "it has not met this cluster")


def a_lost_data_directory_is_not_added_under_the_name_of_a_member() -> None:
    world = World()
    world.there[3] = info(3, storage_id="new")
    refused(world, AddPeer("127.0.0.1:8003"), "data directory lost")
    refused(world, Join(world.there[3], read_replica=False), "remove-peer -id=id-3`, then start this server again")


def a_change_that_leaves_no_live_quorum_is_refused_with_the_names() -> None:
    world = World()
    del world.there[3]
    refused(world, RemovePeer(id="id-2"), "there is nothing from s3")
    refused(world, Demote("s2"), "there is nothing from s3")
    assert world.execute(RemovePeer(id="s3")) == 6, "who does not answer may be removed"


def the_last_voter_is_neither_removed_nor_demoted() -> None:
    for world in (World(member(1)), World(member(1), member(2, voter=False))):
        for operation in (RemovePeer(id="id-1"), Demote("s1")):
            refused(world, operation, "s1 is the last voter, and nothing could be committed without it; promote")
    assert world.execute(Promote("s2")) == 6
    assert world.execute(Demote("s1")) == 7


def who_is_far_behind_or_unreachable_is_not_promoted() -> None:
    world = World(*(member(number) for number in (1, 2, 3)), member(4, voter=False))
    world.match["s4"] = 700
    refused(world, Promote("s4"), "cannot promote 's4': it is 300 entries behind")
    world.match["s4"] = 1000
    server = world.there.pop(4)
    refused(world, Promote("s4"), "it cannot be reached")
    world.there[4] = server
    assert world.execute(Promote("id-4")) == 6


def who_is_demoted_is_not_to_be_promoted_by_itself() -> None:
    world = World(member(1), member(2, staging=True), member(3))
    assert world.execute(Demote("s2")) == 6
    assert world.changes == [(member(1), member(2, voter=False, staging=False), member(3))]


def an_unknown_server_is_named_with_those_there_are() -> None:
    world = World()
    for operation in (RemovePeer(id="x"), Promote("x"), Demote("x"), TransferLeader("x")):
        refused(world, operation, 'id "x" was not found in the Raft configuration: its servers are s1 (id-1)')
    refused(world, RemovePeer(address="a:1"), 'address "a:1" was not found')
    assert world.transfers == []


def leadership_goes_to_voters_only() -> None:
    world = World(member(1), member(2), member(3, voter=False))
    refused(world, TransferLeader("s3"), "it does not vote; promote it first")
    assert world.execute(TransferLeader("id-2")) == 5
    assert world.execute(TransferLeader()) == 5
    assert world.transfers == ["s2", None]


SENTENCES = [
    a_server_is_added_as_a_non_voter_that_is_to_be_promoted,
    who_asks_to_join_and_is_a_member_is_one_already,
    nobody_is_added_who_cannot_be_reached_or_is_somebody_else,
    a_server_of_no_cluster_is_not_added,
    a_lost_data_directory_is_not_added_under_the_name_of_a_member,
    a_change_that_leaves_no_live_quorum_is_refused_with_the_names,
    the_last_voter_is_neither_removed_nor_demoted,
    who_is_far_behind_or_unreachable_is_not_promoted,
    who_is_demoted_is_not_to_be_promoted_by_itself,
    an_unknown_server_is_named_with_those_there_are,
    leadership_goes_to_voters_only,
]


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda sentence: str(sentence.__name__))
def test_reconfiguration(sentence: Callable[[], None]) -> None:
    sentence()


async def everybody_answers(self: Reconfiguration, voters: list[str]) -> list[str]:
    return []


async def believe(self: Reconfiguration, operation: Join | AddPeer) -> ServerInfo:
    return operation.server if isinstance(operation, Join) else info(4)


@pytest.mark.parametrize(
    ("owner", "name", "mutant", "sentence"),
    [
        (Reconfiguration, "_silent", everybody_answers, a_change_that_leaves_no_live_quorum_is_refused_with_the_names),
        (
            module,
            "LastVoter",
            lambda name: WouldLoseQuorum(0, 1, []),
            the_last_voter_is_neither_removed_nor_demoted,
        ),
        (Reconfiguration, "_introduce", believe, nobody_is_added_who_cannot_be_reached_or_is_somebody_else),
        (Reconfiguration, "_introduce", believe, a_server_of_no_cluster_is_not_added),
        (
            module,
            "objection",
            lambda members, server: "",
            a_lost_data_directory_is_not_added_under_the_name_of_a_member,
        ),
        (module, "has_caught_up", lambda candidate: True, who_is_far_behind_or_unreachable_is_not_promoted),
        (
            module,
            "_with_vote",
            with_voter,
            who_is_demoted_is_not_to_be_promoted_by_itself,
        ),
    ],
)
def test_a_careless_leader_is_noticed(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, mutant: object, sentence: Callable[[], None]
) -> None:
    assert hasattr(owner, name)
    monkeypatch.setattr(owner, name, mutant)
    with pytest.raises(AssertionError):
        sentence()


def test_a_server_that_does_not_lead_changes_nothing_and_may_be_asked_again_elsewhere() -> None:
    world = World()
    world.role = Role.FOLLOWER
    for operation in (AddPeer("127.0.0.1:8004"), RemovePeer(id="s2"), TransferLeader()):
        outcome = world.execute(operation)
        assert isinstance(outcome, Retriable)
        assert isinstance(outcome.final, NoClusterLeader)
    assert (world.changes, world.asked) == ([], [])


def test_a_change_while_another_is_not_committed_is_refused_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SETTLE_NS_MAX", 20_000_000)
    world = World()
    world.commit_index = 4
    world.refusal = ConfigurationInProgress(5)
    refused(world, RemovePeer(id="s2"), "the configuration at index 5 is not committed yet")


class SlowWorld(World):
    """Nobody answers before the test says so."""

    released: Future[None]

    async def call(self, to: str | Address, method: str, body: bytes, timeout_ns: int) -> bytes:
        await self.released
        self.asked.append(method)
        return b""


def a_question_whose_asker_is_gone_ends_quietly() -> None:
    """The server stops while it asks who is there; the answers come afterwards."""
    world = SlowWorld()

    async def main(runtime: Runtime) -> int:
        world.released = runtime.tasks.future()
        it: Any = world
        discovery, log = Discovery(info(1), 3, GENESIS), Log(lambda line: None, lambda: 0.0)
        reconfiguration = Reconfiguration(runtime, discovery, it, it, Changes(runtime), log)

        async def ask() -> None:
            await reconfiguration.execute(RemovePeer(id="s3"))

        task = runtime.tasks.spawn(ask(), "operation")
        await runtime.clock.sleep(5 * MILLISECONDS)
        task.cancel()
        await runtime.clock.sleep(5 * MILLISECONDS)
        world.released.set_result(None)
        while not world.asked:
            await runtime.clock.sleep(MILLISECONDS)
        await runtime.clock.sleep(5 * MILLISECONDS)
        return 0

    assert run(main) == 0
    assert world.changes == []


def test_a_question_whose_asker_is_gone_ends_quietly() -> None:
    a_question_whose_asker_is_gone_ends_quietly()


async def answer_in_any_case(self: Reconfiguration, voters: list[str]) -> list[str]:
    answer = self._runtime.tasks.future()

    async def ask() -> None:
        await self._members.call("s2", STATUS, b"", 0)
        answer.set_result(True)

    self._runtime.tasks.spawn(ask(), "is s2 there")
    await answer
    return []


def test_an_answer_to_nobody_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reconfiguration, "_silent", answer_in_any_case)
    with pytest.raises(Exception, match="invalid state"):
        a_question_whose_asker_is_gone_ends_quietly()
