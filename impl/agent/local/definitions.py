"""What a user asks an agent to check, and whether that makes sense. Source: Consul, "Define health checks".

Values only: `checks` carries them out.
"""

from __future__ import annotations

from typing import Final

import msgspec

from impl.catalog.rows import CRITICAL, Check, Service
from impl.runtime.interfaces import MILLISECONDS, NANOSECONDS, Endpoint, Tls

INTERVAL_NS_MIN: Final = NANOSECONDS
"""Checks are not run more often."""
DEREGISTER_NS_MIN: Final = 60 * NANOSECONDS
"""A shorter `deregister_after_ns` counts as this."""
OUTPUT_BYTES_MAX: Final = 4096
NODE_MAINTENANCE: Final = "_node_maintenance"
"""Id of the critical check that says that the node is under maintenance."""
SERVICE_MAINTENANCE: Final = "_service_maintenance:"
"""Id of the one of a service, without the service's id."""

_SMALL = ((MILLISECONDS, "ms"), (1000, "µs"), (1, "ns"))


class CheckDefinition(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One health check of this agent: of its node, or of the instance `service_id`. Times are in nanoseconds."""

    check_id: str
    name: str
    notes: str = ""
    status: str = CRITICAL
    """Before it was run for the first time."""
    service_id: str = ""
    ttl_ns: int = 0
    http: str = ""
    """The URL to ask."""
    method: str = "GET"
    header: dict[str, tuple[str, ...]] = {}
    body: str = ""
    disable_redirects: bool = False
    tcp: str = ""
    """host:port to connect to."""
    tcp_use_tls: bool = False
    udp: str = ""
    """host:port to send a datagram to."""
    grpc: str = ""
    """host:port, or host:port/service, to ask by gRPC's health protocol."""
    grpc_use_tls: bool = False
    h2ping: str = ""
    """host:port to send an HTTP/2 PING to."""
    h2ping_use_tls: bool = True
    tls_skip_verify: bool = False
    tls_server_name: str = ""
    """Whose certificate a peer must have; "": that of the host that is asked."""
    args: tuple[str, ...] = ()
    """A command and its arguments."""
    alias_node: str = ""
    """The node whose health this check has, or whose instance `alias_service`; "": this agent's."""
    alias_service: str = ""
    """Id of the instance whose health it has; "": the node's alone."""
    interval_ns: int = 0
    timeout_ns: int = 0
    """0: the default of its kind."""
    success_before_passing: int = 0
    """So many good results in a row, before it is said to pass; 0 is 1."""
    failures_before_warning: int = 0
    """0: as `failures_before_critical`."""
    failures_before_critical: int = 0
    deregister_after_ns: int = 0
    """Critical for that long, it takes its service with it; 0: never."""
    output_bytes_max: int = OUTPUT_BYTES_MAX

    @property
    def kind(self) -> str:
        """What Consul calls its type."""
        if self.check_id == NODE_MAINTENANCE or self.check_id.startswith(SERVICE_MAINTENANCE):
            return "maintenance"
        asked = (
            ("script", self.args),
            ("http", self.http),
            ("tcp", self.tcp),
            ("udp", self.udp),
            ("grpc", self.grpc),
            ("h2ping", self.h2ping),
            ("alias", self.alias_node or self.alias_service),
        )
        return next((kind for kind, given in asked if given), "ttl")

    @property
    def endpoint(self) -> Endpoint:
        """Where a check of this kind connects. Raises ValueError."""
        text, secured = {
            "tcp": (self.tcp, self.tcp_use_tls),
            "udp": (self.udp, False),
            "grpc": (self.grpc.partition("/")[0], self.grpc_use_tls),
            "h2ping": (self.h2ping, self.h2ping_use_tls),
        }[self.kind]
        return address(text, Tls(self.tls_server_name, self.tls_skip_verify) if secured else None)

    def row(self) -> Check:
        """The check as the catalog shows it before it was run, but for its node."""
        return Check(
            "",
            self.check_id,
            self.name,
            self.status,
            self.notes,
            service_id=self.service_id,
            type=self.kind,
            interval=go_duration(self.interval_ns) if self.interval_ns else "",
            timeout=go_duration(self.timeout_ns) if self.timeout_ns else "",
        )


def address(text: str, tls: Tls | None) -> Endpoint:
    """`host:port`, `[v6]:port`, or `:port` of this machine. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not (colon and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"address {text}: missing or bad port in address")
    return Endpoint(host.removeprefix("[").removesuffix("]") or "localhost", int(port), tls)


class Sidecar(msgspec.Struct, frozen=True):
    """A proxy that is registered with its service."""

    service: Service
    """The proxy's instance; port 0: the agent finds one."""
    checks: tuple[CheckDefinition, ...]
    """None: the usual ones."""
    host: str
    """Where its service is reached, and it itself if it has no address."""


class ServiceDefinition(msgspec.Struct, frozen=True):
    """An instance of a service on this agent's node, and its checks."""

    service: Service
    checks: tuple[CheckDefinition, ...] = ()
    sidecar: Sidecar | None = None

    @property
    def all_checks(self) -> tuple[CheckDefinition, ...]:
        """Those of its sidecar, too."""
        return self.checks if self.sidecar is None else (*self.checks, *self.sidecar.checks)


def go_duration(duration_ns: int) -> str:
    """A duration as Go writes it: `1h0m0s`, `1m30s`, `10s`, `1.5s`, `250ms`; 0 is `0s`."""
    if not duration_ns:
        return "0s"
    if duration_ns < NANOSECONDS:
        size, name = next((size, name) for size, name in _SMALL if duration_ns >= size)
        return f"{_decimal(duration_ns, size)}{name}"
    minutes, rest = divmod(duration_ns, 60 * NANOSECONDS)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{_decimal(rest, NANOSECONDS)}s"
    if hours:
        return f"{hours}h{minutes}m{seconds}"
    return f"{minutes}m{seconds}" if minutes else seconds


def _decimal(value: int, unit: int) -> str:
    whole, part = divmod(value, unit)
    digits = str(part).rjust(len(str(unit)) - 1, "0").rstrip("0")
    return f"{whole}.{digits}" if part else str(whole)


def problem(definition: CheckDefinition) -> str:
    """Why there cannot be such a check, in Consul's words; "" if there can."""
    is_alias = bool(definition.alias_node or definition.alias_service)
    polled = definition.kind not in ("ttl", "alias")
    if definition.interval_ns > 0 and definition.ttl_ns > 0:
        return "Interval and TTL cannot both be specified"
    if polled and definition.interval_ns <= 0:
        return "Interval must be > 0 for Script, HTTP, H2PING, TCP, UDP or OSService checks"
    if polled and is_alias:
        return "Interval cannot be set for Alias checks"
    if is_alias and definition.ttl_ns > 0:
        return "TTL must be not be set for Alias checks"
    if definition.kind == "ttl" and definition.ttl_ns <= 0:
        return "TTL must be > 0 for TTL checks"
    if definition.failures_before_warning > definition.failures_before_critical:
        return "FailuresBeforeWarning can't be higher than FailuresBeforeCritical"
    if definition.http and not definition.http.startswith(("http://", "https://")):
        return f"unsupported URL {definition.http!r}: it must begin with http:// or https://"
    if definition.kind in ("tcp", "udp", "grpc", "h2ping"):
        try:
            assert definition.endpoint
        except ValueError as error:
            return str(error)
    if definition.output_bytes_max < 1:
        return "MaxOutputMaxSize must be positive"
    return ""
