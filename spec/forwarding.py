"""A client's request on its way to the leader: local steps of agents on call channels.

A request arrives at any agent: a client agent, a follower, the leader. It is held while no leader is known, forwarded
over a connection, retried where that is safe, and ends in one answer: ACKNOWLEDGED, REFUSED (it never happened and
never will) or UNKNOWN. What this module must not do: decide who leads. Leadership is a *belief* that each server may
hold, lose or get wrong at any time, and the replicated log is an abstract register: whoever believes that it leads
may append, and each appended entry is applied once, or never, whatever its appender believes by then.

*Call channels* are TCP connections. A connection has an epoch; a call is consumed at most once and only in its epoch;
the connection may be lost at either end at any point, and the two ends may learn of it at different times. (On a
duplicating channel "applied at most once" is false: there is a mutant for it.)

Sources: Consul's documentation of `rpc_hold_timeout` and its forwarding rule: "No cluster leader" is always safe to
retry since no state could have changed; a lost stream is retried for reads only. *Deviations:* (1) a request that a
server forwarded is not forwarded again: the receiver refuses if it does not lead, so beliefs that point in a circle
do not make a request travel in it; (2) a call that was definitely not sent (the connection could not be opened) is
retried for writes too.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec
from msgspec.structs import replace

AgentName = str


class Request(msgspec.Struct, frozen=True, order=True, cache_hash=True):
    """What a client wants: `writes` if it changes the state."""

    id: str
    writes: bool


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


class Held(msgspec.Struct, frozen=True, tag=True, cache_hash=True):
    """Waiting here: nothing was sent that could still be applied."""


class Dialling(msgspec.Struct, frozen=True, tag=True, cache_hash=True):
    """Waiting for a connection to `to`: definitely not sent."""

    to: AgentName


class Calling(msgspec.Struct, frozen=True, tag=True, cache_hash=True):
    """Sent, and no reply yet."""

    call: Call


class Appended(msgspec.Struct, frozen=True, tag=True, cache_hash=True):
    """This server believed that it leads and appended `entry` to the replicated log."""

    entry: int


Phase = Held | Dialling | Calling | Appended


class Task(msgspec.Struct, frozen=True, cache_hash=True):
    """A request that an agent is busy with; `source` is the call that brought it, None if a client did."""

    request: Request
    source: Call | None
    phase: Phase


class Agent(msgspec.Struct, frozen=True, cache_hash=True):
    """One agent, volatile altogether."""

    server: bool
    leader: AgentName | None = None
    """Server: who leads, in this server's belief; itself, another, or None."""
    tasks: tuple[Task, ...] = ()
    """In order of arrival."""
    calls: int = 0
    """Calls made so far, over all incarnations (their identity)."""


class Outcome(msgspec.Struct, frozen=True, cache_hash=True):
    """What a local step yields: the next agent, what it sent, what it appended, what it told its clients."""

    agent: Agent
    calls: tuple[Call, ...] = ()
    replies: tuple[Reply, ...] = ()
    appended: tuple[Request, ...] = ()
    answers: tuple[tuple[Request, Answer], ...] = ()


# --- A request arrives
# ---------------------------------------------------------------------------------------------------------------


def accept(agent: Agent, request: Request) -> Outcome:
    """A client asks this agent."""
    return Outcome(replace(agent, tasks=(*agent.tasks, Task(request, None, Held()))))


def handle_call(agent: Agent, call: Call) -> Outcome | None:
    """Another agent's call arrives. Only servers listen."""
    if not agent.server:
        return None
    return Outcome(replace(agent, tasks=(*agent.tasks, Task(call.request, call, Held()))))


# --- It is served here, refused here, or sent on
# -------------------------------------------------------------------------------------


def append(i: AgentName, agent: Agent, task: Task, entry: int) -> Outcome | None:
    """A server that believes that it leads appends a write; `entry` is the log's name for it. It is not yet applied."""
    if agent.leader != i or not task.request.writes or task.phase != Held():
        return None
    return Outcome(with_phase(agent, task, Appended(entry)), appended=(task.request,))


