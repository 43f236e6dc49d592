"""Snapshots on their way from a leader to a server that lags too far behind: offered, sent in pieces, handed over.

    snapshot-offer  [Raft's InstallSnapshotRequest as bytes, size, checksum] -> [offset]
    snapshot-chunk  [checksum, offset, CRC-32, bytes]                        -> [offset]

Both are calls between agents (impl/rpc), on a connection that Raft's messages do not use; one is under way at a time,
so that heartbeats never stand behind more than one piece. The answer is where the next piece begins: a piece whose
checksum is wrong is counted and sent again, and a transfer that was cut goes on where it stopped, after a restart of
either side too. The receiver checks the whole before the core hears of it; a wrong one is removed, counted, and fetched
again from the start. Source: Ongaro 2014, section 5.3 (figure 5.3); *Deviation:* pieces are not Raft's messages, the
request is one message that arrives when the file has.

Nothing here decides who needs a snapshot: `Ready.snapshots` does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol
from zlib import crc32

import msgspec

from impl.agent.logs import Log
from impl.agent.requests.protocol import encode
from impl.agent.snapshots.lifecycle import Snapshots, meta_of
from impl.raft.messages import InstallSnapshotRequest, decode
from impl.raft.ready import SnapshotMeta
from impl.rpc.errors import RpcError
from impl.rpc.handshake import Hello
from impl.rpc.server import Reply
from impl.runtime.interfaces import NANOSECONDS
from impl.runtime.off_loop import ignore, off_loop
from impl.storage.errors import StorageError
from impl.storage.incoming import IncomingSnapshot
from impl.storage.snapshots import CHECKSUM_BYTES

SNAPSHOT_OFFER = "snapshot-offer"
SNAPSHOT_CHUNK = "snapshot-chunk"
CHUNK_BYTES = 256 * 1024
CHUNK_BYTES_MAX = 512 * 1024
"""No piece is longer."""
CALL_TIMEOUT_NS = 60 * NANOSECONDS
"""The answer to the last piece waits until the whole was read once more."""
ATTEMPTS_MAX = 8
"""How often a piece is sent before the transfer is given up for now."""
WAITING_MAX = 16
"""Calls that wait for their turn; further ones are refused."""


class SnapshotOffer(msgspec.Struct, frozen=True, array_like=True):
    """A snapshot is to be sent."""

    message: bytes
    """The InstallSnapshotRequest."""
    size: int
    checksum: str


class SnapshotChunk(msgspec.Struct, frozen=True, array_like=True):
    """A piece of the snapshot that was offered last."""

    checksum: str
    """Of the whole snapshot: which one it is."""
    offset: int
    crc: int
    """CRC-32 of `data`."""
    data: bytes


class SnapshotProgress(msgspec.Struct, frozen=True, array_like=True):
    """Where the next piece begins; the size: it was accepted."""

    offset: int


_offer: msgspec.msgpack.Decoder[SnapshotOffer] = msgspec.msgpack.Decoder(SnapshotOffer)
_chunk: msgspec.msgpack.Decoder[SnapshotChunk] = msgspec.msgpack.Decoder(SnapshotChunk)
_progress: msgspec.msgpack.Decoder[SnapshotProgress] = msgspec.msgpack.Decoder(SnapshotProgress)


class Refused(Exception):
    """The receiver does not take this snapshot, or this piece, and says why."""


Call = Callable[[str, str, bytes, int], Awaitable[bytes]]
"""(peer, method, body, timeout in ns): as `RpcClient.call`; raises RpcError, also if the peer's address is unknown."""


