"""The global system: servers, the messages sent so far, and history variables; which steps are enabled within bounds.

A step reads one server and at most one message, so the network only composes what `actions` defines: it adds no rule
of the protocol. It must not look into a message beyond its destination and term.

**Sends are taken at once.** A send changes no server, the set of messages only grows, and no step is disabled by a
message. So every behaviour is matched by one in which each server has sent, in each state that it passes, all that
this state allows: same servers, same history, more messages. Exploration of `settled` worlds therefore reaches every
server state and fact that exploration of single sends reaches; tests compare the two. **Dead messages are forgotten:**
a message of a term below its destination's durable term is stale for ever, whatever crashes, since durable terms never
fall.

History variables (`History`) would not exist in a real system; properties over time are stated with them. raft.tla:
elections, allLogs.

**Time** is one number that all clocks show; it stands still while servers act. What drift does to a lease is a matter
of `Constants` (and proved elsewhere: `model_checks/proofs/drift.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from inspect import signature
from typing import Final, assert_never

import msgspec
from msgspec.structs import replace

from spec.raft.actions import Action, initial_server
from spec.raft.bounds import Bounds
from spec.raft.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    InstallSnapshotRequest,
    LeaseEnded,
    Message,
    PreVoteRequest,
    PreVoteResponse,
    RequestVoteRequest,
    RequestVoteResponse,
    TimeoutNow,
)
from spec.raft.types import (
    Applied,
    Committed,
    Constants,
    Elected,
    Index,
    Outcome,
    ReadAnswered,
    ReadConfirmed,
    ReadStarted,
    Restored,
    Server,
    ServerId,
    Time,
)

ADVANCE_CLOCK: Final = "advance_clock"
"""The name of the step in which time passes."""

Protocol = Mapping[str, Action]
"""The actions by name: `actions.ACTIONS`, or a mutant of it."""


class Transition(msgspec.Struct, frozen=True):
    """A local step: `server` took `action` with `arguments` (a message, for handlers) in state `before`."""

    server: ServerId
    action: str
    arguments: tuple[object, ...]
    before: Server
    outcome: Outcome

    @property
    def after(self) -> Server:
        """The server's state after the step."""
        return self.outcome.server

    @property
    def changes_nothing(self) -> bool:
        """Whether the step leaves the server as it was and makes nothing true: a send, or a message without effect."""
        return self.outcome.server == self.before and not self.outcome.facts


class History(msgspec.Struct, frozen=True):
    """History variables: what properties over time need of the past, and what bounds count."""

    elected: tuple[Elected, ...] = ()
    """Every election won, in order of term and server."""
    committed: tuple[Committed, ...] = ()
    """Commitments that no other implies, in order of term and index. (T, log) implies (U, prefix of log) if T <= U."""
    reads: tuple[tuple[str, Index], ...] = ()
    """Reads that arrived, each with the highest index that was committed anywhere when it did."""
    restarts: int = 0
    """Crashes so far (for the bound only)."""

    @property
    def highest_committed(self) -> Index:
        """The highest index committed so far by any leader."""
        return max((fact.index for fact in self.committed), default=0)


class World(msgspec.Struct, frozen=True):
    """A global state: one server per name in `Constants.servers`, in that order; the messages; the history."""

    servers: tuple[Server, ...]
    messages: frozenset[Message]
    history: History
    now: Time = 0
    """What all clocks show."""


def initial_world(c: Constants) -> World:
    """Every server in its initial state, nothing sent, nothing remembered (raft.tla Init)."""
    return World(servers=tuple(initial_server() for _ in c.servers), messages=frozenset(), history=History())


# ------------------------------------------------------------------------------------------------------- local steps


def transition(
    protocol: Protocol, c: Constants, i: ServerId, s: Server, action: str, *args: object
) -> Transition | None:
    """The step that `action` is in state `s`, or None if it is not enabled."""
    outcome = protocol[action](c, i, s, *args)
    return None if outcome is None else Transition(i, action, args, s, outcome)


@cache
def takes_clock(action: Action) -> bool:
    """Whether an action reads the clock: `now` is its last parameter."""
    return "now" in signature(action).parameters


