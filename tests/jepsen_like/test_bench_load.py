"""The bench's load generator: what it sends, what it counts, and what it must not count."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from jepsen_like.bench import failover, wire
from jepsen_like.bench import load as load_module
from jepsen_like.bench.catchup import CaughtUp
from jepsen_like.bench.command import steadiness
from jepsen_like.bench.conditions import interpreter, sync_ms
from jepsen_like.bench.failover import first_acknowledgement
from jepsen_like.bench.kv import Measured, Ratio, quantile, ratios, summaries
from jepsen_like.bench.load import PUT, READ, LoadSpec, generate, requests_of
from jepsen_like.bench.servers import ComitiaServers
from jepsen_like.bench.wire import (
    ACK,
    DATA,
    END_STREAM,
    HEADERS,
    PING,
    PREFACE,
    SETTINGS,
    Tally,
    frame,
    grpc_headers,
    grpc_message,
    varint,
)
from model_checks.verdicts import SetupFailed, Verdict


class CountingServer(asyncio.Protocol):
    """Answers by `answer`."""

    def __init__(self, answer: Callable[[bytes], bytes], seen: list[bytes]) -> None:
        self.answer = answer
        self.seen = seen

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.seen.append(data)
        self.transport.write(self.answer(data))


def load(
    system: str, operation: str, answer: Callable[[bytes], bytes], connections: int = 2
) -> tuple[Tally, list[bytes]]:
    seen: list[bytes] = []

    async def run() -> Tally:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: CountingServer(answer, seen), "127.0.0.1", 0)
        async with server:
            now_ns = time.monotonic_ns()
            return await generate(
                LoadSpec(
                    system=system,
                    operation=operation,
                    port=server.sockets[0].getsockname()[1],
                    connections=connections,
                    clients=5 if system == "etcd" else connections,
                    keys=5,
                    value_bytes=4,
                    since_ns=now_ns,
                    until_ns=now_ns + 50_000_000,
                )
            )

    return asyncio.run(run()), seen


def answered_with(answer: bytes, request: bytes) -> bytes:
    return answer


def test_http_load_counts_good_answers_only() -> None:
    good, seen = load("comitia", PUT, lambda data: b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ntrue")
    assert good.errors == 0
    assert len(good.latencies_us) > 10
    head = b"PUT /v1/kv/bench/000000 HTTP/1.1\r\nHost: bench\r\nContent-Length: 4\r\n\r\n"
    assert seen[0] == head + f"{os.getpid()}/0 ".encode()[:4]
    for answer in (
        b"HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfalse",
    ):
        bad, _ = load("comitia", PUT, partial(answered_with, answer))
        assert bad.latencies_us == []
        assert bad.errors > 10


def test_http_load_waits_for_the_whole_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_module, "DRAIN_S", 0.05)
    tally, seen = load("comitia", READ, lambda data: b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[")
    assert tally.latencies_us == []
    assert len(seen) == 2, "one request a connection, never answered in full"


def grpc_answer(data: bytes) -> bytes:
    """For each request's DATA frame with END_STREAM: headers, a message, trailers. PING and SETTINGS at first."""
    out = b""
    if data.startswith(PREFACE):
        out += frame(SETTINGS, 0, 0, b"") + frame(PING, 0, 0, b"12345678")
        data = data[len(PREFACE) :]
    while data:
        length, kind, flags = int.from_bytes(data[:3], "big"), data[3], data[4]
        stream = int.from_bytes(data[5:9], "big")
        if kind == DATA and flags & END_STREAM:
            out += frame(HEADERS, 4, stream, b"\x88") + frame(DATA, 0, stream, grpc_message((1, b"ok")))
            out += frame(HEADERS, 4 | END_STREAM, stream, b"\x88")
        data = data[9 + length :]
    return out


def grpc_refusal(data: bytes) -> bytes:
    """Trailers only: a gRPC error."""
    streams = {int.from_bytes(part[5:9], "big") for part in frames(data) if part[3] == DATA}
    return b"".join(frame(HEADERS, 4 | END_STREAM, stream, b"\x88") for stream in sorted(streams))


