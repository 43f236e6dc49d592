"""What a checker of compound objects (locks, registries) hands to `check`: objections, and registers to be searched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import msgspec

from model_checks.histories.operations import Operation
from model_checks.histories.register import Model, UnknownOperation

Read = TypeVar("Read")
Index = tuple[int, Operation]
"""A log index that an operation's answer showed."""


class Objection(msgspec.Struct, frozen=True):
    """A broken property, and the operations that show it."""

    property: str
    reason: str
    key: Any
    operations: tuple[Operation, ...]


class Findings(msgspec.Struct, kw_only=True):
    """A history judged, but for its registers."""

    checker: str
    objections: tuple[Objection, ...]
    registers: dict[str, list[Operation]]
    """By name, operations `read` and `write` that must be linearizable."""
    register_property: str
    """What is broken if one of them is not."""
    figures: dict[str, int]
    nothing_learnt: str = ""
    """Why nothing was learnt, if so: UNKNOWN."""


def read_as(operation: Operation, value: Any, kind: type[Read], model: Model) -> Read:
    """The argument or answer `value` of an operation. Raises UnknownOperation."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        cause = f"process {operation.process}: {operation.f} {value!r}: {error}"
        raise UnknownOperation(f"not an operation of the model {model.value}: {cause}") from None


def going_back(shown: Sequence[Index]) -> Iterator[tuple[Index, Index]]:
    """Each index that is lower than one that was answered before its operation was invoked, after that one."""
    by_return = sorted(shown, key=lambda each: each[1].ret)
    newest: Index | None = None
    place = 0
    for index, operation in sorted(shown, key=lambda each: each[1].call):
        while place < len(by_return) and by_return[place][1].ret < operation.call:
            if newest is None or by_return[place][0] > newest[0]:
                newest = by_return[place]
            place += 1
        if newest is not None and index < newest[0]:
            yield newest, (index, operation)
