"""The lemmas that membership changes need: which configurations a log holds, and over which one was counted.

Each configuration is born of the one before it, by a commit that its log holds: configurations form a tree, which the
own-term rule keeps narrow. `membership_steps` draws the consequences. Must not: assume that any two quorums intersect.

Source: Ongaro 2014, section 4.1 and appendix B.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from model_checks.proofs import steps
from model_checks.proofs.algebra import Algebra, Property, Sort, Symbols, Value, state_property
from model_checks.proofs.theorems import upto

NODE, INDEX, TERM, READ = Sort.NODE, Sort.INDEX, Sort.TERM, Sort.READ

# ------------------------------------------------------------------------------------------------------------- lemmas


@state_property
def log_first_value(a: Algebra, s: Symbols) -> Value:
    """Every disk begins with the first configuration."""
    return a.forall((NODE,), lambda n: s.log_value(n, a.genesis) == a.rigid.genesis_value())


@state_property
def tlog_genesis(a: Algebra, s: Symbols) -> Value:
    """The log of every elected term begins with the genesis."""

    def body(t: Value) -> Value:
        begins = a.conj(
            s.tlog_term(t, a.genesis) == a.first_term, s.tlog_value(t, a.genesis) == a.rigid.genesis_value()
        )
        return a.implies(s.elected(t), begins)

    return a.forall((TERM,), body)


@state_property
def candidate_last(a: Algebra, s: Symbols) -> Value:
    """A candidate's last entry is of an earlier term than its own."""
    return a.forall(
        (NODE,), lambda n: a.implies(s.candidate(n), a.lt(s.log_term(n, s.log_length(n)), s.current_term(n)))
    )


@state_property
def elected_first(a: Algebra, s: Symbols) -> Value:
    """A leader won by a quorum of the configuration that its log ended with; all it appended is of its own term."""

    def body(t: Value, i: Value) -> Value:
        first = s.first_length(t)
        appended = a.implies(a.conj(a.lt(first, i), a.le(i, s.tlog_length(t))), s.tlog_term(t, i) == t)
        return a.implies(
            s.elected(t),
            a.conj(
                a.le(first, s.tlog_length(t)),
                a.rigid.quorum_of(s.winning_quorum(t), a.rigid.configuration(s.tlog_value(t, first))),
                a.lt(s.tlog_term(t, first), t),
                appended,
            ),
        )

    return a.forall((TERM, INDEX), body, lambda t, i: [[s.elected(t), s.tlog_term(t, i)]])


def chained(
    a: Algebra,
    s: Symbols,
    term_at: Callable[[Value], Value],
    value_at: Callable[[Value], Value],
    i: Value,
    j: Value,
) -> Value:
    """The configuration in force at i of a log: its birth, the one before it, and the commit that allowed it.

    j: any index; between the births of two configurations the first of them is in force.
    """
    r = a.rigid
    c = r.configuration(value_at(i))
    before, birth, allowed = r.previous(c), r.birth_index(c), r.allowed_by(c)

    def in_force(d: Value) -> Value:
        return r.configuration(value_at(j)) == d

    earlier = a.implies(a.conj(a.le(r.birth_index(before), j), a.lt(j, birth)), in_force(before))
    return a.conj(
        a.le(birth, i),
        a.implies(a.conj(a.le(birth, j), a.le(j, i)), in_force(c)),
        term_at(birth) == r.birth_term(c),
        a.implies(
            a.lt(a.genesis, birth),
            a.conj(
                a.le(r.birth_index(before), allowed),
                a.lt(allowed, birth),
                a.lt(a.genesis, allowed),
                term_at(allowed) == r.birth_term(c),
                s.committed(r.birth_term(c), allowed),
                earlier,
            ),
        ),
    )


