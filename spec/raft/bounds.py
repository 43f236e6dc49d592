"""Bounds within which exploration is exhaustive. Data only: what a bound cuts off is said here and nowhere else.

Ongaro's model checking bounded terms, log length and messages; here messages need no bound, since a server state has
finitely many messages to send (see `network`), and the disk needs one: how many writes may be under way.
"""

from __future__ import annotations

import msgspec

from spec.raft.types import Configuration, Constants, Index, Term, Time, Value


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one exploration. A step that would leave them is not taken.

    The features beyond chapter 3 are off unless a bound turns them on.
    """

    servers: int = 3
    """Number of servers, named s1, s2, ..."""
    max_term: Term = 2
    """No server times out into, hence no server enters, a higher term."""
    max_log: Index = 1
    """No leader appends beyond this length."""
    max_issued: int = 2
    """Writes that one server may have under way: a step that would issue more waits for the disk."""
    max_restarts: int = 0
    """Crashes of all servers together."""
    values: tuple[Value, ...] = ("x",)
    """What clients propose. One is enough where no two leaders share a term: the term names the leader."""
    reads: tuple[str, ...] = ()
    """Identities of linearizable reads that need a confirmation round; each is asked at most once."""
    lease_reads: tuple[str, ...] = ()
    """Identities of linearizable reads by lease; each is asked at most once."""

    genesis: int = 0
    """How many of the servers, from s1 on, vote in the genesis; 0: all."""
    configurations: tuple[Configuration, ...] = ()
    """What leaders may propose; `allowed_by` is theirs."""
    snapshots: bool = False
    """Whether servers take snapshots and compact their logs."""
    pre_vote: bool = False
    """Whether a campaign needs pre-votes."""
    max_time: Time = 0
    """The clocks stop there."""
    election_timeout: Time = 0
    """As in `Constants`."""
    lease: Time = -1
    """As in `Constants`."""
    max_round: int = 0
    """No leader begins a further round but for a read."""
    steps_down: bool = False
    """Whether leaders give up by themselves."""
    transfers: bool = False
    """Whether leaders transfer their leadership."""

    def constants(self) -> Constants:
        """The constants of a cluster of this size, with these features."""
        servers = tuple(f"s{number}" for number in range(1, self.servers + 1))
        return Constants(
            servers=servers,
            voters=servers[: self.genesis],
            election_timeout=self.election_timeout,
            lease=self.lease,
            pre_vote=self.pre_vote,
        )
