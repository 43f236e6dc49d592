"""The machine that an agent runs on, as `/v1/agent/host` shows it.

Source: Consul, "Agent HTTP API", retrieve host information; the names are those of gopsutil, psutil's port to Go. What
psutil does not tell is left out.
"""

from __future__ import annotations

import os
import platform
import time
from typing import Any

import psutil

Document = dict[str, Any]


def describe_machine(path: str) -> Document:
    """`Memory`, `CPU`, `Host`, and `Disk`: the file system of `path`. Raises OSError."""
    return {"Memory": _memory(), "CPU": _processors(), "Host": _host(), "Disk": _disk(path)}


def describe_process() -> dict[str, str]:
    """What runs here: the names are Go's, of its runtime."""
    processors = str(psutil.cpu_count() or 1)
    return {
        "arch": platform.machine(),
        "cpu_count": processors,
        "max_procs": "1",
        "os": platform.system().lower(),
        "version": f"python{platform.python_version()}",
    }


def _memory() -> Document:
    memory = psutil.virtual_memory()
    return {
        "total": memory.total,
        "available": memory.available,
        "used": memory.used,
        "usedPercent": memory.percent,
        "free": memory.free,
    }


def _processors() -> list[Document]:
    frequency = psutil.cpu_freq()
    mhz = frequency.current if frequency is not None else 0.0
    model = platform.processor()
    return [{"cpu": number, "modelName": model, "mhz": mhz} for number in range(psutil.cpu_count() or 1)]


def _host() -> Document:
    boot = int(psutil.boot_time())
    return {
        "hostname": platform.node(),
        "uptime": int(time.time()) - boot,
        "bootTime": boot,
        "procs": len(psutil.pids()),
        "os": platform.system().lower(),
        "kernelVersion": platform.release(),
        "kernelArch": platform.machine(),
        "pid": os.getpid(),
    }


def _disk(path: str) -> Document:
    usage = psutil.disk_usage(path)
    return {
        "path": path,
        "total": usage.total,
        "free": usage.free,
        "used": usage.used,
        "usedPercent": usage.percent,
    }
