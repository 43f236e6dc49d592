"""The virtual world, and in it what real sockets cannot show in a test: cuts, power losses, schedules from a seed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec
import pytest

from impl.rpc.client import RpcClient
from impl.rpc.dialler import Dialler
from impl.rpc.errors import RpcError
from impl.rpc.handshake import PROTOCOL, AgentRole, Hello, Purpose
from impl.rpc.peer_link import PeerLink
from impl.rpc.server import Reply, RpcServer
from impl.rpc.timings import Timings
from impl.runtime.interfaces import MILLISECONDS, NANOSECONDS, Runtime
from impl.runtime.virtual import VirtualProcess, VirtualWorld
from impl.runtime.virtual_disk import VirtualDisk

PORT = ("b", 8300)


def hello(name: str) -> Callable[[], Hello]:
    greeting = Hello(PROTOCOL, "c1", f"id-{name}", name, "dc1", 1, AgentRole.SERVER, Purpose.RPC)
    return lambda: msgspec.structs.replace(greeting)


class Service:
    """Server b: remembers messages and counts how often it served each call."""

    def __init__(self, world: VirtualWorld) -> None:
        self.world = world
        self.events: list[tuple[int, str]] = []
        self.served: dict[bytes, int] = {}

    def start(self, process: VirtualProcess) -> None:
        async def listen() -> None:
            await RpcServer.listen(process.runtime, PORT, hello("b"), self)

        process.runtime.tasks.spawn(listen(), "listen")

    def raft_connected(self, sender: Hello) -> None:
        self.events.append((self.world.now_ns, "connected"))

    def raft_message(self, sender: Hello, payload: bytes, crc: int) -> None:
        self.events.append((self.world.now_ns, payload.decode()))

    def raft_lost(self, sender: Hello, reason: str) -> None:
        self.events.append((self.world.now_ns, "lost"))

    def call(self, sender: Hello, method: str, body: bytes, reply: Reply) -> None:
        self.served[body] = self.served.get(body, 0) + 1
        reply.ok(body)


class Heard:
    """What a link says."""

    def __init__(self) -> None:
        self.lost_because: list[str] = []

    def connected(self, hello: Hello) -> None:
        """Not of interest."""

    def lost(self, reason: str) -> None:
        self.lost_because.append(reason)

    def refused(self) -> None:
        """Not of interest."""


class Pair:
    """Hosts a and b; a has a link to b."""

    def __init__(self, seed: int) -> None:
        self.world = VirtualWorld(seed)
        self.service = Service(self.world)
        self.disk = VirtualDisk()
        self.b = self.world.process("b", self.disk)
        self.service.start(self.b)
        self.a = self.world.process("a", VirtualDisk())
        self.heard = Heard()
        self.link = PeerLink(self.a.runtime, hello("a"), "b", PORT, Timings(), self.heard)
        assert self.world.run_until(lambda: self.link.connected, NANOSECONDS)

    def send_for(self, duration_ns: int) -> None:
        """A message every 10 ms, as a leader's heartbeats."""
        for _ in range(duration_ns // (10 * MILLISECONDS)):
            self.link.send(b"m")
            self.world.run_for(10 * MILLISECONDS)


def run_of(seed: int) -> list[tuple[int, str]]:
    pair = Pair(seed)
    pair.send_for(200 * MILLISECONDS)
    pair.world.internet.cut("a", "b")
    pair.send_for(2 * NANOSECONDS)
    pair.world.internet.heal()
    pair.send_for(NANOSECONDS)
    return pair.service.events


def test_the_same_seed_gives_the_same_run_to_the_nanosecond() -> None:
    assert run_of(1) == run_of(1)
    assert run_of(1) != run_of(2)


def reconnection_ns(seed: int, cut_ns: int, *, one_way: bool) -> int:
    """How long after a cut has healed the link carries messages again."""
    pair = Pair(seed)
    pair.world.internet.cut("a", "b")
    if not one_way:
        pair.world.internet.cut("b", "a")
    pair.send_for(cut_ns)
    pair.world.internet.heal()
    healed_ns, heard = pair.world.now_ns, len(pair.service.events)
    while not any(text == "m" for _, text in pair.service.events[heard:]):
        assert pair.world.now_ns - healed_ns < 60 * NANOSECONDS, "never again"
        pair.send_for(10 * MILLISECONDS)
    return pair.world.now_ns - healed_ns


@pytest.mark.parametrize("one_way", [False, True])
def test_after_a_cut_of_any_length_messages_pass_again_within_an_election_timeout(
    one_way: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts = [100 * MILLISECONDS, 700 * MILLISECONDS, 2 * NANOSECONDS, 4 * NANOSECONDS]
    assert max(reconnection_ns(seed, cut, one_way=one_way) for seed in range(6) for cut in cuts) < 600 * MILLISECONDS
    monkeypatch.setattr(Dialler, "_ping", lambda self: None)
    assert reconnection_ns(1, 4 * NANOSECONDS, one_way=one_way) > 600 * MILLISECONDS, "TCP's own back-off is longer"


@pytest.mark.parametrize(
    ("power", "at_least", "at_most"),
    [(False, 0, 10 * MILLISECONDS), (True, 500 * MILLISECONDS, 900 * MILLISECONDS)],
    ids=["killed", "without-power"],
)
def test_a_killed_peer_is_heard_of_at_once_and_one_without_power_when_it_stays_silent(
    power: bool, at_least: int, at_most: int
) -> None:
    pair = Pair(3)
    start = pair.world.now_ns
    if power:
        pair.b.power_loss()
    else:
        pair.b.kill()
    assert pair.world.run_until(lambda: pair.heard.lost_because, 2 * NANOSECONDS)
    assert at_least <= pair.world.now_ns - start <= at_most
    pair.service.start(pair.world.process("b", pair.disk))
    assert pair.world.run_until(lambda: pair.link.epoch == 2, NANOSECONDS)


def calls_under_cuts(seed: int) -> list[str]:
    """Calls while the network is cut and the server is killed at random; what is not as the errors say."""
    world = VirtualWorld(seed)
    service, disk = Service(world), VirtualDisk()
    b = world.process("b", disk)
    service.start(b)
    a = world.process("a", VirtualDisk())
    timings = Timings(call_unanswered_ns=300 * MILLISECONDS)
    client = RpcClient(a.runtime, hello("a"), PORT, timings)
    outcomes: dict[bytes, RpcError | None] = {}

    async def ask(body: bytes) -> None:
        try:
            assert await client.call("write", body, 400 * MILLISECONDS) == body
            outcomes[body] = None
        except RpcError as error:
            outcomes[body] = error

    for number in range(60):
        a.runtime.tasks.spawn(ask(b"%d" % number), "ask")
        match world.chance.randrange(0, 12):
            case 0:
                world.internet.cut("a", "b")
            case 1 | 2:
                world.internet.heal()
            case 3:
                b.kill()
                b = world.process("b", disk)
                service.start(b)
            case _:
                pass
        world.run_for(world.chance.randrange(0, 30 * MILLISECONDS))
    assert world.run_until(lambda: len(outcomes) == 60, 10 * NANOSECONDS)
    world.internet.heal()
    world.run_for(20 * NANOSECONDS)
    problems = [f"{body!r} was served {times} times" for body, times in service.served.items() if times > 1]
    for body, error in outcomes.items():
        times = service.served.get(body, 0)
        if error is None and not times:
            problems.append(f"{body!r} was answered and never served")
        if error is not None and error.definite and times:
            problems.append(f"{body!r} was served, and its error said that it had no effect: {error}")
    return problems


def test_a_call_is_served_at_most_once_and_never_after_a_definite_failure() -> None:
    assert [problem for seed in range(40) for problem in calls_under_cuts(seed)] == []


def test_errors_that_know_too_much_or_clients_that_send_again_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def resend(self: RpcClient, text: str) -> None:
        self._waiting.update(dict.fromkeys(self._sent.values()))
        self._sent.clear()
        self._dialler.start(keep=False)

    with monkeypatch.context() as patch:
        patch.setattr(RpcClient, "down", resend)
        assert any("times" in problem for seed in range(40) for problem in calls_under_cuts(seed))
    for error in ("ConnectionLost", "CallTimedOut"):
        with monkeypatch.context() as patch:
            patch.setattr(f"impl.rpc.errors.{error}.definite", True)
            found = [problem for seed in range(40) for problem in calls_under_cuts(seed)]
            assert any("no effect" in problem for problem in found), error


# The world itself


def alone(seed: int = 1) -> tuple[VirtualWorld, VirtualProcess, Runtime]:
    world = VirtualWorld(seed)
    process = world.process("a", VirtualDisk())
    return world, process, process.runtime


def test_a_killed_process_never_runs_again_not_even_its_finally() -> None:
    world, process, runtime = alone()
    ran: list[str] = []

    async def work() -> None:
        try:
            await runtime.clock.sleep(NANOSECONDS)
            ran.append("after")
        finally:
            ran.append("finally")

    runtime.tasks.spawn(work(), "work")
    runtime.clock.call_later(NANOSECONDS, lambda: ran.append("timer"))
    world.run_for(NANOSECONDS // 2)
    process.kill()
    world.run_for(10 * NANOSECONDS)
    assert ran == []


def seen_of_blocking_work(seed: int) -> tuple[str, ...]:
    """What came of work whose process was killed meanwhile."""
    world, process, runtime = alone(seed)
    state: list[str] = []
    runtime.executor.submit(lambda: state.append("effect"), lambda _: state.append("answer"), print)
    world.run_for(1_500_000)
    process.kill()
    world.run_for(NANOSECONDS)
    return tuple(state)


def test_a_kill_falls_before_or_after_the_effect_of_blocking_work_and_before_its_answer() -> None:
    seen = {seen_of_blocking_work(seed) for seed in range(40)}
    assert seen == {(), ("effect",), ("effect", "answer")}


def test_a_failing_task_ends_the_run_and_a_cancelled_one_does_not() -> None:
    world, _, runtime = alone()

    async def sleep() -> None:
        await runtime.clock.sleep(NANOSECONDS)

    async def fail() -> None:
        await runtime.clock.sleep(NANOSECONDS)
        raise RuntimeError("a defect")

    task = runtime.tasks.spawn(sleep(), "sleep")
    world.run_for(MILLISECONDS)
    task.cancel()
    world.run_for(MILLISECONDS)
    assert task.done()
    runtime.tasks.spawn(fail(), "fail")
    with pytest.raises(RuntimeError, match="a defect"):
        world.run_for(2 * NANOSECONDS)


def test_time_passes_only_by_waiting() -> None:
    world, _, runtime = alone()
    order: list[int] = []
    for delay in (30, 10, 20):
        runtime.clock.call_later(delay, partial(order.append, delay))
    assert not world.run_until(lambda: len(order) == 3, 29)
    assert (order, world.now_ns) == ([10, 20], 29)
    assert world.run_until(lambda: len(order) == 3, 29)
    assert world.now_ns == 30
