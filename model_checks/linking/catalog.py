"""Links the catalog: every command of a log, applied by `spec/catalog`, is an entry of the relational model.

A state of the readable spec, projected, gives every row of the model's tables (`catalog_tables`). A command is linked
if

1. the model's entry that is claimed for it (`begin`, operations, `commit` or `refuse`) is enabled step by step,
   evaluated concretely;
2. what readers of the model see after it is what readers of the spec's next state see, row by row; and so are the
   tables of the model, so nothing is left of a command that was refused.

The operations are claimed from what differs: a command is cut into parts (a transaction's operations, a registration's
node, instance and checks, applied by the spec itself), and the difference that a part makes says which rows changed
(`catalog_plan`). What is claimed is not trusted: guards and results are looked at.

Linked is the vocabulary of the model, no more: not the results that clients are told, nor what `model_checks/proofs/
catalog.py` says is left out. An archive is written by no command of the log, and may be another catalog's: of what is
restored it is asked that it satisfies the invariants, as the model's archives do, not where it came from.

Must not: restrict the commands.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from model_checks.linking.catalog_plan import parts, planned
from model_checks.linking.catalog_tables import (
    HISTORY,
    MEANT,
    SEEN,
    Elements,
    TableRows,
    archived,
    elements,
    projection,
)
from model_checks.linking.concrete import Do, Rejected, TwoValued
from model_checks.proofs.algebra import Patterns, Sort, Symbols, Value
from model_checks.proofs.catalog import ACTIONS
from model_checks.proofs.catalog_lemmas import INVARIANTS
from model_checks.proofs.catalog_signature import KEPT, SIGNATURE, TABLES, tables_of
from model_checks.verdicts import CheckResult, Verdict
from spec.catalog import transitions
from spec.catalog.commands import Command, RestoreCommit
from spec.catalog.kv import Invalid
from spec.catalog.state import Index, State, initial_state, node_key, row_key
from spec.catalog.transactions import Outcome
from spec.catalog.transitions import Failed

CHECKER: Final = "link/catalog"
ARCHIVE: Final = "archive"
UNLINKED: Final = frozenset({"take_snapshot", "clock"})
"""Actions of the model that are no command of the log."""

RULES: Final = {act.name: act for act in ACTIONS}


def node_in(key: str | None) -> str | None:
    """The node that the key of an instance or a check names; of what is not there, none."""
    return None if key is None else key.partition("\0")[0]


class CatalogAlgebra(TwoValued):
    """The algebra over Python values; quantifiers range over the names that the command and the tables know."""

    def __init__(self, elements: Elements) -> None:
        self.elements = elements
        self.rigid = Symbols(
            {
                "seen": lambda: SEEN,
                "covers": lambda prefix, key: key.startswith(prefix),
                "root": lambda prefix: prefix == "",
                "at": node_in,
                "home": node_in,
                "place": lambda d: None if d is None else node_key(d.node),
                "asks": lambda d, c: d is not None and c in {row_key(d.node, check_id) for check_id in d.checks},
            }
        )

    def forall(self, sorts: Sequence[Sort], body: Callable[..., Value], patterns: Patterns | None = None) -> Value:
        return all(body(*found) for found in itertools.product(*(self.elements[sort] for sort in sorts)))


# ---------------------------------------------------------------------------------------------------- the model's entry


class Entry:
    """The model's state while one entry is applied."""

    def __init__(self, before: State, index: Index, known: Elements) -> None:
        self.known = known
        self.algebra = CatalogAlgebra(known)
        shown = projection(before)
        kept = {(KEPT + name, SEEN, *at): value for (name, *at), value in shown.items()}
        self.rows: TableRows = {**shown, **kept, ("open",): False, ("applied",): index - 1}
        self.done: list[Do] = []
        self.symbols = Symbols({name: self._reader(name) for name in SIGNATURE})
        self._places: dict[str, list[tuple[Any, ...]]] = {}

    def _reader(self, name: str) -> Callable[..., Any]:
        """A symbol as a function of the model's present state."""
        default = {Sort.BOOL: False, Sort.INDEX: 0}.get(SIGNATURE[name].result)
        return lambda *at: self.rows.get((name, *at), default)

    def take(self, do: Do) -> None:
        """One step of the model. Raises Rejected if its guard is false."""
        transition = RULES[do.action].rule(self.algebra, self.symbols, *do.arguments)
        if not transition.guard:
            raise Rejected(f"the guard of {do} is false")
        changes: TableRows = {}
        for name, update in transition.updates.items():
            if name != "held_as":
                changes |= {(name, *at): update(*at) for at in self.places(name)}
        self.rows |= changes
        self.done.append(do)

    def places(self, name: str) -> list[tuple[Any, ...]]:
        """All arguments of a symbol."""
        if name not in self._places:
            self._places[name] = list(itertools.product(*(self.known[sort] for sort in SIGNATURE[name].arguments)))
        return self._places[name]

    def holds(self, name: str, *at: Any) -> Any:
        """A row of the model's state."""
        return self.rows.get((name, *at))

    def compare(self, after: State) -> None:
        """Compare tables, and what readers see, with the next state. Raises Rejected with the first difference."""
        expected = projection(after)
        for name in TABLES:
            if name in HISTORY:
                continue
            for at in self.places(name):
                if name in MEANT and not expected.get((MEANT[name], *at)):
                    continue
                wanted = expected.get((name, *at)) or None
                for symbol, place in ((name, at), (KEPT + name, (SEEN, *at))):
                    found = self.rows.get((symbol, *place)) or None
                    if found != wanted:
                        shown = ", ".join(map(repr, place))
                        raise Rejected(f"{symbol}({shown}) is {found} in the model, {wanted} in the spec")


