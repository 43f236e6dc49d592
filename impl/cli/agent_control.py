"""`comitia join | force-leave | reload | monitor`, with the flags, texts and exit codes of Consul's commands.

Each speaks to one agent over HTTP. Source: Consul, "Commands".
"""

from __future__ import annotations

import signal
import sys
from urllib.parse import quote

import click

from impl.cli.commandline import HELP
from impl.cli.http_client import ClientCommand, CommandError, HttpClient, ServerCommand


@click.command("join", cls=ClientCommand, context_settings=HELP)
@click.option("--wan", is_flag=True, help="Not here: there is one datacenter.")
@click.argument("addresses", nargs=-1)
def join_command(client: HttpClient, wan: bool, addresses: tuple[str, ...]) -> int:
    """Tell an agent of servers at ADDRESSES: it introduces itself to them."""
    if not addresses:
        raise CommandError("At least one address to join must be specified.")
    joined = 0
    for address in addresses:
        try:
            path = f"/v1/agent/join/{quote(address, safe='')}"
            client.ask("PUT", path, {"wan": "1"} if wan else {}, f"Error joining address '{address}': ")
            joined += 1
        except CommandError as error:
            click.echo(error.message, err=True)
    if not joined:
        raise CommandError("Failed to join any nodes.")
    click.echo(f"Successfully joined cluster by contacting {joined} nodes.")
    return 0


@click.command("force-leave", cls=ServerCommand, context_settings=HELP)
@click.option("--prune", is_flag=True, help="As without it: nobody keeps a list of those that left.")
@click.argument("nodes", nargs=-1)
def force_leave_command(client: HttpClient, prune: bool, nodes: tuple[str, ...]) -> int:
    """Take NODE, an agent that failed, for one that left."""
    if len(nodes) != 1:
        raise CommandError("A single node name must be specified to force leave.")
    path = f"/v1/agent/force-leave/{quote(nodes[0], safe='')}"
    _, answer = client.ask("PUT", path, {"prune": "1"} if prune else {}, "Error force leaving: ")
    if answer:
        click.echo(answer.decode(errors="replace"), err=True)
    return 0


@click.command("reload", cls=ServerCommand, context_settings=HELP)
def reload_command(client: HttpClient) -> int:
    """Let an agent read its configuration again."""
    client.ask("PUT", "/v1/agent/reload", {}, "Error reloading: ")
    click.echo("Configuration reload triggered")
    return 0


@click.command("monitor", cls=ServerCommand, context_settings=HELP)
@click.option("--log-level", default="INFO", help="TRACE, DEBUG, INFO, WARN or ERROR. Default: INFO.")
@click.option("--log-json", is_flag=True, help="As JSON.")
def monitor_command(client: HttpClient, log_level: str, log_json: bool) -> int:
    """Print the log of an agent from now on, until it ends (1), or this is told to end (0)."""
    parameters = {"loglevel": log_level} | ({"logjson": "true"} if log_json else {})
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for line in client.follow("/v1/agent/monitor", parameters, "Error starting monitor: "):
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
    except (KeyboardInterrupt, BrokenPipeError):
        return 0
    finally:
        signal.signal(signal.SIGTERM, before)
    click.echo("\nRemote side ended the monitor! This usually means that the\nremote side has exited or crashed.")
    return 1
