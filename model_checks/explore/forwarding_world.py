"""The composition that forwarding is explored in: agents, connections, calls in flight, and an abstract replicated
register.

The agents' steps are `spec.forwarding`'s; this module adds what surrounds them: connections with epochs, which may be
lost at either end at any point; calls that are consumed at most once; servers whose belief in a leader changes at any
time to anything; a register whose entries are committed once or never, whatever their appender believes by then, with
the promises that `spec.forwarding` names. It must not restrict them beyond `Bounds`. Writes of other clients, which
reads may or must see, are committed by steps of the register's own: how they got there does not matter to a read.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from msgspec.structs import replace

from spec import forwarding
from spec.forwarding import (
    Agent,
    AgentName,
    Answered,
    Appended,
    Call,
    Calling,
    Confirmed,
    Dialling,
    Entry,
    Held,
    Mode,
    Outcome,
    Reply,
    Request,
)
from spec.forwarding_properties import Observed


class Bounds(msgspec.Struct, frozen=True, cache_hash=True):
    """What is explored exhaustively."""

    servers: tuple[AgentName, ...] = ("a", "b")
    clients: tuple[AgentName, ...] = ("c",)
    requests: tuple[Request, ...] = (Request("w", True),)
    entrances: tuple[AgentName, ...] = ("a", "c")
    """Agents that clients ask (servers are alike: one of them is enough)."""
    calls: int = 3
    """Calls in a run, over all agents: two lead from a client agent to the leader, one is left for a retry."""
    crashes: int = 1
    """Crashes of agents in a run."""
    others: int = 0
    """Writes of other clients that are committed in a run."""
    leases_hold: bool = True
    """Whether the register keeps promise 4 of `spec.forwarding`."""


class Link(msgspec.Struct, frozen=True, cache_hash=True):
    """The newest connection from `caller` to `callee`; epoch 0: there was none. The ends are open or not, each by
    itself.
    """

    caller: AgentName
    callee: AgentName
    epoch: int = 0
    caller_open: bool = False
    callee_open: bool = False


class World(msgspec.Struct, frozen=True, cache_hash=True):
    """One global state. `answers`, the calls in flight, what was asked when, and the register are what properties speak
    of.
    """

    agents: tuple[Agent, ...]
    links: tuple[Link, ...]
    calls: frozenset[Call] = frozenset()
    replies: frozenset[Reply] = frozenset()
    log: tuple[Request, ...] = ()
    """What was appended, by whomever. An entry that is overwritten looks to everybody here like one that is never
    committed.
    """
    committed: tuple[Entry, ...] = ()
    others: int = 0
    """Writes of other clients among the committed ones."""
    answers: tuple[Answered, ...] = ()
    asked: tuple[tuple[Request, int], ...] = ()
    """What clients have asked, and how much was committed then."""
    waiting: tuple[Request, ...] = ()
    """Requests that no client has made yet."""
    crashes: int = 0


ACTIONS = frozenset(
    {
        "accept",
        "believe",
        "handle_call",
        "append",
        "begin_read",
        "confirm_read",
        "lease_read",
        "answer_read",
        "stale_read",
        "refuse_forwarded",
        "dial",
        "send_call",
        "dial_failed",
        "handle_reply",
        "hold_timeout",
        "commit",
        "commit_of_another_client",
        "apply_entry",
        "leadership_lost",
        "connection_lost_at_caller",
        "connection_lost_at_callee",
        "crash_restart",
    }
)
"""Every step's name; one that is never taken makes an exploration vacuous."""

Step = tuple[str, World]
"""A readable label (action, agent, details) and the next state."""


def initial_world(bounds: Bounds) -> World:
    """No connection, no belief, no request made."""
    names = bounds.servers + bounds.clients
    links = tuple(Link(caller, callee) for caller in names for callee in bounds.servers if caller != callee)
    agents = tuple(Agent(name in bounds.servers) for name in names)
    return World(agents, links, waiting=bounds.requests)


