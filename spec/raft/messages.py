"""Raft's messages. One type each; identity is content. They travel on datagram channels: late, twice, or never.

Source: Ongaro 2014, figures 3.1 and 5.3 (RPCs), sections 3.10 (TimeoutNow) and 9.6 (pre-vote). *Deviation:* requests
and responses are separate one-way messages, as in raft.tla; `round` confirms leadership for reads (section 6.4); a
snapshot is one message, and answered as an append.
"""

from __future__ import annotations

import msgspec

from spec.raft.log import Log
from spec.raft.types import Entry, Index, ServerId, Term


class PreVoteRequest(msgspec.Struct, frozen=True, tag=True):
    """Who would vote for me? `term` is the term in which the sender would campaign; it changes nobody's term."""

    term: Term
    source: ServerId
    dest: ServerId
    last_log_index: Index
    last_log_term: Term


class PreVoteResponse(msgspec.Struct, frozen=True, tag=True):
    """The answer to a pre-vote request: `term` is the term asked for if granted, else the sender's current term."""

    term: Term
    source: ServerId
    dest: ServerId
    granted: bool


class RequestVoteRequest(msgspec.Struct, frozen=True, tag=True):
    """A candidate asks for a vote; the last entry says how up-to-date its log is."""

    term: Term
    source: ServerId
    dest: ServerId
    last_log_index: Index
    last_log_term: Term
    urged_by: Term = 0
    """The term whose leader's lease has ended, so that nobody who heard from it need wait; 0: none."""


class RequestVoteResponse(msgspec.Struct, frozen=True, tag=True):
    """The answer to a vote request."""

    term: Term
    source: ServerId
    dest: ServerId
    vote_granted: bool


class AppendEntriesRequest(msgspec.Struct, frozen=True, tag=True):
    """A slice of the leader's log: the entries after `prev_log_index`; none is a heartbeat."""

    term: Term
    source: ServerId
    dest: ServerId
    prev_log_index: Index
    prev_log_term: Term
    entries: tuple[Entry, ...]
    commit_index: Index
    round: int


class AppendEntriesResponse(msgspec.Struct, frozen=True, tag=True):
    """success: the sender's durable log equals the leader's up to `match_index`.

    Otherwise `match_index` is a hint where to try next, without meaning for safety.
    """

    term: Term
    source: ServerId
    dest: ServerId
    success: bool
    match_index: Index
    round: int


class InstallSnapshotRequest(msgspec.Struct, frozen=True, tag=True):
    """The state machine's state after `last_index` (Ongaro 2014, figure 5.3).

    `log` is a history variable, the prefix of length `last_index`: it stands for that state, and its latest
    configuration is the one that the snapshot carries. No guard reads its entries.
    """

    term: Term
    source: ServerId
    dest: ServerId
    last_index: Index
    last_term: Term
    log: Log
    round: int


class TimeoutNow(msgspec.Struct, frozen=True, tag=True):
    """A leader that transfers its leadership asks `dest` to campaign at once (Ongaro 2014, section 3.10)."""

    term: Term
    source: ServerId
    dest: ServerId


class LeaseEnded(msgspec.Struct, frozen=True, tag=True):
    """Who led `term` leads it no more. Nobody really sends it: the kernel's evidence that the leader's process has
    ended stands for it (ARCHITECTURE.md, section 3).
    """

    term: Term
    source: ServerId
    dest: ServerId


Message = (
    PreVoteRequest
    | PreVoteResponse
    | RequestVoteRequest
    | RequestVoteResponse
    | AppendEntriesRequest
    | AppendEntriesResponse
    | InstallSnapshotRequest
    | TimeoutNow
    | LeaseEnded
)
