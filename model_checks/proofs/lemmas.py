"""The lemmas that make the theorems inductive.

The formulation is *quorum-free*: but for two lemmas that say which quorum elected a leader or committed an entry, no
lemma speaks of quorums. Instead of "an entry that some quorum may still acknowledge", `later` says that every elected
leader up to a term holds the entry: an acknowledger still holds it if all leaders up to its term do (`acker`), a
candidate that it voted for holds it (`voter`), a leader that has such a voter in its winning quorum holds it
(`elected_voter`). So configurations may change under it; a static configuration is the special case.

Each lemma is proved to be preserved by each action under some of the others; each theorem follows from the lemmas.
That later leaders hold what was committed is no lemma but a consequence of them, by induction on terms
(`steps.commit_later`).
Must not: hold a formula that no obligation needs (`sanity` looks for idle lemmas).

Source: Ongaro 2014, section 3.6.3 and appendix B.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from model_checks.proofs.algebra import Algebra, Sort, Symbols, Value, state_property
from model_checks.proofs.model import inside
from model_checks.proofs.theorems import upto

NODE, VALUE, MESSAGE = Sort.NODE, Sort.VALUE, Sort.MESSAGE
TERM, INDEX = Sort.TERM, Sort.INDEX


def holds(a: Algebra, s: Symbols, u: Value, t: Value, i: Value) -> Value:
    """The log of term u holds an entry of term t at i."""
    return a.conj(a.le(i, s.tlog_length(u)), s.tlog_term(u, i) == t)


def own(a: Algebra, s: Symbols, t: Value, i: Value) -> Value:
    """Entry i of the log of term t is of term t."""
    return a.conj(s.elected(t), upto(a, i, s.tlog_length(t)), s.tlog_term(t, i) == t)


def later(a: Algebra, s: Symbols, t: Value, i: Value, u: Value, until: Callable[[Value, Value], Value]) -> Value:
    """Every leader after t and until u holds the entry of term t at i."""
    return a.forall(
        (TERM,),
        lambda w: a.implies(a.conj(s.elected(w), a.lt(t, w), until(w, u)), holds(a, s, w, t, i)),
        lambda w: [[s.elected(w)]],
    )


# -------------------------------------------------------------------------------------------------------------- votes


@state_property
def vote_term(a: Algebra, s: Symbols) -> Value:
    """A vote's term is at most the voter's; if equal, the disk records the vote."""

    def body(v: Value, t: Value, c: Value) -> Value:
        recorded = a.implies(s.current_term(v) == t, s.voted_for(v, c))
        return a.implies(s.vote(v, t, c), a.conj(a.le(t, s.current_term(v)), recorded))

    return a.forall((NODE, TERM, NODE), body)


@state_property
def vote_unique(a: Algebra, s: Symbols) -> Value:
    """At most one vote a server and term."""

    def body(v: Value, t: Value, c: Value, d: Value) -> Value:
        return a.implies(a.conj(s.vote(v, t, c), s.vote(v, t, d)), c == d)

    return a.forall((NODE, TERM, NODE, NODE), body)


@state_property
def vote_candidate(a: Algebra, s: Symbols) -> Value:
    """Who is voted for has reached the term."""
    return a.forall((NODE, TERM, NODE), lambda v, t, c: a.implies(s.vote(v, t, c), a.le(t, s.current_term(c))))


@state_property
def request_fresh(a: Algebra, s: Symbols) -> Value:
    """A vote request's term was reached; while its sender is a candidate in it, it shows the sender's last entry."""

    def body(c: Value, t: Value, i: Value, u: Value) -> Value:
        shows = a.conj(i == s.log_length(c), u == s.log_term(c, i))
        still = a.conj(s.current_term(c) == t, s.candidate(c))
        return a.implies(s.vote_request(c, t, i, u), a.conj(a.le(t, s.current_term(c)), a.implies(still, shows)))

    return a.forall((NODE, TERM, INDEX, TERM), body)


@state_property
def elected_quorum(a: Algebra, s: Symbols) -> Value:
    """An elected leader had the votes of its quorum."""

    def body(t: Value, v: Value) -> Value:
        return a.implies(a.conj(s.elected(t), a.rigid.member(v, s.winning_quorum(t))), s.vote(v, t, s.leader_of(t)))

    return a.forall((TERM, NODE), body)


@state_property
def elected_term(a: Algebra, s: Symbols) -> Value:
    """A winner reached its term, and is never again a candidate in it."""

    def body(t: Value) -> Value:
        n = s.leader_of(t)
        past = a.implies(s.current_term(n) == t, a.neg(s.candidate(n)))
        return a.implies(
            s.elected(t),
            a.conj(a.le(t, s.current_term(n)), a.mark(s.winning_quorum(t)), past),
        )

    return a.forall((TERM,), body, lambda t: [[s.elected(t)]])


@state_property
def winner_unique(a: Algebra, s: Symbols) -> Value:
    """Who won a term is the term's leader."""
    return a.forall((NODE, TERM), lambda n, t: a.implies(s.won(n, t), a.conj(s.elected(t), s.leader_of(t) == n)))


