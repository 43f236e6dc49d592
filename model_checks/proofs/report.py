"""What a proof run found: per theorem UNBOUNDED or not, the matrix of obligations, the verdict.

A theorem is UNBOUNDED if its own obligation and everything that makes the lemmas inductive is proved, for any number of
servers, terms, indexes and messages. If something is not proved and has no counterexample over small sorts either, the
theorem is only FINITE for these sizes, and the verdict is UNKNOWN. With a counterexample to induction it is INVALID.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from model_checks.proofs.bounded import Run
from model_checks.proofs.cti import Counterexample
from model_checks.proofs.ghosts import Dependence
from model_checks.proofs.obligations import Kind, Obligation
from model_checks.proofs.prover import Proof
from model_checks.proofs.systems import Examined
from model_checks.verdicts import CheckResult, Verdict, merge

CHECKER: Final = "prove"
SLOWEST: Final = 8


@dataclass(frozen=True, slots=True)
class Findings:
    """All that a run of the prover found out about one system."""

    examined: Examined
    proofs: Sequence[Proof]
    counterexamples: Sequence[Counterexample]
    unreachable: Sequence[str]
    """Actions that the lemmas forbid: empty, or the proof is vacuous."""
    witness: bool | None
    """Whether the protocol can do what it is for; None if that was not asked."""
    mutant: str | None
    trace: Run | None
    """The mutant's violation, from the initial state."""
    seed: int
    partial: bool
    """Only some obligations were asked for: nothing follows for the theorems."""

    @property
    def unproved(self) -> list[Obligation]:
        """Obligations that no attempt proved, in order."""
        return sorted(proof.obligation for proof in self.proofs if not proof.proved)


@dataclass(frozen=True, slots=True)
class Report:
    """What a run found out about all systems that it was asked to prove."""

    systems: Sequence[Findings]
    ghosts: Sequence[Dependence] | None
    """What depends on the history below a base: nothing, or the model is not one of compaction. None: not asked."""
    seconds: float

    @property
    def proofs(self) -> list[Proof]:
        """All obligations of all systems."""
        return [proof for findings in self.systems for proof in findings.proofs]


def status(findings: Findings) -> dict[str, str]:
    """What is known of each theorem of a system, two-state theorems included."""
    system = findings.examined.system
    refuted = {found.obligation for found in findings.counterexamples}
    open_ = findings.unproved
    general = [o for o in open_ if o.kind not in (Kind.THEOREM, Kind.CHANGE)]
    names = [theorem.name for theorem in system.theorems] + [change.name for change in system.changes]
    words = {}
    for name in names:
        missing = [*general, *(o for o in open_ if o.kind in (Kind.THEOREM, Kind.CHANGE) and o.goal == name)]
        if not missing:
            words[name] = "UNBOUNDED"
        elif any(o in refuted or o.kind is Kind.MAJORITY for o in missing):
            words[name] = "NOT INDUCTIVE"
        else:
            words[name] = f"FINITE({findings.examined.small})"
    return words


def matrix(findings: Findings) -> dict[str, dict[str, float | None]]:
    """action -> lemma -> milliseconds, None if it is not proved."""
    table: dict[str, dict[str, float | None]] = {}
    for proof in sorted(findings.proofs, key=lambda proof: proof.obligation):
        row = table.setdefault(proof.obligation.subject, {})
        row[proof.obligation.goal] = round(proof.milliseconds, 1) if proof.proved else None
    return table


def verdict(findings: Findings) -> tuple[Verdict, str]:
    """A system's verdict and its reason in one line."""
    unproved = findings.unproved
    if findings.trace is not None:
        return Verdict.INVALID, f"a run of {len(findings.trace.lines)} steps from the initial state breaks a theorem"
    if findings.counterexamples:
        keys = ", ".join(found.obligation.key for found in findings.counterexamples[:3])
        return Verdict.INVALID, f"counterexample to induction: {keys}"
    if any(obligation.kind is Kind.MAJORITY for obligation in unproved):
        return Verdict.INVALID, "two quorums need not intersect, or a lease may be too long"
    if unproved:
        return Verdict.UNKNOWN, f"{len(unproved)} obligations are not proved, the first is {unproved[0].key}"
    if findings.unreachable:
        return Verdict.UNKNOWN, f"the lemmas forbid {', '.join(findings.unreachable)}: the proof is vacuous"
    if findings.witness is False:
        return Verdict.UNKNOWN, f"it is not possible that {findings.examined.witnessed}: the model is empty"
    return Verdict.VALID, ""


