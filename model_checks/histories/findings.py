"""What a checker of compound objects (locks, registries) hands to `check`: objections, and registers to be searched."""

from __future__ import annotations

from typing import Any

import msgspec

from model_checks.histories.operations import Operation


class Objection(msgspec.Struct, frozen=True):
    """A broken property, and the operations that show it."""

    property: str
    reason: str
    key: Any
    operations: tuple[Operation, ...]


class Findings(msgspec.Struct, kw_only=True):
    """A history judged, but for its registers."""

    checker: str
    objections: tuple[Objection, ...]
    registers: dict[str, list[Operation]]
    """By name, operations `read` and `write` that must be linearizable."""
    register_property: str
    """What is broken if one of them is not."""
    figures: dict[str, int]
    nothing_learnt: str = ""
    """Why nothing was learnt, if so: UNKNOWN."""
