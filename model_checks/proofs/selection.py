"""Which hypotheses each obligation is proved from: small sets keep the quantified proof fast and stable.

A selection is found on a finite instance, where Z3 yields an unsatisfiable core, which is then minimised, or as the
core of an unbounded proof from all hypotheses; it is kept in a file for obligations that need more than their own goal.
Selections cannot make the proof unsound: what follows from some hypotheses follows from all of them. A finite core can
be too small; then the prover falls back to all.

The file also names, for every lemma, an obligation that fails without it (`needed_by`): no lemma is idle. (Steps are
cuts: they follow from the lemmas, so nothing fails without them but the solver's patience.) And it says from which
model it was made (`fingerprint`): a file that is stale is refused. `comitia check prove --rewrite-selection` makes it
again; entries that still prove their obligations are kept, those of people and of the solver alike.

Must not: be trusted for more than a hint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import z3

from model_checks.proofs.algebra import System
from model_checks.proofs.fingerprint import fingerprint
from model_checks.proofs.finite import SIZES, FiniteProblem, Sizes, finite_problem
from model_checks.proofs.obligations import Kind, Obligation, obligations

FOLDER: Final = Path(__file__).parent
FORMAT: Final = 2


class StaleSelection(Exception):
    """The selection file was made from another model, or cannot be read."""


@dataclass(frozen=True, slots=True)
class Selection:
    """`extra`: hypotheses beside the goal, by obligation; `needed_by`: an obligation that fails without the lemma."""

    extra: Mapping[str, tuple[str, ...]]
    needed_by: Mapping[str, str]

    def hypotheses(self, obligation: Obligation) -> frozenset[str]:
        """What the obligation is proved from first."""
        own = {obligation.goal} if obligation.kind is Kind.CONSECUTION else set()
        return frozenset(own | set(self.extra.get(obligation.key, ())))


def load(system: System, file: Path) -> Selection:
    """The selection of a system. Raises StaleSelection if the file was made from another one, or misses a lemma."""
    remedy = "make it again with: comitia check prove --system NAME --rewrite-selection"
    selection, made_from = read(file)
    fits = fingerprint(system)
    if made_from != fits:
        raise StaleSelection(f"{file.name} was made from model {made_from}, this one is {fits}; {remedy}")
    known = {obligation.key for obligation in obligations(system)}
    used = {name for extras in selection.extra.values() for name in extras}
    strange = sorted((set(selection.extra) | set(selection.needed_by.values())) - known)
    strange += sorted(used - hypothesis_names(system))
    missing = sorted({lemma.name for lemma in system.lemmas} ^ set(selection.needed_by))
    if strange or missing:
        raise StaleSelection(f"{file.name} does not fit the model: unknown {strange}, unaccounted {missing}; {remedy}")
    return selection


def read(file: Path) -> tuple[Selection, str]:
    """The file's content and what it was made from. Raises StaleSelection if it cannot be read."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}, not {FORMAT}")
        extra = {key: tuple(names) for key, names in content["extra"].items()}
        return Selection(extra, dict(content["needed_by"])), str(content["made_from"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StaleSelection(
            f"{file.name} cannot be read ({error}); restore it, then: comitia check prove --rewrite-selection"
        ) from error


def save(selection: Selection, system: System, file: Path) -> None:
    """Write the selection so that a diff of it can be read."""
    content = {
        "format": FORMAT,
        "made_from": fingerprint(system),
        "extra": {key: sorted(names) for key, names in sorted(selection.extra.items())},
        "needed_by": dict(sorted(selection.needed_by.items())),
    }
    text = json.dumps(content, indent=1)
    file.write_text(text + "\n", encoding="utf-8")


def hypothesis_names(system: System) -> set[str]:
    """All that an obligation may be proved from: lemmas and steps."""
    return {lemma.name for lemma in system.lemmas} | {step.name for step in system.steps}


def core(finite: FiniteProblem, order: Mapping[str, int]) -> tuple[str, ...] | None:
    """A minimal set of hypotheses from which the finite obligation follows; None if it follows from no set.

    `order`: what to try to do without first, highest first.
    """
    solver = z3.Solver()
    solver.add(*finite.negated())
    used = {name: z3.Bool(f"use {name}") for name in finite.stated.hypotheses}
    for name, switch in used.items():
        solver.add(z3.Implies(switch, finite.hypothesis(name)))
    if solver.check(*used.values()) != z3.unsat:
        return None
    kept = {str(switch).removeprefix("use ") for switch in solver.unsat_core()}
    for name in sorted(kept, key=lambda name: (-order[name], name)):
        without = kept - {name}
        if name in kept and solver.check(*(used[other] for other in sorted(without))) == z3.unsat:
            kept = {str(switch).removeprefix("use ") for switch in solver.unsat_core()}
    return tuple(sorted(kept))


def select(system: System, obligation: Obligation, sizes: Sizes = SIZES) -> tuple[str, ...] | None:
    """The hypotheses, beside the goal itself, that an obligation needs on a finite instance; None: not inductive."""
    if obligation.kind in (Kind.INITIAL, Kind.MAJORITY):
        return ()
    order = {name: position for position, name in enumerate(weights(system))}
    order[obligation.goal] = -1  # the goal itself is free: try last to do without it
    found = core(finite_problem(system, obligation, sizes), order)
    return None if found is None else tuple(name for name in found if name != obligation.goal)


def weights(system: System) -> list[str]:
    """Hypotheses from cheap to costly for the solver: the later, the rather done without."""
    costly = ("elected_quorum", "commit_acknowledged", "acker", "voter", "elected_voter")
    names = [lemma.name for lemma in system.lemmas]
    return [step.name for step in system.steps] + sorted(
        names, key=lambda name: costly.index(name) if name in costly else -1
    )


def fails_without(system: System, obligation: Obligation, name: str, sizes: Sizes = SIZES) -> bool:
    """Whether an obligation has a finite counterexample once one hypothesis is dropped."""
    finite = finite_problem(system, obligation, sizes)
    solver = z3.Solver()
    solver.add(*finite.negated())
    solver.add(*(finite.hypothesis(other) for other in finite.stated.hypotheses if other != name))
    return bool(solver.check() == z3.sat)


def find_need(system: System, name: str, extra: Mapping[str, tuple[str, ...]], sizes: Sizes = SIZES) -> str | None:
    """An obligation of another goal that fails without a lemma; None: it is idle."""
    for obligation in obligations(system):
        used = obligation.goal != name and name in extra.get(obligation.key, ())
        if used and fails_without(system, obligation, name, sizes):
            return obligation.key
    return None
