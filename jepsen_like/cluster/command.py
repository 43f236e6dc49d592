"""`comitia cluster`: start a cluster of real processes in network namespaces, look at it, and break it by hand.

Only arguments, texts and exit codes; what is done stands in `api.py`. Errors are one line that names the remedy.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click
from rich.console import Console

from jepsen_like.cluster import enter, launch, state, status
from jepsen_like.cluster.api import Cluster, NotElected
from jepsen_like.cluster.control import ControlConnection, dial
from jepsen_like.cluster.protocol import ClusterFailure, Interval, Shutdown
from jepsen_like.cluster.spec import ClusterSpec, InvalidSpec
from jepsen_like.net.addresses import UnknownNode
from jepsen_like.net.rules import InvalidRule, LinkRule, checked, parse_partition
from model_checks.verdicts import SetupFailed

P = ParamSpec("P")
T = TypeVar("T")

FOLLOW_POLL_S = 0.1


def one_line_errors(function: Callable[P, T]) -> Callable[P, T]:
    """Failures that have a text for people become click's: bad arguments (UsageError) or the rest (ClickException)."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except (InvalidRule, UnknownNode, InvalidSpec) as error:
            raise click.UsageError(str(error)) from error
        except (ClusterFailure, SetupFailed) as error:
            raise click.ClickException(str(error)) from error

    return wrapped


