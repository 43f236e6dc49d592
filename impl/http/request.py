"""A request as the handlers see it: path, parameters and a bounded body, parsed strictly from ASGI's scope.

Source: Consul, "HTTP API structure". *Deviation:* keys must be UTF-8; Consul stores any bytes but shows others damaged.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote_to_bytes

from impl.agent.config.validated import ConfigError, parse_duration
from impl.agent.requests.api import Consistency, ReadOptions

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

WAIT_SECONDS_DEFAULT = 300.0
WAIT_SECONDS_MAX = 600.0
KV_SIZE_SETTING = "limits.kv_max_value_size"
DISCARDED_BYTES_MAX = 8 * 1024 * 1024
"""Of a body that is too large. Longer ones are refused at once."""
INDEX_DIGITS_MAX = 20
"""Of 2^64 - 1; Python refuses to read thousands of digits in its own way."""
NO_PATH = "No path to datacenter"
"""What is said of every datacenter but the agent's own."""

_NO_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2}).{0,2}", re.DOTALL)


class HttpError(Exception):
    """A request that is answered with `status` and the text as body."""

    def __init__(self, status: int, text: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = headers


class ClientGone(Exception):
    """The client closed the connection before it had sent its request."""


def decode_path(raw: bytes) -> str:
    """The path with its percent-escapes decoded.

    Raises:
        HttpError: 400, not UTF-8, or with characters that cannot be shown (`disable_http_unprintable_char_filter` is
            off): a key of that kind confuses whoever looks at it later. *Deviation:* Consul does not say why.
    """
    path = _text(_unquote(raw, "URL path") if b"%" in raw else raw, "URL path")
    if not path.isprintable():
        raise HttpError(400, "Invalid URL path: it has unprintable characters")
    return path


def parse_parameters(query: bytes) -> dict[str, str]:
    """The parameters of a query string; of a repeated one, the first, as Go's `Values.Get`. `?a` is `?a=`.

    Raises:
        HttpError: 400, not UTF-8.
    """
    parameters: dict[str, str] = {}
    for part in query.split(b"&"):
        if part:
            name, _, value = part.partition(b"=")
            parameters.setdefault(_unescape(name), _unescape(value))
    return parameters


def parse_repeated(query: bytes, name: str) -> tuple[str, ...]:
    """All values of one parameter, in order.

    Raises:
        HttpError: 400, not UTF-8.
    """
    pairs = [part.partition(b"=") for part in query.split(b"&") if part]
    return tuple(_unescape(value) for key, _, value in pairs if _unescape(key) == name)


def parse_unsigned(name: str, text: str) -> int:
    """An unsigned 64-bit number, as Go's ParseUint reads it.

    Raises:
        HttpError: 400. *Deviation:* Consul answers 500 with Go's text alone.
    """
    if text.isascii() and text.isdigit() and len(text) <= 20 and (number := int(text)) < 1 << 64:
        return number
    raise HttpError(400, f'Invalid {name}: parsing "{text}": invalid syntax or out of range')


def read_options(parameters: dict[str, str]) -> ReadOptions:
    """Consistency and blocking of a read.

    Raises:
        HttpError: 400, conflicting modes, or a bad index or wait.
    """
    if not parameters:
        return ReadOptions()
    stale, consistent = "stale" in parameters, "consistent" in parameters
    bearable = _max_stale(parameters.get("max_stale", ""))  # whoever bears an answer of some age gets a fresh one
    if consistent and (stale or bearable > 0):
        raise HttpError(400, "Cannot specify ?stale with ?consistent, conflicting semantics.")
    if consistent and "cached" in parameters:
        raise HttpError(400, "Cannot specify ?cached with ?consistent, conflicting semantics.")
    mode = Consistency.STALE if stale else Consistency.CONSISTENT if consistent else Consistency.DEFAULT
    index_text, wait_text = parameters.get("index", ""), parameters.get("wait", "")
    if index_text:
        short = index_text.isascii() and index_text.isdigit() and len(index_text) <= INDEX_DIGITS_MAX
        if not (short and int(index_text) < 1 << 64):
            raise HttpError(400, "Invalid index")
    try:
        wait = parse_duration(wait_text) if wait_text else 0.0
    except ConfigError:
        raise HttpError(400, "Invalid wait time") from None
    return ReadOptions(mode, int(index_text or 0), min(wait or WAIT_SECONDS_DEFAULT, WAIT_SECONDS_MAX))


def _max_stale(text: str) -> float:
    try:
        return parse_duration(text) if text else 0.0
    except ConfigError:
        raise HttpError(400, f'Invalid max_stale value "{text}"') from None


async def read_body(scope: Scope, receive: Receive, limit: int, remedy: str = KV_SIZE_SETTING) -> bytes:
    """The whole body, kept in memory up to `limit` bytes.

    Args:
        remedy: the setting that the refusal names; "": none.

    Raises:
        HttpError: 413.
        ClientGone: the connection closed first.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > limit:
            if (b"expect", b"100-continue") not in scope["headers"]:  # else the client has sent nothing yet
                await _discard(receive, int(value))
            raise _too_large(int(value), limit, remedy)
    event = await receive()
    body: bytes = event.get("body", b"")
    while event["type"] == "http.request" and event.get("more_body", False):
        if len(body) > limit:
            break
        event = await receive()
        body += event.get("body", b"")
    if event["type"] != "http.request":
        raise ClientGone
    if len(body) > limit:
        if event.get("more_body", False):
            await _discard(receive, len(body))
        raise _too_large(len(body), limit, remedy)
    return body


async def _discard(receive: Receive, size: int) -> None:
    """Read what is left of a body of so many bytes or more, up to a bound: whoever is still sending when the connection
    closes gets a reset instead of the answer."""
    left = DISCARDED_BYTES_MAX
    more = size <= left
    while more and left > 0:
        event = await receive()
        left -= len(event.get("body", b""))
        more = event["type"] == "http.request" and event.get("more_body", False)


def _too_large(size: int, limit: int, remedy: str) -> HttpError:
    # What is left of this body is not read: the connection cannot carry another request.
    text = f"Request body({size} bytes) too large, max size: {limit} bytes." + (f" See {remedy}." if remedy else "")
    return HttpError(413, text, ((b"Connection", b"close"),))


def _unescape(text: bytes) -> str:
    if b"+" in text:
        text = text.replace(b"+", b" ")
    return _text(_unquote(text, "query string") if b"%" in text else text, "query string")


def _unquote(text: bytes, where: str) -> bytes:
    """Decode percent-escapes. One that is none is refused: `cas=%zz` must not become another request."""
    bad = _NO_ESCAPE.search(text)
    if bad is not None:
        raise HttpError(400, f'Invalid {where}: invalid URL escape "{bad[0].decode(errors="replace")}"')
    return unquote_to_bytes(text)


def _text(raw: bytes, where: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise HttpError(400, f"Invalid {where}: not UTF-8") from None
