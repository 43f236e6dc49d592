"""`/v1/kv/`: reads, writes and deletions of keys, and their locks. Source: Consul, "KV Store HTTP API"."""

from __future__ import annotations

from urllib.parse import urlencode

from impl.agent.api import Agent, ReadOptions
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
from impl.http import writes
from impl.http.request import HttpError, Receive, Scope, parse_unsigned, read_body, read_options
from impl.http.response import Response, json_response, kv_row, read_headers

METHODS = ("GET", "PUT", "DELETE")
_RAW = (
    (b"Content-Type", b"text/plain"),
    (b"X-Content-Type-Options", b"nosniff"),
    (b"Content-Security-Policy", b"sandbox"),
)
_WRITTEN = Response(200, ((b"Content-Type", b"application/json"),), b"true")
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
    reply = await agent.read(KvList(key) if recurse else KvGet(key), options)
    assert isinstance(reply.answer, KvAnswer)
    headers = read_headers(reply.answer.index, reply, options.consistency)
    entries = reply.answer.entries
    if not entries:
        return Response(404, headers)
    if "raw" in parameters and not recurse:
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
    if not key:
        raise HttpError(400, "Missing key name")
    _refuse_conflicts(parameters, "cas", "acquire", "release")
    flags = parse_unsigned("flags", parameters["flags"]) if "flags" in parameters else 0
    index = parse_unsigned("cas", parameters["cas"]) if "cas" in parameters else None
    value = await read_body(scope, receive, limit)
    command: Write = KvSet(key, value, flags) if index is None else KvCas(key, value, flags, index)
    if "acquire" in parameters:
        command = KvAcquire(key, value, flags, parameters["acquire"])
    elif "release" in parameters:
        command = KvRelease(key, value, flags, parameters["release"])
    return await _written(agent, command)


async def _written(agent: Agent, command: Write) -> Response:
    return _WRITTEN if await writes.result(agent, command) else _NOT_WRITTEN


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
    return await _written(agent, command)


def _refuse_conflicts(parameters: dict[str, str], *names: str) -> None:
    if sum(name in parameters for name in names) > 1:
        raise HttpError(400, f"Conflicting flags: {urlencode(sorted(parameters.items()))}\n")
