"""A whole history against a model: pair, split by key, judge each key, say what is wrong so that a person sees it."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from model_checks.histories.circumstances import ALONE, Circumstances
from model_checks.histories.counterexample import shrink
from model_checks.histories.events import History
from model_checks.histories.findings import Findings
from model_checks.histories.locks import check_locks
from model_checks.histories.operations import Operation, Outcome, by_key, pair
from model_checks.histories.register import UNJUDGED, Model, actions
from model_checks.histories.registry import check_registry
from model_checks.histories.search import DEFAULT_LIMIT, search
from model_checks.histories.set_full import SetResult, check_set
from model_checks.histories.timeline import describe, text
from model_checks.verdicts import CheckResult, Verdict, merge

COUNTEREXAMPLES_MAX = 3
"""Wrong keys to explain in full; the others are named."""
ELEMENTS_SHOWN_MAX = 10


class Counterexample(msgspec.Struct, frozen=True):
    """One wrong key: why, and the operations that show it."""

    key: Any
    reason: str
    operations: tuple[Operation, ...]


class HistoryResult(msgspec.Struct, frozen=True):
    """The check's result for people and machines, and the counterexamples for a drawing."""

    result: CheckResult
    counterexamples: tuple[Counterexample, ...] = ()


class _KeyVerdict(msgspec.Struct, frozen=True):
    verdict: Verdict
    reason: str = ""
    operations: tuple[Operation, ...] = ()
    configurations: int = 0


def _check_register(operations: list[Operation], model: Model, limit: int, explain: bool) -> _KeyVerdict:
    encoded = actions(operations, model)
    found = search(encoded, limit)
    if found.linearizable:
        return _KeyVerdict(Verdict.VALID, configurations=found.configurations)
    if found.linearizable is None:
        reason = f"undecided after {limit:,} configurations; raise --max-configurations"
        return _KeyVerdict(Verdict.UNKNOWN, reason, configurations=found.configurations)
    if not explain:
        return _KeyVerdict(Verdict.INVALID, "not linearizable", configurations=found.configurations)
    small = tuple(action.operation for action in shrink(encoded, found.furthest))
    if len(small) == 1:
        reason = f"process {small[0].process}: {describe(small[0])}, but nobody had written that value"
    else:
        reason = f"no order of these {len(small)} operations (of {len(operations):,}) explains every answer"
    return _KeyVerdict(Verdict.INVALID, reason, small, found.configurations)


def _sample(elements: list[Any]) -> str:
    shown = ", ".join(msgspec.json.encode(element).decode() for element in elements[:ELEMENTS_SHOWN_MAX])
    return f"{shown}, ..." if len(elements) > ELEMENTS_SHOWN_MAX else shown


def _set_problems(found: SetResult, stale_allowed: bool) -> list[str]:
    problems = [("lost", found.lost), ("duplicated", found.duplicated), ("unexpected", found.unexpected)]
    if not stale_allowed:
        problems.insert(1, ("stale", found.stale))
    return [f"{len(elements)} {name}: {_sample(elements)}" for name, elements in problems if elements]


def _check_set(operations: list[Operation], stale_allowed: bool) -> tuple[_KeyVerdict, SetResult]:
    found = check_set(operations)
    problems = _set_problems(found, stale_allowed)
    if problems:
        element = [*found.lost, *([] if stale_allowed else found.stale), *found.unexpected, *found.duplicated][0]
        adds = [o for o in operations if o.f == "add" and o.argument == element]
        evidence = [*adds, found.witnesses[msgspec.json.encode(element).decode()]]
        return _KeyVerdict(Verdict.INVALID, "; ".join(problems), tuple(evidence)), found
    if not found.stable:
        return _KeyVerdict(Verdict.UNKNOWN, "no read showed any element for good: nothing was learnt"), found
    return _KeyVerdict(Verdict.VALID), found


_PROPERTIES = {
    Model.REGISTER: "linearizability of each register",
    Model.CAS_REGISTER: "linearizability of each register",
    Model.SET: "no acknowledged element is lost",
}


def _set_evidence(operations: tuple[Operation, ...]) -> str:
    """A set's reads are long: show when, not what."""
    return text(
        [
            msgspec.structs.replace(o, answer=f"{len(o.answer or [])} elements") if o.f == "read" else o
            for o in operations
        ]
    )


