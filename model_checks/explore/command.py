"""`comitia check explore`: explore the readable specs within bounds; print bounds, states, coverage, witnesses,
verdict.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from model_checks.explore import report
from model_checks.explore.judge import PROPERTIES
from model_checks.explore.mutants import MUTANTS
from model_checks.explore.profiles import PROFILES, Leg, run_legs
from model_checks.explore.results import Limits
from model_checks.explore.search import Engine
from model_checks.explore.starts import SCRIPTS, STARTS
from model_checks.verdicts import EXIT_VALID, CheckResult
from spec.raft.actions import ACTIONS
from spec.raft.bounds import Bounds

BOUND_OPTIONS = ("servers", "max_term", "max_log", "max_issued", "max_restarts")


class Options(msgspec.Struct, frozen=True):
    """What the command line asks for."""

    profile: str
    start: str | None
    bounds: dict[str, Any]
    mutant: str | None
    properties: tuple[str, ...]

    def legs(self) -> tuple[Leg, ...]:
        """The explorations to run: a mutant's own, those of the profile, or one within the bounds given."""
        mutant = None if self.mutant is None else MUTANTS[self.mutant]
        if not self.bounds and self.start is None:
            return PROFILES[self.profile] if mutant is None else (Leg(mutant.bounds, mutant.start),)
        start = self.start or (mutant.start if mutant is not None else "initial")
        scripted = Bounds() if start == "initial" else SCRIPTS[start]().bounds
        known = scripted if mutant is None else mutant.bounds
        bounds = msgspec.structs.replace(known, **self.bounds)
        if start != "initial" and bounds.constants() != scripted.constants():
            raise click.UsageError(
                f"start {start} has servers and features of its own: leave --servers and --mutant away"
            )
        return (Leg(bounds, start),)

    def watched(self) -> tuple[str, ...]:
        """The properties to judge by: those asked for, else the theorem that the mutant breaks, else all."""
        if self.properties:
            return self.properties
        return PROPERTIES if self.mutant is None else (MUTANTS[self.mutant].breaks,)


def explore_raft(options: Options, limits: Limits, engine: Engine) -> CheckResult:
    """Run what `options` ask for, with progress on stderr."""
    began = time.monotonic()
    legs = options.legs()
    protocol = ACTIONS if options.mutant is None else MUTANTS[options.mutant].protocol
    console = Console(stderr=True)
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("exploring", total=len(legs))

        def each_leg(leg: Leg) -> Callable[[int, int, int], None]:
            number = legs.index(leg)

            def each_level(depth: int, distinct: int, frontier: int) -> None:
                text = f"leg {number + 1} of {len(legs)}, {leg.start}: depth {depth}, {distinct:,} states"
                bar.update(task, completed=number, description=text)
                if not console.is_terminal and frontier == 0:
                    print(text, file=sys.stderr, flush=True)

            return each_level

        results = run_legs(
            legs, protocol=protocol, properties=options.watched(), limits=limits, engine=engine, progress=each_leg
        )
    whole_profile = not options.bounds and options.start is None and options.mutant is None
    return report.check_result(
        results, protocol, mutant=options.mutant, vacuous_is_unknown=whole_profile, seconds=time.monotonic() - began
    )


def explore_forwarding(mutant: str | None, profile: str) -> CheckResult:
    """Explore `spec.forwarding`, whose bounds and mutants are its own."""
    from model_checks.explore import forwarding, forwarding_mutants

    known = forwarding_mutants.MUTANTS
    if mutant is not None and mutant not in known:
        raise click.UsageError(f"forwarding has no mutant {mutant!r}; there are: {', '.join(known)}")
    bounds = forwarding.DEEP if profile == "deep" else forwarding.VERIFY
    return forwarding.explore_forwarding(bounds, mutant)


@click.command("explore")
@click.option("--spec", type=click.Choice(["raft", "forwarding"]), default="raft", show_default=True)
@click.option("--profile", type=click.Choice(list(PROFILES)), default="verify", show_default=True)
@click.option("--start", type=click.Choice(list(STARTS)), help="Explore once, from this world.")
@click.option("--servers", type=click.IntRange(1, 5), help="Explore once, within such bounds (so do the next five).")
@click.option("--max-term", type=click.IntRange(min=0), help="No term beyond this.")
@click.option("--max-log", type=click.IntRange(min=0), help="No log longer than this.")
@click.option("--max-issued", type=click.IntRange(min=1), help="Writes that one disk may have under way.")
@click.option("--max-restarts", type=click.IntRange(min=0), help="Crashes, of all servers together.")
@click.option("--reads", type=click.IntRange(min=0), help="Linearizable reads.")
@click.option("--mutant", help="Explore a broken protocol instead, which must fail; 'list' names them.")
@click.option("--property", "properties", type=click.Choice(PROPERTIES), multiple=True, help="Watch only these.")
@click.option("--oracle", is_flag=True, help="Use the plain search: slow, and reads like the spec.")
@click.option("--compiled", is_flag=True, help="Compile the inner loop (up to 3 servers): pays from a million states.")
@click.option("--states-max", type=click.IntRange(min=1), default=Limits().states, show_default=True)
@click.option("--time-limit", type=click.FloatRange(min=0), help="Seconds for each leg; reaching it is UNKNOWN.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on the last line.")
def command(
    spec: str,
    profile: str,
    start: str | None,
    reads: int | None,
    mutant: str | None,
    properties: tuple[str, ...],
    oracle: bool,
    compiled: bool,
    states_max: int,
    time_limit: float | None,
    as_json: bool,
    **bounds: int | None,
) -> int:
    """Explore every interleaving of a spec within bounds, breadth first.

    VALID: no property is broken in any state within the bounds. INVALID: a shortest path to a violation is shown.
    UNKNOWN: a limit was reached, or a profile never took some action.
    """
    if mutant == "list" and spec == "raft":
        for name, each in MUTANTS.items():
            click.echo(f"{name:<36} {each.breaks:<22} {each.meaning}")
        return EXIT_VALID
    if spec == "forwarding":
        result = explore_forwarding(mutant, profile)
    else:
        if mutant is not None and mutant not in MUTANTS:
            raise click.UsageError(f"raft has no mutant {mutant!r}; there are: {', '.join(MUTANTS)}")
        chosen: dict[str, Any] = {name: bounds[name] for name in BOUND_OPTIONS if bounds[name] is not None}
        if reads is not None:
            chosen["reads"] = tuple(f"r{number}" for number in range(1, reads + 1))
        options = Options(profile, start, chosen, mutant, properties)
        limits = Limits(states_max, float("inf") if time_limit is None else time_limit)
        if compiled and importlib.util.find_spec("numba") is None:
            raise click.UsageError("--compiled needs numba: install comitia[checks], or leave the option away")
        engine = Engine.PLAIN if oracle else Engine.COMPILED if compiled else Engine.INTERNED
        try:
            result = explore_raft(options, limits, engine)
        except OverflowError as error:
            raise click.UsageError(str(error)) from error
    report.show(result, as_json=as_json)
    return result.verdict.exit_code
