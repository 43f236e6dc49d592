"""A set into which elements are added and which is read as a whole: Jepsen's set-full (jepsen.checker, Kingsbury).

The words, for one element:

known       its add was acknowledged, or a read that completed has shown it; from then on it must be there
stable      some read shows it, and every read invoked after that one does, too
lost        known, and gone: a read invoked after it was known misses it, and no later read shows it
stale       known, missed by a read invoked after it was known, and shown by a later one
never read  acknowledged or not, but no read that was invoked after it was known could tell
duplicated  shown more than once by one read
unexpected  shown by a read though nobody had begun to add it, or only adds that certainly failed

Lost, duplicated and unexpected elements are INVALID. Stale ones are INVALID unless the reader asked for a consistency
that permits them (Jepsen's `linearizable?`). If no element is stable nothing was learnt: UNKNOWN.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec

from model_checks.histories.operations import FOREVER, Operation, Outcome
from model_checks.histories.register import UnknownOperation


class SetResult(msgspec.Struct, kw_only=True):
    """Elements by what became of them, each list in the order in which the elements were first added."""

    attempted: int
    acknowledged: int
    stable: int
    lost: list[Any]
    stale: list[Any]
    never_read: list[Any]
    duplicated: list[Any]
    unexpected: list[Any]
    witnesses: dict[str, Operation]
    """For each element with which something is wrong (as JSON), a read that shows it: the last that missed it, or the
    first that showed it wrongly."""


def _name(value: Any) -> Any:
    return value if value.__class__ in (int, str) else msgspec.json.encode(value, order="sorted")


def _events(operations: Iterable[Operation]) -> list[tuple[int, int, Operation]]:
    """(position, 0 call or 1 return, operation) in order, of acknowledged adds and of reads that answered."""
    events = []
    for operation in operations:
        if operation.f not in ("add", "read"):
            raise UnknownOperation(f"the model set has no operation {operation.f!r} (process {operation.process})")
        if operation.outcome is Outcome.OK:
            events.append((operation.call, 0, operation))
            events.append((operation.ret, 1, operation))
    return sorted(events, key=lambda event: event[0])


def _shown(read: Operation) -> list[Any]:
    answer = [] if read.answer is None else read.answer
    if not isinstance(answer, list):
        raise UnknownOperation(f"process {read.process}: a read of a set answers a list, not {answer!r}")
    return [_name(element) for element in answer]


def check_set(operations: list[Operation]) -> SetResult:
    """Sort every element into the words above. Raises UnknownOperation. Linear in the sizes of the reads."""
    elements = {_name(o.argument): o.argument for o in operations if o.f == "add"}
    begun: dict[Any, int] = {}  # element -> where its first add that may have happened was invoked
    for operation in operations:
        if operation.f == "add" and operation.outcome is not Outcome.FAIL:
            begun.setdefault(_name(operation.argument), operation.call)
    known: dict[Any, None] = {}  # in the order in which they became known
    known_before: dict[int, int] = {}  # call of a read -> how many elements were known
    last_present: dict[Any, int] = {}
    last_absent: dict[Any, Operation] = {}
    duplicated: dict[Any, Operation] = {}
    unexpected: dict[Any, Operation] = {}
    for _, is_return, operation in _events(operations):
        if operation.f == "add":
            if is_return:
                known.setdefault(_name(operation.argument))
        elif not is_return:
            known_before[operation.call] = len(known)
        else:
            shown = _shown(operation)
            present = set(shown)
            for name in shown:
                if begun.get(name, FOREVER) > operation.ret:
                    unexpected.setdefault(name, operation)
            if len(present) < len(shown):
                for name, count in Counter(shown).items():
                    if count > 1:
                        duplicated.setdefault(name, operation)
            order = list(known)[: known_before.pop(operation.call)]
            for name in order:
                if name not in present and (name not in last_absent or last_absent[name].call < operation.call):
                    last_absent[name] = operation
            for name in shown:
                last_present[name] = max(operation.call, last_present.get(name, -1))
                known.setdefault(name)
    wrong = {name: read for name, read in last_absent.items() if name in begun}
    lost = [name for name in elements if name in wrong and last_present.get(name, -1) < wrong[name].call]
    stale = [name for name in elements if name in wrong and last_present.get(name, -1) > wrong[name].call]
    return SetResult(
        attempted=len(elements),
        acknowledged=len({_name(o.argument) for o in operations if o.f == "add" and o.outcome is Outcome.OK}),
        stable=len((begun.keys() & last_present.keys()) - set(lost)),
        lost=[elements[name] for name in lost],
        stale=[elements[name] for name in stale],
        never_read=[elements[name] for name in elements if name not in last_present and name not in wrong],
        duplicated=[elements.get(name, name) for name in duplicated],
        unexpected=[elements.get(name, name) for name in unexpected],
        witnesses={
            msgspec.json.encode(elements.get(name, name)).decode(): read
            for name, read in [
                *unexpected.items(),
                *duplicated.items(),
                *((name, wrong[name]) for name in [*lost, *stale]),
            ]
        },
    )
