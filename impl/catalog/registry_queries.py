"""Reads of the registry and of the session table, on the tables: an answer and the index that it may wait on.

`topics` names the indexes that an answer's index is made of: who waits for the answer to change waits for one of them
to be touched. Each query is found by the groups of the tables, never by a scan of all rows, except where all rows are
asked for. Source: Consul, "Catalog", "Health" and "Session" HTTP APIs, "Blocking Queries".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar, assert_never

import msgspec

from impl.catalog import registry
from impl.catalog.indexed_table import IndexedTable
from impl.catalog.rows import PASSING, Check, Node, Service, Session, node_key, row_key, service_key
from impl.catalog.tables import (
    CHECKS,
    CONNECT_EXTINCTION,
    NODE_EXTINCTION,
    NODES,
    SERVICE_EXTINCTION,
    SERVICES,
    SESSIONS,
    Tables,
)

V = TypeVar("V")
Meta = dict[str, str]


class ListNodes(msgspec.Struct, frozen=True, array_like=True, tag="catalog-nodes"):
    """All nodes whose metadata have these pairs."""

    meta: Meta = {}


class ListServices(msgspec.Struct, frozen=True, array_like=True, tag="catalog-services"):
    """The names of all services, each with its tags."""

    meta: Meta = {}


class ListInstances(msgspec.Struct, frozen=True, array_like=True, tag="catalog-instances"):
    """The instances of all services, each with its node: what the names of `ListServices` are made of."""

    meta: Meta = {}


class ServiceInstances(msgspec.Struct, frozen=True, array_like=True, tag="catalog-service"):
    """The instances of a service that have all the tags, each with its node."""

    service: str
    tags: tuple[str, ...] = ()
    meta: Meta = {}
    connect: bool = False
    """Not its own, but those through which it is reached in the mesh."""


class NodeServices(msgspec.Struct, frozen=True, array_like=True, tag="catalog-node"):
    """A node and the instances on it."""

    node: str


class NodeChecks(msgspec.Struct, frozen=True, array_like=True, tag="health-node"):
    """The checks of a node and of its instances."""

    node: str


class ServiceChecks(msgspec.Struct, frozen=True, array_like=True, tag="health-checks"):
    """The checks of the instances of a service."""

    service: str
    meta: Meta = {}


class ChecksInState(msgspec.Struct, frozen=True, array_like=True, tag="health-state"):
    """The checks with a status, or all ("any")."""

    status: str
    meta: Meta = {}


class ServiceHealth(msgspec.Struct, frozen=True, array_like=True, tag="health-service"):
    """The instances of a service with their nodes and checks; `passing`: only those all of whose checks pass."""

    service: str
    tags: tuple[str, ...] = ()
    passing: bool = False
    meta: Meta = {}
    connect: bool = False
    """As of `ServiceInstances`."""


class GetSession(msgspec.Struct, frozen=True, array_like=True, tag="session-get"):
    """One session."""

    session_id: str


class ListSessions(msgspec.Struct, frozen=True, array_like=True, tag="session-list"):
    """All sessions, or those of a node."""

    node: str = ""


RegistryQuery = (
    ListNodes
    | ListServices
    | ListInstances
    | ServiceInstances
    | NodeServices
    | NodeChecks
    | ServiceChecks
    | ChecksInState
    | ServiceHealth
    | GetSession
    | ListSessions
)


class Instance(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An instance, its node, and for health answers the checks of both, the node's first."""

    node: Node
    service: Service
    checks: tuple[Check, ...] = ()


class NodesAnswer(msgspec.Struct, frozen=True, array_like=True, tag="nodes"):
    """The index and the nodes, by name."""

    index: int
    nodes: list[Node]


class ServicesAnswer(msgspec.Struct, frozen=True, array_like=True, tag="services"):
    """The index and the tags of each service, sorted, by its name."""

    index: int
    services: dict[str, list[str]]


class InstancesAnswer(msgspec.Struct, frozen=True, array_like=True, tag="instances"):
    """The index and the instances, by node and id."""

    index: int
    instances: list[Instance]


class NodeAnswer(msgspec.Struct, frozen=True, array_like=True, tag="node"):
    """The index, the node (None: it does not exist) and the instances on it, by id."""

    index: int
    node: Node | None
    services: list[Service]


class ChecksAnswer(msgspec.Struct, frozen=True, array_like=True, tag="checks"):
    """The index and the checks, by node and id."""

    index: int
    checks: list[Check]


class SessionsAnswer(msgspec.Struct, frozen=True, array_like=True, tag="sessions"):
    """The index and the sessions, by id."""

    index: int
    sessions: list[Session]


RegistryAnswer = NodesAnswer | ServicesAnswer | InstancesAnswer | NodeAnswer | ChecksAnswer | SessionsAnswer


def topics(tables: Tables, query: RegistryQuery) -> tuple[str, ...]:
    """The names of the indexes that the answer's index is the greatest of."""
    match query:
        case ListNodes():
            return (NODES,)
        case ListServices(meta) | ListInstances(meta):
            return (SERVICES, NODES) if meta else (SERVICES,)
        case NodeChecks():
            return (CHECKS,)
        case ServiceChecks(_, meta) | ChecksInState(_, meta):
            return (CHECKS, NODES) if meta else (CHECKS,)
        case GetSession() | ListSessions():
            return (SESSIONS,)
        case NodeServices(node):
            exists = tables.nodes.get(node_key(node)) is not None
            return (registry.of_node(node),) if exists else (NODE_EXTINCTION,)
        case ServiceInstances():
            return _service_topics(tables, query, SERVICES, NODES)
        case ServiceHealth():
            return _service_topics(tables, query, SERVICES, NODES, CHECKS)
        case _:
            assert_never(query)


