"""A plot against time as inline SVG: lines, points, shading, marks. Nothing about what is plotted."""

from __future__ import annotations

import html
from collections.abc import Sequence

WIDTH, HEIGHT, LEFT, BOTTOM = 1140, 260, 46, 22


def seconds(nanoseconds: int) -> int:
    """Whole seconds."""
    return nanoseconds // 1_000_000_000


class Plot:
    """One diagram: x from start_ns to end_ns, y from 0 to `top`.

    `labels`: the y axis; None: numbers. Faults are shaded in `shade_rows` rows.
    """

    def __init__(
        self, title: str, start_ns: int, end_ns: int, top: float, labels: dict[int, str] | None, shade_rows: int = 1
    ) -> None:
        self.start_ns = start_ns
        self.seconds = seconds(end_ns - start_ns) + 1
        self._title = title
        self._top = top
        self._shade_rows = shade_rows
        self._labels = labels if labels is not None else {round(top * part / 4): "" for part in range(5)}
        self._parts: list[str] = []
        self._front: list[str] = []

    def _x(self, second: float) -> float:
        return LEFT + (WIDTH - LEFT) * min(max(second, 0.0), float(self.seconds)) / self.seconds

    def _y(self, value: float) -> float:
        return (HEIGHT - BOTTOM) * (1 - min(value, self._top) / self._top) + 4

    def shade(self, start_ns: int, end_ns: int, colour: str, words: str, row: int) -> None:
        """A translucent band over a time, in one of the `shade_rows` rows."""
        left, right = self._x((start_ns - self.start_ns) / 1e9), self._x((end_ns - self.start_ns) / 1e9)
        height = (HEIGHT - BOTTOM) / self._shade_rows
        self._parts.append(
            f'<rect x="{left:.1f}" y="{4 + row * height:.1f}" width="{max(1.0, right - left):.1f}" '
            f'height="{height:.1f}" fill="{colour}" opacity="0.55"><title>{html.escape(words)}</title></rect>'
        )

    def line(self, points: Sequence[tuple[float, float]], colour: str, words: str) -> None:
        """A polyline through (second, value)."""
        path = " ".join(f"{self._x(second + 0.5):.1f},{self._y(value):.1f}" for second, value in points)
        self._front.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2">'
            f"<title>{html.escape(words)}</title></polyline>"
        )

    def point(self, second: float, value: float, colour: str) -> None:
        """A dot."""
        self._front.append(f'<circle cx="{self._x(second):.1f}" cy="{self._y(value):.1f}" r="1.3" fill="{colour}"/>')

    def mark(self, ns: int, words: str, label: str) -> None:
        """A dashed vertical line with a label."""
        x = self._x((ns - self.start_ns) / 1e9)
        self._front.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="{HEIGHT - BOTTOM + 4}" stroke="#555" stroke-dasharray="3 3">'
            f"<title>{html.escape(words)}</title></line>"
            f'<text x="{x + 2:.1f}" y="14">{html.escape(label)}</text>'
        )

    def render(self) -> str:
        """The SVG element, under its title."""
        step = max(1, self.seconds // 12)
        axis = "".join(
            f'<text x="{self._x(second):.1f}" y="{HEIGHT - 2}">{second} s</text>'
            for second in range(0, self.seconds, step)
        )
        axis += "".join(
            f'<text x="2" y="{self._y(value) + 4:.1f}">{html.escape(label or f"{value:,}")}</text>'
            f'<line x1="{LEFT}" x2="{WIDTH}" y1="{self._y(value):.1f}" y2="{self._y(value):.1f}" stroke="#ddd"/>'
            for value, label in self._labels.items()
        )
        return (
            f"<h3>{html.escape(self._title)}</h3>"
            f'<svg width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}">'
            f"{axis}{''.join(self._parts)}{''.join(self._front)}</svg>"
        )
