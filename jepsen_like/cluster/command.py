"""`comitia cluster`: start a cluster of real processes in network namespaces, look at it, and break it by hand.

Only arguments, texts and exit codes; what is done stands in `api.py`. Errors are one line that names the remedy.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Awaitable, Callable

import click
from rich.console import Console

from jepsen_like.cluster import enter, lifecycle, state, status
from jepsen_like.cluster.api import Cluster
from jepsen_like.cluster.options import chosen, json_option, name_option, on_cluster, one_line_errors
from jepsen_like.cluster.protocol import Interval
from jepsen_like.net.addresses import UnknownNode
from jepsen_like.net.rules import LinkRule, checked, parse_partition

FOLLOW_POLL_S = 0.1


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


node_argument = click.argument("node", metavar="NODE")
nodes_argument = click.argument("nodes", metavar="NODE...", nargs=-1, required=True)
one_way_option = click.option("--one-way", is_flag=True, help="Only packets from A to B; those from B to A pass.")


def took(interval: Interval) -> str:
    """How long a fault took to be in force."""
    return f"in force after {(interval.end_ns - interval.start_ns) / 1e6:.2f} ms"


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
    if not path.exists():
        there = ", ".join(sorted(each.stem for each in path.parent.glob("*.log")))
        raise UnknownNode(f"{node} has no log; these do: {there}")
    with path.open("rb") as log, contextlib.suppress(KeyboardInterrupt):
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


for _each in (lifecycle.up, lifecycle.down, lifecycle.show_list):
    command.add_command(_each)
