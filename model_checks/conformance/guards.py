"""What a step that was not enabled should have waited for, in words; and whether only the disk was behind.

Texts only: the guards themselves are the spec's.
"""

from __future__ import annotations

from msgspec.structs import replace

from model_checks.conformance.divergence import DURABILITY, RAFT, Divergence
from model_checks.conformance.observed import described_point, observed
from spec.raft.actions import Action
from spec.raft.types import Constants, Server, ServerId

GUARDS = {
    "timeout": "a voter (or a server whose configuration may not be committed) has heard from no leader for the "
    "election timeout, and a quorum would vote for it (pre-votes); or its leader's lease is known to have ended",
    "request_pre_vote": "a server that may campaign does not lead, and all that memory holds is on its disk",
    "become_leader": "a quorum granted its vote, and one's own vote is on disk",
    "append_entries": "the leader's disk knows its term, and its log holds the slice",
    "vote_response": "the disk knows the term, and a granted vote is on it (rules 1 and 2)",
    "append_entries_response": "the disk holds all that is acknowledged of the term's leader's log (rules 1 and 3)",
    "advance_commit_index": "a quorum of disks holds an entry of the leader's own term",
    "apply": "the entry is committed, on this server's disk (rule 4), and above what the state machine covers",
    "read_request": "the leader has committed an entry of its own term",
    "confirm_read": "a quorum answered a round that began after the read arrived",
    "lease_read": "the leader has committed an entry of its own term, transfers its leadership to nobody, and a quorum "
    "answered a round that began at most a lease ago",
    "answer_read": "the read was confirmed, and its index is applied",
    "persist": "that write was issued and not yet confirmed",
    "step_down": "the server leads",
    "begin_round": "the server leads",
    "transfer_leadership": "the server leads",
    "timeout_now": "the leader transfers its leadership, and its disk knows its term",
    "change_configuration": "the leader has committed an entry of its own term and the latest configuration, and one "
    "server's status changes",
    "take_snapshot": "the index is applied, and beyond the snapshot before",
    "compact": "a snapshot covers the index, and it is not compacted yet",
    "install_snapshot": "the leader's disk knows its term and holds a snapshot",
    "restore_snapshot": "the disk holds a snapshot that covers more than was applied",
}
"""What each guard says."""


def not_enabled(
    c: Constants, i: ServerId, s: Server, name: str, action: Action, arguments: tuple[object, ...]
) -> Divergence:
    """Say what the step should have waited for; blame the disk if it would be enabled had all writes been done."""
    synced = replace(s, durable=s.memory, issued=())
    only_disk = bool(s.issued) and name != "persist" and action(c, i, synced, *arguments) is not None
    why = f"{name} is not enabled in the spec: it needs that {GUARDS.get(name, 'its guard holds')}"
    evidence = [
        f"  the spec's state: {observed(s)}",
        f"  its durable point: {described_point(s.durable)}, writes under way: {len(s.issued)}",
        *(f"  argument: {argument}"[:400] for argument in arguments),
    ]
    if only_disk:
        return Divergence(DURABILITY, f"{name}: durable before it is relied upon", why, evidence)
    return Divergence(RAFT, f"{name} is enabled", why, evidence)
