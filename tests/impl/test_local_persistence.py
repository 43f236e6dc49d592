"""What users registered at an agent is there again after a restart, whatever a crash cut short."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from impl.agent.config.files import read_document
from impl.agent.config.validated import ConfigError, build
from impl.agent.local import persistence
from impl.agent.local.definitions import CheckDefinition, ServiceDefinition
from impl.agent.local.registrations import Registrations, Scripts
from impl.agent.logs import Log
from impl.catalog.rows import CRITICAL, PASSING, WARNING, Node, Service, ServiceAddress
from impl.http.definitions import configured
from impl.runtime.interfaces import NANOSECONDS
from impl.runtime.virtual import VirtualProcess, VirtualWorld
from impl.runtime.virtual_disk import VirtualDisk

SECOND = NANOSECONDS
OPEN: list[Machine] = []
WEB = Service("", "web", "web", "", ("a",), "10.1.1.1", 80, {"lan": ServiceAddress("h", 1)}, {"k": "v"}, (2, 1), True)
TTL = CheckDefinition(check_id="ttl", name="alive", service_id="web", ttl_ns=10 * SECOND)
HTTP = CheckDefinition(check_id="http", name="asked", http="http://h/", interval_ns=3600 * SECOND, header={"a": ("b",)})


@pytest.fixture(autouse=True)
def _ended() -> Iterator[None]:
    """A check that is left alone would be collected in the middle of its wait."""
    yield
    while OPEN:
        machine = OPEN.pop()
        machine.own.stop()
        machine.world.run_for(1)


class Machine:
    """An agent that is started again and again on one disk."""

    def __init__(self) -> None:
        OPEN.append(self)
        self.world = VirtualWorld(1)
        self.disk = VirtualDisk()
        self.said: list[str] = []
        self.own, self.process = self.start()

    def start(self) -> tuple[Registrations, VirtualProcess]:
        process = self.world.process("n", self.disk)
        nobody: Any = None
        log = Log(self.said.append, lambda: 0.0)
        own = Registrations(process.runtime, nobody, Node("n", ""), (), nobody, Scripts(), log, "/data")
        own.restore()
        return own, process

    def settle(self) -> None:
        self.world.run_for(SECOND)

    def restart(self) -> None:
        self.settle()
        self.own.stop()
        self.process.kill()
        self.own, self.process = self.start()


def test_services_and_checks_are_there_again() -> None:
    machine = Machine()
    machine.own.register_service(ServiceDefinition(WEB, (TTL,)))
    machine.own.register_check(HTTP)
    machine.own.maintain_node(True, "why")
    before = machine.own.state
    machine.restart()
    after = machine.own.state
    assert (after.services, after.checks) == (before.services, before.checks) and len(after.checks) == 3
    assert machine.own.definitions["http"] == HTTP
    assert after.maintained("")


def test_what_was_deregistered_stays_away() -> None:
    machine = Machine()
    machine.own.register_service(ServiceDefinition(WEB, (TTL,)))
    machine.own.register_check(HTTP)
    machine.restart()
    machine.own.deregister_service("web")
    machine.own.deregister_check("http")
    machine.restart()
    assert machine.own.state.services == {} and machine.own.state.checks == {}


def test_a_ttl_check_comes_back_as_it_stood_with_its_full_time() -> None:
    machine = Machine()
    machine.own.register_service(ServiceDefinition(WEB, (TTL,)))
    machine.own.set_ttl("ttl", WARNING, "")
    machine.world.run_for(8 * SECOND)
    machine.restart()
    machine.world.run_for(8 * SECOND)
    assert machine.own.state.checks["ttl"].status == WARNING
    machine.world.run_for(3 * SECOND)
    machine.restart()
    assert machine.own.state.checks["ttl"].status == CRITICAL, "it expired before the restart"


def test_other_checks_say_what_they_say_before_they_have_run() -> None:
    machine = Machine()
    machine.own.register_check(HTTP)
    machine.own.state.update_check("http", PASSING, "")
    machine.restart()
    assert machine.own.state.checks["http"].status == CRITICAL


def test_what_was_answered_survives_a_power_loss() -> None:
    machine = Machine()
    answered: list[bool] = []

    async def register() -> None:
        machine.own.register_service(ServiceDefinition(WEB, (TTL,)))
        await machine.own.shelf.written()
        answered.append(True)

    machine.process.runtime.tasks.spawn(register(), "register")
    assert machine.world.run_until(lambda: answered, SECOND)
    machine.own.stop()
    machine.process.power_loss()
    machine.own, machine.process = machine.start()
    assert sorted(machine.own.state.services) == ["web"] and sorted(machine.own.state.checks) == ["ttl"]


def test_what_cannot_be_read_is_reported_and_the_rest_is_there() -> None:
    machine = Machine()
    machine.own.register_service(ServiceDefinition(WEB))
    machine.settle()
    name = machine.disk.names("/data/services")[0]
    machine.disk.open("/data/services/damaged.json", create=True).write(0, b"{")
    assert name != "damaged.json"
    machine.restart()
    assert sorted(machine.own.state.services) == ["web"]
    assert any("cannot be read" in line and "damaged.json" in line for line in machine.said)


def test_what_configuration_files_define_wins_and_is_not_kept() -> None:
    machine = Machine()
    machine.own.register_service(ServiceDefinition(WEB, (TTL,)))
    machine.restart()
    services, checks = configured(
        [{"name": "web", "port": 81, "check": {"check_id": "ttl", "ttl": "1m"}}],
        [
            {"name": "of-web", "service_id": "web", "ttl": "1m"},
            {"id": "s", "name": "s", "args": ["x"], "interval": "1m"},
        ],
        scripts=True,
    )
    machine.own.define(services, checks)
    assert machine.own.state.services["web"].port == 81
    assert sorted(machine.own.state.checks) == ["of-web", "s", "ttl"]
    machine.own.set_ttl("ttl", PASSING, "")
    machine.restart()
    assert machine.own.state.services == {} and machine.own.state.checks == {}, "no file defines them any more"


@pytest.mark.parametrize(
    ("services", "checks", "why"),
    [
        ([{}], [], "Missing service name"),
        ([{"name": "x", "check": {"ttl": "x"}}], [], "invalid duration"),
        ([], [{"name": "x", "ttl": "1m", "service_id": "y"}], "service 'y' is defined by no file"),
        ([], [{"name": "x", "args": ["x"], "interval": "1m"}], "enable_local_script_checks"),
    ],
)
def test_a_definition_that_makes_no_sense_is_refused_at_the_start(services: Any, checks: Any, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        configured(services, checks, scripts=False)


def test_services_of_several_files_add_up() -> None:
    files = (
        b'{"dev": true, "service": {"name": "a"}, "check": {"name": "c"}}',
        b'{"services": [{"name": "b"}, {"name": "c"}]}',
    )
    config = build([read_document(text, "file") for text in files], "n", "/tmp")
    assert [each["name"] for each in config.services] == ["a", "b", "c"] and len(config.checks) == 1


def _keeps_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(persistence.Shelf, "_save", lambda *arguments: None)


def _forgets_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(persistence.Shelf, "_remove", lambda *arguments: None)


def _answers_at_once(patch: pytest.MonkeyPatch) -> None:
    async def at_once(self: persistence.Shelf) -> None:
        return

    patch.setattr(persistence.Shelf, "written", at_once)


@pytest.mark.parametrize(
    ("mutant", "sentence"),
    [
        (_keeps_nothing, test_services_and_checks_are_there_again),
        (_forgets_nothing, test_what_was_deregistered_stays_away),
        (_answers_at_once, test_what_was_answered_survives_a_power_loss),
    ],
)
def test_mutants_are_killed(
    mutant: Callable[[pytest.MonkeyPatch], None], sentence: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant(monkeypatch)
    with pytest.raises(AssertionError):
        sentence()
