"""What forwarding may try again, counted where it matters: in how often a write was applied."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
import pytest

from impl.agent.config.validated import Address
from impl.agent.logs import Log
from impl.agent.measures import RequestMeasures
from impl.agent.membership.discovery import Discovery
from impl.agent.membership.reconcile import Reconciler
from impl.agent.requests import forwarding
from impl.agent.requests.api import (
    AgentError,
    Consistency,
    DefiniteError,
    IndefiniteError,
    NoClusterLeader,
    ReadOptions,
    ReadReply,
)
from impl.agent.requests.changes import Changes, Watches
from impl.agent.requests.forwarding import Retriable, judge
from impl.agent.requests.protocol import KV_WRITE, NOT_LEADER, NOT_READY, KvRead, KvWrite, ServerInfo
from impl.agent.requests.routing import Requests
from impl.agent.requests.serving import Serving
from impl.agent.sessions.keeper import SessionKeeper
from impl.agent.snapshots.archives import Archives
from impl.agent.snapshots.restoring import Restoring
from impl.catalog.commands import KvSet
from impl.catalog.queries import KvGet, Watched
from impl.catalog.store import Store
from impl.catalog.transitions import Result
from impl.raft.errors import NotLeader, Refused, Transferring
from impl.raft.ready import Role
from impl.rpc.errors import CallTimedOut, ConnectFailed, ConnectionLost, NotSent, RemoteError, RpcError
from impl.runtime.interfaces import MILLISECONDS, Runtime
from impl.runtime.real import run
from impl.telemetry.instruments import Telemetry

SILENT = Log(lambda line: None, lambda: 0.0)
HOLD_NS = 160 * MILLISECONDS


class Leaderless:
    """The core of a follower: `leader_id` as the test says."""

    role: Role = Role.FOLLOWER
    leader_id: str | None = "s2"


class Named:
    """As much of `Members` as forwarding needs."""

    named = True


class FollowerDriver:
    """A driver that never leads."""

    last_contact_ns = 0

    def __init__(self) -> None:
        self.core = Leaderless()

    def propose(self, command: object, request: str) -> object:
        raise NotLeader(self.core.leader_id)


class HandingOver:
    """The driver of a leader that refuses proposals while it hands over, and then leads on."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.applied = 0
        self.core = Leaderless()
        self.core.role = Role.LEADER

    async def propose(self, command: object, request: str) -> bool:
        if self.refusals:
            self.refusals -= 1
            raise Transferring(3, "s2")
        self.applied += 1
        return True


class Remote:
    """The other end of every call: a leader that applies what reaches it and then answers, or fails, as scripted."""

    def __init__(self, *script: RpcError | None) -> None:
        self.script = list(script)
        self.asked: list[KvWrite] = []
        self.applied: list[KvWrite] = []
        self.reads: list[KvRead] = []

    async def call(self, address: object, method: str, body: bytes, timeout_ns: int) -> bytes:
        outcome = self.script.pop(0) if self.script else None
        if method == KV_WRITE:
            self.asked.append(msgspec.msgpack.decode(body, type=KvWrite))
        refused = isinstance(outcome, RemoteError) and outcome.definite
        if not isinstance(outcome, ConnectFailed | NotSent) and not refused:
            if method == KV_WRITE:
                self.applied.append(msgspec.msgpack.decode(body, type=KvWrite))
            else:
                self.reads.append(msgspec.msgpack.decode(body, type=KvRead))
        if outcome is not None:
            raise outcome
        reply = True if method == KV_WRITE else forwarding_reply()
        return msgspec.msgpack.encode(reply)


def forwarding_reply() -> object:
    return ReadReply(Store().get("k"), True, 0)


async def _stay() -> None:
    """Nobody leaves here."""


async def _join_nobody(address: Address) -> None:
    """Nobody joins here."""


@dataclass
class Follower:
    """A server's requests: their way, what it does itself, and what these two were given."""

    requests: Requests
    serving: Serving
    sessions: SessionKeeper
    watches: Watches
    changes: Changes


def follower(runtime: Runtime, remote: Any) -> Follower:
    discovery = Discovery(ServerInfo("s1", "id-1", "127.0.0.1", 1), 2, None)
    discovery.known["s2"] = ServerInfo("s2", "id-2", "127.0.0.1", 2)
    members: Any = Named()
    unchanged: Any = None
    sessions, watches, changes = SessionKeeper(runtime), Watches(runtime), Changes(runtime)
    serving = Serving(
        runtime,
        "s1/1",
        discovery,
        watches,
        changes,
        members,
        reconfiguration=unchanged,
        sessions=sessions,
        reconciler=Reconciler(runtime, "dc1", members, SILENT),
        archives=Archives(runtime, "/data", 1 << 20, SILENT),
        restoring=Restoring(runtime, SILENT),
        measures=RequestMeasures(Telemetry(runtime.clock)),
    )
    requests = Requests(
        runtime,
        HOLD_NS,
        discovery,
        remote,
        changes,
        serving,
        describe=dict,
        leave=_stay,
        join=_join_nobody,
    )
    driver: Any = FollowerDriver()
    serving.formed(driver)
    return Follower(requests, serving, sessions, watches, changes)


