"""Lease reads, check-quorum and leadership transfer, added to the relational model.

Real time is an ordered sort with a global `now`. Servers read it through clocks that drift: `lease_end(x)` is the last
instant at which a leader may answer by a round that it began at x, `vote_from(x)` the first at which a follower that
last heard from a leader at x may vote or campaign; lease_end(x) < vote_from(x), which is what the drift bound is for
(`drift`). A lease is counted from the moment at which its round began, not from the replies (Ongaro 2014, section
6.4.1). Withholding the vote makes it safe (section 4.2.3).

A server *decides* in memory to vote in a term, some time before the vote is on its disk. Between the two it confirms
no round of an earlier term; a crash forgets the decision, and counts as having heard from a leader.

The lease of a term has *ended* when its leader transfers its leadership, or loses the role in any way: steps down,
crashes, learns of a newer term. Who knows it of the latest leader from which it heard, or of a later one, need not wait
(section 3.10). That a process is gone is known where the kernel of its machine says so (ARCHITECTURE.md).

Differences: hearing from a leader is an action of its own, since only what is confirmed afterwards depends on it. A
leader counts itself without confirming its rounds: it still leads.
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
from model_checks.proofs.model import Updates, set_at

NODE, QUORUM, READ, ROUND, TIME = Sort.NODE, Sort.QUORUM, Sort.READ, Sort.ROUND, Sort.TIME
TERM, INDEX, BOOL = Sort.TERM, Sort.INDEX, Sort.BOOL

SIGNATURE: Final[Signature] = {
    "now": Arity((), TIME),
    "heard_at": Arity((NODE,), TIME),
    "heard_term": Arity((NODE,), TERM),
    "round_heard": Arity((NODE, ROUND), BOOL),
    "round_begun": Arity((ROUND,), BOOL),
    "confirmed": Arity((NODE, ROUND), BOOL),
    "decided": Arity((NODE, TERM), BOOL),
    "urged": Arity((NODE, TERM), BOOL),
    "urged_by": Arity((NODE, TERM), TERM),
    "transferring": Arity((NODE,), BOOL),
    "lease_ended": Arity((TERM,), BOOL),
}
"""When, in which term at most, and by which rounds a server heard from a leader; who confirmed which rounds; who
decided to vote in a term, and by the end of which term's lease without waiting; which leaders transfer."""

RIGID: Final[Signature] = {
    "first_time": Arity((), TIME),
    "lease_end": Arity((TIME,), TIME),
    "vote_from": Arity((TIME,), TIME),
    "round_term": Arity((ROUND,), TERM),
    "round_start": Arity((ROUND,), TIME),
}
"""Clocks; and what a round is, as a message is its fields."""

MUTANTS: Final[Mapping[str, str]] = {
    "long_lease": "a lease may end in the very instant in which a follower may vote",
    "endless_lease": "a lease never ends",
    "lease_from_reply": "a lease is counted from the reply to a round, not from its begin",
    "lease_without_own_commit": "a leader answers by its lease before it has committed an entry of its own term",
    "no_check_quorum": "a server votes although it has just heard from a leader",
    "restart_votes_at_once": "a server votes right after a restart",
    "round_without_term_check": "a server of any term confirms a round",
    "transfer_with_lease": "a leader answers by its lease while it transfers its leadership",
    "urged_by_older_lease": "a server does not wait once any lease has ended, though it heard from a later leader",
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
        a.forall((NODE,), lambda n: a.conj(s.heard_at(n) == s.now(), a.neg(s.transferring(n)))),
        a.forall((ROUND,), lambda h: a.neg(s.round_begun(h))),
        a.forall((NODE, ROUND), lambda n, h: a.neg(a.disj(s.round_heard(n, h), s.confirmed(n, h)))),
        a.forall((NODE, TERM), undecided),
        a.forall((TERM,), lambda t: a.neg(s.lease_ended(t))),
    )


# -------------------------------------------------------------------------------------------------- what is refined


def lease_lost(a: Algebra, s: Symbols, n: Value) -> Updates:
    """Where `n` led, the lease of its term has ended."""
    t = s.current_term(n)
    return {"lease_ended": lambda u: a.disj(s.lease_ended(u), a.conj(s.leader(n), u == t))}


def _timeout(a: Algebra, s: Symbols, n: Value, t: Value) -> Transition:
    """A vote for oneself was decided."""
    return Transition(s.decided(n, t), lease_lost(a, s, n))


def _update_term(a: Algebra, s: Symbols, n: Value, t: Value) -> Transition:
    """A leader that learns of a newer term leads no more."""
    return Transition(True, lease_lost(a, s, n))


def _step_down(a: Algebra, s: Symbols, n: Value) -> Transition:
    """A leader that steps down answers no more."""
    return Transition(True, lease_lost(a, s, n))


def _grant_vote(
    a: Algebra, s: Symbols, v: Value, c: Value, t: Value, last_index: Value, last_term: Value
) -> Transition:
    """A vote was decided."""
    return Transition(s.decided(v, t), {})


def _become_leader(a: Algebra, s: Symbols, n: Value, q: Value) -> Transition:
    """A new leader does not transfer its leadership yet."""
    return Transition(True, {"transferring": lambda x: a.conj(x != n, s.transferring(x))})


