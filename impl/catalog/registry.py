"""The registry's commands, on the tables: nodes, service instances and health checks, with referential integrity.

An instance needs its node, a check its node and perhaps its instance; what is deleted takes with it what needs it, and
ends the sessions that depended on it. What changes nothing touches nothing. Every change touches the indexes of all
answers that may look different: that is what blocking queries wait for. Source: Consul, "Catalog HTTP API", "Health
HTTP API", and its state store.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from msgspec.structs import replace

from impl.catalog import sessions
from impl.catalog.rows import CRITICAL, SERF_HEALTH, Check, Node, Service, node_key, row_key, service_key
from impl.catalog.tables import (
    CHECKS,
    CONNECT_EXTINCTION,
    NODE_EXTINCTION,
    NODES,
    SERVICE_EXTINCTION,
    SERVICES,
    Invalid,
    Tables,
)

R = TypeVar("R", Node, Service, Check)


def of_node(node: str) -> str:
    """The name of the index of one node."""
    return f"node.{node_key(node)}"


def of_service(service: str) -> str:
    """The name of the index of one service."""
    return f"service.{service_key(service)}"


def of_kind(kind: str) -> str:
    """The name of the index of a kind of services."""
    return f"service_kind.{kind}"


def of_connect(service: str) -> str:
    """The name of the index of those through whom one service is reached in the mesh."""
    return f"connect.{service_key(service)}"


def _of_instance(service: Service) -> tuple[str, ...]:
    """The names of the indexes of the health answers that show an instance."""
    names = (of_service(service.service), of_kind(service.kind))
    return (*names, of_connect(service.connect)) if service.connect else names


def register(
    tables: Tables, node: Node, service: Service | None, checks: Sequence[Check], skip_node_update: bool, index: int
) -> None:
    """Register a node with, perhaps, an instance and checks. Raises Invalid: wrap it in `Tables.atomic`."""
    if not skip_node_update or tables.nodes.get(node_key(node.node)) is None:
        with _saying("failed inserting node"):
            ensure_node(tables, node, index)
    if service is not None:
        with _saying("failed inserting service"):
            ensure_service(tables, service, index)
    for check in checks:
        if node_key(check.node) != node_key(node.node):
            raise Invalid(f'check node "{check.node}" does not match node "{node.node}"')
        with _saying(f'failed inserting check on node "{check.node}"'):
            ensure_check(tables, check, index)


@contextmanager
def _saying(what: str) -> Iterator[None]:
    try:
        yield
    except Invalid as invalid:
        raise Invalid(f"{what}: {invalid}") from invalid


def deregister(tables: Tables, node: str, service_id: str, check_id: str, index: int) -> None:
    """Deregister an instance, or else a check, or else the node."""
    if service_id:
        delete_service(tables, node, service_id, index)
    elif check_id:
        delete_check(tables, node, check_id, index)
    else:
        delete_node(tables, node, index)


def _numbered(row: R, old: R | None, index: int) -> R:
    """The row as it is stored in place of `old`, which it is if that changes nothing."""
    if old is None:
        return replace(row, create_index=index, modify_index=index)
    row = replace(row, create_index=old.create_index, modify_index=old.modify_index)
    return old if row == old else replace(row, modify_index=index)


# --------------------------------------------------------------------------------------------------------------- nodes


def node_by_id(tables: Tables, node_id: str) -> Node | None:
    """The node of an id."""
    found = tables.nodes.group("id", node_id)
    return found[0] if found else None


def ensure_node(tables: Tables, node: Node, index: int) -> None:
    """Register or change a node; one that is known by its id may be renamed. Raises Invalid: the name is taken."""
    key = node_key(node.node)
    old = tables.nodes.get(key)
    if node.id:
        known = node_by_id(tables, node.id)
        _refuse_taken_name(tables, node, known, old)
        if known is not None:
            if node_key(known.node) != key:
                delete_node(tables, known.node, index)
            old = known
    node = _numbered(node, old, index)
    if node is old:
        return
    tables.nodes.put(key, node)
    tables.touch(index, NODES, of_node(key))
    _touch_services_on(tables, key, index)


def _refuse_taken_name(tables: Tables, node: Node, known: Node | None, holder: Node | None) -> None:
    if known is not None and node_key(known.node) == node_key(node.node):
        return
    if holder is None or holder.id == node.id or (not holder.id and known is None):
        return
    alive = tables.checks.get(row_key(holder.node, SERF_HEALTH))
    if alive is not None and alive.status != CRITICAL:
        whom = f'"{node.id}"' if known is None else f'"{node.id}" ({node.address})'
        taken = f"Node name {node.node} is reserved by node {holder.id} with name {holder.node} ({holder.address})"
        raise Invalid(f"Error while renaming Node ID: {whom}: {taken}")


def delete_node(tables: Tables, node: str, index: int) -> None:
    """Deregister a node with all it has, if it exists."""
    key = node_key(node)
    if tables.nodes.get(key) is None:
        return
    for service in tables.services.group("node", key):
        delete_service(tables, node, service.id, index)
    for check in tables.checks.group("node", key):
        delete_check(tables, node, check.check_id, index)
    tables.nodes.pop(key)
    tables.touch(index, NODES, NODE_EXTINCTION)
    tables.forget(of_node(key))
    sessions.end_all(tables, sessions.of_node(tables, node), index)


def _touch_services_on(tables: Tables, key: str, index: int) -> None:
    for service in tables.services.group("node", key):
        tables.touch(index, *_of_instance(service))


# ------------------------------------------------------------------------------------------------------------ services


def ensure_service(tables: Tables, service: Service, index: int) -> None:
    """Register or change an instance. Raises Invalid: its node is not registered."""
    if tables.nodes.get(node_key(service.node)) is None:
        raise Invalid("Missing node registration")
    key = row_key(service.node, service.id)
    old = tables.services.get(key)
    service = _numbered(service, old, index)
    if service is old:
        return
    tables.services.put(key, service)
    if old is not None and service_key(old.service) != service_key(service.service):
        _left(tables, old, index)
    if old is not None and service_key(old.connect) != service_key(service.connect):
        _left_mesh(tables, old, index)
    _announce(tables, service, index)


def delete_service(tables: Tables, node: str, service_id: str, index: int) -> None:
    """Deregister an instance with its checks, if it exists."""
    key = row_key(node, service_id)
    service = tables.services.get(key)
    if service is None:
        return
    for check in tables.checks.group("instance", key) if service_id else ():
        delete_check(tables, node, check.check_id, index)
    tables.services.pop(key)
    _announce(tables, service, index)
    tables.touch(index, CHECKS)
    _left(tables, service, index)
    _left_mesh(tables, service, index)


def _announce(tables: Tables, service: Service, index: int) -> None:
    tables.touch(index, SERVICES, NODES, of_node(service.node), *_of_instance(service))


def _left(tables: Tables, service: Service, index: int) -> None:
    """An instance left its service; who waits for one that has none waits for the extinction of any."""
    if tables.services.has_group("service", service_key(service.service)):
        tables.touch(index, of_service(service.service))
    else:
        tables.forget(of_service(service.service))
        tables.touch(index, SERVICE_EXTINCTION)


def _left_mesh(tables: Tables, service: Service, index: int) -> None:
    """A service is reached through this instance no more: as `_left`."""
    if not service.connect:
        return
    if tables.services.has_group("connect", service_key(service.connect)):
        tables.touch(index, of_connect(service.connect))
    else:
        tables.forget(of_connect(service.connect))
        tables.touch(index, CONNECT_EXTINCTION)


# -------------------------------------------------------------------------------------------------------------- checks


def ensure_check(tables: Tables, check: Check, index: int) -> None:
    """Register or change a check; a critical one ends the sessions that depend on it.

    Raises Invalid: its node, or its instance, is not registered.
    """
    if tables.nodes.get(node_key(check.node)) is None:
        raise Invalid("Missing node registration")
    if check.service_id:
        service = tables.services.get(row_key(check.node, check.service_id))
        if service is None:
            raise Invalid("Missing service registration")
        check = replace(check, service_name=service.service, service_tags=service.tags)
    key = row_key(check.node, check.check_id)
    old = tables.checks.get(key)
    check = _numbered(check, old, index)
    if check is not old:
        tables.checks.put(key, check)
        tables.touch(index, CHECKS)
        _touch_health(tables, check, index)
        if old is not None and old.service_id != check.service_id:
            _touch_health(tables, old, index)
    if check.status == CRITICAL:
        sessions.end_all(tables, sessions.of_check(tables, check.node, check.check_id), index)


def delete_check(tables: Tables, node: str, check_id: str, index: int) -> None:
    """Deregister a check, if it exists, and end the sessions that depend on it."""
    check = tables.checks.pop(row_key(node, check_id))
    if check is None:
        return
    tables.touch(index, CHECKS)
    _touch_health(tables, check, index)
    if not check.service_id:
        tables.touch(index, SERVICES)
    sessions.end_all(tables, sessions.of_check(tables, node, check_id), index)


def _touch_health(tables: Tables, check: Check, index: int) -> None:
    if not check.service_id:
        _touch_services_on(tables, node_key(check.node), index)
    elif (service := tables.services.get(row_key(check.node, check.service_id))) is not None:
        tables.touch(index, *_of_instance(service))
