"""The border between a schedule and what it drives: in memory here (`world`); a cluster of processes could stand
behind it too.

It must not know who chooses the schedule, nor how the cluster is built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from impl.raft.messages import Message
from impl.raft.ready import SnapshotMeta
from model_checks.stateful.node import Content


class Envelope(msgspec.Struct, frozen=True):
    """A message on its way."""

    id: str
    source: str
    to: str
    message: Message
    frame: int
    """Checksum of its wire form."""
    file: tuple[Content, SnapshotMeta] | None = None
    """What travels beside an InstallSnapshotRequest."""


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What a cluster is made of."""

    servers: int
    """Members of the genesis."""
    spare: int = 0
    """Further servers, who may join."""
    seed: int = 1
    """Of election timeouts and of how clocks drift."""
    batch: int = 512
    """Entries in one AppendEntriesRequest, at most."""
    trailing: int = 2
    """Entries that are kept before a snapshot."""
    pre_vote: bool = True
    """Whether nobody campaigns before a quorum would vote for it."""

    def __str__(self) -> str:
        voting = "yes" if self.pre_vote else "no"
        return (
            f"servers {self.servers} spare {self.spare} seed {self.seed} batch {self.batch} trailing {self.trailing} "
            f"pre-vote {voting}"
        )


class SystemUnderTest(Protocol):
    """What a schedule may do to a cluster, and what it may see of it. Each act may raise Violation."""

    @property
    def transcript(self) -> Sequence[str]:
        """What was done so far, as a schedule."""

    @property
    def counts(self) -> Mapping[str, int]:
        """How often each kind of thing happened."""

    @property
    def names(self) -> tuple[str, ...]:
        """The servers."""

    @property
    def in_flight(self) -> Sequence[Envelope]:
        """Messages that may be delivered."""

    def is_up(self, name: str) -> bool:
        """Whether the server runs."""

    def leaders(self) -> list[str]:
        """The servers that believe that they lead."""

    def tick(self, name: str, count: int) -> None:
        """Time passes: at one server for its timers, at all of them for their clocks."""

    def pass_time(self, count: int) -> None:
        """Time passes everywhere."""

    def wait(self, milliseconds: int) -> None:
        """Time passes for the clocks only: no server gets to run its timers."""

    def timeout(self, name: str) -> None:
        """Time passes at one server until it stands for election."""

    def deliver(self, envelope: Envelope, *, keep: bool = False) -> None:
        """Deliver a message; `keep` it, so that it can be delivered again."""

    def lose(self, envelope: Envelope) -> None:
        """Lose a message."""

    def propose(self, name: str, texts: Sequence[str]) -> None:
        """A client writes."""

    def read(self, name: str, read_id: str) -> None:
        """A client reads; the leader proves that it leads."""

    def lease_read(self, name: str, read_id: str) -> None:
        """A client reads; the leader relies on its lease, if it has one."""

    def change(self, what: str, name: str, server: str) -> None:
        """Ask `name` to `add`, `remove`, `promote` or `demote` another server."""

    def transfer(self, name: str, to: str | None = None) -> None:
        """Ask a server to hand its leadership over."""

    def step_down(self, name: str) -> None:
        """Ask a server to lead no more."""

    def ended(self, name: str, peer: str) -> None:
        """A server gets evidence that the latest process of a peer that ended did so."""

    def snapshot(self, name: str) -> None:
        """A server takes a snapshot."""

    def append(self, name: str, count: int) -> None:
        """The disk is given some of the server's writes."""

    def sync(self, name: str) -> None:
        """The disk confirms what it was given."""

    def spare(self, name: str, steps: int) -> None:
        """Another thread makes the log's next segment ahead."""

    def fail_power(self, name: str, changes: int, keep: int, torn_bytes: int) -> None:
        """Power loss, after some more changes of the disk: in the middle of a call, perhaps."""

    def crash(self, name: str, keep: int, torn_bytes: int) -> None:
        """Power loss: of what was not confirmed, a prefix survives."""

    def scatter(self, name: str, seed: int) -> None:
        """Power loss: of what was not confirmed, any sectors survive."""

    def restart(self, name: str) -> None:
        """Start a crashed server."""

    def cut(self, source: str, to: str) -> None:
        """From now on no message gets from `source` to `to`."""

    def heal(self) -> None:
        """Undo every cut; no power is about to fail any more."""

    def connected(self, name: str, peer: str) -> None:
        """The server is told that it has a connection to a peer."""

    def disconnected(self, name: str, peer: str) -> None:
        """The server is told that a connection with a peer closed."""

    def hold(self, name: str) -> None:
        """The driver of a server is slow: inputs gather until `release`."""

    def release(self, name: str) -> None:
        """It is no longer."""

    def flush(self, name: str) -> None:
        """The disk does everything that is asked of it."""

    def settle(self) -> None:
        """Disks write and messages arrive, in order, until nothing moves."""

    def heal_and_check(self) -> None:
        """The end: everything recovers within a bounded time, with nothing acknowledged lost."""
