"""Snapshots, log compaction and InstallSnapshot, added to the relational model with membership changes.

The whole log stays as history. A server knows two indexes: up to `snapshot_index` its disk holds the state that its
entries lead to, up to `base` (at most that) it has forgotten the entries. A snapshot is sent as a request from the
genesis to the leader's snapshot index, whose entries are history: the identity of the state. A receiver whose log holds
the snapshot's last entry needs no snapshot; else it replaces its log (Ongaro 2014, sections 5.1 and 5.3). Installing a
snapshot applies all that it covers.

That nothing really depends on the history below a base is proved apart (`ghosts`). One action is allowed more than a
server can do: a leader may send slices that it has forgotten. A message adds possibilities only, and a follower with a
slow disk is then told all that it could have been told by a leader that forgot nothing.

`last_applied` is the state machine's position: applied one by one, forgotten down to the snapshot by a restart. A
snapshot has a certificate of a term that the disk knows: the term's record precedes the snapshot's on the same disk.

Must not: know of leases.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from model_checks.proofs import membership, model
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
from model_checks.proofs.model import Updates, applies, inside, set_at

NODE, MESSAGE, TERM, INDEX, BOOL = Sort.NODE, Sort.MESSAGE, Sort.TERM, Sort.INDEX, Sort.BOOL

SIGNATURE: Final[Signature] = {
    "snapshot_index": Arity((NODE,), INDEX),
    "snapshot_certificate_term": Arity((NODE,), TERM),
    "snapshot_certificate_index": Arity((NODE,), INDEX),
    "base": Arity((NODE,), INDEX),
    "last_applied": Arity((NODE,), INDEX),
}
"""What a server's snapshot covers, and the commit that it rests on (history); what is forgotten; what is applied."""

RIGID: Final[Signature] = {"is_snapshot": Arity((MESSAGE,), BOOL)}
"""Which requests are snapshots."""

MUTANTS: Final[Mapping[str, str]] = {
    "snapshot_uncommitted": "a server's snapshot covers what it did not apply and nobody said is committed",
    "compact_beyond_snapshot": "a server forgets entries that its snapshot does not cover",
    "snapshot_drops_suffix": "a snapshot replaces the log even if that holds the snapshot's last entry",
    "older_snapshot": "a snapshot is installed though the state machine is further",
}


def initial(a: Algebra, s: Symbols) -> Value:
    """No snapshot, nothing applied."""

    def blank(n: Value) -> Value:
        return a.conj(*(index(n) == a.genesis for index in (s.snapshot_index, s.base, s.last_applied)))

    return a.conj(membership.initial(a, s), a.forall((NODE,), blank))


# -------------------------------------------------------------------------------------------------- what is refined


def _send_append(a: Algebra, s: Symbols, n: Value, m: Value) -> Transition:
    """A request is not a snapshot. (It may show what the leader has forgotten: more than a real leader can send.)"""
    return Transition(a.neg(a.rigid.is_snapshot(m)), {})


def holds_slice(a: Algebra, s: Symbols, n: Value, m: Value) -> Value:
    """The leader has forgotten neither the slice nor the entry before it: what a real leader sends (`ghosts`)."""
    return a.le(s.base(n), a.rigid.prev_index(m))


def _advance_commit(a: Algebra, s: Symbols, n: Value, i: Value, q: Value) -> Transition:
    """What is committed now is not compacted."""
    return Transition(a.lt(s.base(n), i), {})


def _begin_read(a: Algebra, s: Symbols, n: Value, r: Value, j: Value) -> Transition:
    """The leader's own committed entry is not compacted, or is the last that is."""
    return Transition(a.le(s.base(n), j), {})


def _change_configuration(a: Algebra, s: Symbols, n: Value, w: Value, i: Value) -> Transition:
    """The leader still knows the term of the entry at its commit index."""
    return Transition(a.le(s.base(n), s.commit_index(n)), {})


def _apply_own(a: Algebra, s: Symbols, n: Value, i: Value) -> Transition:
    """Entries are applied in order."""
    return Transition(a.successor(s.last_applied(n), i), {"last_applied": set_at(a, s.last_applied, n, i)})


def above_base(a: Algebra, s: Symbols, n: Value, m: Value, j: Value, last: Value) -> Value:
    """The message carries entry j up to `last`, and the server has not compacted it."""
    return a.conj(inside(a, m, j, last), a.lt(s.base(n), j))


def may_take(a: Algebra, s: Symbols, n: Value, m: Value, k: Value) -> Value:
    """As in `model.may_take`; what was compacted is committed, so a request that begins below it needs no check."""
    r = a.rigid
    held = a.disj(a.lt(r.prev_index(m), s.base(n)), s.log_term(n, r.prev_index(m)) == r.prev_term(m))
    return a.conj(
        s.sent(m),
        a.neg(r.is_snapshot(m)),
        r.term(m) == s.current_term(n),
        a.neg(s.leader(n)),
        a.le(r.prev_index(m), s.log_length(n)),
        a.unless("no_prev_check", held),
        a.le(r.prev_index(m), k),
        a.le(k, r.last_index(m)),
    )


