"""`comitia check link`: every local step that exploration meets, linked to the relational model."""

from __future__ import annotations

import time

import click
import msgspec
from rich.console import Console
from rich.table import Table

from model_checks.explore.judge import PROPERTIES
from model_checks.explore.mutants import MUTANTS
from model_checks.explore.profiles import PROFILES, Leg, run_legs
from model_checks.explore.search import Progress
from model_checks.explore.starts import scripted_steps
from model_checks.linking.polarity import negative_mentions
from model_checks.linking.report import link_transitions
from model_checks.proofs.whole import WHOLE
from model_checks.verdicts import CheckResult, Verdict
from spec.raft.actions import ACTIONS, initial_server
from spec.raft.network import Protocol, Transition
from spec.raft.types import Constants, Server

Groups = list[tuple[Constants, list[Transition]]]


def explored(profile: str, mutant: str | None) -> Groups:
    """The distinct local steps of a profile's explorations (or a mutant's), by cluster."""
    legs: tuple[Leg, ...] = PROFILES[profile]
    protocol: Protocol = ACTIONS
    watched: tuple[str, ...] = PROPERTIES
    if mutant is not None:
        legs = (Leg(MUTANTS[mutant].bounds, MUTANTS[mutant].start),)
        protocol, watched = MUTANTS[mutant].protocol, (MUTANTS[mutant].breaks,)

    def progress(leg: Leg) -> Progress:
        click.echo(f"exploring {leg.start} within {leg.bounds}", err=True)
        return lambda depth, distinct, frontier: None

    results = run_legs(legs, protocol=protocol, properties=watched, progress=progress)
    steps: dict[Constants, dict[Transition, None]] = {}
    for result in results:
        steps.setdefault(result.bounds.constants(), {}).update(dict.fromkeys(result.local_transitions))
    for start in sorted({leg.start for leg in legs}):
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

    Guards that are not positive; states that nothing leads to; if all of the spec was explored, steps of the model that
    never happened.
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
@click.option("--profile", type=click.Choice(list(PROFILES)), default="small", show_default=True)
@click.option("--mutant", type=click.Choice(sorted(MUTANTS)), help="Link a broken protocol's steps instead.")
@click.option("--json", "json_wanted", is_flag=True, help="One JSON object.")
def command(profile: str, mutant: str | None, json_wanted: bool) -> int:
    """Link every local step that exploration meets to the relational model that `check prove` proves.

    Each must be a step of the model, a sequence of them, or a stutter. The proof then covers every step that was
    linked, and no others.
    """
    start = time.perf_counter()
    groups = explored(profile, mutant)
    click.echo(f"linking {sum(len(steps) for _, steps in groups):,} steps", err=True)
    checked = link_transitions(groups)
    checked.figures["unestablished"] = unestablished(groups)
    checked = judged(checked, whole=mutant is None)
    checked = msgspec.structs.replace(checked, seconds=round(time.perf_counter() - start, 2))
    if json_wanted:
        fields = {**msgspec.to_builtins(checked), "summary": summary(checked)}
        click.echo(msgspec.json.encode(fields).decode())
    else:
        show(checked)
    return checked.verdict.exit_code
