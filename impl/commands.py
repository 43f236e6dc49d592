"""`comitia agent` and `comitia kv`, with the flags, texts and exit codes of Consul's commands: 0, or 1 on any error."""

from __future__ import annotations

import base64
import json
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from impl.commandline import GoCommand
from impl.http_client import CommandError, HttpClient, address_option


@click.command("agent", cls=GoCommand, context_settings={"help_option_names": ["-h", "-help", "--help"]})
@click.option("--server", is_flag=True, help="Run as a server: take part in Raft and hold the data.")
@click.option("--bootstrap-expect", type=int, help="Form a cluster once this many servers are in sight.")
@click.option("--retry-join", multiple=True, metavar="ADDRESS", help="Address of a server to find. Repeatable.")
@click.option("--join", multiple=True, metavar="ADDRESS", help="The same as -retry-join.")
@click.option("--node", help="Name of this node. Default: the host name.")
@click.option("--node-id", help="UUID of this node. Default: kept in the data directory.")
@click.option("--datacenter", help="Name of the datacenter. Default: dc1.")
@click.option("--data-dir", help="Where a server keeps its log.")
@click.option("--bind", help="Address for server RPC. Default: 127.0.0.1.")
@click.option("--advertise", help="Address that others dial. Default: the bind address.")
@click.option("--client", help="Address for HTTP. Default: 127.0.0.1.")
@click.option("--http-port", type=int, help="HTTP port. Default: 8500; 0: a free one, which the log reports.")
@click.option("--dns-port", type=int, help="DNS port. Default: 8600; 0: a free one, which the log reports; -1: no DNS.")
@click.option("--domain", help="Domain of the names that DNS serves. Default: consul.")
@click.option("--server-port", type=int, help="Server RPC port. Default: 8300; 0: a free one, which the log reports.")
@click.option("--config-file", multiple=True, type=click.Path(), help="Configuration file (JSON). Repeatable.")
@click.option("--config-dir", multiple=True, type=click.Path(), help="Directory of *.json files, read in order.")
@click.option("--log-level", help="TRACE, DEBUG, INFO, WARN or ERROR. Default: INFO.")
@click.option("--log-json", is_flag=True, help="Write the log as JSON.")
@click.option("--trace", metavar="DIR", help="Record every step of Raft and every answer, for `comitia check trace`.")
@click.option("--allow-insecure-rpc", is_flag=True, help="Bind server RPC to an address that others can reach.")
@click.option("--dev", is_flag=True, help="One server alone, with a data directory that is removed at the end.")
@click.option("--raft-multiplier", type=int, help="Scales Raft's timings, 1 to 10. Default: 1.")
@click.option("--raft-snapshot-threshold", type=int, help="Entries between two snapshots. Default: 16384.")
@click.option("--raft-snapshot-interval", help="How often to look whether a snapshot is due. Default: 30s.")
@click.option("--raft-trailing-logs", type=int, help="Entries kept in the log behind a snapshot. Default: 10240.")
@click.option("--raft-lease-ms", type=int, help="Length of a leader's lease. Default: 250 x multiplier; 0: no leases.")
@click.option("--clock-drift", type=float, help="By which part the rates of two clocks may differ. Default: 0.05.")
@click.option("--read-replica", is_flag=True, help="A server that never votes.")
@click.option("--pid-file", type=click.Path(), help="Write the process id here.")
def agent_command(**flags: Any) -> int:
    """Run an agent: a server that holds the data, or a client that forwards to servers."""
    from impl.agent.config import ConfigError, build
    from impl.agent.run import StartError, run_agent

    with ExitStack() as stack:
        temporary = stack.enter_context(tempfile.TemporaryDirectory(prefix="comitia-")) if flags["dev"] else ""
        try:
            config = build([*_read_files(flags), _document(flags)], socket.gethostname(), temporary)
            if config.pid_file:
                stack.enter_context(_pid_file(Path(config.pid_file)))
            return run_agent(config)
        except (ConfigError, StartError) as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            raise click.ClickException(f"{error.filename or 'the system'}: {error.strerror}") from error


@contextmanager
def _pid_file(path: Path) -> Iterator[None]:
    path.write_text(f"{os.getpid()}\n")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _read_files(flags: dict[str, Any]) -> list[Any]:
    from impl.agent.config import read_document

    paths = [Path(name) for name in flags["config_file"]]
    for directory in flags["config_dir"]:
        paths.extend(sorted(Path(directory).glob("*.json")))
    return [read_document(path.read_bytes(), str(path)) for path in paths]


