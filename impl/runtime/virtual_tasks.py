"""Coroutines without an event loop: futures and tasks that a virtual world steps.

It must not know time or order: whoever makes it says how to run a callback later.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Callable, Coroutine, Generator
from typing import Any

Soon = Callable[[Callable[[], None]], object]
"""Runs a callback after what is ready now."""


class VirtualFuture:
    """A value that comes later; implements `Future`."""

    def __init__(self, soon: Soon) -> None:
        self._soon = soon
        self._done = False
        self._result: Any = None
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[], None]] = []

    def done(self) -> bool:
        """As `Future.done`."""
        return self._done

    def result(self) -> Any:
        """As `Future.result`."""
        if not self._done:
            raise RuntimeError("the future has no result yet")
        if self._error is not None:
            raise self._error
        return self._result

    def set_result(self, result: Any, /) -> None:
        """As `Future.set_result`."""
        self._finish(result, None)

    def set_exception(self, exception: BaseException, /) -> None:
        """As `Future.set_exception`."""
        self._finish(None, exception)

    def cancel(self) -> bool:
        """As `Future.cancel`."""
        if self._done:
            return False
        self._finish(None, CancelledError())
        return True

    def when_done(self, callback: Callable[[], None]) -> None:
        """Run `callback` soon after it is done."""
        if self._done:
            self._soon(callback)
        else:
            self._callbacks.append(callback)

    def __await__(self) -> Generator[Any, None, Any]:
        if not self._done:
            yield self
        return self.result()

    def _finish(self, result: Any, error: BaseException | None) -> None:
        if self._done:
            raise RuntimeError("the future is done already")
        self._done, self._result, self._error = True, result, error
        for callback in self._callbacks:
            self._soon(callback)


class VirtualTask:
    """A running coroutine; implements `Task`. Failures go to `failed`."""

    def __init__(
        self, coroutine: Coroutine[Any, Any, None], soon: Soon, failed: Callable[[BaseException], None]
    ) -> None:
        self._coroutine = coroutine
        self._soon = soon
        self._failed = failed
        self._waits_for: VirtualFuture | None = None
        self._cancelled = False
        self._started = False
        self._done = False
        soon(self._step)

    def bury(self) -> None:
        """Its process is dead, and it never runs again. Whoever calls this keeps it referenced: collecting it would
        run it."""
        if not self._started:
            self._coroutine.close()

    def done(self) -> bool:
        """As `Task.done`."""
        return self._done

    def cancel(self) -> bool:
        """As `Task.cancel`."""
        if self._done:
            return False
        self._cancelled = True
        if self._waits_for is not None:
            self._waits_for.cancel()
        return True

    def _step(self) -> None:
        self._waits_for = None
        self._started = True
        try:
            if self._cancelled:
                self._cancelled = False
                waits_for = self._coroutine.throw(CancelledError())
            else:
                waits_for = self._coroutine.send(None)
        except (StopIteration, CancelledError):
            self._done = True
        except BaseException as error:
            self._done = True
            self._failed(error)
        else:
            if not isinstance(waits_for, VirtualFuture):
                raise TypeError(f"a task of a virtual world waits for {waits_for!r}, which is not of that world")
            self._waits_for = waits_for
            waits_for.when_done(self._step)
