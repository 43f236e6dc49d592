"""Who held which lock when, as a drawing: a row a key, a bar a hold, as sure as the history makes it.

A bar begins with the first invocation that may have acquired the lock and ends where the next hold of the key, or
nobody's, was first seen. What is certain, between the first answer that shows the hold and the last question that was
answered with it, is drawn full; the rest is pale. A hold that was lost with its session, not released, ends in red.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from jepsen_like.report.svg import BOTTOM, LEFT, WIDTH
from model_checks.histories.lock_sightings import Hold, LockHistory, lock_history
from model_checks.histories.locks import Certain, Loss, certain_holds, losses
from model_checks.histories.operations import Operation

ROW = 22
COLOURS = ("#4878a8", "#e49444", "#5fa052", "#b07aa1", "#85b6b2", "#967662", "#d1a53a", "#a87c9f")
"""A session keeps its colour over all locks; neighbours in time may share one."""
LOST = "#d1242f"


def drawing(operations: Sequence[Operation]) -> str:
    """An SVG element under its title; empty if no lock was held."""
    history = lock_history(operations)
    times = [operation.call_ns for operation in operations]
    if not history.sightings:
        return ""
    start, end = min(times), max(times)
    scale = (WIDTH - LEFT) / max(1, end - start)
    lost = {(loss.key, loss.hold): loss for loss in losses(history)}
    parts = []
    for place, key in enumerate(sorted(history.sightings, key=lambda key: (len(str(key)), str(key)))):
        holds = sorted(certain_holds(history.sightings[key]).items())
        top = place * ROW + 2
        parts.append(f'<text x="2" y="{top + 13}">{html.escape(str(key))}</text>')
        for number, (hold, known) in enumerate(holds):
            following = holds[number + 1][1].first.ret_ns if number + 1 < len(holds) else end
            until_ns = min(max(_end_ns(history, key, hold, known, end), known.last.call_ns), following)
            left, sure, unsure, right = (
                LEFT + (ns - start) * scale
                for ns in (known.first.call_ns, known.first.ret_ns, known.last.call_ns, until_ns)
            )
            colour = COLOURS[hash_of(known.session) % len(COLOURS)]
            words = _words(key, hold, known, lost.get((key, hold)), start)
            parts.append(
                f"<g><title>{html.escape(words)}</title>"
                f'<rect x="{left:.1f}" y="{top}" width="{max(1.0, right - left):.1f}" height="{ROW - 6}" '
                f'fill="{colour}" opacity="0.35"/>'
                f'<rect x="{sure:.1f}" y="{top}" width="{max(1.0, unsure - sure):.1f}" height="{ROW - 6}" '
                f'fill="{colour}"/>'
            )
            if (key, hold) in lost:
                parts.append(f'<rect x="{right - 2:.1f}" y="{top}" width="2" height="{ROW - 6}" fill="{LOST}"/>')
            parts.append("</g>")
    height = len(history.sightings) * ROW + BOTTOM
    seconds = max(1, (end - start) // 1_000_000_000)
    axis = "".join(
        f'<text x="{LEFT + second * 1e9 * scale:.1f}" y="{height - 4}">{second} s</text>'
        for second in range(0, seconds, max(1, seconds // 12))
    )
    title = "holds of locks: a row a key, a colour a session; pale: possible, full: certain; red: lost with its session"
    return (
        f'<h3>{title}</h3><svg width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}">'
        f"{''.join(parts)}{axis}</svg>"
    )


def hash_of(session: str) -> int:
    """The same number for the same session, in every process."""
    return sum(map(ord, session))


def _end_ns(history: LockHistory, key: Any, hold: Hold, known: Certain, end_ns: int) -> int:
    """When the lock was first seen to be free after this hold, or to be its session's no more."""
    free = [
        sighting.by.ret_ns
        for sighting in history.sightings[key]
        if sighting.row.hold == hold and sighting.row.session is None
    ]
    session = history.sessions.get(known.session)
    releases = [] if session is None else session.releases.get(key, [])
    free += [release.ret_ns for release in releases if release.call > known.last.call]
    return min(free, default=end_ns)


def _words(key: Any, hold: Hold, known: Certain, loss: Loss | None, start_ns: int) -> str:
    at = (known.first.ret_ns - start_ns) / 1e9
    fate = "" if loss is None else ", lost with its session"
    return f"lock {key}, hold ({hold[0]}, {hold[1]}), session {known.session}, from {at:.2f} s{fate}"
