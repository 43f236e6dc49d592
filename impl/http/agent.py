"""`/v1/agent`: the services and checks of this agent, its maintenance, its health, itself and the other members.

Source: Consul, "Agent HTTP API".

What is registered here is the agent's own. An answer to a change comes when the catalog shows it, too, or could not be
told of it: then it follows later, and the answer is the same.
"""

from __future__ import annotations

from typing import Any

from impl.agent.describe import ALIVE, BUILD_DATE, FAILED, VERSION, describe_build, describe_local, describe_member
from impl.agent.local.checks import NoTtl
from impl.agent.local.definitions import CheckDefinition
from impl.agent.local.registrations import NoSuchService, Registrations, Unknown
from impl.agent.local.sidecars import NoPortLeft
from impl.agent.membership.reconcile import CONSUL
from impl.agent.requests.api import AgentError, Consistency, ReadOptions
from impl.catalog.registry_queries import (
    ChecksAnswer,
    ChecksInState,
    InstancesAnswer,
    ListNodes,
    NodesAnswer,
    ServiceInstances,
)
from impl.catalog.rows import CRITICAL, PASSING, SERF_HEALTH, STATUSES, WARNING, Check, Service, node_key
from impl.http.context import Context, Request
from impl.http.definitions import check_definition, service_definition
from impl.http.documents import agent_service_document, check_document
from impl.http.fields import Fields, read_json
from impl.http.registry import filtered
from impl.http.request import HttpError, read_options
from impl.http.response import AsWritten, Response, json_response, text_response
from impl.http.shapes import AgentHealthDocument, HashedServiceDocument, VersionDocument

BODY_SIZE_MAX = 512 * 1024
MAINTENANCE = "maintenance"
"""What the health of a service is called while it, or its node, is under maintenance."""
_CODES = {PASSING: 200, WARNING: 429, CRITICAL: 503, MAINTENANCE: 503}
_WORST_FIRST = (MAINTENANCE, CRITICAL, WARNING, PASSING)
_DONE = Response(200)


# ------------------------------------------------------------------------------------------------------------- services


async def services(context: Context, request: Request) -> Response:
    """GET /v1/agent/services."""
    state = _local(context).state
    rows = [agent_service_document(service, context.datacenter) for _, service in sorted(state.services.items())]
    return json_response({row["ID"]: row for row in filtered(request, rows)}, request.pretty)


async def service(context: Context, request: Request) -> Response:
    """GET /v1/agent/service/ID: with `hash`, when it is another one than that."""
    local = _local(context)
    wanted = request.parameters.get("hash", "")
    if wanted:
        await local.until_changed(request.rest, wanted, read_options(request.parameters).wait)
    found = local.state.services.get(request.rest)
    if found is None:
        raise HttpError(404, f"unknown service ID: {request.rest}")
    digest = local.content_hash(found.id)
    shown = agent_service_document(found, context.datacenter)
    document: HashedServiceDocument = {**shown, "ContentHash": digest}
    return json_response(document, request.pretty, ((AsWritten(b"X-Consul-Contenthash"), digest.encode()),))


async def register_service(context: Context, request: Request) -> Response:
    """PUT /v1/agent/service/register."""
    local = _local(context)
    definition = service_definition(read_json(await request.body(BODY_SIZE_MAX)))
    for check in definition.all_checks:
        _refuse_script(local, check)
    replaces = request.parameters.get("replace-existing-checks") in ("", "true")
    try:
        local.register_service(definition, replaces)
    except NoPortLeft as error:
        raise HttpError(500, str(error)) from None
    return await _kept(context)


async def deregister_service(context: Context, request: Request) -> Response:
    """PUT /v1/agent/service/deregister/ID."""
    try:
        _local(context).deregister_service(request.rest)
    except Unknown as unknown:
        raise _not_found(unknown) from None
    return await _kept(context)


async def maintain_service(context: Context, request: Request) -> Response:
    """PUT /v1/agent/service/maintenance/ID?enable=."""
    if not request.rest:
        raise HttpError(400, "Missing service ID")
    enable = _enable(request)
    try:
        _local(context).maintain_service(request.rest, enable, request.parameters.get("reason", ""))
    except Unknown as unknown:
        raise _not_found(unknown) from None
    return await _kept(context)


async def maintain_node(context: Context, request: Request) -> Response:
    """PUT /v1/agent/maintenance?enable=."""
    _local(context).maintain_node(_enable(request), request.parameters.get("reason", ""))
    return await _kept(context)


