"""What must have happened elsewhere for a server to be in its state, or for a message to exist: claims.

A server in a given state could not have come there unless certain messages had been sent: whoever counts a vote
received it, whoever knows a commit index was told. `claims` lists these as positive facts. They hold by induction: each
step must establish the claims of the state that it leads to, from the claims of the state before and of the message
that it reads (`link`). So the claims of a state are true in every run, and together they are the smallest network that
the state implies (`Network`).

Three theorems are used. Who leads a term is its only leader (Election Safety). Two, which the proof has of disks, are
used of memory (in the run in which this disk is done with all that was issued, memory is a disk): memory that holds a
request's previous entry equals the leader's log up to there (Log Matching); and what a server has forgotten is a prefix
of the log of every leader of its term or a later one (`agreed_below`).

Must not: look at more than one server and one message.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, assert_never

from model_checks.linking.annotated import Annotations
from model_checks.linking.concrete import Numbered, Slice
from spec.raft.log import Log
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
from spec.raft.types import Index, Point, Role, Server, ServerId, Term


@dataclass(frozen=True, slots=True)
class Claim:
    """A positive fact: `symbol(arguments)` is true.

    Most are symbols of the model. Some abbreviate many facts or a choice:

    - `part(m)`: some leader could send the request m as a part of a slice;
    - `applied_up_to(n, log)`: all of the log was applied;
    - `answered(n, h)`: round h has begun; n has confirmed it, and all reads that began with it, or n is their leader;
    - `may_campaign(n, t, log)`: the pre-votes that a campaign in term t needs were granted by a quorum of the log's
      configuration, or it is urged.

    Claims about a round or an index hold for all lower ones, too.
    """

    symbol: str
    arguments: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{self.symbol}({', '.join(map(str, self.arguments))})"


@dataclass(frozen=True, slots=True)
class OwnLog:
    """The log of a term that the server led: at least this, while only its unconfirmed writes tell of it."""

    term: Term
    log: Log


def is_candidate(i: ServerId, s: Server) -> bool:
    """Candidate in the model: its own vote is on disk."""
    return s.role is Role.CANDIDATE and s.durable.term == s.current_term and s.durable.voted_for == i


def is_leader(s: Server) -> bool:
    """Leader in the model: the disk knows its term."""
    return s.role is Role.LEADER and s.durable.term == s.current_term


def applied_index(s: Server) -> Index:
    """How far the state machine of the model is: it is restored as soon as the snapshot is on disk."""
    return max(s.last_applied, s.durable.snapshot)


def prefix(log: Log, last: Index) -> Log:
    """The log up to `last`, or all of a log that is shorter than it should be."""
    return log.truncate(min(last, log.length))


def told(s: Server) -> Slice:
    """What a server that knows a commit index was told, by a leader of its term or an earlier one."""
    return Slice(s.current_term, prefix(s.log, s.commit_index), s.commit_index, bound=True)


def covered(point: Point) -> Slice:
    """What a server with a snapshot was told is committed, by a leader of a term that this disk knows."""
    return Slice(point.term, prefix(point.log, point.snapshot), point.snapshot, bound=True)


def own_logs(s: Server) -> list[OwnLog]:
    """Logs of terms that the server leads, or led while it issued writes that are not durable yet."""
    found: dict[Term, Log] = {}
    previous = s.durable
    for write in s.issued:
        if write.cause is None and write.point.term == previous.term and write.point.log is not previous.log:
            found[write.point.term] = write.point.log
        previous = write.point
    if s.role is Role.LEADER:
        found[s.current_term] = s.log
    return [OwnLog(term, log) for term, log in sorted(found.items())]


# ----------------------------------------------------------------------------------------------------------- servers


def claims(i: ServerId, s: Server) -> Iterator[Claim]:
    """What the network, and the history of the server's own terms, must hold for the server to be in this state."""
    t = s.current_term
    if s.durable.voted_for is not None:
        yield Claim("vote", (i, s.durable.term, s.durable.voted_for))
    if is_candidate(i, s):
        yield Claim("vote_request", (i, s.durable.term, s.durable.log.length, s.durable.log.last_term))
    if s.commit_index:
        yield Claim("sent", (told(s),))
    if s.durable.snapshot:
        yield Claim("sent", (covered(s.durable),))
    if applied_index(s):
        yield Claim("applied_up_to", (i, prefix(s.durable.log, applied_index(s))))
    yield from write_claims(i, s)
    yield from (Claim("elected", (own.term,)) for own in own_logs(s))
    yield from (Claim("prevote", (voter, t + 1, i)) for voter in s.pre_votes)
    if s.lease_ended:
        yield Claim("lease_ended", (t,))
    if s.urged_by:
        yield Claim("lease_ended", (s.urged_by,))
        yield Claim("decided", (i, t))
    yield from role_claims(i, s)


