"""On the real loop: what a socket already holds is read before an election timeout is acted on."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest

from impl.agent.driver import Driver
from impl.runtime.interfaces import MILLISECONDS, Connection, Runtime
from impl.runtime.real import run


class Recorder:
    """A receiver that notes when data came."""

    def __init__(self, order: list[str], made: Callable[[Connection], None]) -> None:
        self._order = order
        self._made = made

    def connection_made(self, connection: Connection) -> None:
        self._made(connection)

    def data_received(self, data: bytes) -> None:
        self._order.append("message")

    def connection_lost(self, error: Exception | None) -> None:
        pass


class Timeout:
    """As much of a driver as `_poll_before_tick` needs."""

    _poll_is_next = Driver._poll_is_next

    def __init__(self, runtime: Runtime, order: list[str], acted: Callable[[], None]) -> None:
        self._clock = runtime.clock
        self._order = order
        self._acted = acted

    def _tick_after_poll(self) -> None:
        self._order.append("election")
        self._acted()


def order_of_a_message_and_a_timeout() -> list[str]:
    """Both are due when a process that was paused goes on; the message has waited in the kernel."""
    order: list[str] = []

    async def main(runtime: Runtime) -> int:
        done = runtime.tasks.future()
        accepted = runtime.tasks.future()
        listener = await runtime.network.listen(("127.0.0.1", 0), lambda: Recorder(order, accepted.set_result))
        with socket.create_connection(listener.address) as leader:
            await accepted
            timeout: Any = Timeout(runtime, order, lambda: done.set_result(None))
            # Two timers are due at once; the message arrives while the first runs, as if the process were paused there.
            runtime.clock.call_later(5 * MILLISECONDS, lambda: leader.sendall(b"I lead"))
            runtime.clock.call_later(6 * MILLISECONDS, lambda: Driver._poll_before_tick(timeout))
            resumed = runtime.clock.monotonic_ns() + 20 * MILLISECONDS
            while runtime.clock.monotonic_ns() < resumed:
                pass
            await done
        listener.close()
        return 0

    run(main)
    return order


def test_a_message_that_waited_in_the_kernel_comes_before_the_election() -> None:
    assert [order_of_a_message_and_a_timeout() for _ in range(5)] == [["message", "election"]] * 5


@pytest.mark.parametrize(
    "mutant",
    [lambda driver: driver._tick_after_poll(), lambda driver: driver._clock.call_soon(driver._tick_after_poll)],
    ids=["at once", "before the poll"],
)
def test_an_election_that_does_not_wait_for_the_poll_is_noticed(
    monkeypatch: pytest.MonkeyPatch, mutant: Callable[[Any], object]
) -> None:
    monkeypatch.setattr(Driver, "_poll_before_tick", mutant)
    assert ["election"] in [order_of_a_message_and_a_timeout()[:1] for _ in range(5)]
