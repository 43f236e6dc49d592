"""Membership: one server at a time joins, leaves, or gets or loses its vote.

A configuration is in force for whoever has it in its log, committed or not. Three rules make majorities of successive
configurations meet: one server changes at a time; the change before is committed; the leader has committed an entry of
its own term. Source: Ongaro 2014, chapter 4; Ongaro, "bug in single-server membership changes", raft-dev, 2015.

Nobody is promoted here: a non-voter that has caught up waits for who operates the cluster, or for its agent.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence

from impl.raft import election, leading, reads, transfer
from impl.raft.configuration import (
    CONFIGURATION,
    Configuration,
    Member,
    changed_servers,
    encode_configuration,
    first_configuration,
)
from impl.raft.errors import (
    ConfigurationInProgress,
    LastVoter,
    NotOneChange,
    NotReady,
    TransferImpossible,
    WouldLoseQuorum,
)
from impl.raft.messages import Entry
from impl.raft.progress import Progress
from impl.raft.quorum import majority
from impl.raft.ready import Role
from impl.raft.server import Server


def adopt(server: Server) -> None:
    """The latest configuration of the log is in force, if it was not already: after every change of the log."""
    configuration = server.log.configuration
    if configuration is server.configuration:
        return
    server.configuration = configuration
    server.voters = configuration.voters
    server.peers = tuple(name for name in configuration.names if name != server.name)
    member = configuration.member(server.name)
    server.is_voter = member is not None and member.voter and is_me(server, member)
    if server.role is Role.LEADER:
        follow_progress(server)


def is_me(server: Server, member: Member) -> bool:
    """Whether the member of this server's name is this server, and not one whose data directory was lost."""
    return member.storage_id == server.settings.storage_id or not (member.storage_id and server.settings.storage_id)


def follow_progress(server: Server) -> None:
    """The leader follows the progress of the members, no one else's; of new ones it knows nothing."""
    known, following = server.progress, server.log.last_index + 1
    server.progress = {peer: known.get(peer) or Progress(following) for peer in server.peers}
    server.voting = [server.progress[peer] for peer in server.peers if counts(server, peer)]


def counts(server: Server, peer: str) -> bool:
    """Whether a member counts in quorums: only voters do (section 4.2.1)."""
    return peer in server.voters


def may_campaign(server: Server) -> bool:
    """Whether this server may stand for election: a voter may; and so may whoever has the configuration that takes its
    vote, as long as it does not know that to be committed (section 4.2.2): perhaps nobody else has it, and those who
    need its vote have shorter logs.
    """
    return server.is_voter or server.configuration.index > server.commit_index


def check_change(server: Server, members: Sequence[Member]) -> None:
    """Whether the leader may make this change now, and would have a quorum after it. Raises ChangeRefused, NotReady."""
    if not knows_own_term(server):
        raise NotReady(server.term)
    configuration = server.log.configuration
    if not is_settled(server):
        raise ConfigurationInProgress(configuration.index)
    names = [member.name for member in members]
    if len(set(names)) != len(names):
        raise NotOneChange("a server is named twice")
    changed = changed_servers(configuration, members)
    if len(changed) != 1:
        raise NotOneChange(f"{', '.join(changed)} would change at once" if changed else "nothing would change")
    check_quorum_after(server, [member.name for member in members if member.voter])


def is_settled(server: Server) -> bool:
    """Whether the configuration in force is committed: the next one may differ from it only."""
    return server.log.configuration.index <= server.commit_index


def knows_own_term(server: Server) -> bool:
    """Whether an entry of the leader's own term is committed: without it, two leaders may each change what the other
    has not seen.
    """
    return reads.knows_commit_index(server)


def check_quorum_after(server: Server, voters: Sequence[str]) -> None:
    """Whether those who answer now would be a quorum. Raises LastVoter, WouldLoseQuorum."""
    if not voters:
        raise LastVoter(server.log.configuration.voters[0])
    silent = [voter for voter in voters if voter != server.name and not is_live(server, voter)]
    needed = majority(len(voters))
    if len(voters) - len(silent) < needed:
        raise WouldLoseQuorum(len(voters), needed, silent)


def is_live(server: Server, peer: str) -> bool:
    """Whether a peer answered lately."""
    progress = server.progress.get(peer)
    return progress is not None and server.ticks - progress.answered_at <= server.settings.election_ticks_max


def change_configuration(server: Server, members: Sequence[Member]) -> int:
    """Append the configuration, which is in force from now on; returns its index (section 4.1)."""
    reads.forget_old_rounds(server)
    index = server.log.last_index + 1
    configuration = Configuration(first_configuration(members).members, server.commit_index, index)
    entry = Entry(index, server.term, encode_configuration(configuration), CONFIGURATION)
    server.log.extend([entry])
    server.disk.record_entries([entry])
    adopt(server)
    if server.trace:
        server.record("change_configuration", entries=[[index, b64encode(entry.payload).decode()]])
    leading.advance_commit_index(server)
    return index


def after_commit(server: Server) -> None:
    """A leader that is no voter any more leads until that is committed; then it hands over (section 4.2.2)."""
    if server.is_voter or server.log.configuration.index > server.commit_index or server.transferee is not None:
        return
    try:
        transfer.begin(server, transfer.best_transferee(server))
    except TransferImpossible as impossible:
        election.step_down(server, f"it is no voter any more, and {impossible}")
