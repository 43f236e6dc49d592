"""A client's request on its way to the leader, and back: local steps of agents on call channels.

A request arrives at any agent: a client agent, a follower, the leader. It is held while no leader is known, forwarded
over a connection, retried where that is safe, and ends in one answer: ACKNOWLEDGED, REFUSED (it never happened and
never will) or UNKNOWN. What this module must not do: decide who leads. Leadership is a *belief* that each server may
hold, lose or get wrong at any time.

*Call channels* are TCP connections. A connection has an epoch; a call is consumed at most once and only in its epoch;
the connection may be lost at either end at any point, and the two ends may learn of it at different times. (On a
duplicating channel "applied at most once" is false: there is a mutant for it.)

*The replicated register* is abstract: a sequence of committed entries that only grows. Forwarding relies on four
promises of it, which Raft keeps (`spec/raft`, proved in `model_checks/proofs`):

1. whoever believes that it leads may append, and each entry is committed once, or never, whatever its appender
   believes by then;
2. a server applies the committed entries in their order (State Machine Safety);
3. a read that begins takes a read index; if it is ever confirmed, that index covers all that was committed when it
   began (Read Linearizability);
4. who holds a lease reads with an index that covers all that is committed now, as long as clocks drift within their
   bound, and nobody forges the end of a process.

*What reads are promised.* `stale`: the state after some prefix of what was committed, at any server. `consistent`:
that, and linearizability. `default`: as `consistent` as long as promise 4 holds, and a prefix if it does not.
Stated in `forwarding_properties`.

Sources: Consul's documentation of `rpc_hold_timeout`, of its consistency modes, and its forwarding rule: "No cluster
leader" is always safe to retry since no state could have changed; a lost stream is retried for reads only.
*Deviations:* (1) a request that a server forwarded is not forwarded again: the receiver refuses if it does not lead, so
beliefs that point in a circle do not make a request travel in it; (2) a call that was definitely not sent (the
connection could not be opened) is retried for writes too; (3) Consul answers `default` reads on belief alone, which
may miss what was acknowledged: a mutant shows both windows.
"""

from __future__ import annotations

from enum import StrEnum
from typing import assert_never

import msgspec
from msgspec.structs import replace

AgentName = str
Entry = int
"""An entry of the replicated register."""


class Mode(StrEnum):
    """What a read asks for."""

    STALE = "stale"
    DEFAULT = "default"
    CONSISTENT = "consistent"


class Request(msgspec.Struct, frozen=True, order=True, cache_hash=True):
    """What a client wants: `writes` if it changes the state; a read has a mode."""

    id: str
    writes: bool
    mode: Mode = Mode.DEFAULT


class Answer(StrEnum):
    """How a request ends, for a client and for the caller of a call."""

    ACKNOWLEDGED = "acknowledged"
    """A write: applied. A read: answered."""
    REFUSED = "refused"
    """Not applied, and never will be ("No cluster leader"): always safe to retry."""
    UNKNOWN = "unknown"
    """Nobody here knows: the connection was lost, the time is over, leadership was lost while committing."""


class Call(msgspec.Struct, frozen=True, cache_hash=True):
    """A request sent over the connection `caller` -> `callee` in its `epoch`; `number` is unique at the caller."""

    caller: AgentName
    callee: AgentName
    epoch: int
    number: int
    request: Request
    by_server: bool
    """Whether a server sent it: then the callee must lead or refuse."""
    path: tuple[AgentName, ...]
    """History variable: the agents that the request passed, the caller last."""


class Reply(msgspec.Struct, frozen=True, cache_hash=True):
    """The callee's answer to a call, on the same connection and in the same epoch."""

    call: Call
    answer: Answer
    seen: tuple[Entry, ...] = ()


class Answered(msgspec.Struct, frozen=True, cache_hash=True):
    """What a client is told; a read that is acknowledged, with the entries whose effects it saw, in their order."""

    request: Request
    answer: Answer
    seen: tuple[Entry, ...] = ()


class Held(msgspec.Struct, frozen=True, tag=True, cache_hash=True):
    """Waiting here: nothing was sent that could still be applied."""


class Dialling(msgspec.Struct, frozen=True, tag=True, cache_hash=True):
    """Waiting for a connection to `to`: definitely not sent."""

    to: AgentName


class Calling(msgspec.Struct, frozen=True, tag=True, cache_hash=True):
    """Sent, and no reply yet."""

    call: Call


class Appended(msgspec.Struct, frozen=True, tag=True, cache_hash=True):
    """This server believed that it leads and appended `entry` to the replicated register."""

    entry: Entry


class Confirming(msgspec.Struct, frozen=True, tag=True, cache_hash=True):
    """A read began here, with this read index (how many entries it must see), and waits to be confirmed."""

    index: int


