"""The parts of a workload, and the timeouts that its operations get."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from jepsen_like.client.kv import KvClient, Unanswered
from jepsen_like.generator.combinators import Nothing
from jepsen_like.generator.interpreter import Worker
from jepsen_like.generator.values import Completion, Draws, Generator, Thread
from model_checks.histories.register import Model

IMPATIENT_S, PATIENT_S = 0.35, 3.0
PATIENT_ONE_IN = 5
"""Most clients give up soon, so that many operations are tried at a server that is cut off; some wait through an
election.
"""


def timeout_s(thread: int) -> float:
    """How long the client of `thread` waits for an answer."""
    return PATIENT_S if thread % PATIENT_ONE_IN == 0 else IMPATIENT_S


def unanswered(answer: Unanswered, value: Any) -> Completion:
    """The completion of an operation that got no answer, or an error."""
    return Completion(answer.ending, value, answer.error)


class Least(msgspec.Struct, frozen=True):
    """The least that a run must have come to, by a figure of its history's checker, or it is UNKNOWN."""

    figure: str
    per_second: float
    meaning: str
    from_s: float = 10.0
    """Shorter runs need not."""

    def missing(self, figures: Mapping[str, Any], seconds: float) -> str:
        """What is missing in a run of so many seconds; empty if nothing is."""
        least = math.ceil(self.per_second * seconds)
        found = figures.get(self.figure, 0)
        return f"{found} {self.meaning} of at least {least}" if seconds >= self.from_s and found < least else ""


class Workload(msgspec.Struct, frozen=True):
    """A workload by name."""

    name: str
    model: Model
    generator: Callable[[Draws, bool], Generator]
    """Of the draws, and of whether reads that ask for `default` are judged like others."""
    worker: Callable[[KvClient, float], Worker]
    """A worker that uses the client, with this timeout."""
    final_reads: Callable[[Sequence[Any], Sequence[Thread]], Generator]
    """Reads of all `keys`, by one thread of each agent."""
    purpose: str
    """For the list of workloads that people read."""
    least: tuple[Least, ...] = ()
    farewell: Callable[[Sequence[Thread]], Generator] = lambda threads: Nothing()
    """What all threads do when everything is mended, before the final reads."""
