"""Conformance accepts what the spec does and rejects everything else, naming the rule that was broken.

`SpecCluster` drives the spec's own actions at random from a seed and writes traces in the format of ARCHITECTURE.md,
section 5. A run of the spec conforms; a run of a broken spec, and a trace that was tampered with, do not.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from model_checks.conformance import check_traces
from model_checks.conformance.entries import Payloads, digest_at, digest_of
from model_checks.conformance.payloads import decoded_command, described_command, recorded_rows
from model_checks.verdicts import CheckResult, Verdict, merge
from spec.catalog.commands import Get, Keys, List, Request
from spec.catalog.queries import query
from spec.catalog.state import initial_state
from spec.catalog.transitions import apply
from spec.raft.actions import ACTIONS, Action, initial_server
from spec.raft.messages import (
    AppendEntriesRequest,
    Message,
    RequestVoteRequest,
)
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
        covered = self.confirmed + len(self.server.issued)
        if covered > (self.writes[-1] if self.writes else 0):
            self.writes.append(covered)
            memory = self.server.memory
            point = [memory.term, memory.voted_for, memory.log.length, digest_of(memory.log)]
            self.write("issue", write=len(self.writes), point=point)

    def persist(self) -> None:
        waiting = [number for number, covered in enumerate(self.writes, 1) if covered > self.confirmed]
        if waiting:
            number = self.cluster.random.choice(waiting)
            k, self.confirmed = self.writes[number - 1] - self.confirmed, self.writes[number - 1]
            assert self.take("persist", k, write=number) is not None

    def send(self, action: str, to: str, *arguments: object) -> None:
        outcome = self.cluster.actions[action](self.cluster.constants, self.name, self.server, to, *arguments)
        if outcome is None:
            return
        (message,) = outcome.sent
        self.messages += 1
        id, frame = f"{self.name}/{self.incarnation}/{self.messages}", self.cluster.random.getrandbits(32)
        self.write("send", id=id, to=to, action=action, message=recorded_message(self.server, message), frame=frame)
        self.cluster.network.append((id, message, frame))

    def receive(self, id: str, message: Message, frame: int) -> None:
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
        for to, granted in sorted(self.votes_owed.items()):
            self.send("vote_response", to, granted)
        for to, success in sorted(self.acks_owed.items()):
            match = min(self.server.leader_match, self.server.durable.log.common_prefix(self.server.log).length)
            self.send("append_entries_response", to, success, self.cluster.acknowledged(self, match) if success else 0)
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
        self.requests += 1
        request = request or f"{self.name}/{self.incarnation}/r{self.requests}"
        fields: dict[str, Any] = {"applied": self.server.last_applied, **more}
        self.write("answer", request=request, mode=mode, query=asked, result=result, **fields)

    def answer_read(self, mode: str, request: Request, **more: Any) -> None:
        index, rows = query(self.state, request)
        name = {Get: "kv-get", List: "kv-list", Keys: "kv-keys"}[type(request)]
        self.answer(mode, [name, *msgspec.structs.astuple(request)], [index, recorded_rows(rows)], **more)

    def read(self, request: Request) -> None:
        id = f"r{self.requests}"
        if self.take("read_request", f"{self.name}/{self.incarnation}/{id}", read=id):
            self.requests += 1
            self.cluster.reads[f"{self.name}/{self.incarnation}/{id}"] = request

    def crash(self) -> None:
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

    def __init__(self, seed: int, servers: int = 3, actions: dict[str, Action] | None = None) -> None:
        self.random = Random(seed)
        self.constants = Constants(tuple(f"s{number}" for number in range(1, servers + 1)))
        self.actions = {**ACTIONS, **(actions or {})}
        self.payloads = Payloads()
        self.network: list[tuple[str, Message, int]] = []
        self.reads: dict[str, Request] = {}
        self.lines: Lines = {}
        self.clock = 0
        self.acknowledged: Callable[[Node, int], int] = lambda node, match: match
        self.nodes = [Node(name, self) for name in self.constants.servers]

    def tick(self) -> int:
        self.clock += 1000
        return self.clock

    def run(self, steps: int) -> SpecCluster:
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
        node.apply()
        if self.random.random() < 0.03 and (node.server.role is Role.FOLLOWER or self.random.random() < 0.3):
            node.take("timeout")
        if node.server.role is Role.CANDIDATE:
            for peer in self.constants.peers(node.name):
                node.send("request_vote", peer)
            if node.take("become_leader"):
                node.propose([NOOP])

    def lead(self, node: Node) -> None:
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
        if self.random.random() < 0.1:
            mode = "default" if node.server.role is Role.LEADER and self.random.random() < 0.5 else "stale"
            node.answer_read(mode, self.random.choice(REQUESTS))


def random_payload(random: Random) -> bytes:
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
    for name, of_file in lines.items():
        (directory / name).write_text("".join(json.dumps(line) + "\n" for line in of_file))
    return directory


def judged(lines: Lines, directory: Path) -> dict[str, CheckResult]:
    return {result.checker.partition("/")[2]: result for result in check_traces(written(lines, directory))}


def broken(results: dict[str, CheckResult]) -> list[tuple[str, str]]:
    return [(name, result.property) for name, result in results.items() if result.verdict == Verdict.INVALID]


@pytest.fixture(scope="module")
def good_run() -> Lines:
    """A run with elections, crashes, commits, reads and answers of every kind."""
    return SpecCluster(seed=5).run(6000).lines


@pytest.fixture
def lines(good_run: Lines) -> Lines:
    """The good run, to be tampered with."""
    copy: Lines = msgspec.json.decode(msgspec.json.encode(good_run))
    return copy


# ---------------------------------------------------------------------------------------------- what conforms


@pytest.mark.parametrize(("seed", "servers"), [(1, 1), (2, 3), (3, 3), (4, 5)])
def test_a_run_of_the_spec_conforms(seed: int, servers: int, tmp_path: Path) -> None:
    results = judged(SpecCluster(seed, servers).run(3000).lines, tmp_path)
    assert broken(results) == []


def test_a_good_run_is_not_vacuous(good_run: Lines, tmp_path: Path) -> None:
    results = judged(good_run, tmp_path)
    assert merge(result.verdict for result in results.values()) == Verdict.VALID
    steps = results["raft"].figures["steps"]
    assert {name for name in ACTIONS if name != "crash_restart"} <= set(steps)
    assert results["durability"].figures["restarts"] > 3
    assert set(results["reads"].figures["by_mode"]) == {"write", "consistent", "default", "stale"}
    facts = results["invariants"].figures["facts"]
    assert facts["Elected"] > 3 and facts["Committed"] > 20 and facts["ReadAnswered"] > 10
    assert results["invariants"].figures["cuts"] > facts["Elected"]


# ---------------------------------------------------------------------------------------------- tampered traces


def every(lines: Lines, kind: str, action: str = "", **wanted: Any) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """The lines of a kind (and action) in all files, with their file and place."""
    for name in sorted(lines):
        for place, line in enumerate(lines[name]):
            if line["kind"] == kind and line.get("action", "") == action:
                fields = line | line.get("message", {}) if isinstance(line.get("message"), dict) else line
                if all(fields.get(field) == value for field, value in wanted.items()):
                    yield name, place, line


def drop(lines: Lines, name: str, place: int) -> None:
    """Take a line out so that the sequence numbers do not show it."""
    del lines[name][place]
    for line in lines[name][place:]:
        line["seq"] -= 1


def received_sends(lines: Lines) -> set[str]:
    return {line["message"] for of_file in lines.values() for line in of_file if isinstance(line.get("message"), str)}


def drop_a_line(lines: Lines) -> None:
    del lines["s1-000001.ndjson"][5]


def drop_a_send_that_was_received(lines: Lines) -> None:
    received = received_sends(lines)
    name, place, _ = next(each for each in every(lines, "send", "append_entries") if each[2]["id"] in received)
    drop(lines, name, place)


def alter_a_digest(lines: Lines) -> None:
    _, _, line = next(every(lines, "step", "client_request"))
    line["state"][8] = "0123456789abcdef"


def alter_a_payload(lines: Lines) -> None:
    _, _, line = next(every(lines, "step", "client_request"))
    line["entries"][0][1] = base64.b64encode(msgspec.msgpack.encode(["kv-set", "k1", b"forged", 0])).decode()


def forge_a_vote(lines: Lines) -> None:
    _, _, line = next(every(lines, "send", "vote_response", vote_granted=False))
    line["message"]["vote_granted"] = True


def forge_an_acknowledgement(lines: Lines) -> None:
    _, _, line = next(every(lines, "send", "append_entries_response", success=True, match_index=0))
    line["message"]["match_index"] = 1


def acknowledge_more_than_the_log(lines: Lines) -> None:
    _, _, line = next(every(lines, "send", "append_entries_response", success=True))
    line["message"]["match_index"] = 9_999


def alter_a_sent_slice(lines: Lines) -> None:
    _, _, line = next(each for each in every(lines, "send", "append_entries") if each[2]["message"]["last_log_index"])
    line["message"]["digest"] = "0123456789abcdef"


def alter_a_round(lines: Lines) -> None:
    _, _, line = next(every(lines, "send", "append_entries"))
    line["message"]["round"] += 1


def alter_a_frame_on_arrival(lines: Lines) -> None:
    _, _, line = next(every(lines, "step", "handle_append_entries_request"))
    line["frame"] ^= 1


def deliver_to_another_server(lines: Lines) -> None:
    """Another server's message, which was on its way at that time."""
    name, _, line = list(every(lines, "step", "handle_append_entries_request"))[-1]
    others = [each for _, _, each in every(lines, "send", "append_entries") if not name.startswith(each["to"])]
    line["message"] = max((each["ns"], each["id"]) for each in others if each["ns"] < line["ns"])[1]


