"""A big catalog: what an instance costs, how fast its health is answered, and whom a registration wakes.

Instances are registered one by one through the leader, each with a check. Some services are *large*, the others share
what is left. Then every service is watched by one blocking query on a connection of its own, and registrations change
one service after another: its watcher must answer, nobody else may.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import cast

import msgspec

from jepsen_like.bench.kv import quantile
from jepsen_like.bench.servers import Servers
from jepsen_like.bench.wire import http_request
from model_checks.verdicts import SetupFailed, Verdict

LARGE_INSTANCES = 100
"""Of a large service."""
LARGE_SERVICES_MAX = 100
REGISTERING_CLIENTS = 64
CONNECTING_AT_ONCE = 200
HEALTH_QUERIES = 2_000
ANSWER_DEADLINE_S = 10.0
OTHERS_MAY_WAKE_S = 0.05
"""How long after the right answer a wrong one is waited for."""
PROGRESS_S = 5.0


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """How big. Every service has an instance: `instances` >= `services`."""

    nodes: int = 5_000
    instances: int = 100_000
    services: int = 10_000
    wakes: int = 200
    """Registrations while all services are watched."""

    @property
    def large(self) -> int:
        """How many services have LARGE_INSTANCES instances."""
        spare = (self.instances - self.services) // (LARGE_INSTANCES - 1)
        return max(1, min(LARGE_SERVICES_MAX, self.services // 2, spare))

    def service_of(self, instance: int) -> str:
        """The name of an instance's service."""
        if instance < self.large * LARGE_INSTANCES:
            return f"large-{instance % self.large}"
        return f"small-{(instance - self.large * LARGE_INSTANCES) % (self.services - self.large)}"

    def names(self) -> list[str]:
        """The names of all services, the large ones first."""
        return [f"large-{n}" for n in range(self.large)] + [f"small-{n}" for n in range(self.services - self.large)]


class CatalogFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured. Times in ms unless the name says otherwise; bytes are of resident memory."""

    instances: int
    nodes: int
    services: int
    registering_s: float
    registered_per_second: float
    bytes_per_instance: list[int]
    """At each server, leader first: instance, check and its share of a node."""
    health_instances: int
    """In each health answer."""
    health_p50_ms: float
    health_p99_ms: float
    watchers: int
    bytes_per_watcher: int
    """At the leader: connection, request and wait."""
    wakes: int
    wake_p50_ms: float
    wake_p99_ms: float
    """From sending the registration to the watcher's answer."""
    woken_without_cause: int
    missed: int
    """Watchers that answered without the change, or not in ANSWER_DEADLINE_S, which ends the measurement."""

    @property
    def verdict(self) -> Verdict:
        """VALID if each registration woke its own watcher and nobody else."""
        if self.woken_without_cause or self.missed:
            return Verdict.INVALID
        return Verdict.VALID if self.wakes else Verdict.UNKNOWN


class Answer(msgspec.Struct, frozen=True):
    """An HTTP answer: status, X-Consul-Index (0: none) and body."""

    status: int
    index: int
    body: bytes


