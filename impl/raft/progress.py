"""What a leader knows of one peer, and what it may send it next.

A peer is *probed* until it has answered: one slice at a time, at the index where the logs are believed to meet. Then
it is *replicated to*: slices are sent without waiting for answers, within the limits on what is in flight. A
rejection or a lost connection leads back to probing. A peer that lacks what the leader's log has forgotten is sent a
*snapshot*, and meanwhile nothing but heartbeats. Source: etcd-io/raft, package tracker (there: StateProbe,
StateReplicate, StateSnapshot, Inflights).
"""

from __future__ import annotations

from collections import deque

NEVER = -(1 << 62)


class Progress:
    """One peer's progress in the current term of a leader."""

    __slots__ = (
        "_inflight",
        "acked_round",
        "answered_at",
        "inflight_bytes",
        "match_index",
        "message_due",
        "next_index",
        "pending_snapshot",
        "probe_due",
        "probed",
        "replicating",
        "sent_commit",
        "snapshot_due",
        "snapshot_sent_at",
    )

    def __init__(self, next_index: int) -> None:
        self.match_index = 0
        """The peer's disk holds the leader's log up to here."""
        self.acked_round = 0
        """Highest confirmation round that the peer answered."""
        self.answered_at = NEVER
        """The tick of its latest answer."""
        self.next_index = next_index
        """First entry of the next slice. While replicating it runs ahead of the answers."""
        self.replicating = False
        self.probe_due = True
        """Send a probe with entries at once: something happened that makes an answer likely."""
        self.probed = 0
        """Last index of the slice that was sent as a probe."""
        self.message_due = False
        """Send something, even without entries: heartbeat, confirmation round or commit index."""
        self.sent_commit = 0
        self.snapshot_due = False
        """Send the newest snapshot as soon as there is one."""
        self.pending_snapshot = 0
        """Index of the snapshot that is on its way; 0: none."""
        self.snapshot_sent_at: int | None = None
        """The tick at which it had arrived: the peer's acknowledgement follows."""
        self._inflight: deque[tuple[int, int]] = deque()
        """(last index, bytes) of each slice sent and not yet acknowledged, in order."""
        self.inflight_bytes = 0

    def sent(self, last: int, size: int) -> None:
        """A slice that ends at `last`, of `size` bytes, was sent while replicating."""
        self.next_index = last + 1
        self._inflight.append((last, size))
        self.inflight_bytes += size

    def may_send(self, messages_max: int, bytes_max: int) -> bool:
        """Whether another slice may be sent before an answer arrives."""
        return len(self._inflight) < messages_max and self.inflight_bytes < bytes_max

    def acknowledge(self, match_index: int) -> None:
        """The peer holds everything up to `match_index`: stop probing.

        The entries of the probe itself are on their way to its disk, most likely: a later rejection tells if not.
        """
        self.match_index = max(self.match_index, match_index)
        self.snapshot_due = False
        if self.pending_snapshot:
            if self.match_index < self.pending_snapshot:
                return
            self.no_snapshot()
        if not self.replicating:
            self.replicating = True
            self.next_index = max(self.match_index, self.probed) + 1
            return
        self.next_index = max(self.next_index, self.match_index + 1)
        inflight = self._inflight
        while inflight and inflight[0][0] <= self.match_index:
            self.inflight_bytes -= inflight.popleft()[1]

    def is_stale_rejection(self, rejected: int) -> bool:
        """Whether a rejection of the slice after index `rejected` says nothing new: it was overtaken."""
        if rejected <= self.match_index or self.pending_snapshot:
            return True
        return not self.replicating and rejected != self.next_index - 1

    def send_snapshot(self, index: int) -> None:
        """The snapshot up to `index` is on its way: nothing else is until the peer has it."""
        self.probe(index + 1)
        self.pending_snapshot = index
        self.snapshot_sent_at = None

    def no_snapshot(self) -> None:
        """No snapshot is on its way, and none is wanted: it arrived, or was lost."""
        self.snapshot_due = False
        self.pending_snapshot = 0
        self.snapshot_sent_at = None

    def probe_again(self) -> None:
        """The connection closed, or is new: find out anew where the logs meet, unless a snapshot is on its way."""
        if not self.pending_snapshot:
            self.probe(self.match_index + 1 if self.match_index else self.next_index)

    def probe(self, next_index: int) -> None:
        """Find out anew where the logs meet: first guess, just before `next_index`. What was in flight may be lost."""
        self.replicating = False
        self.probed = 0
        self.next_index = max(next_index, self.match_index + 1)
        self._inflight.clear()
        self.inflight_bytes = 0
