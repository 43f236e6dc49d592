"""Linearizability: the search agrees with the naive oracle, and each of its rules can be broken so that it does not."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_checks.histories import operations as operations_module
from model_checks.histories import search as search_module
from model_checks.histories.counterexample import shrink
from model_checks.histories.events import Event, EventType, parse, render
from model_checks.histories.operations import FOREVER, Operation, Outcome, pair
from model_checks.histories.oracle import linearizable
from model_checks.histories.register import CAS, READ, WRITE, Action, Model, actions
from model_checks.histories.search import search

NO_OPERATION = Operation(0, "read", None, None, None, Outcome.OK, 0, 0, 0, 0)


def action(kind: int, expected: int, produced: int, call: int, ret: int) -> Action:
    return Action(kind, expected if kind != WRITE else -1, produced if kind != READ else -1, call, ret, NO_OPERATION)


def random_history(rng: random.Random) -> list[Action]:
    """Up to nine actions on up to four values; positions overlap freely or moderately; a third of the writes are
    info.
    """
    size, values = rng.randint(1, 9), rng.randint(1, 4)
    places = rng.sample(range(2 * size), 2 * size)
    free = rng.random() < 0.5
    found = []
    for number in range(size):
        call, ret = sorted(places[2 * number : 2 * number + 2])
        if not free:
            start = number * 10 + rng.randint(0, 30)
            call, ret = start * 100 + number, (start + rng.randint(1, 40)) * 100 + 50 + number
        kind = rng.choice((READ, READ, WRITE, CAS))
        if kind != READ and rng.random() < 0.3:
            ret = FOREVER
        found.append(action(kind, rng.randint(0, values), rng.randint(0, values), call, ret))
    return sorted(found, key=lambda item: item.call)


def disagreements(
    judge: Callable[[Sequence[Action]], bool | None], count: int, seed: int = 1
) -> Iterator[tuple[list[Action], bool]]:
    """The random histories on which `judge` and the oracle disagree, with what the oracle says."""
    rng = random.Random(seed)
    for _ in range(count):
        history = random_history(rng)
        truth = linearizable(history)
        if judge(history) is not truth:
            yield history, truth


def by_search(history: Sequence[Action]) -> bool | None:
    return search(history).linearizable


def test_the_search_agrees_with_the_oracle_on_ten_thousand_histories_of_both_kinds() -> None:
    assert next(disagreements(by_search, 10_000), None) is None
    rng = random.Random(1)
    truths = [linearizable(random_history(rng)) for _ in range(2_000)]
    assert min(truths.count(True), truths.count(False)) > 400


@st.composite
def histories(draw: st.DrawFn) -> list[Action]:
    size = draw(st.integers(1, 6))
    places = draw(st.permutations(range(2 * size)))
    found = []
    for number in range(size):
        call, ret = sorted(places[2 * number : 2 * number + 2])
        kind = draw(st.sampled_from((READ, WRITE, CAS)))
        if kind != READ and draw(st.booleans()):
            ret = FOREVER
        found.append(action(kind, draw(st.integers(0, 3)), draw(st.integers(0, 3)), call, ret))
    return sorted(found, key=lambda item: item.call)


@settings(max_examples=1_000, deadline=None)
@given(histories())
def test_the_search_agrees_with_the_oracle_on_what_hypothesis_finds(history: list[Action]) -> None:
    assert by_search(history) is linearizable(history)


def test_a_counterexample_is_a_part_of_the_history_that_is_still_wrong() -> None:
    rng = random.Random(7)
    shrunk = 0
    for _ in range(3_000):
        history = random_history(rng)
        found = search(history)
        if found.linearizable is False:
            part = shrink(history, found.furthest)
            assert not linearizable(part)
            assert set(map(id, part)) <= set(map(id, history))
            shrunk += len(part) < len(history)
    assert shrunk > 1_000


def mutant_info_never_happened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module._Search, "_available", lambda self, group: None)


def mutant_info_cas_never_leads_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module._Search, "_optional_swaps", lambda self, waiting: [])


def mutant_real_time_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    original = search_module._Search._link

    def link(self: search_module._Search, required: Sequence[Action], optional: Sequence[Action]) -> None:
        late = 1 << 40
        original(
            self,
            [Action(a.kind, a.expected, a.produced, n, late + n, NO_OPERATION) for n, a in enumerate(required)],
            [Action(a.kind, a.expected, a.produced, -1, FOREVER, NO_OPERATION) for a in optional],
        )

    monkeypatch.setattr(search_module._Search, "_link", link)


def mutant_any_write_may_hide(monkeypatch: pytest.MonkeyPatch) -> None:
    original = search_module._Search.__init__

    def init(self: search_module._Search, history: Sequence[Action]) -> None:
        original(self, history)
        self.horizon = 1 << 40

    monkeypatch.setattr(search_module._Search, "__init__", init)


def mutant_a_cas_writes_without_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    original = search_module._Search._choices

    def choices(
        self: search_module._Search, forced: int, writes: list[int], swaps: list[int], waiting: set[int]
    ) -> list[int]:
        found = original(self, forced, writes, swaps, waiting)
        return found or ([forced] if self.kind[forced] == CAS else [])

    monkeypatch.setattr(search_module._Search, "_choices", choices)


def mutant_no_write_hides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module._Search, "_may_hide", lambda self, forced: False)


def mutant_no_value_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    original = search_module._Search._choices
    monkeypatch.setattr(
        search_module._Search,
        "_choices",
        lambda self, forced, writes, swaps, waiting: original(self, forced, writes, swaps, set()),
    )


@pytest.mark.parametrize(
    "mutate",
    [
        mutant_info_never_happened,
        mutant_info_cas_never_leads_anywhere,
        mutant_real_time_is_ignored,
        mutant_any_write_may_hide,
        mutant_a_cas_writes_without_looking,
        mutant_no_write_hides,
        mutant_no_value_is_waited_for,
    ],
)
def test_a_broken_search_disagrees_with_the_oracle(
    monkeypatch: pytest.MonkeyPatch, mutate: Callable[[pytest.MonkeyPatch], None]
) -> None:
    mutate(monkeypatch)
    assert next(disagreements(by_search, 20_000), None) is not None


def judge(*events: tuple[int, str, str, object]) -> bool | None:
    """The verdict on one register's events (process, type, f, value)."""
    history = parse(render(Event(process, EventType(kind), f, value=value) for process, kind, f, value in events))
    return by_search(actions(pair(history), Model.CAS_REGISTER))


