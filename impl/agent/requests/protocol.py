"""What agents ask each other over RPC: methods, bodies and how failures travel.

Bodies are msgpack arrays. A reply that refuses says whether the request can have had an effect; the caller's retries
hang on that one bit (impl/agent/requests/forwarding.py).
"""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from impl.agent.config.validated import Address
from impl.agent.requests.api import IndefiniteError, ReadOptions
from impl.catalog.commands import Write
from impl.catalog.queries import Query
from impl.raft.configuration import Member
from impl.storage.records import Genesis

DISCOVER = "discover"
KV_WRITE = "kv-write"
KV_READ = "kv-read"
STATUS = "status"
OPERATE = "operate"
RAFT_CONFIGURATION = "raft-configuration"
SESSION_RENEW = "session-renew"
ANNOUNCE = "announce"

NOT_LEADER = "not leader"
"""Text of the refusal of a forwarded request by a server that is not the leader (any more): definite."""
NOT_READY = "Not ready to serve consistent reads"


MALFORMED = (msgspec.MsgspecError, UnicodeDecodeError)
"""What decoding a body that another agent sent may raise: msgspec leaves bad UTF-8 to Python."""

T = TypeVar("T")

encode: Final = msgspec.msgpack.Encoder().encode
"""The body of a request or an answer."""


def decode_answer(decoder: msgspec.msgpack.Decoder[T], body: bytes) -> T:
    """The answer to a request that reached another agent.

    Raises:
        IndefiniteError: it cannot be read, so nobody knows what became of the request.
    """
    try:
        return decoder.decode(body)
    except MALFORMED as error:
        raise IndefiniteError(f"rpc error: the answer cannot be read: {error}") from error


Identity = tuple[str, str, str]
"""Name, node id and storage id of a server: all three, or it is another server."""


class ServerInfo(msgspec.Struct, frozen=True, array_like=True, order=True):
    """A server as others see it. `host` and `port` are where its RPC can be dialled."""

    name: str
    node_id: str
    host: str
    port: int
    incarnation: int = 0
    """Of the process that said so: of two accounts of one server, the one of the later process is true."""
    storage_id: str = ""
    """Of its data directory: a server that lost it is another one, whatever it is called."""

    @property
    def identity(self) -> Identity:
        """What a genesis lists."""
        return self.name, self.node_id, self.storage_id

    @property
    def address(self) -> Address:
        """Where to dial it."""
        return Address(self.host, self.port)


class Discover(msgspec.Struct, frozen=True, array_like=True):
    """An agent introduces itself (a client agent: None) and passes on the servers that it knows."""

    sender: ServerInfo | None
    known: tuple[ServerInfo, ...]


class Discovered(msgspec.Struct, frozen=True, array_like=True):
    """What a server says of itself and of the servers that it knows."""

    sender: ServerInfo
    bootstrap_expect: int
    genesis: Genesis | None
    """Of the cluster it belongs to; None: not formed yet, and nothing in its log."""
    candidates: tuple[Identity, ...]
    """While not formed: the servers it would form a cluster with, sorted, itself included."""
    known: tuple[ServerInfo, ...]
    members: tuple[Member, ...] = ()
    """The newest configuration that it knows to be committed."""
    configuration_index: int = 0
    """Index of that one in the log."""


class KvWrite(msgspec.Struct, frozen=True, array_like=True):
    """A write on its way to the leader. `forwarded` by a server: the receiver must not forward it again."""

    command: Write
    request: str
    """NODE/INCARNATION/rN, given by the agent that took the write from its client; the same in every attempt."""
    forwarded: bool


class KvRead(msgspec.Struct, frozen=True, array_like=True):
    """A read on its way to the leader, or for `stale` to any server."""

    query: Query
    options: ReadOptions
    forwarded: bool


class RenewSession(msgspec.Struct, frozen=True, array_like=True):
    """A session is to have its full TTL again: the leader's timers, which no log knows."""

    session_id: str
    forwarded: bool


class Announcement(msgspec.Struct, frozen=True, array_like=True):
    """A client agent lives, or leaves: what the leader registers. Answered with the number of registered nodes."""

    name: str
    node_id: str
    address: str
    leaving: bool = False
    forwarded: bool = False
    """As in `KvWrite`."""


class Status(msgspec.Struct, frozen=True, array_like=True):
    """The leader's RPC address ("" if unknown) and those of all servers of the configuration, sorted."""

    leader: str
    peers: tuple[str, ...]
