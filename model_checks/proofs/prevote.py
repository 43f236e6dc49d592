"""Pre-vote, added to the relational model: a server campaigns only if a quorum would vote for it.

A pre-vote changes nothing durable, and no safety lemma mentions it: it only makes `timeout` rarer (Ongaro 2014,
section 9.6). A server that need not wait, since a lease has ended, does not ask first (section 3.10). All is proved for
clusters that ask (`asks_first`) and for those that do not.

Must not: be needed by any lemma (`needed_by` in the selection file would say so).
"""

from __future__ import annotations

from typing import Final

from model_checks.proofs import leases, membership
from model_checks.proofs.algebra import (
    Action,
    Algebra,
    Arity,
    Signature,
    Sort,
    Symbols,
    Transition,
    Value,
    action,
    refined,
)
from model_checks.proofs.model import up_to_date

NODE, QUORUM, TERM, INDEX, BOOL = Sort.NODE, Sort.QUORUM, Sort.TERM, Sort.INDEX, Sort.BOOL

SIGNATURE: Final[Signature] = {
    "prevote_request": Arity((NODE, TERM, INDEX, TERM), BOOL),
    "prevote": Arity((NODE, TERM, NODE), BOOL),
}
"""candidate, term, last index, last term; voter, term, candidate."""

RIGID: Final[Signature] = {"asks_first": Arity((), BOOL)}
"""Whether servers ask before they campaign."""


def initial(a: Algebra, s: Symbols) -> Value:
    """Nobody has asked, nobody has answered."""
    return a.conj(
        leases.initial(a, s),
        a.forall((NODE, TERM, INDEX, TERM), lambda c, t, i, u: a.neg(s.prevote_request(c, t, i, u))),
        a.forall((NODE, TERM, NODE), lambda v, t, c: a.neg(s.prevote(v, t, c))),
    )


def _timeout(a: Algebra, s: Symbols, n: Value, t: Value, q: Value) -> Transition:
    """A quorum of the candidate's latest configuration would vote for it, or the end of a lease urges it."""
    asked = a.conj(
        a.rigid.quorum_of(q, membership.on_disk(a, s, n)),
        a.forall((NODE,), lambda v: a.implies(a.rigid.member(v, q), s.prevote(v, t, n))),
    )
    return Transition(a.implies(a.rigid.asks_first(), a.disj(asked, s.urged(n, t))), {})


@action(n=NODE, t=TERM)
def ask_prevote(a: Algebra, s: Symbols, n: Value, t: Value) -> Transition:
    """A server asks who would vote for it in a later term, and shows its last entry."""
    last = s.log_length(n)
    last_term = s.log_term(n, last)
    return Transition(
        a.lt(s.current_term(n), t),
        {
            "prevote_request": lambda c, u, i, w: a.disj(
                s.prevote_request(c, u, i, w), a.conj(c == n, u == t, i == last, w == last_term)
            )
        },
    )


@action(v=NODE, c=NODE, t=TERM, last_index=INDEX, last_term=TERM, u=TERM)
def grant_prevote(
    a: Algebra, s: Symbols, v: Value, c: Value, t: Value, last_index: Value, last_term: Value, u: Value
) -> Transition:
    """A server that need not wait, or has waited, would vote for an up-to-date log."""
    guard = a.conj(
        s.prevote_request(c, t, last_index, last_term),
        a.lt(s.current_term(v), t),
        up_to_date(a, s, v, last_index, last_term),
        a.disj(a.le(a.rigid.vote_from(s.heard_at(v)), s.now()), leases.released(a, s, v, u)),
    )
    return Transition(guard, {"prevote": lambda x, u, y: a.disj(s.prevote(x, u, y), a.conj(x == v, u == t, y == c))})


ACTIONS: Final[tuple[Action, ...]] = (
    *(refined(act, _timeout, q=QUORUM) if act.name == "timeout" else act for act in leases.ACTIONS),
    ask_prevote,
    grant_prevote,
)
