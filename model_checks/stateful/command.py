"""`comitia check stateful`: random schedules over the real cores and the real log; or one schedule again, from a
file.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec

from model_checks.stateful.mutants import MUTANTS, applied
from model_checks.stateful.run import run_stateful
from model_checks.stateful.script import BadScript, run_script
from model_checks.stateful.violations import Property, Violation
from model_checks.verdicts import CheckResult, Verdict

DEFAULT_SECONDS = 15.0
PROGRESS_EVERY = 200


@click.command("stateful")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Seed of all schedules.")
@click.option("--seconds", type=click.FloatRange(min=0.1), help=f"How long. [default: {DEFAULT_SECONDS:g}]")
@click.option("--examples", type=click.IntRange(min=2), help="How many schedules, instead of --seconds: repeatable.")
@click.option("--mutant", type=click.Choice(sorted(MUTANTS)), help="Break the core on purpose: expect INVALID.")
@click.option("--replay", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Run this schedule again.")
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON.")
def command(
    seed: int, seconds: float | None, examples: int | None, mutant: str | None, replay: Path | None, as_json: bool
) -> int:
    """Drive real cores on virtual disks by random schedules; compare every step with the spec.

    Exit codes: 0 VALID, 1 INVALID, 2 UNKNOWN.
    """
    if seconds is not None and examples is not None:
        raise click.UsageError("--seconds and --examples exclude each other")
    if replay is None:
        limit = ["--examples", str(examples)] if examples else ["--seconds", f"{seconds or DEFAULT_SECONDS:g}"]
        broken = ["--mutant", mutant] if mutant else []
        click.echo(
            f"seed {seed}; repeat with: {' '.join(['comitia check stateful --seed', str(seed), *limit, *broken])}"
        )

    def check() -> CheckResult:
        if replay is not None:
            return _replay(replay)
        if examples is not None:
            return run_stateful(seed=seed, examples=examples, progress=_Progress())
        return run_stateful(seed=seed, seconds=seconds or DEFAULT_SECONDS, progress=_Progress())

    if mutant is None:
        result = check()
    else:
        with applied(mutant):
            result = check()
    _print(result, as_json)
    return result.verdict.exit_code


class _Progress:
    """A line on stderr now and then."""

    def __init__(self) -> None:
        self._calls = 0

    def __call__(self, text: str) -> None:
        self._calls += 1
        if self._calls % PROGRESS_EVERY == 0:
            click.echo(text, file=sys.stderr)


def _replay(path: Path) -> CheckResult:
    try:
        world = run_script(path.read_text().splitlines())
    except BadScript as error:
        raise click.UsageError(f"{path}: {error}") from error
    except Violation as violation:
        return CheckResult(
            checker="stateful", verdict=Verdict.INVALID, property=violation.property.value, reason=violation.text
        )
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        return CheckResult(
            checker="stateful", verdict=Verdict.INVALID, property=Property.NO_EXCEPTION.value, reason=reason
        )
    return CheckResult(checker="stateful", verdict=Verdict.VALID, figures=dict(world.counts))


def _print(result: CheckResult, as_json: bool) -> None:
    figures = result.figures
    summary = (
        f"{figures.get('schedules', 1)} schedules, {figures.get('spec steps', 0)} spec steps, "
        f"{figures.get('acknowledged', 0)} writes, {figures.get('read answered', 0)} reads, "
        f"{figures.get('crash', 0)} crashes, {figures.get('configuration changed', 0)} changes, "
        f"{figures.get('snapshot restored', 0)} snapshots"
    )
    if as_json:
        fields = msgspec.structs.asdict(result)
        click.echo(msgspec.json.encode({**fields, "summary": summary}).decode())
        return
    click.echo(f"{result.verdict.value}: {summary} in {result.seconds:.1f} s")
    if result.property:
        click.echo(f"{result.property}: {result.reason}")
    elif result.reason:
        click.echo(result.reason)
    if result.details:
        click.echo("the schedule (save it, and run it again with --replay):")
        click.echo(result.details)
    elif result.verdict is Verdict.VALID:
        for name, count in figures.items():
            click.echo(f"  {name:16} {count}")
