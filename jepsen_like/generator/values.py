"""What passes between a generator and the interpreter: contexts, invocations, completions; randomness as a value."""

from __future__ import annotations

import bisect
import enum
import itertools
from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

import msgspec

Option = TypeVar("Option")

Thread: TypeAlias = int | str
"""A number for a client thread; a nemesis's name for its track. A thread does one thing at a time."""

_MASK = (1 << 64) - 1


class Draws(msgspec.Struct, frozen=True):
    """An endless sequence of random numbers that is a value: the same seed and position draw the same number.

    SplitMix64 (Steele, Lea, Flood 2014), a counter run through a mixing function.
    """

    seed: int
    position: int = 0

    def bits(self) -> tuple[int, Draws]:
        """64 random bits, and the draws that follow."""
        z = (self.seed + (self.position + 1) * 0x9E3779B97F4A7C15) & _MASK
        z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) & _MASK
        return z ^ z >> 31, Draws(self.seed, self.position + 1)

    def below(self, bound: int) -> tuple[int, Draws]:
        """A number in [0, bound), and the draws that follow."""
        bits, after = self.bits()
        return bits % bound, after

    def among(self, options: Sequence[Option], weights: Sequence[int]) -> tuple[Option, Draws]:
        """One of `options`, each as likely as its weight, and the draws that follow."""
        number, after = self.below(sum(weights))
        place = bisect.bisect_right(list(itertools.accumulate(weights)), number)
        return options[place], after

    def fork(self, name: str) -> Draws:
        """Draws that are independent of these, chosen by `name`."""
        mixed = self.seed
        for byte in name.encode():
            mixed = Draws(mixed ^ byte).bits()[0]
        return Draws(mixed)


class Invocation(msgspec.Struct, frozen=True):
    """Something to do. `thread` None: any free one; `at_ns` (since the run began) None: now."""

    f: str
    key: Any = None
    value: Any = None
    thread: Thread | None = None
    at_ns: int | None = None
    note: Any = None
    """For the worker; not part of the history."""


class Ending(enum.StrEnum):
    """How an invocation ended: it happened, it certainly did not, nobody knows."""

    OK = "ok"
    FAIL = "fail"
    INFO = "info"


class Completion(msgspec.Struct, frozen=True):
    """What a worker returns. `note` is for generators; not part of the history."""

    ending: Ending
    value: Any = None
    error: str | None = None
    note: Any = None


class Completed(msgspec.Struct, frozen=True):
    """What generators are told when an invocation has ended."""

    invocation: Invocation
    completion: Completion


class Context(msgspec.Struct, frozen=True):
    """What a generator may look at: the time since the run began, all threads, those that are free (both sorted)."""

    now_ns: int
    threads: tuple[Thread, ...]
    free: tuple[Thread, ...]


class Emit(msgspec.Struct, frozen=True):
    """Do this, with its thread and time filled in; then go on with `after`."""

    invocation: Invocation
    after: Generator


class Pending(msgspec.Struct, frozen=True):
    """Nothing can be said before something completes or time passes."""


Answer: TypeAlias = Emit | Pending | None
"""None: exhausted, there will never be anything again."""

PENDING = Pending()


class Generator(Protocol):
    """A pure value that says what to do next."""

    def ask(self, context: Context) -> Answer:
        """What to do next. The interpreter may discard the answer and ask again later."""

    def update(self, context: Context, event: Completed) -> Generator:
        """This generator, having learnt that something completed."""
