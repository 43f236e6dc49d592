"""The model's state while the steps of one transition of the readable spec are taken, one after the other.

It begins with what the server's state and the message imply; each step's guard must be known to be true, and its
updates are applied. Then it is compared with the projection of the next state, row by row, and asked for claims.

Must not: choose the steps.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from model_checks.linking.annotated import Record, annotations_of
from model_checks.linking.claims import Claim, Network, claims, is_leader, matched, message_claims, own_logs
from model_checks.linking.concrete import ConcreteAlgebra, Do, Numbered, Rejected, Slice, rigid
from model_checks.linking.projection import Row, Visible, log_symbols, symbols
from model_checks.linking.steps import SOME_QUORUM
from model_checks.linking.truths import MAYBE
from model_checks.proofs.algebra import Action, Symbols
from model_checks.proofs.algebra import Transition as ModelTransition
from model_checks.proofs.whole import WHOLE
from spec.raft.actions import CLOCKED
from spec.raft.log import Log
from spec.raft.messages import AppendEntriesRequest, Message
from spec.raft.network import ADVANCE_CLOCK, Transition
from spec.raft.types import Constants, Index, Term, Time

ACTIONS = {act.name: act for act in WHOLE.actions}

GENERALISED = {
    "send_append": "sent",
    "hear_round": "round_heard",
    "confirm_round": "confirmed",
    "confirm_leadership": "heard",
}
"""Steps that are taken for many values at once, since their guards depend on none of them: what a leader could send it
sends in every part; who hears of a round, or answers it, does so for all that have begun before. By what becomes so."""


class Evaluation:
    """The model's state while the steps of one transition are taken."""

    def __init__(self, c: Constants, step: Transition) -> None:
        self.c, self.step, self.i = c, step, step.server
        self.message = next((a for a in step.arguments if isinstance(a, Message)), None)
        self.now = _now(step)
        self.known = annotations_of(c)
        before, after = step.before, step.after
        leads = (self.i, before.current_term) if is_leader(before) else None
        self.network = Network(self._claims(), self.known, leads)
        fixed = rigid(c, self.known, _read_indexes(step), _round_starts(step, self.now))
        self.algebra = ConcreteAlgebra(fixed, c.servers, max(before.current_term, after.current_term) + 1, _end(step))
        self.state: Symbols = symbols(self.known, self.i, before, self.network, self.now)
        self.done: list[Do] = []
        self._logs: dict[Any, Log] = {("log_term", "log_value", self.i): before.durable.log}
        for own in own_logs(before):
            self._logs["tlog_term", "tlog_value", own.term] = own.log
        self._updated: set[str] = set()

    def _claims(self) -> Iterator[Claim]:
        """The smallest network: what the state implies, the message that is read, and what follows from it."""
        yield from claims(self.i, self.step.before)
        if self.message is not None:
            yield from message_claims(self.message)
            yield from matched(self.step.before, self.message)

    def take(self, do: Do) -> None:
        """One step of the model. Raises Rejected if its guard is not known to be true."""
        act = ACTIONS[do.action]
        transition = self._with_some_quorum(do) if do.action == "timeout" else self._applied(act, do.arguments)
        if transition.guard is MAYBE:
            raise Rejected(f"the guard of {do} is not known to be true")
        if not transition.guard:
            raise Rejected(f"the guard of {do} is false")
        updates = dict(transition.updates)
        if do.action in GENERALISED:
            symbol = GENERALISED[do.action]
            updates[symbol] = generalised(do.arguments, getattr(self.state, symbol))
        self.state = self.state.updated(updates)
        self._updated |= set(updates)
        self.done.append(do)

    def _applied(self, act: Action, arguments: tuple[Any, ...]) -> ModelTransition:
        """What an action does in the model's state.

        Who confirms a leadership does so for every read that has begun, whether it knows of any or not.
        """
        begun = {"read_begun": lambda r: True} if act.name == "confirm_leadership" else {}
        return act.rule(self.algebra, self.state.updated(begun), *arguments)

    def _with_some_quorum(self, do: Do) -> ModelTransition:
        """A campaign for which a quorum pre-voted, or that is urged: whichever it was, it is a step of the model."""
        n, t, _ = do.arguments
        act, state = ACTIONS[do.action], self.state
        record = self.known.record(self._logs["log_term", "log_value", n])
        if not self.c.pre_vote or not self.network.holds("may_campaign", n, t, self.disk_log()):
            return self._applied(act, (n, t, SOME_QUORUM))
        transition = act.rule(self.algebra, state.updated({"urged": lambda x, u: True}), n, t, SOME_QUORUM)
        for quorum in minimal_quorums(record):
            granted = state.updated({"prevote": lambda v, u, x, quorum=quorum: (u, x) == (t, n) and v in quorum})
            guard = act.rule(self.algebra, granted, n, t, quorum).guard
            transition = ModelTransition(self.algebra.conj(transition.guard, guard), transition.updates)
        return transition

    def disk_log(self) -> Log:
        """The log that the model's disk holds now."""
        return self._logs["log_term", "log_value", self.i]

    def compare(self, expected: Visible, where: str) -> None:
        """Compare the model's state with a projection. Raises Rejected with the differences."""
        rows: dict[Row, Any] = dict(expected.rows)
        for owner, log in expected.logs.items():
            if self._logs.get(owner) is log and not self._updated & set(owner[:2]):
                continue
            columns = self.known.columns(log)
            for j in range(log.length + 1):
                rows[owner[0], owner[2], j] = columns.terms[j]
                rows[owner[1], owner[2], j] = columns.values[j]
        found = {row: getattr(self.state, row[0])(*row[1:]) for row in rows}
        wrong = [row for row, value in rows.items() if differs(found[row], value)]
        if wrong:
            names = {row: f"{row[0]}({', '.join(map(str, row[1:]))})" for row in wrong}
            shown = [f"    {names[row]}  model {found[row]}  spec {rows[row]}" for row in wrong]
            raise Rejected("\n".join([f"{where} the model and the spec differ in {', '.join(names.values())}", *shown]))

    def reach(self, expected: Visible) -> None:
        """The model's disk is a point: compare, and go on from the point (which is equal, and faster to read)."""
        self.compare(expected, "after a write")
        owner = ("log_term", "log_value", self.i)
        log = expected.logs[owner]
        self.state = self.state.updated(log_symbols(self.known, self.i, log))
        self._logs[owner] = log
        self._updated -= {"log_term", "log_value"}

    def has(self, claim: Claim) -> bool:
        """Whether a claim is known to be true in the model's state."""
        match claim.symbol, claim.arguments:
            case "part", (m,):
                return self._could_send(m)
            case "applied_up_to", (n, log):
                return self._has_applied(n, log)
            case "answered", (n, h):
                return self._has_answered(n, h)
            case "may_campaign", (n, t, log):
                return self.network.holds("may_campaign", n, t, log) or self._may_campaign(n, t, log)
            case _:
                return getattr(self.state, claim.symbol)(*claim.arguments) is True

    def _could_send(self, m: AppendEntriesRequest) -> bool:
        """Whether a request is a part of what the server's log and commit index allow it to send."""
        log, last = self.step.after.log, m.prev_log_index + len(m.entries)
        if last > log.length or log.slice(m.prev_log_index, last) != m.entries:
            return False
        shown = log.term_at(m.prev_log_index) == m.prev_log_term
        return shown and self.state.sent(Slice(m.term, log.truncate(last), m.commit_index)) is True

    def _has_answered(self, n: str, h: Numbered) -> bool:
        """Whether a server has confirmed a round, with its reads, or leads."""
        leads = is_leader(self.step.after) and (n, h.term) == (self.i, self.step.after.current_term)
        confirmed = self.state.confirmed(n, h) is True and self.state.heard(n, h) is True
        return self.state.round_begun(h) is True and (leads or confirmed)

    def _has_applied(self, n: str, log: Log) -> bool:
        """Whether a server has applied all of a log."""
        if self.network.applied_log(n) is log:
            return True
        values = self.known.columns(log).values
        return all(self.state.applied(n, j, values[j]) is True for j in range(1, log.length + 1))

    def _may_campaign(self, n: str, t: Term, log: Log) -> bool:
        """Whether the pre-votes for a campaign are there, or it needs none."""
        record = self.known.record(log)
        granted = frozenset(v for v in record.voters if self.state.prevote(v, t, n) is True)
        return not self.c.pre_vote or record.is_quorum(granted) or self.state.urged(n, t) is True


