"""`comitia chaos fuzz`: random requests to a real agent, and whether it stood them."""

from __future__ import annotations

import secrets
import shlex

import click
import msgspec
from rich.console import Console

from jepsen_like.report.verdicts import verdict_line, verdict_table
from model_checks.verdicts import EXIT_INTERNAL, CheckResult, SetupFailed, Verdict, merge

CASES = 10_000


class FuzzResult(msgspec.Struct, frozen=True):
    """What `--json` prints."""

    verdict: Verdict
    seed: int
    replay: str
    checks: list[CheckResult]


@click.command("fuzz")
@click.option("--cases", "count", type=click.IntRange(min=1), default=CASES, show_default=True)
@click.option("--servers", type=click.IntRange(0, 7), default=0, show_default=True, help="0: one -dev server is asked.")
@click.option("--seed", type=int, default=None, help="Of all random choices (default: a fresh one, printed).")
@click.option("--operation", default=None, metavar="ID", help="Ask this operation alone, by its operationId.")
@click.option("--agent-command", metavar="COMMAND", help="Starts an agent; gets the arguments of `comitia agent`.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end, everything else to stderr.")
def command(
    count: int, servers: int, seed: int | None, operation: str | None, agent_command: str | None, as_json: bool
) -> int:
    """Ask a real agent at random, and judge it by the OpenAPI document that it serves.

    Schemathesis makes the cases of /v1/openapi.json: valid ones, broken ones, names that exist and names that do not.
    Every request must be answered within 10 s, as the document says, with no 5xx but Consul's own; afterwards the
    process must hold no more memory, files, connections, tasks and threads than before. With --servers a client agent
    of such a cluster is asked.

    \b
    Examples:
      comitia chaos fuzz
      comitia chaos fuzz --cases 1500 --seed 7
      comitia chaos fuzz --servers 3 --cases 3000
    """
    # Schemathesis is slow to load, and only this command needs it.
    try:
        from jepsen_like.fuzz.agents import running
        from jepsen_like.fuzz.campaign import Campaign
    except ImportError as error:
        raise click.UsageError(f"{error}: install comitia[fuzz]") from error

    number = secrets.randbelow(1 << 31) if seed is None else seed
    replay = _replay(count, servers, number, operation, agent_command)
    console = Console(stderr=as_json)
    console.print(f"seed {number}; repeat with: {replay}", markup=False, highlight=False, soft_wrap=True)
    try:
        with running(servers, agent_command) as agent, console.status("starting") as status:
            checks = Campaign(agent, servers, number, count, operation).run(status.update)
    except SetupFailed as error:
        console.print(f"set-up failed: {error}", markup=False, highlight=False, soft_wrap=True)
        return EXIT_INTERNAL
    result = FuzzResult(merge(check.verdict for check in checks), number, replay, checks)
    _show(result, console)
    if as_json:
        click.echo(msgspec.json.encode(result))
    return result.verdict.exit_code


def _replay(count: int, servers: int, seed: int, operation: str | None, agent_command: str | None) -> str:
    words = ["comitia", "chaos", "fuzz", "--cases", str(count), "--servers", str(servers), "--seed", str(seed)]
    words += ["--operation", operation] if operation else []
    words += ["--agent-command", agent_command] if agent_command else []
    return shlex.join(words)


def _show(result: FuzzResult, console: Console) -> None:
    console.print(verdict_table(result.checks))
    for check in result.checks:
        if check.details:
            console.print(check.details, markup=False, highlight=False, soft_wrap=True)
        for name, figure in check.figures.items():
            console.print(f"{check.checker}, {name}: {figure}", markup=False, highlight=False, soft_wrap=True)
    console.print(verdict_line(result.verdict))