def test_porcupines_register_examples() -> None:
    overlapping = [
        (0, "invoke", "write", 100),
        (1, "invoke", "read", None),
        (2, "invoke", "read", None),
        (2, "ok", "read", None),
        (1, "ok", "read", 100),
        (0, "ok", "write", 100),
    ]
    assert judge(*overlapping) is True
    new_then_old = [
        (0, "invoke", "write", 200),
        (1, "invoke", "read", None),
        (1, "ok", "read", 200),
        (2, "invoke", "read", None),
        (2, "ok", "read", None),
        (0, "ok", "write", 200),
    ]
    assert judge(*new_then_old) is False


def test_a_register_starts_as_null() -> None:
    assert judge((0, "invoke", "read", None), (0, "ok", "read", None)) is True
    assert judge((0, "invoke", "read", None), (0, "ok", "read", 0)) is False


FAILED_CAS = [
    (0, "invoke", "write", 1),
    (0, "ok", "write", 1),
    (1, "invoke", "cas", [1, 2]),
    (1, "fail", "cas", [1, 2]),
    (2, "invoke", "read", None),
]


def test_fail_did_not_happen_and_says_nothing_about_the_state() -> None:
    """A failed cas [1, 2] does not mean that the value was not 1."""
    assert judge(*FAILED_CAS, (2, "ok", "read", 1)) is True
    assert judge(*FAILED_CAS, (2, "ok", "read", 2)) is False


