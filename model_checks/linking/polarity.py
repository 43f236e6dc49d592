"""Guards mention the network only positively: what is possible in a network is possible in every larger one.

That is what makes it enough to link each local step in the smallest network that it implies. Checked on the formulas
themselves, by an algebra whose values are not truths but *how symbols occur* in them. A symbol under a negation, in a
premise, in a condition or beside an equality sign does not occur positively. (Evaluation would notice, too, at each
step: what is not known makes a guard unknown; see `truths`. Here it is shown of all steps at once.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from model_checks.proofs.algebra import Arity, Patterns, Signature, Sort, Symbols, System, Unweakened, Value
from model_checks.proofs.signature import NETWORK

GROWING: Final = frozenset(
    {
        *NETWORK,
        *("read_begun", "heard", "read_confirmed"),
        *("round_begun", "confirmed", "lease_ended"),
        *("prevote_request", "prevote"),
    }
)
"""The symbols that other servers and the network make true, and that nothing makes false."""


@dataclass(frozen=True, eq=False)
class Occurrences:
    """How symbols occur in a formula or term: (symbol, whether positively)."""

    found: frozenset[tuple[str, bool]] = frozenset()

    def both(self) -> Occurrences:
        """The same in a place where more may be less."""
        names = {name for name, _ in self.found}
        return Occurrences(frozenset((name, sign) for name in names for sign in (True, False)))

    def negated(self) -> Occurrences:
        """The same under a negation."""
        return Occurrences(frozenset((name, not sign) for name, sign in self.found))

    def _compared(self, other: object) -> Occurrences:
        return joined(self, other).both()

    # The model writes equations as `==`; the type system holds that comparing always yields a bool.
    __eq__ = __ne__ = _compared  # type: ignore[assignment]
    __hash__ = object.__hash__


def joined(*parts: Any) -> Occurrences:
    """Everything that occurs in any part; Python's truths hold no symbols."""
    return Occurrences(frozenset().union(*(part.found for part in parts if isinstance(part, Occurrences))))


class PolarityAlgebra(Unweakened):
    """The algebra over occurrences."""

    first_term = Occurrences()
    genesis = Occurrences()

    def __init__(self, rigid: Signature) -> None:
        self.rigid = occurring(rigid)

    def conj(self, *parts: Value) -> Value:
        return joined(*parts)

    def disj(self, *parts: Value) -> Value:
        return joined(*parts)

    def neg(self, part: Value) -> Value:
        return joined(part).negated()

    def implies(self, premise: Value, conclusion: Value) -> Value:
        return joined(joined(premise).negated(), conclusion)

    def ite(self, condition: Value, yes: Value, no: Value) -> Value:
        return joined(joined(condition).both(), yes, no)

    def le(self, left: Value, right: Value) -> Value:
        return joined(left, right).both()

    def lt(self, left: Value, right: Value) -> Value:
        return joined(left, right).both()

    def successor(self, left: Value, right: Value) -> Value:
        return joined(left, right).both()

    def forall(self, sorts: Sequence[Sort], body: Callable[..., Value], patterns: Patterns | None = None) -> Value:
        return joined(body(*(Occurrences() for _ in sorts)))

    def mark(self, *terms: Value) -> Value:
        return Occurrences()


def occurring(signature: Mapping[str, Arity]) -> Symbols:
    """Symbols that record that they occur, with whatever occurs in their arguments."""

    def occurs(name: str) -> Callable[..., Occurrences]:
        return lambda *arguments: joined(Occurrences(frozenset({(name, True)})), joined(*arguments).both())

    return Symbols({name: occurs(name) for name in signature})


def negative_mentions(system: System) -> dict[str, frozenset[str]]:
    """The growing symbols that a guard mentions negatively, by action; none if the smallest network is enough."""
    found = {}
    for act in system.actions:
        algebra = PolarityAlgebra(system.rigid)
        guard = act.rule(algebra, occurring(system.signature), *(Occurrences() for _ in act.parameters)).guard
        wrong = {name for name, positive in joined(guard).found if not positive and name in GROWING}
        if wrong:
            found[act.name] = frozenset(wrong)
    return found