def internal_choices(b: Bounds, s: Server, now: Time) -> Iterator[tuple[object, ...]]:
    """Every (action, arguments...) without a message and without a send that may be enabled in `s`, within bounds."""
    if s.current_term < b.max_term:
        yield ("timeout", now)
    yield ("become_leader",)
    if s.log.length < b.max_log:
        yield from (("client_request", value) for value in b.values)
    yield from (("advance_commit_index", index) for index in range(s.commit_index + 1, s.log.length + 1))
    yield ("apply",)
    yield from (("read_request", read, now) for read in b.reads)
    yield from (("confirm_read", waiting.id) for waiting in s.reads)
    yield from (("answer_read", waiting.id) for waiting in s.confirmed)
    yield from feature_choices(b, s, now)
    yield from (("persist", k) for k in range(1, len(s.issued) + 1))
    if b.max_restarts:
        yield from (("crash_restart", k, now) for k in range(len(s.issued) + 1))


def feature_choices(b: Bounds, s: Server, now: Time) -> Iterator[tuple[object, ...]]:
    """`internal_choices` of the features that the bounds turn on."""
    if s.log.length < b.max_log:
        yield from (("change_configuration", replace(each, allowed_by=s.commit_index)) for each in b.configurations)
    if b.snapshots:
        yield from (("take_snapshot", index) for index in range(s.memory.snapshot + 1, s.log.length + 1))
        yield from (("compact", index) for index in range(s.memory.base + 1, s.memory.snapshot + 1))
        yield ("restore_snapshot",)
    if s.round < b.max_round:
        yield ("begin_round", now)
    yield from (("lease_read", read, now) for read in b.lease_reads)
    if b.steps_down:
        yield ("step_down",)
    if b.transfers:
        yield ("transfer_leadership",)


def send_choices(c: Constants, i: ServerId, s: Server) -> Iterator[tuple[object, ...]]:
    """Every (action, arguments...) that sends a message and may be enabled in `s`.

    Hints carry no meaning: one is enough. Requests go to the members of the latest configuration, campaigns to its
    voters, answers to anybody.
    """
    configuration = c.configuration(s.log)
    for to in c.peers(i):
        if to in configuration.voters:
            yield ("request_vote", to)
            if c.pre_vote:
                yield ("request_pre_vote", to)
            if s.transferring:
                yield ("timeout_now", to)
        yield ("vote_response", to, True)
        yield ("vote_response", to, False)
        yield ("append_entries_response", to, False, 0)
        yield from (("append_entries_response", to, True, match) for match in range(s.log.length + 1))
        if to in configuration.voters or to in configuration.nonvoters:
            for prev in range(s.log.length + 1):
                yield from (("append_entries", to, prev, last) for last in range(prev, s.log.length + 1))
            if s.durable.snapshot:
                yield ("install_snapshot", to)


def handler(m: Message) -> str:
    """The name of the action that handles a message of the current or an older term."""
    match m:
        case PreVoteRequest():
            return "handle_pre_vote_request"
        case PreVoteResponse():
            return "handle_pre_vote_response"
        case RequestVoteRequest():
            return "handle_request_vote_request"
        case RequestVoteResponse():
            return "handle_request_vote_response"
        case AppendEntriesRequest():
            return "handle_append_entries_request"
        case AppendEntriesResponse():
            return "handle_append_entries_response"
        case InstallSnapshotRequest():
            return "handle_install_snapshot_request"
        case TimeoutNow():
            return "handle_timeout_now"
        case LeaseEnded():
            return "handle_lease_ended"
        case _:
            assert_never(m)


def internal_steps(
    protocol: Protocol, c: Constants, b: Bounds, i: ServerId, s: Server, now: Time = 0
) -> Iterator[Transition]:
    """The enabled steps of `i` that read no message and are no sends, within bounds; no crash that changes nothing."""
    for action, *args in internal_choices(b, s, now):
        step = transition(protocol, c, i, s, str(action), *args)
        if step is not None and not step.changes_nothing and len(step.after.issued) <= b.max_issued:
            yield step


def sends(protocol: Protocol, c: Constants, i: ServerId, s: Server) -> Iterator[Transition]:
    """The enabled sends of `i`."""
    for action, *args in send_choices(c, i, s):
        step = transition(protocol, c, i, s, str(action), *args)
        if step is not None:
            yield step


