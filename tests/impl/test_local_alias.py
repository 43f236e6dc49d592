"""Alias checks have the health of another instance, or node: of this agent by its state, of others by the catalog."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from impl.agent.local import alias
from impl.agent.local.alias import judged
from impl.agent.local.definitions import CheckDefinition, ServiceDefinition
from impl.agent.local.registrations import Registrations, Scripts
from impl.agent.logs import Log
from impl.agent.requests.api import NoClusterLeader, ReadOptions, ReadReply
from impl.catalog.commands import Register, Write
from impl.catalog.queries import Query, answer_query
from impl.catalog.rows import CRITICAL, PASSING, WARNING, Check, Node, Service
from impl.catalog.store import Store
from impl.catalog.transitions import Result
from impl.runtime.interfaces import NANOSECONDS
from impl.runtime.virtual import VirtualWorld
from impl.runtime.virtual_disk import VirtualDisk

SECOND = NANOSECONDS
HOUR = 3600 * SECOND
OPEN: list[Local] = []
NOT_SEEN = "Service web could not be found on node "


@pytest.fixture(autouse=True)
def _ended() -> Iterator[None]:
    """A task that is left alone would be collected in the middle of its wait."""
    yield
    while OPEN:
        local = OPEN.pop()
        local.own.stop()
        local.world.run_for(1)


class Local:
    """An agent of node "n" beside a catalog in memory, in a virtual world; its anti-entropy does not run."""

    def __init__(self) -> None:
        self.store = Store()
        self.index = 10
        self.world = VirtualWorld(1)
        self.reads = 0
        self.reachable = True
        self.runtime = self.world.process("n", VirtualDisk()).runtime
        anything: Any = self
        log = Log(lambda line: None, lambda: 0.0)
        self.own = Registrations(self.runtime, anything, Node("n", "1"), (), anything, Scripts(), log)
        OPEN.append(self)

    async def read(self, query: Query, options: ReadOptions) -> ReadReply:
        """Blocking queries wait as an agent's do, but that they look again and again."""
        self.reads += 1
        waited = 0.0
        while waited < options.wait and self.reachable:
            answer: Any = answer_query(self.store, query)
            if answer.index > options.min_index:
                break
            await self.runtime.clock.sleep(SECOND // 50)
            waited += 0.02
        if not self.reachable:
            raise NoClusterLeader()
        return ReadReply(answer_query(self.store, query), True, 0)

    def write(self, command: Write) -> Result:
        self.index += 1
        return self.store.apply(command, self.index)

    def remote(self, *checks: Check, service: str = "web") -> None:
        instance = Service("n2", service, service) if service else None
        assert self.write(Register(Node("n2", "2"), instance, checks)) is True

    def after(self, seconds: float) -> tuple[str, str]:
        self.world.run_for(int(seconds * SECOND))
        check = self.own.state.checks["alias"]
        return check.status, check.output

    def follow(self, **fields: Any) -> None:
        self.own.register_check(CheckDefinition(check_id="alias", name="alias", **fields))

    def ttl(self, check_id: str, service_id: str = "") -> None:
        self.own.register_check(
            CheckDefinition(check_id=check_id, name=check_id, service_id=service_id, ttl_ns=HOUR, status=PASSING)
        )


@pytest.mark.parametrize(
    ("checks", "expected"),
    [
        ((), (PASSING, "No checks found.")),
        ((Check("", "a", "A", PASSING),), (PASSING, "All checks passing.")),
        ((Check("", "a", "A", WARNING, output="so"), Check("", "b", "B", PASSING)), (WARNING, 'check "A" failing: so')),
        ((Check("", "a", "A", WARNING), Check("", "b", "B", CRITICAL, output="no")), (CRITICAL, '"B" failing: no')),
        ((Check("", "a", "A", CRITICAL, service_id="WEB"),), (CRITICAL, '"A" failing')),
        ((Check("", "a", "A", CRITICAL, service_id="db"),), (PASSING, "No checks found.")),
        ((Check("", "own", "A", CRITICAL),), (PASSING, "No checks found.")),
    ],
)
def test_an_alias_has_the_worst_health_of_the_node_and_the_instance(
    checks: tuple[Check, ...], expected: tuple[str, str]
) -> None:
    status, output = judged("own", "n", "web", checks, True)
    assert status == expected[0] and expected[1] in output


def test_what_does_not_exist_is_critical() -> None:
    assert judged("own", "n2", "web", (), False) == (CRITICAL, NOT_SEEN + "n2")
    assert judged("own", "n2", "", (), False) == (CRITICAL, "Node n2 is not there")


def test_an_alias_follows_an_instance_of_its_agent_at_once() -> None:
    local = Local()
    local.follow(alias_service="web")
    assert local.after(1) == (CRITICAL, NOT_SEEN)
    local.own.register_service(ServiceDefinition(Service("", "web", "web")))
    local.ttl("own", "web")
    assert local.after(1) == (PASSING, "All checks passing.")
    local.own.set_ttl("own", WARNING, "tired")
    assert local.after(1) == (WARNING, 'Aliased check "own" failing: tired')
    local.ttl("node")
    local.own.set_ttl("node", CRITICAL, "disk")
    assert local.after(1) == (CRITICAL, 'Aliased check "node" failing: disk')
    local.own.deregister_check("node")
    local.own.set_ttl("own", PASSING, "")
    assert local.after(1) == (PASSING, "All checks passing.")
    local.own.deregister_service("web")
    assert local.after(1) == (CRITICAL, NOT_SEEN)
    assert local.reads == 0


def test_an_alias_follows_an_instance_of_another_node() -> None:
    local = Local()
    local.follow(alias_node="n2", alias_service="web")
    assert local.after(1) == (CRITICAL, NOT_SEEN + "n2")
    local.remote(Check("n2", "c", "C", PASSING, service_id="web"))
    assert local.after(2) == (PASSING, "All checks passing.")
    local.remote(Check("n2", "c", "C", CRITICAL, service_id="web", output="down"))
    assert local.after(2) == (CRITICAL, 'Aliased check "C" failing: down')
    reads = local.reads
    local.after(59)
    assert local.reads - reads <= 4, "it must wait for a change, not look for one"


def test_an_alias_follows_a_node_alone() -> None:
    local = Local()
    local.remote(Check("n2", "n", "N", WARNING, output="hot"), Check("n2", "c", "C", CRITICAL, service_id="web"))
    local.follow(alias_node="n2")
    assert local.after(1) == (WARNING, 'Aliased check "N" failing: hot')


def test_an_alias_does_not_look_at_every_change_of_a_busy_catalog() -> None:
    local = Local()
    local.follow(alias_node="n2", alias_service="web")
    for number in range(50):
        local.remote(Check("n2", "c", "C", WARNING, service_id="web", output=str(number)))
        local.after(0.1)
    assert local.reads < 20
    assert local.after(3) == (WARNING, 'Aliased check "C" failing: 49')


def test_an_alias_says_that_it_cannot_look_but_not_at_the_first_failure() -> None:
    local = Local()
    local.remote(Check("n2", "c", "C", PASSING))
    local.follow(alias_node="n2", alias_service="web")
    assert local.after(1)[0] == PASSING
    local.reachable = False
    assert local.after(2)[0] == PASSING
    assert local.after(6) == (CRITICAL, "Failure checking aliased node or service: No cluster leader")
    reads = local.reads
    local.after(600)
    assert local.reads - reads < 20, "it must ask ever more seldom"
    local.reachable = True
    assert local.after(61)[0] == PASSING


def test_two_that_follow_each_other_end() -> None:
    local = Local()
    for name, other in (("a", "b"), ("b", "a")):
        local.own.register_service(ServiceDefinition(Service("", name, name)))
        local.own.register_check(CheckDefinition(check_id=name, name=name, service_id=name, alias_service=other))
    local.world.run_for(10 * SECOND)
    assert {len(check.output) for check in local.own.state.checks.values()} == {4096}


def test_an_alias_that_is_stopped_follows_nobody() -> None:
    local = Local()
    local.follow(alias_node="n2", alias_service="web")
    local.after(1)
    local.own.deregister_check("alias")
    reads = local.reads
    local.world.run_for(200 * SECOND)
    assert local.reads == reads


# -------------------------------------------------------------------------------------------------------------- mutants


def _believes_in_everything(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(alias, "judged", lambda own, node, service_id, checks, exists: judged(own, node, "", checks, True))


def _never_blocks(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(alias, "WAIT_SECONDS", 0)


def _never_pauses(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(alias, "PAUSE_NS", 0)


def _never_tires(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(alias, "RETRY_SECONDS_MAX", 1)


def _trusts_no_failure(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(alias, "TOLERATED", 1000)


@pytest.mark.parametrize(
    ("mutant", "sentence"),
    [
        (_believes_in_everything, test_an_alias_follows_an_instance_of_its_agent_at_once),
        (_believes_in_everything, test_an_alias_follows_an_instance_of_another_node),
        (_never_blocks, test_an_alias_follows_an_instance_of_another_node),
        (_never_pauses, test_an_alias_does_not_look_at_every_change_of_a_busy_catalog),
        (_never_tires, test_an_alias_says_that_it_cannot_look_but_not_at_the_first_failure),
        (_trusts_no_failure, test_an_alias_says_that_it_cannot_look_but_not_at_the_first_failure),
    ],
)
def test_mutants_are_killed(
    mutant: Callable[[pytest.MonkeyPatch], None], sentence: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant(monkeypatch)
    with pytest.raises(AssertionError):
        sentence()
