"""Where messages leave a server: numbered, recorded, and checked once more against the disk.

Every message passes `send`, which refuses to let out a claim that the disk does not support (ARCHITECTURE.md, section
3, rules 1 to 3). Callers wait for the disk by themselves; a refusal here is a fault of this program, and the process
must stop.
"""

from __future__ import annotations

from typing import Any, assert_never

import msgspec

from impl.raft.errors import DurabilityViolated
from impl.raft.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    Message,
    RequestVoteRequest,
    RequestVoteResponse,
)
from impl.raft.ready import SendEvent
from impl.raft.server import Server


def next_sequence(server: Server) -> int:
    """The number of the next message: unique in this incarnation."""
    server.sequence += 1
    return server.sequence


def send(server: Server, to: str, message: Message) -> None:
    """Hand `message` to the driver. Raises DurabilityViolated rather than let an unfounded claim out."""
    if not claim_is_durable(server, to, message):
        raise DurabilityViolated(f"{server.name} to {to}: {message} is not what the disk holds; stop this server")
    server.outbox.append((to, message))
    if server.trace:
        server.events.append(SendEvent(message.sequence, to, *_recorded(server, message)))


def claim_is_durable(server: Server, to: str, message: Message) -> bool:
    """Whether the disk holds what `message` says about this server."""
    disk = server.disk
    if message.term != disk.term or not disk.knows_term(message.term):
        return False
    match message:
        case AppendEntriesRequest():
            return True
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
        case AppendEntriesResponse():
            action = "append_entries_response"
        case RequestVoteRequest():
            action = "request_vote"
        case RequestVoteResponse():
            action = "vote_response"
        case _:
            assert_never(message)
    fields = msgspec.structs.asdict(message)
    del fields["sequence"]
    return action, fields