def _now(step: Transition) -> Time | None:
    """What the clock shows, if the step reads it: its last argument."""
    if step.action == ADVANCE_CLOCK:
        return int(str(step.arguments[0])) - 1
    return int(str(step.arguments[-1])) if step.action in CLOCKED else None


def _end(step: Transition) -> Index:
    """An index beyond every log of the step."""
    logs = [step.before.log, step.after.log, step.before.durable.log, *(w.point.log for w in step.before.issued)]
    causes = [*(write.cause for write in step.before.issued), *step.arguments]
    ends = [m.prev_log_index + len(m.entries) for m in causes if isinstance(m, AppendEntriesRequest)]
    return max([log.length for log in logs] + ends) + 1


def _read_indexes(step: Transition) -> dict[Numbered, Index]:
    """The indexes of the reads of the server's term, by the rounds that they wait for. Raises Rejected."""
    found: dict[Numbered, Index] = {}
    for s in (step.before, step.after):
        for read in s.reads:
            if found.setdefault(Numbered(s.current_term, read.round), read.index) != read.index:
                raise Rejected(f"read {read.id} has two indexes")
    if step.action == "lease_read":
        fresh = (read for read in step.after.confirmed if read.id == step.arguments[0])
        found |= {Numbered(step.after.current_term, 0, read.id): read.index for read in fresh}
    return found


def _round_starts(step: Transition, now: Time | None) -> dict[Numbered, Time]:
    """When the rounds of the server's term began; the one that begins now begins now. Raises Rejected."""
    before, after = step.before, step.after
    found = {Numbered(before.current_term, number): start for number, start in before.round_starts}
    if now is not None and is_leader(before) and after.round == before.round + 1:
        found[Numbered(after.current_term, after.round)] = now
    for number, start in after.round_starts:
        if found.get(Numbered(after.current_term, number)) != start:
            raise Rejected(f"round {number} is said to have begun at {start}, and it did not")
    return found


def minimal_quorums(record: Record) -> Iterator[frozenset[str]]:
    """The smallest quorums of a configuration."""
    size = len(record.voters) // 2 + 1
    return map(frozenset, itertools.combinations(sorted(record.voters), size))


def differs(found: Any, expected: Any) -> bool:
    """Whether a row of the model is not what the spec says; what the model cannot know differs."""
    return (found != expected) is not False


def generalised(taken: tuple[Any, ...], before: Callable[..., Any]) -> Callable[..., Any]:
    """A relation after a step that was taken for its last argument and for all that follows from it."""
    *same, whole = taken

    def now(*arguments: Any) -> Any:
        *others, part = arguments
        if isinstance(whole, Slice):
            follows = whole.covers(part)
        else:
            follows = others == same and whole.term == part.term and 0 < part.number <= whole.number
        return follows or before(*arguments)

    return now
