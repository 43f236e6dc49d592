"""How a leader gives up: it steps down or transfers its leadership; and who hears of it. See `actions`.

A lease ends for good with the leader's role, or when the leader transfers its leadership. A server that knows it of the
leader of its current term may campaign, and be voted for, without waiting (`elections`).

Sources: Ongaro 2014, sections 3.10 (transfer) and 6.2 (a leader that no quorum answers steps down).
"""

from __future__ import annotations

from msgspec.structs import replace

from spec.raft.messages import LeaseEnded, TimeoutNow
from spec.raft.state import farewell, out_of_office
from spec.raft.types import Constants, Outcome, Role, Server, ServerId


def step_down(c: Constants, i: ServerId, s: Server) -> Outcome | None:
    """A leader becomes a follower of its own term, which has no leader any more.

    A choice that is always enabled: check-quorum (Ongaro 2014, section 6.2), a disk that stalls, a graceful end.
    """
    if s.role is not Role.LEADER:
        return None
    return Outcome(out_of_office(i, s), sent=farewell(c, i, s))


def transfer_leadership(c: Constants, i: ServerId, s: Server) -> Outcome | None:
    """A leader that asks another server to take over ends its lease first, for the rest of its term (section 3.10)."""
    if s.role is not Role.LEADER:
        return None
    return Outcome(replace(s, transferring=True))


def timeout_now(c: Constants, i: ServerId, s: Server, to: ServerId) -> Outcome | None:
    """Ask `to` to campaign at once (Ongaro 2014, section 3.10)."""
    if s.role is not Role.LEADER or not s.transferring or to == i or s.durable.term != s.current_term:
        return None
    return Outcome(s, sent=(TimeoutNow(term=s.current_term, source=i, dest=to),))


def handle_timeout_now(c: Constants, i: ServerId, s: Server, m: TimeoutNow) -> Outcome | None:
    """The leader of the current term transfers its leadership: it answers by its lease no more."""
    return learn_that_lease_ended(i, s, m)


def handle_lease_ended(c: Constants, i: ServerId, s: Server, m: LeaseEnded) -> Outcome | None:
    """There is evidence that who led the current term leads it no more. Of other terms it says nothing."""
    return learn_that_lease_ended(i, s, m)


def learn_that_lease_ended(i: ServerId, s: Server, m: TimeoutNow | LeaseEnded) -> Outcome | None:
    """Note what the message says if it speaks of the current term.

    Not enabled in a leader of that term: two leaders of one term would be a violation, which must not be hidden here.
    """
    if m.dest != i or m.term > s.current_term or (m.term == s.current_term and s.role is Role.LEADER):
        return None
    if m.term < s.current_term:
        return Outcome(s)
    return Outcome(replace(s, lease_ended=True))
