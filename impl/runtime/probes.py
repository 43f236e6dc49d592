"""Health checks' questions to the outside world: HTTP requests, connections, datagrams, commands. Implements `Prober`.

HTTP/1.1 is h11's; what HTTP/2 is for is in `http2_probes`. Whoever is asked may hang, lie or talk for ever: it costs a
bounded time and, whatever is sent, a bounded part of memory. It must not judge answers: the checks do.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import cache
from typing import IO, Any, Final
from urllib.parse import SplitResult, urljoin, urlsplit

import h11

from impl.runtime.interfaces import NANOSECONDS, Endpoint, HttpProbe, Output, ProbeFailed

REDIRECTS_MAX: Final = 10
ADDRESSES_MAX: Final = 4
"""Of one name, to which datagrams are sent in turn until one is not refused."""
READ_BYTES: Final = 65_536
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_ERRORS: Final = (OSError, ssl.SSLError, h11.ProtocolError, ValueError, EOFError)


class RealProber:
    """asyncio's streams and processes."""

    async def http(self, probe: HttpProbe, timeout_ns: int, output_bytes_max: int) -> tuple[int, str, Output]:
        """As `Prober.http`."""
        url = probe.url
        try:
            async with asyncio.timeout(timeout_ns / NANOSECONDS):
                for _ in range(REDIRECTS_MAX + 1):
                    status, phrase, location, output = await _exchange(probe, urlsplit(url), output_bytes_max)
                    if not (location and status in _REDIRECTS and probe.follow_redirects):
                        return status, phrase, output
                    url = urljoin(url, location)
        except TimeoutError:
            raise ProbeFailed(f'{probe.method} "{probe.url}": no answer within {_seconds(timeout_ns)}') from None
        except _ERRORS as error:
            raise ProbeFailed(f'{probe.method} "{url}": {_reason(error)}') from error
        raise ProbeFailed(f'{probe.method} "{probe.url}": stopped after {REDIRECTS_MAX} redirects')

    async def connect(self, endpoint: Endpoint, timeout_ns: int) -> None:
        """As `Prober.connect`."""
        what = f"dial tcp {_shown(endpoint)}"
        with _failing(what, f"no connection within {_seconds(timeout_ns)}"):
            async with asyncio.timeout(timeout_ns / NANOSECONDS), connected(endpoint):
                pass

    async def datagram(self, endpoint: Endpoint, timeout_ns: int) -> None:
        """As `Prober.datagram`."""
        with _failing(f"udp {_shown(endpoint)}", "the name was not resolved in time"):
            async with asyncio.timeout(timeout_ns / NANOSECONDS):
                found = await asyncio.get_running_loop().getaddrinfo(
                    endpoint.host, endpoint.port, type=socket.SOCK_DGRAM
                )
            failure = OSError("it has no address")
            for family, kind, _, _, address in found[:ADDRESSES_MAX]:
                refused = await _datagram(family, kind, address, timeout_ns)
                if refused is None:
                    return
                failure = refused
            raise failure

    async def http2_ping(self, endpoint: Endpoint, timeout_ns: int) -> None:
        """As `Prober.http2_ping`."""
        from impl.runtime import http2_probes  # most agents have no such check, and need not load HTTP/2

        with _failing(_shown(endpoint), f"no answer within {_seconds(timeout_ns)}"):
            async with asyncio.timeout(timeout_ns / NANOSECONDS), connected(endpoint, http2=True) as streams:
                await http2_probes.ping(*streams)

    async def grpc_health(self, endpoint: Endpoint, service: str, timeout_ns: int) -> str:
        """As `Prober.grpc_health`."""
        from impl.runtime import http2_probes

        with _failing(_shown(endpoint), f"no answer within {_seconds(timeout_ns)}"):
            async with asyncio.timeout(timeout_ns / NANOSECONDS), connected(endpoint, http2=True) as streams:
                return await http2_probes.grpc_health(*streams, endpoint, service)

    async def command(self, args: tuple[str, ...], timeout_ns: int, output_bytes_max: int) -> tuple[int | None, Output]:
        """As `Prober.command`."""
        try:
            return await _run(args, timeout_ns, output_bytes_max)
        except (OSError, ValueError) as error:
            raise ProbeFailed(f"cannot run {args[0]!r}: {_reason(error)}") from error


@contextlib.contextmanager
def _failing(what: str, too_late: str) -> Iterator[None]:
    """What goes wrong within is a ProbeFailed that begins with `what`."""
    try:
        yield
    except TimeoutError as error:
        # The system's own timeout has a number, ours has none.
        raise ProbeFailed(f"{what}: {_reason(error) if error.errno else too_late}") from None
    except _ERRORS as error:
        raise ProbeFailed(f"{what}: {_reason(error)}") from error


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def connected(endpoint: Endpoint, http2: bool = False) -> AsyncIterator[Streams]:
    """A connection, which is dropped at the end whatever is still to be sent. Raises one of `_ERRORS`."""
    context = None if endpoint.tls is None else _tls_context(endpoint.tls.skip_verify, http2)
    name = endpoint.tls.server_name or endpoint.host if endpoint.tls is not None else None
    streams = await asyncio.open_connection(endpoint.host, endpoint.port, ssl=context, server_hostname=name)
    try:
        yield streams
    finally:
        streams[1].transport.abort()


