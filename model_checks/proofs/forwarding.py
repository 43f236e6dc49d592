"""The relational model of forwarding (`spec/forwarding.py`): a client's request on its way to the leader, and back.

A client's request at its entrance, and each call that leads on from there, is one *call*, a value of which nothing
changes but where it stands: made (sent), arrived (a task of its agent), then a phase (held, dialling, calling another
call, appended, confirming, confirmed), then one answer. A call arrives at most once: so much a TCP connection promises.
Nothing else is asked of connections. A call may arrive at any time after it was sent, also long after its connection
was lost at either end, in whatever epoch; it may be lost, as may its answer. So the number of connections, epochs,
agents, servers, requests and calls, and how often a call is passed on, do not matter.

The replicated register is an interface, whose promises are theorems of `whole`: entries are committed at most once, in
one order, and each server applies them in this order (state_machine_safety); a read that is confirmed has an index that
covers all that was committed when it began, be it confirmed by a quorum or by a lease (read_linearizable). That a lease
is a lease is as true as clocks are (`leases_hold`).

`token` is history: the one call of a write that may be appended. It goes with the call that is sent, and comes back
with a refusal, which says that nothing was done; with nothing else. That is why a write is applied at most once.

Deviations, each of which allows more behaviours than the readable spec: calls as above; calls that wait on one lost
connection learn of it one by one; a write is acknowledged at any time after its server has applied it; what a client
agent may dial is any agent. Loops are no matter of safety: the mutant that forwards again satisfies everything.

Must not: know how Raft keeps the register's promises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from model_checks.proofs.algebra import Algebra, Sort, Symbols, Transition, Value, action
from model_checks.proofs.forwarding_signature import PHASES
from model_checks.proofs.model import Updates, set_at

NODE, CALL, ENTRY, INDEX = Sort.NODE, Sort.CALL, Sort.ENTRY, Sort.INDEX


# ------------------------------------------------------------------------------------------------------- transitions


def in_phase(a: Algebra, s: Symbols, c: Value, phase: str) -> Updates:
    """`c` is in this phase and in no other."""

    def of(name: str) -> Callable[[Value], Value]:
        symbol = getattr(s, name)
        return lambda x: a.disj(x == c, symbol(x)) if name == phase else a.conj(x != c, symbol(x))

    return {name: of(name) for name in PHASES}


def finished(a: Algebra, s: Symbols, c: Value, answers: Mapping[str, Value]) -> Updates:
    """`c` is in no phase any more; it has each answer whose condition holds (exactly one must)."""

    def of(answer: str, condition: Value) -> Callable[[Value], Value]:
        symbol = getattr(s, answer)
        return lambda x: a.disj(symbol(x), a.conj(x == c, condition))

    return {**in_phase(a, s, c, ""), **{answer: of(answer, condition) for answer, condition in answers.items()}}


def held_or(a: Algebra, s: Symbols, c: Value, again: Value, answers: Mapping[str, Value]) -> Updates:
    """`c` is held if `again`, else finished."""
    ended = finished(a, s, c, {answer: a.conj(a.neg(again), condition) for answer, condition in answers.items()})
    return {**ended, "held": lambda x: a.ite(x == c, again, s.held(x))}


def read(a: Algebra, c: Value) -> Value:
    """The call's request is a read."""
    return a.neg(a.rigid.writes(a.rigid.request(c)))


def by_server(a: Algebra, c: Value) -> Value:
    """A server sent the call here, since it believed that this agent leads."""
    r = a.rigid
    return a.conj(a.neg(r.from_client(c)), r.server(r.agent(r.made_by(c))))


def leads(a: Algebra, s: Symbols, c: Value) -> Value:
    """The call's agent believes that it leads itself."""
    n = a.rigid.agent(c)
    return s.believes(n, n)


# --------------------------------------------------------------------------------------------- a request arrives


