"""What proves that a process has ended: nobody listens where it listened, or a later process has its directory."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from impl.agent.config.validated import Address
from impl.agent.logs import Log
from impl.agent.membership import evidence as module
from impl.agent.membership import peers
from impl.agent.membership.evidence import Evidence
from impl.agent.membership.peers import PeerLinks
from impl.rpc.dialler import Dialler, State
from impl.rpc.handshake import PROTOCOL, AgentRole, Hello, Purpose, Refusal
from impl.rpc.peer_link import PeerLink
from impl.rpc.server import Reply, RpcServer
from impl.rpc.timings import Timings
from impl.runtime import real
from impl.runtime.interfaces import MILLISECONDS, NANOSECONDS, Runtime
from impl.runtime.virtual import VirtualWorld
from impl.runtime.virtual_disk import VirtualDisk

S2 = Hello(PROTOCOL, "c1", "id-2", "s2", "dc1", 4, AgentRole.SERVER, Purpose.RAFT, "disk-2")


def later(hello: Hello, incarnations: int = 1, **changes: object) -> Hello:
    return msgspec.structs.replace(hello, incarnation=hello.incarnation + incarnations, **changes)


def ended_after(*met: Hello) -> list[tuple[str, int]]:
    ended: list[tuple[str, int]] = []
    evidence = Evidence(lambda name, incarnation: ended.append((name, incarnation)))
    for hello in met:
        evidence.met(hello)
    return ended


def a_later_process_of_the_same_directory_proves_that_the_earlier_one_has_ended() -> None:
    assert ended_after(S2, S2, later(S2), later(S2)) == [("s2", 4)]


def an_earlier_process_that_is_heard_late_proves_nothing() -> None:
    assert ended_after(later(S2), S2) == []
    assert ended_after(later(S2), S2, later(S2)) == []


def another_directory_under_the_same_name_proves_nothing() -> None:
    assert ended_after(S2, later(S2, storage_id="another")) == []


SENTENCES = [
    a_later_process_of_the_same_directory_proves_that_the_earlier_one_has_ended,
    an_earlier_process_that_is_heard_late_proves_nothing,
    another_directory_under_the_same_name_proves_nothing,
]


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda sentence: str(sentence.__name__))
def test_evidence(sentence: Callable[[], None]) -> None:
    sentence()


def any_other_process(self: Evidence, hello: Hello) -> None:
    known = self._newest.get(hello.node_name)
    self._newest[hello.node_name] = hello
    if known is not None and known.incarnation != hello.incarnation:
        self._ended(hello.node_name, known.incarnation)


@pytest.mark.parametrize("sentence", SENTENCES[1:], ids=lambda sentence: str(sentence.__name__))
def test_evidence_that_proves_nothing_is_noticed(monkeypatch: pytest.MonkeyPatch, sentence: Callable[[], None]) -> None:
    monkeypatch.setattr(module.Evidence, "met", any_other_process)
    with pytest.raises(AssertionError):
        sentence()


class Peer:
    """s2 as a server that only listens."""

    def raft_connected(self, sender: Hello) -> None: ...
    def raft_message(self, sender: Hello, payload: bytes, crc: int) -> None: ...
    def raft_lost(self, sender: Hello, reason: str) -> None: ...
    def call(self, sender: Hello, method: str, body: bytes, reply: Reply) -> None: ...


class Watcher:
    """s1's links, and what they say of s2; both in a virtual world."""

    def __init__(self, seed: int = 1) -> None:
        self.world = VirtualWorld(seed)
        self.disk = VirtualDisk()
        self.server: RpcServer | None = None
        self.process = self.world.process("h2", self.disk)
        self._listen(S2)
        me = self.world.process("h1", VirtualDisk()).runtime
        self.ended: list[tuple[int, int]] = []
        self.lost_ns: list[int] = []
        mine = msgspec.structs.replace(S2, node_name="s1", node_id="id-1", storage_id="disk-1")
        self.links = PeerLinks(me, lambda: mine, Timings(), Log(lambda line: None, lambda: 0.0), self)
        self.links.dial("s2", Address("h2", 8300))
        assert self.world.run_until(lambda: self.links.is_connected("s2"), NANOSECONDS)
        self.world.run_for(NANOSECONDS)

    def _listen(self, hello: Hello) -> None:
        runtime = self.process.runtime

        async def listen() -> None:
            self.server = await RpcServer.listen(runtime, ("h2", 8300), lambda: hello, Peer())

        runtime.tasks.spawn(listen(), "listen")

    def admit(self, hello: Hello) -> Refusal | None:
        return None

    def connected(self, hello: Hello) -> None: ...

    def lost(self, peer: str) -> None:
        self.lost_ns.append(self.world.now_ns)

    def refused(self, listened: Hello) -> None:
        self.ended.append((self.world.now_ns, listened.incarnation))


