"""`comitia bench`: figures to print. `steady` and `catchup` judge whether there was an election, `catalog` whom a
registration woke, `restore` whether what was restored is what was saved.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import click
import msgspec

from jepsen_like.bench.catalog import LARGE_INSTANCES, CatalogFigures, Size, measure_catalog
from jepsen_like.bench.catalog import lines as catalog_lines
from jepsen_like.bench.catchup import measure_catch_up
from jepsen_like.bench.conditions import interpreter, sync_ms
from jepsen_like.bench.failover import measure_failover
from jepsen_like.bench.heal import measure_heal
from jepsen_like.bench.kv import SHARED_CONNECTIONS, Measured, measure, measure_both, ratios, summaries
from jepsen_like.bench.load import PUT
from jepsen_like.bench.power_off import measure_power_off
from jepsen_like.bench.rates import print_rates, rate_table, wide_console
from jepsen_like.bench.restore import RestoreFigures, measure_restore
from jepsen_like.bench.restore import lines as restore_lines
from jepsen_like.bench.servers import ComitiaServers, EtcdServers, Servers, running
from model_checks.verdicts import EXIT_INTERNAL, SetupFailed, Verdict


@click.group("bench", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Measure: throughput and latency, a big catalog, fail-over, recovery after a cut, catching up.

    Every write is synced.
    """


@command.command("kv")
@click.option("--servers", type=click.IntRange(1, 9), default=3, show_default=True)
@click.option("--clients", type=click.IntRange(min=1), default=64, show_default=True, help="Outstanding requests.")
@click.option("--seconds", type=click.FloatRange(min=0.5), default=10.0, show_default=True, help="A measurement.")
@click.option("--value-bytes", type=click.IntRange(0, 500_000), default=256, show_default=True)
@click.option("--processes", type=click.IntRange(min=1), default=2, show_default=True, help="Of the load generator.")
@click.option("--against", type=click.Choice(["etcd"]), help="Measure this, too, in the same run.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="Of which medians are taken.")
@click.option("--directory", type=click.Path(exists=True, file_okay=False, path_type=Path), help="For the data.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of the table.")
def kv_command(
    servers: int,
    clients: int,
    seconds: float,
    value_bytes: int,
    processes: int,
    against: str | None,
    rounds: int,
    directory: Path | None,
    as_json: bool,
) -> int:
    """Replicated puts and linearizable reads a second.

    Comitia is loaded over HTTP/1.1, with a connection a client; etcd by the same generator over gRPC, with a connection
    a client, too, and then with 8 that the clients share. A generator process near 100% of a core is the bottleneck:
    give --processes more.
    """
    each_round: list[Measured] = []
    try:
        with tempfile.TemporaryDirectory(prefix="comitia-bench-", dir=directory) as name:
            floor_ms = sync_ms(Path(name))
            for number in range(rounds):
                ways: list[tuple[type[ComitiaServers | EtcdServers], int]] = [(ComitiaServers, clients)]
                if against:
                    ways += [(EtcdServers, clients), (EtcdServers, min(SHARED_CONNECTIONS, clients))]
                for kind, connections in dict.fromkeys(ways):
                    click.echo(f"round {number + 1} of {rounds}: {kind.name}, {connections} connections", err=True)
                    data = Path(name) / f"{kind.name}-{number}"
                    data.mkdir()
                    with running(kind(servers, data)) as started:
                        each_round += measure_both(started, clients, seconds, processes, value_bytes, connections)
                    shutil.rmtree(data)
    except SetupFailed as error:
        click.echo(f"set-up failed: {error}", err=True)
        return EXIT_INTERNAL
    measured = summaries(each_round)
    if as_json:
        report = {
            "fdatasync_ms": floor_ms,
            "interpreter": interpreter(),
            "rounds": rounds,
            "measured": msgspec.to_builtins(measured),
            "ratios_to_etcd": msgspec.to_builtins(ratios(measured)),
        }
        click.echo(json.dumps(report))
        return 0
    console = wide_console()
    console.print(
        f"{servers} servers, values of {value_bytes} B, fdatasync of 4 KiB here: {floor_ms} ms\n{interpreter()}",
        highlight=False,
    )
    print_rates(console, measured)
    return 0


def _say(line: str) -> None:
    """How far it is: stdout is for figures."""
    print(line, file=sys.stderr, flush=True)


def _size(nodes: int, instances: int, services: int, wakes: int = 0) -> Size:
    """Raises UsageError: too few instances."""
    if not services + LARGE_INSTANCES <= instances or nodes > instances:
        raise click.UsageError(
            f"{instances} instances are too few: each node has one, each service, too, and one service has "
            f"{LARGE_INSTANCES}"
        )
    return Size(nodes=nodes, instances=instances, services=services, wakes=wakes)


def _judged(found: CatalogFigures | RestoreFigures, lines: Iterable[str], as_json: bool) -> int:
    """Print figures and their verdict; its exit code."""
    if as_json:
        click.echo(json.dumps({"verdict": found.verdict.value, **msgspec.to_builtins(found)}))
    else:
        click.echo("\n".join([*lines, f"verdict: {found.verdict.value}"]))
    return found.verdict.exit_code


def _sized(function: Callable[..., int]) -> Callable[..., int]:
    """The options that say how big a catalog is."""
    for option in (
        click.option("--services", type=click.IntRange(min=2), default=Size().services, show_default=True),
        click.option("--instances", type=click.IntRange(min=200), default=Size().instances, show_default=True),
        click.option("--nodes", type=click.IntRange(min=1), default=Size().nodes, show_default=True),
        click.option("--servers", type=click.IntRange(1, 9), default=3, show_default=True),
    ):
        function = option(function)
    return function


@command.command("catalog")
@_sized
@click.option("--wakes", type=click.IntRange(min=1), default=Size().wakes, show_default=True, help="Registrations.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of what is asked for and changed.")
@click.option("--directory", type=click.Path(exists=True, file_okay=False, path_type=Path), help="For the data.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end, everything else to stderr.")
def catalog_command(
    servers: int,
    nodes: int,
    instances: int,
    services: int,
    wakes: int,
    seed: int,
    directory: Path | None,
    as_json: bool,
) -> int:
    """A big catalog: memory of an instance, latency of health queries, and whom a registration wakes.

    Every service is watched by a blocking query. INVALID (exit code 1) if a registration woke a watcher of another
    service, or not its own.
    """

    size = _size(nodes, instances, services, wakes)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="comitia-bench-", dir=directory) as name,
            running(ComitiaServers(servers, Path(name))) as started,
        ):
            found = asyncio.run(measure_catalog(started, size, seed, _say))
    except SetupFailed as error:
        click.echo(f"set-up failed: {error}", err=True)
        return EXIT_INTERNAL
    return _judged(found, catalog_lines(found), as_json)