def observed(bounds: Bounds, world: World) -> Observed:
    """The world as the properties see it."""
    paths = tuple(sorted((*call.path, call.callee) for call in world.calls))
    return Observed(world.answers, world.log, world.committed, world.asked, paths, bounds.leases_hold)


def steps(bounds: Bounds, world: World) -> Iterator[Step]:
    """Every step that is enabled in `world` within `bounds`, but those that change nothing."""
    for label, after in all_steps(bounds, world):
        tidied = forgetting_idle_links(after)
        if tidied != world:
            yield label, tidied


def all_steps(bounds: Bounds, world: World) -> Iterator[Step]:
    """Every step that is enabled, those that change nothing included."""
    for place, name in enumerate(bounds.servers + bounds.clients):
        yield from own_steps(bounds, world, place, name)
    for call in sorted(world.calls, key=number_of):
        yield from delivery_of_call(bounds, world, call)
    for reply in sorted(world.replies, key=lambda reply: number_of(reply.call)):
        yield from delivery_of_reply(bounds, world, reply)
    yield from register_steps(bounds, world)
    yield from losses(bounds, world)


def own_steps(bounds: Bounds, world: World, place: int, name: AgentName) -> Iterator[Step]:
    """What an agent may do by itself: take a client's request, change its belief, go on with a task, crash."""
    agent = world.agents[place]
    if name in bounds.entrances and world.waiting:
        request, *rest = world.waiting
        after = replace(world, waiting=tuple(rest), asked=(*world.asked, (request, len(world.committed))))
        yield f"accept({name}, {request.id})", happened(after, place, forwarding.accept(agent, request))
    for leader in (None, *bounds.servers):
        yield from taken(world, place, f"believe({name}, {leader})", forwarding.believe(agent, leader))
    for task in agent.tasks:
        yield from task_steps(bounds, world, place, name, task)
    if world.crashes < bounds.crashes and agent != Agent(agent.server, calls=agent.calls):
        yield f"crash_restart({name})", crash(world, place, name)


def task_steps(bounds: Bounds, world: World, place: int, name: AgentName, task: forwarding.Task) -> Iterator[Step]:
    """What an agent may do with one of its tasks."""
    agent, what = world.agents[place], f"{name}, {task.request.id}"
    entry = len(world.log) + 1
    yield from taken(world, place, f"append({what})", forwarding.append(name, agent, task, entry))
    if not task.request.writes:
        yield from read_steps(bounds, world, place, name, task)
    yield from taken(world, place, f"refuse_forwarded({what})", forwarding.refuse_forwarded(name, agent, task))
    yield from taken(world, place, f"dial_failed({what})", forwarding.dial_failed(agent, task))
    yield from taken(world, place, f"leadership_lost({what})", forwarding.leadership_lost(agent, task))
    yield from taken(world, place, f"hold_timeout({what})", forwarding.hold_timeout(agent, task))
    if sum(agent.calls for agent in world.agents) >= bounds.calls:
        return
    for to in bounds.servers:
        yield from taken(world, place, f"dial({what}, {to})", forwarding.dial(name, agent, task, to))
    if isinstance(task.phase, Dialling):
        after, epoch = with_connection(world, name, task.phase.to)
        yield from taken(after, place, f"send_call({what})", forwarding.send_call(name, agent, task, epoch))


def read_steps(bounds: Bounds, world: World, place: int, name: AgentName, task: forwarding.Task) -> Iterator[Step]:
    """How a server may serve a read."""
    agent, what = world.agents[place], f"{name}, {task.request.id}"
    index = read_index(world)
    yield from taken(world, place, f"begin_read({what}, {index})", forwarding.begin_read(name, agent, task, index))
    yield from taken(world, place, f"confirm_read({what})", forwarding.confirm_read(agent, task))
    for index in lease_indexes(bounds, world):
        yield from taken(world, place, f"lease_read({what}, {index})", forwarding.lease_read(name, agent, task, index))
    yield from taken(world, place, f"answer_read({what})", forwarding.answer_read(agent, task))
    yield from taken(world, place, f"stale_read({what})", forwarding.stale_read(agent, task))


