"""Restoring an archive, on the leader: a begin, the rows in chunks, a commit, each a command of the log.

Until the commit the old state is in force everywhere, so whatever goes wrong before it leaves that; nothing is tried
again. One restore is under way at a time. What a leader that was lost has staged is dropped by the next one. One chunk
is on its way at a time, a few milliseconds of work for whoever applies it: the log's other entries go between them.
Source: Consul, "Snapshot HTTP API".

It must not change the state machine: it proposes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from impl.agent.driver import Driver
from impl.agent.logs import Log
from impl.agent.requests.api import AgentError, DefiniteError, RestoreUnknown
from impl.agent.snapshots.archives import ReceivedArchive, VerifiedArchive
from impl.catalog.commands import RestoreBegin, RestoreChunk, RestoreCommit, Write
from impl.catalog.tables import Tables
from impl.catalog.transitions import Failed, Result
from impl.raft.errors import Overloaded, Refused
from impl.raft.ready import Role
from impl.runtime.interfaces import MILLISECONDS, NANOSECONDS, Future, Runtime, new_uuid
from impl.storage.archive import BadArchive

LOOK_NS: Final = NANOSECONDS
"""How often a leader looks for what nobody goes on with."""
PAUSE_NS: Final = 20 * MILLISECONDS
"""Before a chunk is proposed again that met a leader with too much to do."""
PAUSES_MAX: Final = 500
RELEASED_AT_ONCE: Final = 250
"""Rows that are freed in a step: two milliseconds."""

Propose = Callable[[Write], Future[Result]]
"""Raises Refused; the future may raise Refused (it has no effect) or IndefiniteError."""


class Restoring:
    """The restores of one server; it restores while it leads."""

    def __init__(self, runtime: Runtime, log: Log) -> None:
        self._runtime = runtime
        self._log = log
        self._busy = False
        """Somebody writes commands of restores here."""

    async def restore(self, archive: VerifiedArchive, propose: Propose) -> None:
        """Put the archived state in the place of the one in force.

        Raises DefiniteError: the old state is in force; RestoreUnknown: nobody knows which one is, or will be.
        """
        if self._busy:
            raise DefiniteError("another restore is under way: try again when it is done")
        self._busy = True
        id = new_uuid(self._runtime.random)
        self._log.info("restoring a snapshot of the state", index=archive.meta.index, bytes=archive.meta.size)
        started = self._runtime.clock.monotonic_ns()
        try:
            try:
                chunks = await self._stage(id, archive, propose)
            except (AgentError, Refused, BadArchive, OSError) as error:
                await self._give_up(propose)
                raise DefiniteError(f"restore failed, nothing was changed: {error}") from error
            await self._commit(RestoreCommit(id, chunks), propose)
        finally:
            self._busy = False
        elapsed = (self._runtime.clock.monotonic_ns() - started) // MILLISECONDS
        self._log.info("snapshot of the state restored", index=archive.meta.index, chunks=chunks, ms=elapsed)

    async def _stage(self, id: str, archive: VerifiedArchive, propose: Propose) -> int:
        """The number of chunks, all of which are applied. Raises AgentError, Refused, BadArchive, OSError."""
        _accepted(await propose(RestoreBegin(id)))
        number = 0
        while (rows := await archive.rows()) is not None:
            number += 1
            _accepted(await self._applied(RestoreChunk(id, number, tuple(rows)), propose))
        return number

    async def _applied(self, chunk: RestoreChunk, propose: Propose) -> Result:
        for _ in range(PAUSES_MAX):
            try:
                return await propose(chunk)
            except Overloaded:  # it was not appended
                await self._runtime.clock.sleep(PAUSE_NS)
        raise DefiniteError("the leader has too much to do")

    async def _commit(self, commit: RestoreCommit, propose: Propose) -> None:
        try:
            result = await propose(commit)
        except Refused as error:
            await self._give_up(propose)
            raise DefiniteError(f"restore failed, nothing was changed: {error}") from error
        except AgentError as error:
            raise RestoreUnknown(str(error)) from error
        if isinstance(result, Failed):
            await self._give_up(propose)
            raise DefiniteError(f"restore failed, nothing was changed: {result.why}")

    async def _give_up(self, propose: Propose) -> None:
        """Free what is staged; if that fails, the next leader does it."""
        try:
            await propose(RestoreBegin(""))
        except (AgentError, Refused) as error:
            self._log.warn("what is staged of a failed restore is dropped later", error=str(error))

    async def watch(self, driver: Driver, propose: Propose) -> None:
        """Drop what nobody can go on with any more, while this server leads."""
        while True:
            await self._runtime.clock.sleep(LOOK_NS)
            if driver.core.role is not Role.LEADER or self._busy or driver.store.tables.staging is None:
                continue
            self._log.info("dropping what is staged of a restore whose leader was lost")
            self._busy = True
            try:
                await self._give_up(propose)
            finally:
                self._busy = False


def _accepted(result: Result) -> None:
    """Raises DefiniteError: it was refused."""
    if isinstance(result, Failed):
        raise DefiniteError(result.why)


class LocalUpload:
    """An archive that this server receives and restores: `api.ArchiveUpload`."""

    def __init__(self, received: ReceivedArchive, restoring: Restoring, propose: Propose) -> None:
        self._received = received
        self._restoring = restoring
        self._propose = propose

    async def add(self, data: bytes) -> None:
        """The next piece."""
        await self._received.add(data)

    async def restore(self) -> None:
        """As `ArchiveUpload.restore`."""
        archive = await self._received.verified()
        try:
            await self._restoring.restore(archive, self._propose)
        finally:
            archive.close()

    def close(self) -> None:
        """Forget it."""
        self._received.close()


async def release(runtime: Runtime, tables: Tables) -> None:
    """Free tables that nobody uses any more, in pieces: a large state takes long."""
    while tables.release(RELEASED_AT_ONCE):
        await runtime.clock.sleep(MILLISECONDS)
