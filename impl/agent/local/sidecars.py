"""Proxies that are registered with their service (`Connect.SidecarService`): their ids, their ports, their checks.

No proxy is started or configured: it is an instance like any other, through which its service is reached in the mesh.
Source: Consul, "Register a service mesh proxy"; `agent/sidecar_service.go`. *Deviations:* a sidecar is known by its id
and destination, also if it was registered apart from its service; `ports.sidecar_min_port` and `sidecar_max_port` are
fixed.

Values only: `registrations` registers them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from msgspec.structs import replace

from impl.agent.config.validated import ConfigError
from impl.agent.local.definitions import CheckDefinition, ServiceDefinition, Sidecar
from impl.catalog.rows import Service
from impl.runtime.interfaces import NANOSECONDS

SUFFIX: Final = "-sidecar-proxy"
PORTS: Final = range(21000, 21256)
"""Those that are given to sidecars that name none."""
INTERVAL_NS: Final = 10 * NANOSECONDS


class NoPortLeft(ConfigError):
    """All ports for sidecars are taken. The text is Consul's."""


def sidecar_of(service: Service, present: Mapping[str, Service]) -> str | None:
    """The id of the sidecar that an instance has; None: it has none."""
    found = present.get(service.id + SUFFIX)
    return found.id if found is not None and found.connect == service.service else None


def with_sidecars(definitions: Iterable[ServiceDefinition], present: Mapping[str, Service]) -> list[ServiceDefinition]:
    """Each definition, and behind it its sidecar's: with a port, and with checks if it has none. `present`: the
    instances of the agent. Raises NoPortLeft.
    """
    definitions = list(definitions)
    used = {service.port for service in present.values()} | {each.service.port for each in definitions}
    found = []
    for each in definitions:
        found.append(each)
        if each.sidecar is not None:
            placed = _placed(each.service, each.sidecar, present, used)
            used.add(placed.service.port)
            found.append(placed)
    return found


def _placed(service: Service, sidecar: Sidecar, present: Mapping[str, Service], used: set[int]) -> ServiceDefinition:
    proxy, checks = sidecar.service, sidecar.checks
    if not proxy.port:
        proxy = replace(proxy, port=_port(present.get(proxy.id), used))
    return ServiceDefinition(proxy, checks or _default_checks(service, proxy, sidecar.host))


def _port(before: Service | None, used: set[int]) -> int:
    """That which it has, or the lowest that is free. Raises NoPortLeft."""
    if before is not None and before.port in PORTS:
        return before.port
    free = next((port for port in PORTS if port not in used), None)
    if free is None:
        limits = f"[{PORTS[0]}, {PORTS[-1]}]"
        raise NoPortLeft(f"no port provided for sidecar_service and none left in the configured range {limits}")
    return free


def _default_checks(service: Service, proxy: Service, host: str) -> tuple[CheckDefinition, ...]:
    """It listens, and its service is healthy."""
    listens = CheckDefinition(
        check_id=f"service:{proxy.id}:1",
        name="Connect Sidecar Listening",
        service_id=proxy.id,
        tcp=f"{proxy.address or host}:{proxy.port}",
        interval_ns=INTERVAL_NS,
    )
    alias = CheckDefinition(
        check_id=f"service:{proxy.id}:2",
        name=f"Connect Sidecar Aliasing {service.id}",
        service_id=proxy.id,
        alias_service=service.id,
    )
    return listens, alias
