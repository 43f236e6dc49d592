"""What an agent offers to whoever speaks for its users (the HTTP API): writes, reads and its own state.

A server agent and a client agent both are an `Agent`. Errors tell a definite failure (it did not happen and will not)
from an indefinite one (a write may have happened, or may yet). Source: Consul, "Consistency modes".
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from impl.catalog.commands import Write
from impl.catalog.queries import Answer, Query
from impl.catalog.rows import Session
from impl.catalog.transitions import Result

if TYPE_CHECKING:
    from impl.agent.config.validated import Address
    from impl.agent.membership.operations import Operation, RaftConfiguration


class Consistency(StrEnum):
    """How fresh a read must be."""

    DEFAULT = "default"
    """Linearizable while clocks keep to the configured drift: the leader answers by its lease, or as `consistent` if it
    holds none. *Deviation:* Consul's leader answers without either."""
    CONSISTENT = "consistent"
    """Linearizable: the leader confirms its leadership with a quorum first (Ongaro 2014, section 6.4)."""
    STALE = "stale"
    """Any server answers from what it has applied."""


class ReadOptions(msgspec.Struct, frozen=True, array_like=True):
    """How to read: the consistency, and for a blocking query the index to pass and how long to wait (seconds)."""

    consistency: Consistency = Consistency.DEFAULT
    min_index: int = 0
    wait: float = 0.0


class ReadReply(msgspec.Struct, frozen=True, array_like=True):
    """An answer and how fresh it is."""

    answer: Answer
    known_leader: bool
    last_contact_ms: int
    """Since the answering server last heard from its leader; 0 on the leader."""


class AgentError(Exception):
    """A request failed. The text is what Consul's users see as the body of a 500."""


class DefiniteError(AgentError):
    """The request had no effect and never will."""


class IndefiniteError(AgentError):
    """The request may have had its effect, or may yet have it."""


class RestoreUnknown(IndefiniteError):
    """A snapshot may have been restored, or may yet be."""

    def __init__(self, why: str) -> None:
        known = "it is unknown whether the snapshot was, or will be, restored: "
        super().__init__(known + why.removeprefix(known))


class NoClusterLeader(DefiniteError):
    """No leader was found before the hold timeout ended."""

    def __init__(self) -> None:
        super().__init__("No cluster leader")


class NoKnownServers(DefiniteError):
    """A client agent reached none of the servers that it was told of."""

    def __init__(self) -> None:
        super().__init__("No known Consul servers")


V_contra = TypeVar("V_contra", contravariant=True)


class Answered(Protocol[V_contra]):
    """Who is told, once, how a request ended that was begun. It must not raise."""

    def __call__(self, result: V_contra | Exception, /) -> None:
        """The result, or why there is none: what is no AgentError is a defect."""


class ArchiveStream(Protocol):
    """An archive of the state, read out piece by piece. To be closed."""

    index: int
    """Of the state."""
    known_leader: bool
    last_contact_ms: int
    """As in `ReadReply`."""

    async def read(self) -> bytes:
        """The next piece; b"": that was all.

        Raises:
            AgentError: the rest cannot be had.
        """
        ...

    def close(self) -> None:
        """Nobody reads it any more."""
        ...


class ArchiveUpload(Protocol):
    """An archive on its way to whoever restores it. To be closed."""

    async def add(self, data: bytes) -> None:
        """The next piece.

        Raises:
            DefiniteError: it is too large, or cannot be kept.
        """
        ...

    async def restore(self) -> None:
        """All of it was sent: verify it and put it in the place of the state in force.

        Raises:
            DefiniteError: it is not whole, or could not be restored; nothing was changed.
            IndefiniteError: it may have been restored, or may yet be.
        """
        ...

    def close(self) -> None:
        """Forget it, if it was not restored."""
        ...


class Agent(Protocol):
    """A running agent, server or client."""

    async def write(self, command: Write) -> Result:
        """Replicate and apply one command; its result, which may be that the state machine refused it.

        Raises:
            DefiniteError: not applied, and never will be.
            IndefiniteError: perhaps applied.
        """
        ...

    async def read(self, query: Query, options: ReadOptions) -> ReadReply:
        """Answer one query.

        Raises:
            AgentError: no answer of the consistency asked for could be had.
        """
        ...

    async def renew_session(self, session_id: str) -> Session | None:
        """Give a session its full TTL again; None: there is no such session.

        Raises:
            AgentError: the leader could not be asked.
        """
        ...

    def cluster_size(self) -> int:
        """How many nodes are registered, as far as this agent knows; at least 1."""
        ...

    def new_id(self) -> str:
        """A random UUID, for what has none yet."""
        ...

    async def status_leader(self) -> str:
        """The leader's RPC address (`ip:port`), or "" if none is known."""
        ...

    async def status_peers(self) -> list[str]:
        """The RPC addresses of the servers of the Raft configuration, sorted."""
        ...

    async def operate(self, operation: Operation) -> int:
        """Change the members of the cluster, or who leads; the index of the configuration that is committed then.

        Raises:
            DefiniteError: refused, with the reason; nothing was changed.
            IndefiniteError: it may have been done, or may yet be.
        """
        ...

    async def raft_configuration(self, stale: bool) -> RaftConfiguration:
        """The newest configuration: the leader's, or with `stale` that of any server.

        Raises:
            AgentError: nobody could be asked.
        """
        ...

    async def save_archive(self, stale: bool) -> ArchiveStream:
        """An archive of the state: the leader's, or with `stale` that of any server.

        Raises:
            AgentError: nobody could make one.
        """
        ...

    async def upload_archive(self) -> ArchiveUpload:
        """An archive that is to be restored, to be sent to the leader.

        Raises:
            AgentError: the leader does not take one.
        """
        ...

    async def leave(self) -> None:
        """Leave the cluster and end the process: a server hands over leadership and is removed from the configuration.

        Returns when that is done, or has been refused; the process ends soon after.
        """
        ...

    async def join(self, address: Address) -> None:
        """Introduce oneself to the server at an address, now, and get to know those that it knows.

        Raises:
            AgentError: it does not answer, or belongs elsewhere.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """The document of `/v1/agent/self`."""
        ...
