"""`comitia agent`, `validate` and `version`, with the flags, texts and exit codes of Consul's commands: 0, or 1."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click

from impl.commandline import HELP, GoCommand, format_option, print_json
from impl.http_client import CommandError

COMITIA = "0.1.0"


@click.command("agent", cls=GoCommand, context_settings=HELP)
@click.option("--server", is_flag=True, help="Run as a server: take part in Raft and hold the data.")
@click.option("--bootstrap-expect", type=int, help="Form a cluster once this many servers are in sight.")
@click.option("--bootstrap", is_flag=True, help="The same as -bootstrap-expect 1.")
@click.option("--retry-join", multiple=True, metavar="ADDRESS", help="Address of a server to find. Repeatable.")
@click.option("--join", multiple=True, metavar="ADDRESS", help="The same as -retry-join.")
@click.option("--retry-interval", metavar="DURATION", help="Ignored: servers are asked again within two seconds.")
@click.option("--rejoin", is_flag=True, help="As without it: a server that left asks to join when it is started.")
@click.option("--node", help="Name of this node. Default: the host name.")
@click.option("--node-id", help="UUID of this node. Default: kept in the data directory.")
@click.option("--node-meta", multiple=True, metavar="KEY:VALUE", help="Metadata of this node. Repeatable.")
@click.option("--disable-host-node-id", is_flag=True, help="As without it: IDs are not made of what the host is.")
@click.option("--datacenter", help="Name of the datacenter. Default: dc1.")
@click.option("--data-dir", help="Where a server keeps its log.")
@click.option("--bind", help="Address for server RPC. Default: 127.0.0.1.")
@click.option("--advertise", help="Address that others dial. Default: the bind address.")
@click.option("--advertise-wan", metavar="ADDRESS", help="Ignored: there is one datacenter.")
@click.option("--client", help="Address for HTTP. Default: 127.0.0.1.")
@click.option("--http-port", type=int, help="HTTP port. Default: 8500; 0: a free one, which the log reports.")
@click.option("--dns-port", type=int, help="DNS port. Default: 8600; 0: a free one, which the log reports; -1: no DNS.")
@click.option("--domain", help="Domain of the names that DNS serves. Default: consul.")
@click.option("--server-port", type=int, help="Server RPC port. Default: 8300; 0: a free one, which the log reports.")
@click.option("--serf-lan-port", type=int, help="Ignored: there is no gossip.")
@click.option("--serf-wan-port", type=int, help="Ignored: there is no gossip.")
@click.option("--grpc-port", type=int, help="Only -1: there is no gRPC API.")
@click.option("--recursor", multiple=True, metavar="ADDRESS", help="Not here: DNS answers for its own domain only.")
@click.option("--ui", is_flag=True, help="Ignored: there is no web UI.")
@click.option("--config-file", multiple=True, type=click.Path(), help="Configuration file (.json, .hcl). Repeatable.")
@click.option("--config-dir", multiple=True, type=click.Path(), help="Directory of such files, read in order.")
@click.option("--config-format", metavar="FORMAT", help="json or hcl, whatever the files are called.")
@click.option("--log-level", help="TRACE, DEBUG, INFO, WARN or ERROR. Default: INFO.")
@click.option("--log-file", metavar="FILE", help="Not here: the log goes to standard error.")
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
@click.option("--enable-script-checks", is_flag=True, help="Let checks run commands, those of HTTP users included.")
@click.option("--enable-local-script-checks", is_flag=True, help="Let checks of configuration files run commands.")
@click.option("--read-replica", is_flag=True, help="A server that never votes.")
@click.option("--pid-file", type=click.Path(), help="Write the process id here.")
def agent_command(**flags: Any) -> int:
    """Run an agent: a server that holds the data, or a client that forwards to servers."""
    from impl.agent.config import Config, ConfigError, build
    from impl.agent.run import StartError, run_agent

    with ExitStack() as stack:
        temporary = stack.enter_context(tempfile.TemporaryDirectory(prefix="comitia-")) if flags["dev"] else ""

        def read() -> Config:
            try:
                documents = _read_files(flags["config_file"], flags["config_dir"], flags["config_format"] or "")
            except OSError as error:
                raise ConfigError(f"{error.filename}: {error.strerror}") from error
            return build([*documents, _document(flags)], socket.gethostname(), temporary, ui=flags["ui"])

        try:
            config = read()
            if config.pid_file:
                stack.enter_context(_pid_file(Path(config.pid_file)))
            return run_agent(config, read)
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


def _read_files(files: Iterable[str], directories: Iterable[str], chosen: str) -> list[Any]:
    """The documents of files, and of those in directories that are configuration files; `chosen`: -config-format.

    Raises ConfigError and OSError.
    """
    from impl.agent.config import ConfigError
    from impl.agent.config_files import format_of, read_document
    from impl.http.definitions import verified_check, verified_service

    paths = [(Path(name), format_of(name, chosen)) for name in files]
    for path, form in paths:
        if not form:
            raise ConfigError(f"{path}: its extension must be .hcl or .json, or -config-format must be given")
    for directory in directories:
        found = sorted(path for path in Path(directory).iterdir() if path.is_file())
        paths.extend((path, form) for path in found if (form := format_of(path.name, chosen)))
    verify = {"service": verified_service, "check": verified_check}
    return [
        read_document(path.read_bytes(), str(path), form, lambda kind, definition: verify[kind](definition))
        for path, form in paths
    ]


def _document(flags: dict[str, Any]) -> Any:
    """The flags that were given, as a configuration document: the last one, so that flags win over files."""
    from msgspec import UNSET

    from impl.agent.config import ConfigError
    from impl.agent.config_document import Document, Performance, Ports

    def given(name: str) -> Any:
        value = flags[name]
        return UNSET if value is None or value is False else value

    multiplier = given("raft_multiplier")
    if multiplier is not UNSET and not 1 <= multiplier <= 10:
        raise ConfigError(f"invalid -raft-multiplier {multiplier}: 1 to 10")
    less = ("dns_port", "grpc_port", "serf_lan_port", "serf_wan_port")
    for name, least in (("http_port", 0), ("server_port", 0), *((name, -1) for name in less)):
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
        ports=Ports(
            server=given("server_port"),
            http=given("http_port"),
            dns=given("dns_port"),
            grpc=given("grpc_port"),
            serf_lan=given("serf_lan_port"),
            serf_wan=given("serf_wan_port"),
        ),
        domain=given("domain"),
        performance=Performance(raft_multiplier=multiplier),
        read_replica=given("read_replica"),
        enable_script_checks=given("enable_script_checks"),
        enable_local_script_checks=given("enable_local_script_checks"),
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
        bootstrap=given("bootstrap"),
        node_meta=dict(pair.split(":", 1) if ":" in pair else (pair, "") for pair in flags["node_meta"]),
        retry_interval=given("retry_interval"),
        rejoin_after_leave=given("rejoin"),
        disable_host_node_id=given("disable_host_node_id"),
        advertise_addr_wan=given("advertise_wan"),
        log_file=given("log_file"),
        recursors=list(flags["recursor"]),
    )


@click.command("validate", cls=GoCommand, context_settings=HELP)
@click.option("--quiet", is_flag=True, help="Print nothing if the configuration is valid.")
@click.option("--config-format", default="", metavar="FORMAT", help="json or hcl, whatever the files are called.")
@click.argument("paths", nargs=-1)
def validate_command(quiet: bool, config_format: str, paths: tuple[str, ...]) -> int:
    """Check configuration files (.json, .hcl), and directories of them, as `agent` would read them."""
    from impl.agent.config import ConfigError, build

    if not paths:
        raise CommandError("Must specify at least one config file or directory")
    directories = [path for path in paths if Path(path).is_dir()]
    try:
        documents = _read_files([path for path in paths if path not in directories], directories, config_format)
        config = build(documents, socket.gethostname())
    except ConfigError as error:
        raise CommandError(f"Config validation failed: {error}") from error
    except OSError as error:
        raise CommandError(f"Config validation failed: {error.filename}: {error.strerror}") from error
    for warning in config.warnings:
        click.echo(warning, err=True)
    if not quiet:
        click.echo("Configuration is valid!")
    return 0


@click.command("version", cls=GoCommand, context_settings=HELP)
@format_option
def version_command(form: str) -> int:
    """Print the version of Comitia, and the release of Consul whose interfaces it has."""
    from impl.agent.describe import VERSION as CONSUL

    if form == "json":
        print_json({"Version": COMITIA, "ConsulVersion": CONSUL})
    else:
        click.echo(f"Comitia v{COMITIA}\nHTTP API, DNS and commands of Consul v{CONSUL}")
    return 0
