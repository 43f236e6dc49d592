"""A big catalog is saved while writes go on, and restored in a new cluster: how long it takes, and whether it is equal.

The commands that people use save and restore. Equal means: every server of the new cluster answers the health of every
service with the same bytes, indexes included; keys that were put before are there; and of those that were put
meanwhile, one after another, there is a prefix, since an archive is of one moment.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path

import msgspec

from jepsen_like.bench.catalog import Size, connect, register_all
from jepsen_like.bench.servers import SOURCE_ROOT, Servers
from jepsen_like.bench.wire import http_request
from model_checks.verdicts import SetupFailed, Verdict

KEYS_BEFORE = 1_000
FOLLOWING_S = 60.0
"""How long a server of the new cluster may take to apply what its leader has restored."""
POLL_S = 0.1


class RestoreFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured."""

    instances: int
    nodes: int
    services: int
    save_s: float
    """The whole command, verification included."""
    archive_bytes: int
    writes_meanwhile: int
    slowest_write_ms: float
    restore_s: float
    servers_compared: int
    differences: list[str]
    """What a server of the new cluster answers differently, ten at most."""

    @property
    def verdict(self) -> Verdict:
        """VALID if nothing differs, and there were writes while the state was saved."""
        if self.differences:
            return Verdict.INVALID
        return Verdict.VALID if self.writes_meanwhile else Verdict.UNKNOWN


class Writer:
    """Puts keys one after another until it is told to stop."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._going_on = True
        self.written = 0
        self.slowest_ns = 0

    async def run(self) -> None:
        """Raises SetupFailed."""
        connection = await connect(self._port)
        while self._going_on:
            sent_ns = time.monotonic_ns()
            answer = await connection.ask(http_request("PUT", f"/v1/kv/meanwhile/{self.written:08d}", b"v"))
            if answer.body != b"true":
                raise SetupFailed(f"a put was answered with {answer.status}: {answer.body.decode()[:200]}")
            self.slowest_ns = max(self.slowest_ns, time.monotonic_ns() - sent_ns)
            self.written += 1
        connection.close()

    def stop(self) -> None:
        """Write no more."""
        self._going_on = False


async def _comitia(port: int, *words: str) -> float:
    """Run a command against a server; seconds. Raises SetupFailed."""
    started = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "comitia", *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=SOURCE_ROOT,
        env={**os.environ, "CONSUL_HTTP_ADDR": f"127.0.0.1:{port}"},
    )
    output, _ = await process.communicate()
    if process.returncode != 0:
        raise SetupFailed(f"comitia {' '.join(words)} ended with {process.returncode}: {output.decode()[-300:]}")
    return time.monotonic() - started


async def _put_before(port: int) -> None:
    connection = await connect(port)
    for number in range(KEYS_BEFORE):
        await connection.ask(http_request("PUT", f"/v1/kv/before/{number:04d}", b"v" * (number % 100)))
    connection.close()


async def _state(size: Size, port: int, mode: str) -> dict[str, bytes]:
    """By what was asked, the digest of what a server answers: services, and the keys that were put before."""
    connection = await connect(port)
    found = {}
    for path in (*(f"/v1/health/service/{name}" for name in size.names()), "/v1/kv/before?recurse"):
        answer = await connection.ask(http_request("GET", f"{path}{'&' if '?' in path else '?'}{mode}"))
        found[path] = blake2b(answer.body, digest_size=16).digest()
    connection.close()
    return found


async def _names_of_keys(port: int) -> list[str]:
    connection = await connect(port)
    answer = await connection.ask(http_request("GET", "/v1/kv/meanwhile?keys&stale"))
    connection.close()
    names: list[str] = json.loads(answer.body) if answer.status == 200 else []
    return names


def not_a_prefix(names: list[str], written: int) -> str:
    """What is wrong with the keys that were put meanwhile; "": nothing."""
    expected = [f"meanwhile/{number:08d}" for number in range(len(names))]
    if names != expected:
        return f"of {written} keys that were put one after another, {len(names)} are there, and not the first"
    return f"{len(names)} keys are there of {written} that were put" if len(names) > written else ""


async def _differences(size: Size, port: int, expected: dict[str, bytes], written: int) -> list[str]:
    """What a server of the new cluster answers differently, once it has applied the restore."""
    last = f"/v1/health/service/{size.names()[-1]}"
    deadline = time.monotonic() + FOLLOWING_S
    connection = await connect(port)
    while True:
        answer = await connection.ask(http_request("GET", f"{last}?stale"))
        if answer.body != b"[]" or time.monotonic() > deadline:
            break
        await asyncio.sleep(POLL_S)
    connection.close()
    found = await _state(size, port, "stale")
    wrong = [path for path in expected if found[path] != expected[path]]
    if prefix := not_a_prefix(await _names_of_keys(port), written):
        wrong.append(prefix)
    return wrong


async def measure_restore(
    old: Servers, new: Servers, size: Size, directory: Path, progress: Callable[[str], None]
) -> RestoreFigures:
    """Fill the old cluster, save under writes, restore in the new one, compare. Raises SetupFailed."""
    port = old.client_ports[old.wait_for_leader()]
    await register_all(size, port, progress)
    await _put_before(port)
    expected = await _state(size, port, "consistent")
    progress("saving while keys are put")
    archive, writer = directory / "catalog.snap", Writer(port)
    writing = asyncio.create_task(writer.run())
    try:
        save_s = await _comitia(port, "snapshot", "save", str(archive))
    finally:
        writer.stop()
        await writing
    leader = new.wait_for_leader()
    follower = next((number for number in new.numbers if number != leader), leader)
    progress(f"restoring {archive.stat().st_size:,} bytes in a new cluster")
    restore_s = await _comitia(new.client_ports[follower], "snapshot", "restore", str(archive))
    differences = []
    for number in new.numbers:
        progress(f"comparing server {number + 1}")
        found = await _differences(size, new.client_ports[number], expected, writer.written)
        differences += [f"server {number + 1}: {each}" for each in found]
    return RestoreFigures(
        instances=size.instances,
        nodes=size.nodes,
        services=size.services,
        save_s=round(save_s, 2),
        archive_bytes=archive.stat().st_size,
        writes_meanwhile=writer.written,
        slowest_write_ms=round(writer.slowest_ns / 1e6, 1),
        restore_s=round(restore_s, 2),
        servers_compared=len(new.numbers),
        differences=differences[:10],
    )


def lines(found: RestoreFigures) -> Iterator[str]:
    """The figures as people read them."""
    yield (
        f"{found.instances:,} instances of {found.services:,} services on {found.nodes:,} nodes saved in "
        f"{found.save_s:g} s ({found.archive_bytes:,} bytes); meanwhile {found.writes_meanwhile:,} puts, the slowest "
        f"{found.slowest_write_ms:g} ms"
    )
    yield f"restored in a new cluster in {found.restore_s:g} s"
    yield f"{found.servers_compared} servers compared with what was saved: {len(found.differences)} differences"
    yield from found.differences
