"""The workloads lock and registry against the HTTP API over one state store in memory: an honest one is VALID, each way
of lying is INVALID. Requests take effect at a random moment between call and return; a few lose their answer.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from impl.agent.requests.api import Consistency, ReadOptions, ReadReply
from impl.agent.sessions import timers as session_timers
from impl.agent.sessions.keeper import SessionKeeper
from impl.agent.sessions.timers import LockDelays, SessionTimers
from impl.catalog import kv, transactions
from impl.catalog.commands import Register, Write
from impl.catalog.queries import Query, answer_query
from impl.catalog.rows import SERF_HEALTH, Check, Node, Session
from impl.catalog.store import Store
from impl.catalog.tables import Invalid, Tables
from impl.catalog.transitions import Result
from impl.http.app import Application
from impl.runtime.interfaces import NANOSECONDS
from impl.runtime.virtual import VirtualWorld
from jepsen_like.client.http import Response
from jepsen_like.client.kv import KvClient, Unanswered
from jepsen_like.generator.combinators import Limit, OnThreads
from jepsen_like.generator.interpreter import Interpreter, Worker
from jepsen_like.generator.values import Completed, Completion, Context, Draws, Ending, Thread
from jepsen_like.report.holds import drawing
from jepsen_like.workload.catalog import WORKLOADS
from model_checks.histories import locks, registry
from model_checks.histories.check import check_history
from model_checks.histories.circumstances import Circumstances
from model_checks.histories.events import Event, EventType, parse, render
from model_checks.histories.operations import pair
from model_checks.histories.register import Model
from model_checks.verdicts import CheckResult, Verdict
from tests.impl.test_agent_session_keeper import Led, led

THREADS = 20
OPERATIONS = 2_000
SESSION_NODE = "me"


class Memory:
    """An agent whose cluster is one state store."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        runtime: Any = SimpleNamespace(clock=SimpleNamespace(monotonic_ns=time.monotonic_ns))
        self.keeper = SessionKeeper(runtime)
        self.store = Store(lost=self.keeper.lost)
        self.index = 0
        self.ids = 0
        self.old: dict[str, ReadReply] = {}
        """Answers of long ago, for those who lie with them."""

    async def wait(self) -> None:
        for _ in range(self.rng.randrange(4)):
            await asyncio.sleep(0)

    async def write(self, command: Write) -> Result:
        await self.wait()
        answer: Result | None = self.keeper.refusal(command)
        if answer is None:
            self.index += 1
            answer = self.store.apply(command, self.index)
        await self.wait()
        return answer

    async def read(self, query: Query, options: ReadOptions) -> ReadReply:
        await self.wait()
        answer = answer_query(self.store, query)
        await self.wait()
        return ReadReply(answer, True, 0)

    async def renew_session(self, session_id: str) -> Session | None:
        await self.wait()
        return self.store.tables.sessions.get(session_id)

    def new_id(self) -> str:
        self.ids += 1
        return f"00000000-0000-4000-8000-{self.ids:012d}"


class MemoryClient(KvClient):
    """Speaks to the application as the real client speaks to an agent."""

    def __init__(self, app: Application, rng: random.Random) -> None:
        self.app = app
        self.rng = rng

    async def ask(
        self, method: str, target: str, body: bytes, timeout_s: float, *, changes: bool
    ) -> Response | Unanswered:
        path, _, query = target.partition("?")
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(event: dict[str, Any]) -> None:
            sent.append(event)

        scope = {"raw_path": path.encode(), "path": path, "query_string": query.encode(), "headers": []}
        await self.app({"type": "http", "method": method, **scope}, receive, send)
        status, text = sent[0]["status"], sent[1]["body"]
        headers = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
        if self.rng.random() < 0.01:
            return Unanswered(Ending.INFO if changes else Ending.FAIL, "no answer")
        if status == 200 or (status == 404 and not changes and not text):
            return Response(status, headers, text)
        return Unanswered(Ending.INFO if status == 500 else Ending.FAIL, f"{status} {text.decode()[:200]}")


