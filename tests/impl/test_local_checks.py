"""Health checks: what makes one pass, warn or fail, how often in a row, and what hangs or talks too much."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvloop

from impl.agent.local import checks
from impl.agent.local.checks import Checks, NoTtl, Thresholds, shown
from impl.agent.local.definitions import CheckDefinition, go_duration, problem
from impl.agent.local.state import LocalState
from impl.catalog.rows import CRITICAL, PASSING, WARNING, Node
from impl.runtime.interfaces import MILLISECONDS, NANOSECONDS, Endpoint, HttpProbe, Output, ProbeFailed, Tls
from impl.runtime.probes import RealProber
from impl.runtime.virtual import VirtualWorld
from impl.runtime.virtual_disk import VirtualDisk

SECOND = NANOSECONDS
T = TypeVar("T")
OPEN: list[Bench] = []
GRPC_SERVES = (PASSING, "gRPC check h:1/web: success")


@pytest.fixture(autouse=True)
def _ended() -> Iterator[None]:
    """A task that is left alone would be collected in the middle of its wait."""
    yield
    while OPEN:
        bench = OPEN.pop()
        bench.checks.stop_all()
        bench.world.run_for(1)


class Bench:
    """Checks in a virtual world, whose questions have the answers that a test gives. Implements `Prober`."""

    def __init__(self, definition: CheckDefinition) -> None:
        self.world = VirtualWorld(1)
        runtime = self.world.process("n", VirtualDisk()).runtime
        self.state = LocalState(Node("n", ""), (), runtime.clock.monotonic_ns, lambda: None)
        nobody: Any = None
        self.checks = Checks(runtime, self, self.state, nobody)
        self.answer: Any = None
        self.asked: list[Any] = []
        self.state.put_check(definition.row())
        self.checks.start(definition)
        self.id = definition.check_id
        OPEN.append(self)

    async def http(self, probe: HttpProbe, timeout_ns: int, output_bytes_max: int) -> tuple[int, str, Output]:
        self.asked.append((probe, timeout_ns))
        return (self.answer, "Phrase", Output(b"body", 4))

    async def connect(self, endpoint: Endpoint, timeout_ns: int) -> None:
        self.asked.append((endpoint, timeout_ns))
        if self.answer is not None:
            raise ProbeFailed(self.answer)

    datagram = http2_ping = connect

    async def grpc_health(self, endpoint: Endpoint, service: str, timeout_ns: int) -> str:
        self.asked.append((endpoint, service, timeout_ns))
        if self.answer is None:
            raise ProbeFailed("refused")
        return str(self.answer)

    async def command(self, args: tuple[str, ...], timeout_ns: int, output_bytes_max: int) -> tuple[int | None, Output]:
        self.asked.append((args, timeout_ns))
        return self.answer, Output(b"said", 4)

    def after(self, seconds: float) -> tuple[str, str]:
        self.world.run_for(int(seconds * SECOND))
        check = self.state.checks[self.id]
        return check.status, check.output


def polled(**fields: Any) -> CheckDefinition:
    return CheckDefinition(check_id="c", name="c", interval_ns=10 * SECOND, **fields)


def test_a_ttl_check_expires_and_says_what_was_said_last() -> None:
    bench = Bench(CheckDefinition(check_id="c", name="c", ttl_ns=10 * SECOND))
    assert bench.after(9) == (CRITICAL, "")
    assert bench.after(2) == (CRITICAL, "TTL expired")
    bench.checks.set_status("c", PASSING, "fine")
    assert bench.after(9) == (PASSING, "fine")
    bench.checks.set_status("c", WARNING, "so so")
    assert bench.after(9) == (WARNING, "so so")
    assert bench.after(2) == (CRITICAL, "TTL expired (last output before timeout follows): so so")


def test_a_ttl_check_that_was_stopped_does_not_expire() -> None:
    bench = Bench(CheckDefinition(check_id="c", name="c", ttl_ns=10 * SECOND, status=PASSING))
    bench.checks.stop("c")
    assert bench.after(60) == (PASSING, "")


def test_only_ttl_checks_can_be_set() -> None:
    bench = Bench(polled(tcp="h:1"))
    with pytest.raises(NoTtl, match="does not have associated TTL"):
        bench.checks.set_status("c", PASSING, "")


@pytest.mark.parametrize(("code", "status"), [(0, PASSING), (1, WARNING), (2, CRITICAL), (-9, CRITICAL)])
def test_a_script_passes_with_0_and_warns_with_1(code: int, status: str) -> None:
    bench = Bench(polled(args=("check", "it")))
    bench.answer = code
    assert bench.after(11) == (status, "said")
    assert bench.asked[0] == (("check", "it"), 30 * SECOND)


def test_a_script_that_hangs_is_critical() -> None:
    bench = Bench(polled(args=("sleep",), timeout_ns=2 * SECOND))
    assert bench.after(11) == (CRITICAL, "Timed out (2s) running check\n\nsaid")


@pytest.mark.parametrize(
    ("code", "status"),
    [(200, PASSING), (204, PASSING), (299, PASSING), (429, WARNING), (302, CRITICAL), (500, CRITICAL)],
)
def test_an_http_check_passes_with_2xx_and_warns_with_429(code: int, status: str) -> None:
    bench = Bench(polled(http="http://h/", header={"X": ("1", "2")}, method="HEAD"))
    bench.answer = code
    assert bench.after(11) == (status, f"HTTP HEAD http://h/: {code} Phrase Output: body")
    assert bench.asked[0] == (HttpProbe("http://h/", "HEAD", (("X", "1"), ("X", "2"))), 10 * SECOND)


def test_a_tcp_check_passes_if_somebody_listens() -> None:
    bench = Bench(polled(tcp="[::1]:80"))
    assert bench.after(11) == (PASSING, "TCP connect [::1]:80: Success")
    assert bench.asked[0] == (Endpoint("::1", 80), 10 * SECOND)
    bench.answer = "connection refused"
    assert bench.after(10) == (CRITICAL, "connection refused")


def test_a_udp_check_passes_unless_sending_failed() -> None:
    bench = Bench(polled(udp=":53", timeout_ns=3 * SECOND))
    assert bench.after(11) == (PASSING, "UDP connect :53: Success")
    assert bench.asked[0] == (Endpoint("localhost", 53), 3 * SECOND)
    bench.answer = "connection refused"
    assert bench.after(10) == (CRITICAL, "connection refused")


def test_an_h2ping_check_uses_tls_unless_told_otherwise() -> None:
    bench = Bench(polled(h2ping="h:1", tls_server_name="web", tls_skip_verify=True))
    assert bench.after(11) == (PASSING, "HTTP2 ping was successful")
    assert bench.asked[0] == (Endpoint("h", 1, Tls("web", True)), 10 * SECOND)
    bench.answer = "no answer"
    assert bench.after(10) == (CRITICAL, "HTTP2 ping failed: no answer")
    assert polled(h2ping="h:1", h2ping_use_tls=False).endpoint == Endpoint("h", 1)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("SERVING", GRPC_SERVES),
        ("NOT_SERVING", (CRITICAL, "gRPC h:1/web serving status: NOT_SERVING")),
        ("UNKNOWN", (CRITICAL, "gRPC h:1/web serving status: UNKNOWN")),
        (None, (CRITICAL, "refused")),
    ],
)
def test_a_grpc_check_passes_if_the_service_is_serving(answer: str | None, expected: tuple[str, str]) -> None:
    bench = Bench(polled(grpc="h:1/web", grpc_use_tls=True))
    bench.answer = answer
    assert bench.after(11) == expected
    assert bench.asked[0] == (Endpoint("h", 1, Tls()), "web", 10 * SECOND)


def test_what_a_ttl_check_is_told_is_cut_at_its_bound() -> None:
    bench = Bench(CheckDefinition(check_id="c", name="c", ttl_ns=10 * SECOND, output_bytes_max=4))
    bench.checks.set_status("c", PASSING, "123456")
    assert bench.after(1) == (PASSING, "1234 ... (captured 4 of 6 bytes)")


def test_checks_of_one_interval_do_not_run_together() -> None:
    definitions = [CheckDefinition(check_id=f"c{n}", name="", interval_ns=60 * SECOND, tcp="h:1") for n in range(20)]
    bench = Bench(definitions[0])
    for definition in definitions[1:]:
        bench.checks.start(definition)
    bench.world.run_for(30 * SECOND)
    assert 3 < len(bench.asked) < 17


@pytest.mark.parametrize(
    ("fields", "results", "expected"),
    [
        ({}, "pcpw", "pcpw"),
        ({"success_before_passing": 2}, "pcppp", ".c.pp"),
        ({"failures_before_critical": 3}, "pcccp", "p..cp"),
        ({"failures_before_critical": 3, "failures_before_warning": 2}, "pccccp", "p.wccp"),
        ({"failures_before_critical": 2}, "cpcpcc", ".p.p.c"),
    ],
)
def test_a_result_counts_when_it_came_often_enough_in_a_row(
    fields: dict[str, int], results: str, expected: str
) -> None:
    names = {"p": PASSING, "w": WARNING, "c": CRITICAL}
    thresholds = Thresholds(polled(tcp="h:1", **fields))
    judged = [thresholds.judge(names[result]) for result in results]
    assert judged == [names.get(each) for each in expected]


def test_output_that_was_cut_says_so() -> None:
    assert shown(Output(b"end", 10)) == "Captured 3 of 10 bytes\n...\nend"
    assert shown(Output(b"\xff", 1)) == "\ufffd"


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"tcp": "h:1"}, "Interval must be > 0"),
        ({}, "TTL must be > 0"),
        ({"ttl_ns": 1, "interval_ns": 1}, "Interval and TTL cannot both be specified"),
        ({"http": "ftp://x", "interval_ns": 1}, "unsupported URL"),
        ({"tcp": "h", "interval_ns": 1}, "missing or bad port"),
        ({"grpc": "h:70000/x", "interval_ns": 1}, "missing or bad port"),
        ({"udp": "h:1"}, "Interval must be > 0"),
        ({"h2ping": "h:1"}, "Interval must be > 0"),
        ({"alias_service": "x", "tcp": "h:1", "interval_ns": 1}, "Interval cannot be set for Alias checks"),
        ({"alias_service": "x", "ttl_ns": 1}, "TTL must be not be set for Alias checks"),
        (
            {"tcp": "h:1", "interval_ns": 1, "failures_before_warning": 2, "failures_before_critical": 1},
            "FailuresBeforeWarning can't be higher than FailuresBeforeCritical",
        ),
    ],
)
def test_a_check_that_makes_no_sense_is_refused(fields: dict[str, Any], why: str) -> None:
    assert why in problem(CheckDefinition(check_id="c", name="c", **fields))


def test_durations_are_shown_as_go_does() -> None:
    shown_as = {0: "0s", 1: "1ns", 1500: "1.5µs", 250 * MILLISECONDS: "250ms", 10 * SECOND: "10s"}
    shown_as |= {90 * SECOND: "1m30s", 3600 * SECOND: "1h0m0s", 1_500 * MILLISECONDS: "1.5s"}
    assert {duration: go_duration(duration) for duration in shown_as} == shown_as


# ------------------------------------------------------------------------------------------------------- the real world


def really(work: Callable[[RealProber], Awaitable[T]]) -> T:
    async def main() -> T:
        return await work(RealProber())

    result: T = uvloop.run(main())
    return result


def test_a_command_says_its_code_and_the_end_of_what_it_wrote() -> None:
    code, output = really(
        lambda prober: prober.command(("sh", "-c", "echo 123456; echo 789 >&2; exit 3"), SECOND * 10, 6)
    )
    assert (code, output) == (3, Output(b"6\n789\n", 11))


def test_a_command_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    script = f"sleep 1000 & echo $! > {note}; wait"
    code, _ = really(lambda prober: prober.command(("sh", "-c", script), SECOND // 2, 100))
    assert code is None
    deadline = time.monotonic() + 2
    while _runs(child := int(note.read_text())) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _runs(child)


def _runs(pid: int) -> bool:
    """Whether the process is more than a zombie that nobody has waited for yet."""
    try:
        os.kill(pid, 0)
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_a_command_that_is_not_there_fails_by_name() -> None:
    with pytest.raises(ProbeFailed, match="cannot run '/no/such'"):
        really(lambda prober: prober.command(("/no/such",), SECOND, 100))


async def _serve(answer: bytes, use: Callable[[int], Awaitable[T]]) -> T:
    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.read(10_000)
        if head.startswith(b"GET /moved"):
            writer.write(b"HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n")
        elif answer:
            writer.write(answer)
        else:
            await reader.read()
        writer.close()

    server = await asyncio.start_server(client, "127.0.0.1", 0)
    try:
        return await use(server.sockets[0].getsockname()[1])
    finally:
        server.close()


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"


@pytest.mark.parametrize("path", ["/", "/moved"])
def test_an_http_answer_is_read_whole_and_redirects_are_followed(path: str) -> None:
    async def ask(prober: RealProber) -> Any:
        return await _serve(
            CHUNKED, lambda port: prober.http(HttpProbe(f"http://127.0.0.1:{port}{path}"), 5 * SECOND, 4)
        )

    assert really(ask) == (200, "OK", Output(b"bcde", 5))


@pytest.mark.parametrize(
    ("answer", "why"), [(b"", "no answer within 0.2s"), (b"nonsense\r\n\r\n", "illegal"), (CHUNKED[:50], "peer")]
)
def test_a_server_that_is_silent_or_talks_nonsense_fails_the_probe(answer: bytes, why: str) -> None:
    async def ask(prober: RealProber) -> Any:
        return await _serve(answer, lambda port: prober.http(HttpProbe(f"http://127.0.0.1:{port}/"), SECOND // 5, 4))

    with pytest.raises(ProbeFailed, match=why):
        really(ask)


@pytest.mark.parametrize(
    "url", ["http://[", "http://h:x/", "http:///x", "http://" + "a" * 300 + "/", "http://127.0.0.1:1/ x"]
)
def test_addresses_that_make_no_sense_fail_the_probe(url: str) -> None:
    with pytest.raises(ProbeFailed):
        really(lambda prober: prober.http(HttpProbe(url, header=(("a\n", "b"),)), SECOND, 4))


def test_hosts_that_make_no_sense_fail_the_probe() -> None:
    with pytest.raises(ProbeFailed):
        really(lambda prober: prober.connect(Endpoint("a" * 300, 1), SECOND))
    with pytest.raises(ProbeFailed):
        really(lambda prober: prober.command(("a\0b",), SECOND, 4))


def test_a_port_on_which_nobody_listens_refuses() -> None:
    async def ask(prober: RealProber) -> None:
        async def connect(port: int) -> int:
            await prober.connect(Endpoint("127.0.0.1", port), SECOND)
            return port

        port = await _serve(CHUNKED, connect)
        with pytest.raises(ProbeFailed, match="refused"):
            await prober.connect(Endpoint("127.0.0.1", port), SECOND)

    really(ask)


def _never_expires(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(checks._Ttl, "_expired", lambda self: None)


def _runs_all_at_once(patch: pytest.MonkeyPatch) -> None:
    run = checks._Polled._run

    async def at_once(self: Any) -> None:
        self._runtime.random.random = lambda: 0.0
        await run(self)

    patch.setattr(checks._Polled, "_run", at_once)


def _kills_the_parent_alone(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("impl.runtime.probes.os.killpg", os.kill)


def _takes_unknown_for_serving(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(checks, "SERVING", "UNKNOWN")


def _asks_h2_in_clear(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("impl.agent.local.definitions.Tls", lambda *_: None)


@pytest.mark.parametrize(
    ("mutant", "sentence"),
    [
        (
            _takes_unknown_for_serving,
            partial(
                test_a_grpc_check_passes_if_the_service_is_serving, "SERVING", (PASSING, "gRPC check h:1/web: success")
            ),
        ),
        (_asks_h2_in_clear, test_an_h2ping_check_uses_tls_unless_told_otherwise),
        (_never_expires, test_a_ttl_check_expires_and_says_what_was_said_last),
        (_runs_all_at_once, test_checks_of_one_interval_do_not_run_together),
    ],
)
def test_mutants_are_killed(
    mutant: Callable[[pytest.MonkeyPatch], None], sentence: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant(monkeypatch)
    with pytest.raises(AssertionError):
        sentence()


def test_a_prober_that_kills_the_parent_alone_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _kills_the_parent_alone(monkeypatch)
    with pytest.raises(AssertionError):
        test_a_command_that_hangs_is_killed_with_its_children(tmp_path)
    os.kill(int((tmp_path / "pid").read_text()), 9)
