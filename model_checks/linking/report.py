"""Links many steps, counts them, and explains the first ones that are rejected."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from model_checks.linking.concrete import Do, Rejected
from model_checks.linking.link import link
from model_checks.linking.steps import NoCounterpart, claimed
from model_checks.proofs.whole import WHOLE
from model_checks.verdicts import CheckResult, Verdict
from spec.raft.network import Transition
from spec.raft.types import Constants

CHECKER: Final = "link"
REJECTIONS_MAX: Final = 3


@dataclass(frozen=True, slots=True)
class Report:
    """What linking many steps found."""

    actions: Counter[str]
    """Linked steps by action of the spec."""
    stutters: Counter[str]
    model_steps: Counter[str]
    """Steps of the model, by its actions."""
    rejected: list[tuple[Constants, Transition, str]]


def link_all(c: Constants, steps: Iterable[Transition]) -> Report:
    """Link steps of a cluster, up to the first few that are rejected."""
    report = Report(Counter(), Counter(), Counter(), [])
    for step in steps:
        try:
            done = link(c, step)
        except Rejected as error:
            report.rejected.append((c, step, str(error)))
            if len(report.rejected) == REJECTIONS_MAX:
                break
            continue
        report.actions[step.action] += 1
        report.stutters[step.action] += not done
        report.model_steps.update(do.action for do in done)
    return report


def link_transitions(groups: Iterable[tuple[Constants, Iterable[Transition]]]) -> CheckResult:
    """Link groups of local steps, each with its cluster's constants: VALID if every step is linked."""
    start = time.perf_counter()
    actions: Counter[str] = Counter()
    stutters: Counter[str] = Counter()
    model_steps: Counter[str] = Counter()
    rejected: list[tuple[Constants, Transition, str]] = []
    for c, steps in groups:
        report = link_all(c, steps)
        actions += report.actions
        stutters += report.stutters
        model_steps += report.model_steps
        rejected += report.rejected
    seconds = time.perf_counter() - start
    linked = sum(actions.values())
    verdict = Verdict.INVALID if rejected else Verdict.VALID if linked else Verdict.UNKNOWN
    reason = rejected_line(*rejected[0][1:]) if rejected else "" if linked else "there was no step to link"
    return CheckResult(
        checker=CHECKER,
        verdict=verdict,
        property="linked to the relational model" if rejected else "",
        reason=reason,
        details="\n\n".join(explained(c, step, why) for c, step, why in rejected[:REJECTIONS_MAX]),
        figures={
            "linked": linked,
            "stutters": sum(stutters.values()),
            "model_steps": sum(model_steps.values()),
            "by_action": dict(sorted(actions.items())),
            "stutters_by_action": dict(sorted((+stutters).items())),
            "by_model_action": {act.name: model_steps[act.name] for act in WHOLE.actions},
            "per_second": round(linked / seconds) if seconds else 0,
        },
        seconds=round(seconds, 2),
    )


def rejected_line(step: Transition, why: str) -> str:
    """Why a step is rejected, in one line."""
    return f"{step.action} of {step.server}: {why.splitlines()[0]}"


def explained(c: Constants, step: Transition, why: str) -> str:
    """A rejected step for a person: the step, the state before it, what changed, what is missing."""
    arguments = ", ".join(map(str, step.arguments))
    changes = [
        f"    {name}: {old} -> {getattr(step.after, name)}"
        for name, old in ((name, getattr(step.before, name)) for name in step.before.__struct_fields__)
        if old != getattr(step.after, name)
    ]
    claims_shown = ", ".join(str(part) for part in claimed_safely(c, step))
    return "\n".join(
        [
            f"{step.action}({arguments}) of {step.server}",
            f"  before: {step.before}",
            "  changes:" if changes else "  no field changes",
            *changes,
            f"  claimed steps of the model: {claims_shown or 'none'}",
            f"  rejected: {why}",
        ]
    )


def claimed_safely(c: Constants, step: Transition) -> Iterator[Do]:
    """The claimed steps as far as there are any."""
    try:
        yield from (part for part in claimed(c, step) if isinstance(part, Do))
    except NoCounterpart:
        return
