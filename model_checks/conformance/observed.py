"""The spec's servers, disk points and messages as traces record them: what the replay compares.

Written from ARCHITECTURE.md, section 5. Every field of a line that says something of the protocol is here, so that
none is compared by accident only.
"""

from __future__ import annotations

from typing import assert_never

from model_checks.conformance.entries import digest_at, digest_of
from model_checks.conformance.trace import DiskPoint, Send, State
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
from spec.raft.types import Point, Server


def observed(s: Server) -> State:
    """The spec's server as a trace records it."""
    memory = s.memory
    log = memory.log
    return State(
        s.role,
        memory.term,
        memory.voted_for,
        s.leader_id,
        s.commit_index,
        s.last_applied,
        log.length,
        log.last_term,
        digest_of(log),
        s.leader_match,
        s.round,
        s.votes,
        s.match_index,
        memory.snapshot,
        memory.base,
        s.heard_at,
        s.pre_votes,
        s.lease_ended,
        s.urged_by,
        s.transferring,
        log.configuration_index,
    )


def described_point(point: Point) -> DiskPoint:
    """A disk point as traces write it."""
    log = point.log
    return DiskPoint(point.term, point.voted_for, log.length, digest_of(log), point.snapshot, point.base)


def recovered_point(state: State) -> DiskPoint:
    """What a header says was found on the disk."""
    return DiskPoint(state.term, state.voted_for, state.last_index, state.digest, state.snapshot, state.base)


def send_arguments(line: Send) -> tuple[object, ...] | None:
    """The parameters of the spec's send, from what was recorded (None where a field is missing); None if it is no
    send.
    """
    fields = line.message
    match line.action:
        case "append_entries":
            return (line.to, fields.get("prev_log_index"), fields.get("last_log_index"))
        case "append_entries_response":
            return (line.to, fields.get("success"), fields.get("match_index"))
        case "vote_response":
            return (line.to, fields.get("vote_granted"))
        case "request_vote" | "request_pre_vote" | "install_snapshot" | "timeout_now":
            return (line.to,)
        case _:
            return None


def recorded_fields(m: Message, log: Log) -> dict[str, int | bool | str]:
    """What the trace must say of a message."""
    match m:
        case AppendEntriesRequest():
            last = m.prev_log_index + len(m.entries)
            return {
                "term": m.term,
                "prev_log_index": m.prev_log_index,
                "prev_log_term": m.prev_log_term,
                "last_log_index": last,
                "digest": digest_at(log, last),
                "commit_index": m.commit_index,
                "round": m.round,
            }
        case AppendEntriesResponse():
            return {"term": m.term, "success": m.success, "match_index": m.match_index, "round": m.round}
        case RequestVoteRequest():
            last_index, last_term = m.last_log_index, m.last_log_term
            return {"term": m.term, "last_log_index": last_index, "last_log_term": last_term, "urged_by": m.urged_by}
        case RequestVoteResponse():
            return {"term": m.term, "vote_granted": m.vote_granted}
        case PreVoteRequest():
            return {"term": m.term, "last_log_index": m.last_log_index, "last_log_term": m.last_log_term}
        case PreVoteResponse():
            return {"term": m.term, "vote_granted": m.granted}
        case InstallSnapshotRequest():
            return {
                "term": m.term,
                "last_index": m.last_index,
                "last_term": m.last_term,
                "digest": digest_of(m.log),
                "round": m.round,
            }
        case TimeoutNow() | LeaseEnded():
            return {"term": m.term}
        case _:
            assert_never(m)
