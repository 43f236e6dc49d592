"""A leader whose log is ahead of its state: locks, renewals and expiries follow from what is on its way, too.

Found by the workload `lock` (seed 11): a renewal right after an election was answered "not found" though the session
lived, since the new leader had not applied its creation yet.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from impl.agent.requests.api import AgentError, Consistency, NoClusterLeader
from impl.agent.requests.routing import Requests
from impl.agent.requests.serving import Serving
from impl.agent.sessions.ends import SessionEnds, acquired, ended
from impl.catalog.commands import (
    Deregister,
    KvAcquire,
    KvSet,
    Register,
    SessionCreate,
    SessionDestroy,
    Transaction,
    Write,
)
from impl.catalog.queries import Query, answer_query
from impl.catalog.rows import CRITICAL, PASSING, Check, Node, Session
from impl.catalog.store import Store
from impl.catalog.transactions import CheckOperation, KvOperation, NodeOperation
from impl.raft.errors import NotLeader
from impl.raft.ready import Role
from impl.runtime.interfaces import MILLISECONDS, Future, Runtime
from impl.runtime.virtual import VirtualWorld
from impl.runtime.virtual_disk import VirtualDisk
from tests.impl.test_forwarding_rules import Follower, Remote, follower

SECOND_NS = 1_000 * MILLISECONDS


class Core:
    role = Role.LEADER
    leader_id: str | None = "s1"
    has_applied_own_term = True


class Pipeline:
    """The driver of a leader: what is proposed, or asked, waits until the test lets it be applied."""

    last_contact_ns = 0

    def __init__(self, runtime: Runtime, server: Follower) -> None:
        self.runtime = runtime
        self.changes = server.changes
        self.core = Core()
        keeper = server.sessions
        self.store = Store(session=keeper.changed, lost=keeper.lost)
        self.index = 0
        self.waiting: list[tuple[Write | Query, Future[Any], Callable[[], Any]]] = []

    def propose(self, command: Write, request: str) -> Future[Any]:
        if self.core.role is not Role.LEADER:
            raise NotLeader(self.core.leader_id)
        answered: Future[Any] = self.runtime.tasks.future()
        self.waiting.append((command, answered, partial(self.apply, command)))
        return answered

    def read(self, query: Query, consistency: Consistency) -> Future[Any]:
        answered: Future[Any] = self.runtime.tasks.future()
        self.waiting.append((query, answered, partial(answer_query, self.store, query)))
        return answered

    def apply(self, command: Any) -> Any:
        self.index += 1
        return self.store.apply(command, self.index)

    def catch_up(self) -> None:
        """Apply and answer what waits."""
        waiting, self.waiting = self.waiting, []
        for _, answered, answer in waiting:
            answered.set_result(answer())
        self.changes.notify()


class Leading:
    """A leader with the sessions `s` (which holds `k`, with a lock-delay of 15 s) and `t`."""

    def __init__(self) -> None:
        self.world = VirtualWorld(1)
        self.runtime = self.world.process("s1", VirtualDisk()).runtime
        self.remote = Remote()
        self.answers: dict[str, Any] = {}
        server = follower(self.runtime, self.remote)
        self.requests = server.requests
        self.driver = Pipeline(self.runtime, server)
        driver: Any = self.driver
        server.serving.formed(driver)
        for command in (
            Register(Node("n", "1"), None, (Check("n", "alive", "alive", PASSING),)),
            SessionCreate(Session("s", "n", ttl="10s", node_checks=("alive",))),
            SessionCreate(Session("t", "n")),
            KvAcquire("k", b"", 0, "s"),
        ):
            self.driver.apply(command)

    def ask(self, name: str, work: Awaitable[Any]) -> None:
        """Begin, and get as far as possible."""

        async def asking() -> None:
            try:
                self.answers[name] = await work
            except AgentError as error:
                self.answers[name] = error

        self.runtime.tasks.spawn(asking(), name)
        self.world.run_for(MILLISECONDS)

    def catch_up(self) -> None:
        self.driver.catch_up()
        self.world.run_for(MILLISECONDS)

    @property
    def holder(self) -> str:
        return self.driver.store.tables.entries["k"].session


def a_lock_is_not_given_behind_the_end_of_the_session_that_loses_it() -> None:
    for end in (
        SessionDestroy("s"),
        Deregister("n"),
        Register(Node("n", "1"), None, (Check("n", "alive", "alive", CRITICAL),)),
        Transaction((CheckOperation("delete", Check("n", "alive", "alive", PASSING)),)),
    ):
        leader = Leading()
        leader.ask("end", leader.requests.write(end))
        leader.ask("acquire", leader.requests.write(KvAcquire("k", b"", 0, "t")))
        leader.catch_up()
        leader.catch_up()
        assert leader.answers["acquire"] is False, end
        assert leader.holder == ""


def nor_behind_an_acquire_of_a_session_that_is_about_to_end() -> None:
    leader = Leading()
    leader.driver.apply(KvAcquire("other", b"", 0, "t"))
    leader.ask("acquire", leader.requests.write(KvAcquire("free", b"", 0, "s")))
    leader.ask("end", leader.requests.write(SessionDestroy("s")))
    leader.ask("lock", leader.requests.write(Transaction((KvOperation("lock", "free", session="t"),))))
    leader.catch_up()
    leader.catch_up()
    assert leader.answers["acquire"] is True
    assert leader.answers["lock"].errors[0].what == 'failed to lock key "free" due to lock delay'


def a_new_leader_gives_no_lock_before_it_has_applied_its_log() -> None:
    leader = Leading()
    leader.driver.core.has_applied_own_term = False
    leader.ask("acquire", leader.requests.write(KvAcquire("k", b"", 0, "t")))
    leader.ask("set", leader.requests.write(KvSet("other", b"", 0)))
    assert [command for command, *_ in leader.driver.waiting] == [KvSet("other", b"", 0)], "others need not wait"
    leader.driver.apply(SessionDestroy("s"))  # an entry of an earlier term
    leader.driver.core.has_applied_own_term = True
    leader.catch_up()
    assert leader.answers == {"acquire": False, "set": True}


def a_lock_of_a_session_that_lives_is_asked_for_at_once() -> None:
    leader = Leading()
    leader.ask("end", leader.requests.write(SessionDestroy("t")))
    leader.ask("acquire", leader.requests.write(KvAcquire("k", b"", 0, "s")))
    assert len(leader.driver.waiting) == 2
    leader.catch_up()
    assert leader.answers == {"end": True, "acquire": True}


def who_waits_too_long_is_told_so() -> None:
    leader = Leading()
    leader.ask("end", leader.requests.write(SessionDestroy("s")))
    leader.ask("acquire", leader.requests.write(KvAcquire("k", b"", 0, "t")))
    leader.world.run_for(60 * SECOND_NS)
    assert str(leader.answers["acquire"]) == "Not ready to serve consistent reads"


def a_renewal_waits_until_the_leader_knows_the_session() -> None:
    leader = Leading()
    leader.ask("create", leader.requests.write(SessionCreate(Session("u", "n", ttl="10s"))))
    leader.ask("renew", leader.requests.renew_session("u"))
    assert "renew" not in leader.answers
    leader.catch_up()
    assert leader.answers["renew"].id == "u"
    leader.ask("renew another", leader.requests.renew_session("nobody"))
    leader.catch_up()
    assert leader.answers["renew another"] is None


def a_session_whose_end_is_on_its_way_is_not_renewed() -> None:
    leader = Leading()
    leader.ask("renew", leader.requests.renew_session("s"))
    leader.driver.waiting, asked = [], leader.driver.waiting
    leader.ask("expiry", leader.requests.write_leading(SessionDestroy("s")))
    expiry, leader.driver.waiting = leader.driver.waiting, asked
    leader.catch_up()
    assert "renew" not in leader.answers, "it was alive when it was asked for, and will not be"
    leader.driver.waiting += expiry
    leader.catch_up()
    leader.catch_up()
    assert leader.answers == {"expiry": True, "renew": None}


def what_a_leaders_clock_decided_no_other_leader_carries_out() -> None:
    leader = Leading()
    leader.driver.core.role, leader.driver.core.leader_id = Role.FOLLOWER, "s2"

    leader.ask("write", leader.requests.write(SessionDestroy("t")))
    assert [each.command for each in leader.remote.asked] == [SessionDestroy("t")], "a user's is forwarded"
    leader.remote.asked.clear()
    leader.ask("expiry", leader.requests.write_leading(SessionDestroy("s")))
    assert leader.remote.asked == []
    assert isinstance(leader.answers["expiry"], NoClusterLeader)


SENTENCES = (
    a_lock_is_not_given_behind_the_end_of_the_session_that_loses_it,
    nor_behind_an_acquire_of_a_session_that_is_about_to_end,
    a_new_leader_gives_no_lock_before_it_has_applied_its_log,
    a_lock_of_a_session_that_lives_is_asked_for_at_once,
    who_waits_too_long_is_told_so,
    a_renewal_waits_until_the_leader_knows_the_session,
    a_session_whose_end_is_on_its_way_is_not_renewed,
    what_a_leaders_clock_decided_no_other_leader_carries_out,
)


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda sentence: sentence.__name__)
def test_a_leader_minds_what_is_on_its_way(sentence: Callable[[], None]) -> None:
    sentence()


async def renew_by_what_is_applied(serving: Any, session_id: str) -> Session | None:
    session: Session | None = serving.driver.store.tables.sessions.get(session_id)
    return session


@pytest.mark.parametrize(
    ("owner", "name", "broken", "sentence"),
    [
        (
            Serving,
            "_is_settled",
            lambda *_: True,
            a_lock_is_not_given_behind_the_end_of_the_session_that_loses_it,
        ),
        (Serving, "_is_settled", lambda *_: True, a_new_leader_gives_no_lock_before_it_has_applied_its_log),
        (Serving, "_is_settled", lambda *_: False, a_lock_of_a_session_that_lives_is_asked_for_at_once),
        (Serving, "renew", renew_by_what_is_applied, a_renewal_waits_until_the_leader_knows_the_session),
        (SessionEnds, "is_ending", lambda *_: False, a_session_whose_end_is_on_its_way_is_not_renewed),
        (Requests, "write_leading", Requests.write, what_a_leaders_clock_decided_no_other_leader_carries_out),
    ],
)
def test_a_mutant_contradicts_its_sentence(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, broken: Any, sentence: Callable[[], None]
) -> None:
    monkeypatch.setattr(owner, name, broken)
    with pytest.raises((AssertionError, KeyError)):
        sentence()


def test_what_ends_sessions_and_wants_locks() -> None:
    leader = Leading()
    tables = leader.driver.store.tables
    assert ended(tables, SessionDestroy("x")) == ["x"]
    assert sorted(ended(tables, Deregister("n"))) == ["s", "t"]
    assert ended(tables, Deregister("n", check_id="alive")) == ["s"]
    assert ended(tables, Register(Node("n", "1"), None, (Check("n", "alive", "alive", PASSING),))) == []
    assert sorted(ended(tables, Transaction((NodeOperation("delete", Node("n", "1")),)))) == ["s", "t"]
    assert ended(tables, Transaction((KvOperation("delete", "k"),))) == []
    lock = KvOperation("lock", "k", session="t")
    assert acquired(Transaction((KvOperation("get", "k"), lock))) == [("k", "t")]
    assert acquired(KvSet("k", b"", 0)) == []


def test_it_is_forgotten_when_it_is_answered() -> None:
    settled: list[bool] = []
    ends, store = SessionEnds(lambda: settled.append(True)), Store()
    with ends.proposing(store.tables, SessionDestroy("s")), ends.proposing(store.tables, SessionDestroy("s")):
        assert ends.is_ending("s")
    assert (ends.is_ending("s"), settled) == (False, [True, True])
    with ends.proposing(store.tables, KvAcquire("k", b"", 0, "t")):
        assert not ends.concern(store.tables, KvAcquire("k", b"", 0, "u"))
