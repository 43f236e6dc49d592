"""`comitia check history`: judge stored histories from the command line."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
import msgspec

from model_checks.histories.check import HistoryResult, check_history
from model_checks.histories.events import MalformedHistory, read
from model_checks.histories.register import Model, UnknownOperation
from model_checks.histories.search import DEFAULT_LIMIT
from model_checks.histories.timeline import page
from model_checks.verdicts import Verdict, merge


def judge_file(
    path: Path, model: Model, limit: int, stale_allowed: bool
) -> tuple[dict[str, Any], HistoryResult | None]:
    """The JSON object for one file; a file that cannot be understood is UNKNOWN, with the line in its reason."""
    started = time.monotonic()
    report: dict[str, Any] = {"file": str(path), "model": model.value}
    try:
        history = read(path)
        found = check_history(history, model, limit, stale_allowed)
    except (MalformedHistory, UnknownOperation, OSError) as error:
        cause = error.strerror if isinstance(error, OSError) else str(error)
        reason = f"{path}: {cause}"
        report |= {"verdict": Verdict.UNKNOWN, "operations": 0, "seconds": time.monotonic() - started, "reason": reason}
        return report, None
    result = found.result
    report |= {
        "verdict": result.verdict,
        "operations": result.figures["operations"],
        "seconds": round(time.monotonic() - started, 6),
        "reason": result.reason,
        "property": result.property,
        "cut": history.cut,
        "figures": result.figures,
        "details": result.details,
    }
    return report, found


def _print_for_people(report: dict[str, Any]) -> None:
    colour = {Verdict.VALID: "green", Verdict.INVALID: "red", Verdict.UNKNOWN: "yellow"}[report["verdict"]]
    verdict = click.style(report["verdict"].value, fg=colour, bold=True)
    click.echo(f"{report['file']}: {verdict}  {report['operations']:,} operations, {report['seconds']:.2f} s")
    for name in ("cut", "reason"):
        if report.get(name):
            click.echo(f"  {report[name]}")
    if report.get("details"):
        click.echo(report["details"])


@click.command("history")
@click.option("--model", type=click.Choice([model.value for model in Model]), required=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a file.")
@click.option(
    "--max-configurations",
    type=click.IntRange(min=1),
    default=DEFAULT_LIMIT,
    show_default=True,
    help="Bound on the memory of the search, a key; beyond it the verdict is UNKNOWN.",
)
@click.option(
    "--allow-stale",
    is_flag=True,
    help="Sets: reads were asked to be stale; a known element may be missing for a while.",
)
@click.option(
    "--timeline", type=click.Path(dir_okay=False, path_type=Path), help="Draw the first counterexample as HTML."
)
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def command(
    model: str,
    as_json: bool,
    max_configurations: int,
    allow_stale: bool,
    timeline: Path | None,
    files: tuple[Path, ...],
) -> int:
    """Judge client histories: is there an order of the operations that explains every answer?

    FILES are NDJSON, one event a line (README, "History format"). An unfinished last line is dropped and reported as
    `cut`; the verdict is about what remains. Exit codes: 0 VALID, 1 INVALID, 2 UNKNOWN; several files merge.
    """
    verdicts: list[Verdict] = []
    for path in files:
        report, found = judge_file(path, Model(model), max_configurations, allow_stale)
        verdicts.append(report["verdict"])
        if as_json:
            click.echo(msgspec.json.encode(report))
        else:
            _print_for_people(report)
        if timeline is not None and found is not None and found.counterexamples:
            example = found.counterexamples[0]
            timeline.write_text(page(f"{path.name}, key {example.key}", example.reason, example.operations))
            timeline = None
    return merge(verdicts).exit_code
