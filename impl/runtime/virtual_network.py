"""TCP between the hosts of a virtual world: latency, fragments, silent cuts, resets, and TCP's patience with all of
them.

A cut is silent: what is written waits and is retransmitted with growing pauses, so that after the cut has healed
nothing moves until the next retransmission; after `USER_TIMEOUT_NS` the sender gives up. An attempt to connect over
a cut just takes its time. That is what redial rules exist for.

It must not look into the bytes.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable
from itertools import count
from random import Random
from typing import Protocol

from impl.runtime.interfaces import MILLISECONDS, NANOSECONDS, Address, Receiver, Timer

LATENCY_NS_MAX = 1 * MILLISECONDS
RETRANSMIT_NS_MIN = 200 * MILLISECONDS
RETRANSMIT_NS_MAX = 5 * NANOSECONDS
USER_TIMEOUT_NS = 5 * NANOSECONDS
FIRST_PORT = 30_000


class Scheduler(Protocol):
    """The world, as far as the network needs it."""

    now_ns: int

    def after(self, delay_ns: int, callback: Callable[[], None]) -> Timer:
        """Run a callback of the network itself."""


class Pipe:
    """One direction of a connection: bytes in order, then perhaps the end."""

    def __init__(self, network: VirtualInternet, source: VirtualConnection, target: VirtualConnection) -> None:
        self._network = network
        self._source = source
        self._target = target
        self._queue: deque[bytes | None] = deque()
        """Pieces; None is the end of the stream."""
        self._moving = False
        self._pause_ns = RETRANSMIT_NS_MIN
        self._stuck_since: int | None = None
        self.size = 0

    def put(self, data: bytes | None) -> None:
        """Queue bytes or, with None, the end."""
        self._queue.append(data)
        self.size += len(data or b"")
        if not self._moving:
            self._moving = True
            self._network.world.after(self._network.latency(), self._move)

    def _move(self) -> None:
        network = self._network
        if self._target.ended and self._source.ended:
            self._queue.clear()
        if not self._queue:
            self._moving = False
            return
        if self._target.vanished or network.is_cut(self._source.local[0], self._target.local[0]):
            self._wait()
            return
        self._pause_ns, self._stuck_since = RETRANSMIT_NS_MIN, None
        data = self._queue.popleft()
        if data is not None and len(data) > 1 and network.chance.random() < 0.5:
            place = network.chance.randrange(1, len(data))
            self._queue.appendleft(data[place:])
            data = data[:place]
        self.size -= len(data or b"")
        network.world.after(network.latency(), self._move)
        self._target.arrive(data)

    def _wait(self) -> None:
        now = self._network.world.now_ns
        self._stuck_since = now if self._stuck_since is None else self._stuck_since
        if now - self._stuck_since > USER_TIMEOUT_NS:
            self._moving = False
            self._source.end(TimeoutError(errno.ETIMEDOUT, "Connection timed out"))
            return
        self._network.world.after(self._pause_ns, self._move)
        self._pause_ns = min(2 * self._pause_ns, RETRANSMIT_NS_MAX)


class VirtualConnection:
    """One end of a connection; implements `Connection`."""

    def __init__(
        self, local: Address, remote: Address, receiver: Receiver, run: Callable[[Callable[[], None]], object]
    ) -> None:
        """`run` runs a callback on this end's host, if that is still alive."""
        self.local = local
        self.remote = remote
        self.ended = False
        self.vanished = False
        """Its host lost power: nobody answers for it any more, not even its kernel."""
        self._closing = False
        self._receiver = receiver
        self._run = run
        self.pipe: Pipe

    def open(self) -> None:
        """Tell the receiver that it is connected."""
        self._run(lambda: self._receiver.connection_made(self))

    def write(self, data: bytes) -> None:
        """As `Connection.write`."""
        if data and not self._closing:
            self.pipe.put(bytes(data))

    def buffered(self) -> int:
        """As `Connection.buffered`."""
        return self.pipe.size

    def close(self) -> None:
        """As `Connection.close`."""
        if not self._closing:
            self._closing = True
            self.pipe.put(None)
            self.end(None)

    def abort(self) -> None:
        """As `Connection.abort`."""
        self.close()

    def arrive(self, data: bytes | None) -> None:
        """Bytes, or the other side's end, have come."""
        if self.ended:
            return
        if data is None:
            self.close()
        else:
            self._run(lambda: None if self._closing else self._receiver.data_received(data))

    def end(self, error: Exception | None) -> None:
        """It is over at this end."""
        if not self.ended:
            self.ended = self._closing = True
            self._run(lambda: self._receiver.connection_lost(error))


class VirtualListener:
    """A listening port; implements `Listener`."""

    def __init__(self, network: VirtualInternet, address: Address, accept: Callable[[], Receiver]) -> None:
        self.address = address
        self.accept = accept
        self._network = network

    def close(self) -> None:
        """As `Listener.close`."""
        self._network.listeners.pop(self.address, None)


