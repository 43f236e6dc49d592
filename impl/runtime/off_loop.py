"""Blocking work that somebody waits for: `Executor.submit` as a future."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from impl.runtime.interfaces import Future, Runtime, T


def off_loop(runtime: Runtime, work: Callable[[], T]) -> Future[T]:
    """Blocking work in the executor, behind what is queued there."""
    ended: Future[T] = runtime.tasks.future()

    def settle(set_outcome: Callable[[], None]) -> None:
        if not ended.done():  # whoever waited may have been cancelled
            set_outcome()

    runtime.executor.submit(
        work,
        lambda result: settle(partial(ended.set_result, result)),
        lambda error: settle(partial(ended.set_exception, error)),
    )
    return ended


def ignore(_: object) -> None:
    """For `Executor.submit`: nothing depends on how the work ends."""
