"""The calls that bring a request to the leader: for each its name, its answer, and whether it changes anything.

The bodies are in `protocol` and `operations`. What a failed call means follows from the last of the three: a write that
may have been carried out is not asked for again, everything else is (`forwarding.judge`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import msgspec

from impl.agent.membership.operations import RaftConfiguration
from impl.agent.requests import protocol
from impl.agent.requests.api import ReadReply
from impl.agent.requests.forwarding import CALL_TIMEOUT_NS
from impl.agent.requests.protocol import decode_answer, encode
from impl.catalog.rows import Session
from impl.catalog.transitions import Result

Call = Callable[[str, bytes, int], Awaitable[bytes]]
"""(method, body, timeout in ns): a call to one agent; raises RpcError."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Method(Generic[T]):
    """What can be asked; its answer is a `T`."""

    name: str
    answer: msgspec.msgpack.Decoder[T]
    is_write: bool

    async def ask(self, call: Call, request: msgspec.Struct | None, blocked_ns: int = 0) -> T:
        """One call. `blocked_ns`: how long a blocking query may stay there. Raises RpcError, IndefiniteError."""
        body = encode(request) if request is not None else b""
        return decode_answer(self.answer, await call(self.name, body, CALL_TIMEOUT_NS + blocked_ns))


_decoder = msgspec.msgpack.Decoder

KV_WRITE: Final[Method[Result]] = Method(protocol.KV_WRITE, _decoder(Result), is_write=True)
KV_READ: Final[Method[ReadReply]] = Method(protocol.KV_READ, _decoder(ReadReply), is_write=False)
SESSION_RENEW: Final[Method[Session | None]] = Method(protocol.SESSION_RENEW, _decoder(Session | None), is_write=False)
"""A renewal that was lost may be repeated: it only gives time."""
ANNOUNCE: Final[Method[int]] = Method(protocol.ANNOUNCE, _decoder(int), is_write=False)
"""What was heard twice is no more than heard."""
OPERATE: Final[Method[int]] = Method(protocol.OPERATE, _decoder(int), is_write=True)
RAFT_CONFIGURATION: Final[Method[RaftConfiguration]] = Method(
    protocol.RAFT_CONFIGURATION, _decoder(RaftConfiguration), is_write=False
)
STATUS: Final[Method[protocol.Status]] = Method(protocol.STATUS, _decoder(protocol.Status), is_write=False)
