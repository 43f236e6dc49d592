"""Waiting for something to change, with a timeout: leadership, the applied index, the keys of a blocking query."""

from __future__ import annotations

from impl.runtime.interfaces import Future, Runtime


class Changes:
    """Tasks that wait for the next change of one thing."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._waiting: dict[int, Future[None]] = {}
        self._ticket = 0

    def __len__(self) -> int:
        return len(self._waiting)

    async def wait(self, timeout_ns: int) -> None:
        """Return at the next `notify`, or after `timeout_ns`. Spurious returns are possible: look again."""
        await self.next(timeout_ns).wait()

    def next(self, timeout_ns: int) -> Waiter:
        """Begin to wait now: a change between this call and `Waiter.wait` is not missed."""
        self._ticket += 1
        return Waiter(self._runtime, self._waiting, self._ticket, timeout_ns)

    def notify(self) -> None:
        """It changed: wake everybody."""
        if self._waiting:
            for future in list(self._waiting.values()):
                if not future.done():
                    future.set_result(None)


class Waiter:
    """One wait that has begun. Must be ended with `wait` or `cancel`."""

    def __init__(self, runtime: Runtime, waiting: dict[int, Future[None]], ticket: int, timeout_ns: int) -> None:
        """Not for callers: use `Changes.next`."""
        self._waiting = waiting
        self._ticket = ticket
        self._future: Future[None] = runtime.tasks.future()
        self._timer = runtime.clock.call_later(timeout_ns, self._give_up)
        waiting[ticket] = self._future

    async def wait(self) -> None:
        """Return at a `notify` since `Changes.next`, or when the time is up."""
        try:
            await self._future
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Do not wait any more."""
        self._timer.cancel()
        self._waiting.pop(self._ticket, None)

    def _give_up(self) -> None:
        if not self._future.done():
            self._future.set_result(None)


class Watches:
    """Blocking queries by the key or the prefix that they depend on. `changed` is the state store's callback."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._keys: dict[str, Changes] = {}
        self._prefixes: dict[str, Changes] = {}

    def next(self, name: str, is_prefix: bool, timeout_ns: int) -> Waiter:
        """Begin to wait for a change of a key, or of anything under a prefix."""
        table = self._prefixes if is_prefix else self._keys
        changes = table.get(name)
        if changes is None:
            changes = table[name] = Changes(self._runtime)
        return changes.next(timeout_ns)

    def changed(self, key: str) -> None:
        """A key was created, changed or deleted: wake whoever waits for it or for a prefix of it."""
        if self._keys and (changes := self._keys.get(key)) is not None:
            changes.notify()
        for prefix, changes in self._prefixes.items():
            if key.startswith(prefix):
                changes.notify()

    def wake_all(self) -> None:
        """Wake everybody: the agent stops."""
        for changes in [*self._keys.values(), *self._prefixes.values()]:
            changes.notify()

    def sweep(self) -> None:
        """Forget names that nobody waits for any more."""
        self._keys = {name: changes for name, changes in self._keys.items() if len(changes)}
        self._prefixes = {name: changes for name, changes in self._prefixes.items() if len(changes)}