def _service_topics(tables: Tables, query: ServiceInstances | ServiceHealth, *all_tables: str) -> tuple[str, ...]:
    """A service without instances has the index of the last extinction of any, or of the tables if there was none."""
    if tables.services.has_group(_group(query), service_key(query.service)):
        return (_own_index(query),)
    extinction = CONNECT_EXTINCTION if query.connect else SERVICE_EXTINCTION
    return (extinction,) if tables.indexes.get(extinction) else all_tables


def _group(query: ServiceInstances | ServiceHealth) -> str:
    """The group of the instances that are asked for."""
    return "connect" if query.connect else "service"


def _own_index(query: ServiceInstances | ServiceHealth) -> str:
    return registry.of_connect(query.service) if query.connect else registry.of_service(query.service)


def watched(tables: Tables, query: RegistryQuery) -> tuple[str, ...]:
    """What a blocking query waits for: its topics, and what would make them others."""
    match query:
        case NodeServices(node):
            return (registry.of_node(node), NODE_EXTINCTION)
        case ServiceInstances() | ServiceHealth():
            return (_own_index(query), *topics(tables, query))
        case _:
            return topics(tables, query)


def answer(tables: Tables, query: RegistryQuery) -> RegistryAnswer:
    """Evaluate the query now."""
    index = max(tables.index(*topics(tables, query)), 1)
    match query:
        case ListNodes(meta):
            return NodesAnswer(index, [node for node in _all(tables.nodes) if _has(node, meta)])
        case ListServices(meta):
            return ServicesAnswer(index, tags_by_name(_services(tables, meta)))
        case ListInstances(meta):
            return InstancesAnswer(
                index, [Instance(tables.nodes[node_key(each.node)], each) for each in _services(tables, meta)]
            )
        case ServiceInstances():
            return InstancesAnswer(index, _instances(tables, query))
        case NodeServices(node):
            found = tables.nodes.get(node_key(node))
            return NodeAnswer(index, found, tables.services.group("node", node_key(node)))
        case NodeChecks(node):
            return ChecksAnswer(index, tables.checks.group("node", node_key(node)))
        case ServiceChecks(service, meta):
            return ChecksAnswer(index, _on_nodes(tables, tables.checks.group("service", service_key(service)), meta))
        case ChecksInState(status, meta):
            chosen = _all(tables.checks) if status == "any" else tables.checks.group("status", status.lower())
            return ChecksAnswer(index, _on_nodes(tables, chosen, meta))
        case ServiceHealth():
            return InstancesAnswer(index, _healthy(tables, _instances(tables, query), query.passing))
        case GetSession(session_id):
            session = tables.sessions.get(session_id)
            return SessionsAnswer(index, [] if session is None else [session])
        case ListSessions(node):
            chosen_sessions = tables.sessions.group("node", node_key(node)) if node else list(_all(tables.sessions))
            return SessionsAnswer(index, chosen_sessions)
        case _:
            assert_never(query)


def _all(table: IndexedTable[V]) -> Iterable[V]:
    return (table[key] for key in table.under(""))


def _has(node: Node | None, wanted: Meta) -> bool:
    return not wanted or (node is not None and all(node.meta.get(key) == value for key, value in wanted.items()))


def _on_nodes(tables: Tables, checks: Iterable[Check], meta: Meta) -> list[Check]:
    return [check for check in checks if _has(tables.nodes.get(node_key(check.node)), meta)]


def _instances(tables: Tables, query: ServiceInstances | ServiceHealth) -> list[Instance]:
    wanted = {tag.lower() for tag in query.tags}
    found = []
    for instance in tables.services.group(_group(query), service_key(query.service)):
        if wanted and not wanted <= {tag.lower() for tag in instance.tags}:
            continue
        node = tables.nodes[node_key(instance.node)]
        if _has(node, query.meta):
            found.append(Instance(node, instance))
    return found


def _healthy(tables: Tables, instances: list[Instance], passing: bool) -> list[Instance]:
    found = []
    for each in instances:
        of_node = tables.checks.group("instance", row_key(each.node.node, ""))
        own = tables.checks.group("instance", row_key(each.node.node, each.service.id))
        checks = (*of_node, *own)
        if not passing or all(check.status == PASSING for check in checks):
            found.append(Instance(each.node, each.service, checks))
    return found


def _services(tables: Tables, meta: Meta) -> Iterable[Service]:
    return (each for each in _all(tables.services) if not meta or _has(tables.nodes.get(node_key(each.node)), meta))


def tags_by_name(services: Iterable[Service]) -> dict[str, list[str]]:
    """The names of services, each with the tags of its instances, both sorted."""
    found: dict[str, set[str]] = {}
    for each in services:
        found.setdefault(each.service, set()).update(each.tags)
    return {name: sorted(found[name]) for name in sorted(found)}
