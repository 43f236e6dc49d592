"""Who asks to be a member: a new server, and one that left; never one that an operator removed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from impl.agent.config.validated import Address
from impl.agent.logs import Log
from impl.agent.membership import joining as module
from impl.agent.membership.discovery import Discovery, configuration_of, make_genesis
from impl.agent.membership.joining import Joining, Standing, forget_leaving, has_left, note_leaving
from impl.agent.membership.operations import Operate
from impl.agent.requests.protocol import ServerInfo
from impl.raft.configuration import Configuration, Member
from impl.rpc.errors import ConnectFailed, RemoteError, RpcError
from impl.runtime.interfaces import NANOSECONDS
from impl.runtime.virtual import VirtualWorld
from impl.runtime.virtual_disk import VirtualDisk

GENESIS = make_genesis([(f"s{number}", f"id-{number}", f"disk-{number}") for number in (1, 2)])
TWO = configuration_of(GENESIS).members


def info(number: int) -> ServerInfo:
    return ServerInfo(f"s{number}", f"id-{number}", "127.0.0.1", 8000 + number, 1, f"disk-{number}")


class World:
    """s4, and a cluster that answers it as scripted: the index of its addition, or an error."""

    def __init__(self, *script: int | RpcError, asks: bool, named: bool = False) -> None:
        self.world = VirtualWorld(1)
        self.script = list(script)
        self.asked: list[tuple[Address, Operate]] = []
        self.lines: list[str] = []
        self.joined = 0
        self.myself = info(4)
        self.named = named
        self.discovery = Discovery(self.myself, 0, GENESIS)
        self.discovery.known |= {"s1": info(1), "s2": info(2)}
        runtime = self.world.process("h", VirtualDisk()).runtime
        it: Any = self
        self.joining = Joining(
            runtime,
            self.discovery,
            it,
            it,
            Log(self.lines.append, lambda: 0.0),
            asks=asks,
            read_replica=False,
            joined=self._note_joined,
        )
        runtime.tasks.spawn(self.joining.run(), "joining")
        self.pass_time()

    def _note_joined(self) -> None:
        self.joined += 1

    def pass_time(self) -> None:
        self.world.run_for(3 * NANOSECONDS)

    async def call(self, address: Address, method: str, body: bytes, timeout_ns: int) -> bytes:
        self.asked.append((address, msgspec.msgpack.decode(body, type=Operate)))
        answer = self.script.pop(0) if self.script else ConnectFailed("nobody")
        if isinstance(answer, RpcError):
            raise answer
        return msgspec.msgpack.encode(answer)

    def becomes_member(self) -> None:
        self.named = True
        self.pass_time()

    def said(self, text: str) -> int:
        return sum(text in line for line in self.lines)


def a_new_server_asks_until_it_is_added_and_then_no_more() -> None:
    world = World(
        ConnectFailed("refused"), RemoteError("No cluster leader", True), ConnectFailed("refused"), 7, asks=True
    )
    assert [address.port for address, _ in world.asked] == [8001, 8002, 8001, 8002]
    assert all(not asked.forwarded for _, asked in world.asked), "whoever is asked brings it to the leader"
    assert world.joining.standing is Standing.ADDED
    world.becomes_member()
    assert (world.joining.standing, world.joined) == (Standing.MEMBER, 1)
    assert len(world.asked) == 4


def a_server_that_was_removed_does_not_ask_and_says_what_helps() -> None:
    world = World(7, asks=False)
    assert world.asked == []
    assert world.said("add-peer -address=127.0.0.1:8004") == 1
    world.becomes_member()
    assert (world.joining.standing, world.joined) == (Standing.MEMBER, 1), "an operator brought it back"
    world.named = False
    world.pass_time()
    assert world.asked == []
    assert world.said("add-peer -address=127.0.0.1:8004") == 2


def a_server_that_left_asks_although_its_own_log_still_names_it() -> None:
    world = World(7, asks=True, named=True)
    assert len(world.asked) == 1
    assert world.joining.standing is Standing.MEMBER


def a_server_that_was_removed_before_it_heard_of_its_addition_does_not_ask_again() -> None:
    world = World(7, asks=True)
    world.discovery.configured(Configuration((*TWO, Member("s4", "id-4", "disk-4")), index=7))
    world.pass_time()
    world.discovery.configured(Configuration(TWO, index=8))
    world.pass_time()
    assert world.joining.standing is Standing.REMOVED
    assert len(world.asked) == 1


SENTENCES = [
    a_new_server_asks_until_it_is_added_and_then_no_more,
    a_server_that_was_removed_does_not_ask_and_says_what_helps,
    a_server_that_left_asks_although_its_own_log_still_names_it,
    a_server_that_was_removed_before_it_heard_of_its_addition_does_not_ask_again,
]


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda sentence: str(sentence.__name__))
def test_joining(sentence: Callable[[], None]) -> None:
    sentence()


def ask_whenever_not_named(self: Joining) -> None:
    self.standing = Standing.MEMBER if self._members.named else Standing.ASKING


@pytest.mark.parametrize(
    ("name", "mutant", "sentence"),
    [
        ("_look", ask_whenever_not_named, a_new_server_asks_until_it_is_added_and_then_no_more),
        ("_look", ask_whenever_not_named, a_server_that_was_removed_does_not_ask_and_says_what_helps),
        (
            "_was_added_and_removed",
            lambda self: False,
            a_server_that_was_removed_before_it_heard_of_its_addition_does_not_ask_again,
        ),
    ],
)
def test_a_server_that_asks_too_often_or_waits_for_ever_is_noticed(
    monkeypatch: pytest.MonkeyPatch, name: str, mutant: object, sentence: Callable[[], None]
) -> None:
    assert hasattr(Joining, name)
    monkeypatch.setattr(Joining, name, mutant)
    with pytest.raises(AssertionError):
        sentence()


def test_what_the_leader_answers_is_said_once() -> None:
    refusal = RemoteError("cannot add 's4': correct its -advertise address", True)
    world = World(*[refusal] * 20, asks=True)
    assert len(world.asked) > 4
    assert world.said("correct its -advertise address") <= 2 * len({address for address, _ in world.asked})


def test_the_note_of_a_server_that_left_is_there_until_it_is_taken_away() -> None:
    disk = VirtualDisk()
    disk.make_directories("data")
    assert not has_left(disk, "data")
    forget_leaving(disk, "data")
    note_leaving(disk, "data")
    assert has_left(disk, "data")
    forget_leaving(disk, "data")
    assert not has_left(disk, "data")
    assert module.LEFT == "left"
