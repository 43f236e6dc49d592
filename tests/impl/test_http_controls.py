"""`/v1/agent` for its operator: metrics, the log as it is written, reload, join, force-leave, the machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from impl.agent import logs
from impl.agent.config.validated import Address, ConfigError
from impl.agent.logs import FOLLOWED_MAX, Log, _Output
from impl.agent.membership.operations import ForceLeave, Operation
from impl.agent.membership.reconcile import CONSUL
from impl.agent.requests.api import DefiniteError, ReadOptions, ReadReply
from impl.catalog.commands import Register
from impl.catalog.queries import Query, answer_query
from impl.catalog.rows import CRITICAL, PASSING, SERF_HEALTH, Check, Node, Service
from impl.catalog.store import Store
from impl.http import controls
from impl.http.app import Application
from impl.http.context import Controls
from impl.http.measures import HttpMeasures
from impl.runtime.interfaces import NANOSECONDS
from impl.runtime.virtual import VirtualWorld
from impl.runtime.virtual_disk import VirtualDisk
from impl.telemetry.instruments import Telemetry
from impl.telemetry.settings import Settings

OPEN: list[Console] = []


@pytest.fixture(autouse=True)
def _ended() -> Iterator[None]:
    """A stream that is left alone would be collected in the middle of its wait."""
    yield
    while OPEN:
        console = OPEN.pop()
        console.log.end()
        console.world.run_for(3 * NANOSECONDS)


class Console:
    """An application in a virtual world, and the agent behind it as far as it is asked."""

    def __init__(self, settings: Settings | None = None) -> None:
        OPEN.append(self)
        self.world = VirtualWorld(1)
        self.runtime = self.world.process("n", VirtualDisk()).runtime
        self.written: list[str] = []
        self.log = Log(self.written.append, lambda: 0.0)
        self.telemetry = Telemetry(self.runtime.clock, "n", settings)
        self.store = Store()
        self.operations: list[Operation] = []
        self.joined: list[Address] = []
        self.refusal: Exception | None = None
        self.reloads = 0
        anything: Any = self
        self.app = Application(
            anything,
            "dc1",
            64,
            lambda what, error: pytest.fail(f"{what}: {error!r}"),
            "n",
            anything,
            controls=Controls(self.telemetry, self.log, self.reload, ""),
            measures=HttpMeasures(self.telemetry, self.runtime.clock),
        )

    def register(self, node: str, status: str, *, server: bool = False) -> None:
        service = Service(node, CONSUL, CONSUL, port=8300) if server else None
        row = Node(node, "10.0.0.1", f"id-{node}", "dc1", meta={"consul-version": "1.22.0"})
        check = Check(node, SERF_HEALTH, "Serf Health Status", status)
        self.store.apply(Register(row, service, (check,)), len(self.store.tables.nodes) + 1)

    # --- the agent ---

    async def read(self, query: Query, options: ReadOptions) -> ReadReply:
        return ReadReply(answer_query(self.store, query), True, 0)

    async def operate(self, operation: Operation) -> int:
        self.operations.append(operation)
        return 1

    async def join(self, address: Address) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.joined.append(address)

    async def reload(self) -> None:
        self.reloads += 1
        if self.refusal is not None:
            raise self.refusal

    # --- its operator ---

    def begin(
        self, method: str, target: str, accept: bytes = b"", reads: Callable[[], bool] = lambda: True
    ) -> Exchange:
        return Exchange(self, method, target, accept, reads)

    def ask(self, method: str, target: str, accept: bytes = b"") -> tuple[int, dict[str, str], str]:
        exchange = self.begin(method, f"/v1/agent/{target}", accept)
        headers = {name.decode().lower(): value.decode() for name, value in exchange.sent[0]["headers"]}
        return exchange.sent[0]["status"], headers, exchange.text()


class Exchange:
    """A request under way."""

    def __init__(self, console: Console, method: str, target: str, accept: bytes, reads: Callable[[], bool]) -> None:
        self.sent: list[dict[str, Any]] = []
        self.console = console
        path, _, query = target.partition("?")
        self._gone = console.runtime.tasks.future()
        self._asked = False

        async def receive() -> dict[str, Any]:
            if not self._asked:
                self._asked = True
                return {"type": "http.request", "body": b"", "more_body": False}
            await self._gone
            return {"type": "http.disconnect"}

        async def send(event: dict[str, Any]) -> None:
            while not reads():
                await console.runtime.clock.sleep(NANOSECONDS)
            self.sent.append(event)

        scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode()}
        scope |= {"query_string": query.encode(), "headers": [(b"accept", accept)] if accept else []}
        self.task = console.runtime.tasks.spawn(console.app(scope, receive, send), "request")
        console.world.run_for(1)

    def text(self) -> str:
        return b"".join(event.get("body", b"") for event in self.sent).decode()

    def leave(self) -> None:
        self._gone.set_result(None)
        self.console.world.run_for(1)


# --- metrics ----------------------------------------------------------------------------------------------------------


def test_metrics_are_json_or_what_prometheus_asks_for() -> None:
    console = Console()
    console.telemetry.counter("raft.apply", "Entries.").total += 1
    status, headers, text = console.ask("GET", "metrics")
    assert (status, headers["content-type"]) == (200, "application/json")
    assert list(json.loads(text)) == ["Timestamp", "Gauges", "Points", "Counters", "Samples"]
    assert (
        console.ask("GET", "metrics", b"text/plain;version=0.0.4, text/plain")[1]["content-type"] == "application/json"
    )
    for target, accept in (
        ("metrics?format=prometheus", b""),
        ("metrics", b"text/html, application/openmetrics-text;q=1"),
        ("metrics", b"text/plain;version=0.4.0"),
        ("metrics", b"application/json, Text/Plain; version=0.4.0;q=0.5"),
    ):
        status, headers, text = console.ask("GET", target, accept)
        assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert "\nconsul_raft_apply 1\n" in text


def test_without_a_retention_time_prometheus_gets_nothing() -> None:
    console = Console(Settings(retention_seconds=0))
    refused = "Prometheus is not enabled since its retention time is not positive"
    assert console.ask("GET", "metrics?format=prometheus")[::2] == (415, refused)
    assert console.ask("GET", "metrics")[0] == 200


def requests_are_measured_by_endpoint_and_method() -> None:
    console = Console()
    console.ask("GET", "metrics")
    console.ask("PUT", "force-leave/a")
    console.ask("GET", "no/such/thing")
    console.ask("POST", "metrics")
    shown = [
        line for line in console.ask("GET", "metrics?format=prometheus")[2].splitlines() if "api_http_count" in line
    ]
    counts = {line.split(" ")[0]: int(line.split(" ")[1]) for line in shown}
    labels = 'consul_api_http_count{method="%s",path="%s"}'
    assert counts[labels % ("GET", "v1.agent.metrics")] == 1
    assert counts[labels % ("PUT", "v1.agent.force-leave._")] == 1
    assert {name for name, count in counts.items() if count} == {
        labels % ("GET", "v1.agent.metrics"),
        labels % ("PUT", "v1.agent.force-leave._"),
    }


def test_requests_are_measured_by_endpoint_and_method() -> None:
    requests_are_measured_by_endpoint_and_method()


# --- monitor ----------------------------------------------------------------------------------------------------------


def the_log_is_streamed_from_now_on_at_the_level_asked_for() -> None:
    console = Console()
    console.log.info("before")
    debug = console.begin("GET", "/v1/agent/monitor?loglevel=debug")
    errors = console.begin("GET", "/v1/agent/monitor?loglevel=ERROR&logjson")
    console.log.named("raft").debug("voted", term=3)
    console.log.error("fatal")
    console.world.run_for(1)
    assert [line.partition("Z ")[2] for line in debug.text().splitlines()] == [
        "[DEBUG] agent.raft: voted: term=3",
        "[ERROR] agent: fatal",
    ]
    assert json.loads(errors.text())["@message"] == "fatal"
    assert not any("voted" in line for line in console.written)
    assert (debug.sent[0]["status"], debug.task.done()) == (200, False)
    debug.leave()
    assert debug.task.done() and not errors.task.done()
    console.log.end()
    console.world.run_for(1)
    assert errors.task.done() and errors.sent[-1] == {"type": "http.response.body", "body": b""}
    assert console.log._output.followers == []


def test_the_log_is_streamed_from_now_on_at_the_level_asked_for() -> None:
    the_log_is_streamed_from_now_on_at_the_level_asked_for()


def a_slow_reader_loses_lines_and_is_told() -> None:
    console = Console()
    reading = True
    follower = console.begin("GET", "/v1/agent/monitor", reads=lambda: reading)
    reading = False
    console.log.info("first")
    console.world.run_for(1)  # it is on its way when the reader stops
    for number in range(FOLLOWED_MAX + 10):
        console.log.info(f"line {number}")
    reading = True
    console.world.run_for(2 * NANOSECONDS)
    console.log.info("after")
    console.world.run_for(2 * NANOSECONDS)
    lines = follower.text().splitlines()
    assert len(lines) == FOLLOWED_MAX + 3 and "line 511" in lines[512] and "after" in lines[514]
    assert "[WARN]  agent.monitor: lines were lost here" in lines[513] and "dropped_count=10" in lines[513]
    follower.leave()
    assert "Dropped logs during monitor request: dropped_count=10" in console.written[-1]


def test_a_slow_reader_loses_lines_and_is_told() -> None:
    a_slow_reader_loses_lines_and_is_told()


def test_a_level_that_does_not_exist_is_refused() -> None:
    assert Console().ask("GET", "monitor?loglevel=loud")[::2] == (400, "Unknown log level: loud")


def test_only_so_many_may_follow_the_log() -> None:
    console = Console()
    for _ in range(controls.FOLLOWERS_MAX):
        console.begin("GET", "/v1/agent/monitor")
    status, _, text = console.ask("GET", "monitor")
    assert status == 429 and "64 clients follow the log of this agent already" in text


def test_a_level_that_changes_holds_for_every_part_of_the_log() -> None:
    console = Console()
    part = console.log.named("raft")
    console.log.set_level("DEBUG")
    part.debug("now")
    console.log.set_level("ERROR")
    part.warn("not any more")
    assert [line.split(": ")[-1] for line in console.written] == ["now\n"]


# --- reload, join, force-leave, host ----------------------------------------------------------------------------------


def test_a_configuration_that_cannot_be_used_is_an_error_with_its_reason() -> None:
    console = Console()
    assert console.ask("PUT", "reload")[0] == 200 and console.reloads == 1
    console.refusal = ConfigError("failed to parse a.hcl: line 3: a value is expected")
    assert console.ask("PUT", "reload")[::2] == (500, "failed to parse a.hcl: line 3: a value is expected")


def test_to_join_is_to_introduce_oneself_and_says_how_it_failed() -> None:
    console = Console()
    assert console.ask("PUT", "join/10.0.0.2")[0] == 200
    assert console.ask("PUT", "join/[::1]:99")[0] == 200
    assert console.joined == [Address("10.0.0.2", 8300), Address("::1", 99)]
    assert console.ask("PUT", "join/10.0.0.2:x")[0] == console.ask("PUT", "join/")[0] == 400
    assert console.ask("PUT", "join/10.0.0.2?wan=1")[::2] == (
        500,
        "this agent has no WAN pool: there is one datacenter",
    )
    console.refusal = DefiniteError("1 error occurred: Failed to join 10.0.0.2")
    assert console.ask("PUT", "join/10.0.0.2")[::2] == (500, "1 error occurred: Failed to join 10.0.0.2")


def only_an_agent_that_failed_can_be_made_to_leave() -> None:
    console = Console()
    console.register("alive", PASSING)
    console.register("dead", CRITICAL)
    console.register("server", CRITICAL, server=True)
    assert console.ask("PUT", "force-leave/none")[::2] == (500, "agent: No node found with name 'none'")
    status, _, text = console.ask("PUT", "force-leave/alive")
    assert status == 200 and "alive is alive, and stays a member" in text and not console.operations
    assert console.ask("PUT", "force-leave/dead")[::2] == (200, "")
    assert console.ask("PUT", "force-leave/server?prune")[::2] == (200, "")
    assert console.operations == [ForceLeave("dead"), ForceLeave("server")]


def test_only_an_agent_that_failed_can_be_made_to_leave() -> None:
    only_an_agent_that_failed_can_be_made_to_leave()


@pytest.mark.parametrize(
    ("method", "target", "allowed"),
    [
        ("PUT", "metrics", "GET"),
        ("POST", "monitor", "GET"),
        ("GET", "reload", "PUT"),
        ("GET", "join/a", "PUT"),
        ("GET", "force-leave/a", "PUT"),
        ("PUT", "host", "GET"),
    ],
)
def test_each_endpoint_has_its_method(method: str, target: str, allowed: str) -> None:
    status, headers, text = Console().ask(method, target)
    assert (status, text) == (405, f"method {method} not allowed") and allowed in headers["allow"].split(",")


def test_the_host_is_described_or_says_why_not() -> None:
    console = Console()
    exchange = console.begin("GET", "/v1/agent/host")
    console.world.run_for(NANOSECONDS)
    status, text = exchange.sent[0]["status"], exchange.text()
    assert status == 200 and {"Memory", "CPU", "Host", "Disk", "CollectionTime", "Errors"} == set(json.loads(text))


# --- mutants ----------------------------------------------------------------------------------------------------------


def _copies_every_level(patch: pytest.MonkeyPatch) -> None:
    line = _Output.line

    def mutant(self: _Output, level: str, *rest: Any) -> None:
        line(self, "ERROR", *rest)

    patch.setattr(_Output, "line", mutant)


def _never_notices_who_left(patch: pytest.MonkeyPatch) -> None:
    async def mutant(receive: object, follower: object) -> None:
        return

    patch.setattr(controls, "_until_gone", mutant)


@pytest.mark.parametrize(
    ("mutant", "sentence"),
    [
        (_copies_every_level, the_log_is_streamed_from_now_on_at_the_level_asked_for),
        (_never_notices_who_left, the_log_is_streamed_from_now_on_at_the_level_asked_for),
        (lambda patch: patch.setattr(logs, "FOLLOWED_MAX", 1 << 20), a_slow_reader_loses_lines_and_is_told),
        (lambda patch: patch.setattr(controls, "ALIVE", 99), only_an_agent_that_failed_can_be_made_to_leave),
        (
            lambda patch: patch.setattr(HttpMeasures, "_other", lambda self, method, path: self._sample(method, "/")),
            requests_are_measured_by_endpoint_and_method,
        ),
    ],
)
def test_broken_controls_are_noticed(
    monkeypatch: pytest.MonkeyPatch, mutant: Callable[[pytest.MonkeyPatch], None], sentence: Callable[[], None]
) -> None:
    mutant(monkeypatch)
    with pytest.raises((AssertionError, KeyError, IndexError)):
        sentence()
