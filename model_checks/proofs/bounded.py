"""Bounded checks from the initial state: a mutant's violation as a run, and runs that the protocol must allow.

A scenario names the actions of a run in order; Z3 finds their arguments over small sorts. A mutant's scenario ends in a
state in which a theorem does not hold: so the theorem can fail, and the rule that the mutant drops is needed. The
correct protocol's scenario must be possible too: the model is not empty. (That a scenario is *impossible* would prove
nothing but a wrong sequence.)

Source of the sequences: Ongaro 2014, figure 3.7 ("Figure 8" of the shorter paper) for `old_term_commit`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import z3

from model_checks.proofs.algebra import Sort, Symbols, System, Value
from model_checks.proofs.cti import evaluate, named
from model_checks.proofs.finite import FiniteAlgebra, Sizes, Tables, truth

ELECTION: Final = ("timeout", "update_term", "grant_vote", "become_leader")
WRITE: Final = ("client_request", "append_own")
COPY: Final = ("send_append", "recv_append_noconflict")
COMMIT: Final = (*WRITE, *COPY, "advance_commit")
READ: Final = ("begin_read", "confirm_leadership", "confirm_leadership", "confirm_read")


@dataclass(frozen=True, slots=True)
class Scenario:
    """A run to look for: actions in order, and what must be true at its end."""

    actions: tuple[str, ...]
    sizes: Sizes
    theorem: str = ""
    """The theorem that must fail at the end, or in the last step if it is about two states; empty: `ending` holds."""


VIOLATIONS: Final[Mapping[str, Scenario]] = {
    "no_quorum": Scenario(
        ("timeout", "timeout", "become_leader", "become_leader"), Sizes(terms=3, indexes=2), "election_safety"
    ),
    "two_votes": Scenario(
        ("timeout", "timeout", "update_term", *("grant_vote", "become_leader") * 2),
        Sizes(terms=3, indexes=2),
        "election_safety",
    ),
    "no_up_to_date_check": Scenario((*ELECTION, *COMMIT, *ELECTION), Sizes(terms=3, indexes=2), "leader_completeness"),
    "no_prev_check": Scenario(
        (*ELECTION, *WRITE, *ELECTION, "client_request", *WRITE, "update_term", *COPY),
        Sizes(terms=3, indexes=3),
        "log_matching",
    ),
    "old_term_commit": Scenario(
        (*ELECTION, *WRITE, *ELECTION, *WRITE, *ELECTION, *COPY, "append_own", "advance_commit", *ELECTION),
        Sizes(terms=5, indexes=2),
        "leader_completeness",
    ),
    "ack_before_durable": Scenario((*ELECTION, *COMMIT, *ELECTION), Sizes(terms=3, indexes=2), "leader_completeness"),
    "read_without_own_commit": Scenario(
        (*ELECTION, *COMMIT, *ELECTION, *READ), Sizes(terms=3, indexes=2), "read_linearizable"
    ),
    "read_without_term_check": Scenario(
        (*ELECTION, *COMMIT, *ELECTION, *COMMIT, *READ), Sizes(terms=3, indexes=3), "read_linearizable"
    ),
}
"""For each mutant a run that breaks a theorem."""

WITNESS: Final = Scenario(
    (*ELECTION, *COMMIT, "apply_own", "send_append", "apply_told", *READ), Sizes(terms=2, indexes=2)
)
"""The correct protocol: two servers apply an entry, and a read that saw it committed is confirmed."""


def witnessed(a: FiniteAlgebra, s: Symbols) -> Value:
    """The end of `WITNESS`."""
    applied = a.exists((Sort.VALUE,), lambda w: a.conj(s.applied(0, 1, w), s.applied(1, 1, w)))
    read = a.exists((Sort.READ, Sort.TERM), lambda r, t: a.conj(s.read_confirmed(r), s.read_seen(r, t, 1)))
    return a.conj(applied, read)


Ending = Callable[[FiniteAlgebra, Symbols], Value]
"""What must be true at the end of a run."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run that was found."""

    lines: tuple[str, ...]
    legend: tuple[str, ...] = ()
    """Who is in the quorums and configurations that it speaks of, and what the messages say."""

    def __str__(self) -> str:
        return "\n".join((*self.lines, *self.legend))


