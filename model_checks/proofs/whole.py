"""The rest of Raft, composed: membership changes and snapshots on top of static Raft with reads."""

from __future__ import annotations

from typing import Final

from model_checks.proofs import lease_lemmas, leases, membership, membership_lemmas, snapshot_lemmas, snapshots
from model_checks.proofs.algebra import System
from model_checks.proofs.reads import RAFT

WHOLE: Final = System(
    signature={**RAFT.signature, **membership.SIGNATURE, **snapshots.SIGNATURE, **leases.SIGNATURE},
    rigid={**RAFT.rigid, **membership.RIGID, **leases.RIGID},
    initial=leases.initial,
    actions=leases.ACTIONS,
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
    majorities=("base", "step", "conclusion", "adjacent_base", "adjacent_step", "adjacent_conclusion"),
)
