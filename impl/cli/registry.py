"""`comitia catalog | services | members | info`: what is registered, and who is there, for people and for machines.

The flags, texts and exit codes are those of Consul's commands (`members` without any: 2); `-format=json` for what
Consul prints as tables only is Comitia's own, and prints the documents of the HTTP API.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from impl.cli.agent import configuration_files, read_configuration
from impl.cli.commandline import HELP, GoGroup, columns, format_option, print_json, read_data
from impl.cli.http_client import ClientCommand, CommandError, HttpClient, ServerCommand

SERF_STATUSES = ("none", "alive", "leaving", "left", "failed")
"""By the number that `/v1/agent/members` shows."""
NO_MEMBERS = 2

Parameters = list[tuple[str, str]]
Document = dict[str, Any]


def _given_pairs(context: click.Context, parameter: click.Parameter, given: Sequence[str]) -> dict[str, str]:
    """Callback of options KEY=VALUE. Raises click.BadParameter."""
    for each in given:
        if "=" not in each:
            raise click.BadParameter(f'Missing "=" value in argument: {each}', context, parameter)
    return dict(each.split("=", 1) for each in given)


_node_meta = click.option(
    "--node-meta",
    multiple=True,
    metavar="KEY=VALUE",
    callback=_given_pairs,
    help="Only nodes with this metadata. Repeatable.",
)


def _get(client: HttpClient, path: str, parameters: Parameters, failure: str) -> Any:
    return json.loads(client.query("GET", path, parameters, f"{failure}: ").body)


def _query(node_meta: dict[str, str], filter: str = "") -> Parameters:
    parameters = [("node-meta", f"{name}:{value}") for name, value in node_meta.items()]
    return parameters + ([("filter", filter)] if filter else [])


# --- catalog ----------------------------------------------------------------------------------------------------------


@click.group("catalog", cls=GoGroup, context_settings=HELP)
def catalog_command() -> None:
    """Look at the catalog of a datacenter."""


@catalog_command.command("datacenters", cls=ServerCommand)
@format_option
def datacenters(client: HttpClient, form: str) -> int:
    """Print the names of the datacenters."""
    names = _get(client, "/v1/catalog/datacenters", [], "Error listing datacenters")
    print_json(names) if form == "json" else click.echo("\n".join(names))
    return 0


@catalog_command.command("nodes", cls=ServerCommand)
@_node_meta
@click.option("--service", default="", help="Only nodes with an instance of this service.")
@click.option("--filter", default="", help="Consul's filter expression: text, @FILE, or - for standard input.")
@click.option("--near", default="", help="Name of a node to sort by. Without coordinates the order stays as it is.")
@click.option("--detailed", is_flag=True, help="Whole ids, tagged addresses and metadata too.")
@format_option
def nodes(
    client: HttpClient,
    node_meta: dict[str, str],
    service: str,
    filter: str,
    near: str,
    detailed: bool,
    form: str,
) -> int:
    """Print the nodes that are registered."""
    parameters = _query(node_meta, read_data(filter).decode()) + ([("near", near)] if near else [])
    if service:
        path = f"/v1/catalog/service/{quote(service, safe='')}"
        found = [_node_of(each) for each in _get(client, path, parameters, "Error listing nodes for service")]
    else:
        found = _get(client, "/v1/catalog/nodes", parameters, "Error listing nodes")
    if form == "json":
        print_json(found)
    elif not found:
        click.echo("No nodes match the given query - try expanding your search.", err=True)
    else:
        click.echo(columns(node_rows(found, detailed)))
    return 0


def _node_of(instance: Document) -> Document:
    shown = ("ID", "Node", "Address", "Datacenter", "TaggedAddresses")
    return {name: instance[name] for name in shown} | {"Meta": instance["NodeMeta"]}


def node_rows(found: Sequence[Document], detailed: bool) -> list[tuple[str, ...]]:
    """The table of `catalog nodes`, its header first."""
    rows: list[tuple[str, ...]] = [("Node", "ID", "Address", "DC")]
    if detailed:
        rows = [("Node", "ID", "Address", "DC", "TaggedAddresses", "Meta")]
    for node in found:
        id = node["ID"] if detailed else node["ID"].partition("-")[0]
        row = (node["Node"], id, node["Address"], node["Datacenter"])
        more = (_pairs(node["TaggedAddresses"]), _pairs(node["Meta"])) if detailed else ()
        rows.append((*row, *more))
    return rows


def _pairs(values: dict[str, str] | None) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted((values or {}).items()))


@catalog_command.command("services", cls=ServerCommand)
@_node_meta
@click.option("--node", default="", help="Only services with an instance on this node.")
@click.option("--tags", is_flag=True, help="Print the tags of each service too.")
@format_option
def services(client: HttpClient, node_meta: dict[str, str], node: str, tags: bool, form: str) -> int:
    """Print the names of the services that are registered."""
    parameters = _query(node_meta)
    found: dict[str, list[str]] = {}
    if node:
        path = f"/v1/catalog/node/{quote(node, safe='')}"
        on_node = _get(client, path, parameters, "Error listing services for node")
        for instance in (on_node or {"Services": {}})["Services"].values():
            found.setdefault(instance["Service"], []).extend(instance["Tags"] or [])
    else:
        found = _get(client, "/v1/catalog/services", parameters, "Error listing services")
    if form == "json":
        print_json({name: sorted(found[name]) for name in sorted(found)})
    elif not found:
        click.echo("No services match the given query - try expanding your search.", err=True)
    elif tags:
        width = max(map(len, found)) + 6  # as Consul's table, which is another one than its others
        click.echo("\n".join(f"{name:<{width}}{','.join(sorted(found[name]))}".rstrip() for name in sorted(found)))
    else:
        click.echo("\n".join(sorted(found)))
    return 0


# --- the agent's own --------------------------------------------------------------------------------------------------


@click.group("services", cls=GoGroup, context_settings=HELP)
def services_command() -> None:
    """Register services with an agent."""


@services_command.command("register", cls=ServerCommand)
@click.option("--name", default="", help="Name of the service.")
@click.option("--id", default="", help="ID of the instance. Default: the name.")
@click.option("--address", default="", help="Address of the instance. Default: the node's.")
@click.option("--port", type=int, default=0, help="Port of the instance.")
@click.option("--kind", default="", help="Kind of the service.")
@click.option("--tag", multiple=True, help="A tag. Repeatable.")
@click.option("--meta", multiple=True, metavar="KEY=VALUE", callback=_given_pairs, help="Metadata. Repeatable.")
@click.option(
    "--tagged-address",
    multiple=True,
    metavar="TAG=HOST:PORT",
    callback=_given_pairs,
    help="A further address. Repeatable.",
)
@click.argument("files", metavar="[PATH]...", nargs=-1)
def register(
    client: HttpClient,
    name: str,
    id: str,
    address: str,
    port: int,
    kind: str,
    tag: tuple[str, ...],
    meta: dict[str, str],
    tagged_address: dict[str, str],
    files: tuple[str, ...],
) -> int:
    """Register the service that the flags describe, or those of configuration files, with what else the flags say."""
    if not files and not name:
        raise CommandError("Service registration requires at least one argument or flags.")
    if files and name:
        raise CommandError("Service registration requires arguments or -id, not both.")
    described: Document = {"ID": id, "Name": name, "Address": address, "Port": port, "Kind": kind, "Tags": list(tag)}
    described |= {"Meta": meta, "TaggedAddresses": {each: _address(text) for each, text in tagged_address.items()}}
    described = {name: value for name, value in described.items() if value}
    definitions = [_combined(each, described) for each in _definitions(files)] if files else [described]
    for definition in definitions:
        shown = _field(definition, "Name")
        failure = f'Error registering service "{shown}": '
        client.ask("PUT", "/v1/agent/service/register", {}, failure, json.dumps(definition).encode())
        click.echo(f"Registered service: {shown}")
    return 0


def _address(text: str) -> Document:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        return {"Address": text.strip("[]"), "Port": 0}
    if not port.isdecimal():
        raise CommandError(f"Invalid Tagged Address: {text!r} is not HOST:PORT")
    return {"Address": host.strip("[]"), "Port": int(port)}


def _combined(definition: Document, described: Document) -> Document:
    """A file's definition with what flags say: tags and pairs are added, what the file does not say is filled in."""
    combined = dict(definition)
    for name, value in described.items():
        plain = name.lower()
        key = next((key for key in definition if key.lower().replace("_", "") == plain), name)
        said = definition.get(key)
        match value:
            case list():
                combined[key] = [*(said or []), *value]
            case dict():
                combined[key] = {**(said or {}), **value}
            case _:
                combined[key] = said or value
    return combined


