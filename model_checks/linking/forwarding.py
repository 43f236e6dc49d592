"""Links forwarding: every step of the readable composition is a step of the relational model, several, or a stutter.

The readable spec (`spec/forwarding.py`) is explored in a composition (`explore/forwarding_world.py`) of agents,
connections, calls in flight and a register. A state of it, projected, shows all that the model's guards read: who
believes what, where each call stands, what is committed and applied. A step is linked if

1. some steps of the model, claimed by the step's name, are enabled one after the other, evaluated concretely;
2. after them the model says of every call that is somewhere, of every answer that is under way or given, of the
   register and of beliefs what the projection of the next state says.

History that no guard reads (`token`, `proof`, ...) is not projected. What the composition forgets (a call that was
lost, an answer that nobody waits for) the model remembers: there the model may do more.

Must not: trust what is claimed; restrict the composition.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from model_checks.explore.forwarding import CONSISTENT, DEFAULT, STALE, WRITE
from model_checks.explore.forwarding_world import Bounds, World, initial_world, steps
from model_checks.linking.concrete import Do, Rejected, TwoValued
from model_checks.proofs.algebra import Patterns, Sort, Symbols, Value
from model_checks.proofs.forwarding_lemmas import FORWARDING
from model_checks.proofs.forwarding_signature import ANSWERS, PHASES
from model_checks.verdicts import CheckResult, Verdict
from spec.forwarding import (
    AgentName,
    Answer,
    Appended,
    Call,
    Calling,
    Confirmed,
    Confirming,
    Dialling,
    Held,
    Mode,
    Phase,
    Request,
    Task,
)

CHECKER: Final = "link/forwarding"

AT_ONE_SERVER: Final = ("a",)
WRITES: Final = Bounds(requests=(WRITE,), calls=2, crashes=0, entrances=("c",))
CRASHES: Final = Bounds(requests=(WRITE,), calls=1, crashes=1, entrances=AT_ONE_SERVER, clients=())
READS: Final = Bounds(requests=(CONSISTENT,), calls=1, crashes=0, others=1, entrances=AT_ONE_SERVER, clients=())
STALE_READS: Final = Bounds(requests=(STALE,), calls=0, crashes=0, others=1, entrances=AT_ONE_SERVER, clients=())
DEFAULT_READS: Final = Bounds(requests=(DEFAULT,), calls=0, crashes=0, others=1, entrances=AT_ONE_SERVER, clients=())
LEGS: Final = (WRITES, CRASHES, READS, STALE_READS, DEFAULT_READS)
"""Compositions that together use every action of the model; each is explored to its end."""

ELSEWHERE: Final = "(elsewhere)"
"""Where the writes of other clients come from: an agent that believes that it leads."""
NOBODY: Final = "(nobody)"
"""The agent of the call that led to a client's request: there is none."""


@dataclass(frozen=True, slots=True)
class Entrance:
    """A client's request at the agent that it asked: a call of the model that no call led to."""

    request: Request


Element = Call | Entrance
"""A call of the model."""

Row = tuple[Any, ...]
"""A symbol and its arguments."""


class Unread:
    """History: it may be carried along and not looked at."""

    def _refuse(self, other: object) -> bool:
        raise Rejected("a guard reads history that the composition does not show")

    __eq__ = __ne__ = __le__ = __lt__ = _refuse
    __hash__ = object.__hash__


UNREAD: Final = Unread()


class ForwardingAlgebra(TwoValued):
    """The algebra over Python values; every truth is known, and no guard of forwarding has a quantifier."""

    def __init__(self, rigid: Symbols) -> None:
        self.rigid = rigid

    def forall(self, sorts: Sequence[Sort], body: Callable[..., Value], patterns: Patterns | None = None) -> Value:
        raise Rejected("a guard has a quantifier")


# --------------------------------------------------------------------------------------------------------- projection


def names(bounds: Bounds) -> tuple[AgentName, ...]:
    """The agents, in the order in which a world holds them."""
    return bounds.servers + bounds.clients


def element(task: Task) -> Element:
    """The call of the model that a task is."""
    return Entrance(task.request) if task.source is None else task.source


def tasks(world: World) -> Iterator[tuple[Element, Task]]:
    """Everything that agents are busy with."""
    for agent in world.agents:
        yield from ((element(task), task) for task in agent.tasks)


