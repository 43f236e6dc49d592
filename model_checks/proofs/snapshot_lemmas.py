"""What compaction and InstallSnapshot need to be proved, and the theorems about them.

Source: Ongaro 2014, chapter 5. A server's base rests on a commit of a term that its disk knows (`base_certificate`),
and below it the disk is the log of that term (`base_prefix`): so a leader's request that begins below the base
continues the same history (`agreed_below`).
"""

from __future__ import annotations

from typing import Final

from model_checks.proofs import lemmas, membership_steps, steps
from model_checks.proofs.algebra import (
    Algebra,
    Change,
    Property,
    Sort,
    Statement,
    Step,
    Symbols,
    Value,
    change_property,
    state_property,
)
from model_checks.proofs.membership_steps import step
from model_checks.proofs.theorems import upto

NODE, MESSAGE, VALUE, INDEX, TERM = Sort.NODE, Sort.MESSAGE, Sort.VALUE, Sort.INDEX, Sort.TERM


@state_property
def snapshot_safety(a: Algebra, s: Symbols) -> Value:
    """What a server's snapshot covers is what any server applied there."""

    def body(x: Value, y: Value, i: Value, w: Value) -> Value:
        return a.implies(a.conj(upto(a, i, s.base(x)), s.applied(y, i, w)), s.log_value(x, i) == w)

    return a.forall((NODE, NODE, INDEX, VALUE), body)


@change_property
def base_forward(a: Algebra, s: Symbols, after: Symbols) -> Value:
    """A base never goes back."""
    return a.forall((NODE,), lambda n: a.le(s.base(n), after.base(n)))


def _applied_forward(a: Algebra, s: Symbols, after: Symbols) -> Value:
    """A state machine never goes back while its process lives."""
    return a.forall((NODE,), lambda n: a.le(s.last_applied(n), after.last_applied(n)))


applied_forward: Final = Change(
    "applied_forward", _applied_forward.__doc__ or "", _applied_forward, frozenset({"restart"})
)

THEOREMS: Final = (snapshot_safety,)
CHANGES: Final = (base_forward, applied_forward)


@state_property
def base_certificate(a: Algebra, s: Symbols) -> Value:
    """A base rests on a commit of a term that the disk knows, and the disk is at least that long."""

    def body(n: Value) -> Value:
        t, i = s.base_term(n), s.base_index(n)
        rests = a.conj(s.committed(t, i), a.le(s.base(n), i), a.le(t, s.current_term(n)))
        return a.conj(a.le(s.base(n), s.log_length(n)), a.implies(a.lt(a.genesis, s.base(n)), rests))

    return a.forall((NODE,), body)


@state_property
def base_prefix(a: Algebra, s: Symbols) -> Value:
    """Up to its base, a disk is the log of the term of the commit that the base rests on."""

    def body(n: Value, j: Value) -> Value:
        t = s.base_term(n)
        same = a.conj(s.log_term(n, j) == s.tlog_term(t, j), s.log_value(n, j) == s.tlog_value(t, j))
        return a.implies(upto(a, j, s.base(n)), same)

    return a.forall(
        (NODE, INDEX),
        body,
        lambda n, j: [[s.log_term(n, j)], [s.log_value(n, j)], [s.tlog_term(s.base_term(n), j)]],
    )


@state_property
def base_applied(a: Algebra, s: Symbols) -> Value:
    """A state machine is at least as far as the snapshot."""
    return a.forall((NODE,), lambda n: a.le(s.base(n), s.last_applied(n)))


@state_property
def snapshot_sane(a: Algebra, s: Symbols) -> Value:
    """A snapshot was sent, begins at the genesis, covers something, and all of it is committed."""
    r = a.rigid

    def body(m: Value) -> Value:
        covers = a.conj(r.prev_index(m) == a.genesis, a.lt(a.genesis, r.last_index(m)), r.commit(m) == r.last_index(m))
        return a.implies(s.snapshot(m), a.conj(s.sent(m), covers))

    return a.forall((MESSAGE,), body, lambda m: [[s.snapshot(m)]])


