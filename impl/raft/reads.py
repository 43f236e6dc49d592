"""Linearizable reads without the log: the leader proves, after the read arrived, that it still leads.

Source: Ongaro 2014, section 6.4. Rounds are numbered; every AppendEntries carries the newest number, so one round
serves all reads that arrived before it was sent. While a round is on its way the next reads gather for the one after
it. A read by *lease* needs no round of its own (section 6.4.1): whoever answered a round elects no other leader for an
election timeout after it began, and the lease, counted from then, is shorter by what clocks may drift.
"""

from __future__ import annotations

from impl.raft.quorum import reached_by_quorum
from impl.raft.ready import ConfirmedRead, Role
from impl.raft.server import PendingRead, Server


def knows_commit_index(server: Server) -> bool:
    """Whether the leader has committed an entry of its own term: before, its commit index may be behind (section 6.4,
    step 1).
    """
    return server.log.term_at(server.commit_index) == server.term


def begin_round(server: Server) -> None:
    """A round begins now: with each heartbeat (section 6.4.1)."""
    next_round(server)
    forget_old_rounds(server)
    server.record("begin_round", now=server.now_ns)


def next_round(server: Server) -> None:
    """Number the next round, and note when it began: a lease is counted from there, never from an answer."""
    server.round += 1
    server.round_starts.append((server.round, server.now_ns))


def forget_old_rounds(server: Server) -> None:
    """Forget when the rounds began that are older than the newest one answered by a quorum."""
    starts, answered = server.round_starts, confirmed_round(server)
    while len(starts) > 1 and starts[1][0] <= answered:
        starts.popleft()


def read_request(server: Server, read_id: str) -> None:
    """The read takes the next round and the commit index (section 6.4, steps 2 and 3)."""
    next_round(server)
    server.reads.append(PendingRead(read_id, server.commit_index, server.round))
    server.record("read_request", read=read_id, now=server.now_ns)


def has_lease(server: Server) -> bool:
    """Whether no other leader can have been elected up to now, by this server's clock (section 6.4.1)."""
    settings = server.settings
    if server.transferring or not settings.lease_ms or not server.round_starts:
        return False
    forget_old_rounds(server)
    number, start = server.round_starts[0]
    return number <= confirmed_round(server) and server.now_ns <= start + settings.lease_ns


def lease_read(server: Server, read_id: str) -> None:
    """The read is confirmed as it arrives."""
    server.confirmed.append(PendingRead(read_id, server.commit_index, server.round))
    server.record("lease_read", read=read_id, now=server.now_ns)


def start_round(server: Server) -> None:
    """Send the newest round at once if reads wait and no round is on its way."""
    if server.reads and confirmed_round(server) >= server.broadcast_round:
        server.broadcast_round = server.round
        for progress in server.progress.values():
            progress.message_due = True


def confirmed_round(server: Server) -> int:
    """The newest round that a quorum has answered, the leader included."""
    answered = [progress.acked_round for progress in server.voting]
    if server.is_voter:
        answered.append(server.round)
    return reached_by_quorum(answered)


def confirm_reads(server: Server) -> None:
    """Confirm every read whose round a quorum has answered."""
    if server.role is not Role.LEADER or not server.reads:
        return
    confirmed = confirmed_round(server)
    while server.reads and server.reads[0].round <= confirmed:
        confirm_read(server)


def confirm_read(server: Server) -> None:
    """The oldest read is confirmed: no newer leader had committed anything when it arrived (section 6.4, step 3)."""
    read = server.reads.popleft()
    server.confirmed.append(read)
    server.record("confirm_read", read=read.id)


def answer_reads(server: Server) -> list[ConfirmedRead]:
    """Hand out the confirmed reads whose index is applied (section 6.4, steps 4 and 5)."""
    answered = []
    while server.confirmed and server.confirmed[0].index <= server.last_applied:
        answered.append(answer_read(server))
    return answered


def answer_read(server: Server) -> ConfirmedRead:
    """The oldest confirmed read may be answered from the state machine."""
    read = server.confirmed.popleft()
    server.record("answer_read", read=read.id)
    return ConfirmedRead(read.id, read.index)
