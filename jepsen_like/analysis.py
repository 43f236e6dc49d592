"""All verdicts of a run, computed from its directory alone: `chaos test` and `chaos analyze` give the same answer.

Checkers: the client history (`model_checks.histories`), the agents' traces (`model_checks.conformance`), liveness
after the heal, processes that ended by themselves, and the run's own effort: a run that tried too little is UNKNOWN.
A checker that crashes is UNKNOWN, too.
"""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Callable
from typing import Any

import msgspec

from jepsen_like.circumstances import circumstances
from jepsen_like.nemesis import impairment
from jepsen_like.nemesis.book import Fault
from jepsen_like.report.page import report_page
from jepsen_like.store.run_directory import ChaosParams, Leadership, RunDirectory, RunSummary
from jepsen_like.workload.catalog import WORKLOADS
from model_checks.conformance.check import check_traces
from model_checks.conformance.linked import link_traces
from model_checks.histories.check import check_history
from model_checks.histories.events import Event, EventType, History
from model_checks.histories.timeline import page
from model_checks.verdicts import CheckResult, Verdict, merge

ACKNOWLEDGED_PER_SECOND_MIN = 10
LEADER_FAULT_AFTER_S = 30.0
"""A run this long, with a nemesis, must have hit a leader."""


TRACED = {
    "elections": "become_leader",
    "configuration_changes": "change_configuration",
    "snapshots_taken": "take_snapshot",
    "snapshots_installed": "restore_snapshot",
    "transfers": "handle_timeout_now",
    "lease_reads": "lease_read",
}
"""Figure -> the action of the spec that is counted for it in the traces (ARCHITECTURE.md, section 3)."""
NEEDED = {
    "membership": ("configuration_changes", "no membership change took effect"),
    "snapshot": ("snapshots_installed", "no snapshot was installed"),
    "transfer": ("transfers", "no transfer finished"),
}
"""Nemesis -> what must have come of it, by the servers' own traces."""


class RunResult(msgspec.Struct, kw_only=True):
    """What `chaos test --json` prints, and results.json holds."""

    verdict: Verdict
    reason: str
    directory: str
    seed: int
    replay: str
    figures: dict[str, Any]
    checks: list[CheckResult]
    details: str = ""
    seconds: float = 0.0


def _client_events(events: tuple[Event, ...]) -> list[Event]:
    return [event for event in events if event.process != "nemesis"]


def _met_by_faults(params: ChaosParams, events: list[Event], spans: dict[str, list[tuple[int, int]]]) -> dict[str, int]:
    """Operations invoked while their agent was cut off or paused, and how many of them were acknowledged."""
    agents = params.agents
    impaired: set[int | str] = set()  # processes whose open operation was invoked so
    invoked = acknowledged = 0
    for event in events:
        if event.type is EventType.INVOKE:
            agent = agents[int(event.process) % params.concurrency % len(agents)]
            if impairment.within(spans[agent], event.time):
                impaired.add(event.process)
                invoked += 1
        else:
            acknowledged += event.type is EventType.OK and event.process in impaired
            impaired.discard(event.process)
    return {"invoked_while_impaired": invoked, "acknowledged_while_impaired": acknowledged}


def run_figures(
    params: ChaosParams, history: History, faults: list[Fault], leaders: list[Leadership]
) -> dict[str, Any]:
    """What the run did: operations by outcome, faults by kind, and how far they met."""
    events = _client_events(history.events)
    agents = params.agents
    spans = impairment.intervals(faults, agents[: params.nodes], agents[params.nodes :])
    figures: dict[str, Any] = {
        name: sum(1 for event in events if event.type is kind)
        for name, kind in (
            ("operations", EventType.INVOKE),
            ("acknowledged", EventType.OK),
            ("failed", EventType.FAIL),
            ("unknown", EventType.INFO),
        )
    }
    figures |= _met_by_faults(params, events, spans)
    figures["faults"] = sum(fault.breaks for fault in faults)
    for name in params.nemesis:
        figures[f"faults_{name}"] = sum(fault.breaks for fault in faults if fault.package == name)
    if "rolling-restart" in params.nemesis:
        figures["rolled"] = len({node for fault in faults if fault.f == "roll" for node in fault.nodes})
    figures["leader_faults"] = sum(fault.hit_leader for fault in faults)
    figures["leaders_seen"] = len({(leader.leader, leader.term) for leader in leaders if leader.leader is not None})
    return figures


def count_steps(directory: RunDirectory) -> dict[str, int]:
    """How often each action of TRACED was taken, by all servers' traces."""
    counts = dict.fromkeys(TRACED, 0)
    for path in directory.traces.glob("*.ndjson"):
        trace = path.read_bytes()
        for figure, action in TRACED.items():
            counts[figure] += trace.count(f'"{action}"'.encode())
    return counts


