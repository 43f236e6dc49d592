"""`/v1/operator/raft/` and `/v1/status/`: who is a member of the cluster, and who leads it.

Source: Consul, "Operator HTTP API", Raft: `configuration`, `peer` (DELETE), `transfer-leader`. Comitia's own are `peer`
(PUT), `promote` and `demote`, since Consul adds servers by gossip only. *Deviation:* `id` may be a node name. A request
that makes no sense is a 400; what the cluster refuses is a 500 with the reason, and changed nothing.
"""

from __future__ import annotations

from impl.agent.config.validated import ConfigError, parse_address
from impl.agent.membership.operations import (
    AddPeer,
    Demote,
    Operation,
    Promote,
    RaftConfiguration,
    RemovePeer,
    TransferLeader,
)
from impl.http.context import Context, Request
from impl.http.request import HttpError
from impl.http.response import Response, json_response
from impl.http.shapes import ChangedDocument, RaftConfigurationDocument, RaftServerDocument, SuccessDocument

RAFT_PROTOCOL = "3"
_DONE = Response(200)


async def status_leader(context: Context, request: Request) -> Response:
    """GET /v1/status/leader: the RPC address of the leader."""
    return json_response(await context.agent.status_leader(), request.pretty)


async def status_peers(context: Context, request: Request) -> Response:
    """GET /v1/status/peers: the RPC addresses of the servers."""
    return json_response(await context.agent.status_peers(), request.pretty)


async def configuration(context: Context, request: Request) -> Response:
    """GET configuration: the members; with `stale` as the agent's own server sees them."""
    found = await context.agent.raft_configuration("stale" in request.parameters)
    return json_response(show_configuration(found), request.pretty)


def show_configuration(found: RaftConfiguration) -> RaftConfigurationDocument:
    """The document, in Consul's words."""
    servers: list[RaftServerDocument] = [
        {
            "ID": server.id,
            "Node": server.node,
            "Address": server.address,
            "Leader": server.leader,
            "ProtocolVersion": RAFT_PROTOCOL,
            "Voter": server.voter,
            "LastIndex": server.last_index,
        }
        for server in found.servers
    ]
    return {"Servers": servers, "Index": found.index}


async def remove_peer(context: Context, request: Request) -> Response:
    """DELETE peer: remove a member."""
    id, address = request.parameters.get("id", ""), request.parameters.get("address", "")
    if not id and not address:
        raise HttpError(400, "Must specify either ?id with the server's ID or ?address with IP:port of peer to remove")
    if id and address:
        raise HttpError(400, "Must specify only one of ?id or ?address")
    await context.agent.operate(RemovePeer(id, address))
    return _DONE


async def add_peer(context: Context, request: Request) -> Response:
    """PUT peer: add a server as a non-voter; it is promoted when it has caught up, unless `non-voter` is given."""
    parameters = request.parameters
    address = parameters.get("address", "")
    if not address:
        raise HttpError(400, "Must specify ?address with IP:port of the server to add")
    try:
        parse_address(address)
    except ConfigError as error:
        raise HttpError(400, f"Invalid ?address: {error}") from None
    id, name = parameters.get("id", ""), parameters.get("name", "")
    return await _change(context, request, AddPeer(address, id, name, "non-voter" in parameters))


async def promote(context: Context, request: Request) -> Response:
    """PUT promote: a non-voter votes from now on."""
    return await _change(context, request, Promote(_id(request, "promote")))


async def demote(context: Context, request: Request) -> Response:
    """PUT demote: a voter votes no more."""
    return await _change(context, request, Demote(_id(request, "demote")))


async def transfer_leader(context: Context, request: Request) -> Response:
    """POST or PUT transfer-leader: to the server named, or to the one that is furthest."""
    await context.agent.operate(TransferLeader(request.parameters.get("id", "")))
    document: SuccessDocument = {"Success": True}
    return json_response(document, request.pretty)


async def _change(context: Context, request: Request, operation: Operation) -> Response:
    document: ChangedDocument = {"Index": await context.agent.operate(operation)}
    return json_response(document, request.pretty)


def _id(request: Request, what: str) -> str:
    id = request.parameters.get("id", "")
    if not id:
        raise HttpError(400, f"Must specify ?id with the ID of the server to {what}")
    return id
