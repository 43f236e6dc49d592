"""Single-server membership changes, added to the relational model: configurations are entries of the log.

A value is annotated with the configuration that is in force from its entry on. A configuration knows its birth: the
term and index of its entry, the configuration before it, and the leader's commit index when it was proposed
(`allowed_by`). The genesis value at index 0 carries the first one. A leader counts over the latest configuration of
its term's log, committed or not, a candidate over the latest of its disk (Ongaro 2014, section 4.1).

A change is proposed only if the one before it is committed, and if the leader has committed an entry of its own term:
without the latter rule two majorities need not meet (Ongaro, "bug in single-server membership changes", raft-dev 2015).

Of quorums only this is assumed: a quorum of a configuration and one of the same or an adjacent configuration have a
common member; `majority` proves that. A configuration and the one before it are adjacent: they differ by one server.

What has to be proved for it is in `membership_lemmas` and `membership_steps`. Must not: know of snapshots and leases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from model_checks.proofs import model, reads
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

NODE, QUORUM, VALUE, CONFIGURATION = Sort.NODE, Sort.QUORUM, Sort.VALUE, Sort.CONFIGURATION
TERM, INDEX, READ, BOOL = Sort.TERM, Sort.INDEX, Sort.READ, Sort.BOOL

SIGNATURE: Final[Signature] = {
    "first_length": Arity((TERM,), INDEX),
    "commit_length": Arity((TERM, INDEX), INDEX),
    "read_elected": Arity((READ, TERM), BOOL),
}
"""History: the length of a leader's log when it was elected, and when it committed; who was elected before a read."""

RIGID: Final[Signature] = {
    "quorum_of": Arity((QUORUM, CONFIGURATION), BOOL),
    "common": Arity((QUORUM, QUORUM), NODE),
    "genesis_value": Arity((), VALUE),
    "configuration": Arity((VALUE,), CONFIGURATION),
    "birth_term": Arity((CONFIGURATION,), TERM),
    "birth_index": Arity((CONFIGURATION,), INDEX),
    "previous": Arity((CONFIGURATION,), CONFIGURATION),
    "allowed_by": Arity((CONFIGURATION,), INDEX),
}

MUTANTS: Final[Mapping[str, str]] = {
    "no_own_term": "a configuration is changed before an entry of the leader's own term is committed",
    "no_previous_committed": "a configuration is changed before the one before it is committed",
    "any_change": "a configuration may differ from the one before it by any number of servers",
    "votes_of_any_configuration": "votes are counted over any configuration",
    "commits_of_any_configuration": "acknowledgements are counted over any configuration",
}


def adjacent(a: Algebra, c: Value, d: Value) -> Value:
    """The same configuration, or one was changed into the other."""
    return a.disj(c == d, a.rigid.previous(c) == d, a.rigid.previous(d) == c)


def axioms(a: Algebra) -> Sequence[Value]:
    """Quorums of adjacent configurations intersect; the first configuration is born at the genesis."""
    r = a.rigid

    def intersect(q: Value, p: Value, c: Value, d: Value) -> Value:
        shared = a.conj(r.member(r.common(q, p), q), r.member(r.common(q, p), p))
        return a.implies(a.conj(r.quorum_of(q, c), r.quorum_of(p, d), adjacent(a, c, d)), shared)

    first = r.configuration(r.genesis_value())
    return (
        a.forall(
            (QUORUM, QUORUM, CONFIGURATION, CONFIGURATION),
            intersect,
            lambda q, p, c, d: [[r.quorum_of(q, c), r.quorum_of(p, d)]],
        ),
        r.birth_index(first) == a.genesis,
        r.birth_term(first) == a.first_term,
    )


def initial(a: Algebra, s: Symbols) -> Value:
    """Every disk holds the genesis with the first configuration."""
    begins = a.forall((NODE,), lambda n: s.log_value(n, a.genesis) == a.rigid.genesis_value())
    return a.conj(reads.initial(a, s), begins)


