"""Operations drawn against time: as text for the terminal, as one self-contained HTML page (inline SVG) for the
store.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

import msgspec

from model_checks.histories.operations import FOREVER, Operation, Outcome

TEXT_OPERATIONS_MAX = 40
"""Rows of a text timeline; the latest are shown."""
COLOURS = {Outcome.OK: "#6db6fe", Outcome.INFO: "#ffaa26", Outcome.FAIL: "#feb5da"}
"""Jepsen's colours for ok, info and fail."""


def describe(operation: Operation) -> str:
    """The operation in a few words: `read -> 3`, `write 4`, `cas 3 -> 4`, with ? where nobody knows if it happened."""
    doubt = {Outcome.OK: "", Outcome.FAIL: " (failed)", Outcome.INFO: " ?"}[operation.outcome]

    def show(value: object) -> str:
        return msgspec.json.encode(value).decode()

    if operation.f == "read":
        answer = show(operation.answer) if operation.outcome is Outcome.OK else "..."
        asked = "" if operation.argument is None else f"{show(operation.argument)} "
        return f"read {asked}-> {answer}{doubt}"
    if operation.f == "cas" and isinstance(operation.argument, list) and len(operation.argument) == 2:
        return f"cas {show(operation.argument[0])} -> {show(operation.argument[1])}{doubt}"
    words = operation.f if operation.argument is None else f"{operation.f} {show(operation.argument)}"
    if operation.outcome is Outcome.OK and operation.answer not in (None, operation.argument):
        return f"{words} -> {show(operation.answer)}"
    return f"{words}{doubt}"


def text(operations: Sequence[Operation]) -> str:
    """A row an operation, in order of invocation; columns are the order of events, not their distance."""
    shown = sorted(operations, key=lambda operation: operation.call)[-TEXT_OPERATIONS_MAX:]
    positions = sorted({o.call for o in shown} | {o.ret for o in shown if o.ret != FOREVER})
    column = {position: 2 * place for place, position in enumerate(positions)}
    end = 2 * len(positions) + 1
    labels = [f"process {operation.process}: {describe(operation)}" for operation in shown]
    width = max(map(len, labels), default=0)
    rows = []
    for operation, label in zip(shown, labels, strict=True):
        left = column[operation.call]
        right, tip = (end, ">") if operation.ret == FOREVER else (column[operation.ret], "|")
        bar = " " * left + "|" + "-" * (right - left - 1) + tip
        rows.append(f"  {label:<{width}}  {bar}")
    if len(shown) < len(operations):
        rows.insert(0, f"  ({len(operations) - len(shown)} earlier operations are not shown)")
    return "\n".join(rows)


def page(title: str, reason: str, operations: Sequence[Operation]) -> str:
    """An HTML document: processes as rows, time (ns) as distance, hover for details."""
    processes = sorted({operation.process for operation in operations})
    row = {process: place for place, process in enumerate(processes)}
    start = min((operation.call_ns for operation in operations), default=0)
    ends = [operation.ret_ns for operation in operations if operation.ret_ns != FOREVER]
    finish = max([*ends, *(operation.call_ns for operation in operations)], default=1)
    scale = 1000 / max(1, finish - start)
    bars = []
    for operation in operations:
        left = 140 + (operation.call_ns - start) * scale
        right = 1160 if operation.ret_ns == FOREVER else 140 + (operation.ret_ns - start) * scale
        top = 10 + 26 * row[operation.process]
        label = html.escape(describe(operation))
        span = (
            "unknown end" if operation.ret_ns == FOREVER else f"{(operation.ret_ns - operation.call_ns) / 1e6:.3f} ms"
        )
        bars.append(
            f"<g><title>process {operation.process}: {label}, {span}</title>"
            f'<rect x="{left:.1f}" y="{top}" width="{max(3.0, right - left):.1f}" height="20" rx="3" '
            f'fill="{COLOURS[operation.outcome]}"/><text x="{left + 4:.1f}" y="{top + 14}">{label}</text></g>'
        )
    names = "".join(f'<text x="4" y="{24 + 26 * row[process]}">process {process}</text>' for process in processes)
    height = 20 + 26 * len(processes)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        "<style>body{font:14px sans-serif;margin:2em}svg text{font:12px sans-serif}</style>"
        f"<h1>{html.escape(title)}</h1><p>{html.escape(reason)}</p>"
        f'<svg width="1180" height="{height}" viewBox="0 0 1180 {height}">{names}{"".join(bars)}</svg>'
        f"<pre>{html.escape(text(operations))}</pre></html>\n"
    )
