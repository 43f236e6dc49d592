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
    witness: tuple[bounded.Scenario, bounded.Ending]
    """A run that must be possible."""
    sizes: Sizes
    """Where counterexamples to induction are looked for."""
    sanity_sizes: Sizes
    need_sizes: Sizes
    implied: Mapping[str, str]
    """Lemmas that follow from the others over small sorts, with the reason why they are lemmas all the same."""

    def violation(self, mutant: str) -> bounded.Run | None:
        """The mutant's run from the initial state; None: there is none, or no scenario is known for it."""
        if mutant not in self.violations:
            return None
        part, scenario = self.violations[mutant]
        return bounded.search(part, scenario, mutant)

    def possible(self) -> bounded.Run | None:
        """The witness; None: the model is empty."""
        scenario, ending = self.witness
        return bounded.search(self.system, scenario, ending=ending)


@cache
def named(name: str) -> Examined:
    """The system of a name in `NAMES`. Raises ValueError."""
    match name:
        case "static":
            from model_checks.proofs.reads import RAFT
            from model_checks.proofs.signature import MUTANTS

            violations = {mutant: (RAFT, scenario) for mutant, scenario in bounded.VIOLATIONS.items()}
            witness = (bounded.WITNESS, bounded.witnessed)
            sizes = (SIZES, sanity.SIZES, sanity.NEED_SIZES)
            return Examined(name, RAFT, selection.FILE, MUTANTS, violations, witness, *sizes, {})
        case "whole":
            from model_checks.proofs import whole, whole_runs

            file = selection.FILE.with_name("selection_whole.json")
            witness = (whole_runs.WITNESS, whole_runs.witnessed)
            sizes = (whole.SIZES,) * 3
            return Examined(
                name, whole.WHOLE, file, whole.MUTANTS, whole_runs.VIOLATIONS, witness, *sizes, whole.IMPLIED
            )
        case _:
            raise ValueError(f"no system is called {name}; there are: {', '.join(NAMES)}")
