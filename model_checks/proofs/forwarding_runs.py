"""Runs of forwarding from the initial state: what its mutants break, and what it can do (as in `bounded`).

Two agents, n0 and n1, are enough: a client agent or a server that is asked, and a server that leads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from model_checks.proofs.algebra import Sort, Symbols, Value
from model_checks.proofs.bounded import Scenario
from model_checks.proofs.finite import FiniteAlgebra, Sizes

SIZES: Final = Sizes(
    nodes=2, terms=2, indexes=3, values=1, messages=1, reads=1, rounds=1, times=2, requests=2, calls=3, entries=2
)

SENT: Final = ("dial", "send_call", "handle_call")
APPENDED: Final = ("accept", *SENT, "believe", "append")
TWICE: Final = ("append", "commit", "commit")
WRITTEN: Final = ("accept", "believe", "append", "commit", "apply", "acknowledge")
READ: Final = ("accept", "begin_read", "confirm_read", "answer_read")
ELSEWHERE: Final = ("accept", "believe", "begin_read", "confirm_read", "answer_read")


def _scenario(theorem: str, *actions: str) -> Scenario:
    return Scenario(actions, SIZES, theorem)


_TWICE: Final = "applied_at_most_once"
_FRESH: Final = "consistent_reads_are_linearizable"

VIOLATIONS: Final[Mapping[str, Scenario]] = {
    "retry_after_loss": _scenario(_TWICE, *APPENDED, "connection_lost", *SENT, *TWICE),
    "retry_after_unknown": _scenario(_TWICE, *APPENDED, "leadership_lost", "handle_reply", *SENT, *TWICE),
    "duplicate_delivery": _scenario(_TWICE, *APPENDED, "handle_call", *TWICE),
    "acknowledged_uncommitted": _scenario("acknowledged_means_committed", "accept", "believe", "append", "acknowledge"),
    "timeout_refuses": _scenario("refused_means_never_committed", *APPENDED, "hold_timeout", "commit"),
    "lost_leadership_refuses": _scenario(
        "refused_means_never_committed", *APPENDED, "leadership_lost", "handle_refusal", "hold_timeout", "commit"
    ),
    "register_commits_twice": _scenario(_FRESH, *WRITTEN, "accept", *READ[1:], "commit"),
    "answered_before_applied": _scenario(_FRESH, *WRITTEN, *ELSEWHERE),
    "unconfirmed_read": _scenario(_FRESH, *WRITTEN, *ELSEWHERE),
    "stale_for_any": _scenario(_FRESH, *WRITTEN, "accept", "stale_read"),
    "lease_for_consistent": _scenario(_FRESH, *WRITTEN, "accept", "believe", "lease_read", "answer_read"),
}
"""For each mutant a run that breaks a theorem."""

WITNESS: Final = Scenario(
    (
        *("accept", "dial", "dial_failed", *SENT, "hold_timeout", "handle_refusal"),
        *(*SENT, "believe", "append", "commit", "apply", "acknowledge", "handle_reply"),
        *READ,
    ),
    Sizes(
        nodes=2, terms=2, indexes=2, values=1, messages=1, reads=1, rounds=1, times=2, requests=2, calls=4, entries=1
    ),
)
"""A write is refused, tried again, applied and acknowledged; then a `consistent` read is asked, and reflects it."""


def witnessed(a: FiniteAlgebra, s: Symbols) -> Value:
    """The end of `WITNESS`."""
    r = a.rigid

    def reflected(c: Value, d: Value) -> Value:
        q = r.request(d)
        done = a.conj(r.from_client(c), s.acknowledged(c), r.writes(r.request(c)), s.committed(s.proof(c)))
        asked = a.conj(r.from_client(d), s.acknowledged(d), r.consistent(q), a.neg(r.writes(q)))
        return a.conj(done, asked, s.answered_before(q, c), a.neg(r.server(r.agent(c))))

    return a.exists((Sort.CALL, Sort.CALL), reflected)


def eventful(a: FiniteAlgebra, s: Symbols) -> Value:
    """A write was acknowledged, and a fresh read asked after it."""
    r = a.rigid

    def body(c: Value, q: Value) -> Value:
        written = a.conj(s.acknowledged(c), r.writes(r.request(c)))
        return a.conj(written, s.asked(q), s.answered_before(q, c), r.consistent(q))

    return a.exists((Sort.CALL, Sort.REQUEST), body)
