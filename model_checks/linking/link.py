"""Links local steps of the readable spec to the relational model: each is a step of it, several in order, or a stutter.

A step is linked if, in the smallest network that the server's state and the message imply (`projection.claims`),

1. the guard of each claimed step of the model is true, evaluated concretely;
2. the model's state after them is the projection of the server's next state, row by row;
3. what the next state and the sent messages claim of the network is true then, so that claims hold in every run;
4. the facts that the step emits are those of the model: elected, committed, applied, read confirmed;
5. writes are issued for a reason, and confirmed or lost in order.

Together with `polarity` (guards read the network only positively) every run of linked steps is a run of the model, in a
larger network; what the proof says of the model then holds of the run. The proof covers every behaviour of the model;
the readable spec is covered for the steps that were linked, and no others.

Must not: trust what `steps` claims.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from model_checks.linking.concrete import ConcreteAlgebra, Slice
from model_checks.linking.projection import (
    Claim,
    Network,
    NotLocal,
    claims,
    disk_rows,
    is_leader,
    matched,
    message_claims,
    symbols,
    visible,
    whole_log,
)
from model_checks.linking.steps import Do, NoCounterpart, Reach, claimed
from model_checks.proofs.algebra import Sort, Symbols
from model_checks.proofs.reads import RAFT
from model_checks.verdicts import CheckResult, Verdict
from spec.raft.messages import AppendEntriesRequest, Message
from spec.raft.network import Transition
from spec.raft.types import (
    Applied,
    Committed,
    Constants,
    Elected,
    Fact,
    ReadAnswered,
    ReadConfirmed,
    ReadStarted,
)

CHECKER: Final = "link"
REJECTIONS_MAX: Final = 3


class Rejected(Exception):
    """A step of the readable spec is no step of the model. The text says which part of the link is missing."""


@dataclass(frozen=True, slots=True)
class Linked:
    """A step that is linked, and the model's steps that it is (none: a stutter)."""

    steps: tuple[Do, ...]


class Evaluation:
    """The model's state while the steps of one transition are taken."""

    def __init__(self, c: Constants, step: Transition) -> None:
        self.c, self.step, self.i = c, step, step.server
        self.message = next((a for a in step.arguments if isinstance(a, Message)), None)
        self.network = Network(self._known())
        lengths = (step.before.log.length, step.after.log.length, step.before.durable.log.length)
        carried = [
            m for m in (self.message, *(w.cause for w in step.before.issued)) if isinstance(m, AppendEntriesRequest)
        ]
        ends = (m.prev_log_index + len(m.entries) for m in carried)
        self.algebra = ConcreteAlgebra(c.servers, max(*lengths, *ends, 0) + 1)
        self.state: Symbols = symbols(self.i, step.before, self.network)
        self.done: list[Do] = []

    def _known(self) -> Iterator[Claim]:
        """The smallest network: what the state implies, the message that is read, and what follows from it."""
        yield from claims(self.i, self.step.before)
        if self.message is not None:
            yield from message_claims(self.message)
        if isinstance(self.message, AppendEntriesRequest):
            yield from matched(self.step.before, self.message)

    def take(self, do: Do) -> None:
        """One step of the model. Raises Rejected if its guard is false."""
        act = RAFT.action(do.action)
        for sort, argument in zip(act.parameters.values(), do.arguments, strict=True):
            if sort is Sort.QUORUM and 2 * len(argument & set(self.c.servers)) <= len(self.c.servers):
                raise Rejected(f"{do}: {sorted(argument)} is not a quorum")
        transition = act.rule(self.algebra, self.state, *do.arguments)
        if not transition.guard:
            raise Rejected(f"the guard of {do} is false")
        updates = dict(transition.updates)
        if do.action == "send_append":
            updates["sent"] = partial(sent_with_parts, do.arguments[1], self.state.sent)
        self.state = self.state.updated(updates)
        self.done.append(do)

    def rows(self, expected: dict[tuple[Any, ...], Any], where: str) -> None:
        """Compare the model's state with a projection. Raises Rejected with the differences."""
        found = {row: getattr(self.state, row[0])(*row[1:]) for row in expected}
        wrong = [row for row, value in expected.items() if differs(found[row], value)]
        if wrong:
            names = {row: f"{row[0]}({', '.join(map(str, row[1:]))})" for row in wrong}
            shown = [f"    {names[row]}  model {found[row]}  spec {expected[row]}" for row in wrong]
            raise Rejected("\n".join([f"{where} the model and the spec differ in {', '.join(names.values())}", *shown]))

    def has(self, claim: Claim) -> bool:
        """Whether a claim is true in the model's state."""
        return bool(getattr(self.state, claim.symbol)(*claim.arguments))


def differs(found: Any, expected: Any) -> bool:
    """Whether a row of the model is not what the spec says; what the model cannot know differs."""
    try:
        return bool(found != expected)
    except NotLocal:
        return True


