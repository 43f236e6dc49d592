"""What the command line needs of an agent's HTTP API: the flags that say which agent is asked and how, one request, and
errors in the words of Consul's commands.

Every command that asks an agent is a `ClientCommand`, or a `ServerCommand` if the servers answer in the end: the flags
are those of Consul's `command/flags`, so that scripts which pass them to every command work.
"""

from __future__ import annotations

import http.client
import json
import os
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any
from urllib.parse import urlencode, urlsplit

import click

from impl.cli.commandline import CommandError as CommandError
from impl.cli.commandline import GoCommand

HTTP_ADDRESS = "http://127.0.0.1:8500"
TIMEOUT_SECONDS = 30
PATIENCE_SECONDS = 3600
"""For what takes as long as there is data."""
PIECE_BYTES = 64 * 1024

_TLS = {
    "ca_file": "a file of certificates",
    "ca_path": "a directory of certificates",
    "client_cert": "a certificate",
    "client_key": "a key",
    "tls_server_name": "a name",
}
"""Flags that only make sense with TLS, and what they take."""


_NO_TLS = "the HTTP API of Comitia has no TLS yet"


class _BrokenOff(Exception):
    """An answer that did not end."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(frozen=True, slots=True)
class Answer:
    """What an agent answered; `index` is X-Consul-Index, 0 if it sent none."""

    status: int
    body: bytes
    index: int


class HttpClient:
    """One agent's HTTP API. Threads may share it: each request has a connection of its own."""

    def __init__(
        self,
        address: str,
        token: str = "",
        datacenter: str = "",
        stale: bool = False,
        tenancy: Sequence[str] = ("", ""),
        login: str = "",
    ) -> None:
        """An agent at `address`: host:port, or a URL. Raises CommandError.

        Args:
            token: sent as X-Consul-Token; there are no ACLs that could ask for it.
            datacenter: whose servers shall answer; "" is the agent's own.
            stale: reads may be answered by any server, from what it has applied.
            tenancy: a namespace and a partition of Consul Enterprise, which an agent refuses.
            login: USER:PASSWORD for a proxy before the agent, or "".
        """
        if address.startswith("https://"):
            raise CommandError(f"Error connecting to Consul agent: {address!r}: {_NO_TLS}: use http://")
        parts = urlsplit(address if "://" in address else f"http://{address}")
        try:
            port = parts.port or 8500
        except ValueError:
            port = 0
        if parts.scheme != "http" or not parts.hostname or not port:
            raise CommandError(f"Error connecting to Consul agent: {address!r} is not http://host:port")
        self._host, self._port = parts.hostname, port
        self._prefix = parts.path.rstrip("/")
        self._headers = {"X-Consul-Token": token} if token else {}
        if login:
            self._headers["Authorization"] = f"Basic {b64encode(login.encode()).decode()}"
        of = {"dc": datacenter, "ns": tenancy[0], "partition": tenancy[1]}
        self._of = [(name, value) for name, value in of.items() if value]
        self.stale = stale

    def follow(self, path: str, parameters: dict[str, str], failure: str) -> Iterator[bytes]:
        """The lines of an answer that goes on until the agent ends it. Raises CommandError."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_SECONDS)
        target = self._target("GET", path, list(parameters.items()))
        try:
            connection.request("GET", target, headers=self._headers)
            response = connection.getresponse()
            if response.status != 200:
                text = response.read().decode(errors="replace")
                raise CommandError(f"{failure}Unexpected response code: {response.status} ({text})")
            if connection.sock is not None:
                connection.sock.settimeout(None)  # nothing may happen for long
            yield from response
        except (OSError, http.client.HTTPException) as error:
            raise self._no_connection(error, failure, "GET", target) from error
        finally:
            connection.close()

    def node_name(self) -> str:
        """The name of the agent's node. Raises CommandError: the agent cannot be asked."""
        answer = self.query("GET", "/v1/agent/self", (), "Error querying Consul agent: ")
        return str(json.loads(answer.body)["Config"]["NodeName"])

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
        target = self._target(method, path, parameters)
        connection = http.client.HTTPConnection(self._host, self._port, timeout=timeout)
        try:
            try:
                # A server that refuses a body answers before it has read all of it.
                with suppress(BrokenPipeError, ConnectionResetError):
                    connection.request(method, target, body, {**self._headers, **headers})
                response = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                raise self._no_connection(error, failure, method, target) from error
            if response.status not in accepted:
                text = self._all_of(response).decode(errors="replace")
                raise CommandError(f"{failure}Unexpected response code: {response.status} ({text})")
            yield response
        except _BrokenOff as broken:
            raise self._no_connection(broken.error, failure, method, target) from broken
        finally:
            connection.close()

    def _target(self, method: str, path: str, parameters: Sequence[tuple[str, str]]) -> str:
        query = [*parameters, *self._of]
        if self.stale and method == "GET":
            query.append(("stale", ""))
        return self._prefix + path + (f"?{urlencode(query)}" if query else "")

    def _all_of(self, response: http.client.HTTPResponse) -> bytes:
        try:
            return response.read()
        except (OSError, http.client.HTTPException) as error:
            raise _BrokenOff(error) from error

    def _piece_of(self, response: http.client.HTTPResponse) -> bytes:
        try:
            return response.read(PIECE_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise _BrokenOff(error) from error

    def _no_connection(self, error: Exception, failure: str, method: str, target: str) -> CommandError:
        host = f"{self._host}:{self._port}"
        cause = str(getattr(error, "strerror", None) or error or type(error).__name__).lower()
        if isinstance(error, ConnectionRefusedError):
            cause = f"dial tcp {host}: connect: {cause}"
        return CommandError(f'{failure}{method.capitalize()} "http://{host}{target}": {cause}')


TENANCY = tuple(
    click.Option(
        [f"--{name}"],
        default="",
        help=f"Not here: a {name} of Consul Enterprise. Default: the environment's CONSUL_{name.upper()}.",
    )
    for name in ("namespace", "partition")
)


class ClientCommand(GoCommand):
    """A command that asks an agent: it has the flags that say which, and how, and gets `client` in their place."""

    def __init__(self, *arguments: Any, **attributes: Any) -> None:
        """As of `click.Command`."""
        super().__init__(*arguments, **attributes)
        self._flags = self.flags()
        self.params = [*self.params, *self._flags]

    @staticmethod
    def flags() -> list[click.Option]:
        """Consul's `ClientFlags`."""
        return [
            click.Option(
                ["--http-addr"],
                default="",
                help="Address of an agent. Default: the environment's CONSUL_HTTP_ADDR, or http://127.0.0.1:8500.",
            ),
            click.Option(
                ["--token"],
                default="",
                help="Sent as an ACL token; Comitia asks for none. Default: the environment's CONSUL_HTTP_TOKEN.",
            ),
            click.Option(
                ["--token-file"],
                default="",
                metavar="FILE",
                help="A file with such a token. Default: the environment's CONSUL_HTTP_TOKEN_FILE.",
            ),
            *(
                click.Option([f"--{name.replace('_', '-')}"], default="", help=f"Not here: {what} for TLS.")
                for name, what in _TLS.items()
            ),
        ]

    def invoke(self, ctx: click.Context) -> Any:
        """Raises CommandError."""
        given = {str(flag.name): ctx.params.pop(str(flag.name)) for flag in self._flags}
        ctx.params["client"] = _client(**given)
        return super().invoke(ctx)


class ServerCommand(ClientCommand):
    """A command that the servers of a datacenter answer."""

    @staticmethod
    def flags() -> list[click.Option]:
        """Consul's `ClientFlags`, `ServerFlags` and `MultiTenancyFlags`."""
        return [
            *ClientCommand.flags(),
            *TENANCY,
            click.Option(["--datacenter"], default="", help="Whose servers shall answer. Default: the agent's own."),
            click.Option(
                ["--stale"],
                is_flag=True,
                help="For reads: any server may answer, from what it has applied, leader or not.",
            ),
        ]


def _client(
    http_addr: str,
    token: str,
    token_file: str,
    datacenter: str = "",
    stale: bool = False,
    namespace: str = "",
    partition: str = "",
    **tls: str,
) -> HttpClient:
    given = next((name.replace("_", "-") for name, value in tls.items() if value), "")
    if given:
        raise CommandError(f"Error connecting to Consul agent: -{given}: {_NO_TLS}: leave it out")
    if os.environ.get("CONSUL_HTTP_SSL", "").lower() in ("1", "t", "true"):
        raise CommandError(f"Error connecting to Consul agent: CONSUL_HTTP_SSL: {_NO_TLS}: unset it")
    address = http_addr or os.environ.get("CONSUL_HTTP_ADDR") or HTTP_ADDRESS
    tenancy = (
        namespace or os.environ.get("CONSUL_NAMESPACE", ""),
        partition or os.environ.get("CONSUL_PARTITION", ""),
    )
    login = os.environ.get("CONSUL_HTTP_AUTH", "")
    return HttpClient(address, _token(token, token_file), datacenter, stale, tenancy, login)


def _token(token: str, token_file: str) -> str:
    """Consul's order: -token-file, -token, CONSUL_HTTP_TOKEN_FILE, CONSUL_HTTP_TOKEN. Raises CommandError."""
    file = token_file or ("" if token else os.environ.get("CONSUL_HTTP_TOKEN_FILE", ""))
    found = token or os.environ.get("CONSUL_HTTP_TOKEN", "")
    if file:
        try:
            found = Path(file).read_text().strip() or found
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(
                f"Error connecting to Consul agent: Error loading token file {file} : {error}"
            ) from error
    if not (found.isascii() and found.isprintable()):
        raise CommandError("Error connecting to Consul agent: a token is printable ASCII")
    return found
