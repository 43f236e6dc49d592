"""The relational model of Raft: its actions. Static membership; a server is its disk.

The *server* here is the durable point of the readable spec (ARCHITECTURE.md, section 3): an action happens when its
write is persisted, so a crash loses nothing but the role, and the proof covers crashes that lose unsynced writes
without speaking of them. A leader's memory is the log of its term (`tlog_*`), a history variable for everybody else.
To its own disk a leader is one of its followers (`append_own`). A torn write is the parameter k of the receive actions:
any prefix of what was to be written.

The network only grows: loss, delay, duplication and reordering come free. Guards mention it only positively (`linking`
asserts that), so what is possible in a network is possible in a larger one. AppendEntries requests are elements of a
sort with fixed fields; to send one, its fields must equal the leader's slice.

Deviations, each of which allows more behaviours than the readable spec: a term may be skipped; any slice, any commit
index up to the leader's; a follower's commit index is not part of the state, it applies what a message says is
committed; a leader's commit index starts at 0 in its term and is learned again. A message's certificate is history, not
a field of the wire.

Sources: Ongaro 2014, chapter 3 and section 10.2.1; raft.tla. Symbols are in `signature`, what is proved in
`theorems` and `lemmas`, reads in `reads`. `Algebra.unless` names the rules that mutants drop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from model_checks.proofs.algebra import Algebra, Sort, Symbols, Transition, Value, action

NODE, QUORUM, VALUE, MESSAGE = Sort.NODE, Sort.QUORUM, Sort.VALUE, Sort.MESSAGE
TERM, INDEX = Sort.TERM, Sort.INDEX

Updates = Mapping[str, Callable[..., Value]]


def set_at(a: Algebra, function: Callable[..., Value], key: Value, value: Value) -> Callable[[Value], Value]:
    """`function` of one argument, with `value` at `key`."""
    return lambda x: a.ite(x == key, value, function(x))


# ---------------------------------------------------------------------------------------------------------- elections


@action(n=NODE, t=TERM)
def timeout(a: Algebra, s: Symbols, n: Value, t: Value) -> Transition:
    """The vote for oneself in a later term reaches the disk (section 3.4; raft.tla Timeout, RequestVote)."""
    last = s.log_length(n)
    last_term = s.log_term(n, last)
    return Transition(
        a.lt(s.current_term(n), t),
        {
            "current_term": set_at(a, s.current_term, n, t),
            "voted_for": lambda x, c: a.ite(x == n, c == n, s.voted_for(x, c)),
            "candidate": lambda x: a.disj(x == n, s.candidate(x)),
            "leader": lambda x: a.conj(x != n, s.leader(x)),
            "vote_request": lambda c, u, i, w: a.disj(
                s.vote_request(c, u, i, w), a.conj(c == n, u == t, i == last, w == last_term)
            ),
            "vote": lambda v, u, c: a.disj(s.vote(v, u, c), a.conj(v == n, u == t, c == n)),
        },
    )


@action(n=NODE, t=TERM)
def update_term(a: Algebra, s: Symbols, n: Value, t: Value) -> Transition:
    """A higher term reaches the disk; the role is lost (section 3.3; raft.tla UpdateTerm)."""
    return Transition(
        a.lt(s.current_term(n), t),
        {
            "current_term": set_at(a, s.current_term, n, t),
            "voted_for": lambda x, c: a.conj(x != n, s.voted_for(x, c)),
            **role_lost(a, s, n),
        },
    )


def role_lost(a: Algebra, s: Symbols, n: Value) -> Updates:
    """`n` is a follower."""
    return {
        "candidate": lambda x: a.conj(x != n, s.candidate(x)),
        "leader": lambda x: a.conj(x != n, s.leader(x)),
    }


@action(n=NODE)
def step_down(a: Algebra, s: Symbols, n: Value) -> Transition:
    """The role is lost in memory: by a crash, by a newer term that is not on disk yet, by a leader of the same term.

    Nothing durable is lost (raft.tla Restart; section 3.8).
    """
    return Transition(True, role_lost(a, s, n))


def up_to_date(a: Algebra, s: Symbols, v: Value, last_index: Value, last_term: Value) -> Value:
    """A log that ends so is at least as up-to-date as the disk of `v` (section 3.6.1)."""
    own = s.log_term(v, s.log_length(v))
    return a.disj(a.lt(own, last_term), a.conj(last_term == own, a.le(s.log_length(v), last_index)))


@action(v=NODE, c=NODE, t=TERM, last_index=INDEX, last_term=TERM)
def grant_vote(a: Algebra, s: Symbols, v: Value, c: Value, t: Value, last_index: Value, last_term: Value) -> Transition:
    """A vote for another server reaches the disk (section 3.4; raft.tla HandleRequestVoteRequest)."""
    one_vote = a.forall((NODE,), lambda x: a.implies(s.voted_for(v, x), x == c))
    guard = a.conj(
        s.vote_request(c, t, last_index, last_term),
        s.current_term(v) == t,
        a.unless("two_votes", one_vote),
        a.unless("no_up_to_date_check", up_to_date(a, s, v, last_index, last_term)),
    )
    return Transition(
        guard,
        {
            "voted_for": lambda x, y: a.ite(x == v, y == c, s.voted_for(x, y)),
            "vote": lambda x, u, y: a.disj(s.vote(x, u, y), a.conj(x == v, u == t, y == c)),
        },
    )


@action(n=NODE, q=QUORUM)
def become_leader(a: Algebra, s: Symbols, n: Value, q: Value) -> Transition:
    """A candidate with a quorum of votes leads; the log of its term begins as its own (section 3.4; BecomeLeader)."""
    t = s.current_term(n)
    guard = a.conj(
        s.candidate(n), a.forall((NODE,), lambda v: a.implies(a.rigid.member(v, q), s.vote(v, t, n))), a.mark(q)
    )
    return Transition(
        guard,
        {
            "candidate": lambda x: a.conj(x != n, s.candidate(x)),
            "leader": lambda x: a.disj(x == n, s.leader(x)),
            "commit_index": set_at(a, s.commit_index, n, a.genesis),
            "elected": lambda u: a.disj(u == t, s.elected(u)),
            "won": lambda x, u: a.disj(s.won(x, u), a.conj(x == n, u == t)),
            "leader_of": set_at(a, s.leader_of, t, n),
            "winning_quorum": set_at(a, s.winning_quorum, t, q),
            "tlog_length": set_at(a, s.tlog_length, t, s.log_length(n)),
            "tlog_term": lambda u, i: a.ite(u == t, s.log_term(n, i), s.tlog_term(u, i)),
            "tlog_value": lambda u, i: a.ite(u == t, s.log_value(n, i), s.tlog_value(u, i)),
        },
    )


# -------------------------------------------------------------------------------------------------------- replication


@action(n=NODE, w=VALUE, i=INDEX)
def client_request(a: Algebra, s: Symbols, n: Value, w: Value, i: Value) -> Transition:
    """The leader appends an entry to the log of its term, in memory (section 3.5; raft.tla ClientRequest)."""
    t = s.current_term(n)
    return Transition(
        a.conj(s.leader(n), a.successor(s.tlog_length(t), i)),
        {
            "tlog_length": set_at(a, s.tlog_length, t, i),
            "tlog_term": lambda u, j: a.ite(a.conj(u == t, j == i), t, s.tlog_term(u, j)),
            "tlog_value": lambda u, j: a.ite(a.conj(u == t, j == i), w, s.tlog_value(u, j)),
        },
    )


@action(n=NODE, i=INDEX)
def append_own(a: Algebra, s: Symbols, n: Value, i: Value) -> Transition:
    """The disk of a term's leader holds the log of the term up to i, and so acknowledges it (section 10.2.1).

    Also possible once the role is lost: what was issued may still reach the disk.
    """
    t = s.current_term(n)
    length = s.log_length(n)
    reached = a.conj(s.elected(t), s.leader_of(t) == n, a.le(i, s.tlog_length(t)))

    def new(x: Value, j: Value) -> Value:
        return a.conj(x == n, a.lt(length, j), a.le(j, i))

    def acknowledged(x: Value, u: Value, j: Value) -> Value:
        return a.disj(s.acknowledged(x, u, j), a.conj(x == n, u == t, a.le(j, i)))

    if a.mutated("ack_before_durable"):
        return Transition(reached, {"acknowledged": acknowledged})
    return Transition(
        reached,
        {
            "log_length": lambda x: a.ite(a.conj(x == n, a.lt(length, i)), i, s.log_length(x)),
            "log_term": lambda x, j: a.ite(new(x, j), s.tlog_term(t, j), s.log_term(x, j)),
            "log_value": lambda x, j: a.ite(new(x, j), s.tlog_value(t, j), s.log_value(x, j)),
            "acknowledged": acknowledged,
        },
    )


def inside(a: Algebra, m: Value, j: Value, last: Value) -> Value:
    """The message carries entry j, and j is at most `last`."""
    return a.conj(a.lt(a.rigid.prev_index(m), j), a.le(j, last))


@action(n=NODE, m=MESSAGE)
def send_append(a: Algebra, s: Symbols, n: Value, m: Value) -> Transition:
    """The leader sends any slice of its term's log, and any commit index up to its own (section 3.5; AppendEntries)."""
    r = a.rigid
    t = s.current_term(n)

    def same(j: Value) -> Value:
        return a.implies(
            inside(a, m, j, r.last_index(m)),
            a.conj(r.entry_term(m, j) == s.tlog_term(t, j), r.entry_value(m, j) == s.tlog_value(t, j)),
        )

    guard = a.conj(
        s.leader(n),
        r.term(m) == t,
        a.le(r.prev_index(m), r.last_index(m)),
        a.le(r.last_index(m), s.tlog_length(t)),
        r.prev_term(m) == s.tlog_term(t, r.prev_index(m)),
        a.forall((INDEX,), same),
        a.le(r.commit(m), s.commit_index(n)),
        r.certificate_term(m) == s.certificate_term(n),
        r.certificate_index(m) == s.certificate_index(n),
    )
    return Transition(guard, {"sent": lambda x: a.disj(x == m, s.sent(x))})