LEMMAS: Final[tuple[Property, ...]] = (base_certificate, base_prefix, base_applied, snapshot_sane)


# -------------------------------------------------------------------------------------------------------------- steps


def _agreed_below(a: Algebra, s: Symbols, n: Value, m: Value) -> Statement:
    def body(j: Value) -> Value:
        t = a.rigid.term(m)
        same = a.conj(s.log_term(n, j) == s.tlog_term(t, j), s.log_value(n, j) == s.tlog_value(t, j))
        return a.implies(a.disj(upto(a, j, a.rigid.prev_index(m)), upto(a, j, s.base(n))), same)

    return Statement((INDEX,), body, lambda j: [[s.log_term(n, j)], [s.log_value(n, j)]])


def _agreed_below_by(a: Algebra, s: Symbols, n: Value, m: Value, j: Value) -> list[tuple[str, tuple[Value, ...]]]:
    """By the commit that the base rests on, or by the entry that the request shows."""
    r = a.rigid
    t, prev = r.term(m), r.prev_index(m)
    return [
        ("message_content", (m, j)),
        ("base_certificate", (n,)),
        ("base_prefix", (n, j)),
        ("commit_later", (t, s.base_term(n), s.base_index(n))),
        ("tlog_prefix", (t, s.base_index(n), j)),
        ("log_prefix", (n, prev, j)),
        ("tlog_prefix", (t, prev, j)),
    ]


AGREED: Final = (
    "Up to the request's previous entry, and up to the base, the disk and the log of the request's term agree."
)


def _conflict_agreed(a: Algebra, s: Symbols, n: Value, m: Value, i: Value, k: Value) -> Statement:
    return _agreed_below(a, s, n, m)


def _noconflict_agreed(a: Algebra, s: Symbols, n: Value, m: Value, k: Value) -> Statement:
    return _agreed_below(a, s, n, m)


def _conflict_agreed_by(
    a: Algebra, s: Symbols, n: Value, m: Value, i: Value, k: Value, j: Value
) -> list[tuple[str, tuple[Value, ...]]]:
    return _agreed_below_by(a, s, n, m, j)


def _noconflict_agreed_by(
    a: Algebra, s: Symbols, n: Value, m: Value, k: Value, j: Value
) -> list[tuple[str, tuple[Value, ...]]]:
    return _agreed_below_by(a, s, n, m, j)


def snapshot_covers(a: Algebra, s: Symbols, n: Value, m: Value) -> Statement:
    """What was acknowledged and all leaders hold is in the snapshot, or the disk holds the snapshot's last entry."""
    u, last = s.current_term(n), a.rigid.last_index(m)
    keeps = a.conj(a.le(last, s.log_length(n)), s.log_term(n, last) == a.rigid.entry_term(m, last))

    def body(t: Value, j: Value) -> Value:
        premise = a.conj(s.acknowledged(n, t, j), lemmas.own(a, s, t, j), lemmas.later(a, s, t, j, u, a.le))
        return a.implies(premise, a.conj(lemmas.holds(a, s, u, t, j), a.disj(keeps, a.le(j, last))))

    return Statement((TERM, INDEX), body, lambda t, j: [[s.acknowledged(n, t, j)]])


STEPS: Final = (
    *(known for known in membership_steps.STEPS if known.name not in ("agreed_before", "conflict_after")),
    Step("agreed_below", AGREED, "recv_append_conflict", _conflict_agreed, instances=_conflict_agreed_by),
    step(steps.conflict_after, "recv_append_conflict"),
    Step("agreed_below", AGREED, "recv_append_noconflict", _noconflict_agreed, instances=_noconflict_agreed_by),
    step(snapshot_covers, "recv_snapshot"),
)
