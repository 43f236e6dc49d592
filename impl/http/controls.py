"""`/v1/agent` for whoever operates the agent: metrics, its log, reload, join, force-leave, the machine.

Source: Consul, "Agent HTTP API". What belongs to gossip pools and Consul does by gossip is done by introductions and by
the leader: see `join` and `force_leave`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Final

from impl.agent.config.validated import LOG_LEVELS, ConfigError, parse_address
from impl.agent.describe import ALIVE
from impl.agent.logs import Follower
from impl.agent.membership.operations import ForceLeave
from impl.agent.requests.changes import Changes
from impl.http.agent import current_members
from impl.http.context import Context, Controls, Request
from impl.http.request import HttpError, Receive
from impl.http.response import Response, Stream, json_response, text_response
from impl.runtime.interfaces import NANOSECONDS, Runtime
from impl.runtime.off_loop import off_loop
from impl.telemetry.exposition import CONTENT_TYPE, expose
from impl.telemetry.summary import summarize

FOLLOWERS_MAX: Final = 64
"""Each costs something with every line."""
FOLLOW_NS: Final = 10 * NANOSECONDS
"""A follower looks again so often, even if nothing is written."""
_DONE = Response(200)


async def metrics(context: Context, request: Request) -> Response:
    """GET /v1/agent/metrics: as JSON, or for Prometheus if it asks for it by `format` or by its Accept header."""
    telemetry = _controls(context).telemetry
    if request.parameters.get("format") != "prometheus" and not _wants_open_metrics(request):
        return json_response(summarize(telemetry), request.pretty)
    if telemetry.settings.retention_seconds <= 0:
        raise HttpError(415, "Prometheus is not enabled since its retention time is not positive")
    return Response(200, ((b"Content-Type", CONTENT_TYPE.encode()),), expose(telemetry).encode())


def _wants_open_metrics(request: Request) -> bool:
    accepted = b",".join(value for name, value in request.scope["headers"] if name == b"accept")
    return any(_is_prometheus(each) for each in accepted.lower().split(b","))


def _is_prometheus(accepted: bytes) -> bool:
    """Whether one of the accepted types is Prometheus's: of OpenMetrics, or its older text of version 0.4.0."""
    kind, *attributes = (each.strip() for each in accepted.split(b";"))
    return kind == b"application/openmetrics-text" or (kind == b"text/plain" and attributes[:1] == [b"version=0.4.0"])


async def reload(context: Context, request: Request) -> Response:
    """PUT /v1/agent/reload."""
    try:
        await _controls(context).reload()
    except ConfigError as error:
        raise HttpError(500, str(error)) from error
    return _DONE


async def monitor(context: Context, request: Request) -> Stream:
    """GET /v1/agent/monitor: the log from now on, until the client leaves. Slow readers lose lines, and are told."""
    level = request.parameters.get("loglevel", "").upper() or "INFO"
    if level not in LOG_LEVELS:
        raise HttpError(400, f"Unknown log level: {request.parameters['loglevel']}")
    if _controls(context).log.follower_count() >= FOLLOWERS_MAX:
        raise HttpError(429, f"{FOLLOWERS_MAX} clients follow the log of this agent already: end one of them")
    as_json = "logjson" in request.parameters
    return Stream(_lines(_controls(context), _runtime(context), level, as_json, request.receive))


async def _lines(
    controls: Controls, runtime: Runtime, level: str, as_json: bool, receive: Receive
) -> AsyncGenerator[bytes, None]:
    changes = Changes(runtime)
    log = controls.log.named("monitor")
    follower = log.follow(level, as_json, changes.notify)
    leaving = runtime.tasks.spawn(_until_gone(receive, follower), "monitor")
    try:
        while True:
            change = changes.next(FOLLOW_NS)
            lines, lost = follower.take()
            if lines or lost:
                change.cancel()
                if lost:
                    told = "lines were lost here: the reader is too slow"
                    lines.append(log.as_line(as_json, "WARN", told, {"dropped_count": lost}))
                yield "".join(lines).encode()
            elif follower.ended:
                change.cancel()
                return
            else:
                await change.wait()
    finally:
        leaving.cancel()
        log.unfollow(follower)
        if follower.lost:
            log.warn("Dropped logs during monitor request", dropped_count=follower.lost)


async def _until_gone(receive: Receive, follower: Follower) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    follower.leave()


async def join(context: Context, request: Request) -> Response:
    """PUT /v1/agent/join/ADDRESS: the agent introduces itself there, now."""
    if request.truth("wan"):
        raise HttpError(500, "this agent has no WAN pool: there is one datacenter")
    try:
        address = parse_address(request.rest)
    except ConfigError as error:
        raise HttpError(400, str(error)) from error
    await context.agent.join(address)
    return _DONE


async def force_leave(context: Context, request: Request) -> Response:
    """PUT /v1/agent/force-leave/NODE: an agent that failed is taken for one that left; one that lives stays a member.

    With or without `prune` it is gone then: there is no list of those that left.
    """
    members = {member["Name"]: member for member in await current_members(context, False)}
    member = members.get(request.rest)
    if member is None:
        raise HttpError(500, f"agent: No node found with name '{request.rest}'")
    if member["Status"] == ALIVE:
        return text_response(200, f"{request.rest} is alive, and stays a member: only it can leave")
    await context.agent.operate(ForceLeave(request.rest))
    return text_response(200, "")


async def host(context: Context, request: Request) -> Response:
    """GET /v1/agent/host: the machine, and the disk that holds the data."""
    controls, runtime = _controls(context), _runtime(context)
    document: dict[str, Any] = {"Memory": None, "CPU": None, "Host": None, "Disk": None}
    errors: list[str] | None = None
    try:
        # A disk that hangs must not hold up the loop.
        document |= await off_loop(runtime, lambda: runtime.host.machine(controls.data_dir or "."))
    except OSError as error:
        errors = [str(error)]
    document |= {"CollectionTime": runtime.clock.wall_ns(), "Errors": errors}
    return json_response(document, request.pretty)


def _runtime(context: Context) -> Runtime:
    assert context.local is not None, "an agent that serves /v1/agent has services of its own"
    return context.local.runtime


def _controls(context: Context) -> Controls:
    assert context.controls is not None, "an agent that serves /v1/agent can be operated"
    return context.controls
