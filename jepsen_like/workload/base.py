"""The parts of a workload, and the timeouts that its operations get."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from jepsen_like.client.kv import KvClient, Unanswered
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
