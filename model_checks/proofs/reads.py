"""Linearizable reads without a log entry (read-index), added to the relational model.

A leader that has committed an entry of its own term takes its commit index for the read; when a quorum has then
confirmed that its disks know no later term, the read may be answered by any server that has applied so much. The wire
carries round numbers, one for many reads; here each read is confirmed by itself (`linking` maps a round to its reads).

Source: Ongaro 2014, section 6.4. `read_seen` is history: everything that was committed when the read began.
"""

from __future__ import annotations

from typing import Final

from model_checks.proofs import lemmas, model, signature, steps, theorems
from model_checks.proofs.algebra import (
    Algebra,
    Arity,
    Signature,
    Sort,
    Symbols,
    System,
    Transition,
    Value,
    action,
    state_property,
)

NODE, QUORUM, READ, TERM, INDEX, BOOL = Sort.NODE, Sort.QUORUM, Sort.READ, Sort.TERM, Sort.INDEX, Sort.BOOL

SIGNATURE: Final[Signature] = {
    "read_begun": Arity((READ,), BOOL),
    "read_seen": Arity((READ, TERM, INDEX), BOOL),
    "heard": Arity((NODE, READ), BOOL),
    "read_confirmed": Arity((READ,), BOOL),
}

RIGID: Final[Signature] = {"read_term": Arity((READ,), TERM), "read_index": Arity((READ,), INDEX)}
"""A read is a value, as a message is: its term and its index are what it is."""


def initial(a: Algebra, s: Symbols) -> Value:
    """No read has begun."""
    return a.conj(
        signature.initial(a, s),
        a.forall((READ,), lambda r: a.conj(a.neg(s.read_begun(r)), a.neg(s.read_confirmed(r)))),
        a.forall((NODE, READ), lambda v, r: a.neg(s.heard(v, r))),
    )


@action(n=NODE, r=READ, j=INDEX)
def begin_read(a: Algebra, s: Symbols, n: Value, r: Value, j: Value) -> Transition:
    """The leader takes its commit index for the read; entry j, of its own term, is committed (section 6.4, step 1)."""
    t = s.current_term(n)
    own_commit = a.conj(a.lt(a.genesis, j), a.le(j, s.commit_index(n)), s.tlog_term(t, j) == t)
    taken = a.conj(a.rigid.read_term(r) == t, a.rigid.read_index(r) == s.commit_index(n))
    return Transition(
        a.conj(s.leader(n), taken, a.unless("read_without_own_commit", own_commit)),
        {
            "read_begun": lambda x: a.disj(x == r, s.read_begun(x)),
            "read_seen": lambda x, u, i: a.ite(begins(a, s, x, r), s.committed(u, i), s.read_seen(x, u, i)),
        },
    )


def begins(a: Algebra, s: Symbols, x: Value, r: Value) -> Value:
    """x is the read r, which begins now: history is written once. (To begin it again would change nothing.)"""
    return a.conj(x == r, a.neg(s.read_begun(r)))


@action(v=NODE, r=READ)
def confirm_leadership(a: Algebra, s: Symbols, v: Value, r: Value) -> Transition:
    """A server whose disk knows no later term answers a round that was begun after the read (step 2)."""
    guard = a.conj(s.read_begun(r), a.unless("read_without_term_check", s.current_term(v) == a.rigid.read_term(r)))
    return Transition(guard, {"heard": lambda x, y: a.disj(s.heard(x, y), a.conj(x == v, y == r))})


@action(r=READ, q=QUORUM)
def confirm_read(a: Algebra, s: Symbols, r: Value, q: Value) -> Transition:
    """A quorum has answered: the read index is safe (step 2)."""
    guard = a.conj(
        s.read_begun(r), a.forall((NODE,), lambda v: a.implies(a.rigid.member(v, q), s.heard(v, r))), a.mark(q)
    )
    return Transition(guard, {"read_confirmed": lambda x: a.disj(x == r, s.read_confirmed(x))})


ACTIONS: Final = (begin_read, confirm_leadership, confirm_read)


