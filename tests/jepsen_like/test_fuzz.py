"""`comitia chaos fuzz`: a real agent stands random requests; one with a mistake in its HTTP API is found out."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import requests

from impl.raft import errors
from jepsen_like.fuzz import campaign, judging, state
from jepsen_like.fuzz.agents import running
from jepsen_like.fuzz.campaign import Campaign
from model_checks.verdicts import CheckResult, Verdict, merge
from tests.mutants.http_agent import MUTANTS

pytestmark = [pytest.mark.xdist_group("cluster"), pytest.mark.timeout(240)]

ROOT = Path(__file__).resolve().parents[2]
AGENT = ROOT / "tests" / "mutants"
SEED = 7

IN_TIME = "every request is answered in time"
CONFORMS = "every answer is what the OpenAPI document says"
NO_DEFECT = "no 5xx but Consul's own"
GROWTH = "requests leave nothing behind"
ENDED = "the agent does not end by itself"

# mutant -> (the property that it breaks, the operation that shows it)
EXPECTED = {
    "key-error-let-through": (NO_DEFECT, "putSessionCreate"),
    "answer-lacks-a-field": (CONFORMS, "getHealthState"),
    "headers-forgotten-where-nothing-is-found": (CONFORMS, "getKv"),
    "status-of-another-kind": (CONFORMS, "deleteKv"),
    "handler-hangs": (IN_TIME, "getSessionNode"),
    "memory-is-kept": (GROWTH, "getCatalogNodes"),
    "files-are-left-open": (GROWTH, "getAgentHost"),
    "tasks-are-left-running": (GROWTH, "getAgentService"),
    "process-ends": (ENDED, "getCatalogNode"),
}


KILLED_BY_BAD_INPUT = {"datacenter-ignored", "body-limit-ignored", "escapes-taken-as-they-are"}
"""Mistakes that an OpenAPI document does not exclude: tests/impl/test_http_bad_input.py."""


def fuzz(
    count: int, only: str | None = None, agent_command: str | None = None, servers: int = 0
) -> tuple[Verdict, dict[str, CheckResult]]:
    """A campaign: its verdict, and the checks by their names."""
    with running(servers, agent_command) as agent:
        checks = Campaign(agent, servers, SEED, count, only).run(lambda line: None)
    return merge(check.verdict for check in checks), {check.checker: check for check in checks}


REFUSALS: list[errors.ChangeRefused] = [
    errors.LastVoter("s1"),
    errors.WouldLoseQuorum(3, 2, ["s2", "s3"]),
    errors.AlreadyMember("s1", "a voter"),
    errors.NotOneChange("nothing would change"),
]
NEVER_TOLD = {errors.UnknownServer, errors.ConfigurationInProgress}
"""The API looks for the server first; a change that is under way is waited for."""


def test_the_refusal_of_a_change_of_the_cluster_is_no_defect() -> None:
    """One had got another text, and ten thousand random requests met it."""
    assert {type(each) for each in REFUSALS} | NEVER_TOLD == set(errors.ChangeRefused.__subclasses__())
    for each in REFUSALS:
        assert judging.is_answer(str(each)), each
    assert not judging.is_answer("internal error: KeyError('x')")


def test_who_lives_is_not_made_to_leave_though_the_catalog_says_that_it_failed() -> None:
    """Ten thousand random requests met it: one had registered a critical serfHealth for the agent that they asked."""
    with running(0, None) as agent:
        failed: dict[str, Any] = {"Node": "dev", "CheckID": "serfHealth", "Name": "serfHealth", "Status": "critical"}
        node: dict[str, Any] = {"Node": "dev", "Address": "127.0.0.1", "SkipNodeUpdate": True, "Check": failed}
        url = f"http://127.0.0.1:{agent.port}/v1"
        text = "dev is alive, and stays a member: only it can leave"
        deadline = time.monotonic() + 30
        while True:  # its leader registers it as passing again, once a second
            assert requests.put(f"{url}/catalog/register", json=node).status_code == 200
            answer = requests.put(f"{url}/agent/force-leave/dev")
            assert answer.text == text and judging.is_answer(text)
            if answer.status_code == 500:
                break
            assert time.monotonic() < deadline, "the catalog never said that it failed"


def test_an_agent_stands_random_requests() -> None:
    verdict, checks = fuzz(450)
    assert verdict is Verdict.VALID, checks
    figures = checks["fuzz/effort"].figures
    assert figures["cases"] == 450 and figures["operations"] > 50 and figures["answers"]["200"] > 100


def test_every_mutant_is_expected_somewhere() -> None:
    assert set(EXPECTED) | KILLED_BY_BAD_INPUT == set(MUTANTS)


@pytest.mark.parametrize("mutant", EXPECTED)
def test_an_agent_with_a_mistake_is_found_out(monkeypatch: pytest.MonkeyPatch, mutant: str) -> None:
    monkeypatch.setattr(judging, "DEADLINE_S", 3.0)
    monkeypatch.setattr(campaign, "SETTLE_SECONDS", 0.5)
    broken, operation = EXPECTED[mutant]
    verdict, checks = fuzz(150, operation, f"{sys.executable} {AGENT} {mutant}")
    found = [check.property for check in checks.values() if check.verdict is Verdict.INVALID]
    assert verdict is Verdict.INVALID and broken in found, checks


def test_a_campaign_that_never_succeeded_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "prepare", lambda agent: {})
    verdict, checks = fuzz(100, "putSessionRenew")
    assert verdict is Verdict.UNKNOWN
    assert checks["fuzz/effort"].reason == "no case succeeded of: putSessionRenew"


def test_a_seed_decides_what_is_asked() -> None:
    def asked() -> list[str]:
        with running(0, None) as agent:
            played = Campaign(agent, 0, SEED, 40, "putKv")
            curls: list[str] = []
            monkey = pytest.MonkeyPatch()
            with monkey.context() as patch:
                original = judging.ask

                def ask(case: Any, base_url: str, session: Any) -> Any:
                    curls.append(case.as_curl_command().replace(base_url, ""))
                    return original(case, base_url, session)

                patch.setattr(campaign, "ask", ask)
                patch.setattr(state, "prepare", lambda agent: {})
                played.run(lambda line: None)
        return curls

    first = asked()
    assert len(first) == 40 and first == asked()


def test_the_command_says_how_to_repeat_it_and_that_no_agent_is_no_verdict() -> None:
    words = ["comitia", "chaos", "fuzz", "--cases", "20", "--servers", "0", "--seed", "5", "--agent-command", "false"]
    command = [sys.executable, "-m", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 255 and "agent dev did not start" in done.stdout
    assert f"repeat with: {' '.join(words)}" in done.stdout
