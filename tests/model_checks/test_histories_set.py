"""Jepsen's set-full: each of its words, from a history in which it is true."""

from __future__ import annotations

import pytest

from model_checks.histories import set_full as set_full_module
from model_checks.histories.check import check_history
from model_checks.histories.events import Event, EventType, parse, render
from model_checks.histories.operations import pair
from model_checks.histories.register import Model, UnknownOperation
from model_checks.histories.set_full import SetResult, check_set
from model_checks.verdicts import Verdict

Step = tuple[int, str, str, object]


def add(process: int, element: object, outcome: str = "ok") -> list[Step]:
    return [(process, "invoke", "add", element), (process, outcome, "add", element)]


def read(process: int, elements: list[object]) -> list[Step]:
    return [(process, "invoke", "read", None), (process, "ok", "read", elements)]


def history_bytes(steps: list[Step]) -> bytes:
    return render(Event(process, EventType(kind), f, value=value) for process, kind, f, value in steps)


def found(*parts: list[Step]) -> SetResult:
    return check_set(pair(parse(history_bytes([step for part in parts for step in part]))))


def verdict(*parts: list[Step], stale_allowed: bool = False) -> Verdict:
    history = parse(history_bytes([step for part in parts for step in part]))
    return check_history(history, Model.SET, stale_allowed=stale_allowed).result.verdict


def test_an_acknowledged_element_that_every_later_read_shows_is_stable() -> None:
    history = [add(0, 1), add(1, 2), read(2, [1, 2]), read(2, [2, 1])]
    assert found(*history).stable == 2
    assert verdict(*history) is Verdict.VALID


def test_an_acknowledged_element_that_the_last_read_misses_is_lost() -> None:
    history = [add(0, 1), add(1, 2), read(2, [1, 2]), read(2, [2])]
    assert found(*history).lost == [1]
    assert verdict(*history) is Verdict.INVALID


def test_an_acknowledged_element_that_no_read_ever_shows_is_lost() -> None:
    assert found(add(0, 1), read(2, [])).lost == [1]


def test_an_unacknowledged_element_that_was_shown_once_must_stay() -> None:
    assert found(add(0, 1, "info"), read(2, [1]), read(2, [])).lost == [1]


def test_an_unacknowledged_element_that_was_never_shown_is_not_lost() -> None:
    history = [add(0, 1, "info"), add(1, 2), read(2, [2])]
    assert found(*history).lost == []
    assert found(*history).never_read == [1]
    assert verdict(*history) is Verdict.VALID


def test_an_element_missed_after_it_was_known_and_shown_later_is_stale() -> None:
    history = [add(0, 1), read(2, []), read(2, [1])]
    assert found(*history).stale == [1]
    assert verdict(*history) is Verdict.INVALID
    assert verdict(*history, stale_allowed=True) is Verdict.VALID


def test_a_read_that_began_before_the_acknowledgement_may_miss_the_element() -> None:
    history: list[list[Step]] = [[(2, "invoke", "read", None)], add(0, 1), [(2, "ok", "read", [])], read(2, [1])]
    assert found(*history).stale == []
    assert verdict(*history) is Verdict.VALID


def test_no_read_after_the_add_means_never_read_and_unknown() -> None:
    history = [read(2, []), add(0, 1)]
    assert found(*history).never_read == [1]
    assert verdict(*history) is Verdict.UNKNOWN


def test_an_element_shown_twice_by_one_read_is_duplicated() -> None:
    history = [add(0, 1), read(2, [1, 1])]
    assert found(*history).duplicated == [1]
    assert verdict(*history) is Verdict.INVALID


def test_an_element_whose_add_failed_or_that_nobody_added_is_unexpected() -> None:
    history = [add(0, 1, "fail"), add(0, 2), read(2, [1, 2, 3])]
    assert found(*history).unexpected == [1, 3]
    assert verdict(*history) is Verdict.INVALID


def test_an_element_shown_before_anybody_began_to_add_it_is_unexpected() -> None:
    assert found(read(2, [1]), add(0, 1), read(2, [1])).unexpected == [1]


def test_a_loss_is_not_seen_if_unacknowledged_elements_are_all_that_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutant: acknowledgements are ignored, so nothing is ever known before it is read."""
    original = set_full_module._events
    monkeypatch.setattr(set_full_module, "_events", lambda ops: [e for e in original(ops) if e[2].f != "add"])
    assert found(add(0, 1), read(2, [])).lost == []


def test_a_set_has_no_cas() -> None:
    with pytest.raises(UnknownOperation, match="the model set has no operation 'cas'"):
        found([(0, "invoke", "cas", [1, 2]), (0, "ok", "cas", [1, 2])])
