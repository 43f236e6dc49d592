"""Reloading as Consul's documentation has it: what changed is applied, the rest goes on, a bad file changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from impl.agent.config import reload as reloading
from impl.agent.config.document import Document, Limits, Ports, TelemetryConfig
from impl.agent.config.files import read_document
from impl.agent.config.reload import RELOADED, Parts, Reloading, merge
from impl.agent.config.validated import Config, ConfigError, build
from impl.agent.local.registrations import Registrations, Scripts
from impl.agent.logs import Log
from impl.catalog.rows import CRITICAL, PASSING, WARNING, Node
from impl.dns.settings import Settings as DnsSettings
from impl.http.definitions import check_definition, configured, service_definition
from impl.runtime.http_connections import Connections
from impl.runtime.interfaces import NANOSECONDS
from impl.runtime.virtual import VirtualWorld
from impl.runtime.virtual_disk import VirtualDisk
from impl.telemetry.instruments import Telemetry

OPEN: list[Running] = []
WEB = 'service { name = "web" port = 80 check { ttl = "1h" } }'
FILE = WEB + '\ncheck { name = "disk" ttl = "1h" }'


@pytest.fixture(autouse=True)
def _ended() -> Iterator[None]:
    yield
    while OPEN:
        running = OPEN.pop()
        running.own.stop()
        running.world.run_for(1)


class Running:
    """The parts of an agent that a reload changes, in a virtual world, with one configuration file."""

    def __init__(self, file: str = FILE) -> None:
        OPEN.append(self)
        self.file = file
        self.world = VirtualWorld(1)
        self.runtime = self.world.process("n", VirtualDisk()).runtime
        self.lines: list[str] = []
        log = Log(self.lines.append, lambda: 0.0)
        self.telemetry = Telemetry(self.runtime.clock, "n")
        anything: Any = self
        node = Node("n", "10.0.0.1", "id", "dc1", meta={"consul-version": "1"})
        self.own = Registrations(self.runtime, anything, node, (), anything, Scripts(), log, "data")
        self.dns: list[DnsSettings] = []
        self.http = Connections()
        self.servers: list[Config] = []
        config = self.read()
        self.own.define(*self.defined(config))
        parts = Parts(
            log,
            self.telemetry,
            self.own,
            lambda meta: {"consul-version": "1", **meta},
            self.dns.append,
            self.http,
            self.servers.append,
        )
        self.reloading = Reloading(self.runtime, config, self.read, self.defined, parts)

    def read(self) -> Config:
        document = read_document(self.file.encode(), "a.hcl", "hcl")
        return build([document, Document(dev=True, data_dir="d")], "n")

    def defined(self, config: Config) -> reloading.Definitions:
        return configured(config.services, config.checks, False)

    def reload(self, file: str) -> str:
        """Why not; "" if it was."""
        self.file = file
        why = ["not yet"]

        async def run() -> None:
            try:
                await self.reloading.reload()
                why[0] = ""
            except ConfigError as error:
                why[0] = str(error)

        self.runtime.tasks.spawn(run(), "reload")
        self.world.run_for(NANOSECONDS)
        return why[0]

    def statuses(self) -> dict[str, str]:
        return {check_id: check.status for check_id, check in self.own.state.checks.items()}


def services_and_checks_follow_the_files() -> None:
    running = Running()
    assert (
        running.reload('services { name = "db" port = 1 }\nservices { name = "web" port = 81 check { ttl = "1h" } }')
        == ""
    )
    assert {name: service.port for name, service in running.own.state.services.items()} == {"db": 1, "web": 81}
    assert set(running.statuses()) == {"service:web"}
    assert running.reload("") == ""
    assert not running.own.state.services and not running.own.state.checks


def test_services_and_checks_follow_the_files() -> None:
    services_and_checks_follow_the_files()


def checks_keep_their_status() -> None:
    running = Running()
    running.own.set_ttl("service:web", PASSING, "fine")
    running.own.set_ttl("disk", WARNING, "full soon")
    before = dict(running.own._checks._running)
    assert running.reload(FILE + '\nservice { name = "db" }') == ""
    assert running.own._checks._running == before  # they were not even started again
    changed = FILE.replace('"1h"', '"2h"').replace("port = 80", 'port = 80 tags = ["new"]')
    assert running.reload(changed) == ""
    assert running.statuses() == {"service:web": PASSING, "disk": WARNING}
    assert running.own.state.checks["service:web"].output == "fine"
    assert running.own.state.checks["service:web"].service_tags == ("new",)
    assert running.own.definitions["disk"].ttl_ns == 7200 * NANOSECONDS
    running.world.run_for(3700 * NANOSECONDS)
    assert running.statuses() == {"service:web": PASSING, "disk": WARNING}
    running.world.run_for(3700 * NANOSECONDS)
    assert running.statuses() == {"service:web": CRITICAL, "disk": CRITICAL}


def test_checks_keep_their_status() -> None:
    checks_keep_their_status()


def what_users_registered_stays() -> None:
    running = Running()
    running.own.register_service(service_definition({"Name": "mine", "Check": {"TTL": "1h"}}))
    running.own.register_check(check_definition({"Name": "extra", "TTL": "1h", "ServiceID": "web"}))
    running.own.maintain_node(True, "")
    assert running.reload(FILE.replace("80", "81")) == ""
    assert set(running.own.state.services) == {"mine", "web"}
    assert set(running.statuses()) == {"service:mine", "service:web", "extra", "disk", "_node_maintenance"}


def test_what_users_registered_stays() -> None:
    what_users_registered_stays()


def test_a_service_that_a_user_registered_over_that_of_a_file_is_the_files_again_or_the_users_own() -> None:
    running = Running()
    running.own.register_service(service_definition({"Name": "web", "Port": 99}))
    assert running.reload(FILE) == ""
    assert running.own.state.services["web"].port == 80
    running.own.register_service(service_definition({"Name": "web", "Port": 99}))
    running.own.register_check(check_definition({"Name": "disk", "TTL": "9h"}))
    assert running.reload("") == ""
    assert running.own.state.services["web"].port == 99
    assert running.own.definitions["disk"].ttl_ns == 9 * 3600 * NANOSECONDS


def test_tags_that_others_may_change_stay_as_they_are() -> None:
    file = 'service { name = "web" port = %d tags = ["file"] enable_tag_override = true }'
    running = Running(file % 80)
    state = running.own.state
    state.services["web"] = msgspec.structs.replace(state.services["web"], tags=("catalog",))  # as anti-entropy does
    state.pending_services.clear()
    assert running.reload(file % 80) == "" and not state.pending_services
    assert running.reload(file % 81) == "" and state.pending_services == {"web"}
    assert (state.services["web"].tags, state.services["web"].port) == (("catalog",), 81)


def a_bad_file_changes_nothing_and_says_why() -> None:
    running = Running()
    config = running.reloading._config
    for file, why in (
        ("ports { http = }", "failed to parse a.hcl: line 1: a value is expected"),
        ('log_level = "loud"', "invalid log level 'LOUD'"),
        (FILE.replace("80", '"x"'), "a service: Port must be a number"),
        (WEB.replace('ttl = "1h"', 'args = ["true"] interval = "1s"'), "is a script: set 'enable_local_script_checks'"),
        ("autopilot { enabled = true }", "line 1: invalid config key autopilot"),
    ):
        assert why in running.reload(file)
        assert why in running.lines[-1] and "the old one stays in force" in running.lines[-1]
    assert running.reloading._config is config
    assert set(running.own.state.services) == {"web"} and set(running.statuses()) == {"service:web", "disk"}


def test_a_bad_file_changes_nothing_and_says_why() -> None:
    a_bad_file_changes_nothing_and_says_why()


def test_settings_that_can_change_do() -> None:
    running = Running("")
    lines = (
        'log_level = "debug"',
        'node_meta { os = "linux" }',
        'raft_snapshot_threshold = 5 raft_snapshot_interval = "9s"',
        'dns_config { node_ttl = "7s" }',
        'telemetry { prefix_filter = ["-consul.rpc"] }',
        "limits { http_max_conns_per_client = -1 }",
    )
    assert running.reload("\n".join(lines)) == ""
    assert running.own.state.node.meta == {"consul-version": "1", "os": "linux"} and not running.own.state.node_in_sync
    assert running.dns[-1].node_ttl == 7
    assert running.http.most_per_client == -1
    assert (running.servers[-1].raft_snapshot_threshold, running.servers[-1].raft_snapshot_interval) == (5, 9.0)
    assert not running.telemetry.settings.shows("consul.rpc.request")
    running.own._log.debug("shown")
    assert "shown" in running.lines[-1]
    assert not any("ignored" in line for line in running.lines)


def what_is_ignored_is_told_again() -> None:
    running = Running()
    assert running.reload("\nui_config { enabled = true }") == ""
    assert any("a.hcl: line 2: ui_config is ignored: there is no web UI" in line for line in running.lines)


def test_what_is_ignored_is_told_again() -> None:
    what_is_ignored_is_told_again()


def test_a_reload_that_tells_nothing_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("impl.agent.config.validated.warnings", lambda asked: ())
    with pytest.raises(AssertionError):
        what_is_ignored_is_told_again()


def test_what_needs_a_restart_is_named_and_otherwise_ignored() -> None:
    running = Running("")
    file = 'datacenter = "dc2"\nports { http = 1 }\nlimits { kv_max_value_size = 5 }\ndomain = "x"\n'
    assert running.reload(file + 'telemetry { metrics_prefix = "y" }\nlog_level = "warn"') == ""
    (told,) = [line for line in running.lines if "ignored" in line]
    for name in ("datacenter", "http_port", "kv_max_value_size", "domain", "telemetry"):
        assert name in told
    assert running.reloading._config.http_port == 8500 and running.reloading._config.log_level == "WARN"
    assert running.dns[-1].domain == "consul" and running.telemetry.full_name("a") == "consul.a"
    assert running.reload("") == "" and sum("ignored" in line for line in running.lines) == 1


def test_merging_takes_what_can_change_from_the_new_one_and_the_rest_from_the_old_one() -> None:
    old = build([Document(dev=True, data_dir="d")], "n")
    new = build(
        [Document(dev=True, data_dir="d", log_level="warn", ports=Ports(http=1), limits=Limits(kv_max_value_size=1))],
        "n",
    )
    merged, ignored = merge(old, new)
    assert ignored == ["http_port", "kv_max_value_size"]
    assert merged == msgspec.structs.replace(old, log_level="WARN")
    assert merge(old, old) == (old, []) and set(RELOADED) <= set(Config.__struct_fields__)
    filtered = build([Document(dev=True, data_dir="d", telemetry=TelemetryConfig(filter_default=False))], "n")
    assert merge(old, filtered) == (filtered, [])


def _starts_everything_again(patch: pytest.MonkeyPatch) -> None:
    def mutant(self: Registrations, services: Any, checks: Any) -> None:
        for service_id in list(self.state.services):
            self.deregister_service(service_id)
        for check_id in list(self.state.checks):
            self._drop_check(check_id)
        self.define(services, checks)

    patch.setattr(Registrations, "redefine", mutant)


def _forgets_what_is_gone(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Registrations, "redefine", Registrations.define)


def _applies_first(patch: pytest.MonkeyPatch) -> None:
    async def mutant(self: Reloading) -> None:
        self._config = self._read()
        self._apply(self._config, self._definitions(self._config))

    patch.setattr(Reloading, "reload", mutant)


@pytest.mark.parametrize(
    ("mutant", "sentence"),
    [
        (_starts_everything_again, checks_keep_their_status),
        (_starts_everything_again, what_users_registered_stays),
        (_forgets_what_is_gone, services_and_checks_follow_the_files),
        (_applies_first, a_bad_file_changes_nothing_and_says_why),
    ],
)
def test_a_broken_reload_is_noticed(
    monkeypatch: pytest.MonkeyPatch, mutant: Callable[[pytest.MonkeyPatch], None], sentence: Callable[[], None]
) -> None:
    mutant(monkeypatch)
    with pytest.raises((AssertionError, KeyError, IndexError)):
        sentence()
