"""What Consul's configuration may ask for and Comitia has not: refused, or ignored.

The rule: what somebody would rely on (ACLs, TLS, the service mesh, gRPC, a log in a file, names of other domains) is
refused, with a remedy. What nobody misses is ignored: with a warning (ports of a gossip that Comitia does not need, the
UI, which `agent -dev -ui` and every tutorial ask for by habit), or without a word if the agent does as it was told
anyhow. What is off, or empty, asks for nothing. Later files, and flags, can take back what earlier files ask for.

This module knows names, and neither files nor what becomes of them: `files` and `validated` do.
Source: Consul, "Agent configuration"; its `agent/config/config.go` and `flags.go`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple


def _is_on(value: Any) -> bool:
    """Whether a value asks for anything: ports of 0 or less are none, and a flag's value is a string."""
    match value:
        case bool():
            return value
        case int() | float():
            return value > 0
        case dict():
            return any(map(_is_on, value.values()))
        case list():
            return any(map(_is_on, value))
    return value not in ("", "0", "-1")


class Absent(NamedTuple):
    """One setting that Comitia has not."""

    why: str
    """Said in refusals, warnings and the help of flags; "": ignored without a word."""
    remedy: str = ""
    """What to do instead: the setting is refused. "": it is ignored."""
    asks: Callable[[Any], bool] = _is_on
    """Whether a value asks for what is not there."""


class Asked(NamedTuple):
    """What one source says of a setting that Comitia has not."""

    name: str
    """As its user wrote it: a key, or a flag."""
    where: str
    """File and line, for the beginning of a text; "" for flags."""
    value: Any


_SILENT: Final = Absent("")
_UI: Final = Absent("there is no web UI")
_GOSSIP: Final = Absent("there is no gossip, agents speak to the servers' RPC port only")
_WAN: Final = Absent("there is one datacenter")
_ROTATION: Final = Absent("the log is written to standard error only")
_ENTERPRISE: Final = Absent("it is of Consul Enterprise, and has no effect")
_LIMIT: Final = Absent("Comitia has bounds of its own")
_MESH: Final = Absent("there is no service mesh in Comitia", "remove it, or set it to false")
_GRPC: Final = Absent("there is no gRPC in Comitia", "remove it, or set it to -1")
_TLS: Final = Absent(
    "there is no TLS in Comitia yet", "remove it, and let nobody whom you do not trust reach the agents' ports"
)
_FEDERATION: Final = Absent("there is one datacenter in Comitia", "remove it")
_SINK: Final = Absent("metrics are sent nowhere", "remove it, and let /v1/agent/metrics?format=prometheus be scraped")
_SYSLOG: Final = Absent("the log is written to standard error only", "remove it, and redirect that: 2>&1 | logger")
_PATIENCE: Final = Absent(
    "blocking queries wait 5 minutes, or as long as ?wait says, up to 10", "remove it, and let clients say ?wait"
)
_ADDRESS: Final = Absent("each agent has one address to advertise", "remove it, and set advertise_addr")

