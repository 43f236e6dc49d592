"""`comitia agent`, `validate` and `version`, with the flags, texts and exit codes of Consul's commands: 0, or 1."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from impl.agent.config.absent import ABSENT, FLAGS, SWITCHES, Asked
from impl.cli.commandline import HELP, GoCommand, format_option, print_json
from impl.cli.http_client import CommandError

if TYPE_CHECKING:
    from impl.agent.config.document import Document

COMITIA = "0.1.0"


def _absent_flags(command: Callable[..., int]) -> Callable[..., int]:
    """Consul's flags for what Comitia has not."""
    for flag, key in sorted(FLAGS.items(), reverse=True):
        absent = ABSENT[key]
        text = f"{'Not here' if absent.remedy else 'Ignored'}: {absent.why}." if absent.why else "As without it."
        command = click.option(f"--{flag}", is_flag=flag in SWITCHES, default=None, help=text)(command)
    return command


@click.command("agent", cls=GoCommand, context_settings=HELP)
@click.option("--server", is_flag=True, help="Run as a server: take part in Raft and hold the data.")
@click.option("--bootstrap-expect", type=int, help="Form a cluster once this many servers are in sight.")
@click.option("--bootstrap", is_flag=True, help="The same as -bootstrap-expect 1.")
@click.option("--retry-join", multiple=True, metavar="ADDRESS", help="Address of a server to find. Repeatable.")
@click.option("--join", multiple=True, metavar="ADDRESS", help="The same as -retry-join.")
@click.option("--node", help="Name of this node. Default: the host name.")
@click.option("--node-id", help="UUID of this node. Default: kept in the data directory.")
@click.option("--node-meta", multiple=True, metavar="KEY:VALUE", help="Metadata of this node. Repeatable.")
@click.option("--datacenter", help="Name of the datacenter. Default: dc1.")
@click.option("--data-dir", help="Where a server keeps its log.")
@click.option("--bind", help="Address for server RPC. Default: 127.0.0.1.")
@click.option("--advertise", help="Address that others dial. Default: the bind address.")
@click.option("--client", help="Address for HTTP. Default: 127.0.0.1.")
@click.option("--http-port", type=int, help="HTTP port. Default: 8500; 0: a free one, which the log reports.")
@click.option("--dns-port", type=int, help="DNS port. Default: 8600; 0: a free one, which the log reports; -1: no DNS.")
@click.option("--domain", help="Domain of the names that DNS serves. Default: consul.")
@click.option("--server-port", type=int, help="Server RPC port. Default: 8300; 0: a free one, which the log reports.")
@click.option(
    *("--config-file", "--config-dir", "config_paths"),
    multiple=True,
    metavar="PATH",
    help="Configuration file (.json, .hcl), or directory of such files. Repeatable; later ones win.",
)
@click.option("--hcl", multiple=True, metavar="TEXT", help="Configuration in HCL, which wins over flags. Repeatable.")
@click.option("--config-format", metavar="FORMAT", help="json or hcl, whatever the files are called.")
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
@click.option("--enable-script-checks", is_flag=True, help="Let checks run commands, those of HTTP users included.")
@click.option("--enable-local-script-checks", is_flag=True, help="Let checks of configuration files run commands.")
@click.option("--read-replica", "--non-voting-server", is_flag=True, help="A server that never votes.")
@click.option("--pid-file", type=click.Path(), help="Write the process id here.")
@_absent_flags
def agent_command(**flags: Any) -> int:
    """Run an agent: a server that holds the data, or a client that forwards to servers."""
    from impl.agent.config.validated import Config, ConfigError, build
    from impl.agent.run import StartError, run_agent

    with ExitStack() as stack:
        temporary = stack.enter_context(tempfile.TemporaryDirectory(prefix="comitia-")) if flags["dev"] else ""

        def read() -> Config:
            try:
                documents = _read_files(flags["config_paths"], flags["config_format"] or "")
            except OSError as error:
                raise ConfigError(f"{error.filename}: {error.strerror}") from error
            fragments = [read_configuration(text.encode(), "-hcl", "hcl") for text in flags["hcl"]]
            return build([*documents, _document(flags), *fragments], socket.gethostname(), temporary)

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


def _read_files(paths: Iterable[str], chosen: str) -> list[Document]:
    """The documents of `configuration_files`. Raises ConfigError and OSError."""
    return [read_configuration(path.read_bytes(), str(path), form) for path, form in configuration_files(paths, chosen)]


def configuration_files(paths: Iterable[str], chosen: str = "") -> list[tuple[Path, str]]:
    """Files, and those in directories that are configuration files, with their formats; `chosen`: -config-format.

    Raises:
        ConfigError: a file that was named has no format, or there is no such format.
        OSError: a directory cannot be read.
    """
    from impl.agent.config.files import format_of
    from impl.agent.config.validated import ConfigError

    found: list[tuple[Path, str]] = []
    for path in map(Path, paths):
        if path.is_dir():
            # A link to nothing is a mistake that reading tells of.
            within = sorted(each for each in path.iterdir() if not each.is_dir())
            found += [(each, form) for each in within if (form := format_of(each.name, chosen))]
        elif form := format_of(path.name, chosen):
            found.append((path, form))
        else:
            raise ConfigError(f"{path}: its extension must be .hcl or .json, or -config-format must be given")
    return found


def read_configuration(text: bytes, source: str, form: str) -> Document:
    """What one source says, services and checks verified. Raises ConfigError."""
    from impl.agent.config.files import read_document
    from impl.http.definitions import verified_check, verified_service

    verify = {"service": verified_service, "check": verified_check}
    return read_document(text, source, form, lambda kind, definition: verify[kind](definition))


def _document(flags: dict[str, Any]) -> Document:
    """The flags that were given, as a configuration document: the last one, so that flags win over files."""
    from msgspec import UNSET

    from impl.agent.config.document import Document, Performance, Ports
    from impl.agent.config.validated import ConfigError

    def given(name: str) -> Any:
        value = flags[name]
        return UNSET if value is None or value is False else value

    def said_of(flag: str) -> Any:
        return flags[flag.replace("-", "_")]

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
        ports=Ports(
            server=given("server_port"),
            http=given("http_port"),
            dns=given("dns_port"),
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
        absent={key: Asked(f"-{flag}", "", said) for flag, key in FLAGS.items() if (said := said_of(flag)) is not None},
    )


@click.command("validate", cls=GoCommand, context_settings=HELP)
@click.option("--quiet", is_flag=True, help="Print nothing if the configuration is valid.")
@click.option("--config-format", default="", metavar="FORMAT", help="json or hcl, whatever the files are called.")
@click.argument("paths", nargs=-1)
def validate_command(quiet: bool, config_format: str, paths: tuple[str, ...]) -> int:
    """Check configuration files (.json, .hcl), and directories of them, as `agent` would read them."""
    from impl.agent.config.validated import ConfigError, build

    if not paths:
        raise CommandError("Must specify at least one config file or directory")
    try:
        config = build(_read_files(paths, config_format), socket.gethostname())
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
