"""What the core asks of its driver: writes, messages, entries to apply, answers, trace events.

One `Ready` is carried out in the order of its fields: write the trace events, start the write, send the messages,
apply the committed entries, answer the reads. Nothing else needs to wait for anything: what depends on the disk is
handed out by a later `Ready`, after `Core.persisted`. Source: etcd-io/raft `Ready`; *Deviation:* messages never wait
for the write that stands beside them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from impl.raft.messages import Entry, InstallSnapshotRequest, Message


class Role(StrEnum):
    """The role of a server in its term (Ongaro 2014, figure 3.3)."""

    FOLLOWER = "follower"
    CANDIDATE = "candidate"
    LEADER = "leader"


class HardState(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A record of the log on disk: from here on, this term and vote are in force."""

    term: int
    voted_for: str | None


class SnapshotMarker(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A record of the log on disk: `file`, which is durable, holds the state machine up to `index`; the entries up to
    `base` are forgotten.

    If the log does not hold an entry of `term` at `index` at or above its base, then it is replaced: nothing is left of
    it but the snapshot, and base == index.
    """

    index: int
    term: int
    base: int
    base_term: int
    configuration: bytes
    """Payload of the configuration in force at `index`."""
    configuration_index: int
    file: str
    """Name of the snapshot file."""
    checksum: str
    """BLAKE2b-256 of the file, in hex."""
    size: int
    """Of the file, in bytes."""
    digest: str = ""
    """Of the log up to `index`, in hex; "" without tracing."""
    base_digest: str = ""
    """Of the log up to `base`, where the chain goes on after a restart."""


class SnapshotMeta(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot file that is durable here: what its header says, and which it is."""

    index: int
    term: int
    configuration: bytes
    """Payload of the configuration in force at `index`."""
    configuration_index: int
    file: str
    checksum: str
    """BLAKE2b-256 of the file, in hex."""
    size: int
    """Of the file, in bytes."""
    digest: str = ""
    """Of the log up to `index`, in hex; "" without tracing."""
    state_digest: str = ""
    """Of the state machine (ARCHITECTURE.md, section 7); "" of a snapshot that was taken by another process."""


Record = HardState | Entry | SnapshotMarker
"""A record of the log on disk. An Entry whose index is not beyond the last one cuts the log there first."""


class Write(msgspec.Struct, frozen=True):
    """Records to append to the log on disk, in order, followed by one sync; then `Core.persisted(number)`.

    Writes are numbered from 1 in each incarnation and must reach the disk in order. Several may be joined into one
    append and sync: `persisted` confirms all writes up to the given one.
    """

    number: int
    records: list[Record]


class StepEvent(msgspec.Struct, frozen=True):
    """Trace: the core took `action`; `state` is its state after it. Both as in ARCHITECTURE.md, section 5.

    `arguments` holds what the line of the trace has beside `seq`, `ns`, `action` and `state`, ready for JSON.
    """

    action: str
    arguments: dict[str, Any]
    state: list[Any]


class IssueEvent(msgspec.Struct, frozen=True):
    """Trace: a write was issued that covers everything before it. `point` is that of ARCHITECTURE.md, section 5."""

    write: int
    point: list[Any]


class SendEvent(msgspec.Struct, frozen=True):
    """Trace: a message leaves; `message` has its fields (an AppendEntriesRequest's entries as last index and digest).

    The driver adds the identity NODE/INCARNATION/sequence and the frame's checksum. The k-th SendEvent of a `Ready`
    stands for the k-th of its `messages`, followed by its `snapshots`.
    """

    sequence: int
    to: str
    action: str
    message: dict[str, Any]


Event = StepEvent | IssueEvent | SendEvent


class ConfirmedRead(msgspec.Struct, frozen=True, gc=False):
    """Leadership was confirmed after the read arrived, and every entry up to `index` is in this or an earlier
    `committed`.
    """

    id: str
    index: int


class FailedRead(msgspec.Struct, frozen=True, gc=False):
    """The read was not confirmed and never will be: this server is no longer the leader of the term it started in."""

    id: str
    reason: str


class LostProposals(msgspec.Struct, frozen=True, gc=False):
    """This server stopped leading `term` with entries first_index..last_index uncommitted: **outcome unknown**.

    They may yet be committed by a successor. When an entry of another term is applied at such an index, that proposal
    was definitely overwritten.
    """

    term: int
    first_index: int
    last_index: int


class TransferFailed(msgspec.Struct, frozen=True, gc=False):
    """Leadership was to be transferred `to` a server that did not take it within an election timeout. This server
    leads on, or stepped down if it is no voter any more.
    """

    to: str
    reason: str


class RoleChange(msgspec.Struct, frozen=True, gc=False):
    """The role, term or known leader changed, and `why`: a text for the log that explains every election and
    step-down.
    """

    role: Role
    term: int
    leader_id: str | None
    why: str


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """The work that the driver must do now, in the order of the fields."""

    events: list[Event]
    """Trace events in order. Must be written (write(2)) before any byte of `messages` and any answer leaves the
    process.
    """
    write: Write | None
    """To be made durable off the event loop. Nothing else in this `Ready` waits for it."""
    messages: list[tuple[str, Message]]
    """(to, message). Already durable, as far as they claim anything: they may leave at once, may be lost and may be
    repeated.
    """
    snapshots: list[tuple[str, InstallSnapshotRequest]] = []
    """(to, request): begin to transfer the snapshot file of that checksum, and tell the outcome by `snapshot_sent`."""
    restore: SnapshotMeta | None = None
    """Replace the state machine by this snapshot, then `Core.snapshot_restored`; no entry is handed out before."""
    committed: list[Entry]
    """Committed and durable here; to be applied in order, each exactly once in an incarnation, before anything is
    answered.
    """
    reads: list[ConfirmedRead]
    """To be answered from the state machine after `committed` was applied."""
    failed_reads: list[FailedRead]
    lost: list[LostProposals]
    role_changes: list[RoleChange]
    """In order; the last one is the role now."""
    transfers_failed: list[TransferFailed] = []
    """A transfer that succeeds shows in `role_changes`."""
