"""Snapshots: the log is compacted, and who lacks what was forgotten gets the leader's snapshot instead.

The files are the driver's: it writes them, transfers them in chunks, verifies them, and replaces the state machine.
What is decided here is what they mean for the log. Source: Ongaro 2014, sections 5.1 and 5.3; etcd-io/raft.
*Deviation:* an InstallSnapshotRequest counts as received when its file is complete and durable; it is answered by an
AppendEntriesResponse.
"""

from __future__ import annotations

from impl.raft import following, membership, outbox
from impl.raft.configuration import decode_configuration, encode_configuration
from impl.raft.errors import Replacing
from impl.raft.messages import InstallSnapshotRequest
from impl.raft.progress import Progress
from impl.raft.ready import SnapshotMarker, SnapshotMeta
from impl.raft.server import Received, Server


def describe(server: Server) -> SnapshotMeta:
    """A snapshot of what is applied now, but for its file. Raises Replacing."""
    if server.restore is not None:
        raise Replacing(server.restore.index)
    log, index = server.log, server.last_applied
    configuration = log.configuration_at(index)
    digest = log.digest_at(index) if server.trace else ""
    return SnapshotMeta(
        index=index, term=log.term_at(index), configuration=encode_configuration(configuration),
        configuration_index=configuration.index, file="", checksum="", size=0, digest=digest,
    )  # fmt: skip


def take_snapshot(server: Server, meta: SnapshotMeta) -> None:
    """The disk has the state machine up to `meta.index`: the log may forget that (section 5.1)."""
    log = server.log
    server.snapshot = meta.index
    server.record("take_snapshot", index=meta.index, state_digest=meta.state_digest)
    base = meta.index - server.settings.snapshot_trailing
    if base > log.base:
        compact(server, base)
    base_digest = log.digest_at(log.base) if server.trace else ""
    server.disk.record_marker(marker_of(meta, log.base, log.base_term, base_digest))


def compact(server: Server, base: int) -> None:
    """Forget the entries up to `base`, which a snapshot covers (section 5.1)."""
    server.log.compact(base)
    server.record("compact", index=base)


def marker_of(meta: SnapshotMeta, base: int, base_term: int, base_digest: str) -> SnapshotMarker:
    """The record that makes a snapshot file count."""
    return SnapshotMarker(
        index=meta.index, term=meta.term, base=base, base_term=base_term, configuration=meta.configuration,
        configuration_index=meta.configuration_index, file=meta.file, checksum=meta.checksum, size=meta.size,
        digest=meta.digest, base_digest=base_digest,
    )  # fmt: skip


def look_after(server: Server, progress: Progress) -> None:
    """With each heartbeat: a peer that acknowledges no snapshot that it has got, or that is alive and gets nothing, is
    tried anew.
    """
    if progress.pending_snapshot:
        arrived = progress.snapshot_sent_at
        if arrived is not None and server.ticks - arrived >= server.settings.election_ticks_min:
            progress.no_snapshot()
    elif server.ticks - progress.answered_at < server.settings.election_ticks_min:
        progress.probe_due |= progress.next_index <= server.log.base


def send_snapshots(server: Server) -> None:
    """Send the snapshot on the disk to whom it is due (section 5.3), if it reaches to where the log begins."""
    marker = server.disk.durable_marker
    if marker is None or marker.index < server.log.base or not server.disk.knows_term(server.term):
        return
    for peer, progress in server.progress.items():
        if progress.snapshot_due and not progress.pending_snapshot:
            progress.snapshot_due = False
            install_snapshot(server, peer, marker)
            progress.send_snapshot(marker.index)


def install_snapshot(server: Server, to: str, marker: SnapshotMarker) -> None:
    """Have the driver transfer the snapshot to a peer (section 5.3)."""
    sequence = outbox.next_sequence(server)
    request = InstallSnapshotRequest(
        sequence, server.term, marker.index, marker.term, marker.size, marker.checksum, marker.configuration,
        marker.configuration_index, server.round,
    )  # fmt: skip
    outbox.send_snapshot(server, to, request)


def handle_install_snapshot_request(
    server: Server, received: Received, request: InstallSnapshotRequest, meta: SnapshotMeta
) -> bool:
    """Follow the leader; replace log and state by its snapshot, unless it says nothing new (section 5.3).

    A log that holds the snapshot's last entry is kept with all that follows. The request must be of the current term.
    Returns whether the file is needed.
    """
    following.follow(server, received)
    server.round = max(server.round, request.round)
    last = request.last_index
    held = holds_last_entry(server, request)
    installed = not held and is_news(server, request)
    if installed:
        replace_log(server, meta)
    if held or installed:
        server.commit_index = max(server.commit_index, last)
        server.leader_match = max(server.leader_match, last)
        server.acknowledgement_owed = True
    server.record_timed_handler("handle_install_snapshot_request", received)
    return installed


def holds_last_entry(server: Server, request: InstallSnapshotRequest) -> bool:
    """Whether the log holds the last entry that the snapshot covers: then it holds all of them, and what follows must
    not be lost.
    """
    return server.log.has(request.last_index, request.last_term)


def is_news(server: Server, request: InstallSnapshotRequest) -> bool:
    """Whether the snapshot covers more than the state machine and the newest snapshot do: neither may go back."""
    return request.last_index > max(server.last_applied, server.snapshot)


def replace_log(server: Server, meta: SnapshotMeta) -> None:
    """Nothing is left of the log but the snapshot. What was committed before is a part of it."""
    configuration = decode_configuration(meta.configuration, meta.configuration_index)
    server.log.replace_by_snapshot(meta.index, meta.term, configuration, meta.digest)
    server.disk.record_replacement(marker_of(meta, meta.index, meta.term, meta.digest), server.commit_index)
    server.snapshot = meta.index
    server.restore, server.restore_announced = meta, False
    membership.adopt(server)


def due_restore(server: Server) -> SnapshotMeta | None:
    """The snapshot that must replace the state machine now: it is on disk, with all that refers to it."""
    meta, marker = server.restore, server.disk.durable_marker
    if meta is None or server.restore_announced or marker is None or marker.index < meta.index:
        return None
    server.restore_announced = True
    return meta


def restore_snapshot(server: Server, index: int, state_digest: str) -> None:
    """The state machine was replaced by the snapshot (section 5.3)."""
    server.restore = None
    server.last_applied = index
    server.record("restore_snapshot", index=index, state_digest=state_digest)
