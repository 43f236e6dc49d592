"""The rest of Raft, composed: membership changes on top of static Raft with reads."""

from __future__ import annotations

from typing import Final

from model_checks.proofs import membership, membership_lemmas
from model_checks.proofs.algebra import System
from model_checks.proofs.reads import RAFT

WHOLE: Final = System(
    signature={**RAFT.signature, **membership.SIGNATURE},
    rigid={**RAFT.rigid, **membership.RIGID},
    initial=membership.initial,
    actions=membership.ACTIONS,
    lemmas=(
        *(lemma for lemma in RAFT.lemmas if lemma.name not in membership_lemmas.REPLACED),
        *membership_lemmas.LEMMAS,
    ),
    theorems=RAFT.theorems,
    changes=RAFT.changes,
    steps=membership_lemmas.STEPS,
    axioms=membership.axioms,
    majorities=("base", "step", "conclusion", "adjacent_base", "adjacent_step", "adjacent_conclusion"),
)