@services_command.command("deregister", cls=ServerCommand)
@click.option("--id", default="", help="ID of an instance.")
@click.argument("files", metavar="[PATH]...", nargs=-1)
def deregister(client: HttpClient, id: str, files: tuple[str, ...]) -> int:
    """Deregister the instance of -id, or those of configuration files."""
    if not files and not id:
        raise CommandError("Service deregistration requires at least one argument or -id.")
    if files and id:
        raise CommandError("Service deregistration requires arguments or -id, not both.")
    ids = [_field(each, "ID") or _field(each, "Name") for each in _definitions(files)] if files else [id]
    for each in ids:
        failure = f'Error deregistering service "{each}": '
        client.ask("PUT", f"/v1/agent/service/deregister/{quote(each, safe='')}", {}, failure)
        click.echo(f"Deregistered service: {each}")
    return 0


def _definitions(paths: Sequence[str]) -> list[Document]:
    """The definitions in configuration files, JSON or HCL, and in directories of them. Raises CommandError."""
    from impl.agent.config.files import format_of
    from impl.agent.config.validated import ConfigError

    found: list[Document] = []
    for name in paths:
        try:
            within = configuration_files([name]) if Path(name).is_dir() else [(Path(name), format_of(name) or "json")]
            documents = [read_configuration(path.read_bytes(), str(path), form) for path, form in within]
        except OSError as error:
            raise CommandError(f"Error: {error.filename}: {error.strerror}") from error
        except ConfigError as error:
            raise CommandError(f"Error: {error}") from error
        services = [each for document in documents for each in document.services or []]
        if not services:
            raise CommandError(f"Error: {name} defines no service: give it as 'service' or in 'services', with a name")
        found += services
    return found


