"""How a leader gives its leadership to another server, and how others learn that a leader leads no more.

A transfer ends the leader's lease for good, stops new entries, brings the other's log up to date and then asks it to
campaign at once. If nothing comes of it within an election timeout, the leader goes on, without leases. Source: Ongaro
2014, section 3.10; etcd-io/raft, MsgTransferLeader.

That the process of a leader has ended is evidence of the same kind: its lease has ended too, and a follower that knows
it need not wait (ARCHITECTURE.md, section 3). A closed connection is no such evidence.
"""

from __future__ import annotations

from impl.raft import election, membership, outbox
from impl.raft.errors import TransferImpossible, UnknownServer
from impl.raft.messages import TimeoutNow
from impl.raft.ready import Role, TransferFailed
from impl.raft.server import Received, Server


def best_transferee(server: Server) -> str:
    """The voter that answers and has most of the log; of equals, the first. Raises TransferImpossible."""
    live = [peer for peer in server.peers if peer in server.voters and membership.is_live(server, peer)]
    if not live:
        raise TransferImpossible("no other voter answers")
    return max(live, key=lambda peer: server.progress[peer].match_index)


def check_transferee(server: Server, to: str) -> None:
    """Whether leadership could go to that server. Raises UnknownServer, TransferImpossible."""
    configuration = server.log.configuration
    member = configuration.member(to)
    if member is None:
        raise UnknownServer(to, configuration.names)
    if to == server.name:
        raise TransferImpossible(f"{to} leads already")
    if not member.voter:
        raise TransferImpossible(f"{to} is a non-voter: promote it first")
    if not membership.is_live(server, to):
        raise TransferImpossible(f"{to} does not answer")


def begin(server: Server, to: str) -> None:
    """Begin to hand over, within an election timeout."""
    server.transferee = to
    server.transfer_deadline = server.ticks + server.settings.election_ticks_max
    transfer_leadership(server)
    ask_when_ready(server)


def transfer_leadership(server: Server) -> None:
    """The lease ends for the rest of the term (section 3.10): the other server's election does not wait for it."""
    server.transferring = True
    server.record("transfer_leadership")


def ask_when_ready(server: Server) -> None:
    """Ask the other server to campaign, if its log is complete: now, and with each heartbeat until it does."""
    to = server.transferee
    if to is None or not server.disk.knows_term(server.term):
        return
    progress = server.progress.get(to)
    if progress is not None and progress.match_index == server.log.last_index:
        outbox.send(server, to, TimeoutNow(outbox.next_sequence(server), server.term))


def give_up_when_late(server: Server) -> None:
    """The other server did not take over: lead on, or step down if that is all that was left to do."""
    to = server.transferee
    if to is None or server.ticks < server.transfer_deadline:
        return
    waited_ms = server.settings.election_ticks_max * server.settings.tick_ms
    reason = f"{to} did not take over within {waited_ms} ms"
    server.transferee = None
    server.transfers_failed.append(TransferFailed(to, reason))
    if not server.is_voter:
        election.step_down(server, f"it is no voter any more, and {reason}")


def handle_timeout_now(server: Server, received: Received) -> None:
    """The leader of the current term hands over: campaign at once (section 3.10)."""
    if server.role is Role.LEADER:
        return
    server.lease_ended = True
    server.record_handler("handle_timeout_now", received)
    election.campaign(server, f"{received.source} hands its leadership over")


def handle_lease_ended(server: Server, peer: str, incarnation: int) -> None:
    """There is evidence that the process that leads the current term has ended: campaign soon, but not all at once.

    All who are left learn it within a millisecond, so each has a turn of its own, by name; chance keeps apart those who
    disagree on who is left.
    """
    server.lease_ended = True
    server.record("handle_lease_ended", peer=peer, incarnation=incarnation)
    turn = max(1, 2 * server.settings.leader_lost_ticks_max // 5)
    rank = sum(voter < server.name for voter in server.voters if voter != peer)
    delay = rank * turn + server.random.randrange(1, turn + 1)
    server.election_deadline = min(server.election_deadline, server.elapsed + delay)
