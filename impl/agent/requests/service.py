"""What a server does with what arrives on its RPC port: Raft's messages and the calls of other agents."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from impl.agent.driver import Driver
from impl.agent.membership.discovery import Conflict, Discovery
from impl.agent.membership.members import Members
from impl.agent.membership.operations import AskConfiguration, Operate
from impl.agent.requests.api import AgentError, DefiniteError, IndefiniteError
from impl.agent.requests.protocol import (
    ANNOUNCE,
    DISCOVER,
    KV_READ,
    KV_WRITE,
    MALFORMED,
    OPERATE,
    RAFT_CONFIGURATION,
    SESSION_RENEW,
    STATUS,
    Announcement,
    Discover,
    KvRead,
    KvWrite,
    RenewSession,
    encode,
)
from impl.agent.requests.routing import Requests
from impl.agent.snapshots.archive_calls import METHODS as ARCHIVE_METHODS
from impl.agent.snapshots.archive_calls import ArchiveCalls
from impl.agent.snapshots.transfer import SNAPSHOT_CHUNK, SNAPSHOT_OFFER
from impl.raft.messages import decode
from impl.rpc.handshake import Hello
from impl.rpc.server import Reply
from impl.runtime.interfaces import Runtime

_discover: msgspec.msgpack.Decoder[Discover] = msgspec.msgpack.Decoder(Discover)
_kv_write: msgspec.msgpack.Decoder[KvWrite] = msgspec.msgpack.Decoder(KvWrite)
_kv_read: msgspec.msgpack.Decoder[KvRead] = msgspec.msgpack.Decoder(KvRead)
_renew_session: msgspec.msgpack.Decoder[RenewSession] = msgspec.msgpack.Decoder(RenewSession)
_announcement: msgspec.msgpack.Decoder[Announcement] = msgspec.msgpack.Decoder(Announcement)
_operate: msgspec.msgpack.Decoder[Operate] = msgspec.msgpack.Decoder(Operate)
_ask_configuration: msgspec.msgpack.Decoder[AskConfiguration] = msgspec.msgpack.Decoder(AskConfiguration)


class Service:
    """The handlers of one server; what `RpcServer` calls."""

    def __init__(
        self,
        runtime: Runtime,
        discovery: Discovery,
        requests: Requests,
        members: Members,
        *,
        introduced: Callable[[], None],
        conflict: Callable[[Conflict], None],
    ) -> None:
        """`introduced`: a server spoke of itself; `conflict`: it may not."""
        self.driver: Driver | None = None
        """Set once the cluster has formed; before, Raft's messages are lost."""
        self._runtime = runtime
        self._discovery = discovery
        self._requests = requests
        self._members = members
        self._archives = ArchiveCalls(runtime, requests)
        self._introduced = introduced
        self._conflict = conflict

    def raft_message(self, sender: Hello, payload: bytes, crc: int) -> None:
        """A message of a peer. One that cannot be decoded raises, which closes its connection."""
        if self.driver is not None and self._members.speaks_for_itself(sender):
            self.driver.receive(sender.node_name, sender.incarnation, decode(payload), crc)

    def raft_connected(self, sender: Hello) -> None:
        """A peer dialled: it lives, so our link to it can be redialled now."""
        self._members.dialled(sender)

    def raft_lost(self, sender: Hello, reason: str) -> None:
        """A peer's connection to us closed."""
        self._members.hung_up(sender)

    def call(self, sender: Hello, method: str, body: bytes, reply: Reply) -> None:
        """A request of another agent."""
        try:
            if method == KV_WRITE:
                self._spawn(self._requests.serve_write(_kv_write.decode(body)), reply)
            elif method == KV_READ:
                self._spawn(self._requests.serve_read(_kv_read.decode(body)), reply)
            elif method in (SNAPSHOT_OFFER, SNAPSHOT_CHUNK):
                self._snapshot(sender, method, body, reply)
            elif method == DISCOVER:
                self._introduction(_discover.decode(body), reply)
            elif method == OPERATE:
                self._spawn(self._requests.serve_operate(_operate.decode(body)), reply)
            elif method == SESSION_RENEW:
                self._spawn(self._requests.serve_renewal(_renew_session.decode(body)), reply)
            elif method == ANNOUNCE:
                self._spawn(self._requests.serve_announcement(_announcement.decode(body)), reply)
            elif method == RAFT_CONFIGURATION:
                self._spawn(self._requests.serve_configuration(_ask_configuration.decode(body)), reply)
            elif method in ARCHIVE_METHODS:
                self._spawn(self._archives.serve(method, body), reply)
            elif method == STATUS:
                reply.ok(encode(self._requests.status()))
            else:
                reply.error(f"unknown method {method!r}: the caller is of another version", True)
        except MALFORMED as error:
            reply.error(f"malformed {method}: {error}", True)

    def _snapshot(self, sender: Hello, method: str, body: bytes, reply: Reply) -> None:
        """A leader sends its snapshot: as much as Raft's messages, for members of the cluster only."""
        receiver = self.driver.receiver if self.driver is not None else None
        if receiver is None or not self._members.speaks_for_itself(sender):
            reply.error(f"{sender.node_name} cannot send a snapshot here now", True)
        else:
            receiver.call(sender, method, body, reply)

    def _introduction(self, introduction: Discover, reply: Reply) -> None:
        try:
            self._discovery.hear(introduction)
        except Conflict as conflict:
            self._conflict(conflict)
        reply.ok(encode(self._discovery.answer(self._runtime.clock.monotonic_ns())))
        self._introduced()

    def _spawn(self, work: Coroutine[Any, Any, Any], reply: Reply) -> None:
        self._runtime.tasks.spawn(_answer(work, reply), "call")


async def _answer(work: Coroutine[Any, Any, Any], reply: Reply) -> None:
    try:
        result = await work
    except IndefiniteError as error:
        reply.error(str(error), False)
    except (DefiniteError, AgentError) as error:
        reply.error(str(error), True)
    except MALFORMED as error:
        reply.error(f"malformed: {error}", True)
    else:
        reply.ok(encode(result))
