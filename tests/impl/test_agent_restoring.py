"""Restoring on the leader: what goes wrong before the commit changes nothing and says so; what a lost leader staged is
dropped; whoever watches is told at once; sessions and lock-delays begin anew; archives are streamed between agents."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from impl.agent import archives as archives_module
from impl.agent import restoring as restoring_module
from impl.agent.api import Consistency, DefiniteError, IndefiniteError, ReadOptions
from impl.agent.archive_calls import (
    ArchiveCalls,
    OpenArchive,
    RemoteArchive,
    RemoteUpload,
    opened_archive,
    opened_upload,
)
from impl.agent.archives import Archives, Idle, ReceivedArchive, TooLarge
from impl.agent.changes import Watches
from impl.agent.logs import Log
from impl.agent.restoring import LocalUpload, Restoring
from impl.agent.session_keeper import SessionKeeper
from impl.catalog.commands import (
    KvAcquire,
    KvSet,
    Register,
    RestoreBegin,
    RestoreChunk,
    RestoreCommit,
    SessionCreate,
    Write,
)
from impl.catalog.queries import KvGet
from impl.catalog.rows import Node, Session
from impl.catalog.snapshot import StoreView, state_digest
from impl.catalog.store import Store
from impl.catalog.transitions import Failed, Result
from impl.raft.errors import NotLeader, Overloaded, Replacing
from impl.raft.ready import Role
from impl.rpc.errors import ConnectionLost, RemoteError
from impl.runtime.interfaces import MILLISECONDS, NANOSECONDS, Runtime
from impl.runtime.real import run
from impl.runtime.virtual import VirtualProcess, VirtualWorld
from impl.runtime.virtual_disk import VirtualDisk
from tests.impl.test_forwarding_rules import Remote, follower
from tests.impl.test_storage_archive import META, tarred

LINES: list[str] = []
LOG = Log(LINES.append, lambda: 0.0)


def filled(count: int, value: bytes = b"v") -> Store:
    store = Store()
    for number in range(count):
        store.apply(KvSet(f"k{number:05d}", value, 0), 1 + number)
    return store


class Core:
    role = Role.LEADER
    term = 3
    leader_id = "s1"


class Meta:
    term = 3


class Machine:
    """A driver whose log is applied at once; `script`: what becomes of the next proposals instead."""

    def __init__(self, process: VirtualProcess, store: Store) -> None:
        self.runtime = process.runtime
        self.core = Core()
        self.store = store
        self.applied = 10_000
        self.script: dict[type, list[Exception]] = {}
        self.proposed: list[Write] = []
        self.replacing = False

    def snapshot_meta(self) -> Any:
        if self.replacing:
            raise Replacing(self.applied + 1)
        return Meta()

    def propose(self, command: Write) -> Any:
        future = self.runtime.tasks.future()
        failures = self.script.get(type(command), [])
        if failures:
            future.set_exception(failures.pop(0))
            return future
        self.proposed.append(command)
        self.applied += 1
        future.set_result(self.store.apply(command, self.applied))
        return future


class Server:
    """As much of a server as archives need."""

    def __init__(self, seed: int = 1, store: Store | None = None) -> None:
        self.world = VirtualWorld(seed)
        self.process = self.world.process("s1", VirtualDisk())
        self.disk = self.process.runtime.disk
        self.disk.make_directories("/data")
        self.machine = Machine(self.process, store if store is not None else filled(3))
        self.archives = Archives(self.process.runtime, "/data", 1 << 24, LOG)
        self.restoring = Restoring(self.process.runtime, LOG)

    def run(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """The outcome of a coroutine: its result, or the error that it raised."""
        outcome: list[Any] = []

        async def main() -> None:
            try:
                outcome.append(await work())
            except Exception as error:
                outcome.append(error)

        self.process.runtime.tasks.spawn(main(), "test")
        assert self.world.run_until(lambda: bool(outcome), 600 * NANOSECONDS)
        return outcome[0]

    async def archive(self, store: Store) -> bytes:
        """An archive of another server's state."""
        other: Any = Machine(self.process, store)
        stream = await self.archives.save(other, "other")
        parts = []
        while piece := await stream.read():
            parts.append(piece)
        stream.close()
        return b"".join(parts)

    async def upload(self, data: bytes) -> LocalUpload:
        upload = LocalUpload(await self.archives.receive(), self.restoring, self.machine.propose)
        for start in range(0, len(data), 10_000):
            await upload.add(data[start : start + 10_000])
        return upload

    async def restore(self, data: bytes) -> None:
        upload = await self.upload(data)
        try:
            await upload.restore()
        finally:
            upload.close()

    def files(self) -> list[str]:
        """Temporary files, once the executor has done what it was asked."""
        self.world.run_for(NANOSECONDS)
        found: list[str] = self.disk.names("/data/archives")
        return found


OTHER = filled(900)


