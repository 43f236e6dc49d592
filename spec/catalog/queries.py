"""`query(state, request) -> (index, answer)`: what a read is told, and the index that it may wait on (X-Consul-
Index).

The index of an answer grows with every change of the answer, so that a blocking query misses nothing. It may grow
without one, and in few cases that Consul's users know it goes back (`kv.delete_tree`, reaped tombstones, a service
that vanished). Source: Consul, "Blocking Queries" ("the index must be greater than zero"); the KV, catalog, health and
session HTTP APIs.
"""

from __future__ import annotations

from typing import assert_never

import msgspec

from spec.catalog import registry, sessions
from spec.catalog.commands import (
    ChecksInState,
    Get,
    GetSession,
    Keys,
    List,
    ListNodes,
    ListServices,
    ListSessions,
    NodeChecks,
    NodeServices,
    Request,
    ServiceChecks,
    ServiceHealth,
    ServiceInstances,
)
from spec.catalog.state import (
    Check,
    Index,
    Node,
    Pairs,
    Row,
    Service,
    Session,
    State,
    Status,
    node_key,
    row_key,
    service_key,
)


class Instance(msgspec.Struct, frozen=True):
    """An instance of a service, its node, and for health answers the checks of both, the node's first."""

    node: Node
    service: Service
    checks: tuple[Check, ...] = ()


class OfNode(msgspec.Struct, frozen=True):
    """A node and the instances on it, by id."""

    node: Node
    services: tuple[Service, ...]


class Tags(msgspec.Struct, frozen=True):
    """A service's name and all tags of its instances, sorted."""

    service: str
    tags: tuple[str, ...]


Answer = (
    tuple[Row, ...]
    | tuple[str, ...]
    | tuple[Node, ...]
    | tuple[Tags, ...]
    | tuple[Instance, ...]
    | tuple[OfNode, ...]
    | tuple[Check, ...]
    | tuple[Session, ...]
)
"""Rows in the order of their keys. A single thing is a tuple of one or none."""


def query(state: State, request: Request) -> tuple[Index, Answer]:
    """The answer to `request`, with its index."""
    index, answer = evaluated(state, request)
    return at_least_one(index), answer


def at_least_one(index: Index) -> Index:
    """A client that waits on index 0 would not wait at all."""
    return max(index, 1)


def evaluated(state: State, request: Request) -> tuple[Index, Answer]:
    """The answer, with its index; 0: of what never changed."""
    match request:
        case Get():
            row = state.rows.get(request.key)
            return (state.table_index, ()) if row is None else (row.modify_index, (row,))
        case List():
            return list_index(state, request.prefix), tuple(row for _, row in state.rows.with_prefix(request.prefix))
        case Keys():
            return list_index(state, request.prefix), names(state, request.prefix, request.separator)
        case GetSession():
            session = state.sessions.get(request.session_id)
            return state.index("sessions"), () if session is None else (session,)
        case ListSessions():
            everybody = tuple(session for _, session in state.sessions.items())
            return state.index("sessions"), sessions.of_node(state, request.node) if request.node else everybody
        case ServiceInstances():
            return service_index(state, request, "services", "nodes"), instances(state, request)
        case ServiceHealth():
            return service_index(state, request, "services", "nodes", "checks"), healthy(state, request)
        case NodeServices():
            return node_index(state, request.node), of_node(state, request.node)
        case ListNodes():
            return state.index("nodes"), tuple(node for _, node in state.nodes.items() if has_meta(node, request.meta))
        case ListServices():
            return filtered_index(state, "services", request.meta), tags(state, request.meta)
        case NodeChecks():
            return state.index("checks"), registry.checks_of(state, request.node)
        case ServiceChecks() | ChecksInState():
            return filtered_index(state, "checks", request.meta), chosen_checks(state, request)
        case _:
            assert_never(request)


# --------------------------------------------------------------------------------------------------------- the KV store


def list_index(state: State, prefix: str) -> Index:
    """The newest change under `prefix`, deletions included; the table's index if nothing was ever there, or for the
    root.
    """
    if not prefix:
        return state.table_index
    changes = [row.modify_index for _, row in state.rows.with_prefix(prefix)]
    changes += [index for _, index in state.tombstones.with_prefix(prefix)]
    return max(changes, default=state.table_index)


