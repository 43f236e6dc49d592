"""Lease reads, check-quorum and leadership transfer, added to the relational model.

Real time is an ordered sort with a global `now`. Servers read it through clocks that drift: `lease_end(x)` is the last
instant at which a leader may answer by a round that it began at x, `vote_from(x)` the first at which a follower that
last heard from a leader at x may vote or campaign; lease_end(x) < vote_from(x), which is what the drift bound is for
(`drift`). A lease is counted from the moment at which its round began, not from the replies (Ongaro 2014, section
6.4.1). Withholding the vote makes it safe (section 4.2.3).

A server *decides* in memory to vote in a term, some time before the vote is on its disk. Between the two it confirms
no round of an earlier term; a crash forgets the decision, and counts as having heard from a leader. A leader that
transfers its leadership ends its lease for good; those that hear of it need not wait (section 3.10).

Difference: hearing from a leader is an action of its own, since only what is confirmed afterwards depends on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from model_checks.proofs import membership, snapshots
from model_checks.proofs.algebra import (
    Action,
    Algebra,
    Arity,
    Rule,
    Signature,
    Sort,
    Symbols,
    Transition,
    Value,
    action,
    refined,
)
from model_checks.proofs.model import set_at

NODE, QUORUM, READ, ROUND, TIME = Sort.NODE, Sort.QUORUM, Sort.READ, Sort.ROUND, Sort.TIME
TERM, INDEX, BOOL = Sort.TERM, Sort.INDEX, Sort.BOOL

SIGNATURE: Final[Signature] = {
    "now": Arity((), TIME),
    "heard_at": Arity((NODE,), TIME),
    "round_begun": Arity((ROUND,), BOOL),
    "round_term": Arity((ROUND,), TERM),
    "round_start": Arity((ROUND,), TIME),
    "confirmed": Arity((NODE, ROUND), BOOL),
    "decided": Arity((NODE, TERM), BOOL),
    "transferred": Arity((TERM,), BOOL),
    "urged": Arity((NODE, TERM), BOOL),
    "urged_by": Arity((NODE, TERM), TERM),
}
"""When a server last heard from a leader; rounds of heartbeats and who confirmed them; who decided to vote in a term,
and who did without waiting, since a leader of an earlier term transfers its leadership."""

RIGID: Final[Signature] = {
    "first_time": Arity((), TIME),
    "lease_end": Arity((TIME,), TIME),
    "vote_from": Arity((TIME,), TIME),
}

MUTANTS: Final[Mapping[str, str]] = {
    "long_lease": "a lease may end in the very instant in which a follower may vote",
    "endless_lease": "a lease never ends",
    "lease_from_reply": "a lease is counted from the reply to a round, not from its begin",
    "lease_without_own_commit": "a leader answers by its lease before it has committed an entry of its own term",
    "no_check_quorum": "a server votes although it has just heard from a leader",
    "restart_votes_at_once": "a server votes right after a restart",
    "round_without_term_check": "a server of any term confirms a round",
    "transfer_with_lease": "a leader answers by its lease while it transfers its leadership",
}


def axioms(a: Algebra) -> Sequence[Value]:
    """A lease ends before its followers vote, and who heard later votes later."""
    r = a.rigid

    def ends(x: Value) -> Value:
        return (a.le if a.mutated("long_lease") else a.lt)(r.lease_end(x), r.vote_from(x))

    return (
        *membership.axioms(a),
        a.forall((TIME,), ends, lambda x: [[r.lease_end(x)], [r.vote_from(x)]]),
        a.forall(
            (TIME, TIME),
            lambda x, y: a.implies(a.le(x, y), a.le(r.vote_from(x), r.vote_from(y))),
            lambda x, y: [[r.vote_from(x), r.vote_from(y)]],
        ),
        a.forall((TIME,), lambda x: a.le(r.first_time(), x)),
    )


def initial(a: Algebra, s: Symbols) -> Value:
    """Every server has just started: as if it had heard from a leader. No round has begun."""

    def undecided(n: Value, t: Value) -> Value:
        return a.neg(a.disj(s.decided(n, t), s.urged(n, t)))

    return a.conj(
        snapshots.initial(a, s),
        a.forall((NODE,), lambda n: s.heard_at(n) == s.now()),
        a.forall((ROUND,), lambda h: a.neg(s.round_begun(h))),
        a.forall((NODE, ROUND), lambda n, h: a.neg(s.confirmed(n, h))),
        a.forall((NODE, TERM), undecided),
        a.forall((TERM,), lambda t: a.neg(s.transferred(t))),
    )


# -------------------------------------------------------------------------------------------------- what is refined


def _timeout(a: Algebra, s: Symbols, n: Value, t: Value) -> Transition:
    """A vote for oneself was decided."""
    return Transition(s.decided(n, t), {})


def _grant_vote(
    a: Algebra, s: Symbols, v: Value, c: Value, t: Value, last_index: Value, last_term: Value
) -> Transition:
    """A vote was decided."""
    return Transition(s.decided(v, t), {})


def _restart(a: Algebra, s: Symbols, n: Value) -> Transition:
    """Decisions are forgotten, and so is when a leader was heard: it may have been just now."""
    heard = a.rigid.first_time() if a.mutated("restart_votes_at_once") else s.now()
    return Transition(
        True,
        {
            "heard_at": set_at(a, s.heard_at, n, heard),
            "decided": lambda x, t: a.conj(x != n, s.decided(x, t)),
            "urged": lambda x, t: a.conj(x != n, s.urged(x, t)),
        },
    )


# ------------------------------------------------------------------------------------------------------- what is new


@action(x=TIME)
def tick(a: Algebra, s: Symbols, x: Value) -> Transition:
    """Time passes."""
    return Transition(a.lt(s.now(), x), {"now": lambda: x})


@action(n=NODE, h=ROUND)
def begin_round(a: Algebra, s: Symbols, n: Value, h: Value) -> Transition:
    """The leader begins a round of heartbeats (section 6.4.1)."""
    return Transition(
        a.conj(s.leader(n), a.neg(s.round_begun(h))),
        {
            "round_begun": lambda x: a.disj(x == h, s.round_begun(x)),
            "round_term": set_at(a, s.round_term, h, s.current_term(n)),
            "round_start": set_at(a, s.round_start, h, s.now()),
        },
    )


@action(v=NODE)
def hear_leader(a: Algebra, s: Symbols, v: Value) -> Transition:
    """A server hears from a leader: it will not vote for some time (section 4.2.3)."""
    return Transition(True, {"heard_at": set_at(a, s.heard_at, v, s.now())})


@action(v=NODE, h=ROUND)
def confirm_round(a: Algebra, s: Symbols, v: Value, h: Value) -> Transition:
    """A server whose disk and memory know no later term answers a round that it heard of."""
    t = s.round_term(h)
    undecided = a.forall((TERM,), lambda u: a.implies(s.decided(v, u), a.le(u, t)))
    current = a.conj(s.current_term(v) == t, undecided)
    guard = a.conj(
        s.round_begun(h),
        a.le(s.round_start(h), s.heard_at(v)),
        a.unless("round_without_term_check", current),
    )
    confirmed = {"confirmed": lambda x, y: a.disj(s.confirmed(x, y), a.conj(x == v, y == h))}
    if a.mutated("lease_from_reply"):
        return Transition(guard, {**confirmed, "round_start": set_at(a, s.round_start, h, s.now())})
    return Transition(guard, confirmed)


@action(v=NODE, t=TERM)
def decide_vote(a: Algebra, s: Symbols, v: Value, t: Value) -> Transition:
    """A server that has not heard from a leader for long enough may vote in a term (section 4.2.3)."""
    waited = a.le(a.rigid.vote_from(s.heard_at(v)), s.now())
    return Transition(
        a.unless("no_check_quorum", waited),
        {
            "decided": lambda x, u: a.disj(s.decided(x, u), a.conj(x == v, u == t)),
            "urged": lambda x, u: a.conj(s.urged(x, u), a.neg(a.conj(x == v, u == t))),
        },
    )


@action(n=NODE)
def transfer_leadership(a: Algebra, s: Symbols, n: Value) -> Transition:
    """A leader that asks another server to take over ends its lease for good (section 3.10)."""
    t = s.current_term(n)
    return Transition(s.leader(n), {"transferred": lambda u: a.disj(u == t, s.transferred(u))})


@action(v=NODE, t=TERM, u=TERM)
def decide_vote_urged(a: Algebra, s: Symbols, v: Value, t: Value, u: Value) -> Transition:
    """A server need not wait if the leader of the latest term that it knows, in memory, transfers its leadership."""
    current = a.conj(
        a.le(s.current_term(v), u), a.forall((TERM,), lambda w: a.implies(s.decided(v, w), a.le(w, u))), a.lt(u, t)
    )

    def this(x: Value, w: Value) -> Value:
        return a.conj(x == v, w == t)

    return Transition(
        a.conj(s.transferred(u), current),
        {
            "decided": lambda x, w: a.disj(s.decided(x, w), this(x, w)),
            "urged": lambda x, w: a.disj(s.urged(x, w), this(x, w)),
            "urged_by": lambda x, w: a.ite(this(x, w), u, s.urged_by(x, w)),
        },
    )


@action(n=NODE, r=READ, j=INDEX, h=ROUND, q=QUORUM)
def lease_read(a: Algebra, s: Symbols, n: Value, r: Value, j: Value, h: Value, q: Value) -> Transition:
    """The leader answers at once by a round that a quorum confirmed and whose lease has not ended (section 6.4.1).

    A read that begins and is confirmed in one step: what is proved of reads is proved of it.
    """
    t = s.current_term(n)
    begun = membership.begin_read.rule(a, s, n, r, j)
    own_commit = a.conj(a.le(s.base(n), j), a.lt(a.genesis, j), a.le(j, s.commit_index(n)), s.tlog_term(t, j) == t)
    guard = a.conj(
        s.leader(n),
        a.neg(s.read_begun(r)),
        s.round_begun(h),
        s.round_term(h) == t,
        a.rigid.quorum_of(q, membership.of_term(a, s, t)),
        a.forall((NODE,), lambda v: a.implies(a.rigid.member(v, q), s.confirmed(v, h))),
        a.mark(q),
        a.unless("endless_lease", a.le(s.now(), a.rigid.lease_end(s.round_start(h)))),
        a.unless("lease_without_own_commit", own_commit),
        a.unless("transfer_with_lease", a.neg(s.transferred(t))),
    )
    return Transition(
        guard,
        {**begun.updates, "read_confirmed": lambda x: a.disj(x == r, s.read_confirmed(x))},
    )


REFINED: Final[Mapping[str, Rule]] = {"timeout": _timeout, "grant_vote": _grant_vote, "restart": _restart}

ACTIONS: Final[tuple[Action, ...]] = (
    *(refined(act, REFINED[act.name]) if act.name in REFINED else act for act in snapshots.ACTIONS),
    tick,
    begin_round,
    hear_leader,
    confirm_round,
    decide_vote,
    transfer_leadership,
    decide_vote_urged,
    lease_read,
)