def search(
    system: System,
    scenario: Scenario,
    mutant: str | None = None,
    ending: Ending = witnessed,
) -> Run | None:
    """A run of the scenario's actions to its end; None: there is none over these sizes."""
    a = FiniteAlgebra(system, scenario.sizes, mutant)
    solver = z3.SolverFor("QF_FD")
    tables = a.unknown_state(system.signature, "0")
    solver.add(truth(system.initial(a, a.symbols(tables))))
    taken: list[tuple[str, dict[str, Value]]] = []
    last = a.symbols(tables)
    for position, name in enumerate(scenario.actions, start=1):
        act = system.action(name)
        arguments = {key: a.unknown(f"{key}@{position}", sort) for key, sort in act.parameters.items()}
        last = a.symbols(tables)
        transition = act.rule(a, last, *arguments.values())
        solver.add(truth(transition.guard))
        after = a.successor_tables(tables, transition.updates)
        tables = fixed(a, solver, system, tables, after, position)
        taken.append((name, arguments))
    end = a.symbols(tables)
    goal = a.neg(promised(system, scenario.theorem, a, last, end)) if scenario.theorem else ending(a, end)
    solver.add(truth(goal), *a.constraints)
    if solver.check() != z3.sat:
        return None
    lines = tuple(described(system, solver.model(), taken))
    return Run(lines, tuple(explained(a, solver.model(), scenario.sizes, "\n".join(lines))))


def promised(system: System, theorem: str, a: FiniteAlgebra, last: Symbols, end: Symbols) -> Value:
    """A theorem about the end of a run, or about its last step."""
    changes = {change.name: change for change in system.changes}
    if theorem in changes:
        return changes[theorem].formula(a, last, end)
    return system.property(theorem).formula(a, end)


def fixed(a: FiniteAlgebra, solver: Any, system: System, before: Tables, after: Tables, position: int) -> Tables:
    """The tables after a step with a new unknown for each cell that may have changed, so that terms stay small."""
    state: Tables = {}
    for name, table in after.items():
        if table is before[name]:
            state[name] = table
            continue
        result = system.signature[name].result
        state[name] = {}
        for key, value in table.items():
            if value is before[name][key] or isinstance(value, (bool, int)):
                state[name][key] = value
                continue
            cell = a.unknown(f"{name}{key}@{position}", result)
            solver.add(cell == value)
            state[name][key] = cell
    return state


def described(system: System, model: z3.ModelRef, taken: list[tuple[str, dict[str, Value]]]) -> list[str]:
    """The run, one action a line."""
    text = []
    for position, (name, arguments) in enumerate(taken, start=1):
        sorts = system.action(name).parameters
        shown = ", ".join(f"{key}={named(sorts[key], evaluate(model, value))}" for key, value in arguments.items())
        text.append(f"{position:>3}. {name}({shown})")
    return text


def explained(a: FiniteAlgebra, model: z3.ModelRef, sizes: Sizes, text: str) -> list[str]:
    """Who is in the quorums that a run names, and in the configurations of the values that it names."""
    words = set(re.findall(r"\w+", text))

    def servers(members: Iterable[int]) -> str:
        return ", ".join(f"n{n}" for n in sorted(members))

    found = [f"     q{q} = {servers(who)}" for q, who in enumerate(a.quorums) if f"q{q}" in words]
    if "configuration" not in a.rigid_tables:
        return found
    carried = {w: evaluate(model, c) for (w,), c in a.rigid_tables["configuration"].items() if f"v{w}" in words}
    used = {evaluate(model, a.rigid_tables["configuration"][(evaluate(model, v),)]) for v in first_value(a)}
    found += [f"     c{c} = {servers(sizes.configurations[c])}" for c in sorted({*carried.values(), *used})]
    found += [f"     every log begins with c{c}" for c in sorted(used)]
    return found + [f"     v{w} carries c{c}" for w, c in sorted(carried.items())]


def first_value(a: FiniteAlgebra) -> list[Value]:
    """The value at the genesis, if the system has one."""
    return list(a.rigid_tables.get("genesis_value", {}).values())
