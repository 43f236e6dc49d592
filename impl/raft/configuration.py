"""Configurations: who is a member of the cluster, and who of them votes.

A configuration is an entry of the log (`Entry.kind` is CONFIGURATION) and in force as soon as it is in the log,
committed or not (Ongaro 2014, section 4.1). The first one is the genesis, at index 0. One change at a time concerns one
server: two quorums of adjacent configurations share a server. The payload is the msgpack array
["configuration", [member, ...], allowed_by], a member an array of its fields.

This module does not decide whether a change may be made now: `membership` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from impl.raft.errors import AlreadyMember, UnknownServer

COMMAND: Final = 0
"""`Entry.kind` of what the state machine is fed."""
CONFIGURATION: Final = 1
"""`Entry.kind` of a configuration."""
NAME: Final = "configuration"
"""First element of the payload."""


class Member(msgspec.Struct, frozen=True, array_like=True, order=True):
    """A server of the cluster. A non-voter receives the log and counts in no quorum (Ongaro 2014, section 4.2.1)."""

    name: str
    """The node's name, by which Raft knows it."""
    node_id: str = ""
    storage_id: str = ""
    """Of its data directory: a server that lost it is another server (ARCHITECTURE.md, section 6)."""
    address: str = ""
    """host:port of its RPC, when the change was made."""
    voter: bool = True
    staging: bool = False
    """A non-voter that is to be promoted when it has caught up (hashicorp/raft: Staging). Raft itself does not care."""


class Configuration(msgspec.Struct, frozen=True):
    """The members in force from `index` on."""

    members: tuple[Member, ...]
    """Sorted by name."""
    allowed_by: int = 0
    """The leader's commit index when it made the change: a history variable, for the proof's sake."""
    index: int = 0
    """Of the entry; 0 for the genesis."""

    @property
    def names(self) -> tuple[str, ...]:
        """All members, sorted."""
        return tuple(member.name for member in self.members)

    @property
    def voters(self) -> tuple[str, ...]:
        """The members who vote, sorted."""
        return tuple(member.name for member in self.members if member.voter)

    def member(self, name: str) -> Member | None:
        """The member of that name."""
        return next((member for member in self.members if member.name == name), None)


def first_configuration(members: Sequence[str | Member]) -> Configuration:
    """The genesis. A name alone is a voter of whom nothing else needs to be known."""
    return Configuration(_sorted([_member(member) for member in members]))


def _member(member: str | Member) -> Member:
    return Member(member) if isinstance(member, str) else member


def _sorted(members: Sequence[Member]) -> tuple[Member, ...]:
    return tuple(sorted(members, key=lambda member: member.name))


def encode_configuration(configuration: Configuration) -> bytes:
    """The payload of the entry."""
    return msgspec.msgpack.encode([NAME, configuration.members, configuration.allowed_by])


def decode_configuration(payload: bytes, index: int) -> Configuration:
    """The configuration of the entry at `index`. Raises msgspec.DecodeError if the payload is none."""
    name, members, allowed_by = _decode(payload)
    if name != NAME:
        raise msgspec.ValidationError(f"entry {index} is no configuration but {name!r}")
    return Configuration(members, allowed_by, index)


_decode: Final = msgspec.msgpack.Decoder(tuple[str, tuple[Member, ...], int]).decode


def changed_servers(old: Configuration, new: Sequence[Member]) -> list[str]:
    """Whose status (absent, non-voter, voter) differs, sorted."""
    before: dict[str, Any] = {member.name: member.voter for member in old.members}
    after: dict[str, Any] = {member.name: member.voter for member in new}
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


# One change each: the members after it, for `Core.change_configuration`.


def with_member(configuration: Configuration, member: Member) -> tuple[Member, ...]:
    """The server joins. Raises AlreadyMember."""
    if configuration.member(member.name) is not None:
        raise AlreadyMember(member.name, "a member of the cluster")
    return _sorted([*configuration.members, member])


def without_member(configuration: Configuration, name: str) -> tuple[Member, ...]:
    """The server leaves. Raises UnknownServer."""
    _known(configuration, name)
    return tuple(member for member in configuration.members if member.name != name)


def with_voter(configuration: Configuration, name: str, *, voter: bool) -> tuple[Member, ...]:
    """The member is promoted to a voter, or demoted from it. Raises UnknownServer, AlreadyMember."""
    if _known(configuration, name).voter is voter:
        raise AlreadyMember(name, "a voter" if voter else "a non-voter")
    return tuple(
        msgspec.structs.replace(member, voter=voter) if member.name == name else member
        for member in configuration.members
    )


def _known(configuration: Configuration, name: str) -> Member:
    member = configuration.member(name)
    if member is None:
        raise UnknownServer(name, configuration.names)
    return member
