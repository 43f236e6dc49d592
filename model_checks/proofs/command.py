"""`comitia check prove`: the proof of Raft's relational model, and of what its mutants break."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from model_checks.proofs import sanity
from model_checks.proofs import selection as selections
from model_checks.proofs.algebra import System
from model_checks.proofs.prover import Portfolio
from model_checks.proofs.report import Findings, result, status, summary
from model_checks.proofs.rewrite import NotInductive, rewrite_selection
from model_checks.proofs.run import prove_raft
from model_checks.proofs.systems import NAMES, Examined, named
from model_checks.verdicts import CheckResult, Verdict

SECONDS_BETWEEN_LINES = 2.0


@contextmanager
def shown_progress() -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar on a terminal, a line on stderr now and then elsewhere."""
    if sys.stderr.isatty():
        columns = (
            TextColumn("proving"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("")
            yield lambda done, of, what: bar.update(task, completed=done, total=of, description=what)
        return
    last = time.monotonic()

    def line(done: int, of: int, what: str) -> None:
        nonlocal last
        if time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            click.echo(f"{done}/{of} obligations, {what}", err=True)

    yield line


def show(system: System, findings: Findings, checked: CheckResult) -> None:
    """The result for a person."""
    console = Console()
    if not findings.partial:
        texts = {
            **{theorem.name: theorem.text for theorem in system.theorems},
            **{change.name: change.text for change in system.changes},
        }
        table = Table(title="Theorems")
        for heading in ("theorem", "proved for", "in words"):
            table.add_column(heading)
        for name, word in status(system, findings).items():
            table.add_row(name, word, texts[name])
        console.print(table)
    for key, milliseconds in checked.figures["slowest_ms"].items():
        console.print(f"  slowest: {key} {milliseconds:.0f} ms", highlight=False)
    for obligation in findings.unproved[:20]:
        console.print(f"  not proved: {obligation.key}", highlight=False)
    if checked.details:
        console.print(checked.details, highlight=False, markup=False)
    console.print(f"{summary(system, findings)}, {checked.seconds:.1f} s", highlight=False)
    console.print(f"{checked.verdict}{': ' if checked.reason else ''}{checked.reason}", highlight=False, markup=False)


def as_json(checked: CheckResult, line: str) -> str:
    """One JSON object: what `jepsen_like.verify` reads, and the figures."""
    fields = {**msgspec.to_builtins(checked), "summary": line}
    return msgspec.json.encode(fields).decode()


def check_bounded(examined: Examined) -> int:
    """Every mutant's violation and the correct protocol's run, from the initial state; prints the runs."""
    failed = False
    for mutant, (_, scenario) in examined.violations.items():
        run = examined.violation(mutant)
        failed |= run is None
        click.echo(f"{mutant}: {examined.mutants[mutant]}; {scenario.theorem} fails")
        click.echo(str(run) if run else "  no such run: the scenario does not fit the model")
    run = examined.possible()
    failed |= run is None
    click.echo(
        f"the protocol itself: two servers apply or install a snapshot, a read is confirmed\n{run or '  no such run'}"
    )
    return (Verdict.UNKNOWN if failed else Verdict.VALID).exit_code


def check_needs(examined: Examined, selection: selections.Selection) -> int:
    """Each lemma's need, shown again; prints what it finds."""
    system, sizes = examined.system, examined.need_sizes
    names = [lemma.name for lemma in system.lemmas if lemma.name not in examined.implied]
    idle = [name for name in names if not sanity.still_needed(system, selection, name, sizes)]
    for name, reason in examined.implied.items():
        click.echo(f"{name}: {reason}")
    for name in names:
        click.echo(f"{name}: {'IDLE' if name in idle else f'without it {selection.needed_by[name]} fails'}")
    return (Verdict.UNKNOWN if idle else Verdict.VALID).exit_code


@click.command("prove")
@click.option(
    "--system",
    "system_name",
    type=click.Choice(NAMES),
    default="static",
    show_default=True,
    help="static: fixed servers, read-index; whole: and membership, snapshots, leases, transfer, pre-vote.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the solver.")
@click.option("--jobs", type=click.IntRange(1, 64), default=2, show_default=True, help="Worker processes.")
@click.option("--only", default="", metavar="TEXT", help="Only obligations whose name (action/lemma) contains TEXT.")
@click.option("--mutant", metavar="NAME", help="A weakened protocol: must fail.")
@click.option(
    "--timeout", type=click.FloatRange(0.1), default=60.0, show_default=True, help="Seconds for an obligation."
)
@click.option(
    "--bounded", "only_bounded", is_flag=True, help="Runs from the initial state: mutants' and a correct one."
)
@click.option("--needs", is_flag=True, help="Show again that every lemma is needed (half a minute).")
@click.option(
    "--rewrite-selection", "rewrite", is_flag=True, help="Find anew which lemmas each obligation needs (minutes)."
)
@click.option("--json", "json_wanted", is_flag=True, help="One JSON object, with the matrix of obligations.")
def command(
    system_name: str,
    seed: int,
    jobs: int,
    only: str,
    mutant: str | None,
    timeout: float,
    only_bounded: bool,
    needs: bool,
    rewrite: bool,
    json_wanted: bool,
) -> int:
    """Prove Raft's safety and linearizable reads, for any number of servers, terms, indexes and messages.

    Every obligation must be unsatisfiable: "unknown" is a failure. With --mutant the protocol is weakened, and the
    result is a counterexample to induction and a run from the initial state that breaks a theorem.
    """
    examined = named(system_name)
    if mutant is not None and mutant not in examined.mutants:
        raise click.BadParameter(f"{mutant} is none of {', '.join(sorted(examined.mutants))}", param_hint="--mutant")
    if only_bounded:
        return check_bounded(examined)
    if rewrite and system_name != "static":
        raise click.BadParameter(f"{examined.selection.name} is kept by hand", param_hint="--rewrite-selection")
    if rewrite:
        with shown_progress() as progress:
            try:
                idle = rewrite_selection(jobs, progress)
            except NotInductive as error:
                raise click.ClickException(str(error)) from error
        click.echo(f"selection.json is rewritten; idle lemmas: {', '.join(idle) or 'none'}")
        return (Verdict.UNKNOWN if idle else Verdict.VALID).exit_code
    try:
        selection = selections.load(examined.system, examined.selection)
    except selections.StaleSelection as error:
        raise click.ClickException(str(error)) from error
    if needs:
        return check_needs(examined, selection)
    with shown_progress() as progress:
        findings = prove_raft(Portfolio(selection, seed, mutant, timeout, system_name), jobs, only, progress)
    checked = result(examined.system, findings)
    if json_wanted:
        click.echo(as_json(checked, summary(examined.system, findings)))
    else:
        show(examined.system, findings, checked)
    return checked.verdict.exit_code
