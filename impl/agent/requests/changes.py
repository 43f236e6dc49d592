"""Waiting for something to change, with a timeout: leadership, the applied index, the keys of a blocking query."""

from __future__ import annotations

from collections.abc import Sequence

from impl.catalog.queries import Watched
from impl.runtime.interfaces import Future, Runtime


class Changes:
    """Tasks that wait for the next change of one thing."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.waiting: dict[int, Future[None]] = {}
        """By ticket. Only `Waiter` changes it."""
        self._ticket = 0

    def __len__(self) -> int:
        return len(self.waiting)

    async def wait(self, timeout_ns: int) -> None:
        """Return at the next `notify`, or after `timeout_ns`. Spurious returns are possible: look again."""
        await self.next(timeout_ns).wait()

    def next(self, timeout_ns: int) -> Waiter:
        """Begin to wait now: a change between this call and `Waiter.wait` is not missed."""
        self._ticket += 1
        return Waiter(self._runtime, (self.waiting,), self._ticket, timeout_ns)

    def notify(self) -> None:
        """It changed: wake everybody."""
        if self.waiting:
            for future in list(self.waiting.values()):
                if not future.done():
                    future.set_result(None)


class Waiter:
    """One wait that has begun. Must be ended with `wait` or `cancel`."""

    def __init__(
        self, runtime: Runtime, waiting: Sequence[dict[int, Future[None]]], ticket: int, timeout_ns: int
    ) -> None:
        """Not for callers: use `Changes.next` or `Watches.next`."""
        self._waiting = waiting
        self._ticket = ticket
        self._future: Future[None] = runtime.tasks.future()
        self._timer = runtime.clock.call_later(timeout_ns, self._give_up)
        for each in waiting:
            each[ticket] = self._future

    async def wait(self) -> None:
        """Return at a `notify` since the wait began, or when the time is up."""
        try:
            await self._future
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Do not wait any more."""
        self._timer.cancel()
        for each in self._waiting:
            each.pop(self._ticket, None)

    def _give_up(self) -> None:
        if not self._future.done():
            self._future.set_result(None)


class Watches:
    """Blocking queries by what they wait for. `changed` and `touched` are the state store's callbacks."""

    def __init__(self, runtime: Runtime) -> None:
        self.restores = 0
        """How often the state was replaced: whoever has waited over that waits no longer."""
        self._runtime = runtime
        self._ticket = 0
        self._keys: dict[str, Changes] = {}
        self._prefixes: dict[str, Changes] = {}
        self._groups: dict[str, Changes] = {}

    def __len__(self) -> int:
        """How many queries wait."""
        tables = (self._keys, self._prefixes, self._groups)
        return len({ticket for table in tables for changes in table.values() for ticket in changes.waiting})

    def next(self, watched: Watched, timeout_ns: int) -> Waiter:
        """Begin to wait for a change of any of these."""
        self._ticket += 1
        waiting = [
            self._of(table, name).waiting
            for table, names in (
                (self._keys, watched.keys),
                (self._prefixes, watched.prefixes),
                (self._groups, watched.groups),
            )
            for name in names
        ]
        return Waiter(self._runtime, waiting, self._ticket, timeout_ns)

    def _of(self, table: dict[str, Changes], name: str) -> Changes:
        changes = table.get(name)
        if changes is None:
            changes = table[name] = Changes(self._runtime)
        return changes

    def changed(self, key: str) -> None:
        """A key was created, changed or deleted: wake whoever waits for it or for a prefix of it."""
        if self._keys and (changes := self._keys.get(key)) is not None:
            changes.notify()
        for prefix, changes in self._prefixes.items():
            if key.startswith(prefix):
                changes.notify()

    def touched(self, name: str) -> None:
        """The index of a group of rows changed: wake whoever waits for it."""
        if (changes := self._groups.get(name)) is not None:
            changes.notify()

    def wake_all(self) -> None:
        """Wake everybody to look again: the agent stops, or leads no more."""
        for table in (self._keys, self._prefixes, self._groups):
            for changes in table.values():
                changes.notify()

    def abandon(self) -> None:
        """The state was replaced: wake everybody for good (Consul abandons watches)."""
        self.restores += 1
        self.wake_all()

    def sweep(self) -> None:
        """Forget names that nobody waits for any more."""
        for table in (self._keys, self._prefixes, self._groups):
            for name in [name for name, changes in table.items() if not len(changes)]:
                del table[name]
