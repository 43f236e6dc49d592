"""A lock, or one of a semaphore's slots, held by a session that this process renews, as Consul's client holds them.

Keys, flags and texts are those of Consul's client, so that both exclude each other. A lock is `PREFIX/.lock`, acquired
by its session. A semaphore is the same key with the limit and the holders as JSON, changed by check-and-set; each
contender has a key `PREFIX/SESSION` that its session holds, and a holder whose key nobody holds has ended.

It is advice: a lock may go before its holder is told. Source: Consul, "Sessions and Distributed Locks Overview",
"Distributed semaphore"; its `api/lock.go` and `api/semaphore.go`.
"""

from __future__ import annotations

import json
import threading
import time
from abc import ABC, abstractmethod
from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum, auto
from typing import Any, Final
from urllib.parse import quote

from impl.cli.http_client import Answer, CommandError, HttpClient

LOCK_NAME: Final = ".lock"
LOCK_FLAGS: Final = 0x2DDCCBC058A50C18
SEMAPHORE_FLAGS: Final = 0xE0F69A2BAA414DE0
"""What Consul's client stores with the keys that it uses as locks, and for semaphores."""
TTL_SECONDS: Final = 15
WAIT_SECONDS: Final = 15
"""Of each blocking query."""
RETRY_SECONDS: Final = 5.0
"""After a lock was refused, for the lock-delay, say."""
MONITOR_RETRY_SECONDS: Final = 1.0
RACES_MAX: Final = 1000
"""Changes of a semaphore in a row that came too late: each is another's progress."""
ACQUISITION: Final = "Lock acquisition failed: "
RELEASE: Final = "Lock release failed: "
CLEANUP: Final = "Lock cleanup failed: "


class Attempt(Enum):
    """What came of the wish to hold."""

    HELD = auto()
    BUSY = auto()
    """Others hold it: wait for a change."""
    REFUSED = auto()
    """Nobody holds it, and yet: try again after a while."""
    RACED = auto()
    """Somebody was faster: look again."""


