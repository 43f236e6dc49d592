"""What a proof run found: per theorem UNBOUNDED or not, the matrix of obligations, the verdict.

A theorem is UNBOUNDED if its own obligation and everything that makes the lemmas inductive is proved, for any number of
servers, terms, indexes and messages. If something is not proved and has no counterexample over small sorts either, the
theorem is only FINITE for these sizes, and the verdict is UNKNOWN. With a counterexample to induction it is INVALID.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from model_checks.proofs.algebra import System
from model_checks.proofs.bounded import Run
from model_checks.proofs.cti import Counterexample
from model_checks.proofs.finite import SIZES
from model_checks.proofs.obligations import Kind, Obligation
from model_checks.proofs.prover import Proof
from model_checks.verdicts import CheckResult, Verdict

CHECKER: Final = "prove"
SLOWEST: Final = 8


@dataclass(frozen=True, slots=True)
class Findings:
    """All that a run of the prover found."""

    proofs: Sequence[Proof]
    counterexamples: Sequence[Counterexample]
    unreachable: Sequence[str]
    """Actions that the lemmas forbid: empty, or the proof is vacuous."""
    witness: bool | None
    """Whether the correct protocol can commit, apply and read; None if it was not asked."""
    mutant: str | None
    trace: Run | None
    """The mutant's violation, from the initial state."""
    seed: int
    partial: bool
    """Only some obligations were asked for: nothing follows for the theorems."""
    seconds: float

    @property
    def unproved(self) -> list[Obligation]:
        """Obligations that no attempt proved, in order."""
        return sorted(proof.obligation for proof in self.proofs if not proof.proved)


def status(system: System, findings: Findings) -> dict[str, str]:
    """What is known of each theorem, two-state theorems included."""
    refuted = {found.obligation for found in findings.counterexamples}
    open_ = findings.unproved
    general = [o for o in open_ if o.kind not in (Kind.THEOREM, Kind.CHANGE)]
    names = [theorem.name for theorem in system.theorems] + [change.name for change in system.changes]
    words = {}
    for name in names:
        missing = [*general, *(o for o in open_ if o.kind in (Kind.THEOREM, Kind.CHANGE) and o.goal == name)]
        if not missing:
            words[name] = "UNBOUNDED"
        elif any(obligation in refuted for obligation in missing):
            words[name] = "NOT INDUCTIVE"
        else:
            words[name] = f"FINITE({SIZES})"
    return words


def matrix(findings: Findings) -> dict[str, dict[str, float | None]]:
    """action -> lemma -> milliseconds, None if it is not proved."""
    table: dict[str, dict[str, float | None]] = {}
    for proof in sorted(findings.proofs, key=lambda proof: proof.obligation):
        row = table.setdefault(proof.obligation.subject, {})
        row[proof.obligation.goal] = round(proof.milliseconds, 1) if proof.proved else None
    return table


def verdict(findings: Findings) -> tuple[Verdict, str]:
    """The verdict and its reason in one line."""
    unproved = findings.unproved
    if findings.trace is not None:
        return Verdict.INVALID, f"a run of {len(findings.trace.lines)} steps from the initial state breaks a theorem"
    if findings.counterexamples:
        keys = ", ".join(found.obligation.key for found in findings.counterexamples[:3])
        return Verdict.INVALID, f"counterexample to induction: {keys}"
    if any(obligation.kind is Kind.MAJORITY for obligation in unproved):
        return Verdict.INVALID, "two quorums need not intersect"
    if unproved:
        return Verdict.UNKNOWN, f"{len(unproved)} obligations are not proved, the first is {unproved[0].key}"
    if findings.unreachable:
        return Verdict.UNKNOWN, f"the lemmas forbid {', '.join(findings.unreachable)}: the proof is vacuous"
    if findings.witness is False:
        return Verdict.UNKNOWN, "the protocol cannot commit, apply and read: the model is empty"
    if not findings.proofs:
        return Verdict.UNKNOWN, "no obligation has that name"
    return Verdict.VALID, ""


def evidence(findings: Findings) -> str:
    """Counterexamples and the trace, for a person."""
    parts = [found.text for found in findings.counterexamples[:1]]
    if findings.trace is not None:
        parts.append(f"From the initial state, with the mutant {findings.mutant}:\n{findings.trace}")
    return "\n\n".join(parts)


def result(system: System, findings: Findings) -> CheckResult:
    """The run as a check's result."""
    answer, reason = verdict(findings)
    theorems = {} if findings.partial else status(system, findings)
    failed = [name for name, word in theorems.items() if word == "NOT INDUCTIVE"]
    slowest = sorted(findings.proofs, key=lambda proof: -proof.milliseconds)[:SLOWEST]
    figures: dict[str, Any] = {
        "obligations": len(findings.proofs),
        "proved": sum(proof.proved for proof in findings.proofs),
        "solver_runs": sum(proof.attempts for proof in findings.proofs),
        "solver_ms": round(sum(proof.milliseconds for proof in findings.proofs)),
        "seed": findings.seed,
        "mutant": findings.mutant,
        "lemmas": len(system.lemmas),
        "actions": len(system.actions),
        "theorems": theorems,
        "unproved": [obligation.key for obligation in findings.unproved],
        "slowest_ms": {proof.obligation.key: round(proof.milliseconds, 1) for proof in slowest},
        "matrix_ms": matrix(findings),
        "trace": list(findings.trace.lines) if findings.trace else [],
    }
    return CheckResult(
        checker=CHECKER,
        verdict=answer,
        property=failed[0] if failed else "",
        reason=reason,
        details=evidence(findings),
        figures=figures,
        seconds=round(findings.seconds, 2),
    )


def summary(system: System, findings: Findings) -> str:
    """One line of what was done."""
    proved = sum(proof.proved for proof in findings.proofs)
    unbounded = sum(word == "UNBOUNDED" for word in status(system, findings).values()) if not findings.partial else 0
    total = len(system.theorems) + len(system.changes)
    return (
        f"{proved}/{len(findings.proofs)} obligations unsat, {unbounded}/{total} theorems UNBOUNDED, "
        f"{len(system.actions)} actions, {len(system.lemmas)} lemmas, seed {findings.seed}"
    )