def send_twice_under_one_id(lines: Lines) -> None:
    name, _, first = next(every(lines, "send", "request_vote"))
    _, _, second = [each for each in every(lines, "send", "request_vote") if each[0] == name][1]
    second["id"] = first["id"]


def receive_before_sending(lines: Lines) -> None:
    """The leader's first append is answered by a message that is only sent after it arrived."""
    for name, place, line in every(lines, "send", "append_entries"):
        for other, at, handled in every(lines, "step", "handle_append_entries_request", message=line["id"]):
            reply = next(
                (
                    x
                    for x in lines[other][at:]
                    if x["kind"] == "send" and x["to"] == name[:2] and x["id"] in received_sends(lines)
                ),
                None,
            )
            if reply is None:
                continue
            arrival = next(p for p, x in enumerate(lines[name]) if x.get("message") == reply["id"])
            moved = lines[name].pop(arrival)
            lines[name].insert(place, moved)
            for number, each in enumerate(lines[name][1:], 1):
                each["seq"] = number
            assert handled
            return
    raise AssertionError("no exchange in this run")


def lose_a_durable_write(lines: Lines) -> None:
    for name in sorted(lines):
        header = lines[name][0]
        if header["incarnation"] > 1 and header["state"][1] > 1:
            header["state"][1:9] = [0, None, None, 0, 0, 0, 0, "0" * 16]
            return