PHASE_NAMES: Final[Mapping[type[Phase], str]] = {
    Held: "held",
    Dialling: "dialling",
    Calling: "calling",
    Appended: "appended",
    Confirming: "confirming",
    Confirmed: "confirmed",
}


def phase_rows(c: Element, phase: Phase) -> Iterator[tuple[Row, Any]]:
    """Where a call stands, and with what."""
    yield from (((name, c), name == PHASE_NAMES[type(phase)]) for name in PHASES)
    match phase:
        case Dialling(to=to):
            yield ("target", c), to
        case Calling(call=call):
            yield ("callee", c), call
        case Appended(entry=entry):
            yield ("own_entry", c), entry
        case Confirming(index=index):
            yield from ((("read_index", c), index), (("read_floor", c), index))
        case Confirmed(index=index):
            yield ("read_index", c), index


def answer_rows(c: Element, answer: Answer, seen: int) -> Iterator[tuple[Row, Any]]:
    """A call that is answered is nowhere else."""
    yield from (((name, c), False) for name in PHASES)
    yield from (((name, c), name == answer.value) for name in ANSWERS)
    if answer is Answer.ACKNOWLEDGED and not c.request.writes:
        yield ("seen", c), seen


def rows(bounds: Bounds, world: World) -> dict[Row, Any]:
    """What a state of the composition says of the model's symbols."""
    found: dict[Row, Any] = {}
    for call in world.calls:
        found |= {("made", call): True, ("arrived", call): False}
    for c, task in tasks(world):
        found |= {("made", c): True, ("arrived", c): True, **dict(phase_rows(c, task.phase))}
    for reply in world.replies:
        found |= {("made", reply.call): True, ("arrived", reply.call): True}
        found |= dict(answer_rows(reply.call, reply.answer, len(reply.seen)))
    for told in world.answers:
        found |= dict(answer_rows(Entrance(told.request), told.answer, len(told.seen)))
    found |= {("asked", request): True for request, _ in world.asked}
    for number, request in enumerate(world.log, start=1):
        found |= {("entry", number): True, ("carried", number): request}
    for position, entry in enumerate(world.committed, start=1):
        found |= {("committed", entry): True, ("position", entry): position}
    found["committed_length",] = len(world.committed)
    for name, agent in zip(names(bounds), world.agents, strict=True):
        found["applied_length", name] = len(agent.applied)
        found |= {("believes", name, other): agent.leader == other for other in names(bounds)}
    return found


def rigid(bounds: Bounds, before: World, after: World) -> Symbols:
    """What calls and requests are. Who made a call, and whom a client asked, is seen while somebody is busy with it."""
    busy = [(c, task) for world in (before, after) for c, task in tasks(world)]
    makers = {task.phase.call: c for c, task in busy if isinstance(task.phase, Calling)}
    asked = {
        task.request: name
        for world in (before, after)
        for name, agent in zip(names(bounds), world.agents, strict=True)
        for task in agent.tasks
        if task.source is None
    }

    def agent(c: Element | AgentName) -> AgentName:
        match c:
            case str():
                return c
            case Entrance(request=request):
                return asked.get(request, ELSEWHERE)
            case Call(callee=callee):
                return callee

    def made_by(c: Element) -> Element | AgentName:
        """The call that led to this one; if nobody waits for it any more, its agent stands for it."""
        return NOBODY if isinstance(c, Entrance) else makers.get(c, c.caller)

    return Symbols(
        {
            "server": lambda n: n in bounds.servers or n == ELSEWHERE,
            "writes": lambda q: q.writes,
            "stale": lambda q: not q.writes and q.mode is Mode.STALE,
            "consistent": lambda q: not q.writes and q.mode is Mode.CONSISTENT,
            "request": lambda c: c.request,
            "agent": agent,
            "from_client": lambda c: isinstance(c, Entrance),
            "made_by": made_by,
            "leases_hold": lambda: bounds.leases_hold,
        }
    )


def symbols(known: Mapping[Row, Any]) -> Symbols:
    """The model's state as far as a state of the composition shows it: relations are false where nothing is said."""

    def reads(name: str, default: Any) -> Callable[..., Any]:
        return lambda *arguments: known.get((name, *arguments), default)

    truths = {name for name, arity in FORWARDING.signature.items() if arity.result is Sort.BOOL}
    read = {name: reads(name, False if name in truths else UNREAD) for name in FORWARDING.signature}
    read["believes"] = lambda n, x: n == x if n == ELSEWHERE else known.get(("believes", n, x), False)
    read["applied_length"] = lambda n: known.get(("applied_length", n), 0)
    return Symbols(read)


