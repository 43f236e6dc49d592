"""On what a figure depends beside the program: the disk and the interpreter of this machine."""

from __future__ import annotations

import os
import platform
import time
import timeit
from pathlib import Path
from typing import Final

STEPS: Final = 1_000
"""Of the probe of the interpreter, each time."""


class _Probe:
    __slots__ = ("number", "value")

    def __init__(self, number: int, value: bytes) -> None:
        self.number = number
        self.value = value

    def row(self, key: str) -> tuple[str, int, bytes]:
        return key, self.number, self.value


def interpreter() -> str:
    """What runs the servers, and how fast it is at what they do: make an object and a name, call, store. Builds of the
    same version differ by half (`--enable-optimizations`, link-time optimisation).
    """

    def work() -> None:
        rows = {}
        for number in range(STEPS):
            name = f"{number}"
            rows[name] = _Probe(number, b"").row(name)

    best_s = min(timeit.repeat(work, number=20, repeat=7)) / 20 / STEPS
    return f"{platform.python_implementation()} {platform.python_version()}, {best_s * 1e9:.0f} ns a step of a probe"


def sync_ms(directory: Path, count: int = 50) -> float:
    """The median time of a 4 KiB append with fdatasync here: the floor of every put."""
    path = directory / "sync-probe"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    times: list[float] = []
    try:
        for _ in range(count):
            os.write(descriptor, b"x" * 4096)
            before = time.perf_counter()
            os.fdatasync(descriptor)
            times.append((time.perf_counter() - before) * 1000)
    finally:
        os.close(descriptor)
        path.unlink()
    return round(sorted(times)[count // 2], 3)
