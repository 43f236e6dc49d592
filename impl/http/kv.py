"""`/v1/kv/`: reads, writes and deletions of keys, and their locks. Source: Consul, "KV Store HTTP API"."""

from __future__ import annotations

from urllib.parse import urlencode

from impl.agent.requests.api import Agent, ReadOptions, ReadReply
from impl.catalog.commands import (
    KvAcquire,
    KvCas,
    KvDelete,
    KvDeleteCas,
    KvDeleteTree,
    KvRelease,
    KvSet,
    Write,
)
from impl.catalog.queries import KvGet, KvKeys, KvList
from impl.catalog.store import KeysAnswer, KvAnswer
from impl.catalog.transitions import Result
from impl.http import writes
from impl.http.request import HttpError, Receive, Scope, parse_unsigned, read_body, read_options
from impl.http.response import Response, json_response, kv_row, read_headers

PATH = "/v1/kv/"
METHODS = ("GET", "PUT", "DELETE")
_RAW = (
    (b"Content-Type", b"text/plain"),
    (b"X-Content-Type-Options", b"nosniff"),
    (b"Content-Security-Policy", b"sandbox"),
)
WRITTEN = Response(200, ((b"Content-Type", b"application/json"),), b"true")
_NOT_WRITTEN = Response(200, ((b"Content-Type", b"application/json"),), b"false")


async def get(agent: Agent, key: str, parameters: dict[str, str]) -> Response:
    """GET: one key, a tree with `recurse`, or names with `keys`."""
    options = read_options(parameters)
    if "keys" in parameters:
        separator = parameters.get("separator", parameters.get("seperator", ""))
        return await _get_keys(agent, KvKeys(key, separator), options, parameters)
    recurse = "recurse" in parameters
    if not key and not recurse:
        raise HttpError(400, "Missing key name")
    return shown(await agent.read(KvList(key) if recurse else KvGet(key), options), options, parameters)


def shown(reply: ReadReply, options: ReadOptions, parameters: dict[str, str]) -> Response:
    """The answer to a GET of one key or a tree."""
    assert isinstance(reply.answer, KvAnswer)
    headers = read_headers(reply.answer.index, reply, options.consistency)
    entries = reply.answer.entries
    if not entries:
        return Response(404, headers)
    if "raw" in parameters and "recurse" not in parameters:
        return Response(200, (*_RAW, *headers), entries[0].value)
    return json_response([kv_row(entry) for entry in entries], "pretty" in parameters, headers)


async def _get_keys(agent: Agent, query: KvKeys, options: ReadOptions, parameters: dict[str, str]) -> Response:
    reply = await agent.read(query, options)
    assert isinstance(reply.answer, KeysAnswer)
    headers = read_headers(reply.answer.index, reply, options.consistency)
    if not reply.answer.keys and query.prefix:
        return Response(404, headers)
    return json_response(reply.answer.keys, "pretty" in parameters, headers)


async def put(
    agent: Agent, key: str, parameters: dict[str, str], scope: Scope, receive: Receive, limit: int
) -> Response:
    """PUT: set a key; with `cas` only if it was not changed since; with `acquire` or `release`, its lock, too."""
    write_of_put(key, parameters, b"")  # what is wrong is said before the body is read
    command = write_of_put(key, parameters, await read_body(scope, receive, limit))
    return await _written(agent, command, parameters)


def write_of_put(key: str, parameters: dict[str, str], value: bytes) -> Write:
    """The command that a PUT stands for. Raises HttpError."""
    if not key:
        raise HttpError(400, "Missing key name")
    if not parameters:
        return KvSet(key, value, 0)
    _refuse_conflicts(parameters, "cas", "acquire", "release")
    flags = parse_unsigned("flags", parameters["flags"]) if "flags" in parameters else 0
    if "acquire" in parameters:
        return KvAcquire(key, value, flags, parameters["acquire"])
    if "release" in parameters:
        return KvRelease(key, value, flags, parameters["release"])
    if "cas" in parameters:
        return KvCas(key, value, flags, parse_unsigned("cas", parameters["cas"]))
    return KvSet(key, value, flags)


async def _written(agent: Agent, command: Write, parameters: dict[str, str]) -> Response:
    answer = written(await agent.write(command))
    return Response(200, answer.headers, answer.body + b"\n") if "pretty" in parameters else answer


def written(told: Result) -> Response:
    """The answer to a write. Raises HttpError: the state machine refused it."""
    return WRITTEN if writes.accepted(told) else _NOT_WRITTEN


async def delete(agent: Agent, key: str, parameters: dict[str, str]) -> Response:
    """DELETE: a key, with `cas` only if it was not changed since, or a tree with `recurse`."""
    _refuse_conflicts(parameters, "recurse", "cas")
    command: Write
    if "recurse" in parameters:
        command = KvDeleteTree(key)
    elif not key:
        raise HttpError(400, "Missing key name")
    elif "cas" in parameters:
        command = KvDeleteCas(key, parse_unsigned("cas", parameters["cas"]))
    else:
        command = KvDelete(key)
    return await _written(agent, command, parameters)


def _refuse_conflicts(parameters: dict[str, str], *names: str) -> None:
    if sum(name in parameters for name in names) > 1:
        given = sorted((name, value) for name, value in parameters.items() if name != "pretty")
        raise HttpError(400, f"Conflicting flags: {urlencode(given)}\n")
