"""What a handler is given: the agent that it speaks for, and the request as far as it was parsed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from impl.agent.config.validated import SNAPSHOT_MAX_SIZE
from impl.agent.local.registrations import Registrations
from impl.agent.logs import Log
from impl.agent.requests.api import Agent
from impl.http.request import HttpError, Receive, Scope, parse_repeated, read_body
from impl.http.response import Response, Stream
from impl.telemetry.instruments import Telemetry


@dataclass(frozen=True, slots=True)
class Controls:
    """What an operator may see of an agent, and have it do."""

    telemetry: Telemetry
    log: Log
    reload: Callable[[], Awaitable[None]]
    """Read the configuration again. Raises ConfigError: nothing was changed."""
    data_dir: str
    """Of this directory's disk the operator wants to know; "" is the working directory's."""


@dataclass(frozen=True, slots=True)
class Context:
    """The agent and what its users may rely on."""

    agent: Agent
    node_name: str
    datacenter: str
    kv_max_value_size: int
    local: Registrations | None = None
    """The agent's own services and checks."""
    snapshot_max_size: int = SNAPSHOT_MAX_SIZE
    """Bytes of an archive of the state that is restored."""
    controls: Controls | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `rest` is the path behind the endpoint's prefix."""

    rest: str
    parameters: dict[str, str]
    scope: Scope
    receive: Receive

    @property
    def pretty(self) -> bool:
        """Whether people will read the answer."""
        return "pretty" in self.parameters

    def repeated(self, name: str) -> tuple[str, ...]:
        """All values of a parameter, in order."""
        return parse_repeated(self.scope["query_string"], name)

    def truth(self, name: str) -> bool:
        """A boolean parameter as Go's ParseBool reads it; without a value it is true. Raises HttpError."""
        text = self.parameters.get(name)
        if text is None:
            return False
        if text in ("", "1", "t", "T", "TRUE", "true", "True"):
            return True
        if text in ("0", "f", "F", "FALSE", "false", "False"):
            return False
        raise HttpError(400, f"Invalid value for ?{name}")

    async def body(self, size_max: int, remedy: str = "") -> bytes:
        """The body; `remedy`: the setting that bounds it. Raises HttpError (413) and ClientGone."""
        return await read_body(self.scope, self.receive, size_max, remedy)


Handler = Callable[[Context, Request], Awaitable[Response | Stream]]
