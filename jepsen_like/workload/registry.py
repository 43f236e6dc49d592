"""Registrations against health answers: what is registered, what reads show, what watchers are told.

Writers register, change and deregister the instances of a few services in the catalog; each registration has a version
of its own, so an answer names the registration that it shows. Readers ask for the health of a service, half of them for
`?passing`, in `default` and `consistent` mode. Two watchers at each agent follow one service each with blocking
queries, as Consul's users do: one in `default` mode (every third in `consistent`), one in `stale`. One thread of each
agent plays its user: instances with TTL checks come, change and go at the agent itself, and anti-entropy must bring
them to the catalog, which is looked at when all is mended. What must hold: `model_checks/histories/registry`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from jepsen_like.client.kv import Answered, KvClient, Unanswered
from jepsen_like.client.registry import Health, RegistryClient
from jepsen_like.generator.combinators import Each
from jepsen_like.generator.values import (
    PENDING,
    Answer,
    Completed,
    Completion,
    Context,
    Draws,
    Emit,
    Ending,
    Generator,
    Invocation,
    Thread,
)
from jepsen_like.workload.base import Least, Workload, unanswered
from model_checks.histories.register import Model

BUSY_SERVICES, QUIET_SERVICES = 2, 4
QUIET_WRITE_PERMILLE = 20
"""Of the changes: so rarely that a blocking query waits for them."""
SERVICES = BUSY_SERVICES + QUIET_SERVICES
INSTANCES = 5
"""Of each service."""
WRITE_PERCENT = 30
DEREGISTER_PERCENT = 25
PASSING_PERCENT = 60
STALE_READ_PERCENT = 10
WAIT_MS = 4_000
FINAL_WAIT_MS = 500
REST_NS = 50_000_000
"""A watcher does something with an answer before it asks again."""
WATCHERS_ONE_IN, USERS_ONE_IN = 10, 20
"""Of the threads, the last ones: threads are dealt to agents in turn, so each agent has as many."""
SETTLE_S = 75.0
"""What an agent was told must be in the catalog within this, when all is mended: it compares everything once a minute,
and what the nemesis `membership` deregistered with a node comes back no sooner."""
SETTLE_POLL_S = 0.1
AGENT_INSTANCES = 2
"""Of the user of an agent."""


def roles(threads: Sequence[Thread]) -> tuple[list[Thread], list[Thread], list[Thread]]:
    """Who reads and writes, who watches, who is the user of an agent."""
    numbered = list(threads)
    users, watchers = len(numbered) // USERS_ONE_IN, len(numbered) // WATCHERS_ONE_IN
    rest = len(numbered) - users - watchers
    return numbered[:rest], numbered[rest : rest + watchers], numbered[rest + watchers :]


def watched_by(thread: int) -> tuple[str, str]:
    """The service that a watcher follows, and its mode. Neighbours have other agents: thread modulo their number."""
    mode = "stale" if thread % 2 else "consistent" if thread % 3 == 0 else "default"
    return f"service-{thread // 2 % SERVICES}", mode


class Registrations(msgspec.Struct, frozen=True):
    """The generator."""

    draws: Draws
    default_judged: bool = True
    next_version: int = 1
    opened: int = 0
    """Quiet services that have had an instance: who follows one that never existed is woken by every other."""
    answered_ns: Mapping[Thread, int] = {}
    """When each watcher was answered."""

    def ask(self, context: Context) -> Answer:
        clients, watchers, users = roles(context.threads)
        for thread in watchers:
            if thread in context.free and context.now_ns >= self.answered_ns.get(thread, -REST_NS) + REST_NS:
                return Emit(_watch(thread, context.now_ns, WAIT_MS, self.default_judged), self)
        free = [thread for thread in (*clients, *users) if thread in context.free]
        if not free:
            return PENDING
        thread, draws = self.draws.among(free, [1] * len(free))
        if self.opened < QUIET_SERVICES:
            value = {"version": self.next_version, "status": "passing"}
            opening = Invocation("register", f"service-{BUSY_SERVICES + self.opened}/0", value, thread, context.now_ns)
            version = self.next_version + 1
            after = msgspec.structs.replace(self, draws=draws, opened=self.opened + 1, next_version=version)
            return Emit(opening, after)
        if thread in users:
            return self._told(context, thread, draws)
        percent, draws = draws.below(100)
        if percent < WRITE_PERCENT:
            permille, draws = draws.below(1_000)
            quiet = permille < QUIET_WRITE_PERMILLE
            service, draws = draws.below(QUIET_SERVICES if quiet else BUSY_SERVICES)
            place, draws = draws.below(INSTANCES)
            instance = f"service-{service + BUSY_SERVICES * quiet}/{place}"
            return self._change(context, thread, ("register", "deregister"), instance, draws)
        service, draws = draws.below(SERVICES)
        passing, draws = draws.below(2)
        percent, draws = draws.below(100)
        weak, draws = draws.below(2)
        mode = "stale" if percent < STALE_READ_PERCENT else "default" if weak and self.default_judged else "consistent"
        asked = {"mode": mode, "passing": bool(passing)}
        read = Invocation("read", f"service-{service}", asked, thread, context.now_ns)
        return Emit(read, msgspec.structs.replace(self, draws=draws))

    def _change(self, context: Context, thread: Thread, fs: tuple[str, str], instance: str, draws: Draws) -> Emit:
        percent, draws = draws.below(100)
        passing, draws = draws.below(100)
        status = "passing" if passing < PASSING_PERCENT else "critical"
        f, value = fs[0], {"version": self.next_version, "status": status}
        gone = percent < DEREGISTER_PERCENT
        change = Invocation(fs[1] if gone else f, instance, None if gone else value, thread, context.now_ns)
        return Emit(change, msgspec.structs.replace(self, draws=draws, next_version=self.next_version + 1))

    def _told(self, context: Context, thread: Thread, draws: Draws) -> Emit:
        place, draws = draws.below(AGENT_INSTANCES)
        percent, draws = draws.below(100)
        if percent < 50:
            fs = ("agent-register", "agent-deregister")
            return self._change(context, thread, fs, _of_user(thread, place), draws)
        passing, draws = draws.below(100)
        status = "passing" if passing < PASSING_PERCENT else "critical"
        flip = Invocation("agent-check", _of_user(thread, place), status, thread, context.now_ns)
        return Emit(flip, msgspec.structs.replace(self, draws=draws))

    def update(self, context: Context, event: Completed) -> Generator:
        thread = event.invocation.thread
        if event.invocation.f != "watch" or thread is None:
            return self
        return msgspec.structs.replace(self, answered_ns={**self.answered_ns, thread: context.now_ns})


def _of_user(thread: Thread, place: int) -> str:
    return f"agents-{thread}/{place}"


def _watch(thread: Thread, at_ns: int | None, wait_ms: int, default_judged: bool = True) -> Invocation:
    assert isinstance(thread, int), "nobody but client threads watches"
    service, mode = watched_by(thread)
    if mode == "default" and not default_judged:
        mode = "consistent"
    return Invocation("watch", service, {"mode": mode, "passing": False}, thread, at_ns, wait_ms)


class RegistryWorker:
    """One thread; a watcher remembers the index of its last answer, which is where it goes on."""

    def __init__(self, kv: KvClient, timeout_s: float) -> None:
        self._client = RegistryClient(kv, timeout_s)
        self._index = 0

    async def invoke(self, invocation: Invocation) -> Completion:
        """One operation."""
        client, key, value = self._client, invocation.key, invocation.value
        match invocation.f:
            case "register":
                return _done(await client.register(key, value["version"], value["status"]), value)
            case "deregister":
                return _done(await client.deregister(key), value)
            case "agent-register":
                return _done(await client.agent_register(key, value["version"], value["status"]), value)
            case "agent-deregister":
                return _done(await client.agent_deregister(key), value)
            case "agent-check":
                return _done(await client.agent_check(key, value), value)
            case "read":
                return _shown(await client.health(key, value["mode"], passing=value["passing"]), {})
            case "watch":
                return await self._watch(key, value["mode"], invocation.note)
            case f:
                assert f == "settled"
                return await self._settle(key)

    async def _watch(self, service: str, mode: str, wait_ms: int) -> Completion:
        given = {"given": self._index, "wait_ms": wait_ms}
        health = await self._client.health(service, mode, index=self._index, wait_ms=wait_ms)
        if isinstance(health, Answered):
            # Consul, "Blocking Queries": an index that goes backwards is reset to 0 by the client.
            self._index = health.result.index if health.result.index >= self._index else 0
        return _shown(health, given)

    async def _settle(self, instance: str) -> Completion:
        """Look until the catalog shows what the agent has; the last look at the catalog is the answer."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + SETTLE_S
        while True:
            late = loop.time() > deadline
            health = await self._client.health(instance.rpartition("/")[0], "consistent")
            own = await self._client.agent_state(instance)
            if isinstance(health, Answered) and isinstance(own, Answered):
                shown = health.result.instances.get(instance)
                if late or shown == own.result:
                    return Completion(Ending.OK, shown)
            elif late:
                return Completion(Ending.FAIL, None, "no answer")
            await asyncio.sleep(SETTLE_POLL_S)


