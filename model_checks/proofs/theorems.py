"""What is proved of Raft: the theorems of Ongaro 2014, figure 3.2, over all that ever happened, and two more.

State Machine Safety is about everything that was ever applied, by any server, before and after crashes; Election Safety
about all elections ever won. `CHANGES` hold between a state and the next one. Linearizable reads are in `reads`.

Must not: be weakened. A theorem with a weakened action is a mutant, not a result.
"""

from __future__ import annotations

from typing import Final

from model_checks.proofs.algebra import Algebra, Sort, Symbols, Value, change_property, state_property

NODE, VALUE = Sort.NODE, Sort.VALUE
TERM, INDEX = Sort.TERM, Sort.INDEX


def upto(a: Algebra, i: Value, last: Value) -> Value:
    """Entry i exists in a log of length `last`."""
    return a.conj(a.lt(a.genesis, i), a.le(i, last))


@state_property
def election_safety(a: Algebra, s: Symbols) -> Value:
    """At most one leader was ever elected in a term."""
    return a.forall((NODE, NODE, TERM), lambda x, y, t: a.implies(a.conj(s.won(x, t), s.won(y, t)), x == y))


@state_property
def log_matching(a: Algebra, s: Symbols) -> Value:
    """If two disks hold an entry of the same index and term, they are the same up to it."""

    def body(x: Value, y: Value, i: Value, j: Value) -> Value:
        both = a.conj(a.le(i, s.log_length(x)), a.le(i, s.log_length(y)), s.log_term(x, i) == s.log_term(y, i))
        same = a.conj(s.log_term(x, j) == s.log_term(y, j), s.log_value(x, j) == s.log_value(y, j))
        return a.implies(a.conj(upto(a, j, i), both), same)

    return a.forall((NODE, NODE, INDEX, INDEX), body)


@state_property
def leader_completeness(a: Algebra, s: Symbols) -> Value:
    """What the leader of a term has committed is in the log of every leader of a later term, with all before it."""

    def body(t: Value, i: Value, u: Value, j: Value) -> Value:
        same = a.conj(s.tlog_term(u, j) == s.tlog_term(t, j), s.tlog_value(u, j) == s.tlog_value(t, j))
        premise = a.conj(s.committed(t, i), s.elected(u), a.lt(t, u), upto(a, j, i))
        return a.implies(premise, a.conj(a.le(i, s.tlog_length(u)), same))

    return a.forall((TERM, INDEX, TERM, INDEX), body)


@state_property
def state_machine_safety(a: Algebra, s: Symbols) -> Value:
    """No two servers have ever applied different values at an index, nor one server before and after a crash."""

    def body(x: Value, y: Value, i: Value, w: Value, z: Value) -> Value:
        return a.implies(a.conj(s.applied(x, i, w), s.applied(y, i, z)), w == z)

    return a.forall((NODE, NODE, INDEX, VALUE, VALUE), body)


@state_property
def durability(a: Algebra, s: Symbols) -> Value:
    """A committed entry is on the disk of every member of the quorum that committed it, now and later."""

    def body(t: Value, i: Value, v: Value) -> Value:
        held = a.conj(a.le(i, s.log_length(v)), s.log_term(v, i) == t, s.log_value(v, i) == s.tlog_value(t, i))
        return a.implies(a.conj(s.committed(t, i), a.rigid.member(v, s.commit_quorum(t, i))), held)

    return a.forall((TERM, INDEX, NODE), body)


THEOREMS: Final = (election_safety, log_matching, leader_completeness, state_machine_safety, durability)


@change_property
def leader_append_only(a: Algebra, s: Symbols, after: Symbols) -> Value:
    """The log of an elected leader's term only grows."""

    def body(t: Value, j: Value) -> Value:
        same = a.conj(after.tlog_term(t, j) == s.tlog_term(t, j), after.tlog_value(t, j) == s.tlog_value(t, j))
        return a.implies(
            a.conj(s.elected(t), a.le(j, s.tlog_length(t))), a.conj(a.le(s.tlog_length(t), after.tlog_length(t)), same)
        )

    return a.forall((TERM, INDEX), body)


@change_property
def promises_kept(a: Algebra, s: Symbols, after: Symbols) -> Value:
    """A disk's term never goes back, and within a term its vote never changes."""

    def body(n: Value, c: Value) -> Value:
        kept = a.implies(a.conj(s.voted_for(n, c), after.current_term(n) == s.current_term(n)), after.voted_for(n, c))
        return a.conj(a.le(s.current_term(n), after.current_term(n)), kept)

    return a.forall((NODE, NODE), body)


CHANGES: Final = (leader_append_only, promises_kept)