def frames(data: bytes) -> list[bytes]:
    if data.startswith(PREFACE):
        data = data[len(PREFACE) :]
    found = []
    while data:
        length = int.from_bytes(data[:3], "big")
        found.append(data[: 9 + length])
        data = data[9 + length :]
    return found


def test_grpc_load_keeps_its_depth_and_answers_pings_and_settings() -> None:
    tally, seen = load("etcd", PUT, grpc_answer)
    assert tally.errors == 0
    assert len(tally.latencies_us) > 10
    sent = [each for data in seen for each in frames(data)]
    begun = [sum(each[3] == DATA for each in frames(data)) for data in seen if data.startswith(PREFACE)]
    assert sorted(begun) == [2, 3], "five clients on two connections"
    assert any(each[3] == PING and each[4] & ACK and each[9:] == b"12345678" for each in sent)
    assert any(each[3] == SETTINGS and each[4] & ACK for each in sent)


def test_a_grpc_error_is_not_a_good_answer() -> None:
    tally, _ = load("etcd", PUT, grpc_refusal)
    assert tally.latencies_us == []
    assert tally.errors > 10


def test_counting_answers_without_a_message_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    original = wire.GrpcLoad.on_frame

    def on_frame(self: wire.GrpcLoad, kind: int, flags: int, stream: int, payload: bytes, out: list[bytes]) -> None:
        self.with_message.add(stream)
        original(self, kind, flags, stream, payload, out)

    monkeypatch.setattr(wire.GrpcLoad, "on_frame", on_frame)
    assert load("etcd", PUT, grpc_refusal)[0].latencies_us != []


def test_both_systems_are_asked_for_the_same_keys_and_values() -> None:
    def spec(system: str) -> LoadSpec:
        return LoadSpec(
            system=system,
            operation=PUT,
            port=1,
            connections=1,
            clients=1,
            keys=3,
            value_bytes=256,
            since_ns=0,
            until_ns=0,
        )

    value = b"7/1 " + b"v" * 252
    for http, grpc in zip(requests_of(spec("comitia"), "7/1 "), requests_of(spec("etcd"), "7/1 "), strict=True):
        assert http.endswith(b"\r\n\r\n" + value)
        assert grpc.endswith(value)
        name = http.split(b" ")[1].removeprefix(b"/v1/kv/")
        assert name in grpc


def test_protobuf_and_hpack_by_hand() -> None:
    assert varint(1) == b"\x01"
    assert varint(300) == b"\xac\x02"
    assert grpc_message((1, b"k"), (2, b"v")) == b"\x00\x00\x00\x00\x06\x0a\x01k\x12\x01v"
    assert grpc_headers("/a/B").startswith(b"\x00\x07:method\x04POST")


def measured(system: str, operation: str, rate: float, connections: int = 64) -> Measured:
    return Measured(
        system=system, operation=operation, clients=64, connections=connections, per_second=rate, p50_ms=1, p99_ms=2,
        errors=0, elections=0, generator_cpu_shares=[0.1], server_cpu_share=0.5,
    )  # fmt: skip


def test_the_ratio_is_of_the_same_operation_in_the_same_run() -> None:
    both = [measured("comitia", "put", 300), measured("comitia", "read", 100), measured("etcd", "put", 200)]
    assert ratios(both) == [Ratio("put", 64, etcd_shares=False, times=1.5)]
    assert ratios(both[:2]) == []


def test_the_two_ways_to_load_etcd_are_told_apart() -> None:
    ours, alike, shared = measured("comitia", "put", 300), measured("etcd", "put", 100), measured("etcd", "put", 200, 8)
    assert summaries([ours, alike, shared, ours, alike, shared])[2].per_second == 200
    assert ratios([ours, alike, shared]) == [
        Ratio("put", 64, etcd_shares=False, times=3),
        Ratio("put", 8, etcd_shares=True, times=1.5),
    ]


