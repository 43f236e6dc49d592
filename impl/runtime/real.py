"""The real world: uvloop, TCP sockets, the file system, signals. `run` starts it.

With `real_disk`, the only module of `impl` that touches asyncio, os, socket or time. It must not decide anything:
no retries, no protocol.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, cast

import psutil
import uvloop

from impl.runtime.interfaces import NANOSECONDS, Address, Future, Receiver, Runtime, Task, Timer, Usage
from impl.runtime.machine import describe_machine, describe_process
from impl.runtime.real_disk import DiskThread, RealDisk

TCP_USER_TIMEOUT_MS = 5_000
"""The kernel gives up a connection whose data stays unacknowledged that long; by itself it would take minutes."""


CLOSING_ROUNDS_MAX = 100
"""Turns of the loop that closing connections may take at the end."""
ENDING_SECONDS = 2
"""For the main coroutine to put things in order after a spawned task failed."""
GC_THRESHOLDS = (20_000, 50, 100)
"""A full collection looks through the whole state machine, which takes some 20 ms for a million keys, and hardly
anything of this program is a cycle: let them be rare."""


class _Never:
    """A timer of a world that has ended; implements `Timer`."""

    def cancel(self) -> None:
        """As `Timer.cancel`."""


class RealClock:
    """CLOCK_MONOTONIC and the loop's timers; implements `Clock`.

    Once `end` was called no timer starts any more: closing the loop closes connections, and whoever reacts to that
    by a new timer would keep the loop from ever closing.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ended = False
        self.monotonic_ns = time.monotonic_ns
        self.wall_ns = time.time_ns

    def end(self) -> None:
        """Start no timer from now on."""
        self._ended = True

    def call_later(self, delay_ns: int, callback: Callable[[], None]) -> Timer:
        """As `Clock.call_later`."""
        return _Never() if self._ended else self._loop.call_later(delay_ns / NANOSECONDS, callback)

    def call_soon(self, callback: Callable[[], None]) -> Timer:
        """As `Clock.call_soon`."""
        return _Never() if self._ended else self._loop.call_soon(callback)

    async def sleep(self, delay_ns: int) -> None:
        """As `Clock.sleep`."""
        await asyncio.sleep(delay_ns / NANOSECONDS)


class RealTasks:
    """Coroutines on the loop; implements `Tasks`. A task that fails ends `run`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fail: Callable[[BaseException], None]) -> None:
        self._loop = loop
        self._fail = fail
        self._running: set[asyncio.Task[None]] = set()

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> Task:
        """As `Tasks.spawn`."""
        task = self._loop.create_task(coroutine, name=name)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def future(self) -> Future[Any]:
        """As `Tasks.future`."""
        return self._loop.create_future()

    def count(self) -> int:
        """As `Tasks.count`."""
        return len(asyncio.all_tasks(self._loop))

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)


class RealConnection(asyncio.Protocol):
    """One TCP connection: asyncio's protocol on one side, our `Receiver` on the other; implements `Connection`."""

    def __init__(self, receiver: Receiver, open_connections: dict[RealConnection, None]) -> None:
        """`open_connections`: where it stands while it is open."""
        self._receiver = receiver
        self._open_connections = open_connections
        self.made = False
        self._open = False
        """Whether writes may reach the transport: uvloop's raise once they are closed."""
        self.local: Address = ("", 0)
        self.remote: Address = ("", 0)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: connected."""
        # uvloop's transports have the methods of asyncio.Transport and not the class.
        self._transport = cast(asyncio.Transport, transport)
        endpoint = transport.get_extra_info("socket")
        endpoint.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if sys.platform == "linux":
            endpoint.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, TCP_USER_TIMEOUT_MS)
        self.local = _address(transport.get_extra_info("sockname"))
        self.remote = _address(transport.get_extra_info("peername"))
        self.made = self._open = True
        self._open_connections[self] = None
        self._receiver.connection_made(self)

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes."""
        self._receiver.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: gone."""
        self._open = False
        if self in self._open_connections:
            del self._open_connections[self]
            self._receiver.connection_lost(exc)

    def abandoned(self, error: OSError | None) -> None:
        """Cancelled between `connection_made` and the return of `create_connection`, if it was made at all.

        uvloop closes the transport then, and never calls `connection_lost`.
        """
        if self.made:
            self._transport.abort()
            self.connection_lost(error)

    def write(self, data: bytes) -> None:
        """As `Connection.write`."""
        if self._open:
            self._transport.write(data)

    def buffered(self) -> int:
        """As `Connection.buffered`."""
        return self._transport.get_write_buffer_size() if self._open else 0

    def close(self) -> None:
        """As `Connection.close`."""
        self._open = False
        self._transport.close()

    def abort(self) -> None:
        """As `Connection.abort`."""
        self._open = False
        self._transport.abort()


class _Dial:
    """A connection attempt; implements `Timer`."""

    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task

    def cancel(self) -> None:
        self._task.cancel()


class RealListener:
    """A listening socket; implements `Listener`."""

    def __init__(self, server: asyncio.Server) -> None:
        self._server = server
        self.address = _address(server.sockets[0].getsockname())

    def close(self) -> None:
        """As `Listener.close`."""
        self._server.close()


class RealNetwork:
    """TCP sockets; implements `Network`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._listeners: list[RealListener] = []
        self._connections: dict[RealConnection, None] = {}

    async def end(self) -> None:
        """Close everything that is still open: uvloop's loop must not be left to do it."""
        for listener in self._listeners:
            listener.close()
        for _ in range(CLOSING_ROUNDS_MAX):
            for connection in list(self._connections):
                connection.abort()
            await asyncio.sleep(0)
            if not self._connections:
                return

    def dial(self, address: Address, receiver: Receiver, timeout_ns: int, failed: Callable[[OSError], None]) -> Timer:
        """As `Network.dial`."""
        return _Dial(self._loop.create_task(self._connect(address, receiver, timeout_ns, failed)))

    async def _connect(
        self, address: Address, receiver: Receiver, timeout_ns: int, failed: Callable[[OSError], None]
    ) -> None:
        host, port = address
        connection = RealConnection(receiver, self._connections)
        try:
            async with asyncio.timeout(timeout_ns / NANOSECONDS):
                await self._loop.create_connection(lambda: connection, host, port)
        except OSError as error:
            if connection.made:
                connection.abandoned(error)
            else:
                failed(error)
        except asyncio.CancelledError:
            connection.abandoned(None)
            raise

    async def listen(self, address: Address, accept: Callable[[], Receiver]) -> RealListener:
        """As `Network.listen`."""
        host, port = address
        server = await self._loop.create_server(
            lambda: RealConnection(accept(), self._connections), host, port, backlog=512, reuse_address=True
        )
        listener = RealListener(server)
        self._listeners.append(listener)
        return listener

    async def listen_datagrams(self, address: Address, received: Callable[[bytes, Address], None]) -> RealDatagrams:
        """As `Network.listen_datagrams`."""
        _, protocol = await self._loop.create_datagram_endpoint(lambda: RealDatagrams(received), local_addr=address)
        return protocol


