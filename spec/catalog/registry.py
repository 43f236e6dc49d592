"""The registry: nodes, their service instances, and the health checks of both, with referential integrity.

An instance needs its node, a check its node and, if it has one, its instance; what is deleted takes with it what needs
it, and ends the sessions that depended on it. A registration that changes nothing leaves every index as it was.

Each change raises the indexes of all answers that it may change: of the table, of the node, and of each service whose
health answer shows the changed row (`touched`). Source: Consul, "Catalog HTTP API", "Health HTTP API"; its state store.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from msgspec.structs import replace

from spec.catalog import sessions
from spec.catalog.kv import Invalid
from spec.catalog.state import (
    Check,
    Index,
    Node,
    Service,
    State,
    Status,
    node_key,
    on_node,
    row_key,
    service_key,
    touched,
)

SERF_HEALTH = "serfHealth"
"""The check that says whether a node's agent is alive."""
R = TypeVar("R", Node, Service, Check)


def numbered(row: R, old: R | None, index: Index) -> R:
    """The row with the indexes that it is stored with, where `old` was: those of `old` if nothing else changed."""
    if old is None:
        return replace(row, create_index=index, modify_index=index)
    row = replace(row, create_index=old.create_index, modify_index=old.modify_index)
    return row if row == old else replace(row, modify_index=index)


# --------------------------------------------------------------------------------------------------------------- nodes


def ensure_node(state: State, node: Node, index: Index) -> State:
    """Register a node, or change it. A node that is known by its id may be renamed: the old name goes with all it had.

    Raises Invalid: the name belongs to another node whose agent is alive.
    """
    old = state.nodes.get(node_key(node.node))
    if node.id:
        known = by_id(state, node.id)
        reject_taken_name(state, node, known)
        if known is not None:
            if node_key(known.node) != node_key(node.node):
                state = delete_node(state, known.node, index)
            old = known
    node = numbered(node, old, index)
    if node == old:
        return state
    state = replace(state, nodes=state.nodes.put(node_key(node.node), node))
    state = touched(state, index, "nodes", f"node.{node_key(node.node)}")
    return services_touched(state, node.node, index)


def by_id(state: State, node_id: str) -> Node | None:
    """The node of an id."""
    return next((node for _, node in state.nodes.items() if node.id == node_id), None)


def reject_taken_name(state: State, node: Node, known: Node | None) -> None:
    """Raise Invalid if the name of `node`, which is known as `known` by its id, is another's whose agent is alive.

    A node without an id may be given one, but not by renaming another.
    """
    if known is not None and node_key(known.node) == node_key(node.node):
        return
    other = state.nodes.get(node_key(node.node))
    if other is None or other.id == node.id or (not other.id and known is None):
        return
    alive = state.checks.get(row_key(other.node, SERF_HEALTH))
    if alive is not None and alive.status is not Status.CRITICAL:
        taken = f"Node name {node.node} is reserved by node {other.id} with name {other.node} ({other.address})"
        whom = f'"{node.id}"' if known is None else f'"{node.id}" ({node.address})'
        raise Invalid(f"Error while renaming Node ID: {whom}: {taken}")


def delete_node(state: State, node: str, index: Index) -> State:
    """Deregister a node with its instances and checks, and end its sessions. An unknown node changes nothing."""
    if node_key(node) not in state.nodes:
        return state
    for service in services_of(state, node):
        state = delete_service(state, node, service.id, index)
    for check in checks_of(state, node):
        state = delete_check(state, node, check.check_id, index)
    state = replace(state, nodes=state.nodes.without(node_key(node)))
    state = touched(state, index, "nodes", "node_last_extinction")
    state = replace(state, indexes=state.indexes.without(f"node.{node_key(node)}"))
    return sessions.end_all(state, sessions.of_node(state, node), index)


def services_of(state: State, node: str) -> tuple[Service, ...]:
    """The instances on a node, by id."""
    return tuple(service for _, service in state.services.with_prefix(on_node(node)))


def checks_of(state: State, node: str) -> tuple[Check, ...]:
    """The checks of a node and of its instances, by id."""
    return tuple(check for _, check in state.checks.with_prefix(on_node(node)))


def services_touched(state: State, node: str, index: Index) -> State:
    """A node, or a check of it, changed: so did the health answers of all services that it has instances of."""
    for service in services_of(state, node):
        state = touched(state, index, *of_instance(service))
    return state


def of_service(service: str) -> str:
    """The name of the index of one service."""
    return f"service.{service_key(service)}"


def of_connect(service: str) -> str:
    """The name of the index of those through whom one service is reached in the mesh."""
    return f"connect.{service_key(service)}"


def of_instance(service: Service) -> tuple[str, ...]:
    """The names of the indexes of the health answers that show an instance."""
    names = (of_service(service.service), f"service_kind.{service.kind}")
    return (*names, of_connect(service.connect)) if service.connect else names


# ------------------------------------------------------------------------------------------------------------ services


def ensure_service(state: State, service: Service, index: Index) -> State:
    """Register an instance, or change it. Raises Invalid: its node is not registered.

    An instance that changes its name leaves the old service: *Deviation:* Consul raises no index of the old name then.
    """
    if node_key(service.node) not in state.nodes:
        raise Invalid("Missing node registration")
    key = row_key(service.node, service.id)
    old = state.services.get(key)
    service = numbered(service, old, index)
    if service == old:
        return state
    state = replace(state, services=state.services.put(key, service))
    if old is not None and service_key(old.service) != service_key(service.service):
        state = left(state, old, index)
    if old is not None and service_key(old.connect) != service_key(service.connect):
        state = left_mesh(state, old, index)
    return announced(state, service, index)


