"""What one source of an agent's configuration may say, and how several become one.

A configuration file is a `Document`, by Consul's names, and the flags of the command line become one. Later documents
win, except that addresses to join, metadata, services and checks add up. Types and ranges of single values are held
here; what a value means, what it is if nobody says it, and what goes with what, is `validated`'s.

Source: Consul, "Agent configuration"; keys that Comitia does not have are refused by name, never ignored in silence.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from impl.agent.config.absent import Asked


class Ports(msgspec.Struct, forbid_unknown_fields=True):
    """`ports`: 0 asks for a free one, which the log reports; -1 for no DNS."""

    server: Annotated[int, msgspec.Meta(ge=0, le=65535)] | UnsetType = UNSET
    http: Annotated[int, msgspec.Meta(ge=0, le=65535)] | UnsetType = UNSET
    dns: Annotated[int, msgspec.Meta(ge=-1, le=65535)] | UnsetType = UNSET


class Addresses(msgspec.Struct, forbid_unknown_fields=True):
    """`addresses`: where HTTP and DNS listen, if not both at `client_addr`."""

    http: str | UnsetType = UNSET
    dns: str | UnsetType = UNSET


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
    a_record_limit: Annotated[int, msgspec.Meta(ge=0)] | UnsetType = UNSET
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


class Contents(msgspec.Struct, forbid_unknown_fields=True):
    """What a file may say of what Comitia has: everything optional, named as in Consul's configuration files."""

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
    addresses: Addresses | UnsetType = UNSET
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
    leave_on_terminate: bool | UnsetType = UNSET
    skip_leave_on_interrupt: bool | UnsetType = UNSET
    primary_datacenter: str | UnsetType = UNSET


class Document(Contents):
    """One source of configuration: a file, or the flags of the command line."""

    absent: dict[str, Asked] = {}
    """What it says of what Comitia has not, by key: see `absent`."""
    places: dict[str, str] = {}
    """Where a file says what it says, by key: the beginning of a text."""


_ADD_UP = ("retry_join", "start_join", "services", "checks")


def merge(merged: Document, newer: Document) -> None:
    """Put what `newer` says into `merged`."""
    for name in (*Contents.__struct_fields__, "absent"):
        value = getattr(newer, name)
        if value is UNSET:
            continue
        old = getattr(merged, name)
        if name in _ADD_UP:
            value = (old or []) + value
        elif name in ("node_meta", "absent"):
            value = (old or {}) | value
        elif isinstance(value, msgspec.Struct) and old is not UNSET:
            changed = {field: getattr(value, field) for field in value.__struct_fields__}
            value = msgspec.structs.replace(old, **{f: v for f, v in changed.items() if v is not UNSET})
        setattr(merged, name, value)
    said = _keys(newer)
    for key in said - newer.places.keys():
        merged.places.pop(key, None)
    for key, place in newer.places.items():
        # What adds up stands in several places: in which one the mistake is, nobody knows.
        merged.places[key] = "" if key in merged.places and key in (*_ADD_UP, "node_meta") else place


def _keys(document: Document) -> set[str]:
    """What a document says, inner settings with the name of their object before theirs."""
    said = set()
    for name in Contents.__struct_fields__:
        value = getattr(document, name)
        if isinstance(value, msgspec.Struct):
            fields = value.__struct_fields__
            said |= {f"{name}.{field}" for field in fields if getattr(value, field) is not UNSET}
        elif value is not UNSET:
            said.add(name)
    return said
