"""A driver around one core, in a world whose clock, disk and peers the test moves by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

from impl.agent.driver import TICK_NS, Driver
from impl.agent.logs import Log
from impl.agent.requests.changes import Changes
from impl.agent.tracer import Tracer
from impl.catalog.commands import KvSet
from impl.catalog.store import Store
from impl.raft.core import Core
from impl.raft.messages import (
    Message,
    PreVoteRequest,
    PreVoteResponse,
    RequestVoteResponse,
    decode,
)
from impl.raft.ready import Role
from impl.raft.settings import Restored, Settings
from impl.runtime.interfaces import Future, Runtime, Task, Timer
from impl.runtime.virtual_disk import VirtualDisk
from impl.storage.durable_log import DurableLog
from impl.storage.records import Genesis, Voter


class Exited(Exception):
    """The process ended with a code."""


class ManualTimer:
    def __init__(self, at: int, callback: Callable[[], None]) -> None:
        self.at = at
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class ManualFuture:
    """A future without a loop."""

    def __init__(self) -> None:
        self._outcome: tuple[Any, BaseException | None] | None = None
        self.on_done: Callable[[], None] = lambda: None

    def done(self) -> bool:
        return self._outcome is not None

    def result(self) -> Any:
        assert self._outcome is not None, "no result yet"
        value, error = self._outcome
        if error is not None:
            raise error
        return value

    def error(self) -> BaseException | None:
        return self._outcome[1] if self._outcome is not None else None

    def set_result(self, result: Any) -> None:
        assert self._outcome is None
        self._outcome = (result, None)
        self.on_done()

    def set_exception(self, exception: BaseException) -> None:
        assert self._outcome is None
        self._outcome = (None, exception)
        self.on_done()

    def cancel(self) -> bool:
        raise AssertionError("the driver cancels nothing")

    def __await__(self) -> Any:
        raise AssertionError("the driver waits for nothing")


class World:
    """Clock, executor, tasks, host: nothing happens until the test says so."""

    def __init__(self) -> None:
        self.now = 10**12
        self.soon: list[Callable[[], None]] = []
        self.timers: list[ManualTimer] = []
        self.submitted: list[tuple[Callable[[], Any], Callable[[Any], None], Callable[[BaseException], None]]] = []
        self.disk = VirtualDisk()
        self.random = Random(1)
        self.pid, self.hostname, self.environment = 1, "host", dict[str, str]()

    @property
    def runtime(self) -> Runtime:
        bench: Any = self
        return Runtime(
            clock=bench, random=self.random, disk=self.disk, network=bench, executor=bench, background=bench,
            tasks=bench, host=bench,
        )  # fmt: skip

    def monotonic_ns(self) -> int:
        return self.now

    def wall_ns(self) -> int:
        return self.now

    def call_soon(self, callback: Callable[[], None]) -> Timer:
        self.soon.append(callback)
        return ManualTimer(0, callback)

    def call_later(self, delay_ns: int, callback: Callable[[], None]) -> Timer:
        timer = ManualTimer(self.now + delay_ns, callback)
        self.timers.append(timer)
        return timer

    async def sleep(self, delay_ns: int) -> None:
        raise AssertionError("the driver does not sleep")

    def submit(
        self, work: Callable[[], Any], done: Callable[[Any], None], failed: Callable[[BaseException], None]
    ) -> None:
        self.submitted.append((work, done, failed))

    def future(self) -> Future[Any]:
        return ManualFuture()

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> Task:
        raise AssertionError("the driver spawns nothing")

    def on_signal(self, name: str, callback: Callable[[], None]) -> None:
        raise AssertionError("the driver takes no signals")

    def exit_now(self, code: int) -> None:
        raise Exited(code)

    def turn(self) -> None:
        """What is ready now runs; what that calls soon runs in the next turn, after sockets were polled."""
        ready, self.soon = self.soon, []
        for callback in ready:
            callback()

    def settle(self) -> None:
        while self.soon:
            self.turn()

    def advance(self, ns: int) -> None:
        """Time passes in steps of a tick; timers fire at their time."""
        end = self.now + ns
        while self.now < end:
            self.now = min(end, self.now + TICK_NS)
            self.fire()
            self.settle()

    def fire(self) -> None:
        due = [timer for timer in self.timers if timer.at <= self.now]
        self.timers = [timer for timer in self.timers if timer.at > self.now]
        for timer in due:
            if not timer.cancelled:
                timer.callback()

    def finish_disk(self) -> None:
        """The write under way ends, well or badly."""
        assert self.submitted, "no write is under way"
        work, done, failed = self.submitted.pop(0)
        try:
            result = work()
        except Exception as error:
            failed(error)
        else:
            done(result)
        self.settle()


class Bench:
    """A driver in a world, with voters s1 (itself) to sN."""

    def __init__(self, voters: int = 1, trace: bool = False) -> None:
        self.world = World()
        runtime = self.world.runtime
        self.disk_log, _ = DurableLog.open(self.world.disk, "raft", "id-s1", segment_bytes=1 << 16)
        names = [f"s{number}" for number in range(1, voters + 1)]
        self.disk_log.append([Genesis("cluster", tuple(Voter(name, f"id-{name}") for name in names))])
        self.disk_log.sync()
        self.core = Core(Settings(name="s1"), names, Restored(), self.world.random, trace=trace, now_ns=self.world.now)
        self.sent: list[tuple[str, Message]] = []
        self.lines: list[str] = []
        self.tracer = Tracer(self.world.disk, runtime.clock.monotonic_ns, "trace", "s1", 1) if trace else None
        log = Log(self.lines.append, lambda: 0.0)
        self.changes = Changes(runtime)
        self.driver = Driver(runtime, self.core, self.disk_log, Store(), self, log, self.tracer, self.changes, len)
        self.on_send: Callable[[], None] = lambda: None
        self.driver.start()
        self.world.settle()

    def send(self, to: str, frame: bytes) -> None:
        self.on_send()
        self.sent.append((to, decode(frame)))

    def trace(self) -> list[dict[str, Any]]:
        file = self.world.disk.open("trace/s1-000001.ndjson")
        return [json.loads(line) for line in file.read(0, file.size()).splitlines()]

    def lead(self) -> Bench:
        """Time passes until s1 leads, s2 voting for it."""
        self.campaign()
        self.world.finish_disk()
        if self.core.role is not Role.LEADER:
            self.receive("s2", RequestVoteResponse(1, self.core.term, True))
        assert self.core.role is Role.LEADER
        self.world.finish_disk()
        return self

    def campaign(self) -> None:
        """Time passes until s1 stands for election, s2 having said that it would vote for it."""
        while self.core.role is Role.FOLLOWER:
            self.world.advance(TICK_NS)
            if self.sent and isinstance(self.sent[-1][1], PreVoteRequest):
                self.receive("s2", PreVoteResponse(9, self.core.term + 1, True))

    def receive(self, source: str, message: Message) -> None:
        self.driver.receive(source, 1, message, 0)
        self.world.settle()

    def put(self, key: str, value: bytes = b"v") -> Any:
        return self.driver.propose(KvSet(key, value, 0), f"s1/1/{key}")
