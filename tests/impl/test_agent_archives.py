"""Archives on one agent and between agents: whole, bounded, streamed, and gone when nobody goes on with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from impl.agent.requests.api import DefiniteError, IndefiniteError
from impl.agent.snapshots import archives as archives_module
from impl.agent.snapshots.archive_calls import (
    ArchiveCalls,
    OpenArchive,
    RemoteArchive,
    RemoteUpload,
    opened_archive,
    opened_upload,
)
from impl.agent.snapshots.archives import Archives, Idle, ReceivedArchive, TooLarge
from impl.catalog.commands import (
    KvSet,
)
from impl.catalog.snapshot import state_digest
from impl.catalog.store import Store
from impl.rpc.errors import ConnectionLost, RemoteError
from impl.runtime.interfaces import NANOSECONDS
from impl.runtime.virtual import VirtualWorld
from impl.runtime.virtual_disk import VirtualDisk
from tests.impl.restoring_server import LOG, OTHER, Server, filled
from tests.impl.test_storage_archive import META, tarred


def bent(data: bytes) -> bytes:
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 4]) + data[len(data) // 2 + 1 :]


def bomb(_: bytes) -> bytes:
    return tarred(META, ("state.bin", bytes(17 << 20)))


def foreign(_: bytes) -> bytes:
    return tarred(("meta.json", b'{"Version":1,"ID":"2-13-1","Index":13,"Term":2,"Size":4}'), ("state.bin", b"\0abc"))


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (bent, ""),
        (lambda data: data[:-5], "it was cut off"),
        (lambda data: b"", "it was cut off"),
        (bomb, "it unpacks to more than"),
        (foreign, "Consul's own servers"),
    ],
    ids=["bent", "cut", "empty", "bomb", "foreign"],
)
def test_what_is_no_whole_archive_is_refused_before_anything_is_proposed(
    damage: Callable[[bytes], bytes], why: str
) -> None:
    server = Server()
    before = state_digest(server.machine.store)

    async def work() -> None:
        await server.restore(damage(await server.archive(OTHER)))

    outcome = server.run(work)
    assert isinstance(outcome, DefiniteError), outcome
    assert str(outcome).startswith("failed to verify snapshot: ") and why in str(outcome)
    assert server.machine.proposed == [] and state_digest(server.machine.store) == before
    assert server.files() == []


def test_an_archive_is_of_the_moment_at_which_it_was_asked_for_and_its_view_does_not_wait_for_its_reader() -> None:
    store = filled(2_000)
    expected = state_digest(store, archive=True)
    server = Server(store=store)

    async def work() -> bytes:
        stream = await server.save()
        assert not store.tables.entries._views, "nobody keeps what changes meanwhile"
        for number in range(0, 2_000, 3):
            server.machine.propose(KvSet(f"k{number:05d}", b"later", 0))
        parts = [await stream.read()]
        while parts[-1]:
            parts.append(await stream.read())
        stream.close()
        assert stream.index == 10_000
        return b"".join(parts)

    data = server.run(work)
    assert isinstance(data, bytes), data
    other = Server()
    assert other.run(lambda: other.restore(data)) is None
    assert state_digest(other.machine.store, archive=True) == expected
    assert server.files() == []


def test_whoever_does_not_go_on_is_forgotten_after_a_minute() -> None:
    server = Server()

    async def work() -> None:
        stream, received = await server.save(), await server.archives.receive()
        await received.add(b"abc")
        await server.process.runtime.clock.sleep(archives_module.IDLE_NS + NANOSECONDS)
        with pytest.raises(DefiniteError, match="was not read for 60 s"):
            await stream.read()
        with pytest.raises(DefiniteError, match="nothing of the snapshot arrived for 60 s"):
            await received.add(b"def")

    assert server.run(work) is None
    assert server.files() == []


def test_archives_that_are_open_are_bounded() -> None:
    server = Server()

    async def work() -> None:
        opened = [await server.archives.receive() for _ in range(archives_module.OPEN_MAX)]
        with pytest.raises(DefiniteError, match="try again when one is done"):
            await server.archives.receive()
        opened[0].close()
        opened[0].close()
        await server.archives.receive()

    assert server.run(work) is None


def test_more_than_is_allowed_is_not_kept() -> None:
    server = Server()
    server.archives.bytes_max = 10

    async def work() -> None:
        received: ReceivedArchive = await server.archives.receive()
        await received.add(bytes(10))
        with pytest.raises(TooLarge):
            await received.add(b"x")

    assert server.run(work) is None


def test_no_archive_is_saved_of_what_is_about_to_be_replaced() -> None:
    server = Server(store=filled(5))
    server.machine.replacing = True

    outcome = server.run(server.save)
    assert isinstance(outcome, DefiniteError) and "retry shortly" in str(outcome)
    assert not server.machine.store.tables.entries._views
    assert server.archives._open == 0


def test_a_full_disk_costs_the_snapshot_and_nothing_else() -> None:
    server = Server(store=filled(500, bytes(1000)))
    disk: Any = server.disk
    disk.free_bytes = 50_000

    outcome = server.run(server.save)
    assert isinstance(outcome, DefiniteError) and "no space left" in str(outcome)
    assert not server.machine.store.tables.entries._views
    assert server.files() == []


def test_what_a_process_that_ended_left_is_removed() -> None:
    server = Server()
    server.disk.make_directories("/data/archives")
    server.disk.open("/data/archives/upload-old", create=True)
    Archives(server.process.runtime, "/data", 1, LOG)
    assert server.files() == []


def test_idle_timers_end_with_what_they_watch() -> None:
    world = VirtualWorld(4)
    process = world.process("s1", VirtualDisk())
    gone: list[int] = []
    idle = Idle(process.runtime, lambda: gone.append(1))
    world.run_for(archives_module.IDLE_NS // 2)
    idle.touch()
    world.run_for(archives_module.IDLE_NS // 2 + NANOSECONDS)
    assert gone == []
    idle.stop()
    world.run_for(2 * archives_module.IDLE_NS)
    assert gone == []


# Between agents


class Asked:
    """Whoever serves the calls: this server itself."""

    def __init__(self, server: Server) -> None:
        self.server = server

    async def open_archive(self, request: OpenArchive) -> Any:
        return await self.server.save()

    async def open_upload(self, *, forwarded: bool) -> Any:
        return await self.server.upload(b"")


class Wire:
    """Calls to the server that serves; `lost`: the connection is gone from this call on."""

    def __init__(self, calls: ArchiveCalls) -> None:
        self.calls = calls
        self.made: list[tuple[str, int]] = []
        self.lost = 1 << 40

    async def __call__(self, method: str, body: bytes, timeout_ns: int) -> bytes:
        self.made.append((method, len(body)))
        if len(self.made) > self.lost:
            raise ConnectionLost("EOF")
        try:
            reply = await self.calls.serve(method, body)
        except IndefiniteError as error:
            raise RemoteError(str(error), False) from error
        except DefiniteError as error:
            raise RemoteError(str(error), True) from error
        return msgspec.msgpack.encode(reply)


def relayed(server: Server, hops: int) -> Wire:
    """A wire to a server that asks another one, and so on, until one has the archive."""
    wire = Wire(ArchiveCalls(server.process.runtime, Asked(server)))
    for _ in range(hops):
        wire = Wire(ArchiveCalls(server.process.runtime, Relay(server, wire)))
    return wire


class Relay:
    def __init__(self, server: Server, wire: Wire) -> None:
        self.server = server
        self.wire = wire

    async def open_archive(self, request: OpenArchive) -> RemoteArchive:
        return await opened_archive(self.server.process.runtime, self.wire, request)

    async def open_upload(self, *, forwarded: bool) -> RemoteUpload:
        return await opened_upload(self.server.process.runtime, self.wire, forwarded=True)


@pytest.mark.parametrize("hops", [0, 1])
def test_an_archive_travels_in_pieces_that_a_frame_can_carry(hops: int) -> None:
    server = Server(store=filled(400, b"".join(bytes([n % 251, n % 13]) for n in range(1500))))
    expected = state_digest(server.machine.store, archive=True)
    wire = relayed(server, hops)

    async def work() -> None:
        runtime = server.process.runtime
        stream = await opened_archive(runtime, wire, OpenArchive(stale=False, forwarded=False))
        assert (stream.index, stream.known_leader) == (10_000, True)
        parts = []
        while piece := await stream.read():
            parts.append(piece)
        stream.close()
        server.machine.store = Store()
        upload = await opened_upload(runtime, wire, forwarded=False)
        await upload.add(b"".join(parts))
        await upload.restore()
        upload.close()

    assert server.run(work) is None
    assert state_digest(server.machine.store, archive=True) == expected
    assert max(size for _, size in wire.made) < archives_module.HANDED_OUT_BYTES + 100
    assert server.files() == []


def test_a_connection_that_is_lost_ends_the_snapshot_with_what_is_known() -> None:
    server = Server()
    wire = relayed(server, 0)

    async def work() -> None:
        runtime = server.process.runtime
        data = await server.archive(OTHER)
        stream = await opened_archive(runtime, wire, OpenArchive(stale=False, forwarded=False))
        wire.lost = len(wire.made)
        with pytest.raises(DefiniteError, match="EOF"):
            await stream.read()
        wire.lost = 1 << 40
        upload = await opened_upload(runtime, wire, forwarded=False)
        await upload.add(data)
        wire.lost = len(wire.made)
        with pytest.raises(IndefiniteError, match="it is unknown whether the snapshot was, or will be, restored"):
            await upload.restore()

    assert server.run(work) is None
    assert server.machine.proposed == []
    server.world.run_for(archives_module.IDLE_NS + NANOSECONDS)
    assert server.files() == [], "the server forgets what nobody goes on with"


def test_a_token_that_nobody_gave_is_refused() -> None:
    server = Server()
    wire = relayed(server, 0)

    async def work() -> None:
        for method in ("archive-read", "upload-finish"):
            with pytest.raises(RemoteError, match="nobody went on with this snapshot"):
                await wire(method, msgspec.msgpack.encode("no such"), 1)
        await wire("archive-close", msgspec.msgpack.encode("no such"), 1)

    assert server.run(work) is None
