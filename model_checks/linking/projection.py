"""What a server of the readable spec is in the relational model: its visible state.

The model's server is the durable point. The role counts while the disk knows the term of memory: a server whose newer
term is not durable yet has, in the model, already stepped down. The state machine of the model is restored as soon
as the snapshot is on disk. What a server heard and decided is known to it up to a bound: no term later than that of its
memory.

A leader is taken to send, in the model, all slices of its log at once whenever its log or commit index grows: sends
change no server, and messages only add possibilities (guards read the network positively: `polarity`).

Must not: look at more than one server and its claims.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from model_checks.linking.annotated import Annotations
from model_checks.linking.claims import (
    Network,
    applied_index,
    is_candidate,
    is_leader,
    own_logs,
)
from model_checks.linking.concrete import readers
from model_checks.linking.truths import MAYBE, AtMost, Ghost, Unknown
from model_checks.proofs.algebra import Symbols
from spec.raft.log import Log
from spec.raft.types import Constants, Point, Server, ServerId, Term, Time

Row = tuple[Any, ...]
"""A symbol's name and its arguments."""


@dataclass(frozen=True, slots=True)
class Visible:
    """A server in the model: what a step's post-state is compared with."""

    rows: dict[Row, Any]
    logs: dict[Row, Log]
    """Logs by the symbols of their terms and values and by their owner: ("log_term", "log_value", server), or the
    same of a term's log."""


def visible(c: Constants, i: ServerId, s: Server) -> Visible:
    """All of a server that is its own."""
    disk = on_disk(c, i, s.durable)
    rows: dict[Row, Any] = {
        **disk.rows,
        ("candidate", i): is_candidate(i, s),
        ("leader", i): is_leader(s),
        ("last_applied", i): applied_index(s),
        ("heard_at", i): s.heard_at,
    }
    logs = disk.logs
    if is_leader(s):
        t = s.current_term
        rows |= {
            ("commit_index", i): s.commit_index,
            ("tlog_length", t): s.log.length,
            ("leader_of", t): i,
            ("transferring", i): s.transferring,
        }
        logs = {**logs, ("tlog_term", "tlog_value", t): s.log}
    return Visible(rows, logs)


def on_disk(c: Constants, i: ServerId, point: Point) -> Visible:
    """The part of the visible state that is on disk."""
    rows: dict[Row, Any] = {
        ("current_term", i): point.term,
        ("log_length", i): point.log.length,
        ("snapshot_index", i): point.snapshot,
        ("base", i): point.base,
        **{("voted_for", i, candidate): point.voted_for == candidate for candidate in c.servers},
    }
    return Visible(rows, {("log_term", "log_value", i): point.log})


GHOSTS: Final = (
    "committed",
    "commit_quorum",
    "commit_length",
    "winning_quorum",
    "first_length",
    "read_seen",
    "read_elected",
    "applied_term",
    "applied_index",
    "certificate_term",
    "certificate_index",
    "snapshot_certificate_term",
    "snapshot_certificate_index",
    "urged_by",
)
"""History that no guard reads: what a step makes of it is checked where a fact of the spec says it."""


def log_symbols(known: Annotations, i: ServerId, log: Log) -> dict[str, Callable[..., Any]]:
    """A server's disk as symbols."""
    terms, values = readers(known, log)
    return {"log_term": _mine(i, "a disk", terms), "log_value": _mine(i, "a disk", values)}


def _mine(i: ServerId, what: str, read: Callable[..., Any]) -> Callable[..., Any]:
    """Something of server `i`, as a function of a server first; of other servers nothing is known."""
    return lambda n, *arguments: read(*arguments) if n == i else Unknown(f"{what} of {n}")


def _truth(i: ServerId, read: Callable[..., Any]) -> Callable[..., Any]:
    """A truth about server `i`, as a function of a server first; of other servers nothing is known."""
    return lambda n, *arguments: read(*arguments) if n == i else MAYBE


