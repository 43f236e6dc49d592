"""`comitia operator raft ...` and `comitia leave`, with the flags, texts and exit codes of Consul's commands.

`add-peer`, `promote` and `demote` are Comitia's own, in the same style. All of them speak to one agent over HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from impl.cli.commandline import HELP, GoGroup, columns, print_json
from impl.cli.http_client import CommandError, HttpClient, ServerCommand

_RAFT = "/v1/operator/raft"
_HEADER = ("Node", "ID", "Address", "State", "Voter", "RaftProtocol", "Commit Index", "Trails Leader By")
_id = click.option("--id", "id", default="", metavar="ID", help="ID, or name, of a server.")


@click.group("operator", cls=GoGroup, context_settings=HELP)
def operator_command() -> None:
    """Tools for whoever operates a cluster."""


@operator_command.group("raft", context_settings=HELP)
def raft_group() -> None:
    """Who is a member of the cluster, who votes, who leads."""


@raft_group.command("list-peers", cls=ServerCommand)
@click.option("--format", "form", default="pretty", metavar="FORMAT", help="pretty or json. Default: pretty.")
def list_peers(client: HttpClient, form: str) -> int:
    """Show the members of the cluster."""
    if form not in ("pretty", "json"):
        raise CommandError(f"Invalid format {form!r}: use pretty or json")
    document = _ask(client, "GET", f"{_RAFT}/configuration", {}, "getting peers")
    print_json(document) if form == "json" else click.echo(columns(_rows(document["Servers"])))
    return 0


def _rows(servers: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    leader_index = next((server["LastIndex"] for server in servers if server["Leader"]), 0)
    rows: list[tuple[str, ...]] = [_HEADER]
    for server in servers:
        last, behind = server["LastIndex"], leader_index - server["LastIndex"]
        trails = "-" if server["Leader"] or not leader_index else f"{behind} commit{'' if behind == 1 else 's'}"
        state, voter = "leader" if server["Leader"] else "follower", str(server["Voter"]).lower()
        rows.append(
            (
                server["Node"],
                server["ID"],
                server["Address"],
                state,
                voter,
                server["ProtocolVersion"],
                str(last) if last else "-",
                trails,
            )
        )
    return rows


@raft_group.command("add-peer", cls=ServerCommand)
@click.option("--address", default="", metavar="IP:PORT", help="Where the server's RPC can be dialled.")
@_id
@click.option("--name", default="", help="Node name of the server. What is given must be true of it.")
@click.option("--non-voter", is_flag=True, help="Do not promote it when it has caught up.")
def add_peer(client: HttpClient, address: str, id: str, name: str, non_voter: bool) -> int:
    """Add the server at ADDRESS as a non-voter, which votes once it has caught up."""
    parameters = {"address": address} | _given(id=id, name=name) | ({"non-voter": ""} if non_voter else {})
    _ask(client, "PUT", f"{_RAFT}/peer", parameters, "adding peer")
    click.echo(f'Added peer with address "{address}"')
    return 0


@raft_group.command("remove-peer", cls=ServerCommand)
@click.option("--address", default="", metavar="IP:PORT", help="Address of the server to remove.")
@_id
def remove_peer(client: HttpClient, address: str, id: str) -> int:
    """Remove a server from the cluster, by -id or by -address."""
    if not address and not id:
        raise CommandError("Error removing peer: an address or id is required for the peer to remove")
    if address and id:
        raise CommandError("Error removing peer: cannot give both an address and id")
    _ask(client, "DELETE", f"{_RAFT}/peer", _given(address=address, id=id), "removing peer")
    click.echo(f'Removed peer with id "{id}"' if id else f'Removed peer with address "{address}"')
    return 0


@raft_group.command("promote", cls=ServerCommand)
@_id
def promote(client: HttpClient, id: str) -> int:
    """Let a non-voter that has caught up vote."""
    _ask(client, "PUT", f"{_RAFT}/promote", _given(id=id), "promoting server")
    click.echo(f'Promoted server with id "{id}"')
    return 0


@raft_group.command("demote", cls=ServerCommand)
@_id
def demote(client: HttpClient, id: str) -> int:
    """Let a voter vote no more; it stays a member."""
    _ask(client, "PUT", f"{_RAFT}/demote", _given(id=id), "demoting server")
    click.echo(f'Demoted server with id "{id}"')
    return 0


@raft_group.command("transfer-leader", cls=ServerCommand)
@_id
def transfer_leader(client: HttpClient, id: str) -> int:
    """Let another server lead: the one of -id, or the one that is furthest."""
    _ask(client, "POST", f"{_RAFT}/transfer-leader", _given(id=id), "transferring leadership")
    click.echo("Success")
    return 0


@click.command("leave", cls=ServerCommand, context_settings=HELP)
def leave_command(client: HttpClient) -> int:
    """Let an agent leave the cluster and end. A server that is started again asks to join."""
    client.ask("PUT", "/v1/agent/leave", {}, "Error leaving: ")
    click.echo("Graceful leave complete")
    return 0


def _given(**parameters: str) -> dict[str, str]:
    return {name: value for name, value in parameters.items() if value}


def _ask(client: HttpClient, method: str, path: str, parameters: dict[str, str], doing: str) -> Any:
    """The document of the answer; None if it has none."""
    _, answer = client.ask(method, path, parameters, f"Error {doing}: ")
    return json.loads(answer) if answer else None
