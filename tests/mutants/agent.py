"""Mistakes in the agent: in Raft, in forwarding, in what it tells clients. For `comitia chaos test`."""

from __future__ import annotations

import asyncio
import importlib
from typing import Any, Final

from impl.agent.requests.api import AgentError, Consistency, ReadOptions, ReadReply
from impl.agent.requests.forwarding import Retriable
from impl.catalog.commands import Deregister
from impl.catalog.tagged import CheckRow
from impl.http.response import json_response
from impl.raft import following, outbox, reads
from impl.raft.messages import AppendEntriesRequest, AppendEntriesResponse
from impl.raft.server import Received, Server
from impl.raft.settings import Restored
from tests.mutants.replacement import Function, by_name, replace


def vote_forgotten_at_restart() -> None:
    """A restarted server knows its term and has forgotten for whom it voted (Ongaro 2014, figure 3.1, votedFor)."""

    def make(original: Function) -> Function:
        return lambda term, voted_for, entries, snapshot: original(term, None, entries, snapshot)

    replace("impl.agent.assembly:Restored", make)


def commit_without_quorum() -> None:
    """A leader commits what its own disk holds."""

    def make(original: Function) -> Function:
        return lambda server: server.disk.durable_up_to(server.log.last_index)

    replace("impl.raft.leading:quorum_match", make)


def consistent_read_without_confirmation() -> None:
    """A leader answers consistent reads at once, since it believes that it still leads."""

    def make(original: Function) -> Function:
        def read_request(server: Server, read_id: str) -> None:
            original(server, read_id)
            confirm_read = importlib.import_module("impl.raft.reads").confirm_read
            confirm_read(server)

        return read_request

    replace("impl.raft.reads:read_request", make)


def write_retried_after_eof() -> None:
    """Forwarding tries a write again although the first attempt may have been applied."""

    def make(original: Function) -> Function:
        def judge(error: Any, *, is_write: bool) -> Retriable | AgentError:
            verdict = original(error, is_write=is_write)
            return verdict if isinstance(verdict, Retriable) else Retriable(verdict)

        return judge

    replace("impl.agent.requests.forwarding:judge", make)


def acknowledged_entry_dropped() -> None:
    """A restarted server has lost the last entries of its log, which it had acknowledged."""

    def make(original: Function) -> Function:
        def restored(term: int, voted_for: str | None, entries: tuple[Any, ...], snapshot: Any) -> Restored:
            restored: Restored = original(term, voted_for, entries[:-3], snapshot)
            return restored

        return restored

    replace("impl.agent.assembly:Restored", make)


def acknowledge_before_append() -> None:
    """A follower acknowledges a slice when it arrives, and appends it when the next one does."""

    def make(original: Function) -> Function:
        waiting: list[tuple[int, Received, AppendEntriesRequest]] = []

        def handle(server: Server, received: Received, request: AppendEntriesRequest) -> None:
            while waiting:
                term, *late = waiting.pop()
                if term == server.term:
                    original(server, *late)
            if not request.entries or not following.passes_consistency_check(server, request):
                original(server, received, request)
                return
            following.follow(server, received)
            waiting.append((server.term, received, request))
            match = request.prev_log_index + len(request.entries)
            sequence = outbox.next_sequence(server)
            response = AppendEntriesResponse(sequence, server.term, True, match, request.round)
            outbox.send(server, received.source, response)

        return handle

    replace("impl.raft.following:handle_append_entries_request", make)
    replace("impl.raft.outbox:claim_is_durable", lambda original: lambda server, to, message: True)


def own_term_rule_dropped() -> None:
    """A leader changes the configuration before it has committed anything in its term (Ongaro 2014, section 4.1, and
    the correction of 2015).
    """
    replace("impl.raft.membership:knows_own_term", lambda original: lambda server: True)


def nonvoter_counted_in_a_quorum() -> None:
    """A leader counts the acknowledgements of members that do not vote."""
    replace("impl.raft.membership:counts", lambda original: lambda server, peer: True)


def lease_counted_from_receipt() -> None:
    """A leader counts its lease from when the answers of a round arrived, not from when the round began. One that was
    paused finds answers in its sockets, and takes them for fresh.
    """
    received: dict[int, int] = {}

    def make(original: Function) -> Function:
        def handle(server: Server, *rest: Any) -> Any:
            before = reads.confirmed_round(server)
            result = original(server, *rest)
            if reads.confirmed_round(server) > before:
                received[server.term] = server.now_ns
            return result

        return handle

    def has_lease(server: Server) -> bool:
        return not server.transferring and server.now_ns <= received.get(server.term, 0) + server.settings.lease_ns

    replace("impl.raft.leading:handle_append_entries_response", make)
    replace("impl.raft.reads:has_lease", lambda original: has_lease)


