"""Which steps of the relational model a local step of the readable spec claims to be.

Steps that only issue writes are stutters, but for a role that is lost in memory and for what is decided there;
`persist(k)` is one step of the model for each write that reaches the disk, and so is a crash that kept k writes. What
is claimed here is checked in `link`: guards must be true, post-states equal. So a wrong line here can only reject too
much.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from model_checks.linking.annotated import Annotations, Record, annotations_of
from model_checks.linking.claims import (
    covered,
    described,
    is_candidate,
    is_leader,
    prefix,
    snapshot_slice,
    told,
)
from model_checks.linking.concrete import Do, Numbered, Slice
from spec.raft.messages import (
    AppendEntriesRequest,
    InstallSnapshotRequest,
    PreVoteResponse,
    RequestVoteRequest,
)
from spec.raft.network import Transition
from spec.raft.types import Constants, Index, Point, Server, ServerId, Write

SOME_QUORUM: Final = frozenset[ServerId]()
"""Stands for a quorum that is known to exist, and of which nothing else is known: who pre-voted for a campaign."""


class NoCounterpart(Exception):
    """The step does something for which the model has no step at all."""


@dataclass(frozen=True, slots=True)
class Reach:
    """A claim about the way: the model's disk is now this point."""

    point: Point


def claimed(c: Constants, step: Transition) -> Iterator[Do | Reach]:
    """The model's steps, in order; the role that a step loses, and what a leader then sends, are added by `link`."""
    i, s, arguments = step.server, step.before, step.arguments
    known = annotations_of(c)
    match step.action:
        case "persist" | "crash_restart":
            yield from persisted(i, s, s.issued[: number(arguments[0])])
        case "become_leader":
            yield Do("become_leader", (i, voters(i, s, known.record(s.durable.log))))
            if s.commit_index:
                yield Do("learn_commit", (i, told(s), s.commit_index))
        case "client_request" | "change_configuration":
            after = step.after.log
            yield Do(step.action, (i, known.columns(after).values[-1], after.length))
        case "advance_commit_index":
            yield from commits(known, i, s, number(arguments[0]))
        case "apply":
            yield applies(i, s, s.last_applied + 1)
        case "append_entries_response":
            yield from answers(i, s, bool(arguments[1]), number(arguments[2]))
        case "handle_append_entries_request" | "handle_install_snapshot_request":
            yield from hears(i, s, arguments[0])
        case "install_snapshot":
            sent = (m for m in step.outcome.sent if isinstance(m, InstallSnapshotRequest))
            yield from (Do("send_snapshot", (i, snapshot_slice(m))) for m in sent)
        case "transfer_leadership":
            yield Do("transfer_leadership", (i,))
        case "advance_clock":
            yield Do("tick", (number(arguments[0]),))
        case "begin_round" | "read_request" | "confirm_read" | "lease_read":
            yield from reads(known, step)
        case _:
            yield from elects(c, step)


def number(argument: object) -> int:
    """An argument that is a number. Raises NoCounterpart."""
    if not isinstance(argument, int):
        raise NoCounterpart(f"{argument} is not a number")
    return argument


# --------------------------------------------------------------------------------------------------------- elections


def elects(c: Constants, step: Transition) -> Iterator[Do]:
    """Pre-votes are asked and granted; a vote is decided in memory; what hears only, stutters."""
    i, s = step.server, step.before
    match step.action:
        case "request_pre_vote":
            yield Do("ask_prevote", (i, s.current_term + 1))
        case "handle_pre_vote_request":
            for answer in step.outcome.sent:
                if isinstance(answer, PreVoteResponse) and answer.granted:
                    yield grants_prevote(i, s, answer.dest, step)
        case "timeout":
            yield from campaigns(c, i, s)
        case "update_term":
            if is_leader(s) or is_candidate(i, s):
                yield Do("step_down", (i,))
            if step.after.urged_by:
                yield Do("decide_vote_urged", (i, step.after.current_term, step.after.urged_by))
        case "handle_request_vote_request":
            if len(step.after.issued) > len(s.issued) and not s.urged_by:
                yield Do("decide_vote", (i, s.current_term))


def grants_prevote(i: ServerId, s: Server, candidate: ServerId, step: Transition) -> Do:
    """A pre-vote, by what the request shows; without waiting if the current leader's lease has ended."""
    m: Any = step.arguments[0]
    by = s.current_term if s.lease_ended else 0
    return Do("grant_prevote", (i, candidate, m.term, m.last_log_index, m.last_log_term, by))


def campaigns(c: Constants, i: ServerId, s: Server) -> Iterator[Do]:
    """A vote for oneself is decided: at once if the leader's lease has ended, else with a pre-vote of one's own."""
    term = s.current_term + 1
    if s.lease_ended:
        yield Do("decide_vote_urged", (i, term, s.current_term))
        return
    if c.pre_vote:
        log = s.durable.log
        yield Do("ask_prevote", (i, term))
        yield Do("grant_prevote", (i, i, term, log.length, log.last_term, 0))
    yield Do("decide_vote", (i, term))


def voters(i: ServerId, s: Server, record: Record) -> frozenset[ServerId]:
    """Who voted for a candidate, as far as it knows, and may vote; itself by its disk."""
    own = {i} if s.durable.term == s.current_term and s.durable.voted_for == i else set()
    return record.voters & {*s.votes, *own}


# ------------------------------------------------------------------------------------------- replication and applying