# ----------------------------------------------------------------------------------------------------- claimed steps


def claimed(bounds: Bounds, label: str, before: World, after: World) -> Iterator[tuple[Do, ...]]:
    """What a step may be in the model, by its name: alternatives, each a sequence of the model's steps."""
    name, _, rest = label.rstrip(")").partition("(")
    words = [word.strip() for word in rest.split(",")]
    match name:
        case "handle_call":
            yield from ((Do("handle_call", (call,)),) for call in sorted(before.calls - after.calls, key=number))
        case "handle_reply":
            yield from replied(before)
            yield ()
        case "connection_lost_at_caller":
            yield tuple(Do("connection_lost", (c,)) for c in ended(before, after))
        case "connection_lost_at_callee":
            yield ()
        case "commit":
            yield (Do("commit", (int(words[0]), len(after.committed))),)
        case "commit_of_another_client":
            yield another_clients(after)
        case "believe":
            leader = words[1]
            yield (Do("doubt", (words[0],)) if leader == "None" else Do("believe", (words[0], leader)),)
        case "crash_restart":
            yield (Do("crash", (words[0],)),)
        case "accept":
            request = after.asked[-1][0]
            yield (Do("accept", (Entrance(request),)),)
        case "apply_entry":
            yield from applied(bounds, before, words[0])
        case _:
            yield from of_task(bounds, name, words, before, after)


def number(call: Call) -> tuple[AgentName, int]:
    """A call's identity."""
    return call.caller, call.number


def replied(before: World) -> Iterator[tuple[Do, ...]]:
    """A call that is waited for was answered."""
    answered = {reply.call: reply.answer for reply in before.replies}
    for c, task in tasks(before):
        if isinstance(task.phase, Calling) and task.phase.call in answered:
            refused = answered[task.phase.call] is Answer.REFUSED
            yield (Do("handle_refusal" if refused else "handle_reply", (c,)),)


def ended(before: World, after: World) -> Iterator[Element]:
    """The calls that wait no more."""
    still = {c for c, task in tasks(after) if isinstance(task.phase, Calling)}
    yield from (c for c, task in tasks(before) if isinstance(task.phase, Calling) and c not in still)


def another_clients(after: World) -> tuple[Do, ...]:
    """A client elsewhere asks, and its write is appended and committed."""
    entry = after.committed[-1]
    c = Entrance(after.log[entry - 1])
    return Do("accept", (c,)), Do("append", (c, entry)), Do("commit", (entry, len(after.committed)))


def applied(bounds: Bounds, before: World, name: AgentName) -> Iterator[tuple[Do, ...]]:
    """An entry is applied; who appended it here is acknowledged."""
    place = names(bounds).index(name)
    length = len(before.agents[place].applied) + 1
    waiting = [
        Do("acknowledge", (element(task),))
        for task in before.agents[place].tasks
        if task.phase == Appended(before.committed[length - 1])
    ]
    yield (Do("apply", (name, length)), *waiting)


def of_task(bounds: Bounds, name: str, words: Sequence[str], before: World, after: World) -> Iterator[tuple[Do, ...]]:
    """A step of an agent with one of its tasks for a request: whichever it is."""
    place = names(bounds).index(words[0])
    for task in before.agents[place].tasks:
        c = element(task)
        match name:
            case "append":
                yield (Do(name, (c, len(after.log))),)
            case "begin_read" | "lease_read":
                yield (Do(name, (c, int(words[2]))),)
            case "dial":
                yield (Do(name, (c, words[2])),)
            case "send_call":
                yield from ((Do(name, (c, call)),) for call in sorted(after.calls - before.calls, key=number))
            case _:
                yield (Do(name, (c,)),)


# ------------------------------------------------------------------------------------------------------------- the link


def link(bounds: Bounds, label: str, before: World, after: World) -> tuple[Do, ...]:
    """The model's steps that a step of the composition is. Raises Rejected."""
    known, expected = rows(bounds, before), rows(bounds, after)
    algebra = ForwardingAlgebra(rigid(bounds, before, after))
    reasons = []
    for alternative in claimed(bounds, label, before, after):
        try:
            state = taken(algebra, symbols(known), alternative)
            compare(algebra, state, known, expected)
        except Rejected as error:
            reasons.append(f"{' '.join(do.action for do in alternative) or 'a stutter'}: {error}")
        else:
            return alternative
    raise Rejected(f"{label} is no step of the model: {'; '.join(reasons) or 'none is claimed'}")


