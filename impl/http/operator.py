"""`/v1/operator/raft/` and `/v1/agent/leave`: who is a member of the cluster, and who leads it.

Source: Consul, "Operator HTTP API", Raft: `configuration`, `peer` (DELETE), `transfer-leader`. Comitia's own are `peer`
(PUT), `promote` and `demote`, since Consul adds servers by gossip only. *Deviation:* `id` may be a node name. A request
that makes no sense is a 400; what the cluster refuses is a 500 with the reason, and changed nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from impl.agent.api import Agent
from impl.agent.operations import AddPeer, Demote, Operation, Promote, RaftConfiguration, RemovePeer, TransferLeader
from impl.http.request import HttpError
from impl.http.response import Response, json_response

RAFT_PROTOCOL = "3"
Parameters = dict[str, str]
Action = Callable[[Agent, Parameters], Awaitable[Response]]
_DONE = Response(200)


async def configuration(agent: Agent, parameters: Parameters) -> Response:
    """GET configuration: the members; with `stale` as the agent's own server sees them."""
    found = await agent.raft_configuration("stale" in parameters)
    return json_response(show_configuration(found), "pretty" in parameters)


def show_configuration(found: RaftConfiguration) -> dict[str, Any]:
    """The document, in Consul's words."""
    servers = [
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


async def remove_peer(agent: Agent, parameters: Parameters) -> Response:
    """DELETE peer: remove a member."""
    id, address = parameters.get("id", ""), parameters.get("address", "")
    if not id and not address:
        raise HttpError(400, "Must specify either ?id with the server's ID or ?address with IP:port of peer to remove")
    if id and address:
        raise HttpError(400, "Must specify only one of ?id or ?address")
    await agent.operate(RemovePeer(id, address))
    return _DONE


async def add_peer(agent: Agent, parameters: Parameters) -> Response:
    """PUT peer: add a server as a non-voter; it is promoted when it has caught up, unless `non-voter` is given."""
    address = parameters.get("address", "")
    if not address:
        raise HttpError(400, "Must specify ?address with IP:port of the server to add")
    id, name = parameters.get("id", ""), parameters.get("name", "")
    return await _change(agent, AddPeer(address, id, name, "non-voter" in parameters))


async def promote(agent: Agent, parameters: Parameters) -> Response:
    """PUT promote: a non-voter votes from now on."""
    return await _change(agent, Promote(_id(parameters, "promote")))


async def demote(agent: Agent, parameters: Parameters) -> Response:
    """PUT demote: a voter votes no more."""
    return await _change(agent, Demote(_id(parameters, "demote")))


async def transfer_leader(agent: Agent, parameters: Parameters) -> Response:
    """POST or PUT transfer-leader: to the server named, or to the one that is furthest."""
    await agent.operate(TransferLeader(parameters.get("id", "")))
    return json_response({"Success": True}, "pretty" in parameters)


async def leave(agent: Agent, parameters: Parameters) -> Response:
    """PUT leave: the agent leaves the cluster, and its process ends."""
    await agent.leave()
    return _DONE


async def _change(agent: Agent, operation: Operation) -> Response:
    return json_response({"Index": await agent.operate(operation)}, pretty=False)


def _id(parameters: Parameters, what: str) -> str:
    id = parameters.get("id", "")
    if not id:
        raise HttpError(400, f"Must specify ?id with the ID of the server to {what}")
    return id


ENDPOINTS: dict[str, dict[str, Action]] = {
    "/v1/operator/raft/configuration": {"GET": configuration},
    "/v1/operator/raft/peer": {"DELETE": remove_peer, "PUT": add_peer},
    "/v1/operator/raft/promote": {"PUT": promote},
    "/v1/operator/raft/demote": {"PUT": demote},
    "/v1/operator/raft/transfer-leader": {"POST": transfer_leader, "PUT": transfer_leader},
    "/v1/agent/leave": {"PUT": leave},
}
