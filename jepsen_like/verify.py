"""`comitia verify`: the main job. Proves, explores, links, drives in memory, asks a real cluster, breaks another one.

Each stage is one of the other commands, run as a process of its own with `--json`: what verify says can be repeated by
hand, and a stage that dies cannot take the others with it. This module starts them, shows progress, merges the
verdicts, and turns a run that tried too little into UNKNOWN. It checks nothing itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.live import Live
from rich.table import Table

from model_checks.verdicts import Verdict, merge

INTERRUPT_GRACE_S = 60.0
"""How long a stage may take after Ctrl-C to heal and collect before it is killed."""

STYLES = {"VALID": "bold green", "INVALID": "bold red", "UNKNOWN": "bold yellow"}


class Stage(msgspec.Struct, frozen=True):
    """One command of the main job."""

    name: str
    purpose: str
    arguments: tuple[str, ...]
    group: int
    """Stages of one group run side by side (at most `--jobs`); groups run one after the other."""

    @property
    def command_line(self) -> str:
        """What a person types to repeat this stage alone."""
        return "comitia " + " ".join(self.arguments)


class StageResult(msgspec.Struct, kw_only=True):
    """What became of a stage. `report` is the JSON object that the command printed."""

    name: str
    verdict: Verdict
    reason: str = ""
    seconds: float = 0.0
    command: str = ""
    exit_code: int | None = None
    report: dict[str, Any] = {}


class Requirement(msgspec.Struct, frozen=True):
    """The least that the live run must have tried, or its VALID means too little and becomes UNKNOWN."""

    figure: str
    at_least: int
    meaning: str


REQUIREMENTS = (
    Requirement("acknowledged", 20_000, "acknowledged operations"),
    Requirement("acknowledged_while_impaired", 500, "of them invoked while their server was cut off or paused"),
    Requirement("faults", 15, "faults"),
    Requirement("leader_faults", 3, "faults that hit the leader"),
    Requirement("configuration_changes", 5, "changes of the configuration"),
    Requirement("snapshots_installed", 2, "snapshots installed"),
    Requirement("transfers", 2, "transfers of the leadership"),
    Requirement("lease_reads", 1_000, "reads by lease"),
)
WORKLOAD_TIME_LIMIT_S = 25.0
"""Of the live runs with locks and with the registry, side by side; each says itself what is too little."""
SOCKETS_S = 20.0
"""Some forty runs; what they must have done at least, `check sockets` says itself."""
LIVE_NEMESES = "partition,kill,pause,membership,snapshot,transfer"


def stages(seed: int, jobs: int, time_limit_s: float) -> tuple[Stage, ...]:
    """The main job, in order: cheap and abstract first, real processes last."""
    return (*proofs(seed, jobs), *searches(seed), *questions(seed), *broken_clusters(seed, time_limit_s))


def proofs(seed: int, jobs: int) -> tuple[Stage, ...]:
    """Without bounds; they take all processes, so nothing runs beside them."""
    return (
        stage_of(
            "proofs",
            "Raft's, forwarding's and the catalog's invariants hold for any number of servers, terms, keys, ...",
            f"check prove --seed {seed} --jobs {jobs}",
            group=0,
        ),
    )


def searches(seed: int) -> tuple[Stage, ...]:
    """In memory, within bounds or at random, of one process each: side by side."""
    return tuple(
        stage_of(name, purpose, line, group=1)
        for name, line, purpose in (
            (
                "exploration",
                "check explore --profile verify",
                "the readable spec keeps its properties in every interleaving within bounds",
            ),
            (
                "linking",
                "check link --profile verify",
                "every local step of the readable spec is a step of the proved model",
            ),
            (
                "forwarding",
                "check explore --spec forwarding",
                "no write is applied twice by forwarding, whatever connection is lost when",
            ),
            (
                "forwarding link",
                "check link --spec forwarding",
                "every local step of the readable forwarding is a step of its proved model",
            ),
            (
                "catalog link",
                f"check link --spec catalog --seed {seed}",
                "every command of random logs is an entry of the proved catalog",
            ),
            (
                "stateful",
                f"check stateful --seed {seed}",
                "the real core and log on a disk that loses unsynced writes",
            ),
        )
    )


def questions(seed: int) -> tuple[Stage, ...]:
    """A cluster of real processes that nobody disturbs."""
    return (
        stage_of(
            "sockets",
            "three servers and a client agent answer a random client as the spec of the catalog says",
            f"check sockets --seconds {SOCKETS_S:g} --seed {seed}",
            group=2,
        ),
    )


def broken_clusters(seed: int, time_limit_s: float) -> tuple[Stage, ...]:
    """Real processes that are cut, killed and paused: first the one that is judged by how much it tried."""
    small = "chaos test --servers 3 --clients 1 --rate 300"
    shorter_s = min(time_limit_s, WORKLOAD_TIME_LIMIT_S)
    return (
        stage_of(
            "live cluster",
            "five servers and two client agents: cut, killed, paused, removed, left behind, handed over",
            "chaos test --servers 5 --clients 2 --workload register"
            f" --nemesis {LIVE_NEMESES} --time-limit {time_limit_s:g} --seed {seed}",
            group=3,
        ),
        stage_of(
            "live locks",
            "three servers, cut, killed and paused: sessions, lock-delays, fenced writes",
            f"{small} --workload lock --time-limit {shorter_s:g} --seed {seed}",
            group=4,
        ),
        stage_of(
            "live registry",
            "the same: registrations, health answers, blocking queries",
            f"{small} --workload registry --time-limit {shorter_s:g} --seed {seed}",
            group=4,
        ),
    )


def stage_of(name: str, purpose: str, line: str, *, group: int) -> Stage:
    """The stage that a command line makes: as a person types it, but for `--json`."""
    return Stage(name, purpose, (*line.split(), "--json"), group)


def last_json_object(output: str) -> dict[str, Any]:
    """The last line of `output` that is a JSON object; {} if there is none."""
    for line in reversed(output.splitlines()):
        if line.startswith("{"):
            with contextlib.suppress(json.JSONDecodeError):
                found = json.loads(line)
                if isinstance(found, dict):
                    return found
    return {}


def judge(stage: Stage, exit_code: int, output: str, errors: str, seconds: float) -> StageResult:
    """The verdict of a finished stage: its exit code and its report must agree, or the stage says nothing."""
    report = last_json_object(output)
    result = StageResult(
        name=stage.name,
        verdict=Verdict.UNKNOWN,
        seconds=seconds,
        command=stage.command_line,
        exit_code=exit_code,
        report=report,
    )
    if exit_code not in (0, 1, 2):
        last_words = [line for line in errors.splitlines() if line.strip()][-3:]
        result.reason = f"set-up failed (exit code {exit_code}): " + " | ".join(last_words)
        return result
    verdict = (Verdict.VALID, Verdict.INVALID, Verdict.UNKNOWN)[exit_code]
    if report.get("verdict") != verdict.value:
        result.reason = f"exit code {exit_code} and reported verdict {report.get('verdict')!r} disagree"
        return result
    result.verdict = verdict
    result.reason = str(report.get("reason", ""))
    return result


def too_little(figures: Mapping[str, Any]) -> str:
    """Why a live run with these figures says too little; empty if it tried enough."""
    missing = [
        f"{figures.get(need.figure, 0)} {need.meaning} (at least {need.at_least})"
        for need in REQUIREMENTS
        if not isinstance(figures.get(need.figure, 0), int) or figures.get(need.figure, 0) < need.at_least
    ]
    return "tried too little: " + "; ".join(missing) if missing else ""


def require_enough(result: StageResult) -> StageResult:
    """A live run that is VALID but tried too little is UNKNOWN."""
    reason = too_little(result.report.get("figures", {}))
    if result.verdict is Verdict.VALID and reason:
        result.verdict, result.reason = Verdict.UNKNOWN, reason
    return result


class Progress:
    """The table that a person watches: a row a stage, with what it says of itself while it runs."""

    def __init__(self, plan: Sequence[Stage], console: Console) -> None:
        self.plan = plan
        self.console = console
        self.started: dict[str, float] = {}
        self.saying: dict[str, str] = {}
        self.results: dict[str, StageResult] = {}

    def __rich__(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for title in ("stage", "verdict", "seconds", "what was done"):
            table.add_column(title, justify="right" if title == "seconds" else "left", overflow="fold")
        for stage in self.plan:
            result = self.results.get(stage.name)
            if result is not None:
                done = result.reason if result.verdict is not Verdict.VALID else summary(result)
                verdict = f"[{STYLES[result.verdict.value]}]{result.verdict.value}"
                table.add_row(stage.name, verdict, f"{result.seconds:.1f}", done or result.reason)
            elif stage.name in self.started:
                seconds = time.monotonic() - self.started[stage.name]
                table.add_row(stage.name, "running", f"{seconds:.0f}", self.saying.get(stage.name, stage.purpose))
            else:
                table.add_row(f"[dim]{stage.name}", "", "", f"[dim]{stage.purpose}")
        return table


def summary(result: StageResult) -> str:
    """One line of figures, from the stage's own report."""
    figures = result.report.get("figures", {})
    if "summary" in result.report:
        return str(result.report["summary"])
    counted = [(name, value) for name, value in figures.items() if type(value) is int and value]
    return ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in counted)


