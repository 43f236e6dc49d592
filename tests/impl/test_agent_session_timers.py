"""Sessions end at twice their TTL, never sooner; a new leader gives them their full time; lost locks wait."""

from __future__ import annotations

from typing import Any

import pytest

from impl.agent.sessions import timers as session_timers
from impl.agent.sessions.timers import RETRY_NS, LockDelays, SessionTimers
from impl.catalog.rows import Session

SECOND = 1_000_000_000
S = Session("s", "n", ttl="10s")


def test_a_session_expires_at_twice_its_ttl() -> None:
    timers = SessionTimers()
    timers.renew(S, 0)
    assert timers.expired(20 * SECOND - 1) == []
    assert timers.expired(20 * SECOND) == ["s"]


def test_a_renewal_gives_the_full_time_again() -> None:
    timers = SessionTimers()
    timers.renew(S, 0)
    timers.renew(S, 15 * SECOND)
    assert timers.expired(34 * SECOND) == []
    assert timers.expired(35 * SECOND) == ["s"]


def test_an_expired_session_is_due_again_until_it_is_gone() -> None:
    timers = SessionTimers()
    timers.renew(S, 0)
    assert timers.expired(20 * SECOND) == ["s"]
    assert timers.expired(20 * SECOND + RETRY_NS - 1) == []
    assert timers.expired(20 * SECOND + RETRY_NS) == ["s"]
    timers.forget("s")
    assert timers.expired(99 * SECOND) == [] and len(timers) == 0


def test_a_new_leader_gives_every_session_its_full_time() -> None:
    timers = SessionTimers()
    timers.renew(S, 0)
    timers.lead([S, Session("t", "n"), Session("u", "n", ttl="1m")], 19 * SECOND)
    assert len(timers) == 2
    assert timers.expired(38 * SECOND) == []
    assert timers.expired(39 * SECOND) == ["s"]


def test_a_lost_lock_is_not_given_before_its_delay_is_over() -> None:
    delays = LockDelays()
    delays.begin("k", 15 * SECOND, SECOND)
    assert delays.remaining_ns("k", 2 * SECOND) == 14 * SECOND
    assert delays.remaining_ns("other", 2 * SECOND) == 0
    delays.sweep(15 * SECOND)
    assert len(delays) == 1
    assert delays.remaining_ns("k", 16 * SECOND) == 0 and len(delays) == 0


@pytest.mark.parametrize(
    ("owner", "name", "broken", "sentence"),
    [
        (session_timers, "TTL_MULTIPLIER", 1, test_a_session_expires_at_twice_its_ttl),
        (SessionTimers, "_set", lambda *_: None, test_a_session_expires_at_twice_its_ttl),
        (SessionTimers, "forget", lambda *_: None, test_an_expired_session_is_due_again_until_it_is_gone),
        (session_timers, "RETRY_NS", 1, test_an_expired_session_is_due_again_until_it_is_gone),
        (LockDelays, "begin", lambda *_: None, test_a_lost_lock_is_not_given_before_its_delay_is_over),
    ],
)
def test_a_mutant_contradicts_its_sentence(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, broken: Any, sentence: Any
) -> None:
    monkeypatch.setattr(owner, name, broken)
    with pytest.raises(AssertionError):
        sentence()
