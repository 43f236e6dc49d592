"""Independent registers, one a key: read, write, check-and-set, every value written once.

Written values are unique over the run, so a read names the write that it saw, and an old one cannot pass for a new
one. Reads ask for `consistent` or, some of them, for `default`: Comitia promises that both are linearizable (by a
lease, or else by a confirmed round: Ongaro 2014, section 6.4), so both are judged. Where `default` promises nothing
about the present, as Consul's, such reads can be kept apart.

A cas follows a read by the same client: Consul's check-and-set is by ModifyIndex, so [old, new] with the index of that
read is PUT ?cas=index, and no two values of a key share an index. At least half of the keys live the whole run and get
half of the operations; of the others a few at a time are in use, and retired after their share of operations, as long
as there are fresh ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from jepsen_like.client.kv import KvClient, Unanswered
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
from jepsen_like.workload.base import Workload, unanswered
from model_checks.histories.register import Model

LIVING_KEYS = 24
ROTATING_KEYS = 8
OPERATIONS_PER_ROTATING_KEY = 1_000
CAS_AFTER_READ_PERCENT = 45
READ_PERCENT = 70
DEFAULT_READ_PERCENT = 40
"""Of the reads that are judged, where `default` ones are."""
OBSERVERS_ONE_IN = 10
"""One client thread of so many, the last ones, only observes: reads that ask for `stale`, which only conformance
judges, or for `default`. They never wait for long, so an agent that is cut off is asked all the time, and answers."""
OBSERVE_PERCENT = 60
DEFAULT_OF_OBSERVED_PERCENT = 30
CONSISTENCY = {"read": "consistent", "stale-read": "stale", "default-read": "default"}
"""What an operation asks for, unless its note says otherwise."""


class FollowUp(msgspec.Struct, frozen=True):
    """A client that has read, and will check-and-set what it read."""

    thread: Thread
    key: int
    old: Any
    index: int


class Registers(msgspec.Struct, frozen=True):
    """The generator. `rotating` are (key, operations left); keys are numbers, never used again once retired."""

    draws: Draws
    default_judged: bool = True
    """Whether reads that ask for `default` are recorded, and judged, as reads."""
    rotating: tuple[tuple[int, int], ...] = tuple(
        (LIVING_KEYS + number, OPERATIONS_PER_ROTATING_KEY * (number + 1) // ROTATING_KEYS)
        for number in range(ROTATING_KEYS)
    )
    next_key: int = LIVING_KEYS + ROTATING_KEYS
    next_value: int = 1
    follow_ups: tuple[FollowUp, ...] = ()

    def ask(self, context: Context) -> Answer:
        for place, follow_up in enumerate(self.follow_ups):
            if follow_up.thread in context.free:
                return self._check_and_set(context, place, follow_up)
        clients, observers = _roles(context)
        percent, draws = self.draws.below(100)
        if observers and percent < OBSERVE_PERCENT:
            return self._observe(context, observers, draws)
        if not clients:
            return PENDING
        choice, draws = draws.below(len(clients))
        key, draws, after = self._key(draws)
        percent, draws = draws.below(100)
        if percent < READ_PERCENT:
            by_default, draws = draws.below(100)
            note = "default" if self.default_judged and by_default < DEFAULT_READ_PERCENT else None
            read = Invocation("read", key=key, thread=clients[choice], at_ns=context.now_ns, note=note)
            return Emit(read, msgspec.structs.replace(after, draws=draws))
        write = Invocation("write", key=key, value=self.next_value, thread=clients[choice], at_ns=context.now_ns)
        return Emit(write, msgspec.structs.replace(after, draws=draws, next_value=self.next_value + 1))

    def _observe(self, context: Context, observers: Sequence[Thread], draws: Draws) -> Emit:
        choice, draws = draws.below(len(observers))
        key, draws, after = self._key(draws)
        percent, draws = draws.below(100)
        by_default = percent < DEFAULT_OF_OBSERVED_PERCENT
        f = "stale-read" if not by_default else "read" if self.default_judged else "default-read"
        note = "default" if by_default else None
        look = Invocation(f, key=key, thread=observers[choice], at_ns=context.now_ns, note=note)
        return Emit(look, msgspec.structs.replace(after, draws=draws))

    def _check_and_set(self, context: Context, place: int, follow_up: FollowUp) -> Emit:
        cas = Invocation(
            "cas",
            key=follow_up.key,
            value=[follow_up.old, self.next_value],
            thread=follow_up.thread,
            at_ns=context.now_ns,
            note=follow_up.index,
        )
        left = self.follow_ups[:place] + self.follow_ups[place + 1 :]
        return Emit(cas, msgspec.structs.replace(self, follow_ups=left, next_value=self.next_value + 1))

    def _key(self, draws: Draws) -> tuple[int, Draws, Registers]:
        """A key, and this generator after one more operation on it."""
        number, draws = draws.below(2 * LIVING_KEYS)
        if number < LIVING_KEYS:
            return number, draws, self
        place, draws = draws.below(len(self.rotating))
        key, left = self.rotating[place]
        retire = left <= 1 and self.next_key < 2 * LIVING_KEYS
        following = (self.next_key, OPERATIONS_PER_ROTATING_KEY) if retire else (key, left - 1)
        rotating = (*self.rotating[:place], following, *self.rotating[place + 1 :])
        next_key = self.next_key + retire
        return key, draws, msgspec.structs.replace(self, rotating=rotating, next_key=next_key)

    def update(self, context: Context, event: Completed) -> Generator:
        invocation, completion = event.invocation, event.completion
        if invocation.f != "read" or completion.ending is not Ending.OK or invocation.thread in _observers(context):
            return self
        percent, draws = self.draws.below(100)
        if percent >= CAS_AFTER_READ_PERCENT:
            return msgspec.structs.replace(self, draws=draws)
        assert invocation.thread is not None
        follow_up = FollowUp(invocation.thread, invocation.key, completion.value, completion.note)
        return msgspec.structs.replace(self, draws=draws, follow_ups=(*self.follow_ups, follow_up))


def _observers(context: Context) -> frozenset[Thread]:
    return frozenset(context.threads[len(context.threads) - len(context.threads) // OBSERVERS_ONE_IN :])


def _roles(context: Context) -> tuple[Sequence[Thread], Sequence[Thread]]:
    """The free threads that read and write, and the free ones that only observe."""
    observing = _observers(context)
    clients = [thread for thread in context.free if thread not in observing]
    return clients, [thread for thread in context.free if thread in observing]


class RegisterWorker:
    """Registers as keys `r/NUMBER` whose values are JSON. A key that is absent is a register that holds null."""

    def __init__(self, kv: KvClient, timeout_s: float) -> None:
        self._kv = kv
        self._timeout_s = timeout_s

    async def invoke(self, invocation: Invocation) -> Completion:
        """One operation; a read's note is the ModifyIndex, 0 for an absent key, as ?cas wants it."""
        name, value = f"r/{invocation.key}", invocation.value
        if invocation.f in CONSISTENCY:
            consistency = invocation.note or CONSISTENCY[invocation.f]
            row = await self._kv.get(name, self._timeout_s, consistency)
            if isinstance(row, Unanswered):
                return unanswered(row, None)
            if row.result is None:
                return Completion(Ending.OK, None, note=0)
            return Completion(Ending.OK, row.result.json(), note=row.result.modify_index)
        if invocation.f == "write":
            done = await self._kv.put(name, value, self._timeout_s)
        else:
            assert invocation.f == "cas"
            done = await self._kv.put(name, value[1], self._timeout_s, cas=invocation.note)
        if isinstance(done, Unanswered):
            return unanswered(done, value)
        if not done.result and invocation.f == "write":
            return Completion(Ending.INFO, value, "a put without condition answered false")
        return Completion(Ending.OK if done.result else Ending.FAIL, value)


def final_reads(keys: Sequence[Any], threads: Sequence[Thread]) -> Generator:
    """Each living key through every agent, each retired one through one of them."""
    reads = [
        Invocation("read", key=key, thread=thread)
        for key in keys
        for thread in (threads if key < LIVING_KEYS else [threads[key % len(threads)]])
    ]
    return Each(tuple(reads))


REGISTER = Workload(
    "register",
    Model.CAS_REGISTER,
    Registers,
    RegisterWorker,
    final_reads,
    "independent registers: read, write, check-and-set",
)
