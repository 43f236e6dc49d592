"""What a server of the readable spec is in the relational model: its visible state, and what the network must hold.

**Visible state.** The model's server is the durable point. The role counts while the disk knows the term of memory: a
server whose newer term is not durable yet has, in the model, already stepped down.

**Claims.** A server in a given state could not have come there unless certain messages had been sent: whoever counts a
vote received it, whoever knows a commit index was told. `claims` lists these as positive facts about the network (and,
for a leader, about its own term's log). They are checked by induction: each step must establish the claims of the state
that it leads to, from the claims of the state before and the message that it reads (`link`). So the claims of a state
are true in every run, and together they are the smallest network that the state implies.

A leader is taken to send, in the model, all slices of its log at once whenever its log or commit index grows: sends
change no server, and messages only add possibilities (guards read the network positively: `polarity`).

Must not: look at more than one server and one message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, assert_never

from model_checks.linking.concrete import NOTHING, Ghost, Slice
from model_checks.proofs.algebra import Symbols
from spec.raft.log import Log
from spec.raft.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    Message,
    RequestVoteRequest,
    RequestVoteResponse,
)
from spec.raft.types import Entry, Index, Point, Role, Server, ServerId, Term


class NotLocal(Exception):
    """A guard read something that neither the server nor a message shows: the model's action is not local."""


class Unread:
    """A value that a step may carry past but not look at: comparing it raises NotLocal."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __repr__(self) -> str:
        return "?"

    def _refuse(self, other: object) -> bool:
        raise NotLocal(f"{self._what} is read")

    __eq__ = __ne__ = __le__ = __lt__ = __ge__ = __gt__ = _refuse

    def __hash__(self) -> int:
        raise NotLocal(f"{self._what} is read")


@dataclass(frozen=True, slots=True)
class Claim:
    """A positive fact: `symbol(arguments)` is true."""

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


def whole_log(term: Term, log: Log, last: Index, commit: Index, *, bound: bool = False) -> Slice:
    """The slice from the genesis to `last`, or to the end of a log that is shorter than it should be."""
    return Slice(term, 0, 0, log.slice(0, min(last, log.length)), commit, bound)


def told(s: Server) -> Slice:
    """What a server that knows a commit index was told, by a leader of its term or an earlier one."""
    return whole_log(s.current_term, s.log, s.commit_index, s.commit_index, bound=True)


def own_logs(i: ServerId, s: Server) -> list[OwnLog]:
    """Logs of terms that the server leads, or led while it issued writes that are not durable yet."""
    found: dict[Term, Log] = {}
    previous = s.durable
    for write in s.issued:
        if write.cause is None and write.point.term == previous.term:
            found[write.point.term] = write.point.log
        previous = write.point
    if s.role is Role.LEADER:
        found[s.current_term] = s.log
    return [OwnLog(term, log) for term, log in sorted(found.items())]


def claims(i: ServerId, s: Server) -> Iterator[Claim]:
    """What the network, and the history of the server's own terms, must hold for the server to be in this state."""
    if s.durable.voted_for is not None:
        yield Claim("vote", (i, s.durable.term, s.durable.voted_for))
    if is_candidate(i, s):
        yield Claim("vote_request", (i, s.durable.term, s.durable.log.length, s.durable.log.last_term))
    if s.commit_index:
        yield Claim("sent", (told(s),))
    for write in s.issued:
        if write.cause is not None:
            yield from message_claims(write.cause)
    yield from (Claim("elected", (own.term,)) for own in own_logs(i, s))
    yield from (Claim("applied", (i, j, entry.value)) for j, entry in enumerate(applied_entries(s), start=1))
    yield from role_claims(i, s)


def applied_entries(s: Server) -> tuple[Entry, ...]:
    """The entries that the server's state machine has applied."""
    return s.log.slice(0, min(s.last_applied, s.log.length))


def role_claims(i: ServerId, s: Server) -> Iterator[Claim]:
    """The part of the claims that rests on the role."""
    t = s.current_term
    match s.role:
        case Role.CANDIDATE:
            yield from (Claim("vote", (voter, t, i)) for voter in s.votes)
        case Role.LEADER:
            yield Claim("sent", (whole_log(t, s.log, s.log.length, s.commit_index),))
            yield from (Claim("acknowledged", (peer, t, match)) for peer, match in s.match_index if match)
            yield from (Claim("heard", (peer, (t, answered))) for peer, answered in s.acked_round if answered)
            yield from (Claim("read_begun", ((t, k),)) for k in range(1, s.round + 1))
        case Role.FOLLOWER:
            if s.leader_match:
                yield Claim("sent", (whole_log(t, s.log, s.leader_match, 0),))
            if s.round:
                yield Claim("read_begun", ((t, s.round),))
        case _:
            assert_never(s.role)


def slice_of(m: AppendEntriesRequest) -> Slice:
    """A request of the readable spec as one of the model."""
    return Slice(m.term, m.prev_log_index, m.prev_log_term, m.entries, m.commit_index)


def message_claims(m: Message) -> Iterator[Claim]:
    """What the existence of a message says."""
    match m:
        case RequestVoteRequest():
            yield Claim("vote_request", (m.source, m.term, m.last_log_index, m.last_log_term))
        case RequestVoteResponse():
            if m.vote_granted:
                yield Claim("vote", (m.source, m.term, m.dest))
        case AppendEntriesRequest():
            yield Claim("sent", (slice_of(m),))
            if m.round:
                yield Claim("read_begun", ((m.term, m.round),))
        case AppendEntriesResponse():
            if m.round:
                yield Claim("heard", (m.source, (m.term, m.round)))
            if m.success and m.match_index:
                yield Claim("acknowledged", (m.source, m.term, m.match_index))
        case _:
            assert_never(m)


