"""An agent's configuration: what files and flags say (`document`), with defaults, as one frozen and valid value.

This module reads no file and no environment: callers pass documents in. Source: Consul, "Agent configuration".

*Deviation:* `raft_multiplier` scales Comitia's own timings (heartbeat 50, election timeout 300-600, lease 250 ms),
default 1. `limits.snapshot_max_size`, `raft_lease_ms` and `clock_drift` are Comitia's own: a lease that outlasts the
promise that it rests on, on clocks that differ by the drift, is refused (Ongaro 2014, section 6.4.1).
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec
from msgspec import UnsetType

from impl.agent.config.absent import refusal, warnings
from impl.agent.config.document import (
    Addresses,
    DnsConfig,
    Document,
    Limits,
    Performance,
    Ports,
    Soa,
    TelemetryConfig,
    merge,
)
from impl.agent.config.metadata import metadata_problem
from impl.dns.settings import Settings as DnsSettings
from impl.raft.settings import Settings
from impl.telemetry.settings import RETENTION_SECONDS
from impl.telemetry.settings import Settings as TelemetrySettings

SERVER_PORT = 8300
HTTP_PORT = 8500
DNS_PORT = 8600
HTTP_CONNECTIONS_PER_CLIENT = 200
SNAPSHOT_MAX_SIZE = 2 << 30
_CORE = Settings(name="any")
"""The core's own defaults; its times are scaled by `raft_multiplier`."""
_NODE_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
_NODE_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_LABEL = "[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_DOMAIN = re.compile(rf"(?=.{{1,200}}$){_LABEL}(\.{_LABEL})*")
_METRICS_PREFIX = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,127}")
_DATACENTER = re.compile(r"[A-Za-z0-9_-]{1,128}")
LOG_LEVELS = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR")


class ConfigError(Exception):
    """The configuration cannot be used; the text is one line that names the setting and the remedy."""

    def __init__(self, text: str, key: str = "") -> None:
        """`key`: the setting, if it is one, for who knows where it stands; an inner one has its object's before it."""
        super().__init__(text)
        self.key = key


class Address(msgspec.Struct, frozen=True, order=True):
    """Where to dial: a host name or address, and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """A valid configuration. Ports of 0 mean a free one. Times are in seconds."""

    server: bool
    bootstrap_expect: int
    join: tuple[Address, ...]
    node_name: str
    node_id: str
    """As configured, or empty: the data directory's, or a new one."""
    datacenter: str
    data_dir: str
    """Empty for a client agent, which keeps nothing."""
    bind_addr: str
    advertise_addr: str
    client_addr: str
    http_addr: str
    dns_addr: str
    server_port: int
    http_port: int
    dns_port: int
    """-1: no DNS."""
    dns: DnsSettings
    raft_multiplier: int
    rpc_hold_timeout: float
    http_max_conns_per_client: int
    """Connections of one address; 0 or negative: no limit."""
    kv_max_value_size: int
    snapshot_max_size: int
    """Bytes of an archive of the state that is restored, as it arrives and unpacked."""
    telemetry: TelemetrySettings
    node_meta: dict[str, str]
    """What the catalog shows of this node beside its address."""
    services: tuple[dict[str, Any], ...]
    """Definitions of services and checks as files say them: `impl/http/definitions.py` reads them."""
    checks: tuple[dict[str, Any], ...]
    enable_script_checks: bool
    """Checks may run commands, those of HTTP users too: whoever reaches the HTTP port may run anything."""
    enable_local_script_checks: bool
    """Checks of configuration files may run commands."""
    read_replica: bool
    """A server that never votes: it joins as a non-voter and nobody promotes it."""
    raft_snapshot_threshold: int
    """Entries since the last snapshot that call for the next one, looked at every `raft_snapshot_interval`."""
    raft_snapshot_interval: float
    raft_trailing_logs: int
    """Entries that stay in the log behind a snapshot, for followers that are not far behind."""
    raft_lease_ms: int
    """0: no leases; `default` reads are confirmed by a quorum as `consistent` ones are."""
    clock_drift: float
    """The rates of any two servers' clocks differ by this part at most."""
    log_level: str
    log_json: bool
    pid_file: str
    trace_dir: str
    allow_insecure_rpc: bool
    dev: bool
    leaves_on: frozenset[str]
    """Signals ("SIGTERM", "SIGINT") by which it leaves the cluster; by others it ends and stays a member."""
    warnings: tuple[str, ...]
    """What is ignored of the configuration."""


