"""Generators, and generators made from generators. All are frozen values; times are nanoseconds since the run began."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from jepsen_like.generator.values import (
    PENDING,
    Answer,
    Completed,
    Context,
    Draws,
    Emit,
    Generator,
    Invocation,
    Pending,
    Thread,
)


class Nothing(msgspec.Struct, frozen=True):
    """Exhausted from the start."""

    def ask(self, context: Context) -> Answer:
        return None

    def update(self, context: Context, event: Completed) -> Generator:
        return self


def assign(context: Context, invocation: Invocation, draws: Draws) -> Invocation | None:
    """`invocation` with a free thread (a random one if it names none) and a time; None if no such thread is free."""
    thread = invocation.thread
    if thread is None:
        if not context.free:
            return None
        thread = context.free[draws.below(len(context.free))[0]]
    elif thread not in context.free:
        return None
    at_ns = context.now_ns if invocation.at_ns is None else invocation.at_ns
    return msgspec.structs.replace(invocation, thread=thread, at_ns=at_ns)


class Each(msgspec.Struct, frozen=True):
    """These invocations, one after the other; an invocation waits for its thread, not for its predecessor's end."""

    invocations: tuple[Invocation, ...]
    draws: Draws = Draws(0)

    def ask(self, context: Context) -> Answer:
        if not self.invocations:
            return None
        ready = assign(context, self.invocations[0], self.draws)
        if ready is None:
            return PENDING
        return Emit(ready, Each(self.invocations[1:], self.draws.below(1)[1]))

    def update(self, context: Context, event: Completed) -> Generator:
        return self


class Limit(msgspec.Struct, frozen=True):
    """At most `count` invocations of `of`."""

    count: int
    of: Generator

    def ask(self, context: Context) -> Answer:
        answer = self.of.ask(context) if self.count > 0 else None
        return Emit(answer.invocation, Limit(self.count - 1, answer.after)) if isinstance(answer, Emit) else answer

    def update(self, context: Context, event: Completed) -> Generator:
        return Limit(self.count, self.of.update(context, event))


class TimeLimit(msgspec.Struct, frozen=True):
    """`of`, until `until_ns`; what would be invoked at that time or later is not."""

    until_ns: int
    of: Generator

    def ask(self, context: Context) -> Answer:
        if context.now_ns >= self.until_ns:
            return None
        answer = self.of.ask(context)
        if not isinstance(answer, Emit):
            return answer
        assert answer.invocation.at_ns is not None
        if answer.invocation.at_ns >= self.until_ns:
            return PENDING
        return Emit(answer.invocation, TimeLimit(self.until_ns, answer.after))

    def update(self, context: Context, event: Completed) -> Generator:
        return TimeLimit(self.until_ns, self.of.update(context, event))


class Stagger(msgspec.Struct, frozen=True):
    """`of`, slowed down: `mean_ns` between invocations on average, uniform in [0, 2 x mean), whatever thread they
    take.
    """

    mean_ns: int
    of: Generator
    draws: Draws
    next_ns: int = 0

    def ask(self, context: Context) -> Answer:
        answer = self.of.ask(context)
        if not isinstance(answer, Emit):
            return answer
        assert answer.invocation.at_ns is not None
        at_ns = max(answer.invocation.at_ns, self.next_ns)
        pause_ns, draws = self.draws.below(2 * self.mean_ns)
        return Emit(
            msgspec.structs.replace(answer.invocation, at_ns=at_ns),
            Stagger(self.mean_ns, answer.after, draws, at_ns + pause_ns),
        )

    def update(self, context: Context, event: Completed) -> Generator:
        return Stagger(self.mean_ns, self.of.update(context, event), self.draws, self.next_ns)


