"""Which property a step or a world breaks. Shared by both searches, so that they can differ in speed only.

It must not decide what is explored. Properties are those of `spec.raft.properties`; a subset may be chosen, which
shows that a mutant is caught by the theorem and not merely by a rule that restates its guard.
"""

from __future__ import annotations

from collections.abc import Iterable

from spec.raft import properties
from spec.raft.messages import Message
from spec.raft.network import History, Transition
from spec.raft.types import Constants, Server, ServerId

PROPERTIES = (
    *properties.INVARIANTS,
    *properties.STEP_PROPERTIES,
    *properties.SENT_PROPERTIES,
    *properties.FACT_PROPERTIES,
    *properties.PAIR_PROPERTIES,
    *properties.HISTORY_PROPERTIES,
)
"""The names of all properties."""


class Judge:
    """Evaluates the chosen properties; every method names the first broken one, or None."""

    def __init__(self, c: Constants, only: Iterable[str] = PROPERTIES) -> None:
        chosen = frozenset(only)
        unknown = sorted(chosen.difference(PROPERTIES))
        if unknown:
            raise ValueError(f"no property is named {unknown[0]!r}; there are: {', '.join(PROPERTIES)}")
        self.c = c
        # The type invariant is always watched: the other properties may be evaluated only on well-formed states.
        self._invariants = [
            (name, holds) for name, holds in properties.INVARIANTS.items() if name in chosen or name == "Type Invariant"
        ]
        self._steps = [(name, holds) for name, holds in properties.STEP_PROPERTIES.items() if name in chosen]
        self._sent = [(name, holds) for name, holds in properties.SENT_PROPERTIES.items() if name in chosen]
        self._facts = [(name, holds) for name, holds in properties.FACT_PROPERTIES.items() if name in chosen]
        self._pairs = [(name, holds) for name, holds in properties.PAIR_PROPERTIES.items() if name in chosen]
        self._history = [(name, holds) for name, holds in properties.HISTORY_PROPERTIES.items() if name in chosen]

    def state(self, i: ServerId, s: Server) -> str | None:
        """Judge one server's state."""
        return next((name for name, holds in self._invariants if not holds(self.c, i, s)), None)

    def step(self, step: Transition) -> str | None:
        """Judge a local step: the state that it reaches, and the step itself."""
        broken = self.state(step.server, step.after)
        return broken or next((name for name, holds in self._steps if not holds(step)), None)

    def sent(self, s: Server, messages: Iterable[Message]) -> str | None:
        """Judge what state `s` may send."""
        return next((name for m in messages for name, holds in self._sent if not holds(s, m)), None)

    def facts(self, history: History, step: Transition) -> str | None:
        """Judge what `step` makes true, against the history before it."""
        checks = ((name, holds, fact) for fact in step.outcome.facts for name, holds in self._facts)
        return next((name for name, holds, fact in checks if not holds(self.c, history, fact)), None)

    def pair(self, s: Server, t: Server) -> str | None:
        """Judge two servers of one world."""
        return next((name for name, holds in self._pairs if not holds(s, t)), None)

    def past(self, history: History, s: Server) -> str | None:
        """Judge a server against the history."""
        return next((name for name, holds in self._history if not holds(history, s)), None)