@state_property
def leader_elected(a: Algebra, s: Symbols) -> Value:
    """A leader was elected in its term."""

    def body(n: Value) -> Value:
        t = s.current_term(n)
        return a.implies(s.leader(n), a.conj(s.elected(t), s.leader_of(t) == n))

    return a.forall((NODE,), body)


# --------------------------------------------------------------------------------------------------------------- logs


@state_property
def own_disk(a: Algebra, s: Symbols) -> Value:
    """In its term, the disk of the term's leader is a prefix of the term's log, even once the role is lost."""

    def body(n: Value, i: Value) -> Value:
        t = s.current_term(n)
        same = a.conj(
            s.log_term(n, i) == s.tlog_term(t, i),
            a.implies(a.lt(a.genesis, i), s.log_value(n, i) == s.tlog_value(t, i)),
        )
        return a.implies(
            a.conj(s.elected(t), s.leader_of(t) == n),
            a.conj(a.le(s.log_length(n), s.tlog_length(t)), a.implies(a.le(i, s.log_length(n)), same)),
        )

    def patterns(n: Value, i: Value) -> list[list[Value]]:
        t = s.current_term(n)
        return [
            [s.elected(t), s.log_term(n, i)],
            [s.elected(t), s.log_value(n, i)],
            [s.elected(t), s.leader_of(t), s.tlog_term(t, i)],
        ]

    return a.forall((NODE, INDEX), body, patterns)


@state_property
def log_genesis(a: Algebra, s: Symbols) -> Value:
    """Every disk has the genesis: term 0 at index 0."""
    return a.forall((NODE,), lambda n: s.log_term(n, a.genesis) == a.first_term)


@state_property
def log_entry(a: Algebra, s: Symbols) -> Value:
    """Every entry of a disk was created by the elected leader of the entry's term."""

    def body(n: Value, i: Value) -> Value:
        t = s.log_term(n, i)
        return a.implies(
            upto(a, i, s.log_length(n)),
            a.conj(s.elected(t), a.le(t, s.current_term(n)), a.le(i, s.tlog_length(t)), s.tlog_term(t, i) == t),
        )

    return a.forall((NODE, INDEX), body, lambda n, i: [[s.log_term(n, i)]])


@state_property
def tlog_entry(a: Algebra, s: Symbols) -> Value:
    """Every entry of a term's log was created by the elected leader of the entry's term, which is no later."""

    def body(u: Value, i: Value) -> Value:
        t = s.tlog_term(u, i)
        return a.implies(
            a.conj(s.elected(u), upto(a, i, s.tlog_length(u))),
            a.conj(s.elected(t), a.le(t, u), a.le(i, s.tlog_length(t)), s.tlog_term(t, i) == t),
        )

    return a.forall((TERM, INDEX), body, lambda u, i: [[s.tlog_term(u, i)]])


