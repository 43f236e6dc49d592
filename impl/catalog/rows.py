"""The rows of the registry and of the session table, as they stand in the state store, in payloads and in snapshots.

Frozen values; a row that changes is replaced. Names of nodes and services, and ids of instances and checks, are
compared without regard to case, and shown as they were registered. In a payload `create_index` and `modify_index` say
nothing, except where a conditional operation compares the latter. Keys of tables are made here, and nowhere else.
Source: Consul, "Catalog", "Health" and "Session" HTTP APIs.
"""

from __future__ import annotations

from typing import Final

import msgspec

PASSING: Final = "passing"
WARNING: Final = "warning"
CRITICAL: Final = "critical"
STATUSES: Final = (PASSING, WARNING, CRITICAL)
"""What a health check says."""

RELEASE: Final = "release"
DELETE: Final = "delete"
BEHAVIORS: Final = (RELEASE, DELETE)
"""What becomes of the locks of a session that ends."""

SERF_HEALTH: Final = "serfHealth"
"""Id of the check that says whether a node's agent is alive."""


class Node(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A machine."""

    node: str
    address: str
    id: str = ""
    datacenter: str = ""
    tagged_addresses: dict[str, str] = {}
    meta: dict[str, str] = {}
    create_index: int = 0
    modify_index: int = 0


class ServiceAddress(msgspec.Struct, frozen=True, array_like=True, gc=False, order=True):
    """One of several addresses of an instance."""

    address: str
    port: int


class Service(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One instance of a service; `id` is unique on its node."""

    node: str
    id: str
    service: str
    kind: str = ""
    tags: tuple[str, ...] = ()
    address: str = ""
    port: int = 0
    tagged_addresses: dict[str, ServiceAddress] = {}
    meta: dict[str, str] = {}
    weights: tuple[int, int] = (1, 1)
    """DNS weights while passing, and while warning."""
    enable_tag_override: bool = False
    create_index: int = 0
    modify_index: int = 0
    connect: str = ""
    """The service that is reached through it in the mesh: a proxy's destination, or its own; "": none."""
    mesh: str = ""
    """What it says of itself to the mesh: a JSON object, opaque here; "": nothing was said."""


class Check(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A health check of a node (no `service_id`) or of an instance on it."""

    node: str
    check_id: str
    name: str = ""
    status: str = CRITICAL
    notes: str = ""
    output: str = ""
    service_id: str = ""
    service_name: str = ""
    """Copied from the instance when the check is stored, and so are the tags."""
    service_tags: tuple[str, ...] = ()
    type: str = ""
    interval: str = ""
    timeout: str = ""
    create_index: int = 0
    modify_index: int = 0
    definition: str = ""
    """How it is probed, by whoever registered it: a JSON object, opaque here; "": nothing was said."""


class Session(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A contract between a node, its health checks and locks of the KV store."""

    id: str
    node: str
    name: str = ""
    lock_delay_ns: int = 15_000_000_000
    behavior: str = RELEASE
    ttl: str = ""
    """A Go duration; "": none."""
    node_checks: tuple[str, ...] = ()
    service_checks: tuple[tuple[str, str], ...] = ()
    """(check id, namespace)."""
    create_index: int = 0
    modify_index: int = 0

    @property
    def checks(self) -> tuple[str, ...]:
        """The ids of all checks that the session depends on."""
        return self.node_checks + tuple(check_id for check_id, _ in self.service_checks)


def node_key(node: str) -> str:
    """The key of a node: its name, in lower case."""
    return node.lower()


def service_key(service: str) -> str:
    """What the instances of a service are grouped by: its name, in lower case."""
    return service.lower()


def row_key(node: str, identity: str) -> str:
    """The key of an instance or a check: its node and its id, in lower case. Neither has a NUL."""
    return f"{node_key(node)}\0{identity.lower()}"
