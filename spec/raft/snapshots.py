"""Snapshots: the log is compacted, and who is behind the leader's base gets its snapshot. See `actions`.

`snapshot` says what the state machine's state on disk covers, `base` what of the log is forgotten; both only grow. The
forgotten entries stay in the spec's logs as *history*, which nothing here reads but to say which state a snapshot is.

Sources: Ongaro 2014, sections 5.1 (compaction) and 5.3 (InstallSnapshot, figure 5.3). *Deviations:* a snapshot is sent
as one message, and the write that installs it is one point; chunks are the implementation's.
"""

from __future__ import annotations

from msgspec.structs import replace

from spec.raft.messages import InstallSnapshotRequest
from spec.raft.replication import following
from spec.raft.state import issue
from spec.raft.types import Constants, Index, Outcome, Restored, Role, Server, ServerId, Time


def take_snapshot(c: Constants, i: ServerId, s: Server, index: Index) -> Outcome | None:
    """Record that the disk has a snapshot of the state machine after `index` (section 5.1); it must be applied."""
    if not s.memory.snapshot < index <= s.last_applied:
        return None
    return Outcome(replace(s, issued=issue(s, replace(s.memory, snapshot=index))))


def compact(c: Constants, i: ServerId, s: Server, index: Index) -> Outcome | None:
    """Forget the entries up to `index`, which a snapshot covers (section 5.1)."""
    if not s.memory.base < index <= s.memory.snapshot:
        return None
    return Outcome(replace(s, issued=issue(s, replace(s.memory, base=index))))


def install_snapshot(c: Constants, i: ServerId, s: Server, to: ServerId) -> Outcome | None:
    """The leader sends the snapshot on its disk (section 5.3), with its newest confirmation round."""
    if s.role is not Role.LEADER or to == i or s.durable.term != s.current_term or not s.durable.snapshot:
        return None
    covered = s.durable.log.truncate(s.durable.snapshot)
    request = InstallSnapshotRequest(
        term=s.current_term,
        source=i,
        dest=to,
        last_index=covered.length,
        last_term=covered.last_term,
        log=covered,
        round=s.round,
    )
    return Outcome(s, sent=(request,))


def handle_install_snapshot_request(
    c: Constants, i: ServerId, s: Server, m: InstallSnapshotRequest, now: Time
) -> Outcome | None:
    """Follow the term's leader; replace log and state by its snapshot, unless it says nothing new (section 5.3).

    A log that holds the snapshot's last entry is kept with all that follows, and so is a state that is further. The
    write is one point: it reaches the disk in one piece or not at all.
    """
    if m.dest != i or m.term > s.current_term or (m.term == s.current_term and s.role is Role.LEADER):
        return None
    if m.term < s.current_term:
        return Outcome(s)
    follower = following(s, m.source, m.round, now)
    last = m.last_index
    held = s.memory.base <= last <= s.log.length and s.log.term_at(last) == m.last_term
    if not held and last <= max(s.last_applied, s.memory.snapshot):
        return Outcome(follower)
    installed = replace(s.memory, log=m.log, snapshot=last, base=last)
    learned = replace(
        follower,
        issued=s.issued if held else issue(s, installed, cause=m),
        commit_index=max(s.commit_index, last),
        leader_match=max(s.leader_match, last),
    )
    return Outcome(learned)


def restore_snapshot(c: Constants, i: ServerId, s: Server) -> Outcome | None:
    """A state machine that is behind the snapshot on its disk is replaced by it (section 5.3)."""
    if s.durable.snapshot <= s.last_applied:
        return None
    restored = s.durable.log.truncate(s.durable.snapshot)
    fact = Restored(server=i, index=restored.length, log=restored)
    return Outcome(replace(s, last_applied=restored.length), facts=(fact,))
