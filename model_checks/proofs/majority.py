"""Any two majorities of the same servers have a common member: what the proof assumes of quorums, itself proved.

By induction over the servers. Go through them one by one, and count those seen (all), those in q, in p, and in both.
The claim "in q + in p <= all + in both" (inclusion and exclusion) holds of none (base); one more server, in whatever
sets, keeps it (step). At the end 2*q > all and 2*p > all give in both > 0 (conclusion). Z3 proves the three for all
integers; that they amount to the claim for every finite set is the induction scheme, an argument outside Z3.

Enumerating sizes would prove it for these sizes only.
"""

from __future__ import annotations

from typing import Any

import z3

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
    """More than half, as `spec.raft.types.Constants.is_quorum` counts."""
    return 2 * members > everybody


def formulas(case: str, mutant: str | None = None) -> list[Any]:
    """Unsatisfiable iff the case is proved. Mutant "no_quorum": any non-empty set will do."""
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
