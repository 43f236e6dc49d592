"""Workloads against a store in memory: an honest one is VALID, each way of lying is INVALID."""

from __future__ import annotations

import asyncio
import base64
import json
import random

import pytest

from jepsen_like.client.http import RequestFailed
from jepsen_like.client.kv import Answered, KvClient, Row, Unanswered
from jepsen_like.generator.combinators import Limit, OnThreads
from jepsen_like.generator.interpreter import Interpreter, Worker
from jepsen_like.generator.values import Draws, Ending, Thread
from jepsen_like.workload import register
from jepsen_like.workload.catalog import WORKLOADS
from jepsen_like.workload.register import LIVING_KEYS, OBSERVERS_ONE_IN
from model_checks.histories.check import check_history
from model_checks.histories.events import Event, EventType, parse, render
from model_checks.histories.operations import Outcome, pair
from model_checks.verdicts import CheckResult, Verdict

THREADS = 20


class Store:
    """An honest linearizable KV. Operations take effect at a random moment between call and return; a few lose their
    answer.
    """

    def __init__(self, seed: int, lie: str = "") -> None:
        self.rng = random.Random(seed)
        self.lie = lie
        self.rows: dict[str, tuple[object, int]] = {}
        self.old: dict[str, tuple[object, int]] = {}
        self.index = 0

    async def wait(self) -> None:
        for _ in range(self.rng.randrange(4)):
            await asyncio.sleep(0)

    def lies(self, name: str) -> bool:
        return self.lie == name and self.rng.random() < 0.05

    def write(self, key: str, value: object) -> None:
        if key in self.rows:
            self.old[key] = self.rows[key]
        self.index += 1
        self.rows[key] = (value, self.index)


