"""The real world: timers, the disk thread, tasks whose failure ends the process, sockets that end with it."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest

from impl.runtime.interfaces import MILLISECONDS, NANOSECONDS, Connection, Runtime
from impl.runtime.real import run
from tests.impl.rpc_ends import until


def in_the_real_world(test: Callable[[Runtime], Coroutine[Any, Any, int]]) -> int:
    return run(test)


class Echo:
    """Answers with what came; remembers."""

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.received = b""
        self.lost: list[Exception | None] = []

    def connection_made(self, connection: Connection) -> None:
        self.connection = connection

    def data_received(self, data: bytes) -> None:
        self.received += data
        assert self.connection is not None
        if data == b"ping":
            self.connection.write(b"pong")

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.append(error)


def test_run_returns_what_main_returns() -> None:
    async def main(runtime: Runtime) -> int:
        return 7

    assert in_the_real_world(main) == 7


def test_timers_run_in_order_of_time_and_not_when_cancelled() -> None:
    async def main(runtime: Runtime) -> int:
        ran: list[str] = []
        start = runtime.clock.monotonic_ns()
        runtime.clock.call_later(20 * MILLISECONDS, lambda: ran.append("later"))
        runtime.clock.call_later(5 * MILLISECONDS, lambda: ran.append("sooner"))
        runtime.clock.call_soon(lambda: ran.append("soon"))
        runtime.clock.call_later(10 * MILLISECONDS, lambda: ran.append("never")).cancel()
        await until(runtime, lambda: len(ran) == 3)
        assert ran == ["soon", "sooner", "later"]
        assert runtime.clock.monotonic_ns() - start >= 19 * MILLISECONDS
        return 0

    assert in_the_real_world(main) == 0


def test_blocking_work_runs_in_order_off_the_loop_and_is_answered_on_it() -> None:
    async def main(runtime: Runtime) -> int:
        loop_thread, order = threading.get_ident(), list[object]()
        threads: set[int] = set()

        def work(number: int) -> int:
            threads.add(threading.get_ident())
            if number == 3:
                raise OSError(28, "No space left on device")
            return number

        def answered(result: object) -> None:
            assert threading.get_ident() == loop_thread
            order.append(result)

        for number in range(6):
            runtime.executor.submit(partial(work, number), answered, lambda error: answered(str(error)))
        await until(runtime, lambda: len(order) == 6)
        assert order == [0, 1, 2, "[Errno 28] No space left on device", 4, 5]
        assert len(threads) == 1
        assert loop_thread not in threads
        return 0

    assert in_the_real_world(main) == 0


def test_a_task_that_fails_ends_the_process_with_its_reason() -> None:
    async def main(runtime: Runtime) -> int:
        async def fail() -> None:
            raise RuntimeError("a defect in a task")

        runtime.tasks.spawn(fail(), "fail")
        await runtime.clock.sleep(60 * NANOSECONDS)
        return 0

    with pytest.raises(RuntimeError, match="a defect in a task"):
        in_the_real_world(main)


def test_a_callback_that_fails_ends_the_process_with_its_reason() -> None:
    async def main(runtime: Runtime) -> int:
        def fail() -> None:
            raise RuntimeError("a defect in a callback")

        runtime.clock.call_soon(fail)
        await runtime.clock.sleep(60 * NANOSECONDS)
        return 0

    with pytest.raises(RuntimeError, match="a defect in a callback"):
        in_the_real_world(main)


def test_a_connection_carries_bytes_both_ways_and_each_end_hears_the_close() -> None:
    async def main(runtime: Runtime) -> int:
        accepted, dialled = Echo(), Echo()
        listener = await runtime.network.listen(("127.0.0.1", 0), lambda: accepted)
        runtime.network.dial(listener.address, dialled, NANOSECONDS, lambda error: pytest.fail(str(error)))
        await until(runtime, lambda: dialled.connection and accepted.connection)
        assert dialled.connection is not None
        assert accepted.connection is not None
        assert dialled.connection.remote == listener.address == accepted.connection.local
        dialled.connection.write(b"ping")
        await until(runtime, lambda: dialled.received == b"pong")
        dialled.connection.close()
        await until(runtime, lambda: accepted.lost and dialled.lost)
        assert (accepted.lost, dialled.lost) == ([None], [None])
        dialled.connection.write(b"after the end")
        listener.close()
        return 0

    assert in_the_real_world(main) == 0


def test_a_refused_or_cancelled_attempt_is_told_once_or_never() -> None:
    async def main(runtime: Runtime) -> int:
        listener = await runtime.network.listen(("127.0.0.1", 0), Echo)
        address = listener.address
        given_up, failures = Echo(), list[OSError]()
        runtime.network.dial(address, given_up, NANOSECONDS, failures.append).cancel()
        listener.close()
        refused = Echo()
        await runtime.clock.sleep(MILLISECONDS)
        runtime.network.dial(address, refused, NANOSECONDS, failures.append)
        await until(runtime, lambda: failures)
        assert isinstance(failures[0], ConnectionRefusedError)
        assert (len(failures), given_up.connection, refused.connection) == (1, None, None)
        return 0

    assert in_the_real_world(main) == 0


def test_what_is_left_open_is_closed_at_the_end_even_if_it_starts_new_timers() -> None:
    left = Echo()

    async def main(runtime: Runtime) -> int:
        def again() -> None:
            runtime.clock.call_later(MILLISECONDS, again)

        again()
        listener = await runtime.network.listen(("127.0.0.1", 0), Echo)
        runtime.network.dial(listener.address, left, NANOSECONDS, lambda error: pytest.fail(str(error)))
        await until(runtime, lambda: left.connection)
        return 0

    assert in_the_real_world(main) == 0
    assert len(left.lost) == 1


def test_signals_are_answered_on_the_loop() -> None:
    async def main(runtime: Runtime) -> int:
        arrived: list[str] = []
        runtime.host.on_signal("SIGHUP", lambda: arrived.append("SIGHUP"))
        signal.raise_signal(signal.SIGHUP)
        await until(runtime, lambda: arrived)
        return len(arrived)

    assert in_the_real_world(main) == 1


def test_a_connection_whose_time_ran_out_just_as_it_was_made_is_lost_and_says_so() -> None:
    """Found by `chaos test` with seed 21: when create_connection is cancelled between connection_made and its return,
    uvloop closes the transport without a word. Its owner took it for alive, and the next ping raised."""
    peer = Echo()
    failed: list[OSError] = []

    async def main(runtime: Runtime) -> int:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            runtime.network.dial(listening.getsockname(), peer, 20 * MILLISECONDS, failed.append)

            def keep_the_loop_busy() -> None:
                # Meanwhile the connection is made and its time runs out: the loop learns both at once.
                busy_until = runtime.clock.monotonic_ns() + 60 * MILLISECONDS
                while runtime.clock.monotonic_ns() < busy_until:
                    pass

            runtime.clock.call_soon(keep_the_loop_busy)
            await until(runtime, lambda: bool(failed or peer.lost))
        assert (peer.connection is not None) == bool(peer.lost), "made, and lost again"
        assert len(failed) + len(peer.lost) == 1, "told once"
        if peer.connection is not None:
            peer.connection.write(b"ping")
            assert peer.connection.buffered() == 0
            peer.connection.abort()
        await runtime.clock.sleep(10 * MILLISECONDS)
        assert len(failed) + len(peer.lost) == 1, "still told once"
        return 0

    assert in_the_real_world(main) == 0
