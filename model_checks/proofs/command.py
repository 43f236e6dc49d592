"""`comitia check prove`: the proofs of the relational models, and of what their mutants break."""

from __future__ import annotations

import dataclasses
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from model_checks.proofs import junit, sanity
from model_checks.proofs import selection as selections
from model_checks.proofs.prover import Portfolio
from model_checks.proofs.report import Report, result, summary
from model_checks.proofs.rewrite import NotInductive, rewrite_selection
from model_checks.proofs.run import prove_systems
from model_checks.proofs.systems import NAMES, Examined, named
from model_checks.proofs.tables import show
from model_checks.verdicts import CheckResult, Verdict, merge

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


def as_json(checked: CheckResult, line: str) -> str:
    """One JSON object: what `jepsen_like.verify` reads, and the figures."""
    fields = {**msgspec.to_builtins(checked), "summary": line}
    return msgspec.json.encode(fields).decode()


def check_bounded(examined: Examined, only: str | None) -> int:
    """Every mutant's violation and the correct protocol's run, from the initial state; prints the runs."""
    failed = False
    for mutant, (_, scenario) in examined.violations.items():
        if only is not None and mutant != only:
            continue
        run = examined.violation(mutant)
        failed |= run is None
        click.echo(f"{mutant}: {examined.mutants[mutant]}; {scenario.theorem} fails")
        click.echo(str(run) if run else "  no such run: the scenario does not fit the model")
    if only is None:
        run = examined.possible()
        failed |= run is None
        click.echo(f"{examined.name} itself: {examined.witnessed}\n{run or '  no such run'}")
    return (Verdict.UNKNOWN if failed else Verdict.VALID).exit_code


def check_needs(examined: Examined, selection: selections.Selection) -> int:
    """Each lemma's need, shown again; prints what it finds."""
    system, sizes, needed_by = examined.system, examined.need_sizes, selection.needed_by
    names = [lemma.name for lemma in system.lemmas if lemma.name not in examined.implied]
    idle = [name for name in names if not sanity.still_needed(system, needed_by[name], name, sizes)]
    for name, reason in examined.implied.items():
        click.echo(f"{examined.name} {name}: {reason}")
    for name in names:
        click.echo(f"{examined.name} {name}: {'IDLE' if name in idle else f'without it {needed_by[name]} fails'}")
    return (Verdict.UNKNOWN if idle else Verdict.VALID).exit_code


def rewrite(examined: Examined, jobs: int) -> int:
    """Make a selection file again."""
    with shown_progress() as progress:
        try:
            idle = rewrite_selection(examined.name, jobs, progress)
        except (NotInductive, selections.StaleSelection) as error:
            raise click.ClickException(str(error)) from error
    click.echo(f"{examined.selection.name} is made again; idle lemmas: {', '.join(idle) or 'none'}")
    return (Verdict.UNKNOWN if idle else Verdict.VALID).exit_code


def wanted_systems(name: str, mutant: str | None) -> list[Examined]:
    """The systems that are asked for; of a mutant, those that have it. Raises BadParameter."""
    examined = [named(each) for each in (NAMES if name == "all" else (name,))]
    if mutant is None:
        return examined
    having = [each for each in examined if mutant in each.mutants]
    if not having:
        known = sorted({known for each in examined for known in each.mutants})
        raise click.BadParameter(f"{mutant} is none of {', '.join(known)}", param_hint="--mutant")
    return having


def prove_seeds(portfolios: Sequence[Portfolio], seeds: int, jobs: int, only: str) -> list[Report]:
    """One run for each seed; whether the proofs say anything is asked once."""
    reports = []
    for k in range(seeds):
        seeded = [dataclasses.replace(portfolio, seed=portfolio.seed + k) for portfolio in portfolios]
        with shown_progress() as progress:
            reports.append(prove_systems(seeded, jobs, only, progress, sane=k == 0))
        if seeds > 1:
            again = sum(proof.attempts > 1 for proof in reports[-1].proofs)
            click.echo(f"{summary(reports[-1])}, {reports[-1].seconds:.1f} s, {again} with more than one run", err=True)
    return reports


