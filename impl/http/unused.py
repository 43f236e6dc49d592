"""What Comitia does not have, answered as a Consul answers on which it is unused or off: one table of constant answers.

Configuration entries, peerings, events, prepared queries and coordinates have nothing to show: their lists are empty,
at an index that one can wait on. ACLs are disabled, and so is Connect. What would write to any of the former is refused
with 400, naming the feature (a 5xx would speak of a server that is broken): *Deviation,* a Consul would do it. Nothing
here may pretend that something was done.
Source: Consul's HTTP API documentation and its table of endpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from impl.catalog.registry_queries import ServiceHealth
from impl.http.context import Context, Handler, Request
from impl.http.registry import read
from impl.http.request import HttpError, read_options
from impl.http.response import Response, json_response, read_headers, text_response

NO_SERVICE: Final = ServiceHealth("")
"""No service has this name, so that there is an index to wait on, which a constant answer would not have: who waits
would be answered at once, again and again."""


class Nothing(NamedTuple):
    """An empty list, with the headers of a query."""

    what: str
    missing: str = ""
    """What is missing where a name ought to follow."""
    one: str = ""
    """What is said, with 404, of a single one that is asked for by a second name."""


class Refusal(NamedTuple):
    """A text."""

    what: str
    status: int
    text: str


def _acl(what: str) -> Refusal:
    return Refusal(f"{what}: access control is disabled", 401, "ACL support disabled")


def _unsupported(what: str, feature: str) -> Refusal:
    return Refusal(f"{what}: not implemented", 400, f"{feature} are not supported by Comitia")


def _connect(what: str) -> Refusal:
    return Refusal(f"{what}: the mesh is off", 500, "Connect must be enabled in order to use this endpoint")


_NO_QUERY: Final = Refusal("There are no prepared queries", 404, "Query not found")

ANSWERS: Final[Mapping[tuple[str, str], Nothing | Refusal]] = {
    ("GET", "/v1/health/ingress/"): Nothing("Ingress gateways of a service, with their checks", "service name"),
    ("GET", "/v1/catalog/gateway-services/"): Nothing("Services of a gateway", "gateway name"),
    ("GET", "/v1/config/"): Nothing(
        "Configuration entries of a kind", "kind of configuration entries", "Config entry not found"
    ),
    ("PUT", "/v1/config"): _unsupported("Set a configuration entry", "Configuration entries"),
    ("DELETE", "/v1/config/"): _unsupported("Delete a configuration entry", "Configuration entries"),
    ("GET", "/v1/connect/ca/roots"): _connect("Certificates of the mesh"),
    ("GET", "/v1/connect/ca/configuration"): _connect("The configuration of the certificate authority"),
    ("PUT", "/v1/connect/ca/configuration"): _connect("Configure the certificate authority"),
    ("GET", "/v1/agent/connect/ca/roots"): _connect("Certificates of the mesh, as the agent has them"),
    ("GET", "/v1/agent/connect/ca/leaf/"): _connect("The certificate of a service"),
    ("POST", "/v1/agent/connect/authorize"): _connect("May this client connect"),
    ("GET", "/v1/connect/intentions"): _connect("Intentions"),
    ("POST", "/v1/connect/intentions"): _connect("Make an intention"),
    ("GET", "/v1/connect/intentions/match"): _connect("Intentions of services"),
    ("GET", "/v1/connect/intentions/check"): _connect("May a service connect to another"),
    ("GET", "/v1/connect/intentions/exact"): _connect("An intention"),
    ("PUT", "/v1/connect/intentions/exact"): _connect("Set an intention"),
    ("DELETE", "/v1/connect/intentions/exact"): _connect("Delete an intention"),
    ("GET", "/v1/connect/intentions/"): _connect("An intention by its id"),
    ("PUT", "/v1/connect/intentions/"): _connect("Change an intention by its id"),
    ("DELETE", "/v1/connect/intentions/"): _connect("Delete an intention by its id"),
    ("GET", "/v1/discovery-chain/"): _connect("How a service is routed"),
    ("POST", "/v1/discovery-chain/"): _connect("How a service would be routed"),
    ("GET", "/v1/peerings"): Nothing("Peerings"),
    ("GET", "/v1/peering/"): Refusal("There are no peerings", 404, "Peering not found"),
    ("DELETE", "/v1/peering/"): _unsupported("Delete a peering", "Peerings"),
    ("POST", "/v1/peering/token"): _unsupported("Make a token for a peering", "Peerings"),
    ("POST", "/v1/peering/establish"): _unsupported("Establish a peering", "Peerings"),
    ("GET", "/v1/exported-services"): Nothing("Exported services"),
    ("GET", "/v1/event/list"): Nothing("Events"),
    ("PUT", "/v1/event/fire/"): _unsupported("Fire an event", "Events"),
    ("GET", "/v1/query"): Nothing("Prepared queries"),
    ("POST", "/v1/query"): _unsupported("Prepare a query", "Prepared queries"),
    ("GET", "/v1/query/"): _NO_QUERY,
    ("PUT", "/v1/query/"): _unsupported("Change a prepared query", "Prepared queries"),
    ("DELETE", "/v1/query/"): _unsupported("Delete a prepared query", "Prepared queries"),
    ("GET", "/v1/coordinate/datacenters"): Nothing("Coordinates of servers"),
    ("GET", "/v1/coordinate/nodes"): Nothing("Coordinates of nodes"),
    ("GET", "/v1/coordinate/node/"): Refusal("There are no coordinates", 404, ""),
    ("PUT", "/v1/coordinate/update"): _unsupported("Set a coordinate", "Coordinates"),
    ("PUT", "/v1/agent/token/"): _acl("Set a token of the agent"),
    ("PUT", "/v1/acl/bootstrap"): _acl("Make the first token"),
    ("POST", "/v1/acl/login"): _acl("Log in"),
    ("POST", "/v1/acl/logout"): _acl("Log out"),
    ("GET", "/v1/acl/replication"): _acl("The replication of tokens"),
    ("GET", "/v1/acl/tokens"): _acl("Tokens"),
    ("PUT", "/v1/acl/token"): _acl("Make a token"),
    ("GET", "/v1/acl/token/self"): _acl("The token of the request"),
    ("GET", "/v1/acl/token/"): _acl("A token"),
    ("PUT", "/v1/acl/token/"): _acl("Change a token"),
    ("DELETE", "/v1/acl/token/"): _acl("Delete a token"),
    ("GET", "/v1/acl/policies"): _acl("Policies"),
    ("PUT", "/v1/acl/policy"): _acl("Make a policy"),
    ("GET", "/v1/acl/policy/name/"): _acl("A policy by its name"),
    ("GET", "/v1/acl/policy/"): _acl("A policy"),
    ("PUT", "/v1/acl/policy/"): _acl("Change a policy"),
    ("DELETE", "/v1/acl/policy/"): _acl("Delete a policy"),
    ("GET", "/v1/acl/roles"): _acl("Roles"),
    ("PUT", "/v1/acl/role"): _acl("Make a role"),
    ("GET", "/v1/acl/role/name/"): _acl("A role by its name"),
    ("GET", "/v1/acl/role/"): _acl("A role"),
    ("PUT", "/v1/acl/role/"): _acl("Change a role"),
    ("DELETE", "/v1/acl/role/"): _acl("Delete a role"),
    ("GET", "/v1/acl/auth-methods"): _acl("Authentication methods"),
    ("PUT", "/v1/acl/auth-method"): _acl("Make an authentication method"),
    ("GET", "/v1/acl/auth-method/"): _acl("An authentication method"),
    ("PUT", "/v1/acl/auth-method/"): _acl("Change an authentication method"),
    ("DELETE", "/v1/acl/auth-method/"): _acl("Delete an authentication method"),
    ("GET", "/v1/acl/binding-rules"): _acl("Binding rules"),
    ("PUT", "/v1/acl/binding-rule"): _acl("Make a binding rule"),
    ("GET", "/v1/acl/binding-rule/"): _acl("A binding rule"),
    ("PUT", "/v1/acl/binding-rule/"): _acl("Change a binding rule"),
    ("DELETE", "/v1/acl/binding-rule/"): _acl("Delete a binding rule"),
    ("GET", "/v1/acl/templated-policies"): _acl("Templated policies"),
    ("GET", "/v1/acl/templated-policy/name/"): _acl("A templated policy"),
    ("POST", "/v1/acl/templated-policy/preview/"): _acl("What a templated policy would be"),
}


def endpoints() -> dict[str, dict[str, Handler]]:
    """The handlers of the table, for `routes`."""
    found: dict[str, dict[str, Handler]] = {}
    for (method, endpoint), answer in ANSWERS.items():
        handler = _listing(answer) if isinstance(answer, Nothing) else _refusing(answer)
        handler.__doc__ = f"{method} {endpoint}: {answer.what[0].lower()}{answer.what[1:]}."
        found.setdefault(endpoint, {})[method] = handler
    return found


def _listing(answer: Nothing) -> Handler:
    async def handler(context: Context, request: Request) -> Response:
        if answer.missing and not request.rest:
            raise HttpError(400, f"Missing {answer.missing}")
        reply = await read(context, request, NO_SERVICE)
        consistency = read_options(request.parameters).consistency
        headers = read_headers(reply.answer.index, reply, consistency)
        if answer.one and "/" in request.rest:
            return text_response(404, answer.one, headers)
        return json_response([], request.pretty, headers)

    return handler


def _refusing(answer: Refusal) -> Handler:
    async def handler(context: Context, request: Request) -> Response:
        return text_response(answer.status, answer.text) if answer.text else Response(answer.status)

    return handler