def check_history(
    history: History,
    model: Model,
    limit: int = DEFAULT_LIMIT,
    stale_allowed: bool = False,
    circumstances: Circumstances = ALONE,
) -> HistoryResult:
    """Judge `history` by `model`. `limit`: configurations remembered a key; `stale_allowed`: sets only, see set_full;
    `circumstances`: of the run, for locks and registries.

    Raises MalformedHistory, UnknownOperation.
    """
    started = time.monotonic()
    operations = pair(history)
    if model in (Model.LOCK, Model.REGISTRY):
        judged = [operation for operation in operations if operation.f not in UNJUDGED]
        checker = check_locks if model is Model.LOCK else check_registry
        compound = _check_findings(checker(judged, circumstances), operations, limit)
        compound.result.seconds = time.monotonic() - started
        return compound
    keys = by_key(operations)
    verdicts: dict[Any, _KeyVerdict] = {}
    figures: dict[str, Any] = {"operations": len(operations), "keys": len(keys)}
    figures |= _outcomes(operations)
    configurations = wrong = 0
    for key, members in keys.items():
        if model is Model.SET:
            verdicts[key], found = _check_set(members, stale_allowed)
            for name in ("attempted", "acknowledged", "stable"):
                figures[name] = figures.get(name, 0) + getattr(found, name)
            for name in ("lost", "stale", "never_read", "duplicated", "unexpected"):
                figures[name] = figures.get(name, 0) + len(getattr(found, name))
        else:
            verdicts[key] = _check_register(members, model, limit, explain=wrong < COUNTEREXAMPLES_MAX)
            configurations += verdicts[key].configurations
        wrong += verdicts[key].verdict is Verdict.INVALID
    figures["configurations"] = configurations
    verdict = merge(found.verdict for found in verdicts.values())
    result = CheckResult(
        checker="histories/set" if model is Model.SET else "histories/linearizability",
        verdict=verdict,
        property=_PROPERTIES[model] if verdict is Verdict.INVALID else "",
        figures=figures,
    )
    counterexamples = _explain(result, verdicts, model)
    result.seconds = time.monotonic() - started
    return HistoryResult(result, counterexamples)


def _outcomes(operations: list[Operation]) -> dict[str, Any]:
    return {outcome.value: sum(1 for o in operations if o.outcome is outcome) for outcome in Outcome}


def _check_findings(found: Findings, operations: list[Operation], limit: int) -> HistoryResult:
    """The verdict on a compound object: its objections, then its registers, each searched alone."""
    figures: dict[str, Any] = {"operations": len(operations), **_outcomes(operations), **found.figures}
    result = CheckResult(checker=found.checker, verdict=Verdict.VALID, figures=figures)
    wrong = [(each.property, Counterexample(each.key, each.reason, each.operations)) for each in found.objections]
    undecided = ""
    figures["configurations"] = 0
    for name, members in found.registers.items():
        judged = _check_register(members, Model.REGISTER, limit, explain=len(wrong) < COUNTEREXAMPLES_MAX)
        figures["configurations"] += judged.configurations
        if judged.verdict is Verdict.INVALID:
            wrong.append((found.register_property, Counterexample(name, judged.reason, judged.operations)))
        elif judged.verdict is Verdict.UNKNOWN:
            undecided = f"{name}: {judged.reason}"
    if not wrong:
        result.reason = undecided or found.nothing_learnt
        result.verdict = Verdict.UNKNOWN if result.reason else Verdict.VALID
        return HistoryResult(result)
    result.verdict = Verdict.INVALID
    result.property, first = wrong[0]
    result.reason = f"key {first.key}: {first.reason}" + (f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else "")
    shown = tuple(example for _, example in wrong[:COUNTEREXAMPLES_MAX])
    result.details = "\n".join(
        f"{broken}: key {example.key}: {example.reason}\n{text(example.operations)}"
        for broken, example in wrong[:COUNTEREXAMPLES_MAX]
    )
    return HistoryResult(result, shown)


def _explain(result: CheckResult, verdicts: dict[Any, _KeyVerdict], model: Model) -> tuple[Counterexample, ...]:
    """Fill in reason and details of `result`; the counterexamples of the first wrong keys."""
    guilty = {key: found for key, found in verdicts.items() if found.verdict is result.verdict}
    if result.verdict is Verdict.VALID:
        return ()
    if not verdicts:
        result.reason = "the history has no operations"
        return ()
    first_key = next(iter(guilty))
    named = "" if first_key is None else f"key {first_key}: "
    more = f" (and {len(guilty) - 1} more keys)" if len(guilty) > 1 else ""
    result.reason = f"{named}{guilty[first_key].reason}{more}"
    found = tuple(
        Counterexample(key, verdict.reason, verdict.operations) for key, verdict in guilty.items() if verdict.operations
    )
    draw = _set_evidence if model is Model.SET else text
    result.details = "\n".join(
        f"{'' if example.key is None else f'key {example.key}: '}{example.reason}\n{draw(example.operations)}"
        for example in found[:COUNTEREXAMPLES_MAX]
    )
    return found[:COUNTEREXAMPLES_MAX]