def _field(definition: Document, name: str) -> str:
    """A definition's field, whatever the case of its key."""
    return next((str(value) for key, value in definition.items() if key.lower() == name.lower()), "")


@click.command("members", cls=ClientCommand, context_settings=HELP)
@click.option("--detailed", is_flag=True, help="Print all that is known of each member.")
@click.option("--wan", is_flag=True, help="Only servers, by their names in all datacenters.")
@click.option("--status", default=".*", metavar="REGEXP", help="Only members whose status matches.")
@click.option("--partition", default="", help="Not here: a partition of Consul Enterprise.")
@click.option("--segment", default="", help="Not here: a network segment of Consul Enterprise.")
@click.option("--filter", default="", help="Consul's filter expression.")
@format_option
def members_command(
    client: HttpClient, detailed: bool, wan: bool, status: str, partition: str, segment: str, filter: str, form: str
) -> int:
    """Print the members of the cluster: its servers and client agents."""
    try:
        wanted = re.compile(status)
    except re.error as error:
        raise CommandError(f"Failed to compile status regexp: {error}") from error
    if segment not in ("", "_all"):
        raise CommandError("Error retrieving members: Network segments are not supported: leave -segment out")
    parameters = [("wan", "1")] if wan else [("segment", "_all")]
    parameters += [(name, value) for name, value in (("partition", partition), ("filter", filter)) if value]
    found = _get(client, "/v1/agent/members", parameters, "Error retrieving members")
    found = [member for member in found if wanted.search(_status(member))]
    if not found:
        return NO_MEMBERS
    found.sort(key=lambda member: (member["Tags"].get("role") != "consul", member["Name"]))
    print_json(found) if form == "json" else click.echo(columns(member_rows(found, detailed)))
    return 0


def _status(member: Document) -> str:
    number = member["Status"]
    return SERF_STATUSES[number] if 0 <= number < len(SERF_STATUSES) else f"unknown status: {number}"


def member_rows(members: Sequence[Document], detailed: bool) -> list[tuple[str, ...]]:
    """The table of `members`, its header first."""
    header = ("Node", "Address", "Status", "Type", "Build", "Protocol", "DC", "Partition", "Segment")
    rows: list[tuple[str, ...]] = [("Node", "Address", "Status", "Tags") if detailed else header]
    for member in members:
        tags, host = member["Tags"], member["Addr"]
        address = f"[{host}]:{member['Port']}" if ":" in host else f"{host}:{member['Port']}"
        first = (member["Name"], address, _status(member))
        kind, segment = ("server", "<all>") if tags.get("role") == "consul" else ("client", "<default>")
        if detailed:
            shown = {"partition": "default", "segment": segment, **tags}
            rows.append((*first, ",".join(f"{name}={value}" for name, value in sorted(shown.items()))))
            continue
        build = tags.get("build", "").partition(":")[0]
        protocol = tags.get("vsn") or str(member.get("ProtocolCur", ""))
        rows.append((*first, kind, build, protocol, tags.get("dc", ""), "default", segment))
    return rows


@click.command("info", cls=ServerCommand, context_settings=HELP)
@format_option
def info_command(client: HttpClient, form: str) -> int:
    """Print the statistics of an agent."""
    statistics = _get(client, "/v1/agent/self", [], "Error querying agent")["Stats"]
    if form == "json":
        print_json(statistics)
        return 0
    for name, values in sorted(statistics.items()):
        click.echo(f"{name}:")
        for key, value in sorted(values.items()):
            click.echo(f"\t{key} = {value if isinstance(value, str) else json.dumps(value)}")
    return 0