def build(documents: Iterable[Document], hostname: str, temporary_dir: str = "") -> Config:
    """Merge documents, later ones winning, fill in defaults and validate.

    Args:
        hostname: the node's name if none is configured.
        temporary_dir: the data directory of `-dev`, which needs none configured.

    Raises:
        ConfigError: see its text.
    """
    merged = Document()
    for document in documents:
        merge(merged, document)
    try:
        return _built(merged, hostname, temporary_dir)
    except ConfigError as error:
        raise ConfigError(merged.places.get(error.key, "") + str(error), error.key) from error


def _built(merged: Document, hostname: str, temporary_dir: str) -> Config:
    ports = _or(merged.ports, Ports())
    addresses, client_addr = _or(merged.addresses, Addresses()), _or(merged.client_addr, "127.0.0.1")
    performance = _or(merged.performance, Performance())
    limits = _or(merged.limits, Limits())
    dev = _or(merged.dev, False)
    bind = _or(merged.bind_addr, "127.0.0.1")
    multiplier = _or(performance.raft_multiplier, 1)
    if why := refusal(merged.absent):
        raise ConfigError(why)
    if why := _other_datacenter(merged):
        raise ConfigError(why, "primary_datacenter")
    if why := metadata_problem(_or(merged.node_meta, {})):
        raise ConfigError(why, "node_meta")
    config = Config(
        server=_or(merged.server, False) or dev,
        bootstrap_expect=_bootstrap_expect(merged, dev),
        join=_addresses("retry_join", merged.retry_join) + _addresses("start_join", merged.start_join),
        node_name=_or(merged.node_name, hostname),
        node_id=_or(merged.node_id, "").lower(),
        datacenter=_or(merged.datacenter, "dc1"),
        data_dir=_or(merged.data_dir, temporary_dir if dev else ""),
        bind_addr=bind,
        advertise_addr=_or(merged.advertise_addr, bind),
        client_addr=client_addr,
        http_addr=_or(addresses.http, client_addr),
        dns_addr=_or(addresses.dns, client_addr),
        server_port=_or(ports.server, SERVER_PORT),
        http_port=_or(ports.http, HTTP_PORT),
        dns_port=_or(ports.dns, DNS_PORT),
        dns=_dns_settings(merged),
        raft_multiplier=multiplier,
        rpc_hold_timeout=_duration("performance.rpc_hold_timeout", _or(performance.rpc_hold_timeout, "7s")),
        http_max_conns_per_client=_or(limits.http_max_conns_per_client, HTTP_CONNECTIONS_PER_CLIENT),
        kv_max_value_size=_or(limits.kv_max_value_size, 512 * 1024),
        snapshot_max_size=_or(limits.snapshot_max_size, SNAPSHOT_MAX_SIZE),
        telemetry=_telemetry_settings(_or(merged.telemetry, TelemetryConfig())),
        node_meta=_or(merged.node_meta, {}),
        services=tuple(_or(merged.services, [])),
        checks=tuple(_or(merged.checks, [])),
        enable_script_checks=_or(merged.enable_script_checks, False),
        enable_local_script_checks=_or(merged.enable_local_script_checks, False),
        read_replica=_or(merged.read_replica, False),
        raft_snapshot_threshold=_or(merged.raft_snapshot_threshold, 16384),
        raft_snapshot_interval=_duration("raft_snapshot_interval", _or(merged.raft_snapshot_interval, "30s")),
        raft_trailing_logs=_or(merged.raft_trailing_logs, _CORE.snapshot_trailing),
        raft_lease_ms=_or(merged.raft_lease_ms, _CORE.lease_ms * multiplier),
        clock_drift=_or(merged.clock_drift, _CORE.clock_drift),
        log_level=_log_level(_or(merged.log_level, "INFO")),
        log_json=_or(merged.log_json, False),
        pid_file=_or(merged.pid_file, ""),
        trace_dir=_or(merged.trace_dir, ""),
        allow_insecure_rpc=_or(merged.allow_insecure_rpc, False),
        dev=dev,
        leaves_on=_leaves_on(merged, _or(merged.server, False) or dev),
        warnings=tuple(warnings(merged.absent)),
    )
    _validate(config)
    return config


