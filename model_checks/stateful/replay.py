"""Conformance in memory: each recorded step of a core is replayed as a step of `spec/raft`, from the spec's own
state.

The same judgement that `model_checks/conformance` passes on the traces of real processes, without files: here the
schedule is the hostile part. The argument why one server at a time is enough is in ARCHITECTURE.md, section 4.
"""

from __future__ import annotations

from base64 import b64decode
from hashlib import blake2b
from typing import Any, assert_never

import msgspec

from impl.raft.ready import Event, IssueEvent, SendEvent, StepEvent
from impl.raft.settings import Settings
from model_checks.stateful.violations import Property, Violation
from spec.raft import actions
from spec.raft.log import Log
from spec.raft.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    InstallSnapshotRequest,
    LeaseEnded,
    Message,
    PreVoteRequest,
    PreVoteResponse,
    RequestVoteRequest,
    RequestVoteResponse,
    TimeoutNow,
)
from spec.raft.types import Configuration, Constants, Outcome, Server, Term, Time

FIELDS = (
    "role", "term", "voted_for", "leader_id", "commit_index", "last_applied", "last_index", "last_term", "digest",
    "leader_match", "round", "votes", "match", "snapshot", "base", "heard_at", "pre_votes", "lease_ended", "urged_by",
    "transferring", "configuration_index",
)  # fmt: skip
"""The names of the state array's elements (ARCHITECTURE.md, section 5)."""


