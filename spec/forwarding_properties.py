"""What forwarding promises, over what clients asked and were told, and what was committed.

Sources: Consul, "Consistency modes"; Herlihy and Wing 1990 (linearizability). Each property has a mutant that breaks
it (`model_checks/explore/forwarding_mutants.py`).
"""

from __future__ import annotations

import msgspec

from spec.forwarding import AgentName, Answer, Answered, Entry, Mode, Request


class Observed(msgspec.Struct, frozen=True, cache_hash=True):
    """What properties may speak of: a history of what clients asked and were told, and what was committed."""

    answers: tuple[Answered, ...]
    log: tuple[Request, ...]
    """What each entry carries: entry n is the n-th appended."""
    committed: tuple[Entry, ...]
    asked: tuple[tuple[Request, int], ...]
    """Requests, each with the number of entries that were committed when its client asked."""
    paths: tuple[tuple[AgentName, ...], ...]
    """For each call sent its path, callee included."""
    leases_hold: bool = True
    """Whether the register keeps promise 4."""

    def carries(self, request: Request) -> int:
        """How many committed entries carry this request."""
        return sum(self.log[entry - 1] == request for entry in self.committed)


def applied_at_most_once(seen: Observed) -> bool:
    """Forwarding and its retries never apply a write twice."""
    return all(seen.carries(seen.log[entry - 1]) == 1 for entry in seen.committed)


def acknowledged_means_committed(seen: Observed) -> bool:
    """A write whose client was told that it happened has been committed."""
    return all(
        seen.carries(told.request)
        for told in seen.answers
        if told.request.writes and told.answer == Answer.ACKNOWLEDGED
    )


def refused_means_never_committed(seen: Observed) -> bool:
    """A write whose client was told that it did not happen is never committed, now or later."""
    return not any(seen.carries(told.request) for told in seen.answers if told.answer == Answer.REFUSED)


def answered_at_most_once(seen: Observed) -> bool:
    """A client gets one answer."""
    return len({told.request for told in seen.answers}) == len(seen.answers)


def sent_on_at_most_twice(seen: Observed) -> bool:
    """From a client agent to a server and from that to the leader: no longer path, no agent twice."""
    return all(len(path) <= 3 and len(set(path)) == len(path) for path in seen.paths)


def reads_answer_a_prefix(seen: Observed) -> bool:
    """A read of any mode is answered from the state after some prefix of what is committed."""
    return all(told.seen == seen.committed[: len(told.seen)] for told in seen.answers)


def consistent_reads_are_linearizable(seen: Observed) -> bool:
    """A `consistent` read sees all that was committed when its client asked.

    That is linearizability, with `reads_answer_a_prefix`: order writes as they were committed, and each read behind
    the last entry that it saw. What ended before the read was asked (a write that was acknowledged, a read that saw
    it) stands before it, since it was committed by then; what was asked after the read ended stands behind it, since
    nothing is committed before it is asked.
    """
    return fresh(seen, Mode.CONSISTENT)


def default_reads_are_linearizable(seen: Observed) -> bool:
    """The same of `default` reads, as long as the register keeps promise 4."""
    return not seen.leases_hold or fresh(seen, Mode.DEFAULT)


def fresh(seen: Observed, mode: Mode) -> bool:
    """Whether every acknowledged read of this mode saw all that was committed when it was asked."""
    floors = dict(seen.asked)
    reads = (told for told in seen.answers if not told.request.writes and told.request.mode is mode)
    return all(len(told.seen) >= floors[told.request] for told in reads if told.answer == Answer.ACKNOWLEDGED)


PROPERTIES = (
    applied_at_most_once,
    acknowledged_means_committed,
    refused_means_never_committed,
    answered_at_most_once,
    sent_on_at_most_twice,
    reads_answer_a_prefix,
    consistent_reads_are_linearizable,
    default_reads_are_linearizable,
)
