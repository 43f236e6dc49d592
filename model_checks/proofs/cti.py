"""Counterexamples to induction: a small state that satisfies the lemmas, and a step after which a goal does not hold.

The state need not be reachable: a counterexample says that the invariant is not inductive (or that the protocol is
wrong); `bounded` shows mutants from the initial state. Printed as two columns, before and after, with changes marked.

A model as the solver finds it is full of accidents. So as much as possible is made false first, one relation after the
other, and what has no meaning in a state (the log of a term without a leader, say) is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import z3

from model_checks.proofs.algebra import Arity, Signature, Sort, System
from model_checks.proofs.catalog_signature import BESIDE, FIELDS, KEPT
from model_checks.proofs.finite import SIZES, FiniteAlgebra, FiniteProblem, Sizes, Tables, finite_problem, known
from model_checks.proofs.obligations import Kind, Obligation

PREFIXES: Final[Mapping[Sort, str]] = {
    Sort.NODE: "n",
    Sort.QUORUM: "q",
    Sort.VALUE: "v",
    Sort.MESSAGE: "m",
    Sort.READ: "r",
    Sort.CONFIGURATION: "c",
    Sort.ROUND: "h",
    Sort.TIME: "at ",
    Sort.REQUEST: "request",
    Sort.CALL: "call",
    Sort.ENTRY: "entry",
    Sort.KEY: "key",
    Sort.SESSION: "session",
    Sort.CONTRACT: "contract",
    Sort.INSTANCE: "instance",
    Sort.SERVICE: "service",
    Sort.CHECK: "check",
    Sort.COPY: "copy",
    Sort.STATE: "state",
    Sort.TERM: "t",
    Sort.INDEX: "",
    Sort.BOOL: "",
}

Rows = Mapping[tuple[Any, ...], Any]
State = Mapping[str, Rows]
"""A state in Python values."""


def in_log(state: State, n: Any, i: Any) -> bool:
    """The disk of `n` holds entry i."""
    return bool(i <= state["log_length"][(n,)])


def in_tlog(state: State, t: Any, i: Any) -> bool:
    """Term t had a leader, and the log of the term holds entry i."""
    return bool(state["elected"][(t,)] and i <= state["tlog_length"][(t,)])


def is_elected(state: State, t: Any) -> bool:
    """Term t had a leader."""
    return bool(state["elected"][(t,)])


def is_leader(state: State, n: Any) -> bool:
    """`n` leads its term."""
    return bool(state["leader"][(n,)])


def is_read(state: State, r: Any, *_: Any) -> bool:
    """Read r has begun."""
    return bool(state["read_begun"][(r,)])


def was_applied(state: State, n: Any, i: Any) -> bool:
    """`n` has applied an entry at i."""
    return any(true for (x, j, _), true in state["applied"].items() if (x, j) == (n, i))


def has_phase(phase: str) -> Callable[..., bool]:
    """The call is in that phase, or has that answer."""
    return lambda state, c: bool(state[phase][(c,)])


def has_snapshot(state: State, n: Any) -> bool:
    """`n` has a snapshot."""
    return bool(state["snapshot_index"][(n,)])


def catalog_rows() -> dict[str, Callable[..., bool]]:
    """Fields of rows, in the tables that are worked on and in copies, mean something where the row exists."""

    def exists(row: str) -> Callable[..., bool]:
        return lambda state, *at: bool(state[row][at])

    return {
        prefix + field: exists(prefix + row)
        for rows_of_tables in (FIELDS, BESIDE)
        for row, fields in rows_of_tables.items()
        for field in fields
        for prefix in ("", KEPT)
    }


MEANT: Final[Mapping[str, Callable[..., bool]]] = {
    "log_term": in_log,
    "log_value": in_log,
    "tlog_length": is_elected,
    "tlog_term": in_tlog,
    "tlog_value": in_tlog,
    "leader_of": is_elected,
    "winning_quorum": is_elected,
    "commit_index": is_leader,
    "certificate_term": is_leader,
    "certificate_index": is_leader,
    "commit_quorum": lambda state, t, i: bool(state["committed"][(t, i)]),
    "applied_term": was_applied,
    "applied_index": was_applied,
    "read_seen": is_read,
    "read_elected": is_read,
    "first_length": is_elected,
    "commit_length": lambda state, t, i: bool(state["committed"][(t, i)]),
    "snapshot_certificate_term": has_snapshot,
    "snapshot_certificate_index": has_snapshot,
    "asked_at": has_phase("asked"),
    "answered_before": lambda state, q, c: bool(state["asked"][(q,)]),
    "target": has_phase("dialling"),
    "callee": has_phase("calling"),
    "own_entry": has_phase("appended"),
    "read_floor": has_phase("confirming"),
    "seen": has_phase("acknowledged"),
    "proof": has_phase("acknowledged"),
    "appender": has_phase("entry"),
    "position": has_phase("committed"),
    "token": has_phase("asked"),
    "urged_by": lambda state, n, t: bool(state["urged"][(n, t)]),
    **catalog_rows(),
}
"""Where a symbol has a meaning; symbols that are not here have one everywhere."""


@dataclass(frozen=True, slots=True)
class Counterexample:
    """A counterexample over small sorts, for a person."""

    obligation: Obligation
    sizes: Sizes
    text: str


def named(sort: Sort, value: Any) -> str:
    """An element as people read it: n0, t2, 1."""
    return f"{PREFIXES[sort]}{value}" if sort is not Sort.BOOL else str(value).lower()


def evaluate(model: z3.ModelRef, value: Any) -> Any:
    """The Python value of a term in a model."""
    if known(value):
        return value
    found = model.eval(value, model_completion=True)
    return z3.is_true(found) if z3.is_bool(found) else found.as_long()


def rows(name: str, arity: Arity, state: State) -> dict[str, str]:
    """A symbol's rows "name(arguments)" -> value, where they mean something; of a relation, only what is true."""
    found = {}
    meant = MEANT.get(name)
    for key, value in state[name].items():
        if (arity.result is Sort.BOOL and not value) or (meant and not meant(state, *key)):
            continue
        shown = ", ".join(named(sort, part) for sort, part in zip(arity.arguments, key, strict=True))
        found[f"{name}({shown})"] = named(arity.result, value)
    return found