def outcome_of(work: Callable[[Requests], Awaitable[Any]], remote: Remote) -> Any:
    """The result of `work` on a follower whose leader is `remote`, or the error that it raised."""
    results: list[Any] = []

    async def main(runtime: Runtime) -> int:
        try:
            results.append(await work(follower(runtime, remote).requests))
        except AgentError as error:
            results.append(error)
        return 0

    assert run(main) == 0
    return results[0]


def write(requests: Requests) -> Awaitable[Result]:
    return requests.write(KvSet("k", b"v", 0))


def read(requests: Requests) -> Awaitable[Any]:
    return requests.read(KvGet("k"), ReadOptions(Consistency.CONSISTENT))


def a_write_whose_connection_was_lost_is_applied_once_and_its_outcome_unknown() -> None:
    for lost in (ConnectionLost("EOF"), CallTimedOut("no answer"), RemoteError("rpc error: leadership lost", False)):
        remote = Remote(lost)
        error = outcome_of(write, remote)
        assert len(remote.applied) == 1, lost
        assert isinstance(error, IndefiniteError)
        assert str(error).startswith("rpc error: ")


def a_write_that_was_not_sent_is_tried_again() -> None:
    remote = Remote(ConnectFailed("refused"), NotSent("not connected"), RemoteError(NOT_LEADER, True))
    assert outcome_of(write, remote) is True
    assert len(remote.applied) == 1


def every_attempt_carries_the_same_request_id() -> None:
    remote = Remote(RemoteError(NOT_LEADER, True), NotSent("not connected"))
    assert outcome_of(write, remote) is True
    assert [attempt.request for attempt in remote.asked] == ["s1/1/r1"] * 3
    assert all(attempt.forwarded for attempt in remote.asked)


def a_read_whose_connection_was_lost_is_tried_again() -> None:
    remote = Remote(ConnectionLost("EOF"), RemoteError(NOT_READY, True))
    assert outcome_of(read, remote).known_leader
    assert len(remote.reads) == 2


def without_a_leader_the_hold_ends_with_consuls_words() -> None:
    remote = Remote(*[RemoteError("No cluster leader", True)] * 1000)
    error = outcome_of(write, remote)
    assert isinstance(error, NoClusterLeader)
    assert remote.applied == []
    assert len(remote.script) < 1000


def a_write_that_meets_a_leader_which_hands_over_is_held() -> None:
    driver: Any = HandingOver(refusals=3)
    results: list[object] = []

    async def main(runtime: Runtime) -> int:
        server = follower(runtime, Remote())
        server.serving.formed(driver)
        try:
            results.append(await write(server.requests))
            driver.refusals = 1
            await server.requests.serve_write(KvWrite(KvSet("k", b"v", 0), "s2/1/r1", forwarded=True))
        except AgentError as error:
            results.append(error)
        return 0

    assert run(main) == 0
    written, refused = results
    assert written is True
    assert isinstance(refused, NoClusterLeader), "whoever forwarded it knows these words, and holds it"
    assert driver.applied == 1


def a_forwarded_request_is_not_forwarded_again() -> None:
    remote = Remote()
    asked = KvWrite(KvSet("k", b"v", 0), "c1/1/r1", forwarded=True)
    error = outcome_of(lambda requests: requests.serve_write(asked), remote)
    assert isinstance(error, NoClusterLeader)
    error = outcome_of(lambda requests: requests.serve_read(KvRead(KvGet("k"), ReadOptions(), True)), remote)
    assert isinstance(error, DefiniteError)
    assert (remote.applied, remote.reads) == ([], [])


SENTENCES = [
    a_write_whose_connection_was_lost_is_applied_once_and_its_outcome_unknown,
    a_write_that_was_not_sent_is_tried_again,
    every_attempt_carries_the_same_request_id,
    a_read_whose_connection_was_lost_is_tried_again,
    without_a_leader_the_hold_ends_with_consuls_words,
    a_forwarded_request_is_not_forwarded_again,
    a_write_that_meets_a_leader_which_hands_over_is_held,
]


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda sentence: str(sentence.__name__))
def test_forwarding(sentence: Callable[[], None]) -> None:
    sentence()


def retry_everything(error: RpcError, *, is_write: bool) -> Retriable | AgentError:
    return Retriable(NoClusterLeader())


def retry_nothing(error: RpcError, *, is_write: bool) -> Retriable | AgentError:
    return IndefiniteError("rpc error: " + str(error))


_serve_write = Requests.serve_write


async def forward_again(requests: Requests, request: KvWrite) -> Result:
    return await _serve_write(requests, KvWrite(request.command, request.request, forwarded=False))


