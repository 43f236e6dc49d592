"""Linearizable reads without the log: the leader proves, after the read arrived, that it still leads.

Source: Ongaro 2014, section 6.4. Rounds are numbered; every AppendEntries carries the newest number, so one round
serves all reads that arrived before it was sent. While a round is on its way the next reads gather for the one after
it.
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


def read_request(server: Server, read_id: str) -> None:
    """The read takes the next round and the commit index (section 6.4, steps 2 and 3)."""
    server.round += 1
    server.reads.append(PendingRead(read_id, server.commit_index, server.round))
    server.record("read_request", read=read_id)


def start_round(server: Server) -> None:
    """Send the newest round at once if reads wait and no round is on its way."""
    if server.reads and confirmed_round(server) >= server.broadcast_round:
        server.broadcast_round = server.round
        for progress in server.progress.values():
            progress.message_due = True


def confirmed_round(server: Server) -> int:
    """The newest round that a quorum has answered, the leader included."""
    answered = [progress.acked_round for progress in server.progress.values()]
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