def _log_level(name: str) -> str:
    return "ERROR" if name.upper() == "ERR" else name.upper()


def _other_datacenter(merged: Document) -> str:
    own = _or(merged.datacenter, "dc1")
    primary = _or(merged.primary_datacenter, "") or own
    if primary == own:
        return ""
    return (
        f"primary_datacenter {primary!r}: there is one datacenter in Comitia, {own!r} here: name it, or remove "
        "primary_datacenter"
    )


def _bootstrap_expect(merged: Document, dev: bool) -> int:
    """`bootstrap` is another word for 1."""
    expected = _or(merged.bootstrap_expect, 0)
    if not _or(merged.bootstrap, False):
        return _or(merged.bootstrap_expect, 1 if dev else 0)
    if expected:
        raise ConfigError(
            "'bootstrap_expect > 0' and 'bootstrap = true' are mutually exclusive: remove -bootstrap, which means 1",
            "bootstrap",
        )
    if not (_or(merged.server, False) or dev):
        raise ConfigError("'bootstrap' requires '-server': add -server, or remove -bootstrap", "bootstrap")
    return 1


def _leaves_on(merged: Document, server: bool) -> frozenset[str]:
    """As Consul: a client agent leaves unless told otherwise, a server stays unless told otherwise."""
    terminated = _or(merged.leave_on_terminate, not server)
    interrupted = not _or(merged.skip_leave_on_interrupt, server)
    return frozenset(["SIGTERM"] * terminated + ["SIGINT"] * interrupted)


def _addresses(key: str, texts: list[str] | UnsetType) -> tuple[Address, ...]:
    try:
        return tuple(parse_address(text) for text in _or(texts, []))
    except ConfigError as error:
        raise ConfigError(str(error), key) from error


def _duration(key: str, text: str) -> float:
    try:
        return parse_duration(text)
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}", key) from error


def parse_address(text: str) -> Address:
    """`host`, `host:port`, `[v6]` or `[v6]:port`; without a port, the servers' default.

    Raises:
        ConfigError: not of that form.
    """
    found = re.fullmatch(r"\[([0-9A-Fa-f:.%]+)\](?::(\d{1,5}))?|([^\s:\[\]]+)(?::(\d{1,5}))?", text)
    if found is None:
        raise ConfigError(f"cannot join {text!r}: give host:port (IPv6 as [address]:port)")
    port = int(found[2] or found[4] or SERVER_PORT)
    if not 0 < port < 65536:
        raise ConfigError(f"cannot join {text!r}: ports are 1 to 65535")
    return Address(found[1] or found[3], port)


T = TypeVar("T")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_DURATION = re.compile(rf"(?:{_DURATION_PART.pattern})+")
DURATION_CHARACTERS_MAX = 200
DURATION_SECONDS_MAX = 9_223_372_036.0
"""Of 2^63 nanoseconds: what Go's Duration holds."""


