"""Raft's properties over what an all-seeing observer sees of the cores, their disks and their clients.

It looks after every input, and remembers what was ever elected, voted, committed, applied and acknowledged: the
properties are over time. It shares nothing with the spec, so what it finds does not depend on the spec being right.
Source: Ongaro 2014, figure 3.2 and section 6.4.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from impl.raft.core import Core
from impl.raft.log import RaftLog
from impl.raft.messages import Entry, Message, RequestVoteResponse
from impl.raft.quorum import has_majority
from impl.raft.ready import ConfirmedRead, Role
from model_checks.stateful.node import Node
from model_checks.stateful.violations import Property, Violation


class Observer:
    """What became true so far, and whether it may be."""

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self.committed: list[Entry] = []
        """Everything that some server ever knew to be committed, by index."""
        self.acknowledged: list[Entry] = []
        """Writes whose client was told of them."""
        self.answered_reads = 0
        self._nodes = nodes
        self._leaders: dict[int, str] = {}
        self._leader_logs: dict[str, tuple[int, int, str]] = {}
        """For each leader: its term, and the length and digest of its log when it was last seen."""
        self._committed_by: list[int] = []
        """For each committed index, the term in which somebody first knew of it."""
        self._quorum_voters: tuple[tuple[str, ...], ...] = ()
        """By a quorum of which voters, of one of two configurations, the newest committed entry was committed."""
        self._covered: dict[str, tuple[int, int]] = {}
        """For each server, the greatest snapshot and base seen on its disk or in its memory."""
        self._last_applied: dict[str, tuple[int, int]] = {}
        """For each server, its incarnation and what it had applied."""
        self._applied: list[Entry] = []
        self._votes: dict[tuple[str, int], str] = {}
        self._reads: dict[str, int] = {}
        """For each read, how much was committed when it started."""

    def saw_message(self, source: str, to: str, message: Message) -> None:
        """A message left `source`."""
        if isinstance(message, RequestVoteResponse) and message.vote_granted:
            other = self._votes.setdefault((source, message.term), to)
            if other != to:
                raise Violation(
                    Property.ONE_VOTE_A_TERM, f"{source} voted for {other} and for {to} in term {message.term}"
                )

    def saw_applied(self, name: str, entries: list[Entry]) -> None:
        """A server handed entries to its state machine."""
        node = self._nodes[name]
        applied = node.applied
        for entry in entries:
            if entry not in node.surely[entry.index - 1 : entry.index]:
                raise Violation(Property.APPLIED_IS_DURABLE, f"{name} applies {entry}, which its disk may not hold")
            applied.append(entry)
            if entry.index != len(applied):
                raise Violation(
                    Property.STATE_MACHINE_SAFETY, f"{name} applies {entry} after {len(applied) - 1} entries"
                )
            if entry.index > len(self._applied):
                self._applied.append(entry)
            elif self._applied[entry.index - 1] != entry:
                raise Violation(
                    Property.STATE_MACHINE_SAFETY,
                    f"{name} applies {entry}, but another server applied {self._applied[entry.index - 1]}",
                )

    def saw_restored(self, name: str, content: Sequence[Entry]) -> None:
        """A server replaced its state machine by a snapshot's."""
        if list(content) != self.committed[: len(content)]:
            raise Violation(
                Property.SNAPSHOT_OF_COMMITTED,
                f"{name} restores a snapshot of {len(content)} entries, which are not the first that were committed",
            )

    def saw_read(self, read_id: str) -> None:
        """A read was accepted."""
        self._reads[read_id] = len(self.committed)

    def saw_answer(self, name: str, read: ConfirmedRead, applied: int) -> None:
        """A read was answered from a state machine that had applied `applied` entries."""
        started = self._reads[read.id]
        self.answered_reads += 1
        if applied < started or applied < read.index:
            raise Violation(
                Property.LINEARIZABLE_READS,
                f"{name} answers read {read.id} (index {read.index}) from {applied} applied entries; "
                f"{started} were committed when it started",
            )

    def saw_acknowledgement(self, entry: Entry) -> None:
        """The server that took a write applied it and told the client."""
        self.acknowledged.append(entry)

    def look(self, name: str) -> None:
        """Check everything that the last input of `name` may have changed."""
        core = self._nodes[name].core
        if core is None:
            return
        if core.role is Role.LEADER:
            self._check_leader(name, core)
        self._check_nothing_goes_back(name, core)
        self._check_log_matching(name, core)
        if core.commit_index:
            self._note_commits(name, core)
        self._check_snapshot(name, core)
        self._check_configurations(name, core)

    def look_at_disks(self) -> None:
        """Check that the disks of a quorum hold what is committed."""
        if not self.committed:
            return
        last = self.committed[-1]
        holders = [name for name, node in self._nodes.items() if last in node.surely[last.index - 1 : last.index]]
        if not any(has_majority(voters, holders) for voters in self._quorum_voters):
            raise Violation(
                Property.COMMITTED_IS_DURABLE,
                f"{last} is committed, but only the disks of {', '.join(holders) or 'no server'} surely hold it",
            )

    def look_at_the_end(self, members: Collection[str]) -> None:
        """After healing: check that what clients were told of is in every member's state machine."""
        for name, node in self._nodes.items():
            if name not in members:
                continue
            for entry in self.acknowledged:
                if entry not in node.applied[entry.index - 1 : entry.index]:
                    raise Violation(
                        Property.ACKNOWLEDGED_IS_KEPT,
                        f"a client was told that {entry} was written, but the state machine of {name} never saw it",
                    )

    def _check_leader(self, name: str, core: Core) -> None:
        other = self._leaders.setdefault(core.term, name)
        if other != name:
            raise Violation(Property.ELECTION_SAFETY, f"{other} and {name} were both elected in term {core.term}")
        log = core.server.log
        term, length, digest = self._leader_logs.get(name, (0, 0, ""))
        if term == core.term and (log.last_index < length or (length >= log.base and log.digest_at(length) != digest)):
            raise Violation(
                Property.LEADER_APPEND_ONLY,
                f"{name}, leader of term {term}, had {length} entries with digest {digest} and does not any more",
            )
        if term != core.term:
            self._check_completeness(name, core)
        self._leader_logs[name] = (core.term, log.last_index, log.digest_at(log.last_index))

    def _check_completeness(self, name: str, core: Core) -> None:
        log = core.server.log
        for entry, committed_by in zip(self.committed, self._committed_by, strict=True):
            if committed_by < core.term and entry.index > log.base and _entry(log, entry.index) != [entry]:
                raise Violation(
                    Property.LEADER_COMPLETENESS,
                    f"{name} was elected in term {core.term} without {entry}, committed by term {committed_by}",
                )

    def _check_log_matching(self, name: str, core: Core) -> None:
        log = core.server.log
        for other_name, node in self._nodes.items():
            if node.core is None or other_name == name:
                continue
            other = node.core.server.log
            for index in range(min(log.last_index, other.last_index), max(log.base, other.base, 1) - 1, -1):
                if log.term_at(index) == other.term_at(index):
                    if log.digest_at(index) != other.digest_at(index):
                        raise Violation(
                            Property.LOG_MATCHING,
                            f"{name} and {other_name} have an entry of term {log.term_at(index)} at index {index}, "
                            "but not the same log up to it",
                        )
                    break

    def _note_commits(self, name: str, core: Core) -> None:
        log, known = core.server.log, len(self.committed)
        newest = self.committed[: core.commit_index][-1:]
        for entry in newest:
            if not log.has(entry.index, entry.term) and entry.index >= log.base:
                raise Violation(
                    Property.STATE_MACHINE_SAFETY,
                    f"{name} knows {_entry(log, entry.index)} to be committed, where {entry} is",
                )
        if core.commit_index <= known:
            return
        if known < log.base:
            raise Violation(
                Property.SNAPSHOT_OF_COMMITTED,
                f"{name} takes the {log.base} entries of a snapshot for committed; {known} are",
            )
        for entry in log.slice(known, core.commit_index):
            self.committed.append(entry)
            self._committed_by.append(core.term)
        # The leader may have changed the configuration since it committed, if nobody looked in between.
        self._quorum_voters = (log.configuration_at(core.commit_index).voters, core.configuration.voters)

    def _check_nothing_goes_back(self, name: str, core: Core) -> None:
        server, node = core.server, self._nodes[name]
        snapshot, base = self._covered.get(name, (0, 0))
        if server.snapshot < snapshot or server.log.base < base:
            raise Violation(
                Property.NEVER_GOES_BACK,
                f"{name} had a snapshot of {snapshot} entries and had forgotten {base}; now it has one of "
                f"{server.snapshot} and has forgotten {server.log.base}",
            )
        self._covered[name] = (node.durable_snapshot, node.durable_base)
        incarnation, applied = self._last_applied.get(name, (0, 0))
        if incarnation == node.incarnation and core.last_applied < applied:
            raise Violation(Property.NEVER_GOES_BACK, f"{name} had applied {applied} entries, now {core.last_applied}")
        self._last_applied[name] = (node.incarnation, core.last_applied)

    def _check_snapshot(self, name: str, core: Core) -> None:
        server = core.server
        if server.snapshot > len(self.committed):
            raise Violation(
                Property.SNAPSHOT_OF_COMMITTED,
                f"{name} has a snapshot of {server.snapshot} entries; {len(self.committed)} are committed",
            )

    def _check_configurations(self, name: str, core: Core) -> None:
        log = core.server.log
        open_changes = [found.index for found in log.configurations if found.index > len(self.committed)]
        if len(open_changes) > 1:
            raise Violation(
                Property.ONE_CHANGE_AT_A_TIME,
                f"the configurations at {open_changes} of {name} are both uncommitted",
            )


def _entry(log: RaftLog, index: int) -> list[Entry]:
    """The entry at `index`, above the base, if there is one."""
    return log.slice(index - 1, index) if index > log.base else []
