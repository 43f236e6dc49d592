"""The systems that can be proved, by name, with all that a run of the prover needs to know of each.

`static` is Raft with read-index reads, `whole` adds all the rest of Raft, `forwarding` is how a request finds the
leader, `catalog` is what a server makes of the log, `lockstep` two of it side by side, `replicas` all of them.
Must not: build a system before it is asked for.
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

NAMES: Final = ("static", "whole", "forwarding", "catalog", "lockstep", "replicas")


@dataclass(frozen=True, slots=True)
class Examined:
    """A system, its mutants, and the small sorts over which it is looked at."""

    name: str
    title: str
    system: System
    selection: Path
    """The file with its selected hypotheses."""
    mutants: Mapping[str, str]
    harmless: Mapping[str, str]
    """Mutants that are as safe."""
    violations: Mapping[str, tuple[System, bounded.Scenario]]
    """For mutants, runs from the initial state that break a theorem; of a part of the system, if that is enough."""
    witness: tuple[bounded.Scenario, bounded.Ending]
    """A run that must be possible."""
    witnessed: str
    """What happens in it."""
    eventful: sanity.State
    """States in which the lemmas must allow every action."""
    sizes: Sizes
    """Where counterexamples to induction are looked for."""
    sanity_sizes: Sizes
    need_sizes: Sizes
    implied: Mapping[str, str]
    """Lemmas that follow from the others over small sorts, with the reason why they are lemmas all the same."""
    assumed: Mapping[str, str]
    """Theorems "system/name" that this system takes for granted, with what it makes of them."""
    argued: tuple[str, ...] = ()
    """What has to be believed besides."""

    @property
    def small(self) -> str:
        """The small sorts for which a theorem holds that is not proved for all sizes."""
        return self.sizes.counted(self.system)

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
            return _static()
        case "whole":
            return _whole()
        case "forwarding":
            return _forwarding()
        case "catalog":
            return _catalog()
        case "lockstep":
            return _lockstep()
        case "replicas":
            return _replicas()
        case _:
            raise ValueError(f"no system is called {name}; there are: {', '.join(NAMES)}")


def _static() -> Examined:
    from model_checks.proofs.reads import RAFT
    from model_checks.proofs.signature import MUTANTS

    return Examined(
        name="static",
        title="Raft with fixed servers and read-index",
        system=RAFT,
        selection=selection.FOLDER / "selection.json",
        mutants=MUTANTS,
        harmless={},
        violations={mutant: (RAFT, scenario) for mutant, scenario in bounded.VIOLATIONS.items()},
        witness=(bounded.WITNESS, bounded.witnessed),
        witnessed="two servers apply an entry, a read that saw it committed is confirmed",
        eventful=sanity.eventful,
        sizes=SIZES,
        sanity_sizes=sanity.SIZES,
        need_sizes=sanity.NEED_SIZES,
        implied={},
        assumed={},
    )


def _whole() -> Examined:
    from model_checks.proofs import whole, whole_runs

    return Examined(
        name="whole",
        title="Raft: and membership changes, snapshots, leases, transfer, pre-vote",
        system=whole.WHOLE,
        selection=selection.FOLDER / "selection_whole.json",
        mutants=whole.MUTANTS,
        harmless={},
        violations=whole_runs.VIOLATIONS,
        witness=(whole_runs.WITNESS, whole_runs.witnessed),
        witnessed="a configuration is changed, a server installs a snapshot, a lease read is answered",
        eventful=sanity.eventful,
        sizes=whole.SIZES,
        sanity_sizes=whole.SIZES,
        need_sizes=whole.SIZES,
        implied=whole.IMPLIED,
        assumed={},
    )


def _forwarding() -> Examined:
    from model_checks.proofs import forwarding_lemmas, forwarding_runs, forwarding_signature

    system = forwarding_lemmas.FORWARDING
    return Examined(
        name="forwarding",
        title="Forwarding: a request on its way to the leader",
        system=system,
        selection=selection.FOLDER / "selection_forwarding.json",
        mutants={**forwarding_signature.MUTANTS, **forwarding_signature.HARMLESS},
        harmless=forwarding_signature.HARMLESS,
        violations={mutant: (system, scenario) for mutant, scenario in forwarding_runs.VIOLATIONS.items()},
        witness=(forwarding_runs.WITNESS, forwarding_runs.witnessed),
        witnessed="a write is refused, tried again and acknowledged; a `consistent` read then reflects it",
        eventful=forwarding_runs.eventful,
        sizes=forwarding_runs.SIZES,
        sanity_sizes=forwarding_runs.SIZES,
        need_sizes=forwarding_runs.SIZES,
        implied={},
        assumed=forwarding_signature.ASSUMED,
    )


def _catalog() -> Examined:
    from model_checks.proofs import catalog_runs, catalog_signature, catalog_theorems

    system = catalog_theorems.CATALOG
    return Examined(
        name="catalog",
        title="The catalog: keys, locks, sessions, nodes, instances, checks, transactions",
        system=system,
        selection=selection.FOLDER / "selection_catalog.json",
        mutants=catalog_signature.MUTANTS,
        harmless={},
        violations={mutant: (system, scenario) for mutant, scenario in catalog_runs.VIOLATIONS.items()},
        witness=(catalog_runs.WITNESS, catalog_runs.witnessed),
        witnessed="a session holds a key, ends, and a restored snapshot has both again",
        eventful=catalog_runs.eventful,
        sizes=catalog_runs.SIZES,
        sanity_sizes=catalog_runs.SIZES,
        need_sizes=catalog_runs.SIZES,
        implied={},
        assumed={},
        argued=catalog_signature.ARGUED,
    )


def _lockstep() -> Examined:
    from model_checks.proofs import lockstep
    from model_checks.proofs.catalog_runs import SIZES as CATALOG_SIZES

    return Examined(
        name="lockstep",
        title="Two replicas of the catalog that are given the same entries",
        system=lockstep.LOCKSTEP,
        selection=selection.FOLDER / "selection_lockstep.json",
        mutants=lockstep.MUTANTS,
        harmless={},
        violations={mutant: (lockstep.LOCKSTEP, scenario) for mutant, scenario in lockstep.VIOLATIONS.items()},
        witness=(lockstep.WITNESS, lockstep.witnessed),
        witnessed="clocks differ, a key is locked, and a snapshot restored at both",
        eventful=lockstep.eventful,
        sizes=CATALOG_SIZES,
        sanity_sizes=CATALOG_SIZES,
        need_sizes=CATALOG_SIZES,
        implied={},
        assumed={},
        argued=lockstep.ARGUED,
    )


def _replicas() -> Examined:
    from model_checks.proofs import replicas

    return Examined(
        name="replicas",
        title="Replicas of one log, and snapshots",
        system=replicas.REPLICAS,
        selection=selection.FOLDER / "selection_replicas.json",
        mutants=replicas.MUTANTS,
        harmless={},
        violations={mutant: (replicas.REPLICAS, scenario) for mutant, scenario in replicas.VIOLATIONS.items()},
        witness=(replicas.WITNESS, replicas.witnessed),
        witnessed="a replica installs another's snapshot, restarts, and is equal again",
        eventful=replicas.eventful,
        sizes=replicas.SIZES,
        sanity_sizes=replicas.SIZES,
        need_sizes=replicas.SIZES,
        implied={},
        assumed=replicas.ASSUMED,
    )
