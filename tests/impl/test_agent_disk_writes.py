"""The way to the disk: the next segment is made ahead, beside the writes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from impl.agent.disk_writes import DiskWrites
from impl.agent.logs import Log
from impl.raft.messages import Entry
from impl.raft.ready import Write
from impl.runtime.interfaces import NANOSECONDS
from impl.runtime.virtual import VirtualWorld
from impl.runtime.virtual_disk import VirtualDisk
from impl.storage.durable_log import DurableLog

DIRECTORY = "/data/raft"
NODE = "00000000-0000-4000-8000-000000000001"
SPARE = "spare.log.new"


class Writing:
    """One server's writes, on a log of short segments."""

    def __init__(self) -> None:
        self.disk = VirtualDisk()
        self.log, _ = DurableLog.open(self.disk, DIRECTORY, NODE, segment_bytes=2048)
        self.world = VirtualWorld(1)
        self.lines: list[str] = []
        self.confirmed: list[int] = []
        runtime = self.world.process("s1", self.disk).runtime
        log = Log(self.lines.append, lambda: 0.0)
        self.writes = DiskWrites(runtime, self.log, log, self._confirm, self.lines.append)

    def _confirm(self, writes: list[Write]) -> None:
        self.confirmed += [write.number for write in writes]

    def write(self, number: int) -> None:
        self.writes.add(Write(number, [Entry(number, 1, b"x" * 300)]))
        self.writes.start()
        self.world.run_for(NANOSECONDS)


def the_next_segment_is_made_ahead() -> None:
    writing = Writing()
    writing.write(1)
    assert SPARE not in writing.disk.names(DIRECTORY)
    for number in range(2, 5):
        writing.write(number)
    assert SPARE in writing.disk.names(DIRECTORY)
    assert writing.confirmed == [1, 2, 3, 4]
    assert writing.lines == []


def test_the_next_segment_is_made_ahead() -> None:
    the_next_segment_is_made_ahead()


def a_defect_while_it_is_made_is_told_and_stops_no_write(patch: pytest.MonkeyPatch) -> None:
    def fails(log: DurableLog) -> None:
        raise ZeroDivisionError("a defect")

    patch.setattr(DurableLog, "make_spare", fails)
    writing = Writing()
    for number in range(1, 20):
        writing.write(number)
    assert writing.confirmed == list(range(1, 20))
    assert "the log's next segment could not be made ahead" in writing.lines[0] and "a defect" in writing.lines[0]


def test_a_defect_while_it_is_made_is_told_and_stops_no_write(monkeypatch: pytest.MonkeyPatch) -> None:
    a_defect_while_it_is_made_is_told_and_stops_no_write(monkeypatch)


def _never_asks(log: DurableLog) -> bool:
    return False


def _always_asks(log: DurableLog) -> bool:
    return True


@pytest.mark.parametrize("mutant", [_never_asks, _always_asks])
def test_a_segment_made_at_the_wrong_time_is_noticed(
    mutant: Callable[[DurableLog], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DurableLog, "wants_spare", mutant)
    with pytest.raises(AssertionError):
        the_next_segment_is_made_ahead()
