"""What a user asks an agent to check, and whether that makes sense. Source: Consul, "Define health checks".

Values only: `checks` carries them out.
"""

from __future__ import annotations

from typing import Final

import msgspec

from impl.catalog.rows import CRITICAL, Check, Service
from impl.runtime.interfaces import MILLISECONDS, NANOSECONDS

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
    tls_skip_verify: bool = False
    disable_redirects: bool = False
    tcp: str = ""
    """host:port to connect to."""
    args: tuple[str, ...] = ()
    """A command and its arguments."""
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
        return "script" if self.args else "http" if self.http else "tcp" if self.tcp else "ttl"

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


class ServiceDefinition(msgspec.Struct, frozen=True):
    """An instance of a service on this agent's node, and its checks."""

    service: Service
    checks: tuple[CheckDefinition, ...] = ()


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
    polled = bool(definition.args or definition.http or definition.tcp)
    if definition.interval_ns > 0 and definition.ttl_ns > 0:
        return "Interval and TTL cannot both be specified"
    if polled and definition.interval_ns <= 0:
        return "Interval must be > 0 for Script, HTTP, H2PING, TCP, UDP or OSService checks"
    if not polled and definition.ttl_ns <= 0:
        return "TTL must be > 0 for TTL checks"
    if definition.http and not definition.http.startswith(("http://", "https://")):
        return f"unsupported URL {definition.http!r}: it must begin with http:// or https://"
    host, _, port = definition.tcp.rpartition(":")
    if definition.tcp and not (host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        return f"address {definition.tcp}: missing or bad port in address"
    if definition.output_bytes_max < 1:
        return "MaxOutputMaxSize must be positive"
    return ""