class RealDatagrams(asyncio.DatagramProtocol):
    """A UDP socket; implements `Datagrams`."""

    def __init__(self, received: Callable[[bytes, Address], None]) -> None:
        self._received = received
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        # uvloop's transports do not derive from asyncio's.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Called by the loop."""
        self._received(data, (addr[0], addr[1]))

    def error_received(self, exc: Exception) -> None:
        """Called by the loop: nobody listened where a datagram went. Datagrams may be lost."""

    @property
    def address(self) -> Address:
        """As `Datagrams.address`."""
        assert self._transport is not None, "made"
        host, port = self._transport.get_extra_info("sockname")[:2]
        return (host, port)

    def send(self, data: bytes, to: Address) -> None:
        """As `Datagrams.send`."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(data, to)

    def close(self) -> None:
        """As `Datagrams.close`."""
        if self._transport is not None:
            self._transport.close()


class RealHost:
    """This process and this machine; implements `Host`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.pid = os.getpid()
        self.hostname = socket.gethostname()
        self.environment: Mapping[str, str] = os.environ
        self._process = psutil.Process()

    def usage(self) -> Usage:
        """As `Host.usage`."""
        memory = self._process.memory_info()
        collections = sum(generation["collections"] for generation in gc.get_stats())
        return Usage(memory.rss, memory.vms, collections)

    def statistics(self) -> Mapping[str, str]:
        """As `Host.statistics`."""
        return describe_process()

    def machine(self, path: str) -> Mapping[str, Any]:
        """As `Host.machine`."""
        return describe_machine(path)

    def on_signal(self, name: str, callback: Callable[[], None]) -> None:
        """As `Host.on_signal`."""
        self._loop.add_signal_handler(signal.Signals[name], callback)

    def exit_now(self, code: int) -> None:
        """As `Host.exit_now`."""
        sys.stderr.flush()
        os._exit(code)


def run(main: Callable[[Runtime], Coroutine[Any, Any, int]]) -> int:
    """Run `main` in the real world and return its exit code. Raises what leaves it, or what leaves a task it
    spawned."""
    # As Go's programs do: each blocking query holds a connection, and 1,024 open files are a common soft limit.
    _, files_max = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files_max, files_max))
    code: int = uvloop.run(_supervise(main))
    return code


async def _supervise(main: Callable[[Runtime], Coroutine[Any, Any, int]]) -> int:
    """Run `main` until it ends or a spawned task fails."""
    loop = asyncio.get_running_loop()
    failure: asyncio.Future[int] = loop.create_future()

    def fail(error: BaseException) -> None:
        if not failure.done():
            failure.set_exception(error)

    def uncaught(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # A callback that raises is a defect: the state behind it is unknown, so the process must not go on.
        fail(context.get("exception") or RuntimeError(str(context.get("message"))))

    loop.set_exception_handler(uncaught)
    executor, background = (DiskThread(name, loop.call_soon_threadsafe) for name in ("disk", "background"))
    clock, network = RealClock(loop), RealNetwork(loop)
    runtime = Runtime(
        clock=clock,
        random=random.SystemRandom(),
        disk=RealDisk(),
        network=network,
        executor=executor,
        background=background,
        tasks=RealTasks(loop, fail),
        host=RealHost(loop),
    )
    # What is loaded by now lives as long as the process: the collector need not look at it again.
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    running = loop.create_task(main(runtime), name="main")
    try:
        done, _ = await asyncio.wait((running, failure), return_when=asyncio.FIRST_COMPLETED)
        return failure.result() if failure in done else running.result()
    finally:
        running.cancel()
        # It closes things in an order that others rely on (a leader ends its leadership before it stops listening).
        await asyncio.wait((running,), timeout=ENDING_SECONDS)
        if running.done() and not running.cancelled():
            running.exception()
        clock.end()
        failure.cancel()
        await network.end()
        executor.stop()
        background.stop()


def _address(name: Any) -> Address:
    """The first two fields of a socket's name (IPv6 has four)."""
    return (str(name[0]), int(name[1])) if name else ("", 0)
