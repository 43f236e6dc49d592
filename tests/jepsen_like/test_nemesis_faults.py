"""Nemeses: shapes of partitions, targets, the executed schedule, and who was impaired when."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from jepsen_like.generator.values import Completed, Completion, Context, Draws, Emit, Ending, Generator
from jepsen_like.nemesis import impairment, package, partition, processes
from jepsen_like.nemesis.book import Fault, FaultBook, Link
from jepsen_like.nemesis.breaking import BreakingWorker
from jepsen_like.net.rules import LinkRule

SERVERS = ("s1", "s2", "s3", "s4", "s5")
CLIENTS = ("c1", "c2")


def linked(links: Iterable[Link], a: str, b: str) -> bool:
    cut = set(links)
    return (a, b) not in cut and (b, a) not in cut


def reached(links: Iterable[Link], server: str) -> int:
    links = set(links)
    return 1 + sum(linked(links, server, other) for other in SERVERS if other != server)


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("servers", [SERVERS[:3], SERVERS])
def test_halves_leave_a_majority_and_a_minority(seed: int, servers: tuple[str, ...]) -> None:
    shape = partition.cut("halves", servers, CLIENTS, "s2", Draws(seed))
    sizes = {sum(linked(shape.links, server, other) for other in servers if other != server) + 1 for server in servers}
    assert sizes == {(len(servers) - 1) // 2, (len(servers) + 1) // 2}


@pytest.mark.parametrize("seed", range(20))
def test_in_a_ring_every_server_sees_a_majority_and_no_two_the_same(seed: int) -> None:
    shape = partition.cut("ring", SERVERS, (), None, Draws(seed))
    views = {frozenset([a, *(b for b in SERVERS if b != a and linked(shape.links, a, b))]) for a in SERVERS}
    assert all(len(view) == 3 for view in views)
    assert len(views) == 5


@pytest.mark.parametrize("seed", range(20))
def test_leader_shapes_aim_at_the_leader(seed: int) -> None:
    for name in ("leader alone", "leader in minority", "deaf leader", "mute leader"):
        shape = partition.cut(name, SERVERS, CLIENTS, "s4", Draws(seed))
        assert "s4" in shape.nodes, name
        assert reached(shape.links, "s4") < 3, name


def test_one_way_shapes_cut_one_direction_only() -> None:
    deaf = partition.cut("deaf leader", SERVERS, CLIENTS, "s1", Draws(1))
    assert all(target == "s1" for _, target in deaf.links)
    mute = partition.cut("mute leader", SERVERS, CLIENTS, "s1", Draws(1))
    assert all(source == "s1" for source, _ in mute.links)
    lost = partition.cut("lost answers", SERVERS, CLIENTS, "s1", Draws(1), test_clients=7)
    ((source, target),) = lost.links
    assert target == f"t{[*SERVERS, *CLIENTS].index(source) + 1}"


def test_every_shape_and_target_is_drawn() -> None:
    draws = Draws(1)
    shapes, targets = set(), set()
    for _ in range(400):
        shape, draws = partition.pick_shape(draws)
        shapes.add(shape)
        target, draws = processes.pick_target("kill", draws)
        targets.add(target)
    assert shapes == set(partition.SHAPES)
    assert targets == set(processes.TARGETS)


def test_targets_name_the_right_nodes() -> None:
    assert processes.nodes_of("leader", SERVERS, CLIENTS, "s3", Draws(1)) == ("s3",)
    assert len(processes.nodes_of("leader", SERVERS, CLIENTS, None, Draws(1))) == 1
    assert len(processes.nodes_of("minority", SERVERS, CLIENTS, "s3", Draws(1))) == 2
    assert processes.nodes_of("client agent", SERVERS, CLIENTS, "s3", Draws(1))[0] in CLIENTS
    assert processes.nodes_of("all servers", SERVERS, CLIENTS, "s3", Draws(1)) == SERVERS


class NodeGone(Exception):
    """What the fake cluster raises for a step that makes no sense."""


class FakeCluster:
    """Knows which processes run; refuses what a real supervisor would refuse. Time is a counter."""

    def __init__(self) -> None:
        self.servers: tuple[str, ...] = SERVERS
        self.clients: tuple[str, ...] = CLIENTS
        self.state = dict.fromkeys([*SERVERS, *CLIENTS], "running")
        self.cut: set[Link] = set()
        self.slow: set[Link] = set()
        self.time = 0

    def tick(self) -> tuple[int, int]:
        self.time += 10
        return self.time, self.time + 5

    def move(self, node: str, states: tuple[str, ...], to: str) -> tuple[int, int]:
        if self.state[node] not in states:
            raise NodeGone(f"{node} is {self.state[node]}")
        self.state[node] = to
        return self.tick()

    async def cut_links(self, links: Iterable[Link]) -> tuple[int, int]:
        self.cut |= set(links)
        return self.tick()

    async def heal_links(self, links: Iterable[Link]) -> tuple[int, int]:
        self.cut -= set(links)
        self.slow -= set(links)
        return self.tick()

    async def shape_links(self, links: Iterable[Link], rule: LinkRule) -> tuple[int, int]:
        self.slow |= set(links)
        return self.tick()

    async def kill(self, node: str) -> tuple[int, int]:
        return self.move(node, ("running", "paused"), "dead")

    async def pause(self, node: str) -> tuple[int, int]:
        return self.move(node, ("running",), "paused")

    async def resume(self, node: str) -> tuple[int, int]:
        return self.move(node, ("paused",), "running")

    async def restart(self, node: str) -> tuple[int, int]:
        return self.move(node, ("dead",), "running")

    async def leader(self, timeout_s: float = 0.5) -> str | None:
        return next((node for node in SERVERS if self.state[node] == "running"), None)


def drive(seed: int, steps: int) -> tuple[FakeCluster, list[Fault]]:
    """Links, kills and pauses taking turns for `steps`, then the final generator."""
    cluster, faults = FakeCluster(), list[Fault]()
    names = package.DEFAULT
    book = FaultBook(cluster, faults.append, NodeGone)
    workers = {name: BreakingWorker(name, book, 7) for name in names}

    async def run() -> None:
        generators: dict[str, Generator] = dict(zip(names, package.generator(names, Draws(seed)), strict=True))
        now = 0
        for _ in range(steps):
            context = Context(now, names, names)
            answers = {name: generator.ask(context) for name, generator in generators.items()}
            emits = {name: answer for name, answer in answers.items() if isinstance(answer, Emit)}
            name = min(emits, key=lambda each: emits[each].invocation.at_ns or 0)
            now = emits[name].invocation.at_ns or 0
            await workers[name].invoke(emits[name].invocation)
            generators[name] = emits[name].after
        final = package.final_generator(names)
        while isinstance(answer := final.ask(Context(now, names, names)), Emit):
            completion = await workers[str(answer.invocation.thread)].invoke(answer.invocation)
            assert completion.ending is Ending.INFO
            final = answer.after.update(Context(now, names, names), Completed(answer.invocation, Completion(Ending.OK)))

    asyncio.run(run())
    return cluster, faults


@pytest.mark.parametrize(("done", "next_f", "within_ns"), [("s1", "resume", 10**10), ("nothing", "pause", 10**9)])
def test_where_nothing_could_be_broken_something_else_is_tried_soon(done: str, next_f: str, within_ns: int) -> None:
    (pausing,) = package.generator(("pause",), Draws(3))
    context = Context(0, ("pause",), ("pause",))
    first = pausing.ask(context)
    assert isinstance(first, Emit) and first.invocation.f == "pause"
    now = first.invocation.at_ns or 0
    completed = Completed(first.invocation, Completion(Ending.INFO, value=done))
    second = first.after.update(Context(now, ("pause",), ("pause",)), completed).ask(context)
    assert isinstance(second, Emit)
    assert second.invocation.f == next_f
    assert now < (second.invocation.at_ns or 0) < now + within_ns


@pytest.mark.parametrize("seed", range(10))
def test_after_the_final_generator_nothing_is_broken(seed: int) -> None:
    cluster, faults = drive(seed, 101)
    assert set(cluster.state.values()) == {"running"}
    assert cluster.cut == set()
    assert (faults[-1].paused, faults[-1].dead, faults[-1].cut) == ((), (), ())


def test_a_final_generator_that_forgets_the_dead_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(self: FaultBook, package: str) -> Fault:
        return self.note(package, "restart", (), "", None, (0, 0))

    monkeypatch.setattr(FaultBook, "restart", nothing)
    cluster, _ = drive(1, 101)
    assert "dead" in cluster.state.values()


def test_the_schedule_tells_what_was_broken_and_whether_it_hit_the_leader() -> None:
    _, faults = drive(4, 300)
    broken = [fault for fault in faults if fault.breaks]
    assert {fault.package for fault in broken} == set(package.DEFAULT)
    hits = sum(fault.hit_leader for fault in broken)
    assert hits * 3 > len(broken), "at least a third of the faults aim at the leader"
    for fault in faults:
        assert fault.error == ""
        assert not (set(fault.paused) & set(fault.dead))
        assert fault.start_ns < fault.end_ns


def fault(f: str, at: int, **after: object) -> Fault:
    fields: dict[str, object] = {"cut": (), "paused": (), "dead": (), "away": ()}
    fields |= after
    return Fault(package="p", f=f, nodes=("s1",), what="", leader=None, start_ns=at, end_ns=at + 5, **fields)  # type: ignore[arg-type]


def test_a_server_without_a_majority_is_cut_off_from_the_cut_to_the_heal() -> None:
    alone = partition.between(["s1"], ["s2", "s3", "s4", "s5"])
    spans = impairment.intervals([fault("cut", 10, cut=alone), fault("heal", 50)], SERVERS, CLIENTS)
    assert spans["s1"] == [(15, 50)]
    assert spans["s2"] == []
    assert impairment.within(spans["s1"], 15)
    assert not impairment.within(spans["s1"], 50)
    assert not impairment.within(spans["s1"], 14)


def test_one_way_cuts_count_and_partial_ones_that_leave_a_majority_do_not() -> None:
    mute = tuple(("s1", other) for other in SERVERS[1:])
    assert impairment.intervals([fault("cut", 10, cut=mute), fault("heal", 50)], SERVERS, ())["s1"]
    few = tuple(("s1", other) for other in SERVERS[3:])
    assert not impairment.intervals([fault("cut", 10, cut=few), fault("heal", 50)], SERVERS, ())["s1"]


def test_a_paused_server_is_impaired_and_a_dead_one_is_not() -> None:
    schedule = [fault("pause", 10, paused=("s1",)), fault("kill", 30, dead=("s1",)), fault("restart", 60)]
    assert impairment.intervals(schedule, SERVERS, CLIENTS)["s1"] == [(15, 30)]


def test_a_client_agent_is_cut_off_when_no_serving_server_can_be_reached() -> None:
    with_minority = partition.between(["c1", "s1", "s2"], ["s3", "s4", "s5"])
    spans = impairment.intervals([fault("cut", 10, cut=with_minority), fault("heal", 50)], SERVERS, CLIENTS)
    assert spans["c1"] == [(15, 50)]
    assert spans["c2"] == []
    assert spans["s2"] == [(15, 50)]


def test_a_removed_server_is_no_part_of_the_majority_that_others_need() -> None:
    alone = partition.between(["s1", "s2"], ["s3", "s4", "s5"])
    schedule = [fault("cut", 10, cut=alone, away=("s5",)), fault("heal", 50, away=("s5",))]
    spans = impairment.intervals(schedule, SERVERS, ())
    assert spans["s1"] == spans["s3"] == [(15, 50)], "two and two of four voters: neither is a majority"
    assert impairment.intervals([fault("cut", 10, cut=alone), fault("heal", 50)], SERVERS, ())["s3"] == []


def test_a_package_mends_only_what_it_broke_itself() -> None:
    cluster = FakeCluster()
    book = FaultBook(cluster, lambda fault: None, NodeGone)

    async def act() -> None:
        await book.cut("partition", [("s1", "s2"), ("s1", "s3")], ("s1",), "", None)
        await book.cut("snapshot", [("s1", "s3"), ("s1", "s4")], ("s1",), "", None)
        await book.kill("kill", ("s4",), None)
        await book.kill("snapshot", ("s5",), None)
        await book.heal("partition")
        await book.restart("kill")
        assert cluster.cut == {("s1", "s3"), ("s1", "s4")}
        assert (cluster.state["s4"], cluster.state["s5"]) == ("running", "dead")
        await book.mend_everything()

    asyncio.run(act())
    assert cluster.cut == set()
    assert set(cluster.state.values()) == {"running"}


def test_every_package_begins_with_what_it_breaks_and_goes_on() -> None:
    names = tuple(package.PACKAGES)
    for name, generator in zip(names, package.generator(names, Draws(3)), strict=True):
        now, seen = 0, []
        for _ in range(6):
            answer = generator.ask(Context(now, names, names))
            assert isinstance(answer, Emit)
            seen.append(answer.invocation.f)
            assert (answer.invocation.at_ns or 0) >= now
            now, generator = answer.invocation.at_ns or 0, answer.after
        chosen = package.PACKAGES[name]
        assert seen == ([chosen.breaks, chosen.mends] * 3 if chosen.mends else [chosen.breaks] * 6), name


def test_the_last_thing_to_be_mended_is_the_membership() -> None:
    names = tuple(package.PACKAGES)
    final, order = package.final_generator(names), []
    context = Context(0, names, names)
    while isinstance(answer := final.ask(context), Emit):
        order.append(answer.invocation.thread)
        final = answer.after
    assert order == ["partition", "kill", "pause", "snapshot", "membership"]
    busy = Context(0, names, tuple(name for name in names if name != "kill"))
    waiting = package.final_generator(names)
    for _ in range(4):
        answer = waiting.ask(context)
        assert isinstance(answer, Emit)
        waiting = answer.after
    assert not isinstance(waiting.ask(busy), Emit), "servers that are not up yet cannot be added"


def test_links_that_are_slowed_for_a_while_stay_cut_where_they_are_cut() -> None:
    cluster = FakeCluster()
    book = FaultBook(cluster, lambda fault: None, NodeGone)

    async def act() -> None:
        await book.cut("partition", [("s1", "s2")], ("s1",), "", None)
        async with book.slowed([("s1", "s2"), ("s1", "s3"), ("s1", "s4")], 40.0):
            assert cluster.slow == {("s1", "s3"), ("s1", "s4")}
            await book.cut("snapshot", [("s1", "s3")], ("s1",), "", None)
        assert cluster.cut == {("s1", "s2"), ("s1", "s3")}
        assert ("s1", "s4") not in cluster.slow

    asyncio.run(act())