@state_property
def configuration_chain(a: Algebra, s: Symbols) -> Value:
    """A term's log holds the births of its configurations, and before each the commit that allowed it."""

    def body(t: Value, i: Value, j: Value) -> Value:
        chain = chained(a, s, lambda k: s.tlog_term(t, k), lambda k: s.tlog_value(t, k), i, j)
        return a.implies(a.conj(s.elected(t), a.le(i, s.tlog_length(t))), chain)

    def patterns(t: Value, i: Value, j: Value) -> list[list[Value]]:
        c = a.rigid.configuration(s.tlog_value(t, i))
        return [[c, s.tlog_term(t, j)], [c, s.tlog_value(t, j)]]

    return a.forall((TERM, INDEX, INDEX), body, patterns)


@state_property
def commit_configuration(a: Algebra, s: Symbols) -> Value:
    """What a leader committed was counted over its latest configuration, which an earlier commit had allowed."""
    r = a.rigid

    def body(t: Value, i: Value) -> Value:
        length = s.commit_length(t, i)
        c = r.configuration(s.tlog_value(t, length))
        own = a.conj(a.lt(a.genesis, r.birth_index(c)), r.birth_term(c) == t)
        return a.implies(
            s.committed(t, i),
            a.conj(
                a.le(i, length),
                a.le(length, s.tlog_length(t)),
                r.quorum_of(s.commit_quorum(t, i), c),
                a.implies(own, a.lt(r.allowed_by(c), i)),
            ),
        )

    return a.forall((TERM, INDEX), body, lambda t, i: [[s.committed(t, i)]])


@state_property
def commit_later(a: Algebra, s: Symbols) -> Value:
    """Every later leader holds a committed entry."""
    return steps.commit_later(a, s).quantified(a)


@state_property
def seen_elected(a: Algebra, s: Symbols) -> Value:
    """Who had committed something when a read began had been elected by then."""

    def body(r: Value, u: Value, i: Value) -> Value:
        return a.implies(a.conj(s.read_begun(r), s.read_seen(r, u, i)), s.read_elected(r, u))

    return a.forall((READ, TERM, INDEX), body, lambda r, u, i: [[s.read_seen(r, u, i)]])


@state_property
def read_elections(a: Algebra, s: Symbols) -> Value:
    """Who had been elected when a read began was elected."""
    return a.forall(
        (READ, TERM),
        lambda r, u: a.implies(a.conj(s.read_begun(r), s.read_elected(r, u)), s.elected(u)),
        lambda r, u: [[s.read_elected(r, u)]],
    )


@state_property
def read_ancestors(a: Algebra, s: Symbols) -> Value:
    """With a leader, all whose entries its log holds had been elected when a read began."""

    def body(r: Value, u: Value, i: Value) -> Value:
        premise = a.conj(s.read_begun(r), s.read_elected(r, u), upto(a, i, s.tlog_length(u)))
        return a.implies(premise, s.read_elected(r, s.tlog_term(u, i)))

    return a.forall((READ, TERM, INDEX), body, lambda r, u, i: [[s.read_elected(r, u), s.tlog_term(u, i)]])


@state_property
def elected_unheard(a: Algebra, s: Symbols) -> Value:
    """Who elected a later leader before a read began does not confirm the read."""

    def body(r: Value, u: Value, v: Value) -> Value:
        premise = a.conj(
            s.read_begun(r),
            s.read_elected(r, u),
            a.lt(a.rigid.read_term(r), u),
            a.rigid.member(v, s.winning_quorum(u)),
        )
        return a.implies(premise, a.neg(s.heard(v, r)))

    return a.forall((READ, TERM, NODE), body, lambda r, u, v: [[s.read_elected(r, u), s.heard(v, r)]])


LEMMAS: Final[tuple[Property, ...]] = (
    log_first_value,
    tlog_genesis,
    candidate_last,
    elected_first,
    configuration_chain,
    commit_configuration,
    commit_later,
    seen_elected,
    read_elections,
    read_ancestors,
    elected_unheard,
)

REPLACED: Final = frozenset({"seen_unheard"})
"""Lemmas of static Raft that common voters of any two quorums made inductive, and that are no longer needed."""