@action(c=CALL)
def accept(a: Algebra, s: Symbols, c: Value) -> Transition:
    """A client asks an agent."""
    q = a.rigid.request(c)

    def before(x: Value, d: Value) -> Value:
        told = a.conj(a.rigid.from_client(d), s.acknowledged(d))
        return a.ite(x == q, told, s.answered_before(x, d))

    return Transition(
        a.conj(a.rigid.from_client(c), a.neg(s.asked(q))),
        {
            **in_phase(a, s, c, "held"),
            "asked": lambda x: a.disj(x == q, s.asked(x)),
            "asked_at": set_at(a, s.asked_at, q, s.committed_length()),
            "answered_before": before,
            "made": lambda x: a.disj(x == c, s.made(x)),
            "arrived": lambda x: a.disj(x == c, s.arrived(x)),
            "token": set_at(a, s.token, q, c),
        },
    )


@action(c=CALL)
def handle_call(a: Algebra, s: Symbols, c: Value) -> Transition:
    """A call arrives, once. Only servers listen."""
    guard = a.conj(s.made(c), a.unless("duplicate_delivery", a.neg(s.arrived(c))), a.rigid.server(a.rigid.agent(c)))
    return Transition(guard, {**in_phase(a, s, c, "held"), "arrived": lambda x: a.disj(x == c, s.arrived(x))})


# -------------------------------------------------------------------------- it is served here, refused here, or sent on


@action(c=CALL, e=ENTRY)
def append(a: Algebra, s: Symbols, c: Value, e: Value) -> Transition:
    """A server that believes that it leads appends a write to the register."""
    guard = a.conj(s.held(c), leads(a, s, c), a.neg(read(a, c)), a.neg(s.entry(e)))
    return Transition(
        guard,
        {
            **in_phase(a, s, c, "appended"),
            "own_entry": set_at(a, s.own_entry, c, e),
            "entry": lambda x: a.disj(x == e, s.entry(x)),
            "appender": set_at(a, s.appender, e, c),
        },
    )


@action(c=CALL, i=INDEX)
def begin_read(a: Algebra, s: Symbols, c: Value, i: Value) -> Transition:
    """A server that believes that it leads takes a read index for a read that is not stale."""
    return Transition(
        a.conj(s.held(c), leads(a, s, c), read(a, c), a.neg(a.rigid.stale(a.rigid.request(c)))),
        {
            **in_phase(a, s, c, "confirming"),
            "read_index": set_at(a, s.read_index, c, i),
            "read_floor": set_at(a, s.read_floor, c, s.committed_length()),
        },
    )


@action(c=CALL)
def confirm_read(a: Algebra, s: Symbols, c: Value) -> Transition:
    """The register confirms an index only if it covers what was committed when the read began (read_linearizable)."""
    covers = a.unless("unconfirmed_read", a.le(s.read_floor(c), s.read_index(c)))
    return Transition(a.conj(s.confirming(c), covers), in_phase(a, s, c, "confirmed"))


@action(c=CALL, i=INDEX)
def lease_read(a: Algebra, s: Symbols, c: Value, i: Value) -> Transition:
    """A `default` read at a server with the lease: its index covers all that is committed now, if leases hold."""
    q = a.rigid.request(c)
    default = a.conj(a.neg(a.rigid.stale(q)), a.unless("lease_for_consistent", a.neg(a.rigid.consistent(q))))
    covers = a.implies(a.rigid.leases_hold(), a.le(s.committed_length(), i))
    return Transition(
        a.conj(s.held(c), leads(a, s, c), read(a, c), default, covers),
        {**in_phase(a, s, c, "confirmed"), "read_index": set_at(a, s.read_index, c, i)},
    )


@action(c=CALL)
def answer_read(a: Algebra, s: Symbols, c: Value) -> Transition:
    """A confirmed read is answered once its index is applied."""
    applied = s.applied_length(a.rigid.agent(c))
    ready = a.unless("answered_before_applied", a.le(s.read_index(c), applied))
    return Transition(
        a.conj(s.confirmed(c), read(a, c), ready),
        {**finished(a, s, c, {"acknowledged": True}), "seen": set_at(a, s.seen, c, applied)},
    )


