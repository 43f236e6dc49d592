"""The leader's part in sessions: it ends those whose TTL ran out, and gives no lock while its lock-delay lasts.

Every server keeps the lock-delays, so that a new leader knows those that began before its election; TTLs begin anew
with each leadership. Source: Consul, "Session TTLs", "Lock delay".

It must not change the state machine: it proposes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from impl.agent.driver import Driver
from impl.agent.requests.api import AgentError
from impl.agent.sessions.timers import LockDelays, SessionTimers
from impl.catalog.commands import KvAcquire, SessionDestroy, Transaction, Write
from impl.catalog.rows import Session
from impl.catalog.transactions import KvOperation, OperationError, Outcome
from impl.raft.ready import Role
from impl.runtime.interfaces import MILLISECONDS, Runtime

LOOK_NS = 250 * MILLISECONDS
"""How often the leader looks for sessions that are due."""


class SessionKeeper:
    """The timers of one server."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._timers = SessionTimers()
        self._delays = LockDelays()
        self._led_term = 0
        """The term in which the timers run; 0: they do not."""

    def __len__(self) -> int:
        return len(self._timers)

    def lost(self, key: str, delay_ns: int) -> None:
        """The state store's callback: a lock was lost with its session."""
        self._delays.begin(key, delay_ns, self._runtime.clock.monotonic_ns())

    def changed(self, session_id: str, session: Session | None) -> None:
        """The state store's callback: a session began, or ended (None)."""
        if session is None:
            self._timers.forget(session_id)
        elif self._led_term:
            self.renew(session)

    def replaced(self) -> None:
        """The state store's callback: a restore replaced everything. Every session has its full TTL again, and what
        was lost before does not count."""
        self._delays = LockDelays()
        self._led_term = 0

    def renew(self, session: Session) -> None:
        """A session has its full TTL again."""
        self._timers.renew(session, self._runtime.clock.monotonic_ns())

    def refusal(self, command: Write) -> bool | Outcome | None:
        """What the client of a command is told instead of proposing it, because of a lock-delay; None: propose it."""
        if not len(self._delays):
            return None
        now = self._runtime.clock.monotonic_ns()
        match command:
            case KvAcquire(key):
                return False if self._delays.remaining_ns(key, now) else None
            case Transaction(operations):
                errors = [
                    OperationError(position, f'failed to lock key "{operation.key}" due to lock delay')
                    for position, operation in enumerate(operations)
                    if isinstance(operation, KvOperation)
                    and operation.verb == "lock"
                    and self._delays.remaining_ns(operation.key, now)
                ]
                return Outcome([], errors) if errors else None
            case _:
                return None

    async def run(self, driver: Driver, write: Callable[[Write], Awaitable[object]]) -> None:
        """End sessions when they are due, while this server leads."""
        while True:
            await self._runtime.clock.sleep(LOOK_NS)
            now = self._runtime.clock.monotonic_ns()
            self._delays.sweep(now)
            if driver.core.role is not Role.LEADER:
                self._led_term = 0
                continue
            if driver.core.term != self._led_term:
                self._led_term = driver.core.term
                sessions = driver.store.tables.sessions
                self._timers.lead([sessions[key] for key in sessions.under("")], now)
            for session_id in self._timers.expired(now):
                self._runtime.tasks.spawn(_attempt(write(SessionDestroy(session_id))), "session expiry")


async def _attempt(writing: Awaitable[object]) -> None:
    """One that fails is tried again when the session is due again."""
    try:
        await writing
    except AgentError:
        return