def read(i: AgentName, agent: Agent, task: Task) -> Outcome | None:
    """A server that believes that it leads answers a read. (What it may answer is the matter of spec/raft and
    spec/catalog.)
    """
    if agent.leader != i or task.request.writes or task.phase != Held():
        return None
    return finish(agent, task, Answer.ACKNOWLEDGED)


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


# --- It ends --------------------------------------------------------------------------------------------------------
# -----------------


def handle_reply(agent: Agent, reply: Reply) -> Outcome | None:
    """A refusal is retried until the hold is over, anything else is passed on. A reply that comes too late is
    dropped.
    """
    task = next((task for task in agent.tasks if task.phase == Calling(reply.call)), None)
    if task is None:
        return None
    if reply.answer == Answer.REFUSED:
        return Outcome(with_phase(agent, task, Held()))
    return finish(agent, task, reply.answer)


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


def committed(agent: Agent, entry: int) -> Outcome | None:
    """The log has applied the entry that this server appended."""
    task = next((task for task in agent.tasks if task.phase == Appended(entry)), None)
    return None if task is None else finish(agent, task, Answer.ACKNOWLEDGED)


def leadership_lost(agent: Agent, task: Task) -> Outcome | None:
    """The server stops believing before its entry is applied: a later leader may still commit it, or overwrite it."""
    return finish(agent, task, Answer.UNKNOWN) if isinstance(task.phase, Appended) else None


def believe(agent: Agent, leader: AgentName | None) -> Outcome | None:
    """Raft tells this server who leads; it may be wrong, late, or nobody."""
    return None if not agent.server or agent.leader == leader else Outcome(replace(agent, leader=leader))


def crash_restart(agent: Agent) -> Outcome:
    """Everything is forgotten. Clients whose requests were here see their connection close: unknown to them."""
    answers = tuple((task.request, Answer.UNKNOWN) for task in agent.tasks if task.source is None)
    return Outcome(replace(agent, leader=None, tasks=()), answers=answers)


def finish(agent: Agent, task: Task, answer: Answer) -> Outcome:
    """Answer whoever brought the request, and forget it."""
    rest = replace(agent, tasks=tuple(other for other in agent.tasks if other != task))
    if task.source is None:
        return Outcome(rest, answers=((task.request, answer),))
    return Outcome(rest, replies=(Reply(task.source, answer),))


def with_phase(agent: Agent, task: Task, phase: Phase) -> Agent:
    """The agent with `task` in another phase, at the same place."""
    return replace(agent, tasks=tuple(replace(t, phase=phase) if t == task else t for t in agent.tasks))


# --- Properties: over the answers that clients got and the entries that were applied
# -------------------------------------------------


class Observed(msgspec.Struct, frozen=True, cache_hash=True):
    """What properties may speak of: answers given to clients, requests applied (once for each entry), and for each
    call sent its path, callee included.
    """

    answers: tuple[tuple[Request, Answer], ...]
    applied: tuple[Request, ...]
    paths: tuple[tuple[AgentName, ...], ...]


def applied_at_most_once(seen: Observed) -> bool:
    """Forwarding and its retries never apply a write twice."""
    return len(set(seen.applied)) == len(seen.applied)


def acknowledged_means_applied(seen: Observed) -> bool:
    """A write whose client was told that it happened has been applied."""
    return all(request in seen.applied for request, answer in seen.answers if ack_of_write(request, answer))


def refused_means_never_applied(seen: Observed) -> bool:
    """A write whose client was told that it did not happen is never applied, now or later."""
    return not any(request in seen.applied for request, answer in seen.answers if answer == Answer.REFUSED)


def answered_at_most_once(seen: Observed) -> bool:
    """A client gets one answer."""
    return len({request for request, _ in seen.answers}) == len(seen.answers)


def sent_on_at_most_twice(seen: Observed) -> bool:
    """From a client agent to a server and from that to the leader: no longer path, no agent twice."""
    return all(len(path) <= 3 and len(set(path)) == len(path) for path in seen.paths)


def ack_of_write(request: Request, answer: Answer) -> bool:
    """Whether this answer promises that a write was applied."""
    return request.writes and answer == Answer.ACKNOWLEDGED


PROPERTIES = (
    applied_at_most_once,
    acknowledged_means_applied,
    refused_means_never_applied,
    answered_at_most_once,
    sent_on_at_most_twice,
)