@action(c=CALL)
def stale_read(a: Algebra, s: Symbols, c: Value) -> Transition:
    """Any server answers a `stale` read from what it has applied."""
    r = a.rigid
    stale = a.unless("stale_for_any", r.stale(r.request(c)))
    return Transition(
        a.conj(s.held(c), r.server(r.agent(c)), read(a, c), stale),
        {
            **finished(a, s, c, {"acknowledged": True}),
            "seen": set_at(a, s.seen, c, s.applied_length(r.agent(c))),
        },
    )


@action(c=CALL)
def refuse_forwarded(a: Algebra, s: Symbols, c: Value) -> Transition:
    """The loop guard: what a server sent here, and this agent does not lead, is refused."""
    guard = a.conj(s.held(c), by_server(a, c), a.neg(leads(a, s, c)))
    return Transition(guard, finished(a, s, c, {"refused": True}))


@action(c=CALL, to=NODE)
def dial(a: Algebra, s: Symbols, c: Value, to: Value) -> Transition:
    """A client agent may dial any server, a server the leader that it believes in, but not for another server."""
    n = a.rigid.agent(c)
    forward = a.conj(s.believes(n, to), a.unless("forward_again", a.neg(by_server(a, c))))
    guard = a.conj(s.held(c), to != n, a.implies(a.rigid.server(n), forward))
    return Transition(guard, {**in_phase(a, s, c, "dialling"), "target": set_at(a, s.target, c, to)})


@action(c=CALL, d=CALL)
def send_call(a: Algebra, s: Symbols, c: Value, d: Value) -> Transition:
    """The connection is there: call d leaves. From here on the request may be applied elsewhere."""
    r = a.rigid
    fresh = a.conj(a.neg(s.made(d)), a.neg(r.from_client(d)), r.made_by(d) == c)
    return Transition(
        a.conj(s.dialling(c), fresh, r.agent(d) == s.target(c), r.request(d) == r.request(c)),
        {
            **in_phase(a, s, c, "calling"),
            "callee": set_at(a, s.callee, c, d),
            "made": lambda x: a.disj(x == d, s.made(x)),
            "token": set_at(a, s.token, r.request(c), d),
        },
    )


@action(c=CALL)
def dial_failed(a: Algebra, s: Symbols, c: Value) -> Transition:
    """No connection: definitely not sent."""
    return Transition(s.dialling(c), in_phase(a, s, c, "held"))


# ----------------------------------------------------------------------------------------------------------- it ends


@action(c=CALL)
def handle_refusal(a: Algebra, s: Symbols, c: Value) -> Transition:
    """What was definitely not done is held, and tried again."""
    q = a.rigid.request(c)
    return Transition(
        a.conj(s.calling(c), s.refused(s.callee(c))),
        {**in_phase(a, s, c, "held"), "token": set_at(a, s.token, q, c)},
    )


@action(c=CALL)
def handle_reply(a: Algebra, s: Symbols, c: Value) -> Transition:
    """Any other answer is passed on."""
    d = s.callee(c)
    unknown = a.conj(s.unknown(d), a.neg(s.acknowledged(d)))
    again = a.conj(unknown, a.neg(read(a, c))) if a.mutated("retry_after_unknown") else False
    return Transition(
        a.conj(s.calling(c), a.disj(s.acknowledged(d), s.unknown(d))),
        {
            **held_or(a, s, c, again, {"acknowledged": s.acknowledged(d), "unknown": unknown}),
            "seen": set_at(a, s.seen, c, s.seen(d)),
            "proof": set_at(a, s.proof, c, s.proof(d)),
        },
    )


@action(c=CALL)
def connection_lost(a: Algebra, s: Symbols, c: Value) -> Transition:
    """The caller learns that its connection is lost: a read is tried again, a write may have been applied."""
    again = True if a.mutated("retry_after_loss") else read(a, c)
    return Transition(s.calling(c), held_or(a, s, c, again, {"unknown": True}))


@action(c=CALL)
def hold_timeout(a: Algebra, s: Symbols, c: Value) -> Transition:
    """The time is over: a refusal if nothing is under way that may be applied."""
    busy = a.disj(*(getattr(s, phase)(c) for phase in PHASES))
    under_way = a.conj(a.neg(read(a, c)), a.disj(s.calling(c), s.appended(c)))
    lost = False if a.mutated("timeout_refuses") else under_way
    return Transition(busy, finished(a, s, c, {"unknown": lost, "refused": a.neg(lost)}))