def over_seeds(reports: Sequence[Report]) -> tuple[Report, CheckResult]:
    """The run that says most (the first that is not VALID, else the first), and the verdict of all."""
    results = [result(report) for report in reports]
    place = next((k for k, checked in enumerate(results) if checked.verdict is not Verdict.VALID), 0)
    seconds = [report.seconds for report in reports]
    runs = {
        "seeds": [checked.figures["seed"] for checked in results],
        "seconds_by_seed": [round(second, 2) for second in seconds],
        "seconds_median": round(statistics.median(seconds), 2),
        "seconds_max": round(max(seconds), 2),
        "again": tried_again(reports),
    }
    figures = {**results[place].figures, **(runs if len(reports) > 1 else {})}
    checked = msgspec.structs.replace(
        results[place], verdict=merge(checked.verdict for checked in results), figures=figures
    )
    return reports[place], checked


def tried_again(reports: Sequence[Report]) -> dict[str, int]:
    """Obligations that took more than one solver run, with the number of seeds: the next to be grounded."""
    counted = Counter(
        f"{findings.examined.name} {proof.obligation.key}"
        for report in reports
        for findings in report.systems
        for proof in findings.proofs
        if proof.attempts > 1
    )
    return dict(counted.most_common())


@click.command("prove")
@click.option(
    "--system",
    "system_name",
    type=click.Choice(("all", *NAMES)),
    default="all",
    show_default=True,
    help="static: fixed servers, read-index; whole: and membership, snapshots, leases, transfer, pre-vote; forwarding; "
    "catalog: keys, locks, sessions, registry, transactions; lockstep, replicas: determinism.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the solver.")
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="Prove again with the next seeds.")
@click.option("--jobs", type=click.IntRange(1, 64), default=2, show_default=True, help="Worker processes.")
@click.option("--only", default="", metavar="TEXT", help="Only obligations whose name (action/lemma) contains TEXT.")
@click.option("--mutant", metavar="NAME", help="A weakened protocol: must fail.")
@click.option(
    "--timeout", type=click.FloatRange(0.1), default=60.0, show_default=True, help="Seconds for an obligation."
)
@click.option(
    "--bounded", "only_bounded", is_flag=True, help="Runs from the initial state: mutants' and a correct one."
)
@click.option("--needs", is_flag=True, help="Show again that every lemma is needed (minutes).")
@click.option(
    "--rewrite-selection", "rewriting", is_flag=True, help="Find anew which lemmas each obligation needs (minutes)."
)
@click.option("--explain", is_flag=True, help="Say which arguments Z3 does not check.")
@click.option("--matrix/--no-matrix", default=True, show_default=True, help="The time of each obligation.")
@click.option("--junit", "junit_file", type=click.Path(dir_okay=False, path_type=Path), help="Write JUnit XML, too.")
@click.option("--json", "json_wanted", is_flag=True, help="One JSON object, with the matrix of obligations.")
def command(
    system_name: str,
    seed: int,
    seeds: int,
    jobs: int,
    only: str,
    mutant: str | None,
    timeout: float,
    only_bounded: bool,
    needs: bool,
    rewriting: bool,
    explain: bool,
    matrix: bool,
    junit_file: Path | None,
    json_wanted: bool,
) -> int:
    """Prove the safety of Raft, its reads, forwarding and the catalog, for any number of servers, terms, keys, ...

    Every obligation must be unsatisfiable: "unknown" is a failure. With --mutant the protocol is weakened, and the
    result is a counterexample to induction and a run from the initial state that breaks a theorem.
    """
    systems = wanted_systems(system_name, mutant)
    if only_bounded:
        return max(check_bounded(examined, mutant) for examined in systems)
    if rewriting:
        return max(rewrite(examined, jobs) for examined in systems)
    try:
        chosen = [selections.load(examined.system, examined.selection) for examined in systems]
    except selections.StaleSelection as error:
        raise click.ClickException(str(error)) from error
    if needs:
        return max(check_needs(examined, selection) for examined, selection in zip(systems, chosen, strict=True))
    portfolios = [
        Portfolio(selection, seed, mutant, timeout, examined.name)
        for examined, selection in zip(systems, chosen, strict=True)
    ]
    report, checked = over_seeds(prove_seeds(portfolios, seeds, jobs, only))
    if junit_file is not None:
        junit.write(report, junit_file)
    if json_wanted:
        click.echo(as_json(checked, summary(report)))
    else:
        show(report, checked, with_matrix=matrix, explain=explain)
    return checked.verdict.exit_code
