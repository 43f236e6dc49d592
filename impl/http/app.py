"""The ASGI application: finds the handler, turns errors into Consul's status codes and texts.

Source: Consul, "HTTP API structure". It must answer every request: an error that no handler expected is a 500 with its
text, and is logged.
"""

from __future__ import annotations

from collections.abc import Callable

from impl.agent.api import Agent, AgentError
from impl.agent.local.registrations import Registrations
from impl.http import kv, routes
from impl.http.context import Context, Request
from impl.http.request import ClientGone, HttpError, Receive, Scope, Send, decode_path, parse_parameters
from impl.http.response import Response, error_response, text_response

_NOT_AN_ENDPOINT = "Invalid URL path: not a recognized HTTP API endpoint\n"
_NOT_AN_API_PATH = "Invalid URL path: if attempting to use the HTTP API, ensure the path starts with '/v1/'\n"


class Application:
    """The HTTP API of one agent, as an ASGI application: `/v1/kv`, and what `routes` lists."""

    def __init__(
        self,
        agent: Agent,
        datacenter: str,
        kv_max_value_size: int,
        unexpected: Callable[[str, Exception], None],
        node_name: str = "",
        local: Registrations | None = None,
    ) -> None:
        """`datacenter`, `node_name` and `local` (services and checks): the agent's own.

        `unexpected` hears of errors that no handler expected: (what was asked, error).
        """
        self._context = Context(agent, node_name, datacenter, kv_max_value_size, local)
        self._unexpected = unexpected

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"only HTTP is served here, not {scope['type']}")
        try:
            response = await self._respond(scope, receive)
        except (HttpError, AgentError) as error:
            response = error_response(error)
        except ClientGone:
            return
        except Exception as error:
            self._unexpected(f"{scope['method']} {scope['path']}", error)
            response = text_response(500, f"internal error: {error!r}")
        await response.send(send)

    async def _respond(self, scope: Scope, receive: Receive) -> Response:
        path = decode_path(scope["raw_path"])
        query = scope["query_string"]
        parameters = parse_parameters(query) if query else {}
        if parameters and parameters.get("dc", "") not in ("", self._context.datacenter):
            raise HttpError(500, "No path to datacenter")
        if path.startswith(kv.PATH):
            return await self._respond_kv(path[len(kv.PATH) :], parameters, scope, receive)
        endpoint = routes.found(path)
        if endpoint is not None:
            methods, rest = endpoint
            handler = methods.get(scope["method"])
            if handler is None:
                return _refuse_method(scope["method"], tuple(methods))
            return await handler(self._context, Request(rest, parameters, scope, receive))
        if path == "/":
            return text_response(200, "Consul Agent")
        return text_response(404, _NOT_AN_ENDPOINT if "/v1/" in path else _NOT_AN_API_PATH)

    async def _respond_kv(self, key: str, parameters: dict[str, str], scope: Scope, receive: Receive) -> Response:
        agent = self._context.agent
        match scope["method"]:
            case "GET":
                return await kv.get(agent, key, parameters)
            case "PUT":
                return await kv.put(agent, key, parameters, scope, receive, self._context.kv_max_value_size)
            case "DELETE":
                return await kv.delete(agent, key, parameters)
            case method:
                return _refuse_method(method, kv.METHODS)


def _refuse_method(method: str, allowed: tuple[str, ...]) -> Response:
    if method == "OPTIONS":
        return Response(200, ((b"Allow", ",".join(("OPTIONS", *allowed)).encode()),))
    return text_response(405, f"method {method} not allowed", ((b"Allow", ",".join(allowed).encode()),))