def _restart(a: Algebra, s: Symbols, n: Value) -> Transition:
    """Decisions are forgotten, and when and from whom a leader was heard: just now, for all that the disk knows."""
    heard = a.rigid.first_time() if a.mutated("restart_votes_at_once") else s.now()
    return Transition(
        True,
        {
            **lease_lost(a, s, n),
            "heard_at": set_at(a, s.heard_at, n, heard),
            "heard_term": set_at(a, s.heard_term, n, s.current_term(n)),
            "round_heard": lambda x, h: a.conj(x != n, s.round_heard(x, h)),
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
    """The leader begins a round of heartbeats, now (section 6.4.1). To begin it again changes nothing."""
    guard = a.conj(
        s.leader(n),
        a.rigid.round_term(h) == s.current_term(n),
        a.unless("lease_from_reply", a.rigid.round_start(h) == s.now()),
    )
    return Transition(guard, {"round_begun": lambda x: a.disj(x == h, s.round_begun(x))})


@action(v=NODE)
def hear_leader(a: Algebra, s: Symbols, v: Value) -> Transition:
    """A server hears from a leader: it will not vote for some time (section 4.2.3)."""
    return Transition(True, {"heard_at": set_at(a, s.heard_at, v, s.now())})


@action(v=NODE, h=ROUND)
def hear_round(a: Algebra, s: Symbols, v: Value, h: Value) -> Transition:
    """A server hears from the leader of a term that it has not passed, by a request of round h or a later one."""
    t = a.rigid.round_term(h)
    return Transition(
        a.conj(s.round_begun(h), a.le(s.heard_term(v), t)),
        {
            "heard_at": set_at(a, s.heard_at, v, s.now()),
            "heard_term": set_at(a, s.heard_term, v, t),
            "round_heard": lambda x, y: a.disj(s.round_heard(x, y), a.conj(x == v, y == h)),
        },
    )


@action(v=NODE, h=ROUND)
def confirm_round(a: Algebra, s: Symbols, v: Value, h: Value) -> Transition:
    """A server whose disk and memory know no later term answers a round that it heard of since it started."""
    t = a.rigid.round_term(h)
    undecided = a.forall((TERM,), lambda u: a.implies(s.decided(v, u), a.le(u, t)))
    current = a.conj(s.current_term(v) == t, undecided)
    replied = a.rigid.round_start(h) == s.now() if a.mutated("lease_from_reply") else True
    guard = a.conj(s.round_heard(v, h), a.unless("round_without_term_check", current), replied)
    return Transition(guard, {"confirmed": lambda x, y: a.disj(s.confirmed(x, y), a.conj(x == v, y == h))})


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
    return Transition(s.leader(n), {**lease_lost(a, s, n), "transferring": lambda x: a.disj(x == n, s.transferring(x))})


def released(a: Algebra, s: Symbols, v: Value, u: Value) -> Value:
    """The lease of term u has ended, and `v` heard from no later leader."""
    return a.conj(s.lease_ended(u), a.unless("urged_by_older_lease", a.le(s.heard_term(v), u)))


@action(v=NODE, t=TERM, u=TERM)
def decide_vote_urged(a: Algebra, s: Symbols, v: Value, t: Value, u: Value) -> Transition:
    """A server need not wait once the lease of the latest leader that it heard, or of a later one, has ended."""

    def this(x: Value, w: Value) -> Value:
        return a.conj(x == v, w == t)

    return Transition(
        a.conj(released(a, s, v, u), a.lt(u, t)),
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
    x = a.rigid
    t = s.current_term(n)
    begun = membership.begin_read.rule(a, s, n, r, j)
    own_commit = a.conj(a.le(s.base(n), j), a.lt(a.genesis, j), a.le(j, s.commit_index(n)), s.tlog_term(t, j) == t)
    guard = a.conj(
        s.leader(n),
        x.read_term(r) == t,
        x.read_index(r) == s.commit_index(n),
        s.round_begun(h),
        x.round_term(h) == t,
        x.quorum_of(q, membership.of_term(a, s, t)),
        a.forall((NODE,), lambda v: a.implies(x.member(v, q), a.disj(v == n, s.confirmed(v, h)))),
        a.mark(q),
        a.unless("endless_lease", a.le(s.now(), x.lease_end(x.round_start(h)))),
        a.unless("lease_without_own_commit", own_commit),
        a.unless("transfer_with_lease", a.neg(s.transferring(n))),
    )
    return Transition(
        guard,
        {**begun.updates, "read_confirmed": lambda x: a.disj(x == r, s.read_confirmed(x))},
    )


REFINED: Final[Mapping[str, Rule]] = {
    "timeout": _timeout,
    "update_term": _update_term,
    "step_down": _step_down,
    "grant_vote": _grant_vote,
    "become_leader": _become_leader,
    "restart": _restart,
}

ACTIONS: Final[tuple[Action, ...]] = (
    *(refined(act, REFINED[act.name]) if act.name in REFINED else act for act in snapshots.ACTIONS),
    tick,
    begin_round,
    hear_leader,
    hear_round,
    confirm_round,
    decide_vote,
    transfer_leadership,
    decide_vote_urged,
    lease_read,
)
