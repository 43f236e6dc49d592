"""Which steps of the relational model a local step of the readable spec claims to be.

Steps that only issue writes are stutters, but for a role that is lost in memory; `persist(k)` is one step of the model
for each write that reaches the disk, and so is a crash that kept k writes. What is claimed here is checked in `link`:
guards must be true, post-states equal. So a wrong line here can only reject too much.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from model_checks.linking.concrete import Slice
from model_checks.linking.projection import is_leader, slice_of, told
from spec.raft.messages import AppendEntriesRequest, RequestVoteRequest
from spec.raft.network import Transition
from spec.raft.types import Index, Point, Server, ServerId, Write


class NoCounterpart(Exception):
    """The step does something for which the model has no step at all."""


@dataclass(frozen=True, slots=True)
class Do:
    """A step of the model."""

    action: str
    arguments: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{self.action}({', '.join(map(str, self.arguments))})"


@dataclass(frozen=True, slots=True)
class Reach:
    """A claim about the way: the model's disk is now this point."""

    point: Point


def claimed(step: Transition) -> Iterator[Do | Reach]:
    """The model's steps, in order; the role that a step loses, and what a leader then sends, are added by `link`."""
    i, s, arguments = step.server, step.before, step.arguments
    match step.action:
        case "become_leader":
            yield Do("become_leader", (i, voters(i, s)))
            if s.commit_index:
                yield Do("learn_commit", (i, told(s), s.commit_index))
        case "client_request":
            after = step.after.log
            yield Do("client_request", (i, after.entry(after.length).value, after.length))
        case "append_entries":
            yield from (
                Do("send_append", (i, slice_of(m))) for m in step.outcome.sent if isinstance(m, AppendEntriesRequest)
            )
        case "advance_commit_index":
            yield from commits(i, s, int(str(arguments[0])))
        case "apply":
            yield applies(i, s, s.last_applied + 1)
        case "append_entries_response":
            yield from answers(i, s, *arguments)
        case "read_request":
            yield Do("begin_read", (i, (s.current_term, s.round + 1), s.commit_index))
        case "confirm_read":
            yield from confirms(i, s, str(arguments[0]))
        case "persist" | "crash_restart":
            yield from persisted(i, s.durable, s.issued[: int(str(arguments[0]))])
        case _:
            return


def voters(i: ServerId, s: Server) -> frozenset[ServerId]:
    """Who voted for a candidate, as far as it knows; itself by its disk."""
    own = {i} if s.durable.term == s.current_term and s.durable.voted_for == i else set()
    return frozenset({*s.votes, *own})


def commits(i: ServerId, s: Server, index: Index) -> Iterator[Do]:
    """The leader's disk counts for what it holds; then the entry is committed."""
    holders = {peer for peer, match in s.match_index if match >= index}
    if s.durable.term == s.current_term and s.durable.log.length >= index:
        holders.add(i)
        yield Do("append_own", (i, index))
    yield Do("advance_commit", (i, index, frozenset(holders)))


def applies(i: ServerId, s: Server, index: Index) -> Do:
    """A leader applies by its own knowledge, another server by what it was told."""
    if is_leader(s):
        return Do("apply_own", (i, index))
    shown = s.log.term_at(index) if index <= s.log.length else -1
    return Do("apply_told", (i, Slice(s.current_term, index, shown, (), index, bound=True), index))


def answers(i: ServerId, s: Server, to: object, success: object, match: object) -> Iterator[Do]:
    """An answer confirms the newest round; a success says that the disk agrees with the leader up to `match`.

    The model acknowledges when a write reaches the disk. What was acknowledged without a write (a heartbeat, or entries
    that were there) is acknowledged here, by a heartbeat that shows the entry at `match`.
    """
    t, last = s.current_term, int(str(match))
    yield from (Do("confirm_leadership", (i, (t, k))) for k in range(1, s.round + 1))
    if success and last:
        shown = s.log.term_at(last) if last <= s.log.length else -1
        yield Do("recv_append_noconflict", (i, Slice(t, last, shown, (), 0), last))


def confirms(i: ServerId, s: Server, read: str) -> Iterator[Do]:
    """The leader confirms its own leadership; with the answers that it has, that makes a quorum."""
    found = next((waiting for waiting in s.reads if waiting.id == read), None)
    if found is None:
        raise NoCounterpart(f"read {read} does not wait for confirmation")
    t = s.current_term
    answered = {peer for peer, highest in s.acked_round if highest >= found.round}
    yield Do("confirm_leadership", (i, (t, found.round)))
    yield Do("confirm_read", ((t, found.round), frozenset({i, *answered})))


def persisted(i: ServerId, durable: Point, writes: tuple[Write, ...]) -> Iterator[Do | Reach]:
    """Each write that reaches the disk, by what it changes and by the message that caused it."""
    for write in writes:
        yield from one_write(i, durable, write)
        yield Reach(write.point)
        durable = write.point


def one_write(i: ServerId, old: Point, write: Write) -> Iterator[Do]:
    """The model's step that this write is."""
    new, cause = write.point, write.cause
    if new.term != old.term:
        yield Do("timeout" if cause is None else "update_term", (i, new.term))
    elif new.voted_for != old.voted_for:
        if not isinstance(cause, RequestVoteRequest):
            raise NoCounterpart(f"a vote for {new.voted_for} is written, and no vote request caused it")
        yield Do("grant_vote", (i, cause.source, cause.term, cause.last_log_index, cause.last_log_term))
    elif new.log is not old.log:
        last = new.log.length
        if cause is None:
            yield Do("append_own", (i, last))
        elif not isinstance(cause, AppendEntriesRequest):
            raise NoCounterpart(f"the log is written, and {cause} caused it")
        elif last < old.log.length:
            yield Do("recv_append_conflict", (i, slice_of(cause), last + 1, last))
        else:
            yield Do("recv_append_noconflict", (i, slice_of(cause), last))