def columns(signature: Signature, before: State, after: State) -> list[str]:
    """Two states side by side: `>` marks what changed."""
    text = []
    for name, arity in signature.items():
        old, new = rows(name, arity, before), rows(name, arity, after)
        for row in sorted(old.keys() | new.keys()):
            left, right = old.get(row, "-"), new.get(row, "-")
            text.append(f"  {' ' if left == right else '>'} {row:<44} {left:<8} {right}")
    return text


def find(
    system: System, obligation: Obligation, mutant: str | None = None, sizes: Sizes = SIZES
) -> Counterexample | None:
    """A counterexample to an obligation over small sorts, if there is one."""
    if obligation.kind is Kind.MAJORITY:
        return None
    finite = finite_problem(system, obligation, sizes, mutant)
    solver = z3.Solver()
    solver.add(*finite.negated())
    solver.add(*(finite.hypothesis(name) for name in finite.stated.hypotheses))
    if solver.check() != z3.sat:
        return None
    text = describe(system, obligation, finite, quietest(system, finite.before, solver))
    return Counterexample(obligation, sizes, text)


def quietest(system: System, before: Tables, solver: z3.Solver) -> z3.ModelRef:
    """A model in which no single relation's row that is true could be false; `solver` must be satisfiable."""
    solver.check()
    model = solver.model()
    for name, arity in reversed(list(system.signature.items())):
        if arity.result is not Sort.BOOL:
            continue
        for cell in before[name].values():
            if known(cell) or not evaluate(model, cell):
                if not known(cell):
                    solver.add(z3.Not(cell))
                continue
            if solver.check(z3.Not(cell)) == z3.sat:
                model = solver.model()
                solver.add(z3.Not(cell))
    return model


