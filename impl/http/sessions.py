"""`/v1/session`: sessions. Source: Consul, "Session HTTP Endpoint"."""

from __future__ import annotations

import msgspec

from impl.catalog.commands import SessionCreate, SessionDestroy
from impl.catalog.registry_queries import GetSession, ListSessions, SessionsAnswer
from impl.http import bodies, writes
from impl.http.context import Context, Request
from impl.http.documents import session_document
from impl.http.request import HttpError, read_options
from impl.http.response import Response, json_response, read_headers
from impl.http.shapes import CreatedDocument

BODY_SIZE_MAX = 64 * 1024
UUID_CHARACTERS = 36


async def create(context: Context, request: Request) -> Response:
    """PUT /v1/session/create: {"ID": ...}."""
    asked = bodies.session(await request.body(BODY_SIZE_MAX), context.node_name)
    session = msgspec.structs.replace(asked, id=context.agent.new_id())
    await writes.result(context.agent, SessionCreate(session))
    document: CreatedDocument = {"ID": session.id}
    return json_response(document, request.pretty)


async def destroy(context: Context, request: Request) -> Response:
    """PUT /v1/session/destroy/ID: true, whether it existed or not."""
    return await writes.truth(context, request, SessionDestroy(_session(request)))


async def renew(context: Context, request: Request) -> Response:
    """PUT /v1/session/renew/ID: the session, which has its full TTL again."""
    session_id = _session(request)
    session = await context.agent.renew_session(session_id)
    if session is None:
        raise HttpError(404, f"Session id '{session_id}' not found")
    return json_response([session_document(session)], request.pretty)


async def info(context: Context, request: Request) -> Response:
    """GET /v1/session/info/ID: a list of one, or of none."""
    return await _list(context, request, GetSession(_session(request)))


async def list_all(context: Context, request: Request) -> Response:
    """GET /v1/session/list."""
    return await _list(context, request, ListSessions())


async def list_node(context: Context, request: Request) -> Response:
    """GET /v1/session/node/NAME."""
    if not request.rest:
        raise HttpError(400, "Missing node name")
    return await _list(context, request, ListSessions(request.rest))


async def _list(context: Context, request: Request, query: GetSession | ListSessions) -> Response:
    options = read_options(request.parameters)
    reply = await context.agent.read(query, options)
    assert isinstance(reply.answer, SessionsAnswer)
    documents = [session_document(session) for session in reply.answer.sessions]
    return json_response(documents, request.pretty, read_headers(reply.answer.index, reply, options.consistency))


def _session(request: Request) -> str:
    if not request.rest:
        raise HttpError(400, "Missing session")
    if len(request.rest) != UUID_CHARACTERS:
        raise HttpError(500, f"failed session lookup: index error: UUID must be {UUID_CHARACTERS} characters")
    return request.rest
