"""`lock -n`: semaphores, against a real agent, in the format of Consul's client."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from impl import locks
from impl.http_client import CommandError, HttpClient
from impl.lock_command import CHILD_FAILED
from impl.locks import SEMAPHORE_FLAGS, Attempt, Semaphore
from impl.session_commands import create_session
from tests.impl.agent_processes import PATIENCE_SECONDS, eventually
from tests.impl.console import Console, served

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]


@pytest.fixture(scope="module")
def console() -> Iterator[Console]:
    yield from served()


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    return f"semaphores/{request.node.name}"


def slot(console: Console, prefix: str, limit: int = 2) -> Semaphore:
    client = HttpClient(console.address)
    session = create_session(client, {"TTL": "60s", "Behavior": "delete"})
    return Semaphore(client, prefix, session, 0, limit)


def acquired(semaphore: Semaphore, seconds: float) -> bool:
    return semaphore.acquire(threading.Event(), time.monotonic() + seconds)


def keys(console: Console, prefix: str) -> list[str]:
    status, body = console.agent.request("GET", f"/v1/kv/{prefix}/?keys")
    return [key.removeprefix(f"{prefix}/") for key in json.loads(body)] if status == 200 else []


def who_looked_before_another_took_a_slot_looks_again(console: Console, prefix: str) -> None:
    slots = [slot(console, prefix) for _ in range(3)]
    for each in slots:
        each.enter()
    assert slots[0].attempt(slots[0]._now("")) is Attempt.HELD
    seen = slots[0]._now("")
    assert [each.attempt(seen) for each in slots[1:]] == [Attempt.HELD, Attempt.RACED]
    assert slots[2].attempt(slots[2]._now("")) is Attempt.BUSY


def test_who_looked_before_another_took_a_slot_looks_again(console: Console, prefix: str) -> None:
    who_looked_before_another_took_a_slot_looks_again(console, prefix)


def never_more_than_two_hold(console: Console, prefix: str) -> None:
    holding, most, failures = 0, 0, []
    guard = threading.Lock()

    def contend() -> None:
        nonlocal holding, most
        try:
            semaphore = slot(console, prefix)
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
    assert keys(console, prefix) == [], "who finds nobody waiting removes the semaphore"


def test_never_more_than_the_limit_hold_it(console: Console, prefix: str) -> None:
    never_more_than_two_hold(console, prefix)


def test_it_is_kept_as_consul_keeps_it(console: Console, prefix: str) -> None:
    first, second = slot(console, prefix), slot(console, prefix)
    assert acquired(first, PATIENCE_SECONDS) and acquired(second, PATIENCE_SECONDS)
    row = console.key(f"{prefix}/.lock")
    assert row is not None and row["Flags"] == SEMAPHORE_FLAGS
    sessions = {first._session, second._session}
    assert json.loads(b64decode(row["Value"])) == {"Limit": 2, "Holders": dict.fromkeys(sessions, True)}
    for session in sessions:
        own = console.key(f"{prefix}/{session}")
        assert own is not None and (own["Session"], own["Flags"]) == (session, SEMAPHORE_FLAGS)
    first.release()
    assert keys(console, prefix) == [".lock", second._session]
    second.release()
    assert keys(console, prefix) == []


def a_slot_of_a_session_that_ended_is_free(console: Console, prefix: str, patience: float = PATIENCE_SECONDS) -> None:
    first = slot(console, prefix, 2)
    others = [slot(console, prefix), slot(console, prefix)]
    assert acquired(first, PATIENCE_SECONDS) and acquired(others[0], PATIENCE_SECONDS)
    assert not acquired(others[1], 0.1)
    console.agent.request("PUT", f"/v1/session/destroy/{first._session}")
    assert acquired(others[1], patience)
    for each in others:
        each.release()


def test_a_slot_of_a_session_that_ended_is_free(console: Console, prefix: str) -> None:
    a_slot_of_a_session_that_ended_is_free(console, prefix)


def who_lost_its_slot_is_told(console: Console, prefix: str, patience: float = PATIENCE_SECONDS) -> None:
    holder = slot(console, prefix)
    assert acquired(holder, PATIENCE_SECONDS)
    holder.watch()
    assert not holder.lost.wait(0.1)
    console.agent.request("PUT", f"/v1/session/destroy/{holder._session}")
    assert holder.lost.wait(patience)


def test_who_lost_its_slot_is_told(console: Console, prefix: str) -> None:
    who_lost_its_slot_is_told(console, prefix)


def test_who_has_no_session_any_more_gets_no_slot(console: Console, prefix: str) -> None:
    late = slot(console, prefix)
    late.enter()
    console.agent.request("PUT", f"/v1/session/destroy/{late._session}")
    with pytest.raises(CommandError, match="its session has ended"):
        late.attempt([])
    with pytest.raises(CommandError, match="failed to make contender entry"):
        acquired(late, 1)


def test_all_must_agree_on_the_limit_and_on_what_it_is(console: Console, prefix: str) -> None:
    assert acquired(slot(console, prefix, 2), PATIENCE_SECONDS)
    with pytest.raises(CommandError, match=r"semaphore limit conflict \(lock: 2, local: 3\)"):
        acquired(slot(console, prefix, 3), 1)
    process = console.start("lock", "-http-addr", console.address, prefix, "true", stderr=subprocess.PIPE)
    assert process.communicate(timeout=PATIENCE_SECONDS)[1] == (
        "Lock acquisition failed: Existing key does not match lock use\n"
    )
    console.agent.put(f"{prefix}-plain/.lock", "mine")
    with pytest.raises(CommandError, match="Existing key does not match semaphore use"):
        acquired(slot(console, f"{prefix}-plain"), 1)
    damaged = f"/v1/kv/{prefix}-damaged/.lock?flags={SEMAPHORE_FLAGS}"
    for value in (b"", b"{", b"[]", b'{"Limit": 2}', b'{"Limit": 2, "Holders": 1}'):
        console.agent.request("PUT", damaged, value)
        with pytest.raises(CommandError, match="lock decoding failed"):
            acquired(slot(console, f"{prefix}-damaged"), 1)


def test_programs_run_as_many_as_the_limit_says(console: Console, tmp_path: Path, prefix: str) -> None:
    begin = f"touch {tmp_path}/begun-$PPID; until [ -e {tmp_path}/go ]; do sleep 0.02; done"
    words = ("lock", "-http-addr", console.address, "-n=2", "-child-exit-code", prefix, f"{begin}; exit 3")
    begun: Callable[[], list[Path]] = lambda: list(tmp_path.glob("begun-*"))  # noqa: E731
    three = [console.start(*words) for _ in range(3)]
    eventually(lambda: len(begun()) == 2 and len(keys(console, prefix)) == 4, "two run, all three contend")
    (tmp_path / "go").touch()
    assert [process.wait(PATIENCE_SECONDS) for process in three] == [CHILD_FAILED] * 3
    assert len(begun()) == 3
    assert keys(console, prefix) == []


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
    console: Console, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _writes_whatever_was_there(monkeypatch)
    with pytest.raises(AssertionError):
        who_looked_before_another_took_a_slot_looks_again(console, prefix)


def test_a_semaphore_that_keeps_the_dead_is_noticed(
    console: Console, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _keeps_the_dead(monkeypatch)
    with pytest.raises(AssertionError):
        a_slot_of_a_session_that_ended_is_free(console, prefix, 0.5)
    with pytest.raises(AssertionError):
        who_lost_its_slot_is_told(console, f"{prefix}-told", 0.5)
