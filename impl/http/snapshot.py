"""`/v1/snapshot`: the whole state as an archive, and an archive in place of the state.

GET streams: the leader makes the archive, or with `stale` the server that is asked; any agent passes it on. PUT takes
the archive that GET gave, streams it to the leader and answers when it is in force there. What is wrong with it is told
before anything is changed. Source: Consul, "Snapshot HTTP API"; texts of its snapshot endpoint.
"""

from __future__ import annotations

from impl.agent.requests.api import Consistency
from impl.http.context import Context, Request
from impl.http.request import ClientGone, HttpError
from impl.http.response import Header, Response, Streamed, answer_headers

_GZIP: Header = (b"Content-Type", b"application/x-gzip")
_RESTORED = Response(200)


async def save(context: Context, request: Request) -> Response:
    """GET: an archive of the state."""
    stale = "stale" in request.parameters
    archive = await context.agent.save_archive(stale)
    try:
        first = await archive.read()
    except BaseException:
        archive.close()
        raise
    consistency = Consistency.STALE if stale else Consistency.DEFAULT
    headers = answer_headers(archive.index, archive.known_leader, archive.last_contact_ms, consistency)
    return Streamed(200, (_GZIP, *headers), first, rest=archive)


async def restore(context: Context, request: Request) -> Response:
    """PUT: put the archive in the body in the place of the state."""
    if "stale" in request.parameters:
        raise HttpError(500, "stale not allowed for restore")
    limit, size = context.snapshot_max_size, 0
    for name, value in request.scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > limit:
            raise _too_large(limit)
    upload = await context.agent.upload_archive()
    try:
        more = True
        while more:
            event = await request.receive()
            if event["type"] != "http.request":
                raise ClientGone
            data: bytes = event.get("body", b"")
            size += len(data)
            if size > limit:
                raise _too_large(limit)
            if data:
                await upload.add(data)
            more = event.get("more_body", False)
        await upload.restore()
    finally:
        upload.close()
    return _RESTORED


def _too_large(limit: int) -> HttpError:
    text = f"Snapshot too large, max size: {limit} bytes. See limits.snapshot_max_size."
    return HttpError(413, text, ((b"Connection", b"close"),))
