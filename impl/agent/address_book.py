"""The servers met last, kept in the data directory: where to look for them after a restart.

A hint, not state: configuration may name one server only, and that one may be down when this one comes back. A file
that cannot be read is as good as none.
"""

from __future__ import annotations

import msgspec

from impl.agent.protocol import ServerInfo
from impl.runtime.interfaces import Disk
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
