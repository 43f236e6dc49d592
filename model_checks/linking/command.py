"""`comitia check link`: the local steps that exploration and random runs meet, linked to the relational model."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

import click
import msgspec
from rich.console import Console
from rich.table import Table

from model_checks.catalog.random_logs import random_log
from model_checks.explore.judge import PROPERTIES
from model_checks.explore.mutants import MUTANTS
from model_checks.explore.profiles import PROFILES, Leg, run_legs
from model_checks.explore.results import Exploration, Limits
from model_checks.explore.search import Progress
from model_checks.explore.starts import scripted_steps
from model_checks.linking.catalog import link_logs
from model_checks.linking.forwarding import link_forwarding
from model_checks.linking.polarity import negative_mentions
from model_checks.linking.report import link_transitions
from model_checks.linking.walks import BOUNDS, walked
from model_checks.proofs.whole import WHOLE
from model_checks.verdicts import CheckResult, Verdict
from spec.raft.actions import initial_server
from spec.raft.network import Protocol, Transition, transition
from spec.raft.types import Constants, Server

Groups = list[tuple[Constants, list[Transition]]]

MUTANT_STATES_MAX: Final = 10_000
"""States of a broken protocol that are looked at: its broken steps are near the start."""

LOG_LENGTH: Final = 100
"""Commands of a random log of the catalog."""

WALK_STEPS: Final = 800
"""Steps of a random run."""


def explored(profile: str) -> Groups:
    """The distinct local steps of a profile's explorations and of the scripts that lead to their starts, by cluster."""
    legs: tuple[Leg, ...] = PROFILES[profile]

    def progress(leg: Leg) -> Progress:
        click.echo(f"exploring {leg.start} within {leg.bounds}", err=True)
        return lambda depth, distinct, frontier: None

    results = run_legs(legs, properties=PROPERTIES, progress=progress)
    return grouped(results, sorted({leg.start for leg in legs}))


def broken(mutant: str, states_max: int = MUTANT_STATES_MAX) -> Groups:
    """The distinct local steps of a broken protocol, near the start from which exploration finds it broken.

    Exploration stops where a property breaks; so what was issued by then reaches the disk, too.
    """
    wrong = MUTANTS[mutant]
    results = run_legs(
        (Leg(wrong.bounds, wrong.start),),
        protocol=wrong.protocol,
        properties=(wrong.breaks,),
        limits=Limits(states=states_max),
    )
    return [(c, [*steps, *on_disk_at_last(c, wrong.protocol, steps)]) for c, steps in grouped(results, [])]


def on_disk_at_last(c: Constants, protocol: Protocol, steps: list[Transition]) -> Iterator[Transition]:
    """Where a step leaves writes under way: the step in which all of them reach the disk."""
    for step in steps:
        if step.after.issued:
            done = transition(protocol, c, step.server, step.after, "persist", len(step.after.issued))
            if done is not None:
                yield done


def grouped(results: list[Exploration], starts: list[str]) -> Groups:
    """Local steps by the cluster that they are of."""
    steps: dict[Constants, dict[Transition, None]] = {}
    for result in results:
        steps.setdefault(result.bounds.constants(), {}).update(dict.fromkeys(result.local_transitions))
    for start in starts:
        constants, script = scripted_steps(start)
        steps.setdefault(constants, {}).update(dict.fromkeys(script))
    return [(constants, list(found)) for constants, found in steps.items()]


def unestablished(groups: Groups) -> int:
    """How many states steps were taken from that no linked step leads to: their claims would be assumed, not shown."""
    assumed = 0
    for constants, steps in groups:
        for i in constants.servers:
            leads_to: dict[Server, list[Server]] = {}
            for step in steps:
                if step.server == i:
                    leads_to.setdefault(step.before, []).append(step.after)
            reached, frontier = {initial_server()}, [initial_server()]
            while frontier:
                found = {after for before in frontier for after in leads_to.get(before, ())} - reached
                reached |= found
                frontier = list(found)
            assumed += len(leads_to.keys() - reached)
    return assumed


def judged(checked: CheckResult, whole: bool) -> CheckResult:
    """The result, with what would make it worthless.

    Guards that are not positive; states that nothing leads to; if all of the spec was looked at, steps of the model
    that never happened.
    """
    negative = negative_mentions(WHOLE)
    never = [name for name, count in checked.figures.get("by_model_action", {}).items() if count == 0]
    reason = ""
    if negative:
        reason = f"guards mention the network negatively: {', '.join(sorted(negative))}"
    elif checked.figures.get("unestablished"):
        reason = f"{checked.figures['unestablished']} states that no linked step leads to"
    elif whole and never:
        reason = f"no step of the model was ever linked: {', '.join(never)}"
    if reason and checked.verdict is Verdict.VALID:
        return msgspec.structs.replace(checked, verdict=Verdict.UNKNOWN, reason=reason)
    return checked


