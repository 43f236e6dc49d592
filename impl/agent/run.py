"""Runs one agent in the real world, from its configuration to its exit code.

Everything that can be wrong at the start is one line that says what to do, before anything is promised to anybody.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from errno import EADDRINUSE
from functools import partial
from hashlib import blake2b
from uuid import UUID

from impl.agent.client import Client
from impl.agent.config.reload import Definitions, Parts, Reloading
from impl.agent.config.validated import Config, ConfigError
from impl.agent.describe import VERSION
from impl.agent.dns import Dns, serve_dns
from impl.agent.ending import SIGNALS, Ending
from impl.agent.gauges import show_local, show_process
from impl.agent.local.registrations import Registrations, Scripts
from impl.agent.logs import Log, Value
from impl.agent.membership.outage_recovery import recover_from_peers
from impl.agent.membership.reconcile import CONSUL
from impl.agent.requests.api import Agent
from impl.agent.requests.begun import ShortWay
from impl.agent.server import Server
from impl.catalog.rows import Node
from impl.http.app import Application
from impl.http.context import Controls
from impl.http.definitions import configured
from impl.http.direct import DirectKv
from impl.http.measures import HttpMeasures
from impl.rpc.bind import InsecureBind, check_bind
from impl.runtime.http_connections import Connections
from impl.runtime.http_server import HttpServer
from impl.runtime.interfaces import NANOSECONDS, Runtime
from impl.runtime.off_loop import ignore
from impl.runtime.probes import RealProber
from impl.runtime.real import run
from impl.storage.data_directory import DataDirectory, open_data_directory
from impl.storage.errors import StorageError
from impl.telemetry.instruments import Telemetry


class StartError(Exception):
    """The agent cannot run. The text is one line that says why and what to do."""


def run_agent(config: Config, read: Callable[[], Config]) -> int:
    """Run until a signal ends it: 0.

    Args:
        read: reads the configuration again; blocks, and raises ConfigError.

    Raises:
        ConfigError: a service or check that the configuration defines makes no sense.
        StartError: it cannot start, or cannot be part of the cluster that it found.
    """
    return run(lambda runtime: _agent(runtime, config, read))


async def _agent(runtime: Runtime, config: Config, read: Callable[[], Config]) -> int:
    log = _log(runtime, config)
    ending = Ending(runtime, log, config.leaves_on)
    reloading: Reloading | None = None

    async def reload() -> None:
        if reloading is None:
            log.warn("SIGHUP before the agent has started: nothing to reload")
            return
        with suppress(ConfigError):  # the log says it
            await reloading.reload()

    def hung_up() -> None:
        runtime.tasks.spawn(reload(), "reload")

    runtime.host.on_signal("SIGHUP", hung_up)
    scripts = _may_run_scripts(config)

    def defined(by: Config) -> Definitions:
        return configured(by.services, by.checks, scripts)

    definitions = defined(config)
    telemetry = Telemetry(runtime.clock, runtime.host.hostname, config.telemetry)
    show_process(telemetry, runtime, log)
    started = await _start(
        runtime, config, log, lambda why: ending.fail(StartError(why)), partial(ending.stop, "leave"), telemetry
    )
    agent = started.agent
    if config.server:  # a client agent leaves as it stops
        ending.leave = agent.leave
    local = _own_services(runtime, config, started, definitions, log.named("local"))
    show_local(telemetry, local)

    http: HttpServer | None = None
    names: Dns | None = None
    reason, orderly = "a defect", False
    try:
        names = await _listen_dns(runtime, config, agent, log, telemetry)
        answers = names.responder.reconfigure if names is not None else ignore
        connections = Connections(config.http_max_conns_per_client)
        parts = Parts(log, telemetry, local, _with_own_meta, answers, connections, started.reconfigure)
        reloading = Reloading(runtime, config, read, defined, parts)
        controls = Controls(telemetry, log, reloading.reload, config.data_dir)
        http = _serve_http(runtime, config, log.named("http"), telemetry, started, local, controls, connections)
        ports: dict[str, Value] = {
            "http": _shown(http.address),
            "dns": _shown(names.server.address) if names else "off",
        }
        log.info("agent started", node=config.node_name, **ports, **started.facts)
        local.start()
        telemetry.start()
        reason, orderly = await ending.reason, True
        log.info("stopping", reason=reason)
    except StartError:
        reason, orderly = "it cannot run here, or be part of the cluster", True
        raise
    finally:
        telemetry.stop()
        local.stop()
        # A client agent that stays a member says no good-bye: it is found to have failed, until it is back.
        stays = not config.server and reason in SIGNALS and reason not in config.leaves_on
        await started.stop(reason, orderly and not stays)
        if names is not None:
            names.server.close()
        log.end()
        if http is not None:
            await http.close()
    log.info("stopped")
    return 0


def _log(runtime: Runtime, config: Config) -> Log:
    """The agent's log, on standard error; it begins with what the configuration asks for in vain."""

    def write(line: str) -> None:
        sys.stderr.write(line)
        sys.stderr.flush()

    log = Log(write, lambda: runtime.clock.wall_ns() / NANOSECONDS, level=config.log_level, json=config.log_json)
    for text in config.warnings:
        log.warn(text)
    return log


@dataclass(frozen=True, slots=True)
class _Started:
    """The agent, what stops it, and what to log of it."""

    agent: Agent
    node_id: str
    stop: Callable[[str, bool], Awaitable[None]]
    facts: dict[str, Value]
    reconfigure: Callable[[Config], None]
    short_way: ShortWay | None = None
    """Of a server."""


