"""The short way of the requests that are asked most often: a key that is set, and a key that is read by the leader.

`runtime/http_protocol` offers it plain requests. Here they are read, and their answers written, by the same functions
of `kv` as in the ASGI application; whatever is unusual (an error, a wait, another agent to be asked) is left to that.
Between them stands no task: the agent calls back when the write is applied or the read confirmed. An error that nobody
expected must end neither the connection nor the agent: it is logged, and a 500, as in `app`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol
from urllib.parse import unquote

from impl.agent.requests.api import AgentError, Answered, Consistency, ReadReply
from impl.catalog.commands import Write
from impl.catalog.queries import KvGet, Query
from impl.catalog.transitions import Result
from impl.http import kv
from impl.http.measures import HttpMeasures
from impl.http.request import HttpError, decode_path, parse_parameters, read_options
from impl.http.response import Response, defect_response, error_response
from impl.runtime.interfaces import Respond

_ELSEWHERE = frozenset({"acquire", "dc", "index", "keys", "ns", "partition", "recurse", "release"})
"""Parameters of other requests than the ones for the short way."""


class Leader(Protocol):
    """The part of a server agent that begins what it can do by itself."""

    def begin_write(self, command: Write, answered: Answered[Result]) -> bool:
        """As `ShortWay.begin_write`."""
        ...

    def begin_read(self, query: Query, consistency: Consistency, answered: Answered[ReadReply]) -> bool:
        """As `ShortWay.begin_read`."""
        ...


class DirectKv:
    """A `Direct` for the keys of a server agent."""

    def __init__(
        self,
        agent: Leader,
        kv_max_value_size: int,
        unexpected: Callable[[str, Exception], None],
        measures: HttpMeasures,
    ) -> None:
        """`unexpected` and `measures` as in `Application`."""
        self.body_bytes_max = kv_max_value_size
        self._agent = agent
        self._unexpected = unexpected
        self._now_ns = measures.now_ns
        self._took = measures.took

    def answer(self, method: bytes, path: bytes, query: bytes, body: bytes, respond: Respond) -> bool:
        """As `Direct.answer`."""
        started_ns = self._now_ns()
        try:
            parameters = parse_parameters(query) if query else {}
            key = decode_path(path)[len(kv.PATH) :]
            if not key or not _ELSEWHERE.isdisjoint(parameters):
                return False
            if method == b"PUT":
                if "pretty" in parameters:
                    return False
                return self._put(path, kv.write_of_put(key, parameters, body), respond, started_ns)
            return self._get(path, key, parameters, respond, started_ns)
        except HttpError:
            return False
        except Exception as error:
            self._send(respond, self._failed(method, path, error), method, started_ns)
            return True

    def _put(self, path: bytes, command: Write, respond: Respond, started_ns: int) -> bool:
        def answered(result: Result | Exception) -> None:
            if result is True:
                if respond(200, _WRITTEN, b"true"):
                    self._took(b"PUT", started_ns)
                return
            try:
                if isinstance(result, Exception):
                    raise result
                response = kv.written(result)
            except Exception as error:
                response = self._failed(b"PUT", path, error)
            self._send(respond, response, b"PUT", started_ns)

        return self._agent.begin_write(command, answered)

    def _get(self, path: bytes, key: str, parameters: dict[str, str], respond: Respond, started_ns: int) -> bool:
        options = read_options(parameters)
        if options.consistency is Consistency.STALE:
            return False

        def answered(reply: ReadReply | Exception) -> None:
            try:
                if isinstance(reply, Exception):
                    raise reply
                response = kv.shown(reply, options, parameters)
            except Exception as error:
                response = self._failed(b"GET", path, error)
            self._send(respond, response, b"GET", started_ns)

        return self._agent.begin_read(KvGet(key), options.consistency, answered)

    def _send(self, respond: Respond, response: Response, method: bytes, started_ns: int) -> None:
        if respond(response.status, _lines(response), response.body):
            self._took(method, started_ns)

    def _failed(self, method: bytes, path: bytes, error: Exception) -> Response:
        if isinstance(error, HttpError | AgentError):
            return error_response(error)
        self._unexpected(f"{method.decode()} {unquote(path.decode())}", error)
        return defect_response(error)


def _lines(response: Response) -> bytes:
    return b"".join([b"%s: %s\r\n" % (name.lower(), value) for name, value in response.all_headers()])


_WRITTEN = _lines(kv.WRITTEN)