class Replay:
    """The spec's servers, driven by what the cores say that they did."""

    def __init__(self, servers: tuple[str, ...], voters: tuple[str, ...], settings: Settings) -> None:
        self.constants = Constants(
            servers=servers,
            voters=voters,
            election_timeout=settings.election_ns,
            lease=settings.lease_ns,
            pre_vote=settings.pre_vote,
        )
        self.servers: dict[str, Server] = {server: actions.initial_server() for server in servers}
        self.steps = 0
        self._ended: set[tuple[str, Term]] = set()
        """(server, term): who led the term leads it no more."""
        self._answers: dict[str, Message] = {}
        """What a server's latest step must send next."""
        self._messages: dict[str, Message] = {}
        self._issued: dict[str, list[tuple[int, int]]] = {server: [] for server in servers}
        """For each server, (number of a write on its way, how many points were issued up to it since the durable
        one).
        """
        self._digests: dict[Log, str] = {}

    def feed(self, name: str, incarnation: int, events: list[Event]) -> None:
        """Take the events of one server. Raises Violation at the first that the spec does not allow."""
        for event in events:
            match event:
                case StepEvent():
                    self._step(name, event)
                case SendEvent():
                    self._send(name, f"{name}/{incarnation}/{event.sequence}", event)
                case IssueEvent():
                    self._issue(name, event)
                case _:
                    assert_never(event)

    def restart(self, name: str, state: list[Any], now: Time) -> None:
        """A server started anew, in `state`, when its clock showed `now`: the spec must allow a crash that leaves it;
        none leaves less than it confirmed.
        """
        server = self.servers[name]
        candidates = [self.outcome(name, "crash_restart", k, now) for k in range(len(server.issued), -1, -1)]
        for outcome in candidates:
            if outcome is not None and self.state_of(outcome.server) == state:
                self.servers[name] = outcome.server
                self._note_ends(outcome)
                self._issued[name].clear()
                return
        raise Violation(
            Property.CONFORMANCE,
            f"{name} restarts as {state}: neither its durable point nor any point issued after it; "
            f"durable was {self._point(server.durable)}",
        )

    def crashed(self, name: str) -> None:
        """The server's process has ended: so has its lease, before it starts again."""
        outcome = self.outcome(name, "crash_restart", 0, 0)
        assert outcome is not None, "a crash is always possible"
        self._note_ends(outcome)

    def _note_ends(self, outcome: Outcome) -> None:
        for message in outcome.sent:
            if isinstance(message, LeaseEnded):
                self._ended.add((message.source, message.term))

    def state_of(self, server: Server) -> list[Any]:
        """The state array that a trace would have for `server`."""
        log = server.log
        return [
            server.role.value,
            server.current_term,
            server.voted_for,
            server.leader_id,
            server.commit_index,
            server.last_applied,
            log.length,
            log.last_term,
            self._digest(log),
            server.leader_match,
            server.round,
            list(server.votes),
            [list(pair) for pair in server.match_index],
            server.memory.snapshot,
            server.memory.base,
            server.heard_at,
            list(server.pre_votes),
            server.lease_ended,
            server.urged_by,
            server.transferring,
            log.configuration_index,
        ]

    def outcome(self, name: str, action: str, *arguments: Any) -> Outcome | None:
        """What the spec's `action` makes of the server; None if it is not enabled."""
        return actions.ACTIONS[action](self.constants, name, self.servers[name], *arguments)

    def _take(self, name: str, action: str, *arguments: Any) -> Outcome:
        outcome = self.outcome(name, action, *arguments)
        if outcome is None:
            shown = ", ".join(str(argument) for argument in arguments)
            raise Violation(
                Property.CONFORMANCE,
                f"{name} took {action}({shown}), which the spec does not enable in {self.state_of(self.servers[name])}",
            )
        self.servers[name] = outcome.server
        self._note_ends(outcome)
        self.steps += 1
        return outcome

    def _step(self, name: str, event: StepEvent) -> None:
        arguments = event.arguments
        now = (arguments["now"],) if event.action in actions.CLOCKED else ()
        match event.action:
            case "client_request" | "change_configuration":
                for index, payload in arguments["entries"]:
                    wanted = [_configuration(payload)] if event.action == "change_configuration" else []
                    self._take(name, event.action, *wanted, payload)
                    self._expect(name, event, "index", self.servers[name].log.length, index)
            case "advance_commit_index" | "take_snapshot" | "compact":
                self._take(name, event.action, arguments["index"])
            case "apply":
                while self.servers[name].last_applied < arguments["index"]:
                    self._take(name, "apply")
            case "read_request" | "lease_read" | "confirm_read" | "answer_read":
                self._take(name, event.action, arguments["read"], *now)
            case "persist":
                self._persist(name, event, arguments["write"])
            case "timeout" | "begin_round":
                self._take(name, event.action, *now)
            case "become_leader" | "step_down" | "transfer_leadership" | "restore_snapshot":
                self._take(name, event.action)
            case "handle_lease_ended":
                self._take(name, event.action, self._lease_ended(name, arguments["peer"]))
            case _:
                outcome = self._take(name, event.action, self._received(name, arguments["message"]), *now)
                if event.action == "handle_pre_vote_request" and outcome.sent:
                    (self._answers[name],) = outcome.sent
        for field, expected, actual in zip(FIELDS, self.state_of(self.servers[name]), event.state, strict=True):
            self._expect(name, event, field, expected, actual)

    def _lease_ended(self, name: str, peer: str) -> LeaseEnded:
        term = self.servers[name].current_term
        if (peer, term) not in self._ended:
            raise Violation(Property.CONFORMANCE, f"{name} believes that {peer} leads term {term} no more, but it does")
        return LeaseEnded(term=term, source=peer, dest=name)

    def _received(self, name: str, message_id: str) -> Message:
        message = self._messages.get(message_id)
        if message is None:
            raise Violation(Property.CONFORMANCE, f"{name} received {message_id}, which nobody sent")
        return message

    def _persist(self, name: str, event: StepEvent, number: int) -> None:
        issued = self._issued[name]
        points = next((points for write, points in issued if write == number), None)
        if points is None:
            raise Violation(Property.CONFORMANCE, f"{name} persisted write {number}, which is not on its way")
        if points:
            self._take(name, "persist", points)
        self._issued[name] = [(write, later - points) for write, later in issued if write > number]

    def _issue(self, name: str, event: IssueEvent) -> None:
        server = self.servers[name]
        if event.point != self._point(server.memory):
            raise Violation(
                Property.CONFORMANCE,
                f"{name} issued write {event.write} as {event.point}, but the spec has {self._point(server.memory)}",
            )
        self._issued[name].append((event.write, len(server.issued)))

    def _send(self, name: str, message_id: str, event: SendEvent) -> None:
        fields = event.message
        arguments: tuple[Any, ...]
        match event.action:
            case "append_entries":
                arguments = (event.to, fields["prev_log_index"], fields["last_log_index"])
            case "append_entries_response":
                arguments = (event.to, fields["success"], fields["match_index"])
            case "vote_response":
                arguments = (event.to, fields["vote_granted"])
            case _:
                arguments = (event.to,)
        if event.action == "handle_pre_vote_request":
            message = self._answers.pop(name)
        else:
            (message,) = self._take(name, event.action, *arguments).sent
        for field, expected in self._fields_of(message).items():
            if fields[field] != expected:
                raise Violation(
                    Property.CONFORMANCE,
                    f"{name} sent {message_id} with {field} = {fields[field]!r}; the spec has {expected!r}: {message}",
                )
        self._messages[message_id] = message

    def _fields_of(self, message: Message) -> dict[str, Any]:
        match message:
            case AppendEntriesRequest():
                last = message.prev_log_index + len(message.entries)
                return {
                    "term": message.term,
                    "prev_log_index": message.prev_log_index,
                    "prev_log_term": message.prev_log_term,
                    "last_log_index": last,
                    "digest": self._digest(self.servers[message.source].log.truncate(last)),
                    "commit_index": message.commit_index,
                    "round": message.round,
                }
            case AppendEntriesResponse():
                return {
                    "term": message.term,
                    "success": message.success,
                    "match_index": message.match_index,
                    "round": message.round,
                }
            case RequestVoteRequest() | PreVoteRequest():
                fields = msgspec.structs.asdict(message)
                return {field: fields[field] for field in fields if field not in ("source", "dest")}
            case InstallSnapshotRequest():
                return {
                    "term": message.term,
                    "last_index": message.last_index,
                    "last_term": message.last_term,
                    "digest": self._digest(message.log),
                    "round": message.round,
                }
            case RequestVoteResponse():
                return {"term": message.term, "vote_granted": message.vote_granted}
            case PreVoteResponse():
                return {"term": message.term, "vote_granted": message.granted}
            case TimeoutNow() | LeaseEnded():
                return {"term": message.term}
            case _:
                assert_never(message)

    def _expect(self, name: str, event: StepEvent, field: str, expected: object, actual: object) -> None:
        if expected != actual:
            raise Violation(
                Property.CONFORMANCE,
                f"after {event.action} {event.arguments}, {name} has {field} = {actual!r}; the spec has {expected!r}",
            )

    def _point(self, point: Any) -> list[Any]:
        log = point.log
        return [point.term, point.voted_for, log.length, self._digest(log), point.snapshot, point.base]

    def _digest(self, log: Log) -> str:
        """The chained digest (ARCHITECTURE.md, section 5), computed from the spec's log: no code is shared with the
        core.
        """
        missing: list[Log] = []
        while log.length and log not in self._digests:
            missing.append(log)
            log = log.truncate(log.length - 1)
        digest = self._digests[log] if log.length else "0" * 16
        for longer in reversed(missing):
            entry = longer.entry(longer.length)
            head = bytes.fromhex(digest) + longer.length.to_bytes(8, "big") + entry.term.to_bytes(8, "big")
            digest = blake2b(head + b64decode(entry.value), digest_size=8).hexdigest()
            self._digests[longer] = digest
        return digest


def _configuration(payload: str) -> Configuration:
    """The configuration of an entry's payload, as the spec writes it."""
    _, members, allowed_by = msgspec.msgpack.decode(b64decode(payload))
    voters = tuple(name for name, *_, voter, _ in members if voter)
    nonvoters = tuple(name for name, *_, voter, _ in members if not voter)
    return Configuration(voters, nonvoters, allowed_by)
