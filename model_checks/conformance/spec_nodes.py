"""One server of a run of the spec, which writes traces as an agent does (ARCHITECTURE.md, section 5).

Every method takes steps of the spec, if they are enabled, and records them. Which ones to take is decided by
`spec_runs`. It must not import anything of the checker but the names of entries and payloads.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from random import Random
from typing import Any, NamedTuple, Protocol

import msgspec

from model_checks.catalog.payloads import decoded
from model_checks.catalog.records import described_command, recorded_rows
from model_checks.conformance.entries import Payloads, digest_at, digest_of
from model_checks.conformance.payloads import state_digest
from spec.catalog.commands import Command, Get, Keys, List, Request
from spec.catalog.queries import query
from spec.catalog.state import State, initial_state
from spec.catalog.transitions import apply
from spec.raft.actions import CLOCKED, Action, initial_server
from spec.raft.log import Log
from spec.raft.messages import (
    AppendEntriesRequest,
    InstallSnapshotRequest,
    LeaseEnded,
    Message,
    PreVoteResponse,
    RequestVoteRequest,
)
from spec.raft.network import handler
from spec.raft.types import Configuration, Constants, Outcome, Role, ServerId, Term, Value

Lines = dict[str, list[dict[str, Any]]]
"""File name -> lines."""
NOOP = msgspec.msgpack.encode(["noop"])


class Ended(NamedTuple):
    """A process that led a term is gone."""

    server: ServerId
    incarnation: int
    term: Term


class Cluster(Protocol):
    """What the servers of a run share."""

    random: Random
    constants: Constants
    actions: Mapping[str, Action]
    payloads: Payloads
    states: dict[Value, State]
    """The state machine after each entry that some server applied."""
    network: list[tuple[str, Message, int]]
    ended: list[Ended]
    reads: dict[str, tuple[str, Request]]
    """Mode and request of the reads under way."""
    lines: Lines
    clock: int
    """Nanoseconds."""

    def tick(self) -> int:
        """The next instant."""
        ...


class Node:
    """One server of a run: the spec's state, and the traces of its incarnations."""

    def __init__(self, name: str, cluster: Cluster) -> None:
        self.name, self.cluster = name, cluster
        self.server = initial_server()
        self.incarnation = 0
        self.restart(0)

    # ---------------------------------------------------------------------------------------------- incarnations

    def restart(self, k: int) -> None:
        """Begin an incarnation with what the disk holds if it had written `k` of the writes under way."""
        c, role, term = self.cluster, self.server.role, self.server.current_term
        outcome = c.actions["crash_restart"](c.constants, self.name, self.server, k, c.clock)
        assert outcome is not None
        if role is Role.LEADER:
            c.ended.append(Ended(self.name, self.incarnation, term))
        self.server = outcome.server
        self.state = self.restored()
        self.incarnation += 1
        self.sequence = self.messages = self.requests = self.confirmed = 0
        self.writes: list[int] = []
        self.votes_owed: dict[str, bool] = {}
        self.acks_owed: dict[str, bool] = {}
        self.proposed: dict[int, str] = {}
        self.names: dict[int, str] = {}
        header = {
            "kind": "header",
            "format": 2,
            "cluster_id": "c1",
            "node": self.name,
            "incarnation": self.incarnation,
            "voters": list(c.constants.voters),
            "election_ns": c.constants.election_timeout,
            "lease_ns": c.constants.lease,
            "ns": c.tick(),
            "state": self.recorded_state(),
        }
        self.lines = c.lines[f"{self.name}-{self.incarnation:06d}.ndjson"] = [header]

    def crash(self) -> None:
        """Lose the volatile state and some of the writes under way, and start again."""
        issued_points = (self.writes[-1] if self.writes else 0) - self.confirmed
        self.restart(self.cluster.random.randint(0, issued_points))

    def restored(self) -> State:
        """The state machine that the snapshot on this server's disk holds."""
        snapshot = self.server.durable.snapshot
        return self.cluster.states[self.server.durable.log.entry(snapshot).value] if snapshot else initial_state()

    @property
    def configuration(self) -> Configuration:
        """The latest configuration of this server's log."""
        return self.cluster.constants.configuration(self.server.log)

    # ---------------------------------------------------------------------------------------------------- writing

    def recorded_state(self) -> list[Any]:
        """The state array of a line."""
        s, log, memory = self.server, self.server.log, self.server.memory
        found: list[Any] = [str(s.role), s.current_term, s.voted_for, s.leader_id, s.commit_index, s.last_applied]
        found += [log.length, log.last_term, digest_of(log), s.leader_match, s.round, list(s.votes)]
        found += [[list(pair) for pair in s.match_index], memory.snapshot, memory.base, s.heard_at, list(s.pre_votes)]
        return [*found, s.lease_ended, s.urged_by, s.transferring, log.configuration_index]

    def write(self, kind: str, **fields: Any) -> None:
        """Add a line to the trace."""
        self.sequence += 1
        self.lines.append({"kind": kind, "seq": self.sequence, "ns": self.cluster.tick(), **fields})

    def outcome(self, action: str, *arguments: object) -> Outcome | None:
        """What an action yields now."""
        return self.cluster.actions[action](self.cluster.constants, self.name, self.server, *arguments)

    def take(self, action: str, *arguments: object, **recorded: Any) -> Outcome | None:
        """Take a step if it is enabled, and record it; what it changes on disk is issued at once, or with the next."""
        if action in CLOCKED:
            arguments, recorded = (*arguments, self.cluster.clock), {**recorded, "now": self.cluster.clock}
        outcome = self.outcome(action, *arguments)
        if outcome is None or (outcome.server == self.server and not outcome.facts and not recorded):
            return None
        self.server = outcome.server
        self.write("step", action=action, **recorded, state=self.recorded_state())
        if self.cluster.random.random() < 0.6:
            self.issue()
        return outcome

    def issue(self) -> None:
        """Ask the disk for everything that memory has and no write covers yet."""
        covered = self.confirmed + len(self.server.issued)
        if covered > (self.writes[-1] if self.writes else 0):
            self.writes.append(covered)
            memory, log = self.server.memory, self.server.log
            point = [memory.term, memory.voted_for, log.length, digest_of(log), memory.snapshot, memory.base]
            self.write("issue", write=len(self.writes), point=point)

    def persist(self) -> None:
        """The disk confirms one of the writes under way, and all before it."""
        waiting = [number for number, covered in enumerate(self.writes, 1) if covered > self.confirmed]
        if waiting:
            number = self.cluster.random.choice(waiting)
            k, self.confirmed = self.writes[number - 1] - self.confirmed, self.writes[number - 1]
            assert self.take("persist", k, write=number) is not None

    # --------------------------------------------------------------------------------------------------- messages

    def send(self, action: str, to: str, *arguments: object) -> None:
        """Send a message if the spec lets it."""
        outcome = self.outcome(action, to, *arguments)
        if outcome is not None:
            (message,) = outcome.sent
            self.post(action, message)

    def post(self, action: str, message: Message) -> None:
        """Record a message, and let it go."""
        self.messages += 1
        id, frame = f"{self.name}/{self.incarnation}/{self.messages}", self.cluster.random.getrandbits(32)
        fields = recorded_message(self.server.log, message)
        self.write("send", id=id, to=message.dest, action=action, message=fields, frame=frame)
        self.cluster.network.append((id, message, frame))

    def receive(self, id: str, message: Message, frame: int) -> None:
        """Handle a message, and remember what is owed for it."""
        if message.term > self.server.current_term and self.take("update_term", message, message=id, frame=frame):
            self.votes_owed, self.acks_owed = {}, {}
        before = self.server
        outcome = self.take(handler(message), message, message=id, frame=frame)
        for answer in outcome.sent if outcome else ():
            if isinstance(answer, PreVoteResponse):
                self.post(handler(message), answer)
        if message.term < self.server.current_term:
            return
        if isinstance(message, RequestVoteRequest):
            self.votes_owed[message.source] = self.server.voted_for == message.source
        elif isinstance(message, InstallSnapshotRequest):
            self.acks_owed[message.source] = True
        elif isinstance(message, AppendEntriesRequest):
            prev = message.prev_log_index
            fits = prev <= before.log.length
            fits = fits and (prev < before.memory.base or before.log.term_at(prev) == message.prev_log_term)
            self.acks_owed[message.source] = fits

    def respond(self) -> None:
        """Answer what was received, as far as the disk allows."""
        for to, granted in sorted(self.votes_owed.items()):
            self.send("vote_response", to, granted)
        for to, success in sorted(self.acks_owed.items()):
            match = min(self.server.leader_match, self.server.durable.log.common_prefix(self.server.log).length)
            self.send("append_entries_response", to, success, match if success else 0)
        self.votes_owed, self.acks_owed = {}, {}

    def believe_the_end(self) -> None:
        """Act on evidence that the process which led the current term has ended."""
        for ended in self.cluster.ended:
            if ended.term == self.server.current_term and not self.server.lease_ended and ended.server != self.name:
                lease_ended = LeaseEnded(ended.term, ended.server, self.name)
                self.take("handle_lease_ended", lease_ended, peer=ended.server, incarnation=ended.incarnation)

    # ---------------------------------------------------------------------------------------------- the log's use

    def propose(self, payloads: list[bytes]) -> None:
        """Append a batch: one step of the trace, one of the spec for each entry."""
        recorded: list[tuple[int, str]] = []
        for payload in payloads:
            value = self.cluster.payloads.name(self.server.log, self.server.current_term, payload)
            outcome = self.outcome("client_request", value)
            if outcome is None:
                return
            self.server = outcome.server
            self.proposed[self.server.log.length] = value
            recorded.append((self.server.log.length, base64.b64encode(payload).decode()))
        self.write("step", action="client_request", entries=recorded, state=self.recorded_state())
        for index, _ in recorded if payloads != [NOOP] else []:
            self.requests += 1
            self.names[index] = f"{self.name}/{self.incarnation}/r{self.requests}"
            self.write("propose", request=self.names[index], index=index, term=self.server.current_term)
        self.issue()

    def reconfigure(self, voters: set[str], nonvoters: set[str]) -> None:
        """Change the membership, if that is allowed now."""
        allowed_by, named = self.server.commit_index, sorted(voters | nonvoters)
        configuration = Configuration(tuple(sorted(voters)), tuple(sorted(nonvoters)), allowed_by)
        rows = [[name, f"id-{name}", f"storage-{name}", f"{name}:8300", name in voters] for name in named]
        payload = msgspec.msgpack.encode(["configuration", rows, allowed_by])
        value = self.cluster.payloads.name(self.server.log, self.server.current_term, payload)
        entries = [[self.server.log.length + 1, base64.b64encode(payload).decode()]]
        self.take("change_configuration", configuration, value, entries=entries)

    def apply(self) -> None:
        """Apply what may be applied, as one step of the trace, and answer the writes."""
        if self.take("restore_snapshot"):
            self.state = self.restored()
            self.lines[-1 if self.lines[-1]["kind"] == "step" else -2] |= self.recorded_snapshot()
        first, results = self.server.last_applied + 1, list[tuple[int, Command, Any]]()
        while outcome := self.outcome("apply"):
            self.server = outcome.server
            index = self.server.last_applied
            value = self.server.log.entry(index).value
            command = decoded(self.cluster.payloads[value])
            self.state, result = apply(self.state, command, index)
            self.cluster.states[value] = self.state
            if self.proposed.get(index) == value and described_command(command) != ["noop"]:
                results.append((index, command, result))
        if self.server.last_applied < first:
            return
        self.write("step", action="apply", index=self.server.last_applied, state=self.recorded_state())
        for index, command, result in results:
            described = described_command(command)
            self.answer("write", described, result, self.names[index], applied=index, index=index)

    def recorded_snapshot(self) -> dict[str, Any]:
        """What lines say of a snapshot of the state machine as it is."""
        return {"index": self.server.last_applied, "state_digest": state_digest(self.state)}

    def snapshot(self, trailing: int) -> None:
        """Take a snapshot of what is applied, and forget the log but for some entries before it."""
        if self.take("take_snapshot", self.server.last_applied, **self.recorded_snapshot()):
            index = self.server.last_applied - trailing
            self.take("compact", index, index=index)

    # ------------------------------------------------------------------------------------------------------ reads

    def read(self, mode: str, request: Request) -> None:
        """A read arrives that needs a confirmation: by the lease if one holds and will do, else by a round."""
        id = f"r{self.requests}"
        full = f"{self.name}/{self.incarnation}/{id}"
        by_lease = mode == "default" and self.take("lease_read", full, read=id)
        if by_lease or self.take("read_request", full, read=id):
            self.requests += 1
            self.cluster.reads[full] = (mode, request)

    def answer_reads(self) -> None:
        """Confirm and answer the reads that may be."""
        for waiting in self.server.reads:
            self.take("confirm_read", waiting.id, read=waiting.id.rpartition("/")[2])
        for waiting in self.server.confirmed:
            id = waiting.id.rpartition("/")[2]
            if self.take("answer_read", waiting.id, read=id):
                self.answer_read(*self.cluster.reads[waiting.id], read=id)

    def answer_read(self, mode: str, request: Request, **more: Any) -> None:
        """Tell a client what it reads."""
        index, rows = query(self.state, request)
        name = {Get: "kv-get", List: "kv-list", Keys: "kv-keys"}[type(request)]
        self.answer(mode, [name, *msgspec.structs.astuple(request)], [index, recorded_rows(rows)], **more)

    def answer(self, mode: str, asked: list[Any], result: Any, request: str = "", **more: Any) -> None:
        """Tell a client a result."""
        self.requests += 1
        request = request or f"{self.name}/{self.incarnation}/r{self.requests}"
        fields: dict[str, Any] = {"applied": self.server.last_applied, **more}
        self.write("answer", request=request, mode=mode, query=asked, result=result, **fields)


def recorded_message(log: Log, m: Message) -> dict[str, Any]:
    """A message's fields as a `send` line has them."""
    fields = msgspec.structs.asdict(m)
    match m:
        case AppendEntriesRequest():
            last = m.prev_log_index + len(m.entries)
            del fields["entries"]
            fields |= {"last_log_index": last, "digest": digest_at(log, last)}
        case InstallSnapshotRequest():
            del fields["log"]
            fields["digest"] = digest_at(log, m.last_index)
        case PreVoteResponse():
            fields["vote_granted"] = fields.pop("granted")
        case _:
            pass
    del fields["source"], fields["dest"]
    return fields
