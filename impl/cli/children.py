"""Programs that commands start: `lock` while it holds the lock, `watch` on every change.

A child is the leader of a process group of its own, and signals that ask this process to end reach the whole group:
the same one first, as Consul's commands forward SIGINT, then SIGTERM. Source: Consul's commands `lock` and `watch`: a
shell by default ($SHELL, else /bin/sh), five seconds from SIGTERM to SIGKILL.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import IO

from impl.cli.http_client import CommandError

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
        except FileNotFoundError as error:
            why = f'exec: "{command[0]}": executable file not found in $PATH'
            raise CommandError(f"Error starting handler: {why}") from error
        except OSError as error:
            raise CommandError(f"Error starting handler: exec: {error}") from error

    def signal(self, number: int) -> None:
        """Send a signal to the program and to what it started, if it has not ended."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)

    def end(self, told: Told, say: Callable[[str], None] = lambda text: None) -> None:
        """The signal that was told, SIGTERM, then SIGKILL for who did not listen; it has ended when this returns."""
        say(f"Terminating child pid {self.process.pid}")
        if told.number == signal.SIGINT:
            self.signal(signal.SIGINT)
        self.signal(signal.SIGTERM)
        try:
            self.process.wait(GRACE_SECONDS)
            say("Child terminated")
        except subprocess.TimeoutExpired:
            say(f"Child did not exit after grace period of {GRACE_SECONDS:g}s")
            say(f"Killing child pid {self.process.pid}")
            self.signal(signal.SIGKILL)
            self.process.wait()

    def failure(self) -> str:
        """How it ended, as Go says it: `exit status 3`, `signal: killed`; "": well, or not yet."""
        code = self.process.returncode or 0
        return f"exit status {code}" if code > 0 else f"signal: {signal.strsignal(-code)}".lower() if code < 0 else ""


class Told(threading.Event):
    """Set by the signals that ask this process to end; `number` is the first of them, 0 before."""

    number = 0


@contextmanager
def told_to_end() -> Iterator[Told]:
    """An event that is set by the signals that ask this process to end, instead of ending it. For the main thread."""
    told = Told()

    def handle(number: int, _: FrameType | None) -> None:
        told.number = told.number or number
        # From a thread of its own: the signal may have interrupted somebody who holds the event's lock.
        threading.Thread(target=told.set, name="told").start()

    before = {number: signal.signal(number, handle) for number in ENDING}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
