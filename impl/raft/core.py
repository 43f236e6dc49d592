"""The core: inputs in, `Ready` out. What a driver holds.

The core does no I/O and knows neither time nor threads: everything it learns is an input, everything it wants is in `ready()`.
It must be called from one thread. After each input, or a batch of inputs, the driver calls `ready()` while `has_ready()`.
Source: etcd-io/raft (`Step`, `Tick`, `Ready`); the actions are those of ARCHITECTURE.md, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from impl.raft.messages import Message
from impl.raft.ready import Ready, Role
from impl.raft.settings import Random, Restored, Settings


class Core:
    """One server of the cluster `voters` (node names, in any order, with `settings.name` among them)."""

    def __init__(
        self, settings: Settings, voters: Sequence[str], restored: Restored, random: Random, *, trace: bool
    ) -> None:
        raise NotImplementedError

    role: Role
    term: int
    leader_id: str | None
    commit_index: int
    last_applied: int
    last_index: int

    def trace_state(self) -> list[Any]:
        """The state array of a trace line (ARCHITECTURE.md, section 5); at the start, the header's `state`."""
        raise NotImplementedError

    @property
    def election_due(self) -> bool:
        """Whether the next `tick` starts an election: the driver reads its sockets once more before that tick."""
        raise NotImplementedError

    def tick(self) -> None:
        """10 ms passed."""
        raise NotImplementedError

    def step(self, source: str, message: Message, message_id: str = "", frame: int = 0) -> None:
        """A message of `source` arrived; `message_id` and `frame` (its frame's CRC-32) are for the trace."""
        raise NotImplementedError

    def propose(self, payloads: Sequence[bytes]) -> tuple[int, int]:
        """Append entries; returns (index of the first, term). Raises NotLeader, Overloaded: nothing was appended."""
        raise NotImplementedError

    def read(self, read_id: str) -> None:
        """Ask for a linearizable read; `Ready.reads` or `Ready.failed_reads` answers. Raises NotLeader, NotReady, Overloaded."""
        raise NotImplementedError

    def persisted(self, number: int) -> None:
        """The disk holds every write up to `number`."""
        raise NotImplementedError

    def peer_connected(self, peer: str) -> None:
        """Messages to `peer` may get through from now on; those sent before may be lost."""
        raise NotImplementedError

    def peer_lost(self, peer: str) -> None:
        """A connection to or from `peer` closed (its process died, perhaps)."""
        raise NotImplementedError

    def has_ready(self) -> bool:
        """Whether `ready()` would say anything."""
        raise NotImplementedError

    def ready(self) -> Ready:
        """Everything to be done now, once. The driver carries it out in the order of `Ready`'s fields.

        `apply` and `answer_read` are recorded here: what is handed out in `committed` counts as applied.
        """
        raise NotImplementedError
