"""`comitia check sockets`: a random client over sockets beside spec/catalog; or a stored history again."""

from __future__ import annotations

import secrets
import shlex
import sys
import tempfile
import time
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from jepsen_like.cluster.api import ClusterFailure, ClusterSpec
from jepsen_like.sockets.binding import agents_of
from model_checks.stateful.sockets import history
from model_checks.stateful.sockets.run import CHECKER, STEPS, check_sockets, encoded, judge_again, summary
from model_checks.verdicts import CheckResult, SetupFailed, Verdict

SERVERS, CLIENTS = 3, 1
RUNS = 100
NIGHTLY_RUNS = 2000
HISTORY = "history.ndjson"
TRACES = "traces"
RUNS_MAX = 1_000_000


@click.command("sockets")
@click.option("--runs", type=click.IntRange(min=1), help=f"How many runs. [default: {RUNS}]")
@click.option("--steps", type=click.IntRange(min=1), default=STEPS, show_default=True, help="Of each run.")
@click.option("--seconds", type=click.FloatRange(min=1), help="How long, instead of --runs.")
@click.option("--nightly", is_flag=True, help=f"{NIGHTLY_RUNS} runs.")
@click.option("--seed", type=click.IntRange(min=0), help="Of all random choices (default: a fresh one, printed).")
@click.option("--store", type=click.Path(file_okay=False, path_type=Path), help="Where to keep history and logs.")
@click.option("--agent-command", metavar="COMMAND", help="Starts an agent, instead of `comitia agent`.")
@click.option("--trace", is_flag=True, help="Servers record every step, for `comitia check trace`; with --store.")
@click.option(
    "--replay", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Judge this history again."
)
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON.")
def command(
    runs: int | None,
    steps: int,
    seconds: float | None,
    nightly: bool,
    seed: int | None,
    store: Path | None,
    agent_command: str | None,
    trace: bool,
    replay: Path | None,
    as_json: bool,
) -> int:
    """Ask a cluster of real processes at random; compare every answer and every index with the spec.

    Three servers and a client agent; commands of every kind, reads of every kind in every consistency mode, blocking
    queries. The history is kept if anything is wrong, or with --store. Real processes answer at their own pace, so the
    same seed asks the same only as long as they answer the same: --replay judges a history again exactly.

    Exit codes: 0 VALID, 1 INVALID, 2 UNKNOWN.
    """
    if trace and store is None:
        raise click.UsageError("--trace needs --store: the traces stay there")
    if (runs is not None) + (seconds is not None) + nightly > 1:
        raise click.UsageError("--runs, --seconds and --nightly exclude each other")
    if replay is not None:
        try:
            result = judge_again(replay)
        except history.BadHistory as error:
            raise click.UsageError(str(error)) from error
        _print(result, as_json, None)
        return result.verdict.exit_code
    runs = RUNS_MAX if seconds is not None else NIGHTLY_RUNS if nightly else runs or RUNS
    seed = secrets.randbelow(1 << 31) if seed is None else seed
    limit = ["--seconds", f"{seconds:g}"] if seconds is not None else ["--runs", str(runs)]
    broken = ["--agent-command", shlex.quote(agent_command)] if agent_command is not None else []
    words = ["comitia", "check", "sockets", *limit, "--steps", str(steps), "--seed", str(seed), *broken]
    click.echo(f"seed {seed}; repeat with: {' '.join(words)}", err=as_json)
    directory = store if store is not None else Path(tempfile.mkdtemp(prefix="comitia-sockets-"))
    directory.mkdir(parents=True, exist_ok=True)
    try:
        result = _check(directory, seed, runs, steps, seconds, agent_command, trace)
    except (ClusterFailure, SetupFailed) as failure:
        raise click.ClickException(f"set-up failed: {failure} (logs: {directory / 'logs'})") from failure
    kept: Path | None = directory / HISTORY
    if result.verdict is Verdict.VALID and store is None:
        _forget(directory)
        kept = None
    _print(result, as_json, kept)
    return result.verdict.exit_code


def _check(
    directory: Path, seed: int, runs: int, steps: int, seconds: float | None, agent_command: str | None, trace: bool
) -> CheckResult:
    spec = ClusterSpec(
        servers=SERVERS,
        clients=CLIENTS,
        test_clients=1,
        agent_command=agent_command,
        log_dir=directory / "logs",
        trace_dir=directory / TRACES if trace else None,
        seed=seed & 0xFFFF,
    )
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    began = time.monotonic()
    with (
        open(directory / HISTORY, "wb", buffering=0) as file,
        agents_of(spec) as agents,
        Progress(*columns, console=Console(stderr=True), transient=True) as bar,
    ):
        total = int(seconds) if seconds is not None else runs
        task = bar.add_task("runs" if seconds is None else "seconds", total=total)

        def progress(done: int, requests: int) -> None:
            at = min(int(time.monotonic() - began), total) if seconds is not None else done
            bar.update(task, completed=at, description=f"{done} runs, {requests} requests")

        def write(event: history.Event) -> None:
            file.write(history.line(event))

        result = check_sockets(
            agents,
            seed=seed,
            runs=runs,
            steps=steps,
            seconds=seconds,
            write=write,
            progress=progress,
        )
        ended = agents.unexpected_exits()
    if ended and result.verdict is not Verdict.INVALID:
        why = f"{', '.join(ended)} ended by itself"
        return CheckResult(
            checker=CHECKER,
            verdict=Verdict.INVALID,
            property="agents do not end by themselves",
            reason=why,
            figures=result.figures,
            seconds=result.seconds,
        )
    return result


def _forget(directory: Path) -> None:
    for path in sorted(directory.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    directory.rmdir()


def _print(result: CheckResult, as_json: bool, kept: Path | None) -> None:
    if as_json:
        click.echo(encoded(result).decode())
    else:
        click.echo(f"{result.verdict.value}: {summary(result)} in {result.seconds:.1f} s")
        if result.property:
            click.echo(f"{result.property}: {result.reason}")
        elif result.reason:
            click.echo(result.reason)
        if result.details:
            click.echo(result.details)
        if result.verdict is Verdict.VALID:
            for name, count in result.figures.items():
                click.echo(f"  {name:32} {count}")
    if kept is not None:
        click.echo(f"judge the history again with: comitia check sockets --replay {kept}", file=sys.stderr)
