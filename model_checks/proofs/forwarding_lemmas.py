"""What is proved of forwarding, and the lemmas that make it inductive.

The theorems have the names of the readable spec's properties (`spec/forwarding_properties.py`). "Linearizable" is said
of reads here: a read reflects every write that had been acknowledged when it was asked, and at least what every read
reflected that had been answered by then. With `reads_answer_a_prefix` the commits, and each read behind the last entry
that it saw, are an order of all requests that respects real time.

That writes are applied at most once rests on one thing: the token of a write is where a call may be appended, and
nowhere else (`token_free`, `token_under_way`, `token_refused`, `token_entry`).

Must not: be weakened.
"""

from __future__ import annotations

import itertools
from typing import Final

from model_checks.proofs.algebra import (
    Algebra,
    Change,
    Property,
    Sort,
    Symbols,
    System,
    Value,
    change_property,
    state_property,
)
from model_checks.proofs.forwarding import ACTIONS, read
from model_checks.proofs.forwarding_signature import ANSWERS, PHASES, RIGID, SIGNATURE, axioms, initial

NODE, REQUEST, CALL, ENTRY = Sort.NODE, Sort.REQUEST, Sort.CALL, Sort.ENTRY


# ----------------------------------------------------------------------------------------------------------- theorems


@state_property
def applied_at_most_once(a: Algebra, s: Symbols) -> Value:
    """Forwarding and its retries never apply a write twice."""
    r = a.rigid

    def body(e: Value, f: Value) -> Value:
        both = a.conj(s.committed(e), s.committed(f), r.request(s.appender(e)) == r.request(s.appender(f)))
        return a.implies(both, e == f)

    return a.forall((ENTRY, ENTRY), body)


@state_property
def acknowledged_means_committed(a: Algebra, s: Symbols) -> Value:
    """A write whose client was told that it happened has been committed."""
    r = a.rigid

    def body(c: Value) -> Value:
        told = a.conj(r.from_client(c), s.acknowledged(c), r.writes(r.request(c)))
        e = s.proof(c)
        return a.implies(told, a.conj(s.committed(e), r.request(s.appender(e)) == r.request(c)))

    return a.forall((CALL,), body)


@state_property
def refused_means_never_committed(a: Algebra, s: Symbols) -> Value:
    """A request whose client was told that it did not happen is never committed, now or later."""
    r = a.rigid

    def body(c: Value, e: Value) -> Value:
        told = a.conj(r.from_client(c), s.refused(c), s.entry(e))
        return a.implies(told, r.request(s.appender(e)) != r.request(c))

    return a.forall((CALL, ENTRY), body)


@state_property
def answered_at_most_once(a: Algebra, s: Symbols) -> Value:
    """A client gets one answer."""
    pairs = [(getattr(s, x), getattr(s, y)) for x, y in itertools.combinations(ANSWERS, 2)]
    return a.forall((CALL,), lambda c: a.conj(*(a.neg(a.conj(x(c), y(c))) for x, y in pairs)))


@state_property
def reads_answer_a_prefix(a: Algebra, s: Symbols) -> Value:
    """A read of any mode is answered from the state after some prefix of what is committed."""

    def body(c: Value) -> Value:
        return a.implies(a.conj(s.acknowledged(c), read(a, c)), a.le(s.seen(c), s.committed_length()))

    return a.forall((CALL,), body)


def linearizable(a: Algebra, s: Symbols, c: Value, d: Value) -> Value:
    """The read c reflects what d wrote or saw, if d's client was answered before c was asked."""
    q = a.rigid.request(c)
    reflected = a.ite(read(a, d), a.le(s.seen(d), s.seen(c)), a.le(s.position(s.proof(d)), s.seen(c)))
    return a.conj(a.le(s.asked_at(q), s.seen(c)), a.implies(s.answered_before(q, d), reflected))


def answered_read(a: Algebra, s: Symbols, c: Value) -> Value:
    """A client's read that is answered."""
    return a.conj(a.rigid.from_client(c), s.acknowledged(c), read(a, c))


@state_property
def consistent_reads_are_linearizable(a: Algebra, s: Symbols) -> Value:
    """A `consistent` read reflects everything acknowledged before it was asked, and what earlier reads reflected."""

    def body(c: Value, d: Value) -> Value:
        wanted = a.conj(answered_read(a, s, c), a.rigid.consistent(a.rigid.request(c)))
        return a.implies(wanted, linearizable(a, s, c, d))

    return a.forall((CALL, CALL), body)


