"""Health checks' questions to the outside world: HTTP requests, TCP connections, commands. Implements `Prober`.

HTTP/1.1 is h11's. It must not judge answers: the checks do.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import ssl
from typing import IO, Final
from urllib.parse import SplitResult, urljoin, urlsplit

import h11

from impl.runtime.interfaces import NANOSECONDS, HttpProbe, Output, ProbeFailed

REDIRECTS_MAX: Final = 10
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

    async def connect(self, host: str, port: int, timeout_ns: int) -> None:
        """As `Prober.connect`."""
        try:
            async with asyncio.timeout(timeout_ns / NANOSECONDS):
                _, writer = await asyncio.open_connection(host, port)
        except TimeoutError:
            raise ProbeFailed(f"dial tcp {host}:{port}: no connection within {_seconds(timeout_ns)}") from None
        except (OSError, ValueError) as error:
            raise ProbeFailed(f"dial tcp {host}:{port}: {_reason(error)}") from error
        writer.transport.abort()

    async def command(self, args: tuple[str, ...], timeout_ns: int, output_bytes_max: int) -> tuple[int | None, Output]:
        """As `Prober.command`."""
        try:
            return await _run(args, timeout_ns, output_bytes_max)
        except (OSError, ValueError) as error:
            raise ProbeFailed(f"cannot run {args[0]!r}: {_reason(error)}") from error


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
    tls = None
    if url.scheme == "https":
        tls = ssl.create_default_context()
        if probe.tls_skip_verify:
            tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    port = url.port or (443 if tls is not None else 80)
    reader, writer = await asyncio.open_connection(url.hostname, port, ssl=tls)
    try:
        connection = h11.Connection(h11.CLIENT)
        writer.write(_request(connection, probe, url))
        return await _answer(connection, reader, _Tail(output_bytes_max))
    finally:
        writer.transport.abort()


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
    if isinstance(error, OSError) and error.errno is not None and error.errno in errno.errorcode:
        return os.strerror(error.errno).lower()
    return str(error)


def _seconds(duration_ns: int) -> str:
    return f"{duration_ns / NANOSECONDS:g}s"
