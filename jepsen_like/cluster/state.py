"""Where clusters leave their traces on the host: one directory each, with the control socket, logs, data and
cluster.json.

    $COMITIA_HOME/clusters/NAME, or else ~/.local/state/comitia/clusters/NAME of the user who called (also through sudo)

Not under $XDG_RUNTIME_DIR: that is memory, and an fsync there costs nothing. The supervisor holds an exclusive
flock(2) on the directory's `lock` for as long as it lives: a directory whose lock is free belongs to a dead cluster.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import re
import shutil
import time
from pathlib import Path
from typing import Any

import msgspec

from jepsen_like.cluster.protocol import ClusterFailure
from jepsen_like.cluster.spec import ClusterSpec
from jepsen_like.net.namespaces import Identity, invoking_user

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
REMOVED_PREFIX = ".removed-"


class Metadata(msgspec.Struct, frozen=True):
    """cluster.json."""

    spec: ClusterSpec
    supervisor_pid: int
    """In the host's pid namespace."""
    daemon: bool
    """Survives whoever started it, until `down`."""


def home() -> Path:
    """The directory of all clusters."""
    configured = os.environ.get("COMITIA_HOME")
    if configured:
        return Path(configured).absolute() / "clusters"
    user = invoking_user()
    if user is not None:
        return Path(pwd.getpwuid(user.uid).pw_dir) / ".local/state/comitia/clusters"
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(base) / "comitia/clusters"


def cluster_directory(name: str) -> Path:
    """The directory of the cluster of this name; raises ClusterFailure if there is none."""
    directory = home() / name
    if not NAME.fullmatch(name) or not directory.is_dir():
        known = ", ".join(names()) or "none"
        raise ClusterFailure(f"no cluster is called {name!r} (there are: {known}); start one with `comitia cluster up`")
    return directory


def names() -> list[str]:
    """All clusters, alive or dead."""
    try:
        return sorted(entry.name for entry in home().iterdir() if NAME.fullmatch(entry.name) and entry.is_dir())
    except FileNotFoundError:
        return []


def is_alive(directory: Path) -> bool:
    """Whether a supervisor, or somebody who is starting one, holds the lock."""
    try:
        lock = _try_lock(directory)
    except FileNotFoundError:
        return False
    if lock is not None:
        os.close(lock)
    return lock is None


def _try_lock(directory: Path, flags: int = 0) -> int | None:
    """The descriptor that holds a directory's lock, or None if somebody else does; raises FileNotFoundError.

    A lock that was removed between opening and locking protects nothing: whoever removed it had it.
    """
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CLOEXEC | flags, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.stat(directory / "lock").st_ino == os.fstat(lock).st_ino:
            return lock
    except BlockingIOError:
        pass
    except FileNotFoundError:
        os.close(lock)
        raise
    os.close(lock)
    return None


def load(directory: Path) -> Metadata:
    """What cluster.json says; raises ClusterFailure if it is missing (a start that did not get far) or foreign."""
    try:
        return msgspec.json.decode((directory / "cluster.json").read_bytes(), type=Metadata, dec_hook=_path_of_text)
    except (OSError, msgspec.MsgspecError, ValueError) as error:
        raise ClusterFailure(
            f"cluster {directory.name}: no readable cluster.json ({error}); "
            f"`comitia cluster down {directory.name}` clears it"
        ) from error


def _path_of_text(kind: type[Any], value: Any) -> Any:
    if kind is not Path:
        raise NotImplementedError(f"cluster.json holds no {kind}")
    return Path(value)


def store(directory: Path, metadata: Metadata) -> None:
    """Write cluster.json, whole or not at all."""
    draft = directory / "cluster.json.new"
    draft.write_bytes(msgspec.json.format(msgspec.json.encode(metadata, enc_hook=str)))
    draft.replace(directory / "cluster.json")


def claim(name: str, user: Identity | None) -> tuple[Path, int]:
    """A fresh directory for a new cluster, and the descriptor that holds its lock; raises ClusterFailure if one is
    alive.

    What a dead cluster of the same name left is removed.
    """
    if not NAME.fullmatch(name):
        raise ClusterFailure(f"{name!r} is no name for a cluster: use small letters, digits and '-', at most 63")
    directory = home() / name
    try:
        make_directory(directory, user)
        lock = _try_lock(directory, os.O_CREAT)
    except (FileExistsError, FileNotFoundError) as error:
        raise ClusterFailure(f"cluster {name!r} is being removed at this moment: try again") from error
    if lock is None:
        raise ClusterFailure(
            f"cluster {name!r} is running already; `comitia cluster down {name}` ends it, or take another --name"
        )
    if user is not None:
        os.fchown(lock, user.uid, user.gid)  # so that `status` and `down` need no sudo
    for entry in directory.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != "lock":
            entry.unlink()
    return directory, lock


def claim_free(prefix: str, user: Identity | None) -> tuple[Path, int]:
    """Claim the first of PREFIX, PREFIX-2, PREFIX-3, ... whose cluster is not alive."""
    for number in range(1, 1000):
        name = prefix if number == 1 else f"{prefix}-{number}"
        if not is_alive(home() / name):
            try:
                return claim(name, user)
            except ClusterFailure:  # somebody else was faster, or is just removing it
                continue
    raise ClusterFailure(f"a thousand clusters called {prefix}-N are running; `comitia cluster down --all` ends them")


def make_directory(directory: Path, user: Identity | None) -> None:
    """A directory and its missing parents, owned by the user that agents run as."""
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o755, exist_ok=True)
        if user is not None:
            os.chown(path, user.uid, user.gid)


def remove(directory: Path) -> None:
    """Remove all that a dead cluster left; raises ClusterFailure if it is alive.

    It is moved away first, under its lock: whoever claims the name meanwhile gets a directory of his own.
    """
    try:
        lock = _try_lock(directory, os.O_CREAT)
    except FileNotFoundError:
        return
    if lock is None:
        raise ClusterFailure(f"cluster {directory.name} is alive: end it first")
    directory.rename(directory.with_name(f"{REMOVED_PREFIX}{directory.name}-{os.getpid()}-{time.monotonic_ns()}"))
    os.close(lock)
    for removed in directory.parent.glob(f"{REMOVED_PREFIX}*"):
        shutil.rmtree(removed, ignore_errors=True)
