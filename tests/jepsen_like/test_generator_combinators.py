"""Generators are pure values: asked twice they answer the same, and each combinator does what its name says."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from jepsen_like.generator import combinators
from jepsen_like.generator.combinators import (
    Any,
    Each,
    Limit,
    Mix,
    OnThreads,
    Stagger,
    TimeLimit,
    each_thread,
    phases,
    reserve,
)
from jepsen_like.generator.values import (
    PENDING,
    Completed,
    Completion,
    Context,
    Draws,
    Emit,
    Ending,
    Generator,
    Invocation,
    Pending,
    Thread,
)

MILLISECOND = 1_000_000


def simulate(
    generator: Generator, threads: tuple[Thread, ...], latency_ns: Callable[[int], int], count_max: int = 10_000
) -> list[Invocation]:
    """Carry out `generator` in a world without clocks: the n-th invocation takes latency_ns(n)."""
    now = 0
    made: list[Invocation] = []
    busy: dict[Thread, tuple[int, Invocation]] = {}
    while len(made) < count_max:
        free = tuple(thread for thread in threads if thread not in busy)
        context = Context(now, threads, free)
        answer = generator.ask(context)
        assert answer == generator.ask(context), "asking changes nothing"
        if isinstance(answer, Emit) and answer.invocation.at_ns is not None and answer.invocation.at_ns <= now:
            assert answer.invocation.thread is not None
            made.append(answer.invocation)
            busy[answer.invocation.thread] = (now + latency_ns(len(made)), answer.invocation)
            generator = answer.after
            continue
        if answer is None and not busy:
            break
        ends = [end for end, _ in busy.values()]
        later = [answer.invocation.at_ns] if isinstance(answer, Emit) and answer.invocation.at_ns else []
        now = min([*ends, *later, *([now + MILLISECOND] if isinstance(answer, Pending) else [])])
        for thread in [thread for thread, (end, _) in busy.items() if end <= now]:
            _, invocation = busy.pop(thread)
            context = Context(now, threads, tuple(t for t in threads if t not in busy))
            generator = generator.update(context, Completed(invocation, Completion(Ending.OK)))
    return made


def reads(count: int) -> Each:
    return Each(tuple(Invocation("read", key=number) for number in range(count)))


def constant(_: int) -> int:
    return MILLISECOND


def test_each_emits_its_invocations_in_order_then_nothing() -> None:
    made = simulate(reads(5), (0, 1), constant)
    assert [invocation.key for invocation in made] == [0, 1, 2, 3, 4]


def test_a_thread_does_one_thing_at_a_time() -> None:
    rng = random.Random(1)
    open_until: dict[Thread | None, int] = {}

    def latency(number: int) -> int:
        return rng.randrange(1, 10) * MILLISECOND

    latencies = [latency(n) for n in range(200)]
    for number, invocation in enumerate(simulate(reads(100), (0, 1, 2), lambda n: latencies[n])):
        assert invocation.at_ns is not None
        assert open_until.get(invocation.thread, 0) <= invocation.at_ns
        open_until[invocation.thread] = invocation.at_ns + latencies[number + 1]


def test_limit_emits_no_more_than_its_count() -> None:
    assert len(simulate(Limit(3, reads(10)), (0,), constant)) == 3


def test_time_limit_emits_nothing_at_or_after_its_end() -> None:
    made = simulate(TimeLimit(5 * MILLISECOND, reads(100)), (0,), constant)
    assert [invocation.at_ns for invocation in made] == [n * MILLISECOND for n in range(5)]


def test_stagger_keeps_its_mean_rate_over_all_threads() -> None:
    made = simulate(Stagger(MILLISECOND, reads(4_000), Draws(7)), (0, 1, 2, 3), lambda n: 1)
    last_ns = made[-1].at_ns
    assert last_ns is not None
    assert 3_800 * MILLISECOND < last_ns < 4_200 * MILLISECOND


def test_mix_takes_from_all_its_generators_until_all_are_exhausted() -> None:
    writes = Each(tuple(Invocation("write", key=number) for number in range(40)))
    made = simulate(Mix((reads(40), writes), Draws(3)), (0,), constant)
    assert len(made) == 80
    assert {invocation.f for invocation in made[:10]} == {"read", "write"}


def test_reserve_gives_each_generator_its_own_threads() -> None:
    writes = Each(tuple(Invocation("write") for _ in range(50)))
    made = simulate(reserve(((0, 1), reads(50)), ((2,), writes)), (0, 1, 2), constant)
    assert {invocation.thread for invocation in made if invocation.f == "write"} == {2}
    assert {invocation.thread for invocation in made if invocation.f == "read"} == {0, 1}


def test_each_thread_does_all_of_it() -> None:
    made = simulate(each_thread((0, 1, 2), reads(2)), (0, 1, 2), constant)
    assert sorted((invocation.thread, invocation.key) for invocation in made) == [
        (thread, key) for thread in (0, 1, 2) for key in (0, 1)
    ]


def test_any_takes_whichever_comes_first() -> None:
    late = Each((Invocation("late", at_ns=5 * MILLISECOND),))
    early = Each((Invocation("early", at_ns=2 * MILLISECOND),))
    assert [invocation.f for invocation in simulate(Any((late, early)), (0, 1), constant)] == ["early", "late"]


def overlaps_a_phase(made: list[Invocation], latencies: list[int]) -> bool:
    ends = [(i.at_ns or 0) + latencies[n + 1] for n, i in enumerate(made) if i.f == "read"]
    begins = [i.at_ns or 0 for i in made if i.f == "write"]
    return max(ends) > min(begins)


def two_phases() -> tuple[list[Invocation], list[int]]:
    rng = random.Random(2)
    latencies = [rng.randrange(1, 20) * MILLISECOND for _ in range(100)]
    writes = Each(tuple(Invocation("write") for _ in range(10)))
    return simulate(phases(reads(10), writes), (0, 1, 2, "nemesis"), lambda n: latencies[n]), latencies


def test_a_phase_begins_when_everything_before_it_has_completed() -> None:
    made, latencies = two_phases()
    assert len(made) == 20
    assert not overlaps_a_phase(made, latencies)


def test_phases_that_do_not_wait_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(combinators.Synchronize, "ask", lambda self, context: self.of.ask(context))
    made, latencies = two_phases()
    assert overlaps_a_phase(made, latencies)


def test_on_threads_hides_the_completions_of_others() -> None:
    class Counting(Each, frozen=True):
        def update(self, context: Context, event: Completed) -> Generator:
            raise AssertionError("told of another's completion")

    generator = OnThreads(frozenset({0}), Counting(()))
    other = Completed(Invocation("read", thread=1), Completion(Ending.OK))
    assert generator.update(Context(0, (0, 1), (0, 1)), other) is generator


def test_an_invocation_waits_for_its_own_thread() -> None:
    assert Each((Invocation("read", thread=1),)).ask(Context(0, (0, 1), (0,))) is PENDING


def test_draws_are_values_and_their_forks_are_independent() -> None:
    draws = Draws(42)
    assert draws.bits() == draws.bits()
    counts = [0] * 10
    for _ in range(10_000):
        number, draws = draws.below(10)
        counts[number] += 1
    assert min(counts) > 850
    assert Draws(42).fork("a").bits()[0] != Draws(42).fork("b").bits()[0]
