"""Why a machine refuses namespaces or TUN devices, and what helps: one line per cause.

user_namespaces(7); Ubuntu's AppArmor restriction of unprivileged user namespaces (23.10 and later); containers'
default seccomp profiles and device lists.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from jepsen_like.net.interfaces import TUN_DEVICE
from model_checks.verdicts import SetupFailed

CONTAINER_REMEDY = (
    "in a container, start it with --privileged, or --cap-add SYS_ADMIN --cap-add NET_ADMIN --device /dev/net/tun "
    "--security-opt seccomp=unconfined --security-opt apparmor=unconfined"
)
APPARMOR = "kernel/apparmor_restrict_unprivileged_userns"
OLD_DEBIAN = "kernel/unprivileged_userns_clone"
MAX_NAMESPACES = "user/max_user_namespaces"


def sysctl(name: str) -> str | None:
    """The value of a kernel parameter, or None where the kernel has none of this name."""
    try:
        return Path("/proc/sys", name).read_text().strip()
    except OSError:
        return None


def namespaces_refused(error: OSError, *, privileged: bool) -> SetupFailed:
    """Why unshare(2) or mount(2) failed."""
    if privileged:
        return SetupFailed(f"this root may not make namespaces ({error}); {CONTAINER_REMEDY}")
    remedy = "run it as root (sudo)"
    if sysctl(APPARMOR) == "1":
        cause = (
            f"AppArmor restricts unprivileged user namespaces; `sudo sysctl {APPARMOR.replace('/', '.')}=0` allows them"
        )
    elif sysctl(OLD_DEBIAN) == "0":
        cause = f"user namespaces are off; `sudo sysctl {OLD_DEBIAN.replace('/', '.')}=1` allows them"
    elif error.errno == errno.ENOSPC or sysctl(MAX_NAMESPACES) == "0":
        cause = f"too few user namespaces allowed; `sudo sysctl {MAX_NAMESPACES.replace('/', '.')}=15000` allows them"
    else:
        cause = f"user namespaces are refused ({error}); {CONTAINER_REMEDY}"
    return SetupFailed(f"not root, and {cause}; or {remedy}")


def link_refused(error: OSError, *, use_tun: bool) -> SetupFailed:
    """Why a TUN device, or the cable that replaces it, could not be made."""
    if use_tun:
        return SetupFailed(f"cannot make a TUN device ({error}); {CONTAINER_REMEDY}")
    if os.path.exists(TUN_DEVICE):
        mode = f"{os.stat(TUN_DEVICE).st_mode & 0o777:o}"
        remedy = f"`sudo chmod 0666 {TUN_DEVICE}` (it is {mode}) allows TUN devices, or run as root"
    else:
        remedy = f"{TUN_DEVICE} is missing too: `sudo modprobe tun`, or {CONTAINER_REMEDY}"
    return SetupFailed(f"cannot make a veth pair ({error}); {remedy}")
