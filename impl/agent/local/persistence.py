"""The services and checks that users registered, kept in the data directory: they are there again after a restart.

A file each, `services/HASH.json` and `checks/HASH.json`, replaced atomically. A TTL check comes back as it stood, with
its full time. What cannot be read is reported and left alone. Source: Consul, `agent/agent.go` (persistService,
persistCheck); the format is Comitia's own.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Final, TypeVar

import msgspec

from impl.agent.local.definitions import CheckDefinition
from impl.agent.logs import Log
from impl.catalog.rows import Service
from impl.runtime.interfaces import Disk, Runtime
from impl.runtime.off_loop import ignore, off_loop
from impl.storage.files import SMALL_BYTES_MAX, read_file, replace_file

SERVICES: Final = "services"
CHECKS: Final = "checks"
T = TypeVar("T")


class KeptCheck(msgspec.Struct, frozen=True):
    """A check as it stood."""

    definition: CheckDefinition
    status: str


class Shelf:
    """What one agent keeps. Writes happen in the executor, in the order in which they are asked for."""

    def __init__(self, runtime: Runtime, directory: str, log: Log) -> None:
        """`directory`: the agent's data directory; "": nothing is kept."""
        self._runtime = runtime
        self._directory = directory
        self._log = log

    def save_service(self, service: Service) -> None:
        """Keep an instance."""
        self._save(SERVICES, service.id, service)

    def save_check(self, check: KeptCheck) -> None:
        """Keep a check."""
        self._save(CHECKS, check.definition.check_id, check)

    def remove_service(self, service_id: str) -> None:
        """Keep it no more."""
        self._remove(SERVICES, service_id)

    def remove_check(self, check_id: str) -> None:
        """Keep it no more."""
        self._remove(CHECKS, check_id)

    def load(self) -> tuple[list[Service], list[KeptCheck]]:
        """What was kept. Blocks: at the start only. Raises OSError."""
        return self._read_all(SERVICES, Service), self._read_all(CHECKS, KeptCheck)

    async def written(self) -> None:
        """Return when all that was asked for until now is on the disk, or was reported."""
        if not self._directory:
            return
        await off_loop(self._runtime, lambda: None)

    def _save(self, kind: str, identity: str, row: Any) -> None:
        if self._directory:
            disk, directory, content = self._runtime.disk, f"{self._directory}/{kind}", msgspec.json.encode(row)

            def write() -> None:
                disk.make_directories(directory)
                replace_file(disk, directory, _name(identity), content + b"\n")

            self._runtime.executor.submit(write, ignore, self._failed)

    def _remove(self, kind: str, identity: str) -> None:
        if self._directory:
            disk, directory = self._runtime.disk, f"{self._directory}/{kind}"
            self._runtime.executor.submit(lambda: _forget(disk, directory, _name(identity)), ignore, self._failed)

    def _failed(self, error: BaseException) -> None:
        self._log.error("a registration will not survive a restart", error=str(error))

    def _read_all(self, kind: str, row: type[T]) -> list[T]:
        disk, directory, found = self._runtime.disk, f"{self._directory}/{kind}", []
        if not self._directory or not disk.exists(directory):
            return []
        for name in disk.names(directory):
            if not name.endswith(".json"):
                continue  # a write that a crash cut short
            try:
                found.append(msgspec.json.decode(read_file(disk, f"{directory}/{name}", SMALL_BYTES_MAX), type=row))
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                self._log.error("a registration cannot be read", file=f"{kind}/{name}", error=str(error))
        return found


def _name(identity: str) -> str:
    return f"{blake2b(identity.encode(), digest_size=16).hexdigest()}.json"


def _forget(disk: Disk, directory: str, name: str) -> None:
    if disk.exists(f"{directory}/{name}"):
        disk.remove(f"{directory}/{name}")
        disk.sync_directory(directory)
