"""`/v1/catalog` and `/v1/health`: registrations, and what is registered. Source: Consul, "Catalog", "Health" HTTP APIs.

`near` is accepted and orders nothing: without coordinates Consul does not either. `ingress` and `gateway-services` need
the mesh's configuration, and stand in `unused`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from impl.agent.requests.api import ReadReply
from impl.catalog.registry_queries import (
    ChecksAnswer,
    ChecksInState,
    InstancesAnswer,
    ListInstances,
    ListNodes,
    ListServices,
    NodeAnswer,
    NodeChecks,
    NodesAnswer,
    NodeServices,
    RegistryQuery,
    ServiceChecks,
    ServiceHealth,
    ServiceInstances,
    ServicesAnswer,
    tags_by_name,
)
from impl.http import bodies, filter, selectors, writes
from impl.http.context import Context, Request
from impl.http.documents import (
    check_document,
    health_document,
    instance_document,
    node_document,
    node_services_document,
    service_document,
)
from impl.http.request import HttpError, decode_path, read_options
from impl.http.response import Response, json_response, read_headers
from impl.http.shapes import NodeServiceListDocument

R = TypeVar("R", bound=filter.Row)

BODY_SIZE_MAX = 512 * 1024


async def register(context: Context, request: Request) -> Response:
    """PUT /v1/catalog/register."""
    body, asked = await request.body(BODY_SIZE_MAX), request.parameters.get("dc", "")
    command = bodies.registration(body, context.datacenter, asked)
    return await writes.truth(context, request, command)


async def deregister(context: Context, request: Request) -> Response:
    """PUT /v1/catalog/deregister."""
    body, asked = await request.body(BODY_SIZE_MAX), request.parameters.get("dc", "")
    return await writes.truth(context, request, bodies.deregistration(body, context.datacenter, asked))


async def datacenters(context: Context, request: Request) -> Response:
    """GET /v1/catalog/datacenters."""
    return json_response([context.datacenter], request.pretty)


async def nodes(context: Context, request: Request) -> Response:
    """GET /v1/catalog/nodes."""
    reply = await read(context, request, ListNodes(_meta(request)))
    assert isinstance(reply.answer, NodesAnswer)
    return _listed(request, reply, [node_document(node) for node in reply.answer.nodes])


async def services(context: Context, request: Request) -> Response:
    """GET /v1/catalog/services: the names with their tags; of the instances that `filter` chooses, if there is one."""
    chosen, meta = _chosen_by(request), _meta(request)
    reply = await read(context, request, ListServices(meta) if chosen is None else ListInstances(meta))
    if isinstance(reply.answer, ServicesAnswer):
        return _answered(request, reply, reply.answer.services)
    assert isinstance(reply.answer, InstancesAnswer) and chosen is not None
    found = (each.service for each in reply.answer.instances if chosen(instance_document(each)))
    return _answered(request, reply, tags_by_name(found))


async def service(context: Context, request: Request) -> Response:
    """GET /v1/catalog/service/NAME."""
    return await _instances(context, request, connect=False)


async def connect(context: Context, request: Request) -> Response:
    """GET /v1/catalog/connect/NAME: the instances through which the service is reached in the mesh."""
    return await _instances(context, request, connect=True)


async def _instances(context: Context, request: Request, *, connect: bool) -> Response:
    query = ServiceInstances(_named(request, "service name"), request.repeated("tag"), _meta(request), connect)
    reply = await read(context, request, query)
    assert isinstance(reply.answer, InstancesAnswer)
    return _listed(request, reply, [instance_document(each) for each in reply.answer.instances])


async def node(context: Context, request: Request) -> Response:
    """GET /v1/catalog/node/NAME: null if there is no such node."""
    reply = await read(context, request, NodeServices(_named(request, "node name")))
    assert isinstance(reply.answer, NodeAnswer)
    node = None if _of_peer(request) else reply.answer.node
    document = node_services_document(node, reply.answer.services)
    if document is not None:
        found = filtered(request, list(document["Services"].values()))
        document["Services"] = {each["ID"]: each for each in found}
    return _answered(request, reply, document)


async def node_services(context: Context, request: Request) -> Response:
    """GET /v1/catalog/node-services/NAME: the instances as a list."""
    reply = await read(context, request, NodeServices(_named(request, "node name")))
    assert isinstance(reply.answer, NodeAnswer)
    if reply.answer.node is None or _of_peer(request):
        nothing: NodeServiceListDocument = {"Node": None, "Services": []}
        return _answered(request, reply, nothing)
    found = filtered(request, [service_document(each) for each in reply.answer.services])
    document: NodeServiceListDocument = {"Node": node_document(reply.answer.node), "Services": found}
    return _answered(request, reply, document)


async def health_node(context: Context, request: Request) -> Response:
    """GET /v1/health/node/NAME."""
    return await _checks(context, request, NodeChecks(_named(request, "node name")))


async def health_checks(context: Context, request: Request) -> Response:
    """GET /v1/health/checks/NAME."""
    return await _checks(context, request, ServiceChecks(_named(request, "service name"), _meta(request)))


async def health_state(context: Context, request: Request) -> Response:
    """GET /v1/health/state/STATE."""
    return await _checks(context, request, ChecksInState(_named(request, "check state"), _meta(request)))


async def health_service(context: Context, request: Request) -> Response:
    """GET /v1/health/service/NAME."""
    return await _healths(context, request, connect=False)


async def health_connect(context: Context, request: Request) -> Response:
    """GET /v1/health/connect/NAME: the instances through which the service is reached in the mesh."""
    return await _healths(context, request, connect=True)


async def _healths(context: Context, request: Request, *, connect: bool) -> Response:
    name = _named(request, "service name")
    query = ServiceHealth(name, request.repeated("tag"), request.truth("passing"), _meta(request), connect)
    reply = await read(context, request, query)
    assert isinstance(reply.answer, InstancesAnswer)
    return _listed(request, reply, [health_document(each) for each in reply.answer.instances])


# -------------------------------------------------------------------------------------------------------------- details


async def _checks(context: Context, request: Request, query: RegistryQuery) -> Response:
    reply = await read(context, request, query)
    assert isinstance(reply.answer, ChecksAnswer)
    return _listed(request, reply, [check_document(check) for check in reply.answer.checks])


async def read(context: Context, request: Request, query: RegistryQuery) -> ReadReply:
    """Ask as the request's parameters say. Raises HttpError: a bad filter is refused before anybody waits."""
    _chosen_by(request)
    return await context.agent.read(query, read_options(request.parameters))