@command.command("restore")
@_sized
@click.option("--directory", type=click.Path(exists=True, file_okay=False, path_type=Path), help="For the data.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end, everything else to stderr.")
def restore_command(
    servers: int, nodes: int, instances: int, services: int, directory: Path | None, as_json: bool
) -> int:
    """A big catalog is saved while writes go on, and restored in a new cluster.

    INVALID (exit code 1) if any server of the new cluster answers the health of any service differently, an index
    included, or the archive is not of one moment.
    """

    size = _size(nodes, instances, services)
    try:
        with tempfile.TemporaryDirectory(prefix="comitia-bench-", dir=directory) as name:
            for each in ("old", "new"):
                (Path(name) / each).mkdir()
            with (
                running(ComitiaServers(servers, Path(name) / "old")) as old,
                running(ComitiaServers(servers, Path(name) / "new")) as new,
            ):
                found = asyncio.run(measure_restore(old, new, size, Path(name), _say))
    except SetupFailed as error:
        click.echo(f"set-up failed: {error}", err=True)
        return EXIT_INTERNAL
    return _judged(found, restore_lines(found), as_json)


FAULTS = {"kill": "kill -9", "power-off": "power-off"}


def _measure_fault(fault: str, servers: int, trials: int, directory: Path | None) -> list[float]:
    if fault == "power-off":
        return asyncio.run(measure_power_off(servers, trials, _say))
    with (
        tempfile.TemporaryDirectory(prefix="comitia-bench-", dir=directory) as name,
        running(ComitiaServers(servers, Path(name))) as started,
    ):
        return measure_failover(started, trials, _say)


