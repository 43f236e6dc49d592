"""Whom a leader promotes by itself: a non-voter that has kept up for a while, in one term of one leader."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from impl.agent.membership import promotion as module
from impl.agent.membership.promotion import STABLE_NS, TRAILING_MAX, Candidate, Promotion
from impl.runtime.interfaces import MILLISECONDS

LOOK = 100 * MILLISECONDS
START = 10**12


def keeping_up(trailing: int = 0, connected: bool = True) -> list[Candidate]:
    return [Candidate("s4", trailing, connected)]


def promoted_after(promotion: Promotion, looks: int, candidates: list[Candidate], start: int = START) -> int | None:
    """Nanoseconds from the first look to the promotion; None if there is none."""
    for look in range(looks):
        if promotion.due(1, start + look * LOOK, candidates) == ["s4"]:
            return look * LOOK
    return None


def a_server_that_keeps_up_for_two_seconds_is_promoted() -> None:
    assert promoted_after(Promotion(), 30, keeping_up(TRAILING_MAX)) == STABLE_NS


def a_server_that_is_behind_is_not_promoted() -> None:
    assert promoted_after(Promotion(), 100, keeping_up(TRAILING_MAX + 1)) is None


def a_server_that_cannot_be_reached_is_not_promoted_however_complete_its_log_is() -> None:
    assert promoted_after(Promotion(), 100, keeping_up(0, connected=False)) is None


def falling_behind_once_begins_the_two_seconds_anew() -> None:
    promotion = Promotion()
    assert promoted_after(promotion, 15, keeping_up()) is None
    assert promotion.due(1, START + 15 * LOOK, keeping_up(TRAILING_MAX + 1)) == []
    assert promoted_after(promotion, 30, keeping_up(), START + 16 * LOOK) == STABLE_NS


def a_new_term_begins_the_two_seconds_anew() -> None:
    promotion = Promotion()
    assert promoted_after(promotion, 15, keeping_up()) is None
    assert promotion.due(2, START + 20 * LOOK, keeping_up()) == []
    assert promotion.due(2, START + 40 * LOOK, keeping_up()) == ["s4"]


SENTENCES = [
    a_server_that_keeps_up_for_two_seconds_is_promoted,
    a_server_that_is_behind_is_not_promoted,
    a_server_that_cannot_be_reached_is_not_promoted_however_complete_its_log_is,
    falling_behind_once_begins_the_two_seconds_anew,
    a_new_term_begins_the_two_seconds_anew,
]


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda sentence: str(sentence.__name__))
def test_promotion(sentence: Callable[[], None]) -> None:
    sentence()


def never_forget(self: Promotion, term: int, now_ns: int, candidates: list[Candidate]) -> list[str]:
    for candidate in candidates:
        if module.has_caught_up(candidate):
            self._since.setdefault(candidate.name, now_ns)
    return [name for name, since in sorted(self._since.items()) if now_ns - since >= STABLE_NS]


@pytest.mark.parametrize(
    ("owner", "name", "mutant", "sentence"),
    [
        (module, "has_caught_up", lambda candidate: candidate.connected, SENTENCES[1]),
        (module, "has_caught_up", lambda candidate: candidate.trailing <= TRAILING_MAX, SENTENCES[2]),
        (Promotion, "due", never_forget, falling_behind_once_begins_the_two_seconds_anew),
        (Promotion, "due", never_forget, a_new_term_begins_the_two_seconds_anew),
        (module, "STABLE_NS", 0, a_server_that_keeps_up_for_two_seconds_is_promoted),
    ],
)
def test_a_hasty_promotion_is_noticed(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, mutant: object, sentence: Callable[[], None]
) -> None:
    assert hasattr(owner, name)
    monkeypatch.setattr(owner, name, mutant)
    with pytest.raises(AssertionError):
        sentence()


def test_who_has_kept_up_longest_comes_first() -> None:
    promotion, four, five = Promotion(), Candidate("s4", 0, True), Candidate("s5", 0, True)
    assert promotion.due(1, START, [five]) == []
    assert promotion.due(1, START + LOOK, [four, five]) == []
    assert promotion.due(1, START + LOOK + STABLE_NS, [four, five]) == ["s5", "s4"]