def may_take(a: Algebra, s: Symbols, n: Value, m: Value, k: Value) -> Value:
    """`n` may take the entries of the message up to k: same term, and it holds the entry before them (section 3.5)."""
    r = a.rigid
    return a.conj(
        s.sent(m),
        r.term(m) == s.current_term(n),
        a.neg(s.leader(n)),
        a.le(r.prev_index(m), s.log_length(n)),
        a.unless("no_prev_check", s.log_term(n, r.prev_index(m)) == r.prev_term(m)),
        a.le(r.prev_index(m), k),
        a.le(k, r.last_index(m)),
    )


def taken(a: Algebra, s: Symbols, n: Value, m: Value, k: Value, length: Value) -> Updates:
    """The disk of `n` holds the message's entries up to k, ends at `length`, and is known to agree up to k."""
    r = a.rigid
    t = s.current_term(n)

    def new(x: Value, j: Value) -> Value:
        return a.conj(x == n, inside(a, m, j, k))

    return {
        "candidate": lambda x: a.conj(x != n, s.candidate(x)),
        "log_length": set_at(a, s.log_length, n, length),
        "log_term": lambda x, j: a.ite(new(x, j), r.entry_term(m, j), s.log_term(x, j)),
        "log_value": lambda x, j: a.ite(new(x, j), r.entry_value(m, j), s.log_value(x, j)),
        "acknowledged": lambda x, u, j: a.disj(s.acknowledged(x, u, j), a.conj(x == n, u == t, a.le(j, k))),
    }


