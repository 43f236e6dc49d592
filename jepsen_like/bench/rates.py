"""Measured rates as people read them: a table, and what must be known to believe it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from jepsen_like.bench.kv import Measured, ratios

SATURATED = 0.9
WIDTH = 110
"""Of tables that do not go to a terminal."""


def wide_console() -> Console:
    """Where tables of rates are printed."""
    return Console() if sys.stdout.isatty() else Console(width=WIDTH)


def rate_table(measured: Sequence[Measured]) -> Table:
    """A row for each."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in (
        "system",
        "operation",
        "clients",
        "connections",
        "per second",
        "p50 ms",
        "p99 ms",
        "errors",
        "elections",
        "generator",
        "servers",
    ):
        table.add_column(title, justify="left" if title in ("system", "operation") else "right", no_wrap=True)
    for each in measured:
        shares = " ".join(f"{share:.0%}" for share in each.generator_cpu_shares)
        table.add_row(
            *(each.system, each.operation, str(each.clients), str(each.connections), f"{each.per_second:,.0f}"),
            *(
                f"{each.p50_ms:.2f}",
                f"{each.p99_ms:.2f}",
                str(each.errors),
                str(each.elections),
                shares,
                f"{each.server_cpu_share:.0%}",
            ),
        )
    return table


def print_rates(console: Console, measured: Sequence[Measured]) -> None:
    """The table; below it how far rounds differ, who was saturated, what failed, and how it compares with etcd."""
    console.print(rate_table(measured))
    console.print("generator, servers: CPU, of one core (each generator process; all servers)", highlight=False)
    for each in measured:
        what = f"{each.system} {each.operation}, {each.connections} connections"
        if each.rounds > 1:
            spread = f"{each.slowest_per_second:,.0f} to {each.fastest_per_second:,.0f}"
            console.print(f"{what}: median of {each.rounds} rounds, {spread} a second", highlight=False)
        if max(each.generator_cpu_shares) > SATURATED:
            console.print(f"{what}: the load generator was saturated; raise --processes", highlight=False)
        if each.last_error:
            console.print(f"{what}: {each.last_error}", markup=False)
    for ratio in ratios(measured):
        shared = f"whose clients share {ratio.etcd_connections} connections"
        way = shared if ratio.etcd_shares else "with as many connections"
        console.print(f"{ratio.operation}: {ratio.times:.2f} times etcd {way}", highlight=False)
