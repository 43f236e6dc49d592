"""Consequences of the lemmas that are proved first and then used: cuts, and the one induction on terms.

Without them nothing fails but the solver's patience: a long chain of instances is found with some seeds and not with
others, two short ones are found with all. `commit_later` is different: it needs an induction, over natural numbers, and
that such an induction is sound is an argument outside Z3.

Source: Ongaro 2014, section 3.6.3 (the proof by the first leader that lacks the entry).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from model_checks.proofs.algebra import Algebra, Sort, Statement, Step, Symbols, Value
from model_checks.proofs.lemmas import holds, later, own
from model_checks.proofs.theorems import upto

NODE, TERM, INDEX = Sort.NODE, Sort.TERM, Sort.INDEX


def term_without_leader(a: Algebra, s: Symbols, n: Value, q: Value) -> Statement:
    """Nobody has been elected in the winner's term yet."""
    return Statement((), lambda: a.neg(s.elected(s.current_term(n))))


def commit_later(a: Algebra, s: Symbols) -> Statement:
    """Every later leader holds a committed entry: by induction on the leader's term, over common voters."""

    def body(u: Value, t: Value, i: Value) -> Value:
        return a.implies(a.conj(s.committed(t, i), s.elected(u), a.lt(t, u)), holds(a, s, u, t, i))

    return Statement((TERM, TERM, INDEX), body, lambda u, t, i: [[s.committed(t, i), s.elected(u)]])


def earlier(a: Algebra, xs: Sequence[Value], ys: Sequence[Value]) -> Value:
    """The order of the induction: the same entry, an earlier leader."""
    return a.conj(a.lt(xs[0], ys[0]), *(x == y for x, y in zip(xs[1:], ys[1:], strict=True)))


def log_ordered(a: Algebra, s: Symbols) -> Statement:
    """Terms do not fall along a disk."""

    def body(n: Value, i: Value, j: Value) -> Value:
        return a.implies(a.conj(upto(a, j, i), a.le(i, s.log_length(n))), a.le(s.log_term(n, j), s.log_term(n, i)))

    return Statement((NODE, INDEX, INDEX), body, lambda n, i, j: [[s.log_term(n, i), s.log_term(n, j)]])


def tlog_ordered(a: Algebra, s: Symbols) -> Statement:
    """Terms do not fall along a term's log."""

    def body(u: Value, i: Value, j: Value) -> Value:
        premise = a.conj(s.elected(u), upto(a, j, i), a.le(i, s.tlog_length(u)))
        return a.implies(premise, a.le(s.tlog_term(u, j), s.tlog_term(u, i)))

    return Statement((TERM, INDEX, INDEX), body, lambda u, i, j: [[s.tlog_term(u, i), s.tlog_term(u, j)]])


def voter_holds(a: Algebra, s: Symbols, v: Value, c: Value, t: Value, last_index: Value, last_term: Value) -> Statement:
    """Who grants a vote still holds what it acknowledged, if all leaders up to its term do."""

    def body(u: Value, i: Value) -> Value:
        premise = a.conj(s.acknowledged(v, u, i), own(a, s, u, i), later(a, s, u, i, t, a.le))
        return a.implies(premise, a.conj(a.le(i, s.log_length(v)), s.log_term(v, i) == u))

    return Statement((TERM, INDEX), body, lambda u, i: [[s.acknowledged(v, u, i)]])


def candidate_holds(
    a: Algebra, s: Symbols, v: Value, c: Value, t: Value, last_index: Value, last_term: Value
) -> Statement:
    """A candidate whose log is at least as up-to-date as the voter's holds what the voter acknowledged."""

    def body(u: Value, i: Value) -> Value:
        held = a.conj(s.acknowledged(v, u, i), own(a, s, u, i), later(a, s, u, i, t, a.le))
        current = a.conj(s.candidate(c), s.current_term(c) == t, a.lt(u, t))
        return a.implies(a.conj(held, current), a.conj(a.le(i, s.log_length(c)), s.log_term(c, i) == u))

    return Statement((TERM, INDEX), body, lambda u, i: [[s.acknowledged(v, u, i)]])


def agreed_before(a: Algebra, s: Symbols, n: Value, m: Value, i: Value, k: Value) -> Statement:
    """Up to the message's previous entry, the disk and the log of the message's term are the same."""

    def body(j: Value) -> Value:
        same = s.log_term(n, j) == s.tlog_term(a.rigid.term(m), j)
        return a.implies(upto(a, j, a.rigid.prev_index(m)), same)

    return Statement((INDEX,), body, lambda j: [[s.log_term(n, j)]])


def conflict_after(a: Algebra, s: Symbols, n: Value, m: Value, i: Value, k: Value) -> Statement:
    """A conflict comes after all that was acknowledged and that all leaders hold, which stays the message's, too."""

    def body(t: Value, j: Value) -> Value:
        u = s.current_term(n)
        premise = a.conj(s.acknowledged(n, t, j), own(a, s, t, j), later(a, s, t, j, u, a.le))
        return a.implies(premise, a.conj(a.lt(j, i), s.log_term(n, j) == t, holds(a, s, u, t, j)))

    return Statement((TERM, INDEX), body, lambda t, j: [[s.acknowledged(n, t, j)]])


STEPS: Final = (
    Step("log_ordered", log_ordered.__doc__ or "", None, log_ordered),
    Step("tlog_ordered", tlog_ordered.__doc__ or "", None, tlog_ordered),
    Step("commit_later", commit_later.__doc__ or "", None, commit_later, earlier),
    Step("term_without_leader", term_without_leader.__doc__ or "", "become_leader", term_without_leader),
    Step("voter_holds", voter_holds.__doc__ or "", "grant_vote", voter_holds),
    Step("candidate_holds", candidate_holds.__doc__ or "", "grant_vote", candidate_holds),
    Step("agreed_before", agreed_before.__doc__ or "", "recv_append_conflict", agreed_before),
    Step("conflict_after", conflict_after.__doc__ or "", "recv_append_conflict", conflict_after),
)
