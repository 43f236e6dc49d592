"""What the command line needs of an agent's HTTP API: one request, and errors in the words of Consul's commands."""

from __future__ import annotations

import http.client
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import IO, Any
from urllib.parse import urlencode, urlsplit

import click

HTTP_ADDRESS = "http://127.0.0.1:8500"
TIMEOUT_SECONDS = 30
PATIENCE_SECONDS = 3600
"""For what takes as long as there is data."""
PIECE_BYTES = 64 * 1024

address_option = click.option(
    "--http-addr",
    default=lambda: os.environ.get("CONSUL_HTTP_ADDR", HTTP_ADDRESS),
    help="Address of an agent. Default: the environment's CONSUL_HTTP_ADDR, or http://127.0.0.1:8500.",
)


class CommandError(click.ClickException):
    """An error in the words of Consul's command, printed as they are."""

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the text alone."""
        click.echo(self.message, file=file, err=True)


@dataclass(frozen=True, slots=True)
class Answer:
    """What an agent answered; `index` is X-Consul-Index, 0 if it sent none."""

    status: int
    body: bytes
    index: int


class HttpClient:
    """One agent's HTTP API. Threads may share it: each request has a connection of its own."""

    def __init__(self, address: str) -> None:
        """`address`: host:port, or a URL. Raises CommandError."""
        parts = urlsplit(address if "://" in address else f"http://{address}")
        try:
            port = parts.port or 8500
        except ValueError:
            port = 0
        if parts.scheme != "http" or not parts.hostname or not port:
            raise CommandError(f"Error connecting to Consul agent: {address!r} is not http://host:port")
        self._host, self._port = parts.hostname, port

    def follow(self, path: str, parameters: dict[str, str], failure: str) -> Iterator[bytes]:
        """The lines of an answer that goes on until the agent ends it. Raises CommandError."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_SECONDS)
        try:
            connection.request("GET", f"{path}?{urlencode(parameters)}")
            response = connection.getresponse()
            if response.status != 200:
                text = response.read().decode(errors="replace")
                raise CommandError(f"{failure}Unexpected response code: {response.status} ({text})")
            if connection.sock is not None:
                connection.sock.settimeout(None)  # nothing may happen for long
            yield from response
        except (OSError, http.client.HTTPException) as error:
            raise CommandError(f"{failure}{error or type(error).__name__}") from error
        finally:
            connection.close()

    def ask(
        self,
        method: str,
        path: str,
        parameters: dict[str, str],
        failure: str,
        body: bytes | None = None,
        accepted: tuple[int, ...] = (200,),
    ) -> tuple[int, bytes]:
        """Status and body. Raises CommandError, which begins with `failure`, unless the status is an accepted one."""
        answer = self.query(method, path, list(parameters.items()), failure, body, accepted)
        return answer.status, answer.body

    def query(
        self,
        method: str,
        path: str,
        parameters: Sequence[tuple[str, str]],
        failure: str,
        body: bytes | None = None,
        accepted: tuple[int, ...] = (200,),
        wait_seconds: int = 0,
    ) -> Answer:
        """As `ask`, with parameters that may repeat and with the index. `wait_seconds`: how long a blocking query asks
        the agent to wait; the answer has as long again, and the usual time besides."""
        timeout = TIMEOUT_SECONDS + 2 * wait_seconds
        with self._exchange(method, path, parameters, failure, body, accepted, timeout) as response:
            index = int(response.headers.get("X-Consul-Index") or 0)
            return Answer(response.status, self._all_of(response), index)

    def download(self, path: str, parameters: dict[str, str], failure: str, target: IO[bytes]) -> int:
        """GET into a file; the index. What breaks off is an error. Raises CommandError, OSError of the file."""
        with self._exchange("GET", path, list(parameters.items()), failure) as response:
            while piece := self._piece_of(response):
                target.write(piece)
            return int(response.headers.get("X-Consul-Index") or 0)

    def upload(self, path: str, failure: str, source: IO[bytes], size: int) -> None:
        """PUT a file of `size` bytes, and wait as long as it takes. Raises CommandError."""
        headers = {"Content-Length": str(size)}
        with self._exchange("PUT", path, (), failure, source, timeout=PATIENCE_SECONDS, headers=headers) as response:
            self._all_of(response)

    @contextmanager
    def _exchange(
        self,
        method: str,
        path: str,
        parameters: Sequence[tuple[str, str]],
        failure: str,
        body: bytes | IO[bytes] | None = None,
        accepted: tuple[int, ...] = (200,),
        timeout: float = TIMEOUT_SECONDS,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> Iterator[http.client.HTTPResponse]:
        """One request, whose answer is read within."""
        target = path + (f"?{urlencode(parameters)}" if parameters else "")
        connection = http.client.HTTPConnection(self._host, self._port, timeout=timeout)
        try:
            try:
                # A server that refuses a body answers before it has read all of it.
                with suppress(BrokenPipeError, ConnectionResetError):
                    connection.request(method, target, body, headers)
                response = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                raise self._no_connection(error) from error
            if response.status not in accepted:
                text = self._all_of(response).decode(errors="replace")
                raise CommandError(f"{failure}Unexpected response code: {response.status} ({text})")
            yield response
        finally:
            connection.close()

    def _all_of(self, response: http.client.HTTPResponse) -> bytes:
        try:
            return response.read()
        except (OSError, http.client.HTTPException) as error:
            raise self._no_connection(error) from error

    def _piece_of(self, response: http.client.HTTPResponse) -> bytes:
        try:
            return response.read(PIECE_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise self._no_connection(error) from error

    def _no_connection(self, error: Exception) -> CommandError:
        cause = str(error) or type(error).__name__
        return CommandError(f"Error connecting to Consul agent at {self._host}:{self._port}: {cause}")
