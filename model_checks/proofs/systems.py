"""The systems that can be proved, by name, with all that a run of the prover needs to know of each.

`static` is Raft with read-index reads, to which the readable spec is linked; `whole` adds all the rest. Must not: build
a system before it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from model_checks.proofs import bounded, sanity, selection
from model_checks.proofs.algebra import System
from model_checks.proofs.finite import SIZES, Sizes

NAMES: Final = ("static", "whole")


@dataclass(frozen=True, slots=True)
class Examined:
    """A system, its mutants, and the small sorts over which it is looked at."""

    name: str
    system: System
    selection: Path
    """The file with its selected hypotheses."""
    mutants: Mapping[str, str]
    violations: Mapping[str, tuple[System, bounded.Scenario]]
    """For mutants, runs from the initial state that break a theorem; of a part of the system, if that is enough."""
    witnesses: tuple[tuple[System, bounded.Scenario], ...]
    """Runs that must be possible."""
    cti_sizes: Sizes
    sanity_sizes: Sizes


@cache
def named(name: str) -> Examined:
    """The system of a name in `NAMES`. Raises ValueError."""
    match name:
        case "static":
            from model_checks.proofs.reads import RAFT
            from model_checks.proofs.signature import MUTANTS

            violations = {mutant: (RAFT, scenario) for mutant, scenario in bounded.VIOLATIONS.items()}
            witnesses = ((RAFT, bounded.WITNESS),)
            return Examined(name, RAFT, selection.FILE, MUTANTS, violations, witnesses, SIZES, sanity.SIZES)
        case "whole":
            from model_checks.proofs import whole

            file = selection.FILE.with_name("selection_whole.json")
            return Examined(
                name, whole.WHOLE, file, whole.MUTANTS, whole.VIOLATIONS, whole.WITNESSES, whole.SIZES, whole.SIZES
            )
        case _:
            raise ValueError(f"no system is called {name}; there are: {', '.join(NAMES)}")
