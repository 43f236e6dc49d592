"""Programs that commands start: `lock` while it holds the lock, `watch` on every change.

A child is the leader of a process group of its own, and signals that ask this process to end reach the whole group.
Source: Consul's commands `lock` and `watch`: a shell by default ($SHELL, else /bin/sh), five seconds from SIGTERM to
SIGKILL.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import IO

from impl.http_client import CommandError

GRACE_SECONDS = 5.0
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Child:
    """One program that was started."""

    def __init__(
        self, words: Sequence[str], shell: bool, environment: Mapping[str, str], stdin: int | IO[bytes] | None
    ) -> None:
        """Start it: `words` by themselves, or joined for a shell. Raises CommandError."""
        command = [os.environ.get("SHELL", "/bin/sh"), "-c", " ".join(words)] if shell else list(words)
        try:
            self.process = subprocess.Popen(
                command, stdin=stdin, env={**os.environ, **environment}, start_new_session=True
            )
        except OSError as error:
            raise CommandError(f"Error starting handler: {error}") from error

    def signal(self, number: int) -> None:
        """Send a signal to the program and to what it started, if it has not ended."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)

    def end(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """SIGTERM, then SIGKILL for who did not listen; it has ended when this returns."""
        self.signal(signal.SIGTERM)
        try:
            self.process.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self.process.wait()


@contextmanager
def told_to_end() -> Iterator[threading.Event]:
    """An event that is set by the signals that ask this process to end, instead of ending it. For the main thread."""
    told = threading.Event()

    def handle(number: int, _: FrameType | None) -> None:
        # From a thread of its own: the signal may have interrupted somebody who holds the event's lock.
        threading.Thread(target=told.set, name="told").start()

    before = {number: signal.signal(number, handle) for number in ENDING}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
