"""report.html: verdicts and figures as tables; throughput and latency against time, with faults as shading and
leaders as marks.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

from jepsen_like.nemesis.book import BREAKS, Fault
from jepsen_like.nemesis.package import PACKAGES
from jepsen_like.report import holds
from jepsen_like.report.svg import Plot, seconds
from jepsen_like.store.run_directory import ChaosParams, Leadership
from model_checks.histories.events import EventType, History
from model_checks.histories.operations import FOREVER, Operation, Outcome, pair
from model_checks.histories.timeline import COLOURS as OUTCOME_COLOURS
from model_checks.verdicts import CheckResult, Verdict

LATENCY_POINTS_MAX = 6_000
"""More are thinned out evenly: a page must open."""
VERDICT_COLOURS = {Verdict.VALID: "#2a7d2a", Verdict.INVALID: "#c22", Verdict.UNKNOWN: "#b80"}


def shading(faults: Sequence[Fault], end_ns: int) -> list[tuple[str, int, int, str]]:
    """(package, start_ns, end_ns, words) for each time in which a package had something broken.

    What needs no mending (a transfer, a graceful restart) is shaded while it was done.
    """
    spans: list[tuple[str, int, int, str]] = []
    since: dict[str, tuple[int, str]] = {}
    for fault in sorted(faults, key=lambda fault: fault.start_ns):
        name, words = fault.package, f"{fault.f} {fault.what}"
        if fault.breaks and not PACKAGES[name].mends:
            spans.append((name, fault.start_ns, fault.end_ns, words))
        elif fault.breaks:
            since.setdefault(name, (fault.start_ns, words))
        elif fault.f not in BREAKS and not fault.error and name in since:
            start_ns, what = since.pop(name)
            spans.append((name, start_ns, fault.end_ns or fault.start_ns, what))
    spans += [(name, start_ns, end_ns, what) for name, (start_ns, what) in sorted(since.items())]
    return spans


def _throughput(plot: Plot, operations: Sequence[Operation]) -> None:
    for outcome in Outcome:
        counts: dict[int, int] = {}
        for operation in operations:
            if operation.outcome is outcome:
                end_ns = operation.call_ns if operation.ret_ns == FOREVER else operation.ret_ns
                second = seconds(end_ns - plot.start_ns)
                counts[second] = counts.get(second, 0) + 1
        line = [(second, float(counts.get(second, 0))) for second in range(plot.seconds)]
        plot.line(line, OUTCOME_COLOURS[outcome], outcome.value)


def _latency(plot: Plot, operations: Sequence[Operation]) -> None:
    ended = [operation for operation in operations if operation.ret_ns != FOREVER]
    step = len(ended) // LATENCY_POINTS_MAX + 1
    for operation in ended[::step]:
        milliseconds = max(0.1, (operation.ret_ns - operation.call_ns) / 1e6)
        at = (operation.call_ns - plot.start_ns) / 1e9
        plot.point(at, math.log10(milliseconds) + 1, OUTCOME_COLOURS[operation.outcome])


def _leader_changes(leaders: Sequence[Leadership]) -> list[Leadership]:
    changes: list[Leadership] = []
    for sample in leaders:
        if sample.leader is not None and (
            not changes or (changes[-1].leader, changes[-1].term) != (sample.leader, sample.term)
        ):
            changes.append(sample)
    return changes


def _plots(history: History, faults: Sequence[Fault], leaders: Sequence[Leadership]) -> str:
    operations = pair(history)
    times = [event.time for event in history.events]
    if not times:
        return "<p>The history is empty.</p>"
    start_ns, end_ns = min(times), max(times)
    busiest = 10.0
    per_second: dict[int, int] = {}
    for operation in operations:
        second = seconds(operation.call_ns - start_ns)
        per_second[second] = per_second.get(second, 0) + 1
    busiest = max(busiest, *map(float, per_second.values()))
    rows = list(PACKAGES) if not faults else [name for name in PACKAGES if any(f.package == name for f in faults)]
    parts = []
    for title, top, draw, labels in (
        ("operations a second, by outcome", busiest * 1.1, _throughput, None),
        ("latency (ms, logarithmic)", 5.0, _latency, {0: "0.1", 1: "1", 2: "10", 3: "100", 4: "1000"}),
    ):
        plot = Plot(title, start_ns, end_ns, top, labels, len(rows))
        for name, from_ns, to_ns, what in shading(faults, end_ns):
            plot.shade(from_ns, to_ns, PACKAGES[name].colour, f"{name}: {what}", row=rows.index(name))
        draw(plot, operations)
        for change in _leader_changes(leaders):
            plot.mark(change.ns, f"{change.leader} leads in term {change.term}", str(change.leader))
        parts.append(plot.render())
    legend = " ".join(f'<span style="background:{PACKAGES[name].colour}">&nbsp;{name}&nbsp;</span>' for name in rows)
    return f"<p>{legend} dashed: a new leader</p>{''.join(parts)}"


def _holds(params: ChaosParams, history: History) -> str:
    return holds.drawing(pair(history)) if params.workload == "lock" else ""


def _schedule_row(fault: Fault, start_ns: int) -> str:
    what = f"{fault.what} ({fault.error})" if fault.error else fault.what
    at_s = (fault.start_ns - start_ns) / 1e9 if fault.start_ns else 0.0
    cells = (f"{at_s:.2f}", fault.f, what, fault.leader or "")
    return "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"


def report_page(
    params: ChaosParams,
    verdict: Verdict,
    checks: Sequence[CheckResult],
    figures: dict[str, Any],
    history: History,
    faults: Sequence[Fault],
    leaders: Sequence[Leadership],
) -> str:
    """The whole page."""
    rows = "".join(
        f"<tr><td>{html.escape(check.checker)}</td>"
        f'<td style="color:{VERDICT_COLOURS[check.verdict]}">{check.verdict.value}</td>'
        f"<td>{html.escape(' '.join(filter(None, [check.property, check.reason])))}</td></tr>"
        for check in checks
    )
    numbers = "".join(
        f"<tr><td>{html.escape(name.replace('_', ' '))}</td><td>{value:,}</td></tr>" for name, value in figures.items()
    )
    evidence = "".join(
        f"<h2>{html.escape(check.checker)}</h2><pre>{html.escape(check.details)}</pre>"
        for check in checks
        if check.details
    )
    schedule = "".join(_schedule_row(fault, history.events[0].time) for fault in faults if history.events)
    unfinished = sum(1 for event in history.events if event.type is EventType.INFO and event.process != "nemesis")
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Comitia chaos run</title>'
        "<style>body{font:14px sans-serif;margin:2em;max-width:1200px}td{padding:2px 12px 2px 0;vertical-align:top}"
        "svg text{font:11px sans-serif}</style>"
        f'<h1 style="color:{VERDICT_COLOURS[verdict]}">{verdict.value}</h1>'
        f"<p>workload {html.escape(params.workload)}, {params.nodes} servers, {params.clients} client agents, nemesis "
        f"{html.escape(', '.join(params.nemesis) or 'none')}, seed {params.seed}; "
        f"{unfinished:,} operations of unknown outcome</p><table>{rows}</table>"
        f"{_plots(history, faults, leaders)}{_holds(params, history)}{evidence}<h2>Figures</h2><table>{numbers}</table>"
        "<h2>Executed faults</h2><table><tr><td>s</td><td>what</td><td>to whom</td><td>leader then</td></tr>"
        f"{schedule}</table></html>\n"
    )