def test_treating_fail_as_perhaps_happened_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(operations_module._OUTCOMES, EventType.FAIL, Outcome.INFO)
    assert judge(*FAILED_CAS, (2, "ok", "read", 2)) is True


UNKNOWN_WRITE = [(0, "invoke", "write", 1), (0, "ok", "write", 1), (1, "invoke", "write", 2), (1, "info", "write", 2)]


def test_an_info_write_may_take_effect_much_later_once_or_never() -> None:
    read_one = [(2, "invoke", "read", None), (2, "ok", "read", 1)]
    read_two = [(2, "invoke", "read", None), (2, "ok", "read", 2)]
    assert judge(*UNKNOWN_WRITE, *read_one, *read_one) is True
    assert judge(*UNKNOWN_WRITE, *read_one, *read_two) is True
    assert judge(*UNKNOWN_WRITE, *read_two, *read_one) is False


def test_treating_info_as_fail_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(operations_module._OUTCOMES, EventType.INFO, Outcome.FAIL)
    assert judge(*UNKNOWN_WRITE, (2, "invoke", "read", None), (2, "ok", "read", 2)) is False


def test_an_operation_without_completion_counts_as_info() -> None:
    open_write = [(0, "invoke", "write", 1)]
    assert judge(*open_write, (1, "invoke", "read", None), (1, "ok", "read", 1)) is True
    assert judge(*open_write, (1, "invoke", "read", None), (1, "ok", "read", None)) is True


def test_an_info_read_says_nothing() -> None:
    assert judge((0, "invoke", "read", None), (0, "info", "read", None)) is True


def test_a_read_that_asked_for_less_than_consistent_may_be_old() -> None:
    written = [(0, "invoke", "write", 1), (0, "ok", "write", 1)]
    for f, expected in (("stale-read", True), ("default-read", True), ("read", False)):
        assert judge(*written, (1, "invoke", f, None), (1, "ok", f, None)) is expected


def test_two_cas_cannot_both_take_the_same_value() -> None:
    events = [(0, "invoke", "write", 1), (0, "ok", "write", 1)]
    for process, new in ((1, 2), (2, 3)):
        events += [(process, "invoke", "cas", [1, new]), (process, "ok", "cas", [1, new])]  # type: ignore[list-item]
    assert judge(*events) is False


def test_values_are_json_values_not_pythons_idea_of_them() -> None:
    assert (
        judge((0, "invoke", "write", 1), (0, "ok", "write", 1), (1, "invoke", "read", None), (1, "ok", "read", True))
        is False
    )
    assert judge(
        (0, "invoke", "write", {"a": [1]}), (0, "ok", "write", {"a": [1]}),
        (1, "invoke", "read", None), (1, "ok", "read", {"a": [1]}),
    ) is True  # fmt: skip


def hidden_writes(count: int) -> list[Action]:
    """`count` open writes; then reads that show their values in turn, then all writes return, then a stale read."""
    writes = [action(WRITE, -1, value, value, 10_000 + value) for value in range(1, count + 1)]
    reads = [action(READ, value, -1, 100 + 10 * value, 105 + 10 * value) for value in range(1, count // 2)]
    return [*writes, *reads, action(READ, 1, -1, 20_000, 20_001)]


def test_twenty_five_open_writes_are_decided_without_trying_their_subsets() -> None:
    found = search(hidden_writes(25), limit=10_000)
    assert found.linearizable is False


def test_reaching_the_limit_is_unknown() -> None:
    rng = random.Random(5)
    history = [action(CAS, rng.randint(0, 3), rng.randint(0, 3), n, 1_000 + n) for n in range(40)]
    assert search(history, limit=50).linearizable is None