class SnapshotSender:
    """The leader's side: at most one transfer to each peer."""

    def __init__(self, snapshots: Snapshots, call: Call, sent: Callable[[str, bool], None], log: Log) -> None:
        """`sent` hears how a transfer ended: (peer, whether the peer has accepted the snapshot)."""
        self._snapshots = snapshots
        self._call = call
        self._sent = sent
        self._log = log
        self._under_way: set[str] = set()

    def send(self, to: str, request: InstallSnapshotRequest, message: bytes) -> None:
        """Begin a transfer; `message` is the request as bytes."""
        if to in self._under_way:
            return
        self._under_way.add(to)
        runtime = self._snapshots.runtime
        self._snapshots.spawn(runtime.tasks.spawn(self._send(to, request, message), f"snapshot to {to}"))

    async def _send(self, to: str, request: InstallSnapshotRequest, message: bytes) -> None:
        counters, ok = self._snapshots.counters, False
        self._log.info("sending snapshot", to=to, index=request.last_index, bytes=request.size)
        try:
            await self._transfer(to, request, message)
            ok = True
            counters.sent += 1
            self._log.info("snapshot sent", to=to, index=request.last_index)
        except (RpcError, OSError, msgspec.MsgspecError, Refused) as error:
            counters.transfers_failed += 1
            self._log.warn("snapshot not sent; it goes on later", to=to, index=request.last_index, error=str(error))
        finally:
            self._under_way.discard(to)
        self._sent(to, ok)

    async def _transfer(self, to: str, request: InstallSnapshotRequest, message: bytes) -> None:
        snapshots = self._snapshots
        path = snapshots.path(request.checksum)
        if path is None:
            raise Refused("the snapshot was removed: a newer one is there")
        file = await off_loop(snapshots.runtime, lambda: snapshots.runtime.disk.open(path))
        try:
            offset = await self._ask(to, SNAPSHOT_OFFER, SnapshotOffer(message, request.size, request.checksum))
            attempts = 0
            while offset < request.size:
                start = offset
                data = await off_loop(snapshots.runtime, partial(file.read, start, CHUNK_BYTES))
                chunk = SnapshotChunk(request.checksum, start, crc32(data), data)
                offset = await self._ask(to, SNAPSHOT_CHUNK, chunk)
                snapshots.counters.chunks_sent += 1
                attempts = attempts + 1 if offset <= start else 0
                if attempts == ATTEMPTS_MAX:
                    raise Refused(f"the piece at byte {start} was refused {ATTEMPTS_MAX} times")
        finally:
            snapshots.runtime.executor.submit(file.close, ignore, ignore)

    async def _ask(self, to: str, method: str, body: SnapshotOffer | SnapshotChunk) -> int:
        reply = await self._call(to, method, encode(body), CALL_TIMEOUT_NS)
        return _progress.decode(reply).offset


class Recipient(Protocol):
    """Who is told of a snapshot that has arrived: the driver."""

    @property
    def term(self) -> int:
        """The current term."""

    def snapshot_received(
        self, sender: Hello, request: InstallSnapshotRequest, frame: bytes, meta: SnapshotMeta
    ) -> bool:
        """A complete, verified snapshot file is durable here; `frame` is the request as bytes. False: not needed."""


class _Transfer:
    """The snapshot that is being received."""

    def __init__(self, sender: Hello, request: InstallSnapshotRequest, message: bytes, part: IncomingSnapshot) -> None:
        self.sender = sender
        self.request = request
        self.message = message
        self.part = part