def on_disk(a: Algebra, s: Symbols, n: Value) -> Value:
    """The latest configuration on a server's disk."""
    return a.rigid.configuration(s.log_value(n, s.log_length(n)))


def of_term(a: Algebra, s: Symbols, t: Value) -> Value:
    """The latest configuration of a term's log: what the leader of the term counts over."""
    return a.rigid.configuration(s.tlog_value(t, s.tlog_length(t)))


# ------------------------------------------------------------------------------------------------------------ actions


def _become_leader(a: Algebra, s: Symbols, n: Value, q: Value) -> Transition:
    """The votes are a quorum of the latest configuration of the candidate's log."""
    counted = a.unless("votes_of_any_configuration", a.rigid.quorum_of(q, on_disk(a, s, n)))
    t = s.current_term(n)
    return Transition(counted, {"first_length": model.set_at(a, s.first_length, t, s.log_length(n))})


def _client_request(a: Algebra, s: Symbols, n: Value, w: Value, i: Value) -> Transition:
    """An ordinary entry leaves the configuration in force."""
    return Transition(a.rigid.configuration(w) == of_term(a, s, s.current_term(n)), {})


@action(n=NODE, w=VALUE, i=INDEX)
def change_configuration(a: Algebra, s: Symbols, n: Value, w: Value, i: Value) -> Transition:
    """The leader appends a configuration that differs from the one in force by one server (section 4.1)."""
    r = a.rigid
    c, t, commit = r.configuration(w), s.current_term(n), s.commit_index(n)
    now = of_term(a, s, t)
    appended = model.client_request.rule(a, s, n, w, i)
    own = a.conj(a.lt(a.genesis, commit), s.tlog_term(t, commit) == t)
    guard = a.conj(
        appended.guard,
        r.birth_term(c) == t,
        r.birth_index(c) == i,
        a.unless("any_change", r.previous(c) == now),
        r.allowed_by(c) == commit,
        a.unless("no_previous_committed", a.le(r.birth_index(now), commit)),
        a.unless("no_own_term", own),
    )
    return Transition(guard, appended.updates)


def _advance_commit(a: Algebra, s: Symbols, n: Value, i: Value, q: Value) -> Transition:
    """The disks that hold the entry are a quorum of the leader's latest configuration."""
    t = s.current_term(n)
    length = s.tlog_length(t)
    return Transition(
        a.unless("commits_of_any_configuration", a.rigid.quorum_of(q, of_term(a, s, t))),
        {"commit_length": lambda u, j: a.ite(a.conj(u == t, j == i), length, s.commit_length(u, j))},
    )


def _begin_read(a: Algebra, s: Symbols, n: Value, r: Value, j: Value) -> Transition:
    """History: who had been elected when the read began."""
    return Transition(
        True,
        {"read_elected": lambda x, u: a.ite(reads.begins(a, s, x, r), s.elected(u), s.read_elected(x, u))},
    )


def _confirm_read(a: Algebra, s: Symbols, r: Value, q: Value) -> Transition:
    """Those who confirm are a quorum of the latest configuration of the read's leader, which still leads."""
    t = a.rigid.read_term(r)
    n = s.leader_of(t)
    leads = a.conj(s.leader(n), s.current_term(n) == t)
    return Transition(a.conj(leads, a.rigid.quorum_of(q, of_term(a, s, t))), {})


REFINED: Final[Mapping[str, Rule]] = {
    "become_leader": _become_leader,
    "client_request": _client_request,
    "advance_commit": _advance_commit,
    "begin_read": _begin_read,
    "confirm_read": _confirm_read,
}

begin_read: Final = refined(reads.begin_read, _begin_read)

ACTIONS: Final[tuple[Action, ...]] = (
    *(refined(act, REFINED[act.name]) if act.name in REFINED else act for act in reads.RAFT.actions),
    change_configuration,
)
