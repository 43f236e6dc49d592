"""The servers met last, kept in the data directory: where to look for them after a restart.

A hint, not state: configuration may name one server only, and that one may be down when this one comes back. A file
that cannot be read is as good as none.
"""

from __future__ import annotations

import msgspec

from impl.agent.logs import Log
from impl.agent.requests.protocol import ServerInfo
from impl.runtime.interfaces import Disk, Runtime
from impl.runtime.off_loop import ignore
from impl.storage.files import SMALL_BYTES_MAX, read_file, replace_file

NAME = "servers.json"


def load_addresses(disk: Disk, directory: str) -> tuple[ServerInfo, ...]:
    """The servers noted last; none if there is no file, or no sense in it. Raises OSError."""
    path = f"{directory}/{NAME}"
    if not disk.exists(path):
        return ()
    content = read_file(disk, path, SMALL_BYTES_MAX)
    try:
        return msgspec.json.decode(content, type=tuple[ServerInfo, ...])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ()


def save_addresses(disk: Disk, directory: str, servers: tuple[ServerInfo, ...]) -> None:
    """Note them. Blocks: for the executor. Raises OSError or StorageError; then the old note stands."""
    replace_file(disk, directory, NAME, msgspec.json.encode(servers) + b"\n")


class AddressBook:
    """The note of a running server: as it was at the start, and written again when others are known."""

    def __init__(self, runtime: Runtime, directory: str, log: Log) -> None:
        """Reads what was noted. Raises OSError."""
        self.noted = load_addresses(runtime.disk, directory)
        self._runtime = runtime
        self._directory = directory
        self._log = log

    def note(self, servers: tuple[ServerInfo, ...]) -> None:
        """These are known now. That it cannot be written is worth a warning, no more."""
        if servers == self.noted:
            return
        self.noted = servers
        self._runtime.executor.submit(
            lambda: save_addresses(self._runtime.disk, self._directory, servers),
            ignore,
            lambda error: self._log.warn("cannot note where the servers are", error=str(error)),
        )
