"""Snapshots on their way to another server, in a virtual world: sent in pieces, damaged, cut off anywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from zlib import crc32

import msgspec
import pytest

from impl.agent.requests.protocol import encode
from impl.agent.snapshots import transfer as snapshot_transfer
from impl.agent.snapshots.lifecycle import Snapshots
from impl.agent.snapshots.transfer import (
    SNAPSHOT_CHUNK,
    SNAPSHOT_OFFER,
    SnapshotChunk,
    SnapshotOffer,
    SnapshotProgress,
    SnapshotReceiver,
    SnapshotSender,
)
from impl.raft.messages import InstallSnapshotRequest
from impl.raft.messages import encode as encode_message
from impl.raft.ready import SnapshotMeta
from impl.rpc.errors import ConnectionLost, RemoteError
from impl.rpc.handshake import AgentRole, Hello, Purpose
from impl.runtime.interfaces import MILLISECONDS, NANOSECONDS
from impl.runtime.virtual import VirtualWorld
from impl.runtime.virtual_disk import VirtualDisk
from impl.storage import incoming
from tests.impl.snapshot_hosts import CLUSTER, DIRECTORY, Host, marker_of

LEADER = Hello(1, CLUSTER, "id-s1", "s1", "dc1", 4, AgentRole.SERVER, Purpose.RPC)


class Wire:
    """Calls from the leader to one receiver; what is lost or damaged is for the test to say."""

    def __init__(self, world: VirtualWorld, sender: Host, receiver: Host) -> None:
        self.world, self.sender, self.receiver = world, sender, receiver
        self.calls: list[tuple[str, Any]] = []
        self.outcomes: list[bool] = []
        self.damage: Callable[[SnapshotChunk], SnapshotChunk] = lambda chunk: chunk
        self.cut = False

    async def call(self, to: str, method: str, body: bytes, timeout_ns: int) -> bytes:
        await self.sender.process.runtime.clock.sleep(MILLISECONDS)
        if self.cut:
            raise ConnectionLost("cut")
        if method == SNAPSHOT_CHUNK:
            chunk = self.damage(msgspec.msgpack.decode(body, type=SnapshotChunk))
            self.calls.append((method, chunk))
            body = encode(chunk)
        else:
            self.calls.append((method, msgspec.msgpack.decode(body, type=SnapshotOffer)))
        answer = self.sender.process.runtime.tasks.future()
        self.receiver.receiver.call(LEADER, method, body, Reply(answer))  # type: ignore[arg-type]
        result: bytes = await answer
        return result

    def send(self, meta: SnapshotMeta, term: int = 3) -> None:
        request = InstallSnapshotRequest(
            7, term, meta.index, meta.term, meta.size, meta.checksum, meta.configuration, meta.configuration_index, 0
        )
        sender = SnapshotSender(
            self.sender.snapshots, self.call, lambda peer, ok: self.outcomes.append(ok), self.sender.log
        )
        sender.send("s2", request, encode_message(request))

    def run(self, seconds: int = 60) -> Wire:
        assert self.world.run_until(lambda: self.outcomes, seconds * NANOSECONDS), self.sender.lines
        return self


class Reply:
    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def ok(self, body: bytes) -> None:
        if not self._answer.done():
            self._answer.set_result(body)

    def error(self, text: str, definite: bool) -> None:
        if not self._answer.done():
            self._answer.set_exception(RemoteError(text, definite))


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_transfer, "CHUNK_BYTES", 4096)


def two_hosts(keys: int = 2000, seed: int = 1) -> tuple[Wire, SnapshotMeta]:
    world = VirtualWorld(seed)
    leader, follower = Host(world, "s1", threshold=10**9), Host(world, "s2", threshold=10**9)
    leader.machine.put(keys)
    meta = leader.take()
    return Wire(world, leader, follower), meta


def offsets(wire: Wire) -> list[int]:
    return [call.offset for method, call in wire.calls if method == SNAPSHOT_CHUNK]


def arrived(wire: Wire, meta: SnapshotMeta) -> bool:
    """The receiver's file is the sender's, byte for byte, and the core was told."""
    [(sender, request, received)] = wire.receiver.machine.received
    assert (sender, request.last_index, received.index) == (LEADER, meta.index, meta.index)
    content = wire.receiver.disk.content(f"{DIRECTORY}/{received.file}")
    assert wire.receiver.disk.names(DIRECTORY) == [received.file]
    return content == wire.sender.disk.content(f"{DIRECTORY}/{meta.file}") and received.checksum == meta.checksum


def test_a_snapshot_arrives_in_pieces_and_is_what_was_sent() -> None:
    wire, meta = two_hosts()
    wire.send(meta)
    wire.run()
    assert wire.outcomes == [True]
    assert arrived(wire, meta)
    assert offsets(wire) == list(range(0, meta.size, 4096))
    counters = wire.receiver.snapshots.counters
    assert (counters.received, counters.chunks_received, counters.refused_chunks) == (1, len(offsets(wire)), 0)
    assert wire.sender.snapshots.counters.sent == 1


def damaged_once(wire: Wire, position: int) -> None:
    left = [1]

    def damage(chunk: SnapshotChunk) -> SnapshotChunk:
        if chunk.offset == position and left[0]:
            left[0] -= 1
            return msgspec.structs.replace(chunk, data=bytes([chunk.data[0] ^ 1]) + chunk.data[1:])
        return chunk

    wire.damage = damage


def test_a_damaged_piece_is_refused_counted_and_sent_again() -> None:
    wire, meta = two_hosts()
    damaged_once(wire, 8192)
    wire.send(meta)
    wire.run()
    assert wire.outcomes == [True]
    assert arrived(wire, meta)
    assert offsets(wire).count(8192) == 2
    assert wire.receiver.snapshots.counters.refused_chunks == 1


def test_pieces_that_are_believed_are_found_out_by_the_whole_removed_and_fetched_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SnapshotReceiver, "is_intact", lambda self, chunk: True)
    wire, meta = two_hosts()
    damaged_once(wire, 8192)
    wire.send(meta)
    wire.run()
    assert wire.outcomes == [False], "the damage went unnoticed until the end"
    counters = wire.receiver.snapshots.counters
    assert (counters.refused_chunks, counters.refused_snapshots, counters.received) == (0, 1, 0)
    assert wire.receiver.disk.names(DIRECTORY) == []
    assert wire.receiver.machine.received == []
    wire.outcomes.clear()
    wire.send(meta)
    wire.run()
    assert arrived(wire, meta)


def test_a_piece_that_is_always_damaged_ends_the_transfer_for_now() -> None:
    wire, meta = two_hosts()
    wire.damage = lambda chunk: msgspec.structs.replace(chunk, crc=crc32(chunk.data) ^ 1)
    wire.send(meta)
    wire.run()
    assert wire.outcomes == [False]
    assert len(offsets(wire)) == snapshot_transfer.ATTEMPTS_MAX
    assert wire.sender.snapshots.counters.transfers_failed == 1


def cut_after(wire: Wire, meta: SnapshotMeta, pieces: int) -> None:
    wire.send(meta)
    assert wire.world.run_until(lambda: len(offsets(wire)) >= pieces, 60 * NANOSECONDS)


def test_a_transfer_goes_on_where_it_was_cut() -> None:
    wire, meta = two_hosts()
    cut_after(wire, meta, 6)
    wire.cut = True
    wire.run()
    assert wire.outcomes == [False]
    sent = len(offsets(wire))
    wire.cut, wire.outcomes = False, []
    wire.send(meta)
    wire.run()
    assert arrived(wire, meta)
    assert offsets(wire)[sent] >= 5 * 4096


@pytest.mark.parametrize("power", [False, True])
@pytest.mark.parametrize("pieces", [1, 3, 9])
def test_a_restart_of_the_receiver_in_the_middle_loses_nothing(pieces: int, power: bool) -> None:
    wire, meta = two_hosts(seed=pieces)
    cut_after(wire, meta, pieces)
    wire.cut = True
    if power:
        wire.receiver.process.power_loss()
    else:
        wire.receiver.process.kill()
    wire.outcomes.clear()
    wire.receiver.boot()
    wire.cut = False
    calls = len(offsets(wire))
    wire.sender.boot(marker_of(meta))
    wire.send(meta)
    wire.run()
    assert arrived(wire, meta)
    if not power and pieces > 1:
        assert offsets(wire)[calls] > 0, "what a kill left is not sent again"


def test_a_restart_of_the_sender_in_the_middle_loses_nothing() -> None:
    wire, meta = two_hosts()
    cut_after(wire, meta, 5)
    wire.sender.process.kill()
    calls = len(offsets(wire))
    wire.sender.boot(marker_of(meta))
    wire.send(meta)
    wire.run()
    assert arrived(wire, meta)
    assert offsets(wire)[calls] >= 3 * 4096


def test_a_kill_between_the_last_piece_and_the_verdict_is_made_up_for_by_the_next_offer() -> None:
    wire, meta = two_hosts(keys=300)
    wire.send(meta)
    part = f"{DIRECTORY}/incoming-{meta.checksum}.part"
    assert wire.world.run_until(
        lambda: wire.receiver.disk.exists(part) and len(wire.receiver.disk.content(part)) == meta.size, 60 * NANOSECONDS
    )
    wire.receiver.process.kill()
    wire.receiver.boot()
    wire.sender.boot(marker_of(meta))
    wire.outcomes.clear()
    before = len(offsets(wire))
    wire.send(meta)
    wire.run()
    assert arrived(wire, meta)
    assert len(offsets(wire)) == before, "nothing is sent again"


def test_a_snapshot_that_is_here_already_is_not_sent_again() -> None:
    wire, meta = two_hosts(keys=300)
    wire.send(meta)
    wire.run()
    before = len(offsets(wire))
    wire.outcomes.clear()
    wire.send(meta)
    wire.run()
    assert (wire.outcomes, len(offsets(wire))) == ([True], before)
    assert len(wire.receiver.machine.received) == 2, "the core hears of the second message, too"


def test_a_snapshot_that_the_core_does_not_need_is_removed() -> None:
    wire, meta = two_hosts(keys=300)
    wire.receiver.machine.wanted = False
    wire.send(meta)
    wire.run()
    wire.world.run_for(NANOSECONDS)
    assert wire.receiver.disk.names(DIRECTORY) == []


def test_a_snapshot_of_another_cluster_is_refused_with_its_name_and_removed() -> None:
    wire, meta = two_hosts(keys=300)
    wire.receiver.snapshots.cluster_id = "other"
    wire.send(meta)
    wire.run()
    assert wire.outcomes == [False]
    assert "is a snapshot of cluster cluster, this server belongs to cluster other" in "".join(wire.receiver.lines)
    assert wire.receiver.disk.names(DIRECTORY) == []
    assert wire.receiver.snapshots.counters.refused_snapshots == 1


def test_another_snapshot_than_was_announced_is_refused() -> None:
    wire, meta = two_hosts(keys=300)
    wire.send(msgspec.structs.replace(meta, index=meta.index + 1))
    wire.run()
    assert wire.outcomes == [False]
    assert "not the one that was announced" in "".join(wire.receiver.lines)
    assert wire.receiver.machine.received == []


def test_an_offer_of_an_older_term_is_refused() -> None:
    wire, meta = two_hosts(keys=300)
    wire.receiver.machine.term = 9
    wire.send(meta, term=8)
    wire.run()
    assert wire.outcomes == [False]
    assert offsets(wire) == []


NO_CHECKSUMS = ["../../../etc/passwd", "ab" * 31, "AB" * 32, ""]


@pytest.mark.parametrize("checksum", NO_CHECKSUMS)
def test_a_checksum_that_is_none_never_becomes_a_file_name(checksum: str) -> None:
    an_offer_of_no_checksum_is_refused(checksum)


def test_a_checksum_that_is_not_looked_at_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_transfer, "_is_checksum", lambda text: True)
    for checksum in NO_CHECKSUMS:
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            an_offer_of_no_checksum_is_refused(checksum)


def an_offer_of_no_checksum_is_refused(checksum: str) -> None:
    wire, meta = two_hosts(keys=300)
    request = InstallSnapshotRequest(7, 3, meta.index, meta.term, meta.size, checksum, b"", 0, 0)
    answer = wire.sender.process.runtime.tasks.future()
    body = encode(SnapshotOffer(encode_message(request), meta.size, checksum))
    wire.receiver.receiver.call(LEADER, SNAPSHOT_OFFER, body, Reply(answer))  # type: ignore[arg-type]
    wire.world.run_for(NANOSECONDS)
    with pytest.raises(RemoteError, match="does not agree"):
        answer.result()
    assert wire.receiver.disk.names(DIRECTORY) == []


def test_pieces_without_an_offer_beyond_the_end_or_out_of_order_are_not_taken() -> None:
    wire, meta = two_hosts(keys=300)
    receiver, tasks = wire.receiver.receiver, wire.sender.process.runtime.tasks

    def ask(method: str, body: SnapshotOffer | SnapshotChunk) -> Any:
        answer = tasks.future()
        receiver.call(LEADER, method, encode(body), Reply(answer))  # type: ignore[arg-type]
        wire.world.run_for(NANOSECONDS)
        return msgspec.msgpack.decode(answer.result(), type=SnapshotProgress).offset

    def piece(offset: int, data: bytes) -> SnapshotChunk:
        return SnapshotChunk(meta.checksum, offset, crc32(data), data)

    with pytest.raises(RemoteError, match="offer it first"):
        ask(SNAPSHOT_CHUNK, piece(0, b"x"))
    request = InstallSnapshotRequest(7, 3, meta.index, meta.term, meta.size, meta.checksum, b"", 0, 0)
    assert ask(SNAPSHOT_OFFER, SnapshotOffer(encode_message(request), meta.size, meta.checksum)) == 0
    assert ask(SNAPSHOT_CHUNK, piece(0, b"x" * 100)) == 100
    assert ask(SNAPSHOT_CHUNK, piece(0, b"x" * 100)) == 100, "a repeated piece changes nothing"
    assert ask(SNAPSHOT_CHUNK, piece(200, b"x" * 100)) == 100, "nor does one that is too early"
    for data in (b"", bytes(meta.size)):
        with pytest.raises(RemoteError, match="a piece of"):
            ask(SNAPSHOT_CHUNK, piece(100, data))


def test_no_room_at_the_receiver_is_waited_out() -> None:
    wire, meta = two_hosts()
    wire.receiver.disk.free_bytes = 10_000
    wire.send(meta)
    wire.run()
    assert wire.outcomes == [False]
    assert "no space left" in "".join(wire.receiver.lines)
    wire.receiver.disk.free_bytes = None
    wire.outcomes.clear()
    wire.send(meta)
    wire.run()
    assert arrived(wire, meta)


def forget_parts(disk: VirtualDisk, directory: str, except_for: str = "") -> None:
    """The mutant: every transfer begins at its beginning."""
    for name in disk.names(directory):
        if name.endswith(incoming.ENDING):
            disk.remove(f"{directory}/{name}")


@pytest.mark.parametrize(
    ("owner", "name", "mutant", "sentence"),
    [
        (incoming, "remove_parts", forget_parts, test_a_transfer_goes_on_where_it_was_cut),
        (incoming, "remove_parts", forget_parts, test_a_restart_of_the_sender_in_the_middle_loses_nothing),
        (Snapshots, "meta", lambda self, checksum: None, test_a_snapshot_that_is_here_already_is_not_sent_again),
        (Snapshots, "remove", lambda self, meta: None, test_a_snapshot_that_the_core_does_not_need_is_removed),
    ],
)
def test_a_broken_part_is_noticed(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, mutant: object, sentence: Callable[[], None]
) -> None:
    assert hasattr(owner, name)
    monkeypatch.setattr(owner, name, mutant)
    with pytest.raises((AssertionError, ValueError)):
        sentence()