@state_property
def read_linearizable(a: Algebra, s: Symbols) -> Value:
    """A confirmed read's index covers all that was committed when it began, and its leader's log holds it."""

    def body(r: Value, u: Value, i: Value) -> Value:
        t = a.rigid.read_term(r)
        held = a.conj(a.le(i, s.tlog_length(t)), s.tlog_term(t, i) == u, s.tlog_value(t, i) == s.tlog_value(u, i))
        return a.implies(
            a.conj(s.read_confirmed(r), s.read_seen(r, u, i)), a.conj(a.le(i, a.rigid.read_index(r)), held)
        )

    return a.forall((READ, TERM, INDEX), body)


@state_property
def read_leader(a: Algebra, s: Symbols) -> Value:
    """A read that has begun belongs to a term that had a leader."""
    return a.forall((READ,), lambda r: a.implies(s.read_begun(r), s.elected(a.rigid.read_term(r))))


@state_property
def heard_begun(a: Algebra, s: Symbols) -> Value:
    """Only reads that have begun are confirmed by anybody."""
    return a.forall((NODE, READ), lambda v, r: a.implies(a.disj(s.heard(v, r), s.read_confirmed(r)), s.read_begun(r)))


@state_property
def seen_committed(a: Algebra, s: Symbols) -> Value:
    """What a read saw committed was committed."""

    def body(r: Value, u: Value, i: Value) -> Value:
        premise = a.conj(s.read_begun(r), s.read_seen(r, u, i))
        return a.implies(premise, a.conj(s.committed(u, i), a.mark(s.commit_quorum(u, i))))

    return a.forall((READ, TERM, INDEX), body, lambda r, u, i: [[s.read_seen(r, u, i)]])


@state_property
def seen_unheard(a: Algebra, s: Symbols) -> Value:
    """Who acknowledged a commit of a later term, before the read began, does not confirm the read."""

    def body(r: Value, u: Value, i: Value, v: Value) -> Value:
        premise = a.conj(
            s.read_begun(r),
            s.read_seen(r, u, i),
            a.lt(a.rigid.read_term(r), u),
            a.rigid.member(v, s.commit_quorum(u, i)),
        )
        return a.implies(premise, a.neg(s.heard(v, r)))

    return a.forall((READ, TERM, INDEX, NODE), body)


@state_property
def seen_bound(a: Algebra, s: Symbols) -> Value:
    """What was committed up to the read's term is covered by the read index."""

    def body(r: Value, u: Value, i: Value) -> Value:
        premise = a.conj(s.read_begun(r), s.read_seen(r, u, i), a.le(u, a.rigid.read_term(r)))
        return a.implies(premise, a.le(i, a.rigid.read_index(r)))

    return a.forall((READ, TERM, INDEX), body)


@state_property
def confirmed_bound(a: Algebra, s: Symbols) -> Value:
    """A confirmed read saw no commit of a later term."""

    def body(r: Value, u: Value, i: Value) -> Value:
        return a.implies(a.conj(s.read_confirmed(r), s.read_seen(r, u, i)), a.le(u, a.rigid.read_term(r)))

    return a.forall((READ, TERM, INDEX), body, lambda r, u, i: [[s.read_seen(r, u, i)]])


@state_property
def leader_commits(a: Algebra, s: Symbols) -> Value:
    """A leader's commit index covers all that was committed in its term."""

    def body(n: Value, i: Value) -> Value:
        return a.implies(a.conj(s.leader(n), s.committed(s.current_term(n), i)), a.le(i, s.commit_index(n)))

    return a.forall((NODE, INDEX), body, lambda n, i: [[s.leader(n), s.committed(s.current_term(n), i)]])


LEMMAS: Final = (
    read_leader,
    heard_begun,
    seen_committed,
    seen_unheard,
    seen_bound,
    confirmed_bound,
    leader_commits,
)

RAFT: Final = System(
    signature={**signature.SIGNATURE, **SIGNATURE},
    rigid={**signature.RIGID, **RIGID},
    initial=initial,
    actions=(*model.ACTIONS, *ACTIONS),
    lemmas=(*lemmas.LEMMAS, *LEMMAS),
    theorems=(*theorems.THEOREMS, read_linearizable),
    changes=theorems.CHANGES,
    steps=steps.STEPS,
)
"""The whole system: Raft with read-index reads, and its proof."""
