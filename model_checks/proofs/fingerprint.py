"""A system's fingerprint: a hash of everything that is said of it. Files made from a system name the one they fit.

The formulas are written out by an algebra of texts, so the hash depends on what the model says, not on how its source
is laid out or how a version of Z3 prints.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from model_checks.proofs.algebra import (
    Arity,
    Patterns,
    Signature,
    Sort,
    Step,
    Symbols,
    System,
    Transition,
    Unweakened,
    Value,
)

LENGTH = 16
"""Hex digits."""


@dataclass(frozen=True, eq=False)
class Text:
    """A term, written out."""

    text: str

    # The model writes equations as `==`; the type system holds that comparing always yields a bool.
    def __eq__(self, other: object) -> Text:  # type: ignore[override]
        return Text(f"(= {written(self)} {written(other)})")

    def __ne__(self, other: object) -> Text:  # type: ignore[override]
        return Text(f"(!= {written(self)} {written(other)})")

    __hash__ = object.__hash__


def written(value: object) -> str:
    """A term's text; Python's truths are terms, too."""
    return value.text if isinstance(value, Text) else str(value)


def applied(name: str, *parts: object) -> Text:
    """The text of a function applied to terms."""
    return Text(f"({' '.join([name, *map(written, parts)])})")


class TextAlgebra(Unweakened):
    """The algebra over texts."""

    first_term = Text("first_term")
    genesis = Text("genesis")

    def __init__(self, rigid: Signature) -> None:
        self.rigid = symbols(rigid)
        self._fresh = itertools.count()

    def conj(self, *parts: Value) -> Value:
        return applied("and", *parts)

    def disj(self, *parts: Value) -> Value:
        return applied("or", *parts)

    def neg(self, part: Value) -> Value:
        return applied("not", part)

    def implies(self, premise: Value, conclusion: Value) -> Value:
        return applied("=>", premise, conclusion)

    def ite(self, condition: Value, yes: Value, no: Value) -> Value:
        return applied("ite", condition, yes, no)

    def le(self, left: Value, right: Value) -> Value:
        return applied("<=", left, right)

    def lt(self, left: Value, right: Value) -> Value:
        return applied("<", left, right)

    def successor(self, left: Value, right: Value) -> Value:
        return applied("successor", left, right)

    def forall(self, sorts: Sequence[Sort], body: Callable[..., Value], patterns: Patterns | None = None) -> Value:
        variables = [Text(f"{sort.value}!{next(self._fresh)}") for sort in sorts]
        groups = patterns(*variables) if patterns else []
        seen = [applied("pattern", *group) for group in groups]
        return applied("forall", *variables, body(*variables), *seen)

    def mark(self, *terms: Value) -> Value:
        return applied("mark", *terms)


def symbols(signature: Mapping[str, Arity]) -> Symbols:
    """Symbols that write themselves."""

    def writes(name: str) -> Callable[..., Text]:
        return lambda *arguments: applied(name, *arguments)

    return Symbols({name: writes(name) for name in signature})


def parts(system: System) -> Iterator[str]:
    """Everything that a system says, part by part."""
    for name, arity in (*system.signature.items(), *system.rigid.items()):
        yield f"{name} {arity.arguments} {arity.result}"
    s = symbols(system.signature)
    a = TextAlgebra(system.rigid)
    yield written(system.initial(a, s))
    yield from map(written, system.axioms(a))
    for prop in (*system.lemmas, *system.theorems):
        yield f"{prop.name} {written(prop.formula(TextAlgebra(system.rigid), s))}"
    primed = Symbols({name: _primed(name) for name in system.signature})
    for change in system.changes:
        yield f"{change.name} {sorted(change.excepted)} {written(change.formula(a, s, primed))}"
    for act in system.actions:
        arguments = [Text(name) for name in act.parameters]
        yield f"{act.name} {act.parameters} {ruled(system, act.rule(TextAlgebra(system.rigid), s, *arguments))}"
    for step in system.steps:
        yield f"{step.name} {step.action} {stepped(system, s, step)}"
    yield " ".join(system.majorities)


def _primed(name: str) -> Callable[..., Text]:
    return lambda *arguments: applied(f"{name}'", *arguments)


def ruled(system: System, transition: Transition) -> str:
    """A transition's guard and updates."""
    updates = []
    for name, update in sorted(transition.updates.items()):
        keys = [Text(f"key{k}") for k in range(len(system.signature[name].arguments))]
        updates.append(f"{name} := {written(update(*keys))}")
    return f"{written(transition.guard)} {updates}"


def stepped(system: System, s: Symbols, step: Step) -> str:
    """A step's statement, cuts and order."""
    a = TextAlgebra(system.rigid)
    values = [Text(name) for name in system.action(step.action).parameters] if step.action else []
    statement = step.statement(a, s, *values)
    unknowns = [Text(f"unknown{k}") for k in range(len(statement.sorts))]
    found = [written(statement.quantified(a)), *(written(c.formula(a, s, *values, *unknowns)) for c in step.cuts)]
    if step.before is not None:
        found.append(written(step.before(a, unknowns, [Text(f"later{k}") for k in range(len(unknowns))])))
    if step.hints is not None:
        found += map(written, step.hints(a, s, *values, *unknowns))
    if step.instances is not None:
        found += [f"{name} {' '.join(map(written, at))}" for name, at in step.instances(a, s, *values, *unknowns)]
    return " ".join(found)


def fingerprint(system: System) -> str:
    """The hash."""
    whole = hashlib.blake2b(digest_size=LENGTH // 2)
    for part in parts(system):
        whole.update(part.encode())
        whole.update(b"\n")
    return whole.hexdigest()