def restart_votes_at_once() -> None:
    """A restarted server has forgotten that it promised a leader not to elect another one for a while (Ongaro 2014,
    section 6.4.1): it votes before it has heard from anybody.
    """

    def make(original: property) -> property:
        waited = original.fget
        assert waited is not None
        return property(lambda server: server.leader_incarnation == 0 or waited(server))

    replace("impl.raft.server:Server.waited", make)


def snapshot_drops_a_matching_suffix() -> None:
    """A follower replaces its log by a snapshot although the log holds the snapshot's last entry: what follows, and may
    have been acknowledged, is lost (Ongaro 2014, section 5.3).
    """
    replace("impl.raft.snapshots:holds_last_entry", lambda original: lambda server, request: False)


def lock_delay_ignored() -> None:
    """A lock that was lost with its session may be acquired at once (Consul, "Lock delay")."""
    replace("impl.agent.sessions.timers:LockDelays.begin", lambda original: lambda delays, *rest: None)


def lock_given_behind_the_end_of_its_session() -> None:
    """A leader refuses a lock by what it has applied, and minds no end of a session that its log holds already."""
    replace("impl.agent.requests.serving:Serving._is_settled", lambda original: lambda serving, driver, command: True)


def session_end_keeps_its_lock() -> None:
    """What a session held stays with it when it ends."""
    replace("impl.catalog.kv:lose", lambda original: lambda tables, entry, index: None)


def acquire_while_held() -> None:
    """A lock is taken from a session that holds it."""

    def make(original: Function) -> Function:
        def acquire(tables: Any, key: str, value: bytes, flags: int, session: str, index: int) -> Any:
            old = tables.entries.get(key)
            if old is not None and old.session not in ("", session):
                importlib.import_module("impl.catalog.kv").lose(tables, old, index)
            return original(tables, key, value, flags, session, index)

        return acquire

    replace("impl.catalog.kv:acquire", make)


def blocking_query_misses_a_change() -> None:
    """Who waits for rows of the registry is not woken when they change."""
    replace("impl.agent.requests.changes:Watches.touched", lambda original: lambda watches, name: None)


def deregistration_acknowledged_before_commit() -> None:
    """A deregistration is answered when it arrives, and carried out a little later."""

    def make(original: Function) -> Function:
        late: set[asyncio.Task[Any]] = set()

        async def truth(context: Any, request: Any, command: Any) -> Any:
            if not isinstance(command, Deregister):
                return await original(context, request, command)

            async def carry_out() -> None:
                await asyncio.sleep(0.1)
                await context.agent.write(command)

            late.add(asyncio.ensure_future(carry_out()))
            return json_response(True, False)

        return truth

    replace("impl.http.writes:truth", make)


def stale_default_read() -> None:
    """A server answers reads that ask for no consistency from what it has applied, whoever leads, and says that it is
    the newest.
    """

    def make(original: Function) -> Function:
        async def read(requests: Any, query: Any, options: ReadOptions) -> Any:
            driver = requests._here.driver
            if options.consistency is Consistency.DEFAULT and not options.min_index and driver is not None:
                return ReadReply(driver.read_local(query, Consistency.DEFAULT), True, 0)
            return await original(requests, query, options)

        return read

    replace("impl.agent.requests.routing:Requests.read", make)


def services_share_one_index() -> None:
    """The index of every service is that of the tables: a registration answers the blocking queries of all."""

    def make(original: Function) -> Function:
        return lambda tables, service, *all_tables: all_tables

    replace("impl.catalog.registry_queries:_service_topics", make)


def restore_forgets_checks() -> None:
    """A restored state has no checks, though they were counted when the archive was verified."""

    def make(original: Function) -> Function:
        def put_row(tables: Any, row: Any, key: str | None = None) -> None:
            if not isinstance(row, CheckRow):
                original(tables, row, key)

        return put_row

    replace("impl.catalog.restore:put_row", make)


MUTANTS: Final = by_name(
    vote_forgotten_at_restart,
    commit_without_quorum,
    consistent_read_without_confirmation,
    write_retried_after_eof,
    acknowledged_entry_dropped,
    acknowledge_before_append,
    own_term_rule_dropped,
    nonvoter_counted_in_a_quorum,
    lease_counted_from_receipt,
    restart_votes_at_once,
    snapshot_drops_a_matching_suffix,
    lock_delay_ignored,
    lock_given_behind_the_end_of_its_session,
    session_end_keeps_its_lock,
    acquire_while_held,
    blocking_query_misses_a_change,
    deregistration_acknowledged_before_commit,
    stale_default_read,
    services_share_one_index,
    restore_forgets_checks,
)