def _answered(request: Request, reply: ReadReply, document: Any) -> Response:
    headers = read_headers(reply.answer.index, reply, read_options(request.parameters).consistency)
    return json_response(document, request.pretty, headers)


def _listed(request: Request, reply: ReadReply, rows: Sequence[filter.Row]) -> Response:
    return _answered(request, reply, filtered(request, rows))


def filtered(request: Request, rows: Sequence[R]) -> list[R]:
    """The rows that the parameter `filter` chooses. Raises HttpError."""
    chosen = _chosen_by(request)
    return [row for row in rows if chosen(row)] if chosen is not None else list(rows)


def _chosen_by(request: Request) -> Callable[[filter.Row], bool] | None:
    if _of_peer(request):
        return lambda row: False
    text = request.parameters.get("filter", "")
    fields = selectors.of_path(decode_path(request.scope["raw_path"])) if text else None
    if fields is None:
        return None
    try:
        return filter.parse(text, fields)
    except filter.BadFilter as bad:
        raise HttpError(400, f"Failed to create boolean expression evaluator: {bad}") from None


def _of_peer(request: Request) -> bool:
    """Whether only what another cluster exported is asked for: nothing is, without peerings."""
    return bool(request.parameters.get("peer"))


def _named(request: Request, what: str) -> str:
    if not request.rest:
        raise HttpError(400, f"Missing {what}")
    return request.rest


def _meta(request: Request) -> dict[str, str]:
    return dict(pair.partition(":")[::2] for pair in request.repeated("node-meta"))
