"""A proof run for a person at a terminal: theorems, the matrix action x invariant in milliseconds, what is outside Z3.

Must not: decide anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from model_checks.proofs.obligations import Kind
from model_checks.proofs.report import Findings, Report, matrix, outside, slowest, status, summary
from model_checks.verdicts import CheckResult

NAME_WIDTH: Final = 26
CELL_WIDTH: Final = 5
UNPROVED_SHOWN: Final = 20


def show(report: Report, checked: CheckResult, *, with_matrix: bool, explain: bool) -> None:
    """Print a run."""
    console = Console(highlight=False)
    for findings in report.systems:
        if not findings.proofs:
            continue
        if not findings.partial:
            console.print(theorems(findings))
        if with_matrix:
            show_matrix(console, findings)
        show_rest(console, findings)
    if report.ghosts is not None:
        found = "\n".join(f"  {dependence.action}: {dependence.what}" for dependence in report.ghosts)
        console.print(f"What lies below a base makes no difference: {'proved' if not found else 'NOT PROVED'}{found}")
    if checked.details:
        console.print(checked.details, markup=False)
    if explain:
        console.print("Arguments that Z3 does not check:", *(f"  {line}" for line in outside(report)), sep="\n")
    console.print(f"{summary(report)}, {checked.seconds:.1f} s")
    console.print(f"{checked.verdict}{': ' if checked.reason else ''}{checked.reason}", markup=False)


def theorems(findings: Findings) -> Table:
    """What is known of each theorem."""
    system = findings.examined.system
    texts = {
        **{theorem.name: theorem.text for theorem in system.theorems},
        **{change.name: change.text for change in system.changes},
    }
    table = Table(title=f"{findings.examined.name}: {findings.examined.title}", title_justify="left")
    table.add_column("theorem", no_wrap=True, min_width=max(map(len, texts)))
    for heading in ("proved for", "in words"):
        table.add_column(heading)
    for name, word in status(findings).items():
        table.add_row(name, word, " ".join(texts[name].split()))
    return table


def show_matrix(console: Console, findings: Findings) -> None:
    """The milliseconds of each obligation: invariants down, actions across, in as many tables as the width needs."""
    found = matrix(findings)
    columns = [act.name for act in findings.examined.system.actions if act.name in found]
    system = findings.examined.system
    goals = [lemma.name for lemma in system.lemmas] + [change.name for change in system.changes]
    rows = [goal for goal in goals if any(goal in found[column] for column in columns)]
    if not rows:
        return
    numbers = {column: str(number) for number, column in enumerate(columns, start=1)}
    console.print(
        f"{findings.examined.name}: milliseconds of each obligation, invariant (down) kept by action (across)"
    )
    console.print("  " + "  ".join(f"{number} {column}" for column, number in numbers.items()))
    for part in chunks(columns, max(1, (console.width - NAME_WIDTH - 4) // CELL_WIDTH)):
        table = Table(box=None, padding=(0, 0), show_edge=False)
        table.add_column("", width=NAME_WIDTH, no_wrap=True)
        for column in part:
            table.add_column(numbers[column], width=CELL_WIDTH, justify="right", no_wrap=True)
        for row in rows:
            table.add_row(row, *(cell(found[column], row) for column in part))
        console.print(table)
    steps = [proof for proof in findings.proofs if proof.obligation.kind in (Kind.STEP, Kind.THEOREM, Kind.MAJORITY)]
    done = [f"{p.obligation.key} {p.milliseconds:.0f}" for p in sorted(steps, key=lambda p: p.obligation) if p.proved]
    if done:
        console.print(f"  steps, cuts, theorems and majorities (ms): {', '.join(done)}")


def chunks(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """The items, at most `size` at a time."""
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]


def cell(row: Mapping[str, float | None], goal: str) -> Text:
    """The milliseconds of one obligation; a dot where there is none to prove."""
    if goal not in row:
        return Text("·", style="dim")
    milliseconds = row[goal]
    if milliseconds is None:
        return Text("FAIL", style="bold red")
    return Text(f"{milliseconds:.0f}", style="yellow" if milliseconds >= 1000 else "")


def show_rest(console: Console, findings: Findings) -> None:
    """What was slow, what is not proved, whether the proof says anything."""
    name = findings.examined.name
    words = [f"{key} {milliseconds:.0f}" for key, milliseconds in list(slowest(findings).items())[:4]]
    console.print(f"  slowest (ms): {', '.join(words)}")
    again = sum(proof.attempts > 1 for proof in findings.proofs)
    if again:
        console.print(f"  {again} obligations took more than one solver run")
    for obligation in findings.unproved[:UNPROVED_SHOWN]:
        console.print(f"  not proved: {obligation.key}")
    if findings.witness is not None:
        possible = "possible" if findings.witness else "NOT possible"
        console.print(f"  {name} from the initial state: {findings.examined.witnessed}: {possible}")
        forbidden = ", ".join(findings.unreachable)
        reachable = len(findings.examined.system.actions) - len(findings.unreachable)
        console.print(
            f"  axioms and lemmas are satisfiable with the guards of {reachable} of "
            f"{len(findings.examined.system.actions)} actions{f'; not with {forbidden}' if forbidden else ''}"
        )