@click.group("cluster", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Start a cluster in network namespaces, look at it, and break it by hand.

    \b
      comitia cluster up --servers 5 --clients 1
      comitia cluster partition s1,s2/s3,s4,s5
      comitia cluster status
      comitia cluster heal
      comitia cluster down

    Servers are called s1, s2, ..., client agents c1, c2, ... Every link between two of them can be cut or slowed, in
    one direction or both. Clusters run side by side, each with Consul's own ports. Commands act on the only cluster
    there is, or on the one that --name or $COMITIA_CLUSTER names.
    """


name_option = click.option(
    "--name", "-n", envvar="COMITIA_CLUSTER", metavar="NAME", help="Which cluster; not needed if there is only one."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
one_way_option = click.option("--one-way", is_flag=True, help="Only packets from A to B; those from B to A pass.")
node_argument = click.argument("node", metavar="NODE")
nodes_argument = click.argument("nodes", metavar="NODE...", nargs=-1, required=True)


def chosen(name: str | None) -> str:
    """The cluster meant: the one named, or the only one alive; raises ClusterFailure."""
    if name is not None:
        return name
    alive = [each for each in state.names() if state.is_alive(state.home() / each)]
    if len(alive) == 1:
        return alive[0]
    if not alive:
        raise ClusterFailure("no cluster is running; start one with `comitia cluster up`")
    raise ClusterFailure(f"several clusters are running ({', '.join(alive)}): say which with --name")


def on_cluster(name: str | None, act: Callable[[Cluster], Awaitable[T]]) -> T:
    """Attach to the cluster, act, detach."""

    async def attached() -> T:
        cluster = await Cluster.attach(chosen(name))
        try:
            return await act(cluster)
        finally:
            cluster.detach()

    return asyncio.run(attached())


def took(interval: Interval) -> str:
    """How long a fault took to be in force."""
    return f"in force after {(interval.end_ns - interval.start_ns) / 1e6:.2f} ms"


@command.command("up")
@click.option("--servers", default=3, show_default=True, type=click.IntRange(1, 99), help="Servers: s1, s2, ...")
@click.option("--clients", default=0, show_default=True, type=click.IntRange(0, 99), help="Client agents: c1, c2, ...")
@click.option("--name", "-n", metavar="NAME", help='The cluster\'s name; "default" (or default-2, ...) if not given.')
@click.option(
    "--agent-command", metavar="COMMAND", help="Starts an agent, instead of `comitia agent`; gets the same arguments."
)
@click.option("--trace", "trace_dir", type=click.Path(path_type=Path), help="Servers write their traces here.")
@click.option("--seed", default=0, show_default=True, help="Of the links' randomness.")
@click.option("--timeout", default=15.0, show_default=True, help="Seconds to wait for a leader.")
@json_option
@one_line_errors
def up(
    servers: int,
    clients: int,
    name: str | None,
    agent_command: str | None,
    trace_dir: Path | None,
    seed: int,
    timeout: float,
    as_json: bool,
) -> None:
    """Start a cluster and wait for a leader. It stays until `down`.

    Each agent's HTTP port is published on this machine's loopback.
    """
    spec = ClusterSpec(
        servers=servers,
        clients=clients,
        name=name,
        agent_command=agent_command,
        trace_dir=trace_dir,
        seed=seed,
        publish=True,
    )
    began = time.monotonic()
    launched = launch.launch(spec, attached=False)
    leader, nodes = asyncio.run(_await_leader(launched, timeout))
    if as_json:
        document = {"name": launched.spec.name, "leader": leader, "directory": str(launched.directory), "nodes": nodes}
        click.echo(json.dumps(document))
        return
    click.echo(f"cluster {launched.spec.name} is up, {leader} leads ({time.monotonic() - began:.1f} s)")
    for node in nodes:
        click.echo(f"  {node['name']:4} {node['address']:12}  http://{node['http']}")


async def _await_leader(launched: launch.Launched, timeout_s: float) -> tuple[str, list[dict[str, str | None]]]:
    """The leader and the nodes; a cluster without one, or interrupted, is ended again (its logs stay)."""
    assert launched.spec.name is not None
    cluster = await Cluster.attach(launched.spec.name)
    try:
        leader = await cluster.wait_for_leader(timeout_s)
        world = await cluster.world()
    except NotElected as error:
        await cluster.shut_down(1.0)
        raise ClusterFailure(f"{error}{_last_words(launched.directory / 'logs', error.ended)}") from error
    except asyncio.CancelledError:
        await cluster.shut_down(1.0)
        raise
    cluster.detach()
    return leader, [{"name": node.name, "address": node.address, "http": node.published} for node in world.nodes]


def _last_words(logs: Path, ended: str | None) -> str:
    """Where to look, and what the agent that ended wrote last."""
    log = logs / f"{ended}.log"
    lines = log.read_text(errors="replace").split("\n") if ended is not None and log.exists() else []
    said = [line for line in lines if line.strip()]
    return f"; its last line: {said[-1].strip()} (all of it: {log})" if said else f"; see the logs in {logs}"


@command.command("status")
@name_option
@json_option
@click.option("--timeout", default=1.0, show_default=True, help="Seconds to wait for each agent's answer.")
@one_line_errors
def show_status(name: str | None, as_json: bool, timeout: float) -> None:
    """Who leads, how far everyone is, and who reaches whom."""
    seen = on_cluster(name, lambda cluster: cluster.status(timeout))
    if as_json:
        click.echo(json.dumps(status.as_json(seen)))
        return
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(f"cluster {seen.world.name}: {f'{seen.leader} leads' if seen.leader else 'no leader'}")
    console.print(status.node_table(seen))
    console.print("who reaches whom (row to column)")
    console.print(status.reach_table(seen))
    for line in status.exit_lines(seen):
        console.print(line, style="red")


@command.command("partition")
@click.argument("groups", metavar="GROUP/GROUP...")
@name_option
@one_line_errors
def partition(groups: str, name: str | None) -> None:
    """Split nodes into groups: s1,s2/s3,s4,s5.

    Those of different groups do not reach each other; silently, as with a failing switch. Nodes in no group keep
    their links. A new partition replaces the last.
    """
    parsed = parse_partition(groups)
    click.echo(f"partitioned: {took(on_cluster(name, lambda cluster: cluster.partition(parsed)))}")


@command.command("cut")
@click.argument("a")
@click.argument("b")
@one_way_option
@name_option
@one_line_errors
def cut(a: str, b: str, one_way: bool, name: str | None) -> None:
    """Make a black hole of the link between A and B."""
    click.echo(f"cut: {took(on_cluster(name, lambda cluster: cluster.cut(a, b, one_way=one_way)))}")


@command.command("slow")
@click.argument("a")
@click.argument("b")
@click.option("--delay", default=0.0, metavar="MS", help="Each packet arrives so much later.")
@click.option("--jitter", default=0.0, metavar="MS", help="More or less than that by up to this.")
@click.option("--loss", default=0.0, metavar="P", help="Probability of losing a packet, 0 to 1.")
@click.option("--duplicate", default=0.0, metavar="P", help="Probability of delivering it twice.")
@click.option("--reorder", default=0.0, metavar="P", help="Probability of holding it back so that others overtake it.")
@click.option(
    "--corrupt", default=0.0, metavar="P", help="Probability of a flipped bit (the receiver's kernel notices)."
)
@click.option("--corrupt-unseen", default=0.0, metavar="P", help="... with a repaired checksum (only the agent can).")
@click.option("--rate", default=0.0, metavar="BYTES/S", help="Throughput limit; 0 is none.")
@one_way_option
@name_option
@one_line_errors
def slow(a: str, b: str, one_way: bool, name: str | None, **properties: float) -> None:
    """Delay, lose, double, reorder or corrupt packets."""
    rule = checked(
        LinkRule(
            delay_ms=properties["delay"],
            jitter_ms=properties["jitter"],
            loss=properties["loss"],
            duplicate=properties["duplicate"],
            reorder=properties["reorder"],
            corrupt=properties["corrupt"],
            corrupt_unseen=properties["corrupt_unseen"],
            rate_bytes_per_s=properties["rate"],
        )
    )
    interval = on_cluster(name, lambda cluster: cluster.shape(a, b, rule, one_way=one_way))
    click.echo(f"{status.describe_rule(rule) or 'clear'}: {took(interval)}")


@command.command("heal")
@click.argument("between", metavar="[A B]", nargs=-1)
@name_option
@one_line_errors
def heal(between: tuple[str, ...], name: str | None) -> None:
    """Mend all links, or those between A and B."""
    if len(between) not in (0, 2):
        raise click.UsageError("heal takes two nodes, or none to mend every link")
    if between:
        a, b = between
        interval = on_cluster(name, lambda cluster: cluster.heal_links([(a, b), (b, a)]))
    else:
        interval = on_cluster(name, lambda cluster: cluster.heal())
    click.echo(f"healed: {took(interval)}")


def _on_each(
    name: str | None, nodes: tuple[str, ...], done: str, act: Callable[[Cluster, str], Awaitable[Interval]]
) -> None:
    async def all_of_them(cluster: Cluster) -> list[Interval]:
        return [await act(cluster, node) for node in nodes]

    for node, interval in zip(nodes, on_cluster(name, all_of_them), strict=True):
        click.echo(f"{node} {done}: {took(interval)}")


@command.command("kill")
@nodes_argument
@name_option
@one_line_errors
def kill(nodes: tuple[str, ...], name: str | None) -> None:
    """kill -9; `restart` starts it again on the same data."""
    _on_each(name, nodes, "killed", Cluster.kill)


@command.command("stop")
@nodes_argument
@name_option
@one_line_errors
def stop(nodes: tuple[str, ...], name: str | None) -> None:
    """Ask an agent to end (SIGTERM), and wait for it."""
    _on_each(name, nodes, "stopped", Cluster.stop)


@command.command("pause")
@nodes_argument
@name_option
@one_line_errors
def pause(nodes: tuple[str, ...], name: str | None) -> None:
    """Freeze an agent (SIGSTOP).

    Its connections stay open, and nothing answers.
    """
    _on_each(name, nodes, "paused", Cluster.pause)


@command.command("resume")
@nodes_argument
@name_option
@one_line_errors
def resume(nodes: tuple[str, ...], name: str | None) -> None:
    """Let a paused agent go on (SIGCONT)."""
    _on_each(name, nodes, "resumed", Cluster.resume)


@command.command("restart")
@nodes_argument
@name_option
@one_line_errors
def restart(nodes: tuple[str, ...], name: str | None) -> None:
    """Start an agent again on the same data.

    One that runs is stopped first.
    """
    _on_each(name, nodes, "restarted", Cluster.restart)


@command.command("logs")
@node_argument
@click.option("--follow", "-f", is_flag=True, help="Go on until interrupted.")
@name_option
@one_line_errors
def logs(node: str, follow: bool, name: str | None) -> None:
    """Print an agent's log. The supervisor has one too: `logs supervisor`."""
    directory = state.cluster_directory(chosen(name))
    path = (state.load(directory).spec.log_dir or directory / "logs") / f"{node}.log"
    try:
        log = open(path, "rb")  # noqa: SIM115  closed below
    except FileNotFoundError as error:
        there = ", ".join(sorted(each.stem for each in path.parent.glob("*.log")))
        raise UnknownNode(f"{node} has no log; these do: {there}") from error
    with log, contextlib.suppress(KeyboardInterrupt):
        while True:
            data = log.read(1 << 16)
            if data:
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
            elif follow:
                time.sleep(FOLLOW_POLL_S)
            else:
                return


@command.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@name_option
@node_argument
@click.argument("argv", metavar="-- COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
@one_line_errors
def execute(name: str | None, node: str, argv: tuple[str, ...]) -> int:
    """Run a command in a node's namespaces: exec s1 -- ss -tn. Its exit status is this one's."""
    words = argv[1:] if argv[0] == "--" else argv
    descriptors = on_cluster(name, lambda cluster: cluster.namespaces(node))
    return enter.run_in(descriptors, words)


@command.command("down")
@click.argument("cluster_name", metavar="[NAME]", required=False)
@click.option("--name", "-n", envvar="COMITIA_CLUSTER", metavar="NAME", help="The same as the argument.")
@click.option("--all", "everything", is_flag=True, help="All clusters of this user.")
@one_line_errors
def down(cluster_name: str | None, name: str | None, everything: bool) -> None:
    """Stop a cluster and remove all of it.

    Its processes, data and logs. Also clears what a dead cluster left.
    """
    names = state.names() if everything else [cluster_name or name or _only_one_to_end()]
    for each in names:
        directory = state.cluster_directory(each)
        was_alive = state.is_alive(directory)
        if was_alive:
            asyncio.run(_end(directory))
            _await_release(directory)
        state.remove(directory)
        click.echo(f"cluster {each} is gone" if was_alive else f"cluster {each} was dead: cleared what it left")


def _only_one_to_end() -> str:
    names = state.names()
    return names[0] if len(names) == 1 else chosen(None)


async def _end(directory: Path) -> None:
    """Asks the control socket itself: a cluster whose cluster.json is unreadable can be ended too."""
    control = ControlConnection(dial(directory))
    try:
        await control.ask(Shutdown())
    finally:
        control.close()


def _await_release(directory: Path, timeout_s: float = 10.0) -> None:
    """Until the supervisor has let go of its lock."""
    end = time.monotonic() + timeout_s
    while state.is_alive(directory):
        if time.monotonic() > end:
            pid = state.load(directory).supervisor_pid
            raise ClusterFailure(f"cluster {directory.name}: its supervisor (pid {pid}) does not end; kill -9 {pid}")
        time.sleep(0.01)


@command.command("list")
@json_option
@one_line_errors
def show_list(as_json: bool) -> None:
    """The clusters of this user, alive or dead."""
    rows: list[dict[str, Any]] = []
    for name in state.names():
        directory = state.cluster_directory(name)
        row: dict[str, Any] = {"name": name, "alive": state.is_alive(directory), "directory": str(directory)}
        try:
            metadata = state.load(directory)
            row |= {"servers": metadata.spec.servers, "clients": metadata.spec.clients, "daemon": metadata.daemon}
        except ClusterFailure:
            row |= {"servers": None, "clients": None, "daemon": None}
        rows.append(row)
    if as_json:
        click.echo(json.dumps(rows))
        return
    if not rows:
        click.echo("no clusters; start one with `comitia cluster up`")
    for row in rows:
        if not row["alive"]:
            click.echo(f"{row['name']:16} dead: its supervisor is gone; `comitia cluster down {row['name']}` clears it")
        else:
            owner = "" if row["daemon"] else ", belongs to a run"
            click.echo(f"{row['name']:16} servers: {row['servers']}, client agents: {row['clients']}{owner}")
