"""Consul's sessions and locks for a test: every call returns what happened as a value. Source: Consul, "Session HTTP
Endpoint", "KV Store HTTP API", "Transaction HTTP API".
"""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from jepsen_like.client.kv import Answered, KvClient, Unanswered
from jepsen_like.generator.values import Ending
from model_checks.histories.lock_sightings import INVALID_SESSION, ProtectedValue, Row

NODE = "holders"
"""A node of the catalog without an agent: only their TTL and their clients end its sessions."""
MISSING = "500 Missing "
"""What a session that needs a node or a check that is not there is told."""
MISSING_NODE = "Missing node registration"
SESSION_NOT_FOUND = 404
CONFLICT = 409


class _Key(msgspec.Struct, frozen=True):
    LockIndex: int
    CreateIndex: int
    ModifyIndex: int
    Value: str | None = None
    Session: str | None = None

    @property
    def row(self) -> Row:
        return Row(self.CreateIndex, self.LockIndex, self.ModifyIndex, self.Session or None)


class _Result(msgspec.Struct, frozen=True):
    KV: _Key


class _Outcome(msgspec.Struct, frozen=True):
    Results: list[_Result] | None = None


class _Created(msgspec.Struct, frozen=True):
    ID: str


_keys = msgspec.json.Decoder(list[_Key])
_outcome = msgspec.json.Decoder(_Outcome)
_created = msgspec.json.Decoder(_Created)


class SessionWish(msgspec.Struct, frozen=True):
    """What a session is to be. Times in seconds; `bound`: to the health of its agent's node."""

    ttl: float | None
    lock_delay: float
    behavior: str
    bound: bool


