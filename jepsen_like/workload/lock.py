"""Sessions and locks with fencing, as Consul's users use them: a session, a lock, work under it.

Each client thread has one session at a time and wants a few contended keys. What it has acquired it works under: it
writes what the lock protects by a transaction that checks its session and, for most, the lock's ModifyIndex: its
sequencer. It renews, releases, destroys its session or that of somebody else, or forgets it, so that it expires. It
learns late: one whose session has ended goes on writing with its old sequencer until it is refused. Half of the locks
are taken by a transaction, which shows the sequencer, half by ?acquire and a read after it.

Most sessions stand on a node without an agent and depend on no check, so that nothing but their TTL and their clients
ends them; some depend on the health of an agent's node, as by default. What must hold: `model_checks/histories/locks`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from jepsen_like.client.kv import KvClient, Unanswered
from jepsen_like.client.locks import LockClient, SessionWish
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
from model_checks.histories.lock_sightings import INVALID_SESSION
from model_checks.histories.register import Model

KEYS = 24
HOLDER_WEIGHT = 8
"""A client that holds a lock acts as often as so many that do not: there are more clients than locks."""
TTLS = (10.0, 10.0, 15.0, None)
"""Seconds; 10 is the least that Consul allows. None: without."""
LOCK_DELAYS = (0.0, 0.0, 1.0, 1.0, 2.0)
BEHAVIORS = ("release", "release", "release", "delete")
BOUND_PERCENT = 10
BY_TRANSACTION_PERCENT = 50
CHECKED_INDEX_PERCENT = 75
LEARNS_PERCENT = 60
"""Of those who see that they hold a lock no more, how many believe it."""
DEFAULT_READ_PERCENT = 40
CHECK_FAILED = "failed "
"""In the text of every check of a transaction that did not hold."""
FINAL_SESSIONS_MAX = 40
"""Sessions to look for at the end."""

_IDLE = (
    ("acquire", 60),
    ("renew", 10),
    ("info", 4),
    ("read", 10),
    ("read-protected", 10),
    ("destroy", 4),
    ("forget", 2),
)
_HOLDING = (
    ("write", 48),
    ("release", 14),
    ("acquire", 8),
    ("renew", 8),
    ("read", 6),
    ("read-protected", 8),
    ("info", 2),
    ("destroy", 4),
    ("forget", 1),
)
DESTROYS_ANOTHER_PERCENT = 40
LEFT_TO_EXPIRE = 6
"""Forgotten sessions; older ones are destroyed, or all locks would wait for them: each new leader begins TTLs anew."""


class Held(msgspec.Struct, frozen=True):
    """A lock as its client knows it: the sequencer, and the ModifyIndex to check; None before it was read."""

    hold: tuple[int, int] | None = None
    index: int | None = None


class Client(msgspec.Struct, frozen=True):
    """What the client of a thread knows."""

    session: str
    ttl: float | None
    locks: tuple[tuple[int, Held], ...] = ()
    to_read: int | None = None
    """A key that it has acquired, and whose sequencer it does not know yet."""

    def with_lock(self, key: int, held: Held | None) -> Client:
        """The same with this lock, or without it."""
        others = tuple(each for each in self.locks if each[0] != key)
        return msgspec.structs.replace(self, locks=others if held is None else (*others, (key, held)), to_read=None)


class Locks(msgspec.Struct, frozen=True):
    """The generator. `clients` by thread; a thread without one creates a session next."""

    draws: Draws
    default_judged: bool = True
    clients: Mapping[Thread, Client] = {}
    forgotten: tuple[str, ...] = ()
    """Sessions with a TTL that nobody renews any more."""
    next_value: int = 1

    def ask(self, context: Context) -> Answer:
        if not context.free:
            return PENDING
        weights = [HOLDER_WEIGHT if self._holds(thread) else 1 for thread in context.free]
        thread, draws = self.draws.among(context.free, weights)
        client = self.clients.get(thread)
        if client is None:
            wish, draws = _wish(draws)
            create = Invocation("create", value=msgspec.to_builtins(wish), thread=thread, at_ns=context.now_ns)
            return Emit(create, msgspec.structs.replace(self, draws=draws))
        if client.to_read is not None:
            read = Invocation("read", client.to_read, thread=thread, at_ns=context.now_ns)
            return Emit(read, self._know(thread, msgspec.structs.replace(client, to_read=None), draws))
        return self._act(context, thread, client, draws)

    def _holds(self, thread: Thread) -> bool:
        client = self.clients.get(thread)
        return client is not None and bool(client.locks)

    def _act(self, context: Context, thread: Thread, client: Client, draws: Draws) -> Emit:
        table = _HOLDING if client.locks else _IDLE
        f, draws = draws.among([name for name, _ in table], [weight for _, weight in table])
        by_default, draws = draws.below(100)
        note = "default" if self.default_judged and by_default < DEFAULT_READ_PERCENT else "consistent"
        after = self
        if f == "forget" and client.ttl is not None:
            wish, draws = _wish(draws)
            create = Invocation("create", value=msgspec.to_builtins(wish), thread=thread, at_ns=context.now_ns)
            return Emit(create, msgspec.structs.replace(self, draws=draws, forgotten=(*self.forgotten, client.session)))
        if f == "forget":
            f = "destroy"  # one without a TTL would keep its locks for ever
        mine, draws = draws.below(max(1, len(client.locks)))
        any_key, draws = draws.below(KEYS)
        percent, draws = draws.below(100)
        key: Any = client.locks[mine][0] if client.locks and f in ("write", "release") else any_key
        value: Any = None
        match f:
            case "acquire" | "release":
                value = {"session": client.session}
                note = "txn" if percent < BY_TRANSACTION_PERCENT else "put"
            case "write":
                held = client.locks[mine][1]
                checked = held.index if percent < CHECKED_INDEX_PERCENT else None
                value = {"value": self.next_value, "session": client.session}
                value |= {"hold": held.hold, "checked_index": checked}
                after = msgspec.structs.replace(self, next_value=self.next_value + 1)
            case "renew" | "info":
                key = client.session
            case "destroy":
                key = client.session
                if len(self.forgotten) > LEFT_TO_EXPIRE:
                    key = self.forgotten[0]
                    after = msgspec.structs.replace(self, forgotten=self.forgotten[1:])
                elif percent < DESTROYS_ANOTHER_PERCENT:
                    others = sorted(each.session for each in self.clients.values())
                    place, draws = draws.below(len(others))
                    key = others[place]
        invocation = Invocation(f, key, value, thread, context.now_ns, note)
        return Emit(invocation, msgspec.structs.replace(after, draws=draws))

    def _know(self, thread: Thread, client: Client | None, draws: Draws) -> Locks:
        clients = {each: known for each, known in self.clients.items() if each != thread}
        if client is not None:
            clients[thread] = client
        return msgspec.structs.replace(self, clients=clients, draws=draws)

    def update(self, context: Context, event: Completed) -> Generator:
        invocation, completion = event.invocation, event.completion
        thread, ok = invocation.thread, completion.ending is Ending.OK
        assert thread is not None
        client = self.clients.get(thread)
        if invocation.f == "create":
            if not ok:
                return self
            made = completion.value
            return self._know(thread, Client(made["session"], made["ttl"]), self.draws)
        if client is None:
            return self
        percent, draws = self.draws.below(100)
        return self._know(thread, _learnt(client, invocation, completion, percent < LEARNS_PERCENT), draws)


def _learnt(client: Client, invocation: Invocation, completion: Completion, believes: bool) -> Client | None:
    """The client after an operation of its; None: it needs another session."""
    ok, failed = completion.ending is Ending.OK, completion.ending is Ending.FAIL
    key = invocation.key
    match invocation.f:
        case "acquire" if ok:
            row = completion.value.get("row")
            if row is None:
                return msgspec.structs.replace(client.with_lock(key, Held()), to_read=key)
            return client.with_lock(key, Held((row["create"], row["lock"]), row["modify"]))
        case "acquire" if completion.ending is Ending.INFO:
            return msgspec.structs.replace(client.with_lock(key, Held()), to_read=key)
        case "acquire" if failed and INVALID_SESSION in (completion.error or ""):
            return None
        case "read" if ok and (known := dict(client.locks).get(key)) is not None:
            row = completion.value
            if row is not None and row["session"] == client.session:
                return client.with_lock(key, Held((row["create"], row["lock"]), row["modify"]))
            return client.with_lock(key, None) if believes or known.hold is None else client
        case "write" if failed and believes and CHECK_FAILED in (completion.error or ""):
            return client.with_lock(key, None)
        case "release" if ok or (failed and believes and completion.error is None):
            return client.with_lock(key, None)
        case "renew" | "info" if ok and not completion.value and believes:
            return None
        case "destroy" if ok and key == client.session and (believes or not client.locks):
            return None
        case _:
            return client


def _wish(draws: Draws) -> tuple[SessionWish, Draws]:
    ttl, draws = draws.among(TTLS, [1] * len(TTLS))
    delay, draws = draws.among(LOCK_DELAYS, [1] * len(LOCK_DELAYS))
    behavior, draws = draws.among(BEHAVIORS, [1] * len(BEHAVIORS))
    percent, draws = draws.below(100)
    return SessionWish(ttl, delay, behavior, percent < BOUND_PERCENT), draws


class LockWorker:
    """Lock k is the key `lock/k`, what it protects the key `protected/k`."""

    def __init__(self, kv: KvClient, timeout_s: float) -> None:
        self._client = LockClient(kv, timeout_s)

    async def invoke(self, invocation: Invocation) -> Completion:
        """One operation."""
        client, key, value = self._client, invocation.key, invocation.value
        lock, protected = f"lock/{key}", f"protected/{key}"
        consistency = invocation.note or "consistent"
        match invocation.f:
            case "create":
                made = await client.create(msgspec.convert(value, SessionWish))
                if isinstance(made, Unanswered):
                    return unanswered(made, value)
                return Completion(Ending.OK, {"session": made.result, **value})
            case "renew":
                return _plain(await client.renew(key), None)
            case "info":
                return _plain(await client.exists(key, consistency), None)
            case "destroy":
                return _plain(await client.destroy(key), None)
            case "acquire" if consistency == "txn":
                row = await client.lock(lock, value["session"])
                if isinstance(row, Unanswered):
                    return unanswered(row, value)
                if row.result is None:
                    return Completion(Ending.FAIL, value)
                return Completion(Ending.OK, {**value, "row": msgspec.to_builtins(row.result)})
            case "acquire":
                return _granted(await client.acquire(lock, value["session"]), value)
            case "release":
                return _granted(await client.release(lock, value["session"]), value)
            case "write":
                return await self._write(protected, lock, value)
            case "read":
                return _plain(await client.read(lock, consistency), None)
            case f:
                assert f == "read-protected"
                return _plain(await client.read_protected(protected, consistency), None)

    async def _write(self, protected: str, lock: str, value: dict[str, Any]) -> Completion:
        done = await self._client.write(
            protected, value["value"], lock=lock, session=value["session"], checked_index=value["checked_index"]
        )
        if isinstance(done, Unanswered):
            return unanswered(done, value)
        if isinstance(done.result, str):
            return Completion(Ending.FAIL, value, done.result)
        return Completion(Ending.OK, {**value, "index": done.result})


def _plain(answer: Any, refused: Any) -> Completion:
    if isinstance(answer, Unanswered):
        return unanswered(answer, refused)
    return Completion(Ending.OK, msgspec.to_builtins(answer.result))


def _granted(answer: Any, value: Any) -> Completion:
    if isinstance(answer, Unanswered):
        return unanswered(answer, value)
    return Completion(Ending.OK if answer.result else Ending.FAIL, value)


def final_reads(keys: Sequence[Any], threads: Sequence[Thread]) -> Generator:
    """Each lock, and what it protects, through every agent; some sessions through one of them."""
    locks = [key for key in keys if isinstance(key, int)]
    reads = [
        Invocation(f, key, thread=thread) for key in locks for f in ("read", "read-protected") for thread in threads
    ]
    sessions = [key for key in keys if isinstance(key, str)][:FINAL_SESSIONS_MAX]
    reads += [Invocation("info", key, thread=threads[place % len(threads)]) for place, key in enumerate(sessions)]
    return Each(tuple(reads))


LOCK = Workload(
    "lock",
    Model.LOCK,
    Locks,
    LockWorker,
    final_reads,
    purpose="sessions with TTLs, contended locks with lock-delay, writes fenced by the sequencer",
    least=(
        Least("holds", 1.0, "holds of locks"),
        Least("locks_lost", 0.2, "locks lost with their session"),
        # Few where servers restore snapshots all the time: those have forgotten the delays.
        Least("lock_delays_judged", 0.01, "lock-delays judged"),
        Least("fenced_writes", 1.0, "writes under a lock"),
        Least("fenced_writes_refused", 0.1, "writes refused, since the lock was lost"),
        Least("renewals", 1.0, "renewals"),
    ),
)
