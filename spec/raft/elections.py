"""Elections: campaigns, votes, terms. `action(constants, i, server, ...) -> Outcome | None`; see `actions`.

Sources: Ongaro 2014, sections 3.3, 3.4, 3.6.1, 4.2.3 (who has just heard from a leader does not vote); raft.tla.
*Deviation:* who votes in a term in which it is known that the leader's lease has ended need not wait: this is what a
leadership transfer (section 3.10) and the end of a leader's process have in common.
"""

from __future__ import annotations

from msgspec.structs import replace

from spec.raft.messages import (
    LeaseEnded,
    Message,
    PreVoteRequest,
    PreVoteResponse,
    RequestVoteRequest,
    RequestVoteResponse,
)
from spec.raft.state import farewell, issue, may_campaign, numbers_of, out_of_office, own_vote_durable, waited
from spec.raft.types import Constants, Elected, Outcome, Role, Server, ServerId, Term, Time


def log_up_to_date(server: Server, m: RequestVoteRequest) -> bool:
    """Whether the candidate's log is at least as up-to-date as the server's (Ongaro 2014, section 3.6.1)."""
    return (m.last_log_term, m.last_log_index) >= (server.log.last_term, server.log.length)


def timeout(c: Constants, i: ServerId, s: Server, now: Time) -> Outcome | None:
    """Become candidate of the next term and vote for oneself; the vote counts when it is durable.

    Ongaro 2014, section 3.4; raft.tla Timeout. Timers are choices: sound for safety. A server without a vote does not
    campaign once that is committed (sections 4.2.1 and 4.2.2); others do after the wait of section 4.2.3 and with
    pre-votes of a quorum (section 9.6), unless it is known that the lease of the current term's leader has ended.
    """
    if s.role is Role.LEADER or not may_campaign(c, i, s):
        return None
    supported = not c.pre_vote or c.configuration(s.log).is_quorum({*s.pre_votes, i})
    if not s.lease_ended and not (waited(c, s, now) and supported):
        return None
    vote = replace(s.memory, term=s.current_term + 1, voted_for=i)
    candidate = replace(
        s,
        role=Role.CANDIDATE,
        leader_id=None,
        leader_match=0,
        round=0,
        votes=(),
        issued=issue(s, vote),
        pre_votes=(),
        lease_ended=False,
        urged_by=s.current_term if s.lease_ended else 0,
    )
    return Outcome(candidate)


def request_vote(c: Constants, i: ServerId, s: Server, to: ServerId) -> Outcome | None:
    """Ask `to` for its vote, once one's own is on disk. Ongaro 2014, section 3.4; raft.tla RequestVote."""
    if s.role is not Role.CANDIDATE or to == i or not own_vote_durable(i, s):
        return None
    request = RequestVoteRequest(
        term=s.current_term,
        source=i,
        dest=to,
        last_log_index=s.log.length,
        last_log_term=s.log.last_term,
        urged_by=s.urged_by,
    )
    return Outcome(s, sent=(request,))


def become_leader(c: Constants, i: ServerId, s: Server) -> Outcome | None:
    """A candidate with the votes of a quorum leads its term. Ongaro 2014, section 3.4; raft.tla BecomeLeader.

    The quorum is one of the latest configuration in its log. Nothing is known of the peers' logs; rounds are numbered
    anew in each term.
    """
    configuration = c.configuration(s.log)
    voters = {*s.votes, i} if own_vote_durable(i, s) else {*s.votes}
    if s.role is not Role.CANDIDATE or not configuration.is_quorum(voters):
        return None
    nothing = numbers_of(configuration, i)
    leader = replace(
        s, role=Role.LEADER, leader_id=i, round=0, votes=(), match_index=nothing, acked_round=nothing, pre_votes=()
    )
    return Outcome(leader, facts=(Elected(term=s.current_term, server=i, log=s.log),))


def carries_term(m: Message) -> bool:
    """Whether a server takes on a higher term when it hears it from this message.

    Who asks for a pre-vote, and who grants one, speaks of a term that may never be (Ongaro 2014, section 9.6). That a
    lease has ended is not heard from a message (see `LeaseEnded`).
    """
    match m:
        case PreVoteRequest() | LeaseEnded():
            return False
        case PreVoteResponse():
            return not m.granted
        case _:
            return True


def update_term(c: Constants, i: ServerId, s: Server, m: Message) -> Outcome | None:
    """A message of a higher term makes any server a follower of that term.

    Ongaro 2014, section 3.3; raft.tla UpdateTerm. The message stays in the network and is handled by a step of its
    own.
    """
    if m.dest != i or m.term <= s.current_term or not carries_term(m):
        return None
    newer = replace(s.memory, term=m.term, voted_for=None)
    follower = replace(
        out_of_office(i, s), issued=issue(s, newer, cause=m), lease_ended=False, urged_by=urged_in_new_term(s, m)
    )
    return Outcome(follower, sent=farewell(c, i, s))


def urged_in_new_term(s: Server, m: Message) -> Term:
    """The term whose ended lease lets `s` vote in the term of `m` without waiting; 0: none.

    The candidate's word counts if it speaks of the latest term that this server knows, or of a later one: whoever led
    before is no leader of this server any more.
    """
    if isinstance(m, RequestVoteRequest) and m.urged_by >= s.current_term:
        return m.urged_by
    return s.current_term if s.lease_ended else 0


def handle_request_vote_request(
    c: Constants, i: ServerId, s: Server, m: RequestVoteRequest, now: Time
) -> Outcome | None:
    """Grant the vote, in memory: at most one a term, and only to a log at least as up-to-date as one's own.

    Ongaro 2014, sections 3.4 and 3.6.1; raft.tla HandleRequestVoteRequest. Who has just heard from a leader withholds
    its vote (section 4.2.3): leases rest on that. A vote is promised when `vote_response` sends it. Any server votes,
    member or not (section 4.1); the candidate knows whose votes count.
    """
    if m.dest != i or m.term > s.current_term:
        return None
    free = m.term == s.current_term and s.voted_for is None and (waited(c, s, now) or s.urged_by > 0)
    if not free or not log_up_to_date(s, m):
        return Outcome(s)
    return Outcome(replace(s, issued=issue(s, replace(s.memory, voted_for=m.source), cause=m)))


def vote_response(c: Constants, i: ServerId, s: Server, to: ServerId, granted: bool) -> Outcome | None:
    """Answer a vote request; a granted vote must be on disk (rule 2). raft.tla HandleRequestVoteRequest, its Reply.

    A refusal promises nothing, so it may be sent at any time in a term that the disk knows (rule 1).
    """
    if to == i or s.durable.term != s.current_term or (granted and s.durable.voted_for != to):
        return None
    response = RequestVoteResponse(term=s.current_term, source=i, dest=to, vote_granted=granted)
    return Outcome(s, sent=(response,))


def handle_request_vote_response(c: Constants, i: ServerId, s: Server, m: RequestVoteResponse) -> Outcome | None:
    """Count a granted vote of the current term. Ongaro 2014, section 3.4; raft.tla HandleRequestVoteResponse.

    *Deviation:* raft.tla counts votes in any role, and looks at them as a candidate only.
    """
    if m.dest != i or m.term > s.current_term:
        return None
    if m.term < s.current_term or s.role is not Role.CANDIDATE or not m.vote_granted:
        return Outcome(s)
    return Outcome(replace(s, votes=tuple(sorted({*s.votes, m.source}))))