async def _kept(context: Context) -> Response:
    """Answer when what was registered survives a restart, and was offered to the catalog."""
    local = _local(context)
    await local.synced()  # the disk is written meanwhile
    await local.shelf.written()
    return _DONE


def _enable(request: Request) -> bool:
    text = request.parameters.get("enable")
    if text is None:
        raise HttpError(400, "Missing value for enable")
    try:
        if text:
            return request.truth("enable")
    except HttpError:
        pass
    raise HttpError(400, f'Invalid value for enable: "{text}"')


# --------------------------------------------------------------------------------------------------------------- checks


async def checks(context: Context, request: Request) -> Response:
    """GET /v1/agent/checks."""
    rows = [check_document(check) for _, check in sorted(_local(context).state.checks.items())]
    return json_response({row["CheckID"]: row for row in filtered(request, rows)}, request.pretty)


async def register_check(context: Context, request: Request) -> Response:
    """PUT /v1/agent/check/register."""
    local = _local(context)
    definition = check_definition(read_json(await request.body(BODY_SIZE_MAX)))
    _refuse_script(local, definition)
    try:
        local.register_check(definition)
    except NoSuchService as error:
        raise HttpError(404, str(error)) from None
    return await _kept(context)


async def deregister_check(context: Context, request: Request) -> Response:
    """PUT /v1/agent/check/deregister/ID."""
    try:
        _local(context).deregister_check(request.rest)
    except Unknown as unknown:
        raise _not_found(unknown) from None
    return await _kept(context)


async def pass_check(context: Context, request: Request) -> Response:
    """PUT /v1/agent/check/pass/ID."""
    return await _set(context, request, PASSING, request.parameters.get("note", ""))


async def warn_check(context: Context, request: Request) -> Response:
    """PUT /v1/agent/check/warn/ID."""
    return await _set(context, request, WARNING, request.parameters.get("note", ""))


async def fail_check(context: Context, request: Request) -> Response:
    """PUT /v1/agent/check/fail/ID."""
    return await _set(context, request, CRITICAL, request.parameters.get("note", ""))


async def update_check(context: Context, request: Request) -> Response:
    """PUT /v1/agent/check/update/ID."""
    fields = Fields(read_json(await request.body(BODY_SIZE_MAX)))
    status = fields.text("Status")
    if status not in STATUSES:
        raise HttpError(400, f"Invalid check status: '{status}'")
    return await _set(context, request, status, fields.text("Output"))


async def _set(context: Context, request: Request, status: str, output: str) -> Response:
    local = _local(context)
    try:
        local.set_ttl(request.rest, status, output)
    except Unknown as unknown:
        raise _not_found(unknown) from None
    except NoTtl as error:
        raise HttpError(500, str(error)) from None
    if request.rest in local.state.pending_checks:  # a renewal need not wait for what others changed
        await local.synced()
    return _DONE


def _refuse_script(local: Registrations, definition: CheckDefinition) -> None:
    if not definition.args or local.scripts.remote:
        return
    if local.scripts.local:
        text = "from remote calls; to enable, configure 'enable_script_checks' to true"
        raise HttpError(400, f"Scripts are disabled on this agent {text}")
    settings = "'enable_script_checks' or 'enable_local_script_checks'"
    raise HttpError(400, f"Scripts are disabled on this agent; to enable, configure {settings} to true")


# --------------------------------------------------------------------------------------------------------------- health


async def health_by_name(context: Context, request: Request) -> Response:
    """GET /v1/agent/health/service/name/NAME: all instances of the name, and the worst of them as the status."""
    local, name = _local(context), request.rest
    if not name:
        raise HttpError(400, "Missing service Name")
    found = [each for _, each in sorted(local.state.services.items()) if each.service == name]
    healths = [(_health(local, each.id), each) for each in found]
    if not found:
        return _judged(request, 404, f"ServiceName {name} Not Found", [])
    worst = min((status for status, _ in healths), key=_WORST_FIRST.index)
    return _judged(request, _CODES[worst], worst, [_info(context, status, each) for status, each in healths])


async def health_by_id(context: Context, request: Request) -> Response:
    """GET /v1/agent/health/service/id/ID."""
    local, service_id = _local(context), request.rest
    if not service_id:
        raise HttpError(400, "Missing serviceID")
    found = local.state.services.get(service_id)
    if found is None:
        nothing: AgentHealthDocument = {"AggregatedStatus": CRITICAL, "Service": None, "Checks": None}
        return _judged(request, 404, f"ServiceId {service_id} not found", nothing)
    status = _health(local, service_id)
    return _judged(request, _CODES[status], status, _info(context, status, found))


