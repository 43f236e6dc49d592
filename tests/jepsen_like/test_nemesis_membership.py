"""Nemeses that ask the operator's API: whom they take away, whom they never do, and that all come back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from urllib.parse import parse_qs, urlsplit

import pytest

from jepsen_like.generator.values import Completion, Draws, Invocation
from jepsen_like.nemesis import handover, lag, membership
from jepsen_like.nemesis.book import Fault, FaultBook, Link
from jepsen_like.nemesis.handover import TransferWorker
from jepsen_like.nemesis.lag import Extent, SnapshotWorker
from jepsen_like.nemesis.membership import EVERYTHING, MembershipWorker, keeps_quorum, targets
from jepsen_like.nemesis.operator_api import Configuration, Member, Operator
from jepsen_like.nemesis.rolling import RollingWorker
from jepsen_like.net.rules import LinkRule

SERVERS = ("s1", "s2", "s3", "s4", "s5")


class NoAnswer(Exception):
    """What the fake cluster raises where a real one is silent."""


class FakeCluster:
    """Servers with a configuration, and an operator API. `answers`: replaces the answer to a path."""

    def __init__(self) -> None:
        self.servers: tuple[str, ...] = SERVERS
        self.clients: tuple[str, ...] = ()
        self.voter = dict.fromkeys(SERVERS, True)
        self.leading: str | None = "s1"
        self.answers: dict[str, tuple[int, bytes] | None] = {}
        self.asked: list[tuple[str, str, str]] = []
        self.restarted: list[str] = []
        self.dead: set[str] = set()
        self.stubborn = ""
        self.cut: set[Link] = set()
        self.slow: set[Link] = set()
        self.removed_over_slow_links = False

    async def request(
        self, node: str, method: str, path: str, body: bytes = b"", timeout_s: float = 2.0
    ) -> tuple[int, dict[str, str], bytes]:
        await asyncio.sleep(0)
        if node in self.dead:
            raise NoAnswer(node)
        url = urlsplit(path)
        what = url.path.rpartition("/")[2]
        target = parse_qs(url.query).get("id", [""])[0].removeprefix("id-")
        self.asked.append((node, f"{method} {what}", target))
        if what == "configuration":
            return 200, {}, json.dumps({"Servers": list(map(self.shown, self.voter)), "Index": 7}).encode()
        if what == "peer" and method == "DELETE" and target not in self.voter:
            return 400, {}, f"{target} is no member".encode()
        if what in self.answers:
            answer = self.answers[what]
            if answer is None:
                self.change(method, what, target)
                raise NoAnswer("timed out")
            return answer[0], {}, answer[1]
        self.change(method, what, target)
        return 200, {}, b'{"Success": true}'

    def change(self, method: str, what: str, target: str) -> None:
        match method, what:
            case "DELETE", "peer":
                self.removed_over_slow_links = bool(self.slow)
                del self.voter[target]
            case "PUT", "peer" | "demote":
                self.voter[target] = False
            case "PUT", "promote":
                self.voter[target] = True
            case "POST", "transfer-leader":
                self.leading = target or "s2"
            case _:
                raise AssertionError((method, what))

    def shown(self, node: str) -> dict[str, object]:
        leader, voter = node == self.leading, self.voter[node]
        return {"ID": f"id-{node}", "Node": node, "Address": f"{node}:8300", "Leader": leader, "Voter": voter}

    async def leader(self, timeout_s: float = 0.5) -> str | None:
        return self.leading

    async def cut_links(self, links: Iterable[Link]) -> tuple[int, int]:
        self.cut |= set(links)
        return 1, 2

    async def heal_links(self, links: Iterable[Link]) -> tuple[int, int]:
        self.cut -= set(links)
        self.slow -= set(links)
        return 1, 2

    async def shape_links(self, links: Iterable[Link], rule: LinkRule) -> tuple[int, int]:
        self.slow |= set(links)
        return 1, 2

    async def kill(self, node: str) -> tuple[int, int]:
        self.dead.add(node)
        return 1, 2

    async def pause(self, node: str) -> tuple[int, int]:
        return 1, 2

    async def resume(self, node: str) -> tuple[int, int]:
        return 1, 2

    async def restart(self, node: str) -> tuple[int, int]:
        if node == self.stubborn:
            raise NoAnswer(f"{node} had not ended")
        self.restarted.append(node)
        self.dead.discard(node)
        return 1, 2


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def faults() -> list[Fault]:
    return []


@pytest.fixture
def book(cluster: FakeCluster, faults: list[Fault]) -> FaultBook:
    return FaultBook(cluster, faults.append, NoAnswer)


@pytest.fixture
def operator(cluster: FakeCluster) -> Operator:
    return Operator(cluster, (NoAnswer,))


@pytest.fixture
def members(book: FaultBook, operator: Operator) -> MembershipWorker:
    return MembershipWorker("membership", book, operator)


def step(worker: MembershipWorker | TransferWorker | SnapshotWorker | RollingWorker, f: str, value: object = None,
         seed: int = 1) -> Completion:  # fmt: skip
    return asyncio.run(worker.invoke(Invocation(f, value=value, note=seed)))


def configuration(*voters: str, leader: str = "s1") -> Configuration:
    return Configuration(tuple(Member(f"id-{node}", node, "", node == leader, True) for node in voters))


@pytest.mark.parametrize(
    ("voters", "leaving", "down", "kept"),
    [
        (SERVERS, ["s1"], [], True),
        (SERVERS, ["s1"], ["s2"], True),
        (SERVERS, ["s1"], ["s2", "s3"], False),
        (SERVERS, ["s2"], ["s2", "s3"], True),
        (SERVERS[:3], ["s1"], [], False),
        (SERVERS, ["s1", "s2", "s3"], [], False),
    ],
)
def test_a_change_leaves_a_quorum_that_runs(voters: list[str], leaving: list[str], down: list[str], kept: bool) -> None:
    assert keeps_quorum(voters, leaving, down) is kept


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("plan", membership.PLANS)
def test_no_plan_asks_for_what_would_lose_the_quorum(plan: str, seed: int) -> None:
    for down in ((), ("s2",), ("s4", "s5")):
        chosen = targets(plan, configuration(*SERVERS), "s1", down, Draws(seed))
        assert not chosen or keeps_quorum(SERVERS, chosen, down)
    assert targets(plan, configuration(*SERVERS[:3]), "s1", (), Draws(seed)) == ()


def test_a_nemesis_that_forgets_the_quorum_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "keeps_quorum", lambda voters, leaving, down: True)
    chosen = targets("remove", configuration(*SERVERS), "s1", ("s4", "s5", "s3"), Draws(1))
    assert not keeps_quorum(SERVERS, chosen, ("s4", "s5", "s3"))


def test_plans_hit_whom_they_name() -> None:
    everything = configuration(*SERVERS)
    assert targets("remove leader", everything, "s3", (), Draws(1)) == ("s3",)
    assert len(targets("two at once", everything, "s3", (), Draws(1))) == 2
    assert all(targets("fresh leader", everything, "s3", (), Draws(seed)) != ("s3",) for seed in range(20))


@pytest.mark.parametrize("plan", membership.PLANS)
def test_whoever_is_taken_away_comes_back_as_a_voter(
    cluster: FakeCluster, faults: list[Fault], members: MembershipWorker, plan: str
) -> None:
    step(members, "change", plan)
    away = {node for node in SERVERS if not cluster.voter.get(node, False)}
    assert len(away) == (2 if plan == "two at once" else 1)
    assert {node for fault in faults for node in fault.nodes} == away
    assert set(faults[-1].away) == away
    assert all(fault.breaks for fault in faults)
    step(members, "restore", EVERYTHING)
    assert cluster.voter == dict.fromkeys(SERVERS, True)
    assert (faults[-1].f, faults[-1].away, set(faults[-1].nodes), faults[-1].error) == ("restore", (), away, "")


def test_a_fresh_leader_is_the_one_that_is_asked(cluster: FakeCluster, members: MembershipWorker) -> None:
    step(members, "change", "fresh leader")
    asked = [node for node, what, _ in cluster.asked if what == "DELETE peer"]
    assert set(asked) == {cluster.leading} != {"s1"}
    assert len(asked) == membership.ASK_TIMES
    assert cluster.removed_over_slow_links
    assert not cluster.slow


def test_a_refused_change_is_recorded_with_its_reason_and_counts_for_nothing(
    cluster: FakeCluster, faults: list[Fault], members: MembershipWorker
) -> None:
    cluster.answers["peer"] = (500, b"configuration 6 is not committed yet")
    done = step(members, "change", "remove")
    assert (done.value, done.error) == ("nothing", "500 configuration 6 is not committed yet")
    assert (faults[-1].f, faults[-1].breaks, faults[-1].away) == ("remove", False, ())


def test_a_change_without_an_answer_counts_if_the_configuration_shows_it(
    cluster: FakeCluster, faults: list[Fault], members: MembershipWorker
) -> None:
    cluster.answers["peer"] = None
    step(members, "change", "remove leader")
    assert (faults[-1].nodes, faults[-1].away, faults[-1].error, faults[-1].hit_leader) == (("s1",), ("s1",), "", True)


def test_servers_that_cannot_be_brought_back_are_named(
    cluster: FakeCluster, faults: list[Fault], members: MembershipWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "RESTORE_S", 0.1)
    step(members, "change", "remove leader")
    cluster.answers["peer"] = (500, b"No cluster leader")
    step(members, "restore")
    assert (faults[-1].f, faults[-1].error, faults[-1].away) == ("restore", "s1: 500 No cluster leader", ("s1",))


def test_a_transfer_counts_when_the_leader_says_success(
    cluster: FakeCluster, faults: list[Fault], book: FaultBook, operator: Operator
) -> None:
    worker = TransferWorker("transfer", book, operator)
    step(worker, "transfer", "a voter")
    assert cluster.leading != "s1"
    assert (faults[-1].nodes, faults[-1].breaks, faults[-1].hit_leader) == (("s1",), True, False)
    cluster.answers["transfer-leader"] = (200, b'{"Success": false}')
    done = step(worker, "transfer", "anybody")
    assert done.value == "nothing"
    assert "not a success" in faults[-1].error


def test_a_transfer_to_a_dead_server_is_tried_and_must_come_to_nothing(
    cluster: FakeCluster, faults: list[Fault], book: FaultBook, operator: Operator
) -> None:
    asyncio.run(book.kill("kill", ("s3",), None))
    cluster.answers["transfer-leader"] = (500, b"s3 did not answer")
    step(TransferWorker("transfer", book, operator), "transfer", "one that is down")
    assert [asked[2] for asked in cluster.asked if asked[1] == "POST transfer-leader"] == ["s3"]
    assert not faults[-1].breaks


@pytest.mark.parametrize("way", lag.WAYS)
def test_a_follower_comes_back_when_a_majority_has_forgotten_what_it_lacks(
    cluster: FakeCluster, faults: list[Fault], book: FaultBook, way: str
) -> None:
    base = 0

    async def extents() -> dict[str, Extent]:
        nonlocal base
        base += 60
        return {node: Extent(base, 100) for node in SERVERS}

    worker = SnapshotWorker("snapshot", book, extents)
    step(worker, "fall-behind", way)
    (victim,) = faults[-1].nodes
    assert victim != "s1" and faults[-1].breaks
    assert victim in cluster.dead if way == "kill" else all(victim in link for link in cluster.cut)
    base = 0
    step(worker, "return")
    assert base > 100
    assert not cluster.dead and not cluster.cut


def test_no_follower_is_taken_that_the_quorum_needs(faults: list[Fault], book: FaultBook) -> None:
    assert lag.victim_of(SERVERS, "s1", ("s2", "s3"), (), Draws(1)) is None
    assert lag.victim_of(SERVERS, "s1", ("s2",), ("s3", "s4"), Draws(1)) is None
    assert lag.victim_of(SERVERS, None, (), (), Draws(1)) is None
    assert {lag.victim_of(SERVERS, "s1", ("s2",), (), Draws(seed)) for seed in range(40)} == {"s3", "s4", "s5"}


def test_every_server_is_restarted_once_a_round_and_one_that_does_not_end_is_started_all_the_same(
    cluster: FakeCluster, faults: list[Fault], book: FaultBook
) -> None:
    cluster.stubborn = "s4"

    async def ready(node: str) -> bool:
        return node in cluster.restarted

    worker = RollingWorker("rolling-restart", book, ready)
    for seed in range(30):
        step(worker, "roll", seed=seed)
        if faults[-1].error:
            break
    assert sorted(set(cluster.restarted)) == sorted(cluster.restarted), "nobody twice in the first round"
    stuck = next(fault for fault in faults if fault.f == "roll" and fault.error)
    assert (stuck.nodes, stuck.error) == ((), "s4: s4 had not ended")
    assert book.dead == {"s4": "rolling-restart"}, "it belongs to the package, which will start it"


def test_every_plan_heir_and_way_is_drawn() -> None:
    draws, plans, heirs, ways = Draws(1), set(), set(), set()
    for _ in range(300):
        plan, draws = membership.pick_plan(draws)
        heir, draws = handover.pick_heir(draws)
        way, draws = lag.pick_way(draws)
        plans.add(plan)
        heirs.add(heir)
        ways.add(way)
    assert (plans, heirs, ways) == (set(membership.PLANS), set(handover.HEIRS), set(lag.WAYS))