def read_index(world: World) -> int:
    """Promise 3. A read that took a lower index is never confirmed, so it need not be told from one that waits for
    ever.
    """
    return len(world.committed)


def lease_indexes(bounds: Bounds, world: World) -> range:
    """Promise 4: all that is committed now; anything, where the promise is not kept."""
    return range(len(world.committed) if bounds.leases_hold else 0, len(world.committed) + 1)


def delivery_of_call(bounds: Bounds, world: World, call: Call) -> Iterator[Step]:
    """The callee's end takes a call, once, if that end is open and still in the call's epoch."""
    if link_of(world, call.caller, call.callee).callee_open:
        place = place_of(bounds, call.callee)
        after = consumed(world, call)
        outcome = forwarding.handle_call(world.agents[place], call)
        yield from taken(after, place, f"handle_call({call.callee}, {call.request.id} from {call.caller})", outcome)


def consumed(world: World, call: Call) -> World:
    """A call channel delivers a call at most once."""
    return replace(world, calls=world.calls - {call})


def delivery_of_reply(bounds: Bounds, world: World, reply: Reply) -> Iterator[Step]:
    """The caller's end takes a reply; one that nobody waits for any more is dropped."""
    call, after = reply.call, replace(world, replies=world.replies - {reply})
    place = place_of(bounds, call.caller)
    outcome = forwarding.handle_reply(world.agents[place], reply) or Outcome(world.agents[place])
    yield f"handle_reply({call.caller}, {call.request.id} {reply.answer})", happened(after, place, outcome)


def register_steps(bounds: Bounds, world: World) -> Iterator[Step]:
    """An entry is committed, a server's or another client's; a server applies the next committed one.

    Servers apply when something waits for it. Nothing is left out by that: nobody sees what a server has applied until
    then, and whatever it might have applied before, it may still apply.
    """
    for entry, request in enumerate(world.log, 1):
        if entry not in world.committed:
            yield f"commit({entry}, {request.id})", replace(world, committed=(*world.committed, entry))
    if world.others < bounds.others:
        yield "commit_of_another_client()", with_another_clients_write(world)
    for place, name in enumerate(bounds.servers):
        agent = world.agents[place]
        if len(agent.applied) < len(world.committed) and any(map(waits_for_state_machine, agent.tasks)):
            entry = world.committed[len(agent.applied)]
            yield f"apply_entry({name}, {entry})", happened(world, place, forwarding.apply_entry(agent, entry))


def waits_for_state_machine(task: forwarding.Task) -> bool:
    """Whether what a server applies may change what becomes of this task."""
    stale = task.phase == Held() and not task.request.writes and task.request.mode is Mode.STALE
    return stale or isinstance(task.phase, Appended | Confirmed)


def with_another_clients_write(world: World) -> World:
    """The world in which another client's write has just been committed."""
    number = world.others + 1
    log = (*world.log, Request(f"other{number}", True))
    return replace(world, log=log, committed=(*world.committed, len(log)), others=number)


def losses(bounds: Bounds, world: World) -> Iterator[Step]:
    """A connection is lost at one end. What was under way *to* that end is gone; the other end learns of it later, or
    never.
    """
    for link in world.links:
        where = f"{link.caller} -> {link.callee}, epoch {link.epoch}"
        if link.caller_open:
            yield f"connection_lost_at_caller({where})", lost_at_caller(bounds, world, link)
        if link.callee_open:
            yield f"connection_lost_at_callee({where})", lost_at_callee(world, link)


def lost_at_caller(bounds: Bounds, world: World, link: Link) -> World:
    """The caller's end closes: replies on their way are gone, and whoever waits for one learns it at once."""
    place = place_of(bounds, link.caller)
    after = with_link(world, replace(link, caller_open=False))
    replies = frozenset(reply for reply in world.replies if not on_link(reply.call, link))
    outcome = forwarding.connection_lost(world.agents[place], link.callee, link.epoch)
    return happened(replace(after, replies=replies), place, outcome)


def lost_at_callee(world: World, link: Link) -> World:
    """The callee's end closes: calls on their way are gone; those that were consumed go on."""
    after = with_link(world, replace(link, callee_open=False))
    return replace(after, calls=frozenset(call for call in world.calls if not on_link(call, link)))