async def _start(
    runtime: Runtime,
    config: Config,
    log: Log,
    fail: Callable[[str], None],
    left: Callable[[], None],
    telemetry: Telemetry,
) -> _Started:
    if not config.server:
        # A client agent keeps nothing: after a restart it is the same one because it has the same name.
        name = blake2b(f"{config.datacenter}/{config.node_name}".encode(), digest_size=16)
        node_id = config.node_id or str(UUID(bytes=name.digest(), version=4))
        client = Client(runtime, config, node_id, log, left, telemetry)
        of_client: dict[str, Value] = {"mode": "client", "servers": [str(address) for address in config.join]}
        return _Started(client, node_id, client.stop, of_client, client.reconfigure)
    try:
        check_bind(config.bind_addr, runtime.host.environment, config.allow_insecure_rpc)
    except InsecureBind as error:
        raise StartError(str(error)) from error
    data = _open_data(runtime, config, log)
    try:
        server = await Server.start(runtime, config, data, log, fail, left, telemetry)
    except OSError as error:
        data.close()
        raise StartError(_explain(error, f"{config.bind_addr}:{config.server_port}", "-server-port")) from error
    facts: dict[str, Value] = {
        "mode": "server",
        "rpc": server.address,
        "id": data.node_id,
        "incarnation": data.incarnation,
        "entries": len(data.recovered.entries),
        "term": data.recovered.hard_state.term,
    }
    return _Started(server.requests, data.node_id, server.stop, facts, server.reconfigure, server.short_way)


def _may_run_scripts(config: Config) -> bool:
    """Whether checks of configuration files may run commands."""
    return config.enable_script_checks or config.enable_local_script_checks


def _own_services(
    runtime: Runtime,
    config: Config,
    started: _Started,
    definitions: Definitions,
    log: Log,
) -> Registrations:
    """The services and checks of this agent: those that it kept, and those that its configuration defines."""
    address = config.advertise_addr
    family = "ipv6" if ":" in address else "ipv4"
    tagged = {"lan": address, f"lan_{family}": address, "wan": address, f"wan_{family}": address}
    meta = _with_own_meta(config.node_meta)
    node = Node(config.node_name, address, started.node_id, config.datacenter, tagged, meta)
    kept = (CONSUL,) if config.server else ()
    scripts = Scripts(_may_run_scripts(config), config.enable_script_checks)
    hold_ns = int(config.rpc_hold_timeout * NANOSECONDS)
    own = Registrations(runtime, started.agent, node, kept, RealProber(), scripts, log, config.data_dir, hold_ns)
    own.restore()
    own.define(*definitions)
    return own


def _with_own_meta(meta: dict[str, str]) -> dict[str, str]:
    """The metadata of the node, with those that every agent has."""
    return dict(sorted({"consul-network-segment": "", "consul-version": VERSION, **meta}.items()))


def _open_data(runtime: Runtime, config: Config, log: Log) -> DataDirectory:
    try:
        data = open_data_directory(
            runtime.disk,
            config.data_dir,
            runtime.random,
            runtime.host.pid,
            config.node_name,
            config.node_id or None,
        )
        data = recover_from_peers(runtime, data, config.data_dir, log.named("raft"))
    except StorageError as error:
        raise StartError(str(error)) from error
    except OSError as error:
        raise StartError(
            f"cannot use data directory {config.data_dir}: {error.strerror}: "
            "make it writable, or choose another -data-dir"
        ) from error
    if data.recovered.cut is not None:
        cut = data.recovered.cut
        log.named("storage").warn(
            "cut a torn tail: the last write before the crash was not complete",
            segment=cut.segment,
            offset=cut.offset,
            bytes=cut.bytes,
            why=cut.reason,
        )
    return data


def _serve_http(
    runtime: Runtime,
    config: Config,
    log: Log,
    telemetry: Telemetry,
    started: _Started,
    local: Registrations,
    controls: Controls,
    connections: Connections,
) -> HttpServer:
    """Begin to answer HTTP: plain requests for keys in the short way if this is a server, the rest in the long one.

    With -dev somebody looks at the answers: they are indented, as in Consul, which the short way does not do.
    """

    def unexpected(what: str, error: Exception) -> None:
        log.error("request failed", request=what, error=repr(error))

    measures = HttpMeasures(telemetry, runtime.clock)
    app = Application(
        started.agent,
        config.datacenter,
        config.kv_max_value_size,
        unexpected,
        config.node_name,
        local,
        config.snapshot_max_size,
        controls=controls,
        measures=measures,
        pretty=config.dev,
    )
    direct = None
    if started.short_way is not None and not config.dev:
        direct = DirectKv(started.short_way, config.kv_max_value_size, unexpected, measures)
    try:
        return HttpServer.listen((config.http_addr, config.http_port), app, direct, connections)
    except OSError as error:
        raise StartError(_explain(error, f"{config.http_addr}:{config.http_port}", "-http-port")) from error


async def _listen_dns(runtime: Runtime, config: Config, agent: Agent, log: Log, telemetry: Telemetry) -> Dns | None:
    if config.dns_port < 0:
        return None
    try:
        return await serve_dns(runtime, config, agent, log.named("dns"), telemetry)
    except OSError as error:
        raise StartError(_explain(error, f"{config.dns_addr}:{config.dns_port}", "-dns-port")) from error


def _explain(error: OSError, address: str, flag: str) -> str:
    why = "address already in use" if error.errno == EADDRINUSE else error.strerror or str(error)
    return f"cannot listen on {address}: {why}: stop what uses it, or choose another {flag}"


def _shown(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
