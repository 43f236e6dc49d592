"""Keys of configuration files: those that a service or a check may have, and what to say of one that nobody knows.

What a file spells wrong must not be passed over: a service without its check, or on another port, would be the result.
(Over HTTP it is passed over, by Consul too.) What definitions mean is for `impl/http/definitions.py`.
Source: Consul, `agent/config/config.go`: ServiceDefinition, CheckDefinition; `builder.go`: serviceVal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Any, Final

_SERVICE: Final = (
    *("address", "check", "checks", "connect", "enable_tag_override", "id", "kind", "meta", "name", "port", "proxy"),
    *("socket_path", "tagged_addresses", "tags", "token", "weights"),
    # Of Consul Enterprise, or of the service mesh: without effect.
    *("locality", "namespace", "partition"),
)
_CONNECT: Final = ("native", "sidecar_service")
_PROXY: Final = (
    *("config", "destination_service_id", "destination_service_name", "expose", "local_service_address"),
    *("local_service_port", "local_service_socket_path", "mesh_gateway", "mode", "transparent_proxy", "upstreams"),
    # Without effect.
    *("access_logs", "envoy_extensions"),
)
_CHECK: Final = (
    *("alias_node", "alias_service", "args", "body", "check_id", "deregister_critical_service_after"),
    *("disable_redirects", "docker_container_id", "failures_before_critical", "failures_before_warning", "grpc"),
    *("grpc_use_tls", "h2ping", "h2ping_use_tls", "header", "http", "id", "interval", "method", "name", "namespace"),
    *("notes", "os_service", "output_max_size", "partition", "script_args", "service_id", "shell", "status"),
    *("success_before_passing", "tcp", "tcp_use_tls", "timeout", "tls_server_name", "tls_skip_verify", "token", "ttl"),
    "udp",
)
_KEYS: Final = {"service": _SERVICE, "check": _CHECK, "connect": _CONNECT, "proxy": _PROXY}
_WITHIN: Final = {
    "service": {"check": "check", "checks": "check", "connect": "connect", "proxy": "proxy"},
    "connect": {"sidecarservice": "service"},
}
"""What stands under which key of a definition."""


def invalid_key(key: str, known: Iterable[str]) -> str:
    """What to say of a key, with the names on the way to it."""
    meant = get_close_matches(key.rpartition(".")[2].lower(), known, 1)
    remedy = f"did you mean {meant[0]}?" if meant else "Comitia has no such setting: remove it"
    return f"invalid config key {key}: {remedy}"


def strange_keys(kind: str, definition: Any) -> Iterator[tuple[str, str]]:
    """What a definition of a "service" or "check" may not say: the way to it, as `.checks[0].tlt`, and why.

    What has another shape than it should is left to who reads the definition.
    """
    if not isinstance(definition, dict):
        return
    known = {_plain(name): name for name in _KEYS[kind]}
    for key, value in definition.items():
        name = _plain(key)
        if name not in known:
            yield f".{key}", invalid_key(f"{kind}.{key}", known.values())
        elif within := _WITHIN.get(kind, {}).get(name):
            several = value if isinstance(value, list) else [value]
            for number, each in enumerate(several):
                way = f".{key}[{number}]" if isinstance(value, list) else f".{key}"
                yield from ((way + rest, why) for rest, why in strange_keys(within, each))


def _plain(name: str) -> str:
    """Neither case nor underscores tell names apart."""
    return name.lower().replace("_", "")


def add_weights(document: Any) -> None:
    """Give services that have one weight the other one: in files, not over HTTP, it is 1."""
    services = document.get("services", []) if isinstance(document, dict) else []
    for service in services if isinstance(services, list) else []:
        for key, given in service.items() if isinstance(service, dict) else ():
            if key.lower() == "weights" and isinstance(given, dict):
                known = {name.lower() for name in given}
                given.update({name: 1 for name in ("passing", "warning") if name not in known})
