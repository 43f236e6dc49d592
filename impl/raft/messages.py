"""Raft's messages as they travel between servers, and the log entry that they carry.

Requests and responses are separate one-way messages (Ongaro 2014, figure 3.1; raft.tla). Source, destination and the
source's incarnation are properties of the connection, not fields; `sequence` completes the identity of a message,
NODE/INCARNATION/SEQUENCE (ARCHITECTURE.md, section 5). A message must not be changed or re-sent once it was handed out:
whoever repeats one builds a new one, with a new sequence.

Wire form: msgpack arrays whose first element is the tag. Appending a field with a default keeps old peers readable.
"""

from __future__ import annotations

from typing import Final

import msgspec


class Entry(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One entry of the replicated log. Indexes start at 1; index 0 is the genesis, which no message carries."""

    index: int
    term: int
    """Term of the leader that created the entry."""
    payload: bytes
    """A command, opaque to Raft (ARCHITECTURE.md, section 7)."""


class RequestVoteRequest(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=1):
    """A candidate asks for a vote; its last entry says how up-to-date its log is (Ongaro 2014, section 3.6.1)."""

    sequence: int
    term: int
    last_log_index: int
    last_log_term: int


class RequestVoteResponse(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=2):
    """The answer to a vote request. A granted vote is on the voter's disk before this leaves it."""

    sequence: int
    term: int
    vote_granted: bool


class AppendEntriesRequest(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=3):
    """A slice of the leader's log: the entries after `prev_log_index`, in order, without gaps. None is a heartbeat."""

    sequence: int
    term: int
    prev_log_index: int
    prev_log_term: int
    commit_index: int
    """min(the leader's commit index, the index of the last entry of this slice)."""
    round: int
    """Newest confirmation round of the leader (Ongaro 2014, section 6.4)."""
    entries: list[Entry]


class AppendEntriesResponse(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=4):
    """success: the sender's *durable* log equals the leader's up to `match_index`.

    A rejection (not success) says which `prev_log_index` it rejects, in `match_index`, and where to look next: the
    greatest index at which the sender's log may agree (`conflict_index`) and the term there (`conflict_term`).
    """

    sequence: int
    term: int
    success: bool
    match_index: int
    round: int
    """Highest confirmation round that the sender has seen in this term."""
    conflict_index: int = 0
    conflict_term: int = 0


Message = RequestVoteRequest | RequestVoteResponse | AppendEntriesRequest | AppendEntriesResponse
"""What one server sends another."""

encode: Final = msgspec.msgpack.Encoder().encode
"""The wire form of a message."""
decode: Final = msgspec.msgpack.Decoder(Message).decode
"""The message of a wire form. Raises msgspec.DecodeError (ValidationError among them) for anything else."""