class StoreClient(KvClient):
    """Speaks to a Store as the real client speaks to an agent."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def get(
        self, key: str, timeout_s: float, consistency: str = "consistent"
    ) -> Answered[Row | None] | Unanswered:
        store = self.store
        await store.wait()
        old = consistency == "stale" or store.lies(f"stale {consistency} read")
        row = store.old.get(key) if old else store.rows.get(key)
        await store.wait()
        encoded = None if row is None else base64.b64encode(json.dumps(row[0]).encode()).decode()
        return Answered(None if row is None else Row(key=key, modify_index=row[1], value=encoded))

    async def keys(self, prefix: str, timeout_s: float) -> Answered[list[str]] | Unanswered:
        await self.store.wait()
        found = sorted(key for key in self.store.rows if key.startswith(prefix))
        if self.store.lies("incomplete list") and found:
            found.pop()
        await self.store.wait()
        return Answered(found)

    async def put(
        self, key: str, value: object, timeout_s: float, cas: int | None = None
    ) -> Answered[bool] | Unanswered:
        store = self.store
        await store.wait()
        row = store.rows.get(key)
        if cas is not None and (row[1] if row else 0) != cas and not store.lies("cas ignores the index"):
            return Answered(False)
        lost = store.lies("acknowledged write is lost")
        refused = store.lies("refused write is applied")
        if not lost:
            store.write(key, value)
        await store.wait()
        if refused:
            return Unanswered(Ending.FAIL, "500 No cluster leader")
        if store.rng.random() < 0.02:
            return Unanswered(Ending.INFO, str(RequestFailed("no answer", sent=True)))
        if store.lies("applied twice"):
            for _ in range(50):
                await store.wait()
            store.write(key, value)
        return Answered(True)


def run(
    name: str, operations: int, seed: int, lie: str = "", default_judged: bool = True
) -> tuple[list[Event], CheckResult]:
    workload = WORKLOADS[name]
    store = Store(seed, lie)
    events: list[Event] = []
    workers: dict[Thread, Worker] = {thread: workload.worker(StoreClient(store), 1.0) for thread in range(THREADS)}
    interpreter = Interpreter(workers, events.append)

    async def all_of_it() -> None:
        await interpreter.run(Limit(operations, workload.generator(Draws(seed), default_judged)))
        keys = sorted({event.key for event in events})
        threads: list[Thread] = [0, 1]
        await interpreter.run(OnThreads(frozenset(threads), workload.final_reads(keys, threads)))

    asyncio.run(all_of_it())
    return events, check_history(parse(render(events)), workload.model).result


@pytest.mark.parametrize("name", ["register", "set"])
@pytest.mark.parametrize("seed", [1, 2])
def test_an_honest_store_is_valid(name: str, seed: int) -> None:
    _, result = run(name, 4_000, seed)
    assert result.verdict is Verdict.VALID, result.details
    assert result.figures["ok"] > 2_000
    assert result.figures["info"] > 10


@pytest.mark.parametrize(
    ("name", "lie"),
    [
        ("register", "stale consistent read"),
        ("register", "stale default read"),
        ("register", "acknowledged write is lost"),
        ("register", "cas ignores the index"),
        ("register", "refused write is applied"),
        ("register", "applied twice"),
        ("set", "incomplete list"),
        ("set", "acknowledged write is lost"),
        ("set", "refused write is applied"),
    ],
)
def test_a_lying_store_is_invalid(name: str, lie: str) -> None:
    _, result = run(name, 3_000, 1, lie)
    assert result.verdict is Verdict.INVALID
    assert result.property
    assert result.details


def test_the_register_workload_is_the_one_it_promises_to_be() -> None:
    events, _ = run("register", 8_000, 3, default_judged=False)
    operations = pair(parse(render(events)))
    weak = [o for o in operations if o.f not in ("read", "write", "cas")]
    assert {o.f for o in weak} == {"stale-read", "default-read"}
    assert len({o.process % THREADS for o in weak}) == THREADS // OBSERVERS_ONE_IN
    operations = [o for o in operations if o not in weak]
    kinds = {f: sum(1 for o in operations if o.f == f) / len(operations) for f in ("read", "write", "cas")}
    assert 0.4 < kinds["read"] < 0.65
    assert min(kinds["write"], kinds["cas"]) > 0.15
    written = [o.argument if o.f == "write" else o.argument[1] for o in operations if o.f in ("write", "cas")]
    assert len(set(written)) == len(written), "every value is written once"
    swaps = [o for o in operations if o.f == "cas"]
    assert sum(o.outcome is Outcome.OK for o in swaps) > 100
    assert sum(o.outcome is Outcome.FAIL for o in swaps) > 20
    living = [o for o in operations if o.key < LIVING_KEYS]
    assert len(living) > 0.45 * len(operations)
    for key in range(LIVING_KEYS):
        users = {o.process % THREADS for o in living if o.key == key}
        assert len(users) >= 3


def test_where_default_promises_nothing_its_stale_reads_are_kept_apart() -> None:
    assert run("register", 3_000, 1, "stale default read")[1].verdict is Verdict.INVALID
    assert run("register", 3_000, 1, "stale default read", default_judged=False)[1].verdict is Verdict.VALID


def test_at_least_half_of_the_keys_live_the_whole_run_however_long_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(register, "OPERATIONS_PER_ROTATING_KEY", 20)
    events, _ = run("register", 9_000, 4)
    keys = {event.key for event in events}
    early = {event.key for event in events[:1_000]}
    late = {event.key for event in events[-2_000:-1_000]}
    assert len(keys) == 2 * LIVING_KEYS, "every fresh key was taken into use, and no more"
    assert len(early & late) >= len(keys) / 2
    retired = {key for key in keys if key not in late}
    assert retired


def test_the_set_workload_adds_each_element_once_and_begins_new_sets() -> None:
    events, _ = run("set", 3_000, 3)
    added = [event.value for event in events if event.type is EventType.INVOKE and event.f == "add"]
    assert len(set(added)) == len(added)
    assert len({event.key for event in events}) > 5
