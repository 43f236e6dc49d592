"""The driver around one core: batches, terms, reads and time."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from impl.agent import driver as module
from impl.agent.driver import GATHERED_MAX, TICK_NS, Driver
from impl.agent.requests.api import IndefiniteError
from impl.catalog.commands import Noop, encode_command
from impl.catalog.queries import KvGet
from impl.catalog.store import KvAnswer
from impl.raft.core import Core
from impl.raft.errors import NotLeader
from impl.raft.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    PreVoteRequest,
    RequestVoteRequest,
    RequestVoteResponse,
)
from impl.raft.ready import Role
from impl.raft.settings import Restored, Settings
from impl.runtime.interfaces import MILLISECONDS
from impl.storage.durable_log import DurableLog
from impl.storage.records import Entry, HardState
from tests.impl.driver_bench import Bench, World


def slices(bench: Bench) -> list[int]:
    """How many entries each slice had that was sent to s2."""
    sent = [message for to, message in bench.sent if to == "s2" and isinstance(message, AppendEntriesRequest)]
    return [len(message.entries) for message in sent if message.entries]


def writes_that_arrive_while_a_batch_is_on_its_way_are_the_next_batch() -> None:
    bench = Bench(3).lead()
    bench.receive("s2", AppendEntriesResponse(2, 1, True, 1, 0))
    bench.sent.clear()
    puts = [bench.put("a")]
    bench.world.settle()
    assert slices(bench) == [1], "who comes alone does not wait"
    for number in range(GATHERED_MAX - 1):
        puts.append(bench.put(f"b{number}"))
        bench.world.settle()
    assert slices(bench) == [1]
    bench.world.finish_disk()
    bench.receive("s2", AppendEntriesResponse(3, 1, True, 2, 0))
    assert slices(bench) == [1, GATHERED_MAX - 1], "all of them, as soon as the batch before is committed"
    bench.world.finish_disk()
    bench.receive("s2", AppendEntriesResponse(4, 1, True, GATHERED_MAX + 1, 0))
    assert all(put.done() for put in puts)


def many_writes_do_not_wait_for_the_batch_before() -> None:
    bench = Bench(3).lead()
    bench.receive("s2", AppendEntriesResponse(2, 1, True, 1, 0))
    bench.sent.clear()
    for number in range(1 + 2 * GATHERED_MAX):
        bench.put(f"b{number}")
        bench.world.settle()
    assert slices(bench) == [1, GATHERED_MAX, GATHERED_MAX]


def no_write_waits_for_a_slow_batch() -> None:
    bench = Bench(3).lead()
    bench.receive("s2", AppendEntriesResponse(2, 1, True, 1, 0))
    bench.sent.clear()
    bench.put("a")
    bench.world.settle()
    bench.put("b")
    bench.world.settle()
    assert slices(bench) == [1]
    bench.world.advance(TICK_NS)
    assert slices(bench) == [1, 1]


def a_batch_that_waits_when_leadership_ends_was_never_proposed() -> None:
    bench = Bench(3).lead()
    first = bench.put("a")
    bench.world.settle()
    second = bench.put("b")
    bench.world.settle()
    bench.receive("s2", AppendEntriesRequest(9, bench.core.term + 1, 0, 0, 0, 0, []))
    assert isinstance(first.error(), IndefiniteError)
    assert isinstance(second.error(), NotLeader), "it may be tried again"


def who_leads_again_does_not_wait_for_a_batch_that_was_lost() -> None:
    bench = Bench(3).lead()
    for number in range(5):
        bench.put(f"a{number}")
    bench.world.settle()
    bench.world.finish_disk()
    term = bench.core.term + 1
    bench.receive("s2", AppendEntriesRequest(9, term, 0, 0, 1, 0, [Entry(1, term, encode_command(Noop()))]))
    assert bench.core.last_index == 1, "the batch was overwritten"
    bench.world.finish_disk()
    bench.sent.clear()
    bench.world.advance(700 * MILLISECONDS)
    bench.lead()
    put = bench.put("b")
    bench.world.settle()
    bench.world.finish_disk()
    bench.receive("s2", AppendEntriesResponse(9, bench.core.term, True, bench.core.last_index, 0))
    assert put.done()


def a_message_in_the_kernel_counts_before_an_election() -> None:
    bench = Bench(voters=3)
    world = bench.world
    while not bench.core.election_due:
        world.advance(TICK_NS)
    world.now += TICK_NS
    world.fire()
    world.turn()  # what the timer called soon runs before sockets are polled
    bench.driver.receive("s2", 1, AppendEntriesRequest(1, 1, 0, 0, 0, 0, []), 0)
    world.settle()
    assert bench.core.role is Role.FOLLOWER
    assert bench.core.leader_id == "s2"
    assert not any(isinstance(message, PreVoteRequest) for _, message in bench.sent)


def a_pause_of_the_process_is_not_an_election_timeout() -> None:
    bench = Bench(voters=3)
    world = bench.world
    world.advance(20 * TICK_NS)
    world.now += 60_000_000_000
    world.fire()
    world.settle()
    assert bench.core.role is Role.FOLLOWER
    assert bench.sent == []


SENTENCES = [
    writes_that_arrive_while_a_batch_is_on_its_way_are_the_next_batch,
    many_writes_do_not_wait_for_the_batch_before,
    no_write_waits_for_a_slow_batch,
    a_batch_that_waits_when_leadership_ends_was_never_proposed,
    who_leads_again_does_not_wait_for_a_batch_that_was_lost,
    a_message_in_the_kernel_counts_before_an_election,
    a_pause_of_the_process_is_not_an_election_timeout,
]


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda sentence: str(sentence.__name__))
def test_the_driver(sentence: Callable[[], None]) -> None:
    sentence()


def gather_in_any_term(driver: Driver) -> bool:
    return driver.core.role is Role.LEADER and gather_as_follower(driver)


def gather_as_follower(driver: Driver) -> bool:
    return driver.core.commit_index < driver._proposed[1] and len(driver._arrived) < GATHERED_MAX


def tick_at_once(driver: Driver) -> None:
    driver.core.tick()
    driver._schedule()


@pytest.mark.parametrize(
    ("name", "mutant", "sentence"),
    [
        ("_gathering", lambda driver: False, writes_that_arrive_while_a_batch_is_on_its_way_are_the_next_batch),
        ("_gathering", lambda driver: bool(driver._proposed[1]), many_writes_do_not_wait_for_the_batch_before),
        ("GATHERING_NS", 10**12, no_write_waits_for_a_slow_batch),
        ("_gathering", gather_as_follower, a_batch_that_waits_when_leadership_ends_was_never_proposed),
        ("_gathering", gather_in_any_term, who_leads_again_does_not_wait_for_a_batch_that_was_lost),
        ("_poll_before_tick", tick_at_once, a_message_in_the_kernel_counts_before_an_election),
        ("TICKS_AT_ONCE_MAX", 10**9, a_pause_of_the_process_is_not_an_election_timeout),
    ],
)
def test_a_broken_driver_is_noticed(
    monkeypatch: pytest.MonkeyPatch, name: str, mutant: object, sentence: Callable[[], None]
) -> None:
    monkeypatch.setattr(module if name.isupper() else Driver, name, mutant)
    with pytest.raises(AssertionError):
        sentence()


def test_a_follower_takes_no_proposal() -> None:
    with pytest.raises(NotLeader):
        Bench(voters=3).put("k")


def test_a_leader_that_loses_its_term_says_that_the_outcome_is_unknown() -> None:
    bench = Bench(voters=3).lead()
    put = bench.put("k")
    bench.world.settle()
    told: list[str] = []
    bench.driver.stepped_down = lambda: told.append("blocking queries are woken")
    bench.receive("s3", AppendEntriesRequest(1, 9, 0, 0, 0, 0, []))
    assert len(told) == 1
    with pytest.raises(IndefiniteError, match="leadership lost while committing log"):
        put.result()
    assert any("stepping down" in line and "term=9" in line for line in bench.lines)


def test_a_consistent_read_waits_for_a_quorum_and_fails_when_the_term_ends() -> None:
    bench = Bench(voters=3).lead()
    bench.receive("s2", AppendEntriesResponse(2, 1, True, 1, 0))
    read = bench.driver.read(KvGet("k"))
    bench.world.settle()
    assert not read.done()
    rounds = [message.round for _, message in bench.sent if isinstance(message, AppendEntriesRequest)]
    bench.receive("s2", AppendEntriesResponse(3, 1, True, 1, max(rounds)))
    assert read.result() == KvAnswer(1, ())
    lost = bench.driver.read(KvGet("k"))
    bench.receive("s3", AppendEntriesRequest(1, 9, 0, 0, 0, 0, []))
    with pytest.raises(NotLeader):
        lost.result()


def test_a_restarted_server_votes_as_its_disk_says() -> None:
    world = World()
    log, _ = DurableLog.open(world.disk, "raft", "id-s1", segment_bytes=1 << 16)
    log.append([HardState(3, "s2"), Entry(1, 3, b"\x91\xa4noop")])
    log.sync()
    log.close()
    _, recovered = DurableLog.open(world.disk, "raft", "id-s1", segment_bytes=1 << 16)
    state = recovered.hard_state
    restored = Restored(state.term, state.voted_for, recovered.entries)
    core = Core(Settings(name="s1"), ["s1", "s2", "s3"], restored, Random(1), trace=False, now_ns=world.now)
    core.advance_clock(world.now + 10**9)
    core.step("s3", RequestVoteRequest(1, 3, 9, 9))
    answers = [message for _, message in core.ready().messages if isinstance(message, RequestVoteResponse)]
    assert [answer.vote_granted for answer in answers] == [False]


def test_stopping_answers_what_waits_and_takes_nothing_more() -> None:
    bench = Bench().lead()
    put = bench.put("k")
    bench.world.settle()
    bench.driver.stop()
    with pytest.raises(IndefiniteError, match="shutting down"):
        put.result()
    bench.world.finish_disk()
    assert bench.driver.applied == 1


def test_an_election_is_explained_in_the_log() -> None:
    bench = Bench().lead()
    text = "".join(bench.lines)
    assert "agent: starting election: term=1" in text
    assert "agent: election won: term=1 leader=s1 why=" in text
