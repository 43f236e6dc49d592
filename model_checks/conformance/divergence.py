"""A divergence: the first place where a trace is not a behaviour of the spec, with what a person needs to understand
it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from model_checks.conformance.trace import TraceFile, last_lines

RAFT = "conformance/raft"
PROVENANCE = "conformance/provenance"
DURABILITY = "conformance/durability"
FORWARDING = "conformance/forwarding"
READS = "conformance/reads"
INVARIANTS = "conformance/invariants"
CHECKERS = (RAFT, PROVENANCE, DURABILITY, FORWARDING, READS, INVARIANTS)


class Place(msgspec.Struct, frozen=True):
    """Where in the traces: a line of one process incarnation."""

    file: TraceFile
    line: int
    ns: int

    def __str__(self) -> str:
        return f"{self.file.node}, incarnation {self.file.incarnation}, line {self.line}"


class Divergence(Exception):
    """`checker` found `property` broken at `place`; `why` is one line, `evidence` several."""

    def __init__(self, checker: str, property: str, why: str, evidence: Iterable[str] = ()) -> None:
        super().__init__(why)
        self.checker, self.property, self.why = checker, property, why
        self.evidence = tuple(evidence)
        self.place: Place | None = None

    @property
    def ns(self) -> int:
        """When, on the monotonic clock that all servers of a machine share."""
        return self.place.ns if self.place else 0

    def reason(self) -> str:
        """One line."""
        return f"{self.place}: {self.why}" if self.place else self.why

    def details(self) -> str:
        """Everything: the field diff and the lines that led there."""
        lines = [f"{self.property}: {self.reason()}", *self.evidence]
        if self.place:
            lines += excerpt(self.place.file.path, self.place.line)
        return "\n".join(lines)


def excerpt(path: Path, number: int) -> list[str]:
    """The last lines of a trace up to line `number`."""
    return [f"the last lines of {path.name}:", *(f"  {shortened(line)}" for line in last_lines(path, number))]


def field_diff(expected: msgspec.Struct, recorded: msgspec.Struct) -> list[str]:
    """The fields in which two values of one type differ: name, what the spec says, what was recorded."""
    return mapping_diff(msgspec.structs.asdict(expected), msgspec.structs.asdict(recorded))


def mapping_diff(expected: dict[str, Any], recorded: dict[str, Any]) -> list[str]:
    """The keys of `expected` at which `recorded` has something else, or nothing."""
    rows = [f"  {'field':<16}{'spec':<28}recorded"]
    for name, value in expected.items():
        found = recorded.get(name, "(missing)")
        if found != value:
            rows.append(f"  {name:<16}{shown(value):<28}{shown(found)}")
    return rows


def shown(value: object) -> str:
    """A value in a diff, not longer than a line."""
    text = str(value) if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def shortened(line: str, most: int = 300) -> str:
    """A line of a trace in a report."""
    return line if len(line) <= most else f"{line[: most - 60]} ... {line[-50:]}"
