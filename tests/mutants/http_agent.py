"""Mistakes in the HTTP API. For `comitia chaos fuzz`, and the tests of bad input."""

from __future__ import annotations

import asyncio
import importlib
import os
import time
from typing import Any, Final

from tests.mutants.replacement import Function, by_name, replace


def key_error_let_through() -> None:
    """A field of a body that may be missing is taken for granted."""

    def make(original: Function) -> Function:
        def session(body: bytes, node: str) -> Any:
            if body.strip() and isinstance(document := fields.read_json(body), dict):
                document["Name"]
            return original(body, node)

        fields = importlib.import_module("impl.http.fields")
        return session

    replace("impl.http.bodies:session", make)


def answer_lacks_a_field() -> None:
    """Checks are shown without their output."""

    def make(original: Function) -> Function:
        return lambda check: {name: value for name, value in original(check).items() if name != "Output"}

    replace("impl.http.documents:check_document", make)


def headers_forgotten_where_nothing_is_found() -> None:
    """A key that does not exist is answered without X-Consul-Index: watches cannot wait for it."""

    def make(original: Function) -> Function:
        def shown(*arguments: Any) -> Any:
            answer = original(*arguments)
            return type(answer)(404) if answer.status == 404 else answer

        return shown

    replace("impl.http.kv:shown", make)


def status_of_another_kind() -> None:
    """A deletion is answered as other APIs do."""

    def make(original: Function) -> Function:
        async def delete(*arguments: Any) -> Any:
            return type(await original(*arguments))(204)

        return delete

    replace("impl.http.kv:delete", make)


def handler_hangs() -> None:
    """The sessions of a node that has none are waited for."""

    def make(original: Function) -> Function:
        async def list_node(context: Any, request: Any) -> Any:
            answer = await original(context, request)
            if answer.body.strip() == b"[]":
                await asyncio.Event().wait()
            return answer

        return list_node

    replace("impl.http.sessions:list_node", make)


def memory_is_kept() -> None:
    """Every answer to a query is remembered, and more."""
    kept: list[bytes] = []

    def make(original: Function) -> Function:
        def headers(*arguments: Any) -> Any:
            kept.append(b"x" * (1 << 20))
            return original(*arguments)

        return headers

    replace("impl.http.response:read_headers", make)


def files_are_left_open() -> None:
    """A file is opened to answer, and not closed."""

    def make(original: Function) -> Function:
        def host(*arguments: Any) -> Any:
            os.open(os.devnull, os.O_RDONLY)
            return original(*arguments)

        return host

    replace("impl.http.controls:host", make)


def tasks_are_left_running() -> None:
    """Who waits for a service waits for ever, unseen, after the answer."""

    def make(original: Function) -> Function:
        async def service(context: Any, request: Any) -> Any:
            waiting.add(asyncio.get_running_loop().create_task(asyncio.Event().wait()))
            return await original(context, request)

        waiting: set[Any] = set()
        return service

    replace("impl.http.agent:service", make)


def datacenter_ignored() -> None:
    """What is meant for another datacenter, or for a namespace, is done in this one."""
    replace("impl.http.app:Application._refuse_elsewhere", lambda original: lambda *arguments: None)


def body_limit_ignored() -> None:
    """A body of any size is read, and what it asks for is done."""

    def make(original: Function) -> Function:
        return lambda scope, receive, limit, *rest: original(scope, receive, 1 << 40, *rest)

    replace("impl.http.request:read_body", make)


def escapes_taken_as_they_are() -> None:
    """A percent-escape that is none is taken as text."""
    parse = importlib.import_module("urllib.parse")
    replace("impl.http.request:_unquote", lambda original: lambda text, where: parse.unquote_to_bytes(text))


def process_ends() -> None:
    """A name of more than a hundred characters ends the process, whose sockets are gone a little earlier."""

    def make(original: Function) -> Function:
        def path(raw: bytes) -> str:
            if len(raw) > 200:
                os.closerange(3, 1024)
                time.sleep(0.5)
                os._exit(3)
            text: str = original(raw)
            return text

        return path

    replace("impl.http.request:decode_path", make)


MUTANTS: Final = by_name(
    key_error_let_through,
    answer_lacks_a_field,
    headers_forgotten_where_nothing_is_found,
    status_of_another_kind,
    handler_hangs,
    memory_is_kept,
    files_are_left_open,
    tasks_are_left_running,
    datacenter_ignored,
    body_limit_ignored,
    escapes_taken_as_they_are,
    process_ends,
)
