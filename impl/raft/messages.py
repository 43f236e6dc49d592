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
    """A command, opaque to Raft (ARCHITECTURE.md, section 7), or a configuration (`configuration`)."""
    kind: int = 0
    """COMMAND or CONFIGURATION, of `configuration`."""


class RequestVoteRequest(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=1):
    """A candidate asks for a vote; its last entry says how up-to-date its log is (Ongaro 2014, section 3.6.1)."""

    sequence: int
    term: int
    last_log_index: int
    last_log_term: int
    urged_by: int = 0
    """The term whose leader is known to answer by its lease no more, so that nobody needs to wait; 0: none."""


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


class PreVoteRequest(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=5):
    """Whoever would campaign asks whether it could win (Ongaro 2014, section 9.6). It changes nothing anywhere."""

    sequence: int
    term: int
    """The term in which the sender would campaign: one above its own."""
    last_log_index: int
    last_log_term: int


class PreVoteResponse(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=6):
    """Whether the sender would vote so."""

    sequence: int
    term: int
    """The term asked for, if granted; else the sender's own."""
    vote_granted: bool


class InstallSnapshotRequest(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=7):
    """The state machine up to `last_index`, in the place of entries that the leader has no more (Ongaro 2014, section
    5.1).

    The file itself travels in chunks beside it; the request counts as received when the file is complete, verified
    and durable. It is answered by an AppendEntriesResponse.
    """

    sequence: int
    term: int
    last_index: int
    last_term: int
    size: int
    """Of the file, in bytes."""
    checksum: str
    """BLAKE2b-256 of the file, in hex."""
    configuration: bytes
    """Payload of the configuration in force at `last_index`."""
    configuration_index: int
    round: int
    """As in AppendEntriesRequest."""


class TimeoutNow(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=8):
    """The leader, whose lease ended for good, wants the receiver to campaign at once (Ongaro 2014, section 3.10)."""

    sequence: int
    term: int


Message = (
    RequestVoteRequest
    | RequestVoteResponse
    | AppendEntriesRequest
    | AppendEntriesResponse
    | PreVoteRequest
    | PreVoteResponse
    | InstallSnapshotRequest
    | TimeoutNow
)
"""What one server sends another."""

encode: Final = msgspec.msgpack.Encoder().encode
"""The wire form of a message."""
decode: Final = msgspec.msgpack.Decoder(Message).decode
"""The message of a wire form. Raises msgspec.DecodeError (ValidationError among them) for anything else."""