class SnapshotReceiver:
    """The other side: one transfer at a time, the newest offer's. Calls are served in turn."""

    def __init__(self, snapshots: Snapshots, recipient: Recipient, log: Log) -> None:
        self._snapshots = snapshots
        self._recipient = recipient
        self._log = log
        self._current: _Transfer | None = None
        self._turns: deque[Callable[[], Awaitable[None]]] = deque()
        self._serving = False

    def call(self, sender: Hello, method: str, body: bytes, reply: Reply) -> None:
        """Serve `snapshot-offer` or `snapshot-chunk`. Raises msgspec.MsgspecError for a body that makes no sense."""
        if method == SNAPSHOT_OFFER:
            offer = _offer.decode(body)
            request = decode(offer.message)
            self._take_turn(lambda: self._answer(self._offered(sender, offer, request), reply), reply)
        else:
            chunk = _chunk.decode(body)
            self._take_turn(lambda: self._answer(self._piece(chunk), reply), reply)

    def _take_turn(self, turn: Callable[[], Awaitable[None]], reply: Reply) -> None:
        if len(self._turns) >= WAITING_MAX:
            reply.error("too many snapshot calls wait for their turn: try again", True)
            return
        self._turns.append(turn)
        if not self._serving:
            self._serving = True
            self._snapshots.spawn(self._snapshots.runtime.tasks.spawn(self._serve(), "snapshot receiver"))

    async def _serve(self) -> None:
        try:
            while self._turns:
                await self._turns.popleft()()
        finally:
            self._serving = False

    async def _answer(self, work: Awaitable[int], reply: Reply) -> None:
        try:
            reply.ok(encode(SnapshotProgress(await work)))
        except Refused as refused:
            reply.error(str(refused), True)
        except (StorageError, OSError) as error:
            self._abandon()
            self._log.error("snapshot not received: it will be offered again", error=str(error))
            reply.error(str(error), True)

    async def _offered(self, sender: Hello, offer: SnapshotOffer, request: object) -> int:
        if not isinstance(request, InstallSnapshotRequest):
            raise Refused("an offer without an InstallSnapshotRequest")
        if (request.size, request.checksum) != (offer.size, offer.checksum) or not _is_checksum(offer.checksum):
            raise Refused("an offer that does not agree with its InstallSnapshotRequest")
        if request.term < self._recipient.term:
            raise Refused(f"an offer of term {request.term}; the current term is {self._recipient.term}")
        here = self._snapshots.meta(request.checksum)
        if here is not None:
            self._recipient.snapshot_received(sender, request, offer.message, here)
            return offer.size
        self._abandon()
        snapshots = self._snapshots
        part = await off_loop(
            snapshots.runtime,
            lambda: IncomingSnapshot(snapshots.runtime.disk, snapshots.directory, offer.checksum, offer.size),
        )
        self._current = _Transfer(sender, request, offer.message, part)
        self._log.info("receiving snapshot", source=sender.node_name, index=request.last_index, bytes=offer.size)
        return await self._finish(self._current) if part.complete else part.offset

    async def _piece(self, chunk: SnapshotChunk) -> int:
        transfer = self._current
        if transfer is None or transfer.part.checksum != chunk.checksum:
            raise Refused("this snapshot is not being received: offer it first")
        part, counters = transfer.part, self._snapshots.counters
        counters.chunks_received += 1
        if not self.is_intact(chunk):
            counters.refused_chunks += 1
            return part.offset
        if chunk.offset != part.offset:
            return part.offset
        if not 0 < len(chunk.data) <= min(CHUNK_BYTES_MAX, part.size - part.offset):
            raise Refused(f"a piece of {len(chunk.data)} bytes at byte {chunk.offset} of {part.size}")
        await off_loop(self._snapshots.runtime, lambda: part.append(chunk.data))
        return await self._finish(transfer) if part.complete else part.offset

    def is_intact(self, chunk: SnapshotChunk) -> bool:
        """Whether the piece is what was sent."""
        return crc32(chunk.data) == chunk.crc

    async def _finish(self, transfer: _Transfer) -> int:
        """Every byte is there: read the whole, hand it over, or begin anew."""
        self._current = None
        snapshots, part = self._snapshots, transfer.part
        try:
            meta = await self._verify(transfer)
        except StorageError as error:
            snapshots.counters.refused_snapshots += 1
            self._log.error("refused a snapshot", source=transfer.sender.node_name, error=str(error))
            await off_loop(snapshots.runtime, part.discard)
            raise Refused(str(error)) from error
        snapshots.counters.received += 1
        snapshots.add(meta)
        self._log.info("snapshot received", source=transfer.sender.node_name, index=meta.index, file=meta.file)
        if not self._recipient.snapshot_received(transfer.sender, transfer.request, transfer.message, meta):
            snapshots.remove(meta)
        return part.size

    async def _verify(self, transfer: _Transfer) -> SnapshotMeta:
        snapshots, part, request = self._snapshots, transfer.part, transfer.request
        suffix = snapshots.runtime.random.randbytes(4).hex()
        reader = await off_loop(snapshots.runtime, lambda: part.verifier(snapshots.cluster_id))
        try:
            while await off_loop(snapshots.runtime, reader.block) is not None:
                pass
        finally:
            snapshots.runtime.executor.submit(reader.close, ignore, ignore)
        header = reader.header
        if (header.index, header.term) != (request.last_index, request.last_term):
            raise StorageError(f"the snapshot is of {header.index}, {header.term}: not the one that was announced")
        return meta_of(await off_loop(snapshots.runtime, lambda: part.accept(reader, suffix)))

    def _abandon(self) -> None:
        """Keep what arrived, and wait for another offer."""
        if self._current is not None:
            self._snapshots.runtime.executor.submit(self._current.part.close, ignore, ignore)
            self._current = None


def _is_checksum(text: str) -> bool:
    """Whether it is what it should be: it becomes part of a file's name."""
    return len(text) == 2 * CHECKSUM_BYTES and set(text) <= set("0123456789abcdef")
