"""The small term algebra in which the relational model is written once, and the shapes of a transition system over it.

A formula is a Python function over an `Algebra`. Three backends evaluate it: `unbounded` (Z3 with quantifiers, any
number of servers, terms and indexes), `finite` (Z3 without quantifiers, small sorts: counterexamples) and `concrete`
(Python values: linking). Terms are opaque (`Any`) and compare with `==` and `!=`; truth values combine with the
algebra's connectives only, never with `and`, `or`, `not`.

An action is a guard and *functional updates*: `{symbol: function from arguments to the new value}`. What is not
mentioned stays as it was, and the post-state is a substitution: one vocabulary, no frame axioms.

Must not: know any backend, or anything about Raft.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, Protocol

Value = Any
"""A term of some backend: a Z3 expression, or a Python value."""

Patterns = Callable[..., list[list[Value]]]
"""For quantifier instantiation: from the bound variables to alternatives, each a list of terms to be matched."""


class Sort(StrEnum):
    """The sorts of the model. Terms and indexes are ordered and have a least element; times are ordered."""

    NODE = "Node"
    QUORUM = "Quorum"
    VALUE = "Value"
    MESSAGE = "Message"
    READ = "Read"
    CONFIGURATION = "Configuration"
    ROUND = "Round"
    TIME = "Time"
    REQUEST = "Request"
    CALL = "Call"
    ENTRY = "Entry"
    KEY = "Key"
    SESSION = "Session"
    CONTRACT = "Contract"
    INSTANCE = "Instance"
    SERVICE = "Service"
    CHECK = "Check"
    COPY = "Copy"
    STATE = "State"
    TERM = "Term"
    INDEX = "Index"
    BOOL = "Bool"


@dataclass(frozen=True, slots=True)
class Arity:
    """Argument sorts and result sort of a symbol."""

    arguments: tuple[Sort, ...]
    result: Sort


Signature = Mapping[str, Arity]


class Symbols:
    """The symbols of one state, as functions: `s.leader(n)`. An unknown name is an AttributeError."""

    __slots__ = ("_functions",)

    def __init__(self, functions: Mapping[str, Callable[..., Value]]) -> None:
        self._functions = functions

    def __getattr__(self, name: str) -> Callable[..., Value]:
        try:
            return self._functions[name]
        except KeyError:
            raise AttributeError(f"the model has no symbol {name}") from None

    def updated(self, updates: Mapping[str, Callable[..., Value]]) -> Symbols:
        """The state after `updates`, by substitution."""
        return Symbols({**self._functions, **updates})


class Algebra(Protocol):
    """What a backend offers to formulas."""

    rigid: Symbols
    """Symbols that never change: who is in a quorum, what a message says."""
    first_term: Value
    """Term 0, before any election."""
    genesis: Value
    """Index 0, the base of every log."""

    def conj(self, *parts: Value) -> Value: ...
    def disj(self, *parts: Value) -> Value: ...
    def neg(self, part: Value) -> Value: ...
    def implies(self, premise: Value, conclusion: Value) -> Value: ...
    def ite(self, condition: Value, yes: Value, no: Value) -> Value: ...
    def le(self, left: Value, right: Value) -> Value: ...
    def lt(self, left: Value, right: Value) -> Value: ...
    def successor(self, left: Value, right: Value) -> Value: ...
    def forall(self, sorts: Sequence[Sort], body: Callable[..., Value], patterns: Patterns | None = None) -> Value: ...
    def mark(self, *terms: Value) -> Value:
        """A truth that lets patterns see `terms`; always true."""

    def unless(self, mutant: str, rule: Value) -> Value:
        """A rule of the protocol: `rule`, or true where the mutant of that name is being examined."""

    def mutated(self, mutant: str) -> bool:
        """Whether the mutant of that name is being examined."""


class Unweakened:
    """The part of an algebra that examines no mutant: every rule of the protocol holds."""

    def unless(self, mutant: str, rule: Value) -> Value:
        return rule

    def mutated(self, mutant: str) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class Transition:
    """What an action does in a state: when, and how."""

    guard: Value
    updates: Mapping[str, Callable[..., Value]]


@dataclass(frozen=True, slots=True)
class Action:
    """A named action with parameter sorts; `rule(algebra, state, *arguments) -> Transition`."""

    name: str
    parameters: Mapping[str, Sort]
    rule: Callable[..., Transition]


Rule = Callable[..., Transition]
"""What an action does: from an algebra, a state and arguments."""


def refined(base: Action, rule: Rule, **parameters: Sort) -> Action:
    """An action with further parameters, conditions and effects, or, with the same symbol, another effect.

    `rule(algebra, state, *arguments)` is given all arguments, the further ones last.
    """

    def whole(a: Algebra, s: Symbols, *arguments: Value) -> Transition:
        given = base.rule(a, s, *arguments[: len(base.parameters)])
        more = rule(a, s, *arguments)
        return Transition(a.conj(given.guard, more.guard), {**given.updates, **more.updates})

    return replace(base, parameters={**base.parameters, **parameters}, rule=whole)


def action(**parameters: Sort) -> Callable[[Callable[..., Transition]], Action]:
    """Make an action of a function over an algebra, a state and these parameters."""

    def build(rule: Callable[..., Transition]) -> Action:
        return Action(rule.__name__, parameters, rule)

    return build


@dataclass(frozen=True, slots=True)
class Property:
    """A named formula over one state: a lemma of the inductive invariant, or a theorem; `text` says it in words."""

    name: str
    text: str
    formula: Callable[[Algebra, Symbols], Value]


def state_property(formula: Callable[[Algebra, Symbols], Value]) -> Property:
    """Make a property of a function over an algebra and a state; its docstring says it in words."""
    return Property(formula.__name__, inspect.getdoc(formula) or "", formula)


@dataclass(frozen=True, slots=True)
class Change:
    """A named formula over a state and its successor, which every action but the excepted must make true."""

    name: str
    text: str
    formula: Callable[[Algebra, Symbols, Symbols], Value]
    excepted: frozenset[str] = frozenset()
    """Actions that may break it: a restart forgets."""


def change_property(formula: Callable[[Algebra, Symbols, Symbols], Value]) -> Change:
    """Make a two-state property of a function over an algebra, a state and the next one."""
    return Change(formula.__name__, inspect.getdoc(formula) or "", formula)


@dataclass(frozen=True, slots=True)
class Statement:
    """A universally quantified statement: `body` over variables of `sorts`."""

    sorts: tuple[Sort, ...]
    body: Callable[..., Value]
    patterns: Patterns | None = None

    def quantified(self, a: Algebra) -> Value:
        """The statement as one formula."""
        return a.forall(self.sorts, self.body, self.patterns) if self.sorts else self.body()


Instances = Callable[..., Sequence[tuple[str, tuple[Value, ...]]]]
"""For a proof without quantifiers: which hypotheses, by name, at which terms; from the same as `Hints`."""


Hints = Callable[..., Sequence[Value]]
"""Terms that the solver should see, from (algebra, state, *arguments, *unknowns)."""

Order = Callable[[Algebra, Sequence[Value], Sequence[Value]], Value]
"""Whether unknowns come before others in an induction."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A fact on the way to a step's statement, proved and then used for its unknowns only ("have ... by ...").

    `formula(algebra, state, *arguments, *unknowns)`. The statement's negation may be assumed, as everywhere in a
    proof by contradiction.
    """

    name: str
    formula: Callable[..., Value]


@dataclass(frozen=True, slots=True)
class Step:
    """A consequence of the lemmas, proved first and then used: in any state, or where an action's guard holds.

    `before(algebra, xs, ys)`: if given, the proof for `ys` may assume the statement for every `xs` before it. That this
    is a sound induction (terms are natural numbers) is an argument outside Z3.
    """

    name: str
    text: str
    action: str | None
    """The action whose guard it assumes and whose obligations may use it; None: any state, all obligations."""
    statement: Callable[..., Statement]
    before: Order | None = None
    cuts: tuple[Cut, ...] = ()
    hints: Hints | None = None
    instances: Instances | None = None
    """Instances of hypotheses from which the step follows without quantifiers."""


MAJORITIES: Final = ("base", "step", "conclusion")
"""Cases of the proof that quorums intersect, if there is one configuration."""


def no_axioms(a: Algebra) -> Sequence[Value]:
    """Nothing is assumed of rigid symbols."""
    return ()


@dataclass(frozen=True, slots=True)
class System:
    """A transition system with its proof."""

    signature: Signature
    rigid: Signature
    initial: Callable[[Algebra, Symbols], Value]
    actions: tuple[Action, ...]
    lemmas: tuple[Property, ...]
    theorems: tuple[Property, ...]
    changes: tuple[Change, ...]
    steps: tuple[Step, ...]
    axioms: Callable[[Algebra], Sequence[Value]] = no_axioms
    """What is assumed of rigid symbols."""
    majorities: tuple[str, ...] = MAJORITIES
    """The cases of `majority` that justify what is assumed of quorums."""

    def action(self, name: str) -> Action:
        """The action of that name. Raises KeyError."""
        return {act.name: act for act in self.actions}[name]

    def property(self, name: str) -> Property:
        """The lemma or theorem of that name. Raises KeyError."""
        return {prop.name: prop for prop in (*self.lemmas, *self.theorems)}[name]

    def steps_of(self, act: str) -> tuple[Step, ...]:
        """The steps that an action's obligations may use, in the order in which they are proved."""
        return tuple(step for step in self.steps if step.action in (None, act))
