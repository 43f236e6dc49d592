"""Invocations paired with their completions.

A process has at most one operation at a time. An operation without a completion, or completed by info, may have taken
effect at any time after its invocation, or never: it is concurrent with everything after it, with later operations of
its own process too (Jepsen's clients go on under a new process number; a history that does not says the same here).
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from model_checks.histories.events import NEMESIS, Event, EventType, History, MalformedHistory

FOREVER = 1 << 62
"""The return position of an operation that may still take effect after the end of the history."""


class Outcome(enum.Enum):
    """How an operation ended."""

    OK = "ok"
    FAIL = "fail"
    INFO = "info"


class Operation(msgspec.Struct, frozen=True, gc=False):
    """One operation. `call` and `ret` are positions in the history (`ret` FOREVER for info); times in ns.

    `argument` is what was invoked, `answer` what came back (None unless ok).
    """

    process: int
    f: str
    key: Any
    argument: Any
    answer: Any
    outcome: Outcome
    call: int
    ret: int
    call_ns: int
    ret_ns: int
    error: Any = None


_OUTCOMES = {EventType.OK: Outcome.OK, EventType.FAIL: Outcome.FAIL, EventType.INFO: Outcome.INFO}


def _operation(invoked: Event, call: int, completion: Event | None, ret: int) -> Operation:
    if completion is None:
        return Operation(
            process=int(invoked.process),
            f=invoked.f,
            key=invoked.key,
            argument=invoked.value,
            answer=None,
            outcome=Outcome.INFO,
            call=call,
            ret=FOREVER,
            call_ns=invoked.time,
            ret_ns=FOREVER,
            error="no completion was recorded",
        )
    outcome = _OUTCOMES[completion.type]
    info = outcome is Outcome.INFO
    return Operation(
        process=int(invoked.process),
        f=invoked.f,
        key=invoked.key if invoked.key is not None else completion.key,
        argument=invoked.value,
        answer=completion.value if outcome is Outcome.OK else None,
        outcome=outcome,
        call=call,
        ret=FOREVER if info else ret,
        call_ns=invoked.time,
        ret_ns=FOREVER if info else completion.time,
        error=completion.error,
    )


def pair(history: History) -> list[Operation]:
    """The operations of `history` in order of invocation; nemesis events are left out.

    Raises MalformedHistory when a process completes what it did not invoke, or invokes while something of its own is
    open.
    """
    open_calls: dict[int, tuple[Event, int]] = {}
    found: list[Operation] = []
    for position, event in enumerate(history.events):
        process = event.process
        if process.__class__ is str:
            if process != NEMESIS:
                raise MalformedHistory(
                    history.lines[position], f'process {process!r} is neither a number nor "nemesis"'
                )
            continue
        assert isinstance(process, int)
        if event.type is EventType.INVOKE:
            if process in open_calls:
                cause = f"process {process} invokes {event.f!r} but its {open_calls[process][0].f!r} is still open"
                raise MalformedHistory(history.lines[position], cause)
            open_calls[process] = (event, position)
            continue
        invoked = open_calls.pop(process, None)
        if invoked is None or invoked[0].f != event.f:
            what = "nothing" if invoked is None else repr(invoked[0].f)
            cause = f"process {process} completes {event.f!r} but has invoked {what}"
            raise MalformedHistory(history.lines[position], cause)
        found.append(_operation(invoked[0], invoked[1], event, position))
    found += [_operation(event, position, None, FOREVER) for event, position in open_calls.values()]
    found.sort(key=lambda operation: operation.call)
    return found


def by_key(operations: list[Operation]) -> dict[Any, list[Operation]]:
    """P-compositionality (Horn and Kroening 2015): keys are independent objects, so each is checked alone."""
    keys: dict[Any, list[Operation]] = {}
    for operation in operations:
        key = operation.key if isinstance(operation.key, str | int | None) else msgspec.json.encode(operation.key)
        keys.setdefault(key, []).append(operation)
    return keys
