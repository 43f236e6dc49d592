"""Runs the checks of one agent: time limits that somebody must renew (TTL), what is asked again and again, and what has
the health of another (`alias`).

Source: Consul, "Define health checks"; its `agent/checks`. An HTTP check passes with 2xx and warns with 429, a script
passes with exit code 0 and warns with 1, gRPC passes with SERVING, UDP unless the host says that nobody is there. A
result counts once it has come often enough in a row. What hangs is given up at its timeout.

It must not write to the catalog: it updates the agent's own state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from impl.agent.local.alias import Alias, Others
from impl.agent.local.definitions import INTERVAL_NS_MIN, CheckDefinition, go_duration
from impl.agent.local.state import LocalState
from impl.catalog.rows import CRITICAL, PASSING, WARNING
from impl.runtime.interfaces import NANOSECONDS, HttpProbe, Output, ProbeFailed, Prober, Runtime, Task, Timer, Tls

TIMEOUT_NS: Final = 10 * NANOSECONDS
SCRIPT_TIMEOUT_NS: Final = 30 * NANOSECONDS
TOO_MANY_REQUESTS: Final = 429
SERVING: Final = "SERVING"
"""What a healthy gRPC server says it is."""


class NoTtl(Exception):
    """The check is none that somebody may set."""


class Checks:
    """The running checks, by id."""

    def __init__(
        self,
        runtime: Runtime,
        prober: Prober,
        state: LocalState,
        others: Others,
        expired: Callable[[str], None] = lambda check_id: None,
    ) -> None:
        """`others`: where alias checks look; `expired` hears of TTL checks whose time ran out."""
        self._others = others
        self._expired = expired
        self._runtime = runtime
        self._prober = prober
        self._state = state
        self._running: dict[str, _Ttl | _Polled | Alias] = {}

    def start(self, definition: CheckDefinition) -> None:
        """Run a check; one of the same id ends."""
        self.stop(definition.check_id)
        match definition.kind:
            case "ttl":
                running: _Ttl | _Polled | Alias = _Ttl(self._runtime, self._state, definition, self._expired)
            case "alias":
                running = Alias(self._runtime, self._state, definition, self._others)
            case _:
                running = _Polled(self._runtime, self._prober, self._state, definition)
        self._running[definition.check_id] = running

    def stop(self, check_id: str) -> None:
        """Run it no more, if it runs."""
        running = self._running.pop(check_id, None)
        if running is not None:
            running.stop()

    def stop_all(self) -> None:
        """The agent ends."""
        for check_id in list(self._running):
            self.stop(check_id)

    def set_status(self, check_id: str, status: str, output: str) -> None:
        """Somebody says how a TTL check stands. Raises NoTtl."""
        running = self._running.get(check_id)
        if not isinstance(running, _Ttl):
            raise NoTtl(f'CheckID "{check_id}" does not have associated TTL')
        running.set(status, output)


class _Ttl:
    """Critical unless it is set again and again."""

    def __init__(
        self, runtime: Runtime, state: LocalState, definition: CheckDefinition, expired: Callable[[str], None]
    ) -> None:
        self._told = expired
        self._runtime = runtime
        self._state = state
        self._definition = definition
        self._last = ""
        self._timer: Timer = runtime.clock.call_later(definition.ttl_ns, self._expired)

    def set(self, status: str, output: str) -> None:
        """It has its full time again."""
        said, most = output.encode(), self._definition.output_bytes_max
        if len(said) > most:
            output = f"{said[:most].decode(errors='ignore')} ... (captured {most} of {len(said)} bytes)"
        self._last = output
        self._timer.cancel()
        self._timer = self._runtime.clock.call_later(self._definition.ttl_ns, self._expired)
        self._state.update_check(self._definition.check_id, status, self._last)

    def stop(self) -> None:
        """It does not expire any more."""
        self._timer.cancel()

    def _expired(self) -> None:
        text = "TTL expired"
        if self._last:
            text = f"{text} (last output before timeout follows): {self._last}"
        self._state.update_check(self._definition.check_id, CRITICAL, text)
        self._told(self._definition.check_id)


class Thresholds:
    """How often in a row a result must come before it counts."""

    def __init__(self, definition: CheckDefinition) -> None:
        self._successes_min = definition.success_before_passing
        self._critical_min = definition.failures_before_critical
        self._warning_min = definition.failures_before_warning or definition.failures_before_critical
        self._successes = 0
        self._failures = 0

    def judge(self, status: str) -> str | None:
        """What the check says now; None: it says what it said before."""
        if status != CRITICAL:
            self._successes, self._failures = self._successes + 1, 0
            return status if self._successes >= self._successes_min else None
        self._successes, self._failures = 0, self._failures + 1
        if self._failures >= self._critical_min:
            return CRITICAL
        return WARNING if self._failures >= self._warning_min else None


class _Polled:
    """Asked at an interval, the first time after a part of it, so that checks do not run all together."""

    def __init__(self, runtime: Runtime, prober: Prober, state: LocalState, definition: CheckDefinition) -> None:
        self._runtime = runtime
        self._prober = prober
        self._state = state
        self._definition = definition
        self._thresholds = Thresholds(definition)
        self._task: Task = runtime.tasks.spawn(self._run(), f"check {definition.check_id}")

    def stop(self) -> None:
        """It is not asked any more; a question under way is given up."""
        self._task.cancel()

    async def _run(self) -> None:
        interval_ns = max(self._definition.interval_ns, INTERVAL_NS_MIN)
        await self._runtime.clock.sleep(int(interval_ns * self._runtime.random.random()))
        while True:
            result, output = await ask(self._prober, self._definition)
            status = self._thresholds.judge(result)
            if status is not None:
                self._state.update_check(self._definition.check_id, status, output)
            await self._runtime.clock.sleep(interval_ns)


async def ask(prober: Prober, definition: CheckDefinition) -> tuple[str, str]:
    """Ask once: status and output."""
    timeout_ns = definition.timeout_ns or TIMEOUT_NS
    try:
        match definition.kind:
            case "script":
                return await _ask_script(prober, definition)
            case "http":
                return await _ask_http(prober, definition)
            case "udp":
                await prober.datagram(definition.endpoint, timeout_ns)
                return PASSING, f"UDP connect {definition.udp}: Success"
            case "h2ping":
                await prober.http2_ping(definition.endpoint, timeout_ns)
                return PASSING, "HTTP2 ping was successful"
            case "grpc":
                service = definition.grpc.partition("/")[2]
                status = await prober.grpc_health(definition.endpoint, service, timeout_ns)
                if status != SERVING:
                    return CRITICAL, f"gRPC {definition.grpc} serving status: {status}"
                return PASSING, f"gRPC check {definition.grpc}: success"
            case _:
                await prober.connect(definition.endpoint, timeout_ns)
                return PASSING, f"TCP connect {definition.tcp}: Success"
    except ProbeFailed as failed:
        return CRITICAL, f"HTTP2 ping failed: {failed}" if definition.kind == "h2ping" else str(failed)


async def _ask_script(prober: Prober, definition: CheckDefinition) -> tuple[str, str]:
    timeout_ns = definition.timeout_ns or SCRIPT_TIMEOUT_NS
    code, output = await prober.command(definition.args, timeout_ns, definition.output_bytes_max)
    if code is None:
        said = f"\n\n{shown(output)}" if output.total else ""
        return CRITICAL, f"Timed out ({go_duration(timeout_ns)}) running check{said}"
    return {0: PASSING, 1: WARNING}.get(code, CRITICAL), shown(output)


async def _ask_http(prober: Prober, definition: CheckDefinition) -> tuple[str, str]:
    header = tuple((name, value) for name, values in sorted(definition.header.items()) for value in values)
    probe = HttpProbe(
        definition.http,
        definition.method,
        header,
        definition.body.encode(),
        Tls(definition.tls_server_name, definition.tls_skip_verify),
        not definition.disable_redirects,
    )
    code, phrase, body = await prober.http(probe, definition.timeout_ns or TIMEOUT_NS, definition.output_bytes_max)
    text = f"HTTP {definition.method} {definition.http}: {code} {phrase} Output: {shown(body)}"
    if 200 <= code <= 299:
        return PASSING, text
    return WARNING if code == TOO_MANY_REQUESTS else CRITICAL, text


def shown(output: Output) -> str:
    """Output as text, with a word on what is not shown of it."""
    text = output.kept.decode(errors="replace")
    if output.total > len(output.kept):
        return f"Captured {len(output.kept)} of {output.total} bytes\n...\n{text}"
    return text