def parse_duration(text: str) -> float:
    """Seconds of a duration as Go writes it: `7s`, `1m30s`, `250ms`, `.5s`, `0`. *Deviation:* not below zero.

    Raises:
        ConfigError: not of that form, or longer than 292 years.
    """
    unsigned = text.removeprefix("+")
    if unsigned == "0":
        return 0.0
    if len(text) > DURATION_CHARACTERS_MAX or _DURATION.fullmatch(unsigned) is None:
        shown = text if len(text) <= DURATION_CHARACTERS_MAX else f"{text[:DURATION_CHARACTERS_MAX]}..."
        raise ConfigError(f"invalid duration {shown!r}: write it as 7s, 250ms or 1m30s")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _DURATION_PART.findall(unsigned))
    if seconds > DURATION_SECONDS_MAX:
        raise ConfigError(f"invalid duration {text!r}: the longest is 292 years")
    return seconds


def _or(value: T | UnsetType, default: T) -> T:
    return default if isinstance(value, UnsetType) else value


def _dns_settings(merged: Document) -> DnsSettings:
    given, soa = _or(merged.dns_config, DnsConfig()), Soa()
    if not isinstance(given.soa, UnsetType):
        soa = given.soa
    domain = _or(merged.domain, "consul").rstrip(".").lower()
    if _DOMAIN.fullmatch(domain) is None or domain.endswith("arpa"):
        raise ConfigError(
            f"invalid domain {domain!r}: -domain takes labels of letters, digits and '-', as consul", "domain"
        )
    return DnsSettings(
        domain=domain,
        datacenter=_or(merged.datacenter, "dc1"),
        node_ttl=_whole_seconds("node_ttl", "node_ttl", _or(given.node_ttl, "0")),
        service_ttl=tuple(
            (service, _whole_seconds("service_ttl", f"service_ttl of {service}", text))
            for service, text in sorted(_or(given.service_ttl, {}).items())
        ),
        only_passing=_or(given.only_passing, False),
        udp_answer_limit=_or(given.udp_answer_limit, 3),
        a_record_limit=_or(given.a_record_limit, 0),
        enable_truncate=_or(given.enable_truncate, True),
        node_meta_txt=_or(given.enable_additional_node_meta_txt, True),
        soa_refresh=soa.refresh,
        soa_retry=soa.retry,
        soa_expire=soa.expire,
        soa_min_ttl=soa.min_ttl,
    )


def _telemetry_settings(given: TelemetryConfig) -> TelemetrySettings:
    rules = _or(given.prefix_filter, [])
    for rule in rules:
        if not rule:
            raise ConfigError("Cannot have empty filter rule in prefix_filter", "telemetry.prefix_filter")
        if rule[0] not in "+-":
            raise ConfigError(f"Filter rule must begin with either '+' or '-': \"{rule}\"", "telemetry.prefix_filter")
    prefix = _or(given.metrics_prefix, "consul")
    if _METRICS_PREFIX.fullmatch(prefix) is None:
        raise ConfigError(
            f"invalid metrics_prefix {prefix!r}: letters, digits, '_', '.' and '-', a letter first",
            "telemetry.metrics_prefix",
        )
    retention = _or(given.prometheus_retention_time, "")
    return TelemetrySettings(
        prefix=prefix,
        disable_hostname=_or(given.disable_hostname, False),
        allowed=tuple(rule[1:] for rule in rules if rule[0] == "+"),
        blocked=tuple(rule[1:] for rule in rules if rule[0] == "-"),
        filter_default=_or(given.filter_default, True),
        retention_seconds=_duration("telemetry.prometheus_retention_time", retention)
        if retention
        else RETENTION_SECONDS,
    )


def _whole_seconds(field: str, name: str, text: str) -> int:
    key = f"dns_config.{field}"
    seconds = _duration(key, text)
    if seconds != int(seconds) or seconds >= 1 << 31:
        raise ConfigError(f"invalid {name} {text!r}: DNS counts whole seconds, below 2^31, as 30s", key)
    return int(seconds)


