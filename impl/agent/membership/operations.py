"""What may be asked of a cluster about itself: who is a member, who votes, who leads.

These are values. `reconfiguration` carries them out on the leader, or `reconcile` if somebody is made to leave;
`routing` brings them there. `id` names a server by its node ID or by its node name. Source: Consul, "Operator HTTP
API", Raft; hashicorp/raft, `ServerSuffrage`.
"""

from __future__ import annotations

import msgspec

from impl.agent.requests.protocol import ServerInfo


class Join(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """A server asks to become a member: a non-voter that is promoted when it has caught up, unless it is a replica."""

    server: ServerInfo
    read_replica: bool


class AddPeer(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Add the server at an address; what else is given must be true of it."""

    address: str
    id: str = ""
    name: str = ""
    non_voter: bool = False
    """It is never promoted by itself."""


class RemovePeer(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Remove a member, by one of the two."""

    id: str = ""
    address: str = ""


class Promote(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Let a non-voter vote."""

    id: str


class Demote(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """Let a voter vote no more; it stays a non-voter until it is promoted."""

    id: str


class TransferLeader(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """Let another server lead: the one named, or the one that is furthest."""

    id: str = ""


class ForceLeave(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """Take an agent that failed, server or client, for one that left."""

    node: str


RaftOperation = Join | AddPeer | RemovePeer | Promote | Demote | TransferLeader
Operation = RaftOperation | ForceLeave


class Operate(msgspec.Struct, frozen=True, array_like=True):
    """An operation on its way to the leader. `forwarded` by a server: the receiver must not forward it again."""

    operation: Operation
    forwarded: bool


class ServerHealth(msgspec.Struct, frozen=True, array_like=True):
    """How well a server is, as its leader sees it (`autopilot`)."""

    healthy: bool
    connected: bool
    contact_ms: int
    """Since it was heard last; negative: never."""
    last_term: int
    """Of the entry at its `last_index`; 0 if that is not known any more."""
    since_ns: int
    """Unix time at which `healthy` became what it is, or this leader's term began."""


class RaftServer(msgspec.Struct, frozen=True, array_like=True):
    """A member, as the answering server sees it."""

    id: str
    node: str
    address: str
    """host:port; "" if nobody has met it."""
    leader: bool
    voter: bool
    last_index: int
    """How far its log is known to equal the leader's; 0 where the answering server does not know."""
    read_replica: bool = False
    """It is never promoted by itself."""
    health: ServerHealth | None = None
    """None: the answering server does not lead."""


class RaftConfiguration(msgspec.Struct, frozen=True, array_like=True):
    """The newest configuration of the answering server."""

    servers: tuple[RaftServer, ...]
    """Sorted by name."""
    index: int
    """Of its entry in the log; 0: the genesis."""


class AskConfiguration(msgspec.Struct, frozen=True, array_like=True):
    """`stale`: whoever is asked answers. `forwarded` as in `Operate`."""

    stale: bool
    forwarded: bool
