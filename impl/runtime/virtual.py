"""A virtual world: hosts with a disk each, one network, one clock, one thread; the same seed gives the same run.

It runs the code of `impl` unchanged, on a `Runtime` for each process. A process that is killed never runs again: no
callback, no `finally`, as with SIGKILL; its host's disk keeps what it would keep, and the next process of the host
gets a new Runtime.

It must not be used for measuring: only waiting takes time here. Source: FoundationDB's simulation; TigerBeetle's VOPR.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Coroutine, Mapping
from itertools import count
from random import Random
from typing import Any, TypeVar

from impl.runtime.interfaces import NANOSECONDS, Runtime, Usage
from impl.runtime.virtual_disk import VirtualDisk
from impl.runtime.virtual_network import VirtualInternet, VirtualNetwork
from impl.runtime.virtual_tasks import VirtualFuture, VirtualTask

T = TypeVar("T")
EPOCH_NS = 1_700_000_000 * NANOSECONDS
DISK_NS_MAX = 2_000_000
"""Longest time that a piece of blocking work takes."""


class VirtualTimer:
    """A callback that has not run yet; implements `Timer`."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """As `Timer.cancel`."""
        self.callback = None


class VirtualWorld:
    """Time, and everything that happens in it."""

    def __init__(self, seed: int) -> None:
        self.now_ns = 0
        self.chance = Random(seed)
        self.internet = VirtualInternet(self, Random(f"{seed}/network"))
        self._heap: list[tuple[int, int, VirtualTimer]] = []
        self._numbers = count()
        self._failure: BaseException | None = None
        self.graveyard: list[VirtualTask] = []
        """Tasks of dead processes, kept so that nothing of them is run by being collected."""

    def process(self, host: str, disk: VirtualDisk) -> VirtualProcess:
        """Start a process on a host; it runs what is given to its runtime."""
        return VirtualProcess(self, host, disk)

    def after(self, delay_ns: int, callback: Callable[[], None]) -> VirtualTimer:
        """Run `callback` after a while; those of the same moment in the order of the calls."""
        timer = VirtualTimer(callback)
        heapq.heappush(self._heap, (self.now_ns + max(0, delay_ns), next(self._numbers), timer))
        return timer

    def run_for(self, duration_ns: int) -> None:
        """Let time pass. Raises what left a callback or a task: it is a defect."""
        self.run_until(lambda: False, duration_ns)

    def run_until(self, condition: Callable[[], object], limit_ns: int) -> bool:
        """Let time pass until the condition holds: True; or for `limit_ns`: False."""
        end_ns = self.now_ns + limit_ns
        while not condition():
            if not self._heap or self._heap[0][0] > end_ns:
                self.now_ns = end_ns
                return bool(condition())
            self.now_ns, _, timer = heapq.heappop(self._heap)
            if timer.callback is not None:
                timer.callback()
            if self._failure is not None:
                raise self._failure
        return True

    def fail(self, error: BaseException) -> None:
        """A task ended by an exception: the run must not go on."""
        self._failure = self._failure or error


class VirtualProcess:
    """A running process. `runtime` is its world; `kill` and `power_loss` end it."""

    def __init__(self, world: VirtualWorld, host: str, disk: VirtualDisk) -> None:
        self.alive = True
        self._world = world
        self._host = host
        self._disk = disk
        self._tasks = _Tasks(self, world)
        self.runtime = Runtime(
            clock=_Clock(self, world),
            random=Random(world.chance.getrandbits(64)),
            disk=disk,
            network=VirtualNetwork(world.internet, host, self.soon),
            executor=_Executor(self, world),
            background=_Executor(self, world),
            tasks=self._tasks,
            host=_Host(host, self),
        )

    def after(self, delay_ns: int, callback: Callable[[], None]) -> VirtualTimer:
        """Run a callback of this process after a while, if it lives then."""
        return self._world.after(delay_ns, lambda: callback() if self.alive else None)

    def soon(self, callback: Callable[[], None]) -> VirtualTimer:
        """Run a callback of this process after what is ready now."""
        return self.after(0, callback)

    def kill(self) -> None:
        """SIGKILL: the page cache survives. The host closes its sockets, as its kernel would."""
        self._die()
        self._disk.process_crash()
        self._world.internet.drop_host(self._host)

    def power_loss(self, keep: int = 0, torn_bytes: int = 0) -> None:
        """The host loses power: see `VirtualDisk.power_loss`. Silence is all that its peers hear of it."""
        self._die()
        self._disk.power_loss(keep, torn_bytes)
        self._world.internet.drop_host(self._host, silently=True)

    def _die(self) -> None:
        self.alive = False
        for task in self._tasks.running:
            task.bury()
        self._world.graveyard.extend(self._tasks.running)


class _Clock:
    """Implements `Clock`."""

    def __init__(self, process: VirtualProcess, world: VirtualWorld) -> None:
        self._process = process
        self._world = world

    def monotonic_ns(self) -> int:
        return self._world.now_ns

    def wall_ns(self) -> int:
        return EPOCH_NS + self._world.now_ns

    def call_later(self, delay_ns: int, callback: Callable[[], None]) -> VirtualTimer:
        return self._process.after(delay_ns, callback)

    def call_soon(self, callback: Callable[[], None]) -> VirtualTimer:
        return self._process.soon(callback)

    async def sleep(self, delay_ns: int) -> None:
        future = VirtualFuture(self._process.soon)
        timer = self._process.after(delay_ns, lambda: future.set_result(None))
        try:
            await future
        finally:
            timer.cancel()


class _Tasks:
    """Implements `Tasks`."""

    def __init__(self, process: VirtualProcess, world: VirtualWorld) -> None:
        self._process = process
        self._world = world
        self.running: list[VirtualTask] = []

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> VirtualTask:
        task = VirtualTask(coroutine, self._process.soon, self._world.fail)
        self.running = [other for other in self.running if not other.done()]
        self.running.append(task)
        return task

    def future(self) -> VirtualFuture:
        return VirtualFuture(self._process.soon)

    def count(self) -> int:
        return sum(not task.done() for task in self.running)


class _Executor:
    """Implements `Executor`: the effect happens some time before the answer, so that a kill can fall between them."""

    def __init__(self, process: VirtualProcess, world: VirtualWorld) -> None:
        self._process = process
        self._world = world
        self._free_ns = 0

    def submit(self, work: Callable[[], T], done: Callable[[T], None], failed: Callable[[BaseException], None]) -> None:
        world = self._world
        effect_ns = max(world.now_ns, self._free_ns) + world.chance.randrange(1, DISK_NS_MAX)
        self._free_ns = answer_ns = effect_ns + world.chance.randrange(1, DISK_NS_MAX)

        def effect() -> None:
            try:
                result = work()
            except Exception as error:
                cause = error
                self._process.after(answer_ns - world.now_ns, lambda: failed(cause))
            else:
                self._process.after(answer_ns - world.now_ns, lambda: done(result))

        self._process.after(effect_ns - world.now_ns, effect)


class _Host:
    """Implements `Host`."""

    def __init__(self, name: str, process: VirtualProcess) -> None:
        self.pid = 1
        self.hostname = name
        self.environment: Mapping[str, str] = {}
        self._process = process

    def usage(self) -> Usage:
        """Nothing is measured here."""
        return Usage()

    def statistics(self) -> Mapping[str, str]:
        """There are none."""
        return {}

    def machine(self, path: str) -> Mapping[str, Any]:
        """There is none."""
        return {}

    def on_signal(self, name: str, callback: Callable[[], None]) -> None:
        """No signals arrive here."""

    def exit_now(self, code: int) -> None:
        self._process.kill()
