"""Pre-vote: a server campaigns only if a quorum would vote for it. `action(...) -> Outcome | None`; see `actions`.

A pre-vote promises nothing and changes nobody's term, so no safety property rests on it; it spares the cluster the
campaigns of servers that cannot win. Source: Ongaro 2014, section 9.6.
"""

from __future__ import annotations

from msgspec.structs import replace

from spec.raft.messages import PreVoteRequest, PreVoteResponse
from spec.raft.state import may_campaign, waited
from spec.raft.types import Constants, Outcome, Role, Server, ServerId, Time


def request_pre_vote(c: Constants, i: ServerId, s: Server, to: ServerId) -> Outcome | None:
    """Ask `to` whether it would vote for this server in the next term.

    Memory is on disk, so the log shown is the one with which the server would campaign.
    """
    if s.role is Role.LEADER or to == i or s.issued or not may_campaign(c, i, s):
        return None
    request = PreVoteRequest(
        term=s.current_term + 1,
        source=i,
        dest=to,
        last_log_index=s.log.length,
        last_log_term=s.log.last_term,
    )
    return Outcome(s, sent=(request,))


def handle_pre_vote_request(c: Constants, i: ServerId, s: Server, m: PreVoteRequest, now: Time) -> Outcome | None:
    """Say whether one would vote, as far as the disk goes; nothing changes.

    A server that has not heard from a leader for long enough, or knows that its leader's lease has ended, would vote
    for an up-to-date log in a later term. Who refuses says its own term, so that a sender whose term is behind catches
    up and does not ask for ever; but only a term that its disk knows (rule 1): until then it does not answer.
    """
    if m.dest != i:
        return None
    shown = (m.last_log_term, m.last_log_index)
    up_to_date = shown >= (s.durable.log.last_term, s.durable.log.length)
    granted = m.term > s.current_term and up_to_date and (waited(c, s, now) or s.lease_ended)
    if not granted and s.durable.term != s.current_term:
        return Outcome(s)
    term = m.term if granted else s.current_term
    return Outcome(s, sent=(PreVoteResponse(term=term, source=i, dest=m.source, granted=granted),))


def handle_pre_vote_response(c: Constants, i: ServerId, s: Server, m: PreVoteResponse) -> Outcome | None:
    """Count a pre-vote for the next term. A refusal of a higher term is `update_term`'s."""
    if m.dest != i or (m.term > s.current_term and not m.granted):
        return None
    if m.term != s.current_term + 1 or s.role is Role.LEADER:
        return Outcome(s)
    return Outcome(replace(s, pre_votes=tuple(sorted({*s.pre_votes, m.source}))))
