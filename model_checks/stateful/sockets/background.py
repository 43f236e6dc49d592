"""What the agents write of themselves: read at the start, and learned again when the log grew by itself.

The servers register every agent (a node with `serfHealth`, servers also with the service `consul`), and each agent
keeps its own node's row. Nothing else may change without a client: what is learned concerns those rows only. Source:
Consul, "Anti-entropy", `agent/consul/leader.go` (reconcile).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, assert_never

from msgspec.structs import replace

from model_checks.catalog.http_answers import told
from model_checks.catalog.http_requests import Mode, Read
from model_checks.catalog.payloads import Malformed
from model_checks.catalog.records import decoded_request
from model_checks.stateful.sockets.history import Baseline, Reading
from spec.catalog.commands import (
    ChecksInState,
    List,
    ListNodes,
    ListServices,
    ListSessions,
    NodeChecks,
    NodeServices,
    Register,
    Request,
    ServiceInstances,
    Transaction,
)
from spec.catalog.queries import Answer, OfNode, Tags
from spec.catalog.state import Check, Index, Node, Service, State, initial_state, node_key, row_key

NOBODY: Final = "nobody"
"""A node and a service that do not exist."""


class NotFresh(Exception):
    """The cluster is not one that was just formed, so its state cannot be known from reads."""


def readings_of_start(agents: Sequence[str]) -> tuple[Request, ...]:
    """What to read of a cluster that was just formed."""
    return (
        ListNodes(),
        ListServices(),
        ChecksInState("any"),
        ListSessions(),
        List(""),
        NodeServices(NOBODY),
        ServiceInstances(NOBODY),
        ServiceInstances("consul"),
        *(NodeServices(agent) for agent in agents),
    )


def readings_of_background(agents: Sequence[str]) -> tuple[Request, ...]:
    """What to read when the log grew by itself."""
    return tuple(request for agent in agents for request in (NodeServices(agent), NodeChecks(agent)))


def readings_that_tell_apart(state: State) -> tuple[Request, ...]:
    """What to read so as to see the whole state, as far as it can be seen."""
    nodes = tuple(NodeServices(node.node) for _, node in state.nodes.items())
    return (List(""), ChecksInState("any"), ListSessions(), ListNodes(), ListServices(), *nodes)


def as_read(request: Request) -> Read:
    """How it is read."""
    return Read(request, Mode.CONSISTENT)


def _answers(readings: Iterable[Reading]) -> Iterator[tuple[Request, Index, Answer]]:
    for reading in readings:
        request = decoded_request(reading.request)
        if isinstance(request, Transaction):
            raise Malformed("a transaction is not read here")
        answer = told(reading.answer.reply(), request)
        yield request, answer.index, answer.rows


def state_at_start(baseline: Baseline) -> State:
    """The state of a cluster that was just formed. Raises NotFresh, Malformed.

    In such a cluster nothing was ever deleted: no tombstones, no service or node that is gone, no key, no session.
    """
    answers = {request: (index, rows) for request, index, rows in _answers(baseline.readings)}
    nodes, services = answers[ListNodes()], answers[ListServices()]
    checks, sessions = answers[ChecksInState("any")], answers[ListSessions()]
    if sessions != (1, ()) or answers[List("")] != (1, ()):
        raise NotFresh("it has keys or sessions, or had some")
    if answers[NodeServices(NOBODY)][0] != 1:
        raise NotFresh("a node was deregistered")
    indexes = {"nodes": nodes[0], "services": services[0], "checks": checks[0]}
    if answers[ServiceInstances(NOBODY)][0] != max(nodes[0], services[0]):
        raise NotFresh("a service was deregistered")
    state = initial_state()
    for row in (*nodes[1], *checks[1], *services[1]):
        match row:
            case Node(name):
                state = replace(state, nodes=state.nodes.put(node_key(name), row))
                indexes[f"node.{node_key(name)}"], found = answers[NodeServices(name)]
                for service in (
                    service for of_node in found if isinstance(of_node, OfNode) for service in of_node.services
                ):
                    state = replace(state, services=state.services.put(row_key(name, service.id), service))
            case Check(name, check_id):
                state = replace(state, checks=state.checks.put(row_key(name, check_id), row))
            case Tags("consul"):
                indexes["service.consul"] = answers[ServiceInstances("consul")][0]
            case _:
                raise NotFresh(f"{row} is not what servers register")
    for name, index in indexes.items():
        state = replace(state, indexes=state.indexes.put(name, index))
    return state


def learned(state: State, span: range, readings: Sequence[Reading], agents: Sequence[str]) -> Mapping[Index, Register]:
    """The registrations among the entries of `span` that nobody asked for, by their indexes. Raises Malformed."""
    rows = [row for _, _, answer in _answers(readings) for row in answer]
    nodes = {node_key(row.node.node): row.node for row in rows if isinstance(row, OfNode)}
    mine = {node_key(agent) for agent in agents}
    new: dict[Index, list[Node | Service | Check]] = {}
    for row in rows:
        changed: tuple[Node | Service | Check, ...] = ()
        if isinstance(row, OfNode):
            changed = (row.node, *row.services)
        elif isinstance(row, Check):
            changed = (row,)
        for each in changed:
            if node_key(each.node) in mine and each.modify_index in span and not _is_known(state, each):
                new.setdefault(each.modify_index, []).append(each)
    return {index: _registration(nodes, new[index]) for index in new}


def _is_known(state: State, row: Node | Service | Check) -> bool:
    match row:
        case Node(name):
            return state.nodes.get(node_key(name)) == row
        case Service(name, identity):
            return state.services.get(row_key(name, identity)) == row
        case Check(name, check_id):
            return state.checks.get(row_key(name, check_id)) == row
        case _:
            assert_never(row)


def _registration(nodes: Mapping[str, Node], rows: Sequence[Node | Service | Check]) -> Register:
    """One registration that writes these rows of one node, and leaves the node alone if it is not among them."""
    service = next((row for row in rows if isinstance(row, Service)), None)
    checks = tuple(row for row in rows if isinstance(row, Check))
    written = any(isinstance(row, Node) for row in rows)
    return Register(nodes[node_key(rows[0].node)], service, checks, skip_node_update=not written)
