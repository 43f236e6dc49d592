"""Raft's messages. One type each; identity is content. They travel on datagram channels: late, twice, or never.

Source: Ongaro 2014, figure 3.1 (RPCs). *Deviation:* requests and responses are separate one-way messages, as in
raft.tla; `round` confirms leadership for reads (section 6.4).
"""

from __future__ import annotations

import msgspec

from spec.raft.types import Entry, Index, ServerId, Term


class RequestVoteRequest(msgspec.Struct, frozen=True, tag=True):
    """A candidate asks for a vote; the last entry says how up-to-date its log is."""

    term: Term
    source: ServerId
    dest: ServerId
    last_log_index: Index
    last_log_term: Term


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


Message = RequestVoteRequest | RequestVoteResponse | AppendEntriesRequest | AppendEntriesResponse
