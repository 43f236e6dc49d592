"""What the implementation makes of a failed call is the step that spec/forwarding takes.

Forwarding is explored in the spec; these decisions are what the implementation shares with it.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from impl.agent.requests import forwarding as implementation
from impl.agent.requests.api import IndefiniteError, NoClusterLeader
from impl.agent.requests.forwarding import Retriable
from impl.agent.requests.protocol import NOT_LEADER
from impl.rpc.errors import CallTimedOut, ConnectFailed, ConnectionLost, NotSent, RemoteError, RpcError
from spec.forwarding import (
    Agent,
    Answer,
    Call,
    Calling,
    Dialling,
    Held,
    Outcome,
    Reply,
    Request,
    Task,
    connection_lost,
    dial_failed,
    handle_reply,
)

Failure = Callable[[Request], Outcome | None]
"""The spec's step for a failed attempt at a request that this server forwards."""


def calling(request: Request) -> Agent:
    """A server that waits for the reply to its call."""
    return Agent(True, "b", (Task(request, None, Calling(call(request))),), 1)


def call(request: Request) -> Call:
    return Call("a", "b", 1, 1, request, True, ("a",))


def not_sent(request: Request) -> Outcome | None:
    dialling = Agent(True, "b", (Task(request, None, Dialling("b")),))
    return dial_failed(dialling, dialling.tasks[0])


def lost(request: Request) -> Outcome | None:
    return connection_lost(calling(request), "b", 1)


def replied(answer: Answer) -> Failure:
    return lambda request: handle_reply(calling(request), Reply(call(request), answer))


FAILURES: list[tuple[RpcError, Failure]] = [
    (ConnectFailed("refused"), not_sent),
    (NotSent("too late"), not_sent),
    (ConnectionLost("EOF"), lost),
    (CallTimedOut("60 s"), lost),
    (RemoteError(NOT_LEADER, definite=True), replied(Answer.REFUSED)),
    (RemoteError(str(NoClusterLeader()), definite=True), replied(Answer.REFUSED)),
    (RemoteError("leadership lost while committing log", definite=False), replied(Answer.UNKNOWN)),
]


def spec_says(failure: Failure, request: Request) -> str:
    """What becomes of the request in the spec."""
    outcome = failure(request)
    assert outcome is not None
    if outcome.answers:
        return str(outcome.answers[0].answer)
    return "retried" if outcome.agent.tasks[0].phase == Held() else "waits"


def implementation_says(error: RpcError, request: Request) -> str:
    """What becomes of it in the implementation."""
    verdict = implementation.judge(error, is_write=request.writes)
    if isinstance(verdict, Retriable):
        return "retried"
    return str(Answer.UNKNOWN if isinstance(verdict, IndefiniteError) else Answer.REFUSED)


def named(case: object) -> str:
    return type(case).__name__ if isinstance(case, RpcError) else ""


@pytest.mark.parametrize(("error", "failure"), FAILURES, ids=named)
@pytest.mark.parametrize("writes", [True, False])
def test_a_failed_call_ends_as_in_the_spec(error: RpcError, failure: Failure, writes: bool) -> None:
    request = Request("x", writes)
    assert implementation_says(error, request) == spec_says(failure, request)


def test_a_write_that_is_retried_after_eof_differs_from_the_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    original = implementation.judge
    monkeypatch.setattr(implementation, "judge", lambda error, is_write: original(error, is_write=False))
    with pytest.raises(AssertionError):
        test_a_failed_call_ends_as_in_the_spec(ConnectionLost("EOF"), lost, writes=True)