@state_property
def default_reads_are_linearizable(a: Algebra, s: Symbols) -> Value:
    """The same of `default` reads, as long as leases hold."""
    r = a.rigid

    def body(c: Value, d: Value) -> Value:
        wanted = a.conj(answered_read(a, s, c), a.neg(r.stale(r.request(c))), r.leases_hold())
        return a.implies(wanted, linearizable(a, s, c, d))

    return a.forall((CALL, CALL), body)


@change_property
def answers_final(a: Algebra, s: Symbols, after: Symbols) -> Value:
    """An answer never changes, nor what it reflects or rests on."""

    def body(c: Value) -> Value:
        kept = [a.implies(getattr(s, answer)(c), getattr(after, answer)(c)) for answer in ANSWERS]
        same = a.conj(after.seen(c) == s.seen(c), after.proof(c) == s.proof(c))
        return a.conj(*kept, a.implies(s.acknowledged(c), same))

    return a.forall((CALL,), body)


@change_property
def commits_final(a: Algebra, s: Symbols, after: Symbols) -> Value:
    """What is committed stays where it is."""

    def body(e: Value) -> Value:
        kept = a.conj(after.committed(e), after.position(e) == s.position(e), after.appender(e) == s.appender(e))
        return a.implies(s.committed(e), kept)

    return a.forall((ENTRY,), body)


THEOREMS: Final[tuple[Property, ...]] = (
    applied_at_most_once,
    acknowledged_means_committed,
    refused_means_never_committed,
    answered_at_most_once,
    reads_answer_a_prefix,
    consistent_reads_are_linearizable,
    default_reads_are_linearizable,
)
CHANGES: Final[tuple[Change, ...]] = (answers_final, commits_final)


# ------------------------------------------------------------------------------------------------------------- lemmas


@state_property
def one_place(a: Algebra, s: Symbols) -> Value:
    """A call is in one phase, or has one answer, or neither."""
    pairs = [(getattr(s, x), getattr(s, y)) for x, y in itertools.combinations((*PHASES, *ANSWERS), 2)]
    return a.forall((CALL,), lambda c: a.conj(*(a.neg(a.conj(x(c), y(c))) for x, y in pairs)))


@state_property
def call_sane(a: Algebra, s: Symbols) -> Value:
    """Who is busy with a call, or answered it, took it; who took it was asked. A client's request is taken at once."""

    def body(c: Value) -> Value:
        somewhere = a.disj(*(getattr(s, name)(c) for name in (*PHASES, *ANSWERS)))
        return a.conj(
            a.implies(somewhere, s.arrived(c)),
            a.implies(s.arrived(c), s.made(c)),
            a.implies(s.made(c), s.asked(a.rigid.request(c))),
            a.implies(a.conj(s.made(c), a.rigid.from_client(c)), s.arrived(c)),
        )

    return a.forall((CALL,), body)


@state_property
def callee_sane(a: Algebra, s: Symbols) -> Value:
    """Who waits for a call made it, for the same request."""
    r = a.rigid

    def body(c: Value) -> Value:
        d = s.callee(c)
        same = a.conj(r.made_by(d) == c, r.request(d) == r.request(c), a.neg(r.from_client(d)))
        return a.implies(s.calling(c), a.conj(s.made(d), same))

    return a.forall((CALL,), body, lambda c: [[s.calling(c)]])


def has_token(a: Algebra, s: Symbols, c: Value) -> Value:
    """The call has its request's token, if that is a write."""
    q = a.rigid.request(c)
    return a.implies(a.rigid.writes(q), s.token(q) == c)


@state_property
def token_free(a: Algebra, s: Symbols) -> Value:
    """What may be appended, or was and waits for its commit, has the token."""
    return a.forall((CALL,), lambda c: a.implies(a.disj(s.held(c), s.dialling(c), s.appended(c)), has_token(a, s, c)))


@state_property
def token_under_way(a: Algebra, s: Symbols) -> Value:
    """A call that has not arrived yet has the token."""
    return a.forall((CALL,), lambda c: a.implies(a.conj(s.made(c), a.neg(s.arrived(c))), has_token(a, s, c)))


@state_property
def token_refused(a: Algebra, s: Symbols) -> Value:
    """A refusal that somebody waits for, or that a client got, has the token: nobody else goes on with the request."""
    r = a.rigid

    def body(c: Value) -> Value:
        p = r.made_by(c)
        awaited = a.disj(r.from_client(c), a.conj(s.calling(p), s.callee(p) == c))
        return a.implies(a.conj(s.refused(c), awaited), has_token(a, s, c))

    return a.forall((CALL,), body, lambda c: [[s.refused(c)]])


