"""Raft's actions by name: `action(constants, i, server, ...) -> Outcome | None`; None means "not enabled".

An action reads one server and at most one message. It must not look at another server, at what else the network holds,
at a clock or at chance: whatever the protocol leaves open is a parameter, which exploration enumerates and conformance
records. What the clock shows is the last parameter, `now`, of those that depend on it (`CLOCKED`).

One module for each theme: `elections`, `prevotes`, `leadership`, `replication`, `membership`, `snapshots`, `reads`,
`disk`; what they share is in `state`. Here they are gathered under the names of ARCHITECTURE.md, section 3.

Sources: Ongaro 2014, chapters 3 to 5, sections 6.4 and 9.6; raft.tla, whose names are given where they differ.
*Deviations:* crashes may lose writes that were issued and are not yet durable, and what leaves a server is guarded by
what its disk holds (ARCHITECTURE.md, section 3, rules 1-4); handlers do not answer (but for pre-votes): a response is a
send of its own, which may be repeated; `next_index` is missing because a leader may send any slice of its log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from spec.raft.disk import crash_restart, persist
from spec.raft.elections import (
    become_leader,
    handle_request_vote_request,
    handle_request_vote_response,
    request_vote,
    timeout,
    update_term,
    vote_response,
)
from spec.raft.leadership import handle_lease_ended, handle_timeout_now, step_down, timeout_now, transfer_leadership
from spec.raft.membership import change_configuration
from spec.raft.prevotes import handle_pre_vote_request, handle_pre_vote_response, request_pre_vote
from spec.raft.reads import answer_read, begin_round, confirm_read, lease_read, read_request
from spec.raft.replication import (
    advance_commit_index,
    append_entries,
    append_entries_response,
    apply,
    client_request,
    handle_append_entries_request,
    handle_append_entries_response,
)
from spec.raft.snapshots import (
    compact,
    handle_install_snapshot_request,
    install_snapshot,
    restore_snapshot,
    take_snapshot,
)
from spec.raft.state import initial_server, restarted
from spec.raft.types import Outcome

__all__ = [
    "ACTIONS",
    "CLOCKED",
    "Action",
    "advance_commit_index",
    "answer_read",
    "append_entries",
    "append_entries_response",
    "apply",
    "become_leader",
    "begin_round",
    "change_configuration",
    "client_request",
    "compact",
    "confirm_read",
    "crash_restart",
    "handle_append_entries_request",
    "handle_append_entries_response",
    "handle_install_snapshot_request",
    "handle_lease_ended",
    "handle_pre_vote_request",
    "handle_pre_vote_response",
    "handle_request_vote_request",
    "handle_request_vote_response",
    "handle_timeout_now",
    "initial_server",
    "install_snapshot",
    "lease_read",
    "persist",
    "read_request",
    "request_pre_vote",
    "request_vote",
    "restarted",
    "restore_snapshot",
    "step_down",
    "take_snapshot",
    "timeout",
    "timeout_now",
    "transfer_leadership",
    "update_term",
    "vote_response",
]

Action = Callable[..., Outcome | None]
"""`action(constants, i, server, *arguments)`; the arguments are those of ARCHITECTURE.md, section 3."""

ACTIONS: Final[Mapping[str, Action]] = {
    action.__name__: action
    for action in (
        request_pre_vote,
        handle_pre_vote_request,
        handle_pre_vote_response,
        timeout,
        request_vote,
        become_leader,
        update_term,
        handle_request_vote_request,
        vote_response,
        handle_request_vote_response,
        step_down,
        transfer_leadership,
        timeout_now,
        handle_timeout_now,
        handle_lease_ended,
        client_request,
        append_entries,
        advance_commit_index,
        apply,
        handle_append_entries_request,
        append_entries_response,
        handle_append_entries_response,
        change_configuration,
        take_snapshot,
        compact,
        install_snapshot,
        handle_install_snapshot_request,
        restore_snapshot,
        begin_round,
        read_request,
        confirm_read,
        lease_read,
        answer_read,
        persist,
        crash_restart,
    )
}
"""Every action by its name, in the order of ARCHITECTURE.md, section 3.

A mutant is this table with an entry replaced.
"""

CLOCKED: Final[frozenset[str]] = frozenset(
    {
        "handle_pre_vote_request",
        "timeout",
        "handle_request_vote_request",
        "handle_append_entries_request",
        "handle_install_snapshot_request",
        "begin_round",
        "read_request",
        "lease_read",
        "crash_restart",
    }
)
"""The actions whose last parameter is what the clock shows."""
