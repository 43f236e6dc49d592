"""Where messages leave a server: numbered, recorded, and checked once more against the disk.

Every message passes `send`, which refuses to let out a claim that the disk does not support (ARCHITECTURE.md, section
3, rules 1 to 3). Callers wait for the disk by themselves; a refusal here is a fault of this program, and the process
must stop.
"""

from __future__ import annotations

from typing import Any, Final, assert_never

import msgspec

from impl.raft.errors import DurabilityViolated
from impl.raft.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    InstallSnapshotRequest,
    Message,
    PreVoteRequest,
    PreVoteResponse,
    RequestVoteRequest,
    RequestVoteResponse,
    TimeoutNow,
)
from impl.raft.ready import SendEvent
from impl.raft.server import Server


def next_sequence(server: Server) -> int:
    """The number of the next message: unique in this incarnation."""
    server.sequence += 1
    return server.sequence


def send(server: Server, to: str, message: Message) -> None:
    """Hand `message` to the driver. Raises DurabilityViolated rather than let an unfounded claim out."""
    check_and_record(server, to, message)
    server.outbox.append((to, message))


def send_snapshot(server: Server, to: str, request: InstallSnapshotRequest) -> None:
    """Have the driver transfer a snapshot. Raises DurabilityViolated."""
    check_and_record(server, to, request)
    server.snapshots.append((to, request))


def check_and_record(server: Server, to: str, message: Message) -> None:
    """What leaves is what the disk holds, and is in the trace."""
    if not claim_is_durable(server, to, message):
        raise DurabilityViolated(f"{server.name} to {to}: {message} is not what the disk holds; stop this server")
    if server.trace:
        server.events.append(SendEvent(message.sequence, to, *_recorded(server, message)))


def claim_is_durable(server: Server, to: str, message: Message) -> bool:
    """Whether the disk holds what `message` says about this server.

    Who asks for a pre-vote, and who grants one, speaks of a term that may never be.
    """
    disk = server.disk
    match message:
        case PreVoteRequest():
            return message.term == disk.term + 1 and disk.knows_everything()
        case PreVoteResponse() if message.vote_granted:
            return message.term > disk.term
    if message.term != disk.term or not disk.knows_term(message.term):
        return False
    match message:
        case AppendEntriesRequest() | PreVoteResponse() | TimeoutNow():
            return True
        case InstallSnapshotRequest():
            marker = disk.durable_marker
            return marker is not None and (marker.index, marker.term) == (message.last_index, message.last_term)
        case AppendEntriesResponse():
            if not message.success:
                return True
            match = message.match_index
            return to == server.leader_id and match <= server.leader_match and disk.durable_up_to(match) == match
        case RequestVoteRequest():
            return disk.knows_vote(message.term, server.name)
        case RequestVoteResponse():
            return not message.vote_granted or disk.knows_vote(message.term, to)
        case _:
            assert_never(message)


def _recorded(server: Server, message: Message) -> tuple[str, dict[str, Any]]:
    """The spec's name for sending `message`, and the fields that a trace records."""
    match message:
        case AppendEntriesRequest():
            last = message.prev_log_index + len(message.entries)
            return "append_entries", {
                "term": message.term,
                "prev_log_index": message.prev_log_index,
                "prev_log_term": message.prev_log_term,
                "last_log_index": last,
                "digest": server.log.digest_at(last),
                "commit_index": message.commit_index,
                "round": message.round,
            }
        case InstallSnapshotRequest():
            return "install_snapshot", {
                "term": message.term,
                "last_index": message.last_index,
                "last_term": message.last_term,
                "digest": server.log.digest_at(message.last_index),
                "round": message.round,
            }
    fields = msgspec.structs.asdict(message)
    del fields["sequence"]
    return SENT_BY[type(message)], fields


SENT_BY: Final[dict[type, str]] = {
    AppendEntriesResponse: "append_entries_response",
    PreVoteRequest: "request_pre_vote",
    PreVoteResponse: "handle_pre_vote_request",
    RequestVoteRequest: "request_vote",
    RequestVoteResponse: "vote_response",
    TimeoutNow: "timeout_now",
}
"""The action of the spec that sends a message of which every field is recorded."""
