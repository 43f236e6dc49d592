"""Membership: one server at a time joins, leaves, or gets or loses its vote. See `actions`.

A configuration is in force for whoever has it in its log, committed or not. Three rules make majorities of successive
configurations meet: one server's status changes at a time; the change before is committed; the leader has committed an
entry of its own term (without the last, two leaders may each change what the other has not seen).

Sources: Ongaro 2014, chapter 4; Ongaro, "bug in single-server membership changes", raft-dev, 2015.
"""

from __future__ import annotations

from msgspec.structs import replace

from spec.raft.state import issue, numbers_of, remembering
from spec.raft.types import Configuration, Constants, Entry, Outcome, Role, Server, ServerId, Value


def change_configuration(
    c: Constants, i: ServerId, s: Server, configuration: Configuration, value: Value = ""
) -> Outcome | None:
    """The leader appends a configuration that differs from the latest one by the status of one server.

    Ongaro 2014, section 4.1. It counts over the new configuration from now on, and of those who leave it forgets what
    they acknowledged.
    """
    if s.role is not Role.LEADER or not is_well_formed(c, configuration) or configuration.allowed_by != s.commit_index:
        return None
    one_change = statuses_changed(c.configuration(s.log), configuration) == 1
    if not (one_change and latest_is_committed(s) and own_term_is_committed(s)):
        return None
    return Outcome(proposed(c, i, s, configuration, value))


def latest_is_committed(s: Server) -> bool:
    """Whether the leader knows that the latest configuration in its log is committed (section 4.1)."""
    return s.log.configuration_index <= s.commit_index


def own_term_is_committed(s: Server) -> bool:
    """Whether the leader has committed an entry of its own term, so that no other leader's change is in its way."""
    return s.log.term_at(s.commit_index) == s.current_term


def proposed(c: Constants, i: ServerId, s: Server, configuration: Configuration, value: Value) -> Server:
    """The leader `s` with the configuration in its log, counting over it."""
    longer = s.log.append(Entry(term=s.current_term, value=value, configuration=configuration))
    leader = replace(
        s,
        issued=issue(s, replace(s.memory, log=longer)),
        match_index=numbers_of(configuration, i, s.match_index),
        acked_round=numbers_of(configuration, i, s.acked_round),
    )
    return remembering(c, i, leader)


def is_well_formed(c: Constants, configuration: Configuration) -> bool:
    """Whether a configuration has a voter, names servers that may exist, each once and in order."""
    voters, nonvoters = set(configuration.voters), set(configuration.nonvoters)
    in_order = list(configuration.voters) == sorted(voters) and list(configuration.nonvoters) == sorted(nonvoters)
    return bool(voters) and in_order and voters.isdisjoint(nonvoters) and voters | nonvoters <= set(c.servers)


def statuses_changed(old: Configuration, new: Configuration) -> int:
    """How many servers are voter, nonvoter or absent in one configuration and something else in the other."""

    def status(configuration: Configuration, server: ServerId) -> tuple[bool, bool]:
        return server in configuration.voters, server in configuration.nonvoters

    return sum(status(old, server) != status(new, server) for server in {*old.members, *new.members})