def names(state: State, prefix: str, separator: str) -> tuple[str, ...]:
    """The keys under `prefix`; those with a separator behind the prefix are cut after it, and named once."""
    found: list[str] = []
    for key, _ in state.rows.with_prefix(prefix):
        at = key.find(separator, len(prefix)) if separator else -1
        name = key if at < 0 else key[: at + len(separator)]
        if not found or found[-1] != name:  # keys are sorted: what is cut to the same name is adjacent
            found.append(name)
    return tuple(found)


# --------------------------------------------------------------------------------------------------------- the registry


def service_index(state: State, request: ServiceInstances | ServiceHealth, *tables: str) -> Index:
    """The index of answers about one service: its own while it has instances.

    If it has none: that of the last time that any service lost its last instance, or of `tables`, if none ever did.
    """
    of_it = registry.of_connect if request.connect else registry.of_service
    if any(is_asked_for(service, request) for _, service in state.services.items()):
        return state.index(of_it(request.service))
    return state.index(f"{'connect' if request.connect else 'service'}_last_extinction") or state.index(*tables)


def is_asked_for(service: Service, request: ServiceInstances | ServiceHealth) -> bool:
    """Whether an instance is of the service, or is the way to it in the mesh."""
    name = service.connect if request.connect else service.service
    return bool(name) and service_key(name) == service_key(request.service)


def node_index(state: State, node: str) -> Index:
    """The index of answers about one node; if there is none, that of the last deregistration of any."""
    if node_key(node) in state.nodes:
        return state.index(f"node.{node_key(node)}")
    return state.index("node_last_extinction")


def filtered_index(state: State, table: str, meta: Pairs) -> Index:
    """The index of a table's rows; whoever chooses them by their nodes' metadata looks at the nodes, too."""
    return state.index(table, "nodes") if meta else state.index(table)


def chosen_checks(state: State, request: ServiceChecks | ChecksInState) -> tuple[Check, ...]:
    """The checks of a service, or with a status, on nodes with the metadata."""

    def asked_for(check: Check) -> bool:
        if isinstance(request, ServiceChecks):
            return service_key(check.service_name) == service_key(request.service)
        return request.status == "any" or request.status.lower() == check.status

    return tuple(
        check
        for _, check in state.checks.items()
        if asked_for(check) and has_meta(node_of(state, check.node), request.meta)
    )


def node_of(state: State, node: str) -> Node:
    """The node that a row belongs to: it exists (referential integrity)."""
    found = state.nodes.get(node_key(node))
    assert found is not None, "an instance or a check needs its node"
    return found


def has_meta(node: Node, wanted: Pairs) -> bool:
    """Whether the node's metadata have all the wanted pairs."""
    return all(pair in node.meta for pair in wanted)


def has_tags(service: Service, wanted: tuple[str, ...]) -> bool:
    """Whether the instance has all the wanted tags, without regard to case."""
    present = {tag.lower() for tag in service.tags}
    return all(tag.lower() in present for tag in wanted)


def instances(state: State, request: ServiceInstances | ServiceHealth) -> tuple[Instance, ...]:
    """The instances that are asked for, each with its node."""
    return tuple(
        Instance(node_of(state, service.node), service)
        for _, service in state.services.items()
        if is_asked_for(service, request)
        and has_tags(service, request.tags)
        and has_meta(node_of(state, service.node), request.meta)
    )


def healthy(state: State, request: ServiceHealth) -> tuple[Instance, ...]:
    """The instances that are asked for with the checks that concern them: their node's, then their own."""
    found = []
    for instance in instances(state, request):
        checks = registry.checks_of(state, instance.node.node)
        nodes = tuple(check for check in checks if not check.service_id)
        key = row_key(instance.node.node, instance.service.id)
        own = tuple(check for check in checks if row_key(instance.node.node, check.service_id) == key)
        if not request.passing or all(check.status is Status.PASSING for check in nodes + own):
            found.append(msgspec.structs.replace(instance, checks=nodes + own))
    return tuple(found)


def of_node(state: State, node: str) -> tuple[OfNode, ...]:
    """The node and its instances, if it exists."""
    found = state.nodes.get(node_key(node))
    return () if found is None else (OfNode(found, registry.services_of(state, node)),)


def tags(state: State, meta: Pairs) -> tuple[Tags, ...]:
    """The names of the services that have instances on nodes with these metadata, and the tags of those instances.

    A service whose instances spell its name differently has several.
    """
    found: dict[str, set[str]] = {}
    for _, service in state.services.items():
        if has_meta(node_of(state, service.node), meta):
            found.setdefault(service.service, set()).update(service.tags)
    return tuple(Tags(name, tuple(sorted(found[name]))) for name in sorted(found))