def effort(params: ChaosParams, figures: dict[str, Any], interrupted: bool) -> CheckResult:
    """UNKNOWN if the run was interrupted, or did too little to say anything."""
    missing = []
    wanted = int(ACKNOWLEDGED_PER_SECOND_MIN * params.time_limit_s)
    if figures["acknowledged"] < wanted:
        missing.append(f"{figures['acknowledged']} acknowledged operations of at least {wanted}")
    missing += [f"no fault of the kind {name}" for name in params.nemesis if not figures[f"faults_{name}"]]
    missing += [what for name, (figure, what) in NEEDED.items() if name in params.nemesis and not figures[figure]]
    needs = WORKLOADS[params.workload].least
    missing += filter(None, (least.missing(figures, params.time_limit_s) for least in needs))
    if figures.get("rolled", params.nodes) < params.nodes:
        missing.append(f"{figures['rolled']} of {params.nodes} servers were restarted in turn")
    if params.nemesis and params.time_limit_s >= LEADER_FAULT_AFTER_S and not figures["leader_faults"]:
        missing.append("no fault hit a leader")
    if {"partition", "pause"} & set(params.nemesis) and not figures["invoked_while_impaired"]:
        missing.append("no operation was invoked while its agent was cut off or paused")
    reason = "interrupted" if interrupted else ""
    if missing:
        reason = "; ".join(filter(None, [reason, "tried too little: " + ", ".join(missing)]))
    return CheckResult(checker="effort", verdict=Verdict.UNKNOWN if reason else Verdict.VALID, reason=reason)


def liveness(summary: RunSummary | None) -> CheckResult:
    """After everything was mended, every agent must answer a write and all servers must catch up."""
    result = CheckResult(checker="liveness", verdict=Verdict.VALID)
    if summary is None or summary.interrupted:
        result.verdict, result.reason = Verdict.UNKNOWN, "the run did not come to its end"
    elif summary.live_s is None:
        result.verdict, result.property = Verdict.INVALID, "a healed cluster serves"
        result.reason = summary.liveness_problem
    else:
        result.figures = {"seconds_to_recover": round(summary.live_s, 3)}
    return result


def processes(summary: RunSummary | None, faults: list[Fault], directory: RunDirectory) -> CheckResult:
    """No agent may end by itself, and each must end when it is asked to."""
    exits = summary.exits if summary is not None else ()
    stuck = [fault.error for fault in faults if fault.f == "roll" and fault.error]
    if stuck and not exits:
        return CheckResult(
            checker="processes",
            verdict=Verdict.INVALID,
            property="agents end when they are asked to",
            reason=f"{stuck[0]}; see {directory.logs}",
        )
    result = CheckResult(checker="processes", verdict=Verdict.INVALID if exits else Verdict.VALID)
    if exits:
        result.property = "agents do not end by themselves"
        result.reason = ", ".join(exits) + f"; see {directory.logs}"
        with contextlib.suppress(OSError):
            log = (directory.logs / f"{exits[0].split()[0]}.log").read_text(errors="replace")
            result.details = "\n".join(log.splitlines()[-15:])
    return result


def _guarded(checker: str, check: Callable[[], list[CheckResult]]) -> list[CheckResult]:
    """A checker that crashes has checked nothing."""
    try:
        return check()
    except Exception as error:
        reason = f"the checker failed: {type(error).__name__}: {error}"
        return [CheckResult(checker=checker, verdict=Verdict.UNKNOWN, reason=reason, details=traceback.format_exc())]


def _history_check(
    params: ChaosParams, history: History, faults: list[Fault], leaders: list[Leadership], directory: RunDirectory
) -> list[CheckResult]:
    context = circumstances(params, faults, leaders, directory)
    found = check_history(history, WORKLOADS[params.workload].model, circumstances=context)
    for number, example in enumerate(found.counterexamples, start=1):
        drawing = page(f"Key {example.key}", example.reason, example.operations)
        (directory.path / f"counterexample-{number}.html").write_text(drawing)
    return [found.result]


def analyze(directory: RunDirectory, progress: Callable[[str], None] = lambda line: None) -> RunResult:
    """Judge a stored run; writes results.json and report.html into it.

    Raises OSError or msgspec.ValidationError if the directory does not hold a run, MalformedHistory if its history is
    damaged.
    """
    started = time.monotonic()
    params, replay = directory.load_params()
    summary = directory.load_run()
    history = directory.load_history()
    faults, leaders = directory.load_faults(), directory.load_leaders()
    figures = run_figures(params, history, faults, leaders)
    figures |= count_steps(directory)
    interrupted = summary is None or summary.interrupted
    progress("checking the history")
    checks = _guarded("histories", lambda: _history_check(params, history, faults, leaders, directory))
    for least in WORKLOADS[params.workload].least:
        figures[least.figure] = sum(check.figures.get(least.figure, 0) for check in checks)
    progress("checking the traces")
    checks += _guarded("conformance", lambda: check_traces(directory.traces))
    checks += _guarded("conformance/linking", lambda: [link_traces(directory.traces)])
    checks += [liveness(summary), processes(summary, faults, directory), effort(params, figures, interrupted)]
    verdict = merge(check.verdict for check in checks)
    guilty = [check for check in checks if check.verdict is verdict and verdict is not Verdict.VALID]
    result = RunResult(
        verdict=verdict,
        reason="; ".join(f"{c.checker}: {c.property + ': ' if c.property else ''}{c.reason}" for c in guilty),
        directory=str(directory.path),
        seed=params.seed,
        replay=replay,
        figures=figures,
        checks=checks,
        details="\n\n".join(f"{c.checker}\n{c.details}" for c in guilty if c.details),
        seconds=round(time.monotonic() - started, 3),
    )
    directory.save_results(msgspec.to_builtins(result))
    directory.report.write_text(report_page(params, result.verdict, checks, figures, history, faults, leaders))
    return result