def sent_with_parts(whole: Slice, sent: Callable[[Slice], bool], part: Slice) -> bool:
    """What the leader could send in the state in which it sent the whole, it sent, too."""
    return whole.covers(part) or sent(part)


def link(c: Constants, step: Transition) -> Linked:
    """Link one local step. Raises Rejected."""
    if step.changes_nothing and not step.outcome.sent:
        return Linked(())
    evaluation = Evaluation(c, step)
    try:
        for part in claimed(step):
            if isinstance(part, Reach):
                evaluation.rows(disk_rows(c.servers, step.server, part.point), "after a write")
            else:
                evaluation.take(part)
        lose_role(evaluation)
        evaluation.rows(visible(c.servers, step.server, step.after), "after the step")
        tell(evaluation)
        check_after(evaluation)
    except NoCounterpart as error:
        raise Rejected(str(error)) from error
    except NotLocal as error:
        raise Rejected(f"not local: {error}") from error
    return Linked(tuple(evaluation.done))


def lose_role(evaluation: Evaluation) -> None:
    """The role that memory has lost, or that a crash ended, is lost in the model."""
    i, after = evaluation.i, evaluation.step.after
    now = visible(evaluation.c.servers, i, after)
    had = evaluation.state.leader(i), evaluation.state.candidate(i)
    keeps = now["leader", i], now["candidate", i]
    crashed = evaluation.step.action == "crash_restart"
    if crashed or any(before and not still for before, still in zip(had, keeps, strict=True)):
        evaluation.take(Do("step_down", (i,)))


def tell(evaluation: Evaluation) -> None:
    """A leader whose log or commit index grew sends all of it."""
    before, after = evaluation.step.before, evaluation.step.after
    if not is_leader(after):
        return
    if is_leader(before) and (before.log, before.commit_index) == (after.log, after.commit_index):
        return
    whole = whole_log(after.current_term, after.log, after.log.length, after.commit_index)
    evaluation.take(Do("send_append", (evaluation.i, whole)))


def check_after(evaluation: Evaluation) -> None:
    """Points 3 to 5 of the link. Raises Rejected."""
    step, i = evaluation.step, evaluation.i
    for claim in claims(i, step.after):
        if not evaluation.has(claim):
            raise Rejected(f"the next state implies {claim}, which nothing established")
    for message in step.outcome.sent:
        if message.source != i:
            raise Rejected(f"a message of {message.source} is sent by {i}")
        for claim in message_claims(message):
            if not evaluation.has(claim):
                raise Rejected(f"{type(message).__name__} implies {claim}, which nothing established")
    check_facts(evaluation)
    check_reads(evaluation)
    check_writes(evaluation)


def check_facts(evaluation: Evaluation) -> None:
    """Each fact is the model's, and each election, commit, application and confirmation of the model is a fact."""
    expected: Counter[str] = Counter()
    for fact in evaluation.step.outcome.facts:
        action = counterpart(evaluation, fact)
        if action:
            expected[action] += 1
    emitting = {"become_leader", "advance_commit", "apply_own", "apply_told", "begin_read", "confirm_read"}
    found = Counter(do.action for do in evaluation.done if do.action in emitting)
    if found != expected:
        raise Rejected(f"the facts say {dict(expected)}, the model did {dict(found)}")


def counterpart(evaluation: Evaluation, fact: Fact) -> str:
    """The model's action that a fact stands for, empty if none. Raises Rejected if the model disagrees."""
    i, s, after = evaluation.i, evaluation.step.before, evaluation.step.after
    state = evaluation.state
    match fact:
        case Elected(term=t, server=server, log=log):
            agreed = server == i and t == after.current_term and log is after.log and state.won(i, t)
            action = "become_leader"
        case Committed(term=t, index=index, log=log):
            agreed = (
                t == after.current_term and log.is_prefix_of(after.log) and log.length == index == after.commit_index
            )
            action = "advance_commit"
        case Applied(server=server, index=index, entry=entry):
            agreed = server == i and index == after.last_applied and state.applied(i, index, entry.value)
            agreed = agreed and state.log_term(i, index) == entry.term
            action = "apply_own" if is_leader(s) else "apply_told"
        case ReadStarted(id=read, term=t, index=index):
            started = next((r for r in after.reads if r.id == read), None)
            agreed = started is not None and t == after.current_term and started.index == index
            action = "begin_read"
        case ReadConfirmed(id=read, index=index):
            waited = next((r for r in s.reads if r.id == read), None)
            agreed = waited is not None and waited.index == index and waited in after.confirmed
            agreed = agreed and waited is not None and state.read_confirmed((s.current_term, waited.round))
            action = "confirm_read"
        case ReadAnswered(id=read, index=index, applied=applied):
            confirmed = next((r for r in s.confirmed if r.id == read), None)
            agreed = confirmed is not None and confirmed.index == index <= applied == s.last_applied
            action = ""
    if not agreed:
        raise Rejected(f"the model does not make this fact true: {fact}")
    return action