class Confirmed(msgspec.Struct, frozen=True, tag=True, cache_hash=True):
    """The read's index is confirmed: once this server has applied so many entries, it may answer."""

    index: int


Phase = Held | Dialling | Calling | Appended | Confirming | Confirmed


class Task(msgspec.Struct, frozen=True, cache_hash=True):
    """A request that an agent is busy with; `source` is the call that brought it, None if a client did."""

    request: Request
    source: Call | None
    phase: Phase


class Agent(msgspec.Struct, frozen=True, cache_hash=True):
    """One agent, volatile altogether. (What a restart finds on its disk is the register's matter: here it finds
    nothing, and applies everything again.)
    """

    server: bool
    leader: AgentName | None = None
    """Server: who leads, in this server's belief; itself, another, or None."""
    tasks: tuple[Task, ...] = ()
    """In order of arrival."""
    calls: int = 0
    """Calls made so far, over all incarnations (their identity)."""
    applied: tuple[Entry, ...] = ()
    """Server: what its state machine has applied, in order."""


class Outcome(msgspec.Struct, frozen=True, cache_hash=True):
    """What a local step yields: the next agent, what it sent, what it appended, what it told its clients."""

    agent: Agent
    calls: tuple[Call, ...] = ()
    replies: tuple[Reply, ...] = ()
    appended: tuple[Request, ...] = ()
    answers: tuple[Answered, ...] = ()


# ----------------------------------------------------------------------------------------------- a request arrives


def accept(agent: Agent, request: Request) -> Outcome:
    """A client asks this agent."""
    return Outcome(replace(agent, tasks=(*agent.tasks, Task(request, None, Held()))))


def handle_call(agent: Agent, call: Call) -> Outcome | None:
    """Another agent's call arrives. Only servers listen."""
    if not agent.server:
        return None
    return Outcome(replace(agent, tasks=(*agent.tasks, Task(call.request, call, Held()))))


# ------------------------------------------------------------------------ it is served here, refused here, or sent on


def append(i: AgentName, agent: Agent, task: Task, entry: Entry) -> Outcome | None:
    """A server that believes that it leads appends a write; `entry` is the register's name for it. It is not committed
    yet.
    """
    if agent.leader != i or not task.request.writes or task.phase != Held():
        return None
    return Outcome(with_phase(agent, task, Appended(entry)), appended=(task.request,))


def begin_read(i: AgentName, agent: Agent, task: Task, index: int) -> Outcome | None:
    """A server that believes that it leads takes the register's read index for a `default` or `consistent` read."""
    if agent.leader != i or task.request.writes or task.request.mode is Mode.STALE or task.phase != Held():
        return None
    return Outcome(with_phase(agent, task, Confirming(index)))


def confirm_read(agent: Agent, task: Task) -> Outcome | None:
    """The register confirms the read's index. It may never do so."""
    if not isinstance(task.phase, Confirming):
        return None
    return Outcome(with_phase(agent, task, Confirmed(task.phase.index)))


def lease_read(i: AgentName, agent: Agent, task: Task, index: int) -> Outcome | None:
    """A `default` read at a server that holds the lease needs no confirmation."""
    if agent.leader != i or task.request.writes or task.request.mode is not Mode.DEFAULT or task.phase != Held():
        return None
    return Outcome(with_phase(agent, task, Confirmed(index)))


def answer_read(agent: Agent, task: Task) -> Outcome | None:
    """A confirmed read is answered once its index is applied, whatever this server believes by then."""
    if not isinstance(task.phase, Confirmed) or len(agent.applied) < task.phase.index:
        return None
    return finish(agent, task, Answer.ACKNOWLEDGED, agent.applied)


def stale_read(agent: Agent, task: Task) -> Outcome | None:
    """Any server answers a `stale` read from what it has applied."""
    if not agent.server or task.request.writes or task.request.mode is not Mode.STALE or task.phase != Held():
        return None
    return finish(agent, task, Answer.ACKNOWLEDGED, agent.applied)


def refuse_forwarded(i: AgentName, agent: Agent, task: Task) -> Outcome | None:
    """The loop guard: a request that a server sent here, because it believed that this server leads, is refused if it
    does not.
    """
    if task.source is None or not task.source.by_server or agent.leader == i or task.phase != Held():
        return None
    return finish(agent, task, Answer.REFUSED)


def dial(i: AgentName, agent: Agent, task: Task, to: AgentName) -> Outcome | None:
    """Choose where to send a held request: a client agent any server, a server the leader that it believes in."""
    if task.phase != Held() or to == i or (agent.server and not may_forward(agent, task, to)):
        return None
    return Outcome(with_phase(agent, task, Dialling(to)))


