"""The packet switch: forwards IPv4 packets between TUN devices, each link by its rule. One process, one thread, one
epoll.

A link without a rule costs one read(2) and one write(2) per packet. Rules change between two packets, all links of a
change at once; the answer to a change is sent after that, so what a node sends after the answer meets the new rules.
Packets that wait on a link (delay) when it is cut are lost with it. The switch knows node names and descriptors; it
makes no namespace and no device.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import select
import socket
import time
from random import Random

import msgspec

from jepsen_like.net.addresses import NETWORK, host_number
from jepsen_like.net.rules import LinkCounters, LinkRule
from jepsen_like.net.shaping import Shaper

BATCH = 64
"""Packets read from one device before the others get their turn."""
WAITING_MAX = 200_000
"""Packets that may wait on delayed links in all; more are dropped and counted as overflowed."""


class RuledLink(msgspec.Struct, frozen=True):
    """A link's rule or its counters on the wire, between supervisor and switch."""

    source: str
    target: str
    rule: LinkRule
    counters: LinkCounters | None = None


class SetRules(msgspec.Struct, frozen=True, tag="set-rules", tag_field="do"):
    """From now on exactly these links have rules."""

    links: tuple[RuledLink, ...]


class Count(msgspec.Struct, frozen=True, tag="count", tag_field="do"):
    """Ask for the counters of all links that carried a packet or have a rule."""


class Answer(msgspec.Struct, frozen=True):
    """`at_ns`: when the request was in force, by CLOCK_MONOTONIC. `strays`: packets to no node's address."""

    at_ns: int
    strays: int = 0
    links: tuple[RuledLink, ...] = ()


class Port(msgspec.Struct, frozen=True):
    """A node's device."""

    node: str
    descriptor: int


class _Route:
    """A directed link: where its packets go, under what rule, and what became of them."""

    __slots__ = ("counters", "descriptor", "generation", "random", "rule", "shaper", "source", "target")

    def __init__(self, source: str, target: str, descriptor: int, seed: int) -> None:
        self.source, self.target, self.descriptor = source, target, descriptor
        self.counters = LinkCounters()
        self.random = Random(f"{seed}/{source}/{target}")
        self.rule = LinkRule()
        self.shaper: Shaper | None = None
        self.generation = 0
        """Grows when the link is cut: waiting packets of an older generation are lost."""

    def follow(self, rule: LinkRule) -> None:
        """From now on this rule; one that has not changed keeps its state (the line's queue, the last arrival)."""
        if rule == self.rule:
            return
        if rule.cut:
            self.generation += 1
        self.rule = rule
        self.shaper = None if rule == LinkRule() else Shaper(rule, self.random, self.counters)