def crash(world: World, place: int, name: AgentName) -> World:
    """The process dies: its ends of all connections close, and what was under way to them is gone."""
    after = replace(world, crashes=world.crashes + 1)
    for link in world.links:
        if link.caller == name and link.caller_open:
            replies = frozenset(reply for reply in after.replies if not on_link(reply.call, link))
            after = with_link(replace(after, replies=replies), replace(link, caller_open=False))
        elif link.callee == name and link.callee_open:
            after = lost_at_callee(after, link)
    return happened(after, place, forwarding.crash_restart(world.agents[place]))


def with_connection(world: World, caller: AgentName, callee: AgentName) -> tuple[World, int]:
    """The world with a connection that is open at the caller, and its epoch. A new epoch begins only if the old one
    is closed there.

    Calls of the old epoch that the callee has not consumed yet are lost at that moment. Nothing is left out by that:
    a call that would be consumed later is covered by one that was consumed earlier and is held at the callee
    meanwhile.
    """
    link = link_of(world, caller, callee)
    if link.caller_open:
        return world, link.epoch
    calls = frozenset(call for call in world.calls if not on_link(call, link))
    return with_link(replace(world, calls=calls), Link(caller, callee, link.epoch + 1, True, True)), link.epoch + 1


def forgetting_idle_links(world: World) -> World:
    """Connections between two agents that nothing refers to any more begin again at epoch 0: losing one changes
    nothing else.
    """
    if not any(link.epoch for link in world.links):
        return world
    used = {(call.caller, call.callee) for call in world.calls} | {
        (r.call.caller, r.call.callee) for r in world.replies
    }
    for agent in world.agents:
        for task in agent.tasks:
            if task.source is not None:
                used.add((task.source.caller, task.source.callee))
            if isinstance(task.phase, Calling):
                used.add((task.phase.call.caller, task.phase.call.callee))
    links = tuple(x if (x.caller, x.callee) in used else Link(x.caller, x.callee) for x in world.links)
    return world if links == world.links else replace(world, links=links)


def taken(world: World, place: int, label: str, outcome: Outcome | None) -> Iterator[Step]:
    """The step, if it was enabled."""
    if outcome is not None:
        yield label, happened(world, place, outcome)


def happened(world: World, place: int, outcome: Outcome) -> World:
    """The world after an agent's step."""
    if outcome == Outcome(world.agents[place]):
        return world
    replies = frozenset(r for r in outcome.replies if deliverable(world, r.call))
    return replace(
        world,
        agents=(*world.agents[:place], outcome.agent, *world.agents[place + 1 :]),
        calls=world.calls | frozenset(outcome.calls),
        replies=world.replies | replies,
        log=world.log + outcome.appended,
        answers=world.answers + outcome.answers,
    )


def deliverable(world: World, call: Call) -> bool:
    """Whether a reply to `call` can still reach its caller: both ends open, and in the same epoch."""
    link = link_of(world, call.caller, call.callee)
    return link.epoch == call.epoch and link.caller_open and link.callee_open


def number_of(call: Call) -> tuple[AgentName, int]:
    """A call's identity."""
    return call.caller, call.number


def on_link(call: Call, link: Link) -> bool:
    """Whether a call belongs to this connection, in its epoch."""
    return (call.caller, call.callee, call.epoch) == (link.caller, link.callee, link.epoch)


def link_of(world: World, caller: AgentName, callee: AgentName) -> Link:
    """The newest connection from `caller` to `callee`."""
    return next(link for link in world.links if (link.caller, link.callee) == (caller, callee))


def with_link(world: World, link: Link) -> World:
    """The world with that link in place of the one between the same two agents."""
    links = tuple(link if (x.caller, x.callee) == (link.caller, link.callee) else x for x in world.links)
    return replace(world, links=links)


def place_of(bounds: Bounds, name: AgentName) -> int:
    """Where an agent stands in `World.agents`."""
    return (bounds.servers + bounds.clients).index(name)
