"""Deliberately broken cores and logs: each replaces one named function of `impl/raft` or `impl/storage`, and must be
found out by a named property.

A check that no mutant fails proves nothing. The names of the functions are looked up when a mutant is applied: if the
product renames one, its mutant fails loudly instead of testing nothing. Never used by the product.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from impl.raft import (
    core,
    election,
    following,
    leading,
    membership,
    outbox,
    pre_vote,
    reads,
    snapshots,
    transfer,
)
from impl.raft.disk import Disk
from impl.raft.messages import AppendEntriesRequest, AppendEntriesResponse, Entry, PreVoteRequest
from impl.raft.progress import Progress
from impl.raft.quorum import reached_by_quorum
from impl.raft.ready import Role, SnapshotMeta
from impl.raft.server import Received, Server
from impl.raft.settings import Restored, Settings
from impl.runtime.interfaces import File
from impl.storage.durable_log import DurableLog
from impl.storage.recovery import segment_name
from impl.storage.spare import DUE, Spare
from model_checks.stateful.violations import Property


class Mutant(msgspec.Struct, frozen=True):
    """`make(original)` replaces `owner.function`; `broken` is the property that the observer must name."""

    owner: Any
    function: str
    make: Callable[[Callable[..., Any]], Callable[..., Any]]
    broken: Property
    mistake: str


def _always(value: object) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return lambda original: lambda *arguments: value


def _vote_in_memory(original: Callable[..., bool]) -> Callable[..., bool]:
    def knows_vote(disk: Disk, term: int, candidate: str) -> bool:
        return disk.durable_term == disk.term == term and disk.voted_for == candidate

    return knows_vote


def _memory_counts(original: Callable[..., int]) -> Callable[..., int]:
    def durable_up_to(disk: Disk, index: int) -> int:
        return min(index, disk.last_index)

    return durable_up_to


def _leader_counts_its_memory(original: Callable[..., int]) -> Callable[..., int]:
    def quorum_match(server: Server) -> int:
        matches = [progress.match_index for progress in server.voting]
        return reached_by_quorum([*matches, server.log.last_index])

    return quorum_match


def _any_copy_is_enough(original: Callable[..., int]) -> Callable[..., int]:
    def quorum_match(server: Server) -> int:
        return server.disk.durable_up_to(server.log.last_index)

    return quorum_match


def _no_consistency_check(original: Callable[..., bool]) -> Callable[..., bool]:
    def passes_consistency_check(server: Server, request: AppendEntriesRequest) -> bool:
        return request.prev_log_index <= server.log.last_index

    return passes_consistency_check


def _nothing_is_known(original: Callable[..., int]) -> Callable[..., int]:
    def count_known(server: Server, entries: list[Entry]) -> int:
        return 0

    return count_known


def _acknowledge_first(original: Callable[..., None]) -> Callable[..., None]:
    """Acknowledge a slice when it arrives, and append it when the next one does."""
    waiting: dict[int, tuple[int, Received, AppendEntriesRequest]] = {}

    def handle_append_entries_request(server: Server, received: Received, request: AppendEntriesRequest) -> None:
        late = waiting.pop(id(server), None)
        if late is not None and late[0] == server.term:
            original(server, late[1], late[2])
        if request.entries and following.passes_consistency_check(server, request):
            following.follow(server, received)
            match = request.prev_log_index + len(request.entries)
            sequence = outbox.next_sequence(server)
            response = AppendEntriesResponse(sequence, server.term, True, match, request.round)
            server.outbox.append((received.source, response))
            waiting[id(server)] = (server.term, received, request)
        else:
            original(server, received, request)

    return handle_append_entries_request


def _drop_every_third(original: Callable[..., list[Entry]]) -> Callable[..., list[Entry]]:
    def apply(server: Server) -> list[Entry]:
        entries = original(server)
        return [entry for entry in entries if server.role is Role.LEADER or entry.index % 3]

    return apply


def _vote_not_recorded(original: Callable[..., None]) -> Callable[..., None]:
    def record_hard_state(disk: Disk, term: int, voted_for: str | None) -> None:
        original(disk, term, None)
        disk.voted_for = voted_for

    return record_hard_state


def _one_confirmation_for_all(original: Callable[..., None]) -> Callable[..., None]:
    def confirm(disk: Disk, number: int) -> None:
        original(disk, number)
        disk.durable_term, disk.durable_voted_for = disk.term, disk.voted_for
        disk.durable_index, disk.durable_newest, disk.durable_marker = disk.last_index, disk.newest, disk.marker

    return confirm


def _writes_in_flight_forgotten(original: Callable[..., None]) -> Callable[..., None]:
    def record_cut(disk: Disk, last_index: int, last_term: int) -> None:
        disk.last_index, disk.newest = last_index, (last_term, last_index)
        disk.durable_index = min(disk.durable_index, last_index)

    return record_cut


def _newest_only(original: Callable[..., int]) -> Callable[..., int]:
    def client_request(server: Server, payloads: Sequence[bytes]) -> int:
        server.log.cut(server.commit_index)
        server.disk.record_cut(server.commit_index, server.log.last_term)
        return original(server, payloads)

    return client_request


def _counted_from_the_answer(original: Callable[..., None]) -> Callable[..., None]:
    def handle_append_entries_response(server: Server, received: Received, response: AppendEntriesResponse) -> None:
        original(server, received, response)
        server.round_starts = deque((number, server.now_ns) for number, _ in server.round_starts)

    return handle_append_entries_response


def _waits_for_nobody(original: Callable[..., Server]) -> Callable[..., Server]:
    def start_server(settings: Settings, members: Any, restored: Restored, *rest: Any, **options: Any) -> Server:
        server = original(settings, members, restored, *rest, **options)
        if restored.term:
            server.heard_at -= settings.election_ns
        return server

    return start_server


def _lease_goes_on(original: Callable[..., None]) -> Callable[..., None]:
    def transfer_leadership(server: Server) -> None:
        original(server)
        server.transferring = False

    return transfer_leadership


def _leader_always_counts(original: Callable[..., int]) -> Callable[..., int]:
    def quorum_match(server: Server) -> int:
        matches = [progress.match_index for progress in server.voting]
        return reached_by_quorum([*matches, server.disk.durable_up_to(server.log.last_index)])

    return quorum_match


def _any_log_will_do(original: Callable[..., bool]) -> Callable[..., bool]:
    def would_vote(server: Server, request: PreVoteRequest) -> bool:
        return request.term > server.term and (server.waited or server.lease_ended)

    return would_vote


def _nothing(original: Callable[..., None]) -> Callable[..., None]:
    return lambda *arguments: None


def _before_it_is_on_disk(original: Callable[..., SnapshotMeta | None]) -> Callable[..., SnapshotMeta | None]:
    def due_restore(server: Server) -> SnapshotMeta | None:
        if server.restore is None or server.restore_announced:
            return None
        server.restore_announced = True
        return server.restore

    return due_restore


def _same_guess_again(original: Callable[..., None]) -> Callable[..., None]:
    def back_off(server: Server, progress: Progress, response: AppendEntriesResponse) -> None:
        progress.probe(progress.next_index)

    return back_off


def _one_for_each_segment(original: Callable[..., bool]) -> Callable[..., bool]:
    def is_due(spare: Spare, sequence: int, used: float) -> bool:
        if used < DUE or spare._file is not None or spare._wanted_for >= sequence:
            return False
        spare._wanted_for = sequence
        return True

    return is_due


def _name_first(original: Callable[..., File]) -> Callable[..., File]:
    def make_file(log: DurableLog, path: str, size: int, block: bytes) -> File:
        file = log._spare.take()
        if file is None:
            return original(log, path, size, block)
        log._disk.rename(log._spare.path, path)
        file.allocate(size)
        file.write(0, block)
        log._sync_file(file)
        log._sync_directory()
        return file

    return make_file


def _forgotten_segment_used_again(original: Callable[..., int]) -> Callable[..., int]:
    def remove_forgotten(log: DurableLog) -> int:
        if len(log._segments) > 1 and 0 < log._durable_base >= log._segments[0][1] and log._spare._file is None:
            sequence, _ = log._segments.pop(0)
            log._disk.rename(f"{log._directory}/{segment_name(sequence)}", log._spare.path)
            log._spare._file = log._disk.open(log._spare.path)
            log._sync_directory()
        return original(log)

    return remove_forgotten


MUTANTS: Final[Mapping[str, Mutant]] = {
    "vote-before-fsync": Mutant(
        Disk, "knows_vote", _vote_in_memory, Property.ONE_VOTE_A_TERM, "a vote is sent before it is on disk"
    ),
    "acknowledge-before-fsync": Mutant(
        Disk, "durable_up_to", _memory_counts, Property.COMMITTED_IS_DURABLE, "entries count before they are on disk"
    ),
    "vote-forgotten-at-restart": Mutant(
        Disk, "record_hard_state", _vote_not_recorded, Property.ONE_VOTE_A_TERM, "the disk is not told of the vote"
    ),
    "one-confirmation-for-all": Mutant(
        Disk,
        "confirm",
        _one_confirmation_for_all,
        Property.COMMITTED_IS_DURABLE,
        "when one write is done, later ones count as done",
    ),
    "cut-forgets-writes-in-flight": Mutant(
        Disk,
        "record_cut",
        _writes_in_flight_forgotten,
        Property.APPLIED_IS_DURABLE,
        "entries that were cut while they were written count for those that replaced them",
    ),
    "applies-before-durable": Mutant(
        core,
        "applicable_index",
        lambda original: lambda server: server.commit_index,
        Property.APPLIED_IS_DURABLE,
        "an entry is applied that the own disk does not hold",
    ),
    "leader-overwrites": Mutant(
        leading,
        "client_request",
        _newest_only,
        Property.LEADER_APPEND_ONLY,
        "a leader replaces what is not committed yet",
    ),
    "leader-counts-memory": Mutant(
        leading,
        "quorum_match",
        _leader_counts_its_memory,
        Property.COMMITTED_IS_DURABLE,
        "a leader counts itself before its own write is done",
    ),
    "two-votes": Mutant(
        election, "may_vote_for", _always(True), Property.ONE_VOTE_A_TERM, "a server votes again in the same term"
    ),
    "no-up-to-date-check": Mutant(
        election, "is_up_to_date", _always(True), Property.LEADER_COMPLETENESS, "anybody's log may win an election"
    ),
    "election-without-quorum": Mutant(
        election, "has_quorum_of_votes", _always(True), Property.ELECTION_SAFETY, "one's own vote is enough"
    ),
    "commit-of-old-term": Mutant(
        leading,
        "is_of_current_term",
        _always(True),
        Property.LEADER_COMPLETENESS,
        "entries of old terms are committed by counting (Ongaro 2014, figure 3.7)",
    ),
    "commit-without-quorum": Mutant(
        leading, "quorum_match", _any_copy_is_enough, Property.COMMITTED_IS_DURABLE, "the leader's own copy is enough"
    ),
    "no-consistency-check": Mutant(
        following,
        "passes_consistency_check",
        _no_consistency_check,
        Property.LOG_MATCHING,
        "a slice is taken whatever stands before it",
    ),
    "cut-without-conflict": Mutant(
        following,
        "count_known",
        _nothing_is_known,
        Property.COMMITTED_IS_DURABLE,
        "an old slice cuts a log that has moved on",
    ),
    "acknowledge-before-append": Mutant(
        following,
        "handle_append_entries_request",
        _acknowledge_first,
        Property.COMMITTED_IS_DURABLE,
        "a follower acknowledges first and appends later",
    ),
    "dropped-entry": Mutant(
        core, "apply", _drop_every_third, Property.STATE_MACHINE_SAFETY, "a follower skips committed entries"
    ),
    "read-without-round": Mutant(
        reads,
        "confirmed_round",
        lambda original: lambda server: server.round,
        Property.LINEARIZABLE_READS,
        "a leader believes that it still is one",
    ),
    "read-in-a-fresh-term": Mutant(
        reads,
        "knows_commit_index",
        _always(True),
        Property.LINEARIZABLE_READS,
        "a leader trusts its commit index before it committed an entry of its term",
    ),
    "speaks-of-a-term-in-memory": Mutant(
        Disk, "knows_term", _always(True), Property.CONFORMANCE, "messages leave in a term that the disk does not know"
    ),
    "change-without-own-term": Mutant(
        membership,
        "knows_own_term",
        _always(True),
        Property.LEADER_COMPLETENESS,
        "a leader changes the configuration before it committed an entry of its term (Ongaro, raft-dev 2015)",
    ),
    "two-changes-at-once": Mutant(
        membership,
        "is_settled",
        _always(True),
        Property.ONE_CHANGE_AT_A_TIME,
        "a leader changes the configuration before the change before is committed",
    ),
    "non-voter-counts": Mutant(
        membership, "counts", _always(True), Property.COMMITTED_IS_DURABLE, "who does not vote counts in a quorum"
    ),
    "removed-leader-counts-itself": Mutant(
        leading,
        "quorum_match",
        _leader_always_counts,
        Property.COMMITTED_IS_DURABLE,
        "a leader that is no voter any more counts itself",
    ),
    "snapshot-drops-suffix": Mutant(
        snapshots,
        "holds_last_entry",
        _always(False),
        Property.LEADER_COMPLETENESS,
        "a snapshot replaces a log that holds all of it and more",
    ),
    "old-snapshot-installed": Mutant(
        snapshots,
        "is_news",
        _always(True),
        Property.NEVER_GOES_BACK,
        "an old snapshot replaces a newer one",
    ),
    "restores-before-durable": Mutant(
        snapshots,
        "due_restore",
        _before_it_is_on_disk,
        Property.CONFORMANCE,
        "the state machine is replaced before the disk knows of the snapshot",
    ),
    "lease-from-answer": Mutant(
        leading,
        "handle_append_entries_response",
        _counted_from_the_answer,
        Property.LINEARIZABLE_READS,
        "a lease is counted from when an answer arrived",
    ),
    "restart-votes-at-once": Mutant(
        core,
        "start_server",
        _waits_for_nobody,
        Property.LINEARIZABLE_READS,
        "a server that restarts does not wait for the lease of a leader that it may have heard",
    ),
    "vote-without-waiting": Mutant(
        election,
        "may_vote_now",
        _always(True),
        Property.LINEARIZABLE_READS,
        "a server votes while the leader that it hears may answer by its lease",
    ),
    "transfer-keeps-lease": Mutant(
        transfer,
        "transfer_leadership",
        _lease_goes_on,
        Property.LINEARIZABLE_READS,
        "a leader that hands over answers by its lease",
    ),
    "left-out-never-campaigns": Mutant(
        membership,
        "may_campaign",
        lambda original: lambda server: server.is_voter,
        Property.LIVENESS,
        "who has a configuration that leaves it out never campaigns, though nobody else has it (Ongaro 2014, 4.2.2)",
    ),
    "listens-to-whoever-asks": Mutant(
        election,
        "is_disturbed_by",
        _always(False),
        Property.LIVENESS,
        "servers that hear from a leader take on the term of a server that was removed (Ongaro 2014, 4.2.3)",
    ),
    "pre-vote-for-a-stale-log": Mutant(
        pre_vote,
        "would_vote",
        _any_log_will_do,
        Property.CONFORMANCE,
        "a pre-vote is granted that no vote would follow",
    ),
    "higher-term-is-not-told": Mutant(
        following,
        "reject_stale",
        _nothing,
        Property.LIVENESS,
        "a server whose term is ahead does not tell the leader (hashicorp/raft, issues 605 and 609)",
    ),
    "no-back-off": Mutant(
        leading, "back_off", _same_guess_again, Property.LIVENESS, "a leader probes at the same index for ever"
    ),
    "spare-made-while-one-waits": Mutant(
        Spare,
        "is_due",
        _one_for_each_segment,
        Property.RESTARTS,
        "the file of a spare segment is made anew while the log takes it",
    ),
    "segment-named-before-its-header": Mutant(
        DurableLog, "_make_file", _name_first, Property.RESTARTS, "a spare segment gets its name before its header"
    ),
    "spare-with-old-records": Mutant(
        DurableLog,
        "remove_forgotten",
        _forgotten_segment_used_again,
        Property.RESTARTS,
        "a segment that nobody needs is the next spare one, with what stands in it",
    ),
}
"""By name; `broken` is what the observer finds first (a schedule may find another consequence earlier)."""


@contextmanager
def applied(name: str) -> Iterator[Mutant]:
    """Put the mutant in place of the product's function, for the time of the block. Raises KeyError, AttributeError."""
    mutant = MUTANTS[name]
    original = getattr(mutant.owner, mutant.function)
    setattr(mutant.owner, mutant.function, mutant.make(original))
    try:
        yield mutant
    finally:
        setattr(mutant.owner, mutant.function, original)