def restored(script: dict[type, list[Exception]] | None = None) -> tuple[Server, Any]:
    """A server after an attempt to restore, and how that ended."""
    server = Server()
    server.machine.script = dict(script or {})

    async def work() -> None:
        await server.restore(await server.archive(OTHER))

    return server, server.run(work)


def test_an_archive_is_restored_and_leaves_no_files() -> None:
    server, outcome = restored()
    assert outcome is None
    assert state_digest(server.machine.store, archive=True) == state_digest(OTHER, archive=True)
    kinds = [type(command) for command in server.machine.proposed]
    assert kinds[0] is RestoreBegin and kinds[-1] is RestoreCommit and kinds.count(RestoreChunk) > 3
    assert all(len(command.rows) <= 250 for command in server.machine.proposed if isinstance(command, RestoreChunk))
    assert server.files() == []


def what_fails_before_the_commit_changes_nothing_and_is_dropped() -> None:
    for failing in (RestoreBegin, RestoreChunk):
        for failure in (NotLeader("s2"), IndefiniteError("leadership lost")):
            server, outcome = restored({failing: [failure]})
            assert isinstance(outcome, DefiniteError), outcome
            assert str(outcome).startswith("restore failed, nothing was changed: ")
            assert state_digest(server.machine.store) == state_digest(filled(3))
            assert server.machine.store.tables.staging is None
            assert server.files() == []


def a_commit_whose_outcome_is_unknown_says_so() -> None:
    _, outcome = restored({RestoreCommit: [IndefiniteError("leadership lost")]})
    assert isinstance(outcome, IndefiniteError)
    assert "it is unknown whether the snapshot was, or will be, restored" in str(outcome)
    _, outcome = restored({RestoreCommit: [NotLeader("s2")]})
    assert isinstance(outcome, DefiniteError)


def a_busy_leader_is_asked_again() -> None:
    server, outcome = restored({RestoreChunk: [Overloaded("entries", 1), Overloaded("entries", 1)]})
    assert outcome is None
    assert state_digest(server.machine.store, archive=True) == state_digest(OTHER, archive=True)


def one_restore_is_under_way_at_a_time() -> None:
    server = Server()

    async def both() -> list[str | None]:
        data = await server.archive(OTHER)
        outcomes: list[str | None] = []

        async def one() -> None:
            try:
                await server.restore(data)
                outcomes.append(None)
            except DefiniteError as error:
                outcomes.append(str(error))

        for _ in range(2):
            server.process.runtime.tasks.spawn(one(), "restore")
        while len(outcomes) < 2:
            await server.process.runtime.clock.sleep(MILLISECONDS)
        return outcomes

    assert sorted(map(str, server.run(both))) == ["None", "another restore is under way: try again when it is done"]


def what_a_lost_leader_staged_is_dropped() -> None:
    server = Server()
    driver: Any = server.machine
    driver.store.apply(RestoreBegin("of another leader"), 9)
    server.process.runtime.tasks.spawn(server.restoring.watch(driver, server.machine.propose), "watch")
    driver.core.role = Role.FOLLOWER
    server.world.run_for(5 * NANOSECONDS)
    assert driver.store.tables.staging is not None, "only the leader does it"
    driver.core.role = Role.LEADER
    server.world.run_for(5 * NANOSECONDS)
    assert driver.store.tables.staging is None
    assert driver.proposed == [RestoreBegin("")], "once"


SENTENCES = (
    what_fails_before_the_commit_changes_nothing_and_is_dropped,
    a_commit_whose_outcome_is_unknown_says_so,
    a_busy_leader_is_asked_again,
    one_restore_is_under_way_at_a_time,
    what_a_lost_leader_staged_is_dropped,
)


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda sentence: sentence.__name__)
def test_a_restore(sentence: Callable[[], None]) -> None:
    sentence()


async def gives_up_nothing(self: Restoring, propose: Any) -> None:
    """Leaves what is staged."""


async def commits_whatever(self: Restoring, commit: Any, propose: Any) -> None:
    try:
        await propose(commit)
    except (NotLeader, IndefiniteError):
        return


MUTANTS = (
    (Restoring, "_give_up", gives_up_nothing, what_fails_before_the_commit_changes_nothing_and_is_dropped),
    (Restoring, "_give_up", gives_up_nothing, what_a_lost_leader_staged_is_dropped),
    (Restoring, "_commit", commits_whatever, a_commit_whose_outcome_is_unknown_says_so),
    (restoring_module, "Overloaded", NotLeader, a_busy_leader_is_asked_again),
    (Restoring, "_busy", property(lambda self: False, lambda self, value: None), one_restore_is_under_way_at_a_time),
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant[1]}-{mutant[3].__name__}")
def test_a_mutant_contradicts_its_sentence(monkeypatch: pytest.MonkeyPatch, mutant: Any) -> None:
    owner, name, broken, sentence = mutant
    monkeypatch.setattr(owner, name, broken, raising=False)
    with pytest.raises(AssertionError):
        sentence()