def verdicts(report: Report) -> Iterator[tuple[Verdict, str]]:
    """The verdict of each system that was asked about, and of history below bases."""
    for findings in report.systems:
        if findings.proofs:
            answer, reason = verdict(findings)
            yield answer, f"{findings.examined.name}: {reason}" if reason else ""
    if report.ghosts:
        found = ", ".join(f"{dependence.action} ({dependence.what})" for dependence in report.ghosts[:3])
        yield Verdict.INVALID, f"what lies below a base makes a difference: {found}"


def outside(report: Report) -> list[str]:
    """The arguments of the proof that Z3 does not check."""
    return [argument for findings in report.systems for argument in arguments(findings.examined)]


def arguments(examined: Examined) -> Iterator[str]:
    """What has to be believed of one system's proof besides Z3 and the algebra."""
    system, name = examined.system, examined.name
    yield f"{name}: what holds initially and is kept by every action holds always (induction over the steps of a run)"
    inductive = [step.name for step in system.steps if step.before is not None]
    if inductive:
        yield f"{name}: terms and indexes are natural numbers, so the inductions of {', '.join(inductive)} are sound"
    if system.majorities:
        yield f"{name}: base, step and conclusion of the proof of majorities hold for every finite set of servers"
    for theorem, promise in examined.assumed.items():
        yield f"{name}: by {theorem}, {promise}"
    yield from (f"{name}: {argument}" for argument in examined.argued)
    for lemma, reason in examined.implied.items():
        yield f"{name}: lemma {lemma} is not shown to be needed: {reason}"


def evidence(report: Report) -> str:
    """Counterexamples and traces, for a person."""
    parts = []
    for findings in report.systems:
        parts += [found.text for found in findings.counterexamples[:1]]
        if findings.trace is not None:
            parts.append(f"From the initial state, with the mutant {findings.mutant}:\n{findings.trace}")
    return "\n\n".join(parts)


def slowest(findings: Findings) -> dict[str, float]:
    """The obligations that took longest, in milliseconds."""
    ordered = sorted(findings.proofs, key=lambda proof: -proof.milliseconds)[:SLOWEST]
    return {proof.obligation.key: round(proof.milliseconds, 1) for proof in ordered}


def figures(findings: Findings) -> dict[str, Any]:
    """What was done and found about one system."""
    system = findings.examined.system
    return {
        **totals(findings.proofs),
        "lemmas": len(system.lemmas),
        "actions": len(system.actions),
        "theorems": {} if findings.partial else status(findings),
        "unproved": [obligation.key for obligation in findings.unproved],
        "unreachable": list(findings.unreachable),
        "witness": findings.witness,
        "slowest_ms": slowest(findings),
        "matrix_ms": matrix(findings),
        "trace": list(findings.trace.lines) if findings.trace else [],
    }


def totals(proofs: Sequence[Proof]) -> dict[str, int]:
    """How many obligations, proofs and solver runs, and their milliseconds."""
    return {
        "obligations": len(proofs),
        "proved": sum(proof.proved for proof in proofs),
        "solver_runs": sum(proof.attempts for proof in proofs),
        "solver_ms": round(sum(proof.milliseconds for proof in proofs)),
    }


def result(report: Report) -> CheckResult:
    """The run as a check's result."""
    found = list(verdicts(report))
    answer = merge(verdict for verdict, _ in found)
    reasons = [reason for verdict, reason in found if verdict is answer and reason]
    failed = [
        f"{findings.examined.name}/{name}"
        for findings in report.systems
        if not findings.partial
        for name, word in status(findings).items()
        if word == "NOT INDUCTIVE"
    ]
    first = report.systems[0] if report.systems else None
    return CheckResult(
        checker=CHECKER,
        verdict=answer,
        property=failed[0] if failed else "",
        reason=reasons[0] if reasons else "" if found else "no obligation has that name",
        details=evidence(report),
        figures={
            **totals(report.proofs),
            "seed": first.seed if first else 0,
            "mutant": first.mutant if first else None,
            "systems": {findings.examined.name: figures(findings) for findings in report.systems},
            "below_a_base": None if report.ghosts is None else [f"{d.action}/{d.what}" for d in report.ghosts],
            "outside_z3": outside(report),
        },
        seconds=round(report.seconds, 2),
    )


def summary(report: Report) -> str:
    """One line of what was done."""
    proofs = report.proofs
    proved = sum(proof.proved for proof in proofs)
    words = [word for findings in report.systems if not findings.partial for word in status(findings).values()]
    seeds = sorted({findings.seed for findings in report.systems})
    return (
        f"{proved}/{len(proofs)} obligations unsat, {words.count('UNBOUNDED')}/{len(words)} theorems UNBOUNDED, "
        f"{', '.join(findings.examined.name for findings in report.systems)}, seed {', '.join(map(str, seeds))}"
    )
