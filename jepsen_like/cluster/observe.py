"""What the agents say about themselves, asked over HTTP through sockets born in their own namespaces: cuts do not
hide them.

Reads `/v1/agent/self` (Stats.raft, Stats.rpc) and, where a foreign `--agent-command` has none, `/v1/status/leader`.
Judges nothing.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import msgspec

from jepsen_like.net import addresses

ANSWER_BYTES_MAX = 8 << 20


class AgentView(msgspec.Struct, frozen=True):
    """An agent's own account of Raft and of its connections. Numbers are -1 where it gave none."""

    node: str
    role: str
    """leader, follower, candidate, client, or "?" when the agent does not say."""
    term: int = -1
    commit_index: int = -1
    applied_index: int = -1
    leader: str | None = None
    """The node that it believes to be the leader."""
    reaches: dict[str, bool] = msgspec.field(default_factory=dict)
    """Which peers it says it is connected to."""
    last_log_index: int = -1
    log_base: int = -1
    """Entries up to here are gone from its log."""


class HttpFailure(Exception):
    """No complete HTTP answer: refused, timed out, closed or malformed."""


async def http_request(
    connection: socket.socket, host: str, method: str, path: str, body: bytes = b"", timeout_s: float = 2.0
) -> tuple[int, dict[str, str], bytes]:
    """One request on a connected socket, which is closed after it: status, headers (names in lower case), body."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(sock=connection, limit=ANSWER_BYTES_MAX)
            try:
                writer.write(
                    f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
                    f"Content-Length: {len(body)}\r\n\r\n".encode()
                    + body
                )
                return parsed(await reader.read(-1))
            finally:
                writer.close()
    except (OSError, TimeoutError) as error:
        raise HttpFailure(f"{method} http://{host}{path}: {str(error) or 'timed out'}") from error


def parsed(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    """A whole answer, read to the end of the connection, taken apart; raises HttpFailure if a part is missing."""
    head, separator, body = answer.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if not separator or len(words) < 2 or not words[1].isdigit():
        raise HttpFailure(f"not an HTTP answer: {answer[:80]!r}")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = _unchunked(body)
    elif headers.get("content-length", str(len(body))) != str(len(body)):
        raise HttpFailure(f"the answer ended early: {len(body)} of {headers['content-length']} bytes")
    return int(words[1]), headers, body


def _unchunked(body: bytes) -> bytes:
    parts: list[bytes] = []
    while True:
        size_text, _, body = body.partition(b"\r\n")
        try:
            size = int(size_text.split(b";")[0], 16)
        except ValueError as error:
            raise HttpFailure(f"bad chunk size {size_text[:20]!r}") from error
        if len(body) < size + 2:
            raise HttpFailure("the answer ended within a chunk")
        if size == 0:
            return b"".join(parts)
        parts.append(body[:size])
        body = body[size + 2 :]


def agent_view(node: str, answer: bytes) -> AgentView:
    """The view in the JSON of `/v1/agent/self`; raises HttpFailure if it is not JSON."""
    try:
        document = msgspec.json.decode(answer)
    except (msgspec.MsgspecError, ValueError) as error:
        raise HttpFailure(f"{node}: /v1/agent/self is not JSON: {error}") from error
    stats = _mapping(document, "Stats")
    raft = _mapping(stats, "raft")
    return AgentView(
        node=node,
        role=str(raft.get("state") or ("client" if not node.startswith("s") else "?")).lower(),
        term=_number(raft.get("term")),
        commit_index=_number(raft.get("commit_index")),
        applied_index=_number(raft.get("applied_index")),
        last_log_index=_number(raft.get("last_log_index")),
        log_base=_number(raft.get("log_base")),
        leader=_node_named(raft.get("leader")),
        reaches=_connected_peers(_mapping(stats, "rpc")),
    )


def view_of_leader(node: str, answer: bytes) -> AgentView:
    """What little the JSON of `/v1/status/leader` tells (an address, or an empty string); raises HttpFailure."""
    try:
        leader = _node_named(msgspec.json.decode(answer))
    except (msgspec.MsgspecError, ValueError) as error:
        raise HttpFailure(f"{node}: /v1/status/leader is not JSON: {error}") from error
    return AgentView(node, "leader" if leader == node else "?", leader=leader)


def _mapping(document: Any, key: str) -> dict[str, Any]:
    value = document.get(key) if isinstance(document, dict) else None
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        return -1


def _node_named(value: Any) -> str | None:
    """Agents name their leader by node name or by address."""
    text = str(value or "")
    return addresses.node_at(text) or (text if addresses.NAME.fullmatch(text) else None)


def _connected_peers(rpc: dict[str, Any]) -> dict[str, bool]:
    peers = _mapping(rpc, "peers")
    result = {}
    for name, peer in peers.items():
        node = _node_named(name)
        if node is not None:
            said = peer.get("connected") if isinstance(peer, dict) else peer
            result[node] = said in (True, "true", "yes")
    return result


def leader_among(views: list[AgentView]) -> str | None:
    """The server that says it leads, of the highest term: an old leader that was cut off still says so in its old
    term."""
    leaders = sorted((view.term, view.node) for view in views if view.role == "leader")
    return leaders[-1][1] if leaders else None
