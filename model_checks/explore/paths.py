"""A counterexample as text for people: each step with what it changed, and the sends that later steps depend on.

Exploration takes sends at once; here each send that some later step receives is shown, as a step of its own, where its
sender could first take it. It judges nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from model_checks.explore.results import Counterexample
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
from spec.raft.network import ADVANCE_CLOCK, Protocol, Transition, sends
from spec.raft.properties import is_message
from spec.raft.types import Constants, Fact, Point, Server


def describe(counterexample: Counterexample, protocol: Protocol, c: Constants) -> str:
    """The whole path: the start, the numbered steps, and the property that the last one breaks."""
    lines = ["start:"]
    lines += [f"      {i}  {state(s)}" for i, s in zip(c.servers, counterexample.start.servers, strict=True)]
    for number, step in enumerate(with_sends(counterexample, protocol, c), start=1):
        who = "all" if step.action == ADVANCE_CLOCK else step.server
        lines.append(f"{number:>4}  {who}  {step.action}{arguments(step)}")
        lines += [f"          {change}" for change in changes(step.before, step.after)]
        lines += [f"          sends {message(m)}" for m in step.outcome.sent]
        lines += [f"          now true: {fact(each)}" for each in step.outcome.facts]
    lines.append(f"broken: {counterexample.broken}")
    return "\n".join(lines)


def with_sends(counterexample: Counterexample, protocol: Protocol, c: Constants) -> Iterator[Transition]:
    """The steps of the path, with the sends on which later steps depend in between."""
    received = {m for step in counterexample.steps for m in step.arguments if is_message(m)}
    waiting = received - counterexample.start.messages
    states = dict(zip(c.servers, counterexample.start.servers, strict=True))
    for i in c.servers:
        yield from needed(waiting, protocol, c, i, states[i])
    for step in counterexample.steps:
        yield step
        states[step.server] = step.after
        yield from needed(waiting, protocol, c, step.server, step.after)


def needed(waiting: set[Message], protocol: Protocol, c: Constants, i: str, s: Server) -> Iterator[Transition]:
    """The sends of `i` in state `s` of messages in `waiting`, which are then no longer waited for."""
    for step in sends(protocol, c, i, s):
        if waiting.intersection(step.outcome.sent):
            waiting.difference_update(step.outcome.sent)
            yield step


def arguments(step: Transition) -> str:
    """A step's arguments; a message in words."""
    shown = [message(each) if is_message(each) else str(each) for each in step.arguments]
    return f"  {', '.join(shown)}" if shown else ""


def message(m: Message) -> str:
    """A message on one line: source, destination, term, and what it says."""
    head = f"{type(m).__name__} {m.source}->{m.dest} term {m.term}"
    match m:
        case RequestVoteRequest():
            urged = f", urged by term {m.urged_by}" if m.urged_by else ""
            return f"{head}, last entry {m.last_log_index} of term {m.last_log_term}{urged}"
        case RequestVoteResponse():
            return f"{head}, {'granted' if m.vote_granted else 'refused'}"
        case AppendEntriesRequest():
            entries = " ".join(f"{entry.term}:{entry.value}" for entry in m.entries) or "no entries"
            after = f"after {m.prev_log_index} of term {m.prev_log_term}"
            return f"{head}, {entries} {after}, commit index {m.commit_index}, round {m.round}"
        case AppendEntriesResponse():
            return f"{head}, {f'holds up to {m.match_index}' if m.success else 'refused'}, round {m.round}"
        case InstallSnapshotRequest():
            return f"{head}, state after {m.last_index} of term {m.last_term}, round {m.round}"
        case PreVoteRequest():
            return f"{head}, last entry {m.last_log_index} of term {m.last_log_term}"
        case PreVoteResponse():
            return f"{head}, {'granted' if m.granted else 'refused'}"
        case TimeoutNow() | LeaseEnded():
            return head
        case _:
            assert_never(m)


def fact(each: Fact) -> str:
    """A fact on one line."""
    fields = (f"{name} {getattr(each, name)}" for name in each.__struct_fields__)
    return f"{type(each).__name__} {', '.join(fields)}"


def point(p: Point) -> str:
    """A disk point on one line."""
    snapshot = f", snapshot {p.snapshot}, base {p.base}" if p.snapshot else ""
    return f"term {p.term}, vote {p.voted_for or 'none'}, log {p.log}{snapshot}"


def state(s: Server) -> str:
    """A server on one line: what is not at its initial value."""
    fresh = fields(s)
    zero = ("commit index", "applied", "leader match", "round", "heard at")
    empty = {"leader": "none", **dict.fromkeys(zero, "0")}
    return ", ".join(f"{name} {value}" for name, value in fresh.items() if value not in ("", empty.get(name)))


def fields(s: Server) -> dict[str, str]:
    """What is shown of a server, by name."""
    return {
        "role": s.role.value,
        "memory": point(s.memory),
        "leader": s.leader_id or "none",
        "commit index": str(s.commit_index),
        "applied": str(s.last_applied),
        "leader match": str(s.leader_match),
        "round": str(s.round),
        "votes": " ".join(s.votes),
        "match": " ".join(f"{peer}:{index}" for peer, index in s.match_index),
        "answered rounds": " ".join(f"{peer}:{answered}" for peer, answered in s.acked_round),
        "reads": " ".join(f"{each.id}@{each.index}/{each.round}" for each in s.reads),
        "confirmed reads": " ".join(f"{each.id}@{each.index}" for each in s.confirmed),
        "heard at": str(s.heard_at),
        "pre-votes": " ".join(s.pre_votes),
        "lease of the term's leader": "ended" if s.lease_ended else "",
        "urged by term": str(s.urged_by or ""),
        "rounds begun": " ".join(f"{number}@{start}" for number, start in s.round_starts),
        "transferring": "yes" if s.transferring else "",
        "disk": point(s.durable) if s.issued else "as memory",
    }


def changes(before: Server, after: Server) -> Iterator[str]:
    """One line per field that differs."""
    old, new = fields(before), fields(after)
    for name, value in new.items():
        if old[name] != value:
            yield f"{name}: {old[name] or 'none'} -> {value or 'none'}"