def receipts(
    protocol: Protocol, c: Constants, b: Bounds, i: ServerId, s: Server, m: Message, now: Time = 0
) -> Iterator[Transition]:
    """The enabled steps of `i` that read `m`, within bounds."""
    for action in ("update_term", handler(m)):
        step = transition(protocol, c, i, s, action, *((m, now) if takes_clock(protocol[action]) else (m,)))
        if step is not None and len(step.after.issued) <= b.max_issued:
            yield step


# ------------------------------------------------------------------------------------------------------ global steps


def remember(history: History, step: Transition, b: Bounds) -> History | None:
    """The history after `step`; None if the step leaves the bounds that count over all servers."""
    if step.action == "crash_restart":
        history = replace(history, restarts=history.restarts + 1)
        return history if history.restarts <= b.max_restarts else None
    for fact in step.outcome.facts:
        match fact:
            case Elected():
                history = replace(history, elected=tuple(sorted({*history.elected, fact}, key=by_term_and_server)))
            case Committed():
                history = replace(history, committed=with_commitment(history.committed, fact))
            case ReadStarted(id=read):
                if any(known == read for known, _ in history.reads):
                    return None
                history = replace(history, reads=(*history.reads, (read, history.highest_committed)))
            case Applied() | Restored() | ReadConfirmed() | ReadAnswered():
                pass  # judged when they become true; nothing later depends on them
            case _:
                assert_never(fact)
    return history


def by_term_and_server(fact: Elected) -> tuple[int, str, Index]:
    """The order of `History.elected`."""
    return (fact.term, fact.server, fact.log.length)


def implies(strong: Committed, weak: Committed) -> bool:
    """Whether every obligation of `weak` is one of `strong`: a longer log, committed no later."""
    return strong.term <= weak.term and weak.log.is_prefix_of(strong.log)


def with_commitment(known: tuple[Committed, ...], fact: Committed) -> tuple[Committed, ...]:
    """`known` and `fact`, without what another implies."""
    if any(implies(other, fact) for other in known):
        return known
    kept = [other for other in known if not implies(fact, other)]
    return tuple(sorted([*kept, fact], key=lambda each: (each.term, each.index, repr(each.log))))


def dead(c: Constants, servers: tuple[Server, ...], m: Message) -> bool:
    """Whether `m` can never again change its destination: its term is below the destination's durable term.

    A pre-vote request of such a term would still be refused; the refusal says no more than those that
    `vote_response` sends at any time.
    """
    return m.term < servers[c.servers.index(m.dest)].durable.term


def settled(protocol: Protocol, c: Constants, world: World, i: ServerId) -> World:
    """`world` with all that server `i` may send now added, and dead messages forgotten."""
    sent = {m for step in sends(protocol, c, i, world.servers[c.servers.index(i)]) for m in step.outcome.sent}
    alive = frozenset(m for m in world.messages | sent if not dead(c, world.servers, m))
    return replace(world, messages=alive)


def tick(c: Constants, first: Server, now: Time) -> Transition:
    """The step that advances the clocks from `now`: no server's, but shown as one of the first, which stays."""
    return Transition(c.servers[0], ADVANCE_CLOCK, (now + 1,), first, Outcome(first))


def take(c: Constants, b: Bounds, world: World, step: Transition) -> World | None:
    """`world` after `step` of one of its servers, or after a tick; None if that leaves the bounds.

    Sends nothing but what the step sends.
    """
    if step.action == ADVANCE_CLOCK:
        return replace(world, now=world.now + 1) if world.now < b.max_time else None
    history = remember(world.history, step, b)
    if history is None:
        return None
    servers = tuple(step.after if i == step.server else s for i, s in zip(c.servers, world.servers, strict=True))
    return World(servers, world.messages.union(step.outcome.sent), history, world.now)


def steps(protocol: Protocol, c: Constants, b: Bounds, world: World) -> Iterator[Transition]:
    """Every enabled step of every server in `world` but sends, within the bounds of one server, in a fixed order.

    Time passes last.
    """
    for i, s in zip(c.servers, world.servers, strict=True):
        yield from internal_steps(protocol, c, b, i, s, world.now)
        for m in sorted((m for m in world.messages if m.dest == i), key=repr):
            yield from receipts(protocol, c, b, i, s, m, world.now)
    if world.now < b.max_time:
        yield tick(c, world.servers[0], world.now)