def check_reads(evaluation: Evaluation) -> None:
    """Reads that wait have their index in the model; reads are confirmed by `confirm_read` only."""
    before, after = evaluation.step.before, evaluation.step.after
    for read in after.reads:
        if evaluation.state.read_index((after.current_term, read.round)) != read.index:
            raise Rejected(f"read {read.id} waits with index {read.index}, which the model did not give it")
    confirmed = sum(do.action == "confirm_read" for do in evaluation.done)
    fresh = [read for read in after.confirmed if read not in before.confirmed]
    if len(fresh) != confirmed:
        raise Rejected(f"reads {[read.id for read in fresh]} are confirmed without a step of the model")


def check_writes(evaluation: Evaluation) -> None:
    """Writes are confirmed in order or lost in a crash; a new one is caused by the message read, or by the server."""
    step = evaluation.step
    gone = int(str(step.arguments[0])) if step.action == "persist" else 0
    kept = () if step.action == "crash_restart" else step.before.issued[gone:]
    if step.after.issued[: len(kept)] != kept:
        raise Rejected("writes that were under way are changed or forgotten")
    for write in step.after.issued[len(kept) :]:
        if write.cause is not None and write.cause != evaluation.message:
            raise Rejected(f"a write names a cause that is not the message that is read: {write.cause}")
        if write.cause is None and step.action not in ("timeout", "client_request"):
            raise Rejected(f"{step.action} issues a write that no message caused")


# ------------------------------------------------------------------------------------------------------ many steps


@dataclass(frozen=True, slots=True)
class Report:
    """What linking many steps found."""

    actions: Counter[str]
    """Linked steps by action of the spec."""
    stutters: Counter[str]
    model_steps: Counter[str]
    """Steps of the model, by its actions."""
    rejected: list[tuple[Transition, str]]


def link_all(c: Constants, steps: Iterable[Transition]) -> Report:
    """Link steps of a cluster, up to the first few that are rejected."""
    report = Report(Counter(), Counter(), Counter(), [])
    for step in steps:
        try:
            linked = link(c, step)
        except Rejected as error:
            report.rejected.append((step, str(error)))
            if len(report.rejected) == REJECTIONS_MAX:
                break
            continue
        report.actions[step.action] += 1
        report.stutters[step.action] += not linked.steps
        report.model_steps.update(do.action for do in linked.steps)
    return report


def link_transitions(groups: Iterable[tuple[Constants, Iterable[Transition]]]) -> CheckResult:
    """Link groups of local steps, each with its cluster's constants: VALID if every step is linked."""
    start = time.perf_counter()
    actions: Counter[str] = Counter()
    stutters: Counter[str] = Counter()
    model_steps: Counter[str] = Counter()
    rejected: list[tuple[Transition, str]] = []
    for c, steps in groups:
        report = link_all(c, steps)
        actions += report.actions
        stutters += report.stutters
        model_steps += report.model_steps
        rejected += report.rejected
    seconds = time.perf_counter() - start
    linked = sum(actions.values())
    verdict = Verdict.INVALID if rejected else Verdict.VALID if linked else Verdict.UNKNOWN
    reason = rejected_line(*rejected[0]) if rejected else "" if linked else "there was no step to link"
    return CheckResult(
        checker=CHECKER,
        verdict=verdict,
        property="linked to the relational model" if rejected else "",
        reason=reason,
        details="\n\n".join(explained(step, why) for step, why in rejected[:REJECTIONS_MAX]),
        figures={
            "linked": linked,
            "stutters": sum(stutters.values()),
            "model_steps": sum(model_steps.values()),
            "by_action": dict(sorted(actions.items())),
            "stutters_by_action": dict(sorted((+stutters).items())),
            "by_model_action": {act.name: model_steps[act.name] for act in RAFT.actions},
            "per_second": round(linked / seconds) if seconds else 0,
        },
        seconds=round(seconds, 2),
    )


def rejected_line(step: Transition, why: str) -> str:
    """Why a step is rejected, in one line."""
    return f"{step.action} of {step.server}: {why.splitlines()[0]}"


def explained(step: Transition, why: str) -> str:
    """A rejected step for a person: the step, the state before it, what changed, what is missing."""
    arguments = ", ".join(map(str, step.arguments))
    changes = [
        f"    {name}: {old} -> {getattr(step.after, name)}"
        for name, old in ((name, getattr(step.before, name)) for name in step.before.__struct_fields__)
        if old != getattr(step.after, name)
    ]
    claims_shown = ", ".join(str(part) for part in claimed_safely(step))
    return "\n".join(
        [
            f"{step.action}({arguments}) of {step.server}",
            f"  before: {step.before}",
            "  changes:" if changes else "  no field changes",
            *changes,
            f"  claimed steps of the model: {claims_shown or 'none'}",
            f"  rejected: {why}",
        ]
    )


def claimed_safely(step: Transition) -> Iterator[Do]:
    """The claimed steps as far as there are any."""
    try:
        yield from (part for part in claimed(step) if isinstance(part, Do))
    except NoCounterpart:
        return