def recover_another_vote(lines: Lines) -> None:
    for name in sorted(lines):
        header = lines[name][0]
        if header["incarnation"] > 1 and header["state"][2]:
            header["state"][2] = None
            return


def confirm_a_write_that_was_not_issued(lines: Lines) -> None:
    _, _, line = next(every(lines, "step", "persist"))
    line["write"] = 999


def issue_another_point(lines: Lines) -> None:
    _, _, line = next(every(lines, "issue"))
    line["point"][0] += 1


def start_with_a_log(lines: Lines) -> None:
    lines["s1-000001.ndjson"][0]["state"][1:3] = [1, "s1"]


def elect_a_leader_without_votes(lines: Lines) -> None:
    name, place, _ = next(every(lines, "step", "become_leader"))
    while (before := lines[name][place - 1]).get("action") != "timeout":
        place -= 1
        if before.get("action") == "handle_request_vote_response":
            drop(lines, name, place)


def commit_without_a_quorum(lines: Lines) -> None:
    """Remove the acknowledgements that let a leader commit, and what they changed in its recorded state."""
    name, place, line = next(every(lines, "step", "advance_commit_index"))
    while (before := lines[name][place - 1]).get("action") != "become_leader":
        place -= 1
        if before.get("action") == "handle_append_entries_response":
            drop(lines, name, place)
    for each in lines[name][place:]:
        if "state" in each:
            each["state"][12] = [[peer, 0] for peer, _ in each["state"][12]]
    assert line["action"] == "advance_commit_index"


def apply_beyond_the_commit_index(lines: Lines) -> None:
    _, _, line = next(every(lines, "step", "apply"))
    line["index"] += 5


def answer_a_read_that_was_not_confirmed(lines: Lines) -> None:
    name, place, _ = next(every(lines, "step", "confirm_read"))
    drop(lines, name, place)


def answer_from_the_wrong_index(lines: Lines) -> None:
    _, _, line = next(each for each in every(lines, "answer", mode="stale") if each[2]["applied"] > 5)
    line["applied"] -= 5


def answer_with_another_value(lines: Lines) -> None:
    _, _, line = next(each for each in every(lines, "answer", mode="consistent") if each[2]["result"][1])
    line["result"][1] = line["result"][1][:-1]


def answer_with_another_index(lines: Lines) -> None:
    _, _, line = next(each for each in every(lines, "answer", mode="stale") if each[2]["applied"] > 5)
    line["result"][0] += 1


def lie_about_a_write(lines: Lines) -> None:
    _, _, line = next(every(lines, "answer", mode="write", result=False))
    line["result"] = True


def answer_a_write_for_another_key(lines: Lines) -> None:
    _, _, line = next(each for each in every(lines, "answer", mode="write") if each[2]["query"][0] == "kv-set")
    line["query"][1] = "k9"


