"""The steps that replace "any two quorums intersect" where configurations change.

Two logs that each hold the commit that allowed the other's latest configuration have equal or adjacent configurations
(`adjacent_logs`). From that follow, each by an induction of its own and through the same cuts:

- a winner holds all that earlier leaders committed (`winner_holds`), and nobody else leads its term;
- every later leader already holds what is being committed (`commit_kept`);
- nobody had been elected in a later term when a confirmed read began (`read_current`).

That these inductions, on terms and indexes, are sound is an argument outside Z3: both are natural numbers.

Source: Ongaro 2014, section 4.1 and appendix B.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from model_checks.proofs import lemmas, steps
from model_checks.proofs.algebra import Algebra, Cut, Hints, Instances, Order, Sort, Statement, Step, Symbols, Value
from model_checks.proofs.membership import adjacent, on_disk
from model_checks.proofs.membership_lemmas import chained

NODE, INDEX, TERM = Sort.NODE, Sort.INDEX, Sort.TERM

Pair = Callable[..., tuple[tuple[Value, Value], tuple[Value, Value]]]
"""Two logs as (term, index of the end), from (algebra, state, *arguments, *unknowns)."""

# -------------------------------------------------------------------------------------------------- consequences


def tlogs_agree(a: Algebra, s: Symbols) -> Statement:
    """Two terms' logs with an entry of the same index and term are the same up to it."""

    def body(t: Value, u: Value, i: Value, j: Value) -> Value:
        both = a.conj(s.elected(t), s.elected(u), a.le(i, s.tlog_length(t)), a.le(i, s.tlog_length(u)))
        same = a.conj(s.tlog_term(t, j) == s.tlog_term(u, j), s.tlog_value(t, j) == s.tlog_value(u, j))
        return a.implies(a.conj(both, a.le(j, i), s.tlog_term(t, i) == s.tlog_term(u, i)), same)

    def patterns(t: Value, u: Value, i: Value, j: Value) -> list[list[Value]]:
        ends = [s.tlog_term(t, i), s.tlog_term(u, i)]
        return [[*ends, s.tlog_term(t, j)], [*ends, s.tlog_value(t, j)]]

    return Statement((TERM, TERM, INDEX, INDEX), body, patterns)


def tlogs_agree_by(
    a: Algebra, s: Symbols, t: Value, u: Value, i: Value, j: Value
) -> list[tuple[str, tuple[Value, ...]]]:
    """Both are the log of the entry's term."""
    return [(name, args) for x in (t, u) for name, args in (("tlog_prefix", (x, i, j)), ("tlog_genesis", (x,)))]


def disk_chain(a: Algebra, s: Symbols) -> Statement:
    """A disk holds the births of its configurations, and before each the commit that allowed it."""

    def body(n: Value, i: Value, j: Value) -> Value:
        chain = chained(a, s, lambda k: s.log_term(n, k), lambda k: s.log_value(n, k), i, j)
        return a.implies(a.le(i, s.log_length(n)), chain)

    def patterns(n: Value, i: Value, j: Value) -> list[list[Value]]:
        c = a.rigid.configuration(s.log_value(n, i))
        return [[c, s.log_term(n, j)], [c, s.log_value(n, j)]]

    return Statement((NODE, INDEX, INDEX), body, patterns)


def disk_chain_by(a: Algebra, s: Symbols, n: Value, i: Value, j: Value) -> list[tuple[str, tuple[Value, ...]]]:
    """Up to i the disk is the log of the entry's term."""
    t = s.log_term(n, i)
    c = a.rigid.configuration(s.log_value(n, i))
    places = (i, j, a.rigid.birth_index(c), a.rigid.allowed_by(c))
    return [
        ("log_entry", (n, i)),
        ("log_genesis", (n,)),
        ("log_first_value", (n,)),
        ("tlog_genesis", (t,)),
        *(("log_prefix", (n, i, place)) for place in places),
        *(("configuration_chain", (t, i, place)) for place in places),
    ]


