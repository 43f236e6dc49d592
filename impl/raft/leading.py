"""The leader's side of log replication: append, send slices, count what is on disk, commit.

Entries travel in parallel with the leader's own write (Ongaro 2014, section 10.2.1): to its own disk a leader is one
of its followers. Slices are pipelined and batched (section 10.2.2). Source: sections 3.5, 3.6.2; raft.tla
ClientRequest, AppendEntries, HandleAppendEntriesResponse, AdvanceCommitIndex.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence

from impl.raft import membership, outbox, reads, snapshots, transfer
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
    for peer, progress in server.progress.items():
        if progress.replicating:
            replicate_to(server, peer, progress)
        elif progress.probe_due and not progress.pending_snapshot:
            progress.probe_due = False
            if not lacks_what_is_forgotten(server, progress):
                progress.probed = send_slice(server, peer, progress)
        if progress.message_due:
            previous = heartbeat_index(server, progress)
            append_entries(server, peer, progress, previous, previous)


def replicate_to(server: Server, peer: str, progress: Progress) -> None:
    """Send slices without waiting for answers, until the peer was sent everything or too much is in flight."""
    settings = server.settings
    while progress.next_index <= server.log.last_index:
        if not progress.may_send(settings.inflight_messages_max, settings.inflight_bytes_max):
            return
        if lacks_what_is_forgotten(server, progress):
            return
        previous = progress.next_index - 1
        last = send_slice(server, peer, progress)
        progress.sent(last, server.log.bytes_between(previous, last))


def lacks_what_is_forgotten(server: Server, progress: Progress) -> bool:
    """Whether the next entries for a peer are not in the log any more; then it needs a snapshot (section 5.3)."""
    if progress.next_index > server.log.base:
        return False
    progress.snapshot_due = True
    return True


def send_slice(server: Server, peer: str, progress: Progress) -> int:
    """Send one bounded slice from the peer's next index on; returns its last index."""
    settings = server.settings
    previous = progress.next_index - 1
    last = server.log.last_of_batch(previous, settings.append_entries_max, settings.append_bytes_max)
    append_entries(server, peer, progress, previous, last)
    return last


def append_entries(server: Server, peer: str, progress: Progress, previous: int, last: int) -> None:
    """Send the slice (previous, last], which may be empty (section 3.5; raft.tla AppendEntries)."""
    log = server.log
    commit_index = min(server.commit_index, last)
    message = AppendEntriesRequest(
        outbox.next_sequence(server), server.term, previous, log.term_at(previous), commit_index, server.round,
        log.slice(previous, last),
    )  # fmt: skip
    outbox.send(server, peer, message)
    progress.sent_commit = commit_index
    progress.message_due = False


def heartbeat(server: Server) -> None:
    """Every peer hears from its leader, whether there is something to send or not (section 3.4). It is a new round."""
    reads.begin_round(server)
    for progress in server.progress.values():
        progress.message_due = True
        if not progress.replicating:
            snapshots.look_after(server, progress)


def heartbeat_index(server: Server, progress: Progress) -> int:
    """After which entry a message without entries stands: where the peer should be, but not where the log has forgotten
    the term.
    """
    return max(progress.next_index - 1, server.log.base)


def hears_quorum(server: Server, ticks: int) -> bool:
    """Whether a quorum answered this leader within `ticks`, or it leads for no longer than that (section 6.2)."""
    answered = [progress.answered_at for progress in server.voting]
    if server.is_voter:
        answered.append(server.ticks)
    return server.ticks - max(reached_by_quorum(answered), server.led_since) <= ticks


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
    progress.answered_at = server.ticks
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
    if received.source == server.transferee:
        transfer.ask_when_ready(server)
    advance_commit_index(server)
    reads.confirm_reads(server)


def back_off(server: Server, progress: Progress, response: AppendEntriesResponse) -> None:
    """Probe where the logs may meet: skip all of a conflicting term at once (section 3.5, the optimisation)."""
    meeting, _ = server.log.find_conflict(response.conflict_index, response.conflict_term)
    progress.probe(min(meeting + 1, response.match_index))
    progress.probe_due = True


def quorum_match(server: Server) -> int:
    """The greatest index that the disks of a quorum hold; the leader counts its own disk, not its memory (rule 3)."""
    matches = [progress.match_index for progress in server.voting]
    if server.is_voter:
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
        membership.after_commit(server)