@cache
def _tls_context(skip_verify: bool, http2: bool) -> ssl.SSLContext:
    """Made once: the system's certificates take some 30 ms to load."""
    context = ssl.create_default_context()
    if skip_verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if http2:
        context.set_alpn_protocols(["h2"])
    return context


async def _datagram(family: int, kind: int, address: tuple[Any, ...], timeout_ns: int) -> OSError | None:
    """Send an empty datagram to one address; what was wrong with that. (asyncio's transports send no empty ones.)"""
    with socket.socket(family, kind) as udp:
        udp.setblocking(False)
        try:
            udp.connect(address)
            udp.send(b"")
            async with asyncio.timeout(timeout_ns / NANOSECONDS):
                await asyncio.get_running_loop().sock_recv(udp, 1)
        except TimeoutError:
            pass  # whoever received it need not answer
        except OSError as error:
            return error
    return None


async def _run(args: tuple[str, ...], timeout_ns: int, output_bytes_max: int) -> tuple[int | None, Output]:
    """As `Prober.command`. Raises OSError and ValueError."""
    # A pipe of our own: asyncio's would let whoever left the group and holds it open delay the end of the process.
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0) as pipe:
        try:
            process = await asyncio.create_subprocess_exec(
                *args, stdin=asyncio.subprocess.DEVNULL, stdout=writing, stderr=writing, start_new_session=True
            )
        finally:
            os.close(writing)
        tail = _Tail(output_bytes_max)
        code: int | None = None
        try:
            async with asyncio.timeout(timeout_ns / NANOSECONDS):
                await _read_all(pipe, tail)
                code = await process.wait()
        except TimeoutError:
            code = None
        finally:
            if code is None:
                # Its children live in its group, even after it has ended.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        return code, tail.output()


async def _read_all(pipe: IO[bytes], tail: _Tail) -> None:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    try:
        while data := await reader.read(READ_BYTES):
            tail.add(data)
    finally:
        transport.close()


class _Tail:
    """Keeps the last bytes of a stream."""

    def __init__(self, bytes_max: int) -> None:
        self._max = bytes_max
        self._kept = b""
        self._total = 0

    def add(self, data: bytes) -> None:
        self._kept = (self._kept + data)[-self._max :]
        self._total += len(data)

    def output(self) -> Output:
        return Output(self._kept, self._total)


async def _exchange(probe: HttpProbe, url: SplitResult, output_bytes_max: int) -> tuple[int, str, str, Output]:
    """One request and its answer: status, phrase, Location, body. Raises one of `_ERRORS`."""
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError(f"unsupported URL {url.geturl()!r}")
    tls = probe.tls if url.scheme == "https" else None
    endpoint = Endpoint(url.hostname, url.port or (443 if tls is not None else 80), tls)
    async with connected(endpoint) as (reader, writer):
        connection = h11.Connection(h11.CLIENT)
        writer.write(_request(connection, probe, url))
        return await _answer(connection, reader, _Tail(output_bytes_max))


def _request(connection: h11.Connection, probe: HttpProbe, url: SplitResult) -> bytes:
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    given = {name.lower() for name, _ in probe.header}
    header = [("Host", url.netloc.rpartition("@")[2]), ("User-Agent", "Consul Health Check"), ("Connection", "close")]
    header += [("Accept", "text/plain, text/*, */*"), ("Content-Length", str(len(probe.body)))]
    header = [(name, value) for name, value in header if name.lower() not in given]
    request = h11.Request(method=probe.method, target=target, headers=[*header, *probe.header])
    parts = [connection.send(request)]
    if probe.body:
        parts.append(connection.send(h11.Data(data=probe.body)))
    parts.append(connection.send(h11.EndOfMessage()))
    return b"".join(part for part in parts if part)


async def _answer(
    connection: h11.Connection, reader: asyncio.StreamReader, tail: _Tail
) -> tuple[int, str, str, Output]:
    status, phrase, location = 0, "", ""
    while True:
        match connection.next_event():
            case h11.NEED_DATA:
                connection.receive_data(await reader.read(READ_BYTES))
            case h11.Response(status_code=code, reason=reason, headers=headers):
                status, phrase = code, bytes(reason).decode(errors="replace")
                location = dict(headers).get(b"location", b"").decode(errors="replace")
            case h11.Data(data=data):
                tail.add(bytes(data))
            case h11.EndOfMessage():
                return status, phrase, location, tail.output()
            case h11.ConnectionClosed():
                raise EOFError("the connection was closed before the answer")
            case _:
                continue  # an interim answer (1xx)


def _reason(error: Exception) -> str:
    """asyncio's texts name the call; what the system says is what people look for."""
    if isinstance(error, ssl.SSLError):  # its numbers are OpenSSL's
        return str(error)
    if isinstance(error, OSError) and error.errno is not None and error.errno in errno.errorcode:
        return os.strerror(error.errno).lower()
    return str(error)


def _shown(endpoint: Endpoint) -> str:
    return f"[{endpoint.host}]:{endpoint.port}" if ":" in endpoint.host else f"{endpoint.host}:{endpoint.port}"


def _seconds(duration_ns: int) -> str:
    return f"{duration_ns / NANOSECONDS:g}s"