# Archives


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
        driver: Any = server.machine
        stream = await server.archives.save(driver, "c")
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
        driver: Any = server.machine
        stream, received = await server.archives.save(driver, "c"), await server.archives.receive()
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

    async def work() -> None:
        driver: Any = server.machine
        await server.archives.save(driver, "c")

    outcome = server.run(work)
    assert isinstance(outcome, DefiniteError) and "retry shortly" in str(outcome)
    assert not server.machine.store.tables.entries._views
    assert server.archives._open == 0


def test_a_full_disk_costs_the_snapshot_and_nothing_else() -> None:
    server = Server(store=filled(500, bytes(1000)))
    disk: Any = server.disk
    disk.free_bytes = 50_000

    async def work() -> None:
        driver: Any = server.machine
        await server.archives.save(driver, "c")

    outcome = server.run(work)
    assert isinstance(outcome, DefiniteError) and "no space left" in str(outcome)
    assert not server.machine.store.tables.entries._views
    assert server.files() == []


def test_what_a_process_that_ended_left_is_removed() -> None:
    server = Server()
    server.disk.make_directories("/data/archives")
    server.disk.open("/data/archives/upload-old", create=True)
    Archives(server.process.runtime, "/data", 1, LOG)
    assert server.files() == []


# Between agents


class Asked:
    """Whoever serves the calls: this server itself."""

    def __init__(self, server: Server) -> None:
        self.server = server

    async def open_archive(self, request: OpenArchive) -> Any:
        driver: Any = self.server.machine
        return await self.server.archives.save(driver, "c")

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


# Who is told


def who_waits_is_answered_at_once_though_the_index_goes_back() -> None:
    async def main(runtime: Runtime) -> int:
        server = follower(runtime, Remote())
        driver: Any = server.serving.driver
        driver.store, driver.last_contact_ns = filled(5), 1
        driver.core.leader_id = None
        driver.read_local = lambda query, consistency: driver.store.get(query.key)
        options = ReadOptions(Consistency.STALE, 5, 600.0)
        answers: list[Any] = []

        async def ask() -> None:
            answers.append(await server.requests.read(KvGet("k00004"), options))

        runtime.tasks.spawn(ask(), "query")
        await runtime.clock.sleep(20 * MILLISECONDS)
        assert not answers
        driver.store = filled(1)
        server.watches.abandon()
        await runtime.clock.sleep(20 * MILLISECONDS)
        assert [answer.answer.index for answer in answers] == [1]
        return 0

    assert run(main) == 0


def test_who_waits_is_answered_at_once_though_the_index_goes_back() -> None:
    who_waits_is_answered_at_once_though_the_index_goes_back()


def test_who_only_wakes_waits_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watches, "abandon", Watches.wake_all)
    with pytest.raises(AssertionError):
        who_waits_is_answered_at_once_though_the_index_goes_back()


def sessions_begin_anew_and_lock_delays_end() -> None:
    world = VirtualWorld(3)
    process = world.process("s1", VirtualDisk())
    keeper = SessionKeeper(process.runtime)
    store = Store(session=keeper.changed, lost=keeper.lost, replaced=keeper.replaced)
    machine: Any = Machine(process, store)
    ended: list[str] = []

    async def write(command: Any) -> Result:
        ended.append(command.session_id)
        return Failed("it stays, for this test")

    process.runtime.tasks.spawn(keeper.run(machine, write), "keeper")
    world.run_for(NANOSECONDS)
    machine.propose(Register(Node("n1", "1")))
    machine.propose(SessionCreate(Session("s", "n1", ttl="10s")))
    archived = [RestoreBegin("r"), RestoreChunk("r", 1, tuple(rows(store))), RestoreCommit("r", 1)]
    keeper.lost("k", 60 * NANOSECONDS)
    assert keeper.refusal(KvAcquire("k", b"", 0, "s")) is False
    world.run_for(15 * NANOSECONDS)
    for command in archived:
        assert machine.store.apply(command, machine.applied) is True
    assert keeper.refusal(KvAcquire("k", b"", 0, "s")) is None
    world.run_for(15 * NANOSECONDS)
    assert ended == [], "twice its TTL has not passed since the restore"
    world.run_for(10 * NANOSECONDS)
    assert ended


def rows(store: Store) -> list[Any]:
    view, found = StoreView(store, archive=True), list[Any]()
    while not view.done:
        found += view.rows()
    return found


def test_sessions_begin_anew_and_lock_delays_end(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions_begin_anew_and_lock_delays_end()
    monkeypatch.setattr(SessionKeeper, "replaced", lambda self: None)
    with pytest.raises(AssertionError):
        sessions_begin_anew_and_lock_delays_end()


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