@action(n=NODE, m=MESSAGE, i=INDEX, k=INDEX)
def recv_append_conflict(a: Algebra, s: Symbols, n: Value, m: Value, i: Value, k: Value) -> Transition:
    """Entry i conflicts: the disk is cut before it, then holds the message's entries up to k (section 3.5).

    k = i - 1: the write was torn right after the cut.
    """
    guard = a.conj(
        may_take(a, s, n, m, k),
        inside(a, m, i, a.rigid.last_index(m)),
        a.le(i, s.log_length(n)),
        s.log_term(n, i) != a.rigid.entry_term(m, i),
        a.disj(a.le(i, k), a.successor(k, i)),
    )
    return Transition(guard, taken(a, s, n, m, k, k))


@action(n=NODE, m=MESSAGE, k=INDEX)
def recv_append_noconflict(a: Algebra, s: Symbols, n: Value, m: Value, k: Value) -> Transition:
    """No entry up to k conflicts: those that are missing are appended, and nothing is cut (section 3.5)."""
    length = s.log_length(n)

    def agrees(j: Value) -> Value:
        held = a.conj(inside(a, m, j, k), a.le(j, length))
        return a.implies(held, s.log_term(n, j) == a.rigid.entry_term(m, j))

    guard = a.conj(may_take(a, s, n, m, k), a.forall((INDEX,), agrees))
    return Transition(guard, taken(a, s, n, m, k, a.ite(a.le(length, k), k, length)))


