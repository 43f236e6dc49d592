"""Leader election: who may ask for votes, who grants them, who wins. Also how a server meets a newer term.

Source: Ongaro 2014, sections 3.3, 3.4 and 3.6.1; raft.tla Timeout, RequestVote, HandleRequestVoteRequest,
HandleRequestVoteResponse, BecomeLeader, UpdateTerm. *Deviation:* what the disk does not hold is not said
(ARCHITECTURE.md, section 3).
"""

from __future__ import annotations

from impl.raft import leading, outbox
from impl.raft.messages import RequestVoteRequest, RequestVoteResponse
from impl.raft.progress import Progress
from impl.raft.ready import FailedRead, LostProposals, Role
from impl.raft.server import Received, Server


def timeout(server: Server, why: str) -> None:
    """Become candidate of the next term and vote for oneself (section 3.4; raft.tla Timeout)."""
    server.forget_term()
    server.disk.record_hard_state(server.term + 1, server.name)
    server.role = Role.CANDIDATE
    server.unasked.update(server.peers)
    server.reset_election_timer()
    server.record("timeout")
    server.changed_role(f"standing for election: {why}")


def update_term(server: Server, term: int, received: Received) -> None:
    """Any message of a higher term makes the server a follower of that term (section 3.3; raft.tla UpdateTerm)."""
    was_leader, old_term = server.role is Role.LEADER, server.term
    if was_leader:
        give_up_leadership(server)
    server.forget_term()
    server.disk.record_hard_state(term, None)
    if server.role is not Role.FOLLOWER:
        server.role = Role.FOLLOWER
        server.reset_election_timer()
    server.record_handler("update_term", received)
    stepped_down = f"stepped down as leader of term {old_term}: " if was_leader else ""
    server.changed_role(f"{stepped_down}{received.source} is in term {term}")


def give_up_leadership(server: Server) -> None:
    """Tell the driver what a leader that steps down leaves unfinished."""
    reason = f"{server.name} stepped down as leader of term {server.term}"
    server.failed_reads.extend(FailedRead(read.id, reason) for read in server.reads)
    if server.commit_index < server.log.last_index:
        server.lost.append(LostProposals(server.term, server.commit_index + 1, server.log.last_index))


def is_up_to_date(server: Server, request: RequestVoteRequest) -> bool:
    """Whether the candidate's log is at least as up-to-date as this server's (section 3.6.1)."""
    log = server.log
    return (request.last_log_term, request.last_log_index) >= (log.last_term, log.last_index)


def may_vote_for(server: Server, candidate: str) -> bool:
    """Whether this server's vote of the current term is free, or the candidate's already (section 3.4)."""
    return server.voted_for is None or server.voted_for == candidate


def handle_request_vote_request(server: Server, received: Received, request: RequestVoteRequest) -> None:
    """Grant the vote in memory, or not; the answer waits for the disk (raft.tla HandleRequestVoteRequest).

    The request must be of the current term.
    """
    candidate = received.source
    granted = may_vote_for(server, candidate) and is_up_to_date(server, request)
    if granted and server.voted_for != candidate:
        server.disk.record_hard_state(server.term, candidate)
        server.reset_election_timer()
    server.votes_owed[candidate] = granted
    server.record_handler("handle_request_vote_request", received)


def reject_stale_vote_request(server: Server, candidate: str) -> None:
    """Refuse a request of an older term, so that its sender learns the current one (section 3.3)."""
    server.votes_owed.setdefault(candidate, False)


def handle_request_vote_response(server: Server, received: Received, response: RequestVoteResponse) -> None:
    """Count a vote of the current term (raft.tla HandleRequestVoteResponse)."""
    if server.role is not Role.CANDIDATE:
        return
    server.unasked.discard(received.source)
    (server.votes if response.vote_granted else server.refusals).add(received.source)
    server.record_handler("handle_request_vote_response", received)
    become_leader_if_elected(server)


def has_quorum_of_votes(server: Server) -> bool:
    """Whether a majority voted for this candidate; its own vote counts once it is durable (rule 2)."""
    own = server.disk.knows_vote(server.term, server.name)
    return len(server.votes) + own >= server.quorum


def become_leader_if_elected(server: Server) -> None:
    """Take over, and begin the term with an entry of it: without one, nothing commits (sections 3.6.2 and 6.4)."""
    if server.role is Role.CANDIDATE and has_quorum_of_votes(server):
        become_leader(server)
        leading.client_request(server, [server.settings.noop])


def become_leader(server: Server) -> None:
    """Leader of the current term (section 3.4; raft.tla BecomeLeader)."""
    voters = ", ".join(sorted({*server.votes, server.name}))
    server.role = Role.LEADER
    server.leader_id = server.name
    server.votes.clear()
    server.unasked.clear()
    server.progress = {peer: Progress(server.log.last_index + 1) for peer in server.peers}
    server.elapsed = 0
    server.record("become_leader")
    server.changed_role(f"won the election of term {server.term} with the votes of {voters}")


def ask_again(server: Server) -> None:
    """Ask the peers that have not answered once more: the request or the answer may be lost."""
    server.unasked.update(server.peers)
    server.unasked -= server.votes
    server.unasked -= server.refusals


def request_vote(server: Server) -> None:
    """Ask the peers that are to be asked, once one's own vote is durable (section 3.4; raft.tla RequestVote)."""
    if not server.unasked or not server.disk.knows_vote(server.term, server.name):
        return
    log = server.log
    for peer in server.peers:
        if peer in server.unasked:
            sequence = outbox.next_sequence(server)
            outbox.send(server, peer, RequestVoteRequest(sequence, server.term, log.last_index, log.last_term))
    server.unasked.clear()


def vote_response(server: Server) -> None:
    """Answer the candidates whose answer is durable by now."""
    if not server.votes_owed or not server.disk.knows_term(server.term):
        return
    for candidate in sorted(server.votes_owed):
        granted = server.votes_owed[candidate]
        if granted and not server.disk.knows_vote(server.term, candidate):
            continue
        del server.votes_owed[candidate]
        response = RequestVoteResponse(outbox.next_sequence(server), server.term, granted)
        outbox.send(server, candidate, response)
