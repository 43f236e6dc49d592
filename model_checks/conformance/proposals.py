"""Forwarding, seen in traces: at most one committed entry for each client's write, however often it was forwarded and
tried again.

The agent that takes a write from its client names it; the name travels with every attempt, and the leader that
appends the write records it beside the entry. An entry that was overwritten does not count: trying again was right
then. What forwarding promises beyond that (a refused write is never applied, an acknowledged one is) clients see:
`model_checks.histories` judges it.
"""

from __future__ import annotations

import msgspec

from model_checks.conformance.divergence import FORWARDING, Divergence, Place
from model_checks.conformance.server import ServerReplay
from model_checks.conformance.trace import AnswerLine, Propose
from spec.raft.log import Log
from spec.raft.types import Index, Value


class Attempt(msgspec.Struct, frozen=True, gc=False):
    """An entry that carries a client's write."""

    index: Index
    value: Value
    place: Place


class Proposals:
    """Every attempt at every write, by the write's name."""

    def __init__(self) -> None:
        self.attempts: dict[str, list[Attempt]] = {}
        self._names: dict[tuple[str, Index, Value], str] = {}
        """(process, index, entry) -> the write's name."""

    def add(self, server: ServerReplay, line: Propose) -> None:
        """A leader says whose write an entry of its log carries. Raises Divergence."""
        value = server.proposed.get(line.index)
        if value is None or server.spec.log.entry(line.index).term != line.term:
            why = f"{line.request} is said to be entry {line.index} of term {line.term}, which is not this process's"
            raise Divergence(FORWARDING, "a write's entry was appended by the process that names it", why)
        if self._names.setdefault((server.prefix, line.index, value), line.request) != line.request:
            why = f"entry {line.index} is said to carry {line.request} and another write"
            raise Divergence(FORWARDING, "an entry carries one write", why)
        self.attempts.setdefault(line.request, []).append(Attempt(line.index, value, server.here()))

    def answered(self, server: ServerReplay, line: AnswerLine) -> None:
        """A write is answered under the name that its entry carries. Raises Divergence."""
        value = server.spec.log.entry(line.index).value if 0 < line.index <= server.spec.log.length else ""
        if self._names.get((server.prefix, line.index, value)) != line.request:
            why = f"{line.request} was answered by entry {line.index}, which does not carry it"
            raise Divergence(FORWARDING, "a write is answered by its own entry", why)

    def judge(self, committed: Log) -> Divergence | None:
        """The first write of which the committed log holds more than one entry."""
        for request, attempts in self.attempts.items():
            if len(attempts) > 1:
                applied = [each for each in attempts if holds(committed, each)]
                if len(applied) > 1:
                    where = ", ".join(f"{each.index} ({each.place})" for each in applied)
                    divergence = Divergence(
                        FORWARDING, "a write is applied at most once", f"{request} was committed at indexes {where}"
                    )
                    divergence.place = applied[1].place
                    return divergence
        return None


def holds(committed: Log, attempt: Attempt) -> bool:
    """Whether the attempt's entry was committed."""
    return attempt.index <= committed.length and committed.entry(attempt.index).value == attempt.value