def matched(s: Server, m: AppendEntriesRequest) -> Iterator[Claim]:
    """What a server may conclude from a request whose previous entry its log, in memory, holds.

    Up to there its log is the leader's: Log Matching, which the model proves of disks. It holds of memory, too: in the
    run in which this server's disk is done with all that was issued, memory is a disk.
    """
    prev = m.prev_log_index
    if prev <= s.log.length and s.log.term_at(prev) == m.prev_log_term:
        yield Claim("sent", (Slice(m.term, 0, 0, s.log.slice(0, prev) + m.entries, m.commit_index),))


class Network:
    """Claims, looked up as the model's symbols, with what follows at once: a part of a slice, a lower index."""

    def __init__(self, known: Iterator[Claim]) -> None:
        self._facts: set[tuple[str, tuple[Any, ...]]] = set()
        self._slices: list[Slice] = []
        self._highest: dict[tuple[Any, ...], int] = {}
        for claim in known:
            self.add(claim)

    def add(self, claim: Claim) -> None:
        """Take a claim for true."""
        match claim.symbol, claim.arguments:
            case "sent", (m,):
                self._slices.append(m)
            case "acknowledged", (n, t, j):
                self._raise(("acknowledged", n, t), j)
            case "heard", (n, (t, k)):
                self._raise(("heard", n, t), k)
            case "read_begun", ((t, k),):
                self._raise(("read_begun", t), k)
            case _:
                self._facts.add((claim.symbol, claim.arguments))

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


def visible(c_servers: tuple[ServerId, ...], i: ServerId, s: Server) -> dict[tuple[Any, ...], Any]:
    """The server in the model, row by row: what a step's post-state is compared with."""
    rows: dict[tuple[Any, ...], Any] = {
        **disk_rows(c_servers, i, s.durable),
        ("candidate", i): is_candidate(i, s),
        ("leader", i): is_leader(s),
    }
    if is_leader(s):
        t, log = s.current_term, s.log
        rows |= {("commit_index", i): s.commit_index, ("tlog_length", t): log.length, ("leader_of", t): i}
        for j, entry in enumerate(log.slice(0, log.length), start=1):
            rows |= {("tlog_term", t, j): entry.term, ("tlog_value", t, j): entry.value}
    return rows


def disk_rows(c_servers: tuple[ServerId, ...], i: ServerId, point: Point) -> dict[tuple[Any, ...], Any]:
    """The part of the visible state that is on disk."""
    rows: dict[tuple[Any, ...], Any] = {
        ("current_term", i): point.term,
        ("log_length", i): point.log.length,
        **{("voted_for", i, c): point.voted_for == c for c in c_servers},
    }
    for j, entry in enumerate(point.log.slice(0, point.log.length), start=1):
        rows |= {("log_term", i, j): entry.term, ("log_value", i, j): entry.value}
    return rows


GHOSTS: Final = ("committed", "commit_quorum", "winning_quorum", "read_seen", "applied_term", "applied_index")
"""History that no guard reads: what a step makes of it is checked where a fact of the spec says it."""


def symbols(i: ServerId, s: Server, network: Network) -> Symbols:
    """The model's state as far as the server and the network show it. Anything else raises NotLocal when it is read."""
    logs = {own.term: own.log for own in own_logs(i, s)}

    def here(value: Any) -> Any:
        def read(n: ServerId) -> Any:
            if n != i:
                raise NotLocal(f"the state of {n} is read in a step of {i}")
            return value

        return read

    def of_own(read: Callable[..., Any]) -> Callable[..., Any]:
        foreign = "the log of a term that the server does not lead"
        return lambda t, *j: read(logs[t], *j) if t in logs else Unread(foreign)

    def term_at(log: Log, j: Index) -> Any:
        return log.term_at(j) if j <= log.length else NOTHING

    def value_at(log: Log, j: Index) -> Any:
        return log.entry(j).value if 0 < j <= log.length else NOTHING

    def ghost(*_: Any) -> Any:
        return Ghost()

    reads = {(s.current_term, read.round): read.index for read in s.reads}
    return Symbols(
        {
            "current_term": here(s.durable.term),
            "candidate": here(is_candidate(i, s)),
            "leader": here(is_leader(s)),
            "log_length": here(s.durable.log.length),
            "commit_index": here(s.commit_index if is_leader(s) else 0),
            "voted_for": lambda n, c: here(s.durable.voted_for)(n) == c,
            "log_term": lambda n, j: term_at(here(s.durable.log)(n), j),
            "log_value": lambda n, j: value_at(here(s.durable.log)(n), j),
            "tlog_length": of_own(lambda log: log.length),
            "tlog_term": of_own(term_at),
            "tlog_value": of_own(value_at),
            "elected": lambda t: t in logs,
            "leader_of": lambda t: i if t in logs else NOTHING,
            "won": lambda n, t: n == i and t in logs,
            "vote": lambda v, t, c: network.holds("vote", v, t, c),
            "vote_request": lambda c, t, j, u: network.holds("vote_request", c, t, j, u),
            "sent": network.sent,
            "acknowledged": lambda n, t, j: network.reached(j, "acknowledged", n, t),
            "heard": lambda v, r: network.reached(r[1], "heard", v, r[0]),
            "read_begun": lambda r: network.reached(r[1], "read_begun", r[0]),
            "read_term": lambda r: r[0],
            "read_index": lambda r: reads.get(r, NOTHING),
            "read_confirmed": lambda r: False,
            "applied": lambda n, j, w: network.holds("applied", n, j, w),
            "certificate_term": ghost,
            "certificate_index": ghost,
            **dict.fromkeys(GHOSTS, ghost),
        }
    )
