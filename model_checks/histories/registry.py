"""Registrations, health answers and blocking queries: what must hold of a history of them.

answers      what `default` and `consistent` reads of a service show is linearizable: each instance is a register that
             holds its registration and status, or nothing. P-compositional: one register an instance. Answers that ask
             for `passing` say of an instance that is not shown only that it is not passing, so they are judged on the
             projection in which every other state is nothing; a projection of a linearizable register is one
indexes      X-Consul-Index names one state of what was asked for, in every mode; in `default` and `consistent` mode it
             never goes back, and a blocking query never answers with a lower one than it was given
watching     a blocking query that was answered by time-out although a change of its service was acknowledged long
             before, which was asked for after the answer with the index that it was given, has missed that change;
             judged where nothing disturbed its agent or the leader (`Circumstances.calm`), since an answer may be late
             for other reasons. At the end the last answer of each watcher shows what everybody else sees
agents       what an agent acknowledged as its own (anti-entropy brings it to the catalog) is in the catalog in the end

A state is [version, status]; every registration has a version of its own. Source: Consul, "Health HTTP Endpoint",
"Blocking Queries", "Anti-Entropy". The checker is sound: what has an unknown outcome may have happened at any time
after it was asked for, or never.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from model_checks.histories.circumstances import ALONE, Circumstances
from model_checks.histories.findings import Findings, Objection, going_back, read_as
from model_checks.histories.operations import Operation, Outcome
from model_checks.histories.register import Model, UnknownOperation

WAKE_MARGIN_NS = 2_000_000_000
"""A blocking query must have been answered so long after a change was acknowledged: a process may be short of CPU."""

ANSWERS = "health answers show what is registered"
ONE_STATE = "an index names one state"
FORWARD = "indexes do not go back"
WOKEN = "a blocking query answers when something changes"
LAST = "a watcher ends with the final state"
CONVERGES = "what an agent was told reaches the catalog"

PASSING = "passing"

State = tuple[int, str] | None
"""(version, status), or not registered."""


class _Asked(msgspec.Struct, frozen=True):
    mode: str
    passing: bool = False


class _Registered(msgspec.Struct, frozen=True):
    version: int
    status: str


class _Shown(msgspec.Struct, frozen=True):
    index: int
    instances: dict[str, tuple[int, str]]
    given: int = 0
    wait_ms: int = 0


class Answer(msgspec.Struct, frozen=True, gc=False):
    """An answered read or blocking query of a service."""

    service: str
    asked: _Asked
    shown: _Shown
    by: Operation

    @property
    def judged(self) -> bool:
        """Whether it promises to show the present."""
        return self.asked.mode in ("default", "consistent")

    @property
    def timed_out(self) -> bool:
        """Whether it is a blocking query that waited as long as it was told to."""
        return self.shown.given > 0 and self.by.ret_ns - self.by.call_ns >= self.shown.wait_ms * 1_000_000


class RegistryHistory(msgspec.Struct):
    """Everything, by service and by instance (`SERVICE/NUMBER`). All lists are in order of invocation."""

    changes: dict[str, list[Operation]] = {}
    """By instance, registrations and deregistrations that may have happened."""
    answers: dict[str, list[Answer]] = {}
    watchers: dict[tuple[int, str], list[Answer]] = {}
    """By process and service, the blocking queries."""
    told: dict[str, list[Operation]] = {}
    """By instance, what its agent was told and may have accepted."""
    settled: dict[str, Operation] = {}
    """By instance, the last look at the catalog for it."""


def registry_history(operations: Iterable[Operation]) -> RegistryHistory:
    """Sort the operations. Raises UnknownOperation."""
    found = RegistryHistory()
    for operation in operations:
        happened = operation.outcome is not Outcome.FAIL
        match operation.f:
            case "register" | "deregister":
                changes = found.changes.setdefault(operation.key, [])
                if happened:
                    changes.append(operation)
            case "read" | "watch":
                if operation.outcome is Outcome.OK:
                    asked = read_as(operation, operation.argument, _Asked, Model.REGISTRY)
                    shown = read_as(operation, operation.answer, _Shown, Model.REGISTRY)
                    answer = Answer(operation.key, asked, shown, operation)
                    found.answers.setdefault(operation.key, []).append(answer)
                    if operation.f == "watch":
                        found.watchers.setdefault((operation.process, operation.key), []).append(answer)
            case "agent-register" | "agent-deregister" | "agent-check":
                if happened:
                    found.told.setdefault(operation.key, []).append(operation)
            case "settled":
                if operation.outcome is Outcome.OK:
                    found.settled[operation.key] = operation
            case other:
                raise UnknownOperation(f"the model registry has no operation {other!r} (process {operation.process})")
    return found


def check_registry(operations: Iterable[Operation], circumstances: Circumstances = ALONE) -> Findings:
    """Judge a history of the model `registry`. Raises UnknownOperation."""
    history = registry_history(operations)
    answers = [answer for each in history.answers.values() for answer in each]
    watched = [answer for each in history.watchers.values() for answer in each]
    figures = {
        "instances": len(history.changes),
        "changes": sum(change.outcome is Outcome.OK for each in history.changes.values() for change in each),
        "judged_answers": sum(answer.judged for answer in answers),
        "blocking_queries": len(watched),
        "woken": sum(answer.shown.index > answer.shown.given > 0 and not answer.timed_out for answer in watched),
        "timed_out": sum(answer.timed_out for answer in watched),
        "waits_judged": sum(
            answer.shown.given > 0 and circumstances.calm_at(answer.by.process, answer.by.call_ns, answer.by.ret_ns)
            for answer in watched
        ),
        "agents_settled": len(history.settled),
    }
    registers: dict[str, list[Operation]] = {}
    for instance, changes in history.changes.items():
        seen = [answer for answer in history.answers.get(service_of(instance), []) if answer.judged]
        registers[instance] = register(instance, changes, seen, passing=False)
        registers[f"{instance} passing"] = register(instance, changes, seen, passing=True)
    return Findings(
        checker="histories/registry",
        objections=tuple(_objections(history, circumstances)),
        registers=registers,
        register_property=ANSWERS,
        figures=figures,
        nothing_learnt="" if figures["judged_answers"] and figures["changes"] else "nothing was registered, or read",
    )


def service_of(instance: str) -> str:
    """The service of an instance `SERVICE/NUMBER`."""
    return instance.rpartition("/")[0]


def register(instance: str, changes: list[Operation], answers: list[Answer], passing: bool) -> list[Operation]:
    """What was done to an instance and seen of it, as writes and reads of a register; with `passing` of the projection
    in which only passing states are something.
    """
    found = []
    for change in changes:
        written = _project(_written(change), passing)
        found.append(msgspec.structs.replace(change, f="write", key=instance, argument=written))
    for answer in answers:
        if answer.asked.passing and not passing:
            continue
        shown = _project(answer.shown.instances.get(instance), passing)
        found.append(msgspec.structs.replace(answer.by, f="read", key=instance, argument=None, answer=shown))
    return sorted(found, key=lambda operation: operation.call)


def _written(change: Operation) -> State:
    if change.argument is None:
        return None
    registered = read_as(change, change.argument, _Registered, Model.REGISTRY)
    return registered.version, registered.status


def _project(state: State, passing: bool) -> list[Any] | None:
    return None if state is None or (passing and state[1] != PASSING) else list(state)


def _objections(history: RegistryHistory, circumstances: Circumstances) -> Iterator[Objection]:
    for service in sorted(history.answers):
        answers = history.answers[service]
        yield from _strangers(service, answers, history)
        yield from _one_state(service, answers)
        yield from _forward(service, [answer for answer in answers if answer.judged])
    for (_, service), watched in sorted(history.watchers.items()):
        yield from _not_woken(service, watched, _acknowledged(history, service), circumstances)
        yield from _last(service, watched, history)
    for instance, told in sorted(history.told.items()):
        yield from _not_settled(instance, told, history.settled.get(instance))


def _strangers(service: str, answers: list[Answer], history: RegistryHistory) -> Iterator[Objection]:
    for answer in answers:
        for instance in answer.shown.instances:
            if instance not in history.changes and instance not in history.told:
                yield Objection(ANSWERS, f"{instance} was never registered", service, (answer.by,))


def _one_state(service: str, answers: list[Answer]) -> Iterator[Objection]:
    states: dict[tuple[bool, int], Answer] = {}
    for answer in answers:
        first = states.setdefault((answer.asked.passing, answer.shown.index), answer)
        if first.shown.instances != answer.shown.instances:
            reason = f"two states of {service} have the index {answer.shown.index}"
            yield Objection(ONE_STATE, reason, service, (first.by, answer.by))


def _forward(service: str, answers: list[Answer]) -> Iterator[Objection]:
    for (newer, first), (older, then) in going_back([(answer.shown.index, answer.by) for answer in answers]):
        yield Objection(FORWARD, f"the index of {service} was {newer}, and then {older}", service, (first, then))
    for answer in answers:
        if answer.shown.index < answer.shown.given:
            reason = f"a blocking query with index {answer.shown.given} was answered with {answer.shown.index}"
            yield Objection(FORWARD, reason, service, (answer.by,))


def _acknowledged(history: RegistryHistory, service: str) -> list[Operation]:
    """The acknowledged changes of a service, in order of invocation."""
    changes = [each for instance, all_ in history.changes.items() if service_of(instance) == service for each in all_]
    return sorted((change for change in changes if change.outcome is Outcome.OK), key=lambda change: change.call_ns)


def _not_woken(
    service: str, watched: Sequence[Answer], changes: Sequence[Operation], circumstances: Circumstances
) -> Iterator[Objection]:
    calls_ns = [change.call_ns for change in changes]
    sources: dict[int, Answer] = {}  # index -> the first answer that gave it to this watcher
    for answer in watched:
        source = sources.get(answer.shown.given)
        sources.setdefault(answer.shown.index, answer)
        if source is None or not answer.timed_out:
            continue
        if not circumstances.calm_at(answer.by.process, answer.by.call_ns, answer.by.ret_ns):
            continue
        due_ns = answer.by.call_ns + answer.shown.wait_ms * 1_000_000
        for change in changes[bisect.bisect_right(calls_ns, source.by.ret_ns) : bisect.bisect_left(calls_ns, due_ns)]:
            # What was gone before it was deregistered was no change; if it was there then, somebody has changed it.
            certain = change.argument is not None or change.key in source.shown.instances
            if certain and change.ret_ns + WAKE_MARGIN_NS < due_ns:
                reason = f"missed a change: {change.f} of {change.key} was asked for after index {answer.shown.given} "
                reason += f"was known, and acknowledged {(due_ns - change.ret_ns) / 1e9:.3f} s before the time-out"
                yield Objection(WOKEN, reason, service, (source.by, change, answer.by))
                break


def _last(service: str, watched: Sequence[Answer], history: RegistryHistory) -> Iterator[Objection]:
    """The last answer of a watcher against the last consistent answers, which nothing was invoked before, or since."""
    last = max(watched, key=lambda answer: answer.by.call)
    finals = [a for a in history.answers[service] if a.by.f == "read" and a.judged and not a.asked.passing]
    final = max(finals, key=lambda answer: answer.by.call, default=None)
    if final is None or final.by.call < last.by.ret:
        return
    for instance, changes in history.changes.items():
        if service_of(instance) != service:
            continue
        mine = _project(last.shown.instances.get(instance), last.asked.passing)
        right = _project(final.shown.instances.get(instance), last.asked.passing)
        since = [change for change in changes if change.ret > last.by.call]  # or may have happened since
        if mine != right and right not in [_project(_written(change), last.asked.passing) for change in since]:
            reason = f"{instance}: the watcher's last answer shows {mine}, everybody else sees {right}"
            yield Objection(LAST, reason, service, (last.by, final.by))


def _not_settled(instance: str, told: list[Operation], settled: Operation | None) -> Iterator[Objection]:
    """The user of an agent is one thread: what was acknowledged last is so, or what may have come later."""
    certain = [operation for operation in told if operation.outcome is Outcome.OK]
    if settled is None or not certain:
        return
    state: State = None
    for operation in certain:
        state = _after(state, operation)
    shown: State = msgspec.convert(settled.answer, tuple[int, str] | None)
    unknown = [operation for operation in told if operation.outcome is Outcome.INFO and operation.f != "agent-check"]
    versions = [None if each is None else each[0] for each in (state, *map(_written, unknown))]
    version = None if shown is None else shown[0]
    # A restarted agent takes its TTL checks for critical: their status counts if it was the last thing that was told.
    status_is_known = state is not None and len(certain) == len(told) and certain[-1].f == "agent-check"
    if version not in versions or (status_is_known and shown != state):
        reason = f"{instance}: its agent was told {state}, the catalog shows {shown}"
        yield Objection(CONVERGES, reason, instance, (certain[-1], settled))


def _after(state: State, told: Operation) -> State:
    if told.f == "agent-check":
        return None if state is None else (state[0], str(told.argument))
    return _written(told)
