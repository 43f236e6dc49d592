"""No guard and no visible effect reads what a snapshot has replaced: the history below a server's base is only history.

The relational model keeps whole logs and lets compaction raise a base. That is a model of compaction only if what lies
below the base makes no difference. So each action is looked at in two states that are equal but for that: disks, and
the logs of terms whose leaders lead, may hold anything below the base. Its guard must be the same, and so must
everything visible after it. Excepted are the effects on history itself, and the *identity* of a snapshot that is
sent: its entries stand for the state of the state machine (`send_snapshot`).

Source: Ongaro 2014, section 5.1. Must not: be needed by the proof of safety, which speaks of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import z3

from model_checks.proofs import snapshots
from model_checks.proofs.algebra import Action, Sort, Symbols, System, Transition, Value
from model_checks.proofs.prover import SMALL_LIMIT, refute
from model_checks.proofs.signature import HISTORY
from model_checks.proofs.unbounded import UnboundedAlgebra, constant, functions

LOGS: Final = ("log_term", "log_value", "tlog_term", "tlog_value")
"""What exists above a base only."""

HIDDEN: Final = (frozenset(HISTORY) - {"applied"}) | {
    "first_length",
    "commit_length",
    "read_seen",
    "read_elected",
    "snapshot_certificate_term",
    "snapshot_certificate_index",
}
"""History, which nobody sees; the logs of terms are compared where their leaders see them."""

EXCEPTED: Final = frozenset({"send_snapshot"})
"""Sends the identity of the state below the base."""

REAL: Final[Mapping[str, Callable[..., Value]]] = {"send_append": snapshots.holds_slice}
"""Actions that the model allows more often than a server can take them, with what a server can do."""

NEEDED: Final = (
    *("snapshot_applied", "snapshot_certificate", "log_genesis", "leader_elected", "snapshot_content", "own_disk"),
    *("leader_certificate", "message_content", "elected_term", "commit_acknowledged"),
)
"""Lemmas that bound indexes from below."""


@dataclass(frozen=True, slots=True)
class Dependence:
    """What could not be shown to be independent of the history below a base: a symbol, or the guard."""

    action: str
    what: str


def seen(a: UnboundedAlgebra, s: Symbols, other: Symbols) -> list[Value]:
    """Both states agree on disks from each base on, and on the log of a leader's term from its base on."""

    def disk(n: Value, j: Value) -> Value:
        same = a.conj(s.log_term(n, j) == other.log_term(n, j), s.log_value(n, j) == other.log_value(n, j))
        return a.implies(a.le(s.base(n), j), same)

    def memory(n: Value, j: Value) -> Value:
        t = s.current_term(n)
        same = a.conj(s.tlog_term(t, j) == other.tlog_term(t, j), s.tlog_value(t, j) == other.tlog_value(t, j))
        leads = a.conj(s.elected(t), s.leader_of(t) == n)
        return a.implies(a.conj(leads, a.le(s.base(n), j)), same)

    sorts = (Sort.NODE, Sort.INDEX)
    return [
        a.forall(sorts, disk, lambda n, j: [[f(n, j)] for x in (s, other) for f in (x.log_term, x.log_value)]),
        a.forall(
            sorts,
            memory,
            lambda n, j: [
                [s.leader_of(s.current_term(n)), f(s.current_term(n), j)]
                for x in (s, other)
                for f in (x.tlog_term, x.tlog_value)
            ],
        ),
    ]


def dependences(system: System, act: Action, mutant: str | None = None) -> Iterator[Dependence]:
    """What an action's guard or visible effects may read below a base; nothing, if all is well."""
    a = UnboundedAlgebra(system.rigid, mutant)
    s = functions(system.signature)
    twins = functions({f"{name}_twin": system.signature[name] for name in LOGS})
    other = s.updated({name: getattr(twins, f"{name}_twin") for name in LOGS})
    arguments = [constant(name, sort) for name, sort in act.parameters.items()]
    here, there = act.rule(a, s, *arguments), act.rule(a, other, *arguments)
    lemmas = [system.property(name).formula(a, s) for name in NEEDED]
    given = [*a.axioms(), *system.axioms(a), *lemmas, *seen(a, s, other), truth(here.guard)]
    if act.name in REAL:
        given.append(REAL[act.name](a, s, *arguments))
    if not independent([*given, z3.Not(truth(there.guard))]):
        yield Dependence(act.name, "guard")
    for name in sorted(set(here.updates) - HIDDEN):
        keys = [constant(f"at_{k}", sort) for k, sort in enumerate(system.signature[name].arguments)]
        visible = [] if name not in LOGS else [a.le(after(s, here).base(keys[0]), keys[1])]
        left, right = (after(x, y) for x, y in ((s, here), (other, there)))
        if not independent([*given, *visible, getattr(left, name)(*keys) != getattr(right, name)(*keys)]):
            yield Dependence(act.name, name)


def after(s: Symbols, transition: Transition) -> Symbols:
    """The next state."""
    return s.updated(transition.updates)


def truth(value: Value) -> z3.BoolRef:
    """A guard as a Z3 term."""
    return z3.BoolVal(value) if isinstance(value, bool) else value


def independent(formulas: list[z3.BoolRef]) -> bool:
    """Whether the difference is impossible."""
    return any(refute(formulas, seed, SMALL_LIMIT, 10.0) == z3.unsat for seed in range(2))


def all_dependences(system: System, progress: Callable[[str], None] = lambda name: None) -> list[Dependence]:
    """For every action but the excepted."""
    found: list[Dependence] = []
    for act in system.actions:
        progress(act.name)
        if act.name not in EXCEPTED:
            found.extend(dependences(system, act))
    return found
