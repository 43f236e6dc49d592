"""The leader ends sessions whose TTL ran out, and gives no lock while its lock-delay lasts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from impl.agent.requests.api import NoClusterLeader
from impl.agent.sessions.keeper import SessionKeeper
from impl.agent.sessions.timers import SessionTimers
from impl.catalog.commands import KvAcquire, KvSet, Register, SessionCreate, SessionDestroy, Transaction, Write
from impl.catalog.rows import Node, Session
from impl.catalog.store import Store
from impl.catalog.transactions import KvOperation, OperationError, Outcome
from impl.raft.ready import Role
from impl.runtime.interfaces import NANOSECONDS, Runtime
from impl.runtime.virtual import VirtualWorld
from impl.runtime.virtual_disk import VirtualDisk


class Led:
    """A driver, as far as sessions are concerned: a store, and who leads."""

    def __init__(self, runtime: Runtime) -> None:
        self.keeper = SessionKeeper(runtime)
        self.store = Store(session=self.keeper.changed, lost=self.keeper.lost)
        self.core = self
        self.role, self.term = Role.LEADER, 1
        self.index = 0
        self.failures = 0

    def apply(self, command: Write) -> None:
        self.index += 1
        self.store.apply(command, self.index)

    async def write(self, command: Write) -> object:
        if self.failures:
            self.failures -= 1
            raise NoClusterLeader()
        self.apply(command)
        return True


def led(sentence: Callable[[VirtualWorld, Led], None]) -> None:
    """Run a sentence in a virtual world with a session `s` whose TTL is ten seconds and that holds the lock of `k`."""
    world = VirtualWorld(1)
    runtime = world.process("s1", VirtualDisk()).runtime
    driver = Led(runtime)
    anything: Any = driver
    runtime.tasks.spawn(driver.keeper.run(anything, driver.write), "sessions")
    world.run_for(NANOSECONDS)
    driver.apply(Register(Node("n", "1")))
    driver.apply(SessionCreate(Session("s", "n", ttl="10s")))
    driver.apply(KvAcquire("k", b"", 0, "s"))
    sentence(world, driver)


def alive(driver: Led) -> bool:
    return driver.store.tables.sessions.get("s") is not None


def a_session_ends_at_twice_its_ttl(world: VirtualWorld, driver: Led) -> None:
    world.run_for(19 * NANOSECONDS)
    assert alive(driver)
    world.run_for(2 * NANOSECONDS)
    assert not alive(driver)


def a_renewed_session_lives_on(world: VirtualWorld, driver: Led) -> None:
    for _ in range(4):
        world.run_for(15 * NANOSECONDS)
        driver.keeper.renew(driver.store.tables.sessions["s"])
        assert alive(driver)


def a_follower_ends_nothing_and_a_new_leader_gives_full_time(world: VirtualWorld, driver: Led) -> None:
    driver.role = Role.FOLLOWER
    world.run_for(60 * NANOSECONDS)
    assert alive(driver)
    driver.role, driver.term = Role.LEADER, 2
    world.run_for(19 * NANOSECONDS)
    assert alive(driver)
    world.run_for(2 * NANOSECONDS)
    assert not alive(driver)


def an_expiry_that_fails_is_tried_again(world: VirtualWorld, driver: Led) -> None:
    driver.failures = 2
    world.run_for(21 * NANOSECONDS)
    assert alive(driver)
    world.run_for(3 * NANOSECONDS)
    assert not alive(driver)


def a_lost_lock_is_not_given_before_its_delay_is_over(world: VirtualWorld, driver: Led) -> None:
    keeper, acquire = driver.keeper, KvAcquire("k", b"", 0, "t")
    lock = Transaction((KvOperation("get", "k"), KvOperation("lock", "k", session="t")))
    assert keeper.refusal(acquire) is None and keeper.refusal(lock) is None
    driver.apply(SessionDestroy("s"))
    assert keeper.refusal(acquire) is False
    assert keeper.refusal(lock) == Outcome([], [OperationError(1, 'failed to lock key "k" due to lock delay')])
    assert keeper.refusal(KvAcquire("other", b"", 0, "t")) is None
    assert keeper.refusal(KvSet("k", b"", 0)) is None
    world.run_for(14 * NANOSECONDS)
    assert keeper.refusal(acquire) is False
    world.run_for(2 * NANOSECONDS)
    assert keeper.refusal(acquire) is None and keeper.refusal(lock) is None


SENTENCES = (
    a_session_ends_at_twice_its_ttl,
    a_renewed_session_lives_on,
    a_follower_ends_nothing_and_a_new_leader_gives_full_time,
    an_expiry_that_fails_is_tried_again,
    a_lost_lock_is_not_given_before_its_delay_is_over,
)


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda sentence: sentence.__name__)
def test_the_leader_keeps_sessions(sentence: Callable[[VirtualWorld, Led], None]) -> None:
    led(sentence)


@pytest.mark.parametrize(
    ("owner", "name", "broken", "sentence"),
    [
        (SessionKeeper, "renew", lambda *_: None, a_session_ends_at_twice_its_ttl),
        (SessionKeeper, "lost", lambda *_: None, a_lost_lock_is_not_given_before_its_delay_is_over),
        (
            SessionTimers,
            "lead",
            lambda *_: None,
            a_follower_ends_nothing_and_a_new_leader_gives_full_time,
        ),
        (SessionTimers, "expired", lambda *_: [], a_session_ends_at_twice_its_ttl),
    ],
)
def test_a_mutant_contradicts_its_sentence(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, broken: Any, sentence: Callable[[VirtualWorld, Led], None]
) -> None:
    monkeypatch.setattr(owner, name, broken)
    with pytest.raises(AssertionError):
        led(sentence)