def a_process_that_was_killed_is_known_to_have_ended_within_milliseconds() -> None:
    watcher = Watcher()
    watcher.process.kill()
    assert watcher.world.run_until(lambda: bool(watcher.ended), NANOSECONDS)
    assert watcher.ended[0][1] == S2.incarnation
    assert watcher.ended[0][0] - watcher.lost_ns[0] < 5 * MILLISECONDS


def a_process_that_hangs_up_and_lives_on_is_not_taken_for_dead() -> None:
    watcher = Watcher()
    assert watcher.server is not None
    for accepted in list(watcher.server._open):
        accepted.channel.abort("closed", "the peer hangs up and goes on listening")
    watcher.world.run_for(2 * NANOSECONDS)
    assert len(watcher.lost_ns) == 1
    assert watcher.ended == []
    assert watcher.links.is_connected("s2")


def silence_is_not_taken_for_the_end() -> None:
    watcher = Watcher()
    watcher.world.internet.cut("h1", "h2")
    watcher.world.run_for(3 * NANOSECONDS)
    assert watcher.lost_ns
    assert watcher.ended == []


def a_refusal_where_nobody_was_met_proves_nothing() -> None:
    watcher = Watcher()
    watcher.links.dial("s2", Address("h2", 9999))
    watcher.world.run_for(NANOSECONDS)
    assert watcher.ended == []


LINKED = [
    a_process_that_was_killed_is_known_to_have_ended_within_milliseconds,
    a_process_that_hangs_up_and_lives_on_is_not_taken_for_dead,
    silence_is_not_taken_for_the_end,
    a_refusal_where_nobody_was_met_proves_nothing,
]


@pytest.mark.parametrize("sentence", LINKED, ids=lambda sentence: str(sentence.__name__))
def test_links_give_evidence(sentence: Callable[[], None]) -> None:
    sentence()


def lost_is_refused(self: Any, reason: str) -> None:
    self._events.lost(self._name)
    self.refused()


def refused_by_anybody(self: Any) -> None:
    self._events.refused(S2)


def always_rest(self: Dialler, *, at_once: bool = False) -> None:
    self._cancel_timer()
    self.state = State.WAITING
    self._set_timer(self._timings.redial_ns_min, self._attempt_now)


def give_up_is_refused(self: Any, text: str, refused: bool) -> None:
    self._link_events.refused()


@pytest.mark.parametrize(
    ("owner", "name", "mutant", "sentence"),
    [
        (peers._Events, "lost", lost_is_refused, a_process_that_hangs_up_and_lives_on_is_not_taken_for_dead),
        (PeerLink, "failed", give_up_is_refused, silence_is_not_taken_for_the_end),
        (peers._Events, "refused", refused_by_anybody, a_refusal_where_nobody_was_met_proves_nothing),
        (Dialler, "_rest", always_rest, a_process_that_was_killed_is_known_to_have_ended_within_milliseconds),
    ],
)
def test_links_that_give_false_or_late_evidence_are_noticed(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, mutant: object, sentence: Callable[[], None]
) -> None:
    assert hasattr(owner, name)
    monkeypatch.setattr(owner, name, mutant)
    with pytest.raises(AssertionError):
        sentence()


def whoever_dials_while_a_failed_process_puts_things_in_order_is_not_refused() -> None:
    """Or else a leader that still answers would be taken for one that has ended."""
    dialled: list[bool] = []

    async def main(runtime: Runtime) -> int:
        listener = await runtime.network.listen(("127.0.0.1", 0), Silent)

        async def fail() -> None:
            raise RuntimeError("a defect")

        runtime.tasks.spawn(fail(), "defect")
        try:
            await runtime.tasks.future()
        finally:
            await runtime.clock.sleep(20 * MILLISECONDS)
            try:
                socket.create_connection(listener.address, timeout=5).close()
            except ConnectionRefusedError:
                dialled.append(False)
            else:
                dialled.append(True)
        return 0

    with pytest.raises(RuntimeError, match="a defect"):
        real.run(main)
    assert dialled == [True]


class Silent:
    """A receiver that says nothing."""

    def connection_made(self, connection: object) -> None: ...
    def data_received(self, data: bytes) -> None: ...
    def connection_lost(self, error: Exception | None) -> None: ...


def test_whoever_dials_while_a_failed_process_puts_things_in_order_is_not_refused() -> None:
    whoever_dials_while_a_failed_process_puts_things_in_order_is_not_refused()


def test_a_listener_that_closes_before_the_leadership_ends_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real, "ENDING_SECONDS", 0)
    with pytest.raises(AssertionError):
        whoever_dials_while_a_failed_process_puts_things_in_order_is_not_refused()
