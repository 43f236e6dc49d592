"""Replicated puts and linearizable reads a second, with latencies, of Comitia and, in the same run, of etcd.

All clients talk to the leader, values are equally long, both sync every write. The generator runs in processes of its
own and its share of a core is reported: a share near 1 means that the generator was measured, not the server. A
machine is not equally fast all the time: in rounds, each with new clusters, the systems take turns, and medians are
compared.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from jepsen_like.bench.load import PUT, READ, LoadReport, LoadSpec
from jepsen_like.bench.servers import SOURCE_ROOT, Servers
from model_checks.verdicts import SetupFailed

WARM_UP_S = 1.5
KEYS = 1_000
ETCD_CONNECTIONS = 8
"""etcd's clients share connections, as its Go client does; HTTP/1.1 needs one a client."""


class Measured(msgspec.Struct, kw_only=True):
    """One operation on one system."""

    system: str
    operation: str
    clients: int
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
    servers: Servers, operation: str, clients: int, seconds: float, processes: int, value_bytes: int
) -> Measured:
    """Load the leader with `clients` outstanding requests for `seconds`, after a warm-up. Raises SetupFailed."""
    leader = servers.wait_for_leader()
    term = servers.term(leader)
    since_ns = time.monotonic_ns() + int(WARM_UP_S * 1e9)
    shares = [clients // processes + (number < clients % processes) for number in range(processes)]
    started: list[subprocess.Popen[bytes]] = []
    for share in filter(None, shares):
        connections = max(1, min(share, ETCD_CONNECTIONS // processes)) if servers.name == "etcd" else share
        spec = LoadSpec(
            system=servers.name,
            operation=operation,
            port=servers.client_ports[leader],
            connections=connections,
            depth=-(-share // connections),
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


def measure_both(servers: Servers, clients: int, seconds: float, processes: int, value_bytes: int) -> list[Measured]:
    """Puts, then reads of what was put."""
    return [measure(servers, operation, clients, seconds, processes, value_bytes) for operation in (PUT, READ)]


def summary(rounds: Sequence[Measured]) -> Measured:
    """The same operation on the same system, several times: medians of what was measured, sums of what went wrong."""
    if len(rounds) == 1:
        return rounds[0]
    shares = zip(*(each.generator_cpu_shares for each in rounds), strict=True)
    return Measured(
        system=rounds[0].system,
        operation=rounds[0].operation,
        clients=rounds[0].clients,
        per_second=statistics.median(each.per_second for each in rounds),
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
    """One for each system and operation, in the order in which they were first measured."""
    rounds: dict[tuple[str, str], list[Measured]] = {}
    for each in measured:
        rounds.setdefault((each.system, each.operation), []).append(each)
    return [summary(of_one) for of_one in rounds.values()]


def ratios(measured: list[Measured]) -> dict[str, float]:
    """Comitia's rate by etcd's, for each operation that both were measured for."""
    rates: dict[str, dict[str, Any]] = {}
    for each in measured:
        rates.setdefault(each.operation, {})[each.system] = each.per_second
    return {
        operation: round(both["comitia"] / both["etcd"], 3)
        for operation, both in rates.items()
        if both.get("etcd") and "comitia" in both
    }
