"""Clocks that drift: how long a lease may last if followers withhold their votes for E of their own clocks.

Every clock runs at a rate between 1/(1+d) and 1+d of real time. The leader answers until its own clock shows L since
the round began; a follower that heard of the round no earlier refuses to vote until its own clock shows E. The leader
has stopped before the follower votes if L * (1+d)^2 < E: that is `lease_end(x) < vote_from(x)` of the relational
model. L * (1+d) < E is not enough: one clock may be slow while the other is fast.

Proved by Z3 for all real numbers. Source: Ongaro 2014, section 6.4.1 ("assumes a bound on clock drift").
"""

from __future__ import annotations

from typing import Any

import z3


def bound(lease: Any, election: Any, drift: Any) -> Any:
    """What the configuration of a server must satisfy."""
    return lease * (1 + drift) * (1 + drift) < election


def formulas(mutant: str | None = None) -> list[Any]:
    """Unsatisfiable iff the bound is enough. Mutant "long_lease": only one clock is thought to drift."""
    lease, election, drift = z3.Reals("lease election drift")
    leader_rate, follower_rate, leader_stops, follower_votes = z3.Reals(
        "leader_rate follower_rate leader_stops follower_votes"
    )
    rates = [z3.And(rate * (1 + drift) >= 1, rate <= 1 + drift) for rate in (leader_rate, follower_rate)]
    shown = [leader_stops * leader_rate == lease, follower_votes * follower_rate == election]
    enough = lease * (1 + drift) < election if mutant == "long_lease" else bound(lease, election, drift)
    return [lease > 0, election > 0, drift >= 0, *rates, *shown, enough, leader_stops >= follower_votes]