@state_property
def token_entry(a: Algebra, s: Symbols) -> Value:
    """Who appended an entry keeps the token for ever, and appended no other one."""
    r = a.rigid

    def body(e: Value) -> Value:
        c = s.appender(e)
        past = a.conj(s.arrived(c), *(a.neg(x(c)) for x in (s.held, s.dialling, s.calling, s.refused)))
        return a.implies(
            s.entry(e),
            a.conj(r.writes(r.request(c)), s.token(r.request(c)) == c, s.own_entry(c) == e, past),
        )

    return a.forall((ENTRY,), body, lambda e: [[s.entry(e)]])


@state_property
def own_entry_sane(a: Algebra, s: Symbols) -> Value:
    """A call that waits for a commit appended its entry."""

    def body(c: Value) -> Value:
        e = s.own_entry(c)
        return a.implies(s.appended(c), a.conj(s.entry(e), s.appender(e) == c))

    return a.forall((CALL,), body, lambda c: [[s.appended(c)]])


@state_property
def proof_sane(a: Algebra, s: Symbols) -> Value:
    """An acknowledged write's proof is a committed entry that carries its request."""
    r = a.rigid

    def body(c: Value) -> Value:
        e = s.proof(c)
        carries = a.conj(s.committed(e), r.request(s.appender(e)) == r.request(c))
        return a.implies(a.conj(s.acknowledged(c), a.neg(read(a, c))), carries)

    return a.forall((CALL,), body, lambda c: [[s.acknowledged(c)]])


@state_property
def committed_sane(a: Algebra, s: Symbols) -> Value:
    """What is committed was appended, and counted."""

    def body(e: Value) -> Value:
        return a.implies(s.committed(e), a.conj(s.entry(e), a.le(s.position(e), s.committed_length())))

    return a.forall((ENTRY,), body, lambda e: [[s.committed(e)]])


@state_property
def applied_sane(a: Algebra, s: Symbols) -> Value:
    """No server applied more than is committed."""
    return a.forall((NODE,), lambda n: a.le(s.applied_length(n), s.committed_length()))


@state_property
def seen_sane(a: Algebra, s: Symbols) -> Value:
    """No answer reflects more than is committed."""
    return a.forall(
        (CALL,),
        lambda c: a.implies(a.conj(s.acknowledged(c), read(a, c)), a.le(s.seen(c), s.committed_length())),
    )


def fresh(a: Algebra, q: Value) -> Value:
    """A read that must be fresh: `consistent`, or `default` while leases hold."""
    r = a.rigid
    return a.disj(r.consistent(q), a.conj(a.neg(r.stale(q)), r.leases_hold()))


@state_property
def read_bound(a: Algebra, s: Symbols) -> Value:
    """A fresh read waits for, and is answered from, no less than was committed when it was asked."""

    def body(c: Value) -> Value:
        q = a.rigid.request(c)
        least = s.asked_at(q)
        answered = a.implies(a.conj(s.acknowledged(c), fresh(a, q)), a.le(least, s.seen(c)))
        return a.conj(
            a.implies(s.asked(q), a.le(least, s.committed_length())),
            a.implies(s.confirming(c), a.le(least, s.read_floor(c))),
            a.implies(a.conj(s.confirmed(c), fresh(a, q)), a.le(least, s.read_index(c))),
            a.implies(read(a, c), answered),
        )

    return a.forall((CALL,), body)


@state_property
def reads_only(a: Algebra, s: Symbols) -> Value:
    """Only reads are confirmed."""
    return a.forall((CALL,), lambda c: a.implies(a.disj(s.confirming(c), s.confirmed(c)), read(a, c)))


@state_property
def answered_sane(a: Algebra, s: Symbols) -> Value:
    """Who had been answered when a request was asked was acknowledged, by what was committed then."""

    def body(q: Value, d: Value) -> Value:
        then = a.ite(read(a, d), a.le(s.seen(d), s.asked_at(q)), a.le(s.position(s.proof(d)), s.asked_at(q)))
        return a.implies(a.conj(s.asked(q), s.answered_before(q, d)), a.conj(s.acknowledged(d), then))

    return a.forall((REQUEST, CALL), body, lambda q, d: [[s.answered_before(q, d)]])


LEMMAS: Final[tuple[Property, ...]] = (
    one_place,
    call_sane,
    callee_sane,
    token_free,
    token_under_way,
    token_refused,
    token_entry,
    own_entry_sane,
    proof_sane,
    committed_sane,
    applied_sane,
    seen_sane,
    read_bound,
    reads_only,
    answered_sane,
)

FORWARDING: Final = System(
    signature=SIGNATURE,
    rigid=RIGID,
    initial=initial,
    actions=ACTIONS,
    lemmas=LEMMAS,
    theorems=THEOREMS,
    changes=CHANGES,
    steps=(),
    axioms=axioms,
    majorities=(),
)