def summary(checked: CheckResult) -> str:
    """One line of what was done."""
    figures = checked.figures
    return (
        f"{figures['linked']:,} local steps linked: {figures['model_steps']:,} steps of the model, "
        f"{figures['stutters']:,} stutters, {figures['per_second']:,}/s"
    )


def show(checked: CheckResult) -> None:
    """The result for a person."""
    console = Console()
    table = Table(title="Linked local steps")
    for heading in ("action of the spec", "linked", "of them stutters"):
        table.add_column(heading)
    for action, count in checked.figures["by_action"].items():
        table.add_row(action, f"{count:,}", f"{checked.figures['stutters_by_action'].get(action, 0):,}")
    console.print(table)
    model_steps = ", ".join(f"{name} {count:,}" for name, count in checked.figures["by_model_action"].items())
    console.print(f"steps of the model: {model_steps}", highlight=False)
    if checked.details:
        console.print(checked.details, highlight=False, markup=False)
    console.print(f"{summary(checked)}; {checked.seconds:.1f} s with exploration", highlight=False)
    console.print(f"{checked.verdict}{': ' if checked.reason else ''}{checked.reason}", highlight=False, markup=False)


@click.command("link")
@click.option("--spec", type=click.Choice(["raft", "forwarding", "catalog"]), default="raft", show_default=True)
@click.option("--profile", type=click.Choice(list(PROFILES)), default="small", show_default=True)
@click.option("--walks", default=16, show_default=True, help="Random runs of the whole protocol, besides.")
@click.option("--seed", default=0, show_default=True, help="Of the first random run or log; the others follow.")
@click.option("--commands", type=click.IntRange(1), default=4_000, show_default=True, help="Of random logs.")
@click.option(
    "--mutant", type=click.Choice(sorted(MUTANTS)), metavar="NAME", help="Link a broken protocol's steps instead."
)
@click.option("--json", "json_wanted", is_flag=True, help="One JSON object.")
def command(
    spec: str, profile: str, walks: int, seed: int, commands: int, mutant: str | None, json_wanted: bool
) -> int:
    """Link every local step that exploration meets to the relational model that `check prove` proves.

    So are the steps of some random runs, in which what exploration's bounds keep apart happens together. Each step must
    be a step of the model, a sequence of them, or a stutter. The proof then covers every step that was linked, and no
    others. `--spec forwarding` links the composition of agents that forward, explored to the end of its own bounds;
    `--spec catalog` every command of random logs.
    """
    start = time.perf_counter()
    if spec != "raft" and mutant is not None:
        raise click.UsageError("--mutant is of Raft: its steps are linked with --spec raft.")
    if spec == "forwarding":
        return report(link_forwarding(), json_wanted)
    if spec == "catalog":
        count = -(-commands // LOG_LENGTH)
        click.echo(f"{count} random logs of {LOG_LENGTH} commands, seeds {seed} to {seed + count - 1}", err=True)
        logs = (random_log(k, LOG_LENGTH, restores=True) for k in range(seed, seed + count))
        return report(link_logs(logs), json_wanted)
    if mutant is not None:
        groups = broken(mutant)
    else:
        groups = explored(profile)
        click.echo(f"{walks} random runs of {WALK_STEPS} steps, seeds {seed} to {seed + walks - 1}", err=True)
        groups.append((BOUNDS.constants(), walked(range(seed, seed + walks), WALK_STEPS)))
    click.echo(f"linking {sum(len(steps) for _, steps in groups):,} steps", err=True)
    checked = link_transitions(groups)
    checked.figures["unestablished"] = unestablished(groups)
    checked = judged(checked, whole=mutant is None and walks > 0)
    return report(msgspec.structs.replace(checked, seconds=round(time.perf_counter() - start, 2)), json_wanted)


def report(checked: CheckResult, json_wanted: bool) -> int:
    """Print the result; its exit code."""
    if json_wanted:
        fields = {**msgspec.to_builtins(checked), "summary": summary(checked)}
        click.echo(msgspec.json.encode(fields).decode())
    else:
        show(checked)
    return checked.verdict.exit_code
