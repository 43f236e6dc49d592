"""Replicated puts and linearizable reads a second, with latencies, of Comitia and, in the same run, of etcd.

All clients talk to the leader, values are equally long, both sync every write. A client of Comitia has a connection of
its own, as HTTP/1.1 needs it. etcd is measured twice: with as many connections, which is what as many machines are to
it, and with few that its clients share, as those of one process do; then the frames of many calls travel together, and
to send and to receive is most of what a call costs.

The generator runs in processes of its own and its share of a core is reported: a share near 1 means that the generator
was measured, not the server. A machine is not equally fast all the time: in rounds, each with new clusters, the systems
take turns, and medians are compared.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

import msgspec

from jepsen_like.bench.load import PUT, READ, LoadReport, LoadSpec, share
from jepsen_like.bench.servers import SOURCE_ROOT, Servers
from model_checks.verdicts import SetupFailed

WARM_UP_S = 1.5
KEYS = 1_000
SHARED_CONNECTIONS = 8
"""Of all clients of etcd, where they share them."""


class Measured(msgspec.Struct, kw_only=True):
    """One operation on one system."""

    system: str
    operation: str
    clients: int
    connections: int
    """Fewer than clients: these are shared."""
    per_second: float
    p50_ms: float
    p99_ms: float
    errors: int
    elections: int
    """How many terms went by meanwhile: 0, or leaders were lost under load."""
    generator_cpu_shares: list[float]
    """Of one core, each process."""
    server_cpu_share: float
    """Of one core, all servers together."""
    last_error: str = ""
    rounds: int = 1
    slowest_per_second: float = 0.0
    """Of several rounds; 0: there was one."""
    fastest_per_second: float = 0.0


def quantile(ordered: list[int], part: float) -> float:
    """The quantile of an ordered list, in the same unit; 0 for an empty one."""
    return float(ordered[min(len(ordered) - 1, int(len(ordered) * part))]) if ordered else 0.0


def start_process(spec: LoadSpec) -> subprocess.Popen[bytes]:
    """A generator process that has its orders."""
    process = subprocess.Popen(
        [sys.executable, "-m", "jepsen_like.bench.load"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=SOURCE_ROOT,
    )
    assert process.stdin is not None
    process.stdin.write(msgspec.json.encode(spec))
    process.stdin.close()
    return process


def measure(
    servers: Servers,
    operation: str,
    clients: int,
    seconds: float,
    processes: int,
    value_bytes: int,
    connections: int | None = None,
) -> Measured:
    """Load the leader with `clients` outstanding requests for `seconds`, after a warm-up. Raises SetupFailed.

    `connections`, which only etcd's clients can share; None: one a client.
    """
    leader = servers.wait_for_leader()
    term = servers.term(leader)
    since_ns = time.monotonic_ns() + int(WARM_UP_S * 1e9)
    connections = min(connections or clients, clients)
    started: list[subprocess.Popen[bytes]] = []
    for number in range(min(processes, connections)):
        spec = LoadSpec(
            system=servers.name,
            operation=operation,
            port=servers.client_ports[leader],
            connections=share(connections, min(processes, connections), number),
            clients=share(clients, min(processes, connections), number),
            keys=KEYS,
            value_bytes=value_bytes,
            since_ns=since_ns,
            until_ns=since_ns + int(seconds * 1e9),
        )
        started.append(start_process(spec))
    time.sleep(max(0.0, (since_ns - time.monotonic_ns()) / 1e9))
    cpu_before = servers.cpu_seconds()
    time.sleep(seconds)
    cpu_used = servers.cpu_seconds() - cpu_before
    reports = [_report(process, seconds) for process in started]
    latencies = sorted(latency for report in reports for latency in report.latencies_us)
    return Measured(
        system=servers.name,
        operation=operation,
        clients=clients,
        connections=connections,
        per_second=round(len(latencies) / seconds, 1),
        p50_ms=quantile(latencies, 0.5) / 1000,
        p99_ms=quantile(latencies, 0.99) / 1000,
        elections=servers.term(leader) - term,
        errors=sum(report.errors for report in reports),
        generator_cpu_shares=[report.cpu_share for report in reports],
        server_cpu_share=round(cpu_used / seconds, 3),
        last_error=next((report.last_error for report in reports if report.last_error), ""),
    )


def _report(process: subprocess.Popen[bytes], seconds: float) -> LoadReport:
    assert process.stdout is not None
    try:
        output = process.stdout.read()
        process.wait(seconds + 20)
        return msgspec.json.decode(output, type=LoadReport)
    except msgspec.DecodeError as error:
        raise SetupFailed(f"a load generator ended without a report (status {process.returncode}): {error}") from error
    finally:
        process.stdout.close()
        if process.poll() is None:
            process.kill()
            process.wait()


def measure_both(
    servers: Servers, clients: int, seconds: float, processes: int, value_bytes: int, connections: int | None = None
) -> list[Measured]:
    """Puts, then reads of what was put."""
    return [
        measure(servers, operation, clients, seconds, processes, value_bytes, connections) for operation in (PUT, READ)
    ]


def summary(rounds: Sequence[Measured]) -> Measured:
    """One operation on one system in one way, several times: medians of what was measured, sums of what went wrong."""
    if len(rounds) == 1:
        return rounds[0]
    shares = zip(*(each.generator_cpu_shares for each in rounds), strict=True)
    return Measured(
        system=rounds[0].system,
        operation=rounds[0].operation,
        clients=rounds[0].clients,
        connections=rounds[0].connections,
        per_second=statistics.median(each.per_second for each in rounds),
        rounds=len(rounds),
        slowest_per_second=min(each.per_second for each in rounds),
        fastest_per_second=max(each.per_second for each in rounds),
        p50_ms=statistics.median(each.p50_ms for each in rounds),
        p99_ms=statistics.median(each.p99_ms for each in rounds),
        errors=sum(each.errors for each in rounds),
        elections=sum(each.elections for each in rounds),
        generator_cpu_shares=[statistics.median(of_process) for of_process in shares],
        server_cpu_share=statistics.median(each.server_cpu_share for each in rounds),
        last_error=next((each.last_error for each in rounds if each.last_error), ""),
    )


def summaries(measured: Sequence[Measured]) -> list[Measured]:
    """One for each system, number of connections and operation, in the order in which they were first measured."""
    rounds: dict[tuple[str, int, str], list[Measured]] = {}
    for each in measured:
        rounds.setdefault((each.system, each.connections, each.operation), []).append(each)
    return [summary(of_one) for of_one in rounds.values()]


class Ratio(msgspec.Struct, frozen=True):
    """How many times etcd's rate Comitia's is."""

    operation: str
    etcd_connections: int
    etcd_shares: bool
    """Whether its clients shared them; else both systems had as many."""
    times: float


def ratios(measured: Sequence[Measured]) -> list[Ratio]:
    """One for each rate of etcd of which Comitia's was measured, too."""
    ours = {each.operation: each.per_second for each in measured if each.system == "comitia"}
    return [
        Ratio(each.operation, each.connections, each.connections < each.clients, round(rate / each.per_second, 3))
        for each in measured
        if each.system == "etcd" and each.per_second and (rate := ours.get(each.operation)) is not None
    ]