def allowed_in(a: Algebra, s: Symbols, t: Value, last: Value, c: Value) -> Value:
    """The log of term t holds, up to `last`, the commit that allowed configuration c (or c is the first one)."""
    r = a.rigid
    held = a.conj(a.le(r.allowed_by(c), last), s.tlog_term(t, r.allowed_by(c)) == r.birth_term(c))
    return a.disj(r.birth_index(c) == a.genesis, held)


def at(a: Algebra, s: Symbols, t: Value, i: Value) -> Value:
    """The configuration in force at index i of the log of term t."""
    return a.rigid.configuration(s.tlog_value(t, i))


def adjacent_logs(a: Algebra, s: Symbols) -> Statement:
    """Two logs that hold the commits that allowed each other's latest configurations: these are equal or adjacent."""

    def body(w: Value, x: Value, t: Value, y: Value) -> Value:
        c, d = at(a, s, w, x), at(a, s, t, y)
        logs = a.conj(s.elected(w), s.elected(t), a.le(x, s.tlog_length(w)), a.le(y, s.tlog_length(t)))
        each = a.conj(allowed_in(a, s, t, y, c), allowed_in(a, s, w, x, d))
        return a.implies(a.conj(logs, each), adjacent(a, c, d))

    return Statement((TERM, INDEX, TERM, INDEX), body, lambda w, x, t, y: [[at(a, s, w, x), at(a, s, t, y)]])


def adjacent_logs_by(
    a: Algebra, s: Symbols, w: Value, x: Value, t: Value, y: Value
) -> list[tuple[str, tuple[Value, ...]]]:
    """All that the lemmas say of the eight places where something happens in the two logs."""
    r = a.rigid
    pair = (at(a, s, w, x), at(a, s, t, y))
    places = [x, y, *(f(c) for c in pair for f in (r.birth_index, r.allowed_by))]
    places += [r.birth_index(r.previous(c)) for c in pair]
    found: list[tuple[str, tuple[Value, ...]]] = [("tlog_genesis", (w,)), ("tlog_genesis", (t,))]
    for u in (w, t):
        found += [("configuration_chain", (u, end, j)) for end in (x, y) for j in places]
        found += [("tlog_ordered", (u, i, j)) for i in places for j in places]
    return found + [("tlogs_agree", (w, t, i, j)) for i in places for j in places]


# ----------------------------------------------------------------------------------- inductions over common voters


def meeting(pair: Pair) -> tuple[Cut, ...]:
    """The cuts by which two logs' latest configurations are seen to be equal or adjacent."""

    def first(a: Algebra, s: Symbols, *values: Value) -> Value:
        (w, x), (t, y) = pair(a, s, *values)
        return allowed_in(a, s, t, y, at(a, s, w, x))

    def second(a: Algebra, s: Symbols, *values: Value) -> Value:
        (w, x), (t, y) = pair(a, s, *values)
        return allowed_in(a, s, w, x, at(a, s, t, y))

    def meet(a: Algebra, s: Symbols, *values: Value) -> Value:
        (w, x), (t, y) = pair(a, s, *values)
        return adjacent(a, at(a, s, w, x), at(a, s, t, y))

    return Cut("first_allowed", first), Cut("second_allowed", second), Cut("adjacent", meet)


def seen_places(pair: Pair) -> Hints:
    """The terms that the cuts are about."""

    def places(a: Algebra, s: Symbols, *values: Value) -> Sequence[Value]:
        (w, x), (t, y) = pair(a, s, *values)
        ends = (at(a, s, w, x), at(a, s, t, y))
        logs = (w, t, *(a.rigid.birth_term(c) for c in ends))
        allowed = [s.tlog_term(u, a.rigid.allowed_by(c)) for c in ends for u in logs]
        return [*ends, s.tlog_term(w, x), s.tlog_term(t, y), *allowed]

    return places


def lexicographic(a: Algebra, xs: Sequence[Value], ys: Sequence[Value]) -> Value:
    """An earlier term, or an earlier index of the same."""
    return a.disj(a.lt(xs[0], ys[0]), a.conj(xs[0] == ys[0], a.lt(xs[1], ys[1])))


def earlier_term(a: Algebra, xs: Sequence[Value], ys: Sequence[Value]) -> Value:
    """An earlier term."""
    return a.lt(xs[0], ys[0])