class Switch:
    """Forwards between `ports`; obeys JSON lines (SetRules, Count) on `control` and ends when that closes."""

    def __init__(
        self, ports: tuple[Port, ...], control: socket.socket, seed: int, mtu: int, link_header: bytes = b""
    ) -> None:
        self._read_bytes = mtu + 64
        self._link_header = link_header
        """What stands before each IP packet that a device yields or takes: nothing for TUN."""
        self._control = control
        self._pending = bytearray()
        self._decoder = msgspec.json.Decoder(SetRules | Count)
        self._strays = 0
        self._waiting: list[tuple[int, int, int, _Route, bytes]] = []
        self._sequence = 0
        self._routes: dict[tuple[str, str], _Route] = {}
        self._tables: dict[int, list[_Route | None]] = {}
        for source in ports:
            table: list[_Route | None] = [None] * 256
            for target in ports:
                if target is not source:
                    route = _Route(source.node, target.node, target.descriptor, seed)
                    table[host_number(target.node)] = self._routes[source.node, target.node] = route
            self._tables[source.descriptor] = table
        self._epoll = select.epoll()
        for descriptor in (*self._tables, control.fileno()):
            self._epoll.register(descriptor, select.EPOLLIN)

    def run(self) -> None:
        """Forward until the control connection closes."""
        control = self._control.fileno()
        while True:
            for descriptor, _ in self._poll():
                if descriptor != control:
                    self._drain(descriptor)
                elif not self._obey():
                    return
            if self._waiting:
                self._release()

    def _poll(self) -> list[tuple[int, int]]:
        """Readable descriptors; waits no longer than until the next waiting packet is due.

        epoll_wait(2) counts milliseconds and would make every delay a millisecond too long; select(2) counts
        microseconds.
        """
        if not self._waiting:
            return self._epoll.poll()
        timeout_s = (self._waiting[0][0] - time.monotonic_ns()) / 1e9
        if timeout_s > 0:
            select.select([self._epoll], [], [], timeout_s)
        return self._epoll.poll(0)

    def _drain(self, descriptor: int) -> None:
        """Forward up to BATCH packets of one device."""
        table, size, read, write = self._tables[descriptor], self._read_bytes, os.read, os.write
        start = len(self._link_header)
        network, last_octet = slice(start + 16, start + 19), start + 19
        for _ in range(BATCH):
            try:
                packet = read(descriptor, size)
            except BlockingIOError:
                return
            except OSError:  # the device is gone
                packet = b""
            if not packet:
                self._epoll.unregister(descriptor)
                return
            if packet[start] >> 4 != 4:  # IPv6: the kernel's own neighbour discovery
                continue
            route = table[packet[last_octet]] if packet[network] == NETWORK else None
            if route is None:
                self._strays += 1
                continue
            counters = route.counters
            counters.packets += 1
            counters.bytes += len(packet)
            if route.shaper is not None:
                self._shape(route, route.shaper, packet[start:])
                continue
            try:
                write(route.descriptor, packet)
                counters.delivered += 1
            except OSError:  # the device refuses: its namespace is going away, or it has no memory
                counters.lost += 1

    def _shape(self, route: _Route, shaper: Shaper, packet: bytes) -> None:
        now_ns = time.monotonic_ns()
        for at_ns, copy in shaper.plan(packet, now_ns):
            if at_ns <= now_ns:
                self._deliver(route, copy)
            elif len(self._waiting) >= WAITING_MAX:
                route.counters.overflowed += 1
            else:
                self._sequence += 1
                heapq.heappush(self._waiting, (at_ns, self._sequence, route.generation, route, copy))

    def _release(self) -> None:
        """Deliver the waiting packets that are due."""
        now_ns = time.monotonic_ns()
        while self._waiting and self._waiting[0][0] <= now_ns:
            _, _, generation, route, packet = heapq.heappop(self._waiting)
            if generation == route.generation:
                self._deliver(route, packet)
            else:
                route.counters.cut += 1

    def _deliver(self, route: _Route, packet: bytes) -> None:
        try:
            os.write(route.descriptor, self._link_header + packet)
            route.counters.delivered += 1
        except OSError:
            route.counters.lost += 1

    def _obey(self) -> bool:
        """Carry out the requests that have arrived; False when the connection is closed."""
        with contextlib.suppress(BlockingIOError):
            data = self._control.recv(1 << 18)
            if not data:
                return False
            self._pending += data
        *lines, rest = self._pending.split(b"\n")
        self._pending = bytearray(rest)
        for line in lines:
            self._control.sendall(msgspec.json.encode(self._answer(self._decoder.decode(line))) + b"\n")
        return True

    def _answer(self, request: SetRules | Count) -> Answer:
        match request:
            case SetRules(links):
                rules = {(link.source, link.target): link.rule for link in links}
                for pair, route in self._routes.items():
                    route.follow(rules.get(pair, LinkRule()))
                return Answer(at_ns=time.monotonic_ns())
            case Count():
                used = tuple(
                    RuledLink(route.source, route.target, route.rule, route.counters)
                    for route in self._routes.values()
                    if route.counters.packets or route.shaper is not None
                )
                return Answer(at_ns=time.monotonic_ns(), strays=self._strays, links=used)