def may_forward(agent: Agent, task: Task, to: AgentName) -> bool:
    """A server sends a request on to the leader that it believes in, unless a server sent it here."""
    return to == agent.leader and (task.source is None or not task.source.by_server)


def send_call(i: AgentName, agent: Agent, task: Task, epoch: int) -> Outcome | None:
    """The connection is there: the call leaves. From here on the request may be applied."""
    if not isinstance(task.phase, Dialling):
        return None
    path = (*(task.source.path if task.source else ()), i)
    call = Call(i, task.phase.to, epoch, agent.calls + 1, task.request, agent.server, path)
    return Outcome(with_phase(replace(agent, calls=call.number), task, Calling(call)), calls=(call,))


def dial_failed(agent: Agent, task: Task) -> Outcome | None:
    """No connection: definitely not sent, so reads and writes are held again."""
    return Outcome(with_phase(agent, task, Held())) if isinstance(task.phase, Dialling) else None


# ---------------------------------------------------------------------------------------------------------- it ends


def handle_reply(agent: Agent, reply: Reply) -> Outcome | None:
    """A refusal is retried until the hold is over, anything else is passed on. A reply that comes too late is
    dropped.
    """
    task = next((task for task in agent.tasks if task.phase == Calling(reply.call)), None)
    if task is None:
        return None
    if reply.answer == Answer.REFUSED:
        return Outcome(with_phase(agent, task, Held()))
    return finish(agent, task, reply.answer, reply.seen)


def connection_lost(agent: Agent, peer: AgentName, epoch: int) -> Outcome:
    """The caller learns that its connection to `peer` is lost: every call that waits on it ends without a reply."""
    outcome = Outcome(agent)
    for task in agent.tasks:
        if isinstance(task.phase, Calling) and (task.phase.call.callee, task.phase.call.epoch) == (peer, epoch):
            ended = after_lost_call(outcome.agent, task)
            outcome = replace(ended, replies=outcome.replies + ended.replies, answers=outcome.answers + ended.answers)
    return outcome


def after_lost_call(agent: Agent, task: Task) -> Outcome:
    """A read is held and retried; a write may have been applied, or may be yet, so it is not."""
    if task.request.writes:
        return finish(agent, task, Answer.UNKNOWN)
    return Outcome(with_phase(agent, task, Held()))


def hold_timeout(agent: Agent, task: Task) -> Outcome:
    """`rpc_hold_timeout` is over: a definite refusal only if nothing is under way that may still be applied."""
    may_be_applied = task.request.writes and isinstance(task.phase, Calling | Appended)
    return finish(agent, task, Answer.UNKNOWN if may_be_applied else Answer.REFUSED)


def apply_entry(agent: Agent, entry: Entry) -> Outcome:
    """The server applies the next committed entry; if it appended that entry for a client, the write is
    acknowledged.
    """
    applied = replace(agent, applied=(*agent.applied, entry))
    task = next((task for task in agent.tasks if task.phase == Appended(entry)), None)
    return Outcome(applied) if task is None else finish(applied, task, Answer.ACKNOWLEDGED)


def leadership_lost(agent: Agent, task: Task) -> Outcome | None:
    """The server stops believing that it leads. A later leader may still commit what it appended, or overwrite it; a
    read that was not confirmed is held again.
    """
    match task.phase:
        case Appended():
            return finish(agent, task, Answer.UNKNOWN)
        case Confirming():
            return Outcome(with_phase(agent, task, Held()))
        case Held() | Dialling() | Calling() | Confirmed():
            return None
        case _:
            assert_never(task.phase)


def believe(agent: Agent, leader: AgentName | None) -> Outcome | None:
    """Raft tells this server who leads; it may be wrong, late, or nobody."""
    return None if not agent.server or agent.leader == leader else Outcome(replace(agent, leader=leader))


def crash_restart(agent: Agent) -> Outcome:
    """Everything is forgotten. Clients whose requests were here see their connection close: unknown to them."""
    answers = tuple(Answered(task.request, Answer.UNKNOWN) for task in agent.tasks if task.source is None)
    return Outcome(replace(agent, leader=None, tasks=(), applied=()), answers=answers)


def finish(agent: Agent, task: Task, answer: Answer, seen: tuple[Entry, ...] = ()) -> Outcome:
    """Answer whoever brought the request, and forget it."""
    rest = replace(agent, tasks=tuple(other for other in agent.tasks if other != task))
    if task.source is None:
        return Outcome(rest, answers=(Answered(task.request, answer, seen),))
    return Outcome(rest, replies=(Reply(task.source, answer, seen),))


def with_phase(agent: Agent, task: Task, phase: Phase) -> Agent:
    """The agent with `task` in another phase, at the same place."""
    return replace(agent, tasks=tuple(replace(t, phase=phase) if t == task else t for t in agent.tasks))
