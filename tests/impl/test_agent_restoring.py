"""Restoring on the leader: what goes wrong before the commit changes nothing and says so; what a lost leader staged is
dropped; whoever watches is told at once; sessions and lock-delays begin anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from impl.agent.requests.api import Consistency, DefiniteError, IndefiniteError, ReadOptions
from impl.agent.requests.changes import Watches
from impl.agent.sessions.keeper import SessionKeeper
from impl.agent.snapshots import restoring as restoring_module
from impl.agent.snapshots.restoring import Restoring
from impl.catalog.commands import (
    KvAcquire,
    Register,
    RestoreBegin,
    RestoreChunk,
    RestoreCommit,
    SessionCreate,
)
from impl.catalog.queries import KvGet
from impl.catalog.rows import Node, Session
from impl.catalog.snapshot import StoreView, state_digest
from impl.catalog.store import Store
from impl.catalog.transitions import Failed, Result
from impl.raft.errors import NotLeader, Overloaded
from impl.raft.ready import Role
from impl.runtime.interfaces import MILLISECONDS, NANOSECONDS, Runtime
from impl.runtime.real import run
from impl.runtime.virtual import VirtualWorld
from impl.runtime.virtual_disk import VirtualDisk
from tests.impl.restoring_server import OTHER, Machine, Server, filled
from tests.impl.test_forwarding_rules import Remote, follower


def restored(script: dict[type, list[Exception]] | None = None) -> tuple[Server, Any]:
    """A server after an attempt to restore, and how that ended."""
    server = Server()
    server.machine.script = dict(script or {})

    async def work() -> None:
        await server.restore(await server.archive(OTHER))

    return server, server.run(work)


def test_an_archive_is_restored_and_leaves_no_files() -> None:
    server, outcome = restored()
    assert outcome is None
    assert state_digest(server.machine.store, archive=True) == state_digest(OTHER, archive=True)
    kinds = [type(command) for command in server.machine.proposed]
    assert kinds[0] is RestoreBegin and kinds[-1] is RestoreCommit and kinds.count(RestoreChunk) > 3
    assert all(len(command.rows) <= 250 for command in server.machine.proposed if isinstance(command, RestoreChunk))
    assert server.files() == []


def what_fails_before_the_commit_changes_nothing_and_is_dropped() -> None:
    for failing in (RestoreBegin, RestoreChunk):
        for failure in (NotLeader("s2"), IndefiniteError("leadership lost")):
            server, outcome = restored({failing: [failure]})
            assert isinstance(outcome, DefiniteError), outcome
            assert str(outcome).startswith("restore failed, nothing was changed: ")
            assert state_digest(server.machine.store) == state_digest(filled(3))
            assert server.machine.store.tables.staging is None
            assert server.files() == []


def a_commit_whose_outcome_is_unknown_says_so() -> None:
    _, outcome = restored({RestoreCommit: [IndefiniteError("leadership lost")]})
    assert isinstance(outcome, IndefiniteError)
    assert "it is unknown whether the snapshot was, or will be, restored" in str(outcome)
    _, outcome = restored({RestoreCommit: [NotLeader("s2")]})
    assert isinstance(outcome, DefiniteError)


def a_busy_leader_is_asked_again() -> None:
    server, outcome = restored({RestoreChunk: [Overloaded("entries", 1), Overloaded("entries", 1)]})
    assert outcome is None
    assert state_digest(server.machine.store, archive=True) == state_digest(OTHER, archive=True)


def one_restore_is_under_way_at_a_time() -> None:
    server = Server()

    async def both() -> list[str | None]:
        data = await server.archive(OTHER)
        outcomes: list[str | None] = []

        async def one() -> None:
            try:
                await server.restore(data)
                outcomes.append(None)
            except DefiniteError as error:
                outcomes.append(str(error))

        for _ in range(2):
            server.process.runtime.tasks.spawn(one(), "restore")
        while len(outcomes) < 2:
            await server.process.runtime.clock.sleep(MILLISECONDS)
        return outcomes

    assert sorted(map(str, server.run(both))) == ["None", "another restore is under way: try again when it is done"]


def what_a_lost_leader_staged_is_dropped() -> None:
    server = Server()
    driver: Any = server.machine
    driver.store.apply(RestoreBegin("of another leader"), 9)
    server.process.runtime.tasks.spawn(server.restoring.watch(driver, server.machine.propose), "watch")
    driver.core.role = Role.FOLLOWER
    server.world.run_for(5 * NANOSECONDS)
    assert driver.store.tables.staging is not None, "only the leader does it"
    driver.core.role = Role.LEADER
    server.world.run_for(5 * NANOSECONDS)
    assert driver.store.tables.staging is None
    assert driver.proposed == [RestoreBegin("")], "once"


SENTENCES = (
    what_fails_before_the_commit_changes_nothing_and_is_dropped,
    a_commit_whose_outcome_is_unknown_says_so,
    a_busy_leader_is_asked_again,
    one_restore_is_under_way_at_a_time,
    what_a_lost_leader_staged_is_dropped,
)


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda sentence: sentence.__name__)
def test_a_restore(sentence: Callable[[], None]) -> None:
    sentence()


async def gives_up_nothing(self: Restoring, propose: Any) -> None:
    """Leaves what is staged."""


async def commits_whatever(self: Restoring, commit: Any, propose: Any) -> None:
    try:
        await propose(commit)
    except (NotLeader, IndefiniteError):
        return


MUTANTS = (
    (Restoring, "_give_up", gives_up_nothing, what_fails_before_the_commit_changes_nothing_and_is_dropped),
    (Restoring, "_give_up", gives_up_nothing, what_a_lost_leader_staged_is_dropped),
    (Restoring, "_commit", commits_whatever, a_commit_whose_outcome_is_unknown_says_so),
    (restoring_module, "Overloaded", NotLeader, a_busy_leader_is_asked_again),
    (Restoring, "_busy", property(lambda self: False, lambda self, value: None), one_restore_is_under_way_at_a_time),
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant[1]}-{mutant[3].__name__}")
def test_a_mutant_contradicts_its_sentence(monkeypatch: pytest.MonkeyPatch, mutant: Any) -> None:
    owner, name, broken, sentence = mutant
    monkeypatch.setattr(owner, name, broken, raising=False)
    with pytest.raises(AssertionError):
        sentence()


# Who is told


def who_waits_is_answered_at_once_though_the_index_goes_back() -> None:
    async def main(runtime: Runtime) -> int:
        server = follower(runtime, Remote())
        driver: Any = server.serving.driver
        driver.store, driver.last_contact_ns = filled(5), 1
        driver.core.leader_id = None
        driver.read_local = lambda query, consistency: driver.store.get(query.key)
        options = ReadOptions(Consistency.STALE, 5, 600.0)
        answers: list[Any] = []

        async def ask() -> None:
            answers.append(await server.requests.read(KvGet("k00004"), options))

        runtime.tasks.spawn(ask(), "query")
        await runtime.clock.sleep(20 * MILLISECONDS)
        assert not answers
        driver.store = filled(1)
        server.watches.abandon()
        await runtime.clock.sleep(20 * MILLISECONDS)
        assert [answer.answer.index for answer in answers] == [1]
        return 0

    assert run(main) == 0


def test_who_waits_is_answered_at_once_though_the_index_goes_back() -> None:
    who_waits_is_answered_at_once_though_the_index_goes_back()


def test_who_only_wakes_waits_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watches, "abandon", Watches.wake_all)
    with pytest.raises(AssertionError):
        who_waits_is_answered_at_once_though_the_index_goes_back()


def sessions_begin_anew_and_lock_delays_end() -> None:
    world = VirtualWorld(3)
    process = world.process("s1", VirtualDisk())
    keeper = SessionKeeper(process.runtime)
    store = Store(session=keeper.changed, lost=keeper.lost, replaced=keeper.replaced)
    machine: Any = Machine(process, store)
    ended: list[str] = []

    async def write(command: Any) -> Result:
        ended.append(command.session_id)
        return Failed("it stays, for this test")

    process.runtime.tasks.spawn(keeper.run(machine, write), "keeper")
    world.run_for(NANOSECONDS)
    machine.propose(Register(Node("n1", "1")))
    machine.propose(SessionCreate(Session("s", "n1", ttl="10s")))
    archived = [RestoreBegin("r"), RestoreChunk("r", 1, tuple(rows(store))), RestoreCommit("r", 1)]
    keeper.lost("k", 60 * NANOSECONDS)
    assert keeper.refusal(KvAcquire("k", b"", 0, "s")) is False
    world.run_for(15 * NANOSECONDS)
    for command in archived:
        assert machine.store.apply(command, machine.applied) is True
    assert keeper.refusal(KvAcquire("k", b"", 0, "s")) is None
    world.run_for(15 * NANOSECONDS)
    assert ended == [], "twice its TTL has not passed since the restore"
    world.run_for(10 * NANOSECONDS)
    assert ended


def rows(store: Store) -> list[Any]:
    view, found = StoreView(store, archive=True), list[Any]()
    while not view.done:
        found += view.rows()
    return found


def test_sessions_begin_anew_and_lock_delays_end(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions_begin_anew_and_lock_delays_end()
    monkeypatch.setattr(SessionKeeper, "replaced", lambda self: None)
    with pytest.raises(AssertionError):
        sessions_begin_anew_and_lock_delays_end()
