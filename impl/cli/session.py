"""`comitia session`: create, list, renew and destroy sessions. Consul's command line has no such command.

Source: Consul, "Session HTTP API".
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import click

from impl.cli.commandline import HELP, columns, format_option, print_json
from impl.cli.http_client import HttpClient, ServerCommand


@click.group("session", context_settings=HELP)
def session_command() -> None:
    """Create, list, renew and destroy sessions."""


@session_command.command("create", cls=ServerCommand)
@click.option("--name", default="", help="A name for people.")
@click.option("--node", default="", help="Node that the session belongs to. Default: the agent's.")
@click.option("--ttl", default="", help="How long it lives without renewal, 10s to 24h. Default: for ever.")
@click.option("--lock-delay", default="", help="How long its locks stay free after it was invalidated. Default: 15s.")
@click.option("--behavior", default="", help="What becomes of its keys: release or delete. Default: release.")
@click.option("--check", multiple=True, help="A check of the node that it depends on. Repeatable. Default: serfHealth.")
def create(
    client: HttpClient, name: str, node: str, ttl: str, lock_delay: str, behavior: str, check: tuple[str, ...]
) -> int:
    """Create a session and print its id."""
    fields = {"Name": name, "Node": node, "TTL": ttl, "LockDelay": lock_delay, "Behavior": behavior}
    body: dict[str, Any] = {field: value for field, value in fields.items() if value}
    if check:
        body["NodeChecks"] = list(check)
    click.echo(create_session(client, body))
    return 0


def create_session(client: HttpClient, body: dict[str, Any], failure: str = "Error creating session: ") -> str:
    """The id of a new session."""
    _, answer = client.ask("PUT", "/v1/session/create", {}, failure, json.dumps(body).encode())
    return str(json.loads(answer)["ID"])


@session_command.command("list", cls=ServerCommand)
@click.option("--node", default="", help="Only sessions of this node.")
@format_option
def list_sessions(client: HttpClient, node: str, form: str) -> int:
    """Print the sessions."""
    path = f"/v1/session/node/{quote(node, safe='')}" if node else "/v1/session/list"
    found = json.loads(client.ask("GET", path, {}, "Error listing sessions: ")[1])
    header = ["ID", "Name", "Node", "TTL", "Behavior"]
    rows = [header, *([each[column] or "-" for column in header] for each in found)]
    print_json(found) if form == "json" else click.echo(columns(rows))
    return 0


@session_command.command("renew", cls=ServerCommand)
@click.argument("id")
def renew(client: HttpClient, id: str) -> int:
    """Give session ID its full TTL again."""
    client.ask("PUT", f"/v1/session/renew/{quote(id, safe='')}", {}, "Error renewing session: ")
    click.echo(f"Renewed session: {id}")
    return 0


@session_command.command("destroy", cls=ServerCommand)
@click.argument("id")
def destroy(client: HttpClient, id: str) -> int:
    """End session ID; its locks are given back."""
    client.ask("PUT", f"/v1/session/destroy/{quote(id, safe='')}", {}, "Error destroying session: ")
    click.echo(f"Destroyed session: {id}")
    return 0
