"""The driver around one core, in a world whose clock, disk and peers the test moves by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

import pytest

from impl.agent import driver as module
from impl.agent.api import Consistency, IndefiniteError
from impl.agent.changes import Changes
from impl.agent.disk_writes import DISK_FULL_RETRY_NS, DiskWrites
from impl.agent.driver import GATHERED_MAX, TICK_NS, Driver
from impl.agent.logs import Log
from impl.agent.tracer import Tracer
from impl.catalog.commands import KvSet, Noop, encode_command
from impl.catalog.queries import KvGet
from impl.catalog.store import KvAnswer, Store
from impl.raft.core import Core
from impl.raft.errors import NotLeader
from impl.raft.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    Message,
    PreVoteRequest,
    PreVoteResponse,
    RequestVoteRequest,
    RequestVoteResponse,
    decode,
)
from impl.raft.ready import Role
from impl.raft.settings import Restored, Settings
from impl.runtime.interfaces import MILLISECONDS, Future, Runtime, Task, Timer
from impl.runtime.virtual_disk import VirtualDisk
from impl.storage.durable_log import DurableLog
from impl.storage.records import Entry, Genesis, HardState, Voter


class Exited(Exception):
    """The process ended with a code."""


class ManualTimer:
    def __init__(self, at: int, callback: Callable[[], None]) -> None:
        self.at = at
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class ManualFuture:
    """A future without a loop."""

    def __init__(self) -> None:
        self._outcome: tuple[Any, BaseException | None] | None = None
        self.on_done: Callable[[], None] = lambda: None

    def done(self) -> bool:
        return self._outcome is not None

    def result(self) -> Any:
        assert self._outcome is not None, "no result yet"
        value, error = self._outcome
        if error is not None:
            raise error
        return value

    def error(self) -> BaseException | None:
        return self._outcome[1] if self._outcome is not None else None

    def set_result(self, result: Any) -> None:
        assert self._outcome is None
        self._outcome = (result, None)
        self.on_done()

    def set_exception(self, exception: BaseException) -> None:
        assert self._outcome is None
        self._outcome = (None, exception)
        self.on_done()

    def cancel(self) -> bool:
        raise AssertionError("the driver cancels nothing")

    def __await__(self) -> Any:
        raise AssertionError("the driver waits for nothing")


class World:
    """Clock, executor, tasks, host: nothing happens until the test says so."""

    def __init__(self) -> None:
        self.now = 10**12
        self.soon: list[Callable[[], None]] = []
        self.timers: list[ManualTimer] = []
        self.submitted: list[tuple[Callable[[], Any], Callable[[Any], None], Callable[[BaseException], None]]] = []
        self.disk = VirtualDisk()
        self.random = Random(1)
        self.pid, self.hostname, self.environment = 1, "host", dict[str, str]()

    @property
    def runtime(self) -> Runtime:
        bench: Any = self
        return Runtime(
            clock=bench, random=self.random, disk=self.disk, network=bench, executor=bench, background=bench,
            tasks=bench, host=bench,
        )  # fmt: skip

    def monotonic_ns(self) -> int:
        return self.now

    def wall_ns(self) -> int:
        return self.now

    def call_soon(self, callback: Callable[[], None]) -> Timer:
        self.soon.append(callback)
        return ManualTimer(0, callback)

    def call_later(self, delay_ns: int, callback: Callable[[], None]) -> Timer:
        timer = ManualTimer(self.now + delay_ns, callback)
        self.timers.append(timer)
        return timer

    async def sleep(self, delay_ns: int) -> None:
        raise AssertionError("the driver does not sleep")

    def submit(
        self, work: Callable[[], Any], done: Callable[[Any], None], failed: Callable[[BaseException], None]
    ) -> None:
        self.submitted.append((work, done, failed))

    def future(self) -> Future[Any]:
        return ManualFuture()

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> Task:
        raise AssertionError("the driver spawns nothing")

    def on_signal(self, name: str, callback: Callable[[], None]) -> None:
        raise AssertionError("the driver takes no signals")

    def exit_now(self, code: int) -> None:
        raise Exited(code)

    def turn(self) -> None:
        """What is ready now runs; what that calls soon runs in the next turn, after sockets were polled."""
        ready, self.soon = self.soon, []
        for callback in ready:
            callback()

    def settle(self) -> None:
        while self.soon:
            self.turn()

    def advance(self, ns: int) -> None:
        """Time passes in steps of a tick; timers fire at their time."""
        end = self.now + ns
        while self.now < end:
            self.now = min(end, self.now + TICK_NS)
            self.fire()
            self.settle()

    def fire(self) -> None:
        due = [timer for timer in self.timers if timer.at <= self.now]
        self.timers = [timer for timer in self.timers if timer.at > self.now]
        for timer in due:
            if not timer.cancelled:
                timer.callback()

    def finish_disk(self) -> None:
        """The write under way ends, well or badly."""
        assert self.submitted, "no write is under way"
        work, done, failed = self.submitted.pop(0)
        try:
            result = work()
        except Exception as error:
            failed(error)
        else:
            done(result)
        self.settle()


class Bench:
    """A driver in a world, with voters s1 (itself) to sN."""

    def __init__(self, voters: int = 1, trace: bool = False) -> None:
        self.world = World()
        runtime = self.world.runtime
        self.disk_log, _ = DurableLog.open(self.world.disk, "raft", "id-s1", segment_bytes=1 << 16)
        names = [f"s{number}" for number in range(1, voters + 1)]
        self.disk_log.append([Genesis("cluster", tuple(Voter(name, f"id-{name}") for name in names))])
        self.disk_log.sync()
        self.core = Core(Settings(name="s1"), names, Restored(), self.world.random, trace=trace, now_ns=self.world.now)
        self.sent: list[tuple[str, Message]] = []
        self.lines: list[str] = []
        self.tracer = Tracer(self.world.disk, runtime.clock.monotonic_ns, "trace", "s1", 1) if trace else None
        log = Log(self.lines.append, lambda: 0.0)
        self.changes = Changes(runtime)
        self.driver = Driver(runtime, self.core, self.disk_log, Store(), self, log, self.tracer, self.changes, len)
        self.on_send: Callable[[], None] = lambda: None
        self.driver.start()
        self.world.settle()

    def send(self, to: str, frame: bytes) -> None:
        self.on_send()
        self.sent.append((to, decode(frame)))

    def trace(self) -> list[dict[str, Any]]:
        file = self.world.disk.open("trace/s1-000001.ndjson")
        return [json.loads(line) for line in file.read(0, file.size()).splitlines()]

    def lead(self) -> Bench:
        """Time passes until s1 leads, s2 voting for it."""
        self.campaign()
        self.world.finish_disk()
        if self.core.role is not Role.LEADER:
            self.receive("s2", RequestVoteResponse(1, self.core.term, True))
        assert self.core.role is Role.LEADER
        self.world.finish_disk()
        return self

    def campaign(self) -> None:
        """Time passes until s1 stands for election, s2 having said that it would vote for it."""
        while self.core.role is Role.FOLLOWER:
            self.world.advance(TICK_NS)
            if self.sent and isinstance(self.sent[-1][1], PreVoteRequest):
                self.receive("s2", PreVoteResponse(9, self.core.term + 1, True))

    def receive(self, source: str, message: Message) -> None:
        self.driver.receive(source, 1, message, 0)
        self.world.settle()

    def put(self, key: str, value: bytes = b"v") -> Any:
        return self.driver.propose(KvSet(key, value, 0), f"s1/1/{key}")


def nothing_is_acknowledged_before_it_is_on_disk() -> None:
    bench = Bench().lead()
    put = bench.put("k")
    bench.world.settle()
    assert not put.done()
    assert bench.driver.read_local(KvGet("k"), Consistency.STALE) == KvAnswer(1, ())
    bench.world.finish_disk()
    assert put.result() is True


def writes_that_arrive_during_a_write_share_the_next_sync() -> None:
    bench = Bench().lead()
    first = bench.put("a")
    bench.world.settle()
    later = []
    for number in range(2 * GATHERED_MAX):
        later.append(bench.put(f"b{number}"))
        bench.world.settle()
    assert len(bench.world.submitted) == 1, "one write at a time"
    syncs = bench.world.disk.syncs
    bench.world.finish_disk()
    assert first.done()
    assert not later[0].done()
    bench.world.finish_disk()
    assert all(put.done() for put in later)
    assert bench.world.disk.syncs == syncs + 2
    assert not bench.world.submitted


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


def a_failed_fsync_ends_the_process_and_acknowledges_nothing() -> None:
    bench = Bench().lead()
    put = bench.put("k")
    bench.world.settle()
    bench.world.disk.fail_next_syncs()
    try:
        bench.world.finish_disk()
    except Exited as exited:
        assert exited.args == (1,)
    else:
        raise AssertionError("the process goes on")
    assert not put.done()
    assert "fsync" in bench.lines[-1]


def a_full_disk_acknowledges_nothing_and_recovers_when_there_is_space() -> None:
    bench = Bench().lead()
    bench.world.disk.copy_on_write, bench.world.disk.free_bytes = True, 0
    put = bench.put("k")
    bench.world.settle()
    bench.world.finish_disk()
    for _ in range(3):
        bench.world.advance(DISK_FULL_RETRY_NS)
        bench.world.finish_disk()
    assert isinstance(put.error(), IndefiniteError), "nobody knows: it may be on the disk yet"
    assert "its disk has not finished a write" in "".join(bench.lines), "a leader that cannot write leads no more"
    assert sum("disk full" in line for line in bench.lines) == 1, "it is said once"
    bench.world.disk.free_bytes = None
    bench.world.advance(DISK_FULL_RETRY_NS)
    bench.world.finish_disk()
    assert any("space again" in line for line in bench.lines)
    log = DurableLog.open(bench.world.disk, "raft", "id-s1", segment_bytes=1 << 16)[1]
    assert len(log.entries) == 2, "the entry is in the log once"


def a_full_disk_grants_no_vote() -> None:
    bench = Bench(voters=3)
    bench.world.disk.copy_on_write, bench.world.disk.free_bytes = True, 0
    bench.receive("s2", RequestVoteRequest(1, 1, 0, 0, urged_by=1))
    bench.world.finish_disk()
    assert bench.sent == []


def the_trace_is_written_before_a_message_leaves() -> None:
    bench = Bench(voters=3, trace=True)
    seen: list[bool] = []

    def check() -> None:
        written = [line for line in bench.trace() if line["kind"] == "send"]
        seen.append(len(written) > len(bench.sent))

    bench.on_send = check
    bench.lead()
    assert len(seen) > 2
    assert all(seen)


def a_write_is_in_the_trace_before_its_client_hears() -> None:
    bench = Bench(trace=True).lead()
    put = bench.put("k")
    heard: list[list[dict[str, Any]]] = []
    put.on_done = lambda: heard.append(bench.trace())
    bench.world.settle()
    bench.world.finish_disk()
    assert [line["request"] for line in heard[0] if line["kind"] == "answer"] == ["s1/1/k"]
    kinds = [line["kind"] + ":" + line.get("action", "") for line in heard[0]]
    assert kinds.index("step:client_request") < kinds.index("propose:"), kinds
    assert [(line["index"], line["term"]) for line in heard[0] if line["kind"] == "propose"] == [(2, 1)]


def what_an_answer_rests_on_is_in_the_trace_before_it() -> None:
    bench = Bench(voters=3, trace=True)
    bench.campaign()
    bench.world.finish_disk()
    bench.driver.receive("s2", 1, RequestVoteResponse(1, bench.core.term, True), 0)
    assert bench.core.role is Role.LEADER
    bench.driver.read_local(KvGet("k"), Consistency.DEFAULT)
    actions = [line.get("action", line["kind"]) for line in bench.trace()]
    assert "become_leader" in actions[: actions.index("answer")]


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
    nothing_is_acknowledged_before_it_is_on_disk,
    writes_that_arrive_during_a_write_share_the_next_sync,
    a_failed_fsync_ends_the_process_and_acknowledges_nothing,
    a_full_disk_acknowledges_nothing_and_recovers_when_there_is_space,
    a_full_disk_grants_no_vote,
    the_trace_is_written_before_a_message_leaves,
    a_write_is_in_the_trace_before_its_client_hears,
    what_an_answer_rests_on_is_in_the_trace_before_it,
    a_message_in_the_kernel_counts_before_an_election,
    a_pause_of_the_process_is_not_an_election_timeout,
]


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda sentence: str(sentence.__name__))
def test_the_driver(sentence: Callable[[], None]) -> None:
    sentence()


def write_and_trust(disk: DiskWrites) -> None:
    """Confirms what it has only queued."""
    writes, disk._writes = disk._writes, []
    if writes:
        disk._confirm(writes)
        disk._busy = True
        disk._runtime.executor.submit(lambda: None, lambda _: None, lambda _: None)


def gather_in_any_term(driver: Driver) -> bool:
    return driver.core.role is Role.LEADER and gather_as_follower(driver)


def gather_as_follower(driver: Driver) -> bool:
    return driver.core.commit_index < driver._proposed[1] and len(driver._arrived) < GATHERED_MAX


def write_one_by_one(disk: DiskWrites) -> None:
    if disk._busy or disk._full or not disk._writes:
        return
    write = disk._writes.pop(0)
    disk._busy = True

    def work() -> None:
        disk._disk_log.append(write.records)
        disk._disk_log.sync()

    disk._runtime.executor.submit(
        work, lambda _: disk._written([write]), lambda error: disk._write_failed([write], error)
    )


def ignore_failure(disk: DiskWrites, writes: list[Any], error: BaseException) -> None:
    disk._written(writes)


def read_at_once(driver: Driver, query: KvGet, consistency: Consistency) -> None:
    assert driver._tracer is not None
    driver._trace_read("q1", consistency, query, driver.store.get(query.key))
    driver._tracer.flush()


def tick_at_once(driver: Driver) -> None:
    driver.core.tick()
    driver._schedule()


@pytest.mark.parametrize(
    ("owner", "name", "mutant", "sentence"),
    [
        (Driver, "_gathering", lambda driver: False, writes_that_arrive_while_a_batch_is_on_its_way_are_the_next_batch),
        (
            Driver,
            "_gathering",
            lambda driver: bool(driver._proposed[1]),
            many_writes_do_not_wait_for_the_batch_before,
        ),
        (module, "GATHERING_NS", 10**12, no_write_waits_for_a_slow_batch),
        (Driver, "_gathering", gather_as_follower, a_batch_that_waits_when_leadership_ends_was_never_proposed),
        (Driver, "_gathering", gather_in_any_term, who_leads_again_does_not_wait_for_a_batch_that_was_lost),
        (DiskWrites, "start", write_and_trust, nothing_is_acknowledged_before_it_is_on_disk),
        (DiskWrites, "start", write_one_by_one, writes_that_arrive_during_a_write_share_the_next_sync),
        (DiskWrites, "_write_failed", ignore_failure, a_failed_fsync_ends_the_process_and_acknowledges_nothing),
        (
            DiskWrites,
            "_write_failed",
            ignore_failure,
            a_full_disk_acknowledges_nothing_and_recovers_when_there_is_space,
        ),
        (DiskWrites, "_write_failed", ignore_failure, a_full_disk_grants_no_vote),
        (Tracer, "flush", lambda tracer: None, the_trace_is_written_before_a_message_leaves),
        (Tracer, "proposals", lambda tracer, proposed: None, a_write_is_in_the_trace_before_its_client_hears),
        (Driver, "read_local", read_at_once, what_an_answer_rests_on_is_in_the_trace_before_it),
        (Driver, "_poll_before_tick", tick_at_once, a_message_in_the_kernel_counts_before_an_election),
        (module, "TICKS_AT_ONCE_MAX", 10**9, a_pause_of_the_process_is_not_an_election_timeout),
    ],
)
def test_a_broken_driver_is_noticed(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, mutant: object, sentence: Callable[[], None]
) -> None:
    assert hasattr(owner, name)
    monkeypatch.setattr(owner, name, mutant)
    with pytest.raises((AssertionError, ValueError)):
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