def describe(system: System, obligation: Obligation, finite: FiniteProblem, model: z3.ModelRef) -> str:
    """The model in words: what fails, the action's arguments, the two states, the messages."""
    algebra = finite.algebra

    def valued(tables: Tables) -> State:
        return {name: {key: evaluate(model, cell) for key, cell in table.items()} for name, table in tables.items()}

    before = after = valued(finite.before)
    shown = ""
    act = {act.name: act for act in system.actions}.get(obligation.subject)
    if act is not None:
        values = [finite.stated.arguments[name] for name in act.parameters]
        words = (named(sort, evaluate(model, v)) for sort, v in zip(act.parameters.values(), values, strict=True))
        shown = ", ".join(f"{name}={word}" for name, word in zip(act.parameters, words, strict=True))
        updates = act.rule(algebra, algebra.symbols(finite.before), *values).updates
        after = valued(algebra.successor_tables(finite.before, updates))
    head = [
        f"{obligation.subject}({shown}) does not establish {obligation.goal}",
        *quorums_shown(algebra),
        *configurations(finite, model),
        *constants(finite, model),
        f"    {'':<44} {'before':<8} after",
    ]
    told = list(values_shown(finite, model, after))
    return "\n".join([*head, *columns(system.signature, before, after), *told])


def quorums_shown(algebra: FiniteAlgebra) -> list[str]:
    """Who is in which quorum, if the system has quorums."""
    if "member" not in algebra.system.rigid:
        return []
    who = (f"q{q} = {', '.join(f'n{n}' for n in sorted(members))}" for q, members in enumerate(algebra.quorums))
    return [f"  quorums: {'; '.join(who)}"]


SHOWN: Final[Mapping[Sort, tuple[str, str]]] = {
    Sort.MESSAGE: ("messages", "sent"),
    Sort.READ: ("reads", "read_begun"),
    Sort.ROUND: ("rounds", "round_begun"),
    Sort.CALL: ("calls", "made"),
    Sort.REQUEST: ("requests", "asked"),
}
"""Sorts of immutable values, what they are called, and which of them exist in a state."""


def values_shown(finite: FiniteProblem, model: z3.ModelRef, state: State) -> Iterator[str]:
    """What the messages, reads and rounds of a state are."""
    algebra = finite.algebra
    for sort, (heading, existing) in SHOWN.items():
        fields = {name: arity for name, arity in algebra.system.rigid.items() if arity.arguments[:1] == (sort,)}
        present = {element for (element,), true in state.get(existing, {}).items() if true}
        if not present:
            continue
        content = {
            name: {key: evaluate(model, cell) for key, cell in algebra.rigid_tables[name].items() if key[0] in present}
            for name in fields
        }
        yield f"  {heading}:"
        for name, arity in fields.items():
            yield from (f"    {row:<44} {value}" for row, value in rows_of(name, arity, content))


def configurations(finite: FiniteProblem, model: z3.ModelRef) -> list[str]:
    """The servers and the births of configurations, and which values carry them; nothing if there are none."""
    tables = finite.algebra.rigid_tables
    if "quorum_of" not in tables:
        return []
    found = []
    for c, servers in enumerate(finite.sizes.configurations):
        birth, term, before, allowed = (
            evaluate(model, tables[name][(c,)]) for name in ("birth_index", "birth_term", "previous", "allowed_by")
        )
        who = ", ".join(f"n{n}" for n in servers)
        found.append(f"  c{c} = {who}: born at {birth} in t{term} of c{before}, allowed by the commit of {allowed}")
    carried = (f"v{v} carries c{evaluate(model, c)}" for (v,), c in tables["configuration"].items())
    return [*found, f"  {'; '.join(carried)}"]


def constants(finite: FiniteProblem, model: z3.ModelRef) -> list[str]:
    """What rigid symbols without arguments stand for."""
    rigid, tables = finite.algebra.system.rigid, finite.algebra.rigid_tables
    alone = [name for name, arity in rigid.items() if not arity.arguments and name in tables]
    return [f"  {name} = {named(rigid[name].result, evaluate(model, tables[name][()]))}" for name in alone]


def rows_of(name: str, arity: Arity, content: State) -> list[tuple[str, str]]:
    """The fields of values as rows; a message's entries only where it has them."""
    found = []
    for key, value in content[name].items():
        m = key[:1]
        if len(key) == 2 and not content["prev_index"][m] < key[1] <= content["last_index"][m]:
            continue
        shown = ", ".join(named(sort, part) for sort, part in zip(arity.arguments, key, strict=True))
        found.append((f"{name}({shown})", named(arity.result, value)))
    return found