def commits(known: Annotations, i: ServerId, s: Server, index: Index) -> Iterator[Do]:
    """The leader's disk counts for what it holds; then the entry is committed."""
    holders = {peer for peer, match in s.match_index if match >= index}
    if s.durable.term == s.current_term and s.durable.log.length >= index:
        holders.add(i)
        yield Do("append_own", (i, index))
    yield Do("advance_commit", (i, index, known.record(s.log).voters & holders))


def applies(i: ServerId, s: Server, index: Index) -> Do:
    """A leader applies by its own knowledge, another server by what it was told."""
    if is_leader(s):
        return Do("apply_own", (i, index))
    return Do("apply_told", (i, Slice(s.current_term, prefix(s.log, index), index, bound=True), index, index))


def answers(i: ServerId, s: Server, success: bool, match: Index) -> Iterator[Do]:
    """An answer confirms the newest round; a success says that the disk agrees with the leader up to `match`.

    A leader that refuses as if it were a follower confirms nothing: it counts itself without that.

    The model acknowledges when a write reaches the disk. What was acknowledged without a write (a heartbeat, or entries
    that were there) is acknowledged here.
    """
    t = s.current_term
    if s.round and not is_leader(s):
        yield Do("confirm_leadership", (i, Numbered(t, s.round)))
        yield Do("confirm_round", (i, Numbered(t, s.round)))
    if success and match:
        yield Do("recv_append_noconflict", (i, Slice(t, prefix(s.log, match), 0), match))


def hears(i: ServerId, s: Server, m: Any) -> Iterator[Do]:
    """A server hears from the leader of its current term, in a round or before the first one."""
    if m.term == s.current_term:
        yield Do("hear_round", (i, Numbered(m.term, m.round))) if m.round else Do("hear_leader", (i,))


# -------------------------------------------------------------------------------------------------------------- reads


def reads(known: Annotations, step: Transition) -> Iterator[Do]:
    """A round begins; a read begins with one, is confirmed by one, or does both by a lease."""
    i, s, t = step.server, step.before, step.before.current_term
    match step.action:
        case "begin_round":
            yield Do("begin_round", (i, Numbered(t, s.round + 1)))
        case "read_request":
            yield Do("begin_round", (i, Numbered(t, s.round + 1)))
            yield Do("begin_read", (i, Numbered(t, s.round + 1), s.commit_index))
        case "confirm_read":
            waited_for = next((r.round for r in s.reads if r.id == step.arguments[0]), None)
            if waited_for is None:
                raise NoCounterpart(f"read {step.arguments[0]} does not wait for confirmation")
            read = Numbered(t, waited_for)
            yield Do("confirm_leadership", (i, read))
            yield Do("confirm_read", (read, answered(known, i, s, waited_for)))
        case "lease_read":
            begun = [k for k, _ in s.round_starts if known.record(s.log).is_quorum(answered(known, i, s, k))]
            if not begun:
                raise NoCounterpart("a read is answered by a lease, and no quorum has answered a round")
            read, by = Numbered(t, 0, str(step.arguments[0])), Numbered(t, begun[-1])
            yield Do("lease_read", (i, read, s.commit_index, by, answered(known, i, s, by.number)))


def answered(known: Annotations, i: ServerId, s: Server, number: int) -> frozenset[ServerId]:
    """Who has answered a round, of those who vote; the leader itself has."""
    return known.record(s.log).voters & {i, *(peer for peer, highest in s.acked_round if highest >= number)}


# --------------------------------------------------------------------------------------------------------------- disk


def persisted(i: ServerId, s: Server, writes: tuple[Write, ...]) -> Iterator[Do | Reach]:
    """Each write that reaches the disk, by what it changes and by the message that caused it."""
    durable = s.durable
    for write in writes:
        yield from one_write(i, durable, write, is_leader(s))
        yield Reach(write.point)
        durable = write.point


def one_write(i: ServerId, old: Point, write: Write, leads: bool) -> Iterator[Do]:
    """The model's step that this write is."""
    new, cause = write.point, write.cause
    if new.term != old.term:
        yield Do("timeout", (i, new.term, SOME_QUORUM)) if cause is None else Do("update_term", (i, new.term))
    elif new.voted_for != old.voted_for:
        if not isinstance(cause, RequestVoteRequest):
            raise NoCounterpart(f"a vote for {new.voted_for} is written, and no vote request caused it")
        yield Do("grant_vote", (i, cause.source, cause.term, cause.last_log_index, cause.last_log_term))
    elif isinstance(cause, InstallSnapshotRequest):
        yield Do("recv_snapshot", (i, snapshot_slice(cause)))
    elif new.log is not old.log:
        yield log_written(i, old, write)
    elif new.snapshot != old.snapshot:
        own = Do("take_snapshot_own", (i, new.snapshot))
        yield own if leads else Do("take_snapshot_told", (i, covered(new), new.snapshot, new.snapshot))
    elif new.base != old.base:
        yield Do("compact", (i, new.base))


def log_written(i: ServerId, old: Point, write: Write) -> Do:
    """Entries reach the disk: the leader's own, or those of a request, which a conflict cuts first."""
    last, cause = write.point.log.length, write.cause
    if cause is None:
        return Do("append_own", (i, last))
    if not isinstance(cause, AppendEntriesRequest):
        raise NoCounterpart(f"the log is written, and {cause} caused it")
    request = described(write.point.log, write.point.base, cause)
    if last < old.log.length:
        return Do("recv_append_conflict", (i, request, last + 1, last))
    return Do("recv_append_noconflict", (i, request, last))
