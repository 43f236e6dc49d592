"""What the passing of time makes a server do: campaign, send heartbeats, and give up what it cannot hold.

A leader that no quorum answers steps down (Ongaro 2014, section 6.2; etcd-io/raft, CheckQuorum), and so does one whose
disk does not finish a write: it holds everybody up, and would do so for ever. Timers are ticks; the clock, of which
promises are made, is read by the actions themselves.
"""

from __future__ import annotations

from impl.raft import election, leading, pre_vote, transfer
from impl.raft.ready import Role
from impl.raft.server import Server

FREED_PER_TICK = 8192
"""Forgotten entries whose memory is given back in a tick: about a millisecond of work."""


def tick(server: Server) -> bool:
    """One tick passed. Returns whether there may be something to do."""
    server.ticks += 1
    server.elapsed += 1
    server.log.free(FREED_PER_TICK)
    if server.role is Role.LEADER:
        return lead(server)
    if server.elapsed >= server.election_deadline:
        election.campaign(server, why_now(server))
        return True
    if server.elapsed % server.settings.heartbeat_ticks:
        return False
    if server.asking:
        pre_vote.ask_again(server)
    elif server.role is Role.CANDIDATE:
        election.ask_again(server)
    return True


def lead(server: Server) -> bool:
    """A tick of a leader."""
    settings, said = server.settings, leading.spread_commit_index(server)
    transfer.give_up_when_late(server)
    if server.role is not Role.LEADER:
        return True
    if server.is_stalled:
        stalled_ms = settings.election_ticks_min * settings.tick_ms
        election.step_down(server, f"its disk has not finished a write for {stalled_ms} ms")
    elif not leading.hears_quorum(server, settings.election_ticks_max):
        silent_ms = settings.election_ticks_max * settings.tick_ms
        election.step_down(server, f"no quorum answered for {silent_ms} ms")
    elif server.elapsed >= settings.heartbeat_ticks:
        server.elapsed = 0
        leading.heartbeat(server)
        transfer.ask_when_ready(server)
    else:
        return said
    return True


def why_now(server: Server) -> str:
    """Why the election timer ran out."""
    waited = f"{server.elapsed * server.settings.tick_ms} ms"
    if server.lease_ended:
        return f"the process of leader {server.leader_id} has ended"
    if server.role is Role.CANDIDATE:
        return f"the election of term {server.term} was not decided within {waited}"
    if server.leader_id is not None:
        return f"nothing from leader {server.leader_id} for {waited}"
    return f"no leader of term {server.term} within {waited}"
