"""`comitia maint`: takes a node, or one of its services, out of service for a while, or says what is.

Flags, texts and exit codes are those of Consul's command. It speaks to the agent whose node it is.
Source: Consul, "Commands: maint".
"""

from __future__ import annotations

import json
from urllib.parse import quote

import click

from impl.cli.commandline import HELP
from impl.cli.http_client import ClientCommand, CommandError, HttpClient

NODE_CHECK = "_node_maintenance"
SERVICE_CHECK = "_service_maintenance:"


@click.command("maint", cls=ClientCommand, context_settings=HELP)
@click.option("--enable", is_flag=True, help="Begin the maintenance.")
@click.option("--disable", is_flag=True, help="End the maintenance.")
@click.option("--reason", default="", help="Why, for people; with -enable.")
@click.option("--service", default="", metavar="ID", help="Of this instance alone.")
def maint_command(client: HttpClient, enable: bool, disable: bool, reason: str, service: str) -> int:
    """Say what is under maintenance, or begin or end it: what is gets no requests by DNS or by health queries."""
    if enable and disable:
        raise CommandError("Only one of -enable or -disable may be provided")
    if reason and not enable:
        raise CommandError("Reason may only be provided with -enable")
    if service and not (enable or disable):
        raise CommandError("Service requires either -enable or -disable")
    name = client.node_name()
    if not (enable or disable):
        return _show(client, name)
    what = "service" if service else "node"
    path = f"/v1/agent/service/maintenance/{quote(service, safe='')}" if service else "/v1/agent/maintenance"
    parameters = {"enable": str(enable).lower()} | ({"reason": reason} if reason else {})
    client.ask("PUT", path, parameters, f"Error {'enabling' if enable else 'disabling'} {what} maintenance: ")
    of = f' for "{service}"' if service else ""
    click.echo(f"{what.capitalize()} maintenance is now {'enabled' if enable else 'disabled'}{of}")
    return 0


def _show(client: HttpClient, node: str) -> int:
    checks = json.loads(client.ask("GET", "/v1/agent/checks", {}, "Error getting checks: ")[1])
    for check in sorted(checks.values(), key=lambda check: str(check["CheckID"])):
        if check["CheckID"] == NODE_CHECK:
            click.echo(f"Node:\n  Name:   {node}\n  Reason: {check['Notes']}\n")
        elif check["CheckID"].startswith(SERVICE_CHECK):
            click.echo(f"Service:\n  ID:     {check['ServiceID']}\n  Reason: {check['Notes']}\n")
    return 0
