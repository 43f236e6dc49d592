"""What holds of restores, over every command, whatever the log says. Source: Consul, "Snapshot HTTP API"."""

from __future__ import annotations

from msgspec.structs import replace

from spec.catalog.commands import Command, RestoreBegin, RestoreChunk, RestoreCommit
from spec.catalog.restore import newest_index, rows_of
from spec.catalog.state import Index, Staging, State


def nothing_but_a_commit_restores(before: State, command: Command, after: State) -> bool:
    """A begin and a chunk leave the state in force as it was."""
    if not isinstance(command, RestoreBegin | RestoreChunk):
        return True
    return replace(after, staging=None) == replace(before, staging=None)


def a_restore_is_all_or_nothing(before: State, command: Command, after: State) -> bool:
    """A commit changes nothing, or all of what was staged and announced is in force, and nothing else."""
    if not isinstance(command, RestoreCommit) or after == before:
        return True
    staging = before.staging
    return (
        staging is not None
        and (staging.id, staging.chunks) == (command.id, command.chunks)
        and rows_of(after) == staging.rows
        and after.staging is None
    )


def what_is_staged_is_what_was_sent(before: State, command: Command, after: State) -> bool:
    """A begin begins anew; a chunk adds its rows to those of its restore, or nothing; all others but a commit leave
    what is staged as it was.
    """
    match command:
        case RestoreBegin(id):
            return after.staging == (Staging(id) if id else None)
        case RestoreChunk(id, number, rows) if after != before:
            staging = before.staging
            return (
                staging is not None
                and (staging.id, staging.chunks + 1) == (id, number)
                and after.staging == Staging(id, number, staging.rows + rows)
            )
        case RestoreCommit():
            return True
        case _:
            return after.staging == before.staging


def indexes_go_on(before: State, after: State, last_applied: Index) -> bool:
    """The next entry has a greater index than all before it and all that was restored: a blocking query of a client
    that knows the restored indexes misses no later change.
    """
    return before.shift <= after.shift and newest_index(after) <= last_applied + after.shift
