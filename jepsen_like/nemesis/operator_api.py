"""Consul's operator API as a nemesis uses it: who is a member, remove, add, promote, demote, transfer.

Asked through sockets in the agents' own namespaces, which no cut hinders, of the leader if one is known: a nemesis
plays the operator at the server's console. Raises nothing for the system's sake: a request that came to nothing is a
text that says why. Source: Consul, "Operator HTTP API"; `peer` with PUT, `promote` and `demote` are Comitia's own.
"""

from __future__ import annotations

from typing import Any, Protocol
from urllib.parse import urlencode

import msgspec

REQUEST_TIMEOUT_S = 3.0
TEXT_MAX = 200


class Member(msgspec.Struct, frozen=True):
    """A server of the latest configuration, as `/v1/operator/raft/configuration` shows it."""

    id: str = msgspec.field(name="ID")
    node: str = msgspec.field(name="Node")
    address: str = msgspec.field(name="Address")
    leader: bool = msgspec.field(name="Leader")
    voter: bool = msgspec.field(name="Voter")


class Configuration(msgspec.Struct, frozen=True):
    """The latest configuration of the server that was asked, in its order."""

    servers: tuple[Member, ...] = msgspec.field(name="Servers")

    @property
    def voters(self) -> tuple[str, ...]:
        """The nodes that vote."""
        return tuple(member.node for member in self.servers if member.voter)

    def member(self, node: str) -> Member | None:
        """The member of this name."""
        return next((member for member in self.servers if member.node == node), None)


class Askable(Protocol):
    """The part of a cluster that an operator needs (jepsen_like.cluster.api.Cluster)."""

    async def request(
        self, node: str, method: str, path: str, body: bytes = b"", timeout_s: float = 2.0
    ) -> tuple[int, dict[str, str], bytes]: ...


class Operator:
    """The operator API of a cluster. `failures`: what `request` raises when there is no answer.

    Remembers every member that it has seen: one that was removed is added again by what was known of it.
    """

    def __init__(self, cluster: Askable, failures: tuple[type[Exception], ...]) -> None:
        self._cluster = cluster
        self._failures = failures
        self.known: dict[str, Member] = {}

    async def configuration(self, via: str, timeout_s: float = 1.0) -> Configuration | None:
        """The latest configuration, asked of `via`; None if it did not answer."""
        target = "/v1/operator/raft/configuration"
        try:
            status, _, body = await self._cluster.request(via, "GET", target, timeout_s=timeout_s)
        except self._failures:
            return None
        try:
            found = msgspec.json.decode(body, type=Configuration) if status == 200 else None
        except msgspec.DecodeError:
            found = None
        if found is None:
            return None
        self.known |= {member.node: member for member in found.servers}
        return found

    async def remove(self, via: str, node: str) -> str:
        """Remove a member. Of every change: "" once it is committed, else why not, as far as anybody said."""
        return await self._change(via, "DELETE", "peer", {"id": self.known[node].id})

    async def add(self, via: str, node: str) -> str:
        """Add a server that was a member before: as a non-voter, which the leader promotes when it has caught up."""
        member = self.known[node]
        return await self._change(via, "PUT", "peer", {"id": member.id, "address": member.address, "name": node})

    async def promote(self, via: str, node: str) -> str:
        """Make a non-voter a voter."""
        return await self._change(via, "PUT", "promote", {"id": self.known[node].id})

    async def demote(self, via: str, node: str) -> str:
        """Make a voter a non-voter."""
        return await self._change(via, "PUT", "demote", {"id": self.known[node].id})

    async def transfer(self, via: str, node: str | None) -> str:
        """Let the leader hand over to `node`, or to whom it likes."""
        return await self._change(
            via, "POST", "transfer-leader", {} if node is None else {"id": self.known[node].id}, "Success"
        )

    async def _change(self, via: str, method: str, path: str, query: dict[str, str], success: str = "") -> str:
        target = f"/v1/operator/raft/{path}" + (f"?{urlencode(query)}" if query else "")
        try:
            status, _, body = await self._cluster.request(via, method, target, timeout_s=REQUEST_TIMEOUT_S)
        except self._failures as failure:
            return f"no answer: {failure}"
        text = body[:TEXT_MAX].decode(errors="replace").strip()
        if status != 200:
            return f"{status} {text}"
        return "" if not success or _says(body, success) else f"not a success: {text}"


def _says(body: bytes, name: str) -> bool:
    """Whether a JSON object has the member `name`, and it is true."""
    try:
        document: Any = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return False
    return isinstance(document, dict) and document.get(name) is True
