"""Runs of the spec itself, written as traces: the reference writer of the format, and what conformance must accept.

`SpecCluster` takes random steps of the spec's servers, from a seed, over a network that delays, duplicates and loses
messages, with disks that lose what was not confirmed, and records them as an agent does (ARCHITECTURE.md, section 5).
With `actions` from a broken spec it writes what a broken implementation would. It must not import anything of the
checker but the names of entries and payloads.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from model_checks.conformance.entries import Payloads, digest_at, digest_of
from model_checks.conformance.payloads import decoded_command, described_command, recorded_rows
from spec.catalog.commands import Get, Keys, List, Request
from spec.catalog.queries import query
from spec.catalog.state import initial_state
from spec.catalog.transitions import apply
from spec.raft.actions import ACTIONS, Action, initial_server
from spec.raft.messages import AppendEntriesRequest, Message, RequestVoteRequest
from spec.raft.network import handler
from spec.raft.types import Constants, Outcome, Role, Server

Lines = dict[str, list[dict[str, Any]]]
"""File name -> lines."""

REQUESTS: list[Request] = [Get("k1"), Get("k2"), List("k"), List(""), Keys("", "1"), Keys("k", "")]
NOOP = msgspec.msgpack.encode(["noop"])


class Node:
    """One server of a `SpecCluster`: the spec's state, and the traces of its incarnations."""

    def __init__(self, name: str, cluster: SpecCluster) -> None:
        self.name, self.cluster = name, cluster
        self.server = initial_server()
        self.incarnation = 0
        self.start()

    def start(self) -> None:
        """Begin an incarnation with the recovered state."""
        self.incarnation += 1
        self.sequence = self.messages = self.requests = self.confirmed = self.issued = 0
        self.writes: list[int] = []
        self.votes_owed: dict[str, bool] = {}
        self.acks_owed: dict[str, bool] = {}
        self.proposed: dict[int, str] = {}
        self.names: dict[int, str] = {}
        self.state = initial_state()
        header = {
            "kind": "header",
            "format": 1,
            "cluster_id": "c1",
            "node": self.name,
            "incarnation": self.incarnation,
            "voters": list(self.cluster.constants.servers),
            "ns": self.cluster.tick(),
            "state": self.recorded_state(),
        }
        self.lines = self.cluster.lines[f"{self.name}-{self.incarnation:06d}.ndjson"] = [header]

    def recorded_state(self) -> list[Any]:
        """The state array of a line."""
        s = self.server
        last, match = s.log.length, [list(pair) for pair in s.match_index]
        fields: list[Any] = [
            str(s.role),
            s.current_term,
            s.voted_for,
            s.leader_id,
            s.commit_index,
            s.last_applied,
            last,
        ]
        return [*fields, s.log.last_term, digest_of(s.log), s.leader_match, s.round, list(s.votes), match]

    def write(self, kind: str, **fields: Any) -> None:
        """Add a line to the trace."""
        self.sequence += 1
        self.lines.append({"kind": kind, "seq": self.sequence, "ns": self.cluster.tick(), **fields})

    def take(self, action: str, *arguments: object, **recorded: Any) -> Outcome | None:
        """Take a step if it is enabled, and record it; what it changes on disk is issued at once, or with the next."""
        outcome = self.cluster.actions[action](self.cluster.constants, self.name, self.server, *arguments)
        if outcome is None or (outcome.server == self.server and not outcome.facts and not arguments):
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
            memory = self.server.memory
            point = [memory.term, memory.voted_for, memory.log.length, digest_of(memory.log)]
            self.write("issue", write=len(self.writes), point=point)

    def persist(self) -> None:
        """The disk confirms one of the writes under way, and all before it."""
        waiting = [number for number, covered in enumerate(self.writes, 1) if covered > self.confirmed]
        if waiting:
            number = self.cluster.random.choice(waiting)
            k, self.confirmed = self.writes[number - 1] - self.confirmed, self.writes[number - 1]
            assert self.take("persist", k, write=number) is not None

    def send(self, action: str, to: str, *arguments: object) -> None:
        """Send a message if the spec lets it."""
        outcome = self.cluster.actions[action](self.cluster.constants, self.name, self.server, to, *arguments)
        if outcome is None:
            return
        (message,) = outcome.sent
        self.messages += 1
        id, frame = f"{self.name}/{self.incarnation}/{self.messages}", self.cluster.random.getrandbits(32)
        self.write("send", id=id, to=to, action=action, message=recorded_message(self.server, message), frame=frame)
        self.cluster.network.append((id, message, frame))

    def receive(self, id: str, message: Message, frame: int) -> None:
        """Handle a message, and remember what is owed for it."""
        if message.term > self.server.current_term:
            self.take("update_term", message, message=id, frame=frame)
            self.votes_owed, self.acks_owed = {}, {}
        if message.term < self.server.current_term:
            return
        before = self.server
        self.take(handler(message), message, message=id, frame=frame)
        if isinstance(message, RequestVoteRequest):
            self.votes_owed[message.source] = self.server.voted_for == message.source
        elif isinstance(message, AppendEntriesRequest):
            fits = message.prev_log_index <= before.log.length
            fits = fits and before.log.term_at(message.prev_log_index) == message.prev_log_term
            self.acks_owed[message.source] = fits

    def respond(self) -> None:
        """Answer what was received, as far as the disk allows."""
        for to, granted in sorted(self.votes_owed.items()):
            self.send("vote_response", to, granted)
        for to, success in sorted(self.acks_owed.items()):
            match = min(self.server.leader_match, self.server.durable.log.common_prefix(self.server.log).length)
            self.send("append_entries_response", to, success, match if success else 0)
        self.votes_owed, self.acks_owed = {}, {}

    def propose(self, payloads: list[bytes]) -> None:
        """Append a batch: one step of the trace, one of the spec for each entry."""
        recorded: list[tuple[int, str]] = []
        for payload in payloads:
            value = self.cluster.payloads.name(self.server.log, self.server.current_term, payload)
            outcome = self.cluster.actions["client_request"](self.cluster.constants, self.name, self.server, value)
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

    def apply(self) -> None:
        """Apply what may be applied, as one step of the trace, and answer the writes."""
        first = self.server.last_applied + 1
        while outcome := self.cluster.actions["apply"](self.cluster.constants, self.name, self.server):
            self.server = outcome.server
        if self.server.last_applied < first:
            return
        self.write("step", action="apply", index=self.server.last_applied, state=self.recorded_state())
        for index in range(first, self.server.last_applied + 1):
            value = self.server.log.entry(index).value
            command = decoded_command(self.cluster.payloads[value])
            self.state, result = apply(self.state, command, index)
            if self.proposed.get(index) == value and described_command(command) != ("noop",):
                described = list(described_command(command))
                self.answer("write", described, result, self.names[index], applied=index, index=index)

    def answer(self, mode: str, asked: list[Any], result: Any, request: str = "", **more: Any) -> None:
        """Tell a client a result."""
        self.requests += 1
        request = request or f"{self.name}/{self.incarnation}/r{self.requests}"
        fields: dict[str, Any] = {"applied": self.server.last_applied, **more}
        self.write("answer", request=request, mode=mode, query=asked, result=result, **fields)

    def answer_read(self, mode: str, request: Request, **more: Any) -> None:
        """Tell a client what it reads."""
        index, rows = query(self.state, request)
        name = {Get: "kv-get", List: "kv-list", Keys: "kv-keys"}[type(request)]
        self.answer(mode, [name, *msgspec.structs.astuple(request)], [index, recorded_rows(rows)], **more)

    def read(self, request: Request) -> None:
        """A consistent read arrives."""
        id = f"r{self.requests}"
        if self.take("read_request", f"{self.name}/{self.incarnation}/{id}", read=id):
            self.requests += 1
            self.cluster.reads[f"{self.name}/{self.incarnation}/{id}"] = request

    def crash(self) -> None:
        """Lose the volatile state and some of the writes under way, and start again."""
        outcome = self.cluster.actions["crash_restart"](
            self.cluster.constants, self.name, self.server, self.cluster.random.randint(0, self.issued_points())
        )
        if outcome is not None:
            self.server = outcome.server
            self.start()

    def issued_points(self) -> int:
        """Points that may be on disk: only what was issued in the trace was handed to the disk."""
        return (self.writes[-1] if self.writes else 0) - self.confirmed