def role_claims(i: ServerId, s: Server) -> Iterator[Claim]:
    """The part of the claims that rests on the role."""
    t = s.current_term
    match s.role:
        case Role.CANDIDATE:
            yield from (Claim("vote", (voter, t, i)) for voter in s.votes)
        case Role.LEADER:
            yield Claim("sent", (Slice(t, s.log, s.commit_index),))
            yield from (Claim("acknowledged", (peer, t, match)) for peer, match in s.match_index if match)
            yield from (Claim("answered", (peer, Numbered(t, highest))) for peer, highest in s.acked_round if highest)
            yield from (Claim("read_begun", (Numbered(t, read.round),)) for read in s.reads)
            if s.round:
                yield Claim("round_begun", (Numbered(t, s.round),))
            if s.transferring:
                yield Claim("lease_ended", (t,))
        case Role.FOLLOWER:
            if s.leader_match:
                yield Claim("sent", (Slice(t, prefix(s.log, s.leader_match), 0),))
            if s.round:
                yield Claim("round_begun", (Numbered(t, s.round),))
                yield Claim("round_heard", (i, Numbered(t, s.round)))
        case _:
            assert_never(s.role)


def write_claims(i: ServerId, s: Server) -> Iterator[Claim]:
    """What must be so for the writes under way to be steps of the model when they reach the disk."""
    old = s.durable
    for write in s.issued:
        new, cause = write.point, write.cause
        if new.term == old.term and cause is not None:
            if isinstance(cause, AppendEntriesRequest):
                yield Claim("sent", (described(new.log, new.base, cause),))
            else:
                yield from message_claims(cause)
        if new.snapshot:
            yield Claim("sent", (covered(new),))
        if new.voted_for is not None and (new.voted_for, new.term) != (old.voted_for, old.term):
            yield Claim("decided", (i, new.term))
            if new.term != old.term:
                yield Claim("may_campaign", (i, new.term, new.log))
        old = new


# ---------------------------------------------------------------------------------------------------------- messages


def snapshot_slice(m: InstallSnapshotRequest) -> Slice:
    """A snapshot of the readable spec as a request of the model."""
    return Slice(m.term, m.log, m.last_index, snapshot=True)


def message_claims(m: Message) -> Iterator[Claim]:
    """What the existence of a message says."""
    match m:
        case PreVoteRequest():
            yield Claim("prevote_request", (m.source, m.term, m.last_log_index, m.last_log_term))
        case PreVoteResponse():
            if m.granted:
                yield Claim("prevote", (m.source, m.term, m.dest))
        case RequestVoteRequest():
            yield Claim("vote_request", (m.source, m.term, m.last_log_index, m.last_log_term))
            if m.urged_by:
                yield Claim("lease_ended", (m.urged_by,))
        case RequestVoteResponse():
            if m.vote_granted:
                yield Claim("vote", (m.source, m.term, m.dest))
        case AppendEntriesRequest():
            yield Claim("part", (m,))
            if m.round:
                yield Claim("round_begun", (Numbered(m.term, m.round),))
        case AppendEntriesResponse():
            if m.round:
                yield Claim("answered", (m.source, Numbered(m.term, m.round)))
            if m.success and m.match_index:
                yield Claim("acknowledged", (m.source, m.term, m.match_index))
        case InstallSnapshotRequest():
            yield Claim("sent", (snapshot_slice(m),))
            yield Claim("sent", (Slice(m.term, m.log, m.last_index),))
            if m.round:
                yield Claim("round_begun", (Numbered(m.term, m.round),))
        case TimeoutNow() | LeaseEnded():
            yield Claim("lease_ended", (m.term,))
        case _:
            assert_never(m)


