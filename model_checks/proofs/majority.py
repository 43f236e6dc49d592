"""Any two majorities of the same servers have a common member: what the proof assumes of quorums, itself proved.

(And what it assumes of clocks: case "clocks", `drift`.)

By induction over the servers. Go through them one by one, and count those seen (all), those in q, in p, and in both.
The claim "in q + in p <= all + in both" (inclusion and exclusion) holds of none (base); one more server, in whatever
sets, keeps it (step). At the end 2*q > all and 2*p > all give in both > 0 (conclusion). Z3 proves the three for all
integers; that they amount to the claim for every finite set is the induction scheme, an argument outside Z3.

*Adjacent configurations*, which differ by at most one server, are treated alike: go through the servers of either, and
count also those of each configuration and those of only one. A majority of one and a majority of the other then have a
common member, which is why single-server changes need no joint consensus (Ongaro 2014, section 4.1, figure 4.3).

Enumerating sizes would prove it for these sizes only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import z3

from model_checks.proofs import drift

Counts = tuple[Any, Any, Any, Any]


def claim(counts: Counts) -> Any:
    """Inclusion and exclusion, over (all, in q, in p, in both)."""
    everybody, in_q, in_p, in_both = counts
    return in_q + in_p <= everybody + in_both


def next_server(counts: Counts, is_in_q: Any, is_in_p: Any) -> Counts:
    """The counts after one more server."""
    everybody, in_q, in_p, in_both = counts

    def one(condition: Any) -> Any:
        return z3.If(condition, 1, 0)

    return everybody + 1, in_q + one(is_in_q), in_p + one(is_in_p), in_both + one(z3.And(is_in_q, is_in_p))


def is_majority(members: Any, everybody: Any) -> Any:
    """More than half, as `spec.raft.types.Configuration.is_quorum` counts."""
    return 2 * members > everybody


def adjacent_claim(counts: Sequence[Any]) -> Any:
    """Over (all, in c, in d, in only one, in q, in p, in both q and p), where q is of servers of c and p of d."""
    everybody, in_c, in_d, in_one, in_q, in_p, in_both = counts
    return z3.And(in_q + in_p <= everybody + in_both, 2 * everybody == in_c + in_d + in_one)


def adjacent(case: str, mutant: str | None) -> list[Any]:
    """The three cases for two configurations. Mutant "any_change": they may differ by two servers."""
    counts = z3.Ints("everybody in_c in_d in_one in_q in_p in_both")
    everybody, in_c, in_d, in_one, in_q, in_p, in_both = counts
    match case:
        case "base":
            return [z3.Not(adjacent_claim([z3.IntVal(0)] * 7))]
        case "step":
            c, d, q, p = z3.Bools("is_in_c is_in_d is_in_q is_in_p")
            one = [z3.If(seen, 1, 0) for seen in (z3.BoolVal(True), c, d, z3.Xor(c, d), q, p, z3.And(q, p))]
            after = [count + more for count, more in zip(counts, one, strict=True)]
            given = [adjacent_claim(counts), z3.Or(c, d), z3.Implies(q, c), z3.Implies(p, d)]
            return [*given, z3.Not(adjacent_claim(after))]
        case "conclusion":
            differ = 2 if mutant == "any_change" else 1
            large = [is_majority(in_q, in_c), is_majority(in_p, in_d)]
            sane = [everybody >= 0, in_one >= 0, in_one <= differ]
            return [adjacent_claim(counts), *large, *sane, in_both <= 0]
        case _:
            raise ValueError(f"no case of the induction over servers is called {case}")


def formulas(case: str, mutant: str | None = None) -> list[Any]:
    """Unsatisfiable iff the case is proved. Mutant "no_quorum": any non-empty set will do."""
    if case == "clocks":
        return drift.formulas(mutant)
    if case.startswith("adjacent_"):
        return adjacent(case.removeprefix("adjacent_"), mutant)
    counts: Counts = tuple(z3.Ints("everybody in_q in_p in_both"))
    everybody, in_q, in_p, in_both = counts
    match case:
        case "base":
            return [z3.Not(claim((z3.IntVal(0),) * 4))]
        case "step":
            is_in_q, is_in_p = z3.Bools("is_in_q is_in_p")
            return [claim(counts), z3.Not(claim(next_server(counts, is_in_q, is_in_p)))]
        case "conclusion":
            sizes = (in_q, in_p)
            if mutant == "no_quorum":
                large = [size > 0 for size in sizes]
            else:
                large = [is_majority(size, everybody) for size in sizes]
            return [claim(counts), *large, everybody >= 0, in_both <= 0]
        case _:
            raise ValueError(f"no case of the induction over servers is called {case}")