@state_property
def log_prefix(a: Algebra, s: Symbols) -> Value:
    """Up to an entry, a disk equals the log of the entry's term."""

    def body(n: Value, i: Value, j: Value) -> Value:
        t = s.log_term(n, i)
        same = a.conj(s.log_term(n, j) == s.tlog_term(t, j), s.log_value(n, j) == s.tlog_value(t, j))
        return a.implies(a.conj(upto(a, j, i), a.le(i, s.log_length(n))), same)

    return a.forall(
        (NODE, INDEX, INDEX),
        body,
        lambda n, i, j: [[s.log_term(n, i), s.log_term(n, j)], [s.tlog_term(s.log_term(n, i), j)]],
    )


@state_property
def tlog_prefix(a: Algebra, s: Symbols) -> Value:
    """Up to an entry, a term's log equals the log of the entry's term."""

    def body(u: Value, i: Value, j: Value) -> Value:
        t = s.tlog_term(u, i)
        same = a.conj(s.tlog_term(u, j) == s.tlog_term(t, j), s.tlog_value(u, j) == s.tlog_value(t, j))
        return a.implies(a.conj(s.elected(u), upto(a, j, i), a.le(i, s.tlog_length(u))), same)

    return a.forall(
        (TERM, INDEX, INDEX),
        body,
        lambda u, i, j: [[s.tlog_term(s.tlog_term(u, i), j)], [s.tlog_value(s.tlog_term(u, i), j)]],
    )


# ----------------------------------------------------------------------------------------------------------- messages


@state_property
def message_content(a: Algebra, s: Symbols) -> Value:
    """A sent request is a slice of the log of its term, whose leader was elected."""
    r = a.rigid

    def body(m: Value, j: Value) -> Value:
        t = r.term(m)
        same = a.conj(r.entry_term(m, j) == s.tlog_term(t, j), r.entry_value(m, j) == s.tlog_value(t, j))
        return a.implies(
            s.sent(m),
            a.conj(
                s.elected(t),
                a.le(r.prev_index(m), r.last_index(m)),
                a.le(r.last_index(m), s.tlog_length(t)),
                r.prev_term(m) == s.tlog_term(t, r.prev_index(m)),
                a.implies(inside(a, m, j, r.last_index(m)), same),
            ),
        )

    return a.forall(
        (MESSAGE, INDEX),
        body,
        lambda m, j: [
            [s.sent(m), r.entry_term(m, j)],
            [s.sent(m), s.tlog_term(r.term(m), j)],
            [s.sent(m), r.entry_value(m, j)],
        ],
    )


@state_property
def message_certificate(a: Algebra, s: Symbols) -> Value:
    """A commit index that was sent rests on a commit of the request's term or an earlier one."""
    r = a.rigid

    def body(m: Value) -> Value:
        t, i = r.certificate_term(m), r.certificate_index(m)
        return a.implies(
            a.conj(s.sent(m), a.lt(a.genesis, r.commit(m))),
            a.conj(s.committed(t, i), a.le(r.commit(m), i), a.le(t, r.term(m))),
        )

    return a.forall((MESSAGE,), body)


@state_property
def acknowledged_sane(a: Algebra, s: Symbols) -> Value:
    """An acknowledgement's term was reached and had a leader, whose log is at least that long."""

    def body(n: Value, t: Value, i: Value) -> Value:
        return a.implies(
            s.acknowledged(n, t, i), a.conj(a.le(t, s.current_term(n)), s.elected(t), a.le(i, s.tlog_length(t)))
        )

    return a.forall((NODE, TERM, INDEX), body)


# ------------------------------------------------------------------------------------------------------- completeness


@state_property
def acker(a: Algebra, s: Symbols) -> Value:
    """Who acknowledged an entry still holds it on disk, if all leaders up to its term hold it."""

    def body(n: Value, t: Value, i: Value) -> Value:
        premise = a.conj(s.acknowledged(n, t, i), own(a, s, t, i), later(a, s, t, i, s.current_term(n), a.le))
        return a.implies(premise, a.conj(a.le(i, s.log_length(n)), s.log_term(n, i) == t))

    return a.forall((NODE, TERM, INDEX), body, lambda n, t, i: [[s.acknowledged(n, t, i)]])