async def run_stage(stage: Stage, progress: Progress) -> StageResult:
    """Run one stage to its end. When cancelled (Ctrl-C), interrupt it and give it time to heal and collect."""
    started = progress.started[stage.name] = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "comitia",
        *stage.arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        limit=1 << 26,
    )
    errors: list[str] = []

    async def listen() -> None:
        assert process.stderr is not None
        async for line in process.stderr:
            text = line.decode(errors="replace").rstrip()
            errors.append(text)
            if text:
                progress.saying[stage.name] = text[-100:]

    async def collect() -> str:
        assert process.stdout is not None
        output, _ = await asyncio.gather(process.stdout.read(), listen())
        await process.wait()
        return output.decode(errors="replace")

    collecting = asyncio.ensure_future(collect())
    try:
        output = await asyncio.shield(collecting)
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        try:
            await asyncio.wait_for(collecting, INTERRUPT_GRACE_S)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        raise
    assert process.returncode is not None
    seconds = time.monotonic() - started
    return judge(stage, process.returncode, output, "\n".join(errors), seconds)


async def run_all(plan: Sequence[Stage], jobs: int, progress: Progress) -> None:
    """Run the groups one after the other, the stages of a group side by side; results land in `progress`."""

    async def one(stage: Stage, slots: asyncio.Semaphore) -> None:
        async with slots:
            result = await run_stage(stage, progress)
        progress.results[stage.name] = require_enough(result) if stage.name == "live cluster" else result

    for group in sorted({stage.group for stage in plan}):
        slots = asyncio.Semaphore(jobs)
        await asyncio.gather(*(one(stage, slots) for stage in plan if stage.group == group))