def symbols(known: Annotations, i: ServerId, s: Server, network: Network, now: Time | None) -> Symbols:
    """The model's state as far as the server and its claims show it."""
    return Symbols(
        {
            **_server(known, i, s),
            **_own_terms(known, i, s, network),
            **_volatile(i, s, network),
            **_network(network),
            "now": lambda: Unknown("the time") if now is None else now,
            **dict.fromkeys(GHOSTS, lambda *_: Ghost()),
        }
    )


def _server(known: Annotations, i: ServerId, s: Server) -> dict[str, Callable[..., Any]]:
    """The disk and the role."""
    values = {
        "current_term": s.durable.term,
        "log_length": s.durable.log.length,
        "commit_index": s.commit_index if is_leader(s) else 0,
        "snapshot_index": s.durable.snapshot,
        "base": s.durable.base,
        "last_applied": applied_index(s),
        "heard_at": s.heard_at,
        "heard_term": AtMost(s.current_term),
    }
    truths = {"candidate": is_candidate(i, s), "leader": is_leader(s), "transferring": s.transferring}
    return {
        **{name: _mine(i, name, lambda value=value: value) for name, value in values.items()},
        **{name: _truth(i, lambda truth=truth: truth) for name, truth in truths.items()},
        "voted_for": _truth(i, lambda candidate: s.durable.voted_for == candidate),
        **log_symbols(known, i, s.durable.log),
    }


def _own_terms(known: Annotations, i: ServerId, s: Server, network: Network) -> dict[str, Callable[..., Any]]:
    """The logs of the terms that the server leads or led; nobody else led the term of a candidate."""
    logs = {own.term: own.log for own in own_logs(s)}
    read = {term: readers(known, log) for term, log in logs.items()}
    foreign = Unknown("the log of a term that the server does not lead")
    return {
        "tlog_length": lambda t: logs[t].length if t in logs else foreign,
        "tlog_term": lambda t, j: read[t][0](j) if t in read else foreign,
        "tlog_value": lambda t, j: read[t][1](j) if t in read else foreign,
        "elected": lambda t: True if t in logs else MAYBE,
        "leader_of": lambda t: i if t in logs else Unknown("who leads another term"),
        "won": lambda n, t: True if n == i and t in logs else MAYBE,
        "lease_ended": lambda t: True if network.holds("lease_ended", t) else MAYBE,
    }


def _volatile(i: ServerId, s: Server, network: Network) -> dict[str, Callable[..., Any]]:
    """What a server heard and decided."""

    def decided(t: Term) -> Any:
        if t > s.current_term:
            return False
        return True if network.holds("decided", i, t) else MAYBE

    return {
        "decided": _truth(i, decided),
        "urged": _truth(i, lambda t: MAYBE),
        "round_heard": _truth(i, lambda h: True if network.reached(h.number, "round_heard", i, h.term) else MAYBE),
    }


def _network(network: Network) -> dict[str, Callable[..., Any]]:
    """What was sent and confirmed, as far as the claims say."""

    def held(symbol: str) -> Callable[..., Any]:
        return lambda *arguments: True if network.holds(symbol, *arguments) else MAYBE

    def answered(symbol: str) -> Callable[..., Any]:
        return lambda v, h: True if network.reached(h.number, symbol, v, h.term) else MAYBE

    return {
        **{symbol: held(symbol) for symbol in ("vote", "vote_request", "prevote", "prevote_request")},
        "sent": lambda m: True if network.sent(m) else MAYBE,
        "acknowledged": lambda n, t, j: True if network.reached(j, "acknowledged", n, t) else MAYBE,
        "heard": answered("heard"),
        "confirmed": answered("confirmed"),
        "round_begun": lambda h: True if network.reached(h.number, "round_begun", h.term) else MAYBE,
        "read_begun": held("read_begun"),
        "read_confirmed": lambda r: MAYBE,
        "applied": lambda n, j, w: True if network.applied(n, j, w) else MAYBE,
    }
