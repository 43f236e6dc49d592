"""One server's traces, replayed against the spec: every step enabled, every field equal, every message recomputed.

The replay's state is the *spec's*: it starts from the spec's initial server and moves only by the spec's actions,
with the parameters that the trace recorded. What was recorded is compared and never adopted. Crashes are steps too:
what the next incarnation recovers must be a point that `crash_restart` allows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping
from typing import Protocol

from msgspec.structs import replace

from model_checks.conformance.divergence import (
    DURABILITY,
    PROVENANCE,
    RAFT,
    Divergence,
    Place,
    excerpt,
    field_diff,
    mapping_diff,
)
from model_checks.conformance.entries import Payloads
from model_checks.conformance.observed import (
    described_point,
    observed,
    recorded_fields,
    recovered_point,
    send_arguments,
)
from model_checks.conformance.trace import AnswerLine, Header, Issue, Line, Propose, Reader, Send, State, Step
from spec.raft.actions import ACTIONS, Action, initial_server
from spec.raft.messages import Message
from spec.raft.network import handler
from spec.raft.types import Constants, Fact, Index, Outcome, Server, Value

GUARDS = {
    "become_leader": "a quorum granted its vote, and one's own vote is on disk",
    "append_entries": "the leader's disk knows its term, and its log holds the slice",
    "vote_response": "the disk knows the term, and a granted vote is on it (rules 1 and 2)",
    "append_entries_response": "the disk holds all that is acknowledged of the term's leader's log (rules 1 and 3)",
    "advance_commit_index": "a quorum of disks holds an entry of the leader's own term",
    "apply": "the entry is committed, and on this server's disk (rule 4)",
    "read_request": "the leader has committed an entry of its own term",
    "confirm_read": "a quorum answered a round that began after the read arrived",
    "answer_read": "the read was confirmed, and its index is applied",
    "persist": "that write was issued and not yet confirmed",
}
"""What a step that was not enabled should have waited for."""

HANDLERS = frozenset(name for name in ACTIONS if name == "update_term" or name.startswith("handle_"))
PLAIN = frozenset({"timeout", "become_leader"})
READS = frozenset({"read_request", "confirm_read", "answer_read"})


class Network(Protocol):
    """The messages sent so far, by every server."""

    def send(self, id: str, message: Message, frame: int) -> None:
        """Add a message. Raises Divergence if the id was used before."""

    def sent(self, id: str) -> tuple[Message, int] | None:
        """The message with this id and its frame's checksum, or None if it was not sent (yet)."""


class Observer(Protocol):
    """Who judges facts and answers. The replay goes on whatever the verdict."""

    def fact(self, server: ServerReplay, fact: Fact) -> None:
        """A fact became true by a step of `server`."""

    def answer(self, server: ServerReplay, line: AnswerLine) -> None:
        """`server` answered a client."""

    def propose(self, server: ServerReplay, line: Propose) -> None:
        """`server` names the write that one of its entries carries."""

    def step(self, server: ServerReplay) -> None:
        """A step of `server` was replayed: every server stands at a consistent cut."""


class Incomplete(Exception):
    """A trace is missing that the verdict depends on: nothing is proved either way."""


