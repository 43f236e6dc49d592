"""The vocabulary of the relational model of forwarding: symbols, axioms, initial state, mutants.

What the symbols stand for, and what the model leaves out, is said in `forwarding`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from model_checks.proofs.algebra import Algebra, Arity, Signature, Sort, Symbols, Value

NODE, REQUEST, CALL, ENTRY, INDEX, BOOL = Sort.NODE, Sort.REQUEST, Sort.CALL, Sort.ENTRY, Sort.INDEX, Sort.BOOL

RIGID: Final[Signature] = {
    "server": Arity((NODE,), BOOL),
    "writes": Arity((REQUEST,), BOOL),
    "stale": Arity((REQUEST,), BOOL),
    "consistent": Arity((REQUEST,), BOOL),
    "request": Arity((CALL,), REQUEST),
    "agent": Arity((CALL,), NODE),
    "from_client": Arity((CALL,), BOOL),
    "made_by": Arity((CALL,), CALL),
    "leases_hold": Arity((), BOOL),
}
"""Agents, requests and their modes (`default`: neither stale nor consistent); what a call is: its request, the agent
that serves it, whether a client made it or else which call; whether leases keep their promise."""

PHASES: Final = ("held", "dialling", "calling", "appended", "confirming", "confirmed")
ANSWERS: Final = ("acknowledged", "refused", "unknown")

SIGNATURE: Final[Signature] = {
    "believes": Arity((NODE, NODE), BOOL),
    "asked": Arity((REQUEST,), BOOL),
    "asked_at": Arity((REQUEST,), INDEX),
    "answered_before": Arity((REQUEST, CALL), BOOL),
    "made": Arity((CALL,), BOOL),
    "arrived": Arity((CALL,), BOOL),
    **{phase: Arity((CALL,), BOOL) for phase in PHASES},
    **{answer: Arity((CALL,), BOOL) for answer in ANSWERS},
    "target": Arity((CALL,), NODE),
    "callee": Arity((CALL,), CALL),
    "own_entry": Arity((CALL,), ENTRY),
    "read_index": Arity((CALL,), INDEX),
    "read_floor": Arity((CALL,), INDEX),
    "seen": Arity((CALL,), INDEX),
    "proof": Arity((CALL,), ENTRY),
    "entry": Arity((ENTRY,), BOOL),
    "appender": Arity((ENTRY,), CALL),
    "committed": Arity((ENTRY,), BOOL),
    "position": Arity((ENTRY,), INDEX),
    "committed_length": Arity((), INDEX),
    "applied_length": Arity((NODE,), INDEX),
    "token": Arity((REQUEST,), CALL),
}
"""Beliefs in leaders; what clients asked, how much was committed then and who had been answered (history); calls; the
register: which entries there are, who appended them, where they were committed; what agents have applied.

seen: how many entries a read's answer reflects. proof: the entry that a write's acknowledgement rests on (history)."""

MUTANTS: Final[Mapping[str, str]] = {
    "retry_after_loss": "a write is tried again after its connection was lost",
    "retry_after_unknown": "a write is tried again although the answer was that nobody knows",
    "duplicate_delivery": "a call may arrive twice",
    "acknowledged_uncommitted": "a write is acknowledged before it is committed",
    "timeout_refuses": "a write that may be applied is refused when its time is over",
    "lost_leadership_refuses": "a write that was appended is refused when its leader loses the leadership",
    "register_commits_twice": "an entry of the register may be committed twice",
    "answered_before_applied": "a read is answered before its index is applied",
    "unconfirmed_read": "a read is answered by who believes that it leads",
    "stale_for_any": "any server answers a read of any mode",
    "lease_for_consistent": "a `consistent` read is answered by a lease",
}
"""Weakened protocols that the proof must reject."""

HARMLESS: Final[Mapping[str, str]] = {"forward_again": "a server forwards what a server sent it"}
"""A weakened protocol that is as safe: what it lacks is no matter of safety."""


ASSUMED: Final[Mapping[str, str]] = {
    "whole/state_machine_safety": "entries are committed once, in one order, and applied in this order",
    "whole/read_linearizable": "a read that is confirmed has an index that covers all that was committed when it began",
}
"""The register's promises are theorems of another system. (Leases keep theirs while clocks do: a hypothesis.)"""


def axioms(a: Algebra) -> Sequence[Value]:
    """A client asks one agent once, for a write or in one mode."""
    r = a.rigid

    def once(c: Value, d: Value) -> Value:
        return a.implies(a.conj(r.from_client(c), r.from_client(d), r.request(c) == r.request(d)), c == d)

    return (
        a.forall((CALL, CALL), once, lambda c, d: [[r.from_client(c), r.from_client(d)]]),
        a.forall((REQUEST,), lambda q: a.neg(a.conj(r.stale(q), r.consistent(q))), lambda q: [[r.stale(q)]]),
    )


def initial(a: Algebra, s: Symbols) -> Value:
    """Nothing was asked, nothing is committed."""

    def nothing(c: Value) -> Value:
        names = ("made", "arrived", *PHASES, *ANSWERS)
        return a.conj(*(a.neg(getattr(s, name)(c)) for name in names))

    return a.conj(
        a.forall((CALL,), nothing),
        a.forall((REQUEST,), lambda q: a.neg(s.asked(q))),
        a.forall((ENTRY,), lambda e: a.neg(a.disj(s.entry(e), s.committed(e)))),
        a.forall((NODE,), lambda n: s.applied_length(n) == a.genesis),
        s.committed_length() == a.genesis,
    )