def show_failures(results: Sequence[StageResult], console: Console) -> None:
    """Print, for each stage that is not VALID, its reason, evidence and how to repeat it."""
    for result in results:
        if result.verdict is Verdict.VALID:
            continue
        console.print(f"\n[bold]{result.name}[/]: {result.verdict.value}", highlight=False)
        if result.reason:
            console.print(f"  {result.reason}", highlight=False, markup=False)
        details = result.report.get("details")
        if details:
            console.print(str(details), highlight=False, markup=False)
        console.print(f"  repeat it: {result.command}", highlight=False, markup=False)


def finish(plan: Sequence[Stage], progress: Progress) -> list[StageResult]:
    """One result a stage: those that did not run, or were interrupted, are UNKNOWN."""
    return [
        progress.results.get(stage.name)
        or StageResult(name=stage.name, verdict=Verdict.UNKNOWN, reason="interrupted", command=stage.command_line)
        for stage in plan
    ]


@click.command("verify")
@click.option("--time-limit", type=click.FloatRange(min=1), default=90.0, show_default=True, metavar="SECONDS")
@click.option("--jobs", type=click.IntRange(min=1), default=2, show_default=True, help="Processes to use side by side.")
@click.option("--seed", type=int, default=None, help="Seed of all random choices (default: a fresh one, printed).")
@click.option("--only", multiple=True, metavar="STAGE", help="Run only this stage (repeatable).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of the table.")
def command(time_limit: float, jobs: int, seed: int | None, only: tuple[str, ...], as_json: bool) -> int:
    """Check the whole chain: proofs, exploration, linking, the core in memory, real clusters asked and broken.

    The stage `sockets` compares every answer of a cluster at rest with the spec.

    The live part starts five servers and two client agents as processes in network namespaces, loads them for
    --time-limit seconds while links are cut, processes killed and paused, servers removed and added again, followers
    left behind until they need a snapshot, and the leadership handed over; then it checks the client history and every
    recorded step of every server. A run that tried too little is UNKNOWN.

    Exit codes: 0 VALID, 1 INVALID, 2 UNKNOWN (Ctrl-C too), 254 bad arguments, 255 internal error.
    """
    seed = secrets.randbelow(1 << 31) if seed is None else seed
    plan = stages(seed, jobs, time_limit)
    unknown = set(only) - {stage.name for stage in plan}
    if unknown:
        raise click.UsageError(
            f"no stage named {', '.join(sorted(unknown))}; there are: {', '.join(stage.name for stage in plan)}"
        )
    plan = tuple(stage for stage in plan if not only or stage.name in only)
    console = Console(stderr=as_json)
    console.print(
        f"seed {seed}; repeat with: comitia verify --seed {seed} --time-limit {time_limit:g}", highlight=False
    )
    started = time.monotonic()
    progress = Progress(plan, console)
    live = Live(progress, console=console, refresh_per_second=4, transient=False)
    with live, contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run_all(plan, jobs, progress))
    results = finish(plan, progress)
    verdict = merge(result.verdict for result in results)
    seconds = time.monotonic() - started
    show_failures(results, console)
    console.print(f"\n[{STYLES[verdict.value]}]{verdict.value}[/] in {seconds:.0f} s", highlight=False)
    if as_json:
        body = {"verdict": verdict, "seed": seed, "seconds": round(seconds, 3), "stages": results}
        click.echo(msgspec.json.encode(body).decode())
    return verdict.exit_code