def winner_holds(a: Algebra, s: Symbols, n: Value, q: Value) -> Statement:
    """A winner's disk holds all that leaders of earlier terms committed."""

    def body(t: Value, i: Value) -> Value:
        held = a.conj(a.le(i, s.log_length(n)), s.log_term(n, i) == t)
        return a.implies(a.conj(s.committed(t, i), a.lt(t, s.current_term(n))), held)

    return Statement((TERM, INDEX), body, lambda t, i: [[s.committed(t, i)]])


def winner_first_allowed(a: Algebra, s: Symbols, n: Value, q: Value, t: Value, i: Value) -> Value:
    """What allowed the winner's configuration is in the log of the commit."""
    return allowed_in(a, s, t, s.commit_length(t, i), on_disk(a, s, n))


def disk_allows(a: Algebra, s: Symbols, n: Value, c: Value) -> Value:
    """The disk holds the commit that allowed configuration c (or c is the first one)."""
    r = a.rigid
    held = a.conj(a.le(r.allowed_by(c), s.log_length(n)), s.log_term(n, r.allowed_by(c)) == r.birth_term(c))
    return a.disj(r.birth_index(c) == a.genesis, held)


def winner_second_allowed(a: Algebra, s: Symbols, n: Value, q: Value, t: Value, i: Value) -> Value:
    """What allowed the configuration of the commit is on the winner's disk."""
    return disk_allows(a, s, n, at(a, s, t, s.commit_length(t, i)))


def winner_adjacent(a: Algebra, s: Symbols, n: Value, q: Value, t: Value, i: Value) -> Value:
    """The two configurations are equal or adjacent."""
    return adjacent(a, on_disk(a, s, n), at(a, s, t, s.commit_length(t, i)))


def disk_adjacent(a: Algebra, s: Symbols) -> Statement:
    """A disk and a term's log that hold the commits that allowed each other's latest configurations: the same."""

    def body(n: Value, t: Value, y: Value) -> Value:
        c, d = on_disk(a, s, n), at(a, s, t, y)
        each = a.conj(allowed_in(a, s, t, y, c), disk_allows(a, s, n, d))
        return a.implies(a.conj(s.elected(t), a.le(y, s.tlog_length(t)), each), adjacent(a, c, d))

    return Statement((NODE, TERM, INDEX), body, lambda n, t, y: [[s.log_length(n), at(a, s, t, y)]])


def disk_adjacent_by(a: Algebra, s: Symbols, n: Value, t: Value, y: Value) -> list[tuple[str, tuple[Value, ...]]]:
    """The disk is the log of its last entry's term."""
    last = s.log_length(n)
    w = s.log_term(n, last)
    d = at(a, s, t, y)
    r = a.rigid
    return [
        ("log_entry", (n, last)),
        ("log_genesis", (n,)),
        ("log_first_value", (n,)),
        ("tlog_genesis", (t,)),
        ("log_prefix", (n, last, last)),
        ("log_prefix", (n, last, r.allowed_by(d))),
        ("adjacent_logs", (w, last, t, y)),
        ("configuration_chain", (t, y, a.genesis)),
        ("configuration_chain", (t, y, y)),
    ]


def term_first_allowed(a: Algebra, s: Symbols, n: Value, q: Value) -> Value:
    """What allowed the winner's configuration is in the log of who leads its term already."""
    t = s.current_term(n)
    return allowed_in(a, s, t, s.first_length(t), on_disk(a, s, n))


def term_second_allowed(a: Algebra, s: Symbols, n: Value, q: Value) -> Value:
    """What allowed the configuration of who leads the term already is on the winner's disk."""
    t = s.current_term(n)
    return disk_allows(a, s, n, at(a, s, t, s.first_length(t)))


def term_adjacent(a: Algebra, s: Symbols, n: Value, q: Value) -> Value:
    """The two configurations are equal or adjacent."""
    t = s.current_term(n)
    return adjacent(a, on_disk(a, s, n), at(a, s, t, s.first_length(t)))


def winner_places(a: Algebra, s: Symbols, n: Value, q: Value, t: Value, i: Value) -> Sequence[Value]:
    """The places that the winner's cuts are about."""
    c, d = on_disk(a, s, n), at(a, s, t, s.commit_length(t, i))
    return [c, d, s.log_term(n, i), *disk_places(a, s, n, t, c, d)]