def taken(a: Algebra, s: Symbols, n: Value, m: Value, k: Value, length: Value) -> Updates:
    """As in `model.taken`, above the base."""
    r = a.rigid

    def new(x: Value, j: Value) -> Value:
        return a.conj(x == n, above_base(a, s, n, m, j, k))

    return {
        **model.taken(a, s, n, m, k, length),
        "log_term": lambda x, j: a.ite(new(x, j), r.entry_term(m, j), s.log_term(x, j)),
        "log_value": lambda x, j: a.ite(new(x, j), r.entry_value(m, j), s.log_value(x, j)),
    }


@action(n=NODE, m=MESSAGE, i=INDEX, k=INDEX)
def recv_append_conflict(a: Algebra, s: Symbols, n: Value, m: Value, i: Value, k: Value) -> Transition:
    """As in `model`, above the base: what was compacted is never compared and never cut."""
    guard = a.conj(
        may_take(a, s, n, m, k),
        above_base(a, s, n, m, i, a.rigid.last_index(m)),
        a.le(i, s.log_length(n)),
        s.log_term(n, i) != a.rigid.entry_term(m, i),
        a.disj(a.le(i, k), a.successor(k, i)),
    )
    return Transition(guard, taken(a, s, n, m, k, k))


@action(n=NODE, m=MESSAGE, k=INDEX)
def recv_append_noconflict(a: Algebra, s: Symbols, n: Value, m: Value, k: Value) -> Transition:
    """As in `model`, above the base."""
    length = s.log_length(n)

    def agrees(j: Value) -> Value:
        held = a.conj(above_base(a, s, n, m, j, k), a.le(j, length))
        return a.implies(held, s.log_term(n, j) == a.rigid.entry_term(m, j))

    guard = a.conj(may_take(a, s, n, m, k), a.forall((INDEX,), agrees))
    return Transition(guard, taken(a, s, n, m, k, a.ite(a.le(length, k), k, length)))


# ------------------------------------------------------------------------------------------------------- what is new


def told(a: Algebra, s: Symbols, n: Value, m: Value, i: Value, k: Value) -> Value:
    """A leader, of whatever term, said that entry i is committed; its request shows entry k >= i as the disk holds it.

    Log Matching then makes all up to k the leader's. A snapshot shows its last entry only.
    """
    r = a.rigid
    shown = a.ite(k == r.prev_index(m), r.prev_term(m), r.entry_term(m, k))
    return a.conj(
        s.sent(m),
        a.le(i, k),
        a.le(r.prev_index(m), k),
        a.le(k, r.last_index(m)),
        a.implies(r.is_snapshot(m), k == r.last_index(m)),
        a.le(k, s.log_length(n)),
        s.log_term(n, k) == shown,
    )


@action(n=NODE, m=MESSAGE, i=INDEX, k=INDEX)
def apply_told(a: Algebra, s: Symbols, n: Value, m: Value, i: Value, k: Value) -> Transition:
    """As in `model`, in order, and by a request that shows any later entry: the leader may have forgotten this one."""
    r = a.rigid
    guard = a.conj(told(a, s, n, m, i, k), a.le(i, r.commit(m)), a.successor(s.last_applied(n), i))
    return Transition(
        guard,
        {
            **applies(a, s, n, i, r.certificate_term(m), r.certificate_index(m)),
            "last_applied": set_at(a, s.last_applied, n, i),
        },
    )


@action(n=NODE)
def restart(a: Algebra, s: Symbols, n: Value) -> Transition:
    """The role is lost, and the state machine begins again with the snapshot (section 3.8)."""
    last_applied = set_at(a, s.last_applied, n, s.snapshot_index(n))
    return Transition(True, {**model.role_lost(a, s, n), "last_applied": last_applied})


def covers(a: Algebra, s: Symbols, n: Value, i: Value, term: Value, index: Value) -> Updates:
    """All up to i is in the snapshot of `n`, by the certificate (term, index)."""
    return {
        "snapshot_index": set_at(a, s.snapshot_index, n, i),
        "snapshot_certificate_term": set_at(a, s.snapshot_certificate_term, n, term),
        "snapshot_certificate_index": set_at(a, s.snapshot_certificate_index, n, index),
    }


@action(n=NODE, i=INDEX)
def take_snapshot_own(a: Algebra, s: Symbols, n: Value, i: Value) -> Transition:
    """The snapshot of a leader: of what it applied and knows to be committed, as far as its disk holds it (5.1)."""
    guard = a.conj(
        s.leader(n),
        a.lt(s.snapshot_index(n), i),
        a.le(i, s.last_applied(n)),
        a.le(i, s.commit_index(n)),
        a.le(i, s.log_length(n)),
    )
    return Transition(guard, covers(a, s, n, i, s.certificate_term(n), s.certificate_index(n)))