class Contender(ABC):
    """One session that holds a lock or a slot, or wants to."""

    def __init__(self, client: HttpClient, path: str, session: str, monitor_retry: int) -> None:
        """`path` is what is read to see how things stand.

        `monitor_retry`: failures to ask the agent in a row that are not yet the loss of what is held.
        """
        self.lost = threading.Event()
        """It is held no more, or may not be."""
        self._client = client
        self._path = path
        self._session = session
        self._monitor_retry = monitor_retry
        self._ended = threading.Event()

    @abstractmethod
    def attempt(self, rows: Sequence[dict[str, Any]]) -> Attempt:
        """Try to hold, as things stand. Raises CommandError."""

    @abstractmethod
    def holds(self, rows: Sequence[dict[str, Any]]) -> bool:
        """Whether this session holds. Raises CommandError."""

    @abstractmethod
    def release(self) -> bool:
        """Give back what is held, and remove what nobody needs any more: whether so. Raises CommandError."""

    @abstractmethod
    def enter(self) -> None:
        """Before the first attempt. Raises CommandError."""

    @contextmanager
    def renewed(self) -> Iterator[None]:
        """The session is renewed as long as this is open, and destroyed at its end."""
        path = quote(self._session, safe="")
        thread = threading.Thread(target=self._renew, args=(path,), name="renew", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()
            self._client.ask("PUT", f"/v1/session/destroy/{path}", {}, "Error destroying session: ")

    def _renew(self, path: str) -> None:
        while not self._ended.wait(TTL_SECONDS / 2):
            try:
                self._client.ask("PUT", f"/v1/session/renew/{path}", {}, "Error renewing session: ")
            except CommandError:
                continue  # if the session has gone, so has what it held, which the monitor sees

    def acquire(self, stopped: threading.Event, deadline: float | None) -> bool:
        """Wait until it is held; False: stopped, or not before the deadline. Raises CommandError."""
        self.enter()
        index = 0
        while not stopped.is_set():
            left = WAIT_SECONDS if deadline is None else int(deadline - time.monotonic()) + 1
            if left <= 0:
                return False
            answer = self._read(index, min(WAIT_SECONDS, left), f"{ACQUISITION}failed to read lock")
            outcome = self.attempt(_rows(answer))
            if outcome is Attempt.HELD:
                return True
            if outcome is Attempt.REFUSED:
                pause = RETRY_SECONDS if deadline is None else min(RETRY_SECONDS, deadline - time.monotonic())
                if stopped.wait(max(pause, 0)):
                    return False
            index = answer.index if outcome is Attempt.BUSY and answer.index >= index else 0
        return False

    def watch(self) -> None:
        """Set `lost` when it is held no more, from a thread of its own."""
        threading.Thread(target=self._monitor, name="monitor", daemon=True).start()

    def _monitor(self) -> None:
        index = failures = 0
        while not self._ended.is_set():
            try:
                answer = self._read(index, WAIT_SECONDS, "failed to read lock", consistent=True)
                if not self.holds(_rows(answer)):
                    break
                index, failures = answer.index, 0
            except CommandError:
                failures += 1
                if failures > self._monitor_retry:
                    break
                self._ended.wait(MONITOR_RETRY_SECONDS)
        self.lost.set()

    def _read(self, index: int, wait: int, failure: str, consistent: bool = False) -> Answer:
        path, _, query = self._path.partition("?")
        parameters = [(name, "") for name in (query, "consistent" if consistent else "") if name]
        if index:
            parameters += [("index", str(index)), ("wait", f"{wait}s")]
        return self._client.query("GET", path, parameters, f"{failure}: ", accepted=(200, 404), wait_seconds=wait)

    def _done(self, path: str, parameters: dict[str, str], failure: str, body: bytes) -> bool:
        """Whether the agent wrote what it was to write on a condition. Raises CommandError."""
        return self._client.ask("PUT", path, parameters, failure, body)[1].strip() == b"true"

    def _removed(self, path: str, index: int) -> bool:
        """Whether nobody used the key meanwhile. Raises CommandError."""
        return self._client.ask("DELETE", path, {"cas": str(index)}, CLEANUP)[1].strip() == b"true"


def _rows(answer: Answer) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(answer.body) if answer.status == 200 else []
    return found


class Lock(Contender):
    """The lock below a prefix."""

    def __init__(self, client: HttpClient, prefix: str, session: str, monitor_retry: int) -> None:
        """As `Contender`; `prefix` has no slash at its end."""
        super().__init__(client, f"/v1/kv/{quote(f'{prefix}/{LOCK_NAME}')}", session, monitor_retry)

    def enter(self) -> None:
        """Nothing is needed."""

    def attempt(self, rows: Sequence[dict[str, Any]]) -> Attempt:
        """As `Contender.attempt`."""
        if _holder(rows) is not None:
            return Attempt.BUSY
        parameters = {"acquire": self._session, "flags": str(LOCK_FLAGS)}
        taken = self._done(self._path, parameters, f"{ACQUISITION}failed to acquire lock: ", b"")
        return Attempt.HELD if taken else Attempt.REFUSED

    def holds(self, rows: Sequence[dict[str, Any]]) -> bool:
        """As `Contender.holds`."""
        return _holder(rows) == self._session

    def release(self) -> bool:
        """As `Contender.release`: the key stays if somebody has it."""
        self._client.ask("PUT", self._path, {"release": self._session, "flags": str(LOCK_FLAGS)}, RELEASE, b"")
        rows = _rows(self._read(0, 0, f"{CLEANUP}failed to read lock"))
        if not rows:
            return True
        return _holder(rows) is None and self._removed(self._path, rows[0]["ModifyIndex"])


def _holder(rows: Sequence[dict[str, Any]]) -> str | None:
    """The session that has the lock. Raises CommandError if the key is not used as a lock."""
    if not rows:
        return None
    if rows[0]["Flags"] != LOCK_FLAGS:
        raise CommandError(f"{ACQUISITION}Existing key does not match lock use")
    return rows[0].get("Session") or None


class Semaphore(Contender):
    """A slot of the semaphore below a prefix, which `limit` sessions may hold at a time."""

    def __init__(self, client: HttpClient, prefix: str, session: str, monitor_retry: int, limit: int) -> None:
        """As `Contender`; `prefix` has no slash at its end."""
        super().__init__(client, f"/v1/kv/{quote(f'{prefix}/')}?recurse", session, monitor_retry)
        self._key = f"{prefix}/{LOCK_NAME}"
        self._lock_path = f"/v1/kv/{quote(self._key)}"
        self._own_path = f"/v1/kv/{quote(f'{prefix}/{session}')}"
        self._limit = limit

    def enter(self) -> None:
        """As `Contender.enter`: the key that says that this session lives."""
        parameters = {"acquire": self._session, "flags": str(SEMAPHORE_FLAGS)}
        failure = f"{ACQUISITION}failed to make contender entry"
        if not self._done(self._own_path, parameters, f"{failure}: ", b""):
            raise CommandError(failure)

    def attempt(self, rows: Sequence[dict[str, Any]]) -> Attempt:
        """As `Contender.attempt`."""
        index, holders = self._standing(rows)
        if len(holders) >= self._limit:
            return Attempt.BUSY
        if self._session not in _living(rows):
            raise CommandError(f"{ACQUISITION}its session has ended meanwhile")
        return Attempt.HELD if self._swap(index, {*holders, self._session}, ACQUISITION) else Attempt.RACED

    def holds(self, rows: Sequence[dict[str, Any]]) -> bool:
        """As `Contender.holds`."""
        return self._session in self._standing(rows)[1]

    def release(self) -> bool:
        """As `Contender.release`: the semaphore stays if somebody has a slot of it."""
        for _ in range(RACES_MAX):
            index, holders = self._standing(self._now(RELEASE))
            if self._session not in holders or self._swap(index, holders - {self._session}, RELEASE):
                break
        else:
            raise CommandError(f"{RELEASE}others changed the semaphore {RACES_MAX} times meanwhile: try again")
        self._client.ask("DELETE", self._own_path, {}, RELEASE)
        index, holders = self._standing(self._now(CLEANUP))
        if not index:
            return True
        return not holders and self._removed(self._lock_path, index)

    def _now(self, failure: str) -> list[dict[str, Any]]:
        return _rows(self._read(0, 0, f"{failure}failed to read prefix"))

    def _standing(self, rows: Sequence[dict[str, Any]]) -> tuple[int, set[str]]:
        """ModifyIndex of the semaphore (0: there is none yet), its holders that live. Raises CommandError."""
        found = next((row for row in rows if row["Key"] == self._key), None)
        if found is None:
            return 0, set()
        if found["Flags"] != SEMAPHORE_FLAGS:
            raise CommandError(f"{ACQUISITION}Existing key does not match semaphore use")
        try:
            value = json.loads(b64decode(found["Value"] or ""))
            limit, holders = int(value["Limit"]), set(value["Holders"])
        except (ValueError, TypeError, KeyError) as error:
            raise CommandError(f"{ACQUISITION}lock decoding failed: {error!r}") from error
        if limit != self._limit:
            raise CommandError(f"{ACQUISITION}semaphore limit conflict (lock: {limit}, local: {self._limit})")
        return found["ModifyIndex"], holders & _living(rows)

    def _swap(self, index: int, holders: set[str], failure: str) -> bool:
        """Whether the semaphore was as it was seen, and now has these holders. Raises CommandError."""
        value = json.dumps({"Limit": self._limit, "Holders": dict.fromkeys(sorted(holders), True)})
        parameters = {"cas": str(index), "flags": str(SEMAPHORE_FLAGS)}
        return self._done(self._lock_path, parameters, f"{failure}failed to update lock: ", value.encode())


def _living(rows: Sequence[dict[str, Any]]) -> set[str]:
    """The sessions that have not ended: they hold their keys."""
    return {row["Session"] for row in rows if row.get("Session")}
