"""One server's traces, replayed against the spec: every step enabled, every field equal, every message recomputed.

The replay's state is the *spec's*: it starts from the spec's initial server and moves only by the spec's actions,
with the parameters that the trace recorded. What was recorded is compared and never adopted. Crashes are steps too:
what the next incarnation recovers must be a point that `crash_restart` allows.

Clocks: all servers of a run share the monotonic clock of their host, which stands for the spec's one `now`. So what a
core read there never goes back, in a server or from a message's sender to its receiver; ordering all steps by it gives
a behaviour of the global spec.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping
from typing import Protocol

from model_checks.catalog.payloads import Malformed
from model_checks.conformance.divergence import (
    DURABILITY,
    PROVENANCE,
    RAFT,
    Divergence,
    Place,
    field_diff,
    mapping_diff,
)
from model_checks.conformance.entries import Payloads
from model_checks.conformance.guards import not_enabled
from model_checks.conformance.observed import (
    described_point,
    observed,
    recorded_fields,
    recovered_point,
    send_arguments,
)
from model_checks.conformance.payloads import decoded_configuration
from model_checks.conformance.restarts import (
    check_initial,
    check_no_trace_is_missing,
    check_nothing_was_rewritten,
    not_what_was_written,
    survived,
)
from model_checks.conformance.sent import LeadershipEnd, Sent, end_of
from model_checks.conformance.trace import AnswerLine, Header, Issue, Line, Propose, Reader, Send, State, Step
from spec.raft.actions import ACTIONS, CLOCKED, Action, initial_server
from spec.raft.messages import LeaseEnded, Message, PreVoteResponse
from spec.raft.network import Transition, handler
from spec.raft.types import Constants, Fact, Index, Outcome, Role, Server, Term, Time, Value

HANDLERS = frozenset(name for name in ACTIONS if name == "update_term" or name.startswith("handle_"))
PLAIN = frozenset({"timeout", "become_leader", "step_down", "begin_round", "transfer_leadership"})
READS = frozenset({"read_request", "confirm_read", "lease_read", "answer_read"})
INDEXED = frozenset({"advance_commit_index", "compact"})
TRUE_EVIDENCE = "a process is believed to have ended only when it has"


class Observer(Protocol):
    """Who judges facts and answers. The replay goes on whatever the verdict."""

    def taken(self, server: ServerReplay, step: Transition) -> None:
        """`server` took a step of the spec."""

    def fact(self, server: ServerReplay, fact: Fact) -> None:
        """A fact became true by a step of `server`."""

    def answer(self, server: ServerReplay, line: AnswerLine) -> None:
        """`server` answered a client."""

    def propose(self, server: ServerReplay, line: Propose) -> None:
        """`server` names the write that one of its entries carries."""

    def snapshot(self, server: ServerReplay, line: Step) -> None:
        """`server` took a snapshot of its state machine, or replaced it by one."""

    def step(self, server: ServerReplay) -> None:
        """A step of `server` was replayed: every server stands at a consistent cut."""


class ServerReplay:
    """The traces of all incarnations of one server, replayed in order by `lines`."""

    def __init__(
        self,
        constants: Constants,
        node: str,
        readers: list[Reader],
        network: Sent,
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
        self.action = ""
        """The action of the newest step."""
        self.clock: Time = 0
        """What the server's clock showed when it was last read."""
        self._reader, self._at, self._ns = readers[0], 0, 0
        self._pre_votes: set[PreVoteResponse] = set()
        """The pre-votes that this incarnation's steps have sent."""
        self._sequence = 0
        self._ended = False
        self._writes: dict[int, int] = {}
        """Write -> how many points of this incarnation it covers."""
        self._confirmed = 0
        """Points of this incarnation that are durable."""

    def lines(self) -> Generator[str, None, None]:
        """Replay everything; yields what is needed and was not sent yet: a message's id, or a leadership's end.

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
                elif type(line) is Step and line.peer:
                    while self.network.leadership_end(line.peer, self.spec.current_term) is None:
                        yield end_of(line.peer, self.spec.current_term)
                try:
                    if line.ns < earlier:
                        raise Divergence(RAFT, "time does not go back", f"{line.ns} ns follows {earlier} ns")
                    self._replay(line, first=number == 0)
                except Divergence as divergence:
                    divergence.place = self.here()
                    raise
            self._process_ended()

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
            self.action = line.action
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
        check_nothing_was_rewritten(header)
        c, now = self.constants, self._shown(header.state.heard_at)
        if c.has_leases and c.lease_end(now) >= c.vote_from(now):
            why = f"a lease of {c.lease} ns, and votes after {c.election_timeout} ns: reads by lease promise nothing"
            raise Divergence(RAFT, "a lease ends before anybody votes", why)
        if first:
            check_initial(header)
            self._take("crash_restart", 0, now)
        else:
            self._restart(header, now)
        self._sequence, self._writes, self._confirmed, self._ended = 0, {}, 0, False
        self.applied_before, self.proposed, self._pre_votes = self.spec.last_applied, {}, set()
        self.prefix = f"{self.node}/{header.incarnation}/"
        self._compare(header.state, "crash_restart")

    def _process_ended(self) -> None:
        """The trace of an incarnation is at its end, and so is its leadership, whatever follows."""
        if self.spec.role is Role.LEADER:
            self._lead_no_more(self.spec.current_term)

    def _lead_no_more(self, term: Term) -> None:
        self.network.end_leadership(self.node, term, LeadershipEnd(self._reader.file.incarnation, self._ns))

    def _restart(self, header: Header, now: Time) -> None:
        """The spec's server after a crash that left what was recovered."""
        found = recovered_point(header.state)
        crash = self.actions["crash_restart"]
        after = survived(self.constants, self.node, self.spec, crash, found, now)
        if after is None:
            raise not_what_was_written(self.spec, found, check_no_trace_is_missing(self.readers, header))
        self.survived += after[0] > 0
        self.lost += after[0] < len(self.spec.issued)
        before, self.spec = self.spec, after[1]
        step = Transition(self.node, "crash_restart", (after[0], now), before, Outcome(self.spec))
        self.observer.taken(self, step)
        self.restarts += 1

    # ------------------------------------------------------------------- steps

    def _step(self, line: Step) -> None:
        action = line.action
        if action == "handle_lease_ended":
            self._take(action, self._evidence(line))
        elif action in HANDLERS:
            self._take(action, self._received(line), *self._now(line))
        elif action == "client_request":
            self._client_request(line)
        elif action == "apply":
            self._apply(line)
        elif action == "persist":
            self._persist(line)
        elif action in INDEXED:
            self._take(action, line.index)
        elif action in READS:
            self._take(action, self.prefix + line.read, *self._now(line))
        elif action in PLAIN:
            self._take(action, *self._now(line))
        elif action == "change_configuration":
            self._change_configuration(line)
        elif action in ("take_snapshot", "restore_snapshot"):
            self._snapshot(line)
        else:
            raise Divergence(RAFT, "steps have names", f"{action} is not a step of the spec")

    def _take(self, action: str, *arguments: object) -> None:
        """Take the spec's step; raises Divergence if it is not enabled."""
        before, outcome = self.spec, self._outcome(action, *arguments)
        self.spec = outcome.server
        self.observer.taken(self, Transition(self.node, action, arguments, before, outcome))
        if before.role is Role.LEADER is not self.spec.role:
            self._lead_no_more(before.current_term)
        self._pre_votes.update(message for message in outcome.sent if isinstance(message, PreVoteResponse))
        for fact in outcome.facts:
            self.observer.fact(self, fact)

    def _outcome(self, action: str, *arguments: object) -> Outcome:
        """What the spec's action yields; raises Divergence if it is not enabled."""
        outcome = self.actions[action](self.constants, self.node, self.spec, *arguments)
        if outcome is None:
            raise not_enabled(self.constants, self.node, self.spec, action, self.actions[action], arguments)
        return outcome

    def _now(self, line: Step) -> tuple[Time, ...]:
        """The clock as the step read it, if it is one that does."""
        return (self._shown(line.now),) if line.action in CLOCKED else ()

    def _shown(self, now: Time) -> Time:
        """The clock as it was read, after all that was read before, and not in the future."""
        if not self.clock <= now <= self._ns:
            why = f"the clock showed {now} ns, after {self.clock} ns, in a line that was written at {self._ns} ns"
            raise Divergence(RAFT, "clocks do not go back, nor ahead", why)
        self.clock = now
        return now

    def _client_request(self, line: Step) -> None:
        for index, payload in line.entries:
            if index != self.spec.log.length + 1:
                why = f"an entry is appended at index {index} to a log of {self.spec.log.length} entries"
                raise Divergence(RAFT, "a leader appends at the end of its log", why)
            value = self.payloads.name(self.spec.log, self.spec.current_term, payload)
            self._take("client_request", value)
            self.proposed[index] = value

    def _change_configuration(self, line: Step) -> None:
        if [index for index, _ in line.entries] != [self.spec.log.length + 1]:
            why = f"{len(line.entries)} entries are appended to a log of {self.spec.log.length} entries: {line.entries}"
            raise Divergence(RAFT, "a configuration is one entry, at the end of the log", why[:400])
        ((_, payload),) = line.entries
        try:
            configuration = decoded_configuration(payload)
        except Malformed as malformed:
            raise Divergence(RAFT, "configurations are those of the format", str(malformed)) from malformed
        value = self.payloads.name(self.spec.log, self.spec.current_term, payload)
        self._take("change_configuration", configuration, value)

    def _snapshot(self, line: Step) -> None:
        if line.action == "take_snapshot":
            self._take(line.action, line.index)
        else:
            self._take(line.action)
            self.applied_before = self.spec.last_applied
            if self.spec.last_applied != line.index:
                why = f"a snapshot of index {line.index} was restored, the disk's is of {self.spec.last_applied}"
                raise Divergence(RAFT, "the newest snapshot is restored", why)
        self.observer.snapshot(self, line)

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
        message, frame, clock = found
        if message.dest != self.node:
            why = f"{line.message} was sent to {message.dest} and received by {self.node}"
            raise Divergence(PROVENANCE, "a message reaches its destination only", why, [f"  {message}"[:400]])
        if frame != line.frame:
            why = f"{line.message} left in a frame with checksum {frame} and arrived in one with {line.frame}"
            raise Divergence(PROVENANCE, "a message arrives as it was sent", why, [f"  {message}"[:400]])
        if line.action not in ("update_term", handler(message)):
            why = f"{line.action} handled {line.message}, which is for {handler(message)}"
            raise Divergence(PROVENANCE, "a message is handled as what it is", why, [f"  {message}"[:400]])
        if line.action in CLOCKED and line.now < clock:
            why = f"{line.message} was received at {line.now} ns, when its sender's clock had shown {clock} ns"
            raise Divergence(PROVENANCE, "a message is not received before it was sent", why)
        return message

    def _evidence(self, line: Step) -> LeaseEnded:
        """That the process which led the current term has ended, or lost its role, before this line was written."""
        term = self.spec.current_term
        end = self.network.leadership_end(line.peer, term)
        if end is None or end.incarnation > line.incarnation or end.ns > self._ns:
            led = "did not lead it" if end is None else f"led it until {end.ns} ns in incarnation {end.incarnation}"
            why = f"the leader of term {term} is said to have ended with {line.peer}'s incarnation {line.incarnation}"
            raise Divergence(PROVENANCE, TRUE_EVIDENCE, f"{why} at {self._ns} ns; {line.peer} {led}")
        return LeaseEnded(term, line.peer, self.node)

    def _send(self, line: Send) -> None:
        arguments = send_arguments(line)
        if line.action == "handle_pre_vote_request":
            self._deliver(line, self._pre_vote(line))
            return
        if arguments is None:
            raise Divergence(RAFT, "steps have names", f"{line.action} is not an action of the spec that sends")
        if None in arguments:
            raise Divergence(RAFT, f"{line.action} sends the spec's message", f"a field is missing: {line.message}")
        (message,) = self._outcome(line.action, *arguments).sent
        self._deliver(line, message)

    def _pre_vote(self, line: Send) -> Message:
        """The answer to a pre-vote request, which the step that handled the request has sent in the spec."""
        for message in self._pre_votes:
            if message.dest == line.to and recorded_fields(message, self.spec.log).items() <= line.message.items():
                return message
        why = f"{line.id} answers no pre-vote request of {line.to} as the spec does: {line.message}"
        raise Divergence(RAFT, f"{line.action} sends the spec's message", why)

    def _deliver(self, line: Send, message: Message) -> None:
        """Compare a message with what was recorded of it, and let it be received."""
        fields, expected = line.message, recorded_fields(message, self.spec.log)
        if not expected.items() <= fields.items():
            why = f"{line.id} is not the message that the spec sends"
            raise Divergence(RAFT, f"{line.action} sends the spec's message", why, mapping_diff(expected, fields))
        if not line.id.startswith(self.prefix):
            raise Divergence(PROVENANCE, "message ids name their sender", f"{line.id} was sent by {self.prefix[:-1]}")
        self.network.send(line.id, message, line.frame, self.clock)