# --------------------------------------------------------------------------------------------------- commit and apply


@action(n=NODE, i=INDEX, q=QUORUM)
def advance_commit(a: Algebra, s: Symbols, n: Value, i: Value, q: Value) -> Transition:
    """The leader commits an entry of its own term that the disks of a quorum hold (section 3.6.2)."""
    t = s.current_term(n)
    guard = a.conj(
        s.leader(n),
        a.lt(s.commit_index(n), i),
        a.le(i, s.tlog_length(t)),
        a.unless("old_term_commit", s.tlog_term(t, i) == t),
        a.forall((NODE,), lambda v: a.implies(a.rigid.member(v, q), s.acknowledged(v, t, i))),
        a.mark(q),
    )

    def this(u: Value, j: Value) -> Value:
        return a.conj(u == t, j == i)

    return Transition(
        guard,
        {
            **known(a, s, n, i, t, i),
            "committed": lambda u, j: a.disj(s.committed(u, j), this(u, j)),
            "commit_quorum": lambda u, j: a.ite(this(u, j), q, s.commit_quorum(u, j)),
        },
    )


def known(a: Algebra, s: Symbols, n: Value, i: Value, term: Value, index: Value) -> Updates:
    """`n` knows i to be committed, by the certificate (term, index)."""
    return {
        "commit_index": set_at(a, s.commit_index, n, i),
        "certificate_term": set_at(a, s.certificate_term, n, term),
        "certificate_index": set_at(a, s.certificate_index, n, index),
    }


@action(n=NODE, m=MESSAGE, i=INDEX)
def learn_commit(a: Algebra, s: Symbols, n: Value, m: Value, i: Value) -> Transition:
    """A leader knows what leaders up to its own term told it to be committed (section 3.5)."""
    r = a.rigid
    guard = a.conj(
        s.leader(n),
        s.sent(m),
        a.le(r.term(m), s.current_term(n)),
        a.lt(s.commit_index(n), i),
        a.le(i, r.commit(m)),
    )
    return Transition(guard, known(a, s, n, i, r.certificate_term(m), r.certificate_index(m)))


def applies(a: Algebra, s: Symbols, n: Value, i: Value, term: Value, index: Value) -> Updates:
    """`n` applies what its disk holds at i, by the certificate (term, index)."""
    value = s.log_value(n, i)

    def this(x: Value, j: Value) -> Value:
        return a.conj(x == n, j == i)

    return {
        "applied": lambda x, j, w: a.disj(s.applied(x, j, w), a.conj(x == n, j == i, w == value)),
        "applied_term": lambda x, j: a.ite(this(x, j), term, s.applied_term(x, j)),
        "applied_index": lambda x, j: a.ite(this(x, j), index, s.applied_index(x, j)),
    }


@action(n=NODE, i=INDEX)
def apply_own(a: Algebra, s: Symbols, n: Value, i: Value) -> Transition:
    """A leader applies an entry that it knows to be committed and that its disk holds (section 3.5)."""
    guard = a.conj(s.leader(n), a.lt(a.genesis, i), a.le(i, s.commit_index(n)), a.le(i, s.log_length(n)))
    return Transition(guard, applies(a, s, n, i, s.certificate_term(n), s.certificate_index(n)))


@action(n=NODE, m=MESSAGE, i=INDEX)
def apply_told(a: Algebra, s: Symbols, n: Value, m: Value, i: Value) -> Transition:
    """A server applies an entry of its disk that a leader, of whatever term, says is committed (section 3.5).

    The message must show the same entry as the disk: Log Matching then makes all earlier ones the leader's, too.
    """
    r = a.rigid
    shown = a.ite(i == r.prev_index(m), r.prev_term(m), r.entry_term(m, i))
    guard = a.conj(
        s.sent(m),
        a.lt(a.genesis, i),
        a.le(i, r.commit(m)),
        a.le(r.prev_index(m), i),
        a.le(i, r.last_index(m)),
        a.le(i, s.log_length(n)),
        s.log_term(n, i) == shown,
    )
    return Transition(guard, applies(a, s, n, i, r.certificate_term(m), r.certificate_index(m)))


ACTIONS: Final = (
    timeout,
    update_term,
    step_down,
    grant_vote,
    become_leader,
    client_request,
    append_own,
    send_append,
    recv_append_conflict,
    recv_append_noconflict,
    advance_commit,
    learn_commit,
    apply_own,
    apply_told,
)