class Connection(asyncio.Protocol):
    """An HTTP/1.1 connection with one request at a time; answers must carry a content-length."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.answered_ns = 0
        """When the last answer was complete, of CLOCK_MONOTONIC."""
        self.woke: Callable[[Connection], None] | None = None
        """Hears of each answer as it arrives."""
        self._buffer = b""
        self._answer: asyncio.Future[Answer] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def ask(self, request: bytes) -> asyncio.Future[Answer]:
        """Send a request; the answer to come."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        length = _number(head, b"content-length:")
        if len(self._buffer) < end + 4 + length:
            return
        answer = Answer(int(self._buffer[9:12]), _number(head, b"x-consul-index:"), self._buffer[end + 4 :])
        self._buffer = b""
        self.answered_ns = time.monotonic_ns()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)
        if self.woke is not None:
            self.woke(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(SetupFailed(f"a connection was lost: {exc or 'closed by the server'}"))

    def close(self) -> None:
        """Done."""
        self._answer = None
        self._transport.close()


class Watcher:
    """A blocking query on one service, asked again after each answer. Made by `watch`."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.answer: asyncio.Future[Answer]
        """Of the query that waits."""

    async def block(self) -> None:
        """Ask for the service's index, and wait for a later one."""
        path = f"/v1/health/service/{self.connection.name}"
        now = await self.connection.ask(http_request("GET", path))
        self.answer = self.connection.ask(http_request("GET", f"{path}?index={now.index}&wait=10m"))


def _number(head: bytes, name: bytes) -> int:
    place = head.find(name)
    return int(head[place + len(name) :].split(b"\r\n", 1)[0]) if place >= 0 else 0


async def connect(port: int, name: str = "") -> Connection:
    """A new connection to a server. Raises SetupFailed."""
    loop = asyncio.get_running_loop()
    try:
        _, connection = await loop.create_connection(lambda: Connection(name), "127.0.0.1", port)
    except OSError as error:
        raise SetupFailed(f"cannot connect to the server: {error}: raise the limit of open files?") from error
    return connection


def registration(size: Size, instance: int, output: str = "") -> bytes:
    """The request that registers an instance with its check, and its node if it is the first there."""
    node, service = f"node-{instance % size.nodes}", size.service_of(instance)
    document = {
        "Node": node,
        "Address": f"10.{instance % size.nodes >> 8}.{instance % size.nodes & 255}.1",
        "SkipNodeUpdate": instance >= size.nodes,
        "Service": {
            "ID": f"{service}-{instance}",
            "Service": service,
            "Tags": ["v1", f"rack-{instance % 40}"],
            "Port": 8000 + instance % 1000,
            "Meta": {"version": "1.2.3"},
        },
        "Check": {
            "CheckID": f"service:{service}-{instance}",
            "Name": f"Service '{service}' check",
            "ServiceID": f"{service}-{instance}",
            "Status": "passing",
            "Output": output or "HTTP GET http://10.0.0.1/health: 200 OK",
        },
    }
    return http_request("PUT", "/v1/catalog/register", json.dumps(document).encode())


async def register_all(size: Size, port: int, progress: Callable[[str], None]) -> float:
    """Register every instance; seconds."""
    instances = iter(range(size.instances))
    done = 0

    async def client() -> None:
        nonlocal done
        connection = await connect(port)
        for instance in instances:
            answer = await connection.ask(registration(size, instance))
            if answer.status != 200:
                raise SetupFailed(f"a registration was refused with {answer.status}: {answer.body.decode()[:200]}")
            done += 1
        connection.close()

    async def tell() -> None:
        while True:
            await asyncio.sleep(PROGRESS_S)
            progress(f"{done:,} of {size.instances:,} instances are registered")

    started = time.monotonic()
    telling = asyncio.create_task(tell())
    try:
        # The nodes first: whoever skips the node's update needs it.
        await asyncio.gather(*(client() for _ in range(REGISTERING_CLIENTS)))
    finally:
        telling.cancel()
    return time.monotonic() - started


async def _health(size: Size, port: int, queries: int, chosen: random.Random) -> list[int]:
    """Latencies in us of health queries for large services, one after another, in order of size."""
    connection = await connect(port)
    latencies = []
    for _ in range(queries):
        request = http_request("GET", f"/v1/health/service/large-{chosen.randrange(size.large)}?passing")
        sent_ns = time.monotonic_ns()
        answer = await connection.ask(request)
        latencies.append((connection.answered_ns - sent_ns) // 1000)
        if answer.status != 200 or answer.body.count(b'"Node":{"ID"') != LARGE_INSTANCES:
            raise SetupFailed(f"a health query was answered with {answer.status}: {answer.body.decode()[:200]}")
    connection.close()
    return sorted(latencies)


@contextlib.asynccontextmanager
async def _watching(size: Size, port: int, progress: Callable[[str], None]) -> AsyncIterator[dict[str, Watcher]]:
    """Every service by its name, watched."""
    names = size.names()
    watchers: dict[str, Watcher] = {}

    async def watch(name: str) -> None:
        watchers[name] = Watcher(await connect(port, name))
        await watchers[name].block()

    try:
        for first in range(0, len(names), CONNECTING_AT_ONCE):
            await asyncio.gather(*map(watch, names[first : first + CONNECTING_AT_ONCE]))
        progress(f"{len(watchers):,} services are watched")
        yield watchers
    finally:
        for watcher in watchers.values():
            watcher.connection.close()


class _Wakes(msgspec.Struct):
    latencies_us: list[int] = []
    woken_without_cause: int = 0
    missed: int = 0


async def _wake(size: Size, port: int, watchers: dict[str, Watcher], chosen: random.Random) -> _Wakes:
    """Change one service after another."""
    found, writer = _Wakes(), await connect(port)
    woken: list[str] = []
    for watcher in watchers.values():
        watcher.connection.woke = lambda connection: woken.append(connection.name)
    for number in range(size.wakes):
        instance = chosen.randrange(size.instances)
        watcher = watchers[size.service_of(instance)]
        said = f"output {number}"
        woken.clear()
        sent_ns = time.monotonic_ns()
        written = writer.ask(registration(size, instance, said))
        try:
            async with asyncio.timeout(ANSWER_DEADLINE_S):
                answer = await watcher.answer
        except TimeoutError:  # it goes on waiting: nothing can be asked on its connection any more
            found.missed += 1
            break
        found.latencies_us.append((watcher.connection.answered_ns - sent_ns) // 1000)
        found.missed += said.encode() not in answer.body
        await written
        await asyncio.sleep(OTHERS_MAY_WAKE_S)
        found.woken_without_cause += len(woken) - 1
        await watcher.block()
    writer.close()
    return found


def resident_bytes(servers: Servers, number: int) -> int:
    """Memory of a server's process, as the kernel counts it."""
    status = Path(f"/proc/{servers.processes[number].pid}/status").read_text()
    return int(status.split("VmRSS:", 1)[1].split()[0]) * 1024


async def measure_catalog(servers: Servers, size: Size, seed: int, progress: Callable[[str], None]) -> CatalogFigures:
    """Fill the catalog, ask, watch, change. Raises SetupFailed."""
    chosen = random.Random(seed)
    leader = servers.wait_for_leader()
    port = servers.client_ports[leader]
    order = [leader, *(number for number in servers.numbers if number != leader)]
    empty = [resident_bytes(servers, number) for number in order]
    registering_s = await register_all(size, port, progress)
    full = [resident_bytes(servers, number) for number in order]
    health = await _health(size, port, HEALTH_QUERIES, chosen)
    before = resident_bytes(servers, leader)
    async with _watching(size, port, progress) as watchers:
        watching = resident_bytes(servers, leader) - before
        wakes = await _wake(size, port, watchers, chosen)
    latencies = sorted(wakes.latencies_us)
    return CatalogFigures(
        instances=size.instances,
        nodes=size.nodes,
        services=size.services,
        registering_s=round(registering_s, 1),
        registered_per_second=round(size.instances / registering_s, 1),
        bytes_per_instance=[(after - first) // size.instances for first, after in zip(empty, full, strict=True)],
        health_instances=LARGE_INSTANCES,
        health_p50_ms=quantile(health, 0.5) / 1000,
        health_p99_ms=quantile(health, 0.99) / 1000,
        watchers=len(watchers),
        bytes_per_watcher=watching // len(watchers),
        wakes=size.wakes,
        wake_p50_ms=quantile(latencies, 0.5) / 1000,
        wake_p99_ms=quantile(latencies, 0.99) / 1000,
        woken_without_cause=wakes.woken_without_cause,
        missed=wakes.missed,
    )


def lines(found: CatalogFigures) -> Iterator[str]:
    """The figures as people read them."""
    each = ", ".join(f"{size:,}" for size in found.bytes_per_instance)
    yield (
        f"{found.instances:,} instances of {found.services:,} services on {found.nodes:,} nodes registered in "
        f"{found.registering_s:g} s, {found.registered_per_second:,.0f} a second"
    )
    yield f"memory: {each} bytes an instance (leader first), {found.bytes_per_watcher:,} bytes a blocking query"
    yield (
        f"health of a service of {found.health_instances} instances: "
        f"p50 {found.health_p50_ms:.2f} ms, p99 {found.health_p99_ms:.2f} ms"
    )
    yield (
        f"{found.wakes} registrations while {found.watchers:,} services are watched: the watcher's answer after p50 "
        f"{found.wake_p50_ms:.2f} ms, p99 {found.wake_p99_ms:.2f} ms; {found.missed} missed, "
        f"{found.woken_without_cause} woken without cause"
    )