def _done(answer: Answered[bool] | Unanswered, value: Any) -> Completion:
    return unanswered(answer, value) if isinstance(answer, Unanswered) else Completion(Ending.OK, value)


def _shown(health: Answered[Health] | Unanswered, more: dict[str, int]) -> Completion:
    if isinstance(health, Unanswered):
        return unanswered(health, None)
    return Completion(Ending.OK, {"index": health.result.index, "instances": health.result.instances, **more})


def farewell(threads: Sequence[Thread]) -> Generator:
    """Each user sets the status of what its agent has and looks for it in the catalog; each watcher asks once more."""
    _, watchers, users = roles(threads)
    last: list[Invocation] = []
    for user in users:
        for place in range(AGENT_INSTANCES):
            instance = _of_user(user, place)
            last.append(Invocation("agent-check", instance, "passing" if place % 2 else "critical", user))
            last.append(Invocation("settled", instance, thread=user))
    last += [_watch(watcher, None, FINAL_WAIT_MS) for watcher in watchers]
    return Each(tuple(last))


def final_reads(keys: Sequence[Any], threads: Sequence[Thread]) -> Generator:
    """Each service through every agent."""
    services = sorted({key.partition("/")[0] for key in keys if key.startswith("service-")})
    asked = {"mode": "consistent", "passing": False}
    return Each(tuple(Invocation("read", key, asked, thread) for key in services for thread in threads))


REGISTRY = Workload(
    "registry",
    Model.REGISTRY,
    Registrations,
    RegistryWorker,
    final_reads,
    purpose="registrations against health answers, blocking queries that follow the index, agents' own services",
    least=(
        Least("changes", 5.0, "acknowledged registrations and deregistrations"),
        Least("judged_answers", 5.0, "answers judged"),
        Least("woken", 0.5, "blocking queries that a change woke"),
        Least("waits_judged", 0.2, "blocking queries that nothing disturbed"),
        Least("agents_settled", 0.02, "agents' own instances looked for in the end"),
    ),
    farewell=farewell,
)
