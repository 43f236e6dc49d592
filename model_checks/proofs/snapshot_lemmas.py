"""What compaction and InstallSnapshot need to be proved, and the theorems about them.

Source: Ongaro 2014, chapter 5. A snapshot rests on a commit of a term that the disk knows (`snapshot_certificate`), and
up to it the disk is the log of that term (`snapshot_prefix`): so a leader's request that begins below the base
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
        return a.implies(a.conj(upto(a, i, s.snapshot_index(x)), s.applied(y, i, w)), s.log_value(x, i) == w)

    return a.forall((NODE, NODE, INDEX, VALUE), body)


@change_property
def base_forward(a: Algebra, s: Symbols, after: Symbols) -> Value:
    """A base never goes back."""
    return a.forall((NODE,), lambda n: a.le(s.base(n), after.base(n)))


@change_property
def snapshot_forward(a: Algebra, s: Symbols, after: Symbols) -> Value:
    """A snapshot is only ever replaced by a later one."""
    return a.forall((NODE,), lambda n: a.le(s.snapshot_index(n), after.snapshot_index(n)))


def _applied_forward(a: Algebra, s: Symbols, after: Symbols) -> Value:
    """A state machine never goes back while its process lives."""
    return a.forall((NODE,), lambda n: a.le(s.last_applied(n), after.last_applied(n)))


applied_forward: Final = Change(
    "applied_forward", _applied_forward.__doc__ or "", _applied_forward, frozenset({"restart"})
)

THEOREMS: Final = (snapshot_safety,)
CHANGES: Final = (base_forward, snapshot_forward, applied_forward)


@state_property
def snapshot_certificate(a: Algebra, s: Symbols) -> Value:
    """A snapshot rests on a commit of a term that the disk knows, and the disk is at least that long."""

    def body(n: Value) -> Value:
        t, i = s.snapshot_certificate_term(n), s.snapshot_certificate_index(n)
        last = s.snapshot_index(n)
        rests = a.conj(s.committed(t, i), a.le(last, i), a.le(t, s.current_term(n)))
        return a.conj(a.le(last, s.log_length(n)), a.implies(a.lt(a.genesis, last), rests))

    return a.forall((NODE,), body)


@state_property
def snapshot_prefix(a: Algebra, s: Symbols) -> Value:
    """Up to its snapshot, a disk is the log of the term of the commit that the snapshot rests on."""

    def body(n: Value, j: Value) -> Value:
        t = s.snapshot_certificate_term(n)
        same = a.conj(s.log_term(n, j) == s.tlog_term(t, j), s.log_value(n, j) == s.tlog_value(t, j))
        return a.implies(upto(a, j, s.snapshot_index(n)), same)

    def patterns(n: Value, j: Value) -> list[list[Value]]:
        return [[s.log_term(n, j)], [s.log_value(n, j)], [s.tlog_term(s.snapshot_certificate_term(n), j)]]

    return a.forall((NODE, INDEX), body, patterns)


@state_property
def snapshot_applied(a: Algebra, s: Symbols) -> Value:
    """A state machine is at least as far as the snapshot, and that as the base."""
    return a.forall(
        (NODE,),
        lambda n: a.conj(a.le(s.snapshot_index(n), s.last_applied(n)), a.le(s.base(n), s.snapshot_index(n))),
    )


@state_property
def snapshot_content(a: Algebra, s: Symbols) -> Value:
    """A snapshot that was sent begins at the genesis, covers something, and all of it is committed."""
    r = a.rigid

    def body(m: Value) -> Value:
        covers = a.conj(r.prev_index(m) == a.genesis, a.lt(a.genesis, r.last_index(m)), r.commit(m) == r.last_index(m))
        return a.implies(a.conj(s.sent(m), r.is_snapshot(m)), covers)

    return a.forall((MESSAGE,), body, lambda m: [[s.sent(m), r.is_snapshot(m)]])


LEMMAS: Final[tuple[Property, ...]] = (snapshot_certificate, snapshot_prefix, snapshot_applied, snapshot_content)


# -------------------------------------------------------------------------------------------------------------- steps


def _agreed_below(a: Algebra, s: Symbols, n: Value, m: Value) -> Statement:
    def body(j: Value) -> Value:
        t = a.rigid.term(m)
        same = a.conj(s.log_term(n, j) == s.tlog_term(t, j), s.log_value(n, j) == s.tlog_value(t, j))
        ends = (a.rigid.prev_index(m), s.base(n), s.snapshot_index(n))
        return a.implies(a.disj(*(upto(a, j, end) for end in ends)), same)

    return Statement((INDEX,), body, lambda j: [[s.log_term(n, j)], [s.log_value(n, j)]])


def _agreed_below_by(a: Algebra, s: Symbols, n: Value, m: Value, j: Value) -> list[tuple[str, tuple[Value, ...]]]:
    """By the commit that the snapshot rests on, or by the entry that the request shows."""
    r = a.rigid
    t, prev = r.term(m), r.prev_index(m)
    return [
        ("message_content", (m, j)),
        ("snapshot_applied", (n,)),
        ("snapshot_certificate", (n,)),
        ("snapshot_prefix", (n, j)),
        ("commit_later", (t, s.snapshot_certificate_term(n), s.snapshot_certificate_index(n))),
        ("tlog_prefix", (t, s.snapshot_certificate_index(n), j)),
        ("log_prefix", (n, prev, j)),
        ("tlog_prefix", (t, prev, j)),
    ]


AGREED: Final = (
    "Up to the request's previous entry, and up to the snapshot, the disk and the log of the request's term agree."
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


def told_agreed(a: Algebra, s: Symbols, n: Value, m: Value, i: Value, k: Value) -> Statement:
    """Up to what a leader said is committed, the disk is the log of the commit that this rests on."""
    r = a.rigid
    t = r.certificate_term(m)

    def body(j: Value) -> Value:
        same = a.conj(s.log_term(n, j) == s.tlog_term(t, j), s.log_value(n, j) == s.tlog_value(t, j))
        return a.implies(a.conj(upto(a, j, i), a.le(i, r.commit(m))), same)

    return Statement((INDEX,), body, lambda j: [[s.log_term(n, j)], [s.log_value(n, j)]])


def told_agreed_by(
    a: Algebra, s: Symbols, n: Value, m: Value, i: Value, k: Value, j: Value
) -> list[tuple[str, tuple[Value, ...]]]:
    """The disk and the log of the request's term agree up to the entry shown, and this holds the commit."""
    r = a.rigid
    t, last = r.term(m), r.certificate_index(m)
    return [
        ("message_content", (m, k)),
        ("message_certificate", (m,)),
        ("log_prefix", (n, k, j)),
        ("tlog_prefix", (t, k, j)),
        ("commit_later", (t, r.certificate_term(m), last)),
        ("tlog_prefix", (t, last, j)),
    ]


