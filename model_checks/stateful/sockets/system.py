"""What the machine knows of the running system: agents that answer HTTP, and how far their logs are applied."""

from __future__ import annotations

from typing import Protocol

import msgspec

from model_checks.catalog.http_answers import HttpReply
from model_checks.catalog.http_requests import HttpRequest
from spec.catalog.state import Index


class NoAnswer(Exception):
    """A request was not answered. `sent`: whether it may have reached an agent."""

    def __init__(self, cause: str, *, sent: bool) -> None:
        super().__init__(cause)
        self.sent = sent


class Position(msgspec.Struct, frozen=True):
    """Who leads, and the index up to which its log is applied."""

    leader: str
    applied: Index


class Call(Protocol):
    """A request that is under way: a blocking query."""

    def wait(self, timeout_s: float) -> HttpReply | None:
        """The answer, if it comes in time; None: not yet. Raises NoAnswer: it will never come."""
        ...

    def close(self) -> None:
        """Hang up."""
        ...


class SystemUnderTest(Protocol):
    """A cluster. One request at a time, but for the calls that were begun."""

    @property
    def servers(self) -> tuple[str, ...]:
        """The names of the servers."""
        ...

    @property
    def agents(self) -> tuple[str, ...]:
        """The names of all agents, servers among them: whom a client may ask."""
        ...

    def send(self, agent: str, request: HttpRequest, timeout_s: float) -> HttpReply:
        """Ask, and wait for the answer. Raises NoAnswer."""
        ...

    def begin(self, agent: str, request: HttpRequest) -> Call:
        """Ask, and go on."""
        ...

    def position(self) -> Position:
        """The leader's, as it says itself. Every write that was acknowledged before is applied there.

        Raises NoAnswer: nobody says that it leads.
        """
        ...

    def applied(self, server: str) -> Index:
        """How far a server's log is applied, as it says itself. Raises NoAnswer."""
        ...