def _health(local: Registrations, service_id: str) -> str:
    """The worst of what the checks of an instance and of the node say."""
    if local.state.maintained("") or local.state.maintained(service_id):
        return MAINTENANCE
    statuses = {check.status for check in _checks(local, service_id)}
    return next((status for status in _WORST_FIRST if status in statuses), PASSING)


def _checks(local: Registrations, service_id: str) -> list[Check]:
    return [*local.state.checks_of(""), *local.state.checks_of(service_id)]


def _info(context: Context, status: str, found: Service) -> AgentHealthDocument:
    return {
        "AggregatedStatus": status,
        "Service": agent_service_document(found, context.datacenter),
        "Checks": [check_document(check) for check in _checks(_local(context), found.id)],
    }


def _judged(request: Request, code: int, text: str, document: Any) -> Response:
    # Consul looks at how the header begins, and at it before the parameter.
    if _accepted(request).startswith(b"text/plain") or request.parameters.get("format") == "text":
        return text_response(code, text)
    answer = json_response(document, request.pretty)
    return Response(code, answer.headers, answer.body)


def _accepted(request: Request) -> bytes:
    """The Accept header, "" if there is none."""
    return next((value for name, value in request.scope["headers"] if name == b"accept"), b"")


# -------------------------------------------------------------------------------------------------------- about agents


async def members(context: Context, request: Request) -> Response:
    """GET /v1/agent/members: the agents that the catalog shows; if it cannot be read, this one alone."""
    wan = request.truth("wan")
    if wan and request.parameters.get("segment", "") not in ("", "_all"):
        raise HttpError(400, "Cannot provide a segment with wan=true")
    try:
        found = await current_members(context, wan)
    except AgentError:
        found = [context.agent.describe()["Member"]]
    return json_response(filtered(request, found), request.pretty)


async def current_members(context: Context, servers_only: bool) -> list[dict[str, Any]]:
    """The agents that the catalog shows, as `/v1/agent/members` does. Raises AgentError: it cannot be read."""
    stale = ReadOptions(Consistency.STALE)
    nodes = (await context.agent.read(ListNodes(), stale)).answer
    servers = (await context.agent.read(ServiceInstances(CONSUL), stale)).answer
    critical = (await context.agent.read(ChecksInState(CRITICAL), stale)).answer
    assert (
        isinstance(nodes, NodesAnswer) and isinstance(servers, InstancesAnswer) and isinstance(critical, ChecksAnswer)
    )
    ports = {each.node.node: each.service.port for each in servers.instances if each.service.id == CONSUL}
    dead = {node_key(check.node) for check in critical.checks if check.check_id == SERF_HEALTH}
    found = []
    for node in nodes.nodes:
        # Whoever has no version registered itself without an agent.
        if node.node in ports or ("consul-version" in node.meta and not servers_only):
            status = FAILED if node_key(node.node) in dead else ALIVE
            name = f"{node.node}.{node.datacenter}" if servers_only else node.node
            port = ports.get(node.node, 0)
            found.append(describe_member(name, node.address, port, node.datacenter, node.id, status))
    return found


async def about_self(context: Context, request: Request) -> Response:
    """GET /v1/agent/self."""
    document, local = context.agent.describe(), context.local
    if local is not None:
        statistics = document["Stats"]
        statistics["agent"] = describe_local(local) | statistics["agent"]
        runtime = {**local.runtime.host.statistics(), "goroutines": str(local.runtime.tasks.count())}
        statistics |= {"build": describe_build(), "runtime": runtime}
        document["Meta"] = local.state.node.meta
    return json_response(document, request.pretty)


async def leave(context: Context, request: Request) -> Response:
    """PUT /v1/agent/leave: the agent leaves the cluster, and its process ends."""
    await context.agent.leave()
    return _DONE


async def version(context: Context, request: Request) -> Response:
    """GET /v1/agent/version."""
    document: VersionDocument = {
        "SHA": "comitia",
        "BuildDate": BUILD_DATE,
        "HumanVersion": VERSION,
        "FIPS": "",
    }
    return json_response(document, request.pretty)


# -------------------------------------------------------------------------------------------------------------- details


def _local(context: Context) -> Registrations:
    assert context.local is not None, "an agent that serves /v1/agent has services of its own"
    return context.local


def _not_found(unknown: Unknown) -> HttpError:
    return HttpError(404, str(unknown))
