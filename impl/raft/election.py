"""Leader election: who may ask for votes, who grants them, who wins. Also how a server meets a newer term.

Source: Ongaro 2014, sections 3.3, 3.4 and 3.6.1; raft.tla Timeout, RequestVote, HandleRequestVoteRequest,
HandleRequestVoteResponse, BecomeLeader, UpdateTerm. *Deviation:* what the disk does not hold is not said
(ARCHITECTURE.md, section 3).
"""

from __future__ import annotations

from impl.raft import leading, membership, outbox, pre_vote
from impl.raft.messages import Message, PreVoteRequest, PreVoteResponse, RequestVoteRequest, RequestVoteResponse
from impl.raft.quorum import has_majority
from impl.raft.ready import FailedRead, LostProposals, Role
from impl.raft.server import Received, Server


def campaign(server: Server, why: str) -> None:
    """The election timer ran out: campaign, or ask first who would vote for this server (sections 3.4 and 9.6).

    Who is no voter does not campaign (section 4.2.1). Who has a write under way for too long could not lead.
    """
    if not membership.may_campaign(server) or server.is_stalled:
        server.reset_election_timer()
    elif server.lease_ended:
        timeout(server, why)
    elif server.waited:
        if server.settings.pre_vote:
            pre_vote.begin(server, why)
        else:
            timeout(server, why)


def timeout(server: Server, why: str) -> None:
    """Become candidate of the next term and vote for oneself (section 3.4; raft.tla Timeout).

    Nobody needs to wait for the lease of a leader that is known to have ended.
    """
    urged_by = server.term if server.lease_ended else 0
    server.forget_term()
    server.urged_by = urged_by
    server.disk.record_hard_state(server.term + 1, server.name)
    server.role = Role.CANDIDATE
    ask_again(server)
    server.reset_election_timer()
    server.record("timeout", now=server.now_ns)
    server.changed_role(f"standing for election: {why}")


def carries_term(message: Message) -> bool:
    """Whether a server takes on a higher term when it hears it from this message: not when it is only asked for
    (section 9.6).
    """
    if isinstance(message, PreVoteResponse):
        return not message.vote_granted
    return not isinstance(message, PreVoteRequest)


def update_term(server: Server, received: Received, message: Message) -> None:
    """Any message of a higher term makes the server a follower of that term (section 3.3; raft.tla UpdateTerm)."""
    was_leader, old_term = server.role is Role.LEADER, server.term
    urged_by = urged_in_new_term(server, message)
    if was_leader:
        give_up_leadership(server)
    server.forget_term()
    server.urged_by = urged_by
    server.disk.record_hard_state(message.term, None)
    if server.role is not Role.FOLLOWER:
        server.role = Role.FOLLOWER
        server.reset_election_timer()
    server.record_handler("update_term", received)
    stepped_down = f"stepped down as leader of term {old_term}: " if was_leader else ""
    server.changed_role(f"{stepped_down}{received.source} is in term {message.term}")


def urged_in_new_term(server: Server, message: Message) -> int:
    """The term whose ended lease lets this server vote in the term of `message` without waiting; 0: none.

    A candidate's word counts if it speaks of the latest term that this server knows, or a later one.
    """
    if isinstance(message, RequestVoteRequest) and message.urged_by >= server.term:
        return message.urged_by
    return server.term if server.lease_ended else 0


def step_down(server: Server, why: str) -> None:
    """The leader follows nobody in its own term (sections 4.2.2 and 6.2): it leaves, or leads no quorum any more."""
    give_up_leadership(server)
    server.forget_leadership()
    server.role = Role.FOLLOWER
    server.reset_election_timer()
    server.record("step_down", reason=why)
    server.changed_role(f"stepped down as leader of term {server.term}: {why}")


def give_up_leadership(server: Server) -> None:
    """Tell the driver what a leader that steps down leaves unfinished."""
    reason = f"{server.name} stepped down as leader of term {server.term}"
    server.failed_reads.extend(FailedRead(read.id, reason) for read in server.reads)
    if server.commit_index < server.log.last_index:
        server.lost.append(LostProposals(server.term, server.commit_index + 1, server.log.last_index))


def is_disturbed_by(server: Server, request: RequestVoteRequest) -> bool:
    """Whether a request would only depose a leader that is alive (section 4.2.3): a campaign of a later term, by who
    does not know that the lease of this server's leader has ended.

    It is not answered. If its sender's term is ahead for good, the leader learns of that by the sender's answer to its
    next message. Safety does not rest on this.
    """
    if request.term <= server.term or request.urged_by >= server.term or server.lease_ended:
        return False
    if server.role is Role.LEADER:
        return leading.hears_quorum(server, server.settings.election_ticks_min)
    return server.leader_id is not None and not server.waited


def is_up_to_date(request: RequestVoteRequest | PreVoteRequest, newest: tuple[int, int]) -> bool:
    """Whether the candidate's log is at least as up-to-date as one whose last entry is `newest`, (term, index) (section
    3.6.1).
    """
    return (request.last_log_term, request.last_log_index) >= newest


def may_vote_for(server: Server, candidate: str) -> bool:
    """Whether this server's vote of the current term is free, or the candidate's already (section 3.4)."""
    return server.voted_for is None or server.voted_for == candidate


def handle_request_vote_request(server: Server, received: Received, request: RequestVoteRequest) -> None:
    """Grant the vote in memory, or not; the answer waits for the disk (raft.tla HandleRequestVoteRequest).

    The request must be of the current term.
    """
    candidate = received.source
    eligible = may_vote_for(server, candidate) and is_up_to_date(request, server.disk.newest)
    granted = server.voted_for == candidate or (eligible and may_vote_now(server))
    if granted and server.voted_for != candidate:
        server.disk.record_hard_state(server.term, candidate)
        server.reset_election_timer()
    if granted or not eligible:
        server.votes_owed[candidate] = granted
    server.record_timed_handler("handle_request_vote_request", received)


def may_vote_now(server: Server) -> bool:
    """Whether no leader that this server heard from can still answer by its lease (section 6.4.1).

    Who asks meanwhile gets no answer; it asks again.
    """
    return server.waited or server.urged_by > 0


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
    return has_majority(server.voters, {*server.votes, server.name} if own else server.votes)


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
    server.pre_votes.clear()
    server.asking = False
    server.unasked.clear()
    server.elapsed = 0
    server.led_since = server.ticks
    membership.follow_progress(server)
    server.record("become_leader")
    server.changed_role(f"won the election of term {server.term} with the votes of {voters}")


def ask_again(server: Server) -> None:
    """Ask the voters that have not answered once more: the request or the answer may be lost."""
    server.unasked = {voter for voter in server.voters if voter != server.name}
    server.unasked -= server.votes
    server.unasked -= server.refusals


def request_vote(server: Server) -> None:
    """Ask the peers that are to be asked, once one's own vote is durable (section 3.4; raft.tla RequestVote)."""
    if not server.unasked or not server.disk.knows_vote(server.term, server.name):
        return
    log = server.log
    for peer in sorted(server.unasked):
        sequence = outbox.next_sequence(server)
        request = RequestVoteRequest(sequence, server.term, log.last_index, log.last_term, server.urged_by)
        outbox.send(server, peer, request)
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
