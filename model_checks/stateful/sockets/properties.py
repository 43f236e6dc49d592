"""What a history must keep, and what is raised when it does not."""

from __future__ import annotations

from enum import StrEnum


class Property(StrEnum):
    """What a history must keep."""

    FORM = "answers have the documented form"
    RESULT = "a write is told its result"
    LOGGED = "an acknowledged write is in the log once, and a refused one is not"
    CURRENT = "a read is answered from the state of the moment"
    INDEX = "an answer has its index"
    STALE = "a stale read sees a state of the log, and never an older one than before at that server"
    FRESHNESS = "an answer says how fresh it is"
    WOKEN = "a blocking query returns once its index is passed"
    WAITED = "a blocking query returns a state of its wait"
    DELAY = "a lock is not given while its lock-delay lasts, and is after that"
    FORWARD = "the log of the leader never goes back"
    FOLLOWS = "every server applies the log"


class Difference(Exception):
    """The system and the spec differ."""

    def __init__(self, broken: Property, why: str, evidence: tuple[str, ...] = ()) -> None:
        super().__init__(why)
        self.broken = broken
        self.why = why
        self.evidence = evidence