def term_places(a: Algebra, s: Symbols, n: Value, q: Value) -> Sequence[Value]:
    """The same for two winners of one term."""
    t = s.current_term(n)
    c, d = on_disk(a, s, n), at(a, s, t, s.first_length(t))
    return [c, d, s.tlog_term(t, s.first_length(t)), *disk_places(a, s, n, t, c, d)]


def disk_places(a: Algebra, s: Symbols, n: Value, t: Value, c: Value, d: Value) -> list[Value]:
    """Where the commits that allowed two configurations are, on a disk and in a log."""
    w = s.log_term(n, s.log_length(n))
    allowed = [a.rigid.allowed_by(x) for x in (c, d)]
    return [
        w,
        *(s.log_term(n, i) for i in allowed),
        *(s.tlog_term(u, i) for u in (t, w) for i in allowed),
        *(s.tlog_term(a.rigid.birth_term(x), a.rigid.allowed_by(x)) for x in (c, d)),
    ]


def commit_kept(a: Algebra, s: Symbols, n: Value, i: Value, q: Value) -> Statement:
    """Every later leader already holds what is being committed."""
    t = s.current_term(n)

    def body(u: Value) -> Value:
        return a.implies(a.conj(s.elected(u), a.lt(t, u)), lemmas.holds(a, s, u, t, i))

    return Statement((TERM,), body, lambda u: [[s.elected(u)]])


def commit_pair(
    a: Algebra, s: Symbols, n: Value, i: Value, q: Value, u: Value
) -> tuple[tuple[Value, Value], tuple[Value, Value]]:
    """The later leader when it was elected, and the leader that commits."""
    t = s.current_term(n)
    return (u, s.first_length(u)), (t, s.tlog_length(t))


def read_current(a: Algebra, s: Symbols, r: Value, q: Value) -> Statement:
    """Nobody had been elected in a later term when a read began that a quorum has confirmed."""
    return Statement(
        (TERM,),
        lambda u: a.implies(s.read_elected(r, u), a.le(u, a.rigid.read_term(r))),
        lambda u: [[s.read_elected(r, u)]],
    )


def read_pair(a: Algebra, s: Symbols, r: Value, q: Value, u: Value) -> tuple[tuple[Value, Value], tuple[Value, Value]]:
    """The later leader when it was elected, and the leader of the read."""
    t = a.rigid.read_term(r)
    return (u, s.first_length(u)), (t, s.tlog_length(t))


def step(
    statement: Callable[..., Statement],
    act: str | None = None,
    before: Order | None = None,
    *,
    cuts: tuple[Cut, ...] = (),
    hints: Hints | None = None,
    instances: Instances | None = None,
) -> Step:
    """A step called as the function that states it."""
    return Step(statement.__name__, statement.__doc__ or "", act, statement, before, cuts, hints, instances)


STEPS: Final = (
    *(known for known in steps.STEPS if known.name not in ("commit_later", "term_without_leader")),
    step(tlogs_agree, instances=tlogs_agree_by),
    step(disk_chain, instances=disk_chain_by),
    step(adjacent_logs, instances=adjacent_logs_by),
    step(disk_adjacent, instances=disk_adjacent_by),
    step(
        winner_holds,
        "become_leader",
        lexicographic,
        cuts=(
            Cut("first_allowed", winner_first_allowed),
            Cut("second_allowed", winner_second_allowed),
            Cut("adjacent", winner_adjacent),
        ),
        hints=winner_places,
    ),
    step(
        steps.term_without_leader,
        "become_leader",
        cuts=(
            Cut("first_allowed", term_first_allowed),
            Cut("second_allowed", term_second_allowed),
            Cut("adjacent", term_adjacent),
        ),
        hints=term_places,
    ),
    step(commit_kept, "advance_commit", earlier_term, cuts=meeting(commit_pair), hints=seen_places(commit_pair)),
    step(read_current, "confirm_read", earlier_term, cuts=meeting(read_pair), hints=seen_places(read_pair)),
)
"""Static Raft's steps, but for those that needed any two quorums to intersect, and what replaces them."""
