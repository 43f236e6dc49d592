"""The ASGI application: finds the handler, turns errors into Consul's status codes and texts.

Source: Consul, "HTTP API structure". It must answer every request: an error that no handler expected is a 500 with its
text, and is logged.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

from impl.agent.config.validated import SNAPSHOT_MAX_SIZE
from impl.agent.local.registrations import Registrations
from impl.agent.requests.api import Agent, AgentError
from impl.http import kv, routes
from impl.http.context import Context, Controls, Request
from impl.http.measures import HttpMeasures
from impl.http.request import NO_PATH, ClientGone, HttpError, Receive, Scope, Send, decode_path, parse_parameters
from impl.http.response import Response, Stream, defect_response, error_response, text_response

_OF_ANY_DATACENTER = ("/v1/agent/", "/v1/catalog/datacenters")
"""Endpoints that answer for this agent whatever `dc` says."""
_ENTERPRISE = {"ns": "Namespaces", "partition": "Partitions"}
"""Parameters that ask for what is not here."""
_ENTERPRISE_HEADERS = {
    b"x-consul-namespace": ("X-Consul-Namespace", "Namespaces"),
    b"x-consul-partition": ("X-Consul-Partition", "Partitions"),
}
"""Headers that ask for the same."""
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
        snapshot_max_size: int = SNAPSHOT_MAX_SIZE,
        controls: Controls | None = None,
        measures: HttpMeasures | None = None,
        *,
        pretty: bool = False,
    ) -> None:
        """`datacenter`, `node_name` and `local` (services and checks): the agent's own. `controls`: what its operator
        may ask for; without `measures` nobody hears how long answers take. `pretty`: all answers are indented.

        `unexpected` hears of errors that no handler expected: (what was asked, error).
        """
        self._context = Context(agent, node_name, datacenter, kv_max_value_size, local, snapshot_max_size, controls)
        self._measures = measures
        self._pretty = pretty
        self._unexpected = unexpected

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"only HTTP is served here, not {scope['type']}")
        measures = self._measures
        started_ns = measures.now_ns() if measures is not None else 0
        response: Response | Stream
        try:
            response = await self._respond(scope, receive)
        except (HttpError, AgentError) as error:
            response = error_response(error)
        except ClientGone:
            return
        except Exception as error:
            self._unexpected(f"{scope['method']} {scope['path']}", error)
            response = defect_response(error)
        await response.send(send)
        if measures is not None:
            measures.answered(scope["method"], scope["raw_path"], started_ns)

    async def _respond(self, scope: Scope, receive: Receive) -> Response | Stream:
        path = decode_path(scope["raw_path"])
        query = scope["query_string"]
        parameters = parse_parameters(query) if query else {}
        if self._pretty:
            parameters["pretty"] = ""
        if path.startswith(kv.PATH):
            return await self._respond_kv(path[len(kv.PATH) :], parameters, scope, receive)
        endpoint = routes.found(path)
        if endpoint is not None:
            methods, rest = endpoint
            handler = methods.get(scope["method"])
            if handler is None:
                return _refuse_method(scope["method"], tuple(methods))
            self._refuse_elsewhere(path, parameters, scope)
            return await handler(self._context, Request(rest, parameters, scope, receive))
        if path == "/":
            return text_response(200, "Consul Agent")
        if f"{path}/" in routes.ENDPOINTS or f"{path}/" == kv.PATH:
            return _redirect(f"{path}/", query)
        return text_response(404, _NOT_AN_ENDPOINT if "/v1/" in path else _NOT_AN_API_PATH)

    async def _respond_kv(self, key: str, parameters: dict[str, str], scope: Scope, receive: Receive) -> Response:
        agent = self._context.agent
        if scope["method"] in kv.METHODS:
            self._refuse_elsewhere(kv.PATH, parameters, scope)
        match scope["method"]:
            case "GET":
                return await kv.get(agent, key, parameters)
            case "PUT":
                return await kv.put(agent, key, parameters, scope, receive, self._context.kv_max_value_size)
            case "DELETE":
                return await kv.delete(agent, key, parameters)
            case method:
                return _refuse_method(method, kv.METHODS)

    def _refuse_elsewhere(self, path: str, parameters: dict[str, str], scope: Scope) -> None:
        """What is meant for another datacenter or namespace must not be done here."""
        for header, value in scope["headers"]:
            if header in _ENTERPRISE_HEADERS and value:
                shown, feature = _ENTERPRISE_HEADERS[header]
                raise HttpError(400, f'Invalid header: "{shown}" - {feature} are a Consul Enterprise feature')
        if not parameters:
            return
        for name, feature in _ENTERPRISE.items():
            if parameters.get(name):
                raise HttpError(400, f'Invalid query parameter: "{name}" - {feature} are a Consul Enterprise feature')
        if parameters.get("dc", "") not in ("", self._context.datacenter) and not path.startswith(_OF_ANY_DATACENTER):
            raise HttpError(500, NO_PATH)


def _refuse_method(method: str, allowed: tuple[str, ...]) -> Response:
    headers = ((b"Allow", ",".join(("OPTIONS", *allowed)).encode()),)
    if method == "OPTIONS":
        return Response(200, headers)
    return text_response(405, f"method {method} not allowed", headers)


def _redirect(path: str, query: bytes) -> Response:
    """To the endpoint whose last slash was forgotten, as Go's ServeMux does."""
    target = quote(path).encode() + (b"?" + query if query else b"")
    return text_response(301, "Moved Permanently", ((b"Location", target),))
