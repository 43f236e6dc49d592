"""What lease reads need to be proved: rounds, decisions and votes in time.

Who confirmed a round votes in a later term only when the round's lease has ended (`vote_after`), unless the leader of
the round, or one in between, transfers its leadership. So while a lease runs nobody was elected in a later term
(`lease_current`), by the induction and the cuts of `membership_steps`; and a read by the lease is linearizable.

Source: Ongaro 2014, sections 4.2.3 and 6.4.1.
"""

from __future__ import annotations

from typing import Final

from model_checks.proofs import snapshot_lemmas
from model_checks.proofs.algebra import Algebra, Property, Sort, Statement, Symbols, Value, state_property
from model_checks.proofs.membership_steps import earlier_term, meeting, seen_places, step

NODE, ROUND, TERM = Sort.NODE, Sort.ROUND, Sort.TERM


@state_property
def round_sane(a: Algebra, s: Symbols) -> Value:
    """A round began in the past, in a term that had a leader."""

    def body(h: Value) -> Value:
        return a.implies(s.round_begun(h), a.conj(a.le(s.round_start(h), s.now()), s.elected(s.round_term(h))))

    return a.forall((ROUND,), body, lambda h: [[s.round_begun(h)]])


@state_property
def confirmed_heard(a: Algebra, s: Symbols) -> Value:
    """Who confirmed a round reached its term, and heard from a leader since the round began."""

    def body(v: Value, h: Value) -> Value:
        heard = a.conj(a.le(s.round_term(h), s.current_term(v)), a.le(s.round_start(h), s.heard_at(v)))
        return a.implies(s.confirmed(v, h), a.conj(s.round_begun(h), heard))

    return a.forall((NODE, ROUND), body, lambda v, h: [[s.confirmed(v, h)]])


@state_property
def transfer_elected(a: Algebra, s: Symbols) -> Value:
    """Only leaders transfer their leadership."""
    return a.forall((TERM,), lambda t: a.implies(s.transferred(t), s.elected(t)))


def released(a: Algebra, s: Symbols, v: Value, h: Value, u: Value) -> Value:
    """A round binds a server no longer in term u: its lease has ended, or a leader since then has ended its own."""
    by = s.urged_by(v, u)
    return a.disj(
        a.le(a.rigid.vote_from(s.round_start(h)), s.now()),
        a.conj(s.transferred(by), s.elected(by), a.le(s.round_term(h), by), a.lt(by, u)),
    )


@state_property
def decided_after(a: Algebra, s: Symbols) -> Value:
    """Who decided to vote in a term is not bound by rounds of earlier terms that it confirmed."""

    def body(v: Value, h: Value, u: Value) -> Value:
        premise = a.conj(s.decided(v, u), s.confirmed(v, h), a.lt(s.round_term(h), u))
        return a.implies(premise, released(a, s, v, h, u))

    return a.forall((NODE, ROUND, TERM), body, lambda v, h, u: [[s.decided(v, u), s.confirmed(v, h)]])


@state_property
def vote_after(a: Algebra, s: Symbols) -> Value:
    """Who voted in a term was not bound by rounds of earlier terms that it confirmed."""

    def body(v: Value, h: Value, u: Value, c: Value) -> Value:
        premise = a.conj(s.vote(v, u, c), s.confirmed(v, h), a.lt(s.round_term(h), u))
        return a.implies(premise, released(a, s, v, h, u))

    return a.forall((NODE, ROUND, TERM, NODE), body, lambda v, h, u, c: [[s.vote(v, u, c), s.confirmed(v, h)]])


LEMMAS: Final[tuple[Property, ...]] = (
    round_sane,
    confirmed_heard,
    transfer_elected,
    decided_after,
    vote_after,
)


def lease_current(a: Algebra, s: Symbols, n: Value, r: Value, j: Value, h: Value, q: Value) -> Statement:
    """Nobody has been elected in a later term while a lease runs."""
    return Statement((TERM,), lambda u: a.implies(s.elected(u), a.le(u, s.current_term(n))), lambda u: [[s.elected(u)]])


def lease_pair(
    a: Algebra, s: Symbols, n: Value, r: Value, j: Value, h: Value, q: Value, u: Value
) -> tuple[tuple[Value, Value], tuple[Value, Value]]:
    """The later leader when it was elected, and the leader that reads."""
    t = s.current_term(n)
    return (u, s.first_length(u)), (t, s.tlog_length(t))


STEPS: Final = (
    *snapshot_lemmas.STEPS,
    step(lease_current, "lease_read", earlier_term, cuts=meeting(lease_pair), hints=seen_places(lease_pair)),
)
