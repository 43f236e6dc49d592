"""The first frame in each direction says who is there; whoever does not fit is refused with the reason.

The dialling side sends its Hello; the accepting side answers with its own, or with a Refusal, after which it closes.
Nothing else is sent before. A cluster id of "" means "not formed, or not known yet": calls may cross such a
border, since forming a cluster and joining one is done by calls; Raft's messages may not.

It must not do I/O.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

PROTOCOL = 1


class AgentRole(StrEnum):
    """What kind of agent speaks."""

    SERVER = "server"
    CLIENT = "client"


class Purpose(StrEnum):
    """What a connection is for."""

    RAFT = "raft"
    """One-way: the dialling server sends Raft messages, the other only answers pings."""
    RPC = "rpc"
    """Calls: the dialling side asks."""


class Hello(msgspec.Struct, frozen=True, array_like=True):
    """Who opens, or answers, a connection."""

    protocol: int
    cluster_id: str
    """"" before the cluster has formed, or before a client agent has learned it."""
    node_id: str
    node_name: str
    datacenter: str
    incarnation: int
    """0 for client agents."""
    role: AgentRole
    purpose: Purpose
    storage_id: str = ""
    """Of a server's data directory: whoever lost it is another server under the same name. "" for client agents."""


class Refusal(msgspec.Struct, frozen=True, array_like=True):
    """Why a connection is refused."""

    cause: str
    """One word or two, for counters."""
    text: str
    """Cause and remedy, for people."""


_encode = msgspec.msgpack.Encoder().encode
_hello = msgspec.msgpack.Decoder(Hello).decode
_refusal = msgspec.msgpack.Decoder(Refusal).decode


def encode(message: Hello | Refusal) -> bytes:
    """The frame's payload."""
    return _encode(message)


def decode_hello(payload: bytes) -> Hello | Refusal:
    """The Hello, or why it is refused at once: another protocol, or not a Hello at all."""
    version = _protocol_of(payload)
    if version is not None and version != PROTOCOL:
        return _other_protocol(version)
    try:
        return _hello(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        return Refusal("malformed", f"the handshake cannot be read ({error}): is this a Comitia agent?")


def decode_refusal(payload: bytes) -> Refusal:
    """The reason that the other side gave; one that cannot be read is a reason too."""
    try:
        return _refusal(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        return Refusal("malformed", f"the refusal cannot be read: {error}")


def check(mine: Hello, theirs: Hello, purpose: Purpose) -> Refusal | None:
    """Whether two agents may speak with each other for this purpose; None if they may."""
    if theirs.protocol != PROTOCOL:
        return _other_protocol(theirs.protocol)
    if theirs.datacenter != mine.datacenter:
        return Refusal(
            "datacenter",
            f"{theirs.node_name} is in datacenter {theirs.datacenter}, {mine.node_name} in {mine.datacenter}: "
            "correct -datacenter or the address",
        )
    if theirs.cluster_id and mine.cluster_id and theirs.cluster_id != mine.cluster_id:
        return Refusal(
            "cluster",
            f"{theirs.node_name} belongs to cluster {theirs.cluster_id}, {mine.node_name} to {mine.cluster_id}: "
            "correct -retry-join, or remove the data directory of the one that is in the wrong cluster",
        )
    if purpose is Purpose.RAFT:
        return _check_raft(mine, theirs)
    return None


def _check_raft(mine: Hello, theirs: Hello) -> Refusal | None:
    """Raft's messages cross only between different servers of one formed cluster."""
    if not (theirs.cluster_id and mine.cluster_id):
        unformed = theirs if not theirs.cluster_id else mine
        return Refusal("unformed", f"{unformed.node_name} is not part of a cluster yet")
    if AgentRole.CLIENT in (theirs.role, mine.role):
        return Refusal("role", "Raft's messages are for servers only")
    if theirs.node_id == mine.node_id:
        return Refusal(
            "same node",
            f"{theirs.node_name} has the node ID of {mine.node_name}: give every server a -data-dir of its own",
        )
    if theirs.node_name == mine.node_name:
        return Refusal("same name", f"two servers are called {mine.node_name}: give every server a -node of its own")
    return None


def _protocol_of(payload: bytes) -> int | None:
    """The first element, which is the protocol version in every version."""
    try:
        match msgspec.msgpack.decode(payload):
            case [int(version), *_]:
                return version
            case _:
                return None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _other_protocol(version: int) -> Refusal:
    return Refusal(
        "protocol", f"the other side speaks protocol {version}, this one {PROTOCOL}: run the same version on all agents"
    )
