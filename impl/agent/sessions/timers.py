"""What the leader's clock decides about sessions: when a TTL has run out, and for how long a lost lock is not given.

Neither is part of the replicated state: a new leader gives every session its full time again, and knows of the
lock-delays that began since its own process started. A session ends at twice its TTL, counted from its last renewal:
Consul promises not before the TTL, and this is what it does. Source: Consul, "Session TTLs", "Lock delay".

It must not propose anything: it says what is due.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappop, heappush
from typing import Final

from impl.agent.config.validated import parse_duration
from impl.catalog.rows import Session
from impl.runtime.interfaces import NANOSECONDS

TTL_MULTIPLIER: Final = 2
RETRY_NS: Final = NANOSECONDS
"""An expired session is due again after this, until it is gone: its destruction may have failed."""


class SessionTimers:
    """When the sessions that have a TTL are due to be destroyed. Times are monotonic nanoseconds."""

    def __init__(self) -> None:
        self._due: dict[str, int] = {}
        self._queue: list[tuple[int, str]] = []
        """(no later than it is due, id): renewed sessions are looked at once more when their old time comes."""

    def __len__(self) -> int:
        return len(self._due)

    def lead(self, sessions: Iterable[Session], now_ns: int) -> None:
        """This server became the leader: every session has its full time again."""
        self._due, self._queue = {}, []
        for session in sessions:
            self.renew(session, now_ns)

    def renew(self, session: Session, now_ns: int) -> None:
        """A session began or was renewed: it has its full time again."""
        ttl_ns = round(parse_duration(session.ttl) * NANOSECONDS) if session.ttl else 0
        if ttl_ns:
            self._set(session.id, now_ns + TTL_MULTIPLIER * ttl_ns)

    def forget(self, session_id: str) -> None:
        """A session ended."""
        self._due.pop(session_id, None)

    def expired(self, now_ns: int) -> list[str]:
        """The sessions whose time is over, each once in `RETRY_NS`."""
        found = []
        while self._queue and self._queue[0][0] <= now_ns:
            _, session_id = heappop(self._queue)
            due = self._due.get(session_id)
            if due is None:
                continue
            if due <= now_ns:
                found.append(session_id)
                due = now_ns + RETRY_NS
                self._due[session_id] = due
            heappush(self._queue, (due, session_id))
        return found

    def _set(self, session_id: str, due_ns: int) -> None:
        known = session_id in self._due
        self._due[session_id] = due_ns
        if not known:
            heappush(self._queue, (due_ns, session_id))


class LockDelays:
    """Keys whose lock was lost with its session, and may not be acquired for a while. Kept by every server."""

    def __init__(self) -> None:
        self._until: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._until)

    def begin(self, key: str, delay_ns: int, now_ns: int) -> None:
        """The lock of a key was lost now."""
        self._until[key] = now_ns + delay_ns

    def remaining_ns(self, key: str, now_ns: int) -> int:
        """For how long the key may not be acquired; 0: it may."""
        until = self._until.get(key)
        if until is None:
            return 0
        if until <= now_ns:
            del self._until[key]
            return 0
        return until - now_ns

    def sweep(self, now_ns: int) -> None:
        """Forget the delays that are over."""
        self._until = {key: until for key, until in self._until.items() if until > now_ns}
