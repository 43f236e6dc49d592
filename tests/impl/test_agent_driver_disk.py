"""The driver and its disk: what is written before anybody hears of it, log and trace; what a disk that fails costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from impl.agent.disk_writes import DISK_FULL_RETRY_NS, DiskWrites
from impl.agent.driver import GATHERED_MAX, Driver
from impl.agent.requests.api import Consistency, IndefiniteError
from impl.agent.tracer import Tracer
from impl.catalog.queries import KvGet
from impl.catalog.store import KvAnswer
from impl.raft.messages import (
    RequestVoteRequest,
    RequestVoteResponse,
)
from impl.raft.ready import Role
from impl.storage.durable_log import DurableLog
from tests.impl.driver_bench import Bench, Exited


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


SENTENCES = [
    nothing_is_acknowledged_before_it_is_on_disk,
    writes_that_arrive_during_a_write_share_the_next_sync,
    a_failed_fsync_ends_the_process_and_acknowledges_nothing,
    a_full_disk_acknowledges_nothing_and_recovers_when_there_is_space,
    a_full_disk_grants_no_vote,
    the_trace_is_written_before_a_message_leaves,
    a_write_is_in_the_trace_before_its_client_hears,
    what_an_answer_rests_on_is_in_the_trace_before_it,
]


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda sentence: str(sentence.__name__))
def test_the_driver_and_its_disk(sentence: Callable[[], None]) -> None:
    sentence()


def write_and_trust(disk: DiskWrites) -> None:
    """Confirms what it has only queued."""
    writes, disk._writes = disk._writes, []
    if writes:
        disk._confirm(writes)
        disk._busy = True
        disk._runtime.executor.submit(lambda: None, lambda _: None, lambda _: None)


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


@pytest.mark.parametrize(
    ("owner", "name", "mutant", "sentence"),
    [
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
    ],
)
def test_a_broken_driver_is_noticed(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, mutant: object, sentence: Callable[[], None]
) -> None:
    monkeypatch.setattr(owner, name, mutant)
    with pytest.raises((AssertionError, ValueError)):
        sentence()