def _document(flags: dict[str, Any]) -> Any:
    """The flags that were given, as a configuration document: the last one, so that flags win over files."""
    from msgspec import UNSET

    from impl.agent.config import ConfigError, Document, Performance, Ports

    def given(name: str) -> Any:
        value = flags[name]
        return UNSET if value is None or value is False else value

    multiplier = given("raft_multiplier")
    if multiplier is not UNSET and not 1 <= multiplier <= 10:
        raise ConfigError(f"invalid -raft-multiplier {multiplier}: 1 to 10")
    for name, least in (("http_port", 0), ("server_port", 0), ("dns_port", -1)):
        if flags[name] is not None and not least <= flags[name] <= 65535:
            raise ConfigError(f"invalid -{name.replace('_', '-')} {flags[name]}: {least} to 65535")
    for name, least in (("raft_snapshot_threshold", 1), ("raft_trailing_logs", 0), ("raft_lease_ms", 0)):
        if flags[name] is not None and flags[name] < least:
            raise ConfigError(f"invalid -{name.replace('_', '-')} {flags[name]}: {least} or more")
    return Document(
        server=given("server"),
        bootstrap_expect=given("bootstrap_expect"),
        retry_join=list(flags["retry_join"]),
        start_join=list(flags["join"]),
        node_name=given("node"),
        node_id=given("node_id"),
        datacenter=given("datacenter"),
        data_dir=given("data_dir"),
        bind_addr=given("bind"),
        advertise_addr=given("advertise"),
        client_addr=given("client"),
        ports=Ports(server=given("server_port"), http=given("http_port"), dns=given("dns_port")),
        domain=given("domain"),
        performance=Performance(raft_multiplier=multiplier),
        read_replica=given("read_replica"),
        raft_snapshot_threshold=given("raft_snapshot_threshold"),
        raft_snapshot_interval=given("raft_snapshot_interval"),
        raft_trailing_logs=given("raft_trailing_logs"),
        raft_lease_ms=given("raft_lease_ms"),
        clock_drift=given("clock_drift"),
        log_level=given("log_level"),
        log_json=given("log_json"),
        pid_file=given("pid_file"),
        trace_dir=given("trace"),
        allow_insecure_rpc=given("allow_insecure_rpc"),
        dev=given("dev"),
    )


_VERBS = {"GET": "read", "PUT": "write", "DELETE": "delete"}


class KvClient:
    """`/v1/kv` of one agent, as the command line needs it."""

    def __init__(self, address: str) -> None:
        self._http = HttpClient(address)

    def ask(self, method: str, key: str, parameters: dict[str, str], body: bytes | None = None) -> tuple[int, bytes]:
        """Status and body; the statuses that every command treats as errors are raised."""
        failure = f"Error! Failed to {_VERBS[method]} key: "
        return self._http.ask(method, f"/v1/kv/{quote(key)}", parameters, failure, body, accepted=(200, 404))


_stale = click.option("--stale", is_flag=True, help="Any server may answer, from what it has applied.")
_consistent = click.option("--consistent", is_flag=True, help="The leader confirms that it leads before it answers.")


@click.group("kv", context_settings={"help_option_names": ["-h", "-help", "--help"]})
def kv_command() -> None:
    """Read and write keys."""


@kv_command.command("get", cls=GoCommand)
@address_option
@_stale
@_consistent
@click.option("--base64", "as_base64", is_flag=True, help="Print the value in base64.")
@click.option("--detailed", is_flag=True, help="Print the indexes and flags too.")
@click.option("--keys", is_flag=True, help="Print the names of the keys that start with KEY.")
@click.option("--recurse", is_flag=True, help="Print every key that starts with KEY.")
@click.option("--separator", default="/", help="With -keys: where to cut names.")
@click.argument("key", default="")
def kv_get(http_addr: str, key: str, keys: bool, recurse: bool, separator: str, **how: bool) -> int:
    """Print the value of KEY."""
    parameters = {name: "" for name in ("stale", "consistent") if how[name]}
    client = KvClient(http_addr)
    if keys:
        status, answer = client.ask("GET", key, parameters | {"keys": "", "separator": separator})
        for name in json.loads(answer) if status == 200 else []:
            click.echo(name)
        return 0
    if not key and not recurse:
        raise CommandError("Error! Missing KEY argument")
    status, answer = client.ask("GET", key, parameters | ({"recurse": ""} if recurse else {}))
    if status == 404 and not recurse:
        raise CommandError(f"Error! No key exists at: {key}")
    for number, row in enumerate(json.loads(answer) if status == 200 else []):
        if how["detailed"] and number:
            click.echo()
        _print_row(row, recurse, how["as_base64"], how["detailed"])
    return 0


