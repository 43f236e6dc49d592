"""Pre-vote: nobody disturbs a cluster in which it could not win an election.

Before it campaigns, a server asks who would vote for it; the question changes nothing anywhere, and raises no term.
Whoever hears from a leader says no. A refusal carries the term of who refuses, so that a server that fell behind
learns it; a server whose term is ahead, by campaigns that nobody heard, is adopted with its term, by its answer to the
leader's next message. (Where neither is so, such servers stay outside for ever: hashicorp/raft, issues 605 and 609.)
Source: Ongaro 2014, sections 4.2.3 and 9.6; etcd-io/raft, PreVote.
"""

from __future__ import annotations

from impl.raft import election, outbox
from impl.raft.messages import PreVoteRequest, PreVoteResponse
from impl.raft.quorum import has_majority
from impl.raft.ready import Role
from impl.raft.server import Received, Server


def begin(server: Server, why: str) -> None:
    """Ask everybody. Who is the only voter has all the answers."""
    server.asking = True
    server.campaign_reason = why
    ask_again(server)
    server.reset_election_timer()
    campaign_if_welcome(server)


def ask_again(server: Server) -> None:
    """Ask those who have not said yes: a message may be lost, and who said no may have waited since."""
    server.unasked = {voter for voter in server.voters if voter != server.name and voter not in server.pre_votes}


def campaign_if_welcome(server: Server) -> None:
    """Campaign once a quorum would vote for this server."""
    if server.asking and server.waited and has_majority(server.voters, {*server.pre_votes, server.name}):
        election.timeout(server, server.campaign_reason)


def request_pre_vote(server: Server) -> None:
    """Ask whoever is to be asked, once all that this server knows is on its disk (section 9.6)."""
    if not server.unasked or not server.disk.knows_everything():
        return
    log = server.log
    for peer in sorted(server.unasked):
        sequence = outbox.next_sequence(server)
        outbox.send(server, peer, PreVoteRequest(sequence, server.term + 1, log.last_index, log.last_term))
    server.unasked.clear()


def would_vote(server: Server, request: PreVoteRequest) -> bool:
    """Whether the sender would get this server's vote now, by the clock and by what this disk holds (section 9.6)."""
    if request.term <= server.term or not (server.waited or server.lease_ended):
        return False
    return election.is_up_to_date(request, server.disk.durable_newest)


def handle_pre_vote_request(server: Server, received: Received, request: PreVoteRequest) -> None:
    """Answer at once; nothing is promised and nothing changes.

    A leader says nothing: it knows better than its clock whether it is needed. Nor does who would have to name a term
    that its disk does not know yet (rule 1).
    """
    if server.role is Role.LEADER:
        return
    granted = would_vote(server, request)
    if not granted and not server.disk.knows_term(server.term):
        return
    server.record_timed_handler("handle_pre_vote_request", received)
    term = request.term if granted else server.term
    outbox.send(server, received.source, PreVoteResponse(outbox.next_sequence(server), term, granted))


def handle_pre_vote_response(server: Server, received: Received, response: PreVoteResponse) -> None:
    """Count a pre-vote for the next term."""
    if server.role is Role.LEADER or not response.vote_granted or response.term != server.term + 1:
        return
    server.pre_votes.add(received.source)
    server.record_handler("handle_pre_vote_response", received)
    campaign_if_welcome(server)
