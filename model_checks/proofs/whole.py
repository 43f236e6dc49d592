"""The rest of Raft, composed: static Raft with reads, membership changes, snapshots, leases with transfer, pre-vote.

Each part refines the actions of the parts before it (`membership`, `snapshots`, `leases`, `prevote`), adds its own, and
adds the lemmas that it needs. Static Raft is the special case in which the configuration never changes.

The server is the durable point, as in `model`. The readable spec is linked to this system (`linking`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from model_checks.proofs import (
    lease_lemmas,
    leases,
    membership,
    membership_lemmas,
    prevote,
    signature,
    snapshot_lemmas,
    snapshots,
)
from model_checks.proofs.algebra import MAJORITIES, System
from model_checks.proofs.finite import Sizes
from model_checks.proofs.reads import RAFT

MUTANTS: Final[Mapping[str, str]] = {
    **{name: text for name, text in signature.MUTANTS.items() if name != "no_quorum"},
    **membership.MUTANTS,
    **snapshots.MUTANTS,
    **leases.MUTANTS,
}
"""Weakened protocols that the proof must reject; "no_quorum" is a matter of `any_change` here."""

IMPLIED: Final[Mapping[str, str]] = {
    "commit_later": "follows by an induction on (term of the commit, index, later term) that is not carried out here"
}
"""Lemmas that small sorts do not show to be needed."""

SIZES: Final = Sizes(
    terms=4, indexes=4, values=3, messages=1, reads=1, rounds=1, configurations=((0, 1, 2), (0, 1), (0,))
)
"""Small sorts for counterexamples: the first and the last of three configurations have quorums that do not meet."""

WHOLE: Final = System(
    signature={
        **RAFT.signature,
        **membership.SIGNATURE,
        **snapshots.SIGNATURE,
        **leases.SIGNATURE,
        **prevote.SIGNATURE,
    },
    rigid={**RAFT.rigid, **membership.RIGID, **snapshots.RIGID, **leases.RIGID, **prevote.RIGID},
    initial=prevote.initial,
    actions=prevote.ACTIONS,
    lemmas=(
        *(lemma for lemma in RAFT.lemmas if lemma.name not in membership_lemmas.REPLACED),
        *membership_lemmas.LEMMAS,
        *snapshot_lemmas.LEMMAS,
        *lease_lemmas.LEMMAS,
    ),
    theorems=(*RAFT.theorems, *snapshot_lemmas.THEOREMS),
    changes=(*RAFT.changes, *snapshot_lemmas.CHANGES),
    steps=lease_lemmas.STEPS,
    axioms=leases.axioms,
    majorities=(*MAJORITIES, *(f"adjacent_{case}" for case in MAJORITIES), "clocks"),
)