class LockClient:
    """Sessions and locks at one agent. One call at a time."""

    def __init__(self, kv: KvClient, timeout_s: float) -> None:
        self._kv = kv
        self._timeout_s = timeout_s

    async def create(self, wish: SessionWish) -> Answered[str] | Unanswered:
        """A session's id."""
        body: dict[str, Any] = {"LockDelay": f"{wish.lock_delay:g}s", "Behavior": wish.behavior}
        if wish.ttl is not None:
            body["TTL"] = f"{wish.ttl:g}s"
        if not wish.bound:
            body |= {"Node": NODE, "Checks": []}
        response = await self._ask("PUT", "/v1/session/create", body)
        if isinstance(response, Unanswered) and MISSING_NODE in response.error:
            node = {"Node": NODE, "Address": "127.0.0.1"}
            registered = await self._ask("PUT", "/v1/catalog/register", node)
            if not isinstance(registered, Unanswered):
                response = await self._ask("PUT", "/v1/session/create", body)
        if isinstance(response, Unanswered):
            refused = MISSING in response.error
            return Unanswered(Ending.FAIL, response.error) if refused else response
        return Answered(_created.decode(response).ID)

    async def renew(self, session: str) -> Answered[bool] | Unanswered:
        """False: there is no such session."""
        answer = await self._ask("PUT", f"/v1/session/renew/{session}")
        if isinstance(answer, Unanswered):
            return Answered(False) if answer.error.startswith(f"{SESSION_NOT_FOUND} ") else answer
        return Answered(True)

    async def destroy(self, session: str) -> Answered[bool] | Unanswered:
        """End it."""
        answer = await self._ask("PUT", f"/v1/session/destroy/{session}")
        return answer if isinstance(answer, Unanswered) else Answered(True)

    async def exists(self, session: str, consistency: str) -> Answered[bool] | Unanswered:
        """Whether there is such a session."""
        answer = await self._ask("GET", f"/v1/session/info/{session}{_mode(consistency)}")
        return answer if isinstance(answer, Unanswered) else Answered(msgspec.json.decode(answer) != [])

    async def acquire(self, key: str, session: str) -> Answered[bool] | Unanswered:
        """By PUT: whether the session has the lock now."""
        return await self._put(f"/v1/kv/{key}?acquire={session}", session)

    async def release(self, key: str, session: str) -> Answered[bool] | Unanswered:
        """Whether it had the lock."""
        return await self._put(f"/v1/kv/{key}?release={session}", session)

    async def lock(self, key: str, session: str) -> Answered[Row | None] | Unanswered:
        """By a transaction, which shows the row; None: the session does not have the lock."""
        answer = await self._transact([_step("lock", key, Session=session, Value=_value(session))])
        if isinstance(answer, Unanswered):
            return answer
        if isinstance(answer.result, str):
            refused = INVALID_SESSION in answer.result
            return Unanswered(Ending.FAIL, answer.result) if refused else Answered(None)
        return Answered(answer.result[0].row)

    async def write(
        self, key: str, value: int, *, lock: str, session: str, checked_index: int | None
    ) -> Answered[int | str] | Unanswered:
        """Set `key` if `session` has the lock, and if its ModifyIndex is that; the index of the write, or why not."""
        steps = [_step("check-session", lock, Session=session)]
        if checked_index is not None:
            steps.append(_step("check-index", lock, Index=checked_index))
        answer = await self._transact([*steps, _step("set", key, Value=_value(value))])
        if isinstance(answer, Unanswered):
            return answer
        return Answered(answer.result if isinstance(answer.result, str) else answer.result[-1].ModifyIndex)

    async def read(self, key: str, consistency: str) -> Answered[Row | None] | Unanswered:
        """The lock's row, if there is one."""
        found = await self._get(key, consistency)
        if isinstance(found, Unanswered):
            return found
        return Answered(None if found.result is None else found.result.row)

    async def read_protected(self, key: str, consistency: str) -> Answered[ProtectedValue] | Unanswered:
        """What the lock protects."""
        found = await self._get(key, consistency)
        if isinstance(found, Unanswered):
            return found
        row = found.result
        if row is None:
            return Answered(ProtectedValue(None))
        return Answered(
            ProtectedValue(msgspec.json.decode(base64.b64decode(row.Value or ""), type=int), row.ModifyIndex)
        )

    async def _get(self, key: str, consistency: str) -> Answered[_Key | None] | Unanswered:
        answer = await self._ask("GET", f"/v1/kv/{key}{_mode(consistency)}")
        if isinstance(answer, Unanswered):
            return answer
        return Answered(_keys.decode(answer)[0] if answer else None)

    async def _put(self, target: str, session: str) -> Answered[bool] | Unanswered:
        answer = await self._ask("PUT", target, session)
        if isinstance(answer, Unanswered):
            known = INVALID_SESSION in answer.error
            return Unanswered(Ending.FAIL, answer.error) if known else answer
        return Answered(answer.strip() == b"true")

    async def _transact(self, steps: list[dict[str, Any]]) -> Answered[list[_Key] | str] | Unanswered:
        """The rows, or the first error of a transaction that was refused."""
        answer = await self._ask("PUT", "/v1/txn", steps)
        if isinstance(answer, Unanswered):
            if not answer.error.startswith(f"{CONFLICT} "):
                return answer
            return Answered(answer.error)
        return Answered([result.KV for result in _outcome.decode(answer).Results or []])

    async def _ask(self, method: str, target: str, body: object = None) -> bytes | Unanswered:
        encoded = b"" if body is None else msgspec.json.encode(body)
        answer = await self._kv.ask(method, target, encoded, self._timeout_s, changes=method != "GET")
        return answer if isinstance(answer, Unanswered) else answer.body


def _mode(consistency: str) -> str:
    return "" if consistency == "default" else f"?{consistency}"


def _value(value: object) -> str:
    return base64.b64encode(msgspec.json.encode(value)).decode()


def _step(verb: str, key: str, **more: object) -> dict[str, Any]:
    return {"KV": {"Verb": verb, "Key": key, **more}}