class SpecCluster:
    """A cluster of the spec, run at random from a seed; `actions` may be a broken spec."""

    def __init__(self, seed: int, servers: int = 3, actions: Mapping[str, Action] | None = None) -> None:
        self.random = Random(seed)
        self.constants = Constants(tuple(f"s{number}" for number in range(1, servers + 1)))
        self.actions = {**ACTIONS, **(actions or {})}
        self.payloads = Payloads()
        self.network: list[tuple[str, Message, int]] = []
        self.reads: dict[str, Request] = {}
        self.lines: Lines = {}
        self.clock = 0
        self.nodes = [Node(name, self) for name in self.constants.servers]

    def tick(self) -> int:
        """The next instant, in nanoseconds."""
        self.clock += 1000
        return self.clock

    def run(self, steps: int) -> SpecCluster:
        """Take `steps` random actions."""
        for _ in range(steps):
            self.step(self.random.choice(self.nodes))
        return self

    def step(self, node: Node) -> None:
        """One random action; elections and crashes are rare."""
        chance = self.random.random()
        if self.network and chance < 0.5:
            place = self.random.randrange(len(self.network))
            id, message, frame = self.network[place]
            if self.random.random() < 0.9:
                self.network.pop(place)
            next(n for n in self.nodes if n.name == message.dest).receive(id, message, frame)
        elif chance < 0.65:
            node.persist()
        elif chance < 0.75:
            node.respond()
        elif chance < 0.98:
            self.lead(node) if node.server.role is Role.LEADER else self.follow(node)
        elif chance < 0.985:
            node.crash()
        self.read_locally(node)

    def follow(self, node: Node) -> None:
        """What a follower or candidate does by itself."""
        node.apply()
        if self.random.random() < 0.03 and (node.server.role is Role.FOLLOWER or self.random.random() < 0.3):
            node.take("timeout")
        if node.server.role is Role.CANDIDATE:
            for peer in self.constants.peers(node.name):
                node.send("request_vote", peer)
            if node.take("become_leader"):
                node.propose([NOOP])

    def lead(self, node: Node) -> None:
        """What a leader does by itself."""
        for name in self.constants.peers(node.name):
            length = node.server.log.length
            known = dict(node.server.match_index)[name]
            prev = self.random.choice([known, known, self.random.randint(0, length)])
            node.send("append_entries", name, prev, self.random.randint(prev, length))
        for index in range(node.server.log.length, node.server.commit_index, -1):
            if node.take("advance_commit_index", index, index=index):
                break
        node.apply()
        if self.random.random() < 0.5:
            node.propose([random_payload(self.random) for _ in range(self.random.randint(1, 3))])
        if self.random.random() < 0.5:
            node.read(self.random.choice(REQUESTS))
        for waiting in node.server.reads:
            node.take("confirm_read", waiting.id, read=waiting.id.rpartition("/")[2])
        for waiting in node.server.confirmed:
            id = waiting.id.rpartition("/")[2]
            if node.take("answer_read", waiting.id, read=id):
                node.answer_read("consistent", self.reads[waiting.id], read=id)

    def read_locally(self, node: Node) -> None:
        """Now and then a client reads without asking a quorum."""
        if self.random.random() < 0.1:
            mode = "default" if node.server.role is Role.LEADER and self.random.random() < 0.5 else "stale"
            node.answer_read(mode, self.random.choice(REQUESTS))


def random_payload(random: Random) -> bytes:
    """A write over few keys, so that they meet."""
    key, value, index = f"k{random.randint(1, 3)}", random.randbytes(2), random.randint(0, 9)
    commands = [
        ["kv-set", key, value, 0],
        ["kv-cas", key, value, 7, index],
        ["kv-delete", key],
        ["kv-delete-cas", key, index],
        ["kv-delete-tree", "k"],
    ]
    return msgspec.msgpack.encode(random.choices(commands, [6, 2, 1, 1, 1])[0])


def recorded_message(s: Server, m: Message) -> dict[str, Any]:
    """A message's fields as a `send` line has them."""
    match m:
        case AppendEntriesRequest():
            last = m.prev_log_index + len(m.entries)
            fields = msgspec.structs.asdict(m)
            del fields["entries"]
            fields |= {"last_log_index": last, "digest": digest_at(s.log, last)}
        case _:
            fields = msgspec.structs.asdict(m)
    del fields["source"], fields["dest"]
    return fields


def written(lines: Lines, directory: Path) -> Path:
    """Write the traces into `directory`, and return it."""
    for name, of_file in lines.items():
        (directory / name).write_text("".join(f"{json.dumps(line)}\n" for line in of_file))
    return directory
