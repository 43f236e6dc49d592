"""What is asked for health checks, of real servers: gRPC's own, TLS, and peers that hang, refuse, lie or never stop."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trustme
import uvloop
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import StreamEnded

from impl.runtime import http2_probes, probes
from impl.runtime.interfaces import NANOSECONDS, Endpoint, HttpProbe, ProbeFailed, Tls
from impl.runtime.probes import RealProber

SECOND = NANOSECONDS
SOON = SECOND // 5
T = TypeVar("T")
Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]
Ask = Callable[[RealProber, Endpoint], Awaitable[T]]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def certificate(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of the name "web", in files: the chain and its key."""
    issued = authority.issue_cert("web")
    directory = tmp_path_factory.mktemp("tls")
    chain, key = directory / "chain.pem", directory / "key.pem"
    chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(key)
    return chain, key


@pytest.fixture
def _trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The system trusts the authority."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    probes._tls_context.cache_clear()
    yield
    probes._tls_context.cache_clear()


def server_tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def asked(
    peer: Peer, ask: Ask[T], tls: ssl.SSLContext | None = None, client: Tls | None = None, patience: float = 10
) -> T:
    """What a probe of a peer says. It must leave neither a task nor a connection behind, whatever comes of it."""

    async def main() -> T:
        gone: list[asyncio.Event] = []
        accepted = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            gone.append(ended := asyncio.Event())
            accepted.set()
            try:
                await peer(reader, writer)
                while await reader.read(65_536):  # until the probe hangs up
                    pass
            except (ConnectionError, ssl.SSLError):
                pass
            finally:
                ended.set()
                writer.transport.abort()

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
        before = asyncio.all_tasks()
        try:
            found = await ask(RealProber(), Endpoint("127.0.0.1", server.sockets[0].getsockname()[1], client))
            if tls is None:  # whoever hangs up right after the handshake may not have been met
                await asyncio.wait_for(accepted.wait(), 10)
            return found
        finally:
            try:
                await asyncio.wait_for(hung_up(gone), patience)
            except TimeoutError:
                await hung_up(gone)  # a loop that ends before its connections hangs
                raise
            finally:
                server.close()
            while left := asyncio.all_tasks() - before:  # tasks of connections, which are ending
                await asyncio.wait_for(asyncio.wait(left), 10)

    result: T = uvloop.run(main())
    return result