@action(c=CALL)
def leadership_lost(a: Algebra, s: Symbols, c: Value) -> Transition:
    """A later leader may still commit what was appended; a read that was not confirmed is held again."""
    answer = "refused" if a.mutated("lost_leadership_refuses") else "unknown"
    return Transition(
        a.disj(s.appended(c), s.confirming(c)),
        held_or(a, s, c, s.confirming(c), {answer: True}),
    )


@action(c=CALL)
def acknowledge(a: Algebra, s: Symbols, c: Value) -> Transition:
    """The server has applied the entry that it appended for the call."""
    e = s.own_entry(c)
    applied = a.conj(s.committed(e), a.le(s.position(e), s.applied_length(a.rigid.agent(c))))
    return Transition(
        a.conj(s.appended(c), a.unless("acknowledged_uncommitted", applied)),
        {**finished(a, s, c, {"acknowledged": True}), "proof": set_at(a, s.proof, c, e)},
    )


# ---------------------------------------------------------------------------------- the register, beliefs, crashes


@action(e=ENTRY, i=INDEX)
def commit(a: Algebra, s: Symbols, e: Value, i: Value) -> Transition:
    """The register commits an entry next, whatever its appender believes by now; or never."""
    once = a.unless("register_commits_twice", a.neg(s.committed(e)))
    return Transition(
        a.conj(s.entry(e), once, a.successor(s.committed_length(), i)),
        {
            "committed": lambda x: a.disj(x == e, s.committed(x)),
            "position": set_at(a, s.position, e, i),
            "committed_length": lambda: i,
        },
    )


@action(n=NODE, i=INDEX)
def apply(a: Algebra, s: Symbols, n: Value, i: Value) -> Transition:
    """A server applies the next committed entry (state_machine_safety)."""
    return Transition(
        a.conj(a.rigid.server(n), a.successor(s.applied_length(n), i), a.le(i, s.committed_length())),
        {"applied_length": set_at(a, s.applied_length, n, i)},
    )


@action(n=NODE, x=NODE)
def believe(a: Algebra, s: Symbols, n: Value, x: Value) -> Transition:
    """Raft tells a server who leads; it may be wrong or late."""
    return Transition(a.rigid.server(n), {"believes": lambda m, y: a.ite(m == n, y == x, s.believes(m, y))})


@action(n=NODE)
def doubt(a: Algebra, s: Symbols, n: Value) -> Transition:
    """A server knows no leader."""
    return Transition(True, {"believes": lambda m, y: a.conj(m != n, s.believes(m, y))})


@action(n=NODE)
def crash(a: Algebra, s: Symbols, n: Value) -> Transition:
    """An agent forgets everything. Its clients see their connections close; other callers may, or may wait for ever."""

    def kept(phase: str) -> Callable[[Value], Value]:
        return lambda c: a.conj(a.rigid.agent(c) != n, getattr(s, phase)(c))

    def unknown(c: Value) -> Value:
        busy = a.disj(*(getattr(s, phase)(c) for phase in PHASES))
        return a.disj(s.unknown(c), a.conj(a.rigid.agent(c) == n, a.rigid.from_client(c), busy))

    return Transition(
        True,
        {
            **{phase: kept(phase) for phase in PHASES},
            "unknown": unknown,
            "believes": lambda m, y: a.conj(m != n, s.believes(m, y)),
            "applied_length": set_at(a, s.applied_length, n, a.genesis),
        },
    )


ACTIONS: Final = (
    accept,
    handle_call,
    append,
    begin_read,
    confirm_read,
    lease_read,
    answer_read,
    stale_read,
    refuse_forwarded,
    dial,
    send_call,
    dial_failed,
    handle_refusal,
    handle_reply,
    connection_lost,
    hold_timeout,
    leadership_lost,
    acknowledge,
    commit,
    apply,
    believe,
    doubt,
    crash,
)