async def give_up_at_once(serving: Serving, request: KvWrite) -> object:
    assert serving.driver is not None
    try:
        return await serving.driver.propose(request.command, request.request)
    except Refused as error:
        raise DefiniteError(str(error)) from error


@pytest.mark.parametrize(
    ("owner", "name", "mutant", "sentence"),
    [
        (
            forwarding,
            "judge",
            retry_everything,
            a_write_whose_connection_was_lost_is_applied_once_and_its_outcome_unknown,
        ),
        (forwarding, "judge", retry_nothing, a_write_that_was_not_sent_is_tried_again),
        (forwarding, "judge", retry_nothing, a_read_whose_connection_was_lost_is_tried_again),
        (Serving, "write", give_up_at_once, a_write_that_meets_a_leader_which_hands_over_is_held),
        (Requests, "serve_write", forward_again, a_forwarded_request_is_not_forwarded_again),
    ],
)
def test_broken_forwarding_is_noticed(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, mutant: object, sentence: Callable[[], None]
) -> None:
    assert hasattr(owner, name)
    monkeypatch.setattr(owner, name, mutant)
    with pytest.raises((AssertionError, AttributeError, ValueError)):
        sentence()


def test_a_blocking_query_that_loses_its_leader_waits_on_for_what_is_left_of_its_wait() -> None:
    remote = Remote(ConnectionLost("EOF"))
    options = ReadOptions(Consistency.DEFAULT, 5, 30.0)
    outcome_of(lambda requests: requests.read(KvGet("k"), options), remote)
    first, second = (attempt.options.wait for attempt in remote.reads)
    assert 29.0 < second < first <= 30.0


def test_a_blocking_query_may_be_held_for_its_wait_too() -> None:
    async def main(runtime: Runtime) -> int:
        started, attempts = runtime.clock.monotonic_ns(), 0

        async def attempt() -> str:
            nonlocal attempts
            attempts += 1
            if runtime.clock.monotonic_ns() - started < 60 * MILLISECONDS:
                raise Retriable(NoClusterLeader())
            return "done"

        hold = 10 * MILLISECONDS
        answer = await forwarding.hold(runtime, hold, attempt, Changes(runtime), blocked_ns=3_600_000 * MILLISECONDS)
        assert answer == "done"
        assert attempts > 10
        return 0

    assert run(main) == 0


class TestJudge:
    """The table of Consul's canRetry."""

    CASES: ClassVar[list[tuple[RpcError, bool, type[Exception]]]] = [
        (ConnectFailed("x"), True, Retriable),
        (NotSent("x"), True, Retriable),
        (ConnectionLost("x"), True, IndefiniteError),
        (ConnectionLost("x"), False, Retriable),
        (CallTimedOut("x"), True, IndefiniteError),
        (CallTimedOut("x"), False, Retriable),
        (RemoteError("No cluster leader", True), True, Retriable),
        (RemoteError(NOT_LEADER, True), True, Retriable),
        (RemoteError(NOT_READY, True), False, Retriable),
        (RemoteError("rpc error: too many entries", True), True, DefiniteError),
        (RemoteError("rpc error: leadership lost while committing log", False), True, IndefiniteError),
    ]

    @pytest.mark.parametrize(("error", "is_write", "verdict"), CASES)
    def test_each_failure(self, error: RpcError, is_write: bool, verdict: type[Exception]) -> None:
        assert type(judge(error, is_write=is_write)) is verdict


def test_a_change_of_leadership_ends_a_pause() -> None:
    async def main(runtime: Runtime) -> int:
        changes = Changes(runtime)
        attempts: list[int] = []

        async def attempt() -> str:
            attempts.append(runtime.clock.monotonic_ns())
            if len(attempts) == 1:
                runtime.clock.call_later(5 * MILLISECONDS, changes.notify)
                raise Retriable(NoClusterLeader())
            return "done"

        # Pauses are up to 1/16 of an hour: only the notification can end one in time.
        assert await forwarding.hold(runtime, 3_600_000 * MILLISECONDS, attempt, changes) == "done"
        assert len(changes) == 0, "nobody is left waiting"
        return 0

    assert run(main) == 0


def test_a_watch_wakes_for_its_key_and_for_its_prefix_only() -> None:
    async def main(runtime: Runtime) -> int:
        watches = Watches(runtime)
        hour = 3_600_000 * MILLISECONDS
        key, prefix, other = (
            watches.next(watch, hour)
            for watch in (Watched(keys=("a/b",)), Watched(prefixes=("a/",)), Watched(prefixes=("b",)))
        )
        watches.changed("a/b")
        await key.wait()
        await prefix.wait()
        watches.sweep()
        assert list(watches._prefixes) == ["b"]
        other.cancel()
        watches.sweep()
        assert not watches._prefixes
        return 0

    assert run(main) == 0