def run(name: str, seed: int, memory: Memory | None = None) -> tuple[list[Event], CheckResult]:
    workload = WORKLOADS[name]
    memory = memory or Memory(seed)
    memory.store.apply(
        Register(Node(SESSION_NODE, "1"), None, (Check(SESSION_NODE, SERF_HEALTH, SERF_HEALTH, "passing"),)), 1
    )
    memory.index = 1
    agent: Any = memory
    app = Application(agent, "dc1", 512 * 1024, lambda what, error: pytest.fail(f"{what}: {error!r}"), SESSION_NODE)
    events: list[Event] = []
    client = MemoryClient(app, random.Random(seed))
    workers: dict[Thread, Worker] = {thread: workload.worker(client, 1.0) for thread in range(THREADS)}
    interpreter = Interpreter(workers, events.append)

    async def all_of_it() -> None:
        clients: list[Thread] = list(
            range(THREADS - THREADS // 20)
        )  # the last is the user of an agent, who is not here
        generator = workload.generator(Draws(seed), True)
        await interpreter.run(OnThreads(frozenset(clients), Limit(OPERATIONS, generator)))
        keys = sorted({event.key for event in events if event.key is not None}, key=str)
        await interpreter.run(OnThreads(frozenset({0, 1}), workload.final_reads(keys, [0, 1])))

    asyncio.run(all_of_it())
    return events, check_history(parse(render(events)), workload.model).result


@pytest.mark.parametrize("name", ["lock", "registry"])
def test_an_honest_store_is_valid(name: str) -> None:
    events, result = run(name, 1)
    assert result.verdict is Verdict.VALID, result.details
    figures = result.figures
    assert figures["info"] > 0
    if name == "lock":
        counts = {f: figures[f] for f in ("sessions", "holds", "locks_lost", "fenced_writes", "fenced_writes_refused")}
        assert min(counts.values()) > 5, counts
        svg = drawing(pair(parse(render(events))))
        assert svg.count("<title>") == figures["holds"]
        assert "lost with its session" in svg
    else:
        assert min(figures[f] for f in ("instances", "changes", "judged_answers")) > 10
        assert figures["blocking_queries"] > 0


def end_keeps_the_lock(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(kv, "lose", lambda tables, entry, index: None)


def lock_delay_is_ignored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LockDelays, "begin", lambda *_: None)


def lock_is_taken_from_its_holder(patch: pytest.MonkeyPatch) -> None:
    honest = kv.acquire

    def acquire(tables: Tables, key: str, value: bytes, flags: int, session: str, index: int) -> bool:
        old = tables.entries.get(key)
        if old is not None and old.session not in ("", session):
            kv.lose(tables, old, index)
        return honest(tables, key, value, flags, session, index)

    patch.setattr(kv, "acquire", acquire)


def lock_index_stands_still(patch: pytest.MonkeyPatch) -> None:
    honest = kv._store

    def store(tables: Tables, entry: Any, index: int) -> None:
        honest(
            tables,
            type(entry)(*[1 if f == "lock_index" else getattr(entry, f) for f in entry.__struct_fields__]),
            index,
        )

    patch.setattr(kv, "_store", store)


def checks_of_transactions_hold(patch: pytest.MonkeyPatch) -> None:
    honest = transactions._kv_read

    def read(tables: Tables, op: Any) -> Any:
        try:
            return honest(tables, op)
        except Invalid:
            return []

    patch.setattr(transactions, "_kv_read", read)


def release_does_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(kv, "release", lambda *_: True)


def dead_sessions_acquire(patch: pytest.MonkeyPatch) -> None:
    honest = kv.acquire

    def acquire(tables: Tables, key: str, value: bytes, flags: int, session: str, index: int) -> bool:
        try:
            return honest(tables, key, value, flags, session, index)
        except Invalid:
            kv.set_key(tables, key, value, flags, index)
            return True

    patch.setattr(kv, "acquire", acquire)


LOCK_LIES: tuple[tuple[Callable[[pytest.MonkeyPatch], None], set[str]], ...] = (
    (end_keeps_the_lock, {locks.ENDED}),
    (lock_delay_is_ignored, {locks.LOCK_DELAY}),
    (lock_is_taken_from_its_holder, {locks.HELD, locks.EXCLUSION}),
    (lock_index_stands_still, {locks.EXCLUSION}),
    (checks_of_transactions_hold, {locks.FENCING, locks.ENDED, locks.HELD}),
    (release_does_nothing, {locks.EXCLUSION}),
    (dead_sessions_acquire, {locks.ENDED, locks.EXCLUSION}),
)


@pytest.mark.parametrize(("lie", "broken"), LOCK_LIES, ids=[lie.__name__ for lie, _ in LOCK_LIES])
def test_a_lying_lock_is_invalid(
    monkeypatch: pytest.MonkeyPatch, lie: Callable[[pytest.MonkeyPatch], None], broken: set[str]
) -> None:
    lie(monkeypatch)
    _, result = run("lock", 2)
    assert result.verdict is Verdict.INVALID
    assert result.property in broken, result.reason


class ReadsOldAnswers(Memory):
    async def read(self, query: Query, options: ReadOptions) -> ReadReply:
        reply = await super().read(query, options)
        if options.consistency is not Consistency.DEFAULT:
            return reply
        return self.old.setdefault(str(query), reply) if self.rng.random() < 0.1 else reply


class LosesRegistrations(Memory):
    async def write(self, command: Write) -> Result:
        return True if isinstance(command, Register) and self.rng.random() < 0.1 else await super().write(command)


class IndexesStandStill(Memory):
    async def read(self, query: Query, options: ReadOptions) -> ReadReply:
        reply = await super().read(query, options)
        answer: Any = reply.answer
        answer = type(answer)(answer.index // 10, *[getattr(answer, f) for f in answer.__struct_fields__[1:]])
        return ReadReply(answer, True, 0)


@pytest.mark.parametrize(
    ("liar", "broken"),
    [
        (ReadsOldAnswers, {registry.ANSWERS, registry.FORWARD}),
        (LosesRegistrations, {registry.ANSWERS}),
        (IndexesStandStill, {registry.ONE_STATE}),
    ],
)
def test_a_lying_registry_is_invalid(liar: type[Memory], broken: set[str]) -> None:
    _, result = run("registry", 2, liar(2))
    assert result.verdict is Verdict.INVALID
    assert result.property in broken, result.reason


@pytest.mark.parametrize("name", ["lock", "registry"])
@pytest.mark.parametrize("default_judged", [True, False])
def test_default_reads_are_asked_for_only_where_they_are_judged(name: str, default_judged: bool) -> None:
    generator: Any = WORKLOADS[name].generator(Draws(3), default_judged)
    threads = tuple(range(40))
    asked: set[str] = set()
    for step in range(400):
        context = Context(step * NANOSECONDS // 100, threads, threads)
        emitted = generator.ask(context)
        invocation, generator = emitted.invocation, emitted.after
        if name == "registry" and invocation.f in ("read", "watch"):
            asked.add(invocation.value["mode"])
        elif name == "lock" and invocation.f in ("read", "info"):
            asked.add(invocation.note)
        done = Completion(Ending.FAIL)
        if invocation.f == "create":
            done = Completion(Ending.OK, {"session": f"session-{step}", **invocation.value})
        generator = generator.update(context, Completed(invocation, done))
    assert ("default" in asked) is default_judged
    assert "consistent" in asked


# ------------------------------------------------------------------------------------------ the leader's clock, virtual


def judged_in_virtual_time(renewals: tuple[int, ...], seconds: int) -> CheckResult:
    """A session with a TTL of 10 s that holds a lock, renewed at these seconds, and looked for twice a second."""
    events: list[Event] = []

    def sentence(world: VirtualWorld, driver: Led) -> None:
        sessions, entries = driver.store.tables.sessions, driver.store.tables.entries

        def record(f: str, key: Any, argument: Any, answer: Any) -> None:
            now = world.now_ns
            events.extend(
                Event(1, kind, f, time=now, key=key, value=argument if kind is EventType.INVOKE else answer)
                for kind in (EventType.INVOKE, EventType.OK)
            )

        wish = {"ttl": 10.0, "lock_delay": 15.0, "behavior": "release", "bound": False}
        record("create", None, wish, {"session": "s", **wish})
        for half in range(2 * seconds):
            session, entry = sessions.get("s"), entries["k"]
            if half % 2 == 0 and half // 2 in renewals:
                if session is not None:
                    driver.keeper.renew(session)
                record("renew", "s", None, session is not None)
            row = {"create": entry.create_index, "lock": entry.lock_index, "modify": entry.modify_index}
            record("read", "k", None, {**row, "session": entry.session or None})
            world.run_for(NANOSECONDS // 2)

    led(sentence)
    always = Circumstances(reigns=((0, 1 << 62),))
    return check_history(parse(render(events)), Model.LOCK, circumstances=always).result


def ttl_is_counted_from_the_creation(patch: pytest.MonkeyPatch) -> None:
    honest = SessionTimers.renew

    def renew(timers: SessionTimers, session: Session, now_ns: int) -> None:
        if session.id not in timers._due:
            honest(timers, session, now_ns)

    patch.setattr(SessionTimers, "renew", renew)


def ttl_is_halved(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(session_timers, "TTL_MULTIPLIER", 0.5)


def nothing_expires(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SessionTimers, "expired", lambda *_: [])


def test_an_honest_leader_ends_a_session_between_once_and_twice_its_ttl() -> None:
    result = judged_in_virtual_time((8, 16), 50)
    assert (result.verdict, result.figures["sessions_expired"]) == (Verdict.VALID, 0), "it was seen by its lock alone"
    assert result.figures["locks_lost"] == 1


@pytest.mark.parametrize(
    ("lie", "broken"),
    [
        (ttl_is_counted_from_the_creation, locks.TTL),
        (ttl_is_halved, locks.TTL),
        (nothing_expires, locks.EXPIRY),
    ],
)
def test_a_clock_that_lies_is_found_out(
    monkeypatch: pytest.MonkeyPatch, lie: Callable[[pytest.MonkeyPatch], None], broken: str
) -> None:
    lie(monkeypatch)
    result = judged_in_virtual_time((8, 16), 50)
    assert (result.verdict, result.property) == (Verdict.INVALID, broken), result.reason