ABSENT: Final[Mapping[str, Absent]] = {
    # What is within an object stands before the object.
    "acl.enabled": Absent(
        "there are no ACLs in Comitia, whoever reaches the HTTP port may do anything",
        "set it to false, and client_addr to an address that only they reach",
    ),
    "acl": _SILENT,
    "addresses.https": _TLS,
    "addresses.grpc": _GRPC,
    "addresses.grpc_tls": _GRPC,
    "advertise_addr_ipv4": _ADDRESS,
    "advertise_addr_ipv6": _ADDRESS,
    "advertise_addr_wan": Absent("the tagged address wan is the advertised one"),
    "advertise_addr_wan_ipv4": _WAN,
    "advertise_addr_wan_ipv6": _WAN,
    "advertise_reconnect_timeout": _GOSSIP,
    "alt_domain": Absent(
        "DNS answers for one domain", "remove it, and let the resolver of this machine rewrite names to that domain"
    ),
    "audit": _ENTERPRISE,
    "auto_config": _TLS,
    "auto_encrypt": _TLS,
    "auto_reload_config": Absent("files are not watched", "remove it, and say `comitia reload`, or send SIGHUP"),
    "ca_file": _TLS,
    "ca_path": _TLS,
    "cache": Absent("agents cache nothing"),
    "cert_file": _TLS,
    "check_output_max_size": Absent(
        "outputs of checks are cut at 4096 bytes", "remove it, and set output_max_size in each check"
    ),
    "check_update_interval": Absent("changes of outputs alone wait for some 5 minutes"),
    "config_entries": _MESH,
    "connect.enabled": _MESH,
    "connect": _SILENT,
    "default_query_time": _PATIENCE,
    "disable_anonymous_signature": _SILENT,
    "disable_coordinates": _SILENT,
    "disable_host_node_id": Absent("node IDs are never made of what the host is", asks=lambda value: value is False),
    "disable_keyring_file": _SILENT,
    "disable_remote_exec": Absent("there is no remote execution", asks=lambda value: value is False),
    "disable_update_check": _SILENT,
    "discard_check_output": Absent("outputs of checks are kept"),
    "discovery_max_stale": Absent("reads are stale only if they ask for it"),
    "dns_config.allow_stale": _SILENT,
    "dns_config.cache_max_age": _SILENT,
    "dns_config.disable_compression": Absent("names in answers are compressed"),
    "dns_config.max_stale": _SILENT,
    "dns_config.prefer_namespace": _ENTERPRISE,
    "dns_config.recursor_strategy": _SILENT,
    "dns_config.recursor_timeout": _SILENT,
    "dns_config.use_cache": _SILENT,
    "enable_agent_tls_for_checks": _TLS,
    "enable_central_service_config": _SILENT,
    "enable_debug": Absent("there is no profiling by HTTP"),
    "enable_syslog": _SYSLOG,
    "encrypt": Absent(
        "there is no gossip that could be encrypted, and server RPC has no TLS yet",
        "remove it, and let nobody whom you do not trust reach the agents' ports",
    ),
    "encrypt_verify_incoming": _SILENT,
    "encrypt_verify_outgoing": _SILENT,
    "experiments": _SILENT,
    "gossip_lan": _GOSSIP,
    "gossip_wan": _GOSSIP,
    "http_config.allow_write_http_from": Absent(
        "whoever reaches the HTTP port may write", "remove it, and set client_addr to an address that only they reach"
    ),
    "http_config.block_endpoints": Absent("every endpoint is served", "remove it, or let a proxy block them"),
    "http_config.max_header_bytes": _LIMIT,
    "http_config.response_headers": Absent("answers have no further headers", "remove it, or let a proxy add them"),
    "http_config.use_cache": _SILENT,
    "key_file": _TLS,
    "license_path": _SILENT,
    "limits.https_handshake_timeout": _SILENT,
    "limits.request_limits": _LIMIT,
    "limits.rpc_client_timeout": _LIMIT,
    "limits.rpc_handshake_timeout": _LIMIT,
    "limits.rpc_max_burst": _LIMIT,
    "limits.rpc_max_conns_per_client": _LIMIT,
    "limits.rpc_rate": _LIMIT,
    "limits.txn_max_req_len": _LIMIT,
    "log_file": Absent("the log is written to standard error only", "remove it, and redirect that: 2>> FILE"),
    "log_rotate_bytes": _ROTATION,
    "log_rotate_duration": _ROTATION,
    "log_rotate_max_files": _ROTATION,
    "max_query_time": _PATIENCE,
    "partition": _ENTERPRISE,
    "peering": _SILENT,
    "performance.grpc_keepalive_interval": _SILENT,
    "performance.grpc_keepalive_timeout": _SILENT,
    "performance.leave_drain_time": Absent("an agent that leaves waits for nothing but its handing over"),
    "ports.expose_max_port": _SILENT,
    "ports.expose_min_port": _SILENT,
    "ports.grpc": _GRPC,
    "ports.grpc_tls": _GRPC,
    "ports.https": Absent("there is no TLS for HTTP in Comitia", "remove it, or set it to -1"),
    "ports.proxy_max_port": _SILENT,
    "ports.proxy_min_port": _SILENT,
    "ports.serf_lan": _GOSSIP,
    "ports.serf_wan": _GOSSIP,
    "ports.sidecar_max_port": _SILENT,
    "ports.sidecar_min_port": _SILENT,
    "primary_gateways": _FEDERATION,
    "primary_gateways_interval": _WAN,
    "protocol": Absent("servers speak a protocol of Comitia's own"),
    "raft_protocol": _SILENT,
    "rejoin_after_leave": _SILENT,
    "reconnect_timeout": Absent("agents that failed are members until `comitia force-leave` names them"),
    "reconnect_timeout_wan": _WAN,
    "recursors": Absent(
        "DNS answers for its own domain only",
        "remove it, and let the resolver of this machine forward that domain to the agent",
    ),
    "retry_interval": Absent("servers are asked again within two seconds"),
    "retry_interval_wan": _WAN,
    "retry_join_wan": _FEDERATION,
    "retry_max": Absent("servers are asked until they answer"),
    "retry_max_wan": _WAN,
    "rpc": _SILENT,
    "segment": _ENTERPRISE,
    "segments": _ENTERPRISE,
    "serf_lan": _GOSSIP,
    "serf_lan_allowed_cidrs": Absent(
        "whoever reaches the RPC port may join", "remove it, and let nobody whom you do not trust reach that port"
    ),
    "serf_wan": _GOSSIP,
    "serf_wan_allowed_cidrs": _WAN,
    "server_name": _SILENT,
    "session_ttl_min": Absent("the shortest TTL of a session is 10s", "remove it"),
    "snapshot_agent": _SILENT,
    "start_join_wan": _FEDERATION,
    "syslog_facility": _SILENT,
    "tagged_addresses": _ADDRESS,
    "telemetry.circonus_api_token": _SINK,
    "telemetry.circonus_submission_url": _SINK,
    "telemetry.dogstatsd_addr": _SINK,
    "telemetry.statsd_address": _SINK,
    "telemetry.statsite_address": _SINK,
    "telemetry.disable_compat_1.9": _SILENT,
    "telemetry.dogstatsd_tags": _SILENT,
    "telemetry.enable_host_metrics": Absent("metrics of the host are not taken"),
    "tls": _TLS,
    "tls_cipher_suites": _SILENT,
    "tls_min_version": _SILENT,
    "tls_prefer_server_cipher_suites": _SILENT,
    "translate_wan_addrs": _WAN,
    "ui": _UI,
    "ui_config": _UI,
    "ui_content_path": _UI,
    "ui_dir": _UI,
    "unix_sockets": Absent("HTTP and DNS are served by IP only", "remove it"),
    "use_streaming_backend": _SILENT,
    "verify_incoming": _TLS,
    "verify_incoming_https": _TLS,
    "verify_incoming_rpc": _TLS,
    "verify_outgoing": _TLS,
    "verify_server_hostname": _TLS,
    "watches": Absent("agents run no handlers", "remove it, and run `comitia watch` beside the agent"),
}
"""By key: the name of a setting, after that of the object that it is in."""

