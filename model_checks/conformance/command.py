"""`comitia check trace DIR`: are the recorded steps of real processes steps of the spec? Exit codes by verdict; see
README.
"""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from model_checks.conformance.check import FEATURES, check_traces
from model_checks.verdicts import CheckResult, SetupFailed, Verdict, merge


@click.command("trace")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on the last line of standard output.")
@click.option(
    "--expect",
    "expected",
    multiple=True,
    type=click.Choice(sorted(FEATURES)),
    help="UNKNOWN if the run did not do this. May be given several times.",
)
@click.option("--link", is_flag=True, help="Link the steps of the run to the proved model, too, while logs are short.")
def command(directory: Path, as_json: bool, expected: tuple[str, ...], link: bool) -> int:
    """Replay the traces in DIRECTORY (written by `comitia agent -trace DIRECTORY`) against the specification."""
    try:
        results = check_traces(directory, expected)
        if link:
            results.append(linked_steps(directory))
    except SetupFailed as failed:
        raise click.ClickException(str(failed)) from failed
    verdict = merge(result.verdict for result in results)
    if as_json:
        click.echo(msgspec.json.encode(report_of(results, verdict)).decode())
    else:
        for line in text_of(results, verdict):
            click.echo(line)
    return verdict.exit_code


def linked_steps(directory: Path) -> CheckResult:
    """Link the run's steps to the relational model, which is loaded only here."""
    from model_checks.conformance.linked import link_traces

    return link_traces(directory)


def report_of(results: list[CheckResult], verdict: Verdict) -> dict[str, object]:
    """The JSON object: what `comitia verify` reads, and every checker's result."""
    worst = worst_of(results, verdict)
    return {
        "verdict": verdict,
        "reason": "" if verdict == Verdict.VALID else f"{worst.checker}: {worst.property or worst.reason}",
        "summary": summary_of(results),
        "details": worst.details,
        "figures": {result.checker: result.figures for result in results},
        "seconds": round(results[0].seconds, 3),
        "results": results,
    }


def worst_of(results: list[CheckResult], verdict: Verdict) -> CheckResult:
    """The first result with the merged verdict: the reason for it."""
    return next(result for result in results if result.verdict == verdict)


def summary_of(results: list[CheckResult]) -> str:
    """One line of figures."""
    figures = {result.checker.partition("/")[2]: result.figures for result in results}
    lines, seconds = figures["raft"]["lines"], results[0].seconds
    return (
        f"{lines} lines of {figures['raft']['servers']} servers in {seconds:.1f} s, "
        f"{figures['provenance']['messages']} messages, {figures['durability']['restarts']} restarts, "
        f"{figures['reads']['answers']} answers"
    )


def text_of(results: list[CheckResult], verdict: Verdict) -> list[str]:
    """The report for people."""
    lines = [f"{result.checker:<26}{result.verdict:<9}{result.property or result.reason}" for result in results]
    steps = results[0].figures["steps"]
    lines += ["", *(f"  {name:<34}{number:>9}" for name, number in steps.items()), ""]
    features = results[0].figures["features"]
    lines += [*(f"  {name.replace('_', ' '):<34}{number:>9}" for name, number in features.items()), ""]
    never = results[0].figures["never"]
    lines += [f"never taken: {', '.join(never)}"] if never else []
    lines += [f"cut off: {cut}" for cut in results[0].figures["cut"]]
    lines += [result.details for result in results if result.details]
    return [*lines, summary_of(results), f"{verdict}"]
