"""Read conformance: every answer that a client got, stale ones included, is what spec/catalog says at the index that
it was computed at.

Two kinds of rules. At once, from the replay: a write is answered by the server that appended its entry, once, after
it was applied; a consistent read after a quorum confirmed it, a default one after a quorum or a lease did; no
answer from an index that the server is not at. At the end, in one pass over the applied log: the result of every
write, the index and rows of every read, and the digest of every snapshot. It does not say that clients saw a
linearizable history: `model_checks.histories` does.
"""

from __future__ import annotations

from typing import Any

import msgspec

from model_checks.catalog.payloads import Malformed, decoded
from model_checks.catalog.records import (
    decoded_request,
    described_command,
    recorded_outcome,
    recorded_result,
    recorded_rows,
)
from model_checks.conformance.divergence import READS, Divergence, Place, shown
from model_checks.conformance.entries import Payloads
from model_checks.conformance.payloads import state_digest
from model_checks.conformance.server import ServerReplay
from model_checks.conformance.tables import Tables
from model_checks.conformance.trace import AnswerLine, Step
from spec.catalog import transactions
from spec.catalog.commands import Command, Transaction
from spec.catalog.queries import query
from spec.catalog.state import State, initial_state
from spec.catalog.transitions import Result, apply
from spec.raft.types import Entry, Index


class Waiting(msgspec.Struct, frozen=True, gc=False):
    """An answer, or a snapshot, that the replay of the catalog will judge."""

    place: Place
    line: AnswerLine | Step

    @property
    def index(self) -> Index:
        """The index that it was computed at."""
        return self.line.applied if isinstance(self.line, AnswerLine) else self.line.index


class Answers:
    """Judges answers as they are replayed, and keeps them for the catalog."""

    def __init__(self) -> None:
        self.waiting: list[Waiting] = []
        self.by_lease: set[str] = set()
        """Reads that a lease confirmed."""
        self.confirmed: dict[str, Index] = {}
        """Reads that were answered by the spec and whose answer line has not come yet -> their read index."""
        self.tables = Tables(0)
        """Who looks at the catalog's tables."""

    def read_answered(self, id: str, index: Index) -> None:
        """The fact ReadAnswered: the read's answer may follow."""
        self.confirmed[id] = index

    def read_by_lease(self, id: str) -> None:
        """The fact ReadConfirmed, of a lease."""
        self.by_lease.add(id)

    def snapshot(self, server: ServerReplay, line: Step) -> None:
        """A snapshot of the state machine was taken, or replaced it."""
        self.waiting.append(Waiting(server.here(), line))

    def add(self, server: ServerReplay, line: AnswerLine) -> None:
        """Judge who answers, when, and at which index. Raises Divergence."""
        applied = server.spec.last_applied
        if not (server.applied_before < line.applied <= applied or line.applied == applied):
            span = f"{server.applied_before} to {applied}"
            why = f"the answer was computed at index {line.applied}; the newest entries applied were {span}"
            raise Divergence(READS, "answers come from the applied state", why)
        match line.mode:
            case "write":
                self._write(server, line)
            case "consistent":
                self._confirmed(server, line)
            case "default" if line.read:
                self._confirmed(server, line)
            case "default":
                why = f"{server.node} answered a default read that nothing confirmed, as a {server.spec.role}"
                raise Divergence(READS, "a default read is confirmed by a quorum or a lease", why)
            case "stale":
                pass
            case _:
                raise Divergence(READS, "reads have a mode", f"{line.mode} is not a consistency mode")
        self.waiting.append(Waiting(server.here(), line))

    def _write(self, server: ServerReplay, line: AnswerLine) -> None:
        value = server.proposed.pop(line.index, None)
        if value is None:
            why = f"the write at index {line.index} is not one that this process appended and has not answered yet"
            raise Divergence(READS, "a write is answered once, by the leader that appended it", why)
        if line.index > line.applied or server.spec.log.entry(line.index).value != value:
            why = f"the write at index {line.index} was acknowledged, but its entry is not applied there"
            raise Divergence(READS, "an acknowledged write is committed and applied", why)

    def _confirmed(self, server: ServerReplay, line: AnswerLine) -> None:
        id = server.prefix + line.read
        index = self.confirmed.pop(id, None)
        if index is None:
            why = f"{line.mode} read {line.read!r} was answered without a confirmation, or twice"
            raise Divergence(READS, "a read is confirmed, and answered once", why)
        if line.mode == "consistent" and id in self.by_lease:
            why = f"consistent read {line.read!r} was confirmed by a lease"
            raise Divergence(READS, "a consistent read is confirmed by a quorum", why)
        if line.applied < index:
            why = f"read {line.read!r} was answered at index {line.applied}, but its read index is {index}"
            raise Divergence(READS, "a read waits for its read index", why)

    def judge(self, applied: list[Entry], payloads: Payloads) -> Divergence | None:
        """Replay the catalog over the applied log: the first answer or snapshot that differs from it."""
        self.waiting.sort(key=lambda waiting: waiting.index)
        state, results = initial_state(), list[tuple[Command, Result]]()
        self.tables = Tables(self.waiting[-1].index if self.waiting else 0)
        digests: dict[Index, str] = {}
        for waiting in self.waiting:
            try:
                while len(results) < waiting.index:
                    command = decoded(payloads[applied[len(results)].value])
                    before, index = state, len(results) + 1
                    state, result = apply(before, command, index)
                    results.append((command, result))
                    self._look(before, command, index, state, waiting.place)
                if isinstance(waiting.line, AnswerLine):
                    judge_answer(state, results, waiting.line)
                else:
                    if waiting.index not in digests:
                        digests[waiting.index] = state_digest(state)
                    judge_snapshot(digests[waiting.index], waiting.line)
            except Malformed as malformed:
                divergence = Divergence(READS, "payloads and queries are those of the format", str(malformed))
                divergence.place = waiting.place
                return divergence
            except Divergence as divergence:
                divergence.place = waiting.place
                return divergence
        return None

    def _look(self, before: State, command: Command, index: Index, after: State, place: Place) -> None:
        """Perhaps look at the tables; `place`: of the answer that they are built for."""
        known = self.tables.broken
        self.tables.applied(before, command, index, after)
        if self.tables.broken is not known and self.tables.broken is not None:
            self.tables.broken.place = place


