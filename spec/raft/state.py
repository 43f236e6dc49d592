"""What several actions ask of a server's state, and how they change it: restart, write, lose a role, wait.

No action stands here; no rule of the protocol is decided here that the dissertation states of one action only.
Sources: ARCHITECTURE.md, section 3 (rules 1-4); Ongaro 2014, figure 3.1, sections 4.2.3 and 6.4.1.
"""

from __future__ import annotations

from msgspec.structs import replace

from spec.raft.log import EMPTY
from spec.raft.messages import LeaseEnded, Message
from spec.raft.types import (
    Configuration,
    Constants,
    Index,
    Point,
    Role,
    Server,
    ServerId,
    Time,
    Write,
)


def initial_server() -> Server:
    """A server before its first step: term 0, no vote, an empty log, all of it on disk (raft.tla Init)."""
    return restarted(Point(term=0, voted_for=None, log=EMPTY))


def restarted(point: Point, now: Time = 0) -> Server:
    """The server that finds `point` on its disk when it starts at `now`: a follower that remembers nothing else.

    Its state machine begins with the snapshot (Ongaro 2014, section 5.1). It may have heard from a leader just before
    it ended, so it waits as if it had (section 4.2.3).
    """
    return Server(
        role=Role.FOLLOWER,
        leader_id=None,
        commit_index=point.snapshot,
        last_applied=point.snapshot,
        leader_match=0,
        round=0,
        votes=(),
        match_index=(),
        acked_round=(),
        reads=(),
        confirmed=(),
        durable=point,
        issued=(),
        heard_at=now,
    )


def issue(server: Server, *points: Point, cause: Message | None = None) -> tuple[Write, ...]:
    """The server's issued writes with `points` added, in order."""
    return server.issued + tuple(Write(point, cause) for point in points)


def own_vote_durable(i: ServerId, server: Server) -> bool:
    """Whether the disk knows that `i` votes for itself in its current term (rule 2)."""
    return server.durable.term == server.current_term and server.durable.voted_for == i


def held_durably(server: Server, index: Index) -> bool:
    """Whether the disk holds the server's log up to `index`, as memory has it (rules 3 and 4).

    What memory has forgotten is compared as a whole: by the entry at its base.
    """
    return index == 0 or server.durable.log.agrees(server.log, max(index, server.memory.base))


def may_campaign(c: Constants, i: ServerId, server: Server) -> bool:
    """Whether `i` votes in its latest configuration, or does not know that to be committed (Ongaro, section 4.2.2).

    Who is left out by a configuration that only it holds may still be needed to commit it.
    """
    return i in c.configuration(server.log).voters or server.log.configuration_index > server.commit_index


def waited(c: Constants, server: Server, now: Time) -> bool:
    """Whether the server has heard from no leader for so long that it may vote (Ongaro 2014, section 4.2.3)."""
    return now >= c.vote_from(server.heard_at)


def raised(pairs: tuple[tuple[ServerId, int], ...], key: ServerId, value: int) -> tuple[tuple[ServerId, int], ...]:
    """`pairs` with the number at `key` raised to `value` if that is higher."""
    return tuple((k, max(old, value) if k == key else old) for k, old in pairs)


def numbers_of(
    configuration: Configuration, i: ServerId, known: tuple[tuple[ServerId, int], ...] = ()
) -> tuple[tuple[ServerId, int], ...]:
    """A number for each member but `i`: as in `known`, or 0."""
    numbers = dict(known)
    return tuple((member, numbers.get(member, 0)) for member in configuration.members if member != i)


def out_of_office(i: ServerId, s: Server) -> Server:
    """`s` as a follower that knows no leader; what only other roles have is gone.

    Reads that wait for confirmation are lost with the leadership; confirmed ones are kept, since a confirmed read
    index stays valid.
    """
    return replace(
        s,
        role=Role.FOLLOWER,
        leader_id=None,
        leader_match=0,
        round=0,
        votes=(),
        match_index=(),
        acked_round=(),
        reads=(),
        pre_votes=(),
        round_starts=(),
        transferring=False,
    )


def farewell(c: Constants, i: ServerId, s: Server) -> tuple[Message, ...]:
    """What becomes known when `s` loses its role: if it led and there are leases, that its lease has ended."""
    if s.role is not Role.LEADER or not c.has_leases:
        return ()
    return tuple(LeaseEnded(term=s.current_term, source=i, dest=peer) for peer in c.peers(i))


def has_answered(c: Constants, i: ServerId, s: Server, number: int) -> bool:
    """Whether a quorum of the latest configuration has answered the leader's round `number`, or a later one."""
    answered = {peer for peer, newest in s.acked_round if newest >= number}
    return c.configuration(s.log).is_quorum(answered | {i})


def remembering(c: Constants, i: ServerId, s: Server) -> Server:
    """`s` without the begins of rounds that are older than the newest one answered by a quorum.

    Who has answered a round has answered all before it.
    """
    newest = 0
    for place, (number, _) in enumerate(s.round_starts):
        if not has_answered(c, i, s, number):
            break
        newest = place
    return replace(s, round_starts=s.round_starts[newest:]) if newest else s