class ServerReplay:
    """The traces of all incarnations of one server, replayed in order by `lines`."""

    def __init__(
        self,
        constants: Constants,
        node: str,
        readers: list[Reader],
        network: Network,
        payloads: Payloads,
        observer: Observer,
    ) -> None:
        self.constants, self.node, self.readers = constants, node, readers
        self.network, self.payloads, self.observer = network, payloads, observer
        self.actions: Mapping[str, Action] = ACTIONS
        self.spec: Server = initial_server()
        """The server, as the spec has it after the last line."""
        self.applied_before: int = 0
        """last_applied before the newest `apply` line: answers may be computed at any entry of that batch."""
        self.prefix = f"{node}/0/"
        """Prefix of this incarnation's message ids."""
        self.counts: Counter[str] = Counter()
        """Steps by action, and lines of other kinds."""
        self.restarts = 0
        self.survived = self.lost = 0
        """Restarts that found writes that were never confirmed; restarts that found fewer than were issued."""
        self.proposed: dict[Index, Value] = {}
        """Entries that this incarnation appended as a leader, and for which no client was answered yet."""
        self._reader, self._at, self._ns = readers[0], 0, 0
        self._sequence = 0
        self._ended = False
        self._writes: dict[int, int] = {}
        """Write -> how many points of this incarnation it covers."""
        self._confirmed = 0
        """Points of this incarnation that are durable."""

    def lines(self) -> Generator[str, None, None]:
        """Replay everything; yields the id of a message whenever it is needed and has not been sent yet.

        Raises:
            Divergence: with its place. Incomplete. UnreadableTrace.
        """
        for number, reader in enumerate(self.readers):
            self._reader = reader
            for self._at, line in reader:
                earlier, self._ns = self._ns, line.ns
                if type(line) is Step and line.message:
                    while self.network.sent(line.message) is None:
                        yield line.message
                try:
                    if line.ns < earlier:
                        raise Divergence(RAFT, "time does not go back", f"{line.ns} ns follows {earlier} ns")
                    self._replay(line, first=number == 0)
                except Divergence as divergence:
                    divergence.place = self.here()
                    raise

    def here(self) -> Place:
        """The line that is being replayed."""
        return Place(self._reader.file, self._at, self._ns)

    def _replay(self, line: Line, *, first: bool) -> None:
        if isinstance(line, Header):
            self._start(line, first=first)
            return
        self._next_in_sequence(line.seq)
        if type(line) is Step:
            self.counts[line.action] += 1
            self._step(line)
            self._compare(line.state, line.action)
            self.observer.step(self)
        elif type(line) is Send:
            self.counts[line.action] += 1
            self._send(line)
        elif type(line) is Issue:
            self.counts["issue"] += 1
            self._issue(line)
        elif type(line) is Propose:
            self.counts["propose"] += 1
            self.observer.propose(self, line)
        elif type(line) is AnswerLine:
            self.counts["answer"] += 1
            self.observer.answer(self, line)
        else:
            self._ended = True

    def _next_in_sequence(self, number: int) -> None:
        """Each line has the number after that of the line before it, and nothing follows the end."""
        if self._ended:
            raise Divergence(RAFT, "a process that has ended does nothing", "there are lines after its end")
        self._sequence += 1
        if number != self._sequence:
            why = f"sequence number {number} follows {self._sequence - 1}: lines are missing"
            raise Divergence(RAFT, "the trace is complete", why)

    # ------------------------------------------------------------ incarnations

    def _start(self, header: Header, *, first: bool) -> None:
        """A process begins: with an empty disk, or with a point that the crash or the end of the last one may have
        left.
        """
        if first:
            self._check_initial(header)
        else:
            self.spec = self._recovered(header)
            self.restarts += 1
        self._sequence, self._writes, self._confirmed, self._ended = 0, {}, 0, False
        self.applied_before, self.proposed = 0, {}
        self.prefix = f"{self.node}/{header.incarnation}/"
        self._compare(header.state, "crash_restart")

    def _check_initial(self, header: Header) -> None:
        found = header.state
        if (found.term, found.voted_for, found.last_index) == (0, None, 0):
            return
        if header.incarnation > 1:
            raise Incomplete(
                f"{self.node}: the first trace is of incarnation {header.incarnation}, which recovered term "
                f"{found.term} and {found.last_index} entries: what it did before was not traced"
            )
        raise Divergence(DURABILITY, "a new server has an empty disk", f"it recovered {recovered_point(found)}")

    def _recovered(self, header: Header) -> Server:
        """The spec's server after a crash that left what was recovered."""
        found = recovered_point(header.state)
        for k in range(len(self.spec.issued), -1, -1):
            outcome = self.actions["crash_restart"](self.constants, self.node, self.spec, k)
            if outcome is not None and described_point(outcome.server.durable) == found:
                self.survived += k > 0
                self.lost += k < len(self.spec.issued)
                return outcome.server
        before = max(
            (r for r in self.readers if r.file.incarnation < header.incarnation), key=lambda r: r.file.incarnation
        )
        missing = range(before.file.incarnation + 1, header.incarnation)
        if missing:
            raise Incomplete(f"{self.node}: no trace of incarnation {missing[0]}, after which {found} was recovered")
        allowed = [self.spec.durable, *(write.point for write in self.spec.issued)]
        raise Divergence(
            DURABILITY,
            "the disk keeps what it confirmed, and nothing that was not written",
            f"recovered {found}",
            [
                "the disk may hold (term, voted for, last index, digest):",
                *(f"  {described_point(point)}" for point in allowed),
                *excerpt(before.file.path, before.lines),
            ],
        )

    # ------------------------------------------------------------------- steps

    def _step(self, line: Step) -> None:
        action = line.action
        if action in HANDLERS:
            self._take(action, self._received(line))
        elif action == "client_request":
            self._client_request(line)
        elif action == "apply":
            self._apply(line)
        elif action == "persist":
            self._persist(line)
        elif action == "advance_commit_index":
            self._take(action, line.index)
        elif action in READS:
            self._take(action, self.prefix + line.read)
        elif action in PLAIN:
            self._take(action)
        else:
            raise Divergence(RAFT, "steps have names", f"{action} is not a step of the spec")

    def _take(self, action: str, *arguments: object) -> Outcome:
        """Take the spec's step; raises Divergence if it is not enabled."""
        before = self.spec
        outcome = self.actions[action](self.constants, self.node, before, *arguments)
        if outcome is None:
            raise self._not_enabled(action, arguments)
        self.spec = outcome.server
        for fact in outcome.facts:
            self.observer.fact(self, fact)
        return outcome

    def _not_enabled(self, action: str, arguments: tuple[object, ...]) -> Divergence:
        """Say what the step should have waited for; blame the disk if it would be enabled had all writes been done."""
        synced = replace(self.spec, durable=self.spec.memory, issued=())
        only_disk = bool(self.spec.issued) and action != "persist"
        only_disk = only_disk and self.actions[action](self.constants, self.node, synced, *arguments) is not None
        why = f"{action} is not enabled in the spec: it needs that {GUARDS.get(action, 'its guard holds')}"
        evidence = [
            f"  the spec's state: {observed(self.spec)}",
            f"  its durable point: {described_point(self.spec.durable)}, writes under way: {len(self.spec.issued)}",
            *(f"  argument: {argument}"[:400] for argument in arguments),
        ]
        if only_disk:
            return Divergence(DURABILITY, f"{action}: durable before it is relied upon", why, evidence)
        return Divergence(RAFT, f"{action} is enabled", why, evidence)

    def _client_request(self, line: Step) -> None:
        for index, payload in line.entries:
            if index != self.spec.log.length + 1:
                why = f"an entry is appended at index {index} to a log of {self.spec.log.length} entries"
                raise Divergence(RAFT, "a leader appends at the end of its log", why)
            value = self.payloads.name(self.spec.log, self.spec.current_term, payload)
            self._take("client_request", value)
            self.proposed[index] = value

    def _apply(self, line: Step) -> None:
        self.applied_before = self.spec.last_applied
        if line.index <= self.spec.last_applied:
            why = f"index {line.index} is applied again, or late: {self.spec.last_applied} was applied before"
            raise Divergence(RAFT, "entries are applied once and in order", why)
        while self.spec.last_applied < line.index:
            self._take("apply")

    def _persist(self, line: Step) -> None:
        covered = self._writes.get(line.write)
        if covered is None:
            raise Divergence(DURABILITY, "only issued writes are confirmed", f"write {line.write} was never issued")
        self._take("persist", covered - self._confirmed)
        self._confirmed = covered

    def _issue(self, line: Issue) -> None:
        expected = described_point(self.spec.memory)
        if line.point != expected:
            why = f"write {line.write} covers {line.point}, but memory is {expected}"
            raise Divergence(RAFT, "a write covers all that is in memory", why)
        if line.write != len(self._writes) + 1:
            why = f"write {line.write} is issued after write {len(self._writes)}"
            raise Divergence(RAFT, "writes are numbered in order", why)
        self._writes[line.write] = self._confirmed + len(self.spec.issued)

    def _compare(self, recorded: State, action: str) -> None:
        expected = observed(self.spec)
        if expected != recorded:
            raise Divergence(
                RAFT,
                f"{action} yields the spec's state",
                f"after {action} the recorded state differs from the spec's",
                field_diff(expected, recorded),
            )

    # ---------------------------------------------------------------- messages

    def _received(self, line: Step) -> Message:
        """The message that a step handles: as it was sent, to this server, in the same frame."""
        found = self.network.sent(line.message)
        if found is None:  # `lines` waits for every message that is named
            raise Divergence(
                PROVENANCE, "what is received was sent", f"{line.action} does not say which message it handles"
            )
        message, frame = found
        if message.dest != self.node:
            why = f"{line.message} was sent to {message.dest} and received by {self.node}"
            raise Divergence(PROVENANCE, "a message reaches its destination only", why, [f"  {message}"[:400]])
        if frame != line.frame:
            why = f"{line.message} left in a frame with checksum {frame} and arrived in one with {line.frame}"
            raise Divergence(PROVENANCE, "a message arrives as it was sent", why, [f"  {message}"[:400]])
        if line.action not in ("update_term", handler(message)):
            why = f"{line.action} handled {line.message}, which is for {handler(message)}"
            raise Divergence(PROVENANCE, "a message is handled as what it is", why, [f"  {message}"[:400]])
        return message

    def _send(self, line: Send) -> None:
        fields, arguments = line.message, send_arguments(line)
        if arguments is None:
            raise Divergence(RAFT, "steps have names", f"{line.action} is not an action of the spec that sends")
        if None in arguments:
            raise Divergence(RAFT, f"{line.action} sends the spec's message", f"a field is missing: {fields}")
        outcome = self.actions[line.action](self.constants, self.node, self.spec, *arguments)
        if outcome is None:
            raise self._not_enabled(line.action, arguments)
        (message,) = outcome.sent
        expected = recorded_fields(message, self.spec.log)
        if not expected.items() <= fields.items():
            why = f"{line.id} is not the message that the spec sends"
            raise Divergence(RAFT, f"{line.action} sends the spec's message", why, mapping_diff(expected, fields))
        if not line.id.startswith(self.prefix):
            raise Divergence(PROVENANCE, "message ids name their sender", f"{line.id} was sent by {self.prefix[:-1]}")
        self.network.send(line.id, message, line.frame)
