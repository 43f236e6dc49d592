"""As much of a server as archives need, in a virtual world: made, saved and restored by the code under test."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from impl.agent.logs import Log
from impl.agent.snapshots.archives import Archives, LocalArchive
from impl.agent.snapshots.restoring import LocalUpload, Restoring
from impl.catalog.commands import (
    KvSet,
    Write,
)
from impl.catalog.store import Store
from impl.raft.errors import Replacing
from impl.raft.ready import Role
from impl.runtime.interfaces import NANOSECONDS
from impl.runtime.virtual import VirtualProcess, VirtualWorld
from impl.runtime.virtual_disk import VirtualDisk

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

    async def save(self) -> LocalArchive:
        """An archive of this server's state, to be read."""
        driver: Any = self.machine
        return await self.archives.save(driver, "c")

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
