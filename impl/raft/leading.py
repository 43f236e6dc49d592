"""The leader's side of log replication: append, send slices, count what is on disk, commit.

Entries travel in parallel with the leader's own write (Ongaro 2014, section 10.2.1): to its own disk a leader is one
of its followers. Slices are pipelined and batched (section 10.2.2). Source: sections 3.5, 3.6.2; raft.tla
ClientRequest, AppendEntries, HandleAppendEntriesResponse, AdvanceCommitIndex.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence

from impl.raft import outbox, reads
from impl.raft.errors import ProtocolViolated
from impl.raft.messages import AppendEntriesRequest, AppendEntriesResponse, Entry
from impl.raft.progress import Progress
from impl.raft.quorum import reached_by_quorum
from impl.raft.ready import Role
from impl.raft.server import Received, Server


def client_request(server: Server, payloads: Sequence[bytes]) -> int:
    """Append one entry of the current term for each payload; returns the first index (section 3.5; raft.tla
    ClientRequest).
    """
    first, term = server.log.last_index + 1, server.term
    entries = [Entry(index, term, payload) for index, payload in enumerate(payloads, first)]
    server.log.extend(entries)
    server.disk.record_entries(entries)
    if server.trace:
        recorded = [[entry.index, b64encode(entry.payload).decode()] for entry in entries]
        server.record("client_request", entries=recorded)
    return first


def replicate(server: Server) -> None:
    """Send every peer what it lacks and may be sent now."""
    reads.start_round(server)
    for peer in server.peers:
        progress = server.progress[peer]
        if progress.replicating:
            replicate_to(server, peer, progress)
        elif progress.probe_due:
            progress.probe_due = False
            progress.probed = send_slice(server, peer, progress)
        if progress.message_due:
            append_entries(server, peer, progress, progress.next_index - 1)


def replicate_to(server: Server, peer: str, progress: Progress) -> None:
    """Send slices without waiting for answers, until the peer was sent everything or too much is in flight."""
    settings = server.settings
    while progress.next_index <= server.log.last_index:
        if not progress.may_send(settings.inflight_messages_max, settings.inflight_bytes_max):
            return
        previous = progress.next_index - 1
        last = send_slice(server, peer, progress)
        progress.sent(last, server.log.bytes_between(previous, last))


def send_slice(server: Server, peer: str, progress: Progress) -> int:
    """Send one bounded slice from the peer's next index on; returns its last index."""
    settings = server.settings
    last = server.log.last_of_batch(progress.next_index - 1, settings.append_entries_max, settings.append_bytes_max)
    append_entries(server, peer, progress, last)
    return last


def append_entries(server: Server, peer: str, progress: Progress, last: int) -> None:
    """Send the slice (next_index - 1, last], which may be empty (section 3.5; raft.tla AppendEntries)."""
    log, previous = server.log, progress.next_index - 1
    commit_index = min(server.commit_index, last)
    message = AppendEntriesRequest(
        outbox.next_sequence(server), server.term, previous, log.term_at(previous), commit_index, server.round,
        log.slice(previous, last),
    )  # fmt: skip
    outbox.send(server, peer, message)
    progress.sent_commit = commit_index
    progress.sent_round = server.round
    progress.message_due = False


def heartbeat(server: Server) -> None:
    """Every peer hears from its leader, whether there is something to send or not (section 3.4)."""
    for peer in server.peers:
        server.progress[peer].message_due = True


def spread_commit_index(server: Server) -> bool:
    """Tell peers of commits that no entry has told them of; at most once a tick. Returns whether there is something
    to tell.
    """
    found = False
    for progress in server.progress.values():
        if progress.replicating and progress.sent_commit < min(server.commit_index, progress.next_index - 1):
            progress.message_due = found = True
    return found


def handle_append_entries_response(server: Server, received: Received, response: AppendEntriesResponse) -> None:
    """Learn what the peer's disk holds, or where to look for it (section 3.5; raft.tla HandleAppendEntriesResponse).

    The response must be of the current term. Raises ProtocolViolated if it acknowledges what was never sent.
    """
    progress = server.progress.get(received.source)
    if progress is None:
        return
    if response.success:
        if response.match_index > server.log.last_index:
            raise ProtocolViolated(
                f"{received.source} acknowledges entry {response.match_index} of {server.log.last_index}"
            )
        progress.acknowledge(response.match_index)
    elif not progress.is_stale_rejection(response.match_index):
        back_off(server, progress, response)
    progress.acked_round = max(progress.acked_round, response.round)
    server.record_handler("handle_append_entries_response", received)
    advance_commit_index(server)
    reads.confirm_reads(server)


def back_off(server: Server, progress: Progress, response: AppendEntriesResponse) -> None:
    """Probe where the logs may meet: skip all of a conflicting term at once (section 3.5, the optimisation)."""
    meeting, _ = server.log.find_conflict(response.conflict_index, response.conflict_term)
    progress.probe(min(meeting + 1, response.match_index))
    progress.probe_due = True


def quorum_match(server: Server) -> int:
    """The greatest index that the disks of a quorum hold; the leader counts its own disk, not its memory (rule 3)."""
    matches = [progress.match_index for progress in server.progress.values()]
    matches.append(server.disk.durable_up_to(server.log.last_index))
    return reached_by_quorum(matches)


def is_of_current_term(server: Server, index: int) -> bool:
    """Whether the entry is of the leader's own term: only such an entry is committed by counting (section 3.6.2,
    figure 3.7).
    """
    return server.log.term_at(index) == server.term


def advance_commit_index(server: Server) -> None:
    """Commit what a quorum holds (section 3.6.2; raft.tla AdvanceCommitIndex)."""
    if server.role is not Role.LEADER:
        return
    index = quorum_match(server)
    if index > server.commit_index and is_of_current_term(server, index):
        server.commit_index = index
        server.record("advance_commit_index", index=index)
