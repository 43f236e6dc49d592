"""Writes of handlers: what the state machine refused is Consul's 500 with its text."""

from __future__ import annotations

from impl.agent.requests.api import Agent
from impl.catalog.commands import Write
from impl.catalog.transactions import Outcome
from impl.catalog.transitions import Failed, Result
from impl.http.context import Context, Request
from impl.http.request import HttpError
from impl.http.response import Response, json_response


async def result(agent: Agent, command: Write) -> bool | Outcome:
    """Replicate and apply a command. Raises HttpError: the state machine refused it."""
    return accepted(await agent.write(command))


def accepted(told: Result) -> bool | Outcome:
    """What a writer is told of a command that was applied. Raises HttpError: the state machine refused it."""
    if isinstance(told, Failed):
        raise HttpError(500, told.why)
    return told


async def truth(context: Context, request: Request, command: Write) -> Response:
    """Replicate and apply a command; its answer is `true` or `false`."""
    return json_response(bool(await result(context.agent, command)), request.pretty)