@action(n=NODE, m=MESSAGE, i=INDEX, k=INDEX)
def take_snapshot_told(a: Algebra, s: Symbols, n: Value, m: Value, i: Value, k: Value) -> Transition:
    """A server's snapshot: of what it applied and a leader, of a term that its disk knows, said is committed."""
    r = a.rigid
    guard = a.conj(
        told(a, s, n, m, i, k),
        a.le(r.term(m), s.current_term(n)),
        a.lt(s.snapshot_index(n), i),
        a.unless("snapshot_uncommitted", a.conj(a.le(i, s.last_applied(n)), a.le(i, r.commit(m)))),
    )
    return Transition(guard, covers(a, s, n, i, r.certificate_term(m), r.certificate_index(m)))


@action(n=NODE, i=INDEX)
def compact(a: Algebra, s: Symbols, n: Value, i: Value) -> Transition:
    """A server forgets entries that its snapshot covers (section 5.1)."""
    covered = a.unless("compact_beyond_snapshot", a.le(i, s.snapshot_index(n)))
    return Transition(a.conj(a.lt(s.base(n), i), covered), {"base": set_at(a, s.base, n, i)})


@action(n=NODE, m=MESSAGE)
def send_snapshot(a: Algebra, s: Symbols, n: Value, m: Value) -> Transition:
    """The leader sends its snapshot (section 5.3). The entries are history: they say which state it is."""
    r = a.rigid
    last = s.snapshot_index(n)

    def same(j: Value) -> Value:
        entry = a.conj(r.entry_term(m, j) == s.log_term(n, j), r.entry_value(m, j) == s.log_value(n, j))
        return a.implies(inside(a, m, j, last), entry)

    guard = a.conj(
        s.leader(n),
        r.is_snapshot(m),
        r.term(m) == s.current_term(n),
        r.prev_index(m) == a.genesis,
        r.prev_term(m) == a.first_term,
        r.last_index(m) == last,
        a.lt(a.genesis, last),
        a.forall((INDEX,), same),
        r.commit(m) == last,
        r.certificate_term(m) == s.snapshot_certificate_term(n),
        r.certificate_index(m) == s.snapshot_certificate_index(n),
    )
    return Transition(guard, {"sent": lambda x: a.disj(x == m, s.sent(x))})


@action(n=NODE, m=MESSAGE)
def recv_snapshot(a: Algebra, s: Symbols, n: Value, m: Value) -> Transition:
    """A snapshot ahead of the state machine, whose last entry the log lacks, replaces the log: in one piece (5.3).

    A log that holds the entry keeps it and what follows, and acknowledges it (`recv_append_noconflict`).
    """
    r = a.rigid
    t, last = s.current_term(n), r.last_index(m)
    held = a.conj(a.le(s.base(n), last), a.le(last, s.log_length(n)), s.log_term(n, last) == r.entry_term(m, last))
    guard = a.conj(
        s.sent(m),
        r.is_snapshot(m),
        r.term(m) == t,
        a.neg(s.leader(n)),
        a.unless("older_snapshot", a.lt(s.last_applied(n), last)),
        a.unless("snapshot_drops_suffix", a.neg(held)),
    )

    def new(x: Value, j: Value) -> Value:
        return a.conj(x == n, inside(a, m, j, last))

    return Transition(
        guard,
        {
            **covers(a, s, n, last, r.certificate_term(m), r.certificate_index(m)),
            "base": set_at(a, s.base, n, last),
            "candidate": lambda x: a.conj(x != n, s.candidate(x)),
            "log_length": set_at(a, s.log_length, n, last),
            "log_term": lambda x, j: a.ite(new(x, j), r.entry_term(m, j), s.log_term(x, j)),
            "log_value": lambda x, j: a.ite(new(x, j), r.entry_value(m, j), s.log_value(x, j)),
            "acknowledged": lambda x, u, j: a.disj(s.acknowledged(x, u, j), a.conj(x == n, u == t, a.le(j, last))),
            "last_applied": set_at(a, s.last_applied, n, last),
            "applied": lambda x, j, w: a.disj(s.applied(x, j, w), a.conj(new(x, j), w == r.entry_value(m, j))),
            "applied_term": lambda x, j: a.ite(new(x, j), r.certificate_term(m), s.applied_term(x, j)),
            "applied_index": lambda x, j: a.ite(new(x, j), r.certificate_index(m), s.applied_index(x, j)),
        },
    )


REFINED: Final[Mapping[str, Rule]] = {
    "send_append": _send_append,
    "advance_commit": _advance_commit,
    "begin_read": _begin_read,
    "change_configuration": _change_configuration,
    "apply_own": _apply_own,
}

REPLACED: Final = {act.name: act for act in (recv_append_conflict, recv_append_noconflict, apply_told)}


def _with_snapshots(act: Action) -> Action:
    """An action of the system without snapshots, as it is with them."""
    if act.name in REPLACED:
        return REPLACED[act.name]
    return refined(act, REFINED[act.name]) if act.name in REFINED else act


ACTIONS: Final[tuple[Action, ...]] = (
    *(_with_snapshots(act) for act in membership.ACTIONS),
    restart,
    take_snapshot_own,
    take_snapshot_told,
    compact,
    send_snapshot,
    recv_snapshot,
)
