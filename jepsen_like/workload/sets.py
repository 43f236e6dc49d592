"""Sets of unique elements: elements are keys below the set's prefix; a read lists the prefix, and asks for
`consistent`.

When a set has had its share of adds the next one is begun, so that reads stay short; old ones are read at the end,
and now and then in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from jepsen_like.client.kv import KvClient, Unanswered
from jepsen_like.generator.combinators import Each, assign
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

ELEMENTS_PER_SET = 400
READ_ONE_IN = 25
OLDER_SETS_READ = 2


class Sets(msgspec.Struct, frozen=True):
    """The generator: adds to set `number`, reads it or one of the last few before it."""

    draws: Draws
    number: int = 0
    added: int = 0
    next_element: int = 0

    def ask(self, context: Context) -> Answer:
        kind, draws = self.draws.below(READ_ONE_IN)
        older, draws = draws.below(OLDER_SETS_READ + 1)
        if kind == 0:
            chosen = Invocation("read", key=max(0, self.number - older))
            after = msgspec.structs.replace(self, draws=draws.below(1)[1])
        else:
            chosen = Invocation("add", key=self.number, value=self.next_element)
            full = self.added + 1 >= ELEMENTS_PER_SET
            after = Sets(draws.below(1)[1], self.number + full, 0 if full else self.added + 1, self.next_element + 1)
        ready = assign(context, chosen, draws)
        return PENDING if ready is None else Emit(ready, after)

    def update(self, context: Context, event: Completed) -> Generator:
        return self


class SetWorker:
    """Element e of set n is the key `set/n/e`."""

    def __init__(self, kv: KvClient, timeout_s: float) -> None:
        self._kv = kv
        self._timeout_s = timeout_s

    async def invoke(self, invocation: Invocation) -> Completion:
        """Add one element, or list the set."""
        prefix = f"set/{invocation.key}/"
        if invocation.f == "add":
            done = await self._kv.put(f"{prefix}{invocation.value}", invocation.value, self._timeout_s)
            if isinstance(done, Unanswered):
                return unanswered(done, invocation.value)
            if not done.result:
                return Completion(Ending.INFO, invocation.value, "a put without condition answered false")
            return Completion(Ending.OK, invocation.value)
        assert invocation.f == "read"
        keys = await self._kv.keys(prefix, self._timeout_s)
        if isinstance(keys, Unanswered):
            return unanswered(keys, None)
        return Completion(Ending.OK, [int(key.rpartition("/")[2]) for key in keys.result])


def final_reads(keys: Sequence[Any], threads: Sequence[Thread]) -> Generator:
    """Every set through every agent."""
    return Each(tuple(Invocation("read", key=key, thread=thread) for key in keys for thread in threads))


SET = Workload(
    "set",
    Model.SET,
    lambda draws, default_judged: Sets(draws),
    SetWorker,
    final_reads,
    "sets of unique elements: no acknowledged one is lost",
)