class Mix(msgspec.Struct, frozen=True):
    """A random one of `of` each time, until all are exhausted."""

    of: tuple[Generator, ...]
    draws: Draws

    def ask(self, context: Context) -> Answer:
        if not self.of:
            return None
        place, draws = self.draws.below(len(self.of))
        answer = self.of[place].ask(context)
        if answer is None:
            return Mix(self.of[:place] + self.of[place + 1 :], draws).ask(context)
        if isinstance(answer, Pending):
            return answer
        return Emit(answer.invocation, Mix((*self.of[:place], answer.after, *self.of[place + 1 :]), draws))

    def update(self, context: Context, event: Completed) -> Generator:
        return Mix(tuple(each.update(context, event) for each in self.of), self.draws)


class Any(msgspec.Struct, frozen=True):
    """All of `of` side by side: whichever has something first (of equals, the one that stands first)."""

    of: tuple[Generator, ...]

    def ask(self, context: Context) -> Answer:
        best: Emit | None = None
        place = 0
        pending = False
        for position, each in enumerate(self.of):
            answer = each.ask(context)
            if isinstance(answer, Pending):
                pending = True
            elif answer is not None and (best is None or _time(answer) < _time(best)):
                best, place = answer, position
        if best is None:
            return PENDING if pending else None
        return Emit(best.invocation, Any((*self.of[:place], best.after, *self.of[place + 1 :])))

    def update(self, context: Context, event: Completed) -> Generator:
        return Any(tuple(each.update(context, event) for each in self.of))


def _time(answer: Emit) -> int:
    assert answer.invocation.at_ns is not None
    return answer.invocation.at_ns


class OnThreads(msgspec.Struct, frozen=True):
    """`of`, which sees only the threads in `threads`, and only what completes on them."""

    threads: frozenset[Thread]
    of: Generator

    def _restrict(self, context: Context) -> Context:
        mine = self.threads.__contains__
        return Context(context.now_ns, tuple(filter(mine, context.threads)), tuple(filter(mine, context.free)))

    def ask(self, context: Context) -> Answer:
        answer = self.of.ask(self._restrict(context))
        return Emit(answer.invocation, OnThreads(self.threads, answer.after)) if isinstance(answer, Emit) else answer

    def update(self, context: Context, event: Completed) -> Generator:
        if event.invocation.thread not in self.threads:
            return self
        return OnThreads(self.threads, self.of.update(self._restrict(context), event))


def reserve(*shares: tuple[Sequence[Thread], Generator]) -> Generator:
    """Each generator on its own threads, side by side."""
    return Any(tuple(OnThreads(frozenset(threads), generator) for threads, generator in shares))


def each_thread(threads: Sequence[Thread], generator: Generator) -> Generator:
    """A copy of `generator` on each of `threads`, so that each does all of it."""
    return Any(tuple(OnThreads(frozenset({thread}), generator) for thread in threads))


class Synchronize(msgspec.Struct, frozen=True):
    """`of`, beginning only when every thread is free."""

    of: Generator

    def ask(self, context: Context) -> Answer:
        return self.of.ask(context) if len(context.free) == len(context.threads) else PENDING

    def update(self, context: Context, event: Completed) -> Generator:
        return Synchronize(self.of.update(context, event))


class Then(msgspec.Struct, frozen=True):
    """`of` one after the other, each when its predecessor is exhausted."""

    of: tuple[Generator, ...]

    def ask(self, context: Context) -> Answer:
        for place, each in enumerate(self.of):
            answer = each.ask(context)
            if answer is None:
                continue
            return (
                Emit(answer.invocation, Then((answer.after, *self.of[place + 1 :])))
                if isinstance(answer, Emit)
                else answer
            )
        return None

    def update(self, context: Context, event: Completed) -> Generator:
        if not self.of:
            return self
        return Then((self.of[0].update(context, event), *self.of[1:]))


def phases(*generators: Generator) -> Generator:
    """`generators` one after the other; each begins when everything before it has completed."""
    return Then(tuple(Synchronize(generator) for generator in generators))