def judge_snapshot(expected: str, line: Step) -> None:
    """Compare a snapshot's digest with the catalog's at its index. Raises Divergence."""
    if line.state_digest != expected:
        why = f"{line.action}: the state at index {line.index} has digest {line.state_digest or '(none)'}"
        raise Divergence(READS, "a snapshot is the state at its index", f"{why}, the catalog's is {expected}")


def answer_of(state: State, asked: list[Any]) -> list[Any]:
    """What a read of the state is told, as traces record it: [index, rows]. Raises Malformed."""
    request = decoded_request(asked)
    if isinstance(request, Transaction):
        return [0, recorded_outcome(transactions.run(state, request, 0)[1])]
    index, rows = query(state, request)
    return [index, recorded_rows(rows)]


def judge_answer(state: State, results: list[tuple[Command, Result]], line: AnswerLine) -> None:
    """Compare one answer with the catalog at its index. Raises Divergence, Malformed."""
    if line.mode == "write":
        command, result = results[line.index - 1]
        if described_command(command) != line.query:
            why = f"the answer is for {line.query}, but entry {line.index} is {described_command(command)}"
            raise Divergence(READS, "a write's answer is for its entry", why)
        told = recorded_result(result)
        if line.result != told:
            why = f"{line.query} at index {line.index} was answered {line.result}, the catalog says {told}"
            raise Divergence(READS, "a write is told its result", why)
        return
    expected = answer_of(state, line.query)
    recorded = line.result
    if recorded != expected:
        why = f"{line.query} ({line.mode}) at index {line.applied} was not answered as the catalog says"
        evidence = [f"  catalog:  {shown(expected)}", f"  answered: {shown(recorded)}"]
        raise Divergence(READS, "a read is answered from the state at its index", why, evidence)