def _validate(config: Config) -> None:
    if _NODE_NAME.fullmatch(config.node_name) is None:
        raise ConfigError(
            f"invalid node name {config.node_name!r}: use -node with letters, digits, '.', '_' and '-'", "node_name"
        )
    if config.node_id and _NODE_ID.fullmatch(config.node_id) is None:
        raise ConfigError(
            f"invalid node ID {config.node_id!r}: -node-id must be a UUID, or left out to have one made", "node_id"
        )
    if _DATACENTER.fullmatch(config.datacenter) is None:
        raise ConfigError(f"invalid datacenter {config.datacenter!r}: use letters, digits, '_' and '-'", "datacenter")
    if config.log_level not in LOG_LEVELS:
        raise ConfigError(f"invalid log level {config.log_level!r}: one of {', '.join(LOG_LEVELS)}", "log_level")
    for name, address in (
        ("bind_addr", config.bind_addr),
        ("advertise_addr", config.advertise_addr),
        ("client_addr", config.client_addr),
        ("addresses.http", config.http_addr),
        ("addresses.dns", config.dns_addr),
    ):
        try:
            ipaddress.ip_address(address)
        except ValueError:
            shown = f"-{name.removesuffix('_addr')} address" if name.endswith("_addr") else name
            raise ConfigError(f"invalid {shown} {address!r}: give an IP address", name) from None
    if config.server:
        _validate_server(config)
    elif config.read_replica:
        raise ConfigError("'read_replica' requires '-server': add -server, or remove -read-replica", "read_replica")
    elif config.bootstrap_expect:
        raise ConfigError(
            "'bootstrap_expect' requires '-server': add -server, or remove -bootstrap-expect", "bootstrap_expect"
        )
    elif not config.join:
        raise ConfigError("a client agent needs servers to forward to: add -retry-join ADDRESS, or start with -server")
    if config.trace_dir and not config.server:
        raise ConfigError("-trace records what a server does: remove it from this client agent")


def _validate_server(config: Config) -> None:
    if not config.data_dir:
        raise ConfigError("data_dir cannot be empty: a server keeps its log in -data-dir DIR")
    if ipaddress.ip_address(config.advertise_addr).is_unspecified:
        raise ConfigError(
            "advertise address cannot be 0.0.0.0 or [::]: add -advertise ADDRESS that peers can dial", "advertise_addr"
        )
    if config.dev and config.bootstrap_expect != 1:
        raise ConfigError("-dev runs one server alone: remove -bootstrap-expect", "bootstrap_expect")
    if config.read_replica and config.bootstrap_expect:
        raise ConfigError(
            "a read replica forms no cluster: remove -bootstrap-expect, or remove -read-replica", "read_replica"
        )
    if config.raft_snapshot_interval <= 0:
        raise ConfigError("raft_snapshot_interval must be longer than 0: write it as 30s", "raft_snapshot_interval")
    _validate_lease(config)


def _validate_lease(config: Config) -> None:
    """A leader's lease, measured by its clock, ends before any voter's promise to it does, measured by the voter's."""
    if not 0 <= config.clock_drift < 1:
        raise ConfigError(f"invalid clock drift {config.clock_drift}: a part of the time, as 0.05", "clock_drift")
    election_ms = _CORE.election_ticks_min * _CORE.tick_ms * config.raft_multiplier
    if config.raft_lease_ms * (1 + config.clock_drift) ** 2 >= election_ms:
        limit = math.ceil(election_ms / (1 + config.clock_drift) ** 2)
        raise ConfigError(
            f"a lease of {config.raft_lease_ms} ms on clocks that drift by {config.clock_drift:g} could outlast the "
            f"shortest election timeout of {election_ms} ms: use -raft-lease-ms below {limit}, or 0 for no lease"
        )