@command.command("failover")
@click.option("--servers", type=click.IntRange(3, 9), default=3, show_default=True)
@click.option("--trials", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--fault", type=click.Choice([*FAULTS, "both"]), default="both", show_default=True)
@click.option("--directory", type=click.Path(exists=True, file_okay=False, path_type=Path), help="For kill -9's data.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end, everything else to stderr.")
def failover_command(servers: int, trials: int, fault: str, directory: Path | None, as_json: bool) -> int:
    """The leader ends: time to the next acknowledged put, default settings.

    kill: kill -9 of its process, whose connections the kernel closes. power-off: silence, all its links are cut at
    once; in network namespaces, needs what `comitia cluster` needs. A client at each surviving server retries with a
    timeout of 100 ms; the first acknowledgement counts.
    """
    chosen = list(FAULTS) if fault == "both" else [fault]
    try:
        found = {name: _measure_fault(name, servers, trials, directory) for name in chosen}
    except SetupFailed as error:
        click.echo(f"set-up failed: {error}", err=True)
        return EXIT_INTERNAL
    for name, times in found.items():
        median = statistics.median(times)
        if not as_json:
            words = f"median {median:.0f} ms, min {min(times):.0f} ms, max {max(times):.0f} ms"
            click.echo(f"{FAULTS[name]}, {trials} trials: {words}")
    if as_json:
        report = {
            name: {"median_ms": statistics.median(times), "min_ms": min(times), "max_ms": max(times), "each_ms": times}
            for name, times in found.items()
        }
        click.echo(json.dumps({"trials": trials, **report}))
    return 0


def _explain(elections: int, servers: Servers) -> None:
    """Where no election may be: say on stderr what the servers' logs say of it."""
    for line in servers.lines_about_elections()[-2 * elections - 1 :] if elections else ():
        _say(line)


@command.command("catchup")
@click.option("--entries", type=click.IntRange(min=1_000), default=1_000_000, show_default=True, help="To be behind.")
@click.option("--keys", type=click.IntRange(min=1), default=100_000, show_default=True, help="Different keys put.")
@click.option("--value-bytes", type=click.IntRange(0, 500_000), default=16, show_default=True)
@click.option("--clients", type=click.IntRange(min=0), default=16, show_default=True, help="That go on meanwhile.")
@click.option("--directory", type=click.Path(exists=True, file_okay=False, path_type=Path), help="For the data.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end, everything else to stderr.")
def catchup_command(
    entries: int, keys: int, value_bytes: int, clients: int, directory: Path | None, as_json: bool
) -> int:
    """One of three servers comes back, far behind: time until it has caught up by a snapshot, under load.

    INVALID (exit code 1) if there was an election meanwhile, UNKNOWN (2) if no snapshot was needed.
    """

    try:
        with tempfile.TemporaryDirectory(prefix="comitia-bench-", dir=directory) as name:
            servers = ComitiaServers(3, Path(name))
            with running(servers):
                found = measure_catch_up(servers, entries, keys, value_bytes, clients, _say)
            _explain(found.elections, servers)
    except (SetupFailed, OSError) as error:
        click.echo(f"set-up failed: {error}", err=True)
        return EXIT_INTERNAL
    if as_json:
        click.echo(json.dumps({"verdict": found.verdict.value, **msgspec.to_builtins(found)}))
    else:
        click.echo(f"{found.entries:,} entries behind (written in {found.filling_s:g} s)")
        click.echo(f"caught up after {found.seconds:g} s by a snapshot up to index {found.snapshot_index:,}")
        click.echo(f"meanwhile {found.load_per_second:,.0f} entries a second, {found.elections} elections")
        click.echo(f"verdict: {found.verdict.value}")
    return found.verdict.exit_code


@command.command("steady")
@click.option("--servers", type=click.IntRange(1, 9), default=3, show_default=True)
@click.option("--clients", type=click.IntRange(min=1), default=64, show_default=True, help="Outstanding requests.")
@click.option("--seconds", type=click.FloatRange(min=1), default=300.0, show_default=True)
@click.option("--value-bytes", type=click.IntRange(0, 500_000), default=256, show_default=True)
@click.option("--processes", type=click.IntRange(min=1), default=2, show_default=True, help="Of the load generator.")
@click.option("--directory", type=click.Path(exists=True, file_okay=False, path_type=Path), help="For the data.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of the table.")
def steady_command(
    servers: int,
    clients: int,
    seconds: float,
    value_bytes: int,
    processes: int,
    directory: Path | None,
    as_json: bool,
) -> int:
    """Puts at full load for a long time: no election may happen.

    INVALID (exit code 1) if a term went by, UNKNOWN (2) if no put was acknowledged.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="comitia-bench-", dir=directory) as name:
            started = ComitiaServers(servers, Path(name))
            with running(started):
                found = measure(started, PUT, clients, seconds, processes, value_bytes)
            _explain(found.elections, started)
    except (SetupFailed, OSError) as error:
        click.echo(f"set-up failed: {error}", err=True)
        return EXIT_INTERNAL
    verdict = steadiness(found)
    if as_json:
        click.echo(json.dumps({"verdict": verdict.value, "measured": msgspec.to_builtins(found)}))
    else:
        console = wide_console()
        console.print(rate_table([found]))
        console.print(f"{found.elections} elections in {seconds:g} s: {verdict.value}", highlight=False)
    return verdict.exit_code


def steadiness(found: Measured) -> Verdict:
    """VALID if puts were acknowledged and no election happened."""
    if found.elections:
        return Verdict.INVALID
    return Verdict.VALID if found.per_second else Verdict.UNKNOWN


@command.command("heal")
@click.option("--cut", "cut_s", type=click.FloatRange(min=1), default=30.0, show_default=True, help="Seconds cut off.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end, everything else to stderr.")
def heal_command(cut_s: float, as_json: bool) -> int:
    """Cut one of five servers off, write, heal: time until one leader serves and every server has caught up.

    Once with the leader cut off, once with a follower. In network namespaces: needs what `comitia cluster` needs.
    """
    try:
        found = asyncio.run(measure_heal(cut_s, _say))
    except SetupFailed as error:
        click.echo(f"set-up failed: {error}", err=True)
        return EXIT_INTERNAL
    if as_json:
        click.echo(json.dumps({"trials": msgspec.to_builtins(found)}))
        return 0
    for trial in found:
        click.echo(
            f"{trial.victim} cut off for {trial.cut_s:g} s, {trial.behind:,} entries behind: a leader served after "
            f"{trial.leader_ms:.0f} ms, all caught up after {trial.replicated_ms:.0f} ms"
        )
    return 0