class VirtualInternet:
    """All hosts' sockets, and the links between hosts."""

    def __init__(self, world: Scheduler, chance: Random) -> None:
        self.world = world
        self.chance = chance
        self.listeners: dict[Address, VirtualListener] = {}
        self.datagrams: dict[Address, Callable[[bytes, Address], object]] = {}
        self.connections: list[VirtualConnection] = []
        self.runs: dict[Address, Callable[[Callable[[], None]], object]] = {}
        self._cuts: set[tuple[str, str]] = set()
        self.ports = count(FIRST_PORT)

    def cut(self, source: str, target: str) -> None:
        """Nothing from `source` reaches `target` any more."""
        self._cuts.add((source, target))

    def heal(self) -> None:
        """Everything may pass."""
        self._cuts.clear()

    def is_cut(self, source: str, target: str) -> bool:
        """Whether what `source` sends is lost. What is acknowledged by nobody is lost too, so either direction
        counts."""
        return (source, target) in self._cuts or (target, source) in self._cuts

    def drop_host(self, host: str, *, silently: bool = False) -> None:
        """The processes of a host are gone: its ports and, unless the power failed, its connections are closed."""
        for address in [address for address in self.listeners if address[0] == host]:
            del self.listeners[address]
        for address in [address for address in self.datagrams if address[0] == host]:
            del self.datagrams[address]
        for connection in [end for end in self.connections if end.local[0] == host]:
            connection.ended = True
            connection.vanished = silently
            if not silently:
                connection.pipe.put(None)
        self.connections = [end for end in self.connections if not end.ended]

    def latency(self) -> int:
        """Time that something takes from one host to another."""
        return self.chance.randrange(LATENCY_NS_MAX // 10, LATENCY_NS_MAX)


class VirtualDatagrams:
    """A UDP socket; implements `Datagrams`. What crosses a cut is lost."""

    def __init__(self, internet: VirtualInternet, address: Address) -> None:
        """Not for callers: use `VirtualNetwork.listen_datagrams`."""
        self._internet = internet
        self.address = address

    def send(self, data: bytes, to: Address) -> None:
        """As `Datagrams.send`."""
        self._internet.world.after(self._internet.latency(), lambda: self._arrive(data, to))

    def _arrive(self, data: bytes, to: Address) -> None:
        receive = self._internet.datagrams.get(to)
        if receive is not None and not self._internet.is_cut(self.address[0], to[0]):
            receive(data, self.address)

    def close(self) -> None:
        """As `Datagrams.close`."""
        self._internet.datagrams.pop(self.address, None)


class VirtualNetwork:
    """The sockets of one host; implements `Network`."""

    def __init__(self, internet: VirtualInternet, host: str, run: Callable[[Callable[[], None]], object]) -> None:
        self._internet = internet
        self._host = host
        self._run = run

    def dial(self, address: Address, receiver: Receiver, timeout_ns: int, failed: Callable[[OSError], None]) -> Timer:
        """As `Network.dial`."""
        attempt = _Attempt(self._run, failed)
        attempt.timer = self._internet.world.after(
            timeout_ns, lambda: attempt.fail(TimeoutError(errno.ETIMEDOUT, "Connection timed out"))
        )
        self._internet.world.after(self._internet.latency(), lambda: self._arrive(address, receiver, attempt))
        return attempt

    async def listen(self, address: Address, accept: Callable[[], Receiver]) -> VirtualListener:
        """As `Network.listen`. The host of `address` is taken for this one."""
        port = address[1] or self._port()
        where = (self._host, port)
        if where in self._internet.listeners:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        listener = VirtualListener(self._internet, where, accept)
        self._internet.listeners[where] = listener
        self._internet.runs[where] = self._run
        return listener

    async def listen_datagrams(self, address: Address, received: Callable[[bytes, Address], None]) -> VirtualDatagrams:
        """As `Network.listen_datagrams`. The host of `address` is taken for this one."""
        where = (self._host, address[1] or self._port())
        if where in self._internet.datagrams:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        self._internet.datagrams[where] = lambda data, sender: self._run(lambda: received(data, sender))
        return VirtualDatagrams(self._internet, where)

    def _arrive(self, address: Address, receiver: Receiver, attempt: _Attempt) -> None:
        """The attempt reaches the other host, if it can. One that is lost is not repeated before its time is up."""
        internet = self._internet
        if attempt.over or internet.is_cut(self._host, address[0]):
            return
        listener = internet.listeners.get(address)
        if listener is None:
            attempt.fail(ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"))
            return
        attempt.cancel()
        mine = (self._host, self._port())
        near = VirtualConnection(mine, address, receiver, self._run)
        far = VirtualConnection(address, mine, listener.accept(), internet.runs[address])
        near.pipe, far.pipe = Pipe(internet, near, far), Pipe(internet, far, near)
        internet.connections = [end for end in internet.connections if not end.ended] + [near, far]
        far.open()
        near.open()

    def _port(self) -> int:
        return next(self._internet.ports)


class _Attempt:
    """An attempt to connect; implements `Timer`."""

    def __init__(self, run: Callable[[Callable[[], None]], object], failed: Callable[[OSError], None]) -> None:
        self.over = False
        self.timer: Timer | None = None
        self._run = run
        self._failed = failed

    def cancel(self) -> None:
        self.over = True
        if self.timer is not None:
            self.timer.cancel()

    def fail(self, error: OSError) -> None:
        """Told once, and not after `cancel`."""
        if not self.over:
            self.cancel()
            self._run(lambda: self._failed(error))
