"""A process of a load generator: `python -m jepsen_like.bench.load`, a LoadSpec as JSON on stdin, a LoadReport on
stdout.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import time
from collections.abc import Callable
from functools import partial

import msgspec
import uvloop

from jepsen_like.bench.wire import GrpcLoad, HttpLoad, Load, Tally, grpc_headers, grpc_message, http_request

PUT, READ = "put", "read"
ETCD_PUT, ETCD_RANGE = "/etcdserverpb.KV/Put", "/etcdserverpb.KV/Range"
DRAIN_S = 5.0


class LoadSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What one process does. Times are CLOCK_MONOTONIC, which all processes of a machine share."""

    system: str
    """comitia (HTTP/1.1) or etcd (gRPC)."""
    operation: str
    """put, or read (linearizable)."""
    port: int
    connections: int
    clients: int
    """Requests outstanding, spread over the connections; more than one a connection for gRPC only."""
    keys: int
    value_bytes: int
    since_ns: int
    until_ns: int


class LoadReport(msgspec.Struct, frozen=True, kw_only=True):
    """What it did. `cpu_share`: of one core, while it ran."""

    latencies_us: list[int]
    errors: int
    last_error: str
    cpu_share: float


def share(total: int, parts: int, number: int) -> int:
    """What the part `number` of `parts` gets of `total`: as even as it goes."""
    return total // parts + (number < total % parts)


def requests_of(spec: LoadSpec, writer: str) -> list[bytes]:
    """One request for each key. `writer` makes its values differ from others': to set what is there is less work."""
    names = [f"bench/{number:06d}" for number in range(spec.keys)]
    value = writer.encode().ljust(spec.value_bytes, b"v")[: spec.value_bytes]
    if spec.system == "etcd":
        if spec.operation == PUT:
            return [grpc_message((1, name.encode()), (2, value)) for name in names]
        return [grpc_message((1, name.encode())) for name in names]
    if spec.operation == PUT:
        return [http_request("PUT", f"/v1/kv/{name}", value) for name in names]
    return [http_request("GET", f"/v1/kv/{name}?consistent") for name in names]


def connection_factory(spec: LoadSpec, tally: Tally) -> Callable[[int], Load]:
    """Makes the n-th connection."""
    headers = grpc_headers(ETCD_PUT if spec.operation == PUT else ETCD_RANGE)

    def make(number: int) -> Load:
        requests, first = requests_of(spec, f"{os.getpid()}/{number} "), number * 37 % spec.keys
        if spec.system == "etcd":
            return GrpcLoad(requests, first, tally, headers, share(spec.clients, spec.connections, number))
        return HttpLoad(requests, first, tally)

    return make


async def generate(spec: LoadSpec) -> Tally:
    """Load until the time is up and the last answers are in."""
    tally = Tally(spec.since_ns, spec.until_ns)
    make = connection_factory(spec, tally)
    loop = asyncio.get_running_loop()
    loads: list[Load] = []
    for number in range(spec.connections):
        _, load = await loop.create_connection(partial(make, number), "127.0.0.1", spec.port)
        loads.append(load)
    left_s = (spec.until_ns - time.monotonic_ns()) / 1e9
    await asyncio.wait([load.finished for load in loads], timeout=left_s + DRAIN_S)
    for load in loads:
        load.finish()
    return tally


def main() -> None:
    """Read the spec, generate, report."""
    spec = msgspec.json.decode(sys.stdin.buffer.read(), type=LoadSpec)
    started = time.monotonic()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        tally = runner.run(generate(spec))
    used = resource.getrusage(resource.RUSAGE_SELF)
    share = (used.ru_utime + used.ru_stime) / (time.monotonic() - started)
    report = LoadReport(
        latencies_us=tally.latencies_us, errors=tally.errors, last_error=tally.last_error, cpu_share=round(share, 3)
    )
    with open(
        sys.stdout.fileno(), "wb", closefd=False
    ) as out:  # buffered even under PYTHONUNBUFFERED: writes all of it
        out.write(msgspec.json.encode(report))


if __name__ == "__main__":
    main()
