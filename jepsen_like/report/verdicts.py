"""Verdicts as a person reads them on a terminal: a line for each checker, and the verdict of all."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from model_checks.verdicts import CheckResult, Verdict

STYLES = {Verdict.VALID: "bold green", Verdict.INVALID: "bold red", Verdict.UNKNOWN: "bold yellow"}


def verdict_table(checks: Iterable[CheckResult]) -> Table:
    """Who checked, the verdict, and what is broken or why it is not known."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("checker", "verdict", "broken property, or why"):
        table.add_column(title, overflow="fold")
    for check in checks:
        why = ": ".join(filter(None, [check.property, check.reason]))
        table.add_row(check.checker, Text(check.verdict.value, STYLES[check.verdict]), Text(why))
    return table


def verdict_line(verdict: Verdict) -> Text:
    """The last line."""
    return Text.assemble(("verdict: ", ""), (verdict.value, STYLES[verdict]))