def acknowledge_a_write_twice(lines: Lines) -> None:
    name, place, line = next(every(lines, "answer", mode="write"))
    lines[name].insert(place + 1, dict(line))
    for each in lines[name][place + 1 :]:
        each["seq"] += 1


def answer_without_a_round(lines: Lines) -> None:
    _, _, line = next(every(lines, "answer", mode="stale"))
    line["mode"], line["read"] = "consistent", "r999"


def apply_a_write_twice(lines: Lines) -> None:
    """Two applied entries carry one client's write, as if it had been tried again after it was applied."""
    (_, _, first), (_, _, second) = list(every(lines, "answer", mode="write"))[:2]
    for _, _, line in every(lines, "propose", request=second["request"]):
        line["request"] = first["request"]
    second["request"] = first["request"]


def answer_another_clients_write(lines: Lines) -> None:
    _, _, line = next(every(lines, "answer", mode="write"))
    line["request"] = "s9/1/r1"


def propose_what_was_not_appended(lines: Lines) -> None:
    _, _, line = next(every(lines, "propose"))
    line["index"] += 100


def answer_a_default_read_as_a_follower(lines: Lines) -> None:
    name, place, line = next(every(lines, "answer", mode="stale"))
    while lines[name][place].get("state", ["leader"])[0] == "leader":
        place -= 1
    line["mode"] = "default"


TAMPERED: dict[Callable[[Lines], None], tuple[str, str]] = {
    drop_a_line: ("raft", "the trace is complete"),
    drop_a_send_that_was_received: ("provenance", "what is received was sent"),
    alter_a_digest: ("raft", "client_request yields the spec's state"),
    alter_a_payload: ("raft", "client_request yields the spec's state"),
    forge_a_vote: ("raft", "vote_response is enabled"),
    forge_an_acknowledgement: ("durability", "append_entries_response: durable before it is relied upon"),
    acknowledge_more_than_the_log: ("raft", "append_entries_response is enabled"),
    alter_a_sent_slice: ("raft", "append_entries sends the spec's message"),
    alter_a_round: ("raft", "append_entries sends the spec's message"),
    alter_a_frame_on_arrival: ("provenance", "a message arrives as it was sent"),
    deliver_to_another_server: ("provenance", "a message reaches its destination only"),
    send_twice_under_one_id: ("provenance", "message ids are unique"),
    receive_before_sending: ("provenance", "program order and send -> receive are acyclic"),
    lose_a_durable_write: ("durability", "the disk keeps what it confirmed, and nothing that was not written"),
    recover_another_vote: ("durability", "the disk keeps what it confirmed, and nothing that was not written"),
    confirm_a_write_that_was_not_issued: ("durability", "only issued writes are confirmed"),
    issue_another_point: ("raft", "a write covers all that is in memory"),
    start_with_a_log: ("durability", "a new server has an empty disk"),
    elect_a_leader_without_votes: ("raft", "become_leader is enabled"),
    commit_without_a_quorum: ("raft", "advance_commit_index is enabled"),
    apply_beyond_the_commit_index: ("raft", "apply is enabled"),
    answer_a_read_that_was_not_confirmed: ("raft", "answer_read is enabled"),
    answer_from_the_wrong_index: ("reads", "answers come from the applied state"),
    answer_with_another_value: ("reads", "a read is answered from the state at its index"),
    answer_with_another_index: ("reads", "a read is answered from the state at its index"),
    lie_about_a_write: ("reads", "a write is told its result"),
    answer_a_write_for_another_key: ("reads", "a write's answer is for its entry"),
    acknowledge_a_write_twice: ("reads", "a write is answered once, by the leader that appended it"),
    answer_without_a_round: ("reads", "a consistent read is confirmed by a quorum"),
    apply_a_write_twice: ("forwarding", "a write is applied at most once"),
    answer_another_clients_write: ("forwarding", "a write is answered by its own entry"),
    propose_what_was_not_appended: ("forwarding", "a write's entry was appended by the process that names it"),
    answer_a_default_read_as_a_follower: ("reads", "a default read is answered by a leader"),
}


@pytest.mark.parametrize("tamper", TAMPERED, ids=lambda tamper: tamper.__name__)
def test_a_trace_that_was_tampered_with_is_rejected(
    lines: Lines, tamper: Callable[[Lines], None], tmp_path: Path
) -> None:
    tamper(lines)
    results = judged(lines, tmp_path)
    assert TAMPERED[tamper] in broken(results)
    guilty = results[TAMPERED[tamper][0]]
    assert "line" in guilty.reason and "the last lines of" in guilty.details
