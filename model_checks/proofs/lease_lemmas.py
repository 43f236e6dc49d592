"""What lease reads need to be proved: rounds, decisions and votes in time.

Who confirmed a round votes in a later term only when the round's time is over (`vote_after`), unless the leader of the
round, or one in between, has ended its lease: it leads no more, or transfers its leadership. So while a lease runs
nobody was elected in a later term (`lease_current`), by the induction and the cuts of `membership_steps`; and a read by
the lease is linearizable.

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
    r = a.rigid

    def body(h: Value) -> Value:
        return a.implies(s.round_begun(h), a.conj(a.le(r.round_start(h), s.now()), s.elected(r.round_term(h))))

    return a.forall((ROUND,), body, lambda h: [[s.round_begun(h)]])


def since(a: Algebra, s: Symbols, v: Value, h: Value) -> Value:
    """Round h has begun, and `v` heard from a leader since then, of its term or a later one."""
    r = a.rigid
    heard = a.conj(a.le(r.round_start(h), s.heard_at(v)), a.le(r.round_term(h), s.heard_term(v)))
    return a.conj(s.round_begun(h), heard)


@state_property
def heard_since(a: Algebra, s: Symbols) -> Value:
    """Who has heard of a round heard from a leader since it began."""
    return a.forall(
        (NODE, ROUND),
        lambda v, h: a.implies(s.round_heard(v, h), since(a, s, v, h)),
        lambda v, h: [[s.round_heard(v, h)]],
    )


@state_property
def confirmed_since(a: Algebra, s: Symbols) -> Value:
    """Who confirmed a round reached its term, and heard from a leader since the round began."""

    def body(v: Value, h: Value) -> Value:
        reached = a.le(a.rigid.round_term(h), s.current_term(v))
        return a.implies(s.confirmed(v, h), a.conj(since(a, s, v, h), reached))

    return a.forall((NODE, ROUND), body, lambda v, h: [[s.confirmed(v, h)]])


@state_property
def lease_ended_sane(a: Algebra, s: Symbols) -> Value:
    """Only leaders end their leases; one that still leads transfers its leadership."""

    def body(t: Value) -> Value:
        n = s.leader_of(t)
        leads = a.conj(s.leader(n), s.current_term(n) == t)
        return a.implies(s.lease_ended(t), a.conj(s.elected(t), a.implies(leads, s.transferring(n))))

    return a.forall((TERM,), body, lambda t: [[s.lease_ended(t)]])


def released(a: Algebra, s: Symbols, v: Value, h: Value, u: Value) -> Value:
    """A round binds a server no longer in term u: its lease is over, or that of its leader or a later one has ended."""
    by = s.urged_by(v, u)
    return a.disj(
        a.le(a.rigid.vote_from(a.rigid.round_start(h)), s.now()),
        a.conj(s.lease_ended(by), a.le(a.rigid.round_term(h), by), a.lt(by, u)),
    )


@state_property
def decided_after(a: Algebra, s: Symbols) -> Value:
    """Who decided to vote in a term is not bound by rounds of earlier terms that it confirmed."""

    def body(v: Value, h: Value, u: Value) -> Value:
        premise = a.conj(s.decided(v, u), s.confirmed(v, h), a.lt(a.rigid.round_term(h), u))
        return a.implies(premise, released(a, s, v, h, u))

    return a.forall((NODE, ROUND, TERM), body, lambda v, h, u: [[s.decided(v, u), s.confirmed(v, h)]])


@state_property
def vote_after(a: Algebra, s: Symbols) -> Value:
    """Who voted in a term was not bound by rounds of earlier terms that it confirmed."""

    def body(v: Value, h: Value, u: Value, c: Value) -> Value:
        premise = a.conj(s.vote(v, u, c), s.confirmed(v, h), a.lt(a.rigid.round_term(h), u))
        return a.implies(premise, released(a, s, v, h, u))

    return a.forall((NODE, ROUND, TERM, NODE), body, lambda v, h, u, c: [[s.vote(v, u, c), s.confirmed(v, h)]])


LEMMAS: Final[tuple[Property, ...]] = (
    round_sane,
    heard_since,
    confirmed_since,
    lease_ended_sane,
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
