"""A client's request on its way to whoever can serve it: holds, retries, and what may not be retried.

Source: Consul, `ForwardRPC` and `canRetry`: while no leader is known, or what is known proves wrong, a request is held
and tried again after random pauses of 0 to hold/16, until `rpc_hold_timeout` has passed (and a blocking query's wait).
What is tried again:

- always, what certainly had no effect: no leader, not the leader, not sent;
- a read whose connection was lost;
- never a write that may have been applied: its client is told that the outcome is unknown.

Deviation: a change of leader ends a pause early.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from impl.agent.requests.api import AgentError, DefiniteError, IndefiniteError, NoClusterLeader, ReadOptions
from impl.agent.requests.changes import Changes
from impl.agent.requests.protocol import NOT_LEADER, NOT_READY
from impl.rpc.errors import RemoteError, RpcError
from impl.runtime.interfaces import MILLISECONDS, NANOSECONDS, Runtime

T = TypeVar("T")

HOLD_FRACTION = 16
JITTER_FRACTION = 16
"""Blocking queries wait up to this part of their wait longer, so that those begun together do not end together."""
PAUSE_NS_MIN = 1 * MILLISECONDS
CALL_TIMEOUT_NS = 60_000 * MILLISECONDS
"""Longest wait for the answer to a forwarded request, without what a blocking query adds."""


def blocked_ns_max(options: ReadOptions) -> int:
    """How long a blocking query may stay at the server that answers it, beyond any other request."""
    return int(options.wait * (1 + 1 / JITTER_FRACTION) * NANOSECONDS) if options.min_index else 0


def still_blocked(options: ReadOptions, waited_ns: int) -> ReadOptions:
    """The options of another attempt of a blocking query that has waited so long already."""
    if not options.min_index:
        return options
    return msgspec.structs.replace(options, wait=max(options.wait - waited_ns / NANOSECONDS, 0.0))


class Retriable(Exception):
    """An attempt had no effect, or repeating it does no harm. `final` is what the client is told when time is up."""

    def __init__(self, final: AgentError) -> None:
        super().__init__(str(final))
        self.final = final


def judge(error: RpcError, *, is_write: bool) -> Retriable | AgentError:
    """What a failed call means for the request: try again, or tell the client."""
    if isinstance(error, RemoteError):
        text = str(error)
        if text in (NOT_LEADER, str(NoClusterLeader())):
            return Retriable(NoClusterLeader())
        if text == NOT_READY:
            return Retriable(DefiniteError(NOT_READY))
        return DefiniteError(text) if error.definite else IndefiniteError(text)
    text = f"rpc error: {error}"
    if error.definite:
        return Retriable(NoClusterLeader())
    return IndefiniteError(text) if is_write else Retriable(DefiniteError(text))


async def once(attempt: Callable[[], Awaitable[T]]) -> T:
    """Run `attempt` for somebody who holds the request already. Raises AgentError."""
    try:
        return await attempt()
    except Retriable as retriable:
        raise retriable.final from retriable


async def hold(
    runtime: Runtime, hold_ns: int, attempt: Callable[[], Awaitable[T]], changes: Changes, blocked_ns: int = 0
) -> T:
    """Run `attempt` until it does not raise Retriable or the hold timeout has passed.

    Args:
        blocked_ns: how much longer a blocking query may take.
        changes: notified when an attempt may end differently; that ends a pause.

    Raises:
        AgentError: from the attempt, or the `final` of the last one.
    """
    deadline = runtime.clock.monotonic_ns() + hold_ns + blocked_ns
    while True:
        try:
            return await attempt()
        except Retriable as retriable:
            remaining = deadline - runtime.clock.monotonic_ns()
            if remaining <= 0:
                raise retriable.final from retriable
            pause = PAUSE_NS_MIN + int(runtime.random.random() * hold_ns / HOLD_FRACTION)
            await changes.wait(min(pause, remaining))
