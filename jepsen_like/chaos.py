"""`comitia chaos`: break a real cluster for a while and say whether it lied."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.live import Live
from rich.text import Text

from jepsen_like.analysis import RunResult, analyze
from jepsen_like.fuzz.command import command as fuzz_command
from jepsen_like.nemesis.package import DEFAULT, PACKAGES
from jepsen_like.report.verdicts import verdict_line, verdict_table
from jepsen_like.runner import replay_command, run_blocking
from jepsen_like.store.run_directory import ChaosParams, RunDirectory
from jepsen_like.workload.catalog import WORKLOADS
from model_checks.histories.events import MalformedHistory
from model_checks.verdicts import EXIT_INTERNAL, SetupFailed, Verdict

THREADS_PER_AGENT = 20
"""Enough that an agent that is cut off is asked often although every question there takes a timeout."""


def run_chaos(params: ChaosParams, progress: Callable[[str], None], store: Path = Path("runs")) -> RunResult:
    """Run and judge. Raises SetupFailed if the cluster does not come up."""
    directory, _ = run_blocking(params, store, progress)
    return analyze(directory, progress)


def show(result: RunResult, console: Console) -> None:
    """The verdict table, the figures, and for a run that is not VALID the evidence and how to repeat it."""
    console.print(verdict_table(result.checks))
    if result.details:
        console.print(result.details, markup=False, highlight=False)
    words = ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in result.figures.items())
    console.print(words, markup=False, highlight=False)
    console.print(f"stored in {result.directory} (report.html)", markup=False, highlight=False)
    if result.verdict is not Verdict.VALID:
        console.print(f"repeat with: {result.replay}", markup=False, highlight=False)
    console.print(verdict_line(result.verdict))


def _finish(result: RunResult, as_json: bool, console: Console) -> int:
    show(result, console)
    if as_json:
        click.echo(msgspec.json.encode(result))
    return result.verdict.exit_code


def _packages(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    if value in ("none", "all"):
        return tuple(PACKAGES) if value == "all" else ()
    names = tuple(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))
    unknown = [name for name in names if name not in PACKAGES]
    if unknown:
        raise click.BadParameter(f"no nemesis {unknown[0]!r}; there are: {', '.join(PACKAGES)}; all, or none")
    return names


PURPOSES = "\n".join(f"  {name:16} {each.purpose}" for name, each in WORKLOADS.items())
NEMESES = "\n".join(f"  {name:16} {each.purpose}" for name, each in PACKAGES.items())


@click.group("chaos", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Break a real cluster on purpose, record what its clients see, and judge it.

    Exit codes: 0 VALID, 1 INVALID, 2 UNKNOWN (Ctrl-C too), 254 bad arguments, 255 set-up or internal error.
    """


