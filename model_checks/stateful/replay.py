"""Conformance in memory: each recorded step of a core is replayed as a step of `spec/raft`, from the spec's own
state.

The same judgement that `model_checks/conformance` passes on the traces of real processes, without files: here the
schedule is the hostile part. The argument why one server at a time is enough is in ARCHITECTURE.md, section 4.
"""

from __future__ import annotations

from base64 import b64decode
from hashlib import blake2b
from typing import Any, assert_never

from impl.raft.ready import Event, IssueEvent, SendEvent, StepEvent
from model_checks.stateful.violations import Property, Violation
from spec.raft import actions
from spec.raft.log import Log
from spec.raft.messages import AppendEntriesRequest, AppendEntriesResponse, Message, RequestVoteRequest
from spec.raft.types import Constants, Outcome, Server

FIELDS = (
    "role", "term", "voted_for", "leader_id", "commit_index", "last_applied", "last_index", "last_term", "digest",
    "leader_match", "round", "votes", "match",
)  # fmt: skip
"""The names of the state array's elements (ARCHITECTURE.md, section 5)."""


class Replay:
    """The spec's servers, driven by what the cores say that they did."""

    def __init__(self, voters: tuple[str, ...]) -> None:
        self.constants = Constants(voters)
        self.servers: dict[str, Server] = {voter: actions.initial_server() for voter in voters}
        self.steps = 0
        self._messages: dict[str, Message] = {}
        self._issued: dict[str, list[tuple[int, int]]] = {voter: [] for voter in voters}
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

    def restart(self, name: str, state: list[Any]) -> None:
        """A server started anew in `state`: the spec must allow a crash that leaves it, and less than it confirmed is
        none.
        """
        server = self.servers[name]
        candidates = [self.outcome(name, "crash_restart", k) for k in range(len(server.issued), -1, -1)]
        for outcome in candidates:
            if outcome is not None and self.state_of(outcome.server) == state:
                self.servers[name] = outcome.server
                self._issued[name].clear()
                return
        raise Violation(
            Property.CONFORMANCE,
            f"{name} restarts as {state}: neither its durable point nor any point issued after it; "
            f"durable was {self._point(server.durable)}",
        )

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
        self.steps += 1
        return outcome

    def _step(self, name: str, event: StepEvent) -> None:
        arguments = event.arguments
        match event.action:
            case "client_request":
                for index, payload in arguments["entries"]:
                    self._take(name, "client_request", payload)
                    self._expect(name, event, "index", self.servers[name].log.length, index)
            case "advance_commit_index":
                self._take(name, "advance_commit_index", arguments["index"])
            case "apply":
                while self.servers[name].last_applied < arguments["index"]:
                    self._take(name, "apply")
            case "read_request" | "confirm_read" | "answer_read":
                self._take(name, event.action, arguments["read"])
            case "persist":
                self._persist(name, event, arguments["write"])
            case "timeout" | "become_leader":
                self._take(name, event.action)
            case _:
                self._take(name, event.action, self._received(name, arguments["message"]))
        for field, expected, actual in zip(FIELDS, self.state_of(self.servers[name]), event.state, strict=True):
            self._expect(name, event, field, expected, actual)

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
            case RequestVoteRequest():
                return {
                    "term": message.term,
                    "last_log_index": message.last_log_index,
                    "last_log_term": message.last_log_term,
                }
            case _:
                return {"term": message.term, "vote_granted": message.vote_granted}

    def _expect(self, name: str, event: StepEvent, field: str, expected: object, actual: object) -> None:
        if expected != actual:
            raise Violation(
                Property.CONFORMANCE,
                f"after {event.action} {event.arguments}, {name} has {field} = {actual!r}; the spec has {expected!r}",
            )

    def _point(self, point: Any) -> list[Any]:
        return [point.term, point.voted_for, point.log.length, self._digest(point.log)]

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
