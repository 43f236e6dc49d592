"""`/v1/snapshot` as Consul's users know it, over an agent that notes what it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from impl.agent.requests.api import DefiniteError, IndefiniteError, NoClusterLeader
from impl.http import response
from impl.http.app import Application
from tests.impl.asgi import Exchange, ask


class Archive:
    """An archive in three pieces."""

    def __init__(self, pieces: Sequence[bytes | Exception]) -> None:
        self.index, self.known_leader, self.last_contact_ms = 8419, True, 3
        self.left = list(pieces)
        self.closed = False

    async def read(self) -> bytes:
        piece = self.left.pop(0) if self.left else b""
        if isinstance(piece, Exception):
            raise piece
        return piece

    def close(self) -> None:
        self.closed = True


class Upload:
    """Takes everything; restoring ends with `failure`, if there is one."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.received: list[bytes] = []
        self.failure = failure
        self.restored = self.closed = False

    async def add(self, data: bytes) -> None:
        self.received.append(data)

    async def restore(self) -> None:
        if self.failure is not None:
            raise self.failure
        self.restored = True

    def close(self) -> None:
        self.closed = True


class Noting:
    def __init__(self) -> None:
        self.archive = Archive([b"one", b"two", b"three"])
        self.upload = Upload()
        self.stale: list[bool] = []
        self.failure: Exception | None = None

    async def save_archive(self, stale: bool) -> Archive:
        if self.failure is not None:
            raise self.failure
        self.stale.append(stale)
        return self.archive

    async def upload_archive(self) -> Upload:
        if self.failure is not None:
            raise self.failure
        return self.upload


def application(agent: Any) -> Application:
    return Application(agent, "dc1", 1024, lambda what, error: pytest.fail(f"{what}: {error!r}"), snapshot_max_size=100)


def get(app: Application, target: str = "/v1/snapshot") -> tuple[dict[str, str], list[bytes], bool]:
    """Headers, the pieces of the body as they were sent, and whether the answer was completed."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(event: dict[str, Any]) -> None:
        sent.append(event)

    path, _, query = target.partition("?")
    scope = {"raw_path": path.encode(), "path": path, "query_string": query.encode(), "headers": []}
    asyncio.run(app({"type": "http", "method": "GET", **scope}, receive, send))
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    complete = not sent[-1].get("more_body", False)
    return headers, [event["body"] for event in sent[1:] if event["body"]], complete


def put(app: Application, parts: Sequence[bytes], target: str = "/v1/snapshot", *, sized: bool = True) -> Exchange:
    return ask(app, "PUT", target, parts, sized=sized)


def test_a_snapshot_is_streamed_with_consuls_headers() -> None:
    agent = Noting()
    headers, pieces, complete = get(application(agent))
    assert (pieces, complete) == ([b"one", b"two", b"three"], True)
    assert headers["Content-Type"] == "application/x-gzip"
    assert (headers["X-Consul-Index"], headers["X-Consul-Knownleader"]) == ("8419", "true")
    assert headers["X-Consul-Lastcontact"] == "3"
    assert headers["X-Consul-Effective-Consistency"] == "leader"
    assert "Content-Length" not in headers, "nobody knows it yet"
    assert agent.archive.closed and agent.stale == [False]


def test_a_stale_snapshot_may_be_any_servers() -> None:
    agent = Noting()
    headers, _, _ = get(application(agent), "/v1/snapshot?stale")
    assert agent.stale == [True]
    assert headers["X-Consul-Effective-Consistency"] == "stale"


def test_a_snapshot_of_another_datacenter_has_no_path() -> None:
    found = ask(application(Noting()), "GET", "/v1/snapshot?dc=dc2")
    assert (found.status, found.body) == (500, b"No path to datacenter")


def test_without_a_leader_there_is_an_error_and_no_file() -> None:
    agent = Noting()
    agent.failure = NoClusterLeader()
    for method in ("GET", "PUT"):
        found = ask(application(agent), method, "/v1/snapshot")
        assert (found.status, found.body) == (500, b"No cluster leader")


def what_fails_before_the_first_piece_is_told() -> None:
    agent = Noting()
    agent.archive = Archive([DefiniteError("failed to read snapshot file")])
    found = ask(application(agent), "GET", "/v1/snapshot")
    assert (found.status, found.body) == (500, b"failed to read snapshot file")
    assert agent.archive.closed


def what_breaks_off_does_not_look_complete() -> None:
    agent = Noting()
    agent.archive = Archive([b"one", DefiniteError("lost")])
    _, pieces, complete = get(application(agent))
    assert (pieces, complete) == ([b"one"], False)
    assert agent.archive.closed


def test_what_fails_before_the_first_piece_is_told() -> None:
    what_fails_before_the_first_piece_is_told()


def test_what_breaks_off_does_not_look_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    what_breaks_off_does_not_look_complete()

    async def completes(self: response.Streamed, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.headers})
        await send({"type": "http.response.body", "body": self.body})
        self.rest.close()

    monkeypatch.setattr(response.Streamed, "send", completes)
    with pytest.raises(AssertionError):
        what_breaks_off_does_not_look_complete()


def test_a_snapshot_is_restored_when_all_of_it_has_arrived() -> None:
    agent = Noting()
    found = put(application(agent), [b"abc", b"", b"def"])
    assert (found.status, found.body) == (200, b"")
    assert agent.upload.received == [b"abc", b"def"] and agent.upload.restored and agent.upload.closed


@pytest.mark.parametrize(
    "failure",
    [DefiniteError("failed to verify snapshot: it was cut off"), IndefiniteError("it is unknown whether")],
)
def test_what_is_wrong_with_it_is_told(failure: Exception) -> None:
    agent = Noting()
    agent.upload = Upload(failure)
    found = put(application(agent), [b"abc"])
    assert (found.status, found.body) == (500, str(failure).encode())
    assert agent.upload.closed


def test_a_stale_restore_makes_no_sense() -> None:
    agent = Noting()
    found = put(application(agent), [b"abc"], "/v1/snapshot?stale")
    assert (found.status, found.body) == (500, b"stale not allowed for restore")
    assert not agent.upload.received


def test_a_body_that_is_too_large_is_refused_at_once() -> None:
    agent = Noting()
    found = put(application(agent), [bytes(101)])
    assert found.status == 413 and b"limits.snapshot_max_size" in found.body and found.received == 0
    found = put(application(agent), [bytes(60), bytes(60), bytes(60)], sized=False)
    assert found.status == 413 and found.received == 2 and not agent.upload.restored and agent.upload.closed


def test_a_client_that_hangs_up_restores_nothing() -> None:
    agent = Noting()
    app = application(agent)

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"} if agent.upload.received else {
            "type": "http.request", "body": b"abc", "more_body": True
        }  # fmt: skip

    async def send(event: dict[str, Any]) -> None:
        pytest.fail("nobody is there")

    scope = {"raw_path": b"/v1/snapshot", "path": "/v1/snapshot", "query_string": b"", "headers": []}
    asyncio.run(app({"type": "http", "method": "PUT", **scope}, receive, send))
    assert agent.upload.closed and not agent.upload.restored


def test_other_methods_are_refused() -> None:
    found = ask(application(Noting()), "DELETE", "/v1/snapshot")
    assert (found.status, found.headers["Allow"]) == (405, "OPTIONS,GET,PUT")
