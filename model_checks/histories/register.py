"""A register's history as the search needs it: small integers for values, one action an operation.

A register starts as null. A read takes effect only while the register holds its answer; a write replaces the value; a
cas [old, new] that is ok held old and wrote new. What never takes effect leaves no action: `fail` operations (they
did not happen, and say nothing about the state) and reads without an answer. What *may* take effect (info writes and
cas) is optional.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Any

import msgspec

from model_checks.histories.operations import FOREVER, Operation, Outcome

READ, WRITE, CAS = 0, 1, 2
"""The kinds of action. Plain integers: the search compares them millions of times."""
NULL = 0
"""The number of the value null, which a register holds at first."""

UNJUDGED = frozenset({"stale-read", "default-read"})
"""Reads that asked for a consistency that promises nothing about the present (Consul's `stale` and `default`). They
stand
in a history, and only conformance can judge them: is the answer that of a prefix of the log?"""


class Model(enum.StrEnum):
    """What `check history --model` knows. A cas-register is a register whose clients also check-and-set; `lock` is
    judged by `locks`, `registry` by the module of that name.
    """

    REGISTER = "register"
    CAS_REGISTER = "cas-register"
    SET = "set"
    LOCK = "lock"
    REGISTRY = "registry"


class UnknownOperation(ValueError):
    """An operation that the chosen model does not have, or whose value it cannot read. The text names it."""


class Action(msgspec.Struct, frozen=True, gc=False):
    """What an operation does to the register if it takes effect. `optional`: it may also never take effect.

    `expected` is the value that a read or a cas must find (-1 for a write); `produced` the one that it leaves (-1 for
    a read).
    """

    kind: int
    expected: int
    produced: int
    call: int
    ret: int
    operation: Operation

    @property
    def optional(self) -> bool:
        """Whether nobody knows if this action took effect."""
        return self.ret == FOREVER


class _Values:
    """Gives each distinct JSON value a small number."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {None: NULL}

    def number(self, value: Any) -> int:
        # True == 1 in Python and not in JSON; lists and objects are not hashable.
        plain = value.__class__ is int or value.__class__ is str or value is None
        name = value if plain else msgspec.json.encode(value, order="sorted")
        return self._numbers.setdefault(name, len(self._numbers))


def actions(operations: Iterable[Operation], model: Model) -> list[Action]:
    """The actions of one key's operations, in order of invocation. Raises UnknownOperation."""
    values = _Values()
    found: list[Action] = []
    for operation in operations:
        if operation.outcome is Outcome.FAIL or operation.f in UNJUDGED:
            continue
        match operation.f:
            case "read":
                if operation.outcome is Outcome.OK:
                    answer = values.number(operation.answer)
                    found.append(Action(READ, answer, -1, operation.call, operation.ret, operation))
            case "write":
                written = values.number(operation.argument)
                found.append(Action(WRITE, -1, written, operation.call, operation.ret, operation))
            case "cas" if model is Model.CAS_REGISTER:
                argument = operation.argument
                if not isinstance(argument, list) or len(argument) != 2:
                    raise UnknownOperation(
                        f"process {operation.process}: the value of a cas is [old, new], not {argument!r}"
                    )
                old, new = values.number(argument[0]), values.number(argument[1])
                found.append(Action(CAS, old, new, operation.call, operation.ret, operation))
            case other:
                raise UnknownOperation(
                    f"the model {model.value} has no operation {other!r} (process {operation.process})"
                )
    return found
