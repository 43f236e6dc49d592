"""The vocabulary of the relational model: symbols, initial state, and the mutants that it can be turned into.

What the symbols stand for, and what the model leaves out, is said in `model`.
Sources: Ongaro 2014, figure 3.1 (state, RPCs); raft.tla (variables, history variables).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from model_checks.proofs.algebra import Algebra, Arity, Signature, Sort, Symbols, Value

NODE, QUORUM, VALUE, MESSAGE = Sort.NODE, Sort.QUORUM, Sort.VALUE, Sort.MESSAGE
TERM, INDEX, BOOL = Sort.TERM, Sort.INDEX, Sort.BOOL

SERVER: Final[Signature] = {
    "current_term": Arity((NODE,), TERM),
    "voted_for": Arity((NODE, NODE), BOOL),
    "candidate": Arity((NODE,), BOOL),
    "leader": Arity((NODE,), BOOL),
    "log_length": Arity((NODE,), INDEX),
    "log_term": Arity((NODE, INDEX), TERM),
    "log_value": Arity((NODE, INDEX), VALUE),
    "commit_index": Arity((NODE,), INDEX),
}
"""The disk, the role, and what a leader knows to be committed (without meaning in other roles)."""

NETWORK: Final[Signature] = {
    "vote_request": Arity((NODE, TERM, INDEX, TERM), BOOL),
    "vote": Arity((NODE, TERM, NODE), BOOL),
    "sent": Arity((MESSAGE,), BOOL),
    "acknowledged": Arity((NODE, TERM, INDEX), BOOL),
}
"""candidate, term, last index, last term; voter, term, candidate; request; follower, term, index held."""

HISTORY: Final[Signature] = {
    "elected": Arity((TERM,), BOOL),
    "won": Arity((NODE, TERM), BOOL),
    "leader_of": Arity((TERM,), NODE),
    "winning_quorum": Arity((TERM,), QUORUM),
    "tlog_length": Arity((TERM,), INDEX),
    "tlog_term": Arity((TERM, INDEX), TERM),
    "tlog_value": Arity((TERM, INDEX), VALUE),
    "committed": Arity((TERM, INDEX), BOOL),
    "commit_quorum": Arity((TERM, INDEX), QUORUM),
    "certificate_term": Arity((NODE,), TERM),
    "certificate_index": Arity((NODE,), INDEX),
    "applied": Arity((NODE, INDEX, VALUE), BOOL),
    "applied_term": Arity((NODE, INDEX), TERM),
    "applied_index": Arity((NODE, INDEX), INDEX),
}
"""What became true, and why. committed(t, i): the leader of t committed its log up to i, an entry of term t.

A *certificate* is such a pair: it says which commit a server's or a message's commit index rests on."""

SIGNATURE: Final[Signature] = {**SERVER, **NETWORK, **HISTORY}

RIGID: Final[Signature] = {
    "member": Arity((NODE, QUORUM), BOOL),
    "term": Arity((MESSAGE,), TERM),
    "prev_index": Arity((MESSAGE,), INDEX),
    "prev_term": Arity((MESSAGE,), TERM),
    "last_index": Arity((MESSAGE,), INDEX),
    "entry_term": Arity((MESSAGE, INDEX), TERM),
    "entry_value": Arity((MESSAGE, INDEX), VALUE),
    "commit": Arity((MESSAGE,), INDEX),
    "certificate_term": Arity((MESSAGE,), TERM),
    "certificate_index": Arity((MESSAGE,), INDEX),
}

MUTANTS: Final[Mapping[str, str]] = {
    "no_quorum": "any set of servers is a quorum",
    "two_votes": "a server may vote twice in a term",
    "no_up_to_date_check": "a vote is granted whatever the candidate's log",
    "no_prev_check": "entries are taken without comparing the one before them",
    "old_term_commit": "an entry of an earlier term is committed by counting (Ongaro 2014, figure 3.7)",
    "ack_before_durable": "a leader counts its own entries before its disk holds them",
    "read_without_own_commit": "a leader serves reads before it has committed an entry of its own term",
    "read_without_term_check": "a server of any term confirms a leadership",
}
"""Weakened protocols that the proof must reject, by name."""


def initial(a: Algebra, s: Symbols) -> Value:
    """Empty logs, term 0, no message was ever sent, nobody was ever elected."""

    def blank(n: Value) -> Value:
        return a.conj(
            s.current_term(n) == a.first_term,
            a.neg(s.candidate(n)),
            a.neg(s.leader(n)),
            s.log_length(n) == a.genesis,
            s.log_term(n, a.genesis) == a.first_term,
        )

    return a.conj(
        a.forall((NODE,), blank),
        a.forall((NODE, NODE), lambda n, c: a.neg(s.voted_for(n, c))),
        a.forall((NODE, TERM, INDEX, TERM), lambda c, t, i, u: a.neg(s.vote_request(c, t, i, u))),
        a.forall((NODE, TERM, NODE), lambda v, t, c: a.neg(s.vote(v, t, c))),
        a.forall((MESSAGE,), lambda m: a.neg(s.sent(m))),
        a.forall((NODE, TERM, INDEX), lambda n, t, i: a.neg(s.acknowledged(n, t, i))),
        a.forall((TERM,), lambda t: a.neg(s.elected(t))),
        a.forall((NODE, TERM), lambda n, t: a.neg(s.won(n, t))),
        a.forall((TERM, INDEX), lambda t, i: a.neg(s.committed(t, i))),
        a.forall((NODE, INDEX, VALUE), lambda n, i, w: a.neg(s.applied(n, i, w))),
    )