@command.command("test", epilog=f"\b\nWorkloads:\n{PURPOSES}\n\n\b\nNemeses:\n{NEMESES}")
@click.option("--servers", "--nodes", "nodes", type=click.IntRange(1, 9), default=5, show_default=True, help="Servers.")
@click.option("--clients", type=click.IntRange(0, 9), default=2, show_default=True, help="Client agents.")
@click.option(
    "--workload",
    type=click.Choice(list(WORKLOADS)),
    default="register",
    show_default=True,
    help="What clients do, and what is judged (below).",
)
@click.option(
    "--nemesis",
    callback=_packages,
    default=",".join(DEFAULT),
    show_default=True,
    metavar="A,B,...",
    help="What breaks, side by side (below); or all, or none.",
)
@click.option("--time-limit", type=click.FloatRange(min=1), default=60.0, show_default=True, metavar="SECONDS")
@click.option("--seed", type=int, default=None, help="Of all random choices (default: a fresh one, printed).")
@click.option("--rate", type=click.FloatRange(min=1), default=1000.0, show_default=True, help="Operations a second.")
@click.option("--concurrency", type=click.IntRange(min=1), default=None, help="Client threads (default: 20 an agent).")
@click.option(
    "--snapshot-threshold",
    type=click.IntRange(min=1),
    default=None,
    help="Entries after which a server takes a snapshot (default: the agent's; 200 with the nemesis snapshot).",
)
@click.option(
    "--default-reads",
    type=click.Choice(["judged", "apart"]),
    default="judged",
    show_default=True,
    help="Whether reads without a consistency must be linearizable: Comitia promises it, Consul does not.",
)
@click.option("--agent-command", metavar="COMMAND", help="Starts an agent; gets the arguments of `comitia agent`.")
@click.option("--store", type=click.Path(file_okay=False, path_type=Path), default=Path("runs"), show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end, everything else to stderr.")
def test_command(
    nodes: int,
    clients: int,
    workload: str,
    nemesis: tuple[str, ...],
    time_limit: float,
    seed: int | None,
    rate: float,
    concurrency: int | None,
    snapshot_threshold: int | None,
    default_reads: str,
    agent_command: str | None,
    store: Path,
    as_json: bool,
) -> int:
    """Load a cluster, break it, heal it, and judge what clients saw and what servers recorded.

    Each nemesis breaks and mends on its own, beside the others. At the end everything is mended, every server must be a
    voter that serves, and history and traces are judged. A nemesis that came to nothing makes the run UNKNOWN.

    \b
    Examples:
      comitia chaos test
      comitia chaos test --servers 7 --nemesis all --time-limit 180
      comitia chaos test --nemesis membership,kill --time-limit 30 --seed 7
      comitia chaos test --workload lock --rate 400
    """
    for name in nemesis:
        if nodes < PACKAGES[name].servers_min:
            raise click.UsageError(f"the nemesis {name} needs --servers {PACKAGES[name].servers_min} or more")
    params = ChaosParams(
        nodes=nodes,
        clients=clients,
        workload=workload,
        nemesis=nemesis,
        time_limit_s=time_limit,
        seed=secrets.randbelow(1 << 31) if seed is None else seed,
        rate=rate,
        concurrency=THREADS_PER_AGENT * (nodes + clients) if concurrency is None else concurrency,
        agent_command=agent_command,
        snapshot_threshold=snapshot_threshold,
        default_reads=default_reads == "judged",
    )
    console = Console(stderr=as_json)
    console.print(
        f"seed {params.seed}; repeat with: {replay_command(params)}", markup=False, highlight=False, soft_wrap=True
    )
    console.print(msgspec.json.encode(params).decode(), markup=False, highlight=False, soft_wrap=True)
    try:
        with _progress(console) as progress:
            result = run_chaos(params, progress, store)
    except SetupFailed as error:
        console.print(f"set-up failed: {error}", markup=False, highlight=False, soft_wrap=True)
        return EXIT_INTERNAL
    return _finish(result, as_json, console)


@command.command("analyze")
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end, everything else to stderr.")
def analyze_command(run: Path, as_json: bool) -> int:
    """Judge a stored run again, from its directory alone."""
    console = Console(stderr=as_json)
    try:
        with _progress(console) as progress:
            result = analyze(RunDirectory(run), progress)
    except (OSError, msgspec.ValidationError, msgspec.DecodeError, MalformedHistory) as error:
        raise click.UsageError(f"{run} does not hold a readable run: {error}") from error
    return _finish(result, as_json, console)


command.add_command(fuzz_command)


class _progress:
    """A live line on a terminal; plain lines, at most one every few seconds, elsewhere."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        self._count = 0

    def __enter__(self) -> Callable[[str], None]:
        if self._live is not None:
            self._live.start()
        return self._line

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()

    def _line(self, line: str) -> None:
        if self._live is not None:
            self._live.update(Text(line))
        elif "/" not in line or self._count % 16 == 0:
            print(line, file=sys.stderr, flush=True)
        self._count += 1
