"""`comitia cluster up`, `down` and `list`: the beginning and the end of clusters that outlive a command."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import click

from jepsen_like.cluster import launch, state
from jepsen_like.cluster.api import Cluster, NotElected
from jepsen_like.cluster.control import ControlConnection, dial
from jepsen_like.cluster.options import chosen, json_option, one_line_errors
from jepsen_like.cluster.protocol import ClusterFailure, Shutdown
from jepsen_like.cluster.spec import ClusterSpec


@click.command("up")
@click.option("--servers", default=3, show_default=True, type=click.IntRange(1, 99), help="Servers: s1, s2, ...")
@click.option("--clients", default=0, show_default=True, type=click.IntRange(0, 99), help="Client agents: c1, c2, ...")
@click.option("--spares", default=0, show_default=True, type=click.IntRange(0, 98), help="Of the servers: not started.")
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
    spares: int,
    name: str | None,
    agent_command: str | None,
    trace_dir: Path | None,
    seed: int,
    timeout: float,
    as_json: bool,
) -> None:
    """Start a cluster and wait until it serves: there is a leader, every agent answers. It stays until `down`.

    Each agent's HTTP port is published on this machine's loopback. Spares are the last servers: `cluster restart`
    starts one, and it joins.
    """
    if spares >= servers:
        raise click.UsageError(f"--spares {spares} of --servers {servers}: at least one server must form the cluster")
    spec = ClusterSpec(
        servers=servers,
        clients=clients,
        spares=spares,
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
    """The leader and the nodes; a cluster that does not serve, or interrupted, is ended again (its logs stay)."""
    assert launched.spec.name is not None
    cluster = await Cluster.attach(launched.spec.name)
    try:
        leader = await cluster.wait_for_leader(timeout_s)
        await cluster.wait_for_answers(timeout_s)
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


@click.command("down")
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


@click.command("list")
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