@state_property
def voter(a: Algebra, s: Symbols) -> Value:
    """A candidate holds what one of its voters acknowledged, if all leaders up to its term hold it."""

    def body(v: Value, t: Value, i: Value, c: Value) -> Value:
        u = s.current_term(c)
        premise = a.conj(
            s.acknowledged(v, t, i),
            own(a, s, t, i),
            s.candidate(c),
            a.lt(t, u),
            s.vote(v, u, c),
            later(a, s, t, i, u, a.le),
        )
        return a.implies(premise, a.conj(a.le(i, s.log_length(c)), s.log_term(c, i) == t))

    return a.forall((NODE, TERM, INDEX, NODE), body, lambda v, t, i, c: [[s.acknowledged(v, t, i), s.candidate(c)]])


@state_property
def elected_voter(a: Algebra, s: Symbols) -> Value:
    """A leader holds what one of its winning quorum acknowledged, if all leaders in between hold it."""

    def body(v: Value, t: Value, i: Value, u: Value) -> Value:
        premise = a.conj(
            s.acknowledged(v, t, i),
            own(a, s, t, i),
            s.elected(u),
            a.lt(t, u),
            a.rigid.member(v, s.winning_quorum(u)),
            later(a, s, t, i, u, a.lt),
        )
        return a.implies(premise, holds(a, s, u, t, i))

    return a.forall(
        (NODE, TERM, INDEX, TERM),
        body,
        lambda v, t, i, u: [[s.acknowledged(v, t, i), a.rigid.member(v, s.winning_quorum(u))]],
    )


@state_property
def commit_acknowledged(a: Algebra, s: Symbols) -> Value:
    """A committed entry is of its leader's own term, and its quorum acknowledged it."""

    def body(t: Value, i: Value) -> Value:
        q = s.commit_quorum(t, i)
        acks = a.forall((NODE,), lambda v: a.implies(a.rigid.member(v, q), s.acknowledged(v, t, i)))
        return a.implies(s.committed(t, i), a.conj(own(a, s, t, i), a.mark(q), acks))

    return a.forall((TERM, INDEX), body, lambda t, i: [[s.committed(t, i)]])


@state_property
def leader_certificate(a: Algebra, s: Symbols) -> Value:
    """A leader's commit index rests on a commit of its term or an earlier one."""

    def body(n: Value) -> Value:
        t, i = s.certificate_term(n), s.certificate_index(n)
        return a.implies(
            a.conj(s.leader(n), a.lt(a.genesis, s.commit_index(n))),
            a.conj(s.committed(t, i), a.le(s.commit_index(n), i), a.le(t, s.current_term(n))),
        )

    return a.forall((NODE,), body)


@state_property
def applied_certificate(a: Algebra, s: Symbols) -> Value:
    """What was applied rests on a commit: it is the value in the log of the commit's term."""

    def body(n: Value, i: Value, w: Value) -> Value:
        t, last = s.applied_term(n, i), s.applied_index(n, i)
        return a.implies(s.applied(n, i, w), a.conj(s.committed(t, last), upto(a, i, last), w == s.tlog_value(t, i)))

    return a.forall((NODE, INDEX, VALUE), body)


LEMMAS: Final = (
    vote_term,
    vote_unique,
    vote_candidate,
    request_fresh,
    elected_quorum,
    elected_term,
    winner_unique,
    leader_elected,
    own_disk,
    log_genesis,
    log_entry,
    tlog_entry,
    log_prefix,
    tlog_prefix,
    message_content,
    message_certificate,
    acknowledged_sane,
    acker,
    voter,
    elected_voter,
    commit_acknowledged,
    leader_certificate,
    applied_certificate,
)
