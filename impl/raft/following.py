"""The follower's side of log replication: take slices, acknowledge what is on disk.

Source: Ongaro 2014, section 3.5; raft.tla HandleAppendEntriesRequest. *Deviation:* handling and acknowledging are
separate actions: the slice is in memory at once, the acknowledgement says what the disk holds (ARCHITECTURE.md,
section 3, rule 3). One acknowledgement stands for all the slices that arrived before it.
"""

from __future__ import annotations

from impl.raft import membership, outbox
from impl.raft.errors import ProtocolViolated
from impl.raft.messages import AppendEntriesRequest, AppendEntriesResponse, Entry
from impl.raft.ready import Role
from impl.raft.server import Received, Rejection, Server


def handle_append_entries_request(server: Server, received: Received, request: AppendEntriesRequest) -> None:
    """Take the leader's slice if it fits (section 3.5; raft.tla HandleAppendEntriesRequest).

    The request must be of the current term. Raises ProtocolViolated if this server leads the term itself, or a
    committed entry would be overwritten.
    """
    follow(server, received)
    server.round = max(server.round, request.round)
    previous = request.prev_log_index
    if passes_consistency_check(server, request):
        match = previous + len(request.entries)
        take_entries(server, request)
        server.leader_match = max(server.leader_match, match)
        server.commit_index = max(server.commit_index, min(request.commit_index, match))
        server.acknowledgement_owed = True
    else:
        hint = server.log.find_conflict(previous, request.prev_log_term)
        server.rejections_owed[received.source] = Rejection(previous, *hint)
    server.record_timed_handler("handle_append_entries_request", received)


def follow(server: Server, received: Received) -> None:
    """There is a leader of the current term: do not compete with it (section 3.4), nor elect another for a while
    (section 4.2.3).
    """
    leader = received.source
    if server.leader_id not in (None, leader):
        raise ProtocolViolated(f"{leader} and {server.leader_id} both lead term {server.term}: two leaders in one term")
    if server.leader_id != leader:
        server.role = Role.FOLLOWER
        server.leader_id = leader
        server.leader_incarnation = incarnation_of(received.message_id)
        server.votes.clear()
        server.changed_role(f"{leader} leads term {server.term}")
    server.asking = False
    server.unasked.clear()
    server.pre_votes.clear()
    server.heard_at = server.now_ns
    server.reset_election_timer()


def incarnation_of(message_id: str) -> int:
    """Of NODE/INCARNATION/SEQUENCE; 0 if nobody gave the message an identity."""
    return int(message_id.split("/")[1]) if message_id else 0


def passes_consistency_check(server: Server, request: AppendEntriesRequest) -> bool:
    """Whether this log holds the entry just before the slice (section 3.5, "consistency check"). What is forgotten is
    committed, so it agrees with every leader's log.
    """
    log, previous = server.log, request.prev_log_index
    return previous < log.base or log.has(previous, request.prev_log_term)


def take_entries(server: Server, request: AppendEntriesRequest) -> None:
    """Append what is missing; cut the log only where it conflicts (figure 3.1, AppendEntries, steps 3 and 4)."""
    entries, log = request.entries, server.log
    if not entries:
        return
    previous = request.prev_log_index
    if entries[0].index != previous + 1 or entries[-1].index != previous + len(entries):
        raise ProtocolViolated(f"a slice after index {previous} has entries {entries[0].index}..{entries[-1].index}")
    known = count_known(server, entries)
    if known:
        entries = entries[known:]
        if not entries:
            return
    if entries[0].index <= log.last_index:
        cut(server, entries[0].index - 1)
    log.extend(entries)
    server.disk.record_entries(entries)
    if log.configurations[-1] is not server.configuration:
        membership.adopt(server)


def count_known(server: Server, entries: list[Entry]) -> int:
    """How many of a slice's first entries this log has already, or has forgotten: an old slice must not cut a log that
    has moved on.
    """
    log, known = server.log, 0
    if entries[0].index <= log.last_index:
        known = min(max(0, log.base - entries[0].index + 1), len(entries))
        while known < len(entries) and log.has(entries[known].index, entries[known].term):
            known += 1
    return known


def cut(server: Server, last: int) -> None:
    """Drop the entries after `last`, which conflict with the leader's. Committed ones never do."""
    if last < server.commit_index:
        raise ProtocolViolated(
            f"the leader of term {server.term} conflicts at index {last + 1}, "
            f"but {server.name} knows that everything up to {server.commit_index} is committed"
        )
    server.log.cut(last)
    server.disk.record_cut(last, server.log.last_term)


def reject_stale(server: Server, source: str, index: int) -> None:
    """Refuse a leader's request of an older term, so that it learns the current one (section 3.3)."""
    server.rejections_owed[source] = Rejection(index, 0, 0)


def durable_match(server: Server) -> int:
    """How much of the leader's log this server's disk holds: all that an acknowledgement may cover (rule 3)."""
    return server.disk.durable_up_to(server.leader_match)


def append_entries_response(server: Server) -> None:
    """Acknowledge what is durable and new, and reject what did not fit, once the disk knows the term.

    Nothing is acknowledged while the snapshot that replaced the log is not on the disk: of what it stands for, no part
    can be compared.
    """
    if not server.disk.knows_term(server.term):
        return
    if server.acknowledgement_owed and server.leader_id is not None and server.disk.durable_index >= server.log.base:
        match = durable_match(server)
        everything = match == server.leader_match
        if everything or match > server.acked_match or server.round > server.acked_round:
            _respond(server, server.leader_id, success=True, match=match)
            server.acked_match, server.acked_round = match, server.round
            server.acknowledgement_owed = not everything
    if server.rejections_owed:
        for source in sorted(server.rejections_owed):
            rejection = server.rejections_owed[source]
            _respond(server, source, success=False, match=rejection.rejected, rejection=rejection)
        server.rejections_owed.clear()


def _respond(server: Server, to: str, *, success: bool, match: int, rejection: Rejection | None = None) -> None:
    conflict = (rejection.conflict_index, rejection.conflict_term) if rejection else (0, 0)
    sequence = outbox.next_sequence(server)
    outbox.send(server, to, AppendEntriesResponse(sequence, server.term, success, match, server.round, *conflict))