def snapshot_covers(a: Algebra, s: Symbols, n: Value, m: Value) -> Statement:
    """What was acknowledged and all leaders hold is in a snapshot whose last entry the disk lacks."""
    u, last = s.current_term(n), a.rigid.last_index(m)

    def body(t: Value, j: Value) -> Value:
        premise = a.conj(s.acknowledged(n, t, j), lemmas.own(a, s, t, j), lemmas.later(a, s, t, j, u, a.le))
        return a.implies(premise, a.conj(lemmas.holds(a, s, u, t, j), a.le(j, last)))

    return Statement((TERM, INDEX), body, lambda t, j: [[s.acknowledged(n, t, j)]])


STEPS: Final = (
    *(known for known in membership_steps.STEPS if known.name not in ("agreed_before", "conflict_after")),
    Step("agreed_below", AGREED, "recv_append_conflict", _conflict_agreed, instances=_conflict_agreed_by),
    step(steps.conflict_after, "recv_append_conflict"),
    Step("agreed_below", AGREED, "recv_append_noconflict", _noconflict_agreed, instances=_noconflict_agreed_by),
    step(snapshot_covers, "recv_snapshot"),
    step(told_agreed, "apply_told", instances=told_agreed_by),
    step(told_agreed, "take_snapshot_told", instances=told_agreed_by),
)
