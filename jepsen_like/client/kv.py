"""Consul's KV API for a test: every call returns what happened as a value, none raises for the system's sake."""

from __future__ import annotations

import asyncio
import base64
from typing import Generic, TypeVar

import msgspec

from jepsen_like.client import outcomes
from jepsen_like.client.http import HttpConnection, RequestFailed, Response
from jepsen_like.generator.values import Ending

REFUSED_PAUSE_S = 0.2
"""A client whose agent is dead waits this long before it says so: dead agents must not eat up the test's rate."""

Result = TypeVar("Result")


class Answered(msgspec.Struct, Generic[Result], frozen=True):
    """The operation was answered."""

    result: Result


class Unanswered(msgspec.Struct, frozen=True):
    """It was refused, or nobody knows."""

    ending: Ending
    error: str


class Row(msgspec.Struct, frozen=True):
    """A key as `/v1/kv` shows it."""

    key: str = msgspec.field(name="Key")
    modify_index: int = msgspec.field(name="ModifyIndex")
    value: str | None = msgspec.field(name="Value", default=None)

    def json(self) -> object:
        """The value, which is JSON text in a test."""
        return msgspec.json.decode(base64.b64decode(self.value or ""))


_ROWS = msgspec.json.Decoder(list[Row])
_KEYS = msgspec.json.Decoder(list[str])


class KvClient:
    """The KV of one agent, over one connection. One call at a time."""

    def __init__(self, connection: HttpConnection) -> None:
        self._connection = connection

    async def get(
        self, key: str, timeout_s: float, consistency: str = "consistent"
    ) -> Answered[Row | None] | Unanswered:
        """The key, or None if there is none. `consistency`: consistent, stale or default."""
        mode = "" if consistency == "default" else f"?{consistency}"
        response = await self.ask("GET", f"/v1/kv/{key}{mode}", b"", timeout_s, changes=False)
        if isinstance(response, Unanswered):
            return response
        if response.status == 404:
            return Answered(None)
        try:
            return Answered(_ROWS.decode(response.body)[0])
        except (msgspec.DecodeError, IndexError) as error:
            return Unanswered(Ending.FAIL, f"not what Consul answers: {error}")

    async def keys(self, prefix: str, timeout_s: float) -> Answered[list[str]] | Unanswered:
        """The names of all keys under `prefix`."""
        response = await self.ask("GET", f"/v1/kv/{prefix}?keys&consistent", b"", timeout_s, changes=False)
        if isinstance(response, Unanswered):
            return response
        if response.status == 404:
            return Answered([])
        try:
            return Answered(_KEYS.decode(response.body))
        except msgspec.DecodeError as error:
            return Unanswered(Ending.FAIL, f"not what Consul answers: {error}")

    async def put(
        self, key: str, value: object, timeout_s: float, cas: int | None = None
    ) -> Answered[bool] | Unanswered:
        """Set the key to the JSON of `value`; with `cas` only if its ModifyIndex is that. False: it was not."""
        condition = "" if cas is None else f"?cas={cas}"
        body = msgspec.json.encode(value)
        response = await self.ask("PUT", f"/v1/kv/{key}{condition}", body, timeout_s, changes=True)
        if isinstance(response, Unanswered):
            return response
        return Answered(response.body.strip() == b"true")

    def close(self) -> None:
        """Drop the connection."""
        self._connection.close()

    async def ask(
        self, method: str, target: str, body: bytes, timeout_s: float, *, changes: bool
    ) -> Response | Unanswered:
        """Any request of Consul's API: 200, or an empty 404 to a read, is an answer."""
        try:
            response = await self._connection.request(method, target, body, timeout_s)
        except RequestFailed as failure:
            if not failure.sent:
                await asyncio.sleep(REFUSED_PAUSE_S)
            return Unanswered(outcomes.of_failure(failure, changes=changes), str(failure))
        if response.status == 200 or (response.status == 404 and not changes and not response.body):
            return response
        return Unanswered(outcomes.of_error(response, changes=changes), outcomes.describe(response))
