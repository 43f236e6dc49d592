"""What one source of an agent's configuration may say, and how several become one.

A configuration file is a `Document`, by Consul's names, and the flags of the command line become one. Later documents
win, except that addresses to join, metadata, services and checks add up. Types and ranges of single values are held
here; what a value means, what it is if nobody says it, and what goes with what, is `config`'s.

Source: Consul, "Agent configuration"; keys that Comitia does not have are refused by name, never ignored in silence.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from impl.agent.absent import Acl, Connect, UiConfig


class Ports(msgspec.Struct, forbid_unknown_fields=True):
    """`ports`: 0 asks for a free one, which the log reports; -1 for no DNS. From `grpc` on: see `absent`."""

    server: Annotated[int, msgspec.Meta(ge=0, le=65535)] | UnsetType = UNSET
    http: Annotated[int, msgspec.Meta(ge=0, le=65535)] | UnsetType = UNSET
    dns: Annotated[int, msgspec.Meta(ge=-1, le=65535)] | UnsetType = UNSET
    grpc: Annotated[int, msgspec.Meta(ge=-1, le=65535)] | UnsetType = UNSET
    grpc_tls: Annotated[int, msgspec.Meta(ge=-1, le=65535)] | UnsetType = UNSET
    https: Annotated[int, msgspec.Meta(ge=-1, le=65535)] | UnsetType = UNSET
    serf_lan: Annotated[int, msgspec.Meta(ge=-1, le=65535)] | UnsetType = UNSET
    serf_wan: Annotated[int, msgspec.Meta(ge=-1, le=65535)] | UnsetType = UNSET


class Soa(msgspec.Struct, forbid_unknown_fields=True):
    """`dns_config.soa`, in seconds."""

    refresh: Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)] = 3600
    retry: Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)] = 600
    expire: Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)] = 86_400
    min_ttl: Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)] = 0


class DnsConfig(msgspec.Struct, forbid_unknown_fields=True):
    """`dns_config`: durations are of whole seconds; `service_ttl` is by service, "*" and "prefix*" stand for many."""

    only_passing: bool | UnsetType = UNSET
    node_ttl: str | UnsetType = UNSET
    service_ttl: dict[str, str] | UnsetType = UNSET
    udp_answer_limit: Annotated[int, msgspec.Meta(ge=0)] | UnsetType = UNSET
    enable_truncate: bool | UnsetType = UNSET
    enable_additional_node_meta_txt: bool | UnsetType = UNSET
    soa: Soa | UnsetType = UNSET


class Performance(msgspec.Struct, forbid_unknown_fields=True):
    """`performance`."""

    raft_multiplier: Annotated[int, msgspec.Meta(ge=1, le=10)] | UnsetType = UNSET
    rpc_hold_timeout: str | UnsetType = UNSET


class Limits(msgspec.Struct, forbid_unknown_fields=True):
    """`limits`."""

    http_max_conns_per_client: Annotated[int, msgspec.Meta(ge=-1 << 31, lt=1 << 31)] | UnsetType = UNSET
    kv_max_value_size: Annotated[int, msgspec.Meta(ge=1, le=4 << 20)] | UnsetType = UNSET
    snapshot_max_size: Annotated[int, msgspec.Meta(ge=1, lt=8 << 30)] | UnsetType = UNSET


class TelemetryConfig(msgspec.Struct, forbid_unknown_fields=True):
    """`telemetry`: what is shown, and under which names; nothing is sent to a sink."""

    metrics_prefix: str | UnsetType = UNSET
    disable_hostname: bool | UnsetType = UNSET
    prefix_filter: list[str] | UnsetType = UNSET
    filter_default: bool | UnsetType = UNSET
    prometheus_retention_time: str | UnsetType = UNSET


class Document(msgspec.Struct, forbid_unknown_fields=True):
    """One source of configuration: everything optional, named as in Consul's configuration files."""

    server: bool | UnsetType = UNSET
    bootstrap_expect: Annotated[int, msgspec.Meta(ge=0)] | UnsetType = UNSET
    retry_join: list[str] | UnsetType = UNSET
    start_join: list[str] | UnsetType = UNSET
    node_name: str | UnsetType = UNSET
    node_id: str | UnsetType = UNSET
    datacenter: str | UnsetType = UNSET
    data_dir: str | UnsetType = UNSET
    bind_addr: str | UnsetType = UNSET
    advertise_addr: str | UnsetType = UNSET
    client_addr: str | UnsetType = UNSET
    ports: Ports | UnsetType = UNSET
    domain: str | UnsetType = UNSET
    dns_config: DnsConfig | UnsetType = UNSET
    performance: Performance | UnsetType = UNSET
    limits: Limits | UnsetType = UNSET
    telemetry: TelemetryConfig | UnsetType = UNSET
    read_replica: bool | UnsetType = UNSET
    node_meta: dict[str, str] | UnsetType = UNSET
    services: list[dict[str, Any]] | UnsetType = UNSET
    checks: list[dict[str, Any]] | UnsetType = UNSET
    enable_script_checks: bool | UnsetType = UNSET
    enable_local_script_checks: bool | UnsetType = UNSET
    raft_snapshot_threshold: Annotated[int, msgspec.Meta(ge=1)] | UnsetType = UNSET
    raft_snapshot_interval: str | UnsetType = UNSET
    raft_trailing_logs: Annotated[int, msgspec.Meta(ge=0)] | UnsetType = UNSET
    raft_lease_ms: Annotated[int, msgspec.Meta(ge=0)] | UnsetType = UNSET
    clock_drift: float | UnsetType = UNSET
    log_level: str | UnsetType = UNSET
    log_json: bool | UnsetType = UNSET
    pid_file: str | UnsetType = UNSET
    trace_dir: str | UnsetType = UNSET
    allow_insecure_rpc: bool | UnsetType = UNSET
    dev: bool | UnsetType = UNSET
    bootstrap: bool | UnsetType = UNSET
    rejoin_after_leave: bool | UnsetType = UNSET
    """True in any case: a server that left asks to join when it is started."""
    disable_update_check: bool | UnsetType = UNSET
    """True in any case: nothing looks for updates."""
    leave_on_terminate: bool | UnsetType = UNSET
    skip_leave_on_interrupt: bool | UnsetType = UNSET
    retry_interval: str | UnsetType = UNSET
    disable_host_node_id: bool | UnsetType = UNSET
    advertise_addr_wan: str | UnsetType = UNSET
    log_file: str | UnsetType = UNSET
    recursors: list[str] | UnsetType = UNSET
    ui_config: UiConfig | UnsetType = UNSET
    connect: Connect | UnsetType = UNSET
    acl: Acl | UnsetType = UNSET
    primary_datacenter: str | UnsetType = UNSET


_ADD_UP = ("retry_join", "start_join", "services", "checks", "recursors")


def merge(merged: Document, newer: Document) -> None:
    """Put what `newer` says into `merged`."""
    for name in Document.__struct_fields__:
        value = getattr(newer, name)
        if value is UNSET:
            continue
        old = getattr(merged, name)
        if name in _ADD_UP:
            value = (old or []) + value
        elif name == "node_meta":
            value = (old or {}) | value
        elif isinstance(value, msgspec.Struct) and old is not UNSET:
            changed = {field: getattr(value, field) for field in value.__struct_fields__}
            value = msgspec.structs.replace(old, **{f: v for f, v in changed.items() if v is not UNSET})
        setattr(merged, name, value)