def test_quantiles() -> None:
    assert [quantile(list(range(101)), part) for part in (0.5, 0.99)] == [50, 99]
    assert quantile([], 0.5) == 0


def test_rounds_are_summed_up_by_medians_and_what_went_wrong_by_sums() -> None:
    rounds = [measured("etcd", "put", rate) for rate in (300, 100, 110)]
    rounds[1].errors, rounds[1].last_error, rounds[2].elections = 2, "gone", 1
    found, other = summaries([rounds[0], measured("comitia", "put", 7), *rounds[1:]])
    assert (found.per_second, found.slowest_per_second, found.fastest_per_second, found.rounds) == (110, 100, 300, 3)
    assert (found.errors, found.elections, found.last_error) == (2, 1, "gone")
    assert (found.system, found.operation, found.p99_ms, found.generator_cpu_shares) == ("etcd", "put", 2, [0.1])
    assert other == measured("comitia", "put", 7)
    assert [each.times for each in ratios([found, other])] == [round(7 / 110, 3)]


def test_the_interpreter_is_a_condition_of_a_figure() -> None:
    assert re.fullmatch(r"CPython 3\.[0-9.]+, [1-9][0-9]* ns a step of a probe", interpreter())


def test_the_sync_probe_leaves_nothing(tmp_path: Path) -> None:
    assert sync_ms(tmp_path, count=3) > 0
    assert list(tmp_path.iterdir()) == []


def caught_up(snapshot_index: int = 900, elections: int = 0) -> CaughtUp:
    return CaughtUp(
        entries=1_000,
        filling_s=1.0,
        seconds=1.0,
        seconds_to_serve=0.5,
        snapshot_index=snapshot_index,
        load_per_second=10.0,
        elections=elections,
    )


def test_catching_up_counts_only_by_a_snapshot_and_without_an_election() -> None:
    assert caught_up().verdict is Verdict.VALID
    assert caught_up(snapshot_index=0).verdict is Verdict.UNKNOWN
    assert caught_up(snapshot_index=0, elections=1).verdict is Verdict.INVALID
    assert caught_up(elections=1).verdict is Verdict.INVALID


def test_a_steady_run_has_acknowledged_puts_and_no_election() -> None:
    def measured(per_second: float, elections: int) -> Measured:
        return Measured(
            system="comitia",
            operation=PUT,
            clients=1,
            connections=1,
            per_second=per_second,
            p50_ms=1.0,
            p99_ms=1.0,
            errors=0,
            elections=elections,
            generator_cpu_shares=[0.1],
            server_cpu_share=0.1,
        )

    assert steadiness(measured(10.0, 0)) is Verdict.VALID
    assert steadiness(measured(10.0, 1)) is Verdict.INVALID
    assert steadiness(measured(0.0, 0)) is Verdict.UNKNOWN


def test_the_first_acknowledgement_counts_and_none_in_time_is_a_failed_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def acknowledged(after_turns: int) -> int:
        for _ in range(after_turns):
            await asyncio.sleep(0)
        return after_turns

    async def never() -> int:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    assert asyncio.run(first_acknowledgement([acknowledged(9), never(), acknowledged(3)])) == 3
    monkeypatch.setattr(failover, "TRIAL_DEADLINE_S", 0.01)
    with pytest.raises(SetupFailed, match="no put was acknowledged"):
        asyncio.run(first_acknowledgement([never()]))


def test_what_the_logs_say_of_elections_is_told_in_the_order_of_time(tmp_path: Path) -> None:
    servers = ComitiaServers(2, tmp_path)
    (tmp_path / "0.log").write_text("09:01 [INFO] stepping down: term=3\n09:03 [INFO] configuration: index=0\n")
    (tmp_path / "1.log").write_text('09:00 [INFO] starting election: term=2 why="nothing from leader s1"\n')
    assert servers.lines_about_elections() == [
        'server 2: 09:00 [INFO] starting election: term=2 why="nothing from leader s1"',
        "server 1: 09:01 [INFO] stepping down: term=3",
    ]
