"""The result of `comitia check explore`, for people and as one JSON object. It judges nothing but vacuity."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from model_checks.explore.paths import describe
from model_checks.explore.profiles import local_transitions, never_seen, never_taken
from model_checks.explore.results import Exploration, count_actions
from model_checks.verdicts import CheckResult, Verdict, merge
from spec.raft.network import Protocol

STYLES = {Verdict.VALID: "bold green", Verdict.INVALID: "bold red", Verdict.UNKNOWN: "bold yellow"}


def check_result(
    results: list[Exploration], protocol: Protocol, *, mutant: str | None, vacuous_is_unknown: bool, seconds: float
) -> CheckResult:
    """One result for all explorations: their worst verdict, all figures, and the counterexample in words."""
    transitions = local_transitions(results)
    warnings = [f"action never taken: {action}" for action in never_taken(transitions)]
    warnings += [f"never happened (vacuous): {name}" for name in never_seen(results)]
    found = CheckResult(
        checker="explore/raft",
        verdict=merge(result.verdict for result in results),
        figures=figures(results, len(transitions)) | {"coverage": count_actions(transitions), "warnings": warnings},
        seconds=seconds,
    )
    found.figures["mutant"] = mutant
    last = results[-1]
    if last.counterexample is not None:
        found.property = last.counterexample.broken
        found.reason = f"{found.property} is broken, {len(last.counterexample.steps)} steps from start {last.start}"
        found.details = describe(last.counterexample, protocol, last.bounds.constants())
    elif found.verdict is Verdict.UNKNOWN:
        found.reason = next(f"start {result.start}: {result.incomplete}" for result in results if result.incomplete)
    elif warnings and vacuous_is_unknown:
        found.verdict, found.reason = Verdict.UNKNOWN, "; ".join(warnings)
    return found


def figures(results: list[Exploration], transitions: int) -> dict[str, Any]:
    """Counts of all explorations, and of each."""
    distinct, generated = sum(each.distinct for each in results), sum(each.generated for each in results)
    searching = sum(each.seconds for each in results)
    return {
        "distinct": distinct,
        "generated": generated,
        "depth": max(each.depth for each in results),
        "local_transitions": transitions,
        "distinct_per_second": round(distinct / searching) if searching else 0,
        "legs": [leg_figures(each) for each in results],
        "taken": {action: sum(each.taken.get(action, 0) for each in results) for action in results[0].coverage},
        "witnesses": {name: sum(each.witnesses[name] for each in results) for name in results[0].witnesses},
    }


def leg_figures(each: Exploration) -> dict[str, Any]:
    """The figures of one exploration, with its bounds."""
    return {
        "start": each.start,
        "bounds": msgspec.structs.asdict(each.bounds),
        "distinct": each.distinct,
        "generated": each.generated,
        "depth": each.depth,
        "local_transitions": len(each.transitions),
        "seconds": round(each.seconds, 3),
        "verdict": each.verdict.value,
    }


def summary(result: CheckResult) -> str:
    """One line of what was done."""
    counts = result.figures
    if "legs" not in counts:
        return (
            f"{counts.get('states', 0):,} states, {counts.get('generated', 0):,} steps, depth {counts.get('depth', 0)}"
        )
    return (
        f"{counts['distinct']:,} states in {len(counts['legs'])} explorations, "
        f"{counts['local_transitions']:,} local steps, {counts['distinct_per_second']:,} states/s"
    )


def show(result: CheckResult, *, as_json: bool) -> None:
    """Print the result: tables for people, or a line of JSON."""
    if as_json:
        line = msgspec.json.encode({**msgspec.structs.asdict(result), "summary": summary(result)})
        print(line.decode(), flush=True)
        return
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console = Console(file=sys.stdout, highlight=False, soft_wrap=True, width=160)
    if "legs" in result.figures:
        show_tables(console, result.figures)
    elif result.figures.get("actions"):
        console.print(counts_table("action", {"steps": result.figures["actions"]}))
    if result.details:
        console.print(result.details, markup=False)
    for warning in result.figures.get("warnings", []) if result.verdict is not Verdict.INVALID else ():
        console.print(f"warning: {warning}", style="yellow")
    style = STYLES[result.verdict]
    why = f": {result.reason}" if result.reason else ""
    console.print(f"[{style}]{result.verdict.value}[/]{why}  ({summary(result)}, {result.seconds:.1f} s)")


def show_tables(console: Console, counts: dict[str, Any]) -> None:
    """The explorations, action coverage, and what happened sometimes."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    columns = ("start", "bounds", "states", "steps", "depth", "local steps", "seconds", "verdict")
    for title in columns:
        table.add_column(title, justify="left" if title in ("start", "bounds", "verdict") else "right", no_wrap=True)
    for leg in counts["legs"]:
        numbers = (f"{leg[key]:,}" for key in ("distinct", "generated", "depth", "local_transitions"))
        table.add_row(leg["start"], bounds_text(leg["bounds"]), *numbers, f"{leg['seconds']:.1f}", leg["verdict"])
    console.print(table)
    console.print()
    console.print(counts_table("action", {"local steps": counts["coverage"], "global steps": counts["taken"]}))
    console.print()
    console.print(counts_table("sometimes", {"seen in": counts["witnesses"]}))
    console.print()


def bounds_text(bounds: dict[str, Any]) -> str:
    """Bounds on one line."""
    text = f"{bounds['servers']} servers, term {bounds['max_term']}, log {bounds['max_log']}"
    text += f", {bounds['max_issued']} issued"
    if bounds["max_restarts"]:
        text += f", {bounds['max_restarts']} restart" + "s" * (bounds["max_restarts"] > 1)
    if bounds["reads"]:
        text += f", {len(bounds['reads'])} read" + "s" * (len(bounds["reads"]) > 1)
    features = {
        "pre-vote": bounds["pre_vote"],
        "membership": bounds["configurations"],
        "snapshots": bounds["snapshots"],
        f"leases to time {bounds['max_time']}": bounds["lease"] >= 0,
        "transfer": bounds["transfers"],
    }
    return ", ".join([text, *(name for name, on in features.items() if on)])


def counts_table(title: str, columns: dict[str, dict[str, int]]) -> Table:
    """Counts by name, a column each. Sends change no server, so they have local steps only."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(title)
    for name in columns:
        table.add_column(name, justify="right")
    for row in next(iter(columns.values())):
        table.add_row(row, *(f"{column[row]:,}" if column[row] else "-" for column in columns.values()))
    return table