def taken(algebra: ForwardingAlgebra, state: Symbols, claim: Iterable[Do]) -> Symbols:
    """The model's state after the claimed steps. Raises Rejected if a guard is false."""
    for do in claim:
        transition = FORWARDING.action(do.action).rule(algebra, state, *do.arguments)
        if not transition.guard:
            raise Rejected(f"the guard of {do.action} is false")
        state = state.updated(transition.updates)
    return state


def compare(algebra: ForwardingAlgebra, state: Symbols, known: Mapping[Row, Any], expected: Mapping[Row, Any]) -> None:
    """Compare the model's state with the projection of the next one. Raises Rejected with the first difference."""
    ended = {row: False for row in known if row[0] in PHASES and row not in expected}
    for row, value in {**expected, **ended}.items():
        name, *arguments = row
        if name == "carried":
            found = value if row in known else algebra.rigid.request(state.appender(*arguments))
        else:
            found = getattr(state, name)(*arguments)
        if isinstance(found, Unread) or found != value:
            raise Rejected(f"{name}({', '.join(map(str, arguments))}) is {found} in the model, {value} in the spec")


# ---------------------------------------------------------------------------------------------------------- many steps


def link_forwarding(legs: Iterable[Bounds] = LEGS) -> CheckResult:
    """Explore each composition to its end and link every local step, once: VALID if all are linked, and every action
    of the model is used.
    """
    start = time.perf_counter()
    linked: Counter[str] = Counter()
    stutters: Counter[str] = Counter()
    used: Counter[str] = Counter()
    rejected: list[str] = []
    steps_met = 0
    for bounds in legs:
        met: set[tuple[object, ...]] = set()
        for label, before, after in transitions(bounds):
            steps_met += 1
            if (step := local(label, before, after)) in met:
                continue
            met.add(step)
            try:
                done = link(bounds, label, before, after)
            except Rejected as error:
                rejected.append(str(error))
                break
            action = label.partition("(")[0]
            linked[action] += 1
            stutters[action] += not done
            used.update(do.action for do in done)
    unused = [act.name for act in FORWARDING.actions if not used[act.name]]
    verdict = Verdict.INVALID if rejected else Verdict.UNKNOWN if unused or not linked else Verdict.VALID
    reason = f"no step is {', '.join(unused)} of the model" if unused else "there was no step to link"
    return CheckResult(
        checker=CHECKER,
        verdict=verdict,
        property="linked to the relational model" if rejected else "",
        reason=rejected[0] if rejected else "" if verdict is Verdict.VALID else reason,
        details="\n".join(rejected),
        figures={
            "steps": steps_met,
            "linked": sum(linked.values()),
            "model_steps": sum(used.values()),
            "stutters": sum(stutters.values()),
            "per_second": round(sum(linked.values()) / max(time.perf_counter() - start, 0.001)),
            "by_action": dict(sorted(linked.items())),
            "stutters_by_action": dict(sorted(stutters.items())),
            "by_model_action": {act.name: used[act.name] for act in FORWARDING.actions},
        },
        seconds=round(time.perf_counter() - start, 2),
    )


def local(label: str, before: World, after: World) -> tuple[object, ...]:
    """What a step reads and changes; steps that agree in this differ in what is neither read nor changed."""
    acting = label.partition("(")[2].partition(",")[0]
    agents = [
        (place, old, new)
        for place, (old, new) in enumerate(zip(before.agents, after.agents, strict=True))
        if old != new or any(task.source is not None and task.source.callee == acting for task in old.tasks)
    ]
    calls = (before.calls - after.calls, after.calls - before.calls)
    told = (before.replies, after.replies, before.answers, after.answers, before.asked, after.asked)
    return label, *agents, *calls, *told, before.log, before.committed, after.committed


def transitions(bounds: Bounds) -> Iterator[tuple[str, World, World]]:
    """Every step of the composition, each state visited once."""
    first = initial_world(bounds)
    seen, waiting = {first}, deque([first])
    while waiting:
        before = waiting.popleft()
        for label, after in steps(bounds, before):
            yield label, before, after
            if after not in seen:
                seen.add(after)
                waiting.append(after)