async def hung_up(connections: list[asyncio.Event]) -> None:
    for each in connections:
        await each.wait()


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes everything and says nothing."""


async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.transport.abort()


SETTINGS = b"\0\0\0\4\0\0\0\0\0"
PING = b"\0\0\x08\6\0\0\0\0\0" + b"12345678"
GOAWAY = b"\0\0\x08\7\0\0\0\0\0" + b"\0\0\0\0" + b"\0\0\0\x0b"
HEADERS = b"\0\0\1\1\0\0\0\0\1\x88"
"""Of stream 1, not at their end."""
CONTINUATION = b"\0\0\1\x09\0\0\0\0\1\x88"


def says(*begin: bytes, for_ever: bytes = b"") -> Peer:
    """Sends this, and perhaps something again and again."""

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"".join(begin))
        while for_ever:
            writer.write(for_ever * 1000)
            await writer.drain()

    return peer


def answering(body: bytes, *trailers: tuple[str, str], status: str = "200") -> Peer:
    """A gRPC server that answers so, whatever it is asked."""

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        http2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        http2.initiate_connection()
        stream = 0
        while not stream:
            for event in http2.receive_data(await reader.read(65_536)):
                if isinstance(event, StreamEnded):
                    stream = event.stream_id
        http2.send_headers(stream, [(":status", status), ("content-type", "application/grpc")])
        http2.send_data(stream, body)
        http2.send_headers(stream, trailers or [("x", "y")], end_stream=True)
        writer.write(http2.data_to_send())

    return peer


OK = ("grpc-status", "0")
SERVING = b"\0\0\0\0\2\x08\1"


async def ping(prober: RealProber, endpoint: Endpoint, timeout_ns: int = 10 * SECOND) -> None:
    await prober.http2_ping(endpoint, timeout_ns)


async def health(prober: RealProber, endpoint: Endpoint, timeout_ns: int = 10 * SECOND) -> str:
    return await prober.grpc_health(endpoint, "", timeout_ns)


async def connect(prober: RealProber, endpoint: Endpoint, timeout_ns: int = 10 * SECOND) -> None:
    await prober.connect(endpoint, timeout_ns)


async def get(prober: RealProber, endpoint: Endpoint, timeout_ns: int = 10 * SECOND) -> int:
    tls = endpoint.tls if endpoint.tls is not None else Tls()
    url = f"{'https' if endpoint.tls is not None else 'http'}://{endpoint.host}:{endpoint.port}/"
    return (await prober.http(HttpProbe(url, tls=tls), timeout_ns, 10))[0]


# ---------------------------------------------------------------------------------------------------------- a real gRPC


@pytest.fixture(scope="module", params=["clear", "tls"])
def grpc_server(request: pytest.FixtureRequest, certificate: tuple[Path, Path]) -> Iterator[Endpoint]:
    secured = request.param == "tls"
    program = str(Path(__file__).with_name("grpc_health_server.py"))
    command = [sys.executable, program, *(certificate if secured else ())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield Endpoint("127.0.0.1", int(process.stdout.readline()), Tls(skip_verify=True) if secured else None)
        process.communicate()


def of_server(ask: Ask[T], endpoint: Endpoint) -> T:
    async def main() -> T:
        result = await ask(RealProber(), endpoint)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return result

    found: T = uvloop.run(main())
    return found


@pytest.mark.parametrize(("service", "status"), [("", "SERVING"), ("good", "SERVING"), ("bad", "NOT_SERVING")])
def test_a_grpc_server_says_how_it_is(grpc_server: Endpoint, service: str, status: str) -> None:
    assert of_server(lambda prober, at: prober.grpc_health(at, service, 10 * SECOND), grpc_server) == status


def test_a_grpc_server_that_does_not_know_the_service_fails_the_probe(grpc_server: Endpoint) -> None:
    with pytest.raises(ProbeFailed, match="rpc error: code = NotFound desc = "):
        of_server(lambda prober, at: prober.grpc_health(at, "nobody's" * 40, 10 * SECOND), grpc_server)


def test_an_http2_server_answers_a_ping(grpc_server: Endpoint) -> None:
    of_server(lambda prober, at: prober.http2_ping(at, 10 * SECOND), grpc_server)


# ------------------------------------------------------------------------------------------------------- peers that lie


@pytest.mark.parametrize("ask", [ping, health, get])
def test_a_peer_that_is_silent_fails_the_probe_in_time(ask: Callable[..., Awaitable[Any]]) -> None:
    with pytest.raises(ProbeFailed, match=r"no answer within 0\.2s"):
        asked(silent, partial(ask, timeout_ns=SOON))


@pytest.mark.parametrize(
    ("peer", "why"),
    [
        (says(b"SSH-2.0-OpenSSH_9.2\r\n" * 10), "this is not HTTP/2"),
        (hangs_up, "closed before the answer|reset by peer"),
        (says(SETTINGS, GOAWAY), "the connection was ended with .*ENHANCE_YOUR_CALM"),
        (says(SETTINGS, for_ever=PING), "more than 262144 bytes came instead of an answer"),
        (says(for_ever=SETTINGS), "more than 262144 bytes came instead of an answer"),
        (says(SETTINGS, HEADERS, for_ever=CONTINUATION), "this is not HTTP/2"),
    ],
    ids=["nonsense", "hangs-up", "goaway", "pings-for-ever", "settings-for-ever", "header-blocks-for-ever"],
)
@pytest.mark.parametrize("ask", [ping, health])
def test_a_peer_that_is_no_http2_server_fails_the_probe(ask: Ask[Any], peer: Peer, why: str) -> None:
    with pytest.raises(ProbeFailed, match=why):
        asked(peer, ask)


@pytest.mark.parametrize(
    ("peer", "why"),
    [
        (answering(SERVING, status="503"), "not gRPC: HTTP status 503"),
        (answering(SERVING), "rpc error: code = '' desc = "),
        (answering(b"", ("grpc-status", "14"), ("grpc-message", "too%20late")), "code = Unavailable desc = too late"),
        (answering(b"", ("grpc-status", "99")), "code = '99'"),
        (answering(b"", OK), "0 bytes came that are not one gRPC message"),
        (answering(b"\1" + SERVING[1:], OK), "7 bytes came that are not one gRPC message"),
        (answering(b"\0\xff\xff\xff\xff\x08\1", OK), "not one gRPC message"),
        (answering(b"\0\0\0\0\2\x08\xff", OK), "breaks off within a number"),
        (answering(b"\0\0\0\0\2\x12\x09", OK), "breaks off within a field"),
        (answering(b"\0\0\0\0\1\x0b", OK), "unknown kind 3"),
    ],
)
def test_an_answer_that_is_not_of_the_health_protocol_fails_the_probe(peer: Peer, why: str) -> None:
    with pytest.raises(ProbeFailed, match=why):
        asked(peer, health)


def test_fields_that_the_health_protocol_may_have_one_day_are_passed_over() -> None:
    fields = b"\x12\1x" + b"\x1d1234" + b"\x2112345678" + b"\x28\x96\1" + b"\x08\2"
    assert asked(answering(b"\0\0\0\0" + bytes([len(fields)]) + fields, OK), health) == "NOT_SERVING"
    assert asked(answering(SERVING, OK), health) == "SERVING"
    assert asked(answering(b"\0\0\0\0\0", OK), health) == "UNKNOWN"


def test_an_http_answer_that_never_ends_is_given_up_in_time() -> None:
    endless = says(b"HTTP/1.1 200 OK\r\n\r\n", for_ever=b"x" * 1000)
    with pytest.raises(ProbeFailed, match=r"no answer within 0\.2s"):
        asked(endless, partial(get, timeout_ns=SOON))


# ------------------------------------------------------------------------------------------------------------------ TLS


async def http_ok(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")


@pytest.mark.usefixtures("_trusted")
@pytest.mark.parametrize("ask", [connect, get])
@pytest.mark.parametrize(
    ("tls", "why"),
    [
        (Tls("web"), ""),
        (Tls(skip_verify=True), ""),
        (Tls("web", skip_verify=True), ""),
        (Tls("other"), "certificate verify failed: Hostname mismatch"),
        (Tls(), "certificate verify failed: IP address mismatch"),
    ],
)
def test_a_certificate_must_be_that_of_the_host_or_of_the_name_that_is_given(
    certificate: tuple[Path, Path], ask: Ask[Any], tls: Tls, why: str
) -> None:
    def attempt() -> Any:
        return asked(http_ok, ask, server_tls(certificate), tls)

    if why:
        with pytest.raises(ProbeFailed, match=why):
            attempt()
    else:
        assert attempt() in (None, 204)


@pytest.mark.parametrize("ask", [connect, get, ping, health])
def test_a_certificate_of_an_unknown_authority_fails_the_probe(certificate: tuple[Path, Path], ask: Ask[Any]) -> None:
    with pytest.raises(ProbeFailed, match="certificate verify failed: unable to get local issuer certificate"):
        asked(silent, ask, server_tls(certificate), Tls("web"))


@pytest.mark.parametrize("ask", [connect, get, ping, health])
def test_a_peer_that_knows_no_tls_fails_the_probe(ask: Ask[Any]) -> None:
    with pytest.raises(ProbeFailed, match=r"SSL|TLS"):
        asked(says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), ask, client=Tls())


def test_a_peer_that_never_ends_its_tls_handshake_fails_the_probe_in_time() -> None:
    with pytest.raises(ProbeFailed, match=r"no connection within 0\.2s"):
        asked(silent, partial(connect, timeout_ns=SOON), client=Tls())


# ------------------------------------------------------------------------------------------------------------------ UDP


def datagram(timeout_ns: int, answer: bytes | None) -> list[bytes]:
    """Probe a UDP server that answers so, or not; what it received."""

    class Server(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: Any) -> None:
            received.append(data)
            if answer is not None:
                self.transport.sendto(answer, addr)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(Server, local_addr=("127.0.0.1", 0))
        host, port = transport.get_extra_info("sockname")
        await RealProber().datagram(Endpoint(host, port), timeout_ns)
        async with asyncio.timeout(10):
            while not received:  # a process that was held up looks at its clock before its sockets
                await asyncio.sleep(0.01)
        transport.close()

    received: list[bytes] = []
    uvloop.run(main())
    return received


def test_a_udp_server_that_answers_or_is_silent_passes() -> None:
    assert datagram(10 * SECOND, b"answer") == [b""]
    assert datagram(SOON, None) == [b""]


def test_a_udp_port_on_which_nobody_listens_fails_the_probe() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        free = Endpoint(*taken.getsockname())
    with pytest.raises(ProbeFailed, match=r"udp 127\.0\.0\.1:\d+: connection refused"):
        uvloop.run(RealProber().datagram(free, 10 * SECOND))
    with pytest.raises(ProbeFailed, match=r"udp nowhere\.invalid:1: "):
        uvloop.run(RealProber().datagram(Endpoint("nowhere.invalid", 1), 10 * SECOND))


# -------------------------------------------------------------------------------------------------------------- mutants


def _reads_without_bound(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(http2_probes, "ANSWER_BYTES_MAX", 1 << 60)


def _believes_every_name(patch: pytest.MonkeyPatch) -> None:
    made = ssl.create_default_context

    def context(*args: Any) -> ssl.SSLContext:
        found = made(*args)
        found.check_hostname = False
        return found

    patch.setattr("impl.runtime.probes.ssl.create_default_context", context)


def _deaf_to_icmp(patch: pytest.MonkeyPatch) -> None:
    async def silence(self: Any, udp: socket.socket, size: int) -> bytes:
        raise TimeoutError

    patch.setattr("uvloop.Loop.sock_recv", silence)


def _leaves_connections(patch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def connected(endpoint: Endpoint, http2: bool = False) -> AsyncIterator[probes.Streams]:
        streams = await asyncio.open_connection(endpoint.host, endpoint.port)
        yield streams
        asyncio.get_running_loop().call_later(1, lambda: streams[1].transport.abort())

    patch.setattr(probes, "connected", connected)


def test_a_probe_that_reads_without_bound_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    _reads_without_bound(monkeypatch)
    with pytest.raises(ProbeFailed, match="no answer within"):
        asked(says(SETTINGS, for_ever=PING), partial(ping, timeout_ns=SOON))


@pytest.mark.usefixtures("_trusted")
def test_a_probe_that_believes_every_name_is_noticed(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _believes_every_name(monkeypatch)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        test_a_certificate_must_be_that_of_the_host_or_of_the_name_that_is_given(
            certificate, connect, Tls("other"), "mismatch"
        )


def test_a_probe_that_is_deaf_to_icmp_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    _deaf_to_icmp(monkeypatch)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        test_a_udp_port_on_which_nobody_listens_fails_the_probe()


def test_a_probe_that_leaves_its_connection_open_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    _leaves_connections(monkeypatch)
    with pytest.raises(TimeoutError):
        asked(silent, connect, patience=0.1)


# ------------------------------------------------------------------------------------------------------------ the agent


def test_an_agent_that_has_no_such_checks_loads_no_http2() -> None:
    program = "import sys; import impl.agent.run; sys.exit(any(name.split('.')[0] == 'h2' for name in sys.modules))"
    subprocess.run([sys.executable, "-c", program], check=True)
