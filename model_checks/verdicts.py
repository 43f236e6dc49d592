"""Verdicts VALID, INVALID, UNKNOWN(reason); how they merge; exit codes. A broken set-up is none of the three.

INVALID beats UNKNOWN beats VALID: a found violation stands whatever else could not be checked; what could not be
checked is never called valid. Exit codes: ARCHITECTURE.md and README.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

import msgspec

EXIT_VALID = 0
EXIT_INVALID = 1
EXIT_UNKNOWN = 2
EXIT_USAGE = 254
EXIT_INTERNAL = 255


class Verdict(StrEnum):
    """The answer of a check."""

    VALID = "VALID"
    INVALID = "INVALID"
    UNKNOWN = "UNKNOWN"

    @property
    def exit_code(self) -> int:
        """The process exit code that stands for this verdict."""
        return {"VALID": EXIT_VALID, "INVALID": EXIT_INVALID, "UNKNOWN": EXIT_UNKNOWN}[self.value]


class SetupFailed(Exception):
    """The check could not be set up (missing privilege, a process that does not start). The text says what to do."""


class CheckResult(msgspec.Struct, kw_only=True):
    """One checker's answer: who checked what, the verdict, why, and what was done (figures for people and machines)."""

    checker: str
    verdict: Verdict
    property: str = ""
    """The property that was broken (INVALID), empty otherwise."""
    reason: str = ""
    """One line: why INVALID or UNKNOWN."""
    details: str = ""
    """Evidence for a person: a counterexample, a field diff. May have several lines."""
    figures: dict[str, Any] = {}
    seconds: float = 0.0


def merge(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst of `verdicts`; of none, UNKNOWN: nothing was checked."""
    seen = set(verdicts)
    for worst in (Verdict.INVALID, Verdict.UNKNOWN):
        if worst in seen:
            return worst
    return Verdict.VALID if seen else Verdict.UNKNOWN