def announced(state: State, service: Service, index: Index) -> State:
    """Raise the indexes of all answers that show an instance."""
    return touched(
        state,
        index,
        "services",
        "nodes",
        f"node.{node_key(service.node)}",
        *of_instance(service),
    )


def delete_service(state: State, node: str, service_id: str, index: Index) -> State:
    """Deregister an instance with its checks. An unknown one changes nothing."""
    key = row_key(node, service_id)
    service = state.services.get(key)
    if service is None:
        return state
    for check in checks_of(state, node):
        if row_key(node, check.service_id) == key:
            state = delete_check(state, node, check.check_id, index)
    state = replace(state, services=state.services.without(key))
    state = touched(announced(state, service, index), index, "checks")
    return left_mesh(left(state, service, index), service, index)


def left(state: State, service: Service, index: Index) -> State:
    """An instance left its service: with the last one, the service's own index goes, too.

    Who waits for a service that does not exist waits on the index of the last extinction of any.
    """
    name = of_service(service.service)
    if any(of_service(other.service) == name for _, other in state.services.items()):
        return touched(state, index, name)
    state = replace(state, indexes=state.indexes.without(name))
    return touched(state, index, "service_last_extinction")


def left_mesh(state: State, service: Service, index: Index) -> State:
    """An instance through which a service was reached in the mesh is gone, or says so no more: as `left`."""
    if not service.connect:
        return state
    name = of_connect(service.connect)
    if any(service_key(each.connect) == service_key(service.connect) for _, each in state.services.items()):
        return touched(state, index, name)
    state = replace(state, indexes=state.indexes.without(name))
    return touched(state, index, "connect_last_extinction")


# -------------------------------------------------------------------------------------------------------------- checks


def ensure_check(state: State, check: Check, index: Index) -> State:
    """Register a check, or change it; if it is critical, the sessions that depend on it end.

    Raises Invalid: its node, or its instance, is not registered.
    """
    if node_key(check.node) not in state.nodes:
        raise Invalid("Missing node registration")
    if check.service_id:
        service = state.services.get(row_key(check.node, check.service_id))
        if service is None:
            raise Invalid("Missing service registration")
        check = replace(check, service_name=service.service, service_tags=service.tags)
    key = row_key(check.node, check.check_id)
    old = state.checks.get(key)
    check = numbered(check, old, index)
    if check != old:
        state = replace(state, checks=state.checks.put(key, check))
        state = health_touched(touched(state, index, "checks"), check, index)
        if old is not None and old.service_id != check.service_id:
            state = health_touched(state, old, index)
    if check.status is Status.CRITICAL:
        state = sessions.end_all(state, sessions.of_check(state, check.node, check.check_id), index)
    return state


def health_touched(state: State, check: Check, index: Index) -> State:
    """Raise the indexes of the health answers that show a check: its service's, or those of all on its node."""
    if not check.service_id:
        return services_touched(state, check.node, index)
    service = state.services.get(row_key(check.node, check.service_id))
    if service is None:
        return state
    return touched(state, index, *of_instance(service))


def delete_check(state: State, node: str, check_id: str, index: Index) -> State:
    """Deregister a check, and end the sessions that depend on it. An unknown one changes nothing."""
    check = state.checks.get(row_key(node, check_id))
    if check is None:
        return state
    state = replace(state, checks=state.checks.without(row_key(node, check_id)))
    state = health_touched(touched(state, index, "checks"), check, index)
    if not check.service_id:
        state = touched(state, index, "services")
    return sessions.end_all(state, sessions.of_check(state, node, check_id), index)


# ------------------------------------------------------------------------------------------------ whole registrations


def register(
    state: State, node: Node, service: Service | None, checks: tuple[Check, ...], skip_node_update: bool, index: Index
) -> State:
    """Register a node with, perhaps, an instance and checks: all of it or nothing.

    `skip_node_update`: a node that exists is left as it is. Raises Invalid.
    """
    if node_key(node.node) not in state.nodes or not skip_node_update:
        with saying("failed inserting node"):
            state = ensure_node(state, node, index)
    if service is not None:
        with saying("failed inserting service"):
            state = ensure_service(state, service, index)
    for check in checks:
        if node_key(check.node) != node_key(node.node):
            raise Invalid(f'check node "{check.node}" does not match node "{node.node}"')
        with saying(f'failed inserting check on node "{check.node}"'):
            state = ensure_check(state, check, index)
    return state


@contextmanager
def saying(what: str) -> Iterator[None]:
    """An Invalid raised within says first what was being done."""
    try:
        yield
    except Invalid as invalid:
        raise Invalid(f"{what}: {invalid}") from invalid


def deregister(state: State, node: str, service_id: str, check_id: str, index: Index) -> State:
    """Deregister an instance, or else a check, or else the whole node."""
    if service_id:
        return delete_service(state, node, service_id, index)
    if check_id:
        return delete_check(state, node, check_id, index)
    return delete_node(state, node, index)
