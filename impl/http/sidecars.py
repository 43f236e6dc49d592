"""`Connect.SidecarService` of a service's definition, completed to the definition of a proxy of its own.

Source: Consul, "Register a service mesh proxy"; `agent/sidecar_service.go`, sidecarServiceFromNodeService.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from impl.agent.local.sidecars import SUFFIX
from impl.catalog.rows import Service
from impl.http import mesh
from impl.http.fields import Fields, loose
from impl.http.request import HttpError

LOCALHOST = "127.0.0.1"


class Described(NamedTuple):
    """A proxy as `definitions` reads services."""

    document: dict[str, Any]
    host: str
    """Where it reaches its service."""


def described(fields: Fields, service: Service) -> Described | None:
    """What a service says of its sidecar; None: it has none. Raises HttpError."""
    nested = fields.within("Connect").raw("SidecarService")
    if nested is None:
        return None
    given = Fields(loose(nested), "SidecarService")
    _refuse(given, service)
    proxy = given.within("Proxy")
    socket = proxy.text("LocalServiceSocketPath")
    host = proxy.text("LocalServiceAddress") or LOCALHOST
    completed: dict[str, Any] = {
        **proxy.document,
        "destinationservicename": proxy.text("DestinationServiceName") or service.service,
        "destinationserviceid": proxy.text("DestinationServiceID") or service.id,
    }
    if not socket:
        port = proxy.number("LocalServicePort") or service.port
        completed |= {"localserviceaddress": host, "localserviceport": port}
    document = {
        **given.document,
        "id": service.id + SUFFIX,
        "name": given.text("Name") or service.service + SUFFIX,
        "kind": given.text("Kind") or mesh.CONNECT_PROXY,
        "address": given.text("Address") or service.address,
        "tags": list(given.strings("Tags") or service.tags),
        "meta": given.mapping("Meta") or service.meta,
        "proxy": completed,
    }
    return Described(document, host)


def _refuse(given: Fields, service: Service) -> None:
    problems = []
    if service.kind in mesh.GATEWAYS:
        problems.append(f"A {service.kind} cannot have a sidecar service defined")
    if given.text("ID"):
        problems.append("A SidecarService cannot specify an ID as this is managed by the agent")
    if given.within("Connect").raw("SidecarService") is not None:
        problems.append("A SidecarService cannot have a nested SidecarService")
    if problems:
        raise HttpError(400, f"Validation failed: {mesh.listed(problems)}")
