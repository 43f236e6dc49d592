"""Linux namespaces through libc: make, enter, and drop privileges inside. namespaces(7), user_namespaces(7),
setns(2).

Must not be called in a process with threads: unshare(2) and setns(2) move one thread, and the others would stay
behind. The supervisor and its forks have none. (Python has os.unshare and os.setns from 3.12 on; 3.11 needs ctypes.)
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import msgspec

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE = 2, 4, 8, 1 << 14, 1 << 18

_libc = ctypes.CDLL(None, use_errno=True)


class Identity(msgspec.Struct, frozen=True):
    """The user that agents run as."""

    uid: int
    gid: int


def invoking_user() -> Identity | None:
    """Who called sudo, if this is root by way of sudo; else None: nothing to drop to."""
    uid, gid = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
    if os.geteuid() == 0 and uid.isdigit() and gid.isdigit() and uid != "0":
        return Identity(int(uid), int(gid))
    return None


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """unshare(2); raises OSError."""
    _checked(_libc.unshare(flags), "unshare")


def enter(descriptor: int, kind: int = 0) -> None:
    """setns(2): move this thread into the namespace behind the descriptor; `kind` 0 allows any."""
    _checked(_libc.setns(descriptor, kind), "setns")


def unshare_user() -> None:
    """Become root of a new user namespace that maps only the present user; raises OSError."""
    uid, gid = os.geteuid(), os.getegid()
    unshare(CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def mount_own_proc() -> None:
    """In a new mount and pid namespace: stop sharing mounts with the host, and show only this pid namespace in /proc.

    A container may forbid the second (a masked /proc in a user namespace); then ps(1) in `exec` shows the outer one,
    no more.
    """
    _checked(_libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "mount --make-rprivate /")
    try:
        _checked(_libc.mount(b"proc", b"/proc", b"proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, None), "mount /proc")
    except PermissionError as error:
        print(f"note: no /proc of its own ({error})", flush=True)


def current(kind: str) -> int:
    """A descriptor of this process's namespace of a kind ("net", "mnt", "pid", "user"); it keeps that alive."""
    return os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)


def drop_privileges(identity: Identity | None) -> None:
    """Become the user for good; None changes nothing."""
    if identity is not None:
        os.setgroups([identity.gid])
        os.setresgid(identity.gid, identity.gid, identity.gid)
        os.setresuid(identity.uid, identity.uid, identity.uid)
