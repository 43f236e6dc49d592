"""Real agents with one mistake in locks or in the registry: a short run without any nemesis must say INVALID and name
the promise that they break. Honest agents, broken in earnest, stay VALID.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from jepsen_like.cluster.api import Cluster, ClusterSpec
from model_checks.histories import locks, registry
from model_checks.histories.check import check_history
from model_checks.histories.events import Event, EventType, parse, render
from model_checks.histories.register import Model
from model_checks.verdicts import CheckResult, Verdict
from tests.jepsen_like.real_agents import run_with, until

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.xdist_group("cluster"),
    pytest.mark.timeout(120),
    pytest.mark.usefixtures("a_machine_that_can"),
]

ROOT = Path(__file__).resolve().parents[2]
AGENT = ROOT / "tests" / "mutants" / "agent.py"
RACES = 40
HONEST_S = 6
LOCKS, REGISTRY = ("lock", "histories/locks"), ("registry", "histories/registry")
QUIET = ("--nemesis", "none", "--clients", "0", "--concurrency", "20")

# mutant -> (workload and its checker, servers, seconds, properties of which one must be named)
EXPECTED = {
    "lock-delay-ignored": (LOCKS, 1, 3, {locks.LOCK_DELAY}),
    "session-end-keeps-its-lock": (LOCKS, 1, 3, {locks.ENDED}),
    "acquire-while-held": (LOCKS, 1, 3, {locks.HELD, locks.EXCLUSION}),
    "blocking-query-misses-a-change": (REGISTRY, 1, 9, {registry.WOKEN}),
    "deregistration-acknowledged-before-commit": (REGISTRY, 1, 2, {registry.ANSWERS}),
    "stale-default-read": (REGISTRY, 3, 2, {registry.ANSWERS, registry.FORWARD}),
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMITIA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SUDO_UID", raising=False)


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
    agent = shlex.join([sys.executable, str(AGENT), mutant])
    code, report = chaos(tmp_path, workload, *QUIET, *how, "--agent-command", agent)
    assert (code, report["verdict"]) == (1, "INVALID"), report
    objections = {check["checker"]: check["property"] for check in report["checks"] if check["verdict"] == "INVALID"}
    assert objections.get(checker) in broken, (objections, report["reason"])


def judged_race(agent_command: str | None) -> CheckResult:
    """What is said of locks whose sessions are destroyed and which others want at the same moment, time and again."""
    events: list[Event] = []

    async def act(cluster: Cluster) -> None:
        async def put(process: int, f: str, key: Any, value: Any, target: str, body: Any = None) -> Any:
            events.append(Event(process, EventType.INVOKE, f, time=time.monotonic_ns(), key=key, value=value))
            answer = await cluster.request("s1", "PUT", target, json.dumps(body).encode(), timeout_s=10)
            shown = json.loads(answer[2])
            done = EventType.OK if shown else EventType.FAIL
            value = {**value, "session": shown["ID"]} if f == "create" else value
            events.append(Event(process, done, f, time=time.monotonic_ns(), key=key, value=value))
            return shown

        async def create(delay_s: int) -> str:
            wish = {"ttl": None, "lock_delay": float(delay_s), "behavior": "release", "bound": True}
            asked = {"Checks": [], "LockDelay": f"{delay_s}s"}
            return str((await put(0, "create", None, wish, "/v1/session/create", asked))["ID"])

        async def look(process: int, key: int) -> None:
            events.append(Event(process, EventType.INVOKE, "read", time=time.monotonic_ns(), key=key))
            row = json.loads((await cluster.request("s1", "GET", f"/v1/kv/lock/{key}", timeout_s=10))[2])[0]
            shown = {"create": row["CreateIndex"], "lock": row["LockIndex"], "modify": row["ModifyIndex"]}
            shown["session"] = row.get("Session")
            events.append(Event(process, EventType.OK, "read", time=time.monotonic_ns(), key=key, value=shown))

        async def made() -> bool:
            return (await cluster.request("s1", "PUT", "/v1/session/create", b'{"Checks": []}'))[0] == 200

        await until(made)
        other = await create(0)
        for key in range(RACES):
            session = await create(5)
            lock = f"/v1/kv/lock/{key}?acquire="
            await put(1, "acquire", key, {"session": session}, lock + session)
            await look(1, key)
            await asyncio.gather(
                put(1, "destroy", session, None, f"/v1/session/destroy/{session}"),
                put(2, "acquire", key, {"session": other}, lock + other),
                put(3, "acquire", key, {"session": other}, lock + other),
            )
            await look(1, key)

    run_with(ClusterSpec(servers=1, agent_command=agent_command), act)
    return check_history(parse(render(events)), Model.LOCK).result


def test_a_lock_is_not_given_behind_the_end_of_its_session() -> None:
    result = judged_race(None)
    assert (result.verdict, result.figures["locks_lost"]) == (Verdict.VALID, RACES), result.details


def test_a_lock_that_is_given_behind_the_end_of_its_session_is_found_out() -> None:
    result = judged_race(shlex.join([sys.executable, str(AGENT), "lock-given-behind-the-end-of-its-session"]))
    assert (result.verdict, result.property) == (Verdict.INVALID, {locks.LOCK_DELAY}), result.reason


@pytest.mark.parametrize("workload", ["lock", "registry"])
def test_honest_agents_that_are_broken_are_valid(tmp_path: Path, workload: str) -> None:
    how = ("--servers", "3", "--clients", "1", "--nemesis", "partition,kill,pause", "--time-limit", str(HONEST_S))
    code, report = chaos(tmp_path, workload, *how, "--rate", "300", "--seed", "5")
    assert report["verdict"] != "INVALID", report["reason"]
    assert code == 0 or "tried too little" in report["reason"]
    (check,) = [check for check in report["checks"] if check["checker"].startswith("histories/")]
    assert (check["verdict"], check["checker"]) == ("VALID", "histories/locks" if workload == "lock" else REGISTRY[1])
    assert check["seconds"] < HONEST_S, "judging a history takes less than the run"
