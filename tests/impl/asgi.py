"""An HTTP application called as an ASGI server calls it, without sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from impl.http.app import Application


class Exchange(NamedTuple):
    """What was answered, and how many parts of the body were read for it."""

    status: int
    headers: dict[str, str]
    body: bytes
    received: int


def ask(app: Application, method: str, target: str, parts: Sequence[bytes] = (b"",), *, sized: bool = True) -> Exchange:
    """One request whose body comes in parts; `sized`: its length is said first."""
    path, _, query = target.partition("?")
    sent: list[dict[str, Any]] = []
    left = list(parts)

    async def receive() -> dict[str, Any]:
        if not left:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    async def send(event: dict[str, Any]) -> None:
        sent.append(event)

    headers = [(b"content-length", b"%d" % sum(map(len, parts)))] if sized else []
    scope = {"raw_path": path.encode(), "path": path, "query_string": query.encode(), "headers": headers}
    asyncio.run(app({"type": "http", "method": method, **scope}, receive, send))
    shown = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Exchange(sent[0]["status"], shown, sent[1]["body"], len(parts) - len(left))
