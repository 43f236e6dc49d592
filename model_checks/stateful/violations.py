"""The properties that the stateful machine checks, and how a violation is told. Names as in the dissertation where it
has one.
"""

from __future__ import annotations

from enum import StrEnum


class Property(StrEnum):
    """What must hold. Ongaro 2014, figure 3.2, sections 3.6, 6.4 and 3.8; ARCHITECTURE.md, section 3."""

    ELECTION_SAFETY = "Election Safety"
    """At most one leader can be elected in a given term."""
    LEADER_APPEND_ONLY = "Leader Append-Only"
    """A leader never overwrites or deletes entries in its log; it only appends."""
    LOG_MATCHING = "Log Matching"
    """If two logs contain an entry with the same index and term, the logs are identical up to that index."""
    LEADER_COMPLETENESS = "Leader Completeness"
    """A committed entry is present in the logs of the leaders of all later terms."""
    STATE_MACHINE_SAFETY = "State Machine Safety"
    """No two servers commit or apply different entries at the same index."""
    COMMITTED_IS_DURABLE = "Committed Is Durable"
    """What is committed is on the disks of a quorum: a power loss everywhere leaves it there."""
    APPLIED_IS_DURABLE = "Applied Is Durable"
    """What a state machine was fed is on its own server's disk."""
    RESTARTS = "Restarts After A Power Loss"
    """Whatever a power loss leaves on a server's disk is a log that it can start from."""
    ONE_VOTE_A_TERM = "One Vote A Term"
    """A server grants its vote to at most one candidate in a term, whatever crashes happen."""
    ACKNOWLEDGED_IS_KEPT = "Acknowledged Is Kept"
    """A write that a client was told of is in every state machine in the end."""
    LINEARIZABLE_READS = "Linearizable Reads"
    """A confirmed read sees everything that was committed when it started."""
    NEVER_GOES_BACK = "Base And Applied Never Go Back"
    """Snapshot and base of a server only grow, over crashes too; what is applied goes back at a restart only."""
    ONE_CHANGE_AT_A_TIME = "One Change At A Time"
    """At most one configuration of any log is uncommitted."""
    SNAPSHOT_OF_COMMITTED = "Snapshots Cover What Is Committed"
    """A snapshot, taken or installed, stands for committed entries, and for all of them up to its index."""
    CONFORMANCE = "Conformance"
    """Every step of a core is a step of the spec, from the spec's own state."""
    LIVENESS = "Liveness After Healing"
    """Once all servers run and hear each other, the members elect a leader and agree on a log within a bounded time;
    nobody who was removed disturbs them then; and a transfer ends in bounded time.
    """
    NO_EXCEPTION = "No Exception"
    """No input makes a core fail."""


class Violation(AssertionError):
    """`property` does not hold, because of what the text says."""

    def __init__(self, broken: Property, text: str) -> None:
        super().__init__(f"{broken.value}: {text}")
        self.property = broken
        self.text = text