# ------------------------------------------------------------------------------------------------------------- the link


def link(before: State, command: Command, index: Index) -> tuple[State, tuple[Do, ...]]:
    """The state after a command, and the steps of the model that it is. Raises Rejected."""
    after, result = transitions.apply(before, command, index)
    refused = isinstance(result, Failed) or (isinstance(result, Outcome) and bool(result.errors))
    cut = [] if refused else list(parts(before, command, index))
    number = index + before.shift
    if isinstance(command, RestoreCommit) and not refused:
        return after, restored(before, after, number, index + after.shift)
    prefixes = [part.prefix for part in cut if part.prefix is not None]
    known = elements([before, after, *(part.after for part in cut)], prefixes[0] if prefixes else "")
    known[Sort.KEY] |= frozenset(prefixes)
    entry = Entry(before, number, known)
    entry.take(Do("begin", (number,)))
    for part in cut:
        for do in planned(part, number, entry):
            entry.take(do)
    entry.take(Do("refuse" if refused else "commit", ()))
    entry.compare(after)
    return after, tuple(entry.done)


def restored(before: State, after: State, number: Index, newest: Index) -> tuple[Do, ...]:
    """The commit of a restore: what was staged is an archive of the model, as it might be of another catalog.

    Raises Rejected; also if it is one that no catalog could have built.
    """
    staged = archived(before.staging.rows if before.staging is not None else ())
    entry = Entry(before, number, {**elements([before, staged, after], ""), Sort.COPY: frozenset({SEEN, ARCHIVE})})
    entry.rows |= {(KEPT + name, ARCHIVE, *at): value for (name, *at), value in projection(staged).items()}
    for name, (_, holds) in INVARIANTS.items():
        if not holds(entry.algebra, tables_of(entry.symbols, ARCHIVE)):
            raise Rejected(f"the archive is not of a catalog: {name}")
    entry.take(Do("restore", (ARCHIVE, newest)))
    entry.compare(after)
    return tuple(entry.done)


@dataclass(slots=True)
class Linked:
    """What was linked."""

    commands: Counter[str] = field(default_factory=Counter)
    stutters: Counter[str] = field(default_factory=Counter)
    """Commands that were no operation at all."""
    steps: Counter[str] = field(default_factory=Counter)
    rejected: list[str] = field(default_factory=list)


def link_log(log: Iterable[Command], linked: Linked) -> None:
    """Link the commands of a log from the empty catalog on, up to the first that is rejected."""
    state = initial_state()
    for index, command in enumerate(log, 1):
        name = type(command).__name__
        try:
            state, done = link(state, command, index)
        except (Rejected, Invalid) as error:
            linked.rejected.append(f"{name} at index {index}: {error}\n  {command}")
            return
        linked.commands[name] += 1
        linked.stutters[name] += len(done) == 2
        linked.steps.update(do.action for do in done)


def link_logs(logs: Iterable[Iterable[Command]]) -> CheckResult:
    """Link logs: VALID if every command is linked, and every action of the model that a command can be is used."""
    start = time.perf_counter()
    linked = Linked()
    count = 0
    for log in logs:
        count += 1
        link_log(log, linked)
        if linked.rejected:
            break
    unused = [name for name in RULES if name not in UNLINKED and not linked.steps[name]]
    verdict, reason = Verdict.VALID, ""
    if linked.rejected:
        verdict, reason = Verdict.INVALID, linked.rejected[0].splitlines()[0]
    elif unused:
        verdict, reason = Verdict.UNKNOWN, f"no command is {', '.join(unused)} of the model"
    seconds = time.perf_counter() - start
    total = sum(linked.commands.values())
    return CheckResult(
        checker=CHECKER,
        verdict=verdict,
        property="linked to the relational model" if linked.rejected else "",
        reason=reason,
        details="\n".join(linked.rejected),
        figures={
            "logs": count,
            "linked": total,
            "model_steps": sum(linked.steps.values()),
            "stutters": sum(linked.stutters.values()),
            "per_second": round(total / max(seconds, 0.001)),
            "by_action": dict(sorted(linked.commands.items())),
            "stutters_by_action": dict(sorted((+linked.stutters).items())),
            "by_model_action": {name: linked.steps[name] for name in RULES if name not in UNLINKED},
        },
        seconds=round(seconds, 2),
    )