def _print_row(row: dict[str, Any], recurse: bool, as_base64: bool, detailed: bool) -> None:
    value = (row["Value"] or "").encode() if as_base64 else base64.b64decode(row["Value"] or "")
    if detailed:
        for name in ("CreateIndex", "Flags", "Key", "LockIndex", "ModifyIndex"):
            click.echo(f"{name:<16} {row[name]}")
        click.echo(f"{'Session':<16} -")
        value = f"{'Value':<16} ".encode() + value
    elif recurse:
        value = f"{row['Key']}:".encode() + value
    sys.stdout.buffer.write(value + b"\n")
    sys.stdout.flush()


@kv_command.command("put", cls=GoCommand)
@address_option
@click.option("--cas", is_flag=True, help="Only if the key's ModifyIndex is -modify-index; 0: only if it is new.")
@click.option("--modify-index", type=int, default=0)
@click.option("--flags", type=int, default=0, help="A number stored with the value.")
@click.option("--base64", "as_base64", is_flag=True, help="DATA is in base64.")
@click.argument("key")
@click.argument("data", default="")
def kv_put(http_addr: str, cas: bool, modify_index: int, flags: int, as_base64: bool, key: str, data: str) -> int:
    """Set KEY to DATA: text, @FILE, or - for standard input."""
    value = _read_data(data)
    if as_base64:
        try:
            value = base64.b64decode(value, validate=True)
        except ValueError as error:
            raise CommandError(f"Error! Cannot base 64 decode data: {error}") from error
    parameters = {"flags": str(flags)} if flags else {}
    if cas:
        parameters["cas"] = str(modify_index)
    _, answer = KvClient(http_addr).ask("PUT", key, parameters, value)
    if answer.strip() != b"true":
        raise CommandError(f"Error! Did not write to {key}: CAS failed")
    click.echo(f"Success! Data written to: {key}")
    return 0


def _read_data(data: str) -> bytes:
    try:
        if data == "-":
            return sys.stdin.buffer.read()
        return Path(data[1:]).read_bytes() if data.startswith("@") else data.encode()
    except OSError as error:
        raise CommandError(f"Error! Failed to read file: {error}") from error


@kv_command.command("delete", cls=GoCommand)
@address_option
@click.option("--cas", is_flag=True, help="Only if the key's ModifyIndex is -modify-index.")
@click.option("--modify-index", type=int, default=0)
@click.option("--recurse", is_flag=True, help="Delete every key that starts with KEY.")
@click.argument("key", default="")
def kv_delete(http_addr: str, cas: bool, modify_index: int, recurse: bool, key: str) -> int:
    """Delete KEY."""
    if cas and recurse:
        raise CommandError("Error! Cannot specify both -cas and -recurse")
    if cas and not modify_index:
        raise CommandError("Error! Must specify a -modify-index greater than 0 with -cas")
    if not key and not recurse:
        raise CommandError("Error! Missing KEY argument")
    parameters = {"recurse": ""} if recurse else {"cas": str(modify_index)} if cas else {}
    _, answer = KvClient(http_addr).ask("DELETE", key, parameters)
    if answer.strip() != b"true":
        raise CommandError(f"Error! Did not delete key {key}: CAS failed")
    click.echo(f"Success! Deleted keys with prefix: {key}" if recurse else f"Success! Deleted key: {key}")
    return 0


@kv_command.command("export", cls=GoCommand)
@address_option
@_stale
@click.argument("prefix", default="")
def kv_export(http_addr: str, stale: bool, prefix: str) -> int:
    """Print every key that starts with PREFIX as JSON: key, flags, value in base64."""
    parameters = {"recurse": ""} | ({"stale": ""} if stale else {})
    status, answer = KvClient(http_addr).ask("GET", prefix, parameters)
    rows = json.loads(answer) if status == 200 else []
    exported = [{"key": row["Key"], "flags": row["Flags"], "value": row["Value"] or ""} for row in rows]
    click.echo(json.dumps(exported, indent="\t"))
    return 0