def described(log: Log, base: Index, m: AppendEntriesRequest) -> Slice:
    """The whole slice of which a request is the end, for who has this log and forgot it up to `base`.

    What is forgotten is not compared: it is the leader's.
    """
    kept = prefix(log, max(m.prev_log_index, min(base, m.prev_log_index + len(m.entries))))
    return Slice(m.term, kept.extend(m.entries[max(0, kept.length - m.prev_log_index) :]), m.commit_index)


def matched(s: Server, m: Message) -> Iterator[Claim]:
    """What a server may conclude from a request whose previous entry its log, in memory, holds or has forgotten."""
    if isinstance(m, AppendEntriesRequest):
        prev, base = m.prev_log_index, s.memory.base
        if prev < base or (prev <= s.log.length and s.log.term_at(prev) == m.prev_log_term):
            yield Claim("sent", (described(s.log, base, m),))


# ------------------------------------------------------------------------------------------------------- the network


class Network:
    """Claims, looked up as the model's symbols, with what follows at once: a part of a slice, a lower number."""

    def __init__(self, known: Iterator[Claim], annotations: Annotations, leads: tuple[ServerId, Term] | None) -> None:
        """`leads`: the server whose network this is and its term, if it leads it."""
        self._annotations = annotations
        self._leads = leads
        self._facts: set[tuple[str, tuple[Any, ...]]] = set()
        self._slices: list[Slice] = []
        self._highest: dict[tuple[Any, ...], int] = {}
        self._applied: dict[ServerId, Log] = {}
        for claim in known:
            self.add(claim)

    def add(self, claim: Claim) -> None:
        """Take a claim for true."""
        match claim.symbol, claim.arguments:
            case "sent", (m,):
                self._slices.append(m)
            case "acknowledged", (n, t, j):
                self._raise(("acknowledged", n, t), j)
            case "round_heard", (n, h):
                self._raise(("round_heard", n, h.term), h.number)
            case "answered", (n, h):
                self._answered(n, h)
            case "round_begun", (h,):
                self._raise(("round_begun", h.term), h.number)
            case "applied_up_to", (n, log):
                self._applied[n] = log
            case _:
                self._facts.add((claim.symbol, claim.arguments))

    def _answered(self, n: ServerId, h: Numbered) -> None:
        """Who leads a term knows that no other server does: others have confirmed what they answered."""
        self._raise(("round_begun", h.term), h.number)
        if self._leads is not None and self._leads[1] == h.term and self._leads[0] != n:
            self._raise(("confirmed", n, h.term), h.number)
            self._raise(("heard", n, h.term), h.number)

    def _raise(self, key: tuple[Any, ...], value: int) -> None:
        self._highest[key] = max(value, self._highest.get(key, 0))

    def sent(self, m: Slice) -> bool:
        """Whether some slice that was sent covers this one."""
        return any(known.covers(m) for known in self._slices)

    def holds(self, symbol: str, *arguments: Any) -> bool:
        """Whether a fact is among the claims."""
        return (symbol, arguments) in self._facts

    def reached(self, value: int, *key: Any) -> bool:
        """Whether a number that only grows has reached `value`."""
        return value <= self._highest.get(key, 0)

    def applied(self, n: ServerId, j: Index, value: Any) -> bool:
        """Whether a server is known to have applied this annotated value."""
        log = self._applied.get(n)
        return log is not None and 0 < j <= log.length and bool(self._annotations.columns(log).values[j] == value)

    def applied_log(self, n: ServerId) -> Log | None:
        """All that a server is known to have applied, in one log; None: nothing."""
        return self._applied.get(n)