FLAGS: Final[Mapping[str, str]] = {
    "advertise-wan": "advertise_addr_wan",
    "allow-write-http-from": "http_config.allow_write_http_from",
    "alt-domain": "alt_domain",
    "auto-reload-config": "auto_reload_config",
    "check_output_max_size": "check_output_max_size",
    "default-query-time": "default_query_time",
    "disable-host-node-id": "disable_host_node_id",
    "disable-keyring-file": "disable_keyring_file",
    "encrypt": "encrypt",
    "grpc-port": "ports.grpc",
    "grpc-tls-port": "ports.grpc_tls",
    "https-port": "ports.https",
    "join-wan": "start_join_wan",
    "log-file": "log_file",
    "log-rotate-bytes": "log_rotate_bytes",
    "log-rotate-duration": "log_rotate_duration",
    "log-rotate-max-files": "log_rotate_max_files",
    "max-query-time": "max_query_time",
    "partition": "partition",
    "primary-gateway": "primary_gateways",
    "protocol": "protocol",
    "raft-protocol": "raft_protocol",
    "recursor": "recursors",
    "rejoin": "rejoin_after_leave",
    "retry-interval": "retry_interval",
    "retry-interval-wan": "retry_interval_wan",
    "retry-join-wan": "retry_join_wan",
    "retry-max": "retry_max",
    "retry-max-wan": "retry_max_wan",
    "segment": "segment",
    "serf-lan-allowed-cidrs": "serf_lan_allowed_cidrs",
    "serf-lan-bind": "serf_lan",
    "serf-lan-port": "ports.serf_lan",
    "serf-wan-allowed-cidrs": "serf_wan_allowed_cidrs",
    "serf-wan-bind": "serf_wan",
    "serf-wan-port": "ports.serf_wan",
    "syslog": "enable_syslog",
    "ui": "ui_config",
    "ui-content-path": "ui_content_path",
    "ui-dir": "ui_dir",
}
"""Consul's flags for such settings, and their keys."""
SWITCHES: Final = frozenset(
    {"auto-reload-config", "disable-host-node-id", "disable-keyring-file", "rejoin", "syslog", "ui"}
)
"""Those that take no value."""


def take(document: dict[str, Any], where: Callable[[str], str]) -> dict[str, Asked]:
    """Take what Comitia has not out of a document: what it says, by key. `where` says where a key stands."""
    found = {}
    for key in ABSENT:
        outer, _, name = key.partition(".") if "." in key else ("", "", key)
        holder = document.get(outer) if outer else document
        if isinstance(holder, dict) and name in holder:
            found[key] = Asked(key, where(key), holder.pop(name))
    return found


def refusal(asked: Mapping[str, Asked]) -> str:
    """Why an agent that is so asked would not be what its user relies on, and the remedy; "" if it would be."""
    for key, (name, where, value) in sorted(asked.items()):
        absent = ABSENT[key]
        if absent.remedy and absent.asks(value):
            return f"{where}{name}: {absent.why}: {absent.remedy}"
    return ""


def warnings(asked: Mapping[str, Asked]) -> Iterator[str]:
    """What is ignored, because it does no harm."""
    for key, (name, where, value) in sorted(asked.items()):
        absent = ABSENT[key]
        if absent.why and not absent.remedy and absent.asks(value):
            yield f"{where}{name} is ignored: {absent.why}"
