"""Real agents with one mistake in locks or in the registry: a short run without any nemesis, or a few requests at the
right moment, must be INVALID and name the promise that is broken. Honest agents, broken in earnest, stay VALID.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jepsen_like.cluster.api import Cluster, ClusterSpec
from jepsen_like.net.rules import LinkRule
from model_checks.histories import locks, registry
from model_checks.histories.check import check_history
from model_checks.histories.circumstances import Circumstances
from model_checks.histories.events import Event, EventType, parse, render
from model_checks.histories.register import Model
from model_checks.verdicts import CheckResult, Verdict
from tests.jepsen_like.real_agents import DEADLINE_S, run_with, until

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.xdist_group("cluster"),
    pytest.mark.timeout(120),
    pytest.mark.usefixtures("a_machine_that_can"),
]

ROOT = Path(__file__).resolve().parents[2]
AGENT = ROOT / "tests" / "mutants"
Answer = Callable[[dict[str, str], Any], Any]
RACES = 10
SLOW_MS = 20.0
"""One way, between the leader and its followers."""
WATCHES = 12
WAIT_MS = 4_000
HONEST_S = 6
LOCKS, REGISTRY = ("lock", "histories/locks"), ("registry", "histories/registry")
QUIET = ("--nemesis", "none", "--clients", "0", "--concurrency", "20")

# mutant -> (workload and its checker, servers, seconds, properties of which one must be named)
EXPECTED = {
    "lock-delay-ignored": (LOCKS, 1, 3, {locks.LOCK_DELAY}),
    "session-end-keeps-its-lock": (LOCKS, 1, 3, {locks.ENDED}),
    "acquire-while-held": (LOCKS, 1, 3, {locks.HELD, locks.EXCLUSION}),
    "deregistration-acknowledged-before-commit": (REGISTRY, 1, 2, {registry.ANSWERS}),
    "stale-default-read": (REGISTRY, 3, 2, {registry.ANSWERS, registry.FORWARD}),
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMITIA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SUDO_UID", raising=False)


def mutated(name: str) -> str:
    """The command that starts an agent with this mistake."""
    return shlex.join([sys.executable, str(AGENT), name])


def chaos(store: Path, workload: str, *arguments: str) -> tuple[int, dict[str, Any]]:
    command = [
        sys.executable,
        "-m",
        "comitia",
        "chaos",
        "test",
        "--workload",
        workload,
        "--store",
        str(store),
        "--json",
    ]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, cwd=ROOT)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert lines, f"no report: exit code {done.returncode}\n{done.stderr[-2000:]}"
    report: dict[str, Any] = json.loads(lines[-1])
    return done.returncode, report


@pytest.mark.parametrize("mutant", sorted(EXPECTED))
def test_a_mutated_agent_is_found_out(tmp_path: Path, mutant: str) -> None:
    (workload, checker), servers, seconds, broken = EXPECTED[mutant]
    how = ("--servers", str(servers), "--time-limit", str(seconds), "--rate", "600", "--seed", "7")
    code, report = chaos(tmp_path, workload, *QUIET, *how, "--agent-command", mutated(mutant))
    assert (code, report["verdict"]) == (1, "INVALID"), report
    objections = {check["checker"]: check["property"] for check in report["checks"] if check["verdict"] == "INVALID"}
    assert objections.get(checker) in broken, (objections, report["reason"])


class Recorded:
    """Requests to one server, each an operation of a history."""

    def __init__(self, cluster: Cluster, node: str) -> None:
        self.cluster = cluster
        self.node = node
        self.events: list[Event] = []

    async def __call__(
        self, process: int, f: str, key: Any, value: Any, method: str, target: str, body: Any, answer: Answer
    ) -> Any:
        """`answer` makes the recorded value of the headers and the document; None: refused."""
        self.events.append(Event(process, EventType.INVOKE, f, time=time.monotonic_ns(), key=key, value=value))
        encoded = b"" if body is None else json.dumps(body).encode()
        _, headers, text = await self.cluster.request(self.node, method, target, encoded, timeout_s=10)
        shown = answer({name.lower(): each for name, each in headers.items()}, json.loads(text))
        ended = EventType.FAIL if shown is None else EventType.OK
        value = value if shown is None else shown
        self.events.append(Event(process, ended, f, time=time.monotonic_ns(), key=key, value=value))
        return shown


def judged_race(agent_command: str | None) -> CheckResult:
    """What is said of locks whose sessions are destroyed and which others want at the same moment. The links are slow:
    whatever is asked for then stands in the leader's log for a while before it is applied.
    """
    found: list[Event] = []

    async def act(cluster: Cluster) -> None:
        leader = await cluster.wait_for_leader(DEADLINE_S)
        ask = Recorded(cluster, leader)

        async def create(delay_s: int) -> str:
            wish = {"ttl": None, "lock_delay": float(delay_s), "behavior": "release", "bound": True}
            asked = {"Checks": [], "LockDelay": f"{delay_s}s"}

            def made(headers: Any, shown: Any) -> Any:
                return {"session": shown["ID"], **wish}

            created = await ask(0, "create", None, wish, "PUT", "/v1/session/create", asked, made)
            return str(created["session"])

        async def change(process: int, f: str, key: Any, value: Any, target: str) -> None:
            await ask(process, f, key, value, "PUT", target, None, lambda _, done: (value or True) if done else None)

        async def look(key: int) -> None:
            def row(headers: Any, shown: Any) -> Any:
                names = {"create": "CreateIndex", "lock": "LockIndex", "modify": "ModifyIndex", "session": "Session"}
                return {name: shown[0].get(field) for name, field in names.items()}

            await ask(1, "read", key, None, "GET", f"/v1/kv/lock/{key}", None, row)

        async def registered() -> bool:
            return (await cluster.request(leader, "PUT", "/v1/session/create", b'{"Checks": []}'))[0] == 200

        await until(registered)
        for follower in cluster.servers:
            if follower != leader:
                await cluster.shape(leader, follower, LinkRule(delay_ms=SLOW_MS))
        other = await create(0)
        for key in range(RACES):
            session = await create(5)
            await change(1, "acquire", key, {"session": session}, f"/v1/kv/lock/{key}?acquire={session}")
            await look(key)
            wants = [
                change(process, "acquire", key, {"session": other}, f"/v1/kv/lock/{key}?acquire={other}")
                for process in (2, 3, 4)
            ]
            await asyncio.gather(change(1, "destroy", session, None, f"/v1/session/destroy/{session}"), *wants)
            await look(key)
        found.extend(ask.events)

    run_with(ClusterSpec(servers=3, agent_command=agent_command), act)
    return check_history(parse(render(found)), Model.LOCK).result


def test_a_lock_is_not_given_behind_the_end_of_its_session() -> None:
    result = judged_race(None)
    assert (result.verdict, result.figures["locks_lost"]) == (Verdict.VALID, RACES), result.details


def test_a_lock_that_is_given_behind_the_end_of_its_session_is_found_out() -> None:
    result = judged_race(mutated("lock-given-behind-the-end-of-its-session"))
    assert (result.verdict, result.property) == (Verdict.INVALID, locks.LOCK_DELAY), result.reason


def judged_watch(agent_command: str | None) -> CheckResult:
    """What is said of a watcher whose service changes while it waits, or before it asks: then it is tried again."""
    found: list[Event] = []

    async def act(cluster: Cluster) -> None:
        ask = Recorded(cluster, "s1")

        async def register(version: int) -> None:
            state = {"version": version, "status": "passing"}
            service = {"ID": "web/0", "Service": "web", "Meta": {"version": str(version)}}
            body = {"Node": "node-web", "Address": "127.0.0.1", "Service": service}
            await ask(1, "register", "web/0", state, "PUT", "/v1/catalog/register", body, lambda *_: state)

        async def watch(given: int) -> int:
            asked = {"mode": "default", "passing": False}

            def shown(headers: Any, rows: Any) -> Any:
                services = [row["Service"] for row in rows]
                instances = {each["ID"]: [int(each["Meta"]["version"]), "passing"] for each in services}
                index = int(headers["x-consul-index"])
                return {"index": index, "instances": instances, "given": given, "wait_ms": WAIT_MS}

            target = f"/v1/health/service/web?index={given}&wait={WAIT_MS}ms"
            answer = await ask(2, "watch", "web", asked, "GET", target, None, shown)
            return int(answer["index"])

        async def leads() -> bool:
            return (await cluster.request("s1", "PUT", "/v1/kv/ready", b""))[0] == 200

        await until(leads)
        await register(1)
        index = await watch(0)
        for version in range(2, 2 + WATCHES):
            started = time.monotonic()
            index, _ = await asyncio.gather(watch(index), register(version))
            if time.monotonic() - started > WAIT_MS / 1000:
                break
        found.extend(ask.events)

    run_with(ClusterSpec(servers=1, agent_command=agent_command), act)
    undisturbed = Circumstances(calm=(((0, 1 << 62),),))
    return check_history(parse(render(found)), Model.REGISTRY, circumstances=undisturbed).result


def test_a_blocking_query_answers_when_something_changes() -> None:
    result = judged_watch(None)
    assert (result.verdict, result.figures["timed_out"]) == (Verdict.VALID, 0), result.details
    assert result.figures["woken"] == WATCHES


def test_a_blocking_query_that_misses_a_change_is_found_out() -> None:
    result = judged_watch(mutated("blocking-query-misses-a-change"))
    assert (result.verdict, result.property) == (Verdict.INVALID, registry.WOKEN), result.reason


@pytest.mark.parametrize("workload", ["lock", "registry"])
def test_honest_agents_that_are_broken_are_valid(tmp_path: Path, workload: str) -> None:
    how = ("--servers", "3", "--clients", "1", "--nemesis", "partition,kill,pause", "--time-limit", str(HONEST_S))
    code, report = chaos(tmp_path, workload, *how, "--rate", "300", "--seed", "5")
    assert report["verdict"] != "INVALID", report["reason"]
    assert code == 0 or "tried too little" in report["reason"]
    (check,) = [check for check in report["checks"] if check["checker"].startswith("histories/")]
    assert (check["verdict"], check["checker"]) == ("VALID", "histories/locks" if workload == "lock" else REGISTRY[1])
    assert check["seconds"] < HONEST_S, "judging a history takes less than the run"
