"""Named sets of explorations: which starts within which bounds. Together they take every action and show every witness.

A *leg* is one exhaustive exploration. The verdict of a profile merges those of its legs; a profile in which an action
was never taken or a `sometimes` property never seen tried too little and is UNKNOWN (`vacuous`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec
from msgspec.structs import replace

from model_checks.explore.judge import PROPERTIES
from model_checks.explore.results import Exploration, Limits, count_actions
from model_checks.explore.search import Engine, Progress, explore
from model_checks.explore.starts import LEASES, STARTS, voters
from spec.raft.actions import ACTIONS
from spec.raft.bounds import Bounds
from spec.raft.network import Protocol, Transition


class Leg(msgspec.Struct, frozen=True):
    """One exploration of a profile."""

    bounds: Bounds
    start: str = "initial"


ALONE: Final = Bounds(servers=2, max_term=2, max_log=0, max_issued=1)
"""Two servers that elect and nothing else."""
LEASED: Final = replace(LEASES, max_term=2, max_log=2, max_issued=1, max_time=4, lease_reads=("r1",))

SMALL_FEATURES: Final = (
    Leg(replace(ALONE, pre_vote=True, election_timeout=1, max_time=1)),
    Leg(replace(ALONE, pre_vote=True, election_timeout=2, lease=1, max_time=2, transfers=True)),
    Leg(replace(ALONE, election_timeout=2, lease=1, max_time=2, max_restarts=1, max_round=1, steps_down=True)),
    Leg(Bounds(max_term=1, max_log=2, max_issued=1, values=(), configurations=voters("s1 s2", "s2 s3")), "committed"),
    Leg(Bounds(max_term=1, max_log=2, max_issued=1, values=()), "leader_leaves"),
    Leg(
        Bounds(genesis=2, max_term=1, max_log=3, max_issued=1, values=(), configurations=voters("s1 s2 s3")), "learner"
    ),
    Leg(Bounds(max_term=1, max_log=1, max_issued=1, snapshots=True, max_restarts=1), "compacted"),
    Leg(Bounds(max_term=2, max_log=1, max_issued=1, snapshots=True, max_restarts=1), "conflicting"),
    Leg(Bounds(max_term=1, max_log=2, max_issued=1, snapshots=True), "two_snapshots"),
    Leg(LEASED, "leased"),
)
"""Pre-vote and transfer; a server leaves, its leader leaves, a server gets a vote; snapshots; leases."""

VERIFY_FEATURES: Final = (
    Leg(replace(ALONE, pre_vote=True, max_restarts=1)),
    Leg(replace(ALONE, max_log=1, max_issued=2, pre_vote=True, election_timeout=1, max_time=2)),
    Leg(replace(ALONE, pre_vote=True, election_timeout=2, lease=1, max_time=2, max_restarts=1, steps_down=True)),
    Leg(Bounds(servers=2, genesis=1, max_term=1, max_log=3, max_issued=1, configurations=voters("s1 s2", "s1"))),
    Leg(Bounds(servers=2, genesis=1, max_term=2, max_log=3, max_issued=1, configurations=voters("s1 s2", "s2"))),
    Leg(Bounds(genesis=1, max_term=1, max_log=4, max_issued=1, configurations=voters("s1 s2", "s2"))),
    Leg(Bounds(max_term=2, max_log=3, max_issued=1, values=(), configurations=voters("s1 s2", "s2")), "committed"),
    Leg(Bounds(max_term=2, max_log=2, max_issued=1, values=()), "leader_leaves"),
    Leg(
        Bounds(servers=4, max_term=3, max_log=2, max_issued=1, values=(), configurations=voters("s2 s3 s4")), "own_term"
    ),
    Leg(Bounds(servers=2, max_term=2, max_log=2, max_issued=1, snapshots=True)),
    Leg(Bounds(servers=2, max_term=1, max_log=2, max_issued=1, snapshots=True, max_restarts=1)),
    Leg(Bounds(max_term=1, max_log=1, max_issued=1, snapshots=True)),
    Leg(Bounds(max_term=2, max_log=1, max_issued=1, snapshots=True), "compacted"),
    Leg(Bounds(max_term=1, max_log=2, max_issued=1, snapshots=True), "kept_suffix"),
    Leg(Bounds(max_term=1, max_log=2, max_issued=1, snapshots=True, max_restarts=1), "two_snapshots"),
    Leg(Bounds(max_term=2, max_log=2, max_issued=1, snapshots=True), "conflicting"),
    Leg(replace(LEASED, servers=2, max_log=1, max_time=3, max_round=1, reads=("r1",), transfers=True)),
    Leg(replace(LEASED, servers=2, max_log=1, max_time=3, max_round=1, max_restarts=1)),
    Leg(replace(LEASED, max_time=6), "challenged"),
    Leg(LEASED, "transferring"),
    Leg(replace(LEASED, max_time=6), "lease_over"),
)

DEEP_FEATURES: Final = (
    Leg(Bounds(max_term=2, max_log=3, max_issued=1), "leader_leaves"),
    Leg(Bounds(genesis=2, max_term=2, max_log=3, max_issued=1, configurations=voters("s1 s2 s3")), "learner"),
    Leg(Bounds(max_term=2, max_log=2, max_issued=1, snapshots=True), "diverged"),
    Leg(Bounds(max_term=2, max_log=2, max_issued=1, snapshots=True, max_restarts=1), "conflicting"),
    Leg(replace(LEASED, max_restarts=1), "leased"),
    Leg(replace(LEASED, max_time=6), "leased"),
)

SMALL: Final = (
    *SMALL_FEATURES,
    Leg(Bounds(max_term=1, max_issued=1)),
    Leg(Bounds(servers=2, max_term=2, max_restarts=1)),
    Leg(Bounds(servers=2, max_term=2, max_issued=1, reads=("r1",))),
    Leg(Bounds(max_term=2, max_restarts=1), "diverged"),
    Leg(Bounds(max_term=4, max_log=2, max_issued=1), "figure_8"),
    Leg(Bounds(max_term=3, max_issued=1), "orphaned"),
)
"""A second or two: for a quick look, and for linking while one works on it."""

VERIFY: Final = (
    *SMALL,
    *VERIFY_FEATURES,
    Leg(Bounds(max_term=2, max_issued=1)),
    Leg(Bounds(max_term=1, reads=("r1",))),
    Leg(Bounds(servers=2, max_term=2, max_log=2, max_issued=3, max_restarts=1)),
    Leg(Bounds(max_term=1, max_restarts=1, reads=("r1",)), "elected"),
    Leg(Bounds(max_term=2, max_log=2, max_issued=1, reads=("r1",)), "deposed_leader"),
    Leg(Bounds(max_term=3, max_issued=1), "deposed_leader"),
    Leg(Bounds(max_term=1, max_log=2, max_restarts=1), "replicated"),
    Leg(Bounds(max_term=3, max_issued=1, max_restarts=1), "orphaned"),
)
"""What `comitia verify` runs."""

DEEP: Final = (
    *VERIFY,
    *DEEP_FEATURES,
    Leg(Bounds(max_term=2)),
    Leg(Bounds(max_term=1, max_log=2, max_restarts=1)),
    Leg(Bounds(max_term=4, max_log=2), "figure_8"),
    Leg(Bounds(max_term=2, max_log=2, max_issued=1), "replicated"),
    Leg(Bounds(max_term=1, max_issued=1, max_restarts=1, reads=("r1",)), "replicated"),
)
"""Minutes, and some gigabytes of memory."""

PROFILES: Final[Mapping[str, tuple[Leg, ...]]] = {"small": SMALL, "verify": VERIFY, "deep": DEEP}


def run_legs(
    legs: Iterable[Leg],
    *,
    protocol: Protocol = ACTIONS,
    properties: Iterable[str] = PROPERTIES,
    limits: Limits | None = None,
    engine: Engine = Engine.INTERNED,
    progress: Callable[[Leg], Progress] | None = None,
) -> list[Exploration]:
    """Explore each leg, up to the first that finds a counterexample.

    `progress(leg)` is asked for each leg's own callback. Four servers are too many for the compiled search's words:
    such legs are interpreted.
    """
    results: list[Exploration] = []
    for leg in legs:
        results.append(
            explore(
                leg.bounds,
                protocol=protocol,
                start=STARTS[leg.start](leg.bounds),
                start_name=leg.start,
                properties=properties,
                limits=limits,
                engine=Engine.INTERNED if engine is Engine.COMPILED and leg.bounds.servers > 3 else engine,
                progress=None if progress is None else progress(leg),
            )
        )
        if results[-1].counterexample is not None:
            break
    return results


def local_transitions(results: Iterable[Exploration]) -> list[Transition]:
    """Every distinct local step met in any of the explorations, once: what linking consumes."""
    return list(dict.fromkeys(step for result in results for step in result.local_transitions))


def never_taken(transitions: Iterable[Transition]) -> list[str]:
    """The spec's actions of which there is no step."""
    return [action for action, count in count_actions(transitions).items() if count == 0]


def never_seen(results: Iterable[Exploration]) -> list[str]:
    """The `sometimes` properties that no exploration witnessed."""
    totals: dict[str, int] = {}
    for result in results:
        for name, count in result.witnesses.items():
            totals[name] = totals.get(name, 0) + count
    return [name for name, count in totals.items() if count == 0]
