"""Runs of the whole protocol from the initial state: what mutants break, and what the protocol can do.

As in `bounded`; a mutant's run is looked for in the smallest composition that has its rule (membership changes only,
with snapshots, with leases), so that runs stay short. Every composition's behaviours with more rules are fewer, but for
the rule that is missing.

Source of `no_own_term`: Ongaro, "bug in single-server membership changes", raft-dev, 2015: four servers, two leaders
that each remove another server, majorities {0, 2} of {0, 1, 2} and {1, 3} of {1, 2, 3}.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from model_checks.proofs import bounded, leases, membership, snapshot_lemmas, snapshots
from model_checks.proofs.algebra import Action, Signature, Symbols, System, Value
from model_checks.proofs.bounded import COMMIT, COPY, ELECTION, WRITE, Scenario
from model_checks.proofs.finite import FiniteAlgebra, Sizes
from model_checks.proofs.reads import RAFT


def _composition(signature: Signature, rigid: Signature, actions: tuple[Action, ...], part: str) -> System:
    """A part of the whole system without its proof: only runs are looked for."""
    initial, axioms = {
        "membership": (membership.initial, membership.axioms),
        "snapshots": (snapshots.initial, membership.axioms),
        "leases": (leases.initial, leases.axioms),
    }[part]
    return System(
        signature={**RAFT.signature, **signature},
        rigid={**RAFT.rigid, **membership.RIGID, **rigid},
        initial=initial,
        actions=actions,
        lemmas=(),
        theorems=(*RAFT.theorems, *snapshot_lemmas.THEOREMS),
        changes=(),
        steps=(),
        axioms=axioms,
    )


_UP_TO_SNAPSHOTS: Final = {**membership.SIGNATURE, **snapshots.SIGNATURE}
MEMBERSHIP: Final = _composition(membership.SIGNATURE, {}, membership.ACTIONS, "membership")
SNAPSHOTS: Final = _composition(_UP_TO_SNAPSHOTS, snapshots.RIGID, snapshots.ACTIONS, "snapshots")
LEASES: Final = _composition(
    {**_UP_TO_SNAPSHOTS, **leases.SIGNATURE}, {**snapshots.RIGID, **leases.RIGID}, leases.ACTIONS, "leases"
)

OF_FOUR: Final = ("timeout", *("update_term", "grant_vote") * 2, "become_leader")
DECIDED: Final = ("decide_vote", "decide_vote", *ELECTION)
ROUND: Final = ("begin_round", "hear_round", "confirm_round")
LEASED: Final = ("tick", *DECIDED, *COMMIT, *ROUND)
ONE: Final = ((0, 1, 2),)


def stale_read(*actions: str, terms: int = 3, times: int = 3) -> tuple[System, Scenario]:
    """A run with leases, after which a leader answers a read by its lease and misses what is committed."""
    sizes = Sizes(terms=terms, indexes=3, values=1, messages=2, reads=1, configurations=ONE, rounds=1, times=times)
    return LEASES, Scenario((*actions, "lease_read"), sizes, "read_linearizable")


VIOLATIONS: Final[Mapping[str, tuple[System, Scenario]]] = {
    **{name: (RAFT, run) for name, run in bounded.VIOLATIONS.items() if name != "no_quorum"},
    "no_own_term": (
        MEMBERSHIP,
        Scenario(
            (
                *OF_FOUR,
                *("change_configuration", "append_own"),
                *OF_FOUR,
                *("change_configuration", "append_own", *COPY, "advance_commit"),
                *ELECTION,
            ),
            Sizes(4, 4, 2, 3, 1, 1, configurations=((0, 1, 2, 3), (0, 1, 2), (1, 2, 3))),
            "leader_completeness",
        ),
    ),
    "no_previous_committed": (
        MEMBERSHIP,
        Scenario(
            (*ELECTION, *COMMIT, *("change_configuration",) * 2, "append_own", "advance_commit", *ELECTION),
            Sizes(3, 3, 4, 3, 1, 1, configurations=((0, 1, 2), (0, 1), (0,))),
            "leader_completeness",
        ),
    ),
    "any_change": (
        MEMBERSHIP,
        Scenario(
            (*ELECTION, *COMMIT, "change_configuration", "append_own", "advance_commit", *ELECTION),
            Sizes(3, 3, 3, 2, 1, 1, configurations=((0, 1, 2), (0,))),
            "leader_completeness",
        ),
    ),
    "votes_of_any_configuration": (
        MEMBERSHIP,
        Scenario(
            ("timeout", "timeout", "become_leader", "become_leader"),
            Sizes(3, 3, 2, 2, 1, 1, configurations=((0, 1, 2), (0,), (1,))),
            "election_safety",
        ),
    ),
    "commits_of_any_configuration": (
        MEMBERSHIP,
        Scenario(
            (*ELECTION, *WRITE, "advance_commit", *ELECTION),
            Sizes(3, 3, 2, 2, 1, 1, configurations=((0, 1, 2), (0,))),
            "leader_completeness",
        ),
    ),
    "snapshot_drops_suffix": (
        SNAPSHOTS,
        Scenario(
            (
                *(*ELECTION, *COMMIT, "apply_own", "take_snapshot_own", "send_snapshot"),
                *(*WRITE, *COPY, "recv_snapshot", "advance_commit", *ELECTION),
            ),
            Sizes(3, 3, 3, 1, 3, 1, configurations=ONE),
            "leader_completeness",
        ),
    ),
    "older_snapshot": (
        SNAPSHOTS,
        Scenario(
            (
                *(*ELECTION, *COMMIT, "apply_own", "take_snapshot_own", "send_snapshot", *WRITE, *COPY),
                *("advance_commit", "send_append", "apply_told", "apply_told", "take_snapshot_told", "compact"),
                *("recv_snapshot", *ELECTION),
            ),
            Sizes(3, 3, 3, 1, 4, 1, configurations=ONE),
            "leader_completeness",
        ),
    ),
    "snapshot_uncommitted": (
        SNAPSHOTS,
        Scenario(
            (*ELECTION, "client_request", *COPY, "take_snapshot_told", *ELECTION, *COMMIT, "apply_own"),
            Sizes(3, 3, 2, 2, 2, 1, configurations=ONE),
            "snapshot_safety",
        ),
    ),
    "compact_beyond_snapshot": (
        SNAPSHOTS,
        Scenario(
            (
                *(*ELECTION, "client_request", *COPY, "compact"),
                *(*ELECTION, *WRITE, "update_term", *COPY, "advance_commit"),
            ),
            Sizes(3, 3, 2, 2, 2, 1, configurations=ONE),
            "durability",
        ),
    ),
    "no_check_quorum": stale_read(*LEASED, *DECIDED, *COMMIT),
    "restart_votes_at_once": stale_read(*LEASED, "restart", *DECIDED, *COMMIT),
    "transfer_with_lease": stale_read(*LEASED, "transfer_leadership", *("decide_vote_urged",) * 2, *ELECTION, *COMMIT),
    "endless_lease": stale_read(*LEASED, "tick", *DECIDED, *COMMIT),
    "long_lease": stale_read(*LEASED, "tick", *DECIDED, *COMMIT),
    "lease_from_reply": stale_read(
        *("tick", *DECIDED, *COMMIT, "begin_round", "hear_round", "tick", "confirm_round"),
        *(*DECIDED, *COMMIT),
        times=4,
    ),
    "lease_without_own_commit": stale_read("tick", *DECIDED, *COMMIT, *DECIDED, *ROUND),
    "round_without_term_check": stale_read("tick", *DECIDED, *COMMIT, *DECIDED, *COMMIT, *ROUND),
    "urged_by_older_lease": stale_read(
        *("tick", *DECIDED, "step_down", *DECIDED, *COMMIT, *ROUND),
        *(*("decide_vote_urged",) * 2, *ELECTION, *COMMIT),
        terms=4,
    ),
}
"""For every mutant a run that breaks a theorem."""

WITNESS: Final = Scenario(
    (
        *("tick", "ask_prevote", "grant_prevote", "grant_prevote", *DECIDED, *COMMIT),
        *("change_configuration", "append_own", *COPY, "advance_commit"),
        *("apply_own", "apply_own", "take_snapshot_own", "compact", "send_snapshot", "update_term", "recv_snapshot"),
        *(*ROUND, "lease_read"),
    ),
    Sizes(3, 2, 3, 2, 3, 1, configurations=((0, 1, 2), (0, 1)), rounds=1, times=3),
)
"""The protocol itself: a configuration is changed, a third server installs a snapshot, a lease read is answered."""


def witnessed(a: FiniteAlgebra, s: Symbols) -> Value:
    """The end of `WITNESS`."""
    return a.conj(s.read_confirmed(0), a.lt(1, s.base(2)), a.neg(s.leader(2)))
