"""`lock -n`: semaphores, against a real agent, in the format of Consul's client."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from impl.cli import locks
from impl.cli.http_client import CommandError, HttpClient
from impl.cli.lock import CHILD_FAILED
from impl.cli.locks import SEMAPHORE_FLAGS, Attempt, Semaphore
from impl.cli.session import create_session
from tests.impl.agent_processes import PATIENCE_SECONDS, ROOT, AgentProcess, eventually

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    agent = AgentProcess("-dev", "-node", "s1", "-server-port", "0").started()
    # A session depends on the node's health, which the leader registers.
    eventually(lambda: b"serfHealth" in agent.request("GET", "/v1/health/node/s1")[1], "s1 is registered")
    yield agent
    assert agent.terminate() == 0


def address(agent: AgentProcess) -> str:
    return f"127.0.0.1:{agent.http_port}"


def row(agent: AgentProcess, key: str) -> dict[str, Any]:
    status, body = agent.request("GET", f"/v1/kv/{key}")
    assert status == 200
    found: dict[str, Any] = json.loads(body)[0]
    return found


def start(*words: str, **how: Any) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, str(ROOT / "comitia.py"), *words], text=True, **how)


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    return f"semaphores/{request.node.name}"


def slot(agent: AgentProcess, prefix: str, limit: int = 2) -> Semaphore:
    client = HttpClient(address(agent))
    session = create_session(client, {"TTL": "60s", "Behavior": "delete"})
    return Semaphore(client, prefix, session, 0, limit)


def acquired(semaphore: Semaphore, seconds: float) -> bool:
    return semaphore.acquire(threading.Event(), time.monotonic() + seconds)


def keys(agent: AgentProcess, prefix: str) -> list[str]:
    status, body = agent.request("GET", f"/v1/kv/{prefix}/?keys")
    return [key.removeprefix(f"{prefix}/") for key in json.loads(body)] if status == 200 else []


def who_looked_before_another_took_a_slot_looks_again(agent: AgentProcess, prefix: str) -> None:
    slots = [slot(agent, prefix) for _ in range(3)]
    for each in slots:
        each.enter()
    assert slots[0].attempt(slots[0]._now("")) is Attempt.HELD
    seen = slots[0]._now("")
    assert [each.attempt(seen) for each in slots[1:]] == [Attempt.HELD, Attempt.RACED]
    assert slots[2].attempt(slots[2]._now("")) is Attempt.BUSY


def test_who_looked_before_another_took_a_slot_looks_again(agent: AgentProcess, prefix: str) -> None:
    who_looked_before_another_took_a_slot_looks_again(agent, prefix)


def never_more_than_two_hold(agent: AgentProcess, prefix: str) -> None:
    holding, most, failures = 0, 0, []
    guard = threading.Lock()

    def contend() -> None:
        nonlocal holding, most
        try:
            semaphore = slot(agent, prefix)
            for _ in range(3):
                assert acquired(semaphore, PATIENCE_SECONDS)
                with guard:
                    holding += 1
                    most = max(most, holding)
                time.sleep(0.01)  # what is done with the slot
                with guard:
                    holding -= 1
                semaphore.release()
        except (AssertionError, CommandError) as error:
            failures.append(error)

    threads = [threading.Thread(target=contend) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert 1 <= most <= 2
    assert keys(agent, prefix) == [], "who finds nobody waiting removes the semaphore"


def test_never_more_than_the_limit_hold_it(agent: AgentProcess, prefix: str) -> None:
    never_more_than_two_hold(agent, prefix)


def test_it_is_kept_as_consul_keeps_it(agent: AgentProcess, prefix: str) -> None:
    first, second = slot(agent, prefix), slot(agent, prefix)
    assert acquired(first, PATIENCE_SECONDS) and acquired(second, PATIENCE_SECONDS)
    lock = row(agent, f"{prefix}/.lock")
    assert lock["Flags"] == SEMAPHORE_FLAGS
    sessions = {first._session, second._session}
    assert json.loads(b64decode(lock["Value"])) == {"Limit": 2, "Holders": dict.fromkeys(sessions, True)}
    for session in sessions:
        own = row(agent, f"{prefix}/{session}")
        assert (own["Session"], own["Flags"]) == (session, SEMAPHORE_FLAGS)
    first.release()
    assert keys(agent, prefix) == [".lock", second._session]
    second.release()
    assert keys(agent, prefix) == []


def a_slot_of_a_session_that_ended_is_free(
    agent: AgentProcess, prefix: str, patience: float = PATIENCE_SECONDS
) -> None:
    first = slot(agent, prefix, 2)
    others = [slot(agent, prefix), slot(agent, prefix)]
    assert acquired(first, PATIENCE_SECONDS) and acquired(others[0], PATIENCE_SECONDS)
    assert not acquired(others[1], 0.1)
    agent.request("PUT", f"/v1/session/destroy/{first._session}")
    assert acquired(others[1], patience)
    for each in others:
        each.release()


def test_a_slot_of_a_session_that_ended_is_free(agent: AgentProcess, prefix: str) -> None:
    a_slot_of_a_session_that_ended_is_free(agent, prefix)


def who_lost_its_slot_is_told(agent: AgentProcess, prefix: str, patience: float = PATIENCE_SECONDS) -> None:
    holder = slot(agent, prefix)
    assert acquired(holder, PATIENCE_SECONDS)
    holder.watch()
    assert not holder.lost.wait(0.1)
    agent.request("PUT", f"/v1/session/destroy/{holder._session}")
    assert holder.lost.wait(patience)


def test_who_lost_its_slot_is_told(agent: AgentProcess, prefix: str) -> None:
    who_lost_its_slot_is_told(agent, prefix)


def test_who_has_no_session_any_more_gets_no_slot(agent: AgentProcess, prefix: str) -> None:
    late = slot(agent, prefix)
    late.enter()
    agent.request("PUT", f"/v1/session/destroy/{late._session}")
    with pytest.raises(CommandError, match="its session has ended"):
        late.attempt([])
    with pytest.raises(CommandError, match="failed to make contender entry"):
        acquired(late, 1)


def test_all_must_agree_on_the_limit_and_on_what_it_is(agent: AgentProcess, prefix: str) -> None:
    assert acquired(slot(agent, prefix, 2), PATIENCE_SECONDS)
    with pytest.raises(CommandError, match=r"semaphore limit conflict \(lock: 2, local: 3\)"):
        acquired(slot(agent, prefix, 3), 1)
    process = start("lock", "-http-addr", address(agent), prefix, "true", stderr=subprocess.PIPE)
    assert process.communicate(timeout=PATIENCE_SECONDS)[1] == (
        "Lock acquisition failed: Existing key does not match lock use\n"
    )
    agent.put(f"{prefix}-plain/.lock", "mine")
    with pytest.raises(CommandError, match="Existing key does not match semaphore use"):
        acquired(slot(agent, f"{prefix}-plain"), 1)
    damaged = f"/v1/kv/{prefix}-damaged/.lock?flags={SEMAPHORE_FLAGS}"
    for value in (b"", b"{", b"[]", b'{"Limit": 2}', b'{"Limit": 2, "Holders": 1}'):
        agent.request("PUT", damaged, value)
        with pytest.raises(CommandError, match="lock decoding failed"):
            acquired(slot(agent, f"{prefix}-damaged"), 1)


def test_programs_run_as_many_as_the_limit_says(agent: AgentProcess, tmp_path: Path, prefix: str) -> None:
    begin = f"touch {tmp_path}/begun-$PPID; until [ -e {tmp_path}/go ]; do sleep 0.02; done"
    words = ("lock", "-http-addr", address(agent), "-n=2", "-child-exit-code", prefix, f"{begin}; exit 3")

    def begun() -> list[Path]:
        return list(tmp_path.glob("begun-*"))

    three = [start(*words) for _ in range(3)]
    eventually(lambda: len(begun()) == 2 and len(keys(agent, prefix)) == 4, "two run, all three contend")
    (tmp_path / "go").touch()
    assert [process.wait(PATIENCE_SECONDS) for process in three] == [CHILD_FAILED] * 3
    assert len(begun()) == 3
    assert keys(agent, prefix) == []


# -------------------------------------------------------------------------------------------------------------- mutants


def _writes_whatever_was_there(patch: pytest.MonkeyPatch) -> None:
    done = Semaphore._done

    def write(self: Semaphore, path: str, parameters: dict[str, str], failure: str, body: bytes) -> bool:
        return done(self, path, {name: each for name, each in parameters.items() if name != "cas"}, failure, body)

    patch.setattr(Semaphore, "_done", write)


def _keeps_the_dead(patch: pytest.MonkeyPatch) -> None:
    class Everybody(set[str]):
        def __rand__(self, others: Any) -> Any:
            return set(others)

        def __contains__(self, one: object) -> bool:
            return True

    patch.setattr(locks, "_living", lambda rows: Everybody())


def test_a_semaphore_that_is_written_whatever_was_there_is_noticed(
    agent: AgentProcess, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _writes_whatever_was_there(monkeypatch)
    with pytest.raises(AssertionError):
        who_looked_before_another_took_a_slot_looks_again(agent, prefix)


def test_a_semaphore_that_keeps_the_dead_is_noticed(
    agent: AgentProcess, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _keeps_the_dead(monkeypatch)
    with pytest.raises(AssertionError):
        a_slot_of_a_session_that_ended_is_free(agent, prefix, 0.5)
    with pytest.raises(AssertionError):
        who_lost_its_slot_is_told(agent, f"{prefix}-told", 0.5)
