"""What ends an agent: a signal, its own leaving, or that it cannot be part of the cluster it found.

It decides when the agent ends and why; in which order things are closed is for `run`. Source: Consul, "Agent
configuration": `leave_on_terminate`, `skip_leave_on_interrupt`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final

from impl.agent.logs import Log
from impl.runtime.interfaces import NANOSECONDS, Future, Runtime

SIGNALS: Final = ("SIGTERM", "SIGINT")
LEAVING_NS_MAX: Final = 15 * NANOSECONDS
"""How long a signal may take to let a server leave before it ends as it is; Consul's patience."""


class Ending:
    """The end of one agent, to be waited for."""

    def __init__(self, runtime: Runtime, log: Log, leaves_on: frozenset[str]) -> None:
        """Listens to the signals from now on; by those of `leaves_on` a server leaves the cluster."""
        self.reason: Future[str] = runtime.tasks.future()
        """Why it ends; or the error that ends it."""
        self.leave: Callable[[], Coroutine[Any, Any, None]] | None = None
        """How a server leaves, once it runs; it calls `stop` then. None: a signal just ends it."""
        self._runtime = runtime
        self._log = log
        self._leaves_on = leaves_on
        self._leaving = False
        for name in SIGNALS:
            runtime.host.on_signal(name, partial(self._signalled, name))

    def stop(self, reason: str) -> None:
        """End in an orderly way."""
        if not self.reason.done():
            self.reason.set_result(reason)

    def fail(self, error: Exception) -> None:
        """End because it cannot go on."""
        if not self.reason.done():
            self.reason.set_exception(error)

    def _signalled(self, name: str) -> None:
        leave = self.leave
        if leave is None or self._leaving or name not in self._leaves_on:
            self.stop(name)
            return
        self._leaving = True
        self._log.info("a signal lets this agent leave: another one ends it at once", signal=name)
        self._runtime.tasks.spawn(self._give_up(name), "patience with leaving")
        self._runtime.tasks.spawn(leave(), "leave")

    async def _give_up(self, name: str) -> None:
        await self._runtime.clock.sleep(LEAVING_NS_MAX)
        if not self.reason.done():
            self._log.warn("leaving takes too long: ending without having left")
            self.stop(name)
