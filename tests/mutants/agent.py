"""Starts an agent with one mistake in it: `python tests/mutants/agent.py NAME -server -node s1 ...`.

Each mutant replaces one named function of the product before the agent starts, and fails if that name is gone: a
mutant that no longer changes anything would make a blind check look sharp. The product has no flag for any of this.
Used as `comitia chaos test --agent-command "python tests/mutants/agent.py NAME"`, which must then say INVALID.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

import comitia
from impl.agent.api import AgentError
from impl.agent.forwarding import Retriable
from impl.raft import following, outbox
from impl.raft.messages import AppendEntriesRequest, AppendEntriesResponse
from impl.raft.server import Received, Server
from impl.raft.settings import Restored

Function = Callable[..., Any]


def replace(target: str, make: Callable[[Function], Function]) -> None:
    """Replace `package.module:name` by `make(original)`. Raises AttributeError if the product has no such name."""
    module_name, _, name = target.partition(":")
    module = importlib.import_module(module_name)
    setattr(module, name, make(getattr(module, name)))


def vote_forgotten_at_restart() -> None:
    """A restarted server knows its term and has forgotten for whom it voted (Ongaro 2014, figure 3.1, votedFor)."""

    def make(original: Function) -> Function:
        return lambda term, voted_for, entries: original(term, None, entries)

    replace("impl.agent.server:Restored", make)


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

    replace("impl.agent.forwarding:judge", make)


def acknowledged_entry_dropped() -> None:
    """A restarted server has lost the last entries of its log, which it had acknowledged."""

    def make(original: Function) -> Function:
        def restored(term: int, voted_for: str | None, entries: list[Any]) -> Restored:
            restored: Restored = original(term, voted_for, entries[:-3])
            return restored

        return restored

    replace("impl.agent.server:Restored", make)


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
            following.follow(server, received.source)
            waiting.append((server.term, received, request))
            match = request.prev_log_index + len(request.entries)
            sequence = outbox.next_sequence(server)
            response = AppendEntriesResponse(sequence, server.term, True, match, request.round)
            outbox.send(server, received.source, response)

        return handle

    replace("impl.raft.following:handle_append_entries_request", make)
    replace("impl.raft.outbox:claim_is_durable", lambda original: lambda server, to, message: True)


MUTANTS: Final[Mapping[str, Callable[[], None]]] = {
    mutate.__name__.replace("_", "-"): mutate
    for mutate in (
        vote_forgotten_at_restart,
        commit_without_quorum,
        consistent_read_without_confirmation,
        write_retried_after_eof,
        acknowledged_entry_dropped,
        acknowledge_before_append,
    )
}


def main(arguments: list[str]) -> None:
    """Apply the named mutant and run `comitia agent` with the remaining arguments."""
    if not arguments or arguments[0] not in MUTANTS:
        sys.exit(f"usage: agent.py MUTANT AGENT-FLAGS...   mutants: {', '.join(sorted(MUTANTS))}")
    MUTANTS[arguments[0]]()
    comitia.main(["agent", *arguments[1:]])


if __name__ == "__main__":
    main(sys.argv[1:])
